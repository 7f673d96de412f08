"""Figures of an evaluation, 1000 pixels wide, in colours that the colour-blind tell apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter
from numpy.typing import NDArray

from rsb_pose_core.metrics import Distribution, JointErrors, distribution, joint_scores
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.report import EvaluatedMethod

# Okabe and Ito; a method keeps its colour in all figures.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
STAGE_LINES = {'final': '-', 'initial': '--', 'heatmaps': ':'}
STAGE_NAMES = {'initial': 'before the Pose Transformer', 'heatmaps': 'each view by itself'}
MOST_SHADES = 3  # more of them would cover each other
DPI, WIDTH_IN = 100, 10.0
JOINTS_PER_BIN, MOST_BINS = 60, 10

Array = NDArray[np.float64]


def write_plots(methods: Sequence[EvaluatedMethod], folder: Path) -> None:
    """Write joints.png, cumulative.png, distance.png and occlusion.png."""
    for name, draw in (
        ('joints', _joints),
        ('cumulative', _cumulative),
        ('distance', _distance),
        ('occlusion', _occlusion),
    ):
        figure = draw(methods)
        FigureCanvasAgg(figure)
        figure.savefig(folder / f'{name}.png')


def _figure(height_in: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout='constrained')
    axes: Any = figure.add_subplot()  # matplotlib's axes are hardly typed
    axes.spines[['top', 'right']].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Any) -> None:
    """Above the axes, where it covers nothing; in as many columns as the names leave room for."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, 100 // (max(map(len, labels), default=1) + 8))
    axes.legend(
        handles, labels, loc='lower left', bbox_to_anchor=(0, 1.01), borderaxespad=0,
        frameon=False, ncols=columns,
    )  # fmt: skip


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _joints(methods: Sequence[EvaluatedMethod]) -> Figure:
    """Median error of each joint; a thin line spans the middle half of the errors."""
    names = [name.replace('_', ' ') for name in H36M_17.joint_names]
    figure, axes = _figure(2.0 + len(names) * (0.22 + 0.13 * len(methods)))
    thickness = 0.8 / len(methods)
    for number, method in enumerate(methods):
        found = [score.mpjpe_ab_mm for score in joint_scores(method.final.errors)]
        median = np.array([joint.median for joint in found])
        spread = np.array([[j.median - j.p25, j.p75 - j.median] for j in found]).T
        place = np.arange(len(names)) + (number - (len(methods) - 1) / 2) * thickness
        axes.barh(place, median, 0.9 * thickness, color=_color(number), label=method.name)
        axes.errorbar(median, place, xerr=spread, fmt='none', ecolor='0.25', elinewidth=1)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0)
    axes.grid(axis='x', color='0.9')
    axes.set_xlabel('MPJPE_ab (mm): median, line: 25 to 75 % of the errors')
    _legend(axes)
    return figure


def _cumulative(methods: Sequence[EvaluatedMethod]) -> Figure:
    """Share of the counted joints within x mm; joints that were not found never arrive."""
    figure, axes = _figure(5.2 + 0.12 * len(methods))
    limit = 150.0
    for number, method in enumerate(methods):
        for (label, found), line in zip(method.rows(), _lines(method), strict=True):
            errors = found.errors
            values = np.sort(errors.absolute_mm[errors.counted].numpy())  # NaN last
            finite = values[np.isfinite(values)]
            if not len(finite):
                continue
            share = np.arange(1, len(finite) + 1) / len(values)
            name = label if line == STAGE_LINES['final'] else None
            axes.plot(finite, share, line, color=_color(number), label=name, linewidth=2)
            if line == STAGE_LINES['final']:
                limit = max(limit, min(float(np.quantile(finite, 0.9)), 500.0))
    for stage, text in STAGE_NAMES.items():
        if any(method.stages.get(stage, method.final) is not method.final for method in methods):
            axes.plot([], [], STAGE_LINES[stage], color='0.3', label=text, linewidth=2)
    axes.set_xlim(0, 50 * np.ceil(limit / 50))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(color='0.9')
    axes.set_xlabel('distance from the truth (mm)')
    axes.set_ylabel('share of joints within it')
    _legend(axes)
    return figure


def _lines(method: EvaluatedMethod) -> list[str]:
    """Line styles in the order of method.rows()."""
    stages = ['initial'] if 'refined' in method.stages else []
    stages += ['heatmaps'] if 'heatmaps' in method.stages else []
    return [STAGE_LINES[stage] for stage in ('final', *stages)]


def _distance(methods: Sequence[EvaluatedMethod]) -> Figure:
    """Median error in bins of the joint's true depth, which hold equal numbers of joints."""
    figure, axes = _figure(5.2 + 0.12 * len(methods))
    size, shaded = 0, len(methods) <= MOST_SHADES
    for number, method in enumerate(methods):
        depth_m, parts = depth_bins(method.final.errors)
        size = parts[0].count if parts else size
        color = _color(number)
        low, median, high = (
            np.array([getattr(part, name) for part in parts]) for name in ('p25', 'median', 'p75')
        )
        if shaded:
            axes.fill_between(depth_m, low, high, color=color, alpha=0.15, linewidth=0)
        marker = 'os^DvPX'[number % 7]
        axes.plot(depth_m, median, color=color, marker=marker, linewidth=2, label=method.name)
    axes.set_ylim(0)
    axes.grid(color='0.9')
    axes.set_xlabel(f'true depth of the joint (m), about {size} joints at each point')
    axes.set_ylabel('MPJPE_ab (mm): median' + ', shade: 25 to 75 %' * shaded)
    _legend(axes)
    return figure


def depth_bins(errors: JointErrors) -> tuple[Array, list[Distribution]]:
    """Median depth of the joints of each bin, near to far, and their errors."""
    depth_m = errors.depth_m[errors.counted]
    order = depth_m.argsort()
    absolute_mm = errors.absolute_mm[errors.counted][order]
    bins = min(MOST_BINS, max(1, len(order) // JOINTS_PER_BIN))
    depths = [float(part.median()) for part in depth_m[order].tensor_split(bins) if len(part)]
    parts = [distribution(part) for part in absolute_mm.tensor_split(bins) if len(part)]
    return np.array(depths), parts


def _occlusion(methods: Sequence[EvaluatedMethod]) -> Figure:
    """Errors of visible joints beside occluded ones, every stage of every method."""
    rows = [
        (label, found.errors, _color(number))
        for number, method in enumerate(methods)
        for label, found in method.rows()
    ]
    figure, axes = _figure(1.6 + 0.75 * len(rows))
    drawn = []
    for number, (_, errors, color) in enumerate(rows):
        for group, place, filled in (
            (errors.visible, number - 0.19, True),
            (errors.occluded, number + 0.19, False),
        ):
            found = distribution(errors.absolute_mm[group])
            if found.count:
                drawn.append(found)
                _box(axes, found, place, color, filled=filled)
    axes.set_yticks(range(len(rows)), [label.replace(', ', ',\n') for label, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale('log')
    axes.set_xticks([5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    if drawn:
        lowest, highest = (
            min(box.p5 for box in drawn),
            max(max(box.p95, box.mean) for box in drawn),
        )
        axes.set_xlim(max(lowest / 1.2, 1.0), highest * 1.2)
    axes.grid(axis='x', color='0.9')
    axes.set_xlabel(
        'MPJPE_ab (mm): box 25 to 75 %, whiskers 5 to 95 %, line: median, point: mean\n'
        'filled: visible in the left view, hollow: occluded there'
    )
    return figure


def _box(axes: Any, found: Distribution, place: float, color: str, *, filled: bool) -> None:
    face = color if filled else 'white'
    axes.hlines([place, place], [found.p5, found.p75], [found.p25, found.p95], color=color)
    axes.vlines([found.p5, found.p95], place - 0.08, place + 0.08, color=color, linewidth=1.5)
    axes.barh(
        place, found.p75 - found.p25, 0.3, left=found.p25, facecolor=face, edgecolor=color,
        linewidth=1.5,
    )  # fmt: skip
    middle = 'white' if filled else color
    axes.vlines(found.median, place - 0.15, place + 0.15, color=middle, linewidth=2.5)
    axes.plot(found.mean, place, 'o', markersize=6, color='white', markeredgecolor='black')
