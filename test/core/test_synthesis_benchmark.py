"""The stopwatch, the benchmark's table and the contact sheet."""

from pathlib import Path

import cv2
import drawn_pairs
import numpy as np
import pytest
import torch

from rsb_pose_core.cli import main
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis import benchmark, sheet, timing
from rsb_pose_core.synthesis.labels import OCCLUDED, OUTSIDE, VISIBLE
from rsb_pose_core.synthesis.pairs import PairSpace


def test_a_stage_inside_another_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 12.0, 15.0, 16.0])
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: next(clock))
    with timing.measured('cpu') as watch, timing.stage('outer'), timing.stage('inner'):
        pass
    assert watch.seconds == {'outer': 3.0, 'inner': 3.0}


def test_stages_outside_a_measurement_are_not_counted() -> None:
    with timing.measured('cpu') as watch:
        pass
    with timing.stage('late'):
        pass
    assert watch.seconds == {}


@pytest.mark.gpu
def test_kernels_under_way_count_for_the_stage_that_started_them() -> None:
    a = torch.randn(8000, 8000, device='cuda')
    with timing.measured('cuda') as watch:
        with timing.stage('multiply'):
            for _ in range(20):
                a @ a
        with timing.stage('nothing'):
            pass
    assert watch.seconds['multiply'] > 20 * watch.seconds['nothing']


def test_the_benchmark_counts_the_pairs_of_all_processes(tmp_path: Path) -> None:
    """Two processes draw two batches of 3 pairs each, of 0.25 s, at the same time."""
    text = benchmark.measure(tmp_path, 2, 'cpu', 3, 12, make=drawn_pairs.drawn_slowly)
    rate, rest = text.splitlines()[0].split(' pairs/s: ')
    assert rest.startswith('12 pairs of 256 x 256 pixels')
    seconds = float(rest.partition(' in ')[2].partition(' s')[0])
    assert seconds >= 0.5
    assert float(rate) == pytest.approx(12 / seconds, rel=0.12)


def test_the_table_gives_milliseconds_of_a_pair_and_shares() -> None:
    one = benchmark.Measured(100, 10.0, 9.0, 2.0, {'raster': 0.3, 'people': 0.1}, 0)
    two = benchmark.Measured(100, 20.0, 11.0, 3.0, {'raster': 0.5, 'people': 0.1}, 0)
    lines = benchmark.table([one, two], 'cpu', 10).splitlines()
    assert lines[0].startswith('10.0 pairs/s: 200 pairs')
    assert lines[1] == '100 ms of CPU time a pair, prepared in 3.0 s'
    assert [line.split() for line in lines[3:]] == [
        ['raster', '40.00', '80.0%'], ['people', '10.00', '20.0%'], ['all', '50.00'],
    ]  # fmt: skip


# ---- the sheet ----


def test_joints_are_drawn_in_the_colour_of_their_visibility() -> None:
    picture = np.zeros((100, 140, 3), np.uint8)
    uv = np.stack([np.linspace(5, 130, 17), np.full(17, 40.0)], 1)
    uv[3] = (-50, 200)
    codes = np.full(17, VISIBLE, np.uint8)
    codes[3], codes[8] = OUTSIDE, OCCLUDED
    sheet.draw_joints(picture, uv, codes, thin=False)
    assert tuple(picture[40, round(uv[8, 0])]) == sheet.COLORS[OCCLUDED]
    assert tuple(picture[40, round(uv[5, 0])]) == sheet.COLORS[VISIBLE]
    assert tuple(picture[98, 1]) == sheet.COLORS[OUTSIDE]


def test_the_sheet_shows_every_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, 'make_renderer', drawn_pairs.drawn_frames)
    sheet.write_sheet(tmp_path / 'sheet.png', tmp_path, 'train', 0, 5, 'cpu', 2)
    page = cv2.imread(str(tmp_path / 'sheet.png'))
    pairs = drawn_pairs.drawn_frames(tmp_path, 'train', 0, PairSpace(), 'cpu').batch(2, 0, 4)
    tile = sheet.pair_tiles(pairs)[0][..., ::-1]
    height, width = tile.shape[:2]
    found = [
        np.array_equal(page[y : y + height, x : x + width], tile)
        for y in range(page.shape[0] - height + 1)
        for x in range(0, page.shape[1] - width + 1, width + sheet.GAP_PX)
        if np.array_equal(page[y, x : x + width], tile[0])
    ]
    assert found == [True]


def test_a_sheet_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, 'make_renderer', drawn_pairs.drawn_frames)
    with pytest.raises(RsbPoseError, match='cannot be written'):
        sheet.write_sheet(tmp_path / 'no' / 'sheet.png', tmp_path, 'train', 0, 1, 'cpu', 1)


# ---- the command ----


def test_the_help_names_every_way_to_render(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['render', '--help'])
    text = capsys.readouterr().out
    for option in ('--out', '--sheet', '--benchmark', '--maps', '--processes', '--batch-size'):
        assert option in text


def test_a_number_below_one_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['render', '--out', 'o', '--data', 'd', '--pairs', '0']) == 2
    assert capsys.readouterr().err == 'rsb-pose render: --pairs must be at least 1\n'


def test_a_batch_that_does_not_divide_a_shard_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(['render', '--out', 'o', '--data', 'd', '--batch-size', '7']) == 2
    assert 'expected a divisor of 100' in capsys.readouterr().err
