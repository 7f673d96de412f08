"""Stances from postures, and arms that make a gesture."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.anatomy import LIMITS, random_limbs, random_turn
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.postures import ANCHORS, GESTURES, KNEELING, POSTURES, reach
from rsb_pose_core.synthesis.retarget import Retarget
from rsb_pose_core.synthesis.stance import Stance, joint, sided, turned


class Figure:
    """Lengths of B bodies with rest heads (B, N, 3)."""

    def __init__(self, retarget: Retarget) -> None:
        def length(start: str, end: str) -> Tensor:
            span: Tensor = (retarget.rest(end) - retarget.rest(start)).norm(dim=-1)
            return span

        self.side = retarget.side
        self.hips = retarget.rest('upperleg01') - retarget.heads[:, :1]  # B 2 3
        self.leg = length('upperleg01', 'lowerleg01'), length('lowerleg01', 'foot')
        self.arm = length('upperarm01', 'lowerarm01'), length('lowerarm01', 'wrist')
        self.leg_m = (self.leg[0] + self.leg[1]).mean(1)
        self.arm_m = (self.arm[0] + self.arm[1]).mean(1)


class PostureTable:
    """POSTURES as tensors."""

    def __init__(self, device: str) -> None:
        rows = list(POSTURES.values())

        def table(values: Sequence[object]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        self.odds = table([row.odds for row in rows])
        self.support = torch.tensor([row.support for row in rows], device=device)
        self.categories = [row.category for row in rows]
        self.ankle = table([[leg.ankle for leg in row.legs] for row in rows])  # R 2 3
        self.spread = table([[leg.spread for leg in row.legs] for row in rows])
        self.knee = table([[leg.knee for leg in row.legs] for row in rows])
        self.toes = torch.deg2rad(table([[leg.toes_down_deg for leg in row.legs] for row in rows]))
        self.kneeling = table([[leg is KNEELING for leg in row.legs] for row in rows]) > 0
        self.thigh = torch.deg2rad(table([row.thigh_deg or (0, 0) for row in rows]))
        self.drop = table([row.drop for row in rows])
        trunk = [
            (row.pitch_deg, row.roll_deg, row.flexion_deg, (0, row.rotation_deg),
             (0, row.sideways_deg)) for row in rows
        ]  # fmt: skip
        self.trunk = torch.deg2rad(table(trunk))  # R 5 2
        self.gaze = torch.deg2rad(table([row.gaze_deg for row in rows]))
        self.along_trunk = torch.tensor([row.along_trunk for row in rows], device=device)
        names = list(GESTURES)
        gestures = torch.zeros(len(rows), len(names))
        for number, row in enumerate(rows):
            for name, odds in row.gestures:
                gestures[number, names.index(name)] += odds
        self.gestures = gestures.to(device)


def posture_stances(
    table: PostureTable, row: Tensor, figure: Figure, arms: Tensor, draw: Draw
) -> Stance:
    """Stances of postures `row` (B,) of bodies whose arms are `arms` (B, 2, 2, 3)."""
    count, side = len(row), figure.side
    mean, spread = table.trunk[row].unbind(-1)
    pitch, roll, *bends = (mean + spread * draw.normal(count, 5)).unbind(1)
    roll = roll * torch.where(draw.chance(0.5, count), 1.0, -1.0)
    pelvis = rotations.about_x(pitch) @ rotations.about_z(roll)
    vector = torch.stack(bends, -1)
    angle = vector.norm(dim=-1)
    chest = rotations.about_axis(normalize(vector, dim=-1), angle)
    nod = 0.2 * draw.normal(count) - table.gaze[row] - 0.4 * bends[0]
    head = (
        rotations.about_x(nod) @ rotations.about_y(0.4 * draw.normal(count))
        @ rotations.about_z(0.1 * draw.normal(count))
    )  # fmt: skip

    swap = draw.chance(0.5, count)[:, None]

    def legs(values: Tensor) -> Tensor:
        """A table's values of both legs (B, 2, ...), sides changed in half of the poses."""
        whole = values[row]
        flip = swap.view(count, *[1] * (whole.dim() - 1))
        return torch.where(flip, whole.flip(1), whole)

    out_up_ahead = side[:, None] * side.new_tensor([1.0, 0, 0]) + side.new_tensor([0.0, 1, 1])
    offset = legs(table.ankle) + legs(table.spread) * draw.normal(count, 2, 3)
    offset[..., 1] += table.drop[row, 1, None] * draw.normal(count, 1)
    offset = offset * out_up_ahead * figure.leg_m[:, None, None]
    pole = legs(table.knee) + 0.12 * draw.normal(count, 2, 3)
    axes = torch.where(
        table.along_trunk[row, None, None], pelvis, torch.eye(3, device=pelvis.device)
    )
    axes = axes[:, None]
    hip = turned(axes.mT, turned(pelvis[:, None], figure.hips))
    level = torch.cat([hip[..., :1], hip.mean(1, keepdim=True)[..., 1:].expand(-1, 2, -1)], -1)
    thigh, shin = reach(hip, level + offset, figure.leg, pole * out_up_ahead)
    # kneeling: knees and feet on one floor
    lean = table.thigh[row, 0, None] + table.thigh[row, 1, None] * draw.normal(count, 1)
    lean = lean.clamp(-0.5, 1.42)
    spread_out = side * (0.06 + 0.09 * draw.normal(count, 2).abs())
    knees = torch.stack([spread_out, (-lean.cos()).expand(-1, 2), lean.sin().expand(-1, 2)], -1)
    kneeling = legs(table.kneeling)[..., None]
    thigh = torch.where(kneeling, normalize(knees, dim=-1), thigh)
    feet_in = torch.stack([-0.6 * spread_out, torch.full_like(spread_out, 0.14),
                           torch.full_like(spread_out, -1.0)], -1)  # fmt: skip
    shin = torch.where(kneeling, normalize(feet_in, dim=-1), shin)

    toes = legs(table.toes)
    across = torch.linalg.cross(thigh, shin)
    across = normalize(across + 0.05 * side.new_tensor([1.0, 0.0, 0.0]), dim=-1)
    front = torch.linalg.cross(shin, across)
    down = (toes + 0.12 * draw.normal(count, 2))[..., None]
    soles = torch.where(toes[..., None] > 0, down.cos() * front + down.sin() * shin, 0.0)
    in_pelvis = pelvis[:, None].mT @ axes
    both = torch.stack([thigh, shin], 2) @ in_pelvis.mT
    feet = turned(in_pelvis, soles)
    return Stance(pelvis, chest, head, arms, both, feet, wrist_noise(count, draw))


def wrist_noise(count: int, draw: Draw) -> Tensor:
    """Angles (B, 2, 3) of wrists in rad, about what a hand does at ease."""
    mean = torch.deg2rad(torch.tensor([-18.0, 2.0, -2.0], device=draw.device))
    spread = torch.deg2rad(torch.tensor([32.0, 14.0, 6.0], device=draw.device))
    common = draw.normal(count, 1, 3)
    return mean + spread * (0.6 * common + 0.8 * draw.normal(count, 2, 3))


def random_stances(figure: Figure, count: int, draw: Draw) -> Stance:
    """Stances all over what joints can do; the longer leg stands below the trunk."""
    arms, legs = random_limbs(count, draw, figure.side)
    tilt = draw.normal(count, 3) * draw.normal(count, 3).new_tensor([0.45, 0.2, 0.3])
    angle = tilt.norm(dim=-1)
    pelvis = rotations.about_axis(normalize(tilt, dim=-1), angle)
    chest = random_turn('spine', count, draw, 0.7)
    ankles = figure.hips + (legs * torch.stack(figure.leg, -1)[..., None]).sum(2)
    foot = torch.where(
        (ankles[:, 0].norm(dim=-1) > ankles[:, 1].norm(dim=-1))[:, None],
        ankles[:, 0],
        ankles[:, 1],
    )
    foot = turned(pelvis, foot)
    under = foot.new_tensor([0.0, -1.0, 0.0]) + 0.15 * draw.normal(count, 3)
    pelvis = rotations.between(foot, under) @ pelvis
    head = random_turn('neck', count, draw, 0.9)
    wrists = wrist_noise(count, draw) * 1.4
    return Stance(pelvis, chest, head, arms, legs, torch.zeros_like(arms[:, :, 0]), wrists)


class GestureTable:
    """GESTURES as tensors."""

    def __init__(self, device: str) -> None:
        rows = list(GESTURES.values())
        self.anchor = torch.tensor([ANCHORS.index(row.anchor) for row in rows], device=device)
        self.offset, self.spread, self.elbow = (
            torch.tensor([getattr(row, name) for row in rows], device=device)
            for name in ('offset', 'spread', 'elbow')
        )
        self.both_odds = torch.tensor([row.both_odds for row in rows], device=device)
        self.hand_on_floor = torch.tensor([row.anchor == 'floor' for row in rows], device=device)


def gesture_arms(
    table: GestureTable, gesture: Tensor, joints_m: Tensor, stance: Stance, figure: Figure,
    floor_m: Tensor, scale: Tensor, draw: Draw,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Arms (B, 2, 2, 3) in the chest's axes and wrists (B, 2, 3) that make gestures (B, 2).

    joints_m (B, 17, 3): where the rest of the body is, in the room; floor_m (B,): its floor.
    """
    count, side = len(gesture), figure.side
    chest = stance.pelvis @ stance.chest
    shoulder, hip, knee = (sided(joints_m, name) for name in ('shoulder', 'hip', 'knee'))
    skull = joint(joints_m, 'neck').lerp(joint(joints_m, 'head'), 0.62)
    back = joint(joints_m, 'pelvis').lerp(joint(joints_m, 'spine'), 0.4)
    floor = shoulder.clone()
    floor[..., 1] = floor_m[:, None]
    twice = (count, 2, 3)
    anchors = torch.stack(
        [
            shoulder, hip, knee, skull[:, None].expand(twice), shoulder.flip(1), floor,
            back[:, None].expand(twice), hip.lerp(knee, 0.62),
        ],
        2,
    )  # fmt: skip
    frames = torch.stack(
        [
            chest, stance.pelvis, torch.eye(3, device=chest.device).expand_as(chest),
            chest @ stance.head, chest, torch.eye(3, device=chest.device).expand_as(chest),
            stance.pelvis, torch.eye(3, device=chest.device).expand_as(chest),
        ],
        1,
    )  # fmt: skip
    number = table.anchor[gesture]
    rows = torch.arange(count, device=gesture.device)[:, None]
    place = anchors[rows, torch.arange(2, device=gesture.device), number]
    frame = frames[rows, number]
    mirror = side[:, None] * side.new_tensor([1.0, 0, 0]) + side.new_tensor([0.0, 1, 1])
    common = 0.75 * draw.normal(count, 1, 3) + 0.66 * draw.normal(count, 2, 3)
    offset = (table.offset[gesture] + table.spread[gesture] * common) * mirror
    in_arms = (number == ANCHORS.index('shoulder')) | (number == ANCHORS.index('across'))
    unit = torch.where(in_arms, figure.arm_m[:, None], scale[:, None])
    goal = place + turned(frame, offset * unit[..., None])
    pole = (table.elbow[gesture] + 0.25 * draw.normal(count, 2, 3)) * mirror
    upper, fore = reach(shoulder, goal, figure.arm, turned(chest[:, None], pole))
    arms = torch.stack([upper, fore], 2) @ chest[:, None]
    flat = table.hand_on_floor[gesture][..., None]
    on_floor = stance.wrists.new_tensor([0.4, LIMITS['wrist_flexion'].low, 0.0])
    return arms, torch.where(flat, on_floor + 0.1 * stance.wrists, stance.wrists)
