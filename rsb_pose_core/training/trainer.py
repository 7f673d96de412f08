"""The training loop: stages, averages, validation, and a state to resume from."""

import json
import math
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rsb_pose_core.checkpoint import save_checkpoint
from rsb_pose_core.errors import DataError
from rsb_pose_core.models import NETWORKS, Network
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import TrainConfig, config_to_dict
from rsb_pose_core.training.evaluation import evaluate, table
from rsb_pose_core.training.losses import stereo_losses
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.sources import BatchSource
from rsb_pose_core.training.state import MovingAverage, adamw, load_state, save_state

LOG_EVERY = 20  # steps


def build_model(name: str) -> Network:
    """A network by its name in a configuration: 'lite', 'rsb-pose-resnet50', ...."""
    if name not in NETWORKS:
        raise DataError(f'unknown model {name}; known are {", ".join(NETWORKS)}')
    return NETWORKS[name].build()


class Trainer:
    """One run in one directory: last.pt, model.safetensors, log.jsonl, TensorBoard events."""

    def __init__(
        self,
        config: TrainConfig,
        source: BatchSource,
        validation: str | None,
        out: Path,
        *,
        device: torch.device,
        resume: bool = False,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.out, self.device = config, out, device
        out.mkdir(parents=True, exist_ok=True)
        self.model = build_model(config.model).to(device).train()
        self.average = MovingAverage(self.model, config.ema_decay)
        self.averaged_model = deepcopy(self.model).eval()
        self.optimizer = adamw(self.model, config.learning_rate, config.weight_decay)
        self.step, self.seconds, self.pairs_seen = 0, 0.0, 0
        self.stage_index, self.stage_step = 0, 0
        self.source = source
        source.start(self._load() if resume else None)
        self._pending_state = source.state()
        self.validation_pool: PairPool | None = None
        if validation is not None:
            self.validation_pool = PairPool(validation, config.validate_pairs)
            if self.validation_pool.scan() == 0:
                raise DataError(f'no validation pairs match {validation}; correct --val')
        self._stop = False

    @property
    def progress(self) -> float:
        """0..1 of the run."""
        if self.config.steps is not None:
            return min(self.step / self.config.steps, 1.0)
        return min(self.seconds / (60 * (self.config.minutes or 1.0)), 1.0)

    def learning_rate(self) -> float:
        """Cosine over the run, warmed up at the start of each stage."""
        c = self.config
        cosine = 0.5 * (1 + math.cos(math.pi * self.progress))
        scale = c.final_learning_rate + (1 - c.final_learning_rate) * cosine
        warm = min(1.0, (self.stage_step + 1) / max(c.warmup_steps, 1))
        return c.learning_rate * c.stages[self.stage_index].lr_scale * scale * warm

    def run(self) -> None:
        """Train to the end of the schedule, or until SIGINT or SIGTERM asks to stop."""
        writer = SummaryWriter(str(self.out))
        saved = validated = scanned = time.monotonic()
        total = self.config.steps if self.config.steps is not None else None
        bar = tqdm(total=total, initial=self.step, unit='step', mininterval=5.0, smoothing=0.02)
        with self._signals(), ThreadPoolExecutor(1) as executor:
            pending = self._prefetch(executor)
            while self.progress < 1 and not self._stop:
                started = time.monotonic()
                batch = pending.result()
                waited = time.monotonic() - started
                if started - scanned > 60 * self.config.rescan_minutes:
                    scanned = started
                    self._rescan()
                self.step += 1  # the next batch belongs to the next step
                pending = self._prefetch(executor)
                self.step -= 1
                terms = self.train_step(batch.to(self.device))
                now = time.monotonic()
                self.seconds += now - started
                bar.update()
                if self.step % LOG_EVERY == 0:
                    self._log_step(writer, bar, terms, len(batch) / (now - started), waited)
                if now - validated > 60 * self.config.validate_minutes:
                    self.validate(writer)
                    validated = time.monotonic()
                if now - saved > 60 * self.config.save_minutes:
                    self.save()
                    saved = time.monotonic()
            self.save()
            pending.cancel()
        if not self._stop:
            self.validate(writer)
        bar.close()
        writer.close()

    def train_step(self, batch: StereoBatch) -> dict[str, torch.Tensor]:
        """One step of the optimizer; returns the weighted loss terms and the gradient's norm."""
        stage_index = self.config.stage_at(self.progress)
        if stage_index != self.stage_index:
            self.stage_index, self.stage_step = stage_index, 0
        stage = self.config.stages[stage_index]
        for group in self.optimizer.param_groups:
            group['lr'] = self.learning_rate()
        with torch.autocast(self.device.type, torch.bfloat16):
            heatmaps = self.model(*batch.images(), volume=stage.volume)
        terms = stereo_losses(heatmaps, batch, stage.losses)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        if bool(norm.isfinite()):
            self.optimizer.step()
        self.average.update(self.model)
        self.step += 1
        self.stage_step += 1
        self.pairs_seen += len(batch)
        return {**{name: term.detach() for name, term in terms.items()}, 'gradient_norm': norm}

    def validate(self, writer: SummaryWriter | None = None) -> dict[str, dict[str, float]]:
        """Errors of the averaged weights on the validation pairs; exports them as well."""
        self.averaged_model.load_state_dict(self.average.values)
        results: dict[str, dict[str, float]] = {}
        size = self.config.stages[self.stage_index].input_size
        if self.validation_pool is not None:
            for name, jitter in (('centred', 0), ('jittered', self.config.validate_jitter_px)):
                found = evaluate(
                    self.averaged_model,
                    self.validation_pool,
                    input_size=size,
                    jitter_px=jitter,
                    limit=self.config.validate_pairs,
                    device=self.device,
                    bf16=True,
                )
                tqdm.write(table(found, f'step {self.step} {size}px {name}'))
                results |= {f'{name}_{method}': values for method, values in found.items()}
        for group, values in results.items():
            for name, value in values.items():
                if writer is not None:
                    writer.add_scalar(f'{group}/{name}', value, self.step)
        self._write_log({'kind': 'validation', 'input_size': size, **results})
        self.export(results)
        return results

    def export(self, results: dict[str, dict[str, float]]) -> None:
        """Write the averaged weights to model.safetensors."""
        self.averaged_model.load_state_dict(self.average.values)
        metadata = {
            'model': self.config.model,
            'input_size': self.config.stages[-1].input_size,
            'steps': self.step,
            'pairs_seen': self.pairs_seen,
            'pairs_different': len(self.source),
            'seed': self.config.seed,
            'validation': json.dumps(results),
        }
        save_checkpoint(self.out / 'model.safetensors', self.averaged_model, metadata)

    def save(self) -> None:
        """Write last.pt, from which the run continues exactly."""
        save_state(
            self.out / 'last.pt',
            {
                'config': config_to_dict(self.config),
                'model': self.model.state_dict(),
                'average': self.average.state(),
                'optimizer': self.optimizer.state_dict(),
                'counters': {
                    'step': self.step,
                    'seconds': self.seconds,
                    'pairs_seen': self.pairs_seen,
                    'stage_index': self.stage_index,
                    'stage_step': self.stage_step,
                },
                'source': self._pending_state,
                'random': torch.get_rng_state(),
            },
        )

    def _load(self) -> dict[str, Any]:
        """Take up the run in `out`; returns the state of its source."""
        state = load_state(self.out / 'last.pt', self.device)
        if state['config']['model'] != self.config.model:
            raise DataError(
                f'{self.out}: the run is of model {state["config"]["model"]}, the configuration '
                f'says {self.config.model}; give another --out'
            )
        self.model.load_state_dict(state['model'])
        self.average.load_state(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        for name, value in state['counters'].items():
            setattr(self, name, value)
        torch.set_rng_state(state['random'].cpu())
        source: dict[str, Any] = state['source']
        return source

    def _prefetch(self, executor: ThreadPoolExecutor) -> 'Future[StereoBatch]':
        self._pending_state = self.source.state()
        stage = self.config.stages[self.config.stage_at(self.progress)]
        load = self.source.take(stage.batch_size, stage.input_size, self.step)
        return executor.submit(load)

    def _rescan(self) -> None:
        added = self.source.rescan()
        if added:
            tqdm.write(f'{added} new pairs, {len(self.source)} in all')

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the current step."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop = True

        previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _log_step(
        self,
        writer: SummaryWriter,
        bar: 'tqdm[Any]',
        terms: dict[str, torch.Tensor],
        pairs_per_second: float,
        waited: float,
    ) -> None:
        values = {name: float(term) for name, term in terms.items()}
        left = self.seconds * (1 / max(self.progress, 1e-6) - 1)
        bar.set_postfix_str(
            f'{self.config.stages[self.stage_index].name} {pairs_per_second:.1f} pairs/s '
            f'ETA {left / 60:.0f} min ' + ' '.join(f'{k} {v:.3f}' for k, v in values.items())
        )
        values |= {
            'learning_rate': self.optimizer.param_groups[0]['lr'],
            'pairs_per_second': pairs_per_second,
            'waited_s': waited,
        }
        for name, value in values.items():
            writer.add_scalar(f'train/{name}', value, self.step)
        if self.step % (5 * LOG_EVERY) == 0:
            self._write_log({'kind': 'train', **values})

    def _write_log(self, record: dict[str, Any]) -> None:
        counters = {
            'step': self.step,
            'pairs_seen': self.pairs_seen,
            'pairs_different': len(self.source),
            'minutes': round(self.seconds / 60, 2),
            'stage': self.config.stages[self.stage_index].name,
        }
        with (self.out / 'log.jsonl').open('a') as log:
            log.write(json.dumps({**counters, **record}) + '\n')
