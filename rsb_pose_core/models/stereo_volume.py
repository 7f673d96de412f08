"""Putting two views side by side over a range of disparities (paper III-B1, Eq. 1).

A disparity dd is a shift in heat-map pixels: left column w meets right column w - dd. Columns that
fall outside the right view are empty. `DisparityRange` says which dd a volume holds. Half-pixel
planes (beyond the paper) read the right view between two columns, linearly.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

View = Float[Tensor, 'batch channels height width']
Volume = Float[Tensor, 'batch _ depth height width']


@dataclass(frozen=True)
class DisparityRange:
    """Disparities first..last in heat-map pixels, both included, one plane every `step` of them.

    `step` is 1 as in the paper or 0.5, of which first and last are multiples.
    """

    first: float
    last: float
    step: float = 1

    def __post_init__(self) -> None:
        if self.step not in (0.5, 1):
            raise ValueError(
                f'disparity planes are 1 or 0.5 heat-map pixels apart, got {self.step}; give one '
                f'of these'
            )
        if self.first % self.step or self.last % self.step:
            raise ValueError(
                f'disparities from {self.first} to {self.last} are no multiples of the step '
                f'{self.step}; give multiples of it'
            )
        if not self.first <= 0 <= self.last:
            raise ValueError(
                f'a disparity range must hold 0, got {self.first} to {self.last}; '
                f'give first <= 0 <= last'
            )

    def __len__(self) -> int:
        return round((self.last - self.first) / self.step) + 1

    def shifts(self) -> list[float]:
        return [self.first + self.step * i for i in range(len(self))]

    def whole(self) -> 'DisparityRange':
        """The planes at whole pixels."""
        return DisparityRange(math.ceil(self.first), math.floor(self.last))


def shifted_views(right: View, disparities: DisparityRange, fill: float = 0.0) -> Volume:
    """volume[:, :, i, h, w] = right[:, :, h, w - dd], `fill` where that is outside the view.

    Between two columns their mean. Channels-last in memory, as convolutions on volumes like it.
    """
    width = right.shape[-1]
    before = math.ceil(disparities.last)
    padding = (before, math.ceil(-disparities.first))
    rows = functional.pad(right, padding, value=fill).permute(0, 2, 3, 1)  # B H W+D-1 C
    if disparities.step < 1:
        between = (right[..., :-1] + right[..., 1:]) / 2  # columns 0.5, 1.5, ...
        halves = functional.pad(between, padding, value=fill).permute(0, 2, 3, 1)
    planes = []
    for dd in disparities.shifts():
        source = rows if dd % 1 == 0 else halves
        planes.append(source[:, :, before - math.ceil(dd) :][:, :, :width])
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


def half_pixel_correlation(
    left: View, right: View, disparities: DisparityRange, groups: int, cell: int
) -> Float[Tensor, 'batch _ depth _ _']:
    """Group-wise correlation of features at twice the heat map's size, averaged in each cell.

    Their columns are half heat-map pixels, so each shift by one of them is a disparity of its
    own, without interpolation. Planes a whole pixel apart hold two of them, dd and dd + 1/2:
    (B, 2 groups, D, H/cell, W/cell) in the order group, half; else (B, groups, ...). `cell`: rows
    and columns of the features in one cell of the volume.

    Rows of a cell and channels of a group are summed by one matrix product of all left columns
    with all right ones, of which the diagonals are the shifts: far less memory is moved than by
    one product for each shift.
    """
    batch, channels, height, width = left.shape
    in_plane = round(2 * disparities.step)  # shifts
    shifts = len(disparities) * in_plane
    lowest = round(2 * disparities.first)
    before = lowest + shifts - 1  # the highest shift
    split = (batch, groups, channels // groups, height // cell, cell, -1)
    # A row of zeros more, so that the diagonals below are a view.
    padded_left = functional.pad(left, (0, 1)).reshape(split).permute(0, 1, 3, 5, 2, 4)
    padded_right = functional.pad(right, (before, -lowest)).reshape(split)
    padded_right = padded_right.permute(0, 1, 3, 2, 4, 5)
    products = padded_left.flatten(4) @ padded_right.flatten(3, 4)  # B G H/cell W+1 W+shifts-1
    # Row k begins one step further in each next row: element [k, j] is column k + j.
    skewed = products.flatten(3)[..., : width * (width + shifts)]
    band = skewed.unflatten(3, (width, width + shifts))[..., :shifts]  # shifts from the highest
    mean = band.unflatten(3, (width // cell, cell)).mean(4) / (channels // groups * cell)
    ordered = mean.flip(-1).unflatten(4, (-1, in_plane))  # B G H/cell W/cell D in_plane
    correlation: Tensor = ordered.permute(0, 1, 5, 4, 2, 3).flatten(1, 2)
    return correlation
