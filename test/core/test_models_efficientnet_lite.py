"""EfficientNet-Lite0: the published names and layers, against plain functional code."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rsb_pose_core.models.backbones import EfficientNetLiteTrunk, load_published

# (kernel, stride, channels in, channels out) of the 16 blocks, as published for Lite0
BLOCKS = (
    (3, 1, 32, 16),
    (3, 2, 16, 24), (3, 1, 24, 24),
    (5, 2, 24, 40), (5, 1, 40, 40),
    (3, 2, 40, 80), (3, 1, 80, 80), (3, 1, 80, 80),
    (5, 1, 80, 112), (5, 1, 112, 112), (5, 1, 112, 112),
    (5, 2, 112, 192), (5, 1, 192, 192), (5, 1, 192, 192), (5, 1, 192, 192),
    (3, 1, 192, 320),
)  # fmt: skip
ENDS = {2: 24, 4: 40, 10: 112, 15: 320}  # blocks that the pyramid reads, and their channels


def published() -> dict[str, Tensor]:
    """Random tensors under the names of the published file."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}

    def norm(name: str, channels: int) -> None:
        tensors[f'{name}.weight'] = torch.rand(channels) + 0.5
        tensors[f'{name}.bias'] = torch.randn(channels) * 0.1
        tensors[f'{name}.running_mean'] = torch.randn(channels) * 0.1
        tensors[f'{name}.running_var'] = torch.rand(channels) + 0.5
        tensors[f'{name}.num_batches_tracked'] = torch.tensor(3)

    def filters(out: int, channels: int, kernel: int) -> Tensor:
        return torch.randn(out, channels, kernel, kernel) / math.sqrt(channels * kernel**2)

    tensors['_conv_stem.weight'] = filters(32, 3, 3)
    norm('_bn0', 32)
    for index, (kernel, _, channels, out) in enumerate(BLOCKS):
        inner, name = channels if index == 0 else 6 * channels, f'_blocks.{index}.'
        if index:
            tensors[f'{name}_expand_conv.weight'] = filters(inner, channels, 1)
            norm(f'{name}_bn0', inner)
        tensors[f'{name}_depthwise_conv.weight'] = filters(inner, 1, kernel)
        norm(f'{name}_bn1', inner)
        tensors[f'{name}_project_conv.weight'] = filters(out, inner, 1)
        norm(f'{name}_bn2', out)
    tensors['_conv_head.weight'] = filters(1280, 320, 1)
    norm('_bn1', 1280)
    tensors['_fc.weight'], tensors['_fc.bias'] = torch.randn(10, 1280), torch.randn(10)
    return tensors


def reference(tensors: dict[str, Tensor], image: Tensor) -> dict[int, Tensor]:
    """What the blocks of ENDS give, with TensorFlow's SAME padding by its formula."""

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = tensors[f'{name}.weight']
        margins: list[int] = []
        for size, kernel in ((x.shape[3], weight.shape[3]), (x.shape[2], weight.shape[2])):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            margins += [total // 2, total - total // 2]
        return functional.conv2d(functional.pad(x, margins), weight, None, stride, groups=groups)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            tensors[f'{name}.{part}'].view(-1, 1, 1)
            for part in ('running_mean', 'running_var', 'weight', 'bias')
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = norm(convolve((image - 127 / 255) * (255 / 128), '_conv_stem', 2), '_bn0').clamp(0, 6)
    found = {}
    for index, (_, stride, channels, out) in enumerate(BLOCKS):
        name, before = f'_blocks.{index}.', x
        if index:
            x = norm(convolve(x, f'{name}_expand_conv'), f'{name}_bn0').clamp(0, 6)
        x = convolve(x, f'{name}_depthwise_conv', stride, groups=x.shape[1])
        x = norm(x, f'{name}_bn1').clamp(0, 6)
        x = norm(convolve(x, f'{name}_project_conv'), f'{name}_bn2')
        if stride == 1 and channels == out:
            x = x + before
        if index in ENDS:
            found[index] = x
    return found


def test_published_weights_give_the_published_features(tmp_path: Path) -> None:
    tensors = published()
    torch.save(tensors, tmp_path / 'efficientnet-lite0.pth')
    trunk = EfficientNetLiteTrunk().eval()
    loaded = load_published(trunk, tmp_path / 'efficientnet-lite0.pth')
    # 5 or 4 tensors a norm and its convolution: stem, 15 blocks of three, one of two
    assert loaded.filled == 5 + 15 * 15 + 10
    assert loaded.ignored == 5 + 2
    got: dict[int, Tensor] = {}
    for index in ENDS:
        trunk.blocks[index].register_forward_hook(
            lambda _, __, out, index=index: got.__setitem__(index, out)
        )
    image = torch.rand(2, 3, 96, 128)
    features = trunk(image)
    assert features.shape == (2, 48, 24, 32)
    for index, wanted in reference(tensors, image).items():
        assert wanted.shape[1] == ENDS[index]
        assert torch.allclose(got[index], wanted, rtol=1e-3, atol=1e-4 * wanted.std())


def test_bfloat16_gradients_are_those_of_float32() -> None:
    """Depthwise layers leave bfloat16 while they train on a CPU."""
    torch.manual_seed(1)
    trunk = EfficientNetLiteTrunk().eval()
    image = torch.rand(2, 3, 64, 64)
    gradients = {}
    for half in (False, True):
        trunk.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            trunk(image).float().square().sum().backward()
        gradients[half] = {name: p.grad.clone() for name, p in trunk.named_parameters()}  # type: ignore[union-attr]
    names = [name for name in gradients[True] if name.endswith('depthwise_conv.weight')]
    assert len(names) == 16
    for name in names:
        exact, found = gradients[False][name], gradients[True][name]
        assert float((found - exact).norm() / exact.norm()) < 0.15, name


@pytest.mark.parametrize('name', ['conv_stem', 'blocks.3.depthwise_conv'])
def test_odd_margins_go_to_the_end(name: str) -> None:
    """A shift of the picture by the stride shifts what comes out by one, without a half pixel."""
    layer = EfficientNetLiteTrunk().get_submodule(name)
    channels = 3 if name == 'conv_stem' else layer.weight.shape[0]  # type: ignore[union-attr]
    x = torch.zeros(1, int(channels), 32, 32)
    x[..., 16, 16] = 1.0
    response = layer(x).abs().sum((0, 1))
    rows, columns = response.nonzero().T
    kernel = layer.weight.shape[-1]  # type: ignore[union-attr]
    before = (kernel - 2) // 2
    expected = {o for o in range(16) if 0 <= 16 - 2 * o + before < kernel}
    assert {int(v) for v in rows} == expected == {int(v) for v in columns}
