"""Things put together from shapes: tables of parts, many things of many kinds at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.mesh import PLAIN, Mesh, Surfaces
from rsb_pose_core.synthesis.shapes import SHAPES, Shape
from rsb_pose_core.synthesis.textures import TextureBank

# What parts are made of; each thing has one surface of each.
STUFFS = ('wood', 'cloth', 'paint', 'metal', 'dark', 'leaf', 'picture', 'glow', 'window', 'print',
          'moss')  # fmt: skip
WOOD, CLOTH, PAINT, METAL, DARK, LEAF, PICTURE, GLOW, WINDOW, PRINT, MOSS = range(len(STUFFS))
# kind of texture, and the share of things that have it; the others are of one colour
TEXTURES = {
    WOOD: ('furniture', 1.0), CLOTH: ('cloth', 0.85), PAINT: ('wall', 0.3),
    PICTURE: ('picture', 1.0), WINDOW: ('picture', 1.0), PRINT: ('cloth', 0.9),
    MOSS: ('ground', 1.0),
}  # fmt: skip
GLOSS = (0.08, 0.0, 0.15, 0.5, 0.3, 0.05, 0.1, 0.0, 0.0, 0.05, 0.0)
BUMP = (0.1, 0.15, 0.05, 0.0, 0.0, 0.1, 0.0, 0.0, 0.0, 0.1, 0.3)
TILES_PER_M = (0.7, 2.0, 0.8, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 2.0, 1.5)
SHEETS = (CLOTH, LEAF, PICTURE, WINDOW, PRINT)  # what thin parts are made of: seen from both sides
LEAF_GREEN = (0.16, 0.3, 0.06)

# A limit of a part along one axis: a fraction of the thing's size, or that and metres more.
Limit = float | tuple[float, float]
Span = tuple[Limit, Limit]
ALL: Span = (0.0, 1.0)


@dataclass(frozen=True)
class Part:
    """A shape within its thing: x from the left, y from the floor, z from the back."""

    shape: str
    stuff: str  # of STUFFS
    x: Span = ALL
    y: Span = ALL
    z: Span = ALL
    taper: float = 0.0  # width at the top is 1 + taper, at the bottom 1 - taper of the mean
    tilt_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)  # about x, then y, then z
    fit: bool = False  # the texture fits once, as on a picture or a book
    chance: float = 1.0
    loose: float = 0.0  # by which share it is smaller at most; it stays on its bottom


@dataclass(frozen=True)
class Kind:
    """A kind of thing: the range of its sizes (width, height, depth) in m, and its parts.

    Where the depth has the range of the width it is as large: round things are round.
    """

    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]
    parts: Sequence[Part]


@dataclass(frozen=True)
class Things:
    """T things of a catalogue. They stand on `place_m`: the middle of their bottom."""

    kind: Tensor  # T
    size_m: Tensor  # T 3, width, height, depth
    place_m: Tensor  # T 3
    turn: Tensor  # T 3 3, world from thing
    scene: Tensor  # T
    present: Tensor  # T bool
    dice: Tensor  # T Q, uniform 0..1: which loose parts are there, and how large

    def __getitem__(self, rows: Tensor) -> 'Things':
        return Things(*(getattr(self, f.name)[rows] for f in fields(Things)))

    @staticmethod
    def cat(parts: Sequence['Things']) -> 'Things':
        return Things(
            *(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Things))
        )

    def middle_m(self) -> Tensor:
        """Middles (T, 3) of the boxes round the things."""
        return self.place_m + self.turn[..., 1] * self.size_m[:, 1:2] / 2


@dataclass(frozen=True)
class Boxes:
    """Boxes (..., 3) anywhere in the world."""

    centre_m: Tensor
    half_m: Tensor
    turn: Tensor  # ... 3 3, world from box
    present: Tensor  # ... bool

    def distance_m(self, points_m: Tensor) -> Tensor:
        """Distance (..., N) of points (..., N, 3) from the boxes, 0 inside; inf: no box."""
        local = (points_m - self.centre_m[..., None, :]) @ self.turn
        gap = (local.abs() - self.half_m[..., None, :]).clamp_min(0).norm(dim=-1)
        return torch.where(self.present[..., None], gap, torch.inf)

    def block(self, start_m: Tensor, ends_m: Tensor) -> Tensor:
        """Do the boxes cut the lines from points (..., 3) to points (..., N, 3)? (..., N) bool."""
        start = ((start_m - self.centre_m)[..., None, :] @ self.turn)[..., 0, :]
        end = (ends_m - self.centre_m[..., None, :]) @ self.turn
        way = end - start[..., None, :]
        step = torch.where(way.abs() < 1e-9, 1e-9, way).reciprocal()
        first = (-self.half_m - start)[..., None, :] * step
        second = (self.half_m - start)[..., None, :] * step
        enter = torch.minimum(first, second).amax(-1).clamp_min(0)
        leave = torch.maximum(first, second).amin(-1).clamp_max(1)
        return (enter < leave) & self.present[..., None]


class Catalogue:
    """Kinds of things on one device, ready to be built in any number at once."""

    def __init__(self, kinds: Mapping[str, Kind], device: str = 'cpu') -> None:
        self.names = tuple(kinds)
        self.device = device
        self.shapes: list[tuple[str, Shape]] = [
            (name, make().to(device)) for name, make in SHAPES.items()
        ]
        order = [name for name, _ in self.shapes]
        self.parts = max(len(kind.parts) for kind in kinds.values())
        blank = Part('box', 'wood', chance=0.0)
        rows = [
            [*kind.parts, *[blank] * (self.parts - len(kind.parts))] for kind in kinds.values()
        ]

        def table(values: list[list[object]]) -> Tensor:
            return torch.tensor(values, device=device)

        def limit(value: Limit) -> tuple[float, float]:
            return value if isinstance(value, tuple) else (float(value), 0.0)

        self.low_m = torch.tensor([kind.low_m for kind in kinds.values()], device=device)
        self.high_m = torch.tensor([kind.high_m for kind in kinds.values()], device=device)
        self.square = (self.low_m[:, 0] == self.low_m[:, 2]) & (
            self.high_m[:, 0] == self.high_m[:, 2]
        )
        self.shape = table([[order.index(part.shape) for part in row] for row in rows])
        self.stuff = table([[STUFFS.index(part.stuff) for part in row] for row in rows])
        self.taper = table([[part.taper for part in row] for row in rows])
        self.fit = table([[part.fit for part in row] for row in rows])
        self.chance = table([[part.chance for part in row] for row in rows])
        self.loose = table([[part.loose for part in row] for row in rows])
        # kinds, parts, axes, (low, high), (fraction, metres)
        self.span = table(
            [[[[limit(v) for v in span] for span in (p.x, p.y, p.z)] for p in row] for row in rows]
        )
        tilt = table([[part.tilt_deg for part in row] for row in rows]) * (math.pi / 180)
        self.turn = (
            rotations.about_z(tilt[..., 2]) @ rotations.about_y(tilt[..., 1])
            @ rotations.about_x(tilt[..., 0])
        )  # fmt: skip
        fill = torch.tensor([shape.fill for _, shape in self.shapes], device=device)
        self.fill = fill[self.shape]

    def numbers(self, *names: str) -> Tensor:
        """The numbers of kinds, as `Things.kind` holds them."""
        return torch.tensor([self.names.index(name) for name in names], device=self.device)

    def things(self, kind: Tensor, scene: Tensor, draw: Draw) -> Things:
        """Things of random size at the origins of scenes (T,)."""
        count = len(kind)
        low, high = self.low_m[kind].log(), self.high_m[kind].log()
        luck = draw.uniform(0.0, 1.0, count, 3)
        luck[:, 2] = torch.where(self.square[kind], luck[:, 0], luck[:, 2])
        size = (low + (high - low) * luck).exp()
        turn = torch.eye(3, device=self.device).expand(count, 3, 3)
        present = torch.ones(count, dtype=torch.bool, device=self.device)
        dice = draw.uniform(0.0, 1.0, count, self.parts)
        return Things(kind, size, torch.zeros_like(size), turn, scene, present, dice)

    def boxes(self, things: Things) -> Boxes:
        """Boxes (T, Q) round the parts of things."""
        kind = things.kind
        span = self.span[kind]  # T Q 3 2 2
        limits = span[..., 0] * things.size_m[:, None, :, None] + span[..., 1]
        low, high = limits.unbind(-1)
        present = things.dice < self.chance[kind]
        luck = things.dice / self.chance[kind].clamp_min(1e-6)
        loose = 1 - self.loose[kind] * luck
        half = (high - low) / 2 * loose[..., None]
        centre = (low + high) / 2
        centre[..., 1] = low[..., 1] + half[..., 1]
        middle = things.size_m * things.size_m.new_tensor([0.5, 0.0, 0.5])
        centre = (centre - middle[:, None]) @ things.turn.mT + things.place_m[:, None]
        turn = things.turn[:, None] @ self.turn[kind]
        return Boxes(centre, half.clamp_min(1e-4), turn, present & things.present[:, None])

    def bounds(self, things: Things) -> Boxes:
        """One box (T,) round each thing."""
        return Boxes(things.middle_m(), things.size_m / 2, things.turn, things.present)

    def build(
        self, things: Things, bank: TextureBank, draw: Draw, velocity_m_s: Tensor | None = None
    ) -> tuple[Mesh, Surfaces]:
        """Triangles of all that is present; velocity_m_s (T, 3): how things move, not turn."""
        boxes = self.boxes(things)
        surfaces = self._surfaces(len(things.kind), bank, draw)
        tiles = (
            self._per_stuff(TILES_PER_M) * draw.log_uniform(0.5, 2.0, len(things.kind), 1)
        ).reshape(-1)
        shift = draw.uniform(0.0, 1.0, len(things.kind), 2)
        shape_of = self.shape[things.kind]
        parts, owners = [], []
        first = 0
        for number, (_, shape) in enumerate(self.shapes):
            thing, part = (boxes.present & (shape_of == number)).nonzero(as_tuple=True)
            kind, half = things.kind[thing], boxes.half_m[thing, part]
            turn = boxes.turn[thing, part]
            row = thing * len(STUFFS) + self.stuff[kind, part]
            fit, taper = self.fit[kind, part][:, None], self.taper[kind, part][:, None]
            local = shape.vertices * half[:, None]
            wider = 1 + taper * shape.vertices[:, 1]  # n V
            local = local * torch.stack([wider, torch.ones_like(wider), wider], -1)
            slope = taper * shape.normals[:, [0, 2]].norm(dim=1)
            normal = shape.normals / half[:, None]
            normal = normal - torch.nn.functional.pad((slope / half[:, 1:2])[..., None], (1, 1))
            scale = torch.where(fit, half.new_tensor(0.5), half * tiles[row][:, None])
            uv = (shape.uv @ scale[:, None, :, None])[..., 0]
            uv = uv + torch.where(fit, half.new_tensor(0.5), shift[thing])[:, None]
            vertices = local @ turn.mT + boxes.centre_m[thing, part][:, None]
            count = len(shape.vertices)
            begin = torch.arange(len(thing), device=thing.device) * count + first
            owners.append(thing.repeat_interleave(count))
            parts.append((
                vertices.reshape(-1, 3), normalize(normal @ turn.mT, dim=-1).reshape(-1, 3),
                uv.reshape(-1, 2), things.scene[thing].repeat_interleave(count),
                (shape.faces + begin[:, None, None]).reshape(-1, 3),
                row.repeat_interleave(len(shape.faces)),
            ))  # fmt: skip
            first += len(thing) * count
        mesh = Mesh.solid(*(torch.cat(column) for column in zip(*parts, strict=True)))
        if velocity_m_s is not None:
            mesh = replace(mesh, velocity_m_s=velocity_m_s[torch.cat(owners)])
        return mesh, surfaces

    def _per_stuff(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.device)

    def _surfaces(self, count: int, bank: TextureBank, draw: Draw) -> Surfaces:
        """One surface (count * stuffs) for everything a thing can be made of."""
        stuffs = len(STUFFS)
        texture = torch.full((count, stuffs), PLAIN, device=self.device)
        for stuff, (name, share) in TEXTURES.items():
            options = bank.of(name)
            options = options if len(options) > 0 else bank.of('cloth')
            textured = draw.chance(share, count)
            texture[:, stuff] = torch.where(textured, draw.choose(options, count), PLAIN)
        strength = draw.uniform(0.0, 1.0, count, stuffs, 1)
        hue = 1 - strength * draw.uniform(0.0, 1.0, count, stuffs, 3)
        plain = draw.log_uniform(0.05, 0.85, count, stuffs, 1) * hue
        tint = draw.uniform(0.55, 1.0, count, stuffs, 1) * (0.7 + 0.3 * hue)
        colour = torch.where((texture == PLAIN)[..., None], plain, tint)
        neutral = draw.uniform(0.9, 1.0, count, 3)
        colour[:, METAL] = draw.uniform(0.15, 0.75, count, 1) * neutral
        colour[:, DARK] = draw.log_uniform(0.01, 0.12, count, 1) * neutral
        green = self._per_stuff(LEAF_GREEN) * draw.log_uniform(0.5, 1.6, count, 1)
        colour[:, LEAF] = green * draw.uniform(0.6, 1.5, count, 3)
        colour[:, MOSS] = 1.5 * colour[:, LEAF]  # the dark inside of a bush, on a texture
        # nothing shines by itself: lamps and windows reflect more than there is
        for bright in (GLOW, WINDOW):
            colour[:, bright] = draw.log_uniform(1.2, 5.0, count, 1) * neutral
        gloss = self._per_stuff(GLOSS) * draw.uniform(0.3, 1.7, count, stuffs)
        scatter = torch.zeros(count, stuffs, 3, device=self.device)
        scatter[:, LEAF] = 0.3
        sheet = torch.zeros(count, stuffs, dtype=torch.bool, device=self.device)
        sheet[:, SHEETS] = True
        return replace(
            Surfaces.plain(colour.reshape(-1, 3)),
            texture=texture.reshape(-1), gloss=gloss.reshape(-1),
            scatter=scatter.reshape(-1, 3), double_sided=sheet.reshape(-1),
            bump=self._per_stuff(BUMP).repeat(count),
        )  # fmt: skip
