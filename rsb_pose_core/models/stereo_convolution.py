"""The first convolution over the stereo volume, which need not be built for it.

Inside the volume a 3D convolution of [left(h, w); right(h, w - dd)] is a 2D convolution of the
left view plus one of the right view shifted by dd, whose kernels differ only for the planes near
the first and the last disparity. What the 2D convolutions see beyond the shared columns is then
taken away: 11.5 GMAC become 3.5 at 16 disparities and 64x64 pixels.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.models.stereo_volume import DisparityRange, View, Volume, shifted_views
from rsb_pose_core.models.volume_networks import CoHeatmap, MatchingView, StereoV2V

_Filled = TypeVar('_Filled', nn.Conv2d, nn.Conv3d)


class StereoConvolution(nn.Module):
    """conv3d(stereo_volume(left, right, disparities)): odd cubic kernel, padded, stride 1."""

    def __init__(self, convolution: nn.Conv3d, disparities: DisparityRange) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), convolution.bias
        out, channels, size = weight.shape[:3]
        reach, depth = size // 2, len(disparities)
        self.disparities, self.reach = disparities, reach
        self.first, self.last = int(disparities.first), int(disparities.last)
        spans = [(max(-reach, -d), min(reach, depth - 1 - d)) for d in range(depth)]
        kinds = sorted(set(spans))
        self.kinds = [kinds.index(span) for span in spans]  # of each plane
        kernel_left, kernel_right = weight.split(channels // 2, 1)
        # tap i of depth sees the right view moved by i columns more
        moved = [functional.pad(kernel_right[:, :, i], (2 * reach - i, i)) for i in range(size)]
        left, right = [], []
        for first, last in kinds:
            taps = range(first + reach, last + reach + 1)
            left.append(torch.stack([kernel_left[:, :, i] for i in taps]).sum(0))
            right.append(torch.stack([moved[i] for i in taps]).sum(0))
        conv2d, conv3d = nn.Conv2d, nn.Conv3d
        half, sides = channels // 2, (reach, reach, 0)
        self.left = _filled(
            conv2d(half, out * len(kinds), size, padding=reach),
            torch.cat(left),
            weight.new_zeros(out * len(kinds))
            if bias is None
            else bias.detach().repeat(len(kinds)),
        )
        self.right = _filled(
            conv2d(half, out * len(kinds), (size, 4 * reach + 1), padding=(reach, 0), bias=False),
            torch.cat(right),
        )
        self.beyond_left, self.beyond_right = (
            _filled(conv3d(half, out, size, padding=sides, bias=False), kernel.contiguous())
            for kernel in (kernel_left, kernel_right)
        )

    def forward(self, left: View, right: View) -> Volume:
        """(B,C,H,W) of each view -> (B,channels_out,D,H,W)."""
        first, last, reach = self.first, self.last, self.reach
        width, kinds = left.shape[-1], max(self.kinds) + 1
        padded = functional.pad(right, (last + 2 * reach, 2 * reach - first))
        of_left = self.left(left).permute(0, 2, 3, 1).chunk(kinds, -1)  # B H W out each
        of_right = self.right(padded).permute(0, 2, 3, 1).chunk(kinds, -1)  # B H W+D-1 out
        planes = [
            of_left[kind] + of_right[kind][:, :, last - int(dd) :][:, :, :width]
            for kind, dd in zip(self.kinds, self.disparities.shifts(), strict=True)
        ]
        out = torch.stack(planes, 1).permute(0, 4, 1, 2, 3)  # B out D H W
        for strips, beyond in (
            (self._left_beyond(left), self.beyond_left),
            (self._right_beyond(padded, width), self.beyond_right),
        ):
            before, behind = strips
            start = beyond(functional.pad(before, (0, 2 * reach)))[..., :width]
            end = beyond(functional.pad(behind, (2 * reach, 0)))[..., -width:]
            out[..., : start.shape[-1]] -= start
            out[..., -end.shape[-1] :] -= end
        return out

    def _left_beyond(self, left: View) -> tuple[Tensor, Tensor]:
        """The left view where the right one has ended: columns from -reach, and to W + reach.

        Two volumes (B,C,D,H,columns).
        """
        first, last, reach = self.first, self.last, self.reach
        inside = shifted_views(torch.ones_like(left[:1, :1]), self.disparities)
        outside = functional.pad(left.unsqueeze(2) * (1 - inside), (reach, reach))
        above = torch.arange(first, last + 1, device=left.device)[:, None, None] > 0
        before, behind = outside * above, outside * ~above
        return before[..., : last + reach], behind[..., first - reach :]

    def _right_beyond(self, padded: View, width: int) -> tuple[Tensor, Tensor]:
        """The right view in the `reach` columns before and behind the left one.

        Two volumes (B,C,D,H,reach). padded: the right view between last + 2 reach and
        2 reach - first empty columns.
        """
        last, reach = self.last, self.reach

        def columns(start: int) -> Volume:
            shifts = self.disparities.shifts()
            places = [last - int(dd) + 2 * reach + start for dd in shifts]
            return torch.stack([padded[..., place : place + reach] for place in places], 2)

        return columns(-reach), columns(width)


def takes_apart(volume: StereoV2V) -> bool:
    """Whether the first convolution is of the paper's volume alone, with planes a pixel apart."""
    return volume.disparities.step == 1 and not volume.groups


class FirstConvolutionApart(nn.Module):
    """StereoV2V in eval mode, its first convolution as a StereoConvolution with BatchNorm folded.

    Takes V2V over: the network it is made of cannot run by itself afterwards.
    """

    def __init__(self, volume: StereoV2V) -> None:
        super().__init__()
        self.network = volume.network
        convolution, norm, relu = self.network.front[0].children()
        assert isinstance(convolution, nn.Conv3d)
        assert isinstance(norm, nn.BatchNorm3d)
        folded = nn.utils.fuse_conv_bn_eval(convolution, norm)
        self.first = StereoConvolution(folded, volume.disparities)
        self.network.front[0] = relu

    def forward(
        self, left: View, right: View, match_left: MatchingView, match_right: MatchingView
    ) -> CoHeatmap:
        """As StereoV2V."""
        logits: Tensor = self.network(self.first(left, right))
        return logits


def _filled(convolution: _Filled, weight: Tensor, bias: Tensor | None = None) -> _Filled:
    """The convolution with these numbers."""
    convolution.weight = nn.Parameter(weight)
    if bias is not None:
        convolution.bias = nn.Parameter(bias)
    return convolution
