"""Switches beside the paper's network: half-pixel planes, matching at stride 2, heat-map skip."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.models import NETWORKS, co_keypoints
from rsb_pose_core.models.backbones import LiteTrunk, ResNetTrunk
from rsb_pose_core.models.matching import HalfMatching
from rsb_pose_core.models.rsb_pose import RSBPose, StereoHeatmaps
from rsb_pose_core.models.soft_argmax import volume_moments
from rsb_pose_core.models.stereo_volume import (
    DisparityRange,
    half_pixel_correlation,
    shift_sum,
    shifted_views,
    stereo_volume,
)
from rsb_pose_core.models.volume_networks import V2V, LiteVolume, StereoV2V
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.losses import LossWeights, stereo_losses

HALVES = DisparityRange(-2, 2.5, 0.5)
ASYMMETRIC = DisparityRange(-1.5, 0.5, 0.5)


def views(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(2, *shape, dtype=torch.float64, generator=generator)
    return left, right


def ramp(slope: float, shift: float, width: int = 16) -> Tensor:
    """Features that grow linearly along the columns, moved `shift` columns to the left."""
    return (slope * (torch.arange(width).double() + shift)).expand(1, 1, 3, -1)


# ---- planes half a pixel apart ----


def test_half_pixel_planes_are_counted_in_heat_map_pixels() -> None:
    assert len(DisparityRange(-8, 7.5, 0.5)) == 32
    assert HALVES.shifts() == [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5]
    assert ASYMMETRIC.whole() == DisparityRange(-1, 0)


@pytest.mark.parametrize(
    ('values', 'complaint'),
    [
        ((-2, 2, 0.25), '1 or 0.5 heat-map pixels apart, got 0.25'),
        ((-1.5, 2, 1), 'no multiples of the step 1'),
        ((-2.2, 2, 0.5), 'no multiples of the step 0.5'),
    ],
)
def test_planes_of_another_step_are_refused(
    values: tuple[float, float, float], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        DisparityRange(*values)


@pytest.mark.parametrize('fill', [0.0, -14.0])
@pytest.mark.parametrize('disparities', [HALVES, ASYMMETRIC])
def test_half_pixel_planes_read_between_two_columns(
    disparities: DisparityRange, fill: float
) -> None:
    left, right = views(2, 3, 4, 9)
    expected = torch.full((2, 3, len(disparities), 4, 9), fill, dtype=torch.float64)
    for i in range(len(disparities)):
        for w in range(9):
            place = w - (disparities.first + 0.5 * i)
            if 0 <= place <= 8:
                low = math.floor(place)
                high, part = math.ceil(place), place - low
                expected[:, :, i, :, w] = (1 - part) * right[..., low] + part * right[..., high]
    assert torch.equal(shifted_views(right, disparities, fill), expected)
    assert torch.equal(shift_sum(left, right, disparities, fill), expected + left[:, :, None])


def test_whole_planes_are_the_same_among_half_pixel_planes() -> None:
    _, right = views(2, 3, 4, 9)
    assert torch.equal(
        shifted_views(right, HALVES)[:, :, ::2], shifted_views(right, DisparityRange(-2, 2))
    )


@pytest.mark.parametrize('disparity', [-1.5, -0.5, 0.5, 2.5])
def test_ramps_half_a_pixel_apart_meet_in_their_plane_exactly(disparity: float) -> None:
    left = ramp(0.75, 0.0)
    right = ramp(0.75, disparity)  # right(x) = left(x + disparity)
    volume = stereo_volume(left, right, HALVES)
    apart = (volume[:, 0] - volume[:, 1]).abs()[..., 4:-4].amax((0, 2, 3))
    plane = HALVES.shifts().index(disparity)
    assert apart[plane] == 0
    assert apart.tolist() == [0.75 * abs(dd - disparity) for dd in HALVES.shifts()]


def test_the_volume_is_empty_where_half_pixels_leave_the_view() -> None:
    left, right = views(1, 2, 3, 9)
    volume = stereo_volume(left + 10, right + 10, HALVES)
    plane = HALVES.shifts().index(0.5)
    assert volume[:, :, plane, :, 0].abs().max() == 0  # between column -1 and 0
    assert volume[:, :, plane, :, 1:].min() > 1


def test_moments_of_half_pixel_planes_are_in_heat_map_pixels() -> None:
    logits = 3 * views(2, 3, 6, 5, 7)[0]
    p = torch.softmax(logits.flatten(2), -1).view_as(logits)
    d, v, u = torch.meshgrid(
        torch.arange(6).double() / 2 - 1.5, torch.arange(5).double(), torch.arange(7).double(),
        indexing='ij',
    )  # fmt: skip
    cells = torch.stack([u, v, d], -1)
    mean = torch.einsum('bjdhw,dhwi->bji', p, cells)
    offset = cells - mean[:, :, None, None, None]
    covariance = torch.einsum('bjdhw,bjdhwi,bjdhwk->bjik', p, offset, offset)
    moments = volume_moments(logits, -1.5, 0.5)
    assert torch.allclose(moments.mean, mean, atol=1e-12)
    assert torch.allclose(moments.covariance, covariance, atol=1e-12)


def one_cell(d: float) -> StereoHeatmaps:
    """All mass at column 20, row 5 and disparity d."""
    planes = DisparityRange(-8, 7.5, 0.5)
    volume = torch.full((1, 1, 32, 32, 32), -50.0)
    volume[0, 0, planes.shifts().index(d), 5, 20] = 50.0
    flat = torch.zeros(1, 1, 32, 32)
    return StereoHeatmaps(flat, flat, volume, planes)


def test_co_keypoints_of_a_half_pixel_plane_are_in_crop_pixels() -> None:
    found = co_keypoints(one_cell(-2.5))
    assert found.uvd[0, 0].tolist() == pytest.approx([81.5, 21.5, -10.0])
    assert found.confidence.item() == pytest.approx(1.0)


def test_losses_find_their_cells_in_half_pixel_planes() -> None:
    """A joint at d = -2.5 + 0.125: three quarters of it in one plane, a quarter in the next."""
    heatmaps = one_cell(-2.5)
    assert heatmaps.co_heatmap is not None
    plane = heatmaps.disparities.shifts().index(-2.5)
    heatmaps.co_heatmap[0, 0, plane + 1, 5, 20] = 49.0
    uv_left = torch.tensor([[[81.5, 21.5]]])
    uv_right = torch.tensor([[[81.5 + 4 * 2.375, 21.5]]])
    image = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    cameras = StereoCalibration.stack(
        [StereoCalibration.from_values(200.0, 200.0, 63.5, 163.5, 63.5, 0.12)]
    )
    codes = torch.zeros(1, 2, 1, dtype=torch.uint8)
    xyz = torch.tensor([[[0.1, -0.3, 2.0]]])
    batch = StereoBatch(image, image, uv_left, uv_right, xyz, codes, cameras)
    terms = stereo_losses(
        heatmaps, batch, LossWeights(0.0, 0.0, volume_ce=1.0, volume_svf=1.0, volume_l1=1.0)
    )
    total = math.log(1 + math.exp(-1.0))
    assert terms['volume_ce'].item() == pytest.approx(total + 0.25, abs=1e-4)
    assert terms['volume_svf'].item() == pytest.approx(total, abs=1e-4)
    share = math.exp(-1.0) / (1 + math.exp(-1.0))  # in the plane at -2
    assert terms['volume_l1'].item() == pytest.approx(3 * (0.5 * share - 0.125), abs=1e-4)


# ---- matching at stride 2 ----


def slow_correlation(
    left: Tensor, right: Tensor, disparities: DisparityRange, groups: int, cell: int
) -> Tensor:
    """By definition: every half-pixel shift, row, column and channel in turn."""
    batch, channels, height, width = left.shape
    in_plane = round(2 * disparities.step)
    each = channels // groups
    out = torch.zeros(
        batch, groups, in_plane, len(disparities), height // cell, width // cell,
        dtype=left.dtype,
    )  # fmt: skip
    for i, dd in enumerate(disparities.shifts()):
        for half in range(in_plane):
            shift = round(2 * dd) + half
            for h in range(height):
                for w in range(width):
                    if 0 <= w - shift < width:
                        product = left[:, :, h, w] * right[:, :, h, w - shift]
                        out[:, :, half, i, h // cell, w // cell] += product.unflatten(
                            1, (groups, each)
                        ).mean(2)
    return out.flatten(1, 2) / cell**2


@pytest.mark.parametrize('cell', [2, 4])
@pytest.mark.parametrize('disparities', [HALVES, ASYMMETRIC, DisparityRange(-3, 1)])
def test_half_pixel_correlation_is_the_mean_product_in_each_cell(
    disparities: DisparityRange, cell: int
) -> None:
    left, right = views(2, 6, 8, 12)
    found = half_pixel_correlation(left, right, disparities, 2, cell)
    expected = slow_correlation(left, right, disparities, 2, cell)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize('disparity', [-1.5, 0.0, 0.5, 1.0])
def test_noise_half_a_pixel_apart_correlates_in_its_plane(disparity: float) -> None:
    """Columns at stride 2 are half heat-map pixels: the match is exact, without interpolation."""
    left = views(1, 8, 8, 40)[0].sign()
    right = torch.roll(left, -round(2 * disparity), 3)  # right(x) = left(x + disparity)
    found = half_pixel_correlation(left, right, HALVES, 1, 4)[0, 0, :, :, 2:-2]
    plane = HALVES.shifts().index(disparity)
    assert torch.equal(found[plane], torch.ones_like(found[plane]))
    assert found[torch.arange(len(HALVES)) != plane].abs().max() < 0.6


@pytest.mark.gpu
def test_volumes_of_half_pixels_are_the_same_on_a_gpu() -> None:
    left, right = views(2, 6, 8, 12)
    there = left.cuda(), right.cuda()
    correlation = half_pixel_correlation(*there, HALVES, 2, 4).cpu()
    assert torch.allclose(correlation, slow_correlation(left, right, HALVES, 2, 4), atol=1e-12)
    assert torch.equal(stereo_volume(*there, HALVES).cpu(), stereo_volume(left, right, HALVES))


class HandsOn(LiteTrunk):
    """A backbone with features at stride 2."""

    channels_half = 5

    def forward_with_half(self, image: Tensor) -> tuple[Tensor, Tensor]:
        half = image[:, :1, ::2, ::2].repeat(1, 5, 1, 1)
        return self(image), half


@pytest.mark.parametrize(
    'trunk',
    [HandsOn((4, 4, 4, 4), 8, 6), ResNetTrunk((1, 1, 1, 1), 4, 8), LiteTrunk((4,) * 4, 8, 6)],
)
def test_matching_takes_the_backbone_s_half_size_features_or_the_image(
    trunk: LiteTrunk | ResNetTrunk,
) -> None:
    matching = HalfMatching(trunk, 12)
    assert matching.detail[0].in_channels == (trunk.channels_half or 3)
    disparities = DisparityRange(-8, 7.5, 0.5)
    model = RSBPose(
        trunk, (4,), LiteVolume(4, 17, disparities, 4, 2, 3, matching_stride=2), disparities, 17,
        matching_channels=12, matching_stride=2,
    ).eval()  # fmt: skip
    left, right = torch.rand(2, 1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    volume = model(left, right).co_heatmap
    assert volume is not None
    assert volume.shape == (1, 17, 32, 16, 32)
    with torch.no_grad():  # what the half-size features say reaches the volume
        model.matching.detail[0].weight *= -1
    assert (model(left, right).co_heatmap - volume).abs().max() > 1e-4


def test_a_resnet_s_half_size_features_are_its_stem_s() -> None:
    trunk = ResNetTrunk((1, 1, 1, 1), 4, 8).double().eval()
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    features, half = trunk.forward_with_half(image)
    assert torch.equal(features, trunk(image))
    assert torch.equal(half, trunk.bn1(trunk.conv1(trunk.norm(image))).relu())


# ---- networks ----


def test_half_pixel_planes_of_lite_are_read_at_whole_pixels_and_written_at_halves() -> None:
    """Depth-to-space along the planes: block i of the last convolution is plane 2 d + i."""
    volume = LiteVolume(4, 3, DisparityRange(-2, 1.5, 0.5), 4, 0, 3).double().eval()
    fine: list[Tensor] = []
    volume.out.register_forward_hook(lambda _module, _inputs, out: fine.append(out))
    left, right = views(1, 4, 8, 16)
    found = volume(left, right, left, right)
    assert found.shape == (1, 3, 8, 8, 16)
    assert fine[0].shape == (1, 3 * 8, 4, 4, 8)
    for d in range(8):
        for h in range(8):
            for w in range(16):
                block = (d % 2) * 4 + (h % 2) * 2 + w % 2
                expected = fine[0].unflatten(1, (3, 8))[:, :, block, d // 2, h // 2, w // 2]
                assert torch.equal(found[:, :, d, h, w], expected)


def test_planes_one_pixel_apart_make_the_network_of_before() -> None:
    """Names and shapes of the shipped weights, and the paper's counts."""
    lite = NETWORKS['lite'].build()
    assert sum(p.numel() for p in lite.parameters()) == 3295401
    assert lite.matching.weight.shape == (32, 48, 1, 1)
    assert lite.volume.fine.body[0][0].in_channels == 24
    assert lite.volume.down[0].stride == (1, 2, 2)
    plain = StereoV2V(V2V(8, 3, 2, 4), DisparityRange(-1, 2))
    assert plain.groups == 0


def test_the_skip_is_a_switch_of_both_networks() -> None:
    on, off = NETWORKS['lite'].build(), NETWORKS['lite-noskip'].build().eval()
    off.load_state_dict(on.eval().state_dict())
    left, right = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        added = on(left, right).co_heatmap - off(left, right).co_heatmap
    assert added.max() < 0
    assert added.min() > -28.01
    assert not NETWORKS['rsb-pose-resnet50'].heatmap_skip
    assert NETWORKS['rsb-pose-resnet50-skip'].heatmap_skip


def test_v2v_refuses_matching_at_stride_4() -> None:
    with pytest.raises(ConfigError, match='stride of 2, not 4'):
        replace(NETWORKS['rsb-pose-resnet50'], matching_stride=4).build()
