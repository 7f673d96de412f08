"""The person's coarse disparity, on rendered billboards in front of a wall."""

import numpy as np
import pytest
from stereo_scene import Scene, camera, render

from rsb_pose_core.cropping import StereoCrop
from rsb_pose_core.detection import Box
from rsb_pose_core.disparity import CoarseDisparity, coarse_disparity, disparity_limits

HEATMAP_RANGE = (-7, 8)
HEATMAP_SIDE = 64


def box_of(scene: Scene, rng: np.random.Generator) -> Box:
    """A detector's box: that of the joints, moved and scaled a little."""
    box = Box.around(scene.uvd[:, :2], margin=0.04)
    assert box is not None
    jitter = rng.uniform(-0.05, 0.05, 3) * box.height
    return Box(box.x + jitter[0], box.y + jitter[1], box.width + jitter[2], box.height + jitter[2])


def estimate(scene: Scene, box: Box) -> CoarseDisparity | None:
    return coarse_disparity(*scene.grey, box, disparity_limits(scene.calibration))


def in_range(scene: Scene, box: Box, disparity_px: float) -> np.ndarray:
    """Which joints the network can represent in crops placed by this disparity."""
    crop = StereoCrop.around(box, disparity_px)
    relative = scene.uvd[:, 2] - (crop.x0_left - crop.x0_right)
    heatmap_pixels = relative * HEATMAP_SIDE / crop.side
    return (heatmap_pixels >= HEATMAP_RANGE[0]) & (heatmap_pixels <= HEATMAP_RANGE[1])


@pytest.mark.parametrize('depth_m', [0.9, 1.5, 2.5, 4.0, 6.0])
def test_textured_person_is_placed_to_a_fraction_of_a_heatmap_pixel(depth_m: float) -> None:
    rng = np.random.default_rng(2)
    scene = render(rng, depth_m=depth_m, background_m=depth_m + 2)
    found = estimate(scene, box_of(scene, rng))
    assert found is not None
    expected = scene.uvd[6, 2]
    heatmap_px = StereoCrop.around(box_of(scene, rng), 0).side / HEATMAP_SIDE
    assert abs(found.disparity_px - expected) < 0.4 * heatmap_px
    assert found.agreement > 0.3


def test_share_of_joints_inside_the_networks_range() -> None:
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(60):
        depth = rng.uniform(1.0, 5.0)
        scene = render(
            rng,
            depth_m=depth,
            offset_x=rng.uniform(-0.2, 0.2) * depth,
            calibration=camera(cx_offset=rng.uniform(-8, 8), baseline_m=rng.uniform(0.07, 0.22)),
            background_m=depth + rng.uniform(0.5, 3),
            cloth_contrast=rng.uniform(3, 30),
            gain=rng.uniform(0.65, 1.4),
            noise=rng.uniform(1, 4),
        )
        box = box_of(scene, rng)
        found = estimate(scene, box)
        assert found is not None
        inside.append(in_range(scene, box, found.disparity_px))
    assert np.mean(inside) > 0.99


@pytest.mark.parametrize('gain', [0.5, 1.6])
def test_unequal_exposure_does_not_matter(gain: float) -> None:
    rng = np.random.default_rng(3)
    scene = render(rng, gain=gain)
    found = estimate(scene, box_of(scene, rng))
    assert found is not None
    assert found.disparity_px == pytest.approx(scene.uvd[6, 2], abs=1.0)


def test_plain_clothes_are_placed_by_their_outline() -> None:
    rng = np.random.default_rng(4)
    scene = render(rng, cloth_contrast=1.0, noise=2.0)
    found = estimate(scene, box_of(scene, rng))
    assert found is not None
    assert found.disparity_px == pytest.approx(scene.uvd[6, 2], abs=4.0)


def test_limits_of_a_tracked_person_keep_the_search_away_from_elsewhere() -> None:
    rng = np.random.default_rng(5)
    scene = render(rng, depth_m=2.5)
    box = box_of(scene, rng)
    true = scene.uvd[6, 2]
    found = coarse_disparity(*scene.grey, box, (true - 3, true + 3))
    assert found is not None
    assert found.disparity_px == pytest.approx(true, abs=0.7)
    elsewhere = coarse_disparity(*scene.grey, box, (true + 10, true + 14))
    assert elsewhere is None or elsewhere.agreement < 0.3


def test_limits_follow_depth_and_the_principal_columns() -> None:
    low, high = disparity_limits(camera(cx_offset=5.0), 0.5, 10.0)
    assert low == pytest.approx(0.72 * 640 * 0.12 / 10 + 5)
    assert high == pytest.approx(0.72 * 640 * 0.12 / 0.5 + 5)


@pytest.mark.parametrize('level', [0, 128, 255])
def test_uniform_images_have_no_disparity(level: int) -> None:
    flat = np.full((240, 320), level, np.uint8)
    limits = disparity_limits(camera(320, 240))
    assert coarse_disparity(flat, flat, Box(100, 40, 60, 150), limits) is None


@pytest.mark.parametrize(
    'box',
    [
        Box(-40, -30, 120, 300),
        Box(610, 100, 90, 300),
        Box(0, 0, 640, 480),
        Box(700, 10, 50, 50),
        Box(20, 20, 3, 3),
        Box(0, 470, 640, 60),
    ],
)
def test_boxes_over_the_border_are_handled(box: Box) -> None:
    scene = render(np.random.default_rng(6))
    found = estimate(scene, box)
    low, high = disparity_limits(scene.calibration)
    assert found is None or low - 8 <= found.disparity_px <= high + 8
