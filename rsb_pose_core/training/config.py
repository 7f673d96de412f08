"""What a training run does: one dataclass, one YAML file."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.models import NETWORKS
from rsb_pose_core.training.augmentation import Augmentation
from rsb_pose_core.training.losses import LossWeights
from rsb_pose_core.training.photo_pairs import PhotoAugmentation

T = TypeVar('T')

EPOCH_PAIRS = 15000  # of the paper's authors
OPTIMIZERS = ('adam', 'adamw', 'muon')
SCHEDULES = ('cosine', 'constant')
PRECISIONS = ('bf16', 'fp16', 'float32')


@dataclass(frozen=True)
class Stage:
    """A part of the run. `share` is its part of the run's length."""

    name: str
    share: float = 1.0
    input_size: int = 0  # side of the crops in pixels; 0: the network's own
    batch_size: int = 16  # of all processes together
    volume: bool = True  # False: only the 2D heat maps
    lr_scale: float = 1.0
    losses: LossWeights = field(default_factory=LossWeights)


@dataclass(frozen=True)
class Rendering:
    """How pairs are drawn while the network trains."""

    pairs_at_once: int = 64  # 10 suit a CPU
    batches_per_casting: int = 20  # of pairs_at_once, until textures and people change

    def __post_init__(self) -> None:
        if self.pairs_at_once < 1 or self.batches_per_casting < 1:
            raise ConfigError('rendering: expected values of at least 1')


@dataclass(frozen=True)
class TrainConfig:
    """A run of the trainer, as long as one of `epochs`, `steps` and `minutes` says."""

    model: str  # of models.NETWORKS
    stages: tuple[Stage, ...]
    seed: int = 0
    epochs: float | None = None  # of 15000 pairs
    steps: int | None = None
    minutes: float | None = None  # of training time
    optimizer: str = 'adamw'  # or adam, muon
    learning_rate: float = 1.2e-3
    backbone_lr_scale: float = 1.0  # of the 2D backbone's learning rate
    schedule: str = 'cosine'  # or constant
    final_learning_rate: float = 0.01  # part of learning_rate at the end of the cosine
    weight_decay: float = 0.02
    warmup_steps: int = 60  # at the start of each stage
    clip_norm: float = 5.0
    ema_decay: float = 0.999  # of the weights that are validated and exported; 0: no average
    precision: str = 'bf16'  # float32 where it is not fast; or fp16, gradients scaled, or float32
    compile: bool = False  # trunk and volume, on a GPU: minutes at first, then faster steps
    rescan_minutes: float = 2.0
    save_minutes: float = 3.0
    validate_minutes: float = 10.0
    validate_pairs: int = 200
    validate_jitter_px: int = 12
    max_pairs: int | None = None
    photo_share: float = 0.5  # of each batch, where photographs are given
    augmentation: Augmentation = field(default_factory=Augmentation)
    photographs: PhotoAugmentation = field(default_factory=PhotoAugmentation)
    rendering: Rendering = field(default_factory=Rendering)

    def __post_init__(self) -> None:
        if self.model not in NETWORKS:
            raise ConfigError(f'unknown model {self.model}; known are {", ".join(NETWORKS)}')
        if not self.stages:
            raise ConfigError('the configuration has no stages, expected at least one')
        lengths = [value for value in (self.epochs, self.steps, self.minutes) if value is not None]
        if len(lengths) != 1 or lengths[0] <= 0:
            raise ConfigError(
                'give the length of the run, above 0, by one of epochs, steps and minutes'
            )
        for name, known in (
            ('optimizer', OPTIMIZERS), ('schedule', SCHEDULES), ('precision', PRECISIONS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ConfigError(
                    f'{name} {getattr(self, name)}: expected one of {", ".join(known)}'
                )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f'ema_decay {self.ema_decay}: expected 0, or a value below 1')
        if not 0 <= self.photo_share <= 1:
            raise ConfigError(f'photo_share {self.photo_share}: expected 0 to 1')
        own = NETWORKS[self.model].input_size
        sized = tuple(replace(s, input_size=s.input_size or own) for s in self.stages)
        object.__setattr__(self, 'stages', sized)
        for stage in self.stages:
            if stage.input_size % 32 or stage.share <= 0 or stage.batch_size < 2:
                raise ConfigError(
                    f'stage {stage.name}: expected an input_size that is a multiple of 32, a '
                    f'share above 0 and a batch_size of at least 2'
                )

    @property
    def largest_input(self) -> int:
        """Side of the largest crops, in pixels."""
        return max(stage.input_size for stage in self.stages)

    def progress(self, *, step: int, pairs: int, seconds: float) -> float:
        """0..1 of the run after so many steps, pairs and seconds of training."""
        if self.epochs is not None:
            return min(pairs / (self.epochs * EPOCH_PAIRS), 1.0)
        if self.steps is not None:
            return min(step / self.steps, 1.0)
        return min(seconds / (60 * (self.minutes or 1.0)), 1.0)

    def stage_at(self, progress: float) -> int:
        """Index of the stage at 0..1 of the run."""
        total = sum(stage.share for stage in self.stages)
        end = 0.0
        for i, stage in enumerate(self.stages):
            end += stage.share / total
            if progress < end - 1e-9:
                return i
        return len(self.stages) - 1

    def rate_at(self, progress: float, stage_index: int, stage_step: int) -> float:
        """Learning rate at 0..1 of the run, warmed up at the start of each stage."""
        scale = 1.0
        if self.schedule == 'cosine':
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            scale = self.final_learning_rate + (1 - self.final_learning_rate) * cosine
        warm = min(1.0, (stage_step + 1) / max(self.warmup_steps, 1))
        return self.learning_rate * self.stages[stage_index].lr_scale * scale * warm


def load_config(path: Path, **overrides: Any) -> TrainConfig:
    """Read a YAML file; `overrides` replace top-level values. Raises ConfigError."""
    return read_settings(TrainConfig, path, **overrides)


def read_settings(kind: type[T], path: Path, **overrides: Any) -> T:
    """A dataclass of any stage from a YAML file. Raises ConfigError, one sentence."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(
            f'{path}: cannot be read ({error.strerror}); give --config FILE'
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f'{path}: not valid YAML ({str(error).splitlines()[0]})') from error
    if not isinstance(values, dict):
        raise ConfigError(f'{path}: expected a mapping of settings, got {type(values).__name__}')
    return _build(kind, {**values, **overrides}, str(path))


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values, as load_config takes them."""
    return asdict(config)


def _build(kind: type[T], values: Any, where: str) -> T:
    """A dataclass from plain values, nested ones too; unknown and missing names are errors."""
    if not isinstance(values, Mapping):
        raise ConfigError(f'{where}: expected a mapping of settings, got {values!r}')
    types = get_type_hints(kind)
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f'{where}: unknown setting {unknown[0]}; known are {", ".join(known)}')
    arguments = {
        name: _convert(types[name], value, f'{where}: {name}') for name, value in values.items()
    }
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ConfigError(f'{where}: {error}') from error
    except ConfigError as error:
        raise ConfigError(f'{where}: {error}') from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    """A value of YAML as the type of a field wants it."""
    choices = get_args(kind)
    if is_dataclass(kind):
        return _build(kind, value, where)  # type: ignore[arg-type]
    if isinstance(value, (list, tuple)):
        inner = choices[0] if choices else Any
        return tuple(_convert(inner, item, where) for item in value)
    if value is None and type(None) in choices:
        return None
    wanted = [choice for choice in choices if choice is not type(None)] or [kind]
    if float in wanted and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError as error:
            raise ConfigError(f'{where}: expected a number, got {value!r}') from error
    plain = [choice for choice in wanted if isinstance(choice, type)]
    if len(plain) == len(wanted) and type(value) not in plain:
        names = ' or '.join(choice.__name__ for choice in plain)
        raise ConfigError(f'{where}: expected {names}, got {value!r}')
    return value
