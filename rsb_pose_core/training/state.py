"""Moving averages, optimizers and the file a run resumes from."""

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsb_pose_core.errors import DataError
from rsb_pose_core.models.backbones.backbone import Backbone
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.training.config import TrainConfig
from rsb_pose_core.training.muon import Muon, is_matrix

BETAS = 0.9, 0.98  # of Adam's moments


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
        whole = [name for name in self.values if name not in set(floating)]
        if whole:
            torch._foreach_copy_(
                [self.values[name] for name in whole], [current[name] for name in whole]
            )

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
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)


def make_optimizer(system: PoseSystem, config: TrainConfig) -> torch.optim.Optimizer:
    """As `config.optimizer` says; each group has an 'lr_scale', which the backbone's differ in.

    Norms and biases do not decay. 'orthogonal' groups are those that Muon turns.
    """
    backbone = {id(p) for p in system.method.get_submodule('trunk').parameters()}
    muon = config.optimizer == 'muon'
    kinds: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for p in system.parameters():
        kind = (id(p) not in backbone, p.ndim <= 1, muon and is_matrix(p))
        kinds.setdefault(kind, []).append(p)
    groups: list[dict[str, Any]] = [
        {
            'params': parameters,
            'weight_decay': 0.0 if plain else config.weight_decay,
            'lr_scale': 1.0 if ours else config.backbone_lr_scale,
            'orthogonal': matrices,
        }
        for (ours, plain, matrices), parameters in sorted(kinds.items())
    ]
    rate = config.learning_rate
    if config.optimizer == 'adam':
        return torch.optim.Adam(groups, lr=rate, fused=True)
    if muon:
        return Muon(groups, rate, BETAS)
    return torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=True)


def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Moments in memory as their parameters (channels-last on a GPU), as kernels expect."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[key] = torch.empty_like(parameter).copy_(value)


def compile_parts(method: nn.Module) -> None:
    """Compile, when they are first called, the parts where nearly all time goes."""
    for name, part in method.named_children():
        if name in ('trunk', 'volume'):
            part.compile()
        if isinstance(part, Backbone) and part.channels_half:  # then this is what is called
            part.forward_with_half = torch.compile(part.forward_with_half)  # type: ignore[method-assign]


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Of the generators that dropout and the like draw from."""
    state = {'cpu': torch.get_rng_state()}
    if device.type == 'cuda':
        state['cuda'] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Go on from a random_state()."""
    torch.set_rng_state(state['cpu'].cpu())
    if device.type == 'cuda' and 'cuda' in state:
        torch.cuda.set_rng_state(state['cuda'].cpu(), device)


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Name of a tensor that has a NaN or an infinity; None where all is well."""
    for name, value in tensors:
        if value.is_floating_point() and not bool(value.isfinite().all()):
            return name
    return None


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
