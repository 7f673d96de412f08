"""Fig. 7: the Pose Transformer behind any network, without training the two together."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rsb_pose_core.checkpoint import load_refiner
from rsb_pose_core.experiments.methods import (
    GROUPS,
    add_evaluation_arguments,
    figures,
    held_out,
    median_mean,
    named_weights,
)
from rsb_pose_core.experiments.results import markdown, write_results

METRICS = {'mpjpe_ab': ('MPJPE_ab', 'tab:blue'), 'mpjpe_re': ('MPJPE_re', 'tab:red')}
PAPER = (
    'The paper (MHAD): the PPT, trained on poses alone, lowers MPJPE_ab and MPJPE_re of all five '
    'networks that it was put behind; its bars carry no numbers in the text.'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Networks, the Pose Transformer and held-out pairs."""
    parser.add_argument(
        '--weights', nargs='+', required=True, metavar='NAME=FILE',
        help='networks, .safetensors of rsb-pose train',
    )  # fmt: skip
    parser.add_argument(
        '--refiner', type=Path, required=True, metavar='FILE',
        help='the Pose Transformer, .safetensors of rsb-pose train ppt',
    )  # fmt: skip
    add_evaluation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure every network before and after the same Pose Transformer."""
    pairs, weights = held_out(args), named_weights(args.weights)
    refiner, _ = load_refiner(args.refiner, args.device)
    methods = {}
    for name, path in weights.items():
        stages = pairs.evaluate(name, path, args.device, refiner).stages
        methods[name] = {
            'before': figures(stages['initial']),
            'after': figures(stages['refined']),
        }
    results = {'data': args.data, 'refiner': args.refiner.name, 'methods': methods, 'paper': PAPER}
    write_results(args.out, results, report(methods), draw(methods))
    return 0


def report(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: two rows for each network, before and after."""
    header = ['network', *(f'{METRICS[m][0]} {group}' for m in METRICS for group in GROUPS)]
    rows = []
    for name, stages in methods.items():
        for stage, label in (('before', name), ('after', f'{name} + PPT')):
            cells = [median_mean(stages[stage], m, group) for m in METRICS for group in GROUPS]
            rows.append([label, *cells])
    return (
        '# Fig. 7: the Pose Transformer as a plug-in\n\nmm, median / mean.\n\n'
        f'{markdown(header, rows)}\n{PAPER}\n'
    )


def draw(methods: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Means before (light) and after (dark), as the paper's bars; the value is what it gains."""
    figure = Figure(figsize=(1.6 + 1.5 * len(methods), 4.2), layout='constrained')
    axes = figure.subplots()
    for place, stages in enumerate(methods.values()):
        for number, (metric, (label, colour)) in enumerate(METRICS.items()):
            before, after = (stages[s][f'{metric}_mean_all'] for s in ('before', 'after'))
            at = place + (-0.3, 0.1)[number]
            known = label if place == 0 else None
            axes.bar(at, before, 0.19, color=colour, alpha=0.4, label=known and f'{known} before')
            axes.bar(at + 0.2, after, 0.19, color=colour, label=known and f'{known} after')
            axes.text(at + 0.2, after, f'{after - before:+.0f}', ha='center', va='bottom')
    axes.set_xticks(range(len(methods)), list(methods))
    axes.set_ylabel('mean over joints, mm')
    axes.spines[['top', 'right']].set_visible(False)
    figure.legend(loc='outside upper center', ncols=2, frameon=False)
    return figure
