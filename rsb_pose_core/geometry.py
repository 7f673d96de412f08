"""From co-keypoints to metres and back, in a rectified stereo pair.

A co-keypoint is (u, v, disparity): the pixel in the left view and u_left - u_right. Depth follows
from the disparity less that of a point at infinity, cx_left - cx_right.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration

FARTHEST_M = 20.0


def triangulate(
    uvd: Float[Tensor, '*batch joints 3'], calibration: StereoCalibration
) -> Float[Tensor, '*batch joints 3']:
    """Lift (u, v, disparity) in pixels to XYZ in metres, rectified left optical frame.

    The closed form of the paper's triangulation for points on equal rows, to which it reduces
    exactly; it keeps float32 accurate where the SVD of the direct linear transform does not.
    The calibration is one for all or one per batch item. A point at infinity or behind the
    cameras (disparity not above that of infinity) is NaN, and passes no gradient.
    """
    fx, fy, cx_left, _, cy, baseline = _per_joint(calibration, uvd)
    u, v, _ = uvd.unbind(-1)
    disparity = metric_disparity(uvd, calibration)
    in_front = disparity > 0
    depth = fx * baseline / torch.where(in_front, disparity, torch.ones_like(disparity))
    xyz = torch.stack(((u - cx_left) * depth / fx, (v - cy) * depth / fy, depth), dim=-1)
    return torch.where(in_front[..., None], xyz, torch.full_like(xyz, torch.nan))


def triangulate_clamped(
    uvd: Float[Tensor, '*batch joints 3'], calibration: StereoCalibration
) -> Float[Tensor, '*batch joints 3']:
    """`triangulate` with the disparity kept so large that no joint is beyond FARTHEST_M.

    Early predictions lie at infinity or behind the cameras, where one joint would outweigh all.
    """
    fx, _, cx_left, cx_right, _, baseline = _per_joint(calibration, uvd)
    smallest = cx_left - cx_right + fx * baseline / FARTHEST_M
    clamped = torch.cat([uvd[..., :2], torch.maximum(uvd[..., 2], smallest)[..., None]], -1)
    return triangulate(clamped, calibration)


def project(
    xyz_m: Float[Tensor, '*batch joints 3'], calibration: StereoCalibration
) -> Float[Tensor, '*batch joints 3']:
    """Image XYZ in metres, rectified left optical frame, as (u, v, disparity) in pixels.

    A point that is not in front of the cameras (Z <= 0) is NaN.
    """
    fx, fy, cx_left, cx_right, cy, baseline = _per_joint(calibration, xyz_m)
    x, y, z = xyz_m.unbind(-1)
    in_front = z > 0
    inverse_depth = 1 / torch.where(in_front, z, torch.ones_like(z))
    u = fx * x * inverse_depth + cx_left
    v = fy * y * inverse_depth + cy
    disparity = fx * baseline * inverse_depth + cx_left - cx_right
    uvd = torch.stack((u, v, disparity), dim=-1)
    return torch.where(in_front[..., None], uvd, torch.full_like(uvd, torch.nan))


def metric_disparity(
    uvd: Float[Tensor, '*batch joints 3'], calibration: StereoCalibration
) -> Float[Tensor, '*batch joints']:
    """Disparity less that of a point at infinity: fx * baseline / Z, in pixels."""
    _, _, cx_left, cx_right, _, _ = _per_joint(calibration, uvd)
    return uvd[..., 2] - (cx_left - cx_right)


def triangulate_views(
    uv_left: Float[Tensor, '*batch joints 2'],
    uv_right: Float[Tensor, '*batch joints 2'],
    calibration: StereoCalibration,
    weights: Float[Tensor, '*batch joints 2'] | None = None,
) -> Float[Tensor, '*batch joints 3']:
    """The paper's triangulation of keypoints found apart: XYZ in metres, left optical frame.

    The direct linear transform (Hartley and Zisserman, 12.2): the homogeneous point of unit
    length, in millimetres, that least violates the four equations of the two pixels. `weights`
    (left, right; above 0) multiply each view's equations, as in Algebraic-T. In a rectified pair
    they only say whose row counts more: depth and X follow from the columns.

    Solved in float64; the gradient is that of the solution, not of the decomposition, which
    divides by differences of singular values that the solution does not depend on. Columns that
    would put a joint behind the cameras or beyond FARTHEST_M are moved to that depth, as in
    `triangulate_clamped`. A keypoint that is not finite gives NaN and passes no gradient.
    """
    fx, fy, cx_left, cx_right, cy, baseline = _per_joint(calibration, uv_left.double())
    finite = (uv_left.isfinite() & uv_right.isfinite()).all(-1, keepdim=True)
    if weights is not None:
        finite = finite & weights.isfinite().all(-1, keepdim=True)
    left, right = (torch.where(finite, uv, torch.zeros_like(uv)) for uv in (uv_left, uv_right))
    smallest = cx_left - cx_right + fx * baseline / FARTHEST_M
    x_left = (left[..., 0] - cx_left) / fx
    x_right = (torch.minimum(right[..., 0].double(), left[..., 0] - smallest) - cx_right) / fx
    one, zero = torch.ones_like(x_left), torch.zeros_like(x_left)
    shift_mm = 1000 * baseline.expand_as(x_left)
    aspect = (fy / fx).expand_as(x_left)  # rows weigh as much in pixels as columns do
    planes = [torch.stack((one, zero, -x_left, zero), -1)]
    planes.append(torch.stack((zero, aspect, -(left[..., 1] - cy) / fx, zero), -1))
    planes.append(torch.stack((one, zero, -x_right, -shift_mm), -1))
    planes.append(torch.stack((zero, aspect, -(right[..., 1] - cy) / fx, zero), -1))
    equations = torch.stack(planes, -2)
    if weights is not None:
        kept = torch.where(finite, weights, torch.ones_like(weights)).double()
        equations = equations * kept.repeat_interleave(2, -1)[..., None]
    point = _smallest_singular_vector(equations)
    xyz = point[..., :3] / point[..., 3:] / 1000
    return torch.where(finite, xyz.to(uv_left.dtype), torch.nan)


def _smallest_singular_vector(
    matrices: Float[Tensor, '*batch rows columns'],
) -> Float[Tensor, '*batch columns']:
    """The unit vector that each matrix shortens most; differentiable once.

    To first order a change of A'A moves it by -(A'A - s^2)^+ d(A'A) v, s being the smallest
    singular value: a term that is 0 has this derivative.
    """
    with torch.no_grad():
        _, singular, directions = torch.linalg.svd(matrices)
        smallest, others = directions[..., -1, :], directions[..., :-1, :]
        gaps = singular[..., :-1] ** 2 - singular[..., -1:] ** 2
        response = (others.mT / gaps[..., None, :]) @ others
    residual = matrices.mT @ (matrices @ smallest[..., None])
    moved: Tensor = smallest - (response @ (residual - residual.detach()))[..., 0]
    return moved


def position_jacobian(
    uvd: Float[Tensor, '*batch joints 3'], calibration: StereoCalibration
) -> Float[Tensor, '*batch joints 3 3']:
    """Derivative of XYZ (rows) by (u, v, disparity) (columns), in metres per pixel."""
    fx, fy, cx_left, _, cy, baseline = _per_joint(calibration, uvd)
    u, v, _ = uvd.unbind(-1)
    disparity = metric_disparity(uvd, calibration)
    disparity = torch.where(disparity > 0, disparity, torch.full_like(disparity, torch.nan))
    scale = baseline / disparity
    zero = torch.zeros_like(scale)
    by_u = torch.stack((scale, zero, zero), dim=-1)
    by_v = torch.stack((zero, scale * fx / fy, zero), dim=-1)
    ray = torch.stack((u - cx_left, (v - cy) * fx / fy, fx.expand_as(u)), dim=-1)
    by_disparity = -ray * (scale / disparity)[..., None]
    return torch.stack((by_u, by_v, by_disparity), dim=-1)


def position_covariance(
    uvd: Float[Tensor, '*batch joints 3'],
    covariance_uvd: Float[Tensor, '*batch joints 3 3'],
    calibration: StereoCalibration,
) -> Float[Tensor, '*batch joints 3 3']:
    """Carry a covariance of (u, v, disparity), px^2, through the triangulation: m^2.

    To first order, so it holds while the disparity's deviation is small beside the disparity.
    NaN where `triangulate` is.
    """
    jacobian = position_jacobian(uvd, calibration)
    return jacobian @ covariance_uvd @ jacobian.transpose(-1, -2)


def _per_joint(calibration: StereoCalibration, like: Tensor) -> tuple[Tensor, ...]:
    """The calibration's fields, shaped to broadcast against (*batch, joints)."""
    return tuple(value[..., None] for value in calibration.to(like).fields())
