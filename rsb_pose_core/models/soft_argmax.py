"""Soft-argmax with second moments, in one pass over the logits and always in float32.

Precision is why these functions switch autocast off: bf16 logits move a joint by up to 4 mm.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional

from rsb_pose_core.models.layers import without_autocast

Maps = Float[Tensor, 'batch joints height width']
Volumes = Float[Tensor, 'batch joints depth height width']


@dataclass(frozen=True)
class Moments:
    """Of the softmax of a map (u, v) or a volume (u, v, d), in cells (d in steps of its planes).

    mean: (B,J,2 or 3); covariance: (B,J,n,n); log_sum_exp: (B,J), which turns logits into
    log-probabilities without another pass.
    """

    mean: Float[Tensor, 'batch joints axes']
    covariance: Float[Tensor, 'batch joints axes axes']
    log_sum_exp: Float[Tensor, 'batch joints']


def _plane_basis(height: int, width: int, like: Tensor) -> Float[Tensor, 'cells 6']:
    """1, u, v, uu, uv, vv of each cell, measured from the middle to keep float32 exact."""
    u = torch.arange(width, device=like.device, dtype=like.dtype) - (width - 1) / 2
    v = torch.arange(height, device=like.device, dtype=like.dtype) - (height - 1) / 2
    vv, uu = torch.meshgrid(v, u, indexing='ij')
    columns = [torch.ones_like(uu), uu, vv, uu * uu, uu * vv, vv * vv]
    return torch.stack([column.flatten() for column in columns], -1)


def _moved(mean: Tensor, middle: tuple[float, ...]) -> Tensor:
    """The sum, without a copy to the device that it would have to be waited for."""
    moved = [value + offset for value, offset in zip(mean.unbind(-1), middle, strict=True)]
    return torch.stack(moved, -1)


def volume_moments(logits: Volumes, disparity_first: float, step: float = 1) -> Moments:
    """Mean and covariance of (u, v, d) under softmax(logits).

    d counts from `disparity_first`, by `step` from plane to plane.
    """
    batch, joints, depth, height, width = logits.shape
    dtype = torch.promote_types(logits.dtype, torch.float32)
    with without_autocast(logits):
        flat = logits.to(dtype).reshape(batch, joints, depth, height * width)
        peak = flat.detach().amax((2, 3), keepdim=True)
        sums = torch.exp(flat - peak) @ _plane_basis(height, width, flat)  # B J D 6
        total = sums[..., 0].sum(2)  # B J
        d = torch.arange(depth, device=flat.device, dtype=dtype) - (depth - 1) / 2
        d = d * step
        along = sums / total[..., None, None]
        _, u, v, uu, uv, vv = along.sum(2).unbind(-1)
        weighted = (along * d[:, None]).sum(2)
        ed, ud, vd = weighted[..., 0], weighted[..., 1], weighted[..., 2]
        dd = (along[..., 0] * d * d).sum(2)
        mean = torch.stack([u, v, ed], -1)
        second = torch.stack([uu, uv, ud, uv, vv, vd, ud, vd, dd], -1)
        covariance = second.view(batch, joints, 3, 3) - mean[..., :, None] * mean[..., None, :]
        middle = ((width - 1) / 2, (height - 1) / 2, (depth - 1) / 2 * step + disparity_first)
        log_sum_exp = peak[..., 0, 0] + torch.log(total)
    return Moments(_moved(mean, middle), covariance, log_sum_exp)


def map_moments(logits: Maps) -> Moments:
    """Mean and covariance of (u, v) under softmax(logits)."""
    height, width = logits.shape[-2:]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    with without_autocast(logits):
        flat = logits.to(dtype).flatten(2)
        peak = flat.detach().amax(2, keepdim=True)
        sums = torch.exp(flat - peak) @ _plane_basis(height, width, flat)  # B J 6
        total = sums[..., 0]
        _, u, v, uu, uv, vv = (sums / total[..., None]).unbind(-1)
        mean = torch.stack([u, v], -1)
        second = torch.stack([uu, uv, uv, vv], -1).view(*mean.shape, 2)
        covariance = second - mean[..., :, None] * mean[..., None, :]
        middle = ((width - 1) / 2, (height - 1) / 2)
        log_sum_exp = peak[..., 0] + torch.log(total)
    return Moments(_moved(mean, middle), covariance, log_sum_exp)


def peak_cells(plane: Maps) -> Integer[Tensor, 'batch joints 2']:
    """(u, v) of the cell round which most probability lies together, of logits over (u, v).

    The probability is averaged over 5x5 cells first, so that no single cell decides.
    """
    width = plane.shape[-1]
    with without_autocast(plane):
        probability = torch.softmax(plane.float().flatten(2), -1).view_as(plane)
        together = functional.avg_pool2d(probability, 5, 1, 2)
    peak = together.flatten(2).argmax(-1)
    return torch.stack([peak % width, peak // width], -1)


def mean_near(
    logits: Volumes,
    cells: Integer[Tensor, 'batch joints 2'],
    radius: int,
    disparity_first: float,
    step: float = 1,
) -> Float[Tensor, 'batch joints 3']:
    """Mean of (u, v, d) under softmax(logits) within `radius` columns and rows of (u, v) cells.

    Where a joint could be at either of two places, the mean of all would be between them, where
    it surely is not.
    """
    batch, joints, depth, height, width = logits.shape
    steps = torch.arange(-radius, radius + 1, device=logits.device)
    u, v = (cells[..., axis, None] + steps for axis in (0, 1))  # B J 2r+1
    inside = ((v >= 0) & (v < height))[..., :, None] & ((u >= 0) & (u < width))[..., None, :]
    clamped = v.clamp(0, height - 1)[..., :, None] * width + u.clamp(0, width - 1)[..., None, :]
    index = clamped.flatten(2)[:, :, None].expand(-1, -1, depth, -1)
    with without_autocast(logits):
        dtype = torch.promote_types(logits.dtype, torch.float32)
        near = logits.to(dtype).flatten(3).gather(3, index)
        near = near.masked_fill(~inside.flatten(2)[:, :, None], -torch.inf)
        probability = torch.softmax(near.flatten(2), -1).view(
            batch, joints, depth, len(steps), len(steps)
        )
        d = torch.arange(depth, device=logits.device, dtype=dtype) * step + disparity_first
        mean_u = (probability.sum((2, 3)) * u).sum(-1)
        mean_v = (probability.sum((2, 4)) * v).sum(-1)
        mean_d = (probability.sum((3, 4)) * d).sum(-1)
    return torch.stack([mean_u, mean_v, mean_d], -1)


def spread_about(
    point: Float[Tensor, 'batch joints axes'], moments: Moments
) -> Float[Tensor, 'batch joints axes axes']:
    """Second moment about a point instead of about the mean."""
    off = moments.mean - point
    return moments.covariance + off[..., :, None] * off[..., None, :]


def keypoint_moments(logits: Maps, radius: int | None) -> Moments:
    """Moments of a map; with a `radius` the mean is that near the peak, the spread about it."""
    moments = map_moments(logits)
    if radius is None:
        return moments
    mean = mean_near(logits[:, :, None], peak_cells(logits), radius, 0)[..., :2]
    return replace(moments, mean=mean, covariance=spread_about(mean, moments))
