"""Calibration of a rectified stereo pair, and what cropping and resizing do to it.

Pixel convention everywhere: the centre of the top-left pixel is (0, 0), as in OpenCV and ROS.
Resizing by s therefore maps x to (x + 0.5) s - 0.5.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError

# Rectified views must agree on fx, fy and cy; files keep about this many digits of them.
PROJECTION_TOLERANCE_PX = 1e-2
LONGEST_BASELINE_M = 10.0

Scalar = Float[Tensor, '*batch']


class CalibrationError(RsbPoseError, ValueError):
    """A camera calibration that cannot be used."""


@dataclass(frozen=True)
class StereoCalibration:
    """Pinhole intrinsics of a rectified pair: u = fx X / Z + cx, in each view with its own cx.

    All fields are tensors of one shape, () for one pair or (B,) for a batch. fx, fy, the principal
    points and the image size are in pixels of the image (or crop) they belong to; the baseline is
    in metres, positive, from the left to the right camera. The principal columns differ once the
    two views are cropped at different columns.
    """

    fx: Scalar
    fy: Scalar
    cx_left: Scalar
    cx_right: Scalar
    cy: Scalar
    baseline_m: Scalar

    @classmethod
    def from_values(
        cls, fx: float, fy: float, cx_left: float, cx_right: float, cy: float, baseline_m: float
    ) -> 'StereoCalibration':
        """Calibration of one pair, in float64."""
        values = (fx, fy, cx_left, cx_right, cy, baseline_m)
        return cls(*(torch.tensor(value, dtype=torch.float64) for value in values))

    @classmethod
    def from_projections(
        cls, p_left: NDArray[np.float64], p_right: NDArray[np.float64]
    ) -> 'StereoCalibration':
        """Read the 3x4 projection matrices P of a rectified pair, as in sensor_msgs/CameraInfo.

        The right P carries the baseline: P[0,3] = -fx * baseline, in pixels times metres. The two
        cx may differ (a disparity offset).

        Raises CalibrationError, one sentence, for P without baseline, of swapped cameras, of a
        vertical pair, of views that differ in fx, fy or cy, and for a baseline not in metres.
        """
        for name, p in (('left', p_left), ('right', p_right)):
            if not np.isfinite(p).all() or p[0, 0] <= 0 or p[1, 1] <= 0:
                raise CalibrationError(
                    f'the projection matrix P of the {name} camera has fx={p[0, 0]:g} and '
                    f'fy={p[1, 1]:g}, expected positive finite values; calibrate the stereo pair'
                )
        _check_translation(p_left, p_right)
        names = ('fx', 'fy', 'cy')
        for name, row, column in zip(names, (0, 1, 1), (0, 1, 2), strict=True):
            left, right = float(p_left[row, column]), float(p_right[row, column])
            if abs(left - right) > PROJECTION_TOLERANCE_PX:
                raise CalibrationError(
                    f'the projection matrices P differ in {name} ({left:g} left, {right:g} '
                    f'right), expected equal values in both views; use a calibration of the pair '
                    f'instead of one of each camera'
                )
        return cls.from_values(
            fx=float(p_left[0, 0]),
            fy=float(p_left[1, 1]),
            cx_left=float(p_left[0, 2]),
            cx_right=float(p_right[0, 2]),
            cy=float(p_left[1, 2]),
            baseline_m=float(-p_right[0, 3] / p_right[0, 0]),
        )

    def crop(self, x0_left: Scalar, x0_right: Scalar, y0: Scalar) -> 'StereoCalibration':
        """Move the origin to (x0_left, y0) in the left view and (x0_right, y0) in the right."""
        return replace(
            self,
            cx_left=self.cx_left - x0_left,
            cx_right=self.cx_right - x0_right,
            cy=self.cy - y0,
        )

    def resize(self, scale: Scalar | float) -> 'StereoCalibration':
        """Scale both images by `scale` (new size / old size), pixel centres kept."""
        return replace(
            self,
            fx=self.fx * scale,
            fy=self.fy * scale,
            cx_left=(self.cx_left + 0.5) * scale - 0.5,
            cx_right=(self.cx_right + 0.5) * scale - 0.5,
            cy=(self.cy + 0.5) * scale - 0.5,
        )

    def to(self, like: Tensor) -> 'StereoCalibration':
        """Same calibration with the dtype and device of `like`."""
        return StereoCalibration(*(value.to(like) for value in self.fields()))

    def fields(self) -> tuple[Scalar, ...]:
        """fx, fy, cx_left, cx_right, cy, baseline_m: also the order in stored arrays."""
        return (self.fx, self.fy, self.cx_left, self.cx_right, self.cy, self.baseline_m)

    @classmethod
    def stack(cls, calibrations: 'list[StereoCalibration]') -> 'StereoCalibration':
        """Join calibrations of single pairs into one of shape (B,)."""
        columns = zip(*(calibration.fields() for calibration in calibrations), strict=True)
        return cls(*(torch.stack(column) for column in columns))


def _check_translation(p_left: NDArray[np.float64], p_right: NDArray[np.float64]) -> None:
    """Refuse projection matrices whose fourth columns are not those of a left and a right view."""
    left, right = (float(p[0, 3] / p[0, 0]) for p in (p_left, p_right))
    if left == 0.0 and right == 0.0:
        vertical = p_left[1, 3] != 0.0 or p_right[1, 3] != 0.0
        found = 'only a vertical baseline (P[1,3])' if vertical else 'no baseline (P[0,3] = 0)'
        raise CalibrationError(
            f'the projection matrices P hold {found}, expected P[0,3] = -fx * baseline in the '
            f'right camera; calibrate the two cameras together as a horizontal stereo pair'
        )
    if right >= 0.0:
        raise CalibrationError(
            f'the left camera has P[0,3] = {p_left[0, 3]:g} and the right {p_right[0, 3]:g}, '
            f'expected 0 and a negative value; the cameras look swapped, exchange left and right'
        )
    if left != 0.0:
        raise CalibrationError(
            f'the left camera has P[0,3] = {p_left[0, 3]:g}, expected 0 because positions are '
            f'given in the left camera; calibrate with the left camera as the reference'
        )
    if -right > LONGEST_BASELINE_M:
        raise CalibrationError(
            f'the baseline P[0,3] / -fx is {-right:g} m, expected at most '
            f'{LONGEST_BASELINE_M:g} m; calibrate with the size of the board in metres'
        )
