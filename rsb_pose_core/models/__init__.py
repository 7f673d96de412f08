"""Networks by name: `MODELS[name]()` builds one with fresh weights."""

from collections.abc import Callable

import torch
from torch import nn

from rsb_pose_core.models.baseline import IndependentHeatmaps
from rsb_pose_core.models.pose_transformer import PoseTransformer
from rsb_pose_core.models.rsb_pose import CoKeypoints, RSBPose, StereoHeatmaps, co_keypoints
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.models.trunks import LiteTrunk, ResNetTrunk
from rsb_pose_core.models.volume_networks import V2V, LiteVolume
from rsb_pose_core.skeleton import H36M_17

__all__ = [
    'BASELINES',
    'MODELS',
    'NETWORKS',
    'CoKeypoints',
    'IndependentHeatmaps',
    'Network',
    'PoseTransformer',
    'RSBPose',
    'StereoHeatmaps',
    'co_keypoints',
    'lite',
    'lite_baseline',
    'resnet50',
]

SHORT_BASELINE = DisparityRange(-7, 8)


def _channels_last(model: nn.Module) -> None:
    """Lay convolution weights out as the CPU's and tensor cores' kernels read them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.contiguous(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            weight = module.weight.contiguous(memory_format=torch.channels_last_3d)
            module.weight.data = weight


def lite(*, correlation_groups: int = 8, heatmap_skip: bool = True) -> RSBPose:
    """Our network for CPUs and embedded GPUs, short baselines, 256x256 (or 128x128) crops."""
    trunk, joints = LiteTrunk(), len(H36M_17)
    volume = LiteVolume(16, joints, SHORT_BASELINE, correlation_groups=correlation_groups)
    model = RSBPose(
        trunk,
        trunk.channels_out,
        (16,),
        volume,
        SHORT_BASELINE,
        joints,
        matching_channels=4 * correlation_groups,
        heatmap_skip=heatmap_skip,
    )
    _channels_last(model)
    return model


def resnet50() -> RSBPose:
    """RSB-Pose-ResNet50 of the paper, in its short-baseline setting (MHAD: 16 disparities)."""
    joints = len(H36M_17)
    return RSBPose(
        ResNetTrunk((3, 4, 6, 3)),
        ResNetTrunk.channels_out,
        (32, 16),
        V2V(joints, SHORT_BASELINE),
        SHORT_BASELINE,
        joints,
        heatmap_skip=False,
    )


def lite_baseline() -> IndependentHeatmaps:
    """Two independent views on the lite trunk."""
    trunk = LiteTrunk()
    model = IndependentHeatmaps(trunk, trunk.channels_out, SHORT_BASELINE, len(H36M_17))
    _channels_last(model)
    return model


MODELS: dict[str, Callable[[], RSBPose]] = {'lite': lite, 'resnet50': resnet50}
BASELINES: dict[str, Callable[[], IndependentHeatmaps]] = {'lite': lite_baseline}

Network = RSBPose | IndependentHeatmaps
# By the names that configurations and weights use: 'lite', 'resnet50', 'lite-baseline'.
NETWORKS: dict[str, Callable[[], Network]] = {
    **MODELS,
    **{f'{name}-baseline': make for name, make in BASELINES.items()},
}
