"""The comparison every claim needs: each view by itself, then triangulation."""

import torch
from torch import nn

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.models.attention import AttentionHeads
from rsb_pose_core.models.backbones import Backbone
from rsb_pose_core.models.estimate import Image
from rsb_pose_core.models.rsb_pose import StereoHeatmaps
from rsb_pose_core.models.stereo_volume import DisparityRange


class IndependentHeatmaps(nn.Module):
    """2D heat maps of each view; the views never meet (ResNet+T and HRNet+T of Tables I, II).

    `multi_scale` takes RSB-Pose's attention heads, with which HRNet-W32 + T has the paper's
    counts; ResNet + T and HRNet-W48 + T have one 1x1 convolution (paper IV-D1). `peak_radius` as
    in RSBPose.
    """

    def __init__(
        self,
        trunk: Backbone,
        disparities: DisparityRange,
        joints: int,
        *,
        multi_scale: bool,
        peak_radius: int | None = None,
    ) -> None:
        super().__init__()
        self.peak_radius = peak_radius
        self.joints, self.disparities = joints, disparities
        self.trunk = trunk
        self.attention = (  # the heads' name in weights, whichever they are
            AttentionHeads(trunk.channels_out, joints)
            if multi_scale
            else nn.Conv2d(trunk.channels_out, joints, 1)
        )

    def forward(
        self,
        left: Image,
        right: Image,
        calibration: StereoCalibration | None = None,
        *,
        volume: bool = False,
    ) -> StereoHeatmaps:
        """As RSBPose.forward; there is no volume, whatever `volume` says."""
        images = torch.cat([left, right]).contiguous(memory_format=torch.channels_last)
        features = self.trunk(images)
        heatmap_left, heatmap_right = self.attention(features).float().chunk(2)
        features_left, features_right = features.chunk(2)
        return StereoHeatmaps(
            heatmap_left,
            heatmap_right,
            None,
            self.disparities,
            features_left,
            features_right,
            None if self.training else self.peak_radius,
        )
