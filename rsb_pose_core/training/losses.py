"""Loss terms of RSB-Pose, each by name (paper Eq. 4 and the 2D supervision of the heads).

Targets are in heat-map pixels. Every term is a mean over the joints that it may use: labelled,
inside both crops and, for the volume, inside the disparity range.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rsb_pose_core.geometry import triangulate_clamped
from rsb_pose_core.models.rsb_pose import (
    STRIDE,
    StereoHeatmaps,
    crop_to_heatmap,
    heatmap_to_crop,
)
from rsb_pose_core.models.soft_argmax import Moments, map_moments, volume_moments
from rsb_pose_core.training.batches import StereoBatch

PerJoint = Float[Tensor, 'batch joints']
Usable = Bool[Tensor, 'batch joints']


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; a term of weight 0 is not computed."""

    heatmap_ce: float = 1.0  # 2D cross-entropy of both heads, spread over 4 corners
    heatmap_l1: float = 0.1  # 2D soft-argmax, heat-map pixels
    volume_ce: float = 0.0  # cross-entropy spread over the 8 corners round the target
    volume_svf: float = 0.0  # the paper's L_SVF: cross-entropy at the nearest cell
    volume_l1: float = 0.0  # |u| + |v| + 3 |d|, heat-map pixels
    pose_l1_m: float = 0.0  # L_3D in metres: mean over joints of |x| + |y| + |z|
    pose_l1_paper: float = 0.0  # L_3D as the paper: a tenth of the mean absolute error in mm


def stereo_losses(
    heatmaps: StereoHeatmaps, batch: StereoBatch, weights: LossWeights
) -> dict[str, Float[Tensor, '']]:
    """Weighted terms by name; their sum is the loss."""
    uv_left, uv_right = crop_to_heatmap(batch.uv_left), crop_to_heatmap(batch.uv_right)
    in_left, in_right = batch.in_view(0), batch.in_view(1)
    terms: dict[str, Tensor] = {}
    views = (
        (heatmaps.heatmap_left, uv_left, in_left),
        (heatmaps.heatmap_right, uv_right, in_right),
    )
    for logits, uv, usable in views:
        moments = map_moments(logits)
        ce = masked_mean(corner_cross_entropy(logits, moments, uv, (0.0, 0.0)), usable) / 2
        l1 = masked_mean((moments.mean - uv).abs().sum(-1), usable) / 2
        terms['heatmap_ce'] = terms.get('heatmap_ce', 0.0) + weights.heatmap_ce * ce
        terms['heatmap_l1'] = terms.get('heatmap_l1', 0.0) + weights.heatmap_l1 * l1
    if heatmaps.co_heatmap is None:
        return terms

    first, last = heatmaps.disparities.first, heatmaps.disparities.last
    target = torch.cat([uv_left, uv_left[..., :1] - uv_right[..., :1]], -1)  # u v d
    in_range = (target[..., 2] >= first) & (target[..., 2] <= last)
    usable = in_left & in_right & in_range
    moments = volume_moments(heatmaps.co_heatmap, first)
    origin = (0.0, 0.0, float(first))
    if weights.volume_ce:
        spread = corner_cross_entropy(heatmaps.co_heatmap, moments, target, origin)
        terms['volume_ce'] = weights.volume_ce * masked_mean(spread, usable)
    if weights.volume_svf:
        nearest = nearest_cell_cross_entropy(heatmaps.co_heatmap, moments, target, origin)
        terms['volume_svf'] = weights.volume_svf * masked_mean(nearest, usable)
    if weights.volume_l1:
        axes = moments.mean.new_tensor([1.0, 1.0, 3.0])
        distance = ((moments.mean - target).abs() * axes).sum(-1)
        terms['volume_l1'] = weights.volume_l1 * masked_mean(distance, usable)
    if weights.pose_l1_m or weights.pose_l1_paper:
        uvd = torch.cat(
            [heatmap_to_crop(moments.mean[..., :2]), moments.mean[..., 2:] * STRIDE], -1
        )
        error_m = (triangulate_clamped(uvd, batch.calibration) - batch.xyz_m).abs()
        known = usable & batch.xyz_m.isfinite().all(-1)
        if weights.pose_l1_m:
            terms['pose_l1_m'] = weights.pose_l1_m * masked_mean(error_m.sum(-1), known)
        if weights.pose_l1_paper:
            error_mm = 1000 * masked_mean(error_m.mean(-1), known)
            terms['pose_l1_paper'] = weights.pose_l1_paper * 0.1 * error_mm
    return terms


def masked_mean(values: PerJoint, usable: Usable) -> Float[Tensor, '']:
    """Mean over usable joints, 0 where there is none; what is not usable may be NaN."""
    kept = torch.where(usable, values, torch.zeros_like(values))
    return kept.sum() / usable.sum().clamp_min(1)


def corner_cross_entropy(
    logits: Float[Tensor, 'batch joints *cells'],
    moments: Moments,
    target: Float[Tensor, 'batch joints axes'],
    origin: tuple[float, ...],
) -> PerJoint:
    """Cross-entropy against the target spread linearly over the cells round it.

    logits: (B,J,H,W) or (B,J,D,H,W); target and origin in the order u, v(, d), so the last axis
    of the cells comes first. Targets are clamped into the grid.
    """
    sizes = logits.shape[:1:-1]  # W, H(, D)
    flat = logits.flatten(2)
    index = torch.zeros((*target.shape[:2], 1), dtype=torch.long, device=logits.device)
    weight = torch.ones((*target.shape[:2], 1), dtype=flat.dtype, device=logits.device)
    step = 1
    for axis, size in enumerate(sizes):
        position = (target[..., axis] - origin[axis]).nan_to_num().clamp(0, size - 1)
        low = position.floor().clamp(max=size - 2)
        fraction = (position - low)[..., None]
        below = index + step * low.long()[..., None]
        index = torch.cat([below, below + step], -1)
        weight = torch.cat([weight * (1 - fraction), weight * fraction], -1)
        step *= size
    picked = (flat.gather(2, index) * weight).sum(-1)
    return moments.log_sum_exp - picked


def nearest_cell_cross_entropy(
    logits: Float[Tensor, 'batch joints *cells'],
    moments: Moments,
    target: Float[Tensor, 'batch joints axes'],
    origin: tuple[float, ...],
) -> PerJoint:
    """The paper's L_SVF: minus the log-probability of the cell nearest to the target."""
    index = torch.zeros(target.shape[:2], dtype=torch.long, device=logits.device)
    step = 1
    for axis, size in enumerate(logits.shape[:1:-1]):
        cell = (target[..., axis] - origin[axis]).nan_to_num().round().clamp(0, size - 1)
        index = index + step * cell.long()
        step *= size
    return moments.log_sum_exp - logits.flatten(2).gather(2, index[..., None])[..., 0]
