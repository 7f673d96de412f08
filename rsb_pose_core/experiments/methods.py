"""Weights measured on held-out pairs, as every experiment with networks does it."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.metrics import JointMask, Scores, scores
from rsb_pose_core.models import NETWORKS, PoseTransformer
from rsb_pose_core.training.evaluation import Evaluated, evaluate_method
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.report import EvaluatedMethod

GROUPS = ('all', 'visible', 'occluded')


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Held-out pairs, output and machine."""
    parser.add_argument(
        '--data', required=True,
        help="pairs to measure on: 'shards/val_*.npz', or the folder of a test set",
    )  # fmt: skip
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument('--limit', type=int, default=2000, help='at most so many pairs (2000)')
    parser.add_argument(
        '--jitter-px', type=int, default=12, help='how far the right crop is moved at most (12)'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def named_weights(values: Sequence[str]) -> dict[str, Path]:
    """NAME=FILE, ... as a dict. Raises ConfigError."""
    found: dict[str, Path] = {}
    for value in values:
        name, equals, path = value.partition('=')
        if not equals or not name or not path:
            raise ConfigError(f'weights {value}: expected NAME=FILE, as lite=lite.safetensors')
        found[name] = Path(path)
    return found


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs: a pattern, how many, and how far the right crop is moved at most."""

    data: str
    limit: int
    jitter_px: int

    def open(self, input_size: int) -> PairPool:
        """Pairs with pixels enough for a network of that size. Raises DataError."""
        pool = PairPool(self.data, self.limit, input_size)
        if pool.scan() == 0:
            raise DataError(f'no pairs match {self.data}; correct --data, or render some')
        return pool

    def evaluate(
        self, name: str, weights: Path, device: str, refiner: PoseTransformer | None = None
    ) -> EvaluatedMethod:
        """The weights at the size they were trained at; with `refiner` instead of their own."""
        model, own_refiner, metadata = load_model(weights, device)
        size = int(metadata.get('input_size', NETWORKS[metadata['model']].input_size))
        pool = self.open(size)
        stages = evaluate_method(
            model,
            pool,
            refiner=refiner or own_refiner,
            input_size=size,
            jitter_px=self.jitter_px,
            numbers=range(min(len(pool), self.limit)),
            device=torch.device(device),
            progress=name,
        )
        facts = {
            'model': metadata['model'],
            'input_size': size,
            'steps': metadata.get('steps'),
            'pairs_seen': metadata.get('pairs_seen'),
            'weights': weights.name,
        }
        return EvaluatedMethod(name, facts, stages)


def held_out(args: argparse.Namespace) -> HeldOut:
    """Of the options of add_evaluation_arguments; sets the threads too."""
    if args.limit < 1 or args.jitter_px < 0:
        raise ConfigError('expected a --limit of at least 1 and a --jitter-px of at least 0')
    if args.threads:
        torch.set_num_threads(args.threads)
    return HeldOut(args.data, args.limit, args.jitter_px)


def group_scores(found: Evaluated) -> dict[str, Scores]:
    """Scores of all counted joints, of those that the left view shows, and of the others."""
    errors = found.errors
    groups: tuple[JointMask | None, ...] = (None, errors.visible, errors.occluded)
    return {name: scores(errors, group) for name, group in zip(GROUPS, groups, strict=True)}


def figures(found: Evaluated) -> dict[str, Any]:
    """Plain numbers for results.json: MPJPE of the groups in mm, and of all joints the rest."""
    by_group = group_scores(found)
    every = by_group['all']
    return {
        'pairs': len(found.numbers),
        'joints': every.expected,
        'found': every.found,
        'jdr_crop_side': every.jdr_crop_side,
        'jdr_box_width': every.jdr_box_width,
        'sim_cos': every.sim_cos.mean,
        **{
            f'{name}_{kind}_{group}': getattr(getattr(measured, f'{name}_mm'), kind)
            for group, measured in by_group.items()
            for name in ('mpjpe_ab', 'mpjpe_re')
            for kind in ('median', 'mean')
        },
    }


def median_mean(values: Mapping[str, Any], name: str, group: str) -> str:
    """'median / mean' of a table's cell, in mm."""
    return f'{values[f"{name}_median_{group}"]:.0f} / {values[f"{name}_mean_{group}"]:.0f}'
