"""What the pixels of calibrated cameras mean in space."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from image_geometry.deprecated_names import renamed_attribute, renamed_method

Matrix = NDArray[np.float64]


class PinholeCameraModel:
    """One camera as its CameraInfo describes it, with binning and region of interest applied.

    Pixels are those of the message's image: reduced by the binning and counted from the corner of
    the region of interest. All methods but `from_camera_info` need a message first.
    """

    def __init__(self) -> None:
        self._k: Any = None
        self._d: Any = None
        self._r: Any = None
        self._p: Any = None
        self._full_k: Any = None
        self._full_p: Any = None
        self._width: Any = None
        self._height: Any = None
        self._binning_x: Any = None
        self._binning_y: Any = None
        self._raw_roi: Any = None
        self._tf_frame: Any = None
        self._stamp: Any = None

    def from_camera_info(self, msg: CameraInfo) -> None:
        """Take the parameters of a message; a binning of 0 means 1, an empty ROI the whole."""
        self._full_k = np.array(msg.k, np.float64).reshape(3, 3)
        self._full_p = np.array(msg.p, np.float64).reshape(3, 4)
        self._r = np.array(msg.r, np.float64).reshape(3, 3)
        self._d = np.array(msg.d, np.float64).reshape(-1, 1) if len(msg.d) else None
        self._width, self._height = msg.width, msg.height
        self._tf_frame, self._stamp = msg.header.frame_id, msg.header.stamp
        self._binning_x, self._binning_y = max(1, msg.binning_x), max(1, msg.binning_y)
        roi = copy.copy(msg.roi)
        if not any((roi.x_offset, roi.y_offset, roi.width, roi.height)):
            roi.width, roi.height = msg.width, msg.height
        self._raw_roi = roi
        self._k, self._p = self._reduced(self._full_k), self._reduced(self._full_p)

    def _reduced(self, full: Matrix) -> Matrix:
        """Return K or P for the binned region of interest."""
        reduced = full.copy()
        for row, binning, offset in (
            (0, self._binning_x, self._raw_roi.x_offset),
            (1, self._binning_y, self._raw_roi.y_offset),
        ):
            reduced[row, row] /= binning
            reduced[row, 2] = (reduced[row, 2] - offset) / binning
        return reduced

    def rectify_image(self, raw: NDArray[Any], rectified: NDArray[Any]) -> None:
        """Write `raw` (H W or H W C), rectified with bicubic interpolation, into `rectified`.

        The maps are made anew for the full size of the sensor on every call, as in Jazzy: make
        your own once to rectify a stream.
        """
        size = (self._width, self._height)
        self.mapx, self.mapy = cv2.initUndistortRectifyMap(
            self._k, self._d, self._r, self._p, size, cv2.CV_32FC1
        )
        cv2.remap(raw, self.mapx, self.mapy, cv2.INTER_CUBIC, rectified)

    def rectify_point(self, uv_raw: Sequence[float]) -> Matrix:
        """Return the rectified pixel (2,) of a pixel of the raw image."""
        point = np.array(uv_raw, np.float64).reshape(1, 1, 2)
        rectified: Matrix = cv2.undistortPoints(point, self._k, self._d, R=self._r, P=self._p)
        return rectified[0, 0]

    def project_3d_to_pixel(self, point: Sequence[float]) -> tuple[float, float]:
        """Return the rectified pixel of a point in metres, NaN for a point in the camera's plane.

        The inverse of `project_pixel_to_3d_ray`.
        """
        u, v, w = self._p @ (point[0], point[1], point[2], 1.0)
        return (u / w, v / w) if w != 0 else (math.nan, math.nan)

    def project_pixel_to_3d_ray(self, uv: Sequence[float]) -> tuple[float, float, float]:
        """Return the unit vector from the camera's centre through a rectified pixel."""
        x = (uv[0] - self.cx()) / self.fx()
        y = (uv[1] - self.cy()) / self.fy()
        length = math.sqrt(x * x + y * y + 1)
        return (x / length, y / length, 1.0 / length)

    def get_delta_u(self, delta_x: float, z: float) -> float:
        """Return the pixels that `delta_x` metres span at the depth `z`, infinite at 0."""
        return math.inf if z == 0 else self.fx() * delta_x / z

    def get_delta_v(self, delta_y: float, z: float) -> float:
        """Return the pixels that `delta_y` metres span at the depth `z`, infinite at 0."""
        return math.inf if z == 0 else self.fy() * delta_y / z

    def get_delta_x(self, delta_u: float, z: float) -> float:
        """Return the metres that `delta_u` pixels span at the depth `z`."""
        return z * delta_u / self.fx()

    def get_delta_y(self, delta_v: float, z: float) -> float:
        """Return the metres that `delta_v` pixels span at the depth `z`."""
        return z * delta_v / self.fy()

    def full_resolution(self) -> tuple[int, int]:
        """Return the width and height of the sensor, pixels."""
        return (self._width, self._height)

    def intrinsic_matrix(self) -> Matrix:
        """Return K of the raw image, (3, 3)."""
        return self._k

    def distortion_coeffs(self) -> Matrix | None:
        """Return D, (n, 1), or None for an image without distortion."""
        return self._d

    def rotation_matrix(self) -> Matrix:
        """Return R, (3, 3)."""
        return self._r

    def projection_matrix(self) -> Matrix:
        """Return P of the rectified image, (3, 4)."""
        return self._p

    def full_intrinsic_matrix(self) -> Matrix:
        """Return K of the whole sensor, (3, 3)."""
        return self._full_k

    def full_projection_matrix(self) -> Matrix:
        """Return P of the whole sensor, (3, 4)."""
        return self._full_p

    def cx(self) -> float:
        """Return the column of the rectified image's principal point, pixels."""
        return self._p[0, 2]

    def cy(self) -> float:
        """Return the row of the rectified image's principal point, pixels."""
        return self._p[1, 2]

    def fx(self) -> float:
        """Return the rectified image's focal length along the rows, pixels."""
        return self._p[0, 0]

    def fy(self) -> float:
        """Return the rectified image's focal length along the columns, pixels."""
        return self._p[1, 1]

    def tx(self) -> float:
        """Return the x translation of P, pixels times metres: -fx times the baseline."""
        return self._p[0, 3]

    def ty(self) -> float:
        """Return the y translation of P, pixels times metres."""
        return self._p[1, 3]

    def fov_x(self) -> float:
        """Return the horizontal field of view of the sensor's width, radians."""
        return 2 * math.atan(self._width / (2 * self.fx()))

    def fov_y(self) -> float:
        """Return the vertical field of view of the sensor's height, radians."""
        return 2 * math.atan(self._height / (2 * self.fy()))

    def get_tf_frame(self) -> str:
        """Return the frame of the message."""
        return self._tf_frame

    fromCameraInfo = renamed_method('fromCameraInfo', 'from_camera_info')
    rectifyImage = renamed_method('rectifyImage', 'rectify_image')
    rectifyPoint = renamed_method('rectifyPoint', 'rectify_point')
    project3dToPixel = renamed_method('project3dToPixel', 'project_3d_to_pixel')
    projectPixelTo3dRay = renamed_method('projectPixelTo3dRay', 'project_pixel_to_3d_ray')
    getDeltaU = renamed_method('getDeltaU', 'get_delta_u')
    getDeltaV = renamed_method('getDeltaV', 'get_delta_v')
    getDeltaX = renamed_method('getDeltaX', 'get_delta_x')
    getDeltaY = renamed_method('getDeltaY', 'get_delta_y')
    fullResolution = renamed_method('fullResolution', 'full_resolution')
    intrinsicMatrix = renamed_method('intrinsicMatrix', 'intrinsic_matrix', as_matrix=True)
    distortionCoeffs = renamed_method('distortionCoeffs', 'distortion_coeffs', as_matrix=True)
    rotationMatrix = renamed_method('rotationMatrix', 'rotation_matrix', as_matrix=True)
    projectionMatrix = renamed_method('projectionMatrix', 'projection_matrix', as_matrix=True)
    fullIntrinsicMatrix = renamed_method(
        'fullIntrinsicMatrix', 'full_intrinsic_matrix', as_matrix=True
    )
    fullProjectionMatrix = renamed_method(
        'fullProjectionMatrix', 'full_projection_matrix', as_matrix=True
    )
    Tx = renamed_method('Tx', 'tx')
    Ty = renamed_method('Ty', 'ty')
    fovX = renamed_method('fovX', 'fov_x')
    fovY = renamed_method('fovY', 'fov_y')
    tfFrame = renamed_method('tfFrame', 'get_tf_frame')
    K = renamed_attribute('K', '_k', 'intrinsic_matrix()', as_matrix=True)
    D = renamed_attribute('D', '_d', 'distortion_coeffs()', as_matrix=True)
    R = renamed_attribute('R', '_r', 'rotation_matrix()', as_matrix=True)
    P = renamed_attribute('P', '_p', 'projection_matrix()', as_matrix=True)
    full_K = renamed_attribute('full_K', '_full_k', 'full_intrinsic_matrix()', as_matrix=True)
    full_P = renamed_attribute('full_P', '_full_p', 'full_projection_matrix()', as_matrix=True)
    tf_frame = renamed_attribute('tf_frame', '_tf_frame', 'get_tf_frame()')
    width = renamed_attribute('width', '_width')
    height = renamed_attribute('height', '_height')
    binning_x = renamed_attribute('binning_x', '_binning_x')
    binning_y = renamed_attribute('binning_y', '_binning_y')
    raw_roi = renamed_attribute('raw_roi', '_raw_roi')
    stamp = renamed_attribute('stamp', '_stamp')


class StereoCameraModel:
    """A rectified pair: the left camera's frame, and the baseline in the right camera's P.

    As in Jazzy points are found with the right camera's principal point, so the pair must share
    its cx; and a right P without a baseline divides by 0.
    """

    def __init__(self) -> None:
        self._left = PinholeCameraModel()
        self._right = PinholeCameraModel()
        self._q: Any = None

    def from_camera_info(self, left_msg: CameraInfo, right_msg: CameraInfo) -> None:
        """Take the parameters of both cameras' messages."""
        self._left.from_camera_info(left_msg)
        self._right.from_camera_info(right_msg)
        right = self._right
        baseline_m = -right.tx() / right.fx()
        self._q = np.array(
            [
                [1, 0, 0, -right.cx()],
                [0, 1, 0, -right.cy()],
                [0, 0, 0, right.fx()],
                [0, 0, 1 / baseline_m, 0],
            ],
            np.float64,
        )

    def project_3d_to_pixel(
        self, point: Sequence[float]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the rectified pixels of a point in metres in the left and the right image."""
        return (self._left.project_3d_to_pixel(point), self._right.project_3d_to_pixel(point))

    def project_pixel_to_3d(
        self, left_uv: Sequence[float], disparity: float
    ) -> tuple[float, float, float]:
        """Return the point in metres of a rectified left pixel and its disparity in pixels.

        A disparity of 0, a point at infinity, gives (0, 0, 0), as in Jazzy.
        """
        x, y, z, w = self._q @ (left_uv[0], left_uv[1], disparity, 1.0)
        return (x / w, y / w, z / w) if w != 0 else (0.0, 0.0, 0.0)

    def get_z(self, disparity: float) -> float:
        """Return the depth in metres of a disparity in pixels, infinite for 0."""
        return math.inf if disparity == 0 else -self._right.tx() / disparity

    def get_disparity(self, z: float) -> float:
        """Return the disparity in pixels of a depth in metres, infinite for 0."""
        return math.inf if z == 0 else -self._right.tx() / z

    def get_tf_frame(self) -> str:
        """Return the frame of the points: the left camera's."""
        return self._left.get_tf_frame()

    def get_left_camera(self) -> PinholeCameraModel:
        """Return the left camera."""
        return self._left

    def get_right_camera(self) -> PinholeCameraModel:
        """Return the right camera."""
        return self._right

    fromCameraInfo = renamed_method('fromCameraInfo', 'from_camera_info')
    project3dToPixel = renamed_method('project3dToPixel', 'project_3d_to_pixel')
    projectPixelTo3d = renamed_method('projectPixelTo3d', 'project_pixel_to_3d')
    getZ = renamed_method('getZ', 'get_z')
    getDisparity = renamed_method('getDisparity', 'get_disparity')
    tfFrame = renamed_method('tfFrame', 'get_tf_frame')
    left = renamed_attribute('left', '_left', 'get_left_camera()')
    right = renamed_attribute('right', '_right', 'get_right_camera()')
    Q = renamed_attribute('Q', '_q')
