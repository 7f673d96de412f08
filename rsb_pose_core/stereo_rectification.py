"""Rectification of two calibrated cameras of a data set, after Bouguet or after Loop and Zhang.

All that rectifying two calibrated cameras leaves free is a turn of both about their baseline and
what it does along the rows: every pair of rectifying homographies of undistorted pixels is
    H_view = A_view K_view R_view(angle) K_raw^-1,    A_view = [[a, b, c], [0, s, t], [0, 0, 1]],
where both views share s and t, and K_view is a pinhole's but for its own principal column. The
network triangulates with pinholes, so that A = 1 here, and the methods differ in the angle:
- 'bouguet' turns each camera by half of what turns one into the other, then the baseline onto
  the rows (cv2.stereoRectify);
- 'loop-zhang' takes the angle of the homographies of Loop and Zhang (loop_zhang.py), the
  reference [46] of RSB-Pose, the one that distorts both pictures least; theirs are these but for
  A, a stretch and a shear along the rows of each view.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Num
from numpy.typing import NDArray

from rsb_pose_core.calibration import CalibrationError, StereoCalibration
from rsb_pose_core.loop_zhang import projective_components
from rsb_pose_core.rectification import ITERATED_UNDISTORT

DISTORTION_LENGTHS = (0, 4, 5, 8, 12, 14)  # of OpenCV's k1, k2, p1, p2, k3, ...
# Steeper against the cameras' x axes, a baseline is not one of a left and a right camera.
STEEPEST_BASELINE_DEG = 40.0
# What lies further from the rectified axis would be stretched beyond use.
WIDEST_RAY_DEG = 80.0
LARGEST_GROWTH = 2.0  # of width and height, over the larger raw picture
BORDER_POINTS = 64  # on each side of a picture
UNDISTORTED_PX = 0.5  # how far undistorting and distorting again may lead away

Matrix = Float[np.ndarray, '3 3']
Vector = Float[np.ndarray, '3']
Points = Float[np.ndarray, 'n 2']
Mask = Bool[np.ndarray, 'h w']
Maps = tuple[NDArray[np.int16], NDArray[np.uint16]]
Span = tuple[float, int]  # first value and number of pixels of a row or column


@dataclass(frozen=True, eq=False)
class Camera:
    """A calibrated camera of a data set: x_camera = rotation x_world + translation_m.

    width, height: pixels of the raw picture; k: (3, 3) without skew, pixels, the centre of the
    first pixel at (0, 0); d: OpenCV's distortion coefficients k1, k2, p1, p2, k3, ... (0, 4, 5,
    8, 12 or 14); rotation: (3, 3); translation_m: (3,), metres.

    Raises CalibrationError, one sentence, if the values cannot be a camera.
    """

    width: int
    height: int
    k: NDArray[np.float64]
    d: NDArray[np.float64]
    rotation: NDArray[np.float64]
    translation_m: NDArray[np.float64]
    name: str = 'camera'

    def __post_init__(self) -> None:
        shapes = {'k': (3, 3), 'd': (-1,), 'rotation': (3, 3), 'translation_m': (3,)}
        for field, shape in shapes.items():
            self._keep(field, shape)
        self._check()

    @property
    def centre_m(self) -> Vector:
        """Where the camera stands in the world, metres."""
        return np.asarray(-self.rotation.T @ self.translation_m)

    def rays(self, uv: Num[np.ndarray, 'n 2']) -> Float[np.ndarray, 'n 3']:
        """Directions (x, y, 1) along the camera's axes of raw pixels (u, v)."""
        points = np.ascontiguousarray(uv, np.float64).reshape(-1, 1, 2)
        # The default of 5 iterations is off by whole pixels at the corners of wide lenses.
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
        xy = ITERATED_UNDISTORT(
            points, self.k, self._coefficients, R=np.eye(3), P=np.eye(3), criteria=criteria
        )
        return np.column_stack((np.asarray(xy, np.float64).reshape(-1, 2), np.ones(len(points))))

    def project(self, xyz_world_m: Float[np.ndarray, 'n 3']) -> Points:
        """Raw pixels of points of the world, metres, in front of the camera."""
        turn, _ = cv2.Rodrigues(self.rotation)
        points = np.ascontiguousarray(xyz_world_m, np.float64).reshape(-1, 1, 3)
        uv, _ = cv2.projectPoints(points, turn, self.translation_m, self.k, self._coefficients)
        return np.asarray(uv, np.float64).reshape(-1, 2)

    def border(self) -> Points:
        """Pixels (N, 2) round the outer edge of the raw picture, in order."""
        u, v = (np.linspace(-0.5, n - 0.5, BORDER_POINTS + 1) for n in (self.width, self.height))
        sides = ((u, v[:1]), (u[-1:], v), (u[::-1], v[-1:]), (u[:1], v[::-1]))
        both = [np.stack(np.broadcast_arrays(*side), axis=1) for side in sides]
        return np.concatenate([side[:-1] for side in both])

    @property
    def _coefficients(self) -> NDArray[np.float64]:
        return self.d if self.d.size else np.zeros(5)

    def _keep(self, field: str, shape: tuple[int, ...]) -> None:
        values = np.asarray(getattr(self, field), np.float64)
        if -1 not in shape and values.size != np.prod(shape):
            raise self._error(f'{field} of {values.size} numbers', f'{np.prod(shape)}')
        if not np.isfinite(values).all():
            raise self._error(f'{field} that is not finite', 'numbers')
        object.__setattr__(self, field, values.reshape(shape))

    def _check(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise self._error(f'a picture of {self.width}x{self.height}', 'positive pixels')
        k, r = self.k, self.rotation
        pinhole = np.diag((k[0, 0], k[1, 1], 1.0))
        pinhole[:2, 2] = k[:2, 2]
        if min(k[0, 0], k[1, 1]) <= 0 or not np.array_equal(k, pinhole):
            raise self._error(
                f'the matrix K {k.tolist()}', '[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels'
            )
        if self.d.size not in DISTORTION_LENGTHS:
            expected = ', '.join(map(str, DISTORTION_LENGTHS))
            raise self._error(f'{self.d.size} distortion coefficients', f'one of {expected}')
        if not np.allclose(r @ r.T, np.eye(3), atol=1e-6) or np.linalg.det(r) < 0:
            raise self._error('a rotation that does not rotate', 'R R^T = 1 and det R = 1')

    def _error(self, found: str, expected: str) -> CalibrationError:
        return CalibrationError(
            f'the {self.name} has {found}, expected {expected}; check its calibration file'
        )


@dataclass(frozen=True, eq=False)
class RectifiedPair:
    """Two cameras and how their pictures become rectified ones: made by `rectify_pair`.

    rotations: from each camera's axes to the rectified ones, left and right; width, height: of
    both rectified pictures; valid: (H, W) bool of each view, where it shows its raw picture.
    """

    left: Camera
    right: Camera
    rotations: tuple[Matrix, Matrix]
    calibration: StereoCalibration
    width: int
    height: int
    valid: tuple[Mask, Mask]
    maps: tuple[Maps, Maps]

    def rectify(
        self, left: NDArray[np.uint8], right: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Rectify raw pictures (H, W) or (H, W, C); black where a camera saw nothing.

        Raises CalibrationError if a picture does not have the size of its camera.
        """
        views = []
        inputs = zip((left, right), (self.left, self.right), self.maps, strict=True)
        for picture, camera, maps in inputs:
            if picture.shape[:2] != (camera.height, camera.width):
                raise CalibrationError(
                    f'a picture of the {camera.name} has {picture.shape[1]}x{picture.shape[0]} '
                    f'pixels, expected {camera.width}x{camera.height} as it is calibrated; take '
                    f'the pictures in the size they were published in'
                )
            views.append(np.asarray(cv2.remap(picture, *maps, cv2.INTER_LINEAR), np.uint8))
        return views[0], views[1]

    def to_rectified(self, xyz_world_m: Float[np.ndarray, 'n 3']) -> Float[np.ndarray, 'n 3']:
        """Points of the world, metres, in the rectified left optical frame."""
        turn = self.rotations[0] @ self.left.rotation
        return np.asarray((xyz_world_m - self.left.centre_m) @ turn.T)

    def rectify_points(self, uv: Num[np.ndarray, 'n 2'], view: int) -> Points:
        """Where raw pixels of view 0 (left) or 1 (right) are in its rectified picture.

        NaN for pixels (far outside of the picture) that no rectified picture could show.
        """
        rays = (self.left, self.right)[view].rays(uv) @ self.rotations[view].T
        in_front = np.where(rays[:, 2:] > 0, rays[:, 2:], np.nan)
        return _pixels(rays[:, :2] / in_front, self.calibration, view)

    def homography(self, view: int) -> Matrix:
        """From undistorted pixels of view 0 or 1 (those of its raw K) to rectified ones."""
        raw = (self.left, self.right)[view].k
        moved = _pinhole(self.calibration, view) @ self.rotations[view] @ np.linalg.inv(raw)
        return np.asarray(moved)


def left_camera_first(first: Camera, second: Camera) -> tuple[Camera, Camera]:
    """Both cameras, first the one that stands on the left as the two look."""
    along = (second.centre_m - first.centre_m) @ (first.rotation[0] + second.rotation[0])
    return (first, second) if along > 0 else (second, first)


def rectify_pair(left: Camera, right: Camera, method: str = 'bouguet') -> RectifiedPair:
    """Rectify two cameras by 'bouguet' or 'loop-zhang'; both triangulate exactly.

    The rectified pictures have the rows that both cameras see, and all of their columns as long
    as these are at most LARGEST_GROWTH times as many as in the raw pictures (else those round
    the middle). A pixel at the middle of the raw pictures keeps its area (geometric mean of both
    views), fx = fy, and each view has its own principal column, so that cameras turned towards
    one place show it at like columns.

    Raises CalibrationError, one sentence, for an unknown method and for cameras that cannot be a
    left and a right view: swapped, one above or before the other, at one place, or without a row
    in common.
    """
    if method not in ROTATIONS:
        raise CalibrationError(
            f'the rectification {method!r} is not known, expected one of '
            f'{", ".join(ROTATIONS)}; choose one of them'
        )
    baseline_m = _checked_baseline(left, right)
    cameras = (left, right)
    rotations = ROTATIONS[method](left, right)
    outlines = [_outline(camera, turn) for camera, turn in zip(cameras, rotations, strict=True)]
    calibration, size = _frame(cameras, rotations, outlines, baseline_m)
    (maps_left, valid_left), (maps_right, valid_right) = (
        _maps(cameras[view], rotations[view], outlines[view], calibration, view, size)
        for view in (0, 1)
    )
    maps, valid = (maps_left, maps_right), (valid_left, valid_right)
    return RectifiedPair(left, right, rotations, calibration, *size, valid, maps)


def fundamental_matrix(left: Camera, right: Camera) -> Matrix:
    """F with p_right^T F p_left = 0 for undistorted pixels p = (u, v, 1), of norm 1."""
    turn, shift = _relative(left, right)
    essential = np.cross(shift, turn.T).T
    f = np.linalg.inv(right.k).T @ essential @ np.linalg.inv(left.k)
    return np.asarray(f / np.linalg.norm(f))


def _bouguet(left: Camera, right: Camera) -> tuple[Matrix, Matrix]:
    """Rectifying rotations of both cameras, of cv2.stereoRectify."""
    turn, shift = _relative(left, right)
    lens = np.zeros(5)  # the rotations do not depend on it
    r_left, r_right, *_ = cv2.stereoRectify(
        left.k, lens, right.k, lens, (left.width, left.height), turn, shift
    )
    return np.asarray(r_left, np.float64), np.asarray(r_right, np.float64)


def _loop_zhang(left: Camera, right: Camera) -> tuple[Matrix, Matrix]:
    """Rectifying rotations of both cameras, about the baseline as Loop and Zhang choose.

    The third row w of their homography gives a pixel's depth, up to scale; with p = K ray this
    is (K^T w) . ray, so that K^T w is the rectified axis along the camera's own axes.
    """
    sizes = ((left.width, left.height), (right.width, right.height))
    w, _ = projective_components(fundamental_matrix(left, right), *sizes)
    turn, shift = _relative(left, right)
    x, z = -turn.T @ shift, left.k.T @ w
    x, z = x / np.linalg.norm(x), z / np.linalg.norm(z)
    r_left = np.stack((x, np.cross(z, x), z))
    return r_left, np.asarray(r_left @ turn.T)


ROTATIONS: dict[str, Callable[[Camera, Camera], tuple[Matrix, Matrix]]] = {
    'bouguet': _bouguet,
    'loop-zhang': _loop_zhang,
}


def _relative(left: Camera, right: Camera) -> tuple[Matrix, Vector]:
    """Rotation and translation, metres, from the left to the right camera's axes."""
    turn = right.rotation @ left.rotation.T
    return turn, np.asarray(right.translation_m - turn @ left.translation_m)


def _checked_baseline(left: Camera, right: Camera) -> float:
    """Length of the baseline, metres, if it can be that of a left and a right view."""
    baseline = right.centre_m - left.centre_m
    length = float(np.linalg.norm(baseline))
    pair = f'the {left.name} and the {right.name}'
    if length < 1e-6:
        raise CalibrationError(
            f'{pair} stand at one place, expected a baseline; check the translations in the '
            f'calibration files'
        )
    x_axis = left.rotation[0] + right.rotation[0]
    if x_axis @ baseline < 0:
        raise CalibrationError(
            f'{pair} are swapped, expected the one on the left first; exchange them'
        )
    angle = np.degrees(np.arccos(x_axis @ baseline / max(np.linalg.norm(x_axis) * length, 1e-12)))
    if not angle < STEEPEST_BASELINE_DEG:
        raise CalibrationError(
            f'{pair} have a baseline {angle:.0f} degrees off their x axes, expected less than '
            f'{STEEPEST_BASELINE_DEG:g}; choose cameras that stand side by side'
        )
    return length


def _outline(camera: Camera, turn: Matrix) -> Points:
    """Border of the raw picture as x/z, y/z along the rectified axes."""
    border = camera.border()
    rays = camera.rays(border)
    at_origin = replace(camera, rotation=np.eye(3), translation_m=np.zeros(3))
    if not np.abs(at_origin.project(rays) - border).max() < UNDISTORTED_PX:
        raise CalibrationError(
            f'the distortion of the {camera.name} cannot be undone within its picture, expected '
            f'coefficients {camera.d.tolist()} that hold to the edge; calibrate it again'
        )
    turned = rays @ turn.T
    angles = np.degrees(np.arctan2(np.linalg.norm(turned[:, :2], axis=1), turned[:, 2]))
    if angles.max() > WIDEST_RAY_DEG:
        raise CalibrationError(
            f'the {camera.name} sees up to {angles.max():.0f} degrees off the rectified axis, '
            f'expected at most {WIDEST_RAY_DEG:g}; choose cameras that look in like directions'
        )
    return np.asarray(turned[:, :2] / turned[:, 2:])


def _frame(
    cameras: tuple[Camera, Camera],
    rotations: tuple[Matrix, Matrix],
    outlines: list[Points],
    baseline_m: float,
) -> tuple[StereoCalibration, tuple[int, int]]:
    """Focal length, principal points and size of the rectified pictures, as rectify_pair says."""
    middles, areas = [], []
    for camera, turn in zip(cameras, rotations, strict=True):
        ray = turn @ camera.rays(np.array([(camera.width - 1, camera.height - 1)]) / 2)[0]
        middles.append(ray[:2] / ray[2])
        # the homography K R K_raw^-1 scales areas by f^2 / (fx fy z^3) where its depth is z
        areas.append(camera.k[0, 0] * camera.k[1, 1] * ray[2] ** 3)
    focal = float(np.prod(areas) ** 0.25)
    low, high = (
        focal * np.stack([end(outline, axis=0) for outline in outlines])
        for end in (np.min, np.max)
    )
    middle = focal * np.stack(middles)
    top, bottom = low[:, 1].max(), high[:, 1].min()
    if top >= bottom:
        raise CalibrationError(
            f'the {cameras[0].name} and the {cameras[1].name} see no row in common, expected '
            f'cameras that look at one scene; choose another pair'
        )
    widest = LARGEST_GROWTH * max(camera.width for camera in cameras)
    highest = LARGEST_GROWTH * max(camera.height for camera in cameras)
    y0, height = _window(top, bottom, middle[:, 1].mean(), highest)
    columns = [_window(low[view, 0], high[view, 0], middle[view, 0], widest) for view in (0, 1)]
    width = max(size for _, size in columns)
    x0_left, x0_right = (start - (width - size) / 2 for start, size in columns)
    calibration = StereoCalibration.from_values(focal, focal, -x0_left, -x0_right, -y0, baseline_m)
    return calibration, (width, height)


def _window(low: float, high: float, middle: float, largest: float) -> Span:
    """Centre of the first pixel and number of pixels from low to high, or round the middle."""
    size = int(np.ceil(min(high - low, largest)))
    start = (low + high - size) / 2
    if high - low > largest:
        start = np.clip(middle - size / 2, low, high - size)
    return float(start) + 0.5, size


def _maps(
    camera: Camera,
    turn: Matrix,
    outline: Points,
    calibration: StereoCalibration,
    view: int,
    size: tuple[int, int],
) -> tuple[Maps, Mask]:
    """Maps for cv2.remap from the raw to the rectified picture, and where it shows the raw one.

    Beyond the outline a lens polynomial may fold back into the picture: there the maps lead out.
    """
    pinhole = _pinhole(calibration, view)
    u, v = cv2.initUndistortRectifyMap(
        camera.k, camera._coefficients, turn, pinhole, size, cv2.CV_32FC1
    )
    inside = np.zeros(size[::-1], np.uint8)
    polygon = _pixels(outline, calibration, view)
    # coordinates of the polygon are in steps of 1 / 2^8 pixel
    cv2.fillPoly(inside, [np.round(polygon * 256).astype(np.int32)], 1, shift=8)
    u[inside == 0], v[inside == 0] = -2.0, -2.0
    valid = (u >= 0) & (u <= camera.width - 1) & (v >= 0) & (v <= camera.height - 1)
    maps = cv2.convertMaps(u, v, cv2.CV_16SC2)
    return (np.asarray(maps[0], np.int16), np.asarray(maps[1], np.uint16)), valid


def _pinhole(calibration: StereoCalibration, view: int) -> Matrix:
    """Matrix K of view 0 (left) or 1 (right)."""
    fx, fy, cx_left, cx_right, cy, _ = (float(value) for value in calibration.fields())
    return np.array([(fx, 0.0, (cx_left, cx_right)[view]), (0.0, fy, cy), (0.0, 0.0, 1.0)])


def _pixels(xy: Points, calibration: StereoCalibration, view: int) -> Points:
    """Pixels of view 0 or 1 from x/z, y/z along the rectified axes."""
    pinhole = _pinhole(calibration, view)
    return np.asarray(xy * pinhole.diagonal()[:2] + pinhole[:2, 2])
