"""Tables I and II: methods side by side on one data set, each trained for as long on the same
pairs.

The tables differ in the data alone: II has the wide baseline, for which RSB-Pose needs more
disparities (models named -wide). Errors are of held-out pairs; MACs as thop counts them.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rsb_pose_core.counting import PAPER, count_network
from rsb_pose_core.experiments.methods import (
    add_evaluation_arguments,
    figures,
    held_out,
    median_mean,
)
from rsb_pose_core.experiments.paper import TABLE_1, TABLE_2, PaperRow
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.experiments.runs import Run, add_training_arguments, training, weights_of
from rsb_pose_core.models import NETWORKS, SHORT_BASELINE, WIDE_BASELINE
from rsb_pose_core.models.backbones import BACKBONES

PAPERS = {'table-1': TABLE_1, 'table-2': TABLE_2}
NOTE = """\
Ours: mm, median / mean over the joints of held-out pairs; JDR within 5 % of the crop's side (the
authors' code) and within half of 2.5 % of the box (the paper's words). "paper": means that the
paper reports, on its data and after its training: compare the order, not the values."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which methods, their weights or how to train them, and held-out pairs."""
    parser.epilog = f'rows: names of networks, as {", ".join(methods("table-1", "resnet50"))}'
    parser.add_argument(
        '--backbone', choices=list(BACKBONES), help="only methods on this one; the paper's all"
    )
    add_training_arguments(parser)
    add_evaluation_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is missing, measure, write the table."""
    pairs = held_out(args)
    names = methods(args.experiment, args.backbone)
    runs = [Run(name, name) for name in names]
    weights = weights_of(runs, args.weights, training(args), args.out)
    rows = {}
    for name in names:
        found = pairs.evaluate(name, weights[name], args.device)
        as_thop, true = count_network(name, found.facts['input_size'])
        rows[name] = {
            **found.facts,
            **figures(found.final),
            'thop_gmac': as_thop.gmac,
            'true_gmac': true.gmac,
            'parameters_m': as_thop.parameters_m,
        }
    paper = PAPERS[args.experiment]
    results = {
        'data': args.data,
        'jitter_px': args.jitter_px,
        'methods': rows,
        'paper': {name: vars(row) for name, row in paper.items()},
    }
    write_results(args.out, results, report(args.experiment, rows, paper))
    return 0


def methods(table: str, backbone: str | None) -> list[str]:
    """Networks of a table, on one backbone or, as the paper, on all."""
    if backbone is None:
        return [name for name in PAPERS[table] if name in NETWORKS]
    same = [(name, net) for name, net in NETWORKS.items() if net.backbone == backbone]
    plain = [net for _, net in same if net.method == 'rsb-pose'][:1]  # others are its switches
    wanted = [
        replace(
            net,
            disparities=SHORT_BASELINE if table == 'table-1' else WIDE_BASELINE[net.input_size],
        )
        for net in plain
    ]
    found = [name for name, net in same if net.method != 'rsb-pose' or net in wanted]
    return sorted(found, key=lambda name: NETWORKS[name].method == 'rsb-pose')


def report(
    table: str, rows: Mapping[str, Mapping[str, Any]], paper: Mapping[str, PaperRow]
) -> str:
    """Markdown: our rows, then those of the paper that we do not build."""
    header = (
        'method', 'size', 'MPJPE_re', 'MPJPE_ab', 'JDR crop, %', 'JDR box, %', 'SIM_cos', 'GMAC',
        'parameters, M', 'paper: MPJPE_re', 'MPJPE_ab', 'JDR', 'SIM_cos', 'GMAC', 'M',
    )  # fmt: skip
    names = [*rows, *(name for name in paper if name not in rows)]
    cells = [(name, *_ours(rows.get(name)), *_theirs(name, paper.get(name))) for name in names]
    title = 'Table I: short baseline' if table == 'table-1' else 'Table II: wide baseline'
    return f'# {title}\n\n{NOTE}\n\n{markdown(header, cells)}'


def _ours(row: Mapping[str, Any] | None) -> tuple[str | float | None, ...]:
    """Eight cells; empty of what we do not build."""
    if row is None:
        return (None,) * 8
    return (
        str(row['input_size']), median_mean(row, 'mpjpe_re', 'all'),
        median_mean(row, 'mpjpe_ab', 'all'), 100 * row['jdr_crop_side'],
        100 * row['jdr_box_width'], row['sim_cos'], row['thop_gmac'], row['parameters_m'],
    )  # fmt: skip


def _theirs(name: str, row: PaperRow | None) -> tuple[float | None, ...]:
    """Six cells of the paper; empty of what it does not have."""
    errors = (
        (row.mpjpe_re_mm, row.mpjpe_ab_mm, row.jdr_percent, row.sim_cos) if row else (None,) * 4
    )
    counted = PAPER.get(name)
    return (*errors, *((counted.gmac, counted.parameters_m) if counted else (None,) * 2))
