"""Networks: sizes, the paper's counts, and every step against a plain float64 reference."""

import math

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from torch.nn import functional

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.models import NETWORKS, PoseTransformer, co_keypoints
from rsb_pose_core.models.attention import attention_mask
from rsb_pose_core.models.rsb_pose import RSBPose, StereoHeatmaps, crop_to_heatmap, heatmap_to_crop
from rsb_pose_core.models.soft_argmax import (
    map_moments,
    mean_near,
    peak_cells,
    spread_about,
    volume_moments,
)
from rsb_pose_core.models.stereo_volume import (
    DisparityRange,
    groupwise_correlation,
    shift_sum,
    shifted_views,
    stereo_volume,
)
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.models.volume_networks import LiteVolume

RANGE = DisparityRange(-3, 2)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def images(batch: int = 1, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, batch, 3, size, size, generator=generator)
    return left, right


def test_resnet50_has_the_paper_s_parameter_count() -> None:
    assert parameters(NETWORKS['rsb-pose-resnet50'].build()) == pytest.approx(43.24e6, rel=0.002)


def test_resnet50_s_parts_have_the_counts_that_reproduce_the_paper() -> None:
    model = NETWORKS['rsb-pose-resnet50'].build()
    assert parameters(model.volume) == 9_156_385
    assert parameters(model) == 43_243_510


def thop_macs(model: nn.Module, *inputs: torch.Tensor) -> float:
    """As thop 0.1.1 counts: transposed convolutions by their output, 4 a normalised value."""
    total = 0

    def count(module: nn.Module, arguments: tuple[torch.Tensor], out: torch.Tensor) -> None:
        nonlocal total
        if isinstance(module, (nn.ConvTranspose2d, nn.ConvTranspose3d)):
            total += out.numel() * module.in_channels * module.weight[0, 0].numel()
        elif isinstance(module, (nn.Conv2d, nn.Conv3d)):
            total += out.numel() * module.weight[0].numel()
        elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            total += 4 * arguments[0].numel()

    handles = [module.register_forward_hook(count) for module in model.modules()]
    with torch.inference_mode():
        model(*inputs)
    for handle in handles:
        handle.remove()
    return float(total)


def test_resnet50_has_the_paper_s_multiplications() -> None:
    macs = thop_macs(NETWORKS['rsb-pose-resnet50'].build().eval(), *images(1, 256))
    assert macs == pytest.approx(65.29e9, rel=0.002)
    assert macs == pytest.approx(65.2995e9, rel=1e-5)


def test_lite_s_forward_equals_its_plain_steps_in_float64() -> None:
    model = NETWORKS['lite'].build().eval()
    with torch.no_grad():  # fresh statistics hide mistakes in the norms
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    left, right = images(2)
    with torch.inference_mode():
        found = model(left, right)
        reference = plain_forward(model.double(), left.double(), right.double())
    assert found.co_heatmap is not None
    assert (found.co_heatmap - reference).abs().max() < 2e-3
    assert reference.abs().max() > 5


def plain_forward(model: RSBPose, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The co-heatmap step by step: one view at a time, loops for shifts, no shortcuts."""
    features = [model.trunk(image) for image in (left, right)]
    logits = [model.attention(feature) for feature in features]
    probability = [torch.softmax(x.flatten(2), -1).view_as(x) for x in logits]
    cells = logits[0][0, 0].numel()
    masked = [
        model.reduction(feature) * p.sum(1, keepdim=True) * (cells / 64)
        for feature, p in zip(features, probability, strict=True)
    ]
    net, disparities = model.volume, model.disparities
    summed = loop_volume(net.right(masked[1]), 0.0, disparities) + net.left(masked[0])[:, :, None]
    volume = net.down(net.norm(summed).relu())
    matching = [model.matching(feature) for feature in features]
    product = loop_volume(matching[1], 0.0, disparities) * matching[0][:, :, None]
    correlation = product.unflatten(1, (8, 4)).mean(2)[..., ::2, ::2]
    fine = net.fine(torch.cat([volume, correlation], 1))
    middle = net.middle(functional.max_pool3d(fine, 2))
    coarse = net.coarse(functional.max_pool3d(middle, 2))
    middle = net.refine_middle((middle + net.up_middle(coarse)).relu())
    out = net.out(net.refine_fine((fine + net.up_fine(middle)).relu()))
    planes = [functional.pixel_shuffle(out[:, :, d], 2) for d in range(out.shape[2])]
    log_left, log_right = (p.log().clamp_min(-14) for p in probability)
    skip = loop_volume(log_right, -14.0, disparities) + log_left[:, :, None]
    return torch.stack(planes, 2) + skip


def test_lite_is_at_most_ten_million_parameters() -> None:
    assert parameters(NETWORKS['lite'].build()) < 10e6


@pytest.mark.parametrize('size', [64, 128])
def test_lite_returns_a_quarter_of_the_input_s_size(size: int) -> None:
    with torch.inference_mode():
        out = NETWORKS['lite'].build().eval()(*images(2, size))
    assert out.heatmap_left.shape == (2, 17, size // 4, size // 4)
    assert out.co_heatmap is not None
    assert out.co_heatmap.shape == (2, 17, 16, size // 4, size // 4)


def test_inputs_need_not_be_square() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, 1, 3, 64, 96, generator=generator)
    with torch.inference_mode():
        out = NETWORKS['lite'].build().eval()(left, right)
    assert out.co_heatmap is not None
    assert out.co_heatmap.shape == (1, 17, 16, 16, 24)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(TypeCheckError):
        NETWORKS['lite'].build()(torch.zeros(1, 4, 64, 64), torch.zeros(1, 4, 64, 64))


def test_batched_equals_single() -> None:
    model = NETWORKS['lite'].build().eval()
    left, right = images(3)
    with torch.inference_mode():
        together = model(left, right).co_heatmap
        single = torch.cat([model(left[[i]], right[[i]]).co_heatmap for i in range(3)])
    assert torch.allclose(together, single, atol=1e-4)


def test_without_volume_the_heatmaps_are_the_same() -> None:
    model = NETWORKS['lite'].build().eval()
    with torch.inference_mode():
        full, flat = model(*images()), model(*images(), volume=False)
    assert flat.co_heatmap is None
    assert torch.equal(full.heatmap_right, flat.heatmap_right)


def test_swapping_views_swaps_the_heatmaps() -> None:
    model = NETWORKS['lite'].build().eval()
    left, right = images()
    with torch.inference_mode():
        a, b = model(left, right), model(right, left)
    assert torch.allclose(a.heatmap_left, b.heatmap_right, atol=1e-5)


def test_heatmap_skip_adds_the_views_log_probabilities() -> None:
    with_skip, without = (NETWORKS['lite'].build().eval() for _ in range(2))
    without.load_state_dict(with_skip.state_dict())
    without.heatmap_skip = False
    with torch.inference_mode():
        a, b = with_skip(*images()), without(*images())
    log_left = torch.log_softmax(a.heatmap_left.flatten(2), -1).view_as(a.heatmap_left)
    log_right = torch.log_softmax(a.heatmap_right.flatten(2), -1).view_as(a.heatmap_right)
    added = a.co_heatmap - b.co_heatmap
    # Plane 9 is a disparity of 2: left column 7 meets right column 5; left column 1 meets nothing.
    expected = log_left[0, :, 4, 7] + log_right[0, :, 4, 5]
    assert torch.allclose(added[0, :, 9, 4, 7], expected, atol=1e-4)
    assert torch.allclose(added[0, :, 9, 4, 1], log_left[0, :, 4, 1] - 14, atol=1e-4)


def test_baseline_has_the_same_trunk_and_heads() -> None:
    baseline, model = NETWORKS['lite-baseline'].build(), NETWORKS['lite'].build()
    baseline.load_state_dict(model.state_dict(), strict=False)
    baseline, model = baseline.eval(), model.eval()
    with torch.inference_mode():
        a, b = baseline(*images()), model(*images())
    assert a.co_heatmap is None
    assert torch.allclose(a.heatmap_left, b.heatmap_left, atol=1e-5)


# ---- the stereo volume ----


def loop_volume(
    right: torch.Tensor, fill: float, disparities: DisparityRange = RANGE
) -> torch.Tensor:
    """Right features at w - dd by plain loops."""
    batch, channels, height, width = right.shape
    out = torch.full((batch, channels, len(disparities), height, width), fill, dtype=right.dtype)
    for i, dd in enumerate(disparities.shifts()):
        for w in range(width):
            if 0 <= w - dd < width:
                out[:, :, i, :, w] = right[:, :, :, w - dd]
    return out


def views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(2, 2, 8, 5, 9, dtype=torch.float64, generator=generator)
    return left, right


@pytest.mark.parametrize('fill', [0.0, -14.0])
def test_shifted_views_are_the_columns_of_equation_1(fill: float) -> None:
    left, right = views()
    expected = loop_volume(right, fill)
    assert torch.equal(shifted_views(right, RANGE, fill), expected)
    assert torch.equal(shift_sum(left, right, RANGE, fill), expected + left[:, :, None])


def test_stereo_volume_is_empty_outside_the_shared_columns() -> None:
    left, right = views()
    volume = stereo_volume(left + 10, right + 10, RANGE)
    assert volume.shape == (2, 16, 6, 5, 9)
    assert torch.equal(volume[:, :8, 5, :, 2:], left[..., 2:] + 10)  # dd = 2
    assert torch.equal(volume[:, 8:, 5, :, 2:], right[..., :-2] + 10)
    assert volume[:, :, 5, :, :2].abs().max() == 0
    assert volume[:, :, 0, :, -3:].abs().max() == 0  # dd = -3


@pytest.mark.parametrize('step', [1, 2])
def test_groupwise_correlation_is_the_mean_product_of_each_group(step: int) -> None:
    left, right = views()
    correlation = groupwise_correlation(left, right, RANGE, 2, step)
    shifted = loop_volume(right, 0.0)
    for group in range(2):
        chosen = slice(4 * group, 4 * group + 4)
        expected = (left[:, chosen, None] * shifted[:, chosen]).mean(1)[..., ::step, ::step]
        assert torch.allclose(correlation[:, group], expected, atol=1e-12)


def test_a_disparity_range_without_zero_is_refused() -> None:
    with pytest.raises(ValueError, match='must hold 0, got 1 to 5'):
        DisparityRange(1, 5)


def test_first_lite_convolution_equals_one_3d_convolution_of_the_volume() -> None:
    """Two 2D convolutions summed over shifts are a 3D convolution that sees one plane."""
    network = LiteVolume(4, 3, RANGE, channels=8, correlation_groups=0, kernel=3).double()
    generator = torch.Generator().manual_seed(2)
    left, right = torch.randn(2, 1, 4, 12, 40, dtype=torch.float64, generator=generator)
    fast = shift_sum(network.left(left), network.right(right), RANGE)
    kernel = torch.zeros(8, 8, 1, 3, 5, dtype=torch.float64)  # left kernels sit in the middle
    kernel[:, :4, 0, :, 1:4] = network.left.weight
    kernel[:, 4:, 0] = network.right.weight
    volume = stereo_volume(left, right, RANGE)
    slow = functional.conv3d(volume, kernel, network.left.bias, padding=(0, 1, 2))
    assert torch.allclose(fast[..., 8:-8], slow[..., 8:-8], atol=1e-10)


# ---- soft-argmax ----


def reference_moments(logits: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of u, v, d by definition, in float64."""
    joints, depth, height, width = logits.shape[1:]
    p = torch.softmax(logits.double().flatten(2), -1).view_as(logits)
    d, v, u = torch.meshgrid(
        torch.arange(depth).double() + first,
        torch.arange(height).double(),
        torch.arange(width).double(),
        indexing='ij',
    )
    cells = torch.stack([u, v, d], -1)
    mean = torch.einsum('bjdhw,dhwi->bji', p, cells)
    offset = cells - mean[:, :, None, None, None]
    return mean, torch.einsum('bjdhw,bjdhwi,bjdhwk->bjik', p, offset, offset)


@pytest.mark.parametrize('peak', [1.0, 8.0, 60.0])
def test_volume_moments_match_float64(peak: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = peak * torch.randn(2, 3, 6, 10, 14, generator=generator)
    mean, covariance = reference_moments(logits, -3)
    moments = volume_moments(logits, -3)
    assert (moments.mean - mean).abs().max() < 2e-6 * 14
    assert (moments.covariance - covariance).abs().max() < 5e-5
    expected = torch.logsumexp(logits.double().flatten(2), -1)
    assert torch.allclose(moments.log_sum_exp.double(), expected, rtol=1e-6)


def two_places(depth: int = 4) -> torch.Tensor:
    """Logits of a joint that is at (3, 5, d 1) with 0.7 and at (14, 2, d 3) with 0.3."""
    logits = torch.full((1, 1, depth, 12, 18), -40.0)
    logits[0, 0, 1, 5, 3], logits[0, 0, 3, 2, 14] = math.log(0.7), math.log(0.3)
    return logits


def test_keypoints_near_a_peak_do_not_fall_between_two_places() -> None:
    logits = two_places()
    cells = peak_cells(logits.logsumexp(2))
    found = mean_near(logits, cells, 2, -1.0, 0.5)
    assert found[0, 0].tolist() == pytest.approx([3, 5, -0.5], abs=1e-5)
    whole = volume_moments(logits, -1.0, 0.5)
    assert whole.mean[0, 0].tolist() == pytest.approx([6.3, 4.1, -0.2], abs=1e-4)
    spread = spread_about(found, whole)[0, 0]
    off = torch.tensor([11.0, -3.0, 1.0])  # of the other place, weighed 0.3
    assert torch.allclose(spread, 0.3 * off[:, None] * off, atol=1e-3)


@pytest.mark.parametrize('place', [(0, 0), (17, 11), (9, 0), (17, 4)])
def test_means_near_a_peak_are_sums_over_the_cells_there(place: tuple[int, int]) -> None:
    torch.manual_seed(3)
    logits = torch.randn(2, 3, 4, 12, 18, dtype=torch.float64)
    cells = torch.tensor(place).expand(2, 3, 2)
    found = mean_near(logits, cells, 3, -2.0)
    for batch in range(2):
        for joint in range(3):
            total, mean = 0.0, torch.zeros(3, dtype=torch.float64)
            for d in range(4):
                for v in range(max(place[1] - 3, 0), min(place[1] + 4, 12)):
                    for u in range(max(place[0] - 3, 0), min(place[0] + 4, 18)):
                        weight = float(logits[batch, joint, d, v, u].exp())
                        total += weight
                        mean += weight * torch.tensor([u, v, d - 2.0], dtype=torch.float64)
            assert torch.allclose(found[batch, joint], mean / total, atol=1e-9)


def test_most_probability_together_makes_the_peak() -> None:
    logits = torch.full((1, 1, 12, 18), -40.0)
    logits[0, 0, 2, 15] = math.log(0.3)
    logits[0, 0, 5:10, 3:8] = math.log(0.7 / 25)
    assert peak_cells(logits).tolist() == [[[5, 7]]]


def test_training_sees_the_mean_of_all_and_a_trained_network_its_peak() -> None:
    torch.manual_seed(0)
    model = NETWORKS['lite-efficientnet-baseline'].build()
    image = torch.rand(1, 3, 64, 64)
    assert model.train()(image, image).peak_radius is None
    assert model.eval()(image, image).peak_radius == 5
    assert NETWORKS['rsb-pose-resnet50'].peak_radius is None


def test_independent_views_are_read_near_their_peaks() -> None:
    logits = two_places()[:, :, 1:2].clone()
    logits[0, 0, 0, 2, 14] = math.log(0.3)
    heatmap = logits[:, :, 0]
    found = co_keypoints(
        StereoHeatmaps(heatmap, heatmap, None, DisparityRange(-1, 1), peak_radius=2)
    )
    assert found.uvd[0, 0].tolist() == pytest.approx([13.5, 21.5, 0], abs=1e-4)


def test_map_moments_match_a_volume_of_one_plane() -> None:
    generator = torch.Generator().manual_seed(4)
    logits = 3 * torch.randn(2, 3, 10, 14, generator=generator)
    mean, covariance = reference_moments(logits[:, :, None], 0)
    moments = map_moments(logits)
    assert (moments.mean - mean[..., :2]).abs().max() < 2e-5
    assert (moments.covariance - covariance[..., :2, :2]).abs().max() < 5e-5


def test_moments_stay_float32_under_autocast() -> None:
    logits = torch.randn(1, 2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.autocast('cpu', torch.bfloat16):
        under = volume_moments(logits, 0)
    assert torch.equal(under.mean, volume_moments(logits, 0).mean)


def test_moments_pass_gradients() -> None:
    logits = torch.randn(1, 2, 2, 4, 3, dtype=torch.float64, requires_grad=True)

    def terms(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moments = volume_moments(x, -1)
        return moments.mean, moments.log_sum_exp

    assert torch.autograd.gradcheck(terms, (logits,))


def one_hot(u: int, v: int, d: int) -> StereoHeatmaps:
    """All mass in one cell of a 16-plane volume over 32x32 cells."""
    volume = torch.full((1, 1, 16, 32, 32), -50.0)
    volume[0, 0, d + 7, v, u] = 50.0
    flat = torch.zeros(1, 1, 32, 32)
    return StereoHeatmaps(flat, flat, volume, DisparityRange(-7, 8))


def test_co_keypoints_are_in_crop_pixels() -> None:
    found = co_keypoints(one_hot(20, 5, -3))
    assert found.uvd[0, 0].tolist() == pytest.approx([81.5, 21.5, -12.0], abs=1e-4)
    assert found.confidence.item() == pytest.approx(1.0, abs=1e-5)
    assert found.covariance.abs().max() < 1e-3


def test_two_equal_peaks_give_their_middle_and_its_covariance() -> None:
    maps = one_hot(10, 5, 0)
    assert maps.co_heatmap is not None
    maps.co_heatmap[0, 0, 7 + 2, 5, 20] = 50.0
    found = co_keypoints(maps)
    assert found.uvd[0, 0].tolist() == pytest.approx([61.5, 21.5, 4.0], abs=1e-4)
    # u = +-5 cells, d = +-1 cell, fully correlated; 16 px^2 per cell^2
    expected = torch.tensor([[400.0, 0.0, 80.0], [0.0, 0.0, 0.0], [80.0, 0.0, 16.0]])
    assert torch.allclose(found.covariance[0, 0], expected, atol=1e-2)
    assert found.confidence.item() == pytest.approx(0.0, abs=1e-5)


def test_independent_views_average_rows_and_subtract_columns() -> None:
    left, right = torch.full((2, 1, 1, 32, 32), -50.0)
    left[0, 0, 6, 20], right[0, 0, 8, 17] = 50.0, 50.0
    found = co_keypoints(StereoHeatmaps(left, right, None, DisparityRange(-7, 8)))
    assert found.uvd[0, 0].tolist() == pytest.approx([81.5, 29.5, 12.0], abs=1e-4)


def test_covariance_of_independent_views_is_that_of_their_linear_combination() -> None:
    left, right = 3 * torch.randn(2, 1, 1, 8, 8, generator=torch.manual_seed(2)).double()
    found = co_keypoints(StereoHeatmaps(left, right, None, DisparityRange(-7, 8)))
    matrices = (
        torch.tensor([[1, 0], [0, 0.5], [1, 0]]), torch.tensor([[0, 0], [0, 0.5], [-1, 0]])
    )  # fmt: skip
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for maps, matrix in zip((left, right), matrices, strict=True):
        p = torch.softmax(maps.flatten(), 0)
        v, u = (
            axis.flatten().double()
            for axis in torch.meshgrid(*[torch.arange(8)] * 2, indexing='ij')
        )
        cells = torch.stack([u, v])
        off = cells - (p * cells).sum(1, keepdim=True)
        expected += matrix.double() @ ((p * off) @ off.T) @ matrix.double().T
    assert torch.allclose(found.covariance[0, 0].double(), 16 * expected, rtol=1e-4)


def test_heatmap_and_crop_pixels_round_trip() -> None:
    assert heatmap_to_crop(torch.tensor(0.0)).item() == 1.5  # middle of the first four pixels
    x = torch.linspace(-5, 300, 50)
    assert torch.allclose(heatmap_to_crop(crop_to_heatmap(x)), x, atol=1e-4)


def test_attention_mask_is_17_spread_over_64_times_the_area_s_share() -> None:
    logits = torch.randn(2, 17, 64, 64, generator=torch.Generator().manual_seed(6))
    mask = attention_mask(logits)
    assert mask.shape == (2, 1, 64, 64)
    assert mask.sum((1, 2, 3)).tolist() == pytest.approx([17 * 64] * 2, rel=1e-5)


@pytest.mark.gpu
def test_lite_on_the_gpu_agrees_with_the_cpu() -> None:
    model = NETWORKS['lite'].build().eval()
    left, right = images(2, 128)
    with torch.inference_mode():
        on_cpu = co_keypoints(model(left, right))
        on_gpu = co_keypoints(model.cuda()(left.cuda(), right.cuda()))
    assert torch.allclose(on_cpu.uvd, on_gpu.uvd.cpu(), atol=0.05)


def test_under_autocast_the_system_triangulates_and_refines_in_float32() -> None:
    torch.manual_seed(0)
    method, refiner = NETWORKS['lite'].build().eval(), PoseTransformer().eval()
    fields = (260.0, 260.0, 31.5, 31.5, 30.0, 0.12)
    calibration = StereoCalibration(*(torch.full((2,), value) for value in fields))
    left, right = images(2)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        out = PoseSystem(method, refiner)(left, right, calibration)
    with torch.inference_mode():
        initial = out.output.estimate(calibration)
        assert torch.equal(out.initial.xyz_m, initial.xyz_m)
        assert out.refined_m is not None
        assert torch.equal(out.refined_m, refiner.refine(initial.xyz_m))
        assert torch.equal(out.final.xyz_m, out.refined_m)
