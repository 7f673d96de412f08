"""Poses of people: recorded, mixed from recordings, made within what joints can do.

Axes of a pose: y up; without a turn people face +z.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.anatomy import hand_bones, random_hands
from rsb_pose_core.synthesis.clips import Clip, split_of
from rsb_pose_core.synthesis.contact import Capsules
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.placing import (
    Figure,
    GestureTable,
    PostureTable,
    gesture_arms,
    posture_stances,
    random_stances,
    wrist_noise,
)
from rsb_pose_core.synthesis.postures import (
    ARMS_FREE,
    GESTURES,
    GROUND,
    HANG,
    KNEEL,
    LIE,
    SIT,
    STAND,
)
from rsb_pose_core.synthesis.recorded import CATEGORIES, DT_S, SUPPORTS, record
from rsb_pose_core.synthesis.retarget import Retarget, Skeleton, figure_scale, posed_joints
from rsb_pose_core.synthesis.skeletal import SIDES
from rsb_pose_core.synthesis.stance import Stance, joint, sided

__all__ = [
    'CATEGORIES', 'DT_S', 'GESTURE_NAMES', 'GROUND', 'HANG', 'KNEEL', 'LIE', 'NO_GESTURE',
    'SIT', 'STAND', 'BodyPoses', 'Mixture', 'PosePool',
]  # fmt: skip

GESTURE_NAMES = tuple(GESTURES)
NO_GESTURE = -1
ANY, HANGING = GESTURE_NAMES.index('any'), GESTURE_NAMES.index('hang')
# how a pose is made, in the order of Mixture's shares
RECORDED, REARMED, PERTURBED, FREE, POSTURE = range(5)
TRIES = 2  # poses made for each that is kept
TOUCH_M = 0.012  # soft parts give way so much


@dataclass(frozen=True)
class Mixture:
    """Shares of the ways in which poses are made, in proportion; which recordings are used."""

    recorded: float = 0.24
    rearmed: float = 0.12  # recorded, with the arms of another frame
    perturbed: float = 0.08  # recorded, every limb turned a little
    free: float = 0.10  # anything within what joints allow
    posture: float = 0.46  # POSTURES
    gestures: float = 0.32  # chance that a recorded upright person makes a gesture
    categories: tuple[str, ...] = ()  # of recorded frames; empty: all


RECORDED_ONLY = Mixture(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class BodyPoses:
    """Poses of B bodies, and the same DT_S later; see Body.pose for rotations."""

    rotation: Tensor  # B N 3 3
    root_rotation: Tensor  # B 3 3
    later_rotation: Tensor
    later_root_rotation: Tensor
    root_shift_m: Tensor  # B 3, travel of the root in DT_S
    support: Tensor  # B, one of STAND, SIT, LIE, KNEEL, HANG, GROUND
    category: Tensor  # B, number in CATEGORIES
    gesture: Tensor  # B 2, number in GESTURE_NAMES of the left and right arm, -1: none

    def __len__(self) -> int:
        return len(self.rotation)


class PosePool:
    """Poses of one split to draw from."""

    def __init__(
        self, clips: Sequence[Clip], split: str, *, recorded_only: bool = False,
        mixture: Mixture | None = None, device: str = 'cpu',
    ) -> None:  # fmt: skip
        """`recorded_only`: frames of clips as they are. Raise RsbPoseError without a clip."""
        own = [clip for clip in clips if split_of(clip) == split]
        if not own:
            raise RsbPoseError(
                f'none of {len(clips)} motion clips belongs to the {split} split; expected at '
                'least one; give more motion files'
            )
        self.mixture = mixture or (RECORDED_ONLY if recorded_only else Mixture())
        self.recorded = record(own, device, self.mixture.categories)
        self.postures, self.gestures = PostureTable(device), GestureTable(device)
        self.capsules = Capsules(device)
        self.supports = torch.tensor(SUPPORTS, device=device)
        self.posture_category = torch.tensor(
            [CATEGORIES.index(name) for name in self.postures.categories], device=device
        )
        free = torch.zeros(len(GESTURE_NAMES))
        for name, odds in ARMS_FREE:
            free[GESTURE_NAMES.index(name)] = odds * (name not in ('any', 'hang'))
        self.free_gestures = free.to(device)
        self._rigs: dict[tuple[str, ...], Tensor] = {}

    def sample(
        self, count: int, draw: Draw, heads_m: Tensor, body: Skeleton, *, turned: bool = True
    ) -> BodyPoses:
        """Poses of `count` bodies with rest heads (count, N, 3).

        turned: give each a random heading; else they face +z.
        """
        tall = heads_m.repeat_interleave(TRIES, 0)
        made = self._make(count * TRIES, draw, tall, body)
        rotation, root = made.retarget.rotations(made.stance)
        joints = posed_joints(body, tall, rotation, root)
        depth = self.capsules.depth_m(joints, made.scale).view(count, TRIES)
        best = (depth - TOUCH_M).clamp_min(0).argmin(1)
        kept = torch.arange(count, device=best.device) * TRIES + best
        stance, frame, kind = made.stance[kept], made.frame[kept], made.kind[kept]
        later = self._later(stance, frame, kind, draw)
        retarget = Retarget(body, heads_m)
        later_rotation, later_root = retarget.rotations(later)
        rotation, root = rotation[kept], root[kept]
        flat = self._flat_hands(made.gesture[kept])[:, None, None]
        flexion = random_hands(count, draw)
        hands = retarget.hands(torch.where(flat, 0.1 * flexion, flexion))
        numbers = [body.bone_index[name] for name in hand_bones()]
        rotation[:, numbers], later_rotation[:, numbers] = hands, hands
        rig = self.recorded.rig_frame[frame]
        whole = ((rig >= 0) & (kind == RECORDED))[:, None, None]
        on_rig, rig_root = self._rig(body)[rig.clamp_min(0)], self.recorded.rig_root[rig]
        rotation, later_rotation = (
            torch.where(whole[..., None], on_rig, turn) for turn in (rotation, later_rotation)
        )
        root, later_root = (torch.where(whole, rig_root, turn) for turn in (root, later_root))
        travel = self.recorded.travel[frame] * Figure(retarget).leg_m[:, None]
        travel = torch.where((kind <= PERTURBED)[:, None], travel, 0.0)
        if turned:
            heading = rotations.about_y(draw.uniform(-torch.pi, torch.pi, count))
            root, later_root = heading @ root, heading @ later_root
            travel = (heading @ travel[..., None])[..., 0]
        return BodyPoses(
            rotation, root, later_rotation, later_root, travel, made.support[kept],
            made.category[kept], made.gesture[kept],
        )  # fmt: skip

    def _rig(self, body: Skeleton) -> Tensor:
        key = tuple(body.bones)
        if key not in self._rigs:
            self._rigs[key] = self.recorded.rig_turns(body)
        return self._rigs[key]

    def _flat_hands(self, gesture: Tensor) -> Tensor:
        """Which hands (B, 2) lie on the floor."""
        return self.gestures.hand_on_floor[gesture.clamp_min(0)] & (gesture != NO_GESTURE)

    def _frames(self, count: int, draw: Draw) -> Tensor:
        """Numbers (count,) of recorded frames."""
        chance = draw.uniform(0.0, 1.0, count)
        return torch.searchsorted(self.recorded.chance, chance).clamp_max(
            len(self.recorded.chance) - 1
        )

    def _make(self, count: int, draw: Draw, heads: Tensor, body: Skeleton) -> '_Made':
        """Stances of `count` bodies, limbs apart."""
        mix = self.mixture
        shares = torch.tensor(
            [mix.recorded, mix.rearmed, mix.perturbed, mix.free, mix.posture],
            dtype=torch.float32, device=draw.device,
        )  # fmt: skip
        kind = torch.multinomial(shares, count, replacement=True, generator=draw.generator)
        retarget = Retarget(body, heads)
        figure, scale = Figure(retarget), figure_scale(body, heads)
        frame, donor = self._frames(count, draw), self._frames(count, draw)
        row = torch.multinomial(
            self.postures.odds, count, replacement=True, generator=draw.generator
        )
        recorded = self._recorded(frame, donor, kind, draw)
        free = random_stances(figure, count, draw)
        arms = torch.where(
            draw.chance(0.5, count)[:, None, None, None], self.recorded.now.arms[donor], free.arms
        )
        posture = posture_stances(self.postures, row, figure, arms, draw)
        stance = _choose(kind, [recorded, recorded, recorded, free, posture])
        category = self.recorded.category[frame]
        # who lets go does not climb
        let_go = (kind == REARMED) & (category == CATEGORIES.index('climb'))
        category = torch.where(let_go, CATEGORIES.index('walk'), category)
        category = torch.where(kind == FREE, CATEGORIES.index('free'), category)
        category = torch.where(kind == POSTURE, self.posture_category[row], category)
        support = torch.where(kind == POSTURE, self.postures.support[row], self.supports[category])
        gesture = self._gestures(kind, row, category, draw)
        rotation, root = retarget.rotations(stance)
        joints = posed_joints(body, heads, rotation, root)
        floor = _floor(joints, support, scale)
        moved, wrists = gesture_arms(
            self.gestures, gesture.clamp_min(0), joints, stance, figure, floor, scale, draw
        )
        keep = ((gesture == NO_GESTURE) | (gesture == ANY))[..., None]
        arms = torch.where(keep[..., None], stance.arms, moved)
        wrists = torch.where(keep, stance.wrists, wrists)
        joints = _set_arms(joints, stance, arms, figure)
        exact = (kind == RECORDED) & (self.recorded.rig_frame[frame] >= 0)
        parted = self.capsules.part(joints, scale, floor, self._flat_hands(gesture))
        joints = torch.where(exact[:, None, None], joints, parted)
        pelvis, chest = stance.pelvis, stance.pelvis @ stance.chest
        stance = Stance(
            pelvis, stance.chest, stance.head,
            _limbs(joints, ('shoulder', 'elbow', 'wrist')) @ chest[:, None],
            _limbs(joints, ('hip', 'knee', 'ankle')) @ pelvis[:, None], stance.feet, wrists,
        )  # fmt: skip
        return _Made(retarget, stance, frame, kind, support, category, gesture, scale)

    def _recorded(self, frame: Tensor, donor: Tensor, kind: Tensor, draw: Draw) -> Stance:
        """Frames as they are, with the arms of other frames, or perturbed."""
        count = len(frame)
        now = self.recorded.now[frame]
        rearmed, perturbed = (kind == REARMED)[:, None, None], (kind == PERTURBED)[:, None, None]
        size = 0.16 * draw.uniform(0.3, 1.0, count, 1)
        noise = size[:, :, None, None] * draw.normal(count, 2, 2, 3)
        noise_legs = 0.8 * size[:, :, None, None] * draw.normal(count, 2, 2, 3)
        turn = 0.8 * size[..., None] * draw.normal(count, 2, 3)
        angle = turn.norm(dim=-1)
        turns = rotations.about_axis(normalize(turn, dim=-1), angle)
        arms = torch.where(rearmed[..., None], self.recorded.now.arms[donor], now.arms)
        return Stance(
            now.pelvis,
            torch.where(perturbed, turns[:, 0] @ now.chest, now.chest),
            torch.where(perturbed, turns[:, 1] @ now.head, now.head),
            torch.where(perturbed[..., None], normalize(arms + noise, dim=-1), arms),
            torch.where(perturbed[..., None], normalize(now.legs + noise_legs, dim=-1), now.legs),
            now.feet,
            wrist_noise(count, draw),
        )

    def _gestures(self, kind: Tensor, row: Tensor, category: Tensor, draw: Draw) -> Tensor:
        """Gestures (B, 2) of both arms: one for both, or one arm hangs or does as it did."""
        count = len(kind)
        upright = category <= CATEGORIES.index('walk')
        made = (kind <= PERTURBED) & upright & draw.chance(self.mixture.gestures, count)
        odds = torch.where(
            (kind == POSTURE)[:, None], self.postures.gestures[row], self.free_gestures
        )
        first = torch.multinomial(odds, 1, generator=draw.generator)[:, 0]
        alike = draw.uniform(0.0, 1.0, count) < self.gestures.both_odds[first]
        idle = torch.where(draw.chance(0.5, count), HANGING, ANY)
        second = torch.where(alike, first, torch.where(upright, idle, ANY))
        pair = torch.stack([first, second], 1)
        pair = torch.where(draw.chance(0.5, count)[:, None], pair.flip(1), pair)
        return torch.where(((kind == POSTURE) | made)[:, None], pair, NO_GESTURE)

    def _later(self, stance: Stance, frame: Tensor, kind: Tensor, draw: Draw) -> Stance:
        """Stances DT_S later: recordings go on, half of the others move their arms and head."""
        count = len(stance)
        now, later = self.recorded.now[frame], self.recorded.later[frame]
        speed = 1.2 * DT_S * draw.normal(count, 2, 2, 3) * draw.chance(0.5, count, 1, 1, 1)

        def turn(name: str) -> Tensor:
            held, before, after = (getattr(s, name) for s in (stance, now, later))
            return torch.where((kind <= PERTURBED)[:, None, None], after @ before.mT @ held, held)

        def ways(name: str, still: Tensor | float) -> Tensor:
            held, before, after = (getattr(s, name) for s in (stance, now, later))
            moves = (kind <= PERTURBED)[:, None, None, None]
            moved = torch.where(moves, after - before, still)
            return normalize(held + moved, dim=-1)

        feet = torch.where((kind <= PERTURBED)[:, None, None], later.feet, stance.feet)
        return Stance(
            turn('pelvis'), turn('chest'), turn('head'), ways('arms', speed), ways('legs', 0.0),
            feet, stance.wrists,
        )  # fmt: skip


@dataclass(frozen=True)
class _Made:
    """Stances in the making."""

    retarget: Retarget
    stance: Stance
    frame: Tensor
    kind: Tensor
    support: Tensor
    category: Tensor
    gesture: Tensor
    scale: Tensor


def _choose(kind: Tensor, stances: list[Stance]) -> Stance:
    """Row i of stances[kind[i]]."""
    rows = torch.arange(len(kind), device=kind.device)
    return Stance(
        *(torch.stack([getattr(s, f.name) for s in stances])[kind, rows] for f in fields(Stance))
    )


def _limbs(joints: Tensor, names: tuple[str, str, str]) -> Tensor:
    """Directions (B, 2, 2, 3), (side; bone), in the room."""
    a, b, c = (sided(joints, name) for name in names)
    return normalize(torch.stack([b - a, c - b], 2), dim=-1)


def _set_arms(joints: Tensor, stance: Stance, arms: Tensor, figure: Figure) -> Tensor:
    """Joints (B, 17, 3) with arms (B, 2, 2, 3) given in the chest's axes."""
    chest = stance.pelvis @ stance.chest
    ways = arms @ chest.mT[:, None]
    joints = joints.clone()
    at = sided(joints, 'shoulder')
    for bone, name in enumerate(('elbow', 'wrist')):
        at = at + ways[:, :, bone] * figure.arm[bone][..., None]
        for number, side in enumerate(SIDES):
            joints[:, H36M_17.index(f'{side}_{name}')] = at[:, number]
    return joints


def _floor(joints: Tensor, support: Tensor, scale: Tensor) -> Tensor:
    """Height (B,) of the floor under people, by what bears them."""
    hips, knees, ankles = (
        sided(joints, name)[..., 1].amin(1) for name in ('hip', 'knee', 'ankle')
    )
    lowest = joints[..., 1].amin(1)
    neck = joint(joints, 'neck')[:, 1]
    levels = torch.stack(
        [
            torch.minimum(ankles - 0.075 * scale, lowest - 0.04),
            torch.minimum(ankles - 0.075 * scale, lowest - 0.04),
            torch.minimum(hips, neck) - 0.095 * scale,
            knees - 0.045 * scale,
            lowest - 0.05,
            hips - 0.08 * scale,
        ],
        1,
    )
    return levels.gather(1, support[:, None])[:, 0]
