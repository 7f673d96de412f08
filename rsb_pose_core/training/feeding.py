"""Batches on their way to the device that trains on them, while it is busy with another."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.training.augmentation import Augmentation
from rsb_pose_core.training.batches import TENSORS, StereoBatch
from rsb_pose_core.training.disturbing import disturb_batch
from rsb_pose_core.training.guard import unusable_batch


@dataclass(frozen=True)
class Fed:
    """A batch on the device, once `copied` has come to pass; or a sentence why it is no good."""

    batch: StereoBatch
    problem: str | None = None
    copied: torch.cuda.Event | None = None


class Feeder:
    """Checks, copies and disturbs batches in the loader's thread, beside the training kernels."""

    def __init__(
        self, device: torch.device, seed: int, rank: int = 0, disturb: Augmentation | None = None
    ) -> None:
        """disturb: what to change at random on the device; None where the source did so."""
        self.device, self.disturb = device, disturb
        self._seed = (seed, rank)
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None

    def feed(self, load: Callable[[], StereoBatch], step: int) -> Fed:
        """The batch of a step; raises what `load` raises."""
        batch = load()
        problem = unusable_batch(batch)
        if problem is not None:
            return Fed(batch, problem)
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            if self._stream is not None:
                batch = each_tensor(batch, self._copied)
            if self.disturb is not None:
                batch = disturb_batch(batch, self.disturb, (*self._seed, step))
        return Fed(batch, None, None if self._stream is None else self._stream.record_event())

    def _copied(self, value: Tensor) -> Tensor:
        """From pinned memory, so that nobody waits for the copy."""
        pinned = value if value.is_cuda else value.pin_memory()
        return pinned.to(self.device, non_blocking=True)

    def arrived(self, fed: Fed) -> StereoBatch:
        """The batch for the kernels of this thread, which wait for its copy."""
        if fed.copied is None:
            return fed.batch
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(fed.copied)

        def kept(value: Tensor) -> Tensor:
            value.record_stream(stream)  # its memory is not used again before they are done
            return value

        return each_tensor(fed.batch, kept)


def each_tensor(batch: StereoBatch, change: Callable[[Tensor], Tensor]) -> StereoBatch:
    """The batch with all its tensors changed."""
    changed: dict[str, Any] = {name: change(getattr(batch, name)) for name in TENSORS}
    fields = (change(value) for value in batch.calibration.fields())
    return replace(batch, **changed, calibration=StereoCalibration(*fields))
