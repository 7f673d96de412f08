"""SimpleBaseline on ResNet-50 and ResNet-152 (Xiao et al., ECCV 2018).

Parameters are named as in torchvision's ResNet (conv1, bn1, layer1.0.conv1, ...,
layer1.0.downsample.0) and SimpleBaseline's head (deconv_layers.0, ...), so that published
checkpoints fit as they are.
"""

from jaxtyping import Float
from torch import Tensor, nn

from rsb_pose_core.models.backbones.backbone import (
    Backbone,
    Features,
    HalfFeatures,
    Image,
    ImageNorm,
    he_convolutions,
)

Deep = Float[Tensor, 'batch deep_channels deep_height deep_width']


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with four times as many channels at the end, and a shortcut."""

    def __init__(self, channels_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        channels_out = 4 * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        out: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return out


def bottlenecks(channels_in: int, width: int, count: int, stride: int = 1) -> nn.Sequential:
    """A stage of `count` blocks, the first of which changes channels and size."""
    later = (Bottleneck(4 * width, width) for _ in range(count - 1))
    return nn.Sequential(Bottleneck(channels_in, width, stride), *later)


class ResNetTrunk(Backbone):
    """SimpleBaseline: ResNet and three 4x4 transposed convolutions, back to stride 4.

    blocks: of the four stages, (3, 4, 6, 3) for ResNet-50; width: channels of the stem (64);
    deep_channels: of the features at stride 32, before the transposed convolutions (2048).
    """

    def __init__(
        self, blocks: tuple[int, int, int, int], width: int = 64, channels_out: int = 256
    ) -> None:
        super().__init__()
        self.channels_out = channels_out
        self.channels_half = width
        self.deep_channels = 32 * width
        self.norm = ImageNorm()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = bottlenecks(width, width, blocks[0])
        self.layer2 = bottlenecks(4 * width, 2 * width, blocks[1], stride=2)
        self.layer3 = bottlenecks(8 * width, 4 * width, blocks[2], stride=2)
        self.layer4 = bottlenecks(16 * width, 8 * width, blocks[3], stride=2)
        self.deconv_layers = nn.Sequential(
            *_deconvolution(self.deep_channels, channels_out),
            *_deconvolution(channels_out, channels_out),
            *_deconvolution(channels_out, channels_out),
        )
        he_convolutions(self)

    def forward(self, image: Image) -> Features:
        """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> (B,channels_out,H/4,W/4)."""
        features, _ = self.forward_with_deep(image)
        return features

    def forward_with_deep(self, image: Image) -> tuple[Features, Deep]:
        """As forward, and the features (B,deep_channels,H/32,W/32) that it was made of."""
        return self._after_stem(self._stem(image))

    def forward_with_half(self, image: Image) -> tuple[Features, HalfFeatures]:
        """As forward, and the stem's features (B,width,H/2,W/2)."""
        half = self._stem(image)
        return self._after_stem(half)[0], half

    def _stem(self, image: Image) -> HalfFeatures:
        half: Tensor = self.relu(self.bn1(self.conv1(self.norm(image))))
        return half

    def _after_stem(self, half: HalfFeatures) -> tuple[Features, Deep]:
        x = self.maxpool(half)
        deep: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features: Tensor = self.deconv_layers(deep)
        return features, deep


def _deconvolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    """Twice the size: transposed convolution, BatchNorm and ReLU."""
    return [
        nn.ConvTranspose2d(channels_in, channels_out, 4, 2, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]
