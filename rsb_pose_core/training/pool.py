"""Pairs for training and evaluation, left on disk, growing while new files appear there."""

import glob
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer
from tqdm import tqdm

from rsb_pose_core.errors import DataError
from rsb_pose_core.synthesis.frames import crops, is_frames, occluded_subset
from rsb_pose_core.training.augmentation import Pair, stored_side
from rsb_pose_core.training.mapped import mapped_array

SHARD_ARRAYS = ('left', 'right', 'xyz_m', 'uv_left', 'uv_right', 'visibility', 'calibration')
FRAME_PICTURES = ('left_pictures', 'right_pictures')
# What crops are cut by, and what is known of the subject.
FRAME_LABELS = (
    'left_ends', 'right_ends', 'h36m_xyz_m', 'h36m_uv_left', 'h36m_uv_right', 'h36m_visibility',
    'box_left', 'present', 'calibration',
)  # fmt: skip


@runtime_checkable
class PairFile(Protocol):
    """The pairs of one file."""

    def __len__(self) -> int: ...

    def pair(self, row: int) -> Pair: ...

    def labels(self, row: int) -> Pair: ...


class CropFile:
    """A shard of synthesis.shards: square crops."""

    def __init__(self, path: str) -> None:
        """Raises DataError where arrays are missing or do not fit each other."""
        try:
            self.arrays = {name: mapped_array(path, name) for name in ('left', 'right')}
            with np.load(path) as archive:
                for name in SHARD_ARRAYS[2:]:
                    self.arrays[name] = archive[name]
        except KeyError as error:
            raise DataError(
                f'{path}: {error.args[0]}, expected arrays {", ".join(SHARD_ARRAYS)}; '
                f'render the shard again'
            ) from error
        pairs, height, width = self.arrays['left'].shape[:3]
        joints = self.arrays['xyz_m'].shape[1]
        expected = {
            'left': (pairs, height, width, 3),
            'right': (pairs, height, width, 3),
            'xyz_m': (pairs, joints, 3),
            'uv_left': (pairs, joints, 2),
            'uv_right': (pairs, joints, 2),
            'visibility': (pairs, 2, joints),
            'calibration': (pairs, 6),
        }
        for name, shape in expected.items():
            if self.arrays[name].shape != shape:
                raise DataError(
                    f'{path}: array {name} has shape {self.arrays[name].shape}, expected {shape}; '
                    f'render the shard again'
                )

    def __len__(self) -> int:
        return len(self.arrays['left'])

    def pair(self, row: int) -> Pair:
        return {name: np.asarray(array[row]) for name, array in self.arrays.items()}

    def labels(self, row: int) -> Pair:
        return {name: self.arrays[name][row] for name in ('xyz_m', 'visibility', 'calibration')}


class FrameFile:
    """Full pictures of synthesis.frames; the subject is cut out whenever a pair is asked for."""

    def __init__(self, path: str, crop_size: int) -> None:
        """Raises DataError where arrays are missing or do not fit each other."""
        self.path, self.crop_size = path, crop_size
        try:
            self.arrays = {name: mapped_array(path, name) for name in FRAME_PICTURES}
            with np.load(path) as archive:
                for name in FRAME_LABELS:
                    self.arrays[name] = archive[name]
        except KeyError as error:
            raise DataError(
                f'{path}: {error.args[0]}, expected full pictures of stereo pairs, as rsb-pose '
                f'testset and rsb-pose prepare make them; make the file again'
            ) from error
        for name in FRAME_LABELS:
            if len(self.arrays[name]) != len(self):
                raise DataError(
                    f'{path}: array {name} has {len(self.arrays[name])} entries, expected '
                    f'{len(self)} as of present; make the file again'
                )

    def __len__(self) -> int:
        return len(self.arrays['present'])

    def pair(self, row: int) -> Pair:
        try:
            found = crops(self.arrays, [row], self.crop_size)
        except DataError as error:
            raise DataError(f'{self.path}: {error}') from error
        return {name: array[0] for name, array in found.items()}

    def labels(self, row: int) -> Pair:
        known = {name: self.arrays[f'h36m_{name}'][row, 0] for name in ('xyz_m', 'visibility')}
        return known | {'calibration': self.arrays['calibration'][row]}


class PairPool:
    """All pairs of the files that match a glob, read from disk when they are asked for.

    A folder stands for all .npz in it. A file is a shard of crops (synthesis.shards), or one of
    full pictures (synthesis.frames), of which the pool hands out crops of their subjects with
    pixels enough for a network of `input_size`. Pairs keep their index for good: files found later
    only append. Beyond `limit` pairs new files are left out.
    """

    def __init__(self, pattern: str, limit: int | None = None, input_size: int = 256) -> None:
        folder = os.path.isdir(pattern)
        self.pattern = os.path.join(glob.escape(pattern), '*.npz') if folder else pattern
        self.limit, self.crop_size = limit, stored_side(input_size)
        self.paths: list[str] = []
        self._files: list[PairFile] = []
        self._starts: list[int] = [0]

    def __len__(self) -> int:
        return self._starts[-1]

    def scan(self) -> int:
        """Take in files that appeared since the last scan; returns how many pairs came."""
        before, known = len(self), set(self.paths)
        for path in sorted(glob.glob(self.pattern)):
            if path not in known and (self.limit is None or len(self) < self.limit):
                self.add(path)
        return len(self) - before

    def add(self, path: str) -> None:
        """Take in one file. Raises DataError where it is not one of pairs."""
        file = open_pairs(path, self.crop_size)
        self.paths.append(path)
        self._files.append(file)
        self._starts.append(len(self) + len(file))

    def pair(self, index: int) -> Pair:
        """Arrays of one pair by the names of SHARD_ARRAYS, without the leading axis."""
        file, row = self._place(index)
        return self._files[file].pair(row)

    def labels(self, index: int) -> Pair:
        """xyz_m, visibility and calibration of one pair; no picture is read.

        The calibration is that of what the file holds: of a crop, or of the whole pictures.
        """
        file, row = self._place(index)
        return self._files[file].labels(row)

    def name(self, index: int) -> str:
        """File and number of a pair in it."""
        file, row = self._place(index)
        return f'{self.paths[file]} pair {row}'

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'pair {index} of {len(self)}')
        file = int(np.searchsorted(self._starts, index, side='right')) - 1
        return file, index - self._starts[file]


def open_pairs(path: str, crop_size: int) -> PairFile:
    """A file of pairs, of either kind. DataError says what does not fit."""
    try:
        return FrameFile(path, crop_size) if is_frames(path) else CropFile(path)
    except DataError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f'{path}: not a readable .npz of stereo pairs ({error})') from error


def open_pool(pattern: str, limit: int, input_size: int = 256) -> PairPool:
    """The pairs of a pattern, with pixels enough for a network of that size.

    Raises DataError where there are none.
    """
    pool = PairPool(pattern, limit, input_size)
    if pool.scan() == 0:
        raise DataError(f'no pairs match {pattern}; render some or correct --data')
    return pool


def chosen_numbers(pool: PairPool, limit: int, occluded: int | None = None) -> list[int]:
    """Numbers of the first `limit` pairs; of those in which neither view shows at least
    `occluded` joints of the subject. Raises DataError where there are none."""
    numbers = range(min(len(pool), limit))
    if occluded is None:
        return list(numbers)
    visibility = np.stack([pool.labels(number)['visibility'] for number in numbers])
    chosen = occluded_subset(visibility, occluded)
    if not chosen:
        raise DataError(
            f'{pool.pattern}: no pair with {occluded} occluded joints; lower --occluded'
        )
    return chosen


class HeldPairs:
    """Some pairs of a pool in memory, under their numbers in it: read once for several methods.

    A crop of 288 pixels takes a quarter of a megabyte.
    """

    def __init__(self, pool: PairPool, numbers: Sequence[int], progress: str) -> None:
        """Reads the pairs; `progress` names a progress bar."""
        self._pool = pool
        with ThreadPoolExecutor() as executor:  # decoding lets other threads run
            read = executor.map(pool.pair, numbers)
            shown = tqdm(read, desc=progress, total=len(numbers), unit='pair')
            self._held = dict(zip(numbers, shown, strict=True))

    def __len__(self) -> int:
        return len(self._pool)

    def pair(self, index: int) -> Pair:
        """Arrays of one of the pairs, as PairPool.pair."""
        return self._held[index]

    def name(self, index: int) -> str:
        """File and number of a pair in it."""
        return self._pool.name(index)


class ShuffledOrder:
    """Endless order of pair indices, each round a permutation of the pairs then known.

    The order is a function of (seed, round, size), so `state()` is three numbers.
    """

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.round, self.position, self.size = seed, 0, 0, size
        self._order = self._permutation()

    def _permutation(self) -> Integer[np.ndarray, ' size']:
        return np.random.default_rng((self.seed, self.round)).permutation(self.size)

    def take(self, count: int) -> list[int]:
        """The next `count` indices."""
        taken: list[int] = []
        while len(taken) < count:
            if self.position == self.size:
                self.start_round(self.size)
            some = self._order[self.position : self.position + count - len(taken)]
            taken += [int(index) for index in some]
            self.position += len(some)
        return taken

    def start_round(self, size: int) -> None:
        """Begin a new permutation, of `size` pairs from now on."""
        self.round, self.position, self.size = self.round + 1, 0, size
        self._order = self._permutation()

    def state(self) -> dict[str, int]:
        return {'round': self.round, 'position': self.position, 'size': self.size}

    def load_state(self, state: dict[str, int]) -> None:
        self.round, self.position, self.size = state['round'], state['position'], state['size']
        self._order = self._permutation()
