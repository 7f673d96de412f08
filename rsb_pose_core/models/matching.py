"""What two views are compared by at twice the heat map's size (beyond the paper).

Disparities inside a person differ by less than a heat-map pixel; features at a stride of 2 see
half of one without interpolation.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.models.backbones import Backbone
from rsb_pose_core.models.layers import conv2d_unit

Features = Float[Tensor, 'batch channels height width']
Fine = Float[Tensor, 'batch fine_channels fine_height fine_width']
HalfFeatures = Float[Tensor, 'batch matching half_height half_width']


class HalfMatching(nn.Module):
    """Matching features at half the image's size: where things are from features of that size,
    what they are from the backbone's own at a quarter.

    The first are the backbone's where it hands them on (`channels_half`), else a convolution's.
    """

    def __init__(self, trunk: Backbone, channels_out: int, width: int = 16) -> None:
        super().__init__()
        handed_on = trunk.channels_half
        self.detail = (
            conv2d_unit(handed_on, width, 1) if handed_on else conv2d_unit(3, width, 3, 2)
        )
        self.context = nn.Conv2d(trunk.channels_out, width, 1)
        self.mix = conv2d_unit(width, width)
        self.out = nn.Conv2d(width, channels_out, 1)

    def forward(self, fine: Fine, features: Features) -> HalfFeatures:
        """fine: what the backbone handed on, or the image."""
        context = functional.interpolate(self.context(features), scale_factor=2, mode='nearest')
        out: Tensor = self.out(self.mix(functional.relu(self.detail(fine) + context)))
        return out
