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


def triangulate_dlt(
    uvd: Float[Tensor, '*batch joints 3'], calibration: StereoCalibration
) -> Float[Tensor, '*batch joints 3']:
    """The direct linear transform by SVD in float64, as in the paper: an oracle for tests.

    Same frame and units as `triangulate`; slower, and about a thousand times less accurate had it
    been done in float32. Points that are not in front of the cameras are NaN.
    """
    uvd64 = uvd.double()
    fx, fy, cx_left, cx_right, cy, baseline = (
        value.expand(uvd64.shape[:-1]) for value in _per_joint(calibration, uvd64)
    )
    u, v, disparity = uvd64.unbind(-1)
    zero = torch.zeros_like(u)
    # Each row is a plane through the point, x * P[2] - P[0] (or P[1]) over the focal length.
    left = torch.stack((zero + 1, zero, (cx_left - u) / fx, zero), dim=-1)
    right = torch.stack((zero + 1, zero, (cx_right - u + disparity) / fx, -baseline), dim=-1)
    vertical = torch.stack((zero, zero + 1, (cy - v) / fy, zero), dim=-1)
    planes = torch.stack((left, vertical, right, vertical), dim=-2)
    homogeneous = torch.linalg.svd(planes).Vh[..., -1, :]
    xyz = homogeneous[..., :3] / homogeneous[..., 3:]
    in_front = (xyz[..., 2:] > 0) & xyz.isfinite().all(dim=-1, keepdim=True)
    return torch.where(in_front, xyz, torch.full_like(xyz, torch.nan)).to(uvd.dtype)


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
