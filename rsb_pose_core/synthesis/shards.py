"""Shards of rendered pairs: made by several processes, resumable, the same for one seed."""

import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rsb_pose_core.errors import ConfigError, DataError, RsbPoseError
from rsb_pose_core.synthesis.pairs import PairSpace, StereoPairs, make_renderer
from rsb_pose_core.synthesis.processes import in_processes

Arrays = dict[str, np.ndarray]

# Where the seeds of each split begin: a million for each seed of a job, one for each casting.
SEEDS = {'train': 0, 'val': 500_000_000, 'test': 600_000_000}
SEEDS_OF_A_JOB = 1_000_000
JOBS = {'train': 500, 'val': 100, 'test': 100}  # seeds of jobs, until another split's begin
MAPS = ('person_mask_left', 'person_mask_right', 'depth_m_left', 'disparity_left')


@runtime_checkable
class Renderer(Protocol):
    """What draws pairs: batch `number` of a seed is the same whatever was drawn before."""

    def batch(self, count: int, seed: int, number: int) -> StereoPairs: ...


MakeRenderer = Callable[[Path, str, int, PairSpace, str], Renderer]


@dataclass(frozen=True)
class PairFiles:
    """Numbered files of pairs, and from what they are drawn."""

    folder: Path
    data: Path  # as make_renderer takes it
    split: str = 'train'
    seed: int = 0
    device: str = 'cpu'
    maps: bool = False  # masks, depth and disparity as well
    space: PairSpace = field(default_factory=PairSpace)
    # the rest is part of what a seed means: with other numbers it draws other pairs
    pairs_per_file: int = 100
    pairs_per_batch: int = 10
    files_per_casting: int = 10  # textures and people change every so often
    make: MakeRenderer = make_renderer

    def __post_init__(self) -> None:
        first_seed(self.split, self.seed)  # complains

    @property
    def title(self) -> str:
        """Beside the progress bar."""
        return f'render {self.split}'

    @property
    def array_names(self) -> tuple[str, ...]:
        """Some that a file must have to be one of this kind."""
        raise NotImplementedError

    def path(self, number: int) -> Path:
        """Of file `number`."""
        raise NotImplementedError

    def arrays_of(self, batches: Iterable[StereoPairs]) -> Arrays:
        """What a file holds of the pairs of successive batches."""
        raise NotImplementedError

    @property
    def first_seed(self) -> int:
        """Of the renderer; castings count from it."""
        return first_seed(self.split, self.seed)


def first_seed(split: str, seed: int) -> int:
    """Of the renderer of a job; its castings count from it. Raises ConfigError out of range."""
    if not 0 <= seed < JOBS[split]:
        raise ConfigError(
            f'seed {seed} of {split} pairs: expected 0 to {JOBS[split] - 1}, where the seeds of '
            f'another split begin'
        )
    return SEEDS[split] + seed * SEEDS_OF_A_JOB


class FileRenderer:
    """Draws files in this process."""

    def __init__(self, files: PairFiles) -> None:
        self.files = files
        self._casting_seed: int | None = None
        self._renderer: Renderer

    def arrays(self, number: int) -> Arrays:
        """Arrays of file `number`."""
        return self.files.arrays_of(self._batches(number))

    def _batches(self, number: int) -> Iterator[StereoPairs]:
        files = self.files
        casting_seed = files.first_seed + number // files.files_per_casting
        if casting_seed != self._casting_seed:
            self._renderer = files.make(
                files.data, files.split, casting_seed, files.space, files.device
            )
            self._casting_seed = casting_seed
        for first in range(0, files.pairs_per_file, files.pairs_per_batch):
            yield self._renderer.batch(
                files.pairs_per_batch, files.first_seed, number * files.pairs_per_file + first
            )


@dataclass(frozen=True)
class ShardFiles(PairFiles):
    """Shards for the trainer: see shard_arrays."""

    @property
    def array_names(self) -> tuple[str, ...]:
        return ('left', *(MAPS if self.maps else ()))

    def path(self, number: int) -> Path:
        return self.folder / f'{self.split}_{self.seed:03d}_{number:05d}.npz'

    def arrays_of(self, batches: Iterable[StereoPairs]) -> Arrays:
        return joined([shard_arrays(pairs, self.maps) for pairs in batches])


def joined(parts: Sequence[Arrays]) -> Arrays:
    """One set of arrays from those of successive batches."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def shard_arrays(pairs: StereoPairs, maps: bool = False) -> Arrays:
    """The arrays of a shard for B rendered pairs of crops; those of the subject, in slot 0.

    left, right (B,S,S,3) uint8 RGB; xyz_m (B,17,3), uv_left, uv_right (B,17,2) and visibility
    (B,2,17) of H36M-17, the same of COCO-17 with the prefix coco_; box_left, box_right (B,4);
    calibration (B,6: fx, fy, cx_left, cx_right, cy, baseline_m), of the crops; with `maps` also
    person_mask_left, person_mask_right (B,S,S) uint8: person slot + 1, 0 nobody; depth_m_left and
    disparity_left (B,S,S), the former inf in the sky.
    """
    labels = pairs.labels
    arrays: Arrays = {'left': pairs.left, 'right': pairs.right}
    for prefix, joints in (('', labels.h36m), ('coco_', labels.coco)):
        arrays[f'{prefix}xyz_m'] = _numpy(joints.xyz_m[:, 0])
        arrays[f'{prefix}uv_left'] = _numpy(joints.uv_left[:, 0])
        arrays[f'{prefix}uv_right'] = _numpy(joints.uv_right[:, 0])
        arrays[f'{prefix}visibility'] = _numpy(joints.visibility[:, 0])
    arrays['box_left'] = _numpy(labels.box_left[:, 0])
    arrays['box_right'] = _numpy(labels.box_right[:, 0])
    arrays['calibration'] = _numpy(torch.stack(pairs.calibration.fields(), 1).double())
    if maps:
        arrays |= {name: _numpy(getattr(pairs, name)) for name in MAPS}
    return arrays


def _numpy(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz that is there whole or not at all. Raises OSError, on a full disk too."""
    unfinished = path.with_suffix('.part')
    try:
        with unfinished.open('wb') as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())  # some file systems notice only now that they are full
        unfinished.rename(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Prepare:
    """Prepares a process to write files."""

    files: PairFiles

    def __call__(self) -> Callable[[int], None]:
        renderer = FileRenderer(self.files)

        def write(number: int) -> None:
            write_arrays(self.files.path(number), renderer.arrays(number))

        return write


def make_files(files: PairFiles, count: int, processes: int) -> int:
    """Make those of the first `count` files that are not there yet; returns how many were made.

    Raises RsbPoseError, one sentence, where the folder cannot be written or the disk is full;
    finished files stay valid and are not made again.
    """
    folder, paths = files.folder, [files.path(number) for number in range(count)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(paths)
    except OSError as error:
        raise RsbPoseError(f'cannot write to {folder} ({error}); choose another --out') from error
    missing = [
        number for number, path in enumerate(paths) if not finished(path, files.array_names)
    ]
    bar = tqdm(
        total=count * files.pairs_per_file,
        initial=(count - len(missing)) * files.pairs_per_file,
        unit='pair',
        desc=files.title,
    )
    made = 0
    try:
        with bar:
            for _ in in_processes(_Prepare(files), missing, processes):
                made += 1
                bar.update(files.pairs_per_file)
    except OSError as error:
        raise RsbPoseError(
            f'cannot write to {folder} ({error.strerror or error}) after {made} new files; free '
            'some space and run again: finished files are kept'
        ) from error
    finally:
        _remove_unfinished(paths)  # of processes that were stopped while they wrote
    return made


def _remove_unfinished(paths: Iterable[Path]) -> None:
    for path in paths:
        path.with_suffix('.part').unlink(missing_ok=True)


def finished(path: Path, array_names: Sequence[str]) -> bool:
    """Whether a file is there. Raises DataError where it is damaged or lacks arrays."""
    if not path.exists():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f'{path}: not a whole .npz of stereo pairs ({error}); delete it and run again'
        ) from error
    for name in array_names:
        if f'{name}.npy' not in found:
            raise DataError(
                f'{path}: no array {name}, expected one in files of this kind; choose another '
                f'--out or delete the file and run again'
            )
    return True
