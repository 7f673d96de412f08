"""Whether each step's loss and gradients were finite, without waiting for a GPU to say so."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import Stage


@dataclass(frozen=True)
class Step:
    """A step of the optimizer, kept until its figures are known."""

    number: int
    stage: Stage
    batch: StereoBatch
    finite: Tensor  # of loss and of gradients: two values, on their way to the CPU
    arrived: torch.cuda.Event | None

    def read(self) -> tuple[bool, bool]:
        """Whether loss and gradients were finite; waits until that is known."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, gradients = self.finite.tolist()
        return loss, gradients


class StepChecks:
    """Steps to be looked at: at once on a CPU, one step later on a GPU, which is never idle so."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == 'cuda'
        self._waiting: deque[Step] = deque()

    def add(self, number: int, stage: Stage, batch: StereoBatch, finite: Tensor) -> None:
        """Note a step; finite: (2,) bool, of its loss and of its gradients."""
        event = None
        if self._cuda:
            host = torch.empty(finite.shape, dtype=finite.dtype, pin_memory=True)
            stream = torch.cuda.current_stream(finite.device)
            finite = host.copy_(finite, non_blocking=True)
            event = stream.record_event()
        self._waiting.append(Step(number, stage, batch, finite, event))

    def due(self, *, all_of_them: bool = False) -> Iterator[Step]:
        """Steps to look at now, the oldest first."""
        later = 1 if self._cuda and not all_of_them else 0
        while len(self._waiting) > later:
            yield self._waiting.popleft()
