"""2D backbones by name: an RGB image in, features at a quarter of its size out."""

from collections.abc import Callable
from functools import partial

from rsb_pose_core.models.backbones.backbone import Backbone
from rsb_pose_core.models.backbones.efficientnet_lite import EfficientNetLiteTrunk
from rsb_pose_core.models.backbones.hrnet import HRNetTrunk
from rsb_pose_core.models.backbones.lite import LiteTrunk
from rsb_pose_core.models.backbones.published import load_published
from rsb_pose_core.models.backbones.resnet import ResNetTrunk

__all__ = [
    'BACKBONES',
    'Backbone',
    'EfficientNetLiteTrunk',
    'HRNetTrunk',
    'LiteTrunk',
    'ResNetTrunk',
    'load_published',
]

BACKBONES: dict[str, Callable[[], Backbone]] = {
    'lite': LiteTrunk,
    'efficientnet-lite0': EfficientNetLiteTrunk,
    'resnet50': partial(ResNetTrunk, (3, 4, 6, 3)),
    'resnet152': partial(ResNetTrunk, (3, 8, 36, 3)),
    'hrnet-w32': partial(HRNetTrunk, 32),
    'hrnet-w48': partial(HRNetTrunk, 48),
}
