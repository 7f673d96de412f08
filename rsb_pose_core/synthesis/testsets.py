"""Frozen test sets: full pictures that a seed, a table and the test split's assets define.

mhad-like       Berkeley MHAD's quad: 226 mm, f 533 px, 640 x 480; one person at 2.0-3.3 m in
                upright recorded actions, mild sensor
zed-like        ZED 2: 120 mm
realsense-like  D435: 50 mm
wide            a pair of Human3.6M's cameras: 3.7 m
crowded         two to four others and occluders

Each has 1,000 pairs of the split 'test', whose bodies, garments, textures, light and motion
training never shows. `cycles` is the first 200 pairs of mhad-like, path-traced (cycles.py).
testsets.json holds a SHA-256 of each file (see frames.checksum) and with what they were made.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from rsb_pose_core.errors import DataError, RsbPoseError
from rsb_pose_core.synthesis.cameras import RIGS, CameraSpace, Drift, Mounting
from rsb_pose_core.synthesis.frames import checksum, frame_arrays, join_frames, read_frames
from rsb_pose_core.synthesis.levels import LEVELS
from rsb_pose_core.synthesis.pairs import MOTION, PHOTOGRAPHS, PairSpace, StereoPairs
from rsb_pose_core.synthesis.poses import Mixture
from rsb_pose_core.synthesis.shards import Arrays, PairFiles, make_files

CHECKSUMS = Path(__file__).with_name('testsets.json')
DATA_FOLDERS = (*MOTION, *PHOTOGRAPHS)


@dataclass(frozen=True)
class TestSet:
    """From what a set is drawn."""

    __test__ = False  # to pytest: no class of tests

    space: PairSpace
    seed: int  # of the test split
    pairs: int = 1000


def _head(rig: str, width: int, **changes: Any) -> CameraSpace:
    """Shots by one rig in the mode of a width, in well-kept state."""
    preset = RIGS[rig]
    mode = next(mode for mode in preset.modes if mode.width == width)
    return CameraSpace(rigs=(replace(preset, modes=(mode,)),), preset_share=1.0, **changes)


LABORATORY = Drift(severity_deg=(0.008, 0.03))
TRIPODS = (Mounting((0.9, 1.7), 1.0, (-30.0, 20.0)),)
# what Berkeley MHAD's people do: recorded upright actions, with each other's arms, on their feet
ACTIONS = Mixture(
    recorded=0.55,
    rearmed=0.3,
    perturbed=0.15,
    free=0.0,
    posture=0.0,
    gestures=0.25,
    categories=('stand', 'walk', 'air', 'bend', 'crouch'),
)

SETS = {
    'mhad-like': TestSet(
        PairSpace(
            crop_size=0, others=(1.0,), occluders=0.0, outdoors=0.0, sensor=LEVELS['mild'],
            poses=ACTIONS, carrying=0.0,
            cameras=_head(
                'mhad-quad', 640, distance_m=(2.0, 3.3), mountings=TRIPODS, whole_share=1.0,
                drift=LABORATORY, moving_share=0.0,
            ),
        ),
        seed=1,
    ),
    'zed-like': TestSet(
        PairSpace(crop_size=0, cameras=_head('zed2', 672, distance_m=(0.8, 8.0))), seed=2
    ),
    'realsense-like': TestSet(
        PairSpace(crop_size=0, cameras=_head('d435', 640, distance_m=(0.6, 5.0))), seed=3
    ),
    'wide': TestSet(
        PairSpace(
            crop_size=0, others=(1.0,), occluders=0.0, outdoors=0.0, sensor=LEVELS['mild'],
            cameras=_head(
                'h36m', 500, distance_m=(3.5, 6.5), mountings=TRIPODS, whole_share=1.0,
                drift=LABORATORY, moving_share=0.0,
            ),
        ),
        seed=4,
    ),
    'crowded': TestSet(
        PairSpace(
            crop_size=0, others=(0.0, 0.0, 0.4, 0.3, 0.3), occluders=1.0,
            cameras=_head('mhad-quad', 640, distance_m=(1.5, 5.0)),
        ),
        seed=5,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class FrameFiles(PairFiles):
    """Files of full pictures: see frames."""

    split: str = 'test'
    pairs_per_file: int = 25
    pairs_per_batch: int = 5
    files_per_casting: int = 8

    @property
    def title(self) -> str:
        return self.folder.name

    @property
    def array_names(self) -> tuple[str, ...]:
        return ('left_pictures', *(('depth_left',) if self.maps else ()))

    def path(self, number: int) -> Path:
        return self.folder / f'frames_{number:03d}.npz'

    def arrays_of(self, batches: Iterable[StereoPairs]) -> Arrays:
        return join_frames([frame_arrays(pairs, self.maps) for pairs in batches])


def set_files(name: str, out: Path, data: Path, maps: bool = False) -> FrameFiles:
    """The files of a set in a folder of its name."""
    test_set = SETS[name]
    return FrameFiles(out / name, data, seed=test_set.seed, maps=maps, space=test_set.space)


def make_set(files: FrameFiles, processes: int, pairs: int) -> int:
    """Make the files that hold the first `pairs` pairs; returns how many files these are.

    Files that are there are kept. Raises RsbPoseError as shards.make_files does.
    """
    count = -(-pairs // files.pairs_per_file)
    make_files(files, count, processes)
    return count


# ---- checksums ----


@dataclass(frozen=True)
class Frozen:
    """Checksums by set, and with what they were made."""

    sets: dict[str, list[str]]
    made_with: dict[str, str]
    data: dict[str, str]

    @classmethod
    def read(cls, path: Path = CHECKSUMS) -> 'Frozen':
        """Raises DataError where the file is missing or not what freeze() writes."""
        try:
            values = json.loads(path.read_text())
            return cls(values['sets'], values['made_with'], values['data'])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}: no checksums of test sets ({error}); write them with '
                f'rsb-pose testset NAME --freeze'
            ) from error

    def write(self, path: Path = CHECKSUMS) -> None:
        values = {'made_with': self.made_with, 'data': self.data, 'sets': self.sets}
        path.write_text(json.dumps(values, indent=1) + '\n')


Checksums = Iterable[tuple[Path, str]]


def freeze(name: str, checksums: Checksums, data: Path, path: Path = CHECKSUMS) -> None:
    """Write down the checksums of a set that was made from `data`.

    Other sets keep theirs where they were made with the same programs and data.
    """
    made_with, fingerprint = versions(), fingerprints(data)
    sets: dict[str, list[str]] = {}
    if path.exists():
        before = Frozen.read(path)
        if (before.made_with, before.data) == (made_with, fingerprint):
            sets = before.sets
    sets[name] = [value for _, value in checksums]
    Frozen(sets, made_with, fingerprint).write(path)


def check(
    name: str, checksums: Checksums, data: Path | None = None, path: Path = CHECKSUMS
) -> int:
    """Compare the files of a set with the committed checksums; returns how many there are.

    Raises RsbPoseError, one sentence, that names the files that differ and what to do: a set made
    by other versions or from other data is another set.
    """
    frozen = Frozen.read(path)
    if name not in frozen.sets:
        raise DataError(
            f'{path.name} has no checksums of {name}; write them with rsb-pose testset {name} '
            f'--freeze'
        )
    committed = frozen.sets[name]
    wrong, count = [], 0
    for file, found in checksums:
        count += 1
        number = int(file.stem.rpartition('_')[2])
        if number >= len(committed) or found != committed[number]:
            wrong.append(str(file))
    if wrong:
        named = ', '.join(wrong[:3]) + (f' and {len(wrong) - 3} more' if len(wrong) > 3 else '')
        raise RsbPoseError(
            f'{named} of {count} files differ from the committed checksums of {name}; '
            f'{_advice(frozen, data)}'
        )
    return count


def _advice(frozen: Frozen, data: Path | None) -> str:
    here = versions()
    others = [
        f'{program} {version} (here {here[program]})'
        for program, version in frozen.made_with.items()
        if here.get(program) != version
    ]
    if others:
        return f'they were made with {", ".join(others)}: make the set with these'
    if data is not None:
        now = fingerprints(data)
        folders = [folder for folder in DATA_FOLDERS if now[folder] != frozen.data.get(folder)]
        if folders:
            named = ', '.join(str(data / folder) for folder in folders)
            return f'the files of {named} are not those that the set was made from'
    return 'delete them and run again; files that still differ come from a changed renderer'


def files_of(folder: Path) -> list[Path]:
    """The files of a set. Raises DataError where there are none."""
    files = sorted(folder.glob('frames_*.npz'))
    if not files:
        raise DataError(f'{folder}: no files of a test set; make them with rsb-pose testset')
    return files


def frame_checksums(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, SHA-256 of its pictures and labels) of the files of a set.

    Raises DataError where there are none or one cannot be read.
    """
    for file in tqdm(files_of(folder), desc=f'check {folder.name}', unit='file'):
        yield file, checksum(read_frames(file))


def versions() -> dict[str, str]:
    """What the bits of a set depend on beside this package and its data."""
    return {
        'torch': torch.__version__.partition('+')[0],
        'numpy': np.__version__,
        'opencv': cv2.__version__,
        'processor': _processor(),
    }


def _processor() -> str:
    """Model of the CPU: made to agree (see processes.ARITHMETIC), but only tried on some."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.machine()
    named = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return named[0] if named else platform.machine()


def fingerprints(data: Path) -> dict[str, str]:
    """A digest of the names and sizes of all files, by folder of the data; '' without one."""
    found = {}
    for name in DATA_FOLDERS:
        files = sorted(path for path in (data / name).rglob('*') if path.is_file())
        lines = [f'{path.relative_to(data).as_posix()} {path.stat().st_size}\n' for path in files]
        found[name] = hashlib.sha256(''.join(lines).encode()).hexdigest()[:16] if lines else ''
    return found
