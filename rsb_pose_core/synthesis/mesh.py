"""Triangles of a batch of scenes, and what their surfaces are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

NOBODY = -1  # owner of what is no person
PLAIN = -1  # texture of a surface that has only its colour


@dataclass(frozen=True)
class Surfaces:
    """M surfaces. Colours are linear light, 0..1."""

    texture: Tensor  # M, number in the TextureBank, PLAIN: none
    colour: Tensor  # M 3, multiplies the texture; the albedo where there is none
    gloss: Tensor  # M, strength of the highlight, 0..1
    scatter: Tensor  # M 3, how far light wraps round an edge per channel: skin > cloth > wood 0
    bump: Tensor  # M, tilt of the normal by fine relief, about 0..0.3
    lift: Tensor  # M, relative gain of nearness in the depth race: layers that coincide
    double_sided: Tensor  # M bool; others are left out when seen from behind
    cut_out: Tensor  # M bool; not drawn where the texture's alpha is below one half
    owner: Tensor  # M, number of the person, NOBODY: a thing

    def __len__(self) -> int:
        return len(self.texture)

    @staticmethod
    def plain(colour: Tensor, **values: Tensor) -> 'Surfaces':
        """Matt, solid, unowned surfaces of colours (M, 3), except for the fields given."""
        count, device = len(colour), colour.device
        whole = torch.zeros(count, dtype=torch.long, device=device)
        number = torch.zeros(count, device=device)
        flag = torch.zeros(count, dtype=torch.bool, device=device)
        surfaces = Surfaces(
            whole + PLAIN, colour, number, number[:, None].expand(-1, 3), number, number,
            flag, flag, whole + NOBODY,
        )  # fmt: skip
        return replace(surfaces, **values)


@dataclass(frozen=True)
class Mesh:
    """V vertices and F triangles in the worlds of their scenes: y up, floor at 0, metres."""

    vertices_m: Tensor  # V 3
    normals: Tensor  # V 3, unit, outward
    uv: Tensor  # V 2, texture coordinates in tiles, v downward
    opacity: Tensor  # V, not drawn where it interpolates to zero or less
    velocity_m_s: Tensor  # V 3
    scene: Tensor  # V, number of the scene
    faces: Tensor  # F 3, counter-clockwise seen from outside
    surface: Tensor  # F, row of Surfaces

    @staticmethod
    def solid(
        vertices_m: Tensor, normals: Tensor, uv: Tensor, scene: Tensor, faces: Tensor,
        surface: Tensor,
    ) -> 'Mesh':  # fmt: skip
        """A mesh at rest without holes."""
        return Mesh(
            vertices_m, normals, uv, torch.ones_like(vertices_m[:, 0]),
            torch.zeros_like(vertices_m), scene, faces, surface,
        )  # fmt: skip


def join(parts: Sequence[tuple[Mesh, Surfaces]]) -> tuple[Mesh, Surfaces]:
    """One mesh and one table of surfaces from several; owners and scenes are kept."""
    tables = [table for _, table in parts]
    moved = []
    vertex = surface = 0
    for mesh, table in parts:
        moved.append(replace(mesh, faces=mesh.faces + vertex, surface=mesh.surface + surface))
        vertex, surface = vertex + len(mesh.vertices_m), surface + len(table)
    return (
        Mesh(*(torch.cat([getattr(m, f.name) for m in moved]) for f in fields(Mesh))),
        Surfaces(*(torch.cat([getattr(t, f.name) for t in tables]) for f in fields(Surfaces))),
    )
