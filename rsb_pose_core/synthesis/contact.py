"""Limbs that pass through a body: found and pushed apart as capsules round the 17 joints."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.skeleton import H36M_17

HAND = 0.62  # of a forearm's length, from the wrist to the middle of the fingers
Mix = dict[str, float]


def _limbs(side: str, letter: str) -> dict[str, tuple[Mix, Mix, float]]:
    shoulder, elbow, wrist = (f'{side}_{name}' for name in ('shoulder', 'elbow', 'wrist'))
    hip, knee, ankle = (f'{side}_{name}' for name in ('hip', 'knee', 'ankle'))
    return {
        f'upper.{letter}': ({shoulder: 0.45, elbow: 0.55}, {elbow: 1.0}, 0.045),
        f'fore.{letter}': ({elbow: 1.0}, {wrist: 1 + HAND, elbow: -HAND}, 0.036),
        f'thigh.{letter}': ({hip: 0.55, knee: 0.45}, {knee: 1.0}, 0.066),
        f'shin.{letter}': ({knee: 1.0}, {ankle: 1.0}, 0.05),
    }


# parts of the mean body: (start, end) as mixtures of joints, and the radius in m
PARTS: dict[str, tuple[Mix, Mix, float]] = {
    'trunk.L': (
        {'left_hip': 0.8, 'right_hip': 0.2},
        {'left_shoulder': 0.55, 'right_shoulder': 0.25, 'spine': 0.2}, 0.098,
    ),
    'trunk.R': (
        {'right_hip': 0.8, 'left_hip': 0.2},
        {'right_shoulder': 0.55, 'left_shoulder': 0.25, 'spine': 0.2}, 0.098,
    ),
    'spine': ({'pelvis': 1.0}, {'neck': 0.75, 'spine': 0.25}, 0.105),
    'head': (
        {'neck': 0.5, 'head': 0.3, 'nose': 0.2}, {'neck': 0.1, 'head': 0.7, 'nose': 0.2}, 0.09,
    ),
    **_limbs('left', 'L'), **_limbs('right', 'R'),
}  # fmt: skip
PAIRS = (
    *((f'fore.{s}', part) for s in 'LR' for part in (
        'trunk.L', 'trunk.R', 'spine', 'head', 'thigh.L', 'thigh.R', 'shin.L', 'shin.R')),
    *((f'upper.{s}', part) for s in 'LR' for part in (f'trunk.{s}', 'spine', 'head')),
    ('upper.L', 'trunk.R'), ('upper.R', 'trunk.L'),
    ('fore.L', 'fore.R'), ('fore.L', 'upper.R'), ('fore.R', 'upper.L'),
    ('thigh.L', 'thigh.R'), ('shin.L', 'shin.R'), ('thigh.L', 'shin.R'), ('thigh.R', 'shin.L'),
    ('shin.L', 'trunk.L'), ('shin.R', 'trunk.R'), ('shin.L', 'spine'), ('shin.R', 'spine'),
)  # fmt: skip
"""Pairs that may not meet; neighbours along a limb are left out."""
# joints that give way, and the joint each hangs on
CHAINS = tuple(
    (f'{side}_{joint}', f'{side}_{parent}')
    for parent, joint in (('shoulder', 'elbow'), ('elbow', 'wrist'), ('hip', 'knee'),
                          ('knee', 'ankle'))
    for side in ('left', 'right')
)  # fmt: skip
WRISTS = 1  # place among the pairs of CHAINS
FLOOR_RADII_M = {'elbow': 0.045, 'wrist': 0.035, 'knee': 0.045, 'ankle': 0.05}


LIMBS = ('upper', 'fore', 'thigh', 'shin')


class Capsules:
    """PARTS and PAIRS as tensors on one device."""

    def __init__(self, device: str | torch.device = 'cpu') -> None:
        names = list(PARTS)
        free = {name for name, _ in CHAINS}
        ends = torch.zeros(2, len(names), len(H36M_17))
        hold = torch.zeros_like(ends)  # share of a push at a part's start or end a joint takes
        for number, (name, (*mixes, _)) in enumerate(PARTS.items()):
            for which, mix in enumerate(mixes):
                for joint, weight in mix.items():
                    k = H36M_17.index(joint)
                    ends[which, number, k] = weight
                    if joint in free and name.startswith(LIMBS) and weight > 0:
                        hold[which, number, k] = 1.0
        first, second = ([names.index(pair[k]) for pair in PAIRS] for k in (0, 1))
        radius = torch.tensor([radius for _, _, radius in PARTS.values()])
        self.ends = torch.cat([ends[0], ends[1]]).to(device)  # 2C 17
        self.radii = (radius[first] + radius[second]).to(device)  # P
        self.first, self.second = (torch.tensor(side, device=device) for side in (first, second))
        holds = torch.stack([hold[:, first], hold[:, second]]).to(device)  # 2 2 P 17
        moves = holds.sum((1, 3)) > 0  # 2 P
        self.share = moves / moves.sum(0).clamp_min(1)
        self.hold_start, self.hold_end = holds[:, 0], holds[:, 1]
        self.joint, self.parent = (
            torch.tensor([H36M_17.index(link[k]) for link in CHAINS], device=device).view(4, 2)
            for k in (0, 1)
        )
        low = [FLOOR_RADII_M[name.split('_')[1]] for name, _ in CHAINS]
        self.floor_radius = torch.tensor(low, device=device).view(4, 2)

    def overlap(self, joints_m: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """How pairs of parts overlap in poses (B, 17, 3) of people `scale` (B,) times as large.

        Returns the depth (B, P) in m, negative when apart; the direction (B, P, 3) that pushes the
        first part out of the second; where along the first and the second (B, P), 0..1.
        """
        start, end = (self.ends @ joints_m).chunk(2, 1)  # B C 3
        a, c = start[:, self.first], start[:, self.second]
        u, v = end[:, self.first] - a, end[:, self.second] - c
        r = a - c
        uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
        ur, vr = (u * r).sum(-1), (v * r).sum(-1)
        # closest points of two segments: C. Ericson, Real-Time Collision Detection, 5.1.9
        s = ((uv * vr - ur * vv) / (uu * vv - uv * uv).clamp_min(1e-8)).clamp(0, 1)
        t = ((uv * s + vr) / vv.clamp_min(1e-8)).clamp(0, 1)
        s = ((uv * t - ur) / uu.clamp_min(1e-8)).clamp(0, 1)
        apart = r + s[..., None] * u - t[..., None] * v
        gap = apart.norm(dim=-1)
        return self.radii * scale[:, None] - gap, apart / gap.clamp_min(1e-6)[..., None], s, t

    def depth_m(self, joints_m: Tensor, scale: Tensor) -> Tensor:
        """Deepest overlap (B,) in m of any pair; negative when all are apart."""
        return self.overlap(joints_m, scale)[0].amax(1)

    def part(
        self, joints_m: Tensor, scale: Tensor, floor_m: Tensor, flat_hands: Tensor, steps: int = 6
    ) -> Tensor:
        """Poses (B, 17, 3) whose limbs give way to the body, to each other and to the floor.

        floor_m (B,): height of the floor; flat_hands (B, 2) bool: hands that are bent back to lie
        on it, others follow the forearm. Limbs keep their lengths. The number of steps is fixed;
        what is left then is small.
        """
        length = (joints_m[:, self.joint] - joints_m[:, self.parent]).norm(dim=-1)  # B 4 2
        low = floor_m[:, None, None] + self.floor_radius * scale[:, None, None]
        for _ in range(steps):
            depth, way, s, t = self.overlap(joints_m, scale)
            push = way * depth.clamp_min(0)[..., None]
            moved = torch.zeros_like(joints_m)
            for k, (at, sign) in enumerate(((s, 0.9), (t, -0.9))):
                hold = self.hold_start[k] + at[..., None] * (self.hold_end[k] - self.hold_start[k])
                moved = moved + hold.mT @ (push * (sign * self.share[k][:, None]))
            free = joints_m + moved
            joints_m = joints_m.clone()
            for k in range(len(self.joint)):
                parent, at = joints_m[:, self.parent[k]], free[:, self.joint[k]].clone()
                least = low[:, k]
                if k == WRISTS:  # fingertips stay above the floor too
                    tips = (least + HAND * joints_m[:, self.parent[k], 1]) / (1 + HAND)
                    least = torch.where(flat_hands, least, torch.maximum(least, tips))
                at[..., 1] = torch.maximum(at[..., 1], least)
                way = normalize(at - parent, dim=-1)
                joints_m[:, self.joint[k]] = parent + way * length[:, k, :, None]
        return joints_m
