"""The curve of runs that follow each other, read from their logs."""

import json
from pathlib import Path

import pytest

from benchmarks.training_curve import draw, read_curve
from rsb_pose_core.errors import DataError


def write_run(folder: Path, *validations: tuple[int, int, float], end: int) -> Path:
    """Lines of a log: (step, input_size, median of MPJPE_ab in mm); 10 pairs a step."""
    lines: list[dict[str, object]] = []
    for step, size, error in validations:
        found = {
            f'{name}_{kind}': error * scale
            for name, scale in (('disparity', 0.001), ('absolute_mm', 1.0), ('relative_mm', 0.9))
            for kind in ('median', 'mean')
        }
        lines.append(
            {
                'step': step, 'pairs_seen': 10 * step, 'stage': f's{size}', 'input_size': size,
                'kind': 'validation', 'jittered_initial': found,
            }
        )  # fmt: skip
    lines.append({'step': end, 'pairs_seen': 10 * end, 'kind': 'train'})
    folder.mkdir()
    (folder / 'log.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return folder


def test_runs_follow_each_other(tmp_path: Path) -> None:
    first = write_run(tmp_path / 'a', (50, 128, 200.0), end=100)
    second = write_run(tmp_path / 'b', (20, 256, 150.0), (40, 256, 120.0), end=40)
    curve = read_curve([first, second])
    assert [v.pairs for v in curve] == [500, 1200, 1400]
    assert [v.step for v in curve] == [50, 120, 140]
    assert [v.input_size for v in curve] == [128, 256, 256]
    assert [v.figures[1] for v in curve] == [(200.0, 200.0), (150.0, 150.0), (120.0, 120.0)]
    assert curve[2].figures[2][0] == pytest.approx(108.0)
    draw({'one': curve, 'other': curve[1:]}, tmp_path / 'curve.png')
    assert (tmp_path / 'curve.png').stat().st_size > 5000


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'log.jsonl is missing; give folders that rsb-pose train'):
        read_curve([tmp_path / 'none'])
    with pytest.raises(DataError, match='no validation; train with --val'):
        read_curve([write_run(tmp_path / 'a', end=10)])
