"""Loss terms of every method, each by name (paper Eq. 4 and 6, and those of the rivals).

2D targets are in heat-map pixels, 3D ones in metres. Every term is a mean over the joints that it
may use: labelled, inside both crops and inside the volume where there is one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.geometry import triangulate_clamped
from rsb_pose_core.models.algebraic import WeightedHeatmaps
from rsb_pose_core.models.estimate import StereoOutput
from rsb_pose_core.models.keypoints import STRIDE, crop_to_heatmap, heatmap_to_crop
from rsb_pose_core.models.rsb_pose import StereoHeatmaps
from rsb_pose_core.models.soft_argmax import Moments, map_moments, volume_moments
from rsb_pose_core.models.volumetric import VolumeHeatmaps
from rsb_pose_core.training.batches import StereoBatch

PerJoint = Float[Tensor, 'batch joints']
Usable = Bool[Tensor, 'batch joints']
Terms = dict[str, Float[Tensor, '']]

SOFT_ABOVE_CM2 = 20.0**2  # where Algebraic-T's squared error turns flat
SOFT_POWER = 0.1


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term; a term of weight 0 is not computed.

    The paper's L_SCE (Eq. 4) is heatmap_ce 0, heatmap_l1 0, volume_svf 0.01, pose_l1_paper 1;
    Volume-T's loss is the same with heatmap_ce above 0, for the pelvis of its cube.
    """

    heatmap_ce: float = 1.0  # 2D cross-entropy of both heads, spread over 4 corners
    heatmap_l1: float = 0.1  # 2D soft-argmax, heat-map pixels
    volume_ce: float = 0.0  # cross-entropy spread over the 8 corners round the target
    volume_svf: float = 0.0  # the paper's L_SVF: cross-entropy at the nearest cell
    volume_l1: float = 0.0  # |u| + |v| + 3 |d|, heat-map pixels, of co-heatmaps
    pose_l1_m: float = 0.0  # L_3D in metres: mean over joints of |x| + |y| + |z|
    pose_l1_paper: float = 0.0  # L_3D as the paper: a tenth of the mean absolute error in mm
    pose_soft_mse: float = 0.0  # Algebraic-T: squared error in cm^2, flat beyond 20 cm
    refined_mpjpe: float = 0.0  # of refined_loss, where a refiner is trained with the method


def method_losses(output: StereoOutput, batch: StereoBatch, weights: LossWeights) -> Terms:
    """Weighted terms by name, of any method's output; their sum is the loss.

    Raises ConfigError where no term of a weight above 0 applies to the output.
    """
    if isinstance(output, StereoHeatmaps):
        terms = stereo_losses(output, batch, weights)
    elif isinstance(output, WeightedHeatmaps):
        terms = weighted_losses(output, batch, weights)
    elif isinstance(output, VolumeHeatmaps):
        terms = volume_losses(output, batch, weights)
    else:
        raise TypeError(f'no losses are known for {type(output).__name__}')
    if not terms:
        raise ConfigError(
            f'no loss with a weight above 0 applies to {type(output).__name__} at this stage; '
            f'give heatmap_ce, or a term of the volume where there is one'
        )
    return terms


def stereo_losses(heatmaps: StereoHeatmaps, batch: StereoBatch, weights: LossWeights) -> Terms:
    """Weighted terms of RSB-Pose, and of heat maps of each view that are triangulated."""
    terms = _heatmap_terms(heatmaps.heatmap_left, heatmaps.heatmap_right, batch, weights)
    usable = batch.in_view(0) & batch.in_view(1)
    if heatmaps.co_heatmap is None:
        return terms | _triangulated_terms(heatmaps, batch, weights)

    uv_left, uv_right = crop_to_heatmap(batch.uv_left), crop_to_heatmap(batch.uv_right)
    planes = heatmaps.disparities
    target = torch.cat([uv_left, uv_left[..., :1] - uv_right[..., :1]], -1)  # u v d
    usable = usable & (target[..., 2] >= planes.first) & (target[..., 2] <= planes.last)
    moments = volume_moments(heatmaps.co_heatmap, planes.first, planes.step)
    cells = torch.cat([uv_left, (target[..., 2:] - planes.first) / planes.step], -1)
    origin = (0.0, 0.0, 0.0)
    terms |= _cell_terms(heatmaps.co_heatmap, moments, cells, origin, usable, weights)
    if weights.volume_l1:
        u, v, d = (moments.mean - target).abs().unbind(-1)
        distance = u + v + 3 * d
        terms['volume_l1'] = weights.volume_l1 * masked_mean(distance, usable)
    uvd = torch.cat([heatmap_to_crop(moments.mean[..., :2]), moments.mean[..., 2:] * STRIDE], -1)
    return terms | pose_terms(triangulate_clamped(uvd, batch.calibration), usable, batch, weights)


def weighted_losses(heatmaps: WeightedHeatmaps, batch: StereoBatch, weights: LossWeights) -> Terms:
    """Weighted terms of Algebraic-T, whose confidences learn from the 3D terms alone."""
    terms = _heatmap_terms(heatmaps.heatmap_left, heatmaps.heatmap_right, batch, weights)
    return terms | _triangulated_terms(heatmaps, batch, weights)


def volume_losses(heatmaps: VolumeHeatmaps, batch: StereoBatch, weights: LossWeights) -> Terms:
    """Weighted terms of Volume-T; joints outside the cube count in 2D only."""
    terms = _heatmap_terms(heatmaps.heatmap_left, heatmaps.heatmap_right, batch, weights)
    if heatmaps.volume is None or heatmaps.cube is None:
        return terms | _triangulated_terms(heatmaps, batch, weights)
    cube = heatmaps.cube
    target = cube.to_cells(batch.xyz_m)
    inside = ((target >= 0) & (target <= cube.cells - 1)).all(-1)  # NaN compares false
    usable = batch.in_view(0) & batch.in_view(1) & inside
    moments = volume_moments(heatmaps.volume, 0)
    origin = (0.0, 0.0, 0.0)
    terms |= _cell_terms(heatmaps.volume, moments, target, origin, usable, weights)
    return terms | pose_terms(cube.to_metres(moments.mean), usable, batch, weights)


def refined_loss(
    refined_m: Float[Tensor, 'batch joints 3'], batch: StereoBatch
) -> Float[Tensor, '']:
    """Eq. (6): mean distance in metres of the refined joints from the truth.

    Over all joints whose position is known, in sight or not: the refiner is there for those that
    the views do not show.
    """
    known = batch.xyz_m.isfinite().all(-1)
    truth = torch.where(known[..., None], batch.xyz_m, torch.zeros_like(batch.xyz_m))
    return masked_mean((refined_m - truth).norm(dim=-1), known)


def pose_terms(
    xyz_m: Float[Tensor, 'batch joints 3'],
    usable: Usable,
    batch: StereoBatch,
    weights: LossWeights,
) -> Terms:
    """Weighted 3D terms of positions in metres, over usable joints of known position."""
    known = usable & batch.xyz_m.isfinite().all(-1)
    truth = torch.where(known[..., None], batch.xyz_m, torch.zeros_like(batch.xyz_m))
    error_m = (xyz_m - truth).abs()
    terms: Terms = {}
    if weights.pose_l1_m:
        terms['pose_l1_m'] = weights.pose_l1_m * masked_mean(error_m.sum(-1), known)
    if weights.pose_l1_paper:
        error_mm = 1000 * masked_mean(error_m.mean(-1), known)
        terms['pose_l1_paper'] = weights.pose_l1_paper * 0.1 * error_mm
    if weights.pose_soft_mse:
        squared = soft_squared_error(error_m)
        terms['pose_soft_mse'] = weights.pose_soft_mse * masked_mean(squared, known)
    return terms


def soft_squared_error(error_m: Float[Tensor, 'batch joints 3']) -> PerJoint:
    """Mean square over the axes in cm^2, x^0.1 T^0.9 above T = (20 cm)^2.

    Iskakov et al. 2019, section 3.1: joints far off shall not outweigh all others.
    """
    squared = ((100 * error_m) ** 2).mean(-1)
    flat = squared.clamp_min(SOFT_ABOVE_CM2) ** SOFT_POWER * SOFT_ABOVE_CM2 ** (1 - SOFT_POWER)
    return torch.where(squared > SOFT_ABOVE_CM2, flat, squared)


def _heatmap_terms(
    heatmap_left: Float[Tensor, 'batch joints height width'],
    heatmap_right: Float[Tensor, 'batch joints height width'],
    batch: StereoBatch,
    weights: LossWeights,
) -> Terms:
    """2D terms, the mean of both views."""
    found: dict[str, list[Tensor]] = {'heatmap_ce': [], 'heatmap_l1': []}
    views = (
        (heatmap_left, crop_to_heatmap(batch.uv_left), batch.in_view(0)),
        (heatmap_right, crop_to_heatmap(batch.uv_right), batch.in_view(1)),
    )
    for logits, uv, usable in views:
        moments = map_moments(logits)
        if weights.heatmap_ce:
            ce = corner_cross_entropy(logits, moments, uv, (0.0, 0.0))
            found['heatmap_ce'].append(weights.heatmap_ce * masked_mean(ce, usable))
        if weights.heatmap_l1:
            l1 = (moments.mean - uv).abs().sum(-1)
            found['heatmap_l1'].append(weights.heatmap_l1 * masked_mean(l1, usable))
    return {name: torch.stack(both).mean() for name, both in found.items() if both}


def _triangulated_terms(output: StereoOutput, batch: StereoBatch, weights: LossWeights) -> Terms:
    """3D terms of keypoints that each view found by itself."""
    if not (weights.pose_l1_m or weights.pose_l1_paper or weights.pose_soft_mse):
        return {}
    xyz_m = output.estimate(batch.calibration).xyz_m
    return pose_terms(xyz_m, batch.in_view(0) & batch.in_view(1), batch, weights)


def _cell_terms(
    logits: Float[Tensor, 'batch joints depth height width'],
    moments: Moments,
    target: Float[Tensor, 'batch joints 3'],
    origin: tuple[float, float, float],
    usable: Usable,
    weights: LossWeights,
) -> Terms:
    """Cross-entropies over the cells of a volume."""
    terms: Terms = {}
    if weights.volume_ce:
        spread = corner_cross_entropy(logits, moments, target, origin)
        terms['volume_ce'] = weights.volume_ce * masked_mean(spread, usable)
    if weights.volume_svf:
        nearest = nearest_cell_cross_entropy(logits, moments, target, origin)
        terms['volume_svf'] = weights.volume_svf * masked_mean(nearest, usable)
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
