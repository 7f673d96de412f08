"""Rectified stereo pairs of a data set on disk, in the files that training and evaluation read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.calibration import StereoCalibration


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
    """Pairs of one pair of cameras during one take of a data set."""

    @property
    def name(self) -> str:
        """Unique in the data set, fit for a file: 's08_a03_r02_c13'."""

    @property
    def split(self) -> str:
        """'train' or 'test'."""

    def pairs(self) -> Iterator[PreparedPair]:
        """In order of time. Raises DataError, naming the file, where one cannot be read."""
