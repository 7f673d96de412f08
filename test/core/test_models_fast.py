"""Networks as they run where nobody trains, against the same networks as they were trained."""

from copy import deepcopy
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rsb_pose_core.models import NETWORKS
from rsb_pose_core.models.fast import KeypointNetwork, OneDnnConvolution, eager, fast, fused
from rsb_pose_core.models.flip_test import FlipTest
from rsb_pose_core.models.rsb_pose import CoKeypoints
from rsb_pose_core.models.stereo_convolution import StereoConvolution
from rsb_pose_core.models.stereo_volume import DisparityRange, stereo_volume

CPU = torch.device('cpu')
SWITCHED = 'rsb-pose-resnet50-stride2'  # its volume holds more than the paper's
SIDE = 64  # pixels of the crops here: 16x16 heat maps


@cache
def trained(name: str) -> KeypointNetwork:
    """A network whose statistics and biases are no longer those of fresh ones."""
    torch.manual_seed(3)
    network = NETWORKS[name].build().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for values, low, high in (
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.7, 1.4),
                (module.weight.data, 0.7, 1.2),
                (module.bias.data, -0.1, 0.1),
            ):
                assert values is not None
                values.uniform_(low, high)
    assert isinstance(network, KeypointNetwork)
    return network


def crops(batch: int = 1, side: int = SIDE) -> tuple[Tensor, Tensor]:
    left, right = torch.rand(2, batch, 3, side, side, generator=torch.manual_seed(5))
    return left, right


@pytest.fixture
def doubles_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks hand out float32 logits; in float64 they are to be compared as they are."""
    single = torch.Tensor.float
    monkeypatch.setattr(
        torch.Tensor, 'float', lambda x: x if x.dtype == torch.float64 else single(x)
    )


@pytest.mark.parametrize(
    ('first', 'last', 'width'),
    [(-7, 8, 16), (-7, 8, 40), (-31, 32, 16), (-2, 3, 20), (0, 5, 12), (-3, 0, 9)],
)
def test_the_first_convolution_taken_apart_is_the_volume_s(
    first: int, last: int, width: int
) -> None:
    disparities = DisparityRange(first, last)
    convolution = nn.Conv3d(8, 3, 7, padding=3).double()
    left, right = torch.randn(2, 2, 4, 6, width, dtype=torch.float64).unbind(0)
    with torch.no_grad():
        expected = convolution(stereo_volume(left, right, disparities))
        found = StereoConvolution(convolution, disparities)(left, right)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    'name',
    ['lite', 'lite-baseline', 'lite-efficientnet', 'rsb-pose-resnet50', SWITCHED],
)
@pytest.mark.usefixtures('doubles_stay')
def test_heat_maps_are_the_same_in_float64(name: str) -> None:
    network = deepcopy(trained(name)).double()
    left, right = (view.double() for view in crops())
    other = fused(network, CPU, torch.float64, input_size=SIDE)
    with torch.no_grad():
        expected, found = network(left, right), other(left, right)
    for logits in ('heatmap_left', 'heatmap_right', 'co_heatmap'):
        reference = getattr(expected, logits)
        if reference is None:
            continue
        assert reference.dtype == torch.float64
        worst = (getattr(found, logits) - reference).abs().max()
        assert worst <= 1e-10 * reference.std(), logits


@pytest.mark.parametrize('name', ['lite-baseline', 'lite-efficientnet', 'rsb-pose-resnet50'])
def test_keypoints_in_float32_are_those_of_the_eager_network(name: str) -> None:
    """Within 0.1 mm: a crop pixel of disparity is some 80 mm of depth in MHAD."""
    network = trained(name)
    reference = eager(network, CPU)
    made = fast(network, CPU, input_size=SIDE)
    for batch in (1, 3):
        expected, found = reference(*crops(batch)), made(*crops(batch))
        assert torch.allclose(found.uvd, expected.uvd, rtol=0, atol=1e-3)
        assert torch.allclose(found.confidence, expected.confidence, rtol=0, atol=1e-4)


def test_bfloat16_is_no_further_from_float32_than_autocast_is() -> None:
    network = trained('lite')
    exact = eager(network, CPU)(*crops()).uvd

    def error(found: CoKeypoints) -> float:
        return float((found.uvd - exact).square().mean().sqrt())

    autocast = error(eager(network, CPU, torch.bfloat16)(*crops()))
    made = error(fast(network, CPU, torch.bfloat16, input_size=SIDE)(*crops()))
    assert 0 < made < 2 * autocast


@pytest.mark.parametrize('name', ['lite', 'hrnet-w32-t', 'resnet50-t'])
def test_no_batch_norm_is_left(name: str) -> None:
    made = fused(trained(name), CPU, input_size=SIDE)
    norms = [n for n, m in made.named_modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert norms == []


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='PyTorch without oneDNN')
@pytest.mark.parametrize('name', ['lite', 'lite-efficientnet', 'rsb-pose-resnet50'])
def test_no_convolution_of_a_volume_is_left_to_the_slow_kernel(name: str) -> None:
    """In float32 PyTorch would send most of them to one that takes seven times as long."""
    made = fused(trained(name), CPU, input_size=SIDE)
    left = [n for n, m in made.named_modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    assert left == []


def test_the_network_itself_is_left_as_it_was() -> None:
    network = trained('lite')
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast(network, CPU, torch.bfloat16, input_size=SIDE)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='PyTorch without oneDNN')
@pytest.mark.parametrize(
    ('convolution', 'size'),
    [
        (nn.Conv2d(6, 5, 3, 2, 1), (2, 6, 12, 20)),
        (nn.Conv2d(6, 6, 3, 1, 2, 2, 3, bias=False), (1, 6, 12, 20)),
        (nn.Conv3d(4, 5, 3, (1, 2, 2), 1), (2, 4, 6, 8, 12)),
        (nn.Conv3d(4, 5, 3, 1, 1), (2, 4, 1, 8, 12)),
        (nn.ConvTranspose2d(4, 5, 4, 2, 1), (2, 4, 6, 10)),
        (nn.ConvTranspose3d(4, 5, 2, 2), (2, 4, 3, 6, 10)),
    ],
)
def test_onednn_convolves_as_pytorch_does(
    convolution: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d,
    size: tuple[int, ...],
) -> None:
    x = torch.randn(size)
    made = OneDnnConvolution(convolution, list(size))
    with torch.no_grad():
        for view in (x, x[:1], torch.cat([x, x])):
            assert torch.allclose(made(view), convolution(view), rtol=0, atol=1e-5)


class TensorsOfNumbers(TorchDispatchMode):
    """Counts tensors made of Python's numbers, which a device has to be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.made += 'lift_fresh' in str(function)
        return function(*arguments, **(options or {}))


@pytest.mark.parametrize('flip_test', [False, True])
@pytest.mark.parametrize('name', ['lite-efficientnet', 'lite-baseline', SWITCHED])
def test_no_number_is_sent_to_the_device_while_a_graph_is_captured(
    name: str, flip_test: bool
) -> None:
    network = FlipTest(trained(name)) if flip_test else trained(name)
    keypoints = eager(fused(network, CPU, input_size=SIDE), CPU)
    with TensorsOfNumbers() as numbers:
        torch.ones(2)[[1]]  # as an index, too
        assert numbers.made == 1
        keypoints(*crops())
    assert numbers.made == 1


@pytest.mark.gpu
@pytest.mark.parametrize('name', ['lite', 'lite-baseline', 'rsb-pose-resnet50'])
def test_on_the_gpu_graphs_give_what_the_eager_network_gives(name: str) -> None:
    """A tenth of a pixel in float32, whose convolutions may run in TF32 there."""
    device = torch.device('cuda')
    network = deepcopy(trained(name)).to(device)
    reference, made = eager(network, device), fast(network, device, input_size=SIDE)
    for batch in (1, 3, 1):  # the first graph again
        left, right = (view.to(device) for view in crops(batch))
        expected, found = reference(left, right), made(left, right)
        assert torch.allclose(found.uvd, expected.uvd, rtol=0, atol=0.1)
    first = made(*(view.to(device) for view in crops(1)))
    kept = first.uvd.clone()
    made(*(1 - view.to(device) for view in crops(1)))
    assert torch.equal(first.uvd, kept)  # results outlive the next replay
