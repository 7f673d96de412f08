"""The error on held-out pairs while networks trained, from the logs of their runs.

    python benchmarks/training_curve.py lite=runs/heatmaps,runs/lite,runs/longer --out curve.png

Runs of one network, separated by commas, follow each other: each began with the weights of the one
before. Draws the median MPJPE_ab of the averaged weights, hollow where crops were not the last
run's yet, and prints a row for each validation.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from rsb_pose_core.errors import DataError

LOG = 'log.jsonl'
FIGURES = ('disparity', 'absolute_mm', 'relative_mm')  # heat-map pixels, mm, mm


@dataclass(frozen=True)
class Validation:
    """pairs: drawn so far; figures: (median, mean) of FIGURES, the right crop moved."""

    pairs: int
    step: int
    stage: str
    input_size: int
    figures: tuple[tuple[float, float], ...]


def read_curve(runs: list[Path]) -> list[Validation]:
    """Validations of runs that follow each other. Raises DataError."""
    curve: list[Validation] = []
    pairs = steps = 0
    for run in runs:
        path = run / LOG
        if not path.is_file():
            raise DataError(f'{path} is missing; give folders that rsb-pose train sce wrote')
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            found = line.get('jittered_initial')
            if found is not None:
                figures = tuple((found[f + '_median'], found[f + '_mean']) for f in FIGURES)
                seen, step = pairs + line['pairs_seen'], steps + line['step']
                curve.append(Validation(seen, step, line['stage'], line['input_size'], figures))
        pairs += max((line['pairs_seen'] for line in lines), default=0)
        steps += max((line['step'] for line in lines), default=0)
    if not curve:
        raise DataError(f'{", ".join(map(str, runs))}: no validation; train with --val')
    return curve


def draw(curves: dict[str, list[Validation]], out: Path) -> None:
    """A picture of all curves."""
    figure = Figure((7, 4), layout='constrained')
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        colour, last = f'C{number}', curve[-1].input_size
        at = [(v.pairs / 1000, v.figures[1][0], v.input_size == last) for v in curve]
        axes.plot([p for p, _, _ in at], [e for _, e, _ in at], color=colour, linewidth=0.8)
        for filled in (False, True):
            some = [(p, e) for p, e, own in at if own == filled]
            axes.scatter(
                [p for p, _ in some],
                [e for _, e in some],
                s=18,
                edgecolors=colour,
                facecolors=colour if filled else 'none',
                label=f'{name}, {last} px' if filled else None,
            )
    axes.set(xlabel='pairs drawn, thousands', ylabel='MPJPE_ab on held-out pairs, median, mm')
    axes.set_yscale('log')
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.grid(which='both', alpha=0.3)
    axes.legend()
    figure.savefig(out, dpi=120)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', metavar='NAME=RUN[,RUN...]', help='folders of runs')
    parser.add_argument('--out', type=Path, default=Path('curve.png'), help='%(default)s')
    args = parser.parse_args()
    curves = {}
    try:
        for given in args.runs:
            name, found, folders = given.partition('=')
            if not found:
                raise DataError(f'{given}: expected NAME=RUN[,RUN...]')
            curves[name] = read_curve([Path(folder) for folder in folders.split(',')])
    except DataError as error:
        parser.error(str(error))
    print('| network | pairs | steps | stage | disparity | MPJPE_ab, mm | MPJPE_re, mm |')
    print('|---|---|---|---|---|---|---|')
    for name, curve in curves.items():
        for v in curve:
            disparity, *errors = v.figures
            cells = [f'{disparity[0]:.3f} / {disparity[1]:.3f}']
            cells += [f'{median:.0f} / {mean:.0f}' for median, mean in errors]
            print(f'| {name} | {v.pairs} | {v.step} | {v.stage} | {" | ".join(cells)} |')
    draw(curves, args.out)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
