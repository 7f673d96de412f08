"""Rectified stereo pairs of a data set: what its reader yields and `preparation` writes down."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.errors import DataError
from rsb_pose_core.geometry import project


@dataclass(frozen=True, eq=False)
class PreparedPair:
    """One rectified pair with one person.

    left, right: (H, W, 3) uint8 RGB; xyz_m: (17, 3) of H36M_17 in metres, rectified left optical
    frame, NaN where unknown; visibility: (2, 17) uint8, codes of synthesis.labels, left then
    right; box_left, box_right: (4,) x, y, width, height in pixels; calibration: of the pictures.
    """

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    xyz_m: NDArray[np.float64]
    visibility: NDArray[np.uint8]
    box_left: NDArray[np.float64]
    box_right: NDArray[np.float64]
    calibration: StereoCalibration


@runtime_checkable
class Recording(Protocol):
    """Pairs of one pair of cameras during one take of a data set. It can be pickled."""

    @property
    def name(self) -> str:
        """Unique in the data set, fit for a file: 's08_a03_r02_c13'."""

    @property
    def split(self) -> str:
        """'train' or 'test'."""

    def pairs(self) -> Iterator[PreparedPair | DataError]:
        """In order of time. Raises DataError, naming the file, where the take cannot be read.

        Where only one pair cannot be read, it may yield the error in its place and go on.
        """


def pixels(
    xyz_m: Float[np.ndarray, '*batch 3'], calibration: StereoCalibration
) -> tuple[Float[np.ndarray, '*batch 2'], Float[np.ndarray, '*batch 2']]:
    """Where both pictures show points in metres, left and right; NaN behind the cameras."""
    uvd = project(torch.from_numpy(xyz_m), calibration).numpy()
    shift = np.stack([uvd[..., 2], np.zeros_like(uvd[..., 2])], -1)
    return uvd[..., :2], uvd[..., :2] - shift


def reached(
    uv: Float[np.ndarray, 'joints 2'], shown: Bool[np.ndarray, 'h w']
) -> Bool[np.ndarray, ' joints']:
    """Joints whose pixel the raw picture reaches; shown: those pixels of the rectified one."""
    column, row = np.nan_to_num(uv, nan=-1.0).round().astype(int).T
    height, width = shown.shape
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    inside[inside] = shown[row[inside], column[inside]]
    return np.asarray(inside)


def box_of_joints(uv: Float[np.ndarray, 'joints 2'], margin_px: float) -> Float[np.ndarray, '4']:
    """x, y, width, height (detection.boxes) round the finite joints and a margin; NaN: none."""
    seen = uv[np.isfinite(uv).all(-1)]
    if not len(seen):
        return np.full(4, np.nan)
    low, high = seen.min(0) - margin_px, seen.max(0) + margin_px
    return np.concatenate([low, high - low + 1])
