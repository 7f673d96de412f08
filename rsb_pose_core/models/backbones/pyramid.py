"""From features at several strides back to one map at stride 4."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.models.backbones.backbone import Backbone, Features
from rsb_pose_core.models.layers import conv2d_unit


class PyramidBackbone(Backbone):
    """A backbone with a feature pyramid on top (Lin et al. 2017): coarse maps are added."""

    def __init__(self, widths: Sequence[int], pyramid_channels: int, channels_out: int) -> None:
        """widths: channels at strides 4, 8, 16, ...."""
        super().__init__()
        self.channels_out = channels_out
        self.lateral = nn.ModuleList([nn.Conv2d(w, pyramid_channels, 1) for w in widths])
        self.smooth = nn.ModuleList(
            [conv2d_unit(pyramid_channels, pyramid_channels) for _ in widths[1:-1]]
            + [conv2d_unit(pyramid_channels, channels_out)]
        )

    def fuse(self, levels: Sequence[Tensor]) -> Features:
        """Maps at strides 4, 8, 16, ..., finest first -> (B,channels_out,H/4,W/4)."""
        coarse: Tensor = self.lateral[-1](levels[-1])
        for lateral, level, smooth in zip(
            self.lateral[-2::-1], levels[-2::-1], self.smooth, strict=True
        ):
            doubled = functional.interpolate(coarse, scale_factor=2, mode='nearest')
            coarse = smooth(functional.relu(doubled + lateral(level)))
        return coarse
