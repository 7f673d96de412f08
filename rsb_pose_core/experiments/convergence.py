"""Fig. 6: how the loss on held-out pairs falls while training, with and without the mask.

The loss is Eq. (4), L_SCE, whatever the run itself minimises, of the weights as they are at that
step (no moving average), in evaluation mode.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from torch import nn

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.experiments.ablation import ablation_runs
from rsb_pose_core.experiments.methods import HeldOut, add_evaluation_arguments, held_out
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.experiments.runs import (
    Run,
    add_training_arguments,
    training,
    weights_of,
)
from rsb_pose_core.models.backbones import BACKBONES
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.losses import LossWeights, method_losses
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.trainer import Trainer

L_SCE = LossWeights(heatmap_ce=0.0, heatmap_l1=0.0, volume_svf=0.01, pose_l1_paper=1.0)
CURVES = {'sce': ('with AM', 'tab:green'), 'sce-without-am': ('without AM', 'tab:red')}
LOSSES = 'losses.jsonl'
BATCH_SIZE = 16
PAPER = (
    'The paper (RSB-Pose-50 on MHAD): with the mask the loss of the test set falls more steadily; '
    'without it, it is difficult to make it converge. Its curves carry no numbers in the text.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The backbone, how to train, and held-out pairs."""
    parser.add_argument('--backbone', choices=list(BACKBONES), default='resnet50')
    add_training_arguments(parser)
    parser.add_argument('--seeds', type=int, default=1, help='trainings of each kind (1)')
    parser.add_argument('--every', type=int, default=50, help='steps between two losses (50)')
    add_evaluation_arguments(parser)
    parser.set_defaults(limit=200)  # as they are measured often


def run(args: argparse.Namespace) -> int:
    """Train both kinds, draw the losses on held-out pairs."""
    if args.weights:
        raise ConfigError('figure-6 watches trainings from their start; leave out --weights')
    if args.seeds < 1 or args.every < 1:
        raise ConfigError('expected --seeds and --every of at least 1')
    pairs = held_out(args)
    watched = partial(WatchedTrainer, pairs=pairs, every=args.every)
    runs = seeded_runs(args.backbone, args.seeds)
    weights = weights_of(runs, [], training(args), args.out, watched)
    curves = {name: read_losses(path.parent) for name, path in weights.items()}
    summary = {name: summarize(curve) for name, curve in curves.items()}
    results = {'data': args.data, 'curves': curves, 'summary': summary, 'paper': PAPER}
    write_results(args.out, results, report(summary), draw(curves))
    return 0


def seeded_runs(backbone: str, seeds: int) -> list[Run]:
    """Both kinds of Table III with each seed; the first seed has the plain name."""
    models = {one.name: one.model for one in ablation_runs(backbone)}
    return [
        Run(name if not seed else f'{name}-seed{seed}', models[name], seed=seed)
        for seed in range(seeds)
        for name in CURVES
    ]


class WatchedTrainer(Trainer):
    """A trainer that writes the loss on held-out pairs to losses.jsonl every few steps."""

    def __init__(self, *args: Any, pairs: HeldOut, every: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pairs, self._every = pairs, every
        self._pool = pairs.open(self.config.largest_input)
        known = read_losses(self.out) if (self.out / LOSSES).exists() else []
        kept = [record for record in known if record['step'] <= self.step]
        (self.out / LOSSES).write_text(''.join(json.dumps(record) + '\n' for record in kept))
        if not kept:
            self._watch()

    def train_step(self, batch: StereoBatch) -> dict[str, torch.Tensor]:
        """As Trainer's; measures after every few steps."""
        terms = super().train_step(batch)
        if self.step % self._every == 0:
            self._watch()
        return terms

    def _watch(self) -> None:
        size = self.config.largest_input
        losses = held_out_losses(self.model.method, self._pool, self._pairs, size, self.device)
        record = {'step': self.step, 'pairs_seen': self.pairs_seen, **losses}
        with (self.out / LOSSES).open('a') as file:
            file.write(json.dumps(record) + '\n')


@torch.inference_mode()
def held_out_losses(
    model: nn.Module, pool: PairPool, pairs: HeldOut, input_size: int, device: torch.device
) -> dict[str, float]:
    """Terms of L_SCE on the pairs, and their sum `loss`, means over the pairs."""
    count = min(len(pool), pairs.limit)
    mode = model.training
    model.eval()
    total: dict[str, float] = {}
    for start in range(0, count, BATCH_SIZE):
        numbers = list(range(start, min(start + BATCH_SIZE, count)))
        batch = evaluation_batch(pool, numbers, input_size, pairs.jitter_px).to(device)
        output = model(*batch.images(), batch.calibration)
        for name, term in method_losses(output, batch, L_SCE).items():
            total[name] = total.get(name, 0.0) + float(term) * len(batch) / count
    model.train(mode)
    return {'loss': sum(total.values()), **total}


def read_losses(folder: Path) -> list[dict[str, float]]:
    """Records of a run's losses.jsonl."""
    return [json.loads(line) for line in (folder / LOSSES).read_text().splitlines()]


def summarize(curve: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """last: mean of the last quarter; best: the smallest; swing: mean change from one measurement
    to the next over the second half, in percent of the loss: how unsteady it is."""
    loss = np.array([record['loss'] for record in curve])
    late = loss[len(loss) // 2 :]
    swing = np.abs(np.diff(late)) / late[:-1] if len(late) > 1 else np.array([np.nan])
    return {
        'last': float(loss[-max(1, len(loss) // 4) :].mean()),
        'best': float(loss.min()),
        'swing_percent': 100 * float(swing.mean()),
    }


def report(summary: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a row for each training."""
    header = ('training', 'L_SCE, mean of the last quarter', 'best', 'swing, %')
    rows = [(name, s['last'], s['best'], s['swing_percent']) for name, s in summary.items()]
    return (
        f'# Fig. 6: loss on held-out pairs while training\n\n{markdown(header, rows)}\n'
        f'swing: mean change between two measurements in the second half.\n\n{PAPER}\n'
    )


def draw(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """One line for each training, in the colour of its kind."""
    figure = Figure(figsize=(7.0, 4.2), layout='constrained')
    axes = figure.subplots()
    for name, curve in curves.items():
        label, colour = CURVES[name.split('-seed')[0]]
        steps = [record['step'] for record in curve]
        known = label if name in CURVES else None
        axes.plot(steps, [r['loss'] for r in curve], '.-', ms=3, lw=1, color=colour, label=known)
    axes.set_yscale('log')
    for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_format(LogFormatter(minor_thresholds=(2, 1)))
    axes.set_xlabel('steps')
    axes.set_ylabel('L_SCE on held-out pairs')
    axes.grid(which='both', alpha=0.25)
    axes.legend()
    return figure
