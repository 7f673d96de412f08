"""Procedural garments: regions and thickness of one shell round the body, and skirts.

A garment is a signed coverage in metres at every vertex of the shell (positive inside), so that
hems, sleeves and necklines cut smoothly between vertices and differ from person to person. All
garments hang on the same vertices: between top and trousers no pose can open a slit.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.layers import Layer, Sheet, welds
from rsb_pose_core.synthesis.unwrap import Chart, unwrap

# materials of a person: garments from the inside out
MATERIALS = (
    'skin', 'eyes', 'trousers', 'top', 'jacket', 'shoes', 'sole', 'skirt', 'strands', 'cap',
    'hat', 'brim', 'upper', 'lower', 'footwear', 'headwear', 'hair',
)  # fmt: skip
MATERIAL = {name: i for i, name in enumerate(MATERIALS)}
SHELL = ('trousers', 'top', 'jacket', 'shoes', 'sole')
EVERYWHERE, ALWAYS, NEVER = 9.0, 1.0, -1.0
UNDER_M = 0.03  # how far a garment goes on under the one that covers it
WAVES = 8


@dataclass(frozen=True)
class Style:
    """How the clothes of B people are cut: (B, 1) each; metres on the mean body."""

    dressed: Tensor  # bool: in procedural clothes, not in a suit
    shod: Tensor  # bool: in procedural shoes
    sleeve: Tensor  # place along the arm, below 0: none
    hem: Tensor  # height of the top's lower end
    topless: Tensor  # bool
    neck: Tensor  # height of the neckline
    neck_depth: Tensor
    neck_width: Tensor
    waist: Tensor  # height of the trousers' upper end
    leg: Tensor  # place along the leg where trousers end
    jacket: Tensor  # bool
    jacket_hem: Tensor
    jacket_sleeve: Tensor
    opening: Tensor  # half width of the jacket's opening, below 0: closed
    shoe: Tensor  # place along the leg where shoes begin
    loose: Tensor  # 0 tight .. 1
    wide: Tensor  # 0 tight .. 1, legs
    thick: Tensor  # of the jacket, 0..1
    skirt: Tensor  # bool
    skirt_end: Tensor  # place along the leg
    flare: Tensor
    wave: Tensor  # B WAVES 3, of folds, per metre
    phase: Tensor  # B WAVES 1
    swell: Tensor  # B WAVES 1

    @staticmethod
    def sample(female: Tensor, suited: Tensor, shod: Tensor, draw: Draw) -> 'Style':
        """Clothes for B people: female, suited (in a whole outfit already), shod (B,) bool."""
        count = len(female)

        def pick(low: float, high: float) -> Tensor:
            return draw.uniform(low, high, count, 1)

        def chance(probability: float) -> Tensor:
            return draw.chance(probability, count, 1)

        def when(probability: float, yes: Tensor, no: Tensor) -> Tensor:
            return torch.where(chance(probability), yes, no)

        skirt = female[:, None] & chance(0.28)
        leg = when(0.22, pick(0.35, 1.1), when(0.12, pick(1.3, 1.8), pick(1.88, 2.03)))
        wave = torch.nn.functional.normalize(draw.normal(count, WAVES, 3), dim=-1)
        waist = pick(0.12, 0.23)
        hem = when(0.1, pick(0.17, 0.26), pick(0.045, 0.16))
        return Style(
            dressed=~suited[:, None],
            shod=~shod[:, None] & chance(0.9),
            sleeve=when(0.45, pick(0.3, 0.8), when(0.15, pick(-0.2, 0.1), pick(1.75, 2.02))),
            hem=torch.where(skirt, waist - 0.03, hem),  # tucked in
            topless=~female[:, None] & chance(0.04),
            neck=when(0.12, pick(0.62, 0.66), pick(0.555, 0.60)),
            neck_depth=when(0.7, pick(0.0, 0.04), pick(0.03, 0.12)),
            neck_width=pick(0.03, 0.075),
            waist=waist,
            leg=torch.where(skirt, pick(0.1, 0.25), leg),
            jacket=chance(0.28),
            jacket_hem=when(0.15, pick(0.15, 0.24), pick(0.03, 0.13)),
            jacket_sleeve=when(0.12, pick(-0.2, 0.0), pick(1.8, 2.02)),
            opening=when(0.6, pick(0.01, 0.09), pick(-1.0, -0.9)),
            shoe=when(0.3, pick(1.72, 1.88), pick(1.92, 1.98)),
            loose=pick(0.0, 1.0),
            wide=pick(0.0, 1.0),
            thick=pick(0.0, 1.0),
            skirt=skirt & ~suited[:, None],
            skirt_end=pick(0.5, 1.8),
            flare=pick(0.0, 0.09),
            wave=wave * (2 * math.pi / draw.uniform(0.07, 0.24, count, WAVES, 1)),
            phase=draw.uniform(0, 2 * math.pi, count, WAVES, 1),
            swell=draw.normal(count, WAVES, 1) / WAVES**0.5,
        )

    def folds(self, points_m: Tensor) -> Tensor:
        """Smooth folds (B, V), about -1..1, at points (V, 3)."""
        return ((self.wave @ points_m.mT + self.phase).sin() * self.swell).sum(1)


def coverage(style: Style, chart: Chart) -> dict[str, Tensor]:
    """Signed coverage (B, V) in metres of each garment of SHELL at the points of a chart."""
    y, arm, leg, x = chart.y[None], chart.arm[None], chart.leg[None], chart.x[None]
    is_arm, is_leg = (chart.is_arm > 0.45)[None], (chart.is_leg > 0.5)[None]
    front = (chart.z > 0)[None] & ~is_arm
    everywhere = torch.full_like(y, EVERYWHERE)
    bare = (chart.is_head > 0.3)[None]

    def armhole(sleeve: Tensor) -> Tensor:
        """Sleeves that end there; without sleeves cloth ends where the arm begins."""
        ends = torch.where(is_arm, (sleeve - arm) * 0.27, everywhere)
        return torch.where((sleeve < 0.1) & ~is_arm, (0.45 - chart.is_arm[None]) * 0.2, ends)

    trousers = torch.minimum(
        style.waist - y, torch.where(is_leg, (style.leg - leg) * 0.4, everywhere)
    )
    trousers = torch.where(is_arm | ~style.dressed, NEVER, trousers)

    neck = style.neck - style.neck_depth * torch.exp(-((x / style.neck_width) ** 2)) * front
    neckline = neck - y + 0.1 * (x.abs() - 0.06).clamp_min(0)
    trunk = torch.where(is_arm, EVERYWHERE, y - style.hem)
    top = torch.minimum(torch.minimum(trunk, armhole(style.sleeve)), neckline)
    top = torch.where(style.topless | ~style.dressed, NEVER, top)

    trunk = torch.where(is_arm, EVERYWHERE, y - style.jacket_hem)
    jacket = torch.minimum(trunk, armhole(style.jacket_sleeve))
    jacket = torch.minimum(jacket, 0.60 - y + 0.1 * (x.abs() - 0.07).clamp_min(0))
    # it gapes towards the hem
    gap = x.abs() - style.opening * (1.25 - 0.9 * (y - 0.05).clamp(0, 0.5))
    jacket = torch.where(front, torch.minimum(jacket, gap), jacket)
    jacket = torch.where(style.jacket & style.dressed, jacket, NEVER)

    shoes = torch.where((chart.is_foot[None] > 0.2) | (leg > 1.5), (leg - style.shoe) * 0.3, NEVER)
    shoes = torch.where(style.shod & is_leg, shoes, NEVER)
    sole = torch.where(style.shod & (chart.is_foot[None] > 0.5), -0.803 - y, NEVER)
    made = dict(zip(SHELL, (trousers, top, jacket, shoes, sole), strict=True))
    return {name: torch.where(bare, NEVER, value) for name, value in made.items()}


def thickness(style: Style, chart: Chart, cover: dict[str, Tensor]) -> dict[str, Tensor]:
    """Distance (B, V) of each garment of SHELL from the shell, along the normal, metres."""
    y, arm, leg = chart.y[None], chart.arm[None], chart.leg[None]
    is_arm = (chart.is_arm > 0.45)[None]
    points = torch.stack([chart.x, chart.y, chart.z], 1)
    folds = style.folds(points)
    loose_arm = 0.022 * (arm / style.sleeve.clamp_min(0.3)).clamp(0, 1.3)
    top = -0.003 + style.loose * torch.where(
        is_arm, 0.004 + loose_arm, 0.007 + 0.05 * (0.42 - y).clamp(0, 0.4)
    )
    top = top + 0.008 * style.loose * folds
    trousers = -0.003 + style.wide * (
        0.005 + 0.035 * (leg / style.leg.clamp_min(0.4)).clamp(0, 1.2) + 0.008 * folds
    )
    over = _share(cover['trousers'])
    top = torch.maximum(top, over * (trousers + 0.003) + (1 - over) * top)
    inner = torch.maximum(_share(cover['top']) * top, over * trousers)
    jacket = inner.clamp_min(0) + 0.007 + 0.014 * style.thick + 0.006 * folds.clamp(-0.6, 1)
    shoes = torch.full_like(top, 0.006)
    return dict(zip(SHELL, (trousers, top, jacket, shoes, shoes + 0.001), strict=True))


def _share(cover: Tensor) -> Tensor:
    """0 outside a garment .. 1 inside, smooth over two centimetres."""
    return (cover / 0.02 + 0.5).clamp(0, 1)


class Tailor:
    """Cuts procedural clothes for the shapes of a body."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.shell, self.shell_number = self._sheet(body.shell, False)
        self.skirt, self.skirt_number = self._sheet(body.skirt, True)
        self.shell_chart = Chart.of(body, self.shell_number)
        self.skirt_chart = Chart.of(body, self.skirt_number)
        self.skin_chart = Chart.of(body, body.number)

    def _sheet(self, faces: Tensor, trunk_only: bool) -> tuple[Sheet, Tensor]:
        number, uv, render = unwrap(self.body, faces, trunk_only=trunk_only)
        material = torch.zeros(len(render), dtype=torch.long, device=uv.device)
        return Sheet(self.body.skin[number], uv, render, welds(number), material), number

    def cut(self, style: Style, base_m: Tensor, tiles_per_m: Tensor, shift: Tensor) -> list[Layer]:
        """Layers for rest bodies (B, 19158, 3).

        tiles_per_m (B, M), shift (B, M, 2): scale and place of the cloths of MATERIALS.
        """
        person = torch.arange(len(base_m), device=base_m.device)
        cover = coverage(style, self.shell_chart)
        stand_off = thickness(style, self.shell_chart, cover)
        rest = base_m[:, self.shell_number]
        normal = self.shell.normals(rest)
        # cloth is as wide on a child as on an adult
        tall = (rest[..., 1].amax(1) - rest[..., 1].amin(1)) / 1.45

        def tiles(uv: Tensor, name: str) -> Tensor:
            scale = (tall * tiles_per_m[:, MATERIAL[name]])[:, None, None]
            return uv * scale + shift[:, MATERIAL[name], None]

        layers = []
        hidden_by = torch.full_like(cover['top'], NEVER)
        for name in reversed(SHELL):
            drawn = (hidden_by < UNDER_M)[:, self.shell.faces].any(2)
            layers.append(
                self._layer(
                    self.shell, name, person, rest + stand_off[name][..., None] * normal,
                    cover[name], drawn, tiles(self.shell.uv, name),
                )
            )  # fmt: skip
            if name != 'sole':
                hidden_by = torch.maximum(hidden_by, cover[name])
        wearers = style.skirt[:, 0].nonzero()[:, 0]
        chart = self.skirt_chart
        rest = base_m[wearers][:, self.skirt_number]
        folds = style.folds(torch.stack([chart.x, chart.y, chart.z], 1))
        flare = chart.leg.clamp(0, 1.8) * (style.flare + 0.012 * folds) + 0.004
        rest = rest + flare[wearers, :, None] * self.skirt.normals(rest)
        end = (style.skirt_end - chart.leg) * 0.4
        cover_skirt = torch.minimum(end, style.waist + 0.01 - chart.y)
        layers.append(
            self._layer(
                self.skirt, 'skirt', wearers, rest, cover_skirt[wearers], None,
                tiles(self.skirt.uv, 'skirt')[wearers],
            )
        )  # fmt: skip
        return layers

    def _layer(
        self, sheet: Sheet, name: str, person: Tensor, rest: Tensor, cover: Tensor,
        drawn: Tensor | None, uv: Tensor,
    ) -> Layer:  # fmt: skip
        material = torch.full_like(sheet.material, MATERIAL[name])
        own = Sheet(sheet.weight, sheet.uv, sheet.faces, sheet.weld, material)
        return Layer.make(own, person, rest, len(MATERIALS), opacity=cover, drawn=drawn, uv=uv)

    def worn_over_skin(self, style: Style) -> Tensor:
        """Signed coverage (B, R) in metres of the drawn skin by the shell's garments."""
        cover = coverage(style, self.skin_chart)
        return torch.stack([cover[name] for name in SHELL[:-1]]).amax(0)
