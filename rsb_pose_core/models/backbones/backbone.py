"""What every backbone takes and gives, how it sees colours and how its weights begin."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

Image = Float[Tensor, 'batch 3 height width']
Features = Float[Tensor, 'batch channels quarter_height quarter_width']
HalfFeatures = Float[Tensor, 'batch half_channels half_height half_width']

# Mean and spread of RGB photographs, applied inside the network: callers pass 0..1.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class ImageNorm(nn.Module):
    """Shift and scale RGB 0..1 to zero mean and unit spread."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGE_MEAN,
        std: tuple[float, float, float] = IMAGE_STD,
    ) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Image) -> Image:
        return (image - self.mean) / self.std


class Backbone(nn.Module):
    """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> features (B,channels_out,H/4,W/4)."""

    channels_out: int
    channels_half = 0  # of what forward_with_half hands on; 0: it has no such features

    def forward_with_half(self, image: Image) -> tuple[Features, HalfFeatures]:
        """As forward, and features (B,channels_half,H/2,W/2) from on the way there."""
        raise NotImplementedError


def he_convolutions(module: nn.Module) -> None:
    """Weights of ResNet's and HRNet's ImageNet training: He's normal, fan-out, for convolutions.

    SimpleBaseline and HRNet's pose training fill what ImageNet lacks with a deviation of 0.001.
    Behind a BatchNorm the scale does not change what comes out, but a step of Adam at 1e-3 would
    be as large as such a weight. So transposed convolutions get He's deviation as well, by the
    kernel taps / stride^2 of each input channel that meet in one output pixel.
    """
    for layer in module.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            taps = math.prod(layer.kernel_size) / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / (layer.in_channels * taps)))
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
