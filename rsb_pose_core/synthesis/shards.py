"""Shards of rendered pairs: made by several processes, resumable, the same for one seed."""

import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.motion import pose_library, read_motion, split_of
from rsb_pose_core.synthesis.pairs import PairRenderer, StereoPairs
from rsb_pose_core.synthesis.people import Casting
from rsb_pose_core.synthesis.textures import TextureBank

SHARD_PAIRS, BATCH_PAIRS = 100, 10
SHARDS_PER_BANK = 10  # textures change every thousand pairs
# which of the body's 3000 sample shapes each split may show, and where its seeds start
SPLITS = ('train', 'val', 'test')
SHAPES = {'train': slice(0, 2700), 'val': slice(2700, 2850), 'test': slice(2850, 3000)}
SEEDS = {'train': 0, 'val': 500_000_000, 'test': 600_000_000}
# without these, glibc returns every large tensor to the kernel and maps it again
ALLOCATOR = {
    'MALLOC_MMAP_THRESHOLD_': '4000000000',
    'MALLOC_TRIM_THRESHOLD_': '16000000000',
    'MALLOC_ARENA_MAX': '2',
}


@dataclass(frozen=True)
class ShardJob:
    """What to render."""

    out: Path
    motion: Path
    photos: Path | None
    split: str = 'train'
    seed: int = 0
    device: str = 'cpu'

    def path(self, shard: int) -> Path:
        return self.out / f'{self.split}_{self.seed:03d}_{shard:05d}.npz'


def arrays_of(pairs: StereoPairs) -> dict[str, np.ndarray]:
    """The arrays of a shard (see datasets.stereo_shards) for rendered pairs."""
    calibration = torch.stack(pairs.calibration.fields(), 1)
    return {
        'left': pairs.left,
        'right': pairs.right,
        'xyz_m': pairs.xyz_m.cpu().numpy(),
        'uv_left': pairs.uv_left.cpu().numpy(),
        'uv_right': pairs.uv_right.cpu().numpy(),
        'visibility': pairs.visibility.to(torch.uint8).cpu().numpy(),
        'calibration': calibration.double().cpu().numpy(),
    }


class ShardRenderer:
    """Renders the shards of a job, one after the other, in this process."""

    def __init__(self, job: ShardJob) -> None:
        self.job = job
        clips = [clip for clip in read_motion(job.motion) if split_of(clip) == job.split]
        if not clips:
            raise RsbPoseError(
                f'no clips of the {job.split} split in {job.motion}; add the motion files that '
                'the README names'
            )
        self.poses = pose_library(clips)
        self.body = Body(device=job.device)
        self.bank_seed = -1

    def shard(self, number: int) -> dict[str, np.ndarray]:
        job = self.job
        seed = SEEDS[job.split] + job.seed * 1_000_000
        bank_seed = seed + number // SHARDS_PER_BANK
        if bank_seed != self.bank_seed:
            bank = TextureBank(bank_seed, photo_folder=job.photos, device=job.device)
            casting = Casting(self.body, bank, SHAPES[job.split])
            self.renderer = PairRenderer(casting, self.poses)
            self.bank_seed = bank_seed
        parts = [
            arrays_of(self.renderer.batch(BATCH_PAIRS, seed, number * SHARD_PAIRS + first))
            for first in range(0, SHARD_PAIRS, BATCH_PAIRS)
        ]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


_renderer: ShardRenderer


def _start_worker(job: ShardJob) -> None:
    global _renderer
    torch.set_num_threads(1)
    _renderer = ShardRenderer(job)


def _write_shard(number: int) -> int:
    path = _renderer.job.path(number)
    unfinished = path.with_suffix('.part')
    with unfinished.open('wb') as file:
        np.savez(file, **_renderer.shard(number))  # type: ignore[arg-type]
    unfinished.rename(path)
    return number


def render_shards(job: ShardJob, shards: int, processes: int) -> int:
    """Render the shards that are not there yet; returns how many were made.

    Raises RsbPoseError when the folder cannot be written; finished shards stay valid.
    """
    try:
        job.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RsbPoseError(f'cannot write to {job.out} ({error}); choose another --out') from error
    missing = [number for number in range(shards) if not job.path(number).exists()]
    if not missing:
        return 0
    ShardRenderer(job)  # complain here, once, rather than in every process
    os.environ.update(ALLOCATOR)
    context = multiprocessing.get_context('spawn')
    with (
        context.Pool(processes, _start_worker, (job,)) as pool,
        tqdm(total=len(missing) * SHARD_PAIRS, unit='pair', desc=f'render {job.split}') as bar,
    ):
        try:
            for _ in pool.imap_unordered(_write_shard, missing):
                bar.update(SHARD_PAIRS)
            pool.close()
            pool.join()
        except OSError as error:
            raise RsbPoseError(
                f'cannot write a shard to {job.out} ({error}); free space and run again: '
                'finished shards are kept'
            ) from error
    return len(missing)
