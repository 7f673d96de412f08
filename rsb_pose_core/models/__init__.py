"""Networks by name: `NETWORKS[name].build()` makes one with fresh weights.

RSB-Pose, the baselines of Tables I and II (a backbone's heat maps of each view, triangulated: -t)
and the rivals of learnable triangulation; `lite` is ours. `-wide` stands for the wide baseline
(H36M) with its larger range of disparities, `-unmasked` for no attention mask (Table III).
Beyond the paper: `-fine` for planes half a heat-map pixel apart, `-stride2` for matching
features at half the image's size, `-skip` for 2D log-probabilities added to the volume (`lite` has
them, `lite-noskip` not). `lite-efficientnet` begins with ImageNet's weights, `lite` from nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.models.algebraic import AlgebraicTriangulation, WeightedHeatmaps
from rsb_pose_core.models.backbones import BACKBONES, Backbone, ResNetTrunk
from rsb_pose_core.models.baseline import IndependentHeatmaps
from rsb_pose_core.models.layers import channels_last
from rsb_pose_core.models.pose_transformer import PoseTransformer
from rsb_pose_core.models.rsb_pose import CoKeypoints, RSBPose, StereoHeatmaps, co_keypoints
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.models.volume_networks import V2V, LiteVolume, StereoV2V
from rsb_pose_core.models.volumetric import VolumeHeatmaps, VolumetricTriangulation
from rsb_pose_core.skeleton import H36M_17

__all__ = [
    'METHODS',
    'NETWORKS',
    'AlgebraicTriangulation',
    'Architecture',
    'CoKeypoints',
    'IndependentHeatmaps',
    'Network',
    'PoseTransformer',
    'RSBPose',
    'StereoHeatmaps',
    'VolumeHeatmaps',
    'VolumetricTriangulation',
    'WeightedHeatmaps',
    'co_keypoints',
]

# Heat-map pixels (field of MHAD, and of H36M at 256 and 384 pixels).
SHORT_BASELINE = DisparityRange(-7, 8)
HALF_PIXEL_PLANES = DisparityRange(-8, 7.5, 0.5)
# By the stride of the matching features. Where planes are a pixel apart, two shifts at stride 2
# fall on each: the volume gets 8 channels either way.
MATCHING_GROUPS = {0: 0, 2: 4, 4: 8}
WIDE_BASELINE = {256: DisparityRange(-31, 32), 384: DisparityRange(-39, 40)}

PEAK_RADIUS = 5  # heat-map pixels

LITE_BACKBONES = ('lite', 'efficientnet-lite0')  # those of our slim networks

Network = RSBPose | IndependentHeatmaps | AlgebraicTriangulation | VolumetricTriangulation


@dataclass(frozen=True)
class Architecture:
    """A network of Tables I to III: method, backbone, side of its crops in pixels, switches."""

    method: str  # of METHODS
    backbone: str  # of BACKBONES
    input_size: int = 256
    disparities: DisparityRange = SHORT_BASELINE
    attention_mask: bool = True
    matching_stride: int = 0  # of features whose correlations join the volume: 4, 2; 0: none
    heatmap_skip: bool = False  # 2D log-probabilities added to the volume
    peak_radius: int | None = None  # heat-map pixels; None: keypoints are means of whole maps

    def build(self) -> Network:
        """The network with fresh weights."""
        trunk = BACKBONES[self.backbone]()
        model = METHODS[self.method](trunk, self)
        if self.backbone in LITE_BACKBONES:
            channels_last(model)
        return model


def _rsb_pose(trunk: Backbone, architecture: Architecture) -> Network:
    joints, disparities = len(H36M_17), architecture.disparities
    stride = architecture.matching_stride
    groups = MATCHING_GROUPS[stride]
    switches: dict[str, Any] = {
        'matching_channels': 32 if groups else 0,
        'matching_stride': stride,
        'attention_mask': architecture.attention_mask,
        'heatmap_skip': architecture.heatmap_skip,
        'peak_radius': architecture.peak_radius,
    }
    if architecture.backbone in LITE_BACKBONES:
        lite = LiteVolume(
            16, joints, disparities, correlation_groups=groups, matching_stride=stride
        )
        return RSBPose(trunk, (16,), lite, disparities, joints, **switches)
    if stride == 4:
        raise ConfigError('V2V takes matching features at a stride of 2, not 4; give 2, or 0')
    channels = 2 * 16 + groups * round(2 * disparities.step)
    network = StereoV2V(V2V(channels, joints, levels=4), disparities, groups)
    return RSBPose(trunk, (32, 16), network, disparities, joints, **switches)


def _triangulation(trunk: Backbone, architecture: Architecture) -> Network:
    return IndependentHeatmaps(
        trunk,
        architecture.disparities,
        len(H36M_17),
        multi_scale=architecture.backbone in MULTI_SCALE_BASELINES,
        peak_radius=architecture.peak_radius,
    )


def _algebraic(trunk: Backbone, architecture: Architecture) -> Network:
    if not isinstance(trunk, ResNetTrunk):
        raise ConfigError(
            f'Algebraic-T reads confidences from a ResNet, not from {architecture.backbone}; give '
            f'a ResNet as the backbone'
        )
    return AlgebraicTriangulation(trunk, len(H36M_17))


def _volumetric(trunk: Backbone, architecture: Architecture) -> Network:
    """As published; behind a slim trunk a 3D network that costs about what LiteVolume does."""
    joints = len(H36M_17)
    if architecture.backbone in LITE_BACKBONES:
        slim = V2V(16, joints, levels=4, width=8)
        return VolumetricTriangulation(trunk, slim, joints, H36M_17.root, cells=32)
    return VolumetricTriangulation(trunk, V2V(32, joints, levels=5), joints, H36M_17.root)


METHODS: dict[str, Callable[[Backbone, Architecture], Network]] = {
    'rsb-pose': _rsb_pose,
    'triangulation': _triangulation,
    'algebraic': _algebraic,
    'volumetric': _volumetric,
}

# The paper's counts of HRNet-W32 + T hold the attention heads (28.546 M parameters, else 28.536),
# those of HRNet-W48 + T a single 1x1 head (63.596, else 63.611) as those of ResNet + T.
MULTI_SCALE_BASELINES = (*LITE_BACKBONES, 'hrnet-w32')

PAPER_BACKBONES = {'resnet50': 256, 'hrnet-w32': 256, 'resnet152': 384, 'hrnet-w48': 384}


def _architectures() -> dict[str, Architecture]:
    lite = Architecture('rsb-pose', 'lite', matching_stride=4, heatmap_skip=True)
    efficientnet = replace(
        lite, backbone='efficientnet-lite0', matching_stride=2, peak_radius=PEAK_RADIUS
    )
    made = {
        'lite': lite,
        'lite-wide': replace(lite, disparities=WIDE_BASELINE[256]),
        'lite-unmasked': replace(lite, attention_mask=False),
        'lite-noskip': replace(lite, heatmap_skip=False),
        'lite-fine': replace(lite, disparities=HALF_PIXEL_PLANES),
        'lite-stride2': replace(lite, matching_stride=2),
        'lite-fine-stride2': replace(lite, disparities=HALF_PIXEL_PLANES, matching_stride=2),
        'lite-baseline': Architecture('triangulation', 'lite'),
        'lite-efficientnet': efficientnet,
        'lite-efficientnet-stride4': replace(efficientnet, matching_stride=4),
        'lite-efficientnet-unmasked': replace(efficientnet, attention_mask=False),
        'lite-efficientnet-baseline': replace(efficientnet, method='triangulation'),
        'lite-efficientnet-volume-t': replace(efficientnet, method='volumetric'),
    }
    for backbone, size in PAPER_BACKBONES.items():
        short = Architecture('rsb-pose', backbone, size)
        made[f'rsb-pose-{backbone}'] = short
        made[f'rsb-pose-{backbone}-wide'] = replace(short, disparities=WIDE_BASELINE[size])
        made[f'rsb-pose-{backbone}-unmasked'] = replace(short, attention_mask=False)
        made[f'{backbone}-t'] = replace(short, method='triangulation')
    resnet50 = made['rsb-pose-resnet50']
    made['rsb-pose-resnet50-skip'] = replace(resnet50, heatmap_skip=True)
    made['rsb-pose-resnet50-fine'] = replace(resnet50, disparities=HALF_PIXEL_PLANES)
    made['rsb-pose-resnet50-stride2'] = replace(resnet50, matching_stride=2)
    for method, name in (('algebraic', 'algebraic-t'), ('volumetric', 'volume-t')):
        made[name] = Architecture(method, 'resnet152', 384)
        made[f'{name}-resnet50'] = Architecture(method, 'resnet50')
    return made


# By the names that configurations and weights use.
NETWORKS: dict[str, Architecture] = _architectures()
