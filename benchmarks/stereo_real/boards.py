"""Calibration of a stereo head from pictures of a chessboard, as `camera_calibration` would do it.

The outcome are two camera models as in sensor_msgs/CameraInfo, which the node would be given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.errors import DataError
from rsb_pose_core.rectification import CameraModel

Corners = NDArray[np.float32]
CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-8)
FEWEST_PAIRS = 3


@dataclass(frozen=True, eq=False)
class HeadCalibration:
    """Both cameras and the root mean square error of the corners, pixels, over both views."""

    left: CameraModel
    right: CameraModel
    rms_px: float


def find_corners(grey: NDArray[np.uint8], pattern: tuple[int, int]) -> Corners | None:
    """Inner corners (columns x rows, 2) of a board, row by row; None where there is none."""
    flags = cv2.CALIB_CB_EXHAUSTIVE | cv2.CALIB_CB_ACCURACY
    found, corners = cv2.findChessboardCornersSB(grey, pattern, flags=flags)
    return corners.reshape(-1, 2).astype(np.float32) if found else None


def calibrate_head(
    left: Sequence[Corners],
    right: Sequence[Corners],
    pattern: tuple[int, int],
    square_m: float,
    size: tuple[int, int],
) -> HeadCalibration:
    """Calibrate from corners of the same boards in both views; size: (width, height), pixels.

    plumb_bob with five coefficients. Each camera is calibrated by itself first, then both with
    what turns one into the other. Raises DataError for too few boards.
    """
    if len(left) < FEWEST_PAIRS or len(left) != len(right):
        raise DataError(
            f'{len(left)} and {len(right)} boards, expected at least {FEWEST_PAIRS} pairs; take '
            f'more pictures of a board that both cameras see whole'
        )
    columns, rows = pattern
    board = np.zeros((columns * rows, 3), np.float32)
    board[:, :2] = square_m * np.mgrid[:columns, :rows].T.reshape(-1, 2)
    boards = [board] * len(left)
    start = np.array([(size[0] / 2, 0, size[0] / 2), (0, size[0] / 2, size[1] / 2), (0, 0, 1)])
    single = [
        cv2.calibrateCamera(
            boards, view, size, start.copy(), None,
            flags=cv2.CALIB_USE_INTRINSIC_GUESS, criteria=CRITERIA,
        )
        for view in (left, right)
    ]  # fmt: skip
    rms, k_left, d_left, k_right, d_right, turn, shift, *_ = cv2.stereoCalibrate(
        boards, left, right, single[0][1], single[0][2], single[1][1], single[1][2], size,
        flags=cv2.CALIB_USE_INTRINSIC_GUESS, criteria=CRITERIA,
    )  # fmt: skip
    r_left, r_right, p_left, p_right, *_ = cv2.stereoRectify(
        k_left, d_left, k_right, d_right, size, turn, shift,
        flags=cv2.CALIB_ZERO_DISPARITY, alpha=0,
    )  # fmt: skip
    cameras = [
        CameraModel(*size, 'plumb_bob', d, k, r, p, name)
        for d, k, r, p, name in (
            (d_left, k_left, r_left, p_left, 'left camera'),
            (d_right, k_right, r_right, p_right, 'right camera'),
        )
    ]
    return HeadCalibration(cameras[0], cameras[1], float(rms))


def row_differences(
    head: HeadCalibration, left: Sequence[Corners], right: Sequence[Corners]
) -> NDArray[np.float64]:
    """Rectified row of each corner in the left view minus that in the right, pixels."""
    rows = [
        camera.rectify_points(np.concatenate(view).astype(np.float64))[:, 1]
        for camera, view in ((head.left, left), (head.right, right))
    ]
    return np.asarray(rows[0] - rows[1])
