"""Motion capture: which files hold it, and which split each clip belongs to.

Sources: CMU motion capture (mocap.cs.cmu.edu) as ASF/AMC and as 17 joints, DeepMimic's clips of
one humanoid (Peng et al., SIGGRAPH 2018), ReActIdle, and BVH files, MakeHuman's among them.
"""

import io
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis.acclaim import acclaim_clip, parse_skeleton, set_trunk_ahead
from rsb_pose_core.synthesis.bvh import REACTIDLE, bvh_clip
from rsb_pose_core.synthesis.skeletal import (
    NOSE_M,
    SIDES,
    Clip,
    face_of,
    stack_joints,
    unit,
)

__all__ = [
    'Clip', 'pose_library', 'read_acclaim', 'read_bvh', 'read_cmu_17_joints', 'read_deepmimic',
    'read_motion', 'read_reactidle', 'split_of',
]  # fmt: skip

# order of the 17 joints in common H36M files -> our names
H36M_FILE_ORDER = (
    'pelvis', 'right_hip', 'right_knee', 'right_ankle', 'left_hip', 'left_knee', 'left_ankle',
    'spine', 'neck', 'nose', 'head', 'left_shoulder', 'left_elbow', 'left_wrist',
    'right_shoulder', 'right_elbow', 'right_wrist',
)  # fmt: skip
# DeepMimic: x to the front, y up, z to the right -> x left, y up, z front
DEEPMIMIC_AXES = np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
FACE_DIP_RAD = 0.45  # ReActIdle's face bone points this far below where the face looks

BROKEN = (
    OSError, EOFError, ValueError, KeyError, IndexError, StopIteration, ZeroDivisionError,
    tarfile.TarError,
)  # fmt: skip
ACCLAIM = ('.asf', '.amc')
# of ten groups of clips, how many are held out; a group is what one actor did
TEST_TENTHS, VAL_TENTHS = 2, 1
GROUPED = ('amc/', 'bvh/', 'reactidle/')


def read_cmu_17_joints(path: Path) -> list[Clip]:
    """CMU motion in 17 joints, mm, 60 Hz (npz with joints_mm, sequence, names).

    The recording's nose lies between neck and crown and tells no heading: the clip's faces look
    where the chest does.
    """
    data = _arrays(path, ('joints_mm', 'sequence', 'names'))
    joints = data['joints_mm']
    if joints.ndim != 3 or joints.shape[1:] != (17, 3) or len(data['sequence']) != len(joints):
        raise RsbPoseError(
            f'cannot read motion from {path}: joints_mm of shape {joints.shape} and '
            f'{len(data["sequence"])} sequence numbers, expected (frames, 17, 3) and one number '
            'for each frame'
        )
    heads = dict(zip(H36M_FILE_ORDER, np.moveaxis(joints, 1, 0) / 1000.0, strict=True))
    up = unit(heads['head'] - heads['neck'])
    left = heads['left_shoulder'] - heads['right_shoulder']
    ahead = unit(np.cross(left, up))
    heads['nose'] = heads['neck'] + NOSE_M[1] * up + NOSE_M[2] * ahead
    front = np.cross(heads['left_hip'] - heads['right_hip'], heads['spine'] - heads['pelvis'])
    whole = set_trunk_ahead(stack_joints(heads), unit(front))
    return [
        Clip(str(name), whole[data['sequence'] == i], 60.0) for i, name in enumerate(data['names'])
    ]


def read_reactidle(path: Path) -> list[Clip]:
    """ReActIdle's 26 joints in metres, 3 Hz (npz with joints, seq, names, joint_names)."""
    data = _arrays(path, ('joints', 'seq', 'names', 'joint_names'))
    names = [str(name) for name in data['joint_names']]
    try:
        points = dict(zip(names, np.moveaxis(data['joints'], 1, 0), strict=True))
        heads = {
            f'{side}_{joint}': points[pattern.format(letter)]
            for side, letter in zip(SIDES, REACTIDLE.sides, strict=True)
            for joint, pattern in REACTIDLE.limbs.items()
        }
        heads |= {joint: points[name] for joint, name in REACTIDLE.trunk.items()}
        face = unit(points['face_end'] - points['face'])
        toes = [
            points[REACTIDLE.toe.format(s)] - points[REACTIDLE.limbs['ankle'].format(s)]
            for s in REACTIDLE.sides
        ]
    except (ValueError, KeyError) as error:
        raise RsbPoseError(
            f'cannot read motion from {path} ({error}); expected joints named as in ReActIdle'
        ) from error
    left = heads['left_shoulder'] - heads['right_shoulder']
    across = unit(np.cross(np.cross(face, left), face))
    dip = Rotation.from_rotvec(-FACE_DIP_RAD * across)
    ahead = dip.apply(face)
    heads |= face_of(heads['neck'], np.stack([across, np.cross(ahead, across), ahead], -1))
    whole = stack_joints(heads).astype(float)
    soles = unit(np.stack(toes, 1) * (1.0, 0.0, 1.0))  # idle feet are flat
    return [
        Clip(f'reactidle/{name}', whole[data['seq'] == i], 3.0, soles[data['seq'] == i])
        for i, name in enumerate(data['names'])
        if (data['seq'] == i).any()
    ]


def _arrays(path: Path, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """The named arrays of an .npz file."""
    try:
        with np.load(path) as data:
            return {key: data[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise _unreadable(path, error, f'an npz with {", ".join(keys)}') from error
    except Exception as error:  # a damaged zip raises what zipfile and zlib please
        raise _unreadable(path, error, f'an npz with {", ".join(keys)}') from error


def _unreadable(path: Path, error: Exception | str, expected: str) -> RsbPoseError:
    return RsbPoseError(f'cannot read motion from {path} ({error}); expected {expected}')


def read_deepmimic(path: Path) -> list[Clip]:
    """DeepMimic's clips (tar archive of humanoid3d_*.txt and character_humanoid3d.txt)."""
    try:
        files = {
            PurePosixPath(name).name: json.loads(text)
            for name, text in _members(path, ('.txt',)).items()
        }
        skeleton = files.pop('character_humanoid3d.txt')['Skeleton']['Joints']
        return [
            _deepmimic_clip(name.removesuffix('.txt'), clip['Frames'], skeleton)
            for name, clip in sorted(files.items())
        ]
    except (*BROKEN, TypeError) as error:
        expected = 'DeepMimic clips and character_humanoid3d.txt in a tar archive'
        raise _unreadable(path, error, expected) from error


def _deepmimic_clip(name: str, frames: list[list[float]], skeleton: list[dict[str, Any]]) -> Clip:
    """Forward kinematics of DeepMimic's humanoid."""
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
    made = {joint: place @ DEEPMIMIC_AXES.T for joint, place in heads.items()}
    made['spine'] = made['chest']
    skull = DEEPMIMIC_AXES @ turns['neck'].as_matrix() @ DEEPMIMIC_AXES.T
    made |= face_of(made['neck'], skull)
    toes = [turns[f'{side}_ankle'].as_matrix()[..., 0] @ DEEPMIMIC_AXES.T for side in SIDES]
    return Clip(name, stack_joints(made), 1.0 / float(values[0, 0]), np.stack(toes, 1))


def read_acclaim(path: Path) -> list[Clip]:
    """Acclaim motion at 120 Hz: a tar archive or a folder of .asf files and their .amc files.

    The skeleton of motion 01_03.amc is 01.asf. Every second frame is kept.
    """
    texts = _members(path, ACCLAIM)
    stems = {
        PurePosixPath(name).stem: text for name, text in texts.items() if name.endswith('asf')
    }
    clips = []
    for name, text in sorted(texts.items()):
        if not name.endswith('.amc'):
            continue
        stem = PurePosixPath(name).stem
        subject = stem.split('_')[0]
        try:
            if subject not in stems:
                raise ValueError(f'there is no {subject}.asf beside it')
            clips.append(acclaim_clip(f'amc/{stem}', parse_skeleton(stems[subject]), text))
        except BROKEN as error:
            raise _unreadable(path / name, error, 'whole Acclaim .asf and .amc files') from error
    return clips


def read_bvh(path: Path) -> Clip:
    """One BVH file of MakeHuman's rig, of ReActIdle's, or with the names Hips, LeftUpLeg..."""
    try:
        return bvh_clip(f'bvh/{path.stem}', path.read_text(encoding='utf-8', errors='replace'))
    except BROKEN as error:
        raise _unreadable(path, error, 'a whole BVH file of a known rig') from error


def _members(path: Path, suffixes: tuple[str, ...]) -> Mapping[str, str]:
    """Texts by name of the files with some suffixes in a tar archive or a folder."""
    try:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in suffixes)
            return {file.name: file.read_text() for file in files}
        with tarfile.open(path) as archive:
            return {
                member.name: io.TextIOWrapper(content).read()
                for member in archive.getmembers()
                if member.name.endswith(suffixes)
                and (content := archive.extractfile(member)) is not None
            }
    except Exception as error:  # xz and gzip have errors of their own
        raise _unreadable(path, error, 'a whole tar archive or a folder of texts') from error


READERS: dict[str, Callable[[Path], list[Clip]]] = {
    'cmu_17joints_60hz.npz': read_cmu_17_joints,
    'cmu_amc.tar.xz': read_acclaim,
    'deepmimic.tar.xz': read_deepmimic,
    'reactidle_26j_m_3fps.npz': read_reactidle,
}


def read_motion(*folders: Path) -> list[Clip]:
    """All clips of folders: the known files, and .bvh and .asf/.amc files wherever they lie.

    Raises RsbPoseError when there is none, or when a file is cut short or foreign.
    """
    clips: list[Clip] = []
    for folder in folders:
        for name, reader in READERS.items():
            if (folder / name).exists():
                clips += reader(folder / name)
        for place in sorted({file.parent for file in folder.rglob('*.amc')}):
            clips += read_acclaim(place)
        clips += [read_bvh(file) for file in sorted(folder.rglob('*.bvh'))]
    if not clips:
        where = ' or '.join(str(folder) for folder in folders)
        raise RsbPoseError(
            f'no motion in {where}; expected one of {", ".join(READERS)}, or .bvh or .amc files'
        )
    return clips


def split_of(clip: Clip) -> str:
    """'train', 'val' or 'test': a clip belongs to one split only, by its name.

    Clips of one actor (ReActIdle) stay together; of the groups, a fixed share is held out.
    """
    name = clip.name.removesuffix('.txt')
    if name.startswith(GROUPED):
        group = PurePosixPath(name).name.split('_')[0] if 'reactidle/' in name else name
        tenth = zlib.crc32(group.encode()) % 10
        if tenth < TEST_TENTHS:
            return 'test'
        return 'val' if tenth < TEST_TENTHS + VAL_TENTHS else 'train'
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
