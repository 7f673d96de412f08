"""Every network by name: sizes in and out, batches, and gradients of the training's own losses.

Sizes of what is too large to compute here are run on the meta device, which knows shapes only.
What is computed more than once has thin layers, as many of them as the network by that name.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from rsb_pose_core import models
from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import project
from rsb_pose_core.models import LITE_BACKBONES, NETWORKS, Network, VolumetricTriangulation
from rsb_pose_core.models.attention import AttentionHeads
from rsb_pose_core.models.backbones import (
    BACKBONES,
    Backbone,
    HRNetTrunk,
    LiteTrunk,
    ResNetTrunk,
)
from rsb_pose_core.models.estimate import StereoOutput
from rsb_pose_core.models.volume_networks import V2V, LiteVolume
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.losses import LossWeights, method_losses

JOINTS = 17
THIN: dict[str, Callable[[], Backbone]] = {
    'lite': partial(LiteTrunk, (8, 16, 32, 64), pyramid_channels=16, channels_out=16),
    'resnet50': partial(ResNetTrunk, (3, 4, 6, 3), width=8, channels_out=16),
    'resnet152': partial(ResNetTrunk, (3, 8, 36, 3), width=8, channels_out=16),
    'hrnet-w32': partial(HRNetTrunk, 8, stem_width=8),
    'hrnet-w48': partial(HRNetTrunk, 12, stem_width=8),
}
# The paper's losses and that of the 2D heads, which Algebraic-T and Volume-T need as well.
WEIGHTS = LossWeights(heatmap_ce=1.0, heatmap_l1=0.1, volume_svf=0.01, pose_l1_paper=1.0)


@pytest.fixture
def thin(monkeypatch: pytest.MonkeyPatch) -> None:
    """NETWORKS build thin trunks and a thin V2V."""
    for name, make in THIN.items():
        monkeypatch.setitem(BACKBONES, name, make)
    monkeypatch.setattr(models, 'V2V', partial(V2V, width=8))


def build(name: str) -> Network:
    torch.manual_seed(0)
    network = NETWORKS[name].build()
    if isinstance(network, VolumetricTriangulation):
        network.cells = 32  # the least that five halvings allow
    return network


def calibration(batch: int, side: int, device: str = 'cpu') -> StereoCalibration:
    """Crops as of MHAD: 1.6 m wide at 2.5 m, where their shift makes the disparity 0."""
    focal, middle, baseline_m = side * 2.5 / 1.6, (side - 1) / 2, 0.22
    shift = focal * baseline_m / 2.5
    values = (focal, focal, middle, middle + shift, middle, baseline_m)
    return StereoCalibration(*(torch.full((batch,), value, device=device) for value in values))


def labelled_pairs(count: int, side: int) -> StereoBatch:
    """Noise with a bright square at each joint of a scattered person."""
    generator = torch.Generator().manual_seed(1)
    cameras = calibration(count, side)
    scatter = torch.tensor([0.25, 0.3, 0.1])
    xyz = torch.randn(count, JOINTS, 3, generator=generator) * scatter
    xyz = xyz.clamp(-0.6, 0.6) + torch.tensor([0.0, 0.0, 2.5])
    uvd = project(xyz, cameras)
    uv = uvd[..., :2]
    views = (uv, uv - uvd[..., 2:] * torch.tensor([1.0, 0.0]))
    pictures = torch.randint(0, 99, (2, count, 3, side, side), generator=generator)
    for picture, columns_rows in zip(pictures, views, strict=True):
        for one, joints in zip(picture, columns_rows.round().int().tolist(), strict=True):
            for u, v in joints:
                one[:, max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2] = 255
    codes = torch.zeros(count, 2, JOINTS, dtype=torch.uint8)
    return StereoBatch(*pictures.to(torch.uint8), *views, xyz, codes, cameras)


def tensors_of(output: StereoOutput) -> dict[str, Tensor]:
    return {name: value for name, value in vars(output).items() if isinstance(value, Tensor)}


def check_sizes(name: str, output: StereoOutput, side: int) -> None:
    """Logits at a quarter of the crop's size, and a volume where the method has one."""
    cells = side // 4
    found = {key: tuple(value.shape[1:]) for key, value in tensors_of(output).items()}
    assert found['heatmap_left'] == found['heatmap_right'] == (JOINTS, cells, cells)
    assert found['features_left'][1:] == found['features_right'][1:] == (cells, cells)
    method = NETWORKS[name].method
    depth = len(NETWORKS[name].disparities)
    assert found.get('co_heatmap') == (
        (JOINTS, depth, cells, cells) if method == 'rsb-pose' else None
    )
    cube = 32 if NETWORKS[name].backbone in LITE_BACKBONES else 64
    assert found.get('volume') == ((JOINTS, *[cube] * 3) if method == 'volumetric' else None)
    assert found.get('weights') == ((JOINTS, 2) if method == 'algebraic' else None)


# The others differ from these in switches or disparities, and are computed below with thin layers.
LARGE = [
    'rsb-pose-resnet152', 'rsb-pose-hrnet-w48', 'resnet152-t', 'hrnet-w48-t', 'algebraic-t',
    'volume-t', 'volume-t-resnet50', 'rsb-pose-resnet50', 'rsb-pose-hrnet-w32',
]  # fmt: skip
SMALL = ['resnet50-t', 'hrnet-w32-t', 'algebraic-t-resnet50', 'lite', 'lite-baseline']


@pytest.mark.parametrize(
    'name', [*(pytest.param(name, marks=pytest.mark.slow) for name in LARGE), *SMALL]
)
def test_networks_run_at_their_own_size(name: str) -> None:
    side = NETWORKS[name].input_size
    batch = labelled_pairs(1, side)
    network = NETWORKS[name].build().eval()
    with torch.inference_mode():
        output = network(*batch.images(), batch.calibration)
        estimate = output.estimate(batch.calibration)
    check_sizes(name, output, side)
    for key, value in tensors_of(output).items():
        assert value.isfinite().all(), key
        assert value.ndim == 3 or value.std() > 0, key  # maps; fresh confidences may be alike
    assert estimate.xyz_m.isfinite().all()


@pytest.mark.parametrize(
    ('name', 'side'),
    [
        (name, side)
        for name, architecture in NETWORKS.items()
        for side in (256, 384)
        if name not in (*LARGE, *SMALL) or side != architecture.input_size
    ],
)
def test_networks_run_at_the_sizes_that_are_not_computed(name: str, side: int) -> None:
    with torch.device('meta'):
        network = NETWORKS[name].build().eval()
        left, right = torch.empty(2, 2, 3, side, side)
    with torch.no_grad():
        check_sizes(name, network(left, right, calibration(2, side, 'meta')), side)


def settle(network: Network, left: Tensor, right: Tensor, cameras: StereoCalibration) -> None:
    """Take over the statistics of a batch, without which fresh deep networks say 1e6 and more."""
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
    for norm in norms:
        norm.momentum = None  # the mean of what it sees
    with torch.no_grad():
        network.train()(left, right, cameras)
    network.eval()


def noise_views(count: int) -> tuple[Tensor, Tensor]:
    """Crops that are not square; 64 rows are the least that V2V's halvings allow."""
    left, right = torch.rand(2, count, 3, 64, 128, generator=torch.Generator().manual_seed(2))
    return left, right


@pytest.mark.usefixtures('thin')
@pytest.mark.parametrize('name', NETWORKS)
def test_a_batch_equals_its_pairs_one_by_one(name: str) -> None:
    left, right = noise_views(2)
    cameras = calibration(1, 64)
    network = build(name)
    settle(network, left, right, calibration(2, 64))
    with torch.inference_mode():
        together = tensors_of(network(left, right, calibration(2, 64)))
        alone = [tensors_of(network(left[[i]], right[[i]], cameras)) for i in range(2)]
    for key, value in together.items():
        single = torch.cat([one[key] for one in alone])
        # Another batch may be added up in another order: float32 steps of 1e-7 in 100 layers.
        scale = float(value.abs().max())
        assert torch.allclose(value, single, rtol=0, atol=1e-4 * scale), key
        assert value[0].sub(value[1]).abs().max() > 1e-2 * scale, key


def cancelled(network: Network) -> set[str]:
    """Biases whose gradient is zero by mathematics.

    BatchNorm takes away the mean that a bias before it adds. A softmax over all cells of a joint
    does not see what the biases of its logits add to every cell.
    """
    names = set()
    for name, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            names |= {
                f'{name}.{number}'
                for number, (_, following) in enumerate(pairwise(module))
                if isinstance(following, (nn.BatchNorm2d, nn.BatchNorm3d))
            }
        elif isinstance(module, LiteVolume):
            names.add(f'{name}.left')
        elif isinstance(module, V2V):
            names.add(f'{name}.out')
        elif isinstance(module, AttentionHeads):
            names |= {f'{name}.{layer}' for layer in ('pixel', 'thin', 'wide', 'fuse')}
    names |= {'head', 'attention'}  # of the methods that have one convolution for the logits
    return {f'{name}.bias' for name in names} & set(dict(network.named_parameters()))


@pytest.mark.usefixtures('thin')
@pytest.mark.parametrize('name', NETWORKS)
def test_the_losses_gradients_reach_every_parameter(name: str) -> None:
    batch = labelled_pairs(2, 64)
    network = build(name).train()
    output = network(*batch.images(), batch.calibration)
    terms = method_losses(output, batch, WEIGHTS)
    torch.stack(list(terms.values())).sum().backward()
    unreached = [key for key, value in network.named_parameters() if value.grad is None]
    assert unreached == []
    largest = {key: float(value.grad.abs().max()) for key, value in network.named_parameters()}
    none = cancelled(network)
    for key, size in largest.items():
        if key in none:  # what is left is rounding
            assert size < 5e-3 * largest[key.removesuffix('bias') + 'weight'], key
        else:
            assert 0 < size < float('inf'), key
    assert len(largest) > len(none) + 10
