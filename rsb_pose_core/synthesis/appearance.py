"""Colours, prints and pictures of people: skin, hair, cloth. Linear light."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from rsb_pose_core.synthesis.clothing import MATERIAL, MATERIALS
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.mesh import PLAIN, Surfaces
from rsb_pose_core.synthesis.wardrobe import GREY, STRANDS, Wardrobe

SKIN_TONES = ((0.80, 0.56, 0.45), (0.70, 0.44, 0.32), (0.52, 0.30, 0.19), (0.33, 0.17, 0.095),
              (0.16, 0.075, 0.042), (0.07, 0.034, 0.022))  # fmt: skip
HAIR_TONES = ((0.012, 0.010, 0.009), (0.03, 0.018, 0.011), (0.018, 0.013, 0.010),
              (0.09, 0.045, 0.02), (0.20, 0.11, 0.05), (0.38, 0.27, 0.14), (0.20, 0.07, 0.03),
              (0.35, 0.35, 0.35))  # fmt: skip
HAIR_SHARES = (4.0, 4.0, 3.0, 3.0, 1.5, 1.2, 0.7, 0.8)
CLOTH_TONES = ((0.012, 0.012, 0.013), (0.03, 0.03, 0.033), (0.09, 0.09, 0.095), (0.3, 0.3, 0.3),
               (0.72, 0.72, 0.7), (0.5, 0.47, 0.4), (0.02, 0.03, 0.07), (0.03, 0.06, 0.17),
               (0.10, 0.16, 0.28), (0.22, 0.13, 0.07), (0.36, 0.28, 0.18), (0.07, 0.08, 0.04),
               (0.25, 0.03, 0.03), (0.10, 0.02, 0.03), (0.03, 0.09, 0.06))  # fmt: skip
DARK = 0.5  # place on the ramp of skin tones from which dark skins' pictures are used
# in the depth race outer garments gain over what they cover: a centimetre or two at 3 m
LIFT = {'trousers': 0.001, 'top': 0.003, 'jacket': 0.005, 'shoes': 0.004, 'sole': 0.005,
        'skirt': 0.006, 'upper': 0.002, 'lower': 0.001, 'footwear': 0.003, 'hat': 0.003,
        'brim': 0.003, 'headwear': 0.003, 'cap': 0.001}  # fmt: skip
CLOTHS = ('trousers', 'top', 'jacket', 'skirt', 'hat', 'brim')
HAIRY = ('strands', 'cap', 'hair')


@runtime_checkable
class Bank(Protocol):
    """What is needed of textures.TextureBank."""

    def of(self, kind: str) -> Tensor:
        """Numbers of a kind of texture."""

    def number(self, name: str) -> int:
        """Number of a named picture."""


@dataclass(frozen=True)
class Worn:
    """Pictures of MakeHuman's garments (P, 2), as it is and in greys; PLAIN where none is worn."""

    upper: Tensor
    lower: Tensor
    footwear: Tensor
    headwear: Tensor
    hair: Tensor


@dataclass(frozen=True)
class Look:
    """Surfaces of P people, a row per material, and how their cloth is laid."""

    surfaces: Surfaces  # P * M rows, owner: 0..P-1
    tiles_per_m: Tensor  # P M
    shift: Tensor  # P M 2, tiles


class Stylist:
    """Chooses colours and prints for people of a split."""

    def __init__(self, wardrobe: Wardrobe, bank: Bank, skins: list[str]) -> None:
        """skins: names of the skins that may be shown."""
        self.bank = bank
        device = wardrobe.device
        bearded = [f'{name}/beard' for name in skins if f'{name}/beard' in wardrobe.bearded]
        names = skins + bearded
        self.skins = torch.tensor([bank.number(name) for name in names], device=device)
        self.skin_tone = torch.stack(
            [wardrobe.skin_tone(name.removesuffix('/beard')) for name in names]
        )
        self.skin_female = torch.tensor(['female' in name for name in names], device=device)
        self.skin_dark = torch.tensor(['dark' in name for name in names], device=device)
        self.skin_beard = torch.tensor([name.endswith('/beard') for name in names], device=device)
        ages = {'young': 20.0, 'middleage': 45.0, 'old': 70.0}
        self.skin_age = torch.tensor(
            [ages.get(name.split('/')[1].partition('_')[0], 30.0) for name in names], device=device
        )
        self.strands = bank.number(STRANDS)
        self.eyes = torch.tensor([bank.number(name) for name in wardrobe.eyes], device=device)

    def look(self, female: Tensor, age: Tensor, ancestry: Tensor, worn: Worn, draw: Draw) -> Look:
        """Looks of P people: female (P,) bool, age (P,) years, ancestry (P, 3)."""
        count, materials, device = len(female), len(MATERIALS), female.device

        def tones(options: tuple[tuple[float, ...], ...], *shape: int) -> Tensor:
            return draw.choose(torch.tensor(options, device=device), *shape)

        # darkness of the skin follows ancestry, loosely
        dark = ancestry @ ancestry.new_tensor([0.55, 0.12, 0.0])
        dark = (dark + 0.5 * draw.uniform(0, 1, count)).clamp(0, 0.9999)
        texture = torch.full((count, materials), PLAIN, dtype=torch.long, device=device)
        colour = self._cloth_tones(count, draw)
        texture[:, 0], colour[:, 0] = self._skin(female, age, dark, draw)
        eye = torch.where(dark > 0.35, draw.integer(2, count), draw.integer(len(self.eyes), count))
        texture[:, MATERIAL['eyes']] = self.eyes[eye]
        colour[:, MATERIAL['eyes']] = 1.0
        hair = self._hair(age, dark, draw)
        for name in HAIRY:
            colour[:, MATERIAL[name]] = hair / GREY
            texture[:, MATERIAL[name]] = self.strands
        printed = draw.chance(0.62, count, materials)
        cloth = draw.choose(self.bank.of('cloth'), count, materials)
        dyed = draw.chance(0.45, count, materials)[..., None]
        for name in CLOTHS:
            m = MATERIAL[name]
            texture[:, m] = torch.where(printed[:, m], cloth[:, m], PLAIN)
            white = draw.uniform(0.75, 1.1, count, 3)
            dye = (colour[:, m] * 2).clamp_max(1.0)
            tint = torch.where(dyed[:, m], dye, white)
            colour[:, m] = torch.where(printed[:, m, None], tint, colour[:, m])
        for pair in (('brim', 'hat'), ('skirt', 'top')):
            same = draw.chance(1.0 if pair[0] == 'brim' else 0.4, count)
            a, b = MATERIAL[pair[0]], MATERIAL[pair[1]]
            texture[:, a] = torch.where(same, texture[:, b], texture[:, a])
            colour[:, a] = torch.where(same[:, None], colour[:, b], colour[:, a])
        self._worn(texture, colour, worn, draw)
        pale = draw.chance(0.6, count)[:, None]
        colour[:, MATERIAL['sole']] = torch.where(pale, 0.7, 0.03)
        return Look(
            self._surfaces(texture, colour.clamp(0.004, 1.0), draw),
            1 / draw.log_uniform(0.18, 0.9, count, materials),
            draw.uniform(0, 1, count, materials, 2),
        )

    def _cloth_tones(self, count: int, draw: Draw) -> Tensor:
        shape = (count, len(MATERIALS))
        strong = draw.uniform(0, 1, *shape, 1) ** 1.2 * (
            1 - draw.uniform(0, 1, *shape, 3) * draw.uniform(0, 1, *shape, 1)
        )
        dull = draw.choose(torch.tensor(CLOTH_TONES, device=draw.device), *shape)
        tone = torch.where(draw.chance(0.6, *shape, 1), dull, strong)
        return tone * draw.uniform(0.7, 1.3, *shape, 1)

    def _skin(
        self, female: Tensor, age: Tensor, dark: Tensor, draw: Draw
    ) -> tuple[Tensor, Tensor]:
        """The picture (P,) that suits best, and the tint (P, 3) to the wanted tone."""
        count = len(female)
        old = (age[:, None] - self.skin_age).abs() / 40
        misfit = draw.uniform(0, 1, count, len(self.skins))
        misfit = misfit + 4.0 * (female[:, None] != self.skin_female) + old
        misfit = misfit + 8.0 * ((dark[:, None] > DARK) != self.skin_dark)
        misfit = misfit + 9.0 * (self.skin_beard & (age[:, None] < 20))
        number = misfit.argmin(1)
        ramp = torch.tensor(SKIN_TONES, device=female.device)
        place = dark * (len(ramp) - 1)
        low = place.long()
        tone = torch.lerp(ramp[low], ramp[low + 1], (place - low)[:, None])
        tone = tone * (1 + 0.05 * draw.normal(count, 3)) * draw.uniform(0.85, 1.1, count, 1)
        return self.skins[number], (tone / self.skin_tone[number]).clamp(0.15, 1.4)

    def _hair(self, age: Tensor, dark: Tensor, draw: Draw) -> Tensor:
        """Tones (P, 3) of hair: dark with dark skin, grey with age."""
        count = len(age)
        tones = torch.tensor(HAIR_TONES, device=age.device)
        shares = torch.tensor(HAIR_SHARES, device=age.device).cumsum(0)
        place = draw.uniform(0, float(shares[-1]), count)
        number = torch.searchsorted(shares, place).clamp_max(len(tones) - 1)
        number = torch.where((dark > 0.45) & draw.chance(0.85, count), 0, number)
        tone = tones[number] * draw.uniform(0.6, 1.4, count, 1)
        grey = ((age - 45) / 30).clamp(0, 1) * draw.uniform(0, 1, count)
        return torch.lerp(tone, torch.full_like(tone, 0.42), grey[:, None])

    def _worn(self, texture: Tensor, colour: Tensor, worn: Worn, draw: Draw) -> None:
        """Pictures of MakeHuman's garments: as they are, or their greys dyed."""
        count = len(texture)
        for name in ('upper', 'lower', 'footwear', 'headwear'):
            m, number = MATERIAL[name], getattr(worn, name)
            dyed = draw.chance(0.6, count)
            texture[:, m] = torch.where(dyed, number[:, 1], number[:, 0])
            plain = draw.uniform(0.7, 1.1, count, 1) * draw.uniform(0.9, 1.0, count, 3)
            colour[:, m] = torch.where(dyed[:, None], colour[:, m] / GREY, plain)
        texture[:, MATERIAL['hair']] = worn.hair[:, 1]

    def _surfaces(self, texture: Tensor, colour: Tensor, draw: Draw) -> Surfaces:
        count, materials = texture.shape
        device = texture.device

        def column(values: dict[str, float], other: float) -> Tensor:
            row = torch.tensor([values.get(name, other) for name in MATERIALS], device=device)
            return row.expand(count, -1).flatten()

        def flags(names: tuple[str, ...]) -> Tensor:
            row = torch.tensor([name in names for name in MATERIALS], device=device)
            return row.expand(count, -1).flatten()

        gloss = draw.uniform(0, 0.05, count, materials)
        for name, low, high in (('skin', 0.04, 0.14), ('eyes', 0.4, 0.7), ('shoes', 0.0, 0.35),
                                ('footwear', 0.0, 0.3), ('hat', 0.0, 0.15)):  # fmt: skip
            gloss[:, MATERIAL[name]] = draw.uniform(low, high, count)
        for name in HAIRY:
            gloss[:, MATERIAL[name]] = draw.uniform(0.05, 0.25, count)
        scatter = torch.full((count, materials, 3), 0.06, device=device)
        scatter[:, MATERIAL['skin']] = scatter.new_tensor([0.35, 0.2, 0.14])
        for name in HAIRY:
            scatter[:, MATERIAL[name]] = 0.2
        bump = draw.uniform(0.05, 0.3, count, materials)
        for name, value in (('skin', 0.03), ('eyes', 0.0), ('sole', 0.02)):
            bump[:, MATERIAL[name]] = value
        return Surfaces(
            texture.flatten(), colour.flatten(0, 1), gloss.flatten(), scatter.flatten(0, 1),
            bump.flatten(), column(LIFT, 0.0), ~flags(('skin', 'eyes')), flags(('hair',)),
            torch.arange(count, device=device).repeat_interleave(materials),
        )  # fmt: skip
