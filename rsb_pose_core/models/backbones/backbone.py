"""What every backbone takes and gives, and how it sees colours."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

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


class Backbone(nn.Module):
    """RGB 0..1 (B,3,H,W), H and W multiples of 32 -> features (B,channels_out,H/4,W/4)."""

    channels_out: int
