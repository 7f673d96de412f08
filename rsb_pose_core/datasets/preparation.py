"""Writing a data set's rectified pairs into the files that training and evaluation read.

Below the destination:
    train/NAME.npz, test/NAME.npz   the pairs of a recording (synthesis.frames), one person each
    checks/NAME.jpg                 both views of one of its pairs with the joints and their rows
    checks/NAME.json                what was counted and measured; written last
    index.json                      settings, counts by split, failures and warnings
A folder of pairs is what `rsb-pose train` and `rsb-pose evaluate` take. A recording with a
checks/NAME.json is finished: another run skips it, unless some of its pairs could not be read.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.datasets.preparation_check import check_picture, check_recording
from rsb_pose_core.datasets.prepared import PreparedPair, Recording, pixels
from rsb_pose_core.errors import ConfigError, DataError, RsbPoseError
from rsb_pose_core.skeleton import COCO_17, H36M_17
from rsb_pose_core.synthesis.frames import (
    LOSSLESS_WEBP,
    Arrays,
    encode_pictures,
    join_frames,
    occluded_subset,
)
from rsb_pose_core.synthesis.labels import OUTSIDE
from rsb_pose_core.synthesis.processes import in_processes
from rsb_pose_core.synthesis.shards import write_arrays

VERSION = 1  # of what is written; files of another version are not continued
SPLITS = ('train', 'test')
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95)
SMALL_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 88)


@dataclass(frozen=True)
class Report:
    """What became of a recording; `failure` says why nothing of it was written."""

    name: str
    split: str
    pairs: int = 0
    occluded_pairs: int = 0  # frames.occluded_subset
    unreadable: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    measured: Mapping[str, float] | None = None
    failure: str | None = None

    @classmethod
    def read(cls, path: Path) -> 'Report | None':
        """None where there is none that a whole run wrote."""
        try:
            values = json.loads(path.read_text())
            for name in ('unreadable', 'warnings'):
                values[name] = tuple(values[name])
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Preparation:
    """What a run of `prepare` found."""

    reports: tuple[Report, ...]
    problems: tuple[str, ...]

    @property
    def failures(self) -> list[str]:
        """A sentence for each recording and pair that is missing."""
        failed = [f'{r.name}: {r.failure}' for r in self.reports if r.failure]
        unread = [f'{r.name}: {text}' for r in self.reports for text in r.unreadable]
        return [*self.problems, *failed, *unread]

    @property
    def warnings(self) -> list[str]:
        """A sentence for each thing that a right calibration does not show."""
        return [f'{report.name}: {text}' for report in self.reports for text in report.warnings]

    def counts(self) -> dict[str, dict[str, int]]:
        """Recordings, pairs and pairs with occluded joints of each split."""
        return {
            split: {
                'recordings': sum(r.split == split and not r.failure for r in self.reports),
                'pairs': sum(r.pairs for r in self.reports if r.split == split),
                'occluded_pairs': sum(r.occluded_pairs for r in self.reports if r.split == split),
            }
            for split in SPLITS
        }


def prepare(
    recordings: Sequence[Recording],
    destination: Path,
    settings: Mapping[str, object],
    *,
    problems: Sequence[str] = (),
    processes: int = 1,
    lossless: bool = False,
) -> Preparation:
    """Write all recordings that are not finished; go on after those that cannot be read.

    settings: what the pairs depend on, kept in index.json; problems: what was found missing
    before, kept there as well. Pictures are JPEG of quality 95, or `lossless` WebP.

    Raises ConfigError where the destination holds pairs of other settings, and RsbPoseError where
    it cannot be written.
    """
    doubled = len(recordings) - len({recording.name for recording in recordings})
    assert not doubled, f'{doubled} recordings share their name with another'
    settings = {'version': VERSION, 'lossless': lossless, **settings}
    index = destination / 'index.json'
    _same_settings(index, settings)
    try:
        for folder in (*SPLITS, 'checks'):
            (destination / folder).mkdir(parents=True, exist_ok=True)
            for left_over in (destination / folder).glob('*.part'):
                left_over.unlink()
        if not index.exists():
            _write_json(index, {'settings': settings})
        reports = {r.name: _finished(destination, r) for r in recordings}
        tasks = [n for n, recording in enumerate(recordings) if reports[recording.name] is None]
        work = _Prepare(tuple(recordings), destination, lossless)
        done = _here(work, tasks) if processes == 1 else in_processes(work, tasks, processes)
        for _, report in tqdm(done, total=len(tasks), desc='prepare', unit='recording'):
            reports[report.name] = report
        before = [
            Report.read(path)
            for path in sorted((destination / 'checks').glob('*.json'))
            if path.stem not in reports
        ]
        all_reports = (*reports.values(), *before)
        found = Preparation(
            tuple(report for report in all_reports if report is not None), tuple(problems)
        )
        _write_json(index, _index(settings, found))
    except OSError as error:
        raise RsbPoseError(
            f'{destination}: cannot be written ({error}); make room and run again: what is '
            f'finished is kept'
        ) from error
    return found


def _same_settings(index: Path, settings: Mapping[str, object]) -> None:
    if not index.exists():
        return
    try:
        before = json.loads(index.read_text())['settings']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{index}: no index of prepared pairs; give another destination or delete it'
        ) from error
    now = json.loads(json.dumps(settings))
    if before != now:
        other = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))[0]
        raise ConfigError(
            f'{index.parent} was prepared with {other} {before.get(other)!r}, not '
            f'{now.get(other)!r}; give another destination or delete it'
        )


def _index(settings: Mapping[str, object], found: Preparation) -> dict[str, object]:
    return {
        'settings': settings,
        'splits': found.counts(),
        'failures': found.failures,
        'warnings': found.warnings,
        'recordings': {
            report.name: {'split': report.split, 'pairs': report.pairs}
            for report in found.reports
            if not report.failure
        },
    }


def _write_json(path: Path, values: object) -> None:
    """Whole or not at all."""
    unfinished = path.with_suffix('.part')
    unfinished.write_text(json.dumps(values, indent=1) + '\n')
    unfinished.replace(path)


def _finished(destination: Path, recording: Recording) -> Report | None:
    report = Report.read(destination / 'checks' / f'{recording.name}.json')
    if report is None or report.unreadable or report.split != recording.split:
        return None
    return report if _pairs_path(destination, recording).exists() else None


def _pairs_path(destination: Path, recording: Recording) -> Path:
    return destination / recording.split / f'{recording.name}.npz'


# ---- one recording ----


def _here(
    prepare: Callable[[], Callable[[int], Report]], tasks: Sequence[int]
) -> Iterator[tuple[int, Report]]:
    """As in_processes, in this one."""
    work = prepare()
    for task in tasks:
        yield task, work(task)


@dataclass(frozen=True)
class _Prepare:
    """Prepares a process to write recordings by their number."""

    recordings: tuple[Recording, ...]
    destination: Path
    lossless: bool

    def __call__(self) -> Callable[[int], Report]:
        return lambda task: prepare_recording(
            self.recordings[task], self.destination, self.lossless
        )


def prepare_recording(recording: Recording, destination: Path, lossless: bool = False) -> Report:
    """Write the pairs of a recording, its check and its report. Raises OSError, on a full disk."""
    path = _pairs_path(destination, recording)
    report_path = destination / 'checks' / f'{recording.name}.json'
    for stale in (report_path, path):
        stale.unlink(missing_ok=True)
    parts: list[Arrays] = []
    unreadable: list[str] = []
    try:
        for pair in recording.pairs():
            if isinstance(pair, DataError):
                unreadable.append(str(pair))
                continue
            parts.append(pair_arrays(pair, lossless))
    except RsbPoseError as error:
        return Report(recording.name, recording.split, failure=str(error))
    if not parts:
        reason = unreadable[0] if unreadable else 'it has no pairs'
        return Report(recording.name, recording.split, failure=reason)
    arrays = join_frames(parts)
    write_arrays(path, arrays)
    visibility = arrays['h36m_visibility'][:, 0]
    some = [stored_pair(parts[n]) for n in sorted({0, len(parts) // 2, len(parts) - 1})]
    check = check_recording(some, arrays['h36m_xyz_m'][:, 0].astype(np.float64), visibility)
    picture = check_picture(some[len(some) // 2], f'{recording.split}/{recording.name}')
    encoded = cv2.imencode('.jpg', picture[..., ::-1], SMALL_JPEG)[1]
    report_path.with_suffix('.jpg').write_bytes(encoded.tobytes())
    report = Report(
        name=recording.name,
        split=recording.split,
        pairs=len(parts),
        occluded_pairs=len(occluded_subset(visibility)),
        unreadable=tuple(unreadable),
        warnings=tuple(check.warnings()),
        measured=asdict(check),
    )
    _write_json(report_path, asdict(report))
    return report


def pair_arrays(pair: PreparedPair, lossless: bool = False) -> Arrays:
    """What a file of synthesis.frames holds of one pair; its COCO joints are unknown."""
    arrays: Arrays = {}
    kind, options = ('.webp', LOSSLESS_WEBP) if lossless else ('.jpg', JPEG)
    for view in ('left', 'right'):
        bgr = getattr(pair, view)[None, ..., ::-1]
        arrays |= encode_pictures(f'{view}_pictures', view, bgr, kind, options)
    uv_left, uv_right = pixels(pair.xyz_m, pair.calibration)
    unknown = np.full((len(COCO_17), 3), np.nan)
    codes = np.full((2, len(COCO_17)), OUTSIDE)
    assert len(pair.xyz_m) == len(H36M_17), 'pairs have the joints of H36M_17'
    labels = {
        'h36m': (pair.xyz_m, uv_left, uv_right, pair.visibility),
        'coco': (unknown, unknown[:, :2], unknown[:, :2], codes),
    }
    for skeleton, (xyz_m, left, right, visibility) in labels.items():
        arrays[f'{skeleton}_xyz_m'] = xyz_m[None, None].astype(np.float32)
        arrays[f'{skeleton}_uv_left'] = left[None, None].astype(np.float32)
        arrays[f'{skeleton}_uv_right'] = right[None, None].astype(np.float32)
        arrays[f'{skeleton}_visibility'] = visibility[None, None].astype(np.uint8)
    for view in ('left', 'right'):
        arrays[f'box_{view}'] = getattr(pair, f'box_{view}')[None, None].astype(np.float32)
    arrays['present'] = np.ones((1, 1), bool)
    calibration = torch.stack(pair.calibration.fields()).double().numpy()
    arrays['calibration'] = calibration[None]
    return arrays


def stored_pair(arrays: Arrays) -> PreparedPair:
    """The pair of `pair_arrays`, as it is read back."""
    pictures = [
        np.asarray(cv2.imdecode(arrays[f'{view}_pictures'], cv2.IMREAD_COLOR), np.uint8)
        for view in ('left', 'right')
    ]
    return PreparedPair(
        left=np.ascontiguousarray(pictures[0][..., ::-1]),
        right=np.ascontiguousarray(pictures[1][..., ::-1]),
        xyz_m=arrays['h36m_xyz_m'][0, 0].astype(np.float64),
        visibility=arrays['h36m_visibility'][0, 0],
        box_left=arrays['box_left'][0, 0].astype(np.float64),
        box_right=arrays['box_right'][0, 0].astype(np.float64),
        calibration=StereoCalibration.from_values(*arrays['calibration'][0].tolist()),
    )
