"""The picture of Fig. 1A: curves of the error, and regions of uncertainty seen from above."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

REGIONS_MM = {100: 'goldenrod', 220: 'seagreen', 3000: 'royalblue'}
COLOURS = ('darkorange', 'firebrick', 'darkgreen', 'steelblue')


@dataclass(frozen=True)
class Point:
    """One baseline and kind of noise; errors in mm.

    mean_mm: with joints beyond 20 m, or behind the cameras, at 20 m (their share is `lost`), as
    the mean has no finite value otherwise; theory_mm: the mean to first order; disparity_noise:
    the median of the disparity's deviation over the disparity, in which first order is small.
    """

    camera: str
    noise_px: float
    correlation: float
    baseline_mm: float
    mean_mm: float
    median_mm: float
    lost: float
    theory_mm: float
    disparity_noise: float


def uncertainty_region(
    depth_m: float, baseline_m: float, focal_px: float, half_px: float
) -> Float[np.ndarray, '4 2']:
    """Corners (X, Z) in metres of where a point midway before two rectified views can lie.

    Each view knows its column to +-half_px: a wedge of rays. Two wedges meet in a quadrilateral,
    which is unbounded, and its far corner NaN, where the disparity is at most 2 half_px.
    """
    column = focal_px * baseline_m / 2 / depth_m
    corners = []
    for left, right in ((-1, 1), (1, 1), (1, -1), (-1, -1)):
        u_left, u_right = column + left * half_px, -column + right * half_px
        disparity = u_left - u_right
        z = focal_px * baseline_m / disparity if disparity > 0 else math.nan
        corners.append((u_left * z / focal_px, z))
    return np.array(corners)


def uncertainty_area(depth_m: float, baseline_m: float, focal_px: float, half_px: float) -> float:
    """Area of `uncertainty_region` in m^2: 4 f B^2 e^2 / (d (d^2 - 4 e^2)) with d = f B / Z.

    Infinite where the disparity d is at most 2 e; 4 e^2 Z^3 / (f^2 B) where it is much larger, so
    ten times the baseline has a tenth of the area.
    """
    disparity = focal_px * baseline_m / depth_m
    if disparity <= 2 * half_px:
        return math.inf
    left_over = disparity * (disparity**2 - 4 * half_px**2)
    return 4 * focal_px * baseline_m**2 * half_px**2 / left_over


def draw(points: Sequence[Point], focal_px: float, depth_m: float, seed: int) -> Figure:
    """Curves on the left, regions on the right, for the smallest noise of the points."""
    figure = Figure(figsize=(11.0, 4.6), layout='constrained')
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.1, 1.0))
    left, right = halves
    _draw_curves(left.subplots(), points)
    noise = min(point.noise_px for point in points)
    right.suptitle(f'where a point at {depth_m:.2f} m may be, from above, at {noise:.2f} px')
    panels = right.subplots(len(REGIONS_MM), 1, sharex=True)
    for axes, (baseline_mm, colour) in zip(panels, REGIONS_MM.items(), strict=True):
        _draw_region(axes, baseline_mm, colour, focal_px, depth_m, noise, seed)
    panels[-1].set_xlabel('depth, m')
    panels[1].set_ylabel('across, mm (stretched)')
    return figure


def _draw_curves(axes: Axes, points: Sequence[Point]) -> None:
    agreeing = sorted({point.correlation for point in points} - {0.0})
    small, large = (f({point.noise_px for point in points}) for f in (min, max))
    curves = [(large, 0.0), (small, 0.0), *((small, r) for r in agreeing)]
    for (noise, correlation), colour in zip(curves, cycle(COLOURS), strict=False):
        curve = [p for p in points if (p.noise_px, p.correlation) == (noise, correlation)]
        x = [p.baseline_mm for p in curve]
        kind = f'views agree to {correlation:g}' if correlation else 'independent views'
        theory = [p.theory_mm for p in curve]
        axes.loglog(x, theory, '-', color=colour, label=f'{noise:.3g} px, {kind}')
        axes.loglog(x, [p.mean_mm for p in curve], 'o', color=colour, ms=4)
    axes.set_xlabel('baseline, mm')
    axes.set_ylabel('mean 3D error, mm')
    axes.set_title('3D error under 2D noise: measured (dots), to first order (lines)', fontsize=10)
    axes.grid(which='both', alpha=0.25)
    axes.legend(fontsize=8)


def _draw_region(
    axes: Axes,
    baseline_mm: int,
    colour: str,
    focal_px: float,
    depth_m: float,
    noise_px: float,
    seed: int,
) -> None:
    """Triangulated cloud of one point, and the wedges of both views at one deviation."""
    baseline = baseline_mm / 1000
    column = focal_px * baseline / 2 / depth_m
    noise = np.random.default_rng(seed).normal(0.0, noise_px, (2, 600))
    z = focal_px * baseline / np.maximum(2 * column + noise[0] - noise[1], 1e-3)
    x = (column + noise[0]) * z / focal_px - baseline / 2
    axes.plot(z, 1000 * x, '.', color=colour, ms=2, alpha=0.4)
    along = np.array([0.1, 10.0])
    for view, offset in ((-1, column), (1, -column)):
        for edge in (-noise_px, noise_px):
            ray = view * baseline / 2 + (offset + edge) / focal_px * along
            axes.plot(along, 1000 * ray, '-', color='grey', lw=0.7)
    corners = uncertainty_region(depth_m, baseline, focal_px, noise_px) - (baseline / 2, 0.0)
    outline = corners[:, ::-1] * (1.0, 1000.0)
    axes.add_patch(Polygon(outline, closed=True, fill=False, ec='black', lw=1.8, zorder=3))
    area = 1e4 * uncertainty_area(depth_m, baseline, focal_px, noise_px)
    axes.set_title(f'baseline {baseline_mm} mm: region of {area:.0f} cm$^2$', fontsize=9)
    axes.set_xlim(depth_m - 1.15, depth_m + 1.85)
    axes.set_ylim(-60, 60)
