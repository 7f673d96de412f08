"""Several processes that train one network together, one GPU each, as torchrun starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

from rsb_pose_core.errors import ConfigError, DataError

T = TypeVar('T')
PATIENCE = timedelta(hours=1)  # for the first rank, which alone validates and saves


@dataclass(frozen=True)
class Ranks:
    """This process among those of a run; by default it is the only one.

    All ranks must call the methods that ask others, in the same order.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this one logs, validates and saves."""
        return self.rank == 0

    def part(self, batch_size: int) -> slice:
        """This rank's part of a batch; ConfigError where it cannot be shared out evenly."""
        size, rest = divmod(batch_size, self.count)
        if rest or not size:
            raise ConfigError(
                f'a batch_size of {batch_size} cannot be shared by {self.count} processes; '
                f'expected a multiple of {self.count}'
            )
        return slice(self.rank * size, (self.rank + 1) * size)

    def maximum(self, *values: float) -> list[float]:
        """The largest of all ranks, of each value."""
        if self.count == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return [float(value) for value in found]

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the ranks."""
        if self.count == 1:
            return values
        found = values.detach().double().cpu()
        torch.distributed.all_reduce(found)
        return found / self.count

    def share(self, value: T) -> T:
        """What the first rank says."""
        if self.count == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, 0, device=torch.device('cpu'))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """What every rank says, in their order."""
        if self.count == 1:
            return [value]
        found: list[T | None] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found  # type: ignore[return-value]

    def stop_together(self, problem: str | None) -> None:
        """End all ranks where one has a problem: DataError on the first, quietly on the others."""
        if not self.maximum(float(problem is not None))[0]:
            return
        found = [text for text in self.gather(problem) if text is not None]
        if not self.first:
            raise SystemExit(2)
        raise DataError(found[0])


@contextmanager
def torchrun_ranks(device: str) -> Iterator[tuple[Ranks, torch.device]]:
    """The ranks of torchrun and this one's device; a single rank where torchrun did not start us.

    NCCL sums gradients on GPUs; gloo does so on CPUs and carries what ranks tell each other.
    """
    count = int(os.environ.get('WORLD_SIZE', 1))
    if count == 1:
        alone = torch.device(device)
        if alone.type == 'cuda' and alone.index is not None:
            torch.cuda.set_device(alone)
        yield Ranks(), alone
        return
    chosen = torch.device(device)
    if chosen.type == 'cuda':
        number = int(os.environ['LOCAL_RANK'])
        if ':' in device or number >= torch.cuda.device_count():
            raise ConfigError(
                f'--device {device} for process {number} of this machine, which has '
                f'{torch.cuda.device_count()} GPUs; give --device cuda and start one process a GPU'
            )
        chosen = torch.device('cuda', number)
        torch.cuda.set_device(chosen)
    backend = 'cpu:gloo,cuda:nccl' if chosen.type == 'cuda' else 'gloo'
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    yield Ranks(torch.distributed.get_rank(), count), chosen
    torch.distributed.destroy_process_group()  # not after an error: others may be waiting


def loader_threads() -> int:
    """How many threads make a batch: the processors of this machine, shared by its ranks."""
    ranks = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    return max(1, min(16, (os.cpu_count() or 1) // ranks))
