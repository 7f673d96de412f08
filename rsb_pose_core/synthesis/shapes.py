"""Unit meshes that furniture is made of: they fill -1..1 along x, y (up) and z."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.draw import Draw


@dataclass(frozen=True)
class Shape:
    """V vertices and F triangles; texture coordinates are linear in the half sizes of a part."""

    vertices: Tensor  # V 3
    normals: Tensor  # V 3
    uv: Tensor  # V 2 3: uv in metres = this @ half size
    faces: Tensor  # F 3, counter-clockwise seen from outside
    fill: float  # share of its bounding box's silhouette that it covers, each way
    open: bool = False  # has no inside: is drawn from both sides

    def to(self, device: str) -> 'Shape':
        return Shape(
            self.vertices.to(device), self.normals.to(device), self.uv.to(device),
            self.faces.to(device), self.fill, self.open,
        )  # fmt: skip


def _shape(
    vertices: Tensor, normals: Tensor, uv: Tensor, faces: Tensor, fill: float, open: bool = False
) -> Shape:
    """Turn the faces so that they agree with the normals."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    inward = (torch.linalg.cross(b - a, c - a) * normals[faces].sum(1)).sum(1) < 0
    faces = torch.where(inward[:, None], faces.flip(1), faces)
    return Shape(vertices, normals, uv, faces, fill, open)


def _grid_faces(rows: int, columns: int, first: int = 0) -> Tensor:
    """Two triangles for each cell of a grid of rows x columns vertices."""
    corner = torch.arange(rows * columns).view(rows, columns)[:-1, :-1].reshape(-1) + first
    steps = torch.tensor([[0, 1, columns], [1, columns + 1, columns]])
    return (corner[:, None, None] + steps).reshape(-1, 3)


def box() -> Shape:
    """Six flat faces."""
    vertices: list[Tensor] = []
    normals, uv, faces = [], [], []
    axes = torch.eye(3)
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = axes[axis] * sign
            # as one who looks at the face sees it: to the right, and up
            up = axes[1] if axis != 1 else -axes[2]
            right = torch.linalg.cross(up, normal) if axis != 1 else axes[0]
            faces.append(torch.tensor([[0, 1, 2], [0, 2, 3]]) + 4 * len(vertices))
            vertices.append(square[:, :1] * right + square[:, 1:] * up + normal)
            normals.append(normal.expand(4, 3))
            uv.append(torch.stack([square[:, :1] * right.abs(), -square[:, 1:] * up.abs()], 1))
    return _shape(torch.cat(vertices), torch.cat(normals), torch.cat(uv), torch.cat(faces), 1.0)


def tube(sides: int = 10) -> Shape:
    """An upright cylinder with round-looking sides and flat ends."""
    angle = torch.linspace(0, 2 * math.pi, sides + 1)
    ring = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], 1)
    up = torch.tensor([0.0, 1.0, 0.0])
    zero = torch.zeros_like(angle)
    wrap = torch.stack([angle, zero, zero], 1)  # U: round the x radius
    vertices, normals = [ring + up, ring - up], [ring, ring]
    uv = [torch.stack([wrap, -up.expand(sides + 1, 3)], 1)]
    uv.append(torch.stack([wrap, up.expand(sides + 1, 3)], 1))
    faces = [_grid_faces(2, sides + 1)]
    fan = torch.stack([torch.zeros(sides - 2).long(), torch.arange(1, sides - 1),
                       torch.arange(2, sides)], 1)  # fmt: skip
    flat = ring[:sides]
    across = torch.stack([flat * torch.tensor([1.0, 0, 0]), flat * torch.tensor([0, 0, 1.0])], 1)
    for sign in (-1.0, 1.0):
        faces.append(fan + 2 * (sides + 1) + (sides if sign > 0 else 0))
        vertices.append(flat + sign * up)
        normals.append((sign * up).expand(sides, 3))
        uv.append(across)
    return _shape(torch.cat(vertices), torch.cat(normals), torch.cat(uv), torch.cat(faces), 0.9)


def ball(power: float = 1.0, rows: int = 7, sides: int = 8, fill: float = 0.75) -> Shape:
    """An ellipsoid; powers below one make it a cushion (superellipsoid)."""

    def curve(value: Tensor, exponent: float) -> Tensor:
        return value.sign() * value.abs().pow(exponent)

    up, round_ = torch.meshgrid(
        torch.linspace(math.pi / 2, -math.pi / 2, rows),
        torch.linspace(0, 2 * math.pi, sides + 1) + math.pi / sides,
        indexing='ij',
    )
    ring = up.cos().clamp_min(0)

    def point(exponent: float) -> Tensor:
        flat = curve(ring, exponent)
        return torch.stack(
            [flat * curve(round_.sin(), exponent), curve(up.sin(), exponent),
             flat * curve(round_.cos(), exponent)], -1,
        ).view(-1, 3)  # fmt: skip

    vertices = point(power)
    vertices = vertices / vertices.abs().amax(0)
    normals = torch.nn.functional.normalize(point(2 - power) + 1e-6, dim=1)
    zero = torch.zeros_like(up).view(-1)
    uv = torch.stack(
        [torch.stack([round_.reshape(-1), zero, zero], 1),
         torch.stack([zero, -up.reshape(-1), zero], 1)], 1,
    )  # fmt: skip
    faces = _grid_faces(rows, sides + 1)
    corners = vertices[faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return _shape(vertices, normals, uv, faces[area.norm(dim=1) > 1e-4], fill)


def card() -> Shape:
    """A sheet in the xy plane, seen from both sides."""
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    uv = torch.stack([square * torch.tensor([1.0, 0, 0]), square * torch.tensor([0, -1.0, 0])], 1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    normals = torch.tensor([0.0, 0, 1]).expand(4, 3)
    return _shape(square, normals, uv, faces, 1.0, open=True)


def drape(folds: int = 4) -> Shape:
    """Cloth that hangs in folds along x."""
    steps = 6 * folds + 1
    x = torch.linspace(-1, 1, steps)
    phase = x * (math.pi * folds)
    slope = phase.cos() * (math.pi * folds)
    side = torch.stack([-slope, torch.zeros(steps), torch.ones(steps)], 1)
    rows = [torch.stack([x, torch.full((steps,), y), phase.sin()], 1) for y in (1.0, -1.0)]
    vertices = torch.cat(rows)
    # the cloth is longer than the curtain is wide
    uv = torch.stack(
        [vertices * torch.tensor([1.4, 0, 0]), vertices * torch.tensor([0, -1.0, 0])], 1
    )
    normals = torch.nn.functional.normalize(side, dim=1).repeat(2, 1)
    return _shape(vertices, normals, uv, _grid_faces(2, steps), 1.0, open=True)


def _leaves(origin: Tensor, along: Tensor, width: Tensor, fill: float) -> Shape:
    """Pointed leaves (N,) from an origin along vectors (N, 3), folded along their middle."""
    side = torch.linalg.cross(along, torch.tensor([0.3, 1.0, 0.2]).expand_as(along))
    side = torch.nn.functional.normalize(side, dim=1) * width[:, None]
    droop = torch.tensor([0.0, -0.12, 0.0]) * along.norm(dim=1, keepdim=True)
    belly = origin + 0.55 * along
    points = [origin, belly + side - droop, origin + along + 2 * droop, belly - side - droop]
    vertices = torch.stack(points, 1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(side, along), dim=1)
    normal = torch.where(normal[:, 1:2] < 0, -normal, normal)
    soft = torch.nn.functional.normalize(normal + 0.7 * vertices.mean(1), dim=1)
    first = torch.arange(len(origin))[:, None, None] * 4
    faces = (first + torch.tensor([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    vertices = vertices.reshape(-1, 3)
    low, high = vertices.amin(0), vertices.amax(0)
    vertices = (2 * vertices - low - high) / (high - low)
    across, down = torch.tensor([1.0, 0, 1.0]), torch.tensor([0, -1.0, 0])
    uv = torch.stack([vertices * across, vertices * down], 1)
    return _shape(vertices, soft.repeat_interleave(4, 0), uv, faces, fill, open=True)


def tuft(count: int = 24) -> Shape:
    """Leaves that spring from the middle of the bottom."""
    draw = Draw(7)
    angle = torch.arange(count) * 2.4 + 0.4 * draw.normal(count)
    rise = draw.uniform(0.3, 1.3, count)
    along = torch.stack([rise.cos() * angle.sin(), rise.sin() * 1.6, rise.cos() * angle.cos()], 1)
    origin = torch.tensor([0.0, -1.0, 0.0]) + 0.1 * along
    return _leaves(origin, along, draw.uniform(0.06, 0.13, count), 0.45)


def crown(count: int = 110) -> Shape:
    """Leaves all over an ellipsoid, denser than a tuft: bushes and tree tops."""
    draw = Draw(8)
    out = torch.nn.functional.normalize(draw.normal(count, 3), dim=1)
    along = torch.nn.functional.normalize(draw.normal(count, 3) + 0.7 * out, dim=1)
    along = along * draw.uniform(0.25, 0.5, count, 1)
    origin = out * draw.uniform(0.4, 0.8, count, 1) - 0.4 * along
    return _leaves(origin, along, draw.uniform(0.07, 0.15, count), 0.65)


SHAPES: dict[str, Callable[[], Shape]] = {
    'box': box, 'tube': tube, 'ball': ball,
    'cushion': lambda: ball(0.35, 6, 8, 0.95),
    'card': card, 'drape': drape, 'tuft': tuft, 'crown': crown,
}  # fmt: skip
