"""`rsb-pose experiment table-5`: which joints of an estimate to mask, and what pre-training gives.

Estimates of a frozen network are refined, where the paper trains the whole framework end to end.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.errors import DataError
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.metrics import joint_errors_mm
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.config import read_settings
from rsb_pose_core.training.estimates import Estimates, cached_estimates
from rsb_pose_core.training.motion import Poses
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.pose_prior import (
    CASCADES,
    RefinerConfig,
    refine,
    starting_transformer,
    train_refiner,
)

FIGURES = ('ab_all', 'ab_occluded', 're_all', 're_occluded')


@dataclass(frozen=True)
class Row:
    """A row of Table V; cascade None is the estimate itself."""

    cascade: str | None
    pretrained: bool = True
    relative: bool = True

    @property
    def label(self) -> str:
        """For people, and for the folder of the run."""
        if self.cascade is None:
            return 'no refinement'
        start = 'pre-trained' if self.pretrained else 'from scratch'
        return f'{self.cascade}, {start}, {"relative" if self.relative else "absolute"}'


# MPJPE_ab all / occluded, MPJPE_re all / occluded in mm on MHAD
PAPER: dict[Row, tuple[float, float, float, float]] = {
    Row(None): (38.95, 43.97, 36.81, 43.41),
    Row('occ_mask', relative=False): (36.91, 47.43, 34.33, 42.66),
    Row('conf_mask', relative=False): (39.55, 42.10, 34.66, 38.45),
    Row('no_mask', relative=False): (36.18, 39.20, 32.58, 36.20),
    Row('no_mask'): (33.90, 37.05, 32.59, 36.41),
    Row('no_mask', pretrained=False): (46.54, 46.13, 39.78, 41.44),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, its pairs, and the pre-trained transformers."""
    parser.add_argument('--weights', type=Path, required=True, help='of the network')
    parser.add_argument('--train', required=True, help="training pairs: 'shards/train_*.npz'")
    parser.add_argument('--data', required=True, help='test pairs: a pattern or a folder')
    parser.add_argument('--refiner', type=Path, help='weights of rsb-pose train ppt')
    parser.add_argument(
        '--refiner-absolute', type=Path, metavar='FILE', help='the same, trained with relative: no'
    )
    parser.add_argument('--config', type=Path, required=True, help='config/train/refiner.yaml')
    parser.add_argument('--out', type=Path, required=True, help='folder of runs and results')
    parser.add_argument('--limit', type=int, default=500, help='at most so many test pairs (500)')
    parser.add_argument('--jitter-px', type=int, default=12, help='as of rsb-pose evaluate (12)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def run(args: argparse.Namespace) -> int:
    """Estimate once, refine by every strategy, measure on the test pairs."""
    if args.threads:
        torch.set_num_threads(args.threads)
    config = read_settings(RefinerConfig, args.config)
    pretrained = {True: args.refiner, False: args.refiner_absolute}
    train, train_pool = _estimates(args, args.train, config.max_pairs, config.passes)
    test, _ = _estimates(args, args.data, args.limit, 0)
    train = train.complete()
    rows = [Row(None)]
    for relative, file in pretrained.items():
        if file is not None:
            rows += [Row(cascade, relative=relative) for cascade in CASCADES]
    rows.append(Row('no_mask', pretrained=False))
    found = {}
    for row in rows:
        refined = test.initial_m
        if row.cascade is not None:
            one = replace(config, cascade=row.cascade, relative=row.relative)
            start = pretrained[row.relative] if row.pretrained else None
            torch.manual_seed(one.seed)
            transformer = starting_transformer(one, start).to(args.device)
            folder = args.out / row.label.replace(', ', '_').replace(' ', '-')
            train_refiner(transformer, one, train, folder, train_pool.name)
            with torch.inference_mode():
                refined = refine(transformer, test, row.cascade).cpu()
        found[row] = _errors_mm(refined, test)
    text = _report(config, train, test, found)
    results = {row.label: dict(zip(FIGURES, values, strict=True)) for row, values in found.items()}
    write_results(args.out, {'rows': results, 'pairs': [len(train), len(test)]}, text)
    return 0


def _estimates(
    args: argparse.Namespace, pattern: str, limit: int, passes: int
) -> tuple[Estimates, PairPool]:
    network, _, metadata = load_model(args.weights, args.device)
    size = int(metadata.get('input_size', 256))
    pool = PairPool(pattern, limit, size)
    if pool.scan() == 0:
        raise DataError(f'no pairs match {pattern}; correct --train or --data')
    found = cached_estimates(
        args.out, args.weights, network, pool, size,
        passes=passes, jitter_px=0 if passes else args.jitter_px, device=args.device,
    )  # fmt: skip
    return found, pool


def _errors_mm(refined: Poses, test: Estimates) -> tuple[tuple[float, float], ...]:
    """Mean and median of each of FIGURES over the counted joints."""
    refined, truth = refined.double(), test.truth_m.double()
    absolute = joint_errors_mm(refined, truth)
    relative = joint_errors_mm(refined, truth, root=H36M_17.root)
    known = test.counted & relative.isfinite()
    groups = (known, known & test.occluded)
    return tuple(
        (float(errors[group].mean()), float(errors[group].median()))
        for errors in (absolute, relative)
        for group in groups
    )


def _report(
    config: RefinerConfig,
    train: Estimates,
    test: Estimates,
    found: dict[Row, tuple[tuple[float, float], ...]],
) -> str:
    header = ['mean / median mm', *FIGURES, "paper's means"]
    rows: list[Sequence[str]] = []
    for row, values in found.items():
        cells = [f'{mean:.1f} / {median:.1f}' for mean, median in values]
        paper = PAPER.get(row)
        rows.append([row.label, *cells, ' / '.join(map(str, paper)) if paper else '-'])
    joints = int(test.counted.sum())
    return (
        f'{len(test)} test pairs, {joints} joints, {int((test.counted & test.occluded).sum())} of '
        f'them occluded; trained on {len(train)} estimates, {config.steps} steps of '
        f'{config.batch_size}\n\n{markdown(header, rows)}'
    )
