"""Pairs a second that training reaches, and where the time of a step goes.

    python benchmarks/training.py --models lite --size 128 256 --device cpu
    python benchmarks/training.py --models lite rsb-pose-resnet50 --batch 128 --render DATA

Without --data and --render the pairs are made of noise. Waiting is measured while training runs as
it always does; the shares of a step by themselves, with a synchronised clock.
"""

import argparse
import itertools
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rsb_pose_core.synthesis.timing import measured
from rsb_pose_core.training.augmentation import stored_side, training_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import Rendering, Stage, TrainConfig
from rsb_pose_core.training.distributed import loader_threads
from rsb_pose_core.training.disturbing import windows_only
from rsb_pose_core.training.losses import LossWeights
from rsb_pose_core.training.sources import (
    BatchSource,
    DrawnPairs,
    Load,
    MixedSource,
    PhotographSource,
    RenderedSource,
    ShardSource,
)
from rsb_pose_core.training.state import keep_freed_memory
from rsb_pose_core.training.trainer import Pending, Trainer

WARM_UP, STAGED, MADE_UP = 5, 5, 32
LOSSES = LossWeights(heatmap_ce=0.5, heatmap_l1=0.05, volume_ce=0.5, volume_l1=0.3, pose_l1_m=1.0)


class MadeUpSource:
    """The same few pairs of noise, cut and changed anew for each step."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        side, rng = stored_side(config.largest_input), np.random.default_rng(0)
        uv = rng.uniform(0.3, 0.7, (17, 2)) * side
        labels = {
            'xyz_m': rng.normal((0, 0, 3), 0.3, (17, 3)),
            'uv_left': uv,
            'uv_right': uv - (1.0, 0.0),
            'visibility': np.zeros((2, 17), np.uint8),
            'calibration': np.array([side, side, side / 2, side / 2, side / 2, 0.12]),
        }
        views = rng.integers(0, 256, (MADE_UP, 2, side, side, 3), np.uint8)
        pairs = [{'left': left, 'right': right, **labels} for left, right in views]
        self._pairs = DrawnPairs(pairs, ['noise'] * MADE_UP)
        self._threads = ThreadPoolExecutor(loader_threads())

    def start(self, state: dict[str, Any] | None) -> None:
        """Nothing to prepare."""

    def take(self, count: int, size: int, step: int, *, stereo: bool = True) -> Load:
        rows = [row % MADE_UP for row in range(count)]
        seed, ranges = (self.config.seed, step), self.config.augmentation
        return lambda: training_batch(
            self._pairs, rows, size, seed, ranges, executor=self._threads
        )

    def rescan(self) -> int:
        return 0

    def state(self) -> dict[str, Any]:
        return {}

    def __len__(self) -> int:
        return MADE_UP


class TimedTrainer(Trainer):
    """Measures its steps after the first few."""

    seconds_of_steps, busy_s, waited_s, pairs = 0.0, 0.0, 0.0, 0

    def _arrived(self, pending: Pending) -> StereoBatch:
        if self.step == WARM_UP:
            self._began = self._now(), time.process_time()
        began = time.perf_counter()
        batch = super()._arrived(pending)
        if self.step >= WARM_UP:
            self.waited_s += time.perf_counter() - began
            self.pairs += len(batch)
        return batch

    def save(self) -> None:
        """Nothing is kept; the last step is over."""
        if self.pairs and not self.seconds_of_steps:
            self.seconds_of_steps = self._now() - self._began[0]
            self.busy_s = time.process_time() - self._began[1]

    def validate(self) -> dict[str, dict[str, float]]:
        return {}

    def _now(self) -> float:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter()

    def shares(self) -> dict[str, float]:
        """Parts of a step, of 1."""
        load = self.source.take(self.config.stages[0].batch_size, self.config.largest_input, 0)
        batch = self._feeder.arrived(self._feeder.feed(load, 0))
        for _ in range(WARM_UP):
            self.train_step(batch)
        with measured(str(self.device)) as watch:
            for _ in range(STAGED):
                self.train_step(batch)
        total = sum(watch.seconds.values())
        return {name: seconds / total for name, seconds in watch.seconds.items()}


@dataclass(frozen=True)
class Setup:
    """What is the same for every row of the table."""

    args: argparse.Namespace
    device: torch.device

    def row(self, model: str, size: int, batch: int, out: Path) -> str:
        args = self.args
        config = TrainConfig(
            model=model, steps=WARM_UP + args.steps, precision=args.precision,
            compile=args.compile, save_minutes=1e9, validate_minutes=1e9, rescan_minutes=1e9,
            stages=(Stage('all', input_size=size, batch_size=batch, losses=LOSSES),),
            rendering=Rendering(args.pairs_at_once or batch, args.batches_per_casting),
        )  # fmt: skip
        alone = self._trainer(config, MadeUpSource(self._of_source(config)), out / 'alone')
        shares = alone.shares()
        del alone
        run = self._trainer(config, self._source(self._of_source(config)), out / 'run')
        run.run()
        rate, cores = run.pairs / run.seconds_of_steps, run.busy_s / run.seconds_of_steps
        columns = ' '.join(f'{100 * share:8.0f}%' for share in shares.values())
        memory = ''
        if self.device.type == 'cuda':
            memory = f'{torch.cuda.max_memory_allocated() / 2**30:7.1f} GiB'
        return (
            f'{model:24s} {size:5d} {batch:6d} {rate:9.1f} '
            f'{100 * run.waited_s / run.seconds_of_steps:7.0f}% {columns} {cores:7.2f}{memory}'
        )

    def _of_source(self, config: TrainConfig) -> TrainConfig:
        if self.device.type == 'cpu':
            return config
        return replace(config, augmentation=windows_only(config.augmentation))

    def _source(self, config: TrainConfig) -> BatchSource:
        args = self.args
        source: BatchSource = MadeUpSource(config)
        if args.render is not None:
            source = RenderedSource(config, args.render, str(self.device))
        elif args.data is not None:
            source = ShardSource(config, args.data)
        if args.photographs is not None:
            photographs = PhotographSource(config, args.photographs)
            source = MixedSource(source, photographs, config.photo_share)
        return source

    def _trainer(self, config: TrainConfig, source: BatchSource, out: Path) -> TimedTrainer:
        disturb = config.augmentation if self.device.type == 'cuda' else None
        return TimedTrainer(config, source, None, out, device=self.device, disturb=disturb)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', nargs='+', default=['lite'])
    parser.add_argument('--size', nargs='+', type=int, default=[256], help='side of the crops, px')
    parser.add_argument('--batch', nargs='+', type=int, default=[16])
    parser.add_argument('--steps', type=int, default=20, help='that are measured')
    parser.add_argument('--data', metavar='GLOB|DIR', help='stored pairs')
    parser.add_argument('--render', type=Path, metavar='DATA_DIR', help='pairs drawn meanwhile')
    parser.add_argument('--photographs', type=Path, nargs='+', help='half of each batch')
    parser.add_argument('--pairs-at-once', type=int, help='drawn together, else a batch')
    parser.add_argument('--batches-per-casting', type=int, default=100)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--precision', default='bf16')
    parser.add_argument('--compile', action='store_true')
    args = parser.parse_args()
    setup = Setup(args, torch.device(args.device))
    cv2.setNumThreads(1)
    if setup.device.type == 'cpu':
        keep_freed_memory()
        name = f'CPU, {torch.get_num_threads()} threads of {os.cpu_count()} processors'
    else:
        torch.backends.cudnn.benchmark = True
        name = torch.cuda.get_device_name(setup.device)
    print(f'{name}; PyTorch {torch.__version__}, {args.precision}')
    print(
        f'{"model":24s} {"size":>5s} {"batch":>6s} {"pairs/s":>9s} {"waiting":>8s} '
        f'{"forward":>9s} {"backward":>9s} {"optimizer":>9s} {"busy cores":>7s}'
    )
    for model, size, batch in itertools.product(args.models, args.size, args.batch):
        with tempfile.TemporaryDirectory() as out:
            print(setup.row(model, size, batch, Path(out)), flush=True)


if __name__ == '__main__':
    main()
