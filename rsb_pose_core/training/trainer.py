"""The training loop: stages, averages, validation, and a state to resume from."""

import json
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rsb_pose_core.checkpoint import save_checkpoint
from rsb_pose_core.errors import ConfigError, DataError, RsbPoseError
from rsb_pose_core.models import Network
from rsb_pose_core.models.layers import channels_last
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.synthesis.timing import stage as timed
from rsb_pose_core.training.augmentation import Augmentation, evaluation_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.checks import StepChecks
from rsb_pose_core.training.config import TrainConfig, config_to_dict
from rsb_pose_core.training.distributed import Ranks
from rsb_pose_core.training.evaluation import evaluate, table
from rsb_pose_core.training.feeding import Fed, Feeder
from rsb_pose_core.training.guard import PATIENCE, diverged, no_gradients, why_not_finite
from rsb_pose_core.training.loop import stop_signals
from rsb_pose_core.training.monitor import Monitor, first_volume_norm
from rsb_pose_core.training.objective import Objective, build_model
from rsb_pose_core.training.pictures import prediction_sheet
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.resuming import RunState, same_source
from rsb_pose_core.training.sources import BatchSource
from rsb_pose_core.training.state import (
    MovingAverage,
    compile_parts,
    make_optimizer,
    not_finite,
    random_state,
    set_random_state,
)

LOG_EVERY = 20  # steps
PAIRS_SHOWN = 4
COUNTERS = (
    'step', 'seconds', 'pairs_seen', 'pairs_before', 'stage_index', 'stage_step', 'skipped'
)  # fmt: skip


@dataclass(frozen=True)
class Pending:
    """A batch that is being made and brought to the device, and its stage."""

    stage_index: int
    batch: Future[Fed]


class Trainer:
    """One run in one directory: last.pt, carried/, model.safetensors, log.jsonl, TensorBoard.

    With several ranks each has a trainer; the first one validates, logs and saves.
    """

    def __init__(
        self,
        config: TrainConfig,
        source: BatchSource,
        validation: str | None,
        out: Path,
        *,
        device: torch.device,
        resume: bool = False,
        system: PoseSystem | None = None,
        ranks: Ranks | None = None,
        disturb: Augmentation | None = None,
        pairs_before: int = 0,
    ) -> None:
        """system: what to train, as build_system() makes it; fresh weights by default.

        disturb: what to change at random on the device, where `source` only cuts crops out.
        pairs_before: what the weights of `system` have learned from already, for the export.
        """
        torch.manual_seed(config.seed)
        self.config, self.out, self.device = config, out, device
        self.ranks = ranks or Ranks()
        self.monitor = Monitor(out, self.ranks.first)
        out.mkdir(parents=True, exist_ok=True)
        model = (system or PoseSystem(build_model(config.model))).to(device).train()
        _check_stages(config, model, self.ranks)
        if device.type == 'cuda':
            channels_last(model)
        self.averaged_model = deepcopy(model).eval()
        self.volume_norm = first_volume_norm(model)
        if self.ranks.count > 1 and device.type == 'cuda':
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model: PoseSystem = model
        if config.compile and device.type == 'cuda':
            compile_parts(model.method)
        self.average = MovingAverage(model, config.ema_decay)
        self.optimizer = make_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == 'fp16')
        self._state = RunState(out, model, self.average, self.optimizer, self.scaler, device)
        self.objective = Objective(model, config.precision)
        if config.precision == 'bf16' and self.objective.dtype != torch.bfloat16:
            self.monitor.say(f'this {device.type} has no bfloat16 instructions: float32 instead')
        self._step_module: nn.Module = self.objective
        if self.ranks.count > 1:  # stages and switches leave parameters unused
            self._step_module = DistributedDataParallel(
                self.objective, find_unused_parameters=True
            )
        self._feeder = Feeder(device, config.seed + pairs_before, self.ranks.rank, disturb)
        self._checks = StepChecks(device)
        torch.manual_seed(config.seed + self.ranks.rank)
        self.step, self.seconds, self.pairs_seen, self.pairs_before = 0, 0.0, 0, pairs_before
        self.stage_index, self.stage_step, self.skipped = 0, 0, 0
        self.source = source
        source.start(self._resume() if resume else None)
        self._pending_state = source.state()
        self._last_done = dict.fromkeys(('rescan', 'save', 'validate'), self.seconds)
        self.validation_pool: PairPool | None = None
        if validation is not None and self.ranks.first:
            self.validation_pool = PairPool(
                validation, config.validate_pairs, config.largest_input
            )
            if self.validation_pool.scan() == 0:
                raise DataError(f'no validation pairs match {validation}; correct --val')
        self._stop = False

    @property
    def progress(self) -> float:
        """0..1 of the run."""
        return self.config.progress(step=self.step, pairs=self.pairs_seen, seconds=self.seconds)

    def run(self) -> None:
        """Train to the end of the schedule, or until SIGINT or SIGTERM asks to stop.

        A batch, loss or weights that are not finite raise DataError and leave last.pt as it is.
        """
        with (
            self.monitor.running(self.progress),
            stop_signals() as asked,
            ThreadPoolExecutor(1) as executor,
        ):
            pending = self._prefetch(executor, self.step, self.progress)
            while self._goes_on(bool(asked)):
                if self._due('save', self.config.save_minutes):
                    self.save()
                if self._due('validate', self.config.validate_minutes):
                    self.validate()
                if self._due('rescan', self.config.rescan_minutes):
                    self._rescan()
                started = time.monotonic()
                batch = self._arrived(pending)
                waited = time.monotonic() - started
                self._enter(pending.stage_index)
                pending = self._prefetch_next(executor, batch)
                terms = self.train_step(batch)
                took = time.monotonic() - started
                if self.ranks.first:
                    self.seconds += took
                self.monitor.advance(self.progress)
                if self.step % LOG_EVERY == 0:
                    self._log_step(terms, len(batch) * self.ranks.count / took, waited)
            self.save()
            pending.batch.cancel()
            if not self._stop:
                self.validate()
            elif self.ranks.first:
                self.export({})

    def train_step(self, batch: StereoBatch) -> dict[str, torch.Tensor]:
        """One step of the optimizer; returns the weighted loss terms and the gradient's norm."""
        config, stage = self.config, self.config.stages[self.stage_index]
        rate = config.rate_at(self.progress, self.stage_index, self.stage_step)
        for group in self.optimizer.param_groups:
            group['lr'] = rate * group['lr_scale']
        with timed('forward'):
            terms = self._step_module(batch, stage)
            loss = torch.stack(list(terms.values())).sum()
        with timed('backward'):
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
        with timed('optimizer'):
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
            finite = torch.stack([loss.isfinite(), norm.isfinite()])
            self._checks.add(self.step, stage, batch, finite)
            self._look()
            if not self.scaler.is_enabled():  # it would see to this by itself
                self.optimizer.found_inf = (~finite.all()).float()  # type: ignore[attr-defined]
            self.scaler.step(self.optimizer)  # changes nothing where something is not finite
            self.scaler.update()
            self.average.update(self.model)
        self.step += 1
        self.stage_step += 1
        self.pairs_seen += len(batch) * self.ranks.count
        return {**{name: term.detach() for name, term in terms.items()}, 'gradient_norm': norm}

    def _look(self, *, all_of_them: bool = False) -> None:
        """End the run where a loss was no number, or gradients have not been for too long."""
        for step in self._checks.due(all_of_them=all_of_them):
            loss_counts, step_counts = step.read()
            problem = None
            if not loss_counts:
                problem = why_not_finite(
                    self.objective, step.batch, step.stage, step.number, self.config.precision
                )
            self.skipped = 0 if step_counts else self.skipped + 1
            if self.skipped >= PATIENCE:
                problem = problem or no_gradients(step.number, self.config.precision)
            self.ranks.stop_together(problem)

    def validate(self) -> dict[str, dict[str, float]]:
        """Errors of the averaged weights on the validation pairs; exports them as well.

        Nothing, on other ranks than the first.
        """
        if not self.ranks.first:
            return {}
        self.averaged_model.load_state_dict(self.average.values)
        results: dict[str, dict[str, float]] = {}
        size = self.config.stages[self.stage_index].input_size
        if self.validation_pool is not None:
            for name, jitter in (('centred', 0), ('jittered', self.config.validate_jitter_px)):
                found = evaluate(
                    self.averaged_model.method,
                    self.validation_pool,
                    input_size=size,
                    jitter_px=jitter,
                    limit=self.config.validate_pairs,
                    device=self.device,
                    bf16=self.objective.dtype == torch.bfloat16,
                    refiner=self.averaged_model.refiner,
                )
                self.monitor.say(table(found, f'step {self.step} {size}px {name}'))
                results |= {f'{name}_{stage}': values for stage, values in found.items()}
            self._show_predictions(self.validation_pool, size)
        for group, values in results.items():
            self.monitor.scalars(group, values, self.step)
        self._log({'kind': 'validation', 'input_size': size, **results})
        self.export(results)
        return results

    def export(self, results: dict[str, dict[str, float]]) -> None:
        """Write the averaged weights to model.safetensors, those of the refiner beside them."""
        self.averaged_model.load_state_dict(self.average.values)
        metadata = {
            'model': self.config.model,
            'input_size': self.config.stages[-1].input_size,
            'steps': self.step,
            'pairs_seen': self.pairs_before + self.pairs_seen,
            'pairs_different': len(self.source),
            'seed': self.config.seed,
            'validation': json.dumps(results),
        }
        save_checkpoint(
            self.out / 'model.safetensors',
            cast(Network, self.averaged_model.method),
            metadata,
            self.averaged_model.refiner,
        )

    def save(self) -> None:
        """Write last.pt, from which the run continues exactly, and carried/, which is small.

        DataError where weights are not finite: those before them stay.
        """
        self._look(all_of_them=True)
        broken = not_finite(self.model.state_dict().items())
        self.ranks.stop_together(None if broken is None else diverged(self.step, broken))
        random = self.ranks.gather(random_state(self.device))
        if not self.ranks.first:
            return
        facts = {
            'config': config_to_dict(self.config),
            'counters': {name: getattr(self, name) for name in COUNTERS},
            'source': self._pending_state,
        }
        self._state.save(facts, random)

    def _resume(self) -> dict[str, Any] | None:
        """Take up the run in `out`: the state of its source, where that is still of use."""
        found = self._state.resume(self.config.model)
        for name, value in found.facts['counters'].items():
            setattr(self, name, value)
        if found.words:
            self.monitor.say(found.words)
        if found.fresh:
            self.stage_step = 0  # warm up again
        source: dict[str, Any] = found.facts['source']
        if found.random is None:
            return source if same_source(source, self.source.state()) else None
        if len(found.random) == self.ranks.count:
            set_random_state(found.random[self.ranks.rank], self.device)
            return source
        self.monitor.say(
            f'the run was of {len(found.random)} processes, now it is of {self.ranks.count}: it '
            f'goes on, but not as it would have'
        )
        return source

    # ---- of a step ----

    def _goes_on(self, asked: bool) -> bool:
        """Whether there is another step: ranks agree about time and about being asked to stop."""
        stop, self.seconds = self.ranks.maximum(
            float(asked or self._stop), self.seconds if self.ranks.first else 0.0
        )
        self._stop = stop > 0
        return self.progress < 1 and not self._stop

    def _due(self, what: str, minutes: float) -> bool:
        """Whether so many minutes of training went by since it was last done."""
        if self.seconds - self._last_done[what] <= 60 * minutes:
            return False
        self._last_done[what] = self.seconds
        return True

    def _prefetch(self, executor: Executor, step: int, progress: float) -> Pending:
        """Begin to make the batch of a step."""
        self._pending_state = self.source.state()
        index = self.config.stage_at(progress)
        stage = self.config.stages[index]
        load = self.source.take(stage.batch_size, stage.input_size, step, stereo=stage.volume)
        return Pending(index, executor.submit(self._feeder.feed, load, step))

    def _prefetch_next(self, executor: Executor, batch: StereoBatch) -> Pending:
        """Begin to make the batch of the step after that of `batch`."""
        pairs = self.pairs_seen + len(batch) * self.ranks.count
        step = self.step + 1
        progress = self.config.progress(step=step, pairs=pairs, seconds=self.seconds)
        return self._prefetch(executor, step, progress)

    def _arrived(self, pending: Pending) -> StereoBatch:
        """A batch that can be trained on; all ranks end where one has none."""
        fed, problem = None, None
        try:
            fed = pending.batch.result()
            problem = fed.problem
        except RsbPoseError as error:
            problem = str(error)
        self.ranks.stop_together(problem)
        assert fed is not None
        return self._feeder.arrived(fed)

    def _enter(self, stage_index: int) -> None:
        if stage_index != self.stage_index:
            self.stage_index, self.stage_step = stage_index, 0

    def _rescan(self) -> None:
        added = self.source.rescan()
        if added:
            self.monitor.say(f'{added} new pairs, {len(self.source)} in all')

    # ---- for people ----

    def _log_step(
        self, terms: dict[str, torch.Tensor], pairs_per_second: float, waited: float
    ) -> None:
        """Figures of a step; the terms are means over the ranks."""
        means = self.ranks.mean(torch.stack(list(terms.values())).float()).tolist()
        values = dict(zip(terms, means, strict=True))
        words = ' '.join(f'{name} {value:.3f}' for name, value in values.items())
        stage = self.config.stages[self.stage_index].name
        self.monitor.describe(f'step {self.step} {stage} {pairs_per_second:.1f} pairs/s {words}')
        rates = [group['lr'] for group in self.optimizer.param_groups]
        values |= {
            'learning_rate': max(rates),
            'learning_rate_backbone': rates[0],
            'pairs_per_second': pairs_per_second,
            'waited_s': waited,
        }
        if self.volume_norm is not None:
            variance = self.model.get_buffer(f'{self.volume_norm}.running_var')
            values['volume_norm_variance'] = float(variance.mean())
        if self.scaler.is_enabled():
            values['gradient_scale'] = self.scaler.get_scale()
        self.monitor.scalars('train', values, self.step)
        if self.step % (5 * LOG_EVERY) == 0:
            self._log({'kind': 'train', **values})

    @torch.inference_mode()
    def _show_predictions(self, pool: PairPool, size: int) -> None:
        """A picture of what the averaged weights make of some validation pairs."""
        count = min(PAIRS_SHOWN, len(pool))
        chosen = [number * len(pool) // count for number in range(count)]
        batch = evaluation_batch(pool, chosen, size, 0).to(self.device)
        system = self.averaged_model(*batch.images(), batch.calibration)
        self.monitor.picture('predictions', prediction_sheet(system.final.xyz_m, batch), self.step)

    def _log(self, record: dict[str, Any]) -> None:
        counters = {
            'step': self.step,
            'pairs_seen': self.pairs_seen,
            'pairs_different': len(self.source),
            'minutes': round(self.seconds / 60, 2),
            'stage': self.config.stages[self.stage_index].name,
        }
        self.monitor.log({**counters, **record})


def _check_stages(config: TrainConfig, system: PoseSystem, ranks: Ranks) -> None:
    """ConfigError where a stage cannot be trained with this system or by so many processes."""
    for stage in config.stages:
        ranks.part(stage.batch_size)
        if stage.losses.refined_mpjpe and system.refiner is None:
            raise ConfigError(
                f'stage {stage.name} trains a refiner, and there is none; give --refiner FILE of '
                f'rsb-pose train ppt, or --refiner fresh'
            )
