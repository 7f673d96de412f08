"""What a training run does: one dataclass, one YAML file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.training.augmentation import Augmentation
from rsb_pose_core.training.losses import LossWeights

T = TypeVar('T')


@dataclass(frozen=True)
class Stage:
    """A part of the run. `share` is its part of the run's length (minutes or steps)."""

    name: str
    share: float
    input_size: int = 256
    batch_size: int = 16
    volume: bool = True
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
    """A run of the trainer. Either `minutes` of training time or `steps` says how long it is."""

    model: str
    stages: tuple[Stage, ...]
    seed: int = 0
    minutes: float | None = 60.0
    steps: int | None = None
    learning_rate: float = 1.2e-3
    final_learning_rate: float = 0.01  # part of learning_rate at the end of the cosine
    weight_decay: float = 0.02
    warmup_steps: int = 60  # at the start of each stage
    clip_norm: float = 5.0
    ema_decay: float = 0.999
    rescan_minutes: float = 2.0
    save_minutes: float = 3.0
    validate_minutes: float = 10.0
    validate_pairs: int = 200
    validate_jitter_px: int = 12
    max_pairs: int = 24000
    augmentation: Augmentation = field(default_factory=Augmentation)
    rendering: Rendering = field(default_factory=Rendering)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError('the configuration has no stages, expected at least one')
        if (self.minutes is None) == (self.steps is None):
            raise ConfigError('give the length of the run either as minutes or as steps')
        for stage in self.stages:
            if stage.input_size % 32 or stage.share <= 0 or stage.batch_size < 2:
                raise ConfigError(
                    f'stage {stage.name}: expected an input_size that is a multiple of 32, a '
                    f'share above 0 and a batch_size of at least 2'
                )

    def stage_at(self, progress: float) -> int:
        """Index of the stage at 0..1 of the run."""
        total = sum(stage.share for stage in self.stages)
        end = 0.0
        for i, stage in enumerate(self.stages):
            end += stage.share / total
            if progress < end - 1e-9:
                return i
        return len(self.stages) - 1


def load_config(path: Path, **overrides: Any) -> TrainConfig:
    """Read a YAML file; `overrides` replace top-level values. Raises ConfigError."""
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
    return _build(TrainConfig, {**values, **overrides}, str(path))


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain values, as load_config takes them."""
    return asdict(config)


def _build(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass from plain values, nested ones too; unknown and missing names are errors."""
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f'{where}: unknown setting {unknown[0]}; known are {", ".join(known)}')
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name == 'stages' and isinstance(value, (list, tuple)):
            arguments[name] = tuple(_build(Stage, stage, f'{where}: stages') for stage in value)
        elif name == 'losses':
            arguments[name] = _build(LossWeights, value, f'{where}: losses')
        elif name == 'augmentation':
            arguments[name] = _build(Augmentation, value, f'{where}: augmentation')
        elif name == 'rendering':
            arguments[name] = _build(Rendering, value, f'{where}: rendering')
        elif known[name].type in (float, float | None) and isinstance(value, int):
            arguments[name] = float(value)
        else:
            arguments[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**arguments)
    except TypeError as error:
        raise ConfigError(f'{where}: {error}') from error
