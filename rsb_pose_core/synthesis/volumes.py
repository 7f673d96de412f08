"""Capsules and spheres that fill a posed body: contact, distance, ambient occlusion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.body import Body, PosedBones

# What the bodies of real people bear: flesh gives way where an arm lies on the trunk.
TOLERANCE_M = 0.04

# capsule: its two ends, each the bone it hangs on and shares of rest bone heads; * is the side.
# Upper arms and thighs are their lower halves: the rest grows out of the trunk.
_LIMBS = {
    'upperarm': (('upperarm02.*', {'upperarm01.*': 0.5, 'lowerarm01.*': 0.5}),
                 ('upperarm02.*', {'lowerarm01.*': 1.0})),
    'forearm': (('lowerarm01.*', {'lowerarm01.*': 1.0}), ('lowerarm02.*', {'wrist.*': 1.0})),
    'hand': (('wrist.*', {'wrist.*': 0.7, 'finger3-1.*': 0.3}),
             ('wrist.*', {'finger3-1.*': 0.4, 'finger3-3.*': 0.6})),
    'thigh': (('upperleg02.*', {'upperleg01.*': 0.5, 'lowerleg01.*': 0.5}),
              ('upperleg02.*', {'lowerleg01.*': 1.0})),
    'shank': (('lowerleg01.*', {'lowerleg01.*': 1.0}), ('lowerleg02.*', {'foot.*': 1.0})),
    'foot': (('foot.*', {'foot.*': 0.8, 'toe1-1.*': 0.2}), ('foot.*', {'toe1-1.*': 1.0})),
}  # fmt: skip
_TRUNK = {
    f'trunk.{side}': (
        ('spine05', {f'upperleg01.{side}': 0.8, f'upperleg01.{other}': 0.2}),
        ('spine01', {f'upperarm01.{side}': 0.72, f'upperarm01.{other}': 0.28}),
    )
    for side, other in ('LR', 'RL')
} | {
    'trunk': (
        ('spine05', {'upperleg01.L': 0.5, 'upperleg01.R': 0.5}),
        ('spine01', {'upperarm01.L': 0.5, 'upperarm01.R': 0.5}),
    ),
    'head': (('head', {'head': 1.0}), ('head', {'head': 1.0})),
}  # fmt: skip
_CAPSULES = _TRUNK | {
    f'{name}.{side}': tuple(
        (bone.replace('*', side), {key.replace('*', side): w for key, w in heads.items()})
        for bone, heads in ends
    )
    for side in 'LR'
    for name, ends in _LIMBS.items()
}
# (capsule, place along it, share of its radius)
_SPHERES = [
    ('head', 0.5, 1.0), ('trunk', 0.5, 1.2), ('trunk.L', 0.85, 1.0), ('trunk.R', 0.85, 1.0),
    ('trunk.L', 0.05, 1.1), ('trunk.R', 0.05, 1.1),
    *(
        (f'{name}.{side}', place, 1.0)
        for side in 'LR'
        for name, place in (
            ('upperarm', 0.1), ('forearm', 0.5), ('hand', 0.5), ('thigh', -0.3), ('thigh', 0.7),
            ('shank', 0.4), ('foot', 0.5),
        )
    ),
]  # fmt: skip
# parts that grow out of each other
_JOINED = {
    frozenset(pair)
    for pair in (
        ('upperarm', 'forearm'), ('forearm', 'hand'), ('thigh', 'shank'), ('shank', 'foot'),
        ('trunk', 'trunk'), ('trunk', 'head'), ('upperarm', 'hand'),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Capsules:
    """C capsules of B posed bodies, in the world."""

    start_m: Tensor  # B C 3
    end_m: Tensor  # B C 3
    radius_m: Tensor  # B C


class Volumes:
    """Knows which part of the skin each capsule stands for."""

    def __init__(self, body: Body) -> None:
        self.body = body
        device = body.device
        self.names = list(_CAPSULES)
        ends = list(_CAPSULES.values())
        self.bone = torch.tensor(
            [[body.bone_index[bone] for bone, _ in pair] for pair in ends], device=device
        )
        share = torch.zeros(len(ends), 2, len(body.bones), device=device)
        for c, pair in enumerate(ends):
            for e, (_, heads) in enumerate(pair):
                for name, weight in heads.items():
                    share[c, e, body.bone_index[name]] = weight
        self.share = share
        number = torch.unique(body.number)
        head = self.names.index('head')
        skull = body.vertices[number, 1] > body.vertices[body.nose, 1]
        self.head_number = number[skull & (body.bone_weight('head')[number] > 0.9)]
        self.number, self.owner = self._assign(number, head)
        self.left, self.right = self._pairs()
        self.sphere_capsule = torch.tensor(
            [self.names.index(name) for name, _, _ in _SPHERES], device=device
        )
        self.sphere_place = torch.tensor([place for _, place, _ in _SPHERES], device=device)
        self.sphere_size = torch.tensor([size for _, _, size in _SPHERES], device=device)

    def _rest_ends(self, vertices_m: Tensor, heads_m: Tensor) -> Tensor:
        """Ends (B, C, 2, 3) at rest; the head's capsule is a ball about the skull's middle."""
        ends = torch.einsum('cen,bnd->bced', self.share, heads_m)
        middle = vertices_m[:, self.head_number].mean(1)
        ends[:, self.names.index('head')] = middle[:, None]
        return ends

    def _assign(self, number: Tensor, head: int) -> tuple[Tensor, Tensor]:
        """Skin vertices that tell radii, and the capsule of each."""
        body = self.body
        ends = self._rest_ends(body.vertices[None], body.bone_heads[None])[0]
        points = body.vertices[number]
        place = _place(points[:, None], ends[None, :, 0], ends[None, :, 1], clamp=False)
        nearest = ends[:, 0] + place.clamp(0, 1)[..., None] * (ends[:, 1] - ends[:, 0])
        distance = (points[:, None] - nearest).norm(dim=-1)
        bulky = [name.startswith(('trunk', 'head')) for name in self.names]
        thick = torch.where(torch.tensor(bulky, device=body.device), 0.1, 0.05)
        owner = (distance - thick).argmin(1)
        own = place.gather(1, owner[:, None])[:, 0]
        beside = ((own > 0) & (own < 1)) | (owner == head)
        return number[beside], owner[beside]

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Pairs of capsules that should not share space."""
        left, right = [], []
        for i, a in enumerate(self.names):
            for j, b in enumerate(self.names[:i]):
                (part, _, side), (other, _, opposite) = a.partition('.'), b.partition('.')
                joined = frozenset((part, other)) in _JOINED
                same_side = side == opposite or 'trunk' in (part, other)
                if not (joined and same_side):
                    left.append(i)
                    right.append(j)
        device = self.body.device
        return torch.tensor(left, device=device), torch.tensor(right, device=device)

    def radii(self, vertices_m: Tensor, heads_m: Tensor) -> Tensor:
        """Radii (B, C) of the capsules of rest bodies (B, 19158, 3)."""
        ends = self._rest_ends(vertices_m, heads_m)[:, self.owner]
        points = vertices_m[:, self.number]
        place = _place(points, ends[:, :, 0], ends[:, :, 1])
        nearest = ends[:, :, 0] + place[..., None] * (ends[:, :, 1] - ends[:, :, 0])
        distance = (points - nearest).norm(dim=-1)
        total = distance.new_zeros(len(distance), len(self.names))
        total = total.index_add(1, self.owner, distance)
        count = torch.bincount(self.owner, minlength=len(self.names)).clamp_min(1)
        radius: Tensor = total / count
        return radius

    def capsules(
        self, posed: PosedBones, vertices_m: Tensor, heads_m: Tensor, radius_m: Tensor
    ) -> Capsules:
        """Capsules of posed bodies with rest vertices, rest bone heads and radii()."""
        ends = self._rest_ends(vertices_m, heads_m)
        affine = posed.affine[:, self.bone]  # B C 2 3 4
        world = (affine[..., :3] @ ends[..., None])[..., 0] + affine[..., 3]
        return Capsules(world[:, :, 0], world[:, :, 1], radius_m)

    def spheres(self, capsules: Capsules) -> Tensor:
        """Centre and radius (B, K, 4) in metres of balls that fill the bodies."""
        start, end = (x[:, self.sphere_capsule] for x in (capsules.start_m, capsules.end_m))
        centre = start + self.sphere_place[:, None] * (end - start)
        radius = capsules.radius_m[:, self.sphere_capsule] * self.sphere_size
        return torch.cat([centre, radius[..., None]], -1)

    def penetration_m(self, capsules: Capsules) -> Tensor:
        """How deep (B,) limbs reach into the trunk, the head or other limbs; 0: not at all.

        Of capsules, adjacent parts left out. Bodies at rest stay below TOLERANCE_M; arms that
        hang straight down beside a heavy trunk reach about a centimetre more.
        """
        gap = segment_distance(
            capsules.start_m[:, self.left], capsules.end_m[:, self.left],
            capsules.start_m[:, self.right], capsules.end_m[:, self.right],
        )  # fmt: skip
        reach = capsules.radius_m[:, self.left] + capsules.radius_m[:, self.right]
        return (reach - gap).amax(1).clamp_min(0)


def _place(points: Tensor, start: Tensor, end: Tensor, *, clamp: bool = True) -> Tensor:
    """Where along segments points lie: 0 at the start, 1 at the end."""
    along = end - start
    share = ((points - start) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-9)
    return share.clamp(0, 1) if clamp else share


def segment_distance(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Least distance (...) of segments a-b and c-d (..., 3) (Ericson 2005, 5.1.9)."""
    first, second, between = b - a, d - c, a - c
    aa, ee = first.square().sum(-1).clamp_min(1e-12), second.square().sum(-1).clamp_min(1e-12)
    ab, af, bf = (first * second).sum(-1), (first * between).sum(-1), (second * between).sum(-1)
    s = ((ab * bf - af * ee) / (aa * ee - ab * ab).clamp_min(1e-12)).clamp(0, 1)
    t = ((ab * s + bf) / ee).clamp(0, 1)
    s = ((ab * t - af) / aa).clamp(0, 1)
    gap: Tensor = (between + s[..., None] * first - t[..., None] * second).norm(dim=-1)
    return gap
