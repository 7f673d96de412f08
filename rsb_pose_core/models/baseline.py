"""The comparison every claim needs: each view by itself, then triangulation."""

import torch
from torch import nn

from rsb_pose_core.models.attention import AttentionHeads
from rsb_pose_core.models.rsb_pose import Image, StereoHeatmaps
from rsb_pose_core.models.stereo_volume import DisparityRange


class IndependentHeatmaps(nn.Module):
    """2D heat maps of each view on RSB-Pose's trunk and heads; the views never meet."""

    def __init__(
        self, trunk: nn.Module, channels: int, disparities: DisparityRange, joints: int
    ) -> None:
        super().__init__()
        self.joints, self.disparities = joints, disparities
        self.trunk = trunk
        self.attention = AttentionHeads(channels, joints)

    def forward(self, left: Image, right: Image, *, volume: bool = False) -> StereoHeatmaps:
        """As RSBPose.forward; there is no volume, whatever `volume` says."""
        images = torch.cat([left, right]).contiguous(memory_format=torch.channels_last)
        heatmap_left, heatmap_right = self.attention(self.trunk(images)).float().chunk(2)
        return StereoHeatmaps(heatmap_left, heatmap_right, None, self.disparities)
