"""How a body takes a stance: turns of its bones that joints allow.

Axes: y up, z ahead, x to the person's left. Order of sides: left, right.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.anatomy import (
    ARM_ACROSS_BACK,
    ARM_ACROSS_FRONT,
    ARM_BACK,
    GIRDLE_FORWARD,
    GIRDLE_FROM,
    GIRDLE_MOST,
    GIRDLE_SHARE,
    LIMITS,
)
from rsb_pose_core.synthesis.body import JOINT_BONES
from rsb_pose_core.synthesis.skeletal import CROWN_M, NOSE_M
from rsb_pose_core.synthesis.stance import Stance, chest_frame, stance_of, turned, with_arms

__all__ = [
    'Retarget', 'Skeleton', 'Stance', 'chest_frame', 'figure_scale', 'place_bones',
    'posed_joints', 'retarget', 'stance_of', 'with_arms',
]  # fmt: skip

SPINE = ('spine04', 'spine03', 'spine02', 'spine01')
SPINE_SHARES = (0.2, 0.3, 0.3, 0.2)
NECK = ('neck01', 'neck02', 'neck03', 'head')
# a limb bent less than the first angle has no plane; more than the second, its plane is trusted
PLANE_FROM, PLANE_SURE = 0.12, 0.45
MEAN_RISE_M = 1.324  # of the root of the neck over the ankles
# of the mean body: a leg, from ankle to toes, and how far skin is from the centres of joints
LEG_M, SOLE_M, HEEL_M, SIDE_M, KNEE_M, HIP_M = 0.80, 0.165, 0.075, 0.04, 0.045, 0.08
RELAXED_FOOT = 0.35  # toes down, of a foot in the air


@runtime_checkable
class Skeleton(Protocol):
    """What of a body is needed here: its bones' names, numbers and parents."""

    bones: list[str]
    bone_index: dict[str, int]
    parents: list[int]


def limit_turn(matrix: Tensor, part: str) -> tuple[Tensor, Tensor]:
    """Unit axis and angle of turns (B, 3, 3) of the spine or neck, kept within its limits."""
    axis, angle = rotations.log(matrix)
    names = ('flexion', 'rotation', 'sideways')  # about x, y, z
    ranges = [LIMITS[f'{part}_{name}'] for name in names]
    parts = (axis * angle[..., None]).unbind(-1)
    vector = torch.stack(
        [value.clamp(r.low, r.high) for value, r in zip(parts, ranges, strict=True)], -1
    )
    angle = vector.norm(dim=-1)
    still = torch.tensor([1.0, 0.0, 0.0], device=angle.device)
    return torch.where(angle[..., None] > 1e-6, normalize(vector, dim=-1), still), angle


def limit_arms(upper: Tensor, side: Tensor) -> Tensor:
    """Directions (B, 2, 3) of upper arms in the chest's axes, kept where shoulders let them."""
    x, y, z = upper.unbind(-1)
    z = z.clamp_min(ARM_BACK)
    middle = (ARM_ACROSS_FRONT + ARM_ACROSS_BACK) / 2
    across = middle + (ARM_ACROSS_FRONT - middle) * (2 * z).clamp(-1, 1)
    x = side * torch.maximum(side * x, -across)
    return normalize(torch.stack([x, y, z], -1), dim=-1)


def limit_thighs(thigh: Tensor, side: Tensor) -> Tensor:
    """Directions (B, 2, 3) of thighs in the pelvis' axes, kept where hips let them."""
    flexion = torch.atan2(thigh[..., 2], -thigh[..., 1])
    # a thigh that points up and back has been lifted over the front
    flexion = torch.where(flexion < -2.2, flexion + 2 * torch.pi, flexion)
    out = torch.asin((side * thigh[..., 0]).clamp(-1, 1))
    flexion = flexion.clamp(LIMITS['hip_flexion'].low, LIMITS['hip_flexion'].high)
    out = out.clamp(LIMITS['hip_abduction'].low, LIMITS['hip_abduction'].high)
    flat = out.cos()
    return torch.stack([side * out.sin(), -flat * flexion.cos(), flat * flexion.sin()], -1)


@dataclass(frozen=True)
class Limb:
    """Turns of two bones joined by a hinge, in the axes of what the first hangs on."""

    first: Tensor  # B 2 3 3, without the twist
    twist: Tensor  # B 2, of the first bone about its axis at rest, in rad
    second: Tensor  # B 2 3 3, the hinge's turn in the axes of the first bone

    def shared(self, upper: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
        """Turns of the first bone's upper half and of the hinge.

        upper, lower (B, 2, 3, 3): half of the twist about the bone's axis, and about that of its
        lower half, which is not quite the same; the hinge makes up for it.
        """
        half = self.first @ upper
        return half, (half @ lower).mT @ half @ upper @ self.second


def hinge(
    rest: tuple[Tensor, Tensor], bend_rest: Tensor, target: tuple[Tensor, Tensor],
    zero: Tensor | None, default_twist: Tensor | float, side: Tensor,
    names: tuple[str, str, str],
) -> Limb:  # fmt: skip
    """Turn a limb of two bones so that both point along `target` (B, 2, 3), within limits.

    rest: directions of both bones at rest; bend_rest: where the hinge moves the second bone, as
    seen at rest. The plane of the bent limb gives the first bone's twist; a straight limb takes
    `default_twist` (B, 2), inward. zero (B, 2, 3): where the hinge's axis points when the limb is
    not twisted; None: where the smallest swing takes it. names: limits of twist (inward +), hinge
    and sideways play.
    """
    axis, lower = rest
    e1 = normalize(bend_rest - (bend_rest * axis).sum(-1, keepdim=True) * axis, dim=-1)
    e2 = torch.linalg.cross(axis, e1)
    basis = torch.stack([axis, e1, e2], -2)  # rows: along, towards the bend, sideways
    swing = rotations.between(axis, target[0])
    view = basis @ swing.mT
    goal = turned(view, target[1])
    bend = torch.atan2(goal[..., 1:].norm(dim=-1), goal[..., 0])
    sure = ((bend - PLANE_FROM) / (PLANE_SURE - PLANE_FROM)).clamp(0, 1)
    untwisted: Tensor | float = 0.0
    if zero is not None:
        at_zero = turned(view, zero)
        untwisted = side * torch.atan2(-at_zero[..., 1], at_zero[..., 2])
    found = side * torch.atan2(goal[..., 2], goal[..., 1]) - untwisted
    limit = LIMITS[names[0]]
    # beyond the limits the nearer one, on the circle
    middle = (limit.low + limit.high) / 2
    found = middle + torch.remainder(found - middle + torch.pi, 2 * torch.pi) - torch.pi
    twist = (default_twist + sure * (found - default_twist)).clamp(limit.low, limit.high)
    twist = (twist + untwisted) * side
    c, s = twist.cos(), twist.sin()
    along, ahead = goal[..., 0], c * goal[..., 1] + s * goal[..., 2]
    aside = c * goal[..., 2] - s * goal[..., 1]
    at_rest = turned(basis, lower)
    rest_aside = torch.asin(at_rest[..., 2].clamp(-1, 1))
    rest_bend = torch.atan2(at_rest[..., 1], at_rest[..., 0])
    play = LIMITS[names[2]]
    bend = torch.atan2(ahead, along).clamp(LIMITS[names[1]].low, LIMITS[names[1]].high)
    aside = torch.asin(aside.clamp(-1, 1))
    aside = torch.minimum(torch.maximum(aside, rest_aside + play.low), rest_aside + play.high)
    turns = _bent(bend, aside) @ _bent(rest_bend, rest_aside).mT
    return Limb(swing, twist, basis.mT @ turns @ basis)


def _bent(bend: Tensor, aside: Tensor) -> Tensor:
    """Turn of a hinge in its basis (along, towards the bend, sideways)."""
    cb, sb, ca, sa = bend.cos(), bend.sin(), aside.cos(), aside.sin()
    zero = torch.zeros_like(cb)
    rows = (ca * cb, -sb, -sa * cb, ca * sb, cb, -sa * sb, sa, zero, ca)
    return torch.stack(rows, -1).view(*bend.shape, 3, 3)


def about(axes: list[Tensor], angles: list[Tensor]) -> tuple[Tensor, ...]:
    """Turns (B, 2, 3, 3) about unit axes (B, 2, 3) by angles (B, 2), all at once."""
    return rotations.about_axis(torch.stack(axes), torch.stack(angles)).unbind(0)


class Retarget:
    """Gives the stances of B people to bodies with rest heads (B, N, 3)."""

    def __init__(self, body: Skeleton, heads: Tensor) -> None:
        self.body, self.heads = body, heads
        self.side = heads.new_tensor([1.0, -1.0])

    def rest(self, name: str) -> Tensor:
        """Heads (B, 2, 3) of a bone of both sides."""
        index = self.body.bone_index
        return torch.stack([self.heads[:, index[f'{name}.{s}']] for s in 'LR'], 1)

    def way(self, start: str, end: str) -> Tensor:
        """Unit directions (B, 2, 3) between bone heads at rest."""
        way: Tensor = normalize(self.rest(end) - self.rest(start), dim=-1)
        return way

    def rotations(self, stance: Stance) -> tuple[Tensor, Tensor]:
        """Bone rotations (B, N, 3, 3) relative to parents, and the root's (B, 3, 3)."""
        axis, angle = limit_turn(stance.chest, 'spine')
        shares = angle.new_tensor((*SPINE_SHARES, 1.0))
        *spine, whole = rotations.about_axis(
            axis[:, None].expand(-1, len(shares), -1), angle[:, None] * shares
        ).unbind(1)
        chest = stance.pelvis @ whole
        axis, angle = limit_turn(stance.head, 'neck')
        step = rotations.about_axis(axis, angle / len(NECK))
        found = dict(zip(SPINE, spine, strict=True)) | dict.fromkeys(NECK, step)
        wanted = stance.pelvis @ stance.chest  # the arms keep their directions in the world
        both = self._arms(turned((chest.mT @ wanted)[:, None, None], stance.arms), stance.wrists)
        both |= self._legs(stance)
        index = self.body.bone_index
        numbers = [index[name] for name in found]
        numbers += [index[f'{name}.{s}'] for name in both for s in 'LR']
        sides = torch.stack(list(both.values()), 1).flatten(1, 2)
        turns = torch.cat([torch.stack(list(found.values()), 1), sides], 1)
        rotation = torch.eye(3, device=chest.device).repeat(len(chest), len(self.body.bones), 1, 1)
        rotation[:, numbers] = turns
        return rotation, stance.pelvis

    def _arms(self, arms: Tensor, wrists: Tensor) -> dict[str, Tensor]:
        """Turns (B, 2, 3, 3) of the arms' bones for directions in the chest's axes."""
        upper, lower = limit_arms(arms[:, :, 0], self.side), arms[:, :, 1]
        rise = torch.acos((-upper[..., 1]).clamp(-1, 1))
        lift = ((rise - GIRDLE_FROM) * GIRDLE_SHARE).clamp(0, GIRDLE_MOST) * self.side
        forward = -GIRDLE_FORWARD * upper[..., 2] * self.side
        y, z = (upper.new_tensor(way).expand_as(upper) for way in ((0.0, 1, 0), (0.0, 0, 1)))
        turns = about([y, z, y, z], [0.6 * forward, 0.6 * lift, 0.4 * forward, 0.4 * lift])
        girdle, shoulder = turns[0] @ turns[1], turns[2] @ turns[3]
        base = girdle @ shoulder
        rest = self.way('upperarm01', 'lowerarm01'), self.way('lowerarm01', 'wrist')
        names = ('shoulder_rotation', 'elbow_flexion', 'elbow_sideways')
        target = turned(base.mT, upper), turned(base.mT, lower)
        limb = hinge(rest, rest[1], target, None, 0.0, self.side, names)
        twist, flexion, aside = (
            wrists[..., k].clamp(LIMITS[name].low, LIMITS[name].high) * self.side
            for k, name in enumerate(('forearm_twist', 'wrist_flexion', 'wrist_sideways'))
        )
        knuckles = self.way('finger5-1', 'finger2-1')
        palm = normalize(torch.linalg.cross(rest[1], knuckles) * self.side[:, None], dim=-1)
        upper_half, lower_half, outer, inner, sideways, bend = about(
            [rest[0], self.way('upperarm02', 'lowerarm01'), rest[1],
             self.way('lowerarm02', 'wrist'), palm, knuckles],
            [limb.twist / 2, limb.twist / 2, 0.4 * twist, 0.6 * twist, aside, -flexion],
        )  # fmt: skip
        first, elbow = limb.shared(upper_half, lower_half)
        return {
            'clavicle': girdle, 'shoulder01': shoulder, 'upperarm01': first,
            'upperarm02': lower_half, 'lowerarm01': elbow @ outer, 'lowerarm02': inner,
            'wrist': sideways @ bend,
        }  # fmt: skip

    def hands(self, flexion: Tensor) -> Tensor:
        """Turns (B, 30, 3, 3) of the bones of `hand_bones` for flexions (B, 5, 3, 2) in rad."""
        knuckles = self.way('finger5-1', 'finger2-1')
        side = self.side[:, None]
        palm = torch.linalg.cross(self.way('wrist', 'finger3-1'), knuckles) * side
        # a thumb closes across the palm and towards it
        opposed = 0.5 * (normalize(palm, dim=-1) - knuckles)
        thumb = torch.linalg.cross(opposed, self.way('finger1-2', 'finger1-3')) * side
        axis = torch.stack([normalize(thumb, dim=-1), *[knuckles] * 4], 1)
        turns = rotations.about_axis(
            axis[:, :, None].expand(-1, -1, 3, -1, -1), -flexion * self.side
        )
        return turns.flatten(1, 3)

    def _legs(self, stance: Stance) -> dict[str, Tensor]:
        """Turns (B, 2, 3, 3) of the legs' bones."""
        thigh, shin = limit_thighs(stance.legs[:, :, 0], self.side), stance.legs[:, :, 1]
        rest = self.way('upperleg01', 'lowerleg01'), self.way('lowerleg01', 'foot')
        back = thigh.new_tensor([0.0, 0.0, -1.0]).expand_as(thigh)
        known = stance.feet.norm(dim=-1) > 0.5
        names = ('hip_rotation', 'knee_flexion', 'knee_sideways')
        # no twist: the knee's axis as near the pelvis' own as it can be
        left = thigh.new_tensor([1.0, 0.0, 0.0])
        zero = normalize(left - thigh[..., :1] * thigh, dim=-1)
        # a straight leg turns with its foot
        ahead = torch.linalg.cross(zero, -thigh)
        aside, along = (stance.feet * zero).sum(-1), (stance.feet * ahead).sum(-1)
        yaw = -self.side * torch.atan2(aside, along.clamp_min(0.1))
        default = torch.where(known, yaw.clamp(-0.8, 0.6), torch.zeros_like(yaw))
        limb = hinge(rest, back, (thigh, shin), zero, default, self.side, names)
        half, second = about(
            [rest[0], self.way('upperleg02', 'lowerleg01')], [limb.twist / 2, limb.twist / 2]
        )
        first, knee = limb.shared(half, second)
        shank = stance.pelvis[:, None] @ first @ second @ knee  # in the world
        sole, contact = self._soles(stance, shank, known)
        local = shank.mT @ sole
        pitch = torch.asin((-local[..., 1, 2]).clamp(-1, 1))
        yaw = self.side * torch.atan2(local[..., 0, 2], local[..., 2, 2])
        roll = self.side * torch.atan2(local[..., 1, 0], local[..., 1, 1])
        pitch, yaw, roll = (
            angle.clamp(LIMITS[name].low, LIMITS[name].high)
            for angle, name in (
                (pitch, 'ankle_flexion'), (yaw, 'ankle_yaw'), (-roll, 'ankle_roll'),
            )
        )  # fmt: skip
        ways = torch.eye(3, device=thigh.device)[:, None, None].expand(-1, *thigh.shape)
        turns = about([ways[1], ways[0], ways[2]], [yaw * self.side, pitch, -roll * self.side])
        ankle = turns[0] @ turns[1] @ turns[2]
        down = torch.asin((-(shank @ ankle)[..., 1, 2]).clamp(-1, 1))
        toes = rotations.about_x(-contact * down.clamp(0, -LIMITS['toe_flexion'].low))
        return {
            'upperleg01': first, 'upperleg02': second, 'lowerleg01': knee, 'foot': ankle,
            'toe1-1': toes,
        }  # fmt: skip

    def _soles(self, stance: Stance, shank: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, 2, 3, 3) that the soles want in the world, and their contact (B, 2), 0..1."""
        thigh, shin = (
            (self.rest(end) - self.rest(start)).norm(dim=-1)
            for start, end in (('upperleg01', 'lowerleg01'), ('lowerleg01', 'foot'))
        )
        ways = stance.legs @ stance.pelvis.mT[:, None]
        knee = ways[:, :, 0, 1] * thigh  # heights over the hips
        ankle = knee + ways[:, :, 1, 1] * shin
        above = ankle - ankle.amin(1, keepdim=True)
        upright = (-1.6 * ways[:, :, 1, 1] - 0.3).clamp(0, 1)  # of the shin
        contact = (1.6 - above / 0.06).clamp(0, 1) * upright
        ahead = shank[..., 2]
        flat = normalize(ahead * ahead.new_tensor([1.0, 0.0, 1.0]), dim=-1)
        hanging = rotations.about_x(ahead.new_tensor(RELAXED_FOOT))[:, 2]
        ruled = contact[..., None] * flat + (1 - contact[..., None]) * (shank @ hanging)
        own = turned(stance.pelvis[:, None], stance.feet)
        z = normalize(torch.where(known[..., None], own, ruled), dim=-1)
        # toes go no deeper than the floor that knees, heels or hips lie on
        size = (thigh + shin) / LEG_M
        heel = SIDE_M + (HEEL_M - SIDE_M) * upright
        floor = torch.stack([ankle - heel * size, knee - KNEE_M * size, -HIP_M * size], 1)
        room = (floor.amin((1, 2))[:, None] - ankle) / size
        least = ((room + SIDE_M) / SOLE_M - 2 * contact).clamp(-1, 0.5)
        deep = (least - z[..., 1]).clamp_min(0)[..., None]
        z = z + deep * (
            z.new_tensor([0.0, 1.0, 0.0]) + ways[:, :, 1] * z.new_tensor([1.0, 0, 1.0])
        )
        z = normalize(z, dim=-1)
        up = z.new_tensor([0.0, 1.0, 0.0])
        up = normalize(contact[..., None] * up + (1 - contact[..., None]) * shank[..., 1], dim=-1)
        x = normalize(torch.linalg.cross(up, z), dim=-1)
        return torch.stack([x, torch.linalg.cross(z, x), z], -1), contact


def retarget(body: Skeleton, heads: Tensor, joints_m: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations that give bodies the poses of other skeletons.

    heads (B, N, 3): rest bone heads; joints_m (B, 17, 3): the pose, any bone lengths, y up.
    Returns bone rotations (B, N, 3, 3) and the root's rotation (B, 3, 3) for `Body.pose`. Every
    limb takes the direction it has in the pose as far as joints allow; lengths stay the body's.
    """
    return Retarget(body, heads).rotations(stance_of(joints_m))


def place_bones(
    body: Skeleton, heads: Tensor, rotation: Tensor, root_rotation: Tensor
) -> tuple[Tensor, Tensor]:
    """World rotations (B, N, 3, 3) and heads (B, N, 3) of posed bones, the root at the origin."""
    turn, head = rotation.clone(), torch.zeros_like(heads)
    turn[:, 0] = root_rotation @ rotation[:, 0]
    for bones, above in _levels(tuple(body.parents), heads.device):
        parent = turn[:, above]
        turn[:, bones] = parent @ rotation[:, bones]
        head[:, bones] = head[:, above] + turned(parent, heads[:, bones] - heads[:, above])
    return turn, head


@lru_cache(maxsize=8)
def _levels(parents: tuple[int, ...], device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Numbers of bones and of their parents, level by level below the root."""
    depth = [0] * len(parents)
    for bone, parent in enumerate(parents):
        depth[bone] = 0 if parent < 0 else depth[parent] + 1
    levels = [[bone for bone, d in enumerate(depth) if d == level] for level in set(depth) - {0}]
    return [
        (
            torch.tensor(bones, device=device),
            torch.tensor([parents[bone] for bone in bones], device=device),
        )
        for bones in levels
    ]


def posed_joints(body: Skeleton, heads: Tensor, rotation: Tensor, root_rotation: Tensor) -> Tensor:
    """Joints (B, 17, 3) of posed bodies, the root at the origin; nose and crown about so."""
    turn, head = place_bones(body, heads, rotation, root_rotation)
    index = body.bone_index
    found = {name: head[:, index[bone]] for name, bone in JOINT_BONES.items()}
    found['pelvis'] = (found['left_hip'] + found['right_hip']) / 2
    skull = index['head']
    rise = heads[:, skull] - heads[:, index['neck01']]
    for name, place in (('nose', NOSE_M), ('head', CROWN_M)):
        at = rise.new_tensor(place) * figure_scale(body, heads)[:, None] - rise
        found[name] = head[:, skull] + turned(turn[:, skull], at)
    return torch.stack([found[name] for name in H36M_17.joint_names], 1)


def figure_scale(body: Skeleton, heads: Tensor) -> Tensor:
    """Sizes (B,) of bodies with rest heads (B, N, 3), 1 for the mean body."""
    index = body.bone_index
    rise = heads[:, index['neck01'], 1] - heads[:, [index['foot.L'], index['foot.R']], 1].mean(1)
    return rise / MEAN_RISE_M
