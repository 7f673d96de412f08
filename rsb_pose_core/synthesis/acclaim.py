"""Reader of Acclaim motion capture: a skeleton (.asf) and its motions (.amc).

After J. Lander, "Working with motion capture file formats", Game Developer, January 1998, and the
Acclaim format notes of the University of Wisconsin. A bone lies along `direction` (axes of the
world at rest) and turns about its own `axis`: with C the axis' rotation, M the frame's Euler
angles and P the parent's turn, the bone's turn is P C M C^-1. An order such as XYZ rotates about x
first. One unit of length is 1/scale inches (`length` under :units).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.skeletal import Clip, face_of, level, stack_joints

INCH_M = 0.0254
RATE_HZ = 120.0  # of the CMU recordings; AMC files do not state it
# CMU's trunk stands this far behind where the synthetic body has its own over its hips, at rest
TRUNK_AHEAD_M = 0.037
LEGS = ('pelvis', 'hip', 'knee', 'ankle')
CHANNELS = ('rx', 'ry', 'rz')
# joint -> (bone, whether it is the bone's end or its start)
JOINT_ENDS = {
    'spine': ('lowerback', True), 'neck': ('thorax', True),
    **{
        f'{side}_{joint}': (f'{side[0]}{bone}', end)
        for side in ('left', 'right')
        for joint, bone, end in (
            ('hip', 'femur', False), ('knee', 'femur', True), ('ankle', 'tibia', True),
            ('shoulder', 'humerus', False), ('elbow', 'humerus', True), ('wrist', 'radius', True),
        )
    },
}  # fmt: skip


@dataclass(frozen=True)
class Bone:
    """One bone of an .asf file."""

    offset_m: np.ndarray  # 3, from start to end at rest
    axis: np.ndarray  # 3 3, C
    order: str  # in which axes are turned, such as 'xyz'
    channels: tuple[str, ...]
    limits_deg: tuple[tuple[float, float], ...]  # one for each channel; stated, not enforced


@dataclass(frozen=True)
class AcclaimSkeleton:
    """An .asf file: bones by name, children after parents."""

    bones: dict[str, Bone]
    parents: dict[str, str]
    unit_m: float
    root_order: tuple[str, ...]
    root_axis: str
    degrees: bool


def parse_skeleton(text: str) -> AcclaimSkeleton:
    """Read an .asf file; ValueError or KeyError when it is none."""
    sections: dict[str, list[list[str]]] = {}
    lines: list[list[str]] = []
    for raw in text.splitlines():
        words = raw.split()
        if not words or words[0].startswith('#'):
            continue
        if words[0].startswith(':'):
            lines = sections.setdefault(words[0][1:].lower(), [])
            words = words[1:]
        lines.append(words)
    units = {words[0]: words[1] for words in sections['units'] if len(words) > 1}
    unit_m = INCH_M / float(units['length'])
    degrees = units.get('angle', 'deg') == 'deg'
    root = {words[0]: words[1:] for words in sections['root'] if words}
    bones = dict(_bone(block, unit_m, degrees) for block in _blocks(sections['bonedata']))
    parents = {
        child: words[0] for words in next(_blocks(sections['hierarchy'])) for child in words[1:]
    }
    if set(parents) != set(bones):
        raise ValueError('bones and hierarchy name different bones')
    return AcclaimSkeleton(
        bones, parents, unit_m, tuple(word.lower() for word in root['order']),
        root['axis'][0].lower(), degrees,
    )  # fmt: skip


def _blocks(lines: list[list[str]]) -> Iterator[list[list[str]]]:
    """What stands between 'begin' and 'end'."""
    block: list[list[str]] = []
    inside = False
    for words in lines:
        if words and words[0] in ('begin', 'end'):
            if words[0] == 'end':
                yield block
            inside, block = words[0] == 'begin', []
        elif words:
            block.append(words)
    if inside:
        raise ValueError('it ends inside a begin ... end block')


def _bone(block: list[list[str]], unit_m: float, degrees: bool) -> tuple[str, Bone]:
    values = {words[0]: words[1:] for words in block}
    channels = tuple(word.lower() for word in values.get('dof', []))
    if not set(channels) <= set(CHANNELS):
        raise ValueError(f'bone {values["name"][0]} has degrees of freedom {channels}')
    numbers: list[float] = []
    if 'limits' in values:
        rows = block[[words[0] for words in block].index('limits') :]
        joined = ' '.join(word for words in rows for word in words)
        numbers = [float(word) for word in joined.translate(str.maketrans('()', '  ')).split()[1:]]
    direction, length = np.array(values['direction'], float), float(values['length'][0])
    order = values['axis'][3].lower()
    axis = _euler(np.array(values['axis'][:3], float)[None], 'xyz', order, degrees)[0]
    limits = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    return values['name'][0], Bone(direction * length * unit_m, axis, order, channels, limits)


def _euler(angles: np.ndarray, columns: str, order: str, degrees: bool) -> np.ndarray:
    """Rotations (F, 3, 3) of angles (F, 3) about the axes `columns`, applied in `order`."""
    picked = angles[:, [columns.index(letter) for letter in order]]
    return np.asarray(Rotation.from_euler(order, picked, degrees=degrees).as_matrix())


def parse_motion(text: str, skeleton: AcclaimSkeleton, stride: int = 1) -> dict[str, np.ndarray]:
    """Every `stride`-th frame of an .amc file: values (frames, channels) by bone name."""
    lines = [line for line in text.splitlines() if line and line[0] not in '#:']
    tokens = ' '.join(lines).split()
    channels = {'root': len(skeleton.root_order)}
    channels |= {name: len(bone.channels) for name, bone in skeleton.bones.items()}
    # a frame is its number, then each bone's name and values; all frames have the same bones
    names, column = {}, 1
    while column < len(tokens) and tokens[column] in channels:
        names[tokens[column]] = column
        column += 1 + channels[tokens[column]]
    moving = {name for name, count in channels.items() if count}
    if not moving <= set(names) or len(tokens) % column:
        raise ValueError('a frame lacks bones of the skeleton')
    for name, at in names.items():
        if set(tokens[at::column]) != {name}:
            raise ValueError('its frames name different bones')
    count = len(tokens) // column
    if [int(word) for word in tokens[::column]] != list(range(1, count + 1)):
        raise ValueError('its frames are not numbered from 1')
    return {
        name: np.array(
            [tokens[at + 1 + k :: column][::stride] for k in range(channels[name])], float
        ).T
        for name, at in names.items()
        if channels[name]
    }


def pose_skeleton(
    skeleton: AcclaimSkeleton, motion: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Starts (F, 3), ends (F, 3) in metres and turns (F, 3, 3) of every bone by name."""
    root = motion['root']
    place = [skeleton.root_order.index(f't{letter}') for letter in 'xyz']
    spin = [skeleton.root_order.index(f'r{letter}') for letter in 'xyz']
    turns = {'root': _euler(root[:, spin], 'xyz', skeleton.root_axis, skeleton.degrees)}
    ends = {'root': root[:, place] * skeleton.unit_m}
    starts = dict(ends)
    waiting = list(skeleton.bones)
    while waiting:
        ready = [name for name in waiting if skeleton.parents[name] in turns]
        if not ready:
            raise ValueError(f'bone {waiting[0]} hangs on nothing')
        for name in ready:
            bone, parent = skeleton.bones[name], skeleton.parents[name]
            angles = np.zeros((len(root), 3))
            for k, channel in enumerate(bone.channels):
                angles[:, 'xyz'.index(channel[1])] = motion[name][:, k]
            local = _euler(angles, 'xyz', bone.order, skeleton.degrees)
            turns[name] = turns[parent] @ (bone.axis @ local @ bone.axis.T)
            starts[name] = ends[parent]
            ends[name] = starts[name] + turns[name] @ bone.offset_m
        waiting = [name for name in waiting if name not in turns]
    return starts, ends, turns


def acclaim_clip(
    name: str, skeleton: AcclaimSkeleton, text: str, stride: int = 2, rate_hz: float = RATE_HZ
) -> Clip:
    """A clip of every `stride`-th frame of an .amc file's text."""
    starts, ends, turns = pose_skeleton(skeleton, parse_motion(text, skeleton, stride))
    heads = {joint: (ends if end else starts)[b] for joint, (b, end) in JOINT_ENDS.items()}
    heads |= face_of(heads['neck'], turns['head'])
    toes = [turns[f'{s}foot'] @ level(skeleton.bones[f'{s}foot'].offset_m) for s in 'lr']
    joints = set_trunk_ahead(stack_joints(heads), turns['root'][..., 2])
    return Clip(name, joints, rate_hz / stride, np.stack(toes, 1))


def set_trunk_ahead(joints_m: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Joints (F, 17, 3) of CMU's skeleton, all above the hips moved along `front` (F, 3)."""
    above = np.array([not name.endswith(LEGS) for name in H36M_17.joint_names])
    return joints_m + above[:, None] * (TRUNK_AHEAD_M * front[:, None])
