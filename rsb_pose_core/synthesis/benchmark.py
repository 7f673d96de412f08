"""How many pairs a second the renderer draws, and where the time goes."""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from rsb_pose_core.synthesis import timing
from rsb_pose_core.synthesis.pairs import PairSpace, make_renderer
from rsb_pose_core.synthesis.processes import in_processes
from rsb_pose_core.synthesis.shards import MakeRenderer

SPACE = PairSpace(crop_size=256, margin=0, smooth=False)  # one sample a pixel
WARM_UP, STAGED = 2, 3  # batches before the clock starts, and with the stopwatch on


@dataclass(frozen=True)
class Measured:
    """What one process found."""

    pairs: int
    seconds: float
    busy_s: float  # of the CPU
    prepared_s: float  # reading the data, making textures and people
    stages_s: dict[str, float]  # per batch
    memory_bytes: int  # on a CUDA device, else 0


@dataclass(frozen=True)
class _Measure:
    """Prepares a process to draw batches at the same time as the others."""

    data: Path
    device: str
    batch: int
    batches: int
    together: Barrier
    make: MakeRenderer

    def __call__(self) -> Callable[[int], Measured]:
        return self._measure

    def _measure(self, process: int) -> Measured:
        began = time.monotonic()
        renderer = self.make(self.data, 'train', 0, SPACE, self.device)
        prepared = time.monotonic() - began
        first = 1_000_000 * process
        for number in range(WARM_UP):
            renderer.batch(self.batch, 0, first + number)
        cuda = torch.device(self.device).type == 'cuda'
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        self.together.wait()
        began, busy = time.monotonic(), time.process_time()
        for number in range(self.batches):
            renderer.batch(self.batch, 0, first + WARM_UP + number)
        if cuda:
            torch.cuda.synchronize()
        seconds, busy = time.monotonic() - began, time.process_time() - busy
        memory = torch.cuda.max_memory_allocated() if cuda else 0
        with timing.measured(self.device) as watch, timing.stage('other'):
            for number in range(STAGED):
                renderer.batch(self.batch, 0, first + WARM_UP + number)
        stages = {name: total / STAGED for name, total in watch.seconds.items()}
        return Measured(self.batch * self.batches, seconds, busy, prepared, stages, memory)


def measure(
    data: Path, processes: int, device: str, batch: int, pairs: int,
    make: MakeRenderer = make_renderer,
) -> str:  # fmt: skip
    """A table of the rate of `processes` that draw about `pairs` pairs of 256 x 256 pixels."""
    batches = -(-pairs // (batch * processes))
    barrier = multiprocessing.get_context('spawn').Barrier(processes)
    task = _Measure(data, device, batch, batches, barrier, make)
    found = [result for _, result in in_processes(task, range(processes), processes)]
    return table(found, device, batch)


def table(found: list[Measured], device: str, batch: int) -> str:
    """What the processes found, as lines of text."""
    total = sum(one.pairs for one in found)
    slowest = max(one.seconds for one in found)
    lines = [
        f'{total / slowest:.1f} pairs/s: {total} pairs of {SPACE.crop_size} x {SPACE.crop_size} '
        f'pixels in {slowest:.1f} s, {len(found)} process{"es" if len(found) > 1 else ""}, '
        f'{device}, batches of {batch}',
        f'{1000 * sum(one.busy_s for one in found) / total:.0f} ms of CPU time a pair, '
        f'prepared in {max(one.prepared_s for one in found):.1f} s',
    ]
    if any(one.memory_bytes for one in found):
        lines.append(f'{sum(one.memory_bytes for one in found) / 2**30:.1f} GiB of device memory')
    stages = {name: 0.0 for one in found for name in one.stages_s}
    for one in found:
        for name, seconds in one.stages_s.items():
            stages[name] += seconds / len(found)
    whole = sum(stages.values())
    lines.append(f'{"stage":12s} {"ms a pair":>10s} {"share":>7s}')
    for name, seconds in sorted(stages.items(), key=lambda item: -item[1]):
        share = 100 * seconds / whole
        lines.append(f'{name:12s} {1000 * seconds / batch:10.2f} {share:6.1f}%')
    lines.append(f'{"all":12s} {1000 * whole / batch:10.2f}')
    return '\n'.join(lines)
