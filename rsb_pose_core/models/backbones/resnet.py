"""SimpleBaseline on ResNet-50 and ResNet-152 (Xiao et al., ECCV 2018)."""

from torch import Tensor, nn

from rsb_pose_core.models.backbones.backbone import Backbone, Features, Image, ImageNorm
from rsb_pose_core.models.layers import conv2d_unit


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


class ResNetTrunk(Backbone):
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
