"""Moving averages, optimizer groups and the file a run resumes from."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsb_pose_core.errors import DataError


class MovingAverage:
    """Exponential moving average of a model's weights and BatchNorm statistics."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.values = {name: v.detach().clone() for name, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model; quickly at first, so that the random start is forgotten."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = model.state_dict()
        floating = [name for name, value in self.values.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.values[name] for name in floating],
            [current[name] for name in floating],
            1 - decay,
        )
        for name, value in self.values.items():
            if not value.is_floating_point():
                value.copy_(current[name])

    def state(self) -> dict[str, Any]:
        return {'updates': self.updates, 'values': self.values}

    def load_state(self, state: dict[str, Any]) -> None:
        self.updates = state['updates']
        for name, value in state['values'].items():
            self.values[name].copy_(value)


def adamw(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW without decay on norms and biases."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {'params': decayed, 'weight_decay': weight_decay},
        {'params': plain, 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)


def save_state(path: Path, state: dict[str, Tensor | Any]) -> None:
    """Write a resumable state so that a crash leaves the previous one whole."""
    part = path.with_suffix('.part')
    torch.save(state, part)
    os.replace(part, path)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read a state; DataError where there is none or it cannot be read."""
    if not path.exists():
        raise DataError(f'{path}: no such run to resume; start it without --resume')
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise DataError(f'{path}: cannot be resumed from, the file is damaged') from error
    return state


def keep_freed_memory() -> None:
    """Let glibc reuse large buffers instead of giving them back: 1.6 times the steps at 256 px.

    Every step allocates the same buffers; returning them costs page faults. Linux only.
    """
    if sys.platform != 'linux':
        return
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
