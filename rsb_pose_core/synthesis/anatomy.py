"""What joints of a person can do.

Ranges of motion after American Academy of Orthopaedic Surgeons, "Joint motion: method of measuring
and recording" (1965), and D. C. Boone and S. P. Azen, "Normal range of motion of joints in male
subjects", J. Bone Joint Surg. 61-A (1979). Wider where active motion combines joints: hips flex
further when the pelvis tilts, and shoulders rotate further with the shoulder blade. Angles of a
hinge are measured from the straight limb, twists from the smallest swing of the resting limb.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw


@dataclass(frozen=True)
class Range:
    """Limits of one angle, degrees given, radians kept."""

    low_deg: float
    high_deg: float

    @property
    def low(self) -> float:
        return math.radians(self.low_deg)

    @property
    def high(self) -> float:
        return math.radians(self.high_deg)


LIMITS = {
    # towards the front +, AAOS -30..120
    'hip_flexion': Range(-35, 135),
    # outward +, AAOS -30..45; a flexed hip opens further
    'hip_abduction': Range(-35, 65),
    # inward +, AAOS -45..45 from knees ahead; cross-legged sitters reach further
    'hip_rotation': Range(-70, 45),
    # AAOS 0..135, passively to 160 in a deep squat
    'knee_flexion': Range(0, 158),
    # a knee is no pure hinge: from the resting leg
    'knee_sideways': Range(-8, 8),
    # toes down +, AAOS -20..50
    'ankle_flexion': Range(-28, 52),
    'ankle_yaw': Range(-20, 20),
    # sole turned inward +, AAOS -15..35
    'ankle_roll': Range(-18, 35),
    # toes up -, AAOS -70..45 of the big toe
    'toe_flexion': Range(-60, 20),
    # forward +, AAOS -20..80
    'spine_flexion': Range(-32, 85),
    'spine_rotation': Range(-45, 45),
    'spine_sideways': Range(-38, 38),
    # forward +, AAOS -45..45; with the skull's own joints
    'neck_flexion': Range(-60, 55),
    'neck_rotation': Range(-80, 80),
    'neck_sideways': Range(-45, 45),
    # inward +, AAOS -90..70; with the shoulder blade
    'shoulder_rotation': Range(-95, 100),
    'elbow_flexion': Range(0, 150),
    'elbow_sideways': Range(-12, 12),
    # palm down +, AAOS -80..80 from the thumb up; the body rests half turned down
    'forearm_twist': Range(-115, 42),
    # towards the palm +, AAOS -70..80
    'wrist_flexion': Range(-70, 75),
    # towards the thumb +, AAOS -30..20
    'wrist_sideways': Range(-30, 20),
}
# unit vectors of an upper arm in the chest's axes: not further back than this (AAOS extension 60)
ARM_BACK = -math.sin(math.radians(62))
# nor further across the trunk: in front of it (horizontal adduction) and behind it
ARM_ACROSS_FRONT, ARM_ACROSS_BACK = 0.85, 0.35
# share of an arm's rise that the shoulder girdle makes (Inman et al. 1944: a third), from where on
GIRDLE_SHARE, GIRDLE_FROM, GIRDLE_MOST = 0.32, math.radians(38), math.radians(38)
GIRDLE_FORWARD = math.radians(14)


def uniform_within(draw: Draw, name: str, share: float, *shape: int) -> Tensor:
    """Angles in rad, uniform over the middle `share` of a range."""
    limit = LIMITS[name]
    middle, half = (limit.low + limit.high) / 2, (limit.high - limit.low) / 2
    return draw.uniform(middle - share * half, middle + share * half, *shape)


def hinged(first: Tensor, bend_rest: tuple[float, float, float], twist: Tensor, bend: Tensor
) -> Tensor:  # fmt: skip
    """Where a hinge's second bone points (..., 3) if the first points along `first` (..., 3).

    At rest the first hangs down and the second moves along `bend_rest`; twist and bend in rad.
    """
    down = first.new_tensor([0.0, -1.0, 0.0]).expand_as(first)
    swing = rotations.between(down, first) @ rotations.about_axis(down, twist)
    way = bend.cos()[..., None] * down + bend.sin()[..., None] * first.new_tensor(bend_rest)
    return (swing @ way[..., None])[..., 0]


def random_turn(part: str, count: int, draw: Draw, share: float) -> Tensor:
    """Turns (B, 3, 3) of the spine or neck within a share of their limits, mostly small."""
    vector = torch.stack(
        [
            uniform_within(draw, f'{part}_{name}', share, count)
            for name in ('flexion', 'rotation', 'sideways')
        ],
        -1,
    )
    vector = vector * draw.uniform(0.0, 1.0, count, 1)
    angle = vector.norm(dim=-1)
    return rotations.about_axis(vector / angle.clamp_min(1e-6)[..., None], angle)


def random_limbs(count: int, draw: Draw, side: Tensor) -> tuple[Tensor, Tensor]:
    """Directions of arms and legs (B, 2, 2, 3), (side; bone), all over their ranges.

    Half of the poses have legs of one kind (both bent or both straight), half of them arms.
    """

    def alike(angle: Tensor, most: float) -> Tensor:
        """Bring the right side's angle near the left's in half of the poses."""
        near = angle[:, :1] + (angle - angle[:, :1]) * most
        return torch.where(draw.chance(0.5, count, 1), near, angle)

    upper = torch.nn.functional.normalize(draw.normal(count, 2, 3), dim=-1)
    upper = (
        upper
        + upper.new_tensor([0.0, -0.25, 0.3])
        + side[:, None] * upper.new_tensor([0.35, 0, 0])
    )
    upper = torch.nn.functional.normalize(upper, dim=-1)
    twin = torch.stack([upper[:, 0], upper[:, 0] * upper.new_tensor([-1.0, 1.0, 1.0])], 1)
    upper = torch.where(draw.chance(0.3, count, 1, 1), twin + 0.2 * (upper - twin), upper)
    upper = torch.nn.functional.normalize(upper, dim=-1)
    twist = alike(uniform_within(draw, 'shoulder_rotation', 0.8, count, 2), 0.3)
    bend = alike(uniform_within(draw, 'elbow_flexion', 0.95, count, 2), 0.3)
    fore = hinged(upper, (0.0, 0.0, 1.0), twist * side, bend)

    flexion = alike(uniform_within(draw, 'hip_flexion', 0.85, count, 2), 0.4)
    out = alike(uniform_within(draw, 'hip_abduction', 0.7, count, 2), 0.4)
    thigh = torch.stack(
        [side * out.sin(), -out.cos() * flexion.cos(), out.cos() * flexion.sin()], -1
    )
    twist = alike(uniform_within(draw, 'hip_rotation', 0.6, count, 2), 0.4)
    bend = alike(uniform_within(draw, 'knee_flexion', 0.95, count, 2), 0.4)
    bend = bend * draw.uniform(0.2, 1.0, count, 1)
    shin = hinged(thigh, (0.0, 0.0, -1.0), twist * side, bend)
    return torch.stack([upper, fore], 2), torch.stack([thigh, shin], 2)


# flexion in degrees of (thumb, index, middle, ring, little finger), and of each finger's joints
HANDS = {
    'relaxed': (12, 18, 24, 28, 30),
    'flat': (2, 2, 2, 2, 3),
    'fist': (32, 82, 84, 84, 82),
    'pointing': (28, 4, 78, 82, 82),
    'grip': (28, 52, 54, 55, 55),
    'thumb': (-18, 78, 82, 82, 80),
    'claw': (15, 38, 38, 40, 42),
}
HAND_ODDS = (4.0, 1.5, 1.2, 0.6, 1.5, 0.4, 0.8)
JOINT_SHARES = (0.8, 1.1, 0.75)


def hand_bones() -> list[str]:
    """Names of the finger bones, both sides of each in turn: thumb first, knuckle first."""
    return [f'finger{f}-{k}.{s}' for f in range(1, 6) for k in (1, 2, 3) for s in 'LR']


def random_hands(count: int, draw: Draw) -> Tensor:
    """Flexions (B, 5, 3, 2) in rad of finger joints, left and right."""
    curls = torch.tensor(list(HANDS.values()), dtype=torch.float32, device=draw.device)
    odds = torch.tensor(HAND_ODDS, device=draw.device).expand(count, -1)
    kind = torch.multinomial(odds, 2, replacement=True, generator=draw.generator)
    kind[:, 1] = torch.where(draw.chance(0.5, count), kind[:, 0], kind[:, 1])
    curl = curls[kind].mT[:, :, None]  # B 5 1 2
    noise = 6 * draw.normal(count, 5, 1, 2) + 3 * draw.normal(count, 5, 3, 2)
    loose = draw.uniform(0.75, 1.1, count, 1, 1, 2)
    shares = curls.new_tensor(JOINT_SHARES)[:, None]
    return torch.deg2rad((curl * loose * shares + noise).clamp(-20, 98))
