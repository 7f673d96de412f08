"""The flip test: what a network says of a pair and of its mirror image, taken together."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from rsb_pose_core.models import NETWORKS, IndependentHeatmaps, StereoHeatmaps, co_keypoints
from rsb_pose_core.models.fast import KeypointNetwork, eager, fast
from rsb_pose_core.models.flip_test import FlipTest, left_columns
from rsb_pose_core.models.keypoints import crop_to_heatmap
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.skeleton import H36M_17

CPU = torch.device('cpu')
MIRROR = list(H36M_17.mirror)
SIDE = 64  # pixels of the crops: heat maps of 16 x 16


@cache
def network(name: str) -> KeypointNetwork:
    torch.manual_seed(7)
    built = NETWORKS[name].build().eval()
    assert isinstance(built, KeypointNetwork)
    return built


def crops() -> tuple[Tensor, Tensor]:
    left, right = torch.rand(2, 2, 3, SIDE, SIDE, generator=torch.manual_seed(5))
    return left, right


def mirrored(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    return right.flip(-1), left.flip(-1)


@pytest.mark.parametrize(
    'disparities',
    [DisparityRange(-3, 4), DisparityRange(0, 5), DisparityRange(-4, 3.5, 0.5)],
)
def test_right_columns_become_left_ones_as_in_plain_loops(disparities: DisparityRange) -> None:
    of_right = torch.randn(2, 3, len(disparities), 4, 9)
    expected = torch.full_like(of_right, -torch.inf)
    for i, dd in enumerate(disparities.shifts()):
        for w in range(9):
            column = w - dd
            before, after = int(torch.tensor(column).floor()), int(torch.tensor(column).ceil())
            if before >= 0 and after <= 8:
                mean = (of_right[:, :, i, :, before] + of_right[:, :, i, :, after]) / 2
                expected[:, :, i, :, w] = mean
    assert torch.allclose(left_columns(of_right, disparities), expected)


@pytest.mark.parametrize('name', ['lite', 'lite-fine', 'lite-baseline'])
@torch.no_grad()
def test_a_mirrored_pair_gives_the_mirror_image(name: str) -> None:
    test = FlipTest(network(name))
    pair = crops()
    found, other = test(*pair), test(*mirrored(*pair))
    plain = network(name)(*pair)
    for one, two in (
        (found.heatmap_left, other.heatmap_right),
        (found.heatmap_right, other.heatmap_left),
    ):
        assert torch.allclose(one, two.flip(-1)[:, MIRROR], atol=1e-5)
    # without it the network is not so fair
    plain_left = plain.heatmap_left.flatten(2).log_softmax(-1).view_as(found.heatmap_left)
    assert (found.heatmap_left - plain_left).abs().max() > 0.01
    if found.co_heatmap is None:
        return
    back = left_columns(other.co_heatmap.flip(-1)[:, MIRROR], found.disparities)
    whole = torch.tensor([dd % 1 == 0 for dd in found.disparities.shifts()])
    shared = back.isfinite() & whole[:, None, None]
    difference = (found.co_heatmap - back)[shared].abs()
    assert len(difference) > 0.6 * found.co_heatmap[:, :, whole].numel()
    assert difference.max() < 1e-4


class ColumnsOff(IndependentHeatmaps):
    """Sees every joint of a pair, and of its mirror image, so many columns too far right."""

    def __init__(self, uvd: Tensor, columns_off: float) -> None:
        nn.Module.__init__(self)
        self.joints, self.trunk = 17, nn.Identity()  # type: ignore[assignment]
        self.uvd, self.columns_off = uvd, columns_off  # heat-map pixels of the pair as it is

    def forward(self, left: Tensor, right: Tensor) -> StereoHeatmaps:  # type: ignore[override]
        """The pair is known, so what it shows does not matter; its mirror image comes second."""
        u, v, d = self.uvd.unbind(-1)
        flipped = torch.stack([15 - (u - d), v, d], -1)[MIRROR]
        u, v, d = (value[..., None, None] for value in torch.stack([self.uvd, flipped]).unbind(-1))
        columns = torch.arange(16.0)
        maps = [
            -((columns[:, None] - v) ** 2) - (columns - at - self.columns_off) ** 2
            for at in (u, u - d)
        ]
        return StereoHeatmaps(*maps, None, DisparityRange(-7, 8))


@torch.no_grad()
def test_errors_to_one_side_cancel() -> None:
    uvd = torch.rand(17, 3, generator=torch.manual_seed(2)) * torch.tensor([5.0, 7.0, 4.0])
    uvd += torch.tensor([5.5, 4.0, -2.0])  # far from every edge
    biased = ColumnsOff(uvd, 1.0)
    pair = torch.zeros(1, 3, SIDE, SIDE)
    for sees, off in ((biased, 1.0), (FlipTest(biased), 0.0)):
        found = co_keypoints(sees(pair, pair)).uvd[0]
        error = crop_to_heatmap(found[:, :2]) - uvd[:, :2]
        assert torch.allclose(error, torch.tensor([off, 0.0]).expand(17, 2), atol=0.01)
        assert torch.allclose(found[:, 2] / 4, uvd[:, 2], atol=0.01)


@torch.no_grad()
def test_where_the_mirrored_look_sees_nothing_the_other_counts() -> None:
    test = FlipTest(network('lite'))
    left, right = crops()
    found, plain = test(left, right).co_heatmap, network('lite')(left, right).co_heatmap
    expected = plain.flatten(2).log_softmax(-1).view_as(plain)
    # at the largest disparity the first columns of the left view have no right column
    assert torch.allclose(found[:, :, -1, :, :8], expected[:, :, -1, :, :8], atol=1e-5)
    assert not torch.allclose(found[:, :, -1, :, 8:], expected[:, :, -1, :, 8:], atol=1e-2)


def test_the_fast_network_does_it_too() -> None:
    net = network('lite')
    test, pair = FlipTest(net), crops()
    expected = eager(test, CPU)(*pair)
    found = fast(test, CPU, input_size=SIDE)(*pair)
    assert torch.allclose(found.uvd, expected.uvd, atol=1e-2)
    assert (eager(net, CPU)(*pair).uvd - expected.uvd).abs().max() > 0.02
