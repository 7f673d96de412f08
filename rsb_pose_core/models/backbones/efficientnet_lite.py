"""EfficientNet-Lite0, a small backbone whose ImageNet weights are published (Apache-2.0).

Tan and Le 2019, as Google's `efficientnet/lite`: no squeeze-and-excitation, ReLU6, a stem and a
head that do not scale. Names follow the published PyTorch checkpoints without their leading
underscores, so that load_published() finds them.
"""

from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.models.backbones.backbone import (
    Features,
    HalfFeatures,
    Image,
    ImageNorm,
)
from rsb_pose_core.models.backbones.pyramid import PyramidBackbone
from rsb_pose_core.models.layers import without_autocast

# (blocks, kernel, stride of the first block, expansion, channels out) of each stage
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32
TAPPED = (1, 2, 4, 6)  # stages whose last maps, at strides 4, 8, 16 and 32, feed the pyramid
PIXEL_MEAN, PIXEL_STD = (127 / 255,) * 3, (128 / 255,) * 3  # of RGB 0..1, as in its training


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """With the epsilon and momentum of its training."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SameConv2d(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME: an odd row or column goes to the end."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, bias=False)
        before = (kernel - stride) // 2  # for sizes that the stride divides
        after = kernel - stride - before
        self.margins = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self.margins))


class DepthwiseConv2d(nn.Conv2d):
    """One filter a channel, padded as SameConv2d."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        even = stride == 1
        padding = kernel // 2 if even else 0
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self.margins = None if even else (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        if self.margins is not None:
            x = functional.pad(x, self.margins)
        if x.device.type == 'cpu' and x.requires_grad:
            with without_autocast(x):  # its bfloat16 gradients take a CPU four times as long
                return super().forward(x.float()).to(x.dtype)
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; a shortcut where sizes allow (MobileNetV2)."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expands = expansion != 1
        self.shortcut = stride == 1 and channels_in == channels_out
        if self.expands:
            self.expand_conv = nn.Conv2d(channels_in, inner, 1, bias=False)
            self.bn0 = batch_norm(inner)
        self.depthwise_conv = DepthwiseConv2d(inner, kernel, stride)
        self.bn1 = batch_norm(inner)
        self.project_conv = nn.Conv2d(inner, channels_out, 1, bias=False)
        self.bn2 = batch_norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        out = functional.relu6(self.bn1(self.depthwise_conv(out)))
        projected: Tensor = self.bn2(self.project_conv(out))
        return x + projected if self.shortcut else projected


class EfficientNetLiteTrunk(PyramidBackbone):
    """EfficientNet-Lite0 up to its last block, and a feature pyramid back to stride 4."""

    def __init__(self, pyramid_channels: int = 64, channels_out: int = 48) -> None:
        widths = [STAGES[index][-1] for index in TAPPED]
        super().__init__(widths, pyramid_channels, channels_out)
        self.channels_half = STAGES[0][-1]
        self.norm = ImageNorm(PIXEL_MEAN, PIXEL_STD)
        self.conv_stem = SameConv2d(3, STEM, 3, 2)
        self.bn0 = batch_norm(STEM)
        self.blocks = nn.ModuleList()
        self._ends: list[int] = []  # blocks after which a stage of TAPPED is done
        width = STEM
        for index, (count, kernel, stride, expansion, out) in enumerate(STAGES):
            for number in range(count):
                step = stride if number == 0 else 1
                self.blocks.append(InvertedResidual(width, out, kernel, step, expansion))
                width = out
            if index in TAPPED:
                self._ends.append(len(self.blocks) - 1)

    def forward(self, image: Image) -> Features:
        """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> (B,channels_out,H/4,W/4)."""
        return self.forward_with_half(image)[0]

    def forward_with_half(self, image: Image) -> tuple[Features, HalfFeatures]:
        """As forward, and the first stage's features (B,16,H/2,W/2)."""
        x = functional.relu6(self.bn0(self.conv_stem(self.norm(image))))
        half = x = self.blocks[0](x)
        levels = []
        for index, block in enumerate(self.blocks[1:], 1):
            x = block(x)
            if index in self._ends:
                levels.append(x)
        return self.fuse(levels), half
