"""What cropping, resizing and projection matrices mean for a calibration."""

import numpy as np
import pytest
import torch

from rsb_pose_core.calibration import CalibrationError, StereoCalibration
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.geometry import project, triangulate


def projections(
    fx: float = 500.0, cx_right: float = 300.0, baseline_m: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    left = np.array([[fx, 0, 310.0, 0], [0, fx, 240.0, 0], [0, 0, 1, 0]])
    right = left.copy()
    right[0, 2:] = cx_right, -fx * baseline_m
    return left, right


def test_projections_give_the_calibration() -> None:
    calibration = StereoCalibration.from_projections(*projections())
    assert [value.item() for value in calibration.fields()] == pytest.approx(
        [500.0, 500.0, 310.0, 300.0, 240.0, 0.1]
    )


def test_projections_project_as_the_calibration_does() -> None:
    left, right = projections()
    calibration = StereoCalibration.from_projections(left, right)
    point = np.array([0.3, -0.2, 1.7, 1.0])
    uv_left, uv_right = (p @ point / point[2] for p in (left, right))
    uvd = project(torch.from_numpy(point[None, :3]), calibration)[0]
    assert uvd.tolist() == pytest.approx(
        [uv_left[0], uv_left[1], uv_left[0] - uv_right[0]], abs=1e-9
    )


@pytest.mark.parametrize(
    ('entries', 'words'),
    [
        ({'right': (0, 3, 0.0)}, ('no baseline', 'calibrate the two cameras together')),
        ({'right': (0, 3, 50.0)}, ('swapped', 'exchange left and right')),
        ({'left': (0, 3, -50.0), 'right': (0, 3, 0.0)}, ('swapped',)),
        ({'left': (0, 3, -5.0)}, ('left camera as the reference',)),
        ({'right': (0, 0, 510.0)}, ('differ in fx', 'calibration of the pair')),
        ({'right': (1, 1, 501.0)}, ('differ in fy',)),
        ({'right': (1, 2, 242.0)}, ('differ in cy', '240', '242')),
        ({'right': (0, 3, -500.0 * 100)}, ('100 m', 'in metres')),
        ({'left': (0, 0, 0.0)}, ('left camera', 'fx=0')),
        ({'right': (0, 2, np.nan)}, ('right camera', 'finite')),
    ],
)
def test_unusable_projections_are_one_sentence(
    entries: dict[str, tuple[int, int, float]], words: tuple[str, ...]
) -> None:
    left, right = projections()
    for name, (row, column, value) in entries.items():
        {'left': left, 'right': right}[name][row, column] = value
    with pytest.raises(CalibrationError) as caught:
        StereoCalibration.from_projections(left, right)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert '\n' not in message
    assert isinstance(caught.value, RsbPoseError)
    assert isinstance(caught.value, ValueError)


def test_a_vertical_pair_is_told_apart_from_a_missing_baseline() -> None:
    left, right = projections()
    right[0, 3], right[1, 3] = 0.0, -50.0
    with pytest.raises(CalibrationError, match='only a vertical baseline'):
        StereoCalibration.from_projections(left, right)


def test_crop_and_resize_leave_the_points_where_they_are() -> None:
    full = StereoCalibration.from_values(600.0, 590.0, 320.0, 315.0, 240.0, 0.1)
    x0_left, x0_right, y0 = (torch.tensor(v).double() for v in (123.0, 80.0, 31.0))
    scale = 256 / 217
    crop = full.crop(x0_left, x0_right, y0).resize(scale)
    xyz = torch.tensor([[0.1, -0.2, 2.2], [-0.3, 0.3, 1.1]]).double()
    in_full, in_crop = project(xyz, full), project(xyz, crop)
    u_left = (in_full[:, 0] - x0_left + 0.5) * scale - 0.5
    u_right = (in_full[:, 0] - in_full[:, 2] - x0_right + 0.5) * scale - 0.5
    assert torch.allclose(in_crop[:, 0], u_left)
    assert torch.allclose(in_crop[:, 1], (in_full[:, 1] - y0 + 0.5) * scale - 0.5)
    assert torch.allclose(in_crop[:, 2], u_left - u_right)
    assert torch.allclose(triangulate(in_crop, crop), xyz)


def test_crop_and_resize_return_copies() -> None:
    full = StereoCalibration.from_values(600.0, 590.0, 320.0, 315.0, 240.0, 0.1)
    full.crop(torch.tensor(5.0), torch.tensor(6.0), torch.tensor(7.0)).resize(0.5)
    assert [value.item() for value in full.fields()] == [600.0, 590.0, 320.0, 315.0, 240.0, 0.1]


def test_resizing_keeps_the_corner_of_the_image_in_place() -> None:
    full = StereoCalibration.from_values(600.0, 590.0, -0.5, -0.5, -0.5, 0.1)
    half = full.resize(0.5)
    assert [value.item() for value in half.fields()] == [300.0, 295.0, -0.5, -0.5, -0.5, 0.1]
