"""The loop of small trainings: schedule, exact resume, progress, and a stop that loses nothing."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.training.state import adamw, load_state, save_state

LOG_EVERY = 20  # steps


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, warm-up, cosine to zero."""

    steps: int = 10000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 200
    clip_norm: float = 1.0
    bf16: bool = True  # where the device multiplies in it
    save_minutes: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise ConfigError(
                f'steps {self.steps}, batch_size {self.batch_size}, learning_rate '
                f'{self.learning_rate}: expected all above 0; correct the configuration'
            )

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


def optimize(
    model: nn.Module,
    backward: Callable[[int, torch.Generator], dict[str, float]],
    schedule: Schedule,
    out: Path,
    *,
    name: str,
    resume: bool = False,
    export: Callable[[int], dict[str, float]] = lambda step: {},
) -> bool:
    """Call `backward` once a step, which leaves gradients and returns figures to show.

    Saves `out`/last.pt every few minutes, at the end and when SIGINT or SIGTERM asks to stop;
    with `resume` goes on from there exactly. `export` is called after each save and returns
    figures too. Whatever `backward` raises ends the run with the last save kept. Returns whether
    the schedule was completed.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    optimizer = adamw(model, schedule.learning_rate, schedule.weight_decay)
    generator = torch.Generator().manual_seed(schedule.seed)
    torch.manual_seed(schedule.seed)
    first = 0
    if resume:
        first = _restore(out, model, optimizer, generator, device)
    writer = SummaryWriter(str(out))
    bar = tqdm(total=schedule.steps, initial=first, desc=name, unit='step', mininterval=5.0)

    def save(step: int) -> None:
        save_state(out / 'last.pt', _state(step, model, optimizer, generator, device))
        for figure, value in export(step).items():
            writer.add_scalar(figure, value, step)
        model.train()

    model.train()
    saved, step = time.monotonic(), first
    with stop_signals() as asked:
        while step < schedule.steps and not asked:
            for group in optimizer.param_groups:
                group['lr'] = schedule.rate(step)
            optimizer.zero_grad(set_to_none=True)
            figures = backward(step, generator)
            norm = nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
            if bool(norm.isfinite()):  # else the weights would be lost for one bad step
                optimizer.step()
            step += 1
            bar.update()
            if step % LOG_EVERY == 0:
                bar.set_postfix_str(' '.join(f'{k} {v:.1f}' for k, v in figures.items()))
                for figure, value in figures.items():
                    writer.add_scalar(f'train/{figure}', value, step)
            if time.monotonic() - saved > 60 * schedule.save_minutes:
                save(step)
                saved = time.monotonic()
        save(step)
    bar.close()
    writer.close()
    model.eval()
    return step == schedule.steps


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM fill the list instead of ending the program."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _state(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    device: torch.device,
) -> dict[str, Any]:
    cuda = torch.cuda.get_rng_state(device) if device.type == 'cuda' else None
    return {
        'step': step,
        'model': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'generator': generator.get_state(),
        'random': torch.get_rng_state(),
        'cuda_random': cuda,
    }


def _restore(
    out: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    device: torch.device,
) -> int:
    state = load_state(out / 'last.pt', device)
    try:
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        generator.set_state(state['generator'].cpu())
        torch.set_rng_state(state['random'].cpu())
        if state['cuda_random'] is not None and device.type == 'cuda':
            torch.cuda.set_rng_state(state['cuda_random'].cpu(), device)
        step = int(state['step'])
    except (KeyError, RuntimeError, ValueError) as error:
        raise DataError(
            f'{out / "last.pt"}: of another model or program '
            f'({str(error).splitlines()[0]}); give the run another --out'
        ) from error
    return step
