"""Keypoints of each view by itself and what triangulation makes of them.

Heat maps are at a quarter of the crop's size; keypoints are in crop pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import position_covariance, triangulate_views
from rsb_pose_core.models.estimate import StereoEstimate
from rsb_pose_core.models.soft_argmax import keypoint_moments

JointMaps = Float[Tensor, 'batch joints height width']

STRIDE = 4  # crop pixels per heat-map pixel
CONFIDENCE_RADIUS = 3.0  # heat-map pixels


def heatmap_to_crop(uv_heatmap: Tensor) -> Tensor:
    """Heat-map pixels to crop pixels: both count from the centre of their first pixel."""
    return (uv_heatmap + 0.5) * STRIDE - 0.5


def crop_to_heatmap(uv_crop: Tensor) -> Tensor:
    """Crop pixels to heat-map pixels."""
    return (uv_crop + 0.5) / STRIDE - 0.5


def mass_near(
    log_plane: JointMaps, uv: Float[Tensor, 'batch joints 2']
) -> Float[Tensor, 'batch joints']:
    """Probability within CONFIDENCE_RADIUS of uv, all in heat-map pixels."""
    height, width = log_plane.shape[-2:]
    probability = torch.softmax(log_plane.flatten(2).float(), -1).view_as(log_plane)
    du = torch.arange(width, device=uv.device, dtype=uv.dtype) - uv[..., :1]  # B J W
    dv = torch.arange(height, device=uv.device, dtype=uv.dtype) - uv[..., 1:]
    near = du[..., None, :] ** 2 + dv[..., :, None] ** 2 <= CONFIDENCE_RADIUS**2
    return (probability * near).sum((2, 3)).clamp(0.0, 1.0)


def estimate_views(
    heatmap_left: JointMaps,
    heatmap_right: JointMaps,
    calibration: StereoCalibration,
    weights: Float[Tensor, 'batch joints 2'] | None = None,
    peak_radius: int | None = None,
) -> StereoEstimate:
    """Soft-argmax of each view's logits, triangulated by the direct linear transform.

    peak_radius: within so many heat-map pixels of the peak, of the whole map where None.

    weights: of each joint in the left and the right view, above 0; alike where None. The
    confidence is that of the view that is less sure. The covariance is carried through the
    triangulation's Jacobian, the views' errors being independent.
    """
    left, right = (keypoint_moments(map_, peak_radius) for map_ in (heatmap_left, heatmap_right))
    uv_left, uv_right = heatmap_to_crop(left.mean), heatmap_to_crop(right.mean)
    uvd, (by_left, by_right) = _row_consistent(uv_left, uv_right, weights)
    covariance = STRIDE**2 * (
        by_left @ left.covariance @ by_left.mT + by_right @ right.covariance @ by_right.mT
    )
    return StereoEstimate(
        xyz_m=triangulate_views(uv_left, uv_right, calibration, weights),
        covariance_m2=position_covariance(uvd, covariance, calibration),
        confidence=torch.minimum(
            mass_near(heatmap_left, left.mean), mass_near(heatmap_right, right.mean)
        ),
        uv_left=uv_left,
        uv_right=uv_right,
    )


def _row_consistent(
    uv_left: Float[Tensor, 'batch joints 2'],
    uv_right: Float[Tensor, 'batch joints 2'],
    weights: Float[Tensor, 'batch joints 2'] | None,
) -> tuple[Float[Tensor, 'batch joints 3'], tuple[Tensor, Tensor]]:
    """(u, v, d) that a rectified pair's triangulation sees, and its derivatives by each view.

    Columns settle u and d whatever the weights; the row is the mean of the two, weighted by the
    squares of the weights because the transform multiplies residuals by them.
    """
    if weights is None:
        weights = torch.ones_like(uv_left)
    share = (weights**2 / (weights**2).sum(-1, keepdim=True)).to(uv_left)  # B J 2
    zero, one = torch.zeros_like(share[..., 0]), torch.ones_like(share[..., 0])
    by_left = torch.stack([one, zero, zero, share[..., 0], one, zero], -1)
    by_right = torch.stack([zero, zero, zero, share[..., 1], -one, zero], -1)
    left, right = (rows.view(*rows.shape[:-1], 3, 2) for rows in (by_left, by_right))
    uvd = (left @ uv_left[..., None] + right @ uv_right[..., None])[..., 0]
    return uvd, (left, right)
