"""Training pairs in memory, growing while new shards appear on disk."""

import glob
import os
import zipfile

import numpy as np
from jaxtyping import Integer

from rsb_pose_core.errors import DataError
from rsb_pose_core.synthesis.frames import crops, is_frames, read_frames

SHARD_ARRAYS = ('left', 'right', 'xyz_m', 'uv_left', 'uv_right', 'visibility', 'calibration')


class PairPool:
    """All pairs of the shards that match a glob, as numpy arrays in memory.

    A folder stands for all .npz in it. A shard is one of synthesis.shards, or full pictures of
    synthesis.frames, of which the pool holds the crops of their subjects. Pairs keep their index
    for good: shards found later only append. Beyond `limit` pairs new shards are left out.
    """

    def __init__(self, pattern: str, limit: int = 24000) -> None:
        folder = os.path.isdir(pattern)
        self.pattern = os.path.join(glob.escape(pattern), '*.npz') if folder else pattern
        self.limit = limit
        self.paths: list[str] = []
        self._shards: list[dict[str, np.ndarray]] = []
        self._starts: list[int] = [0]

    def __len__(self) -> int:
        return self._starts[-1]

    def scan(self) -> int:
        """Load shards that appeared since the last scan; returns how many pairs came."""
        before = len(self)
        for path in sorted(glob.glob(self.pattern)):
            if path not in self.paths and len(self) < self.limit:
                self.add(path)
        return len(self) - before

    def add(self, path: str) -> None:
        """Load one shard. Raises DataError where the file is not one."""
        shard = read_shard(path)
        self.paths.append(path)
        self._shards.append(shard)
        self._starts.append(len(self) + len(shard['left']))

    def pair(self, index: int) -> dict[str, np.ndarray]:
        """Arrays of one pair by name, without the leading axis."""
        shard = int(np.searchsorted(self._starts, index, side='right')) - 1
        row = index - self._starts[shard]
        return {name: array[row] for name, array in self._shards[shard].items()}


def read_shard(path: str) -> dict[str, np.ndarray]:
    """Arrays of a shard, checked against each other; DataError says what does not fit."""
    try:
        if is_frames(path):
            return crops(read_frames(path))
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in SHARD_ARRAYS}
    except KeyError as error:
        raise DataError(
            f'{path}: {error.args[0]}, expected arrays {", ".join(SHARD_ARRAYS)}; '
            f'render the shard again'
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f'{path}: not a readable .npz of stereo pairs ({error})') from error
    pairs, height, width = arrays['left'].shape[:3]
    joints = arrays['xyz_m'].shape[1]
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
        if arrays[name].shape != shape:
            raise DataError(
                f'{path}: array {name} has shape {arrays[name].shape}, expected {shape}; '
                f'render the shard again'
            )
    return arrays


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
