"""3D networks that turn two views' features into co-heatmap logits."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.models.layers import BasicBlock3d, conv3d_unit, without_autocast
from rsb_pose_core.models.stereo_volume import (
    DisparityRange,
    View,
    Volume,
    groupwise_correlation,
    half_pixel_correlation,
    shift_sum,
    stereo_volume,
)

MatchingView = Float[Tensor, 'batch matching matching_height matching_width']
CoHeatmap = Float[Tensor, 'batch joints depth height width']


class LiteVolume(nn.Module):
    """Small U-Net over the stereo volume, which is never built.

    The first convolution of the concatenated volume is one 2D convolution of each view, summed
    over the shifts; group-wise correlations of the views' matching features join it. Then a
    (1,2,2) stride, a U-Net of three levels, and depth-to-space back to full resolution.

    Half-pixel planes cost little: the stride is 2 along them as well, so that the U-Net sees
    planes at whole pixels. Matching features have a stride of 4, or 2 (`matching_stride`).
    """

    def __init__(
        self,
        channels_in: int,
        joints: int,
        disparities: DisparityRange,
        channels: int = 16,
        correlation_groups: int = 8,
        kernel: int = 5,
        matching_stride: int = 4,
    ) -> None:
        super().__init__()
        c, wide = channels, 2 * kernel - 1
        self.joints, self.disparities, self.groups = joints, disparities, correlation_groups
        self.matching_stride, self.whole = matching_stride, disparities.whole()
        self.in_plane = round(1 / disparities.step)  # planes of the volume in one of the U-Net
        correlations = correlation_groups * (2 if matching_stride == 2 else 1)
        self.left = nn.Conv2d(channels_in, c, kernel, padding=kernel // 2)
        self.right = nn.Conv2d(
            channels_in, c, (kernel, wide), padding=(kernel // 2, wide // 2), bias=False
        )
        self.norm = nn.BatchNorm3d(c)
        self.down = conv3d_unit(c, c, 3, (self.in_plane, 2, 2))
        self.fine = BasicBlock3d(c + correlations, c)
        self.middle = BasicBlock3d(c, 2 * c)
        self.coarse = BasicBlock3d(2 * c, 4 * c)
        self.up_middle = nn.ConvTranspose3d(4 * c, 2 * c, 2, 2)
        self.refine_middle = BasicBlock3d(2 * c, 2 * c)
        self.up_fine = nn.ConvTranspose3d(2 * c, c, 2, 2)
        self.refine_fine = BasicBlock3d(c, c)
        self.out = nn.Conv3d(c, 4 * self.in_plane * joints, 1)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]
        self.out.weight.data *= 0.2  # start near the 2D log-probabilities

    def forward(
        self, left: View, right: View, match_left: MatchingView, match_right: MatchingView
    ) -> CoHeatmap:
        """Masked features of both views and their matching features (unused without groups)."""
        summed = shift_sum(self.left(left), self.right(right), self.disparities)
        volume = self.down(functional.relu(self.norm(summed)))  # B C D H/2 W/2
        if self.groups:
            correlation = self._correlation(match_left, match_right)
            volume = torch.cat([volume, correlation.to(volume.dtype)], 1)
        fine = self.fine(volume.contiguous(memory_format=torch.channels_last_3d))
        middle = self.middle(functional.max_pool3d(fine, 2))
        coarse = self.coarse(functional.max_pool3d(middle, 2))
        middle = self.refine_middle(functional.relu(middle + self.up_middle(coarse)))
        fine = self.refine_fine(functional.relu(fine + self.up_fine(middle)))
        out: Tensor = self.out(fine)
        batch, _, depth, height, width = out.shape
        blocks = out.reshape(batch, self.joints, self.in_plane, 2, 2, depth, height, width)
        blocks = blocks.permute(0, 1, 5, 2, 6, 3, 7, 4)  # B J D/in_plane in_plane H/2 2 W/2 2
        return blocks.reshape(batch, self.joints, -1, 2 * height, 2 * width)

    def _correlation(self, left: MatchingView, right: MatchingView) -> Volume:
        """At the U-Net's planes and cells, eight image pixels wide."""
        if self.matching_stride == 2:
            return half_pixel_correlation(left, right, self.whole, self.groups, cell=4)
        # Between whole pixels these are means of their neighbours and would say nothing new.
        return groupwise_correlation(left, right, self.whole, self.groups, step=2)


class V2V(nn.Module):
    """V2V as learnable triangulation has it: a U-Net with residual skips (B,C,D,H,W) -> logits.

    `levels` halvings of the volume, 4 in RSB-Pose and 5 in Volume-T; `width` channels at full
    size, at most four times as many below.
    """

    def __init__(self, channels_in: int, joints: int, levels: int, width: int = 32) -> None:
        super().__init__()
        self.channels_in = channels_in
        self.front = nn.Sequential(
            conv3d_unit(channels_in, width // 2, 7, bias=True),
            BasicBlock3d(width // 2, width, bias=True),
            BasicBlock3d(width, width, bias=True),
            BasicBlock3d(width, width, bias=True),
        )
        widths = (width, 2 * width, *[4 * width] * (levels - 1))
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.encoders = nn.ModuleList([BasicBlock3d(a, b, bias=True) for a, b in pairs])
        self.skips = nn.ModuleList([BasicBlock3d(a, a, bias=True) for a, _ in pairs])
        self.middle = BasicBlock3d(widths[-1], widths[-1], bias=True)
        self.decoders = nn.ModuleList([BasicBlock3d(b, b, bias=True) for _, b in pairs])
        self.upsamplers = nn.ModuleList(
            [
                nn.Sequential(
                    nn.ConvTranspose3d(b, a, 2, 2), nn.BatchNorm3d(a), nn.ReLU(inplace=True)
                )
                for a, b in pairs
            ]
        )
        self.back = nn.Sequential(
            BasicBlock3d(width, width, bias=True),
            conv3d_unit(width, width, 1, bias=True),
            conv3d_unit(width, width, 1, bias=True),
        )
        self.out = nn.Conv3d(width, joints, 1)

    def forward(self, volume: Volume) -> CoHeatmap:
        """Sizes are multiples of 2^levels."""
        x = self.front(volume)
        kept = []
        for encoder, skip in zip(self.encoders, self.skips, strict=True):
            kept.append(skip(x))
            x = encoder(functional.max_pool3d(x, 2))
        x = self.middle(x)
        for decoder, upsampler, skipped in zip(
            reversed(self.decoders), reversed(self.upsamplers), reversed(kept), strict=True
        ):
            x = upsampler(decoder(x)) + skipped
        x = self.back(x)
        with without_autocast(x):  # bf16 logits move joints by 4 mm
            out: Tensor = self.out(x.float())
        return out


class StereoV2V(nn.Module):
    """V2V over the stereo volume of two views (paper III-B3).

    `correlation_groups` above 0 add correlations of matching features at a stride of 2: so many
    channels, twice as many where planes are a whole pixel apart (beyond the paper).
    """

    def __init__(
        self, network: V2V, disparities: DisparityRange, correlation_groups: int = 0
    ) -> None:
        super().__init__()
        self.network, self.disparities, self.groups = network, disparities, correlation_groups

    def forward(
        self, left: View, right: View, match_left: MatchingView, match_right: MatchingView
    ) -> CoHeatmap:
        """Masked features of both views; the reference network has no matching features."""
        volume = stereo_volume(left, right, self.disparities)
        if self.groups:
            correlation = half_pixel_correlation(
                match_left, match_right, self.disparities, self.groups, cell=2
            )
            volume = torch.cat([volume, correlation.to(volume.dtype)], 1)
        logits: Tensor = self.network(volume)
        return logits
