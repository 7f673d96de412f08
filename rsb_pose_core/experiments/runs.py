"""Weights of several networks, trained alike where they are not given.

All runs of an experiment take the same seed and length, and one configuration but for methods
that are given their own: so they see the same pairs in the same order, cut alike where batches are
as large. They lie in OUT/runs/NAME and go on where they stopped.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import torch

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.experiments.methods import named_weights
from rsb_pose_core.models import METHODS, NETWORKS
from rsb_pose_core.models.backbones import BACKBONES
from rsb_pose_core.training.config import TrainConfig, config_to_dict, load_config
from rsb_pose_core.training.objective import build_system
from rsb_pose_core.training.sources import ShardSource
from rsb_pose_core.training.state import keep_freed_memory
from rsb_pose_core.training.trainer import Trainer

RECORD = 'run.json'  # what a run's folder says of it


@dataclass(frozen=True)
class Run:
    """One training: a network of models.NETWORKS, and what it begins with.

    `after` names the run whose weights it begins with, `refiner` the Pose Transformer that is
    trained with it; both by the configuration of the end-to-end stage. `seed` is added to the
    experiment's.
    """

    name: str
    model: str
    seed: int = 0
    after: str | None = None
    refiner: Path | None = None


@dataclass(frozen=True)
class Training:
    """How what is missing is trained: configurations, training pairs, length, device.

    configs: by the method that they are for (models.METHODS), '' for all others; backbones:
    published weights by the backbone, likewise.
    """

    configs: Mapping[str, Path]
    end_to_end: Path | None
    pairs: str | None
    device: str
    backbones: Mapping[str, Path] = field(default_factory=dict)
    seed: int = 0
    length: dict[str, Any] = field(default_factory=dict)  # instead of the configuration's

    def configure(self, run: Run) -> TrainConfig:
        """The configuration of a run. Raises ConfigError."""
        path = self.end_to_end
        if run.after is None:
            path = self.configs.get(NETWORKS[run.model].method, self.configs.get(''))
        if path is None or self.pairs is None:
            option = '--config' if run.after is None else '--end-to-end'
            raise ConfigError(
                f'there are no weights of {run.name}; give --weights {run.name}=FILE, or '
                f'{option} FILE and --train PAIRS to train it'
            )
        seed = self.seed + run.seed
        return load_config(path, model=run.model, seed=seed, **self.length)

    def backbone(self, run: Run) -> Path | None:
        """Published weights of a run's backbone, where it does not begin with another's."""
        if run.after is not None:
            return None
        return self.backbones.get(NETWORKS[run.model].backbone, self.backbones.get(''))


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights that there are, and how to train the others."""
    parser.add_argument(
        '--weights', nargs='+', default=[], metavar='NAME=FILE',
        help='weights of rows that need no training, by the names of the table',
    )  # fmt: skip
    parser.add_argument(
        '--config', nargs='+', default=[], metavar='[METHOD=]FILE',
        help=f'how to train the others: a file for all, or for a method ({", ".join(METHODS)})',
    )  # fmt: skip
    parser.add_argument(
        '--backbone-weights', nargs='+', default=[], metavar='[BACKBONE=]FILE',
        help='published weights that trainings begin with, for all or for one backbone',
    )  # fmt: skip
    parser.add_argument('--train', metavar='PAIRS', help="pairs to train on: 'shards/train_*.npz'")
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--steps', type=int, help="length of each run, instead of the file's")
    length.add_argument('--minutes', type=float, help='the same in minutes of training')
    parser.add_argument('--seed', type=int, default=0)


def training(args: argparse.Namespace) -> Training:
    """Of the options of add_training_arguments."""
    length: dict[str, Any] = {}
    if args.steps is not None or args.minutes is not None:
        length = {'steps': args.steps, 'minutes': args.minutes, 'epochs': None}
    end_to_end = getattr(args, 'end_to_end', None)
    return Training(
        _files_by(args.config, METHODS, '--config'),
        end_to_end,
        args.train,
        args.device,
        _files_by(args.backbone_weights, BACKBONES, '--backbone-weights'),
        args.seed,
        length,
    )


def _files_by(values: Sequence[str], known: Iterable[str], option: str) -> dict[str, Path]:
    """[KEY=]FILE, ... by key, '' where there is none. Raises ConfigError."""
    found: dict[str, Path] = {}
    for value in values:
        key, _, path = value.rpartition('=')
        if key and key not in known:
            raise ConfigError(
                f'{option} {value}: expected FILE, or one of {", ".join(known)}=FILE'
            )
        found[key] = Path(path)
    return found


def weights_of(
    runs: Sequence[Run],
    given: Sequence[str],
    how: Training,
    out: Path,
    trainer: Callable[..., Trainer] = Trainer,
) -> dict[str, Path]:
    """Weights of every run by its name: given as NAME=FILE, finished before, or trained now."""
    found = named_weights(given)
    unknown = sorted(set(found) - {run.name for run in runs})
    if unknown:
        names = ', '.join(run.name for run in runs)
        raise ConfigError(f'--weights {unknown[0]}=...: no such row, expected one of {names}')
    missing = [run for run in runs if run.name not in found]
    configured = [(run, how.configure(run)) for run in missing]  # complain before training
    for run, config in configured:
        begun = None if run.after is None else found[run.after]
        found[run.name] = _trained(run, config, how, begun, out / 'runs' / run.name, trainer)
    return found


def _trained(
    run: Run,
    config: TrainConfig,
    how: Training,
    begun: Path | None,
    folder: Path,
    trainer: Callable[..., Trainer],
) -> Path:
    """Train a run, or what is left of it; its weights."""
    settings = {
        'pairs': how.pairs,
        'weights': str(begun),
        'refiner': str(run.refiner),
        'backbone_weights': str(how.backbone(run)),
        'config': config_to_dict(config),
    }
    weights, record, state = (folder / name for name in ('model.safetensors', RECORD, 'last.pt'))
    if state.exists():
        known = json.loads(record.read_text())
        if known['settings'] != json.loads(json.dumps(settings)):
            raise ConfigError(
                f'{folder}: this run was begun with other settings; remove it, or give another '
                f'--out'
            )
        if known['finished']:
            return weights
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({'settings': settings, 'finished': False}, indent=1))
    cv2.setNumThreads(1)  # augmentation runs beside the network
    if how.device == 'cpu':
        keep_freed_memory()
    print(f'training {run.name} ({run.model}) in {folder}')
    torch.manual_seed(config.seed)  # of fresh weights
    one = trainer(
        config,
        ShardSource(config, str(how.pairs)),
        None,
        folder,
        device=torch.device(how.device),
        resume=state.exists(),
        system=build_system(
            run.model,
            weights=begun,
            refiner=run.refiner,
            backbone_weights=how.backbone(run),
        ),
    )
    one.run()
    if one.progress < 1:
        raise KeyboardInterrupt  # the trainer saved itself
    record.write_text(json.dumps({'settings': settings, 'finished': True}, indent=1))
    return weights
