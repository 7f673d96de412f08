"""Algebraic-T: triangulation with learned confidences (Iskakov et al., "Learnable Triangulation
of Human Pose", ICCV 2019, section 3.1).

Their heat maps are multiplied by 100 before the softmax because their heads were trained on blobs
of height 1. Here the heads learn logits; the factor is part of their weights.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.models.backbones import ResNetTrunk
from rsb_pose_core.models.estimate import Image, StereoEstimate
from rsb_pose_core.models.keypoints import estimate_views

JointMaps = Float[Tensor, 'batch joints height width']
Features = Float[Tensor, 'batch channels height width']

LEAST_CONFIDENCE = 1e-5  # views that count for nothing would leave the point undetermined


@dataclass(frozen=True)
class WeightedHeatmaps:
    """heatmap_left, heatmap_right: (B,J,H,W) logits in float32; weights: (B,J,2), how much each
    joint counts in the left and the right view, summing to 1; features_left, features_right:
    (B,C,H,W) of the trunk."""

    heatmap_left: JointMaps
    heatmap_right: JointMaps
    weights: Float[Tensor, 'batch joints 2']
    features_left: Features | None = None
    features_right: Features | None = None

    def estimate(self, calibration: StereoCalibration) -> StereoEstimate:
        """Each view's keypoints and their weighted triangulation."""
        return estimate_views(self.heatmap_left, self.heatmap_right, calibration, self.weights)


class ConfidenceHead(nn.Module):
    """How far each joint of a view is to be trusted, from the trunk's deepest features."""

    def __init__(self, channels_in: int, joints: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, narrower in ((channels_in, 512), (512, 256)):
            layers += [
                nn.Conv2d(channels, narrower, 3, padding=1),
                nn.BatchNorm2d(narrower),
                nn.MaxPool2d(2, ceil_mode=True),  # small crops have one cell here
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.mlp = nn.Sequential(
            nn.Linear(256, 512),
            nn.ReLU(inplace=True),
            nn.Linear(512, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, joints),
            nn.Sigmoid(),
        )

    def forward(self, deep: Features) -> Float[Tensor, 'batch joints']:
        """0..1 for each joint."""
        confidence: Tensor = self.mlp(self.convolutions(deep).mean((2, 3)))
        return confidence


class AlgebraicTriangulation(nn.Module):
    """Heat maps of each view from a 1x1 head, triangulated with confidences that are learned from
    the error in 3D alone."""

    def __init__(self, trunk: ResNetTrunk, joints: int) -> None:
        super().__init__()
        self.joints = joints
        self.trunk = trunk
        self.head = nn.Conv2d(trunk.channels_out, joints, 1)
        self.confidence = ConfidenceHead(trunk.deep_channels, joints)

    def forward(
        self,
        left: Image,
        right: Image,
        calibration: StereoCalibration | None = None,
        *,
        volume: bool = False,
    ) -> WeightedHeatmaps:
        """As StereoMethod; there is no volume, whatever `volume` says."""
        images = torch.cat([left, right]).contiguous(memory_format=torch.channels_last)
        features, deep = self.trunk.forward_with_deep(images)  # 2B C H W, 2B C' H/8 W/8
        heatmap_left, heatmap_right = self.head(features).float().chunk(2)
        confidence = torch.stack(self.confidence(deep).float().chunk(2), -1) + LEAST_CONFIDENCE
        weights = confidence / confidence.sum(-1, keepdim=True)  # B J 2
        return WeightedHeatmaps(heatmap_left, heatmap_right, weights, *features.chunk(2))
