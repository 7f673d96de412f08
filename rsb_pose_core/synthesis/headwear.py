"""Procedural hats, hair caps and long hair.

A hat is a grid over the skull: columns go round the head, rows from the hat's edge to the crown,
and a few rows more make the brim. Its radius is that of the mean skull without ears, scaled to
each person's head along three axes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.skeleton import COCO_17
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.clothing import MATERIAL, MATERIALS
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.layers import Layer, Sheet, welds
from rsb_pose_core.synthesis.unwrap import Chart

COLUMNS, ROWS, BRIM_ROWS = 28, 9, 4
RADIANS = math.pi / 180
# scale of a head along x, y, z: distances of these vertices (as MakeHuman's hats have it)
HEAD_ENDS = ((5399, 11998), (791, 881), (962, 5320))
# hairline on the mean body: height over depth, from the nape to the forehead
FACE_Z = 0.07  # long hair in front of it leaves the face free
EAR_X, EAR_Y, EAR_Z = 0.066, 0.697, 0.050  # middle of the left ear
HAIRLINE_Z = (-0.12, -0.03, 0.02, 0.055, 0.10, 0.135)
HAIRLINE_Y = (0.605, 0.615, 0.690, 0.722, 0.745, 0.772)

# per kind: edge in front and behind (degrees above the ears' level), where along cos(azimuth) it
# steps and how softly, least and most stand-off, slack of the crown, visor, brim and its droop
HATS = {
    'beanie': (8, -22, 0.2, 0.5, 0.008, 0.016, 0.035, 0.0, 0.0, 0.0),
    'cap': (16, 4, 0.3, 0.5, 0.008, 0.014, 0.012, 0.07, 0.0, 0.25),
    'sun hat': (14, 2, 0.0, 0.6, 0.010, 0.016, 0.02, 0.0, 0.085, 0.35),
    'helmet': (18, -14, 0.2, 0.4, 0.022, 0.038, 0.02, 0.02, 0.0, 0.1),
    'hood': (30, -62, 0.55, 0.12, 0.012, 0.03, 0.03, 0.0, 0.0, 0.0),
}


@dataclass(frozen=True)
class Hats:
    """Hats of n people."""

    person: Tensor  # n
    edge: Tensor  # n C, radians above the ears' level
    stand_off: Tensor  # n, metres
    slack: Tensor  # n, metres more at the crown
    brim: Tensor  # n C, width in metres
    droop: Tensor  # n


class Milliner:
    """Makes what people wear on their heads."""

    def __init__(self, body: Body) -> None:
        self.body = body
        device = body.device
        skull = self._skull()
        self.number = skull
        points = body.vertices[skull]
        ears = (body.vertices[body.coco_index] * body.coco_weight[..., None]).sum(1)
        ears = ears[[COCO_17.index('left_ear'), COCO_17.index('right_ear')]].mean(0)
        self.centre = torch.stack(
            [points.new_zeros(()), ears[1] + 0.01, (points[:, 2].amin() + points[:, 2].amax()) / 2]
        )
        self.azimuth = torch.linspace(-math.pi, math.pi, COLUMNS + 1, device=device)
        self.levels = torch.linspace(-90, 90, 37, device=device) * RADIANS
        directions = _direction(self.azimuth[:, None], self.levels[None])
        away = points - self.centre
        reach = directions @ away.mT  # C+1 E P
        near = torch.nn.functional.normalize(away, dim=1)
        within = (directions @ near.mT) > math.cos(22 * RADIANS)
        self.radius = torch.where(within, reach, 0.05).amax(2)  # C+1 E
        self.hat = self._hat_sheet()
        self.chart = Chart.of(body, body.number)
        self.scalp = self._scalp()
        covered = (self.scalp > -0.05)[body.faces].all(1) & ~body.face_eye
        material = torch.full((int(covered.sum()),), MATERIAL['cap'], device=device)
        used, faces = torch.unique(body.faces[covered], return_inverse=True)
        self.cap_number, self.cap_scalp = body.number[used], self.scalp[used]
        away = body.vertices[self.cap_number] - self.centre
        self.cap = Sheet(
            body.skin[self.cap_number], _hair_uv(away), faces, welds(self.cap_number), material
        )
        used, faces = torch.unique(body.strands, return_inverse=True)
        material = torch.full((len(faces),), MATERIAL['strands'], device=device)
        self.strand_number = used
        points = body.vertices[used]
        self.face_m = torch.where(
            points[:, 2] > FACE_Z, points[:, 0].abs() - 0.075, points[:, 2] * 0 + 1
        )
        self.strands = Sheet(
            body.skin[used],
            _hair_uv(points - self.centre),
            faces,
            torch.arange(len(used), device=device),
            material,
        )

    def _skull(self) -> Tensor:
        """Numbers of the vertices of the head without ears."""
        body = self.body
        number = torch.unique(body.number)
        points = body.vertices[number]
        keypoints = (body.vertices[body.coco_index] * body.coco_weight[..., None]).sum(1)
        ear = keypoints[COCO_17.index('left_ear')]
        folded = torch.stack([points[:, 0].abs(), points[:, 1], points[:, 2]], 1)
        is_ear = ((folded - ear).norm(dim=1) < 0.05) & (folded[:, 0] > ear[0] - 0.006)
        on_head = Chart.of(body, number).is_head > 0.5
        skull: Tensor = number[on_head & ~is_ear]
        return skull

    def _scalp(self) -> Tensor:
        """Height in metres of the drawn vertices (R,) above the hairline; ears stay free."""
        chart = self.chart
        z = chart.z.new_tensor(HAIRLINE_Z)
        y = chart.z.new_tensor(HAIRLINE_Y)
        depth = chart.z.clamp(z[0] + 1e-4, z[-1] - 1e-4)
        right = torch.searchsorted(z, depth.contiguous())
        share = (depth - z[right - 1]) / (z[right] - z[right - 1])
        height = chart.y - (y[right - 1] * (1 - share) + y[right] * share)
        ear = torch.hypot((chart.y - EAR_Y) / 0.045, (chart.z - EAR_Z) / 0.033)
        beside_ear = torch.where(chart.x.abs() > 0.05, (ear - 1) * 0.035, 1.0)
        return torch.where(chart.is_head < 0.4, -1.0, torch.minimum(height, beside_ear))

    def _hat_sheet(self) -> Sheet:
        device, columns = self.body.device, COLUMNS + 1
        rows = ROWS + BRIM_ROWS
        grid = torch.arange(rows * columns, device=device).view(rows, columns)
        a, b = grid[:-1, :-1], grid[:-1, 1:]
        c, d = grid[1:, :-1], grid[1:, 1:]
        quads = torch.stack([torch.stack([a, b, d], -1), torch.stack([a, d, c], -1)], 2)
        keep = [i for i in range(rows - 1) if i != ROWS - 1]  # crown and brim are two pieces
        crown = torch.arange(rows - 1, device=device)[keep] < ROWS - 1
        faces = quads[keep].flatten(1, 2)
        material = torch.where(crown, MATERIAL['hat'], MATERIAL['brim'])
        weight = torch.zeros(rows * columns, len(self.body.bones), device=device)
        weight[:, self.body.bone_index['head']] = 1.0
        uv = torch.stack(
            torch.meshgrid(
                torch.linspace(0, 0.25, rows, device=device),
                torch.linspace(0, 0.6, columns, device=device), indexing='ij',
            )[::-1],
            -1,
        ).flatten(0, 1)  # fmt: skip
        seam = grid.clone()
        seam[:, -1] = seam[:, 0]
        return Sheet(
            weight, uv, faces.flatten(0, 1), seam.flatten(),
            material[:, None].expand(-1, 2 * COLUMNS).flatten(),
        )  # fmt: skip

    def sample(self, person: Tensor, draw: Draw) -> Hats:
        """Hats for the people (n,)."""
        count = len(person)
        table = torch.tensor(list(HATS.values()), device=person.device)
        front, back, step, soft, least, most, slack, visor, brim, droop = draw.choose(
            table, count
        ).unbind(1)
        turned = draw.chance(0.15, count)[:, None]  # back to front
        azimuth = self.azimuth + torch.where(turned & (visor > 0.03)[:, None], math.pi, 0.0)
        side = ((azimuth.cos() - step[:, None]) / soft[:, None] * 3).sigmoid()
        tilt = draw.uniform(-5, 5, count)
        edge = (back + tilt)[:, None] + (front - back)[:, None] * side
        nose = azimuth.cos().clamp_min(0) ** 0.6 * (azimuth.cos() > 0.35)
        wide = visor[:, None] * nose + brim[:, None]
        return Hats(
            person, edge * RADIANS, least + (most - least) * draw.uniform(0, 1, count),
            slack * draw.uniform(0, 1, count), wide * draw.uniform(0.6, 1.2, count, 1),
            droop * draw.uniform(0.3, 1.3, count),
        )  # fmt: skip

    def hats(self, hats: Hats, base_m: Tensor, tiles_per_m: Tensor) -> Layer:
        """The hats on rest bodies (P, 19158, 3); tiles_per_m (P, M)."""
        base = base_m[hats.person]
        rise = torch.linspace(0, 1, ROWS, device=base.device)[:, None]
        edge = hats.edge[:, None]
        level = edge + (math.pi / 2 - edge) * rise  # n rows C+1
        reach = self._radius_at(level) + hats.stand_off[:, None, None]
        crown = _direction(self.azimuth.expand_as(level), level)
        up = (level / (math.pi / 2)).clamp_min(0)[..., None] ** 2
        crown = crown * reach[..., None]
        lift = up * hats.slack[:, None, None, None] * crown.new_tensor([0.0, 1.0, -0.4])
        out = torch.linspace(0, 1, BRIM_ROWS, device=base.device)[:, None, None]
        flat = _direction(self.azimuth, torch.zeros_like(self.azimuth))
        width = hats.brim[:, None, :, None]
        down = hats.droop[:, None, None, None] * out * width
        brim = crown[:, :1] + out * width * flat - down * flat.new_tensor([0.0, 1.0, 0.0])
        local = torch.cat([crown + lift, brim], 1).flatten(1, 2)
        opacity = torch.ones_like(local[..., 0])
        has_brim = torch.where(hats.brim > 0.005, 1.0, -1.0)
        opacity[:, ROWS * (COLUMNS + 1) :] = has_brim.repeat(1, BRIM_ROWS)
        rest = self._fit(local, base)
        uv = self.hat.uv * tiles_per_m[hats.person, MATERIAL['hat'], None, None]
        return Layer.make(self.hat, hats.person, rest, len(MATERIALS), opacity=opacity, uv=uv)

    def _radius_at(self, level: Tensor) -> Tensor:
        """Radius of the skull (n, rows, C+1) at levels (n, rows, C+1) in radians."""
        step = self.levels[1] - self.levels[0]
        place = ((level - self.levels[0]) / step).clamp(0, len(self.levels) - 1.001)
        low = place.long()
        share = place - low
        column = torch.arange(level.shape[-1], device=level.device)
        radius = self.radius
        return radius[column, low] * (1 - share) + radius[column, low + 1] * share

    def _head(self, base: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (n, 1, 3) and centre (n, 1, 3) of the heads of rest bodies (n, 19158, 3)."""
        ends = torch.tensor(HEAD_ENDS, device=base.device)
        axis = torch.arange(3, device=base.device)
        first, second = (base[:, ends[:, k], axis] for k in range(2))
        mean_first, mean_second = (self.body.vertices[ends[:, k], axis] for k in range(2))
        spans = ((first - second) / (mean_first - mean_second)).abs()[:, None]
        middle = self.body.vertices[self.number].mean(0)
        centre = base[:, self.number].mean(1, keepdim=True) + spans * (self.centre - middle)
        return spans, centre

    def _fit(self, local: Tensor, base: Tensor) -> Tensor:
        """Points (n, V, 3) about the mean head's centre to rest bodies (n, 19158, 3)."""
        spans, centre = self._head(base)
        return centre + spans * local

    def under_hat(self, hats: Hats, count: int) -> Tensor:
        """Which drawn skin (count, R) is under hats: out of sight, ears included."""
        away = self.body.vertices[self.body.number] - self.centre
        level = torch.atan2(away[:, 1], away[:, [0, 2]].norm(dim=1))
        turn = torch.atan2(away[:, 0], away[:, 2])
        column = ((turn + math.pi) / (2 * math.pi) * COLUMNS).round().long().clamp(0, COLUMNS)
        within = (level - hats.edge[:, column]) * away.norm(dim=1) > 0.012
        covered = torch.zeros(count, len(level), dtype=torch.bool, device=level.device)
        covered[hats.person] = within & (self.chart.is_head > 0.5)
        return covered

    def flattened_ears(self, hats: Hats, rest_m: Tensor, base_m: Tensor) -> Tensor:
        """Drawn skin at rest (P, R, 3) with the ears of who wears a hat pressed to the head."""
        spans, centre = self._head(base_m)
        local = (rest_m - centre) / spans
        hatted = torch.zeros(len(rest_m), dtype=torch.bool, device=rest_m.device)
        hatted[hats.person] = True
        ear = (self.chart.is_head > 0.5) & (local[..., 1] < 0.06) & (local[..., 1] > -0.06)
        outer = local[..., 0].abs().clamp_max(EAR_X) * local[..., 0].sign()
        flat = torch.cat([outer[..., None], local[..., 1:]], -1) * spans + centre
        return torch.where((hatted[:, None] & ear)[..., None], flat, rest_m)

    def caps(
        self, person: Tensor, base_m: Tensor, volume: Tensor, recede: Tensor, folds: Tensor
    ) -> Layer:
        """Short hair: volume (n,) metres thick, recede (n,) metres above the hairline."""
        rest = base_m[person][:, self.cap_number]
        depth = (self.cap_scalp / 0.05 + 0.3).clamp(0.1, 1)
        thick = volume[:, None] * (1 + 0.3 * folds[:, : len(self.cap_scalp)]) * depth
        rest = rest + thick[..., None] * self.cap.normals(rest)
        opacity = self.cap_scalp - recede[:, None]
        return Layer.make(self.cap, person, rest, len(MATERIALS), opacity=opacity)

    def long_hair(self, person: Tensor, base_m: Tensor, end: Tensor) -> Layer:
        """Long hair down to the height `end` (n,) on the mean body."""
        rest = base_m[person][:, self.strand_number]
        length = self.body.vertices[self.strand_number, 1] - end[:, None]
        opacity = torch.minimum(length, self.face_m)
        return Layer.make(self.strands, person, rest, len(MATERIALS), opacity=opacity)


def _hair_uv(away: Tensor) -> Tensor:
    """Texture coordinates (V, 2) that run down from the crown, both sides alike: no seam."""
    turn = torch.atan2(away[:, 0], -away[:, 2]).abs()
    return torch.stack([turn * 0.6, -away[:, 1] * 4], 1)


def _direction(azimuth: Tensor, level: Tensor) -> Tensor:
    """Unit directions (..., 3): azimuth 0 in front, level above the horizon."""
    azimuth, level = torch.broadcast_tensors(azimuth, level)
    flat = level.cos()
    return torch.stack([flat * azimuth.sin(), level.sin(), flat * azimuth.cos()], -1)
