"""Motion capture: poses of 17 joints, and how a body takes them.

Positions are metres, y up. Sources (see data licences in the model card): CMU motion capture in 17
joints, and DeepMimic's clips of one humanoid.
"""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.body import Body

# order of the 17 joints in common H36M files -> our names
H36M_FILE_ORDER = (
    'pelvis', 'right_hip', 'right_knee', 'right_ankle', 'left_hip', 'left_knee', 'left_ankle',
    'spine', 'neck', 'nose', 'head', 'left_shoulder', 'left_elbow', 'left_wrist',
    'right_shoulder', 'right_elbow', 'right_wrist',
)  # fmt: skip


@dataclass(frozen=True)
class Clip:
    """One recorded motion: joints (frames, 17, 3) in metres, y up, at `rate_hz`."""

    name: str
    joints_m: np.ndarray
    rate_hz: float


def read_cmu_17_joints(path: Path) -> list[Clip]:
    """CMU motion in 17 H36M joints, mm, 60 Hz (npz with joints_mm, sequence, names)."""
    try:
        data = np.load(path)
        joints, sequence, names = data['joints_mm'], data['sequence'], data['names']
    except (OSError, ValueError, KeyError) as error:
        raise RsbPoseError(
            f'cannot read motion from {path} ({error}); expected an npz with joints_mm, sequence '
            'and names'
        ) from error
    order = [H36M_FILE_ORDER.index(name) for name in H36M_17.joint_names]
    return [
        Clip(str(name), joints[sequence == i][:, order] / 1000.0, 60.0)
        for i, name in enumerate(names)
    ]


def read_deepmimic(path: Path) -> list[Clip]:
    """DeepMimic's clips (tar archive of humanoid3d_*.txt and character_humanoid3d.txt)."""
    try:
        with tarfile.open(path) as archive:
            files = {
                Path(member.name).name: json.load(io.TextIOWrapper(content))
                for member in archive.getmembers()
                if member.name.endswith('.txt')
                and (content := archive.extractfile(member)) is not None
            }
        skeleton = files.pop('character_humanoid3d.txt')['Skeleton']['Joints']
        return [
            _deepmimic_clip(name.removesuffix('.txt'), clip['Frames'], skeleton)
            for name, clip in sorted(files.items())
        ]
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
        raise RsbPoseError(
            f'cannot read motion from {path} ({error}); expected DeepMimic clips and '
            'character_humanoid3d.txt in a tar archive'
        ) from error


def _deepmimic_clip(name: str, frames: list[list[float]], skeleton: list[dict]) -> Clip:  # type: ignore[type-arg]
    """Forward kinematics of DeepMimic's humanoid: x to the front, y up, z to the right."""
    values = np.asarray(frames)
    turns: dict[str, Rotation] = {}
    heads: dict[str, np.ndarray] = {}
    column = 8
    for joint in skeleton:
        label, kind = joint['Name'], joint['Type']
        if kind == 'none':
            turns[label] = Rotation.from_quat(np.roll(values[:, 4:8], -1, axis=1))
            heads[label] = values[:, 1:4]
            continue
        parent = skeleton[joint['Parent']]['Name']
        offset = [joint['AttachX'], joint['AttachY'], joint['AttachZ']]
        heads[label] = heads[parent] + turns[parent].apply(offset)
        if kind == 'spherical':
            local = Rotation.from_quat(np.roll(values[:, column : column + 4], -1, axis=1))
            column += 4
        elif kind == 'revolute':
            local = Rotation.from_rotvec(values[:, column, None] * [0.0, 0.0, 1.0])
            column += 1
        else:  # fixed: wrists
            local = Rotation.identity(len(values))
        turns[label] = turns[parent] * local

    def off(label: str, offset: tuple[float, float, float]) -> np.ndarray:
        return np.asarray(heads[label] + turns[label].apply(offset))

    hips = (heads['left_hip'] + heads['right_hip']) / 2
    made = heads | {
        'pelvis': hips,
        'spine': (hips + heads['neck']) / 2,
        'neck': heads['neck'],
        'nose': off('neck', (0.11, 0.15, 0.0)),
        'head': off('neck', (0.02, 0.28, 0.0)),
    }
    joints = np.stack([made[name] for name in H36M_17.joint_names], 1)
    joints = joints @ np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # x left, y up, z front
    return Clip(name, joints, 1.0 / float(values[0, 0]))


def chest_frame(joints_m: Tensor) -> Tensor:
    """Axes (B, 3, 3) of the chests of poses (B, 17, 3): columns left, up, front."""
    left, right, neck, spine = (
        joints_m[:, H36M_17.index(name)]
        for name in ('left_shoulder', 'right_shoulder', 'neck', 'spine')
    )
    return rotations.frame(left - right, neck - spine)


def with_arms(joints_m: Tensor, donor_m: Tensor) -> Tensor:
    """Poses (B, 17, 3) whose arms come from other poses, turned with the chest."""
    turn = chest_frame(joints_m) @ chest_frame(donor_m).mT
    mixed = joints_m.clone()
    for side in ('left', 'right'):
        shoulder = H36M_17.index(f'{side}_shoulder')
        for joint in ('elbow', 'wrist'):
            k = H36M_17.index(f'{side}_{joint}')
            arm = donor_m[:, k] - donor_m[:, shoulder]
            mixed[:, k] = joints_m[:, shoulder] + (turn @ arm[..., None])[..., 0]
    return mixed


def retarget(body: Body, heads: Tensor, joints_m: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations that give bodies the poses of other skeletons.

    heads (B, N, 3): rest bone heads; joints_m (B, 17, 3): the pose, any bone lengths, y up.
    Returns bone rotations (B, N, 3, 3) and the root's rotation (B, 3, 3) for `Body.pose`. Every
    limb takes the direction it has in the pose; lengths stay the body's own. A torso's rotation is
    spread evenly over the spine. Limbs do not twist about their axis more than they must.
    """
    bone = body.bone_index

    def rest(name: str) -> Tensor:
        return heads[:, bone[name]]

    def joint(name: str) -> Tensor:
        return joints_m[:, H36M_17.index(name)]

    rotation = torch.eye(3, device=heads.device).repeat(len(heads), len(body.bones), 1, 1)
    pelvis = rotations.frame(
        joint('left_hip') - joint('right_hip'), joint('spine') - joint('pelvis')
    )
    chest = chest_frame(joints_m)
    root = pelvis
    axis, angle = rotations.log(pelvis.mT @ chest)
    spine = ('spine04', 'spine03', 'spine02', 'spine01')
    step = rotations.about_axis(axis, angle / len(spine))
    for name in spine:
        rotation[:, bone[name]] = step

    def aim(name: str, parent: Tensor, rest_direction: Tensor, direction: Tensor) -> Tensor:
        """Turn a bone so that it points along `direction`; return its world rotation."""
        local = rotations.between(rest_direction, (parent.mT @ direction[..., None])[..., 0])
        rotation[:, bone[name]] = local
        return parent @ local

    for side, s in (('left', 'L'), ('right', 'R')):
        hip, knee, ankle = (rest(f'{part}.{s}') for part in ('upperleg01', 'lowerleg01', 'foot'))
        thigh = aim(
            f'upperleg01.{s}', pelvis, knee - hip, joint(f'{side}_knee') - joint(f'{side}_hip')
        )
        aim(f'lowerleg01.{s}', thigh, ankle - knee, joint(f'{side}_ankle') - joint(f'{side}_knee'))
        shoulder, elbow, wrist = (
            rest(f'{part}.{s}') for part in ('upperarm01', 'lowerarm01', 'wrist')
        )
        upper = aim(
            f'upperarm01.{s}', chest, elbow - shoulder,
            joint(f'{side}_elbow') - joint(f'{side}_shoulder'),
        )  # fmt: skip
        aim(
            f'lowerarm01.{s}',
            upper,
            wrist - elbow,
            joint(f'{side}_wrist') - joint(f'{side}_elbow'),
        )
    aim('neck01', chest, rest('head') - rest('neck01'), joint('head') - joint('neck'))
    return rotation, root


READERS: dict[str, Callable[[Path], list[Clip]]] = {
    'cmu_17joints_60hz.npz': read_cmu_17_joints,
    'deepmimic.tar.xz': read_deepmimic,
}


def read_motion(folder: Path) -> list[Clip]:
    """All clips of the known files in a folder; RsbPoseError when there is none."""
    clips = [
        clip
        for name, reader in READERS.items()
        if (folder / name).exists()
        for clip in reader(folder / name)
    ]
    if not clips:
        raise RsbPoseError(f'no motion in {folder}; expected one of {", ".join(READERS)}')
    return clips


def split_of(clip: Clip) -> str:
    """'train', 'val' or 'test': a clip belongs to one split only, by its name."""
    name = clip.name.removesuffix('.txt')
    if name.endswith(('_5', 'directing_traffic_4', 'dance_b')):
        return 'test'
    return 'val' if name.endswith(('_4', 'long_walk3')) else 'train'


def pose_library(clips: list[Clip], frames_per_clip: int = 300) -> np.ndarray:
    """Poses (N, 17, 3) in metres, every clip with the same weight however long it is."""
    picks = [
        clip.joints_m[np.linspace(0, len(clip.joints_m) - 1, frames_per_clip).round().astype(int)]
        for clip in clips
    ]
    return np.concatenate(picks).astype(np.float32)
