"""Attention mask generation (paper III-B2): per-joint 2D heat maps and the mask they make."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

JointMaps = Float[Tensor, 'batch joints height width']


class AttentionHeads(nn.Module):
    """Heat maps at three receptive fields (1x1, 3x3 dilated by 2 and by 3), summed and fused."""

    def __init__(self, channels_in: int, joints: int) -> None:
        super().__init__()
        self.pixel = nn.Conv2d(channels_in, joints, 1)
        self.thin = nn.Conv2d(channels_in, joints, 3, padding=2, dilation=2)
        self.wide = nn.Conv2d(channels_in, joints, 3, padding=3, dilation=3)
        self.fuse = nn.Conv2d(joints, joints, 1)
        nn.init.eye_(self.fuse.weight.data[:, :, 0, 0])

    def forward(self, features: Float[Tensor, 'batch channels height width']) -> JointMaps:
        """Logits of each joint's position in the view."""
        out: Tensor = self.fuse(self.pixel(features) + self.thin(features) + self.wide(features))
        return out


def attention_mask(logits: JointMaps) -> Float[Tensor, 'batch 1 height width']:
    """Spatial softmax per joint, summed over the joints, times H W / 64 (64 at 64x64).

    The bare sum is about 0.004 a pixel, so small that the next BatchNorm's variance would drown
    in its epsilon; the factor is independent of the input size because it grows with the area.
    """
    height, width = logits.shape[-2:]
    probability = torch.softmax(logits.flatten(2).float(), dim=-1)
    return probability.sum(1).view(-1, 1, height, width) * (height * width / 64)
