"""Our slim backbone for embedded CPUs, trained from scratch."""

from torch import nn

from rsb_pose_core.models.backbones.backbone import Features, Image, ImageNorm
from rsb_pose_core.models.backbones.pyramid import PyramidBackbone
from rsb_pose_core.models.layers import BasicBlock2d


class LiteTrunk(PyramidBackbone):
    """Slim ResNet-18 behind an 8x8 stride-4 stem, and a feature pyramid back to stride 4."""

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 256),
        pyramid_channels: int = 64,
        channels_out: int = 48,
    ) -> None:
        super().__init__(widths, pyramid_channels, channels_out)
        self.norm = ImageNorm()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 8, 4, 2, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.stages = nn.ModuleList()
        for i, width in enumerate(widths):
            narrower = widths[max(i - 1, 0)]
            self.stages.append(
                nn.Sequential(
                    BasicBlock2d(narrower, width, 1 if i == 0 else 2), BasicBlock2d(width, width)
                )
            )

    def forward(self, image: Image) -> Features:
        """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> (B,48,H/4,W/4)."""
        x = self.stem(self.norm(image))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return self.fuse(levels)
