"""Coarse disparity of a person, to place the right view's crop.

The network looks for the joints within a few heat-map pixels of disparity (one heat-map pixel is
1/64 of the crop's side), so the crop of the right view must be placed to about that. Patches of
the body are compared with the right view along their rows, by zero-mean normalised correlation:
exposures may differ. All patches vote; a background seen past the body, or a plain garment that
fits anywhere, is outvoted by the patches that are sure.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.detection.boxes import Box

NEAREST_M, FARTHEST_M = 0.5, 12.0
# Images are shrunk until the box has this many rows: then a pixel is about a heat-map pixel or
# less, and the cost does not depend on the camera's resolution.
WORKING_HEIGHT = 112
# Patches as shares of the box: (left, top, right, bottom). Large ones carry outlines where the
# clothes are plain, small ones fit at one depth only.
PATCHES = (
    (0.20, 0.15, 0.80, 0.55),
    (0.25, 0.00, 0.75, 0.25),
    (0.20, 0.50, 0.80, 0.95),
    *(
        (x - 0.17, y - 0.09, x + 0.17, y + 0.09)
        for y in (0.10, 0.24, 0.38, 0.52, 0.66, 0.80)
        for x in (0.36, 0.50, 0.64)
    ),
)
SMALLEST_PATCH = 4  # working pixels
NOISE_GREY_LEVELS = 3.0  # patches of less contrast say nothing
VOTE_WIDTH = 1.0  # working pixels
NEAR_ENOUGH = 0.8  # a nearer peak wins from this share of the highest peak's height on
WORTH = 0.5  # correlation that a patch needs to support the outcome

Grey = NDArray[np.uint8]
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class CoarseDisparity:
    """Disparity u_left - u_right in full rectified pixels; 0..1: how much of the body agrees."""

    disparity_px: float
    agreement: float


def disparity_limits(
    calibration: StereoCalibration, nearest_m: float = NEAREST_M, farthest_m: float = FARTHEST_M
) -> tuple[float, float]:
    """Disparities (smallest, largest) in full pixels between two depths, of one calibration."""
    fx, _, cx_left, cx_right, _, baseline = (value.item() for value in calibration.fields())
    infinity = cx_left - cx_right
    return fx * baseline / farthest_m + infinity, fx * baseline / nearest_m + infinity


def coarse_disparity(
    left: Grey, right: Grey, box: Box, limits: tuple[float, float]
) -> CoarseDisparity | None:
    """Disparity of the person in `box` of the left view, searched for between the limits.

    left, right: rectified grey images (H, W); box and limits in their pixels. None if the body
    has no texture, or is nowhere to be found in the right view.
    """
    inside = box.clipped(left.shape[1], left.shape[0])
    if inside.width < 8 or inside.height < 8:
        return None
    band_left, band_right, scale = _shrunk_rows(left, right, inside)
    x0, width, height = inside.x * scale, inside.width * scale, band_left.shape[0]
    first, last = int(np.floor(limits[0] * scale)) - 1, int(np.ceil(limits[1] * scale)) + 1
    curves, weights = [], []
    for from_x, from_y, to_x, to_y in PATCHES:
        rows = slice(round(from_y * height), round(to_y * height))
        columns = slice(round(x0 + from_x * width), round(x0 + to_x * width))
        patch = band_left[rows, columns]
        contrast = float(patch.std()) if min(patch.shape) >= SMALLEST_PATCH else 0.0
        if contrast > 0:
            curves.append(_correlation(patch, band_right[rows], columns.start, (first, last)))
            weights.append(contrast**2 / (contrast**2 + NOISE_GREY_LEVELS**2))
    if not curves:
        return None
    found = _vote(np.stack(curves), np.array(weights))
    return found and CoarseDisparity((found[0] + first) / scale, found[1])


def _shrunk_rows(left: Grey, right: Grey, box: Box) -> tuple[Grey, Grey, float]:
    """The box's rows of both views at the working size, and working pixels per column."""
    rows = slice(round(box.y), round(box.y + box.height))
    scale = min(1.0, WORKING_HEIGHT / box.height)
    width = max(round(left.shape[1] * scale), 1)
    size = (width, max(round(box.height * scale), 1))
    small = [
        np.asarray(cv2.resize(image[rows], size, interpolation=cv2.INTER_AREA), np.uint8)
        for image in (left, right)
    ]
    return small[0], small[1], width / left.shape[1]


def _correlation(patch: Grey, strip: Grey, column: int, limits: tuple[int, int]) -> Curve:
    """Correlation of a patch at `column` with the strip, for every disparity of the limits.

    0 where the right view ends.
    """
    first, last = limits
    curve = np.zeros(last - first + 1)
    start = max(column - last, 0)
    stop = min(column - first + patch.shape[1], strip.shape[1])
    if stop - start < patch.shape[1]:
        return curve
    scores = cv2.matchTemplate(strip[:, start:stop], patch, cv2.TM_CCOEFF_NORMED)[0]
    disparities = column - np.arange(start, start + len(scores))
    curve[disparities - first] = np.nan_to_num(scores, posinf=0.0, neginf=0.0)
    return curve


def _vote(curves: Curve, weights: Curve) -> tuple[float, float] | None:
    """Sub-pixel index along the curves (N, D) that most patches agree on, and the agreement."""
    votes = weights @ np.clip(curves, 0.0, 1.0) ** 4
    reach = np.arange(-3, 4)
    votes = np.convolve(votes, np.exp(-0.5 * (reach / VOTE_WIDTH) ** 2), mode='same')
    inner = np.pad(votes, 1, constant_values=-1.0)
    peaks = np.flatnonzero((inner[1:-1] >= inner[:-2]) & (inner[1:-1] > inner[2:]))
    peaks = peaks[votes[peaks] >= NEAR_ENOUGH * votes.max()]
    if len(peaks) == 0 or votes.max() <= 0:
        return None
    peak = int(peaks[-1])  # the nearest: the body is in front of what is seen past it
    positions, supports = [], []
    for curve, weight in zip(curves, weights, strict=True):
        low = max(peak - 2, 0)
        best = low + int(np.argmax(curve[low : peak + 3]))
        if curve[best] >= WORTH:
            positions.append(best + _parabola_offset(curve, best))
            supports.append(weight * curve[best])
    if not positions:
        return None
    order = np.argsort(positions)
    cumulated = np.cumsum(np.array(supports)[order])
    median = np.array(positions)[order][np.searchsorted(cumulated, cumulated[-1] / 2)]
    return float(median), float(cumulated[-1] / max(weights.sum(), 1e-9))


def _parabola_offset(curve: Curve, best: int) -> float:
    """Where between its neighbours a peak is highest, -0.5..0.5."""
    if not 0 < best < len(curve) - 1:
        return 0.0
    before, at, after = curve[best - 1 : best + 2]
    bend = before - 2 * at + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
