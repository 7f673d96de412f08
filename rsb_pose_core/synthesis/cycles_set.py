"""The test set `cycles`: the first pairs of mhad-like with pictures path-traced by Blender.

The labels are those of mhad-like, whose people, worlds and cameras are drawn again as they were.
Blender's bits may differ between processors: the checksums are those of the scenes it was given.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rsb_pose_core.errors import DataError, RsbPoseError
from rsb_pose_core.synthesis import cycles
from rsb_pose_core.synthesis.cycles_scene import SceneArrays, scene_arrays
from rsb_pose_core.synthesis.frames import PICTURES, Arrays, read_frames
from rsb_pose_core.synthesis.pairs import PairRenderer, Staged
from rsb_pose_core.synthesis.processes import in_processes
from rsb_pose_core.synthesis.shards import write_arrays
from rsb_pose_core.synthesis.testsets import FrameFiles, files_of

PAIRS = 200
NAME, SOURCE = 'cycles', 'mhad-like'
TRACED = 'path_traced'  # folder of the single pictures


@dataclass(frozen=True)
class _Scenes:
    """Prepares a process to hand out the scenes of a set's pairs, in ascending order."""

    files: FrameFiles

    def __call__(self) -> Callable[[int], SceneArrays]:
        files = self.files
        renderer: PairRenderer | None = None
        staged: Staged | None = None
        casting, batch = -1, -1

        def scene(pair: int) -> SceneArrays:
            nonlocal renderer, staged, casting, batch
            wanted = pair // (files.pairs_per_file * files.files_per_casting)
            if wanted != casting:
                made = files.make(
                    files.data, files.split, files.first_seed + wanted, files.space, files.device
                )
                assert isinstance(made, PairRenderer)
                renderer, casting, batch = made, wanted, -1
            assert renderer is not None
            count = files.pairs_per_batch
            if pair - pair % count != batch:
                batch = pair - pair % count
                staged = renderer.stage(count, renderer.draw(files.first_seed, batch))
            assert staged is not None
            return scene_arrays(
                staged.mesh, staged.surfaces, staged.world.room, staged.world.light, staged.view,
                torch.arange(count).repeat(2), renderer.bank, renderer.lights, pair % count,
            )  # fmt: skip

        return scene


def make_cycles(source: FrameFiles, folder: Path, pairs: int, processes: int, python: str) -> int:
    """Path-trace the first `pairs` pairs of a set whose files are there, into files of `folder`.

    Goes on where it was left. python: an interpreter with Blender's bpy. Returns the number of
    files. Raises RsbPoseError where bpy is missing, Blender fails or the disk is full.
    """
    files = -(-pairs // source.pairs_per_file)
    total = files * source.pairs_per_file
    traced = folder / TRACED
    scenes = (arrays for _, arrays in in_processes(_Scenes(source), range(total), 1))
    cycles.render_pairs(scenes, traced, processes=processes, total=total, python=python)
    try:
        for number in range(files):
            arrays = with_pictures(read_frames(source.path(number)), traced, number)
            write_arrays(folder / source.path(number).name, arrays)
    except OSError as error:
        raise RsbPoseError(
            f'cannot write to {folder} ({error}); free some space and run again: finished '
            'pictures are kept'
        ) from error
    return files


def with_pictures(arrays: Arrays, traced: Path, number: int) -> Arrays:
    """File `number` of the source with the path-traced pictures instead of its own; no maps."""
    count = len(arrays['present'])
    kept = {
        name: array
        for name, array in arrays.items()
        if not name.startswith(('mask_', 'depth_', 'left_', 'right_'))
    }
    for view in PICTURES:
        paths = [cycles.picture_path(traced, view, number * count + i) for i in range(count)]
        encoded = [np.frombuffer(path.read_bytes(), np.uint8) for path in paths]
        kept[f'{view}_pictures'] = np.concatenate(encoded)
        kept[f'{view}_ends'] = np.cumsum([len(picture) for picture in encoded])
    return kept


def scene_checksums(folder: Path, pairs_per_file: int) -> Iterator[tuple[Path, str]]:
    """(file, SHA-256 over the scenes of its pairs) of the finished files of the set.

    Raises DataError where there are no files or a scene was never path-traced.
    """
    scenes = cycles.finished(folder / TRACED)
    for path in files_of(folder):
        first = int(path.stem.rpartition('_')[2]) * pairs_per_file
        try:
            mine = [scenes[first + i] for i in range(pairs_per_file)]
        except KeyError as error:
            raise DataError(
                f'{folder / TRACED}: pair {error} is missing; run rsb-pose testset {NAME} again'
            ) from error
        yield path, hashlib.sha256(''.join(mine).encode()).hexdigest()
