"""Figures of a comparison on several test sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from rsb_pose_core.metrics import scores
from rsb_pose_core.training.comparison import SetResult, found_any, on_same_joints
from rsb_pose_core.training.evaluation import Evaluated
from rsb_pose_core.training.plots import COLORS, DPI, WIDTH_IN, depth_bins

TICKS_MM = (10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000)
MOST_COLUMNS = 3
OTHERS = '0.45'  # the grey of what is no network of ours
MARKERS, OTHER_MARKERS = 'osD^vPX', '+x1234'
OTHER_LINES = ('--', ':', '-.')
ENOUGH = 0.5  # share of the joints that all found, to draw them by distance


def write_comparison_plots(results: Sequence[SetResult], folder: Path) -> None:
    """Write sets.png and distances.png."""
    for name, draw in (('sets', _sets), ('distances', _distances)):
        figure = draw(results)
        FigureCanvasAgg(figure)
        figure.savefig(folder / f'{name}.png')


def _shared(result: SetResult) -> dict[str, Evaluated]:
    """Networks, with the Pose Transformer and without, and predictions, on the joints that all of
    them found; empty without predictions."""
    others = {other.name: other.final for other in result.predicted if found_any(other)}
    return on_same_joints(dict(result.rows()) | others) if others else {}


def _counted(rows: Mapping[str, Evaluated]) -> int:
    """Joints that rows on equal joints are measured on."""
    return int(next(iter(rows.values())).errors.counted.sum())


def _styles(results: Sequence[SetResult]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and line of everything that any set has, in order."""
    ours = [name for name, _ in results[0].rows()]
    others = list(dict.fromkeys(other.name for result in results for other in result.predicted))
    styles = {
        name: (COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], '-')
        for i, name in enumerate(ours)
    }
    return styles | {
        name: (OTHERS, OTHER_MARKERS[i % len(OTHER_MARKERS)], OTHER_LINES[i % len(OTHER_LINES)])
        for i, name in enumerate(others)
    }


def _sets(results: Sequence[SetResult]) -> Figure:
    """Median error by set and method; a thin line spans the middle half of the errors."""
    styles = _styles(results)
    figure = Figure(
        figsize=(WIDTH_IN, 1.6 + 0.25 * len(styles) + len(results) * (0.3 + 0.16 * len(styles))),
        dpi=DPI, layout='constrained',
    )  # fmt: skip
    axes: Any = figure.add_subplot()
    axes.spines[['top', 'right']].set_visible(False)
    step = 0.8 / len(styles)
    for row, result in enumerate(results):
        for drawn, filled in ((dict(result.rows()), True), (_shared(result), False)):
            for name, found in drawn.items():
                place = row + (list(styles).index(name) - (len(styles) - 1) / 2) * step
                color, marker, _ = styles[name]
                spread = scores(found.errors).mpjpe_ab_mm
                if filled or color == OTHERS:
                    axes.hlines(place, spread.p25, spread.p75, color=color, linewidth=1.5)
                axes.plot(
                    spread.median, place, marker, color=color, markersize=7, linestyle='none',
                    markerfacecolor=color if filled else 'white', markeredgewidth=1.5,
                    label=name if filled or color == OTHERS else None,
                )  # fmt: skip
    for row in range(len(results) - 1):
        axes.axhline(row + 0.5, color='0.85', linewidth=1)
    axes.set_yticks(range(len(results)), [result.title.replace(', ', '\n') for result in results])
    axes.set_ylim(len(results) - 0.5, -0.5)
    _millimetres(axes.xaxis, axes.set_xscale)
    axes.grid(axis='x', color='0.9')
    axes.set_axisbelow(True)
    hollow = '\nhollow and grey: only the joints that all of these methods found'
    axes.set_xlabel(
        'MPJPE_ab (mm): median, line: 25 to 75 % of the errors'
        + hollow * any(result.predicted for result in results)
    )
    _legend(figure, axes)
    return figure


def _distances(results: Sequence[SetResult]) -> Figure:
    """Median error by true depth, a panel for each set; of the joints that all found, and with
    predictions, where these are ENOUGH to be typical of the set."""
    styles = _styles(results)
    columns = min(MOST_COLUMNS, len(results))
    rows = -(-len(results) // columns)
    figure = Figure(
        figsize=(WIDTH_IN, 0.6 + 0.25 * len(styles) + 3.1 * rows), dpi=DPI, layout='constrained'
    )
    panels: Any = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes, result in zip(panels.flat, results, strict=False):
        axes.spines[['top', 'right']].set_visible(False)
        drawn = dict(result.rows())
        shared = _shared(result)
        if shared and _counted(shared) >= ENOUGH * _counted(drawn):
            drawn = shared
            axes.set_title(f'{result.title}\n(joints that all found)', fontsize=10)
        else:
            axes.set_title(result.title, fontsize=10)
        for name, found in drawn.items():
            depth_m, parts = depth_bins(found.errors)
            color, marker, line = styles[name]
            axes.plot(
                depth_m, [part.median for part in parts], line, color=color, marker=marker,
                markersize=5, linewidth=1.8, label=name,
            )  # fmt: skip
        axes.tick_params(labelleft=True)
        axes.grid(color='0.9')
        axes.set_xlabel('true depth of the joint (m)')
    _millimetres(panels[0, 0].yaxis, panels[0, 0].set_yscale)
    for axes in panels[:, 0]:
        axes.set_ylabel('MPJPE_ab (mm): median')
    for axes in list(panels.flat)[len(results) :]:
        axes.set_visible(False)
    _legend(figure, *list(panels.flat)[: len(results)])
    return figure


def _legend(figure: Figure, *panels: Any) -> None:
    """One legend above all panels, each name once."""
    named: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(
        list(named.values()), list(named), loc='outside upper left', frameon=False, ncols=2
    )


def _millimetres(axis: Any, set_scale: Any) -> None:
    """A logarithmic axis with round numbers, as far as the data reach."""
    set_scale('log')
    low, high = axis.get_view_interval()
    axis.set_major_formatter(ScalarFormatter())
    axis.set_ticks([tick for tick in TICKS_MM if low <= tick <= high])
    axis.set_minor_locator(NullLocator())
