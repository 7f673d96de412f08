"""2D trunks: an RGB image in, features at a quarter of its size out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.models.layers import BasicBlock2d, conv2d_unit

Image = Float[Tensor, 'batch 3 height width']
Features = Float[Tensor, 'batch channels quarter_height quarter_width']

# Mean and spread of RGB photographs, applied inside the network: callers pass 0..1.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class ImageNorm(nn.Module):
    """Shift and scale RGB 0..1 to zero mean and unit spread."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(IMAGE_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Image) -> Image:
        return (image - self.mean) / self.std


class LiteTrunk(nn.Module):
    """Slim ResNet-18 behind an 8x8 stride-4 stem, and a feature pyramid back to stride 4."""

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128, 256),
        pyramid_channels: int = 64,
        channels_out: int = 48,
    ) -> None:
        super().__init__()
        self.channels_out = channels_out
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
        self.lateral = nn.ModuleList([nn.Conv2d(w, pyramid_channels, 1) for w in widths])
        self.smooth = nn.ModuleList(
            [conv2d_unit(pyramid_channels, pyramid_channels) for _ in widths[1:-1]]
            + [conv2d_unit(pyramid_channels, channels_out)]
        )

    def forward(self, image: Image) -> Features:
        """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> (B,48,H/4,W/4)."""
        x = self.stem(self.norm(image))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        coarse = self.lateral[-1](levels[-1])
        for lateral, level, smooth in zip(
            self.lateral[-2::-1], levels[-2::-1], self.smooth, strict=True
        ):
            doubled = functional.interpolate(coarse, scale_factor=2, mode='nearest')
            coarse = smooth(functional.relu(doubled + lateral(level)))
        features: Tensor = coarse
        return features


class Bottleneck(nn.Module):
    """ResNet-50's block: 1x1, 3x3, 1x1 with four times as many channels at the end."""

    def __init__(self, channels_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        channels_out = 4 * width
        self.body = nn.Sequential(
            conv2d_unit(channels_in, width, 1),
            conv2d_unit(width, width, 3, stride),
            conv2d_unit(width, channels_out, 1, relu=False),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else conv2d_unit(channels_in, channels_out, 1, stride, relu=False)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class ResNetTrunk(nn.Module):
    """SimpleBaseline: ResNet and three 4x4 transposed convolutions of 256 channels, stride 4."""

    channels_out = 256

    def __init__(self, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.norm = ImageNorm()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        layers: list[nn.Module] = []
        channels = 64
        for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True)):
            for block in range(count):
                layers.append(Bottleneck(channels, width, 2 if stage > 0 and block == 0 else 1))
                channels = 4 * width
        self.body = nn.Sequential(*layers)
        deconvolutions: list[nn.Module] = []
        for _ in range(3):
            deconvolutions += [
                nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False),
                nn.BatchNorm2d(256),
                nn.ReLU(inplace=True),
            ]
            channels = 256
        self.deconvolutions = nn.Sequential(*deconvolutions)

    def forward(self, image: Image) -> Features:
        """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> (B,256,H/4,W/4)."""
        out: Tensor = self.deconvolutions(self.body(self.stem(self.norm(image))))
        return out
