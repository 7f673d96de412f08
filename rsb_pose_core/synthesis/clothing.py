"""What people wear: garments as regions and thickness of the body's skin, hair, skirts and shoes.

A garment is a signed coverage in metres at every vertex (positive inside), so that hems, sleeves
and necklines cut smoothly between vertices and differ from person to person.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.draw import Draw

# what a fragment shows, from the inside out; the last covering garment wins
MATERIALS = ('skin', 'trousers', 'top', 'jacket', 'shoes', 'hair', 'eyes')
ALWAYS, NEVER = 1.0, -1.0


@dataclass(frozen=True)
class Outfit:
    """Clothes of B people on the body's V vertices."""

    coverage_m: Tensor  # B V 5: trousers, top, jacket, shoes, hair
    offset_m: Tensor  # B V, along the normal
    opacity: Tensor  # B V, not drawn where it interpolates to zero or less
    drawn: Tensor  # B F


class Tailor:
    """Knows where on the body an arm, a leg, a scalp is, and cuts clothes to it."""

    def __init__(self, body: Body) -> None:
        self.body = body
        rest = body.vertices
        self.x, self.y, self.z = rest.unbind(1)
        folded = torch.stack([self.x.abs(), self.y, self.z], 1)
        heads = body.bone_heads

        def along(*bones: str) -> Tensor:
            """0 at the first bone's head, 1 at the second's, 2 at the third's."""
            start, middle, end = (heads[body.bone_index[f'{bone}.L']] for bone in bones)
            first, second = middle - start, end - middle
            upper = ((folded - start) @ first / first.square().sum()).clamp_max(1)
            return upper + ((folded - middle) @ second / second.square().sum()).clamp_min(0)

        self.arm = along('upperarm01', 'lowerarm01', 'wrist')
        self.leg = along('upperleg01', 'lowerleg01', 'foot')
        self.is_arm = body.bone_weight('upperarm', 'lowerarm', 'wrist', 'finger', 'metacarpal')
        self.is_leg = body.bone_weight('upperleg', 'lowerleg', 'foot', 'toe')
        self.is_foot = body.bone_weight('foot', 'toe')
        self.layer = {name: body.vertex_layer == i for i, name in enumerate(body.layers)}
        self.face_layer = {name: body.face_layer == i for i, name in enumerate(body.layers)}

    def cut(self, count: int, gender: Tensor, draw: Draw) -> Outfit:
        """Clothes for `count` people; gender (count,) 0 male .. 1 female."""

        def pick(low: float, high: float) -> Tensor:
            return draw.uniform(low, high, count, 1)

        def when(probability: float, yes: Tensor, no: Tensor) -> Tensor:
            return torch.where(draw.chance(probability, count, 1), yes, no)

        female = (gender > 0.5)[:, None]
        arm, leg, y = self.arm[None], self.leg[None], self.y[None]
        is_arm, is_leg = (self.is_arm > 0.45)[None], (self.is_leg > 0.5)[None]
        everywhere = torch.full_like(y, 9.0)

        skirt = female & draw.chance(0.25, count, 1)
        # trousers: from the waist to shorts, three quarters or the ankle
        waist = pick(0.08, 0.19)
        length = when(0.2, pick(0.35, 1.05), when(0.12, pick(1.3, 1.8), pick(1.86, 2.0)))
        length = torch.where(skirt, pick(0.1, 0.25), length)
        trousers = torch.minimum(waist - y, torch.where(is_leg, (length - leg) * 0.4, everywhere))
        trousers = torch.where(is_arm, NEVER, trousers)
        # top: sleeves, hem, neckline
        sleeve = when(0.45, pick(0.25, 0.75), when(0.15, pick(0.0, 0.2), pick(1.7, 2.0)))
        hem = when(0.1, pick(0.12, 0.2), pick(-0.05, 0.11))
        depth, width = pick(0.0, 0.1), pick(0.03, 0.07)
        neck = when(0.12, pick(0.6, 0.65), pick(0.535, 0.575))
        neck = neck - depth * torch.exp(-((self.x / width) ** 2)) * (self.z > 0)
        neckline = neck - y + 0.1 * (self.x.abs() - 0.06).clamp_min(0)
        on_arm = (sleeve - arm) * 0.27
        trunk = torch.where(is_leg & (y < -0.06), NEVER, y - hem)
        top = torch.minimum(torch.where(is_arm, on_arm, trunk), neckline)
        # jacket: open at the front or closed
        worn = draw.chance(0.25, count, 1)
        opening = when(0.6, pick(0.01, 0.09), pick(-1.0, -0.9))
        jacket = torch.where(is_arm, (pick(1.75, 2.0) - arm) * 0.27, y - pick(-0.08, 0.1))
        jacket = torch.minimum(jacket, pick(0.55, 0.6) - y)
        front = (self.z > 0)[None] & ~is_arm
        jacket = torch.where(front, torch.minimum(jacket, self.x.abs() - opening), jacket)
        jacket = torch.where(worn & ~(is_leg & (y < -0.06)), jacket, NEVER)
        shoes = torch.where(
            draw.chance(0.92, count, 1) & (self.is_foot[None] > 0.3),
            (leg - when(0.3, pick(1.75, 1.9), pick(1.93, 1.98))) * 0.3 + 0.01,
            NEVER,
        )
        # hair: a cap on the scalp, strips of long hair, hats drawn as stiff hair
        bald = draw.chance(0.1, count, 1) & ~female
        hat = draw.chance(0.1, count, 1)
        hair = torch.where(bald & ~hat, NEVER, self.body.scalp_m[None] + pick(-0.004, 0.015))
        hair = torch.where(self.layer['head'] | self.layer['cap'], hair, NEVER)
        hair = torch.where(self.layer['hair'], ALWAYS, hair)
        long_hair = torch.where(female, draw.chance(0.6, count, 1), draw.chance(0.05, count, 1))
        coverage = torch.stack([trousers, top, jacket, shoes, hair], -1)
        skirt_vertices = self.layer['skirt'][None, :, None]
        bottom_only = torch.tensor([ALWAYS, NEVER, NEVER, NEVER, NEVER], device=coverage.device)
        coverage = torch.where(skirt_vertices, bottom_only, coverage)
        bare = (self.layer['hands'] | self.layer['eyes'])[None, :, None]
        coverage = torch.where(bare, NEVER, coverage)

        # thickness: the shell lies 8 mm outside the skin; loose cloth stands off and wrinkles
        loose, wide = pick(0.0, 1.0), pick(0.0, 1.0)
        wrinkle = self._wrinkles(count, draw)
        thick_top = 0.004 + loose * (0.01 + 0.03 * (0.35 - y).clamp(0, 0.35) * ~is_arm)
        thick_trousers = 0.003 + wide * (0.004 + 0.022 * (leg / 1.8).clamp(0, 1.2))
        offset = torch.where(is_arm | (y > 0.5), -0.006, -0.003) * torch.ones_like(top)
        for cover, thickness, ripple in (
            (trousers, thick_trousers, 0.005 * wide),
            (top, thick_top, 0.007 * loose),
            (jacket, thick_top + 0.012 + 0.01 * wide, 0.006 * torch.ones_like(loose)),
        ):
            share = (cover / 0.02 + 0.5).clamp(0, 1)
            offset = offset * (1 - share) + share * (thickness + ripple * wrinkle)
        offset = torch.where(self.layer['shell'], offset, 0.0)
        offset = torch.where(shoes > 0, 0.006, offset)
        flare = self.leg.clamp(0, 1.8) * (pick(0.0, 0.08) + 0.01 * wrinkle) + 0.006
        offset = torch.where(self.layer['skirt'], flare, offset)
        volume = torch.where(hat, pick(0.012, 0.03), pick(0.003, 0.022))
        crown = volume * (1 + 0.3 * wrinkle) * (self.body.scalp_m / 0.05 + 0.3).clamp(0.1, 1)
        offset = torch.where(self.layer['cap'], crown, offset)

        skirt_end = pick(0.55, 1.75)
        opacity = torch.where(self.layer['skirt'], (skirt_end - leg) * 0.4, ALWAYS)
        opacity = torch.where(self.layer['hair'], y - pick(0.28, 0.62), opacity)
        opacity = torch.where(self.layer['cap'], hair, opacity)
        drawn = torch.ones(count, len(self.body.faces), dtype=torch.bool, device=y.device)
        drawn &= ~self.face_layer['skirt'] | skirt
        drawn &= ~self.face_layer['hair'] | (long_hair & ~hat)
        drawn &= ~self.face_layer['cap'] | ~(bald & ~hat)
        return Outfit(coverage, offset, opacity.expand(count, -1), drawn)

    def _wrinkles(self, count: int, draw: Draw) -> Tensor:
        """Smooth folds (count, V), about -1..1."""
        wave = torch.nn.functional.normalize(draw.normal(count, 8, 3), dim=-1)
        wave = wave * (2 * math.pi / draw.uniform(0.07, 0.24, count, 8, 1))
        phase = torch.einsum('bkd,vd->bkv', wave, self.body.vertices)
        phase = phase + draw.uniform(0, 2 * math.pi, count, 8, 1)
        return (phase.sin() * draw.normal(count, 8, 1)).sum(1) / 2.8
