"""Reader of BVH motion: MakeHuman's rig, which is the synthetic body's, and common others.

After M. Meredith and S. Maddock, "Motion capture file formats explained", University of Sheffield,
2001: a joint's local turn is the product of its rotation channels in their order, in degrees; its
place is its OFFSET (or its position channels, for the root) in its parent.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from rsb_pose_core.synthesis.skeletal import SIDES, Clip, face_of, level, stack_joints

# units that files come in, metres; a stature from 1.1 m to 2.3 m tells which
UNITS_M = (1.0, 0.1, 0.0254 / 0.45, 0.0254, 0.01, 0.001)
ADULT_LEG_M = 0.8
# axes of a file whose rest pose stands along z and looks along -y -> y up, z ahead
FROM_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


@dataclass(frozen=True)
class Rig:
    """Names of the joints in one family of files; {} stands for the side."""

    sides: tuple[str, str]
    limbs: dict[str, str]
    trunk: dict[str, str]
    toe: str
    head: str


MAKEHUMAN = Rig(
    ('L', 'R'),
    {'hip': 'upperleg01.{}', 'knee': 'lowerleg01.{}', 'ankle': 'foot.{}',
     'shoulder': 'upperarm01.{}', 'elbow': 'lowerarm01.{}', 'wrist': 'wrist.{}'},
    {'spine': 'spine03', 'neck': 'neck01'}, 'toe1-1.{}', 'head',
)  # fmt: skip
COMMON = Rig(
    ('Left', 'Right'),
    {'hip': '{}UpLeg', 'knee': '{}Leg', 'ankle': '{}Foot',
     'shoulder': '{}Arm', 'elbow': '{}ForeArm', 'wrist': '{}Hand'},
    {'spine': 'Spine1', 'neck': 'Neck'}, '{}ToeBase', 'Head',
)  # fmt: skip
REACTIDLE = Rig(
    ('L', 'R'),
    {'hip': 'thigh.{}', 'knee': 'shin.{}', 'ankle': 'foot.{}',
     'shoulder': 'upper_arm.{}', 'elbow': 'forearm.{}', 'wrist': 'forearm.{}_end'},
    {'spine': 'spine.001', 'neck': 'neck'}, 'foot.{}_end', 'face',
)  # fmt: skip
RIGS = (MAKEHUMAN, COMMON, REACTIDLE)


@dataclass(frozen=True)
class BvhJoint:
    """One joint of the hierarchy."""

    name: str
    parent: int
    offset: np.ndarray  # 3
    channels: tuple[str, ...]


def parse_bvh(text: str) -> tuple[list[BvhJoint], np.ndarray, float]:
    """Joints, values (frames, channels) and the frames' rate in Hz; ValueError when it is none."""
    words = text.split()
    if 'MOTION' not in words or words[0] != 'HIERARCHY':
        raise ValueError('it has no HIERARCHY and MOTION')
    start = words.index('MOTION')
    joints = _hierarchy(words[1:start])
    head = words[start : start + 6]
    if len(head) < 6 or head[1] != 'Frames:' or head[3:5] != ['Frame', 'Time:']:
        raise ValueError('its MOTION does not begin with Frames and Frame Time')
    frames, period = int(head[2]), float(head[5])
    values = np.array(words[start + 6 :], float)
    width = sum(len(joint.channels) for joint in joints)
    if frames < 1 or len(values) != frames * width:
        raise ValueError(f'it holds {len(values)} values instead of {frames * width}')
    return joints, values.reshape(frames, width), 1.0 / period


def _hierarchy(words: list[str]) -> list[BvhJoint]:
    """Joints of the HIERARCHY's words; an end site is a joint named after its parent."""
    joints: list[BvhJoint] = []
    open_joints: list[int] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word == '}':
            open_joints.pop()
            at += 1
            continue
        if word not in ('ROOT', 'JOINT', 'End') or words[at + 2 : at + 4] != ['{', 'OFFSET']:
            raise ValueError(f'its HIERARCHY has {word!r} where a joint should begin')
        offset = np.array(words[at + 4 : at + 7], float)
        parent = open_joints[-1] if open_joints else -1
        name = words[at + 1] if word != 'End' else f'{joints[parent].name}_end'
        at += 7
        channels: tuple[str, ...] = ()
        if words[at : at + 1] == ['CHANNELS']:
            count = int(words[at + 1])
            channels = tuple(words[at + 2 : at + 2 + count])
            at += 2 + count
        open_joints.append(len(joints))
        joints.append(BvhJoint(name, parent, offset, channels))
    if open_joints:
        raise ValueError('its HIERARCHY is not closed')
    return joints


def pose_bvh(
    joints: list[BvhJoint], values: np.ndarray, moving_joints: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Heads (F, J, 3) in the file's units and local turns (F, J, 3, 3) of the joints.

    moving_joints: position channels stand for the OFFSET at every joint that has them, as
    Berkeley MHAD means them; else at the root alone, and MakeHuman's others mean nothing.
    """
    count = len(values)
    heads = np.zeros((count, len(joints), 3))
    local = np.tile(np.eye(3), (count, len(joints), 1, 1))
    whole = local.copy()
    column = 0
    for number, joint in enumerate(joints):
        own = values[:, column : column + len(joint.channels)]
        column += len(joint.channels)
        spun = [k for k, name in enumerate(joint.channels) if name.endswith('rotation')]
        moved = [k for k, name in enumerate(joint.channels) if name.endswith('position')]
        if spun:
            order = ''.join(joint.channels[k][0] for k in spun)  # capitals: each about new axes
            local[:, number] = Rotation.from_euler(order, own[:, spun], degrees=True).as_matrix()
        if joint.parent < 0:
            for k in moved:
                heads[:, number, 'XYZ'.index(joint.channels[k][0])] = own[:, k]
            whole[:, number] = local[:, number]
        else:
            away = whole[:, joint.parent] @ joint.offset
            if moved and moving_joints:
                place = np.tile(joint.offset, (count, 1))
                for k in moved:
                    place[:, 'XYZ'.index(joint.channels[k][0])] = own[:, k]
                away = (whole[:, joint.parent] @ place[..., None])[..., 0]
            heads[:, number] = heads[:, joint.parent] + away
            whole[:, number] = whole[:, joint.parent] @ local[:, number]
    return heads, local


def bvh_clip(name: str, text: str) -> Clip:
    """A clip from a BVH file's text; ValueError when it is none or its joints are unknown."""
    joints, values, rate_hz = parse_bvh(text)
    index = {joint.name: number for number, joint in enumerate(joints)}
    rig = next((rig for rig in RIGS if _needed(rig) <= set(index)), None)
    if rig is None:
        raise ValueError('its joints are named after no known rig')
    heads, local = pose_bvh(joints, values)
    rest = _rest(joints)
    limb = {joint: index[bone] for joint, bone in _names(rig).items()}
    upright = rest[limb['neck']] - rest[limb['left_hip']]
    axes = FROM_Z_UP if upright[2] > upright[1] else np.eye(3)
    chain = [rest[limb[f'left_{joint}']] for joint in ('hip', 'knee', 'ankle')]
    leg = np.linalg.norm(np.diff(chain, axis=0), axis=1).sum()
    metres = min(UNITS_M, key=lambda scale: abs(np.log(scale * leg / ADULT_LEG_M)))
    heads, rest = heads @ axes.T * metres, rest @ axes.T * metres
    local = axes @ local @ axes.T
    whole = local.copy()
    for number, joint in enumerate(joints):
        if joint.parent >= 0:
            whole[:, number] = whole[:, joint.parent] @ local[:, number]
    found = {joint: heads[:, number] for joint, number in limb.items()}
    found |= face_of(found['neck'], whole[:, index[rig.head]])
    toes = [
        whole[:, limb[f'{side}_ankle']]
        @ level(rest[index[rig.toe.format(letter)]] - rest[limb[f'{side}_ankle']])
        for side, letter in zip(SIDES, rig.sides, strict=True)
    ]
    turns = {joint: local[:, number] for joint, number in index.items()}
    own_rig = rig is MAKEHUMAN
    return Clip(name, stack_joints(found), rate_hz, np.stack(toes, 1), turns if own_rig else {})


def _names(rig: Rig) -> dict[str, str]:
    """The file's name of each joint that a clip needs."""
    limbs = {
        f'{side}_{joint}': pattern.format(letter)
        for side, letter in zip(SIDES, rig.sides, strict=True)
        for joint, pattern in rig.limbs.items()
    }
    return limbs | rig.trunk


def _needed(rig: Rig) -> set[str]:
    return {*_names(rig).values(), rig.head, *(rig.toe.format(letter) for letter in rig.sides)}


def _rest(joints: list[BvhJoint]) -> np.ndarray:
    """Heads (J, 3) without any rotation, the root at the origin."""
    rest = np.zeros((len(joints), 3))
    for number, joint in enumerate(joints):
        if joint.parent >= 0:
            rest[number] = rest[joint.parent] + joint.offset
    return rest
