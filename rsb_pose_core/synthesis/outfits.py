"""Who wears what: suits, shoes, hats and hair of the wardrobe mixed with procedural ones."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.appearance import Bank, Look, Worn
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.clothing import MATERIAL, MATERIALS, UNDER_M, Style, Tailor
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.headwear import Hats, Milliner
from rsb_pose_core.synthesis.layers import Layer, Sheet, welds
from rsb_pose_core.synthesis.mesh import PLAIN
from rsb_pose_core.synthesis.splits import names_of
from rsb_pose_core.synthesis.wardrobe import KINDS, Garment, Wardrobe

NONE = -1
SUITED, SHOD, MAKEHUMAN_HAIR, CAP_HAIR, HATTED, FEDORA = 0.5, 0.55, 0.7, 0.85, 0.2, 0.2
PUSH_M = 0.005  # how far skin beside cloth gives way
FEET_M = -0.78  # a suit that reaches below, on the mean body, has shoes of its own


@dataclass(frozen=True)
class Choice:
    """What P people wear: numbers (P,) of garments per kind, NONE: none."""

    worn: dict[str, Tensor]
    style: Style
    hats: Hats
    capped: Tensor  # n, people with procedural short hair
    maned: Tensor  # n, with procedural long hair
    picture: dict[str, Tensor]  # P 2 per kind: as it is, in greys


class Outfitter:
    """Dresses people in what a split may show."""

    def __init__(self, body: Body, wardrobe: Wardrobe, bank: Bank, split: str) -> None:
        self.body = body
        self.tailor, self.milliner = Tailor(body), Milliner(body)
        device = body.device
        self.garments: dict[str, list[Garment]] = {}
        self.fits: dict[str, Tensor] = {}
        self.pictures: dict[str, list[Tensor]] = {}
        mean = body.vertices[None]
        for kind in KINDS:
            names = names_of(split, [garment.name for garment in wardrobe.of_kind(kind)])
            chosen = [wardrobe.garments[name] for name in names]
            self.garments[kind] = chosen
            sexes = [[g.sex != 'female', g.sex != 'male'] for g in chosen]
            self.fits[kind] = torch.tensor(sexes, device=device).view(-1, 2)  # male, female
            self.pictures[kind] = [
                torch.tensor(
                    [[bank.number(p), bank.number(wardrobe.grey(p))] for p in g.picture],
                    device=device,
                )
                for g in chosen
            ]
        self.has_shoes = torch.tensor(
            [bool(g.fit(mean)[..., 1].min() < FEET_M) for g in self.garments['suit']],
            device=device, dtype=torch.bool,
        )  # fmt: skip
        number = body.number
        material = torch.where(body.face_eye, MATERIAL['eyes'], MATERIAL['skin'])
        self.skin = Sheet(body.skin[number], body.uv, body.faces, welds(number), material)

    def choose(self, female: Tensor, age: Tensor, draw: Draw) -> Choice:
        """Clothes for P people: female (P,) bool, age (P,) years."""
        count = len(female)
        person = torch.arange(count, device=female.device)
        suit = self._pick('suit', female, draw.chance(SUITED, count), draw)
        shod = draw.chance(SHOD, count)
        if len(self.has_shoes):
            shod &= ~(self.has_shoes[suit.clamp_min(0)] & (suit >= 0))
        shoes = self._pick('shoes', female, shod, draw)
        hatted = draw.chance(HATTED, count)
        fedora = self._pick('hat', female, hatted & draw.chance(FEDORA, count), draw)
        hair = self._pick('hair', female, ~hatted & draw.chance(MAKEHUMAN_HAIR, count), draw)
        own_shoes = (shoes >= 0) | ((suit >= 0) & self._shoes_of(suit))
        style = Style.sample(female, suit >= 0, own_shoes, draw)
        hat = hatted & (fedora < 0)
        bald = draw.chance(0.12, count) & ~female & (age > 20)
        capped = (hair < 0) & ~bald & (draw.chance(CAP_HAIR, count) | hatted | female)
        long_hair = torch.where(female, draw.chance(0.6, count), draw.chance(0.05, count))
        worn = {'suit': suit, 'shoes': shoes, 'hat': fedora, 'hair': hair}
        return Choice(
            worn, style, self.milliner.sample(person[hat], draw),
            person[capped], person[capped & long_hair & ~(hat & draw.chance(0.6, count))],
            {kind: self._pictures_of(kind, number, draw) for kind, number in worn.items()},
        )  # fmt: skip

    def _shoes_of(self, suit: Tensor) -> Tensor:
        if not len(self.has_shoes):
            return torch.zeros_like(suit, dtype=torch.bool)
        return self.has_shoes[suit.clamp_min(0)]

    def _pick(self, kind: str, female: Tensor, wanted: Tensor, draw: Draw) -> Tensor:
        """A garment that fits the sex, NONE where none is wanted or there is none."""
        fits = self.fits[kind]
        if not len(fits):
            return torch.full_like(female, NONE, dtype=torch.long)
        suits = fits.T[female.long()]  # P G
        score = draw.uniform(0, 1, *suits.shape) - 2.0 * ~suits
        best, number = score.max(1)
        return torch.where(wanted & (best >= 0), number, NONE)

    def _pictures_of(self, kind: str, number: Tensor, draw: Draw) -> Tensor:
        options = self.pictures[kind]
        if not options:
            return torch.full((len(number), 2), PLAIN, device=number.device)
        most = max(map(len, options))
        table = torch.stack([p[torch.arange(most) % len(p)] for p in options])  # G most 2
        one = draw.integer(most, len(number))
        chosen = table[number.clamp_min(0), one]
        return torch.where(number[:, None] >= 0, chosen, PLAIN)

    def worn(self, choice: Choice) -> Worn:
        """Pictures of the garments, for the stylist."""
        picture = choice.picture
        return Worn(
            picture['suit'], picture['suit'], picture['shoes'], picture['hat'], picture['hair']
        )

    def dress(self, choice: Choice, rest_m: Tensor, look: Look, draw: Draw) -> list[Layer]:
        """Layers of people at rest (P, 19158, 3): skin first."""
        count = len(rest_m)
        layers = self.tailor.cut(choice.style, rest_m, look.tiles_per_m, look.shift)
        cover = self.tailor.worn_over_skin(choice.style)
        hidden = cover > UNDER_M
        beside = cover > -0.005
        for kind, number in choice.worn.items():
            materials = {
                'suit': ('upper', 'lower'), 'shoes': ('footwear',) * 2, 'hat': ('headwear',) * 2,
                'hair': ('hair',) * 2,
            }[kind]  # fmt: skip
            for k, garment in enumerate(self.garments[kind]):
                wearers = (number == k).nonzero()[:, 0]
                layers.append(self._garment_layer(garment, materials, wearers, rest_m))
                under = garment.hidden[self.body.number]
                hidden[wearers] |= under
                beside[wearers] |= self._grown(under)
        milliner = self.milliner
        if len(choice.hats.person):
            layers.append(milliner.hats(choice.hats, rest_m, look.tiles_per_m))
            hidden |= milliner.under_hat(choice.hats, count)
        folds = choice.style.folds(self.body.vertices[milliner.cap_number])
        volume = draw.uniform(0.002, 0.022, len(choice.capped))
        volume = torch.where(self._is_hatted(choice)[choice.capped], 0.003, volume)
        recede = draw.uniform(-0.012, 0.012, len(choice.capped))
        layers.append(
            milliner.caps(choice.capped, rest_m, volume, recede, folds[choice.capped])
        )  # fmt: skip
        layers.append(
            milliner.long_hair(choice.maned, rest_m, draw.uniform(0.2, 0.55, len(choice.maned)))
        )
        return [self._skin_layer(choice, rest_m, hidden, beside), *layers]

    def _is_hatted(self, choice: Choice) -> Tensor:
        hatted = choice.worn['hat'] >= 0
        return hatted.index_fill(0, choice.hats.person, True)

    def _grown(self, under: Tensor) -> Tensor:
        """Drawn vertices (R,) of triangles that touch the given ones."""
        faces = self.body.faces
        grown = under.clone()
        grown[faces[under[faces].any(1)].flatten()] = True
        return grown

    def _skin_layer(self, choice: Choice, rest_m: Tensor, hidden: Tensor, beside: Tensor) -> Layer:
        rest = rest_m[:, self.body.number]
        push = PUSH_M * (beside & ~self.body_eye)
        rest = rest - push[..., None] * self.skin.normals(rest)
        rest = self.milliner.flattened_ears(choice.hats, rest, rest_m)
        drawn = ~hidden[:, self.body.faces].all(2)
        person = torch.arange(len(rest_m), device=rest_m.device)
        return Layer.make(self.skin, person, rest, len(MATERIALS), drawn=drawn)

    @property
    def body_eye(self) -> Tensor:
        """Drawn vertices (R,) of the eyes."""
        eye = torch.zeros(len(self.body.number), dtype=torch.bool, device=self.body.device)
        eye[self.body.faces[self.body.face_eye].flatten()] = True
        return eye

    def _garment_layer(
        self, garment: Garment, materials: tuple[str, str], wearers: Tensor, rest_m: Tensor
    ) -> Layer:
        sheet = garment.sheet
        upper, lower = (MATERIAL[name] for name in materials)
        material = torch.where(sheet.material == 1, lower, upper)
        sheet = Sheet(sheet.weight, sheet.uv, sheet.faces, sheet.weld, material)
        rest = garment.fit(rest_m[wearers])
        return Layer.make(sheet, wearers, rest, len(MATERIALS))
