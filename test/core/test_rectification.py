"""Rectification against OpenCV, against synthetic cameras, and against unusable calibrations."""

import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.geometry import project
from rsb_pose_core.rectification import CameraModel, StereoRectifier

SIZE = (640, 400)
BASELINE_M = 0.11
K_LEFT = np.array([[420.0, 0, 311.0], [0, 424.0, 205.0], [0, 0, 1]])
K_RIGHT = np.array([[431.0, 0, 325.0], [0, 428.0, 192.0], [0, 0, 1]])
DISTORTIONS = {
    'plumb_bob': [-0.31, 0.12, 0.0008, -0.0011, -0.02],
    'rational_polynomial': [-0.31, 0.12, 0.0008, -0.0011, -0.02, 0.03, 0.01, -0.004],
    'equidistant': [-0.02, 0.006, -0.003, 0.0004],
    '': [],
}


def rotation(x: float, y: float, z: float) -> np.ndarray:
    return np.asarray(cv2.Rodrigues(np.radians([x, y, z]))[0])


class Rig:
    """Two real-looking cameras, slightly turned, and their stereo calibration."""

    def __init__(self, model: str, *, cx_offset: float = 0.0) -> None:
        self.model, self.d = model, np.array(DISTORTIONS[model], np.float64)
        # Rotation from the rectified axes (those of the left optical frame) to each camera's.
        self.r = [rotation(0.8, -0.5, 0.6), rotation(-0.7, 0.9, -0.4)]
        p_left = np.array([[415.0, 0, 318.0, 0], [0, 415.0, 201.0, 0], [0, 0, 1, 0]])
        p_right = p_left.copy()
        p_right[0, 2:] = 318.0 - cx_offset, -415.0 * BASELINE_M
        self.p = [p_left, p_right]

    def camera(self, view: int, **changes: object) -> CameraModel:
        values = {
            'width': SIZE[0],
            'height': SIZE[1],
            'distortion_model': self.model,
            'd': self.d,
            'k': (K_LEFT, K_RIGHT)[view],
            'r': self.r[view].T,
            'p': self.p[view],
            'name': ('left camera', 'right camera')[view],
        }
        return CameraModel(**{**values, **changes})  # type: ignore[arg-type]

    def rectifier(self) -> StereoRectifier:
        return StereoRectifier(self.camera(0), self.camera(1))

    def raw_pixels(self, xyz_m: np.ndarray, view: int) -> np.ndarray:
        """Image points given in the rectified left frame with the distorted raw camera."""
        at_camera = (xyz_m - [BASELINE_M * view, 0, 0]) @ self.r[view].T
        k = (K_LEFT, K_RIGHT)[view]
        zero = np.zeros(3)
        if self.model == 'equidistant':
            uv, _ = cv2.fisheye.projectPoints(at_camera[:, None], zero, zero, k, self.d)
        else:
            d = self.d if self.d.size else np.zeros(5)
            uv, _ = cv2.projectPoints(at_camera[:, None], zero, zero, k, d)
        return uv.reshape(-1, 2)


def points(count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(5)
    z = rng.uniform(1.0, 5.0, count)
    x, y = rng.uniform(-0.55, 0.55, count) * z, rng.uniform(-0.35, 0.35, count) * z
    return np.stack([x, y, z], axis=1)


@pytest.mark.parametrize('model', DISTORTIONS)
def test_rectified_points_have_equal_rows_and_the_calibrated_disparity(model: str) -> None:
    rig = Rig(model, cx_offset=6.5)
    xyz = points()
    uv_left, uv_right = (rig.camera(i).rectify_points(rig.raw_pixels(xyz, i)) for i in (0, 1))
    assert np.abs(uv_left[:, 1] - uv_right[:, 1]).max() < 0.01
    uvd = project(torch.from_numpy(xyz), rig.rectifier().calibration).numpy()
    assert np.abs(uv_left - uvd[:, :2]).max() < 0.01
    assert np.abs(uv_left[:, 0] - uv_right[:, 0] - uvd[:, 2]).max() < 0.01


@pytest.mark.parametrize('model', ['plumb_bob', 'rational_polynomial'])
def test_points_agree_with_opencv(model: str) -> None:
    rig = Rig(model)
    camera = rig.camera(0)
    raw = rig.raw_pixels(points(), 0)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-14)
    undistort = getattr(cv2, 'undistortPointsIter', cv2.undistortPoints)
    expected = undistort(raw[:, None], K_LEFT, rig.d, R=camera.r, P=camera.p, criteria=criteria)
    assert np.abs(camera.rectify_points(raw) - expected[:, 0]).max() < 1e-6
    few = cv2.undistortPoints(raw[:, None], K_LEFT, rig.d, R=camera.r, P=camera.p)
    assert np.abs(camera.rectify_points(raw) - few[:, 0]).max() < 0.5


def dot_image(uv: np.ndarray, sigma: float = 2.5) -> np.ndarray:
    """Bright Gaussian dots, exact at sub-pixel centres."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    image = np.zeros(SIZE[::-1])
    for u, v in uv:
        image += 220 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
    return image.round().clip(0, 255).astype(np.uint8)


def centroid(image: np.ndarray, near: np.ndarray, radius: int = 12) -> np.ndarray:
    u, v = near.round().astype(int)
    window = image[v - radius : v + radius + 1, u - radius : u + radius + 1].astype(float)
    y, x = np.mgrid[v - radius : v + radius + 1, u - radius : u + radius + 1]
    return np.array([(window * x).sum(), (window * y).sum()]) / window.sum()


def test_fisheye_points_may_lie_anywhere_in_memory():
    rig = Rig('equidistant')
    xyz = np.array([[0.2, -0.1, 2.0], [-0.5, 0.4, 1.5], [0.0, 0.3, 3.0]])
    raw = rig.raw_pixels(xyz, 0)
    strided = np.hstack([raw, raw])[:, :2]
    camera = rig.camera(0)
    np.testing.assert_array_equal(camera.rectify_points(strided), camera.rectify_points(raw))


@pytest.mark.parametrize('model', ['plumb_bob', 'equidistant', ''])
def test_images_are_moved_to_where_the_points_are(model: str) -> None:
    rig = Rig(model)
    grid = np.stack(np.meshgrid([-0.7, 0.0, 0.6], [-0.4, 0.05, 0.4], [2.0]), -1).reshape(-1, 3)
    raw = [dot_image(rig.raw_pixels(grid, view)) for view in (0, 1)]
    left, right = rig.rectifier().rectify(*raw)
    for xyz in grid:
        for view, image in enumerate((left, right)):
            homogeneous = rig.p[view] @ [*xyz, 1]
            expected = homogeneous[:2] / homogeneous[2]
            # Lens distortion skews the dots themselves by a few hundredths of a pixel.
            assert np.abs(centroid(image, expected) - expected).max() < 0.06


def test_row_of_a_dot_is_equal_in_both_rectified_images() -> None:
    rig = Rig('')
    xyz = np.array([[0.1, 0.12, 2.0]])
    raw = [dot_image(rig.raw_pixels(xyz, view)) for view in (0, 1)]
    left, right = rig.rectifier().rectify(*raw)
    row = 415.0 * 0.06 + 201.0
    column = 415.0 * 0.05 + 318.0
    in_left = centroid(left, np.array([column, row]))
    in_right = centroid(right, np.array([column - 415.0 * BASELINE_M / 2, row]))
    assert abs(in_left[1] - in_right[1]) < 0.01
    # cv2.remap interpolates in steps of 1/32 pixel, so either column may be off by half of one.
    assert in_left[0] - in_right[0] == pytest.approx(415.0 * BASELINE_M / 2, abs=1 / 32)


def ideal(view: int, **changes: object) -> CameraModel:
    p = np.hstack([K_LEFT, np.array([[-420.0 * BASELINE_M * view], [0], [0]])])
    if 'd' in changes:
        changes['d'] = np.array(changes['d'], np.float64)
    return Rig('').camera(view, **{'k': K_LEFT, 'r': np.eye(3), 'p': p, **changes})


def test_ideal_cameras_are_passed_through_without_a_copy() -> None:
    image = np.random.default_rng(0).integers(0, 255, (400, 640, 3), np.uint8)
    left, right = StereoRectifier(ideal(0), ideal(1)).rectify(image, image)
    assert left is image
    assert right is image


def test_zero_distortion_does_not_hide_a_rotation_or_another_projection() -> None:
    image = np.random.default_rng(0).integers(0, 255, (400, 640), np.uint8)
    turned = ideal(0, distortion_model='plumb_bob', d=np.zeros(5), r=rotation(0, 0, 0.5))
    left, right = StereoRectifier(turned, ideal(1)).rectify(image, image)
    assert left is not image
    assert right is image
    p = ideal(1).p.copy()
    p[0, 2] += 10
    _, shifted = StereoRectifier(ideal(0), ideal(1, p=p)).rectify(image, image)
    assert np.array_equal(shifted[:, 10:], image[:, :-10])
    assert (shifted[:, :10] == 0).all()


def test_flat_arrays_from_a_message_are_taken() -> None:
    camera = CameraModel(
        640, 400, 'plumb_bob', np.zeros(5), K_LEFT.ravel(), np.eye(3).ravel(), ideal(0).p.ravel()
    )
    assert camera.k.shape == (3, 3)
    assert camera.p.shape == (3, 4)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'k': np.zeros((3, 3))}, ('left camera', 'not calibrated', 'K')),
        ({'p': np.zeros((3, 4))}, ('left camera', 'not calibrated', 'P')),
        ({'r': np.zeros((3, 3))}, ('left camera', 'R', 'rotation')),
        ({'k': K_LEFT * np.nan}, ('left camera', 'K', 'finite')),
        ({'d': [np.nan] * 5, 'distortion_model': 'plumb_bob'}, ('D', 'finite')),
        ({'k': np.ones(4)}, ('matrix K of 4 numbers', '3x3')),
        ({'width': 0}, ('0x400',)),
        ({'d': [0.1] * 5, 'distortion_model': 'brown_conrady'}, ('brown_conrady', 'plumb_bob')),
        ({'d': [], 'distortion_model': 'brown_conrady'}, ('brown_conrady', 'plumb_bob')),
        ({'d': [0.1] * 5, 'distortion_model': ''}, ("''", 'plumb_bob')),
        ({'d': [0.1] * 3, 'distortion_model': 'plumb_bob'}, ('3 distortion', '4 or 5')),
        ({'d': [0.1] * 5, 'distortion_model': 'rational_polynomial'}, ('5 distortion', '8')),
        ({'d': [0.1] * 5, 'distortion_model': 'equidistant'}, ('5 distortion', 'expected 4')),
    ],
)
def test_unusable_camera_is_one_sentence(changes: dict[str, object], words: list[str]) -> None:
    with pytest.raises(CalibrationError) as caught:
        ideal(0, **changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert '\n' not in str(caught.value)


def test_unusable_pairs_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r'640x400 and the right for 320x200'):
        StereoRectifier(ideal(0), ideal(1, width=320, height=200))
    with pytest.raises(CalibrationError, match='swapped'):
        StereoRectifier(ideal(1), ideal(0))
    with pytest.raises(CalibrationError, match='no baseline'):
        StereoRectifier(ideal(0), ideal(0))
    p = ideal(1).p.copy()
    p[0, 0] = 500.0
    with pytest.raises(CalibrationError, match='differ in fx'):
        StereoRectifier(ideal(0), ideal(1, p=p))


@pytest.mark.parametrize('shape', [(200, 320, 3), (640, 400), (400, 641, 3)])
def test_image_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    good = np.zeros((400, 640, 3), np.uint8)
    rectifier = StereoRectifier(ideal(0), ideal(1))
    with pytest.raises(CalibrationError, match=f'right image has {shape[1]}x{shape[0]}'):
        rectifier.rectify(good, np.zeros(shape, np.uint8))
