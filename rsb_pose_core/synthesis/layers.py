"""Sheets of triangles that hang on the skeleton, and how people wear them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rsb_pose_core.synthesis.body import PosedBones


@dataclass(frozen=True)
class Sheet:
    """A kind of surface, the same for all who wear it: V vertices, F triangles."""

    weight: Tensor  # V N, skin weights
    uv: Tensor  # V 2, tiles of its picture, or metres of cloth; v downward
    faces: Tensor  # F 3
    weld: Tensor  # V, the same number where vertices are one but for their uv
    material: Tensor  # F, place in a person's materials

    def normals(self, vertices_m: Tensor) -> Tensor:
        """Unit normals (B, V, 3), smooth across texture seams, of vertices (B, V, 3)."""
        a, b, c = (vertices_m[:, self.faces[:, k]] for k in range(3))
        normal = torch.linalg.cross(b - a, c - a)
        total = torch.zeros_like(vertices_m)
        for k in range(3):
            total.index_add_(1, self.weld[self.faces[:, k]], normal)
        return torch.nn.functional.normalize(total, dim=-1)[:, self.weld]


def welds(numbers: Tensor) -> Tensor:
    """For each vertex (V,) the first that has the same number: `Sheet.weld`."""
    order = torch.arange(len(numbers), device=numbers.device)
    unique, inverse = torch.unique(numbers, return_inverse=True)
    first = order.new_full((len(unique),), len(numbers))
    return first.scatter_reduce(0, inverse, order, 'amin')[inverse]


@dataclass(frozen=True)
class Layer:
    """A sheet as n of the P people of a cast wear it."""

    sheet: Sheet
    person: Tensor  # n
    rest_m: Tensor  # n V 3
    uv: Tensor  # n V 2, tiles
    opacity: Tensor  # n V
    kept: Tensor  # k, of the n V vertices those that are drawn
    faces: Tensor  # f 3, over k
    surface: Tensor  # f, person * materials + material

    @staticmethod
    def make(
        sheet: Sheet, person: Tensor, rest_m: Tensor, materials: int, *,
        opacity: Tensor | None = None, drawn: Tensor | None = None, uv: Tensor | None = None,
    ) -> 'Layer':  # fmt: skip
        """Keep the faces where drawn (n, F), less those that are all hole."""
        opacity = torch.ones_like(rest_m[..., 0]) if opacity is None else opacity
        count, vertices = opacity.shape
        solid = (opacity > 0)[:, sheet.faces].any(2)
        wearer, face = (solid if drawn is None else drawn & solid).nonzero(as_tuple=True)
        corners = sheet.faces[face] + vertices * wearer[:, None]
        kept, faces = torch.unique(corners, return_inverse=True)
        uv = sheet.uv.expand(count, -1, -1) if uv is None else uv
        surface = person[wearer] * materials + sheet.material[face]
        return Layer(sheet, person, rest_m, uv, opacity, kept, faces, surface)

    def repeated(self, count: int, materials: int) -> 'Layer':
        """The one person's layer worn by `count` copies of that person."""
        if not len(self.person):
            return self
        copy = torch.arange(count, device=self.person.device)
        return replace(
            self,
            person=copy,
            rest_m=self.rest_m.expand(count, -1, -1),
            uv=self.uv.expand(count, -1, -1),
            opacity=self.opacity.expand(count, -1),
            kept=(self.kept + self.opacity.shape[1] * copy[:, None]).flatten(),
            faces=(self.faces + len(self.kept) * copy[:, None, None]).flatten(0, 1),
            surface=(self.surface + materials * copy[:, None]).flatten(),
        )

    def posed(self, bones: PosedBones, moving: PosedBones) -> 'PosedLayer':
        """Vertices of posed bones and their change with `moving` (affine maps per second)."""
        vertices = bones.of(self.person).skin(self.sheet.weight, self.rest_m)
        speed = moving.of(self.person).skin(self.sheet.weight, self.rest_m)
        normals = self.sheet.normals(vertices)
        owner = self.person[self.kept // max(self.opacity.shape[1], 1)]
        vertices, normals, speed = (
            value.flatten(0, 1)[self.kept] for value in (vertices, normals, speed)
        )
        return PosedLayer(vertices, normals, speed, owner)


@dataclass(frozen=True)
class PosedLayer:
    """The k drawn vertices of a layer."""

    vertices_m: Tensor  # k 3
    normals: Tensor  # k 3
    velocity_m_s: Tensor  # k 3
    person: Tensor  # k
