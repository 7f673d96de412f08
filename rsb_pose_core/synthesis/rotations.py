"""Rotation matrices from axes, angles and pairs of directions. Angles in radians."""

import torch
from torch import Tensor


def about_axis(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotate by `angle` (...) about the unit `axis` (..., 3): matrices (..., 3, 3)."""
    x, y, z = axis.unbind(-1)
    c, s = angle.cos(), angle.sin()
    k = 1 - c
    rows = (
        c + x * x * k, x * y * k - z * s, x * z * k + y * s,
        y * x * k + z * s, c + y * y * k, y * z * k - x * s,
        z * x * k - y * s, z * y * k + x * s, c + z * z * k,
    )  # fmt: skip
    stacked = torch.stack(rows, -1)
    return stacked.view(*stacked.shape[:-1], 3, 3)


def about_x(angle: Tensor) -> Tensor:
    """Rotate by `angle` (...) about x."""
    return about_axis(angle.new_tensor([1.0, 0.0, 0.0]).expand(*angle.shape, 3), angle)


def about_y(angle: Tensor) -> Tensor:
    """Rotate by `angle` (...) about y."""
    return about_axis(angle.new_tensor([0.0, 1.0, 0.0]).expand(*angle.shape, 3), angle)


def about_z(angle: Tensor) -> Tensor:
    """Rotate by `angle` (...) about z."""
    return about_axis(angle.new_tensor([0.0, 0.0, 1.0]).expand(*angle.shape, 3), angle)


def between(source: Tensor, target: Tensor) -> Tensor:
    """Smallest rotation that takes direction `source` (..., 3) to `target` (..., 3)."""
    source = torch.nn.functional.normalize(source, dim=-1)
    target = torch.nn.functional.normalize(target, dim=-1)
    cross = torch.linalg.cross(source, target)
    sine, cosine = cross.norm(dim=-1), (source * target).sum(-1)
    # opposite directions: any axis normal to the source will do
    aside = torch.linalg.cross(source, source.new_tensor([0.31, 0.17, 0.94]).expand_as(source))
    axis = torch.where(sine[..., None] > 1e-6, cross, aside)
    return about_axis(torch.nn.functional.normalize(axis, dim=-1), torch.atan2(sine, cosine))


def frame(x_axis: Tensor, up: Tensor) -> Tensor:
    """Right-handed frame (..., 3, 3), columns x, y, z: x as given, y as near `up` as it can be."""
    x = torch.nn.functional.normalize(x_axis, dim=-1)
    z = torch.nn.functional.normalize(torch.linalg.cross(x, up.expand_as(x)), dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], -1)


def skew(matrix: Tensor) -> Tensor:
    """Axis (..., 3) of rotation matrices (..., 3, 3), times twice the sine of their angle."""
    return torch.stack(
        [
            matrix[..., 2, 1] - matrix[..., 1, 2],
            matrix[..., 0, 2] - matrix[..., 2, 0],
            matrix[..., 1, 0] - matrix[..., 0, 1],
        ],
        -1,
    )


def log(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Unit axis (..., 3) and angle (...) of rotation matrices below half a turn."""
    sine = skew(matrix)
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
    angle = torch.atan2(sine.norm(dim=-1), trace - 1)
    return torch.nn.functional.normalize(sine, dim=-1), angle
