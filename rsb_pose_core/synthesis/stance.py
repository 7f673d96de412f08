"""How people hold themselves, whatever their size: directions of limbs and turns of the trunk.

Axes: y up, z ahead, x to the person's left. Order of sides: left, right.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations

# tilts of the resting body's own joints, forward +: pelvis to spine, spine to neck, neck to crown
PELVIS_TILT, CHEST_TILT = -0.098, 0.068
CROWN_TILT = 0.181


@dataclass(frozen=True)
class Stance:
    """How B people hold themselves; directions are unit vectors."""

    pelvis: Tensor  # B 3 3, in the world
    chest: Tensor  # B 3 3, in the pelvis' axes
    head: Tensor  # B 3 3, in the chest's axes
    arms: Tensor  # B 2 2 3, (side; upper arm, forearm) in the chest's axes
    legs: Tensor  # B 2 2 3, (side; thigh, shin) in the pelvis' axes
    feet: Tensor  # B 2 3, where the soles point, in the pelvis' axes; zero: not known
    wrists: Tensor  # B 2 3, forearm twist, wrist flexion, wrist sideways, in rad

    def __getitem__(self, part: Tensor | slice) -> 'Stance':
        return Stance(*(getattr(self, f.name)[part] for f in fields(self)))

    def __len__(self) -> int:
        return len(self.pelvis)


def joint(joints_m: Tensor, name: str) -> Tensor:
    """One joint (..., 3) of poses (..., 17, 3)."""
    return joints_m[..., H36M_17.index(name), :]


def sided(joints_m: Tensor, name: str) -> Tensor:
    """A joint of both sides (..., 2, 3), left first."""
    return torch.stack([joint(joints_m, f'left_{name}'), joint(joints_m, f'right_{name}')], -2)


def turned(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix (..., 3, 3) applied to vector (..., 3)."""
    return (matrix @ vector[..., None])[..., 0]


def tilt(matrix: Tensor, angle: float) -> Tensor:
    """matrix (..., 3, 3) after a turn about its own x."""
    return matrix @ rotations.about_x(matrix.new_tensor(angle))


def chest_frame(joints_m: Tensor) -> Tensor:
    """Axes (B, 3, 3) of the chests of poses (B, 17, 3): columns left, up, front."""
    across = joint(joints_m, 'left_shoulder') - joint(joints_m, 'right_shoulder')
    return rotations.frame(across, joint(joints_m, 'neck') - joint(joints_m, 'spine'))


def with_arms(joints_m: Tensor, donor_m: Tensor) -> Tensor:
    """Poses (B, 17, 3) whose arms come from other poses, turned with the chest."""
    turn = chest_frame(joints_m) @ chest_frame(donor_m).mT
    mixed = joints_m.clone()
    for side in ('left', 'right'):
        shoulder = H36M_17.index(f'{side}_shoulder')
        for name in ('elbow', 'wrist'):
            k = H36M_17.index(f'{side}_{name}')
            arm = donor_m[:, k] - donor_m[:, shoulder]
            mixed[:, k] = joints_m[:, shoulder] + turned(turn, arm)
    return mixed


def stance_of(joints_m: Tensor, toes: Tensor | None = None) -> Stance:
    """Stances of poses (B, 17, 3), y up, any bone lengths.

    toes (B, 2, 3): where the soles point in the world, zero where that is not known.
    """
    hips = joint(joints_m, 'left_hip') - joint(joints_m, 'right_hip')
    neck = joint(joints_m, 'neck')
    pelvis = rotations.frame(hips, joint(joints_m, 'spine') - joint(joints_m, 'pelvis'))
    pelvis = tilt(pelvis, -PELVIS_TILT)
    chest = tilt(chest_frame(joints_m), -CHEST_TILT)
    up = joint(joints_m, 'head') - neck
    face = torch.linalg.cross(up, joint(joints_m, 'nose') - neck)
    head = tilt(rotations.frame(face, up), -CROWN_TILT)

    def limb(axes: Tensor, names: tuple[str, str, str]) -> Tensor:
        a, b, c = (sided(joints_m, name) for name in names)
        return normalize(torch.stack([b - a, c - b], -2), dim=-1) @ axes[:, None]

    feet = torch.zeros_like(joints_m[:, :2]) if toes is None else toes
    return Stance(
        pelvis, pelvis.mT @ chest, chest.mT @ head,
        limb(chest, ('shoulder', 'elbow', 'wrist')), limb(pelvis, ('hip', 'knee', 'ankle')),
        feet @ pelvis, torch.zeros_like(feet),
    )  # fmt: skip
