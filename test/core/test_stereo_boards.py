"""Calibration from boards that a known stereo head sees, through a real lens model."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from rsb_pose_core.errors import DataError

PATTERN, SQUARE_M, SIZE = (8, 5), 0.06, (640, 480)
K = [np.array([(322, 0, 296), (0, 321, 270), (0, 0, 1.0)]),
     np.array([(318, 0, 303), (0, 319, 250), (0, 0, 1.0)])]  # fmt: skip
D = [np.array([-0.35, 0.16, 0.0006, -0.0008, -0.04]), np.array([-0.34, 0.15, 0.0, 0.001, -0.035])]
TURN = cv2.Rodrigues(np.radians([0.3, 0.8, -1.3]))[0]
SHIFT_M = np.array([-0.58, -0.007, 0.001])


@pytest.fixture(scope='module')
def boards() -> ModuleType:
    path = Path(__file__).parents[2] / 'benchmarks' / 'stereo_real' / 'boards.py'
    spec = importlib.util.spec_from_file_location('boards', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules['boards'] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def seen(points: np.ndarray, turn: np.ndarray, shift: np.ndarray, view: int) -> np.ndarray:
    uv, _ = cv2.projectPoints(points, cv2.Rodrigues(turn)[0], shift, K[view], D[view])
    return uv.reshape(-1, 2).astype(np.float32)


def board_corners(noise_px: float, count: int = 14) -> tuple[list, list]:
    """Corners of boards held about, in both views."""
    rng = np.random.default_rng(0)
    board = np.zeros((40, 3))
    board[:, :2] = SQUARE_M * np.mgrid[:8, :5].T.reshape(-1, 2)
    left, right = [], []
    while len(left) < count:
        turn = cv2.Rodrigues(rng.uniform(-0.5, 0.5, 3))[0]
        shift = rng.uniform((-0.35, -0.5, 0.7), (0.4, 0.3, 1.3))
        views = seen(board, turn, shift, 0), seen(board, TURN @ turn, TURN @ shift + SHIFT_M, 1)
        if all((view > 5).all() and (view < np.array(SIZE) - 5).all() for view in views):
            noisy = [view + rng.normal(0, noise_px, view.shape) for view in views]
            left.append(noisy[0].astype(np.float32))
            right.append(noisy[1].astype(np.float32))
    return left, right


def test_the_head_is_found_again_from_its_boards(boards: ModuleType) -> None:
    left, right = board_corners(noise_px=0.0)
    head = boards.calibrate_head(left, right, PATTERN, SQUARE_M, SIZE)
    assert head.rms_px < 0.005
    for camera, k, d in ((head.left, K[0], D[0]), (head.right, K[1], D[1])):
        np.testing.assert_allclose(camera.k, k, atol=0.1)
        np.testing.assert_allclose(camera.d[:2], d[:2], atol=0.003)
    baseline_m = -head.right.p[0, 3] / head.right.p[0, 0]
    assert baseline_m == pytest.approx(np.linalg.norm(SHIFT_M), rel=2e-4)
    assert np.abs(boards.row_differences(head, left, right)).max() < 0.01


def test_rows_of_points_off_the_boards_agree_in_spite_of_noise(boards: ModuleType) -> None:
    left, right = board_corners(noise_px=0.1)
    head = boards.calibrate_head(left, right, PATTERN, SQUARE_M, SIZE)
    assert head.rms_px == pytest.approx(0.1 * np.sqrt(2), rel=0.15)  # u and v of a corner
    points = np.random.default_rng(1).uniform((-0.1, -0.5, 1.2), (0.5, 0.5, 2.0), (50, 3))
    uv = seen(points, np.eye(3), np.zeros(3), 0), seen(points, TURN, SHIFT_M, 1)
    rows = boards.row_differences(head, [uv[0]], [uv[1]])
    assert np.median(np.abs(rows)) < 0.3
    left_px, right_px = (
        camera.rectify_points(view.astype(np.float64))
        for camera, view in zip((head.left, head.right), uv, strict=True)
    )
    apart = (left_px - right_px)[:, 0]
    depth_m = -head.right.p[0, 3] / apart
    forward = head.left.r @ points.T
    np.testing.assert_allclose(depth_m, forward[2], rtol=0.02)


def test_a_drawn_board_gives_its_corners_in_order(boards: ModuleType) -> None:
    square, x0, y0 = 30, 100, 90
    grey = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    for row in range(6):
        for column in range(row % 2, 9, 2):
            top, left = y0 + row * square, x0 + column * square
            grey[top : top + square, left : left + square] = 0
    corners = boards.find_corners(cv2.GaussianBlur(grey, (0, 0), 0.8), PATTERN)
    expected = np.mgrid[1:9, 1:6].T.reshape(-1, 2) * square + (x0 - 0.5, y0 - 0.5)
    if corners[0, 0] > corners[-1, 0]:  # a board may be read from its other end
        corners = corners[::-1]
    np.testing.assert_allclose(corners, expected, atol=0.1)
    assert boards.find_corners(np.full_like(grey, 255), PATTERN) is None


def test_two_boards_are_too_few(boards: ModuleType) -> None:
    left, right = board_corners(0.0, count=2)
    with pytest.raises(DataError, match='at least 3 pairs'):
        boards.calibrate_head(left, right, PATTERN, SQUARE_M, SIZE)
