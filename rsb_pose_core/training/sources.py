"""Where training batches come from: shards on disk, the renderer itself, photographs."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from rsb_pose_core.datasets.photographs import read_photographs
from rsb_pose_core.errors import DataError
from rsb_pose_core.synthesis.pairs import PairSpace, make_renderer
from rsb_pose_core.synthesis.shards import (
    MakeRenderer,
    Renderer,
    first_seed,
    shard_arrays,
)
from rsb_pose_core.training.augmentation import STORED_SIDE, Pair, stored_side, training_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import TrainConfig
from rsb_pose_core.training.distributed import Ranks, loader_threads
from rsb_pose_core.training.photo_pairs import PhotoPool, photo_batch
from rsb_pose_core.training.pool import SHARD_ARRAYS, PairPool, ShuffledOrder

Load = Callable[[], StereoBatch]


@runtime_checkable
class BatchSource(Protocol):
    """Training batches: the one of a step is a function of the seed and what was taken before."""

    def start(self, state: dict[str, Any] | None) -> None:
        """Begin, or go on from a state(). Raises DataError where there is nothing to train on."""

    def take(self, count: int, size: int, step: int, *, stereo: bool = True) -> Load:
        """Reserve the next `count` pairs for a step; the returned function makes this rank's part
        of them, crops of `size` pixels, in another thread and in the order of the calls. Without
        `stereo` nothing compares the views, so they need not belong together."""

    def rescan(self) -> int:
        """Look for more pairs; how many came."""

    def state(self) -> dict[str, Any]:
        """From what start() goes on, of plain values."""

    def __len__(self) -> int:
        """Different pairs seen or known so far."""


class ShardSource:
    """Shuffled pairs of the files that match a glob: one order for any number of ranks."""

    def __init__(self, config: TrainConfig, pattern: str, ranks: Ranks | None = None) -> None:
        self.config, self.ranks = config, ranks or Ranks()
        self.pool = PairPool(pattern, config.max_pairs, config.largest_input)
        self.order = ShuffledOrder(config.seed, 0)
        self._threads = ThreadPoolExecutor(loader_threads())

    def start(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            for path in state['shards']:
                self.pool.add(path)
            self.order.load_state(state['order'])
        if self._scan() or state is None:
            self.order.start_round(len(self.pool))
        if len(self.pool) == 0:
            raise DataError(
                f'no training pairs match {self.pool.pattern}; correct --data, or make some with '
                f'rsb-pose render or rsb-pose prepare'
            )

    def take(self, count: int, size: int, step: int, *, stereo: bool = True) -> Load:
        part = self.ranks.part(count)
        indices = self.order.take(count)[part]
        seed, ranges = (self.config.seed, step), self.config.augmentation
        return lambda: training_batch(
            self.pool, indices, size, seed, ranges, first=part.start, executor=self._threads
        )

    def rescan(self) -> int:
        added = self._scan()
        if added:
            self.order.start_round(len(self.pool))
        return added

    def _scan(self) -> int:
        """All ranks take in the files that the first one sees."""
        before = len(self.pool)
        if self.ranks.first:
            self.pool.scan()
        known = len(self.pool.paths)
        for path in self.ranks.share(self.pool.paths)[known:]:
            self.pool.add(path)
        return len(self.pool) - before

    def state(self) -> dict[str, Any]:
        return {'order': self.order.state(), 'shards': list(self.pool.paths)}

    def __len__(self) -> int:
        return len(self.pool)


class RenderedSource:
    """Pairs that are drawn while the network trains, each for one step only.

    They come in batches of config.rendering.pairs_at_once, the next one drawn in a thread while
    the pairs of the last are used; textures and people change every
    config.rendering.batches_per_casting batches. Each rank draws its own, of castings of its own.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Path,
        device: str,
        make: MakeRenderer = make_renderer,
        ranks: Ranks | None = None,
        before: int = 0,
    ) -> None:
        """data: folder with motion/, hdri/ and so on; device: where to draw.

        before: pairs of an earlier run, which are not drawn again.
        """
        self.config, self.data, self.device, self.make = config, data, device, make
        self.ranks = ranks or Ranks()
        self._taken = before // self.ranks.count  # by this rank
        self._seed = first_seed('train', config.seed)
        self._renderers: dict[int, Future[Renderer]] = {}  # by casting
        side, plain = stored_side(config.largest_input), PairSpace()
        margin = plain.margin * side // STORED_SIDE
        self._space = replace(plain, crop_size=side, margin=margin)
        self._executor, self._maker = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._threads = ThreadPoolExecutor(loader_threads())
        # kernels that draw do not wait for those that train; results come back as arrays
        cuda = torch.device(device).type == 'cuda'
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._drawn: dict[int, Future[list[Pair]]] = {}

    def start(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self._taken = state['pairs'] // self.ranks.count
        self._batch(self._taken // self.config.rendering.pairs_at_once)  # complain at once

    def take(self, count: int, size: int, step: int, *, stereo: bool = True) -> Load:
        part = self.ranks.part(count)
        numbers = range(self._taken, self._taken + part.stop - part.start)
        self._taken = numbers.stop
        return lambda: self._load(numbers, part.start, size, step)

    def rescan(self) -> int:
        return 0

    def state(self) -> dict[str, Any]:
        return {'pairs': len(self)}

    def __len__(self) -> int:
        return self._taken * self.ranks.count

    def _load(self, numbers: range, first: int, size: int, step: int) -> StereoBatch:
        at_once = self.config.rendering.pairs_at_once
        pairs = [self._batch(number // at_once)[number % at_once] for number in numbers]
        names = [f'pair {number} drawn by process {self.ranks.rank}' for number in numbers]
        pool, seed = DrawnPairs(pairs, names), (self.config.seed, step)
        ranges = self.config.augmentation
        return training_batch(
            pool, list(range(len(pairs))), size, seed, ranges, first=first, executor=self._threads
        )

    def _batch(self, number: int) -> list[Pair]:
        """The pairs of a batch; the next one is begun, and those before it are forgotten."""
        for wanted in (number, number + 1):
            if wanted not in self._drawn:
                self._drawn[wanted] = self._executor.submit(self._draw, wanted)
        for old in [other for other in self._drawn if other < number]:
            del self._drawn[old]
        return self._drawn[number].result()

    def _draw(self, number: int) -> list[Pair]:
        """Batch `number` of this rank."""
        rendering = self.config.rendering
        count, length = rendering.pairs_at_once, rendering.batches_per_casting
        casting = number // length * self.ranks.count + self.ranks.rank
        first = (casting * length + number % length) * count
        renderer = self._renderer(casting)
        with torch.cuda.stream(self._stream):
            arrays = shard_arrays(renderer.batch(count, self._seed, first))
        return [{name: arrays[name][i] for name in SHARD_ARRAYS} for i in range(count)]

    def _renderer(self, casting: int) -> Renderer:
        """The renderer of a casting; a GPU, which draws in no time, has the next one begun."""
        ahead = [] if self._stream is None else [casting + self.ranks.count]
        for wanted in (casting, *ahead):
            if wanted not in self._renderers:
                self._renderers[wanted] = self._maker.submit(self._make, wanted)
        for old in [other for other in self._renderers if other < casting]:
            del self._renderers[old]
        return self._renderers[casting].result()

    def _make(self, casting: int) -> Renderer:
        with torch.cuda.stream(self._stream):
            return self.make(self.data, 'train', self._seed + casting, self._space, self.device)


class PhotographSource:
    """Shuffled photographs of people as stereo pairs."""

    def __init__(
        self, config: TrainConfig, folders: Sequence[Path], ranks: Ranks | None = None
    ) -> None:
        """Raises DataError where a folder holds none."""
        self.config, self.ranks = config, ranks or Ranks()
        self.pool = PhotoPool(tuple(read_photographs(folder, 'train') for folder in folders))
        self.order = ShuffledOrder(config.seed, len(self.pool))
        self._threads = ThreadPoolExecutor(loader_threads())

    def start(self, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.order.load_state(state['order'])
            if self.order.size != len(self.pool):  # as many as there was room for
                self.order.start_round(len(self.pool))

    def take(self, count: int, size: int, step: int, *, stereo: bool = True) -> Load:
        part = self.ranks.part(count)
        indices, config = self.order.take(count)[part], self.config
        return lambda: photo_batch(
            self.pool, indices, size, (config.seed, step), config.photographs,
            config.augmentation, stereo=stereo, first=part.start, executor=self._threads,
        )  # fmt: skip

    def rescan(self) -> int:
        return 0

    def state(self) -> dict[str, Any]:
        return {'order': self.order.state()}

    def __len__(self) -> int:
        return len(self.pool)


class MixedSource:
    """Pairs of one source, and photographs as the config's share of each batch, rounded to what
    processes can share out evenly."""

    def __init__(self, pairs: BatchSource, photographs: PhotographSource, share: float) -> None:
        self.pairs, self.photographs, self.share = pairs, photographs, share

    def start(self, state: dict[str, Any] | None) -> None:
        self.pairs.start(None if state is None else state['pairs'])
        self.photographs.start(None if state is None else state['photographs'])

    def take(self, count: int, size: int, step: int, *, stereo: bool = True) -> Load:
        ranks = self.photographs.ranks.count
        photos = ranks * round(self.share * count / ranks)
        loads = [
            source.take(some, size, step, stereo=stereo)
            for source, some in ((self.pairs, count - photos), (self.photographs, photos))
            if some
        ]
        return lambda: StereoBatch.join([load() for load in loads])

    def rescan(self) -> int:
        return self.pairs.rescan()

    def state(self) -> dict[str, Any]:
        return {'pairs': self.pairs.state(), 'photographs': self.photographs.state()}

    def __len__(self) -> int:
        return len(self.pairs) + len(self.photographs)


class DrawnPairs:
    """Pairs in memory, as PairPool hands them out."""

    def __init__(self, pairs: list[Pair], names: list[str]) -> None:
        self._pairs, self._names = pairs, names

    def __len__(self) -> int:
        return len(self._pairs)

    def pair(self, index: int) -> Pair:
        """Arrays of one pair by name."""
        return self._pairs[index]

    def name(self, index: int) -> str:
        """Where a pair comes from."""
        return self._names[index]
