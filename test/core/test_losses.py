"""Every loss term against a plain float64 reference."""

import math
from dataclasses import replace

import pytest
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.geometry import project
from rsb_pose_core.models.algebraic import WeightedHeatmaps
from rsb_pose_core.models.rsb_pose import StereoHeatmaps, crop_to_heatmap
from rsb_pose_core.models.soft_argmax import map_moments, volume_moments
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.models.volumetric import Cube, VolumeHeatmaps, about_vertical
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.losses import (
    LossWeights,
    corner_cross_entropy,
    masked_mean,
    method_losses,
    nearest_cell_cross_entropy,
    pose_terms,
    refined_loss,
    soft_squared_error,
    stereo_losses,
    triangulate_clamped,
)

RANGE = DisparityRange(-3, 4)
SIDE = 64  # crop pixels, 16 heat-map cells


def random_logits(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def reference_spread(logits: torch.Tensor, u: float, v: float, d: float) -> float:
    """-sum of w log p over the 8 corners, by loops in float64; d counts planes from 0."""
    log_p = torch.log_softmax(logits.double().flatten(), 0).view_as(logits)
    total = 0.0
    for plane in (math.floor(d), math.floor(d) + 1):
        for row in (math.floor(v), math.floor(v) + 1):
            for column in (math.floor(u), math.floor(u) + 1):
                weight = (1 - abs(plane - d)) * (1 - abs(row - v)) * (1 - abs(column - u))
                if weight > 0:
                    total -= weight * float(log_p[plane, row, column])
    return total


@pytest.mark.parametrize(
    'uvd', [(3.25, 7.5, -1.3), (0.0, 0.0, -3.0), (12.0, 9.0, 4.0), (5.0, 2.0, 0.0)]
)
def test_corner_cross_entropy_spreads_the_target_over_8_cells(
    uvd: tuple[float, float, float],
) -> None:
    logits = random_logits(1, 1, 8, 10, 13)
    target = torch.tensor(uvd).view(1, 1, 3)
    found = corner_cross_entropy(logits, volume_moments(logits, -3), target, (0.0, 0.0, -3.0))
    expected = reference_spread(logits[0, 0], uvd[0], uvd[1], uvd[2] + 3)
    assert found.item() == pytest.approx(expected, abs=2e-5)


def test_corner_cross_entropy_of_a_map_spreads_over_4_cells() -> None:
    logits = random_logits(1, 1, 10, 13)
    target = torch.tensor([[[3.25, 7.5]]])
    found = corner_cross_entropy(logits, map_moments(logits), target, (0.0, 0.0))
    expected = reference_spread(logits[0], 3.25, 7.5, 0.0)
    assert found.item() == pytest.approx(expected, abs=2e-5)


def test_targets_outside_the_grid_are_clamped_to_its_edge() -> None:
    logits = random_logits(1, 1, 8, 10, 13)
    moments = volume_moments(logits, -3)
    origin = (0.0, 0.0, -3.0)
    outside = corner_cross_entropy(logits, moments, torch.tensor([[[-4.0, 30.0, 9.0]]]), origin)
    edge = corner_cross_entropy(logits, moments, torch.tensor([[[0.0, 9.0, 4.0]]]), origin)
    assert outside.item() == edge.item()


def test_l_svf_is_minus_log_probability_of_the_nearest_cell() -> None:
    logits = random_logits(1, 1, 8, 10, 13)
    target = torch.tensor([[[3.6, 7.2, -1.3]]])
    moments = volume_moments(logits, -3)
    found = nearest_cell_cross_entropy(logits, moments, target, (0.0, 0.0, -3.0))
    log_p = torch.log_softmax(logits.double().flatten(), 0).view(8, 10, 13)
    assert found.item() == pytest.approx(-float(log_p[2, 7, 4]), abs=2e-5)


def test_masked_mean_ignores_nan_and_passes_no_gradient_from_it() -> None:
    values = torch.tensor([[2.0, torch.nan, 4.0]], requires_grad=True)
    mean = masked_mean(values, torch.tensor([[True, False, True]]))
    mean.backward()
    assert mean.item() == 3.0
    assert values.grad is not None
    assert values.grad.tolist() == [[0.5, 0.0, 0.5]]


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(torch.ones(1, 2), torch.zeros(1, 2, dtype=torch.bool)).item() == 0.0


def calibration(batch: int = 1) -> StereoCalibration:
    return StereoCalibration.stack(
        [StereoCalibration.from_values(80.0, 80.0, 31.5, 37.0, 30.0, 0.12)] * batch
    )


def test_points_at_infinity_and_behind_are_triangulated_at_20_metres() -> None:
    uvd = torch.tensor([[[30.0, 30.0, -5.5], [30.0, 30.0, -40.0], [30.0, 30.0, 0.0]]])
    xyz = triangulate_clamped(uvd, calibration())
    assert xyz[0, :, 2].tolist() == pytest.approx([20.0, 20.0, 80 * 0.12 / 5.5], rel=1e-5)


def batch_and_heatmaps() -> tuple[StereoBatch, StereoHeatmaps]:
    """Three joints: a good one, one outside the right image, one without a label."""
    xyz = torch.tensor([[[0.1, 0.2, 2.0], [-0.2, 0.1, 2.2], [torch.nan] * 3]])
    uvd = project(xyz, calibration())
    uv_left = uvd[..., :2]
    uv_right = torch.stack([uvd[..., 0] - uvd[..., 2], uvd[..., 1]], -1)
    image = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    visibility = torch.tensor([[[0, 0, 0], [0, 3, 0]]], dtype=torch.uint8)
    batch = StereoBatch(image, image, uv_left, uv_right, xyz, visibility, calibration())
    maps = random_logits(2, 1, 3, 16, 16)
    return batch, StereoHeatmaps(maps[0], maps[1], random_logits(1, 3, 8, 16, 16), RANGE)


def test_each_term_of_the_volume_is_the_mean_over_usable_joints() -> None:
    batch, heatmaps = batch_and_heatmaps()
    weights = LossWeights(volume_ce=0.5, volume_svf=0.01, volume_l1=0.3, pose_l1_m=2.0)
    terms = stereo_losses(heatmaps, batch, weights)
    assert heatmaps.co_heatmap is not None
    logits = heatmaps.co_heatmap[0, 0].double()
    u, v = crop_to_heatmap(batch.uv_left[0, 0]).tolist()
    d = float(batch.uv_left[0, 0, 0] - batch.uv_right[0, 0, 0]) / 4
    spread = reference_spread(heatmaps.co_heatmap[0, 0], u, v, d + 3)
    assert terms['volume_ce'].item() == pytest.approx(0.5 * spread, rel=1e-5)

    p = torch.softmax(logits.flatten(), 0).view_as(logits)
    mean_u = float((p.sum((0, 1)) * torch.arange(16)).sum())
    mean_v = float((p.sum((0, 2)) * torch.arange(16)).sum())
    mean_d = float((p.sum((1, 2)) * torch.arange(8)).sum()) - 3
    l1 = abs(mean_u - u) + abs(mean_v - v) + 3 * abs(mean_d - d)
    assert terms['volume_l1'].item() == pytest.approx(0.3 * l1, rel=1e-4)

    # float64 triangulation by hand: Z = f B / (disparity - (cx_left - cx_right))
    disparity = max(4 * mean_d + 5.5, 80 * 0.12 / 20)
    z = 80 * 0.12 / disparity
    x = (4 * mean_u + 1.5 - 31.5) * z / 80
    y = (4 * mean_v + 1.5 - 30.0) * z / 80
    pose = abs(x - 0.1) + abs(y - 0.2) + abs(z - 2.0)
    assert terms['pose_l1_m'].item() == pytest.approx(2.0 * pose, rel=1e-4)


def test_the_paper_s_l_3d_is_a_tenth_of_the_mean_absolute_error_in_mm() -> None:
    batch, heatmaps = batch_and_heatmaps()
    metres = stereo_losses(heatmaps, batch, LossWeights(pose_l1_m=1.0))['pose_l1_m']
    paper = stereo_losses(heatmaps, batch, LossWeights(pose_l1_paper=1.0))['pose_l1_paper']
    assert paper.item() == pytest.approx(0.1 * 1000 * metres.item() / 3, rel=1e-5)


def test_2d_terms_are_the_mean_of_both_views_over_joints_in_each() -> None:
    batch, heatmaps = batch_and_heatmaps()
    terms = stereo_losses(heatmaps, batch, LossWeights(heatmap_ce=1.0, heatmap_l1=0.0))
    expected = []
    for logits, uv, joints in (
        (heatmaps.heatmap_left, batch.uv_left, (0, 1)),
        (heatmaps.heatmap_right, batch.uv_right, (0,)),
    ):
        found = []
        for joint in joints:
            u, v = crop_to_heatmap(uv[0, joint]).tolist()
            found.append(reference_spread(logits[0, joint][None], u, v, 0.0))
        expected.append(sum(found) / len(found))
    assert terms['heatmap_ce'].item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_gradients_are_finite_though_a_joint_has_no_label() -> None:
    batch, heatmaps = batch_and_heatmaps()
    assert heatmaps.co_heatmap is not None
    heatmaps.co_heatmap.requires_grad_()
    weights = LossWeights(volume_ce=1.0, volume_svf=1.0, volume_l1=1.0, pose_l1_m=1.0)
    torch.stack(list(stereo_losses(heatmaps, batch, weights).values())).sum().backward()
    gradient = heatmaps.co_heatmap.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient[0, 0].abs().max() > 0
    assert gradient[0, 1:].abs().max() == 0


def test_without_a_volume_only_the_2d_terms_remain() -> None:
    batch, heatmaps = batch_and_heatmaps()
    flat = StereoHeatmaps(heatmaps.heatmap_left, heatmaps.heatmap_right, None, RANGE)
    assert set(stereo_losses(flat, batch, LossWeights(volume_ce=1.0))) == {
        'heatmap_ce',
        'heatmap_l1',
    }


# ---- the rivals, and the refiner ----


def volume_output(dtype: torch.dtype = torch.float32) -> tuple[StereoBatch, VolumeHeatmaps]:
    """A turned cube whose centre is off the first joint."""
    batch, heatmaps = batch_and_heatmaps()
    cube = Cube(
        torch.tensor([[0.12, 0.15, 2.05]], dtype=dtype),
        about_vertical(torch.tensor([0.4], dtype=dtype)),
        side_m=0.8,
        cells=8,
    )
    maps = heatmaps.heatmap_left.to(dtype), heatmaps.heatmap_right.to(dtype)
    return batch, VolumeHeatmaps(*maps, random_logits(1, 3, 8, 8, 8).to(dtype), cube)


def test_volume_t_s_terms_are_those_of_the_cell_and_the_metres_of_its_joint() -> None:
    batch, output = volume_output()
    weights = LossWeights(heatmap_ce=0.0, heatmap_l1=0.0, volume_svf=0.01, pose_l1_m=2.0)
    terms = method_losses(output, batch, weights)
    assert set(terms) == {'volume_svf', 'pose_l1_m'}
    # by hand: cells count from the cube's low corner, along axes turned by 0.4 about y
    assert output.volume is not None
    p = torch.softmax(output.volume[0, 0].double().flatten(), 0).view(8, 8, 8)
    cosine, sine = math.cos(0.4), math.sin(0.4)
    dx, dy, dz = 0.1 - 0.12, 0.2 - 0.15, 2.0 - 2.05
    x, y, z = (
        (v + 0.4) / 0.1 - 0.5 for v in (cosine * dx - sine * dz, dy, sine * dx + cosine * dz)
    )
    nearest = -math.log(float(p[round(z), round(y), round(x)]))
    assert terms['volume_svf'].item() == pytest.approx(0.01 * nearest, rel=1e-5)
    steps = torch.arange(8).double()
    mx, my, mz = (
        float((p.sum(axes) * steps).sum() + 0.5) * 0.1 - 0.4 for axes in ((0, 1), (0, 2), (1, 2))
    )
    found = (cosine * mx + sine * mz + 0.12, my + 0.15, -sine * mx + cosine * mz + 2.05)
    l1 = sum(abs(a - b) for a, b in zip(found, (0.1, 0.2, 2.0), strict=True))
    assert terms['pose_l1_m'].item() == pytest.approx(2.0 * l1, rel=1e-4)


def test_soft_squared_error_is_flat_beyond_20_cm() -> None:
    error = torch.tensor([[[0.03, 0.0, 0.06], [0.2, 0.2, 0.2], [2.0, 2.0, 2.0]]])
    expected = [(9 + 36) / 3, 400.0, 40000.0**0.1 * 400.0**0.9]
    assert soft_squared_error(error)[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_algebraic_t_s_term_is_that_of_its_triangulated_joint() -> None:
    batch, heatmaps = batch_and_heatmaps()
    weights = torch.tensor([[0.8, 0.2]]).expand(1, 3, 2)
    output = WeightedHeatmaps(heatmaps.heatmap_left, heatmaps.heatmap_right, weights)
    terms = method_losses(output, batch, LossWeights(0.0, 0.0, pose_soft_mse=3.0))
    error = output.estimate(batch.calibration).xyz_m[:, :1] - batch.xyz_m[:, :1]
    assert terms['pose_soft_mse'].item() == pytest.approx(
        3 * soft_squared_error(error.abs()).item(), rel=1e-5
    )


def test_refined_loss_is_the_mean_distance_of_joints_with_a_label() -> None:
    batch, _ = batch_and_heatmaps()
    refined = torch.nan_to_num(batch.xyz_m) + torch.tensor(
        [[[0.3, 0.0, 0.4], [0.0, 0.1, 0.0], [1.0, 1.0, 1.0]]]
    )
    refined.requires_grad_()
    loss = refined_loss(refined, batch)
    loss.backward()
    assert loss.item() == pytest.approx((0.5 + 0.1) / 2, rel=1e-5)  # though one is out of view
    assert refined.grad is not None
    assert refined.grad[0, 2].tolist() == [0.0, 0.0, 0.0]
    assert refined.grad.isfinite().all()


def test_a_stage_without_any_loss_is_an_error() -> None:
    batch, heatmaps = batch_and_heatmaps()
    flat = StereoHeatmaps(heatmaps.heatmap_left, heatmaps.heatmap_right, None, RANGE)
    with pytest.raises(ConfigError, match='no loss with a weight above 0 applies'):
        method_losses(flat, batch, LossWeights(0.0, 0.0, volume_ce=1.0))


def test_terms_of_weight_0_are_absent() -> None:
    batch, heatmaps = batch_and_heatmaps()
    paper = LossWeights(heatmap_ce=0.0, heatmap_l1=0.0, volume_svf=0.01, pose_l1_paper=1.0)
    assert set(method_losses(heatmaps, batch, paper)) == {'volume_svf', 'pose_l1_paper'}


ALL = LossWeights(0.7, 0.3, 0.5, 0.2, 0.3, 0.4, 0.01, 0.002)


def doubled(batch: StereoBatch) -> StereoBatch:
    names = ('uv_left', 'uv_right', 'xyz_m')
    return replace(batch, **{name: getattr(batch, name).double() for name in names})


def test_gradients_of_every_loss_are_those_of_differences() -> None:
    batch, stereo = batch_and_heatmaps()
    batch, volume = doubled(batch), volume_output(torch.float64)[1]
    left, right = (
        0.3 * x.double()[:, :, 4:12, 4:12].contiguous() + 0.1
        for x in (stereo.heatmap_left, stereo.heatmap_right)
    )
    assert stereo.co_heatmap is not None
    co = stereo.co_heatmap.double()[..., 4:12, 4:12].contiguous()
    confidence = torch.tensor([[0.8, 0.2]] * 3, dtype=torch.float64)[None]

    def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(terms.values())).sum()

    cases = [
        (lambda a, b, c: total(method_losses(StereoHeatmaps(a, b, c, RANGE), batch, ALL)),
         (left, right, co)),
        (lambda a, b: total(method_losses(StereoHeatmaps(a, b, None, RANGE), batch, ALL)),
         (left, right)),
        (lambda a, b, w: total(method_losses(WeightedHeatmaps(a, b, w), batch, ALL)),
         (left, right, confidence)),
        (lambda a, b, v: total(method_losses(VolumeHeatmaps(a, b, v, volume.cube), batch, ALL)),
         (left, right, volume.volume)),
        (lambda x: refined_loss(x, batch), (torch.full((1, 3, 3), 0.4).double(),)),
        (lambda x: total(pose_terms(x, torch.ones(1, 3).bool(), batch, ALL)),
         (torch.full((1, 3, 3), 0.4).double(),)),
    ]  # fmt: skip
    for function, inputs in cases:
        tracked = tuple(x.detach().clone().requires_grad_() for x in inputs)
        # differences along random directions: the volumes have hundreds of cells
        assert torch.autograd.gradcheck(function, tracked, fast_mode=True)
