"""Putting two views side by side over a range of disparities (paper III-B1, Eq. 1).

A disparity dd is a shift in heat-map pixels: left column w meets right column w - dd. Columns that
fall outside the right view are empty. `DisparityRange` says which dd a volume holds.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

View = Float[Tensor, 'batch channels height width']
Volume = Float[Tensor, 'batch _ depth height width']


@dataclass(frozen=True)
class DisparityRange:
    """Disparities first..last in heat-map pixels, both included, one plane each."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not self.first <= 0 <= self.last:
            raise ValueError(
                f'a disparity range must hold 0, got {self.first} to {self.last}; '
                f'give first <= 0 <= last'
            )

    def __len__(self) -> int:
        return self.last - self.first + 1

    def shifts(self) -> range:
        return range(self.first, self.last + 1)


def shifted_views(right: View, disparities: DisparityRange, fill: float = 0.0) -> Volume:
    """volume[:, :, i, h, w] = right[:, :, h, w - dd], `fill` where that is outside the view.

    Channels-last in memory, as convolutions on volumes like it.
    """
    width = right.shape[-1]
    padded = functional.pad(right, (disparities.last, -disparities.first), value=fill)
    rows = padded.permute(0, 2, 3, 1)  # B H W+D-1 C
    planes = [rows[:, :, disparities.last - dd :][:, :, :width] for dd in disparities.shifts()]
    return torch.stack(planes, 1).permute(0, 4, 1, 2, 3)  # B C D H W


def shift_sum(left: View, right: View, disparities: DisparityRange, fill: float = 0.0) -> Volume:
    """volume[:, :, i, h, w] = left[:, :, h, w] + right[:, :, h, w - dd]."""
    return shifted_views(right, disparities, fill) + left.unsqueeze(2)


def stereo_volume(left: View, right: View, disparities: DisparityRange) -> Volume:
    """Concatenated features of both views, zero in both halves outside the shared columns.

    Paper Eq. (1): SVF(d, h, w) = [left(h, w); right(h, w - dd)], (B, 2C, D, H, W).
    """
    inside = shifted_views(torch.ones_like(right[:1, :1]), disparities)
    return torch.cat([left.unsqueeze(2) * inside, shifted_views(right, disparities)], 1)


def groupwise_correlation(
    left: View, right: View, disparities: DisparityRange, groups: int, step: int = 1
) -> Float[Tensor, 'batch groups depth _ _']:
    """Mean product of the two views' features in each group of channels, (B, groups, D, h, w).

    Taken at every `step`-th row and column of the left view, against every right column.
    """
    channels = left.shape[1]
    shifted = shifted_views(right[:, :, ::step], disparities)[..., ::step]
    product = shifted * left[:, :, ::step, ::step].unsqueeze(2)
    rows = product.permute(0, 2, 3, 4, 1)  # B D h w C
    grouped = rows.reshape(*rows.shape[:-1], groups, channels // groups)
    return grouped.mean(-1).permute(0, 4, 1, 2, 3)
