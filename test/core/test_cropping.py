"""Crops of both views, and that their calibration says where things are in them."""

import numpy as np
import pytest
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.cropping import StereoCrop, cut_square
from rsb_pose_core.detection import Box
from rsb_pose_core.geometry import project, triangulate

CALIBRATION = StereoCalibration.from_values(610.0, 605.0, 322.0, 317.0, 238.0, 0.12)


def dot_image(uv: np.ndarray, shape: tuple[int, int], sigma: float) -> np.ndarray:
    x, y = np.meshgrid(np.arange(shape[1]), np.arange(shape[0]))
    dot = np.exp(-((x - uv[0]) ** 2 + (y - uv[1]) ** 2) / (2 * sigma**2))
    return np.repeat((255 * dot).round().astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    weights = image[..., 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.mark.parametrize('box_height', [90.0, 204.8, 261.0, 395.0])
@pytest.mark.parametrize('point', [(0.11, -0.07, 2.0), (-0.13, 0.05, 2.0)])
def test_a_dot_lands_where_the_crops_calibration_says(
    box_height: float, point: tuple[float, float, float]
) -> None:
    xyz = torch.tensor([point], dtype=torch.float64)
    uvd = project(xyz, CALIBRATION)[0].numpy()
    box = Box(uvd[0] - 31.7, uvd[1] - box_height / 2 + 10.2, 60.0, box_height)
    crop = StereoCrop.around(box, disparity_px=uvd[2] + 4.3)
    sigma = max(3.0, 2 * crop.side / crop.size)
    left, right = crop.cut(
        dot_image(uvd[:2], (480, 640), sigma),
        dot_image(uvd[:2] - [uvd[2], 0], (480, 640), sigma),
    )
    expected = project(xyz, crop.calibration(CALIBRATION))[0].numpy()
    assert left.shape == right.shape == (256, 256, 3)
    assert np.abs(centroid(left) - expected[:2]).max() < 0.02
    assert np.abs(centroid(right) - [expected[0] - expected[2], expected[1]]).max() < 0.02


def test_pixels_go_to_the_crop_and_back() -> None:
    crop = StereoCrop(x0_left=101, x0_right=63, y0=-14, side=331)
    uvd = torch.rand(5, 17, 3, dtype=torch.float64) * 300
    assert torch.allclose(crop.to_image(crop.from_image(uvd)), uvd)
    xyz = triangulate(uvd + 20, CALIBRATION)
    in_crop = crop.from_image(uvd + 20)
    assert torch.allclose(triangulate(in_crop, crop.calibration(CALIBRATION)), xyz)


def test_crop_is_square_round_the_box_and_shares_rows() -> None:
    crop = StereoCrop.around(Box(100.0, 50.0, 80.0, 200.0), disparity_px=31.4, margin=1.25)
    assert crop.side == 250
    assert crop.x0_left + crop.side / 2 == pytest.approx(140.0, abs=0.5)
    assert crop.y0 + crop.side / 2 == pytest.approx(150.0, abs=0.5)
    assert crop.x0_left - crop.x0_right == 31
    assert StereoCrop.around(Box(0.0, 0.0, 300.0, 100.0), 0.0).side == 375


def test_outside_the_image_is_black() -> None:
    white = np.full((60, 80, 3), 255, np.uint8)
    crop = cut_square(white, x0=-20, y0=-10, side=100, size=100)
    assert (crop[10:70, 20:100] == 255).all()
    assert (crop[:10] == 0).all()
    assert (crop[:, :20] == 0).all()
    assert (crop[70:] == 0).all()


@pytest.mark.parametrize(('x0', 'y0'), [(500, 0), (-500, 0), (0, 500), (0, -500)])
def test_a_crop_beside_the_image_is_all_black(x0: int, y0: int) -> None:
    white = np.full((60, 80, 3), 255, np.uint8)
    assert (cut_square(white, x0, y0, 90, 256) == 0).all()


def test_shrinking_averages_instead_of_aliasing() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = cut_square(stripes, 0, 0, 512, 256)
    assert np.ptp(crop.astype(int)) <= 1
    assert crop.mean() == pytest.approx(127.5, abs=1)


def test_a_crop_of_the_networks_size_is_the_image_itself_but_a_copy() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    crop = cut_square(image, 30, 20, 256, 256)
    assert np.array_equal(crop, image[20:276, 30:286])
    assert not np.shares_memory(crop, image)


def test_an_empty_box_still_gives_a_crop() -> None:
    crop = StereoCrop.around(Box(10.0, 10.0, 0.0, 0.0), 3.0)
    left, _ = crop.cut(*(np.zeros((40, 50, 3), np.uint8) for _ in range(2)))
    assert left.shape == (256, 256, 3)
