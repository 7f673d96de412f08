"""Table III: what stereo co-keypoints, their attention mask and the Pose Transformer add.

Four rows on one backbone: the baseline (each view's heat maps, triangulated), SCE without and with
the attention mask (AM), and the last trained end to end with a pre-trained Pose Transformer.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsb_pose_core.experiments.methods import (
    GROUPS,
    add_evaluation_arguments,
    figures,
    held_out,
    median_mean,
)
from rsb_pose_core.experiments.paper import TABLE_3
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.experiments.runs import Run, add_training_arguments, training, weights_of
from rsb_pose_core.models.backbones import BACKBONES

ROWS = ('baseline', 'sce-without-am', 'sce', 'sce-ppt')
LABELS = ('baseline', 'SCE without AM', 'SCE with AM', 'SCE with AM, PPT')
NOTE = (
    'Ours: mm, median / mean; visible and occluded as the left view shows or hides a joint. '
    '"paper": means on MHAD, joints not occluded and occluded by its rule of distances to bones.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The backbone, weights or how to train them, and held-out pairs."""
    parser.epilog = f'rows: {", ".join(ROWS)}'
    parser.add_argument('--backbone', choices=list(BACKBONES), default='resnet50')
    add_training_arguments(parser)
    parser.add_argument(
        '--refiner', type=Path, metavar='FILE',
        help='pre-trained Pose Transformer (rsb-pose train ppt); without it the last row is left '
        'out, unless its weights are given',
    )  # fmt: skip
    parser.add_argument(
        '--end-to-end', type=Path, metavar='FILE',
        help='how to train the last row, which begins with the weights of the row before',
    )  # fmt: skip
    add_evaluation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, measure, write the table."""
    pairs = held_out(args)
    last = args.refiner is not None or any(w.startswith('sce-ppt=') for w in args.weights)
    runs = ablation_runs(args.backbone, args.refiner)[: len(ROWS) if last else -1]
    weights = weights_of(runs, args.weights, training(args), args.out)
    rows = {}
    for name in (one.name for one in runs):
        found = pairs.evaluate(name, weights[name], args.device)
        rows[name] = {**found.facts, **figures(found.final)}
    results = {
        'data': args.data,
        'jitter_px': args.jitter_px,
        'rows': rows,
        'paper': TABLE_3.get(args.backbone),
    }
    write_results(args.out, results, report(args.backbone, rows))
    return 0


def ablation_runs(backbone: str, refiner: Path | None = None) -> list[Run]:
    """The rows as trainings."""
    names = (
        ('lite-baseline', 'lite-unmasked', 'lite')
        if backbone == 'lite'
        else (f'{backbone}-t', f'rsb-pose-{backbone}-unmasked', f'rsb-pose-{backbone}')
    )
    runs = [Run(row, model) for row, model in zip(ROWS, names, strict=False)]
    return [*runs, Run(ROWS[-1], names[-1], after=ROWS[-2], refiner=refiner)]


def report(backbone: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: MPJPE_ab and MPJPE_re of all, visible and occluded joints; the paper's below."""
    metrics = (('mpjpe_ab', 'MPJPE_ab'), ('mpjpe_re', 'MPJPE_re'))
    header = ['', *(f'{label} {group}' for _, label in metrics for group in GROUPS)]
    labels = dict(zip(ROWS, LABELS, strict=True))
    cells: list[list[str | float | None]] = [
        [labels[name], *(median_mean(row, metric, g) for metric, _ in metrics for g in GROUPS)]
        for name, row in rows.items()
    ]
    for label, values in zip(LABELS, TABLE_3.get(backbone, ()), strict=False):
        cells.append([f'paper: {label}', *values])
    return f'# Table III: {backbone}\n\n{NOTE}\n\n{markdown(header, cells)}'
