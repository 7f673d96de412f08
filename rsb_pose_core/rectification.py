"""Rectification of a calibrated stereo pair, from what sensor_msgs/CameraInfo carries.

The lookup maps are built once per calibration. R and P are honoured even where the lens
distortion is zero: two ideal but slightly turned cameras need rectification as well.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.calibration import CalibrationError, StereoCalibration

# Lengths of D that each distortion model of sensor_msgs/distortion_models.hpp may have.
DISTORTION_LENGTHS = {
    'plumb_bob': (4, 5),
    'rational_polynomial': (8, 12, 14),
    'equidistant': (4,),
}
# R and P are as good as the identity and K where no pixel moves further than this.
UNMOVED_PX = 1e-3

# OpenCV 4 has a function of its own for undistortion with a stopping rule, OpenCV 5 only that one.
ITERATED_UNDISTORT: Callable[..., Any] = getattr(cv2, 'undistortPointsIter', cv2.undistortPoints)

Matrix = NDArray[np.float64]
Image = NDArray[np.uint8]
Maps = tuple[NDArray[np.int16], NDArray[np.uint16]]


@dataclass(frozen=True, eq=False)
class CameraModel:
    """One camera of a stereo pair, as calibrated: the fields of sensor_msgs/CameraInfo.

    k (3x3) and d map rays of the camera to pixels of its raw image, r (3x3) turns the camera's
    axes into the rectified ones, p (3x4) projects onto the rectified image, in pixels. Flat
    arrays of 9 and 12 numbers are taken as well. An all-zero or empty d is no distortion.

    Raises CalibrationError, one sentence, if the values cannot be a calibration.
    """

    width: int
    height: int
    distortion_model: str
    d: Matrix
    k: Matrix
    r: Matrix
    p: Matrix
    name: str = 'camera'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'd', np.asarray(self.d, np.float64).reshape(-1))
        for matrix, shape in (('k', (3, 3)), ('r', (3, 3)), ('p', (3, 4))):
            object.__setattr__(self, matrix, self._shaped(matrix, shape))
        self._check_matrices()
        self._check_distortion()

    @property
    def is_distorted(self) -> bool:
        """Whether the lens bends anything."""
        return bool(np.any(self.d))

    @property
    def _is_fisheye(self) -> bool:
        return self.distortion_model == 'equidistant' and self.is_distorted

    @property
    def _coefficients(self) -> Matrix:
        return self.d if self.is_distorted else np.zeros(5)

    def rectification_maps(self) -> Maps | None:
        """Maps for cv2.remap from the raw to the rectified image; None where nothing moves."""
        intrinsics = self.p[:, :3]
        if not self.is_distorted and self._moved_px() < UNMOVED_PX:
            return None
        size = (self.width, self.height)
        build: Callable[..., Any] = cv2.initUndistortRectifyMap
        if self._is_fisheye:
            build = cv2.fisheye.initUndistortRectifyMap
        maps = build(self.k, self._coefficients, self.r, intrinsics, size, cv2.CV_16SC2)
        return np.asarray(maps[0], np.int16), np.asarray(maps[1], np.uint16)

    def rectify_points(self, uv: Matrix) -> Matrix:
        """Move pixels (N, 2) of the raw image to where they are in the rectified image."""
        # cv2.fisheye reads strided arrays as if they were not
        points = np.ascontiguousarray(uv, np.float64).reshape(-1, 1, 2)
        if self._is_fisheye:
            moved = cv2.fisheye.undistortPoints(
                points, self.k, self._coefficients, R=self.r, P=self.p[:, :3]
            )
        else:
            # The default of 5 iterations is off by whole pixels at the corners of wide lenses.
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
            moved = ITERATED_UNDISTORT(
                points, self.k, self._coefficients, R=self.r, P=self.p[:, :3], criteria=criteria
            )
        return np.asarray(moved, np.float64).reshape(-1, 2)

    def _moved_px(self) -> float:
        """How far rectification moves the corners of an undistorted image."""
        corners = np.array(
            [(x, y, 1.0) for x in (0, self.width - 1) for y in (0, self.height - 1)], np.float64
        )
        moved = (self.p[:, :3] @ self.r @ np.linalg.inv(self.k) @ corners.T).T
        return float(np.abs(moved[:, :2] / moved[:, 2:] - corners[:, :2]).max())

    def _shaped(self, matrix: str, shape: tuple[int, int]) -> Matrix:
        values = np.asarray(getattr(self, matrix), np.float64)
        if values.size != shape[0] * shape[1]:
            raise CalibrationError(
                f'the {self.name} has a matrix {matrix.upper()} of {values.size} numbers, '
                f'expected {shape[0]}x{shape[1]}; check its camera_info'
            )
        return values.reshape(shape)

    def _check_matrices(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise CalibrationError(
                f'the {self.name} has an image size of {self.width}x{self.height}, expected that '
                f'of its images; check width and height in its camera_info'
            )
        for matrix, values in (('D', self.d), ('K', self.k), ('R', self.r), ('P', self.p)):
            if not np.isfinite(values).all():
                raise CalibrationError(
                    f'the {self.name} has a matrix {matrix} that is not finite, expected numbers; '
                    f'calibrate it again'
                )
        for matrix, values in (('K', self.k), ('P', self.p)):
            if values[0, 0] <= 0 or values[1, 1] <= 0 or values[2, 2] == 0:
                raise CalibrationError(
                    f'the {self.name} is not calibrated ({matrix} has focal lengths '
                    f'{values[0, 0]:g} and {values[1, 1]:g}, expected positive pixels); calibrate '
                    f'it and load the result in its driver'
                )
        if not np.allclose(self.r @ self.r.T, np.eye(3), atol=1e-4) or np.linalg.det(self.r) < 0:
            raise CalibrationError(
                f'the {self.name} has a matrix R that is not a rotation, expected the rectifying '
                f'rotation of a stereo calibration; calibrate the pair again'
            )

    def _check_distortion(self) -> None:
        known = ', '.join(DISTORTION_LENGTHS)
        if not self.is_distorted and self.distortion_model in ('', *DISTORTION_LENGTHS):
            return
        lengths = DISTORTION_LENGTHS.get(self.distortion_model)
        if lengths is None:
            raise CalibrationError(
                f'the {self.name} has the distortion model {self.distortion_model!r}, expected '
                f'one of {known}; calibrate it with one of these'
            )
        if self.d.size not in lengths:
            expected = ' or '.join(str(length) for length in lengths)
            raise CalibrationError(
                f'the {self.name} has {self.d.size} distortion coefficients, expected {expected} '
                f'for {self.distortion_model}; correct D or distortion_model in its camera_info'
            )


@dataclass(frozen=True, eq=False)
class StereoRectifier:
    """Turns raw pairs into rectified ones: a point in the world lies on the same row of both.

    Raises CalibrationError, one sentence, if the two cameras are not a calibrated stereo pair.
    """

    left: CameraModel
    right: CameraModel
    calibration: StereoCalibration = field(init=False)
    _maps: tuple[Maps | None, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = [(camera.width, camera.height) for camera in (self.left, self.right)]
        if sizes[0] != sizes[1]:
            raise CalibrationError(
                f'the left camera is calibrated for {_size(*sizes[0])} and the right for '
                f'{_size(*sizes[1])} pixels, expected equal sizes; run both cameras in one mode'
            )
        calibration = StereoCalibration.from_projections(self.left.p, self.right.p)
        maps = tuple(camera.rectification_maps() for camera in (self.left, self.right))
        object.__setattr__(self, 'calibration', calibration)
        object.__setattr__(self, '_maps', maps)

    @property
    def width(self) -> int:
        """Width of the raw and of the rectified images, pixels."""
        return self.left.width

    @property
    def height(self) -> int:
        """Height of the raw and of the rectified images, pixels."""
        return self.left.height

    def rectify(self, left: Image, right: Image) -> tuple[Image, Image]:
        """Rectify both images, (H, W) or (H, W, C) each; pixels from outside are black.

        OpenCV interpolates in steps of 1/32 pixel. A view that needs no remapping is returned as
        it is, not copied. Raises CalibrationError if an image does not have the size it is
        calibrated for.
        """
        views = []
        for name, image, maps in zip(('left', 'right'), (left, right), self._maps, strict=True):
            height, width = image.shape[:2]
            if (width, height) != (self.width, self.height):
                raise CalibrationError(
                    f'the {name} image has {_size(width, height)} pixels, expected '
                    f'{_size(self.width, self.height)} as in its camera_info; calibrate at the '
                    f'size that is published'
                )
            if maps is None:
                views.append(image)
            else:
                moved = cv2.remap(image, maps[0], maps[1], cv2.INTER_LINEAR)
                views.append(np.asarray(moved, np.uint8))
        return views[0], views[1]


def _size(width: int, height: int) -> str:
    return f'{width}x{height}'
