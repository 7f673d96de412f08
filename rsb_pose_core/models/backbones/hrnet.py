"""HRNet-W32 and HRNet-W48 (Sun et al., CVPR 2019): four resolutions that never stop talking.

Parameters are named as in the published network (conv1, bn1, conv2, bn2, layer1.0.conv1,
transition1.0.0, stage2.0.branches.0.0.conv1, stage2.0.fuse_layers.0.1.0, ...), so that its
checkpoints fit as they are.
"""

import torch
from torch import Tensor, nn

from rsb_pose_core.models.backbones.backbone import (
    Backbone,
    Features,
    Image,
    ImageNorm,
    he_convolutions,
)
from rsb_pose_core.models.backbones.resnet import bottlenecks
from rsb_pose_core.models.layers import conv2d_unit

BLOCKS_PER_BRANCH = 4


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(x)))
        out: Tensor = self.relu(self.bn2(self.conv2(inner)) + x)
        return out


class Fusion(nn.ModuleList):
    """One resolution as the sum of all: a module for each source, finest first."""

    def forward(self, views: list[Tensor]) -> Tensor:
        first, *others = (resample(view) for resample, view in zip(self, views, strict=True))
        return torch.relu(sum(others, first))


class Exchange(nn.Module):
    """Blocks at every resolution, then each output resolution sums all of them.

    widths: channels of the resolutions, finest first, each half the size of the one before;
    outputs: how many of the resolutions come back, finest first.
    """

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(BLOCKS_PER_BRANCH)))
            for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            Fusion(_resampling(widths, source, target) for source in range(len(widths)))
            for target in range(outputs)
        )

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        """(B,widths[i],H/2^i,W/2^i) each."""
        views = [branch(view) for branch, view in zip(self.branches, views, strict=True)]
        return [fuse(views) for fuse in self.fuse_layers]


def _resampling(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """Up by a 1x1 and the nearest pixel, down by a 3x3 of stride 2 for each halving."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            *conv2d_unit(widths[source], widths[target], 1, relu=False),
            nn.Upsample(scale_factor=2 ** (source - target), mode='nearest'),
        )
    return nn.Sequential(
        *(conv2d_unit(widths[source], widths[source], 3, 2) for _ in range(target - source - 1)),
        conv2d_unit(widths[source], widths[target], 3, 2, relu=False),
    )


class HRNetTrunk(Backbone):
    """HRNet up to its finest resolution, stride 4.

    width: channels of that resolution (32 or 48), doubled at each coarser one; stem_width:
    channels of the stem and of the first blocks (64).
    """

    def __init__(self, width: int, stem_width: int = 64) -> None:
        super().__init__()
        self.channels_out = width
        widths = (width, 2 * width, 4 * width, 8 * width)
        stem_out = 4 * stem_width
        self.norm = ImageNorm()
        self.conv1 = nn.Conv2d(3, stem_width, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.conv2 = nn.Conv2d(stem_width, stem_width, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = bottlenecks(stem_width, stem_width, 4)
        # A transition brings in one coarser resolution; the others stay as they are.
        self.transition1 = nn.ModuleList(
            [
                conv2d_unit(stem_out, widths[0]),
                nn.Sequential(conv2d_unit(stem_out, widths[1], 3, 2)),
            ]
        )
        self.stage2 = nn.Sequential(Exchange(widths[:2], 2))
        self.transition2 = _transition(widths[1], widths[2], kept=2)
        self.stage3 = nn.Sequential(*(Exchange(widths[:3], 3) for _ in range(4)))
        self.transition3 = _transition(widths[2], widths[3], kept=3)
        self.stage4 = nn.Sequential(Exchange(widths, 4), Exchange(widths, 4), Exchange(widths, 1))
        he_convolutions(self)

    def forward(self, image: Image) -> Features:
        """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> (B,width,H/4,W/4)."""
        x = self.relu(self.bn1(self.conv1(self.norm(image))))
        x = self.layer1(self.relu(self.bn2(self.conv2(x))))
        views = self.stage2([transition(x) for transition in self.transition1])
        views = self.stage3([*views, self.transition2[-1](views[-1])])
        views = self.stage4([*views, self.transition3[-1](views[-1])])
        features: Tensor = views[0]
        return features


def _transition(finer: int, coarser: int, kept: int) -> nn.ModuleList:
    """The resolutions there are, and one at half the size of the coarsest."""
    halved = nn.Sequential(conv2d_unit(finer, coarser, 3, 2))
    return nn.ModuleList([*(nn.Identity() for _ in range(kept)), halved])
