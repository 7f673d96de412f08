"""Backbones: the published names, a plain reference for every layer, and checkpoints of others."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.models.backbones import (
    BACKBONES,
    Backbone,
    HRNetTrunk,
    LiteTrunk,
    ResNetTrunk,
    load_published,
)
from rsb_pose_core.models.backbones.backbone import IMAGE_MEAN, IMAGE_STD
from rsb_pose_core.models.backbones.published import PublishedWeightsError

Shapes = dict[str, tuple[int, ...]]


# ---- the published naming rules, by plain loops ----


def norm(name: str, channels: int) -> Shapes:
    shapes: Shapes = {
        f'{name}.{part}': (channels,) for part in ('weight', 'bias', 'running_mean', 'running_var')
    }
    return shapes | {f'{name}.num_batches_tracked': ()}


def bottleneck(name: str, channels_in: int, width: int, shortcut: bool) -> Shapes:
    shapes: Shapes = {
        f'{name}.conv1.weight': (width, channels_in, 1, 1),
        f'{name}.conv2.weight': (width, width, 3, 3),
        f'{name}.conv3.weight': (4 * width, width, 1, 1),
    }
    for number, channels in ((1, width), (2, width), (3, 4 * width)):
        shapes |= norm(f'{name}.bn{number}', channels)
    if shortcut:
        shapes[f'{name}.downsample.0.weight'] = (4 * width, channels_in, 1, 1)
        shapes |= norm(f'{name}.downsample.1', 4 * width)
    return shapes


def resnet_names(blocks: tuple[int, ...], width: int = 64) -> Shapes:
    """torchvision's ResNet without its classifier."""
    shapes: Shapes = {'conv1.weight': (width, 3, 7, 7)} | norm('bn1', width)
    channels = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            inner = width * 2**stage
            shapes |= bottleneck(f'layer{stage + 1}.{block}', channels, inner, block == 0)
            channels = 4 * inner
    return shapes


def deconvolution_names(channels: int, channels_out: int) -> Shapes:
    """SimpleBaseline's head: convolution, norm and ReLU three times in one sequence."""
    shapes: Shapes = {}
    for layer in range(3):
        shapes[f'deconv_layers.{3 * layer}.weight'] = (channels, channels_out, 4, 4)
        shapes |= norm(f'deconv_layers.{3 * layer + 1}', channels_out)
        channels = channels_out
    return shapes


def hrnet_names(width: int, stem: int = 64, imagenet: bool = False) -> Shapes:
    """HRNet's published layout; `imagenet`: its last module keeps all four resolutions."""
    widths = [width * 2**level for level in range(4)]
    shapes: Shapes = {'conv1.weight': (stem, 3, 3, 3)} | norm('bn1', stem)
    shapes |= {'conv2.weight': (stem, stem, 3, 3)} | norm('bn2', stem)
    for block in range(4):
        channels = stem if block == 0 else 4 * stem
        shapes |= bottleneck(f'layer1.{block}', channels, stem, block == 0)
    shapes['transition1.0.0.weight'] = (widths[0], 4 * stem, 3, 3)
    shapes |= norm('transition1.0.1', widths[0])
    shapes['transition1.1.0.0.weight'] = (widths[1], 4 * stem, 3, 3)
    shapes |= norm('transition1.1.0.1', widths[1])
    for new in (2, 3):
        shapes[f'transition{new}.{new}.0.0.weight'] = (widths[new], widths[new - 1], 3, 3)
        shapes |= norm(f'transition{new}.{new}.0.1', widths[new])
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for module in range(modules):
            name = f'stage{stage}.{module}'
            for branch in range(stage):
                for block in range(4):
                    for number in (1, 2):
                        inner = f'{name}.branches.{branch}.{block}'
                        shapes[f'{inner}.conv{number}.weight'] = (*[widths[branch]] * 2, 3, 3)
                        shapes |= norm(f'{inner}.bn{number}', widths[branch])
            last = stage == 4 and module == 2 and not imagenet
            for target in range(1 if last else stage):
                for source in range(stage):
                    shapes |= fusion_names(
                        f'{name}.fuse_layers.{target}.{source}', widths, source, target
                    )
    return shapes


def fusion_names(name: str, widths: list[int], source: int, target: int) -> Shapes:
    shapes: Shapes = {}
    if source > target:
        shapes[f'{name}.0.weight'] = (widths[target], widths[source], 1, 1)
        shapes |= norm(f'{name}.1', widths[target])
    for step in range(target - source):
        channels = widths[target] if step == target - source - 1 else widths[source]
        shapes[f'{name}.{step}.0.weight'] = (channels, widths[source], 3, 3)
        shapes |= norm(f'{name}.{step}.1', channels)
    return shapes


def names_of(trunk: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in trunk.state_dict().items()}


@pytest.mark.parametrize(
    ('backbone', 'expected'),
    [
        ('resnet50', resnet_names((3, 4, 6, 3)) | deconvolution_names(2048, 256)),
        ('resnet152', resnet_names((3, 8, 36, 3)) | deconvolution_names(2048, 256)),
        ('hrnet-w32', hrnet_names(32)),
        ('hrnet-w48', hrnet_names(48)),
    ],
)
def test_tensors_have_the_published_names_and_sizes(backbone: str, expected: Shapes) -> None:
    with torch.device('meta'):
        trunk = BACKBONES[backbone]()
    assert names_of(trunk) == expected


# ---- every layer against plain functions in float64 ----


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of these shapes, variances positive, as a trained network might hold."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if name.endswith('num_batches_tracked'):
            value = torch.tensor(7)
        elif name.endswith('running_var'):
            value = 0.5 + value.abs()
        elif len(shape) > 1:
            value = value / math.sqrt(math.prod(shape[1:]))
        tensors[name] = value
    return tensors


class Plain:
    """A network's layers by the names of its tensors."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = {name: value.double() for name, value in tensors.items()}

    def unit(self, x: Tensor, conv: str, bn: str, stride: int = 1, relu: bool = True) -> Tensor:
        """Convolution and batch normalisation written out."""
        weight = self.tensors[f'{conv}.weight']
        x = functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        return self.normed(x, bn, relu)

    def normed(self, x: Tensor, bn: str, relu: bool = True) -> Tensor:
        weight, bias, mean, var = (
            self.tensors[f'{bn}.{part}'].view(1, -1, 1, 1)
            for part in ('weight', 'bias', 'running_mean', 'running_var')
        )
        x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        return x.clamp_min(0) if relu else x

    def bottleneck(self, x: Tensor, name: str, stride: int) -> Tensor:
        inner = self.unit(x, f'{name}.conv1', f'{name}.bn1')
        inner = self.unit(inner, f'{name}.conv2', f'{name}.bn2', stride)  # as torchvision, not 1x1
        inner = self.unit(inner, f'{name}.conv3', f'{name}.bn3', relu=False)
        if f'{name}.downsample.0.weight' in self.tensors:
            down = f'{name}.downsample'
            x = self.unit(x, f'{down}.0', f'{down}.1', stride, relu=False)
        return (inner + x).clamp_min(0)

    def resnet(self, image: Tensor, blocks: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        x = self.unit(image, 'conv1', 'bn1', 2)
        x = functional.max_pool2d(x, 3, 2, 1)
        for stage, count in enumerate(blocks):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                x = self.bottleneck(x, f'layer{stage + 1}.{block}', stride)
        deep = x
        for layer in (0, 3, 6):
            x = functional.conv_transpose2d(
                x, self.tensors[f'deconv_layers.{layer}.weight'], None, 2, 1
            )
            x = self.normed(x, f'deconv_layers.{layer + 1}')
        return x, deep

    def hrnet(self, image: Tensor) -> Tensor:
        x = self.unit(image, 'conv1', 'bn1', 2)
        x = self.unit(x, 'conv2', 'bn2', 2)
        for block in range(4):
            x = self.bottleneck(x, f'layer1.{block}', 1)
        views = [
            self.unit(x, 'transition1.0.0', 'transition1.0.1'),
            self.unit(x, 'transition1.1.0.0', 'transition1.1.0.1', 2),
        ]
        views = self.exchange(views, 'stage2.0', 2)
        for stage, modules in ((3, 4), (4, 3)):
            name = f'transition{stage - 1}.{stage - 1}.0'
            views.append(self.unit(views[-1], f'{name}.0', f'{name}.1', 2))
            for module in range(modules):
                outputs = 1 if (stage, module) == (4, 2) else stage
                views = self.exchange(views, f'stage{stage}.{module}', outputs)
        return views[0]

    def exchange(self, views: list[Tensor], name: str, outputs: int) -> list[Tensor]:
        worked = []
        for branch, x in enumerate(views):
            for block in range(4):
                inner = f'{name}.branches.{branch}.{block}'
                y = self.unit(x, f'{inner}.conv1', f'{inner}.bn1')
                y = self.unit(y, f'{inner}.conv2', f'{inner}.bn2', relu=False)
                x = (x + y).clamp_min(0)
            worked.append(x)
        fused = []
        for target in range(outputs):
            total = worked[target]
            for source, x in enumerate(worked):
                fuse = f'{name}.fuse_layers.{target}.{source}'
                if source > target:
                    x = self.unit(x, f'{fuse}.0', f'{fuse}.1', relu=False)
                    for axis in (2, 3):
                        x = x.repeat_interleave(2 ** (source - target), axis)
                for step in range(target - source):
                    relu = step < target - source - 1
                    x = self.unit(x, f'{fuse}.{step}.0', f'{fuse}.{step}.1', 2, relu)
                if source != target:
                    total = total + x
            fused.append(total.clamp_min(0))
        return fused


def normalised(image: Tensor) -> Tensor:
    planes = [(image[:, c] - IMAGE_MEAN[c]) / IMAGE_STD[c] for c in range(3)]
    return torch.stack(planes, 1).double()


def picture(height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(3))


BLOCKS = (2, 1, 3, 1)


def test_resnet_is_the_published_network_layer_by_layer() -> None:
    tensors = filled(resnet_names(BLOCKS, 8) | deconvolution_names(256, 16))
    trunk = ResNetTrunk(BLOCKS, width=8, channels_out=16).eval()
    trunk.load_state_dict(tensors)
    features, deep = Plain(tensors).resnet(normalised(picture()), BLOCKS)
    with torch.no_grad():
        found, found_deep = trunk.double().forward_with_deep(picture().double())
    assert found.shape == (2, 16, 16, 24)
    assert found_deep.shape == (2, trunk.deep_channels, 2, 3)
    # IMAGE_MEAN and IMAGE_STD are stored in float32
    assert torch.allclose(found_deep, deep, rtol=1e-5, atol=1e-5 * float(deep.abs().max()))
    assert torch.allclose(found, features, rtol=1e-5, atol=1e-5 * float(features.abs().max()))
    assert features.std() > 0.1


def test_hrnet_is_the_published_network_layer_by_layer() -> None:
    tensors = filled(hrnet_names(6, stem=4))
    trunk = HRNetTrunk(6, stem_width=4).eval()
    trunk.load_state_dict(tensors)
    features = Plain(tensors).hrnet(normalised(picture()))
    with torch.no_grad():
        found = trunk.double()(picture().double())
    assert found.shape == (2, 6, 16, 24)
    assert torch.allclose(found, features, rtol=1e-5, atol=1e-5 * float(features.abs().max()))
    assert features.std() > 0.1


# ---- how all of them behave ----


@pytest.mark.parametrize('name', BACKBONES)
def test_features_have_a_quarter_of_the_size_and_the_channels_told(name: str) -> None:
    with torch.device('meta'):
        trunk = BACKBONES[name]()
        features = trunk(torch.empty(2, 3, 96, 160))
    assert features.shape == (2, trunk.channels_out, 24, 40)


def test_colours_are_normalised_inside_and_not_stored() -> None:
    trunk = ResNetTrunk((1, 1, 1, 1), width=8)
    grey = torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1).expand(1, 3, 32, 64)
    assert trunk.norm(grey).abs().max() < 1e-7
    assert not [name for name in trunk.state_dict() if name.startswith('norm.')]


def test_fresh_transposed_convolutions_keep_the_scale_of_what_comes_in() -> None:
    trunk = ResNetTrunk((1, 1, 1, 1), width=8, channels_out=64)
    rectified = torch.randn(1, 256, 20, 28, generator=torch.Generator().manual_seed(0)).relu()
    with torch.no_grad():
        out = trunk.deconv_layers[0](rectified)[..., 2:-2, 2:-2]
    assert out.square().mean() == pytest.approx(1.0, rel=0.1)  # He: twice the mean square, 0.5


def test_fresh_convolutions_have_he_s_deviation() -> None:
    trunk = HRNetTrunk(32)
    weight = trunk.stage3[1].branches[2][0].conv1.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)


# ---- checkpoints of others ----

HEAD = {'fc.weight': (10, 256), 'fc.bias': (10,)}
FINAL = {'final_layer.weight': (17, 16, 1, 1), 'final_layer.bias': (17,)}
IMAGENET_HRNET = {
    'incre_modules.0.0.conv1.weight': (32, 6, 1, 1),
    'downsamp_modules.0.0.weight': (64, 32, 3, 3),
    'final_layer.0.weight': (64, 64, 1, 1),
    'classifier.weight': (10, 64),
}
SLIM_RESNET = resnet_names(BLOCKS, 8)
SLIM_HEAD = deconvolution_names(256, 16)


def resnet() -> ResNetTrunk:
    return ResNetTrunk(BLOCKS, width=8, channels_out=16)


def hrnet() -> HRNetTrunk:
    return HRNetTrunk(6, stem_width=4)


def norms_and_weights(shapes: Shapes) -> int:
    return sum(not name.endswith('num_batches_tracked') for name in shapes)


def prefixed(tensors: dict[str, Tensor], prefix: str, only: str = '') -> dict[str, Tensor]:
    return {prefix * name.startswith(only) + name: value for name, value in tensors.items()}


def store(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ('make', 'shapes', 'others'),
    [
        (resnet, SLIM_RESNET, HEAD),
        (resnet, SLIM_RESNET | SLIM_HEAD, FINAL),
        (hrnet, hrnet_names(6, 4), FINAL),
        (hrnet, hrnet_names(6, 4, imagenet=True), IMAGENET_HRNET),
    ],
    ids=['torchvision', 'simple-baseline', 'hrnet-pose', 'hrnet-imagenet'],
)
def test_published_files_fill_the_trunk(
    tmp_path: Path, make: Callable[[], Backbone], shapes: Shapes, others: Shapes
) -> None:
    tensors = filled(shapes | others)
    trunk = make()
    fresh = {name: value.clone() for name, value in trunk.state_dict().items()}
    loaded = load_published(trunk, store(tmp_path / 'published.pth', tensors))
    wanted = {name for name in shapes if name in fresh}
    assert loaded.filled == norms_and_weights({name: shapes[name] for name in wanted})
    assert loaded.filled + loaded.fresh == norms_and_weights(names_of(trunk))
    assert loaded.ignored == norms_and_weights(shapes | others) - loaded.filled
    for name, value in trunk.state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(value, tensors[name] if name in wanted else fresh[name]), name


def test_loading_says_how_many_tensors_it_took(tmp_path: Path) -> None:
    path = store(tmp_path / 'resnet.pth', filled(SLIM_RESNET | HEAD))
    # 5 tensors for each of 1 stem, 7 blocks of 3 layers and 4 shortcuts
    assert str(load_published(resnet(), path)) == (
        '130 tensors filled, 15 that ImageNet lacks stay fresh, 2 in the file not needed'
    )


@pytest.mark.parametrize('layout', ['data-parallel', 'mmpose', 'safetensors', 'old', 'tar'])
def test_wrappers_and_prefixes_are_seen_through(tmp_path: Path, layout: str) -> None:
    tensors = filled(SLIM_RESNET | SLIM_HEAD | FINAL)
    path = tmp_path / 'weights.pth'
    if layout == 'data-parallel':
        store(path, {'epoch': 3, 'state_dict': prefixed(tensors, 'module.')})
    elif layout == 'mmpose':
        for only in ('conv1', 'bn1', 'layer'):
            tensors = prefixed(tensors, 'backbone.', only)
        for only in ('deconv_layers', 'final_layer'):
            tensors = prefixed(tensors, 'keypoint_head.', only)
        store(path, {'meta': {}, 'state_dict': tensors})
    elif layout == 'safetensors':
        path = tmp_path / 'weights.safetensors'
        save_file(tensors, path)
    elif layout == 'old':  # files before PyTorch 0.4.1 know no counters
        store(path, {k: v for k, v in tensors.items() if not k.endswith('num_batches_tracked')})
    else:
        path = store(tmp_path / 'pose_resnet.pth.tar', tensors)
    trunk = resnet()
    loaded = load_published(trunk, path)
    assert (loaded.filled, loaded.fresh, loaded.ignored) == (145, 0, 2)
    expected = filled(SLIM_RESNET | SLIM_HEAD | FINAL)
    assert torch.equal(trunk.layer3[2].conv3.weight, expected['layer3.2.conv3.weight'])
    assert torch.equal(trunk.deconv_layers[6].weight, expected['deconv_layers.6.weight'])


def without(shapes: Shapes, *names: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name not in names}


@pytest.mark.parametrize(
    ('make', 'shapes', 'message'),
    [
        (resnet, resnet_names((2, 1, 4, 1), 8), 'has 15 tensors that this backbone lacks, first'),
        (resnet, resnet_names((2, 1, 2, 1), 8), r'lacks 15 of 145 tensors.*first layer3\.2'),
        (resnet, resnet_names(BLOCKS, 16), r'conv1\.weight is 16x3x7x7, expected 8x3x7x7'),
        (resnet, SLIM_RESNET | without(SLIM_HEAD, 'deconv_layers.6.weight'), 'lacks 1 of 145'),
        (resnet, hrnet_names(6, 4), r'lacks \d+ of 145 tensors of this backbone'),
        (hrnet, hrnet_names(8, 4), r'transition1\.0\.0\.weight is 8x16x3x3, expected 6x16x3x3'),
        (hrnet, SLIM_RESNET, r'lacks \d+ of \d+ tensors of this backbone'),
        (LiteTrunk, SLIM_RESNET, r'lacks \d+ of \d+ tensors of this backbone'),
        (resnet, {}, 'lacks 130 of 145'),
    ],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, make: Callable[[], Backbone], shapes: Shapes, message: str
) -> None:
    trunk = make()
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    path = store(tmp_path / 'other.pth', filled(shapes))
    with pytest.raises(PublishedWeightsError, match=f'other.pth: .*{message}.*; give a'):
        load_published(trunk, path)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


class Foreign:
    """An object that only its author's program can read."""


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize(
    'content', [b'', b'PK\x03\x04 cut short', b'<html>', pickle.dumps([1, 2])], ids=range(4)
)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f'broken{suffix}'
    path.write_bytes(content)
    with pytest.raises(PublishedWeightsError, match=r'^\S*broken\S+: .*; ') as caught:
        load_published(resnet(), path)
    assert '\n' not in str(caught.value)


def test_a_checkpoint_with_foreign_objects_is_not_run(tmp_path: Path) -> None:
    path = store(tmp_path / 'objects.pth', {'state_dict': filled(SLIM_RESNET), 'by': Foreign()})
    with pytest.raises(PublishedWeightsError, match=r'no checkpoint of tensors alone.*safetens'):
        load_published(resnet(), path)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PublishedWeightsError, match=r'none\.pth: no such file; give the path'):
        load_published(resnet(), tmp_path / 'none.pth')
