"""Readers of motion files, against positions worked out by hand, and splits of clips."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.acclaim import parse_skeleton
from rsb_pose_core.synthesis.clips import (
    Clip,
    pose_library,
    read_acclaim,
    read_bvh,
    read_cmu_17_joints,
    read_deepmimic,
    read_motion,
    read_reactidle,
    split_of,
)

DATA = Path(__file__).parents[3] / 'shared' / 'data'
MOTION, POSES = DATA / 'motion', DATA / 'wardrobe' / 'base' / 'poses'
real_data = pytest.mark.skipif(not MOTION.exists(), reason='no motion data')

# length 2.54 makes a unit one centimetre
ASF_HEAD = """# a comment
:version 1.10
:units
  mass 1.0
  length 2.54
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
"""
BONES = {  # name: direction, length, axis, channels
    'lhipjoint': ((1, 0, 0), 10, (0, 0, 0), ''),
    'rhipjoint': ((-1, 0, 0), 10, (0, 0, 0), ''),
    'lowerback': ((0, 1, 0), 20, (0, 0, 0), 'rx'),
    'thorax': ((0, 1, 0), 25, (0, 0, 0), ''),
    'head': ((0, 1, 0), 10, (0, 0, 0), 'ry'),
} | {
    f'{s}{bone}': values
    for s, out in (('l', 1), ('r', -1))
    for bone, values in {
        'femur': ((0, -1, 0), 40, (0, 0, 0), 'rx ry rz'),
        'tibia': ((0, -1, 0), 40, (0, 90, 0), 'rx'),
        'foot': ((0, -0.3, 1), 15, (0, 0, 0), ''),
        'clavicle': ((out, 0, 0), 18, (0, 0, 0), ''),
        'humerus': ((out, 0, 0), 30, (0, 0, 0), 'rz'),
        'radius': ((out, 0, 0), 25, (0, 0, 0), ''),
    }.items()
}
TREE = """:hierarchy
  begin
    root lhipjoint rhipjoint lowerback
    lhipjoint lfemur
    lfemur ltibia
    ltibia lfoot
    rhipjoint rfemur
    rfemur rtibia
    rtibia rfoot
    lowerback thorax
    thorax head lclavicle rclavicle
    lclavicle lhumerus
    lhumerus lradius
    rclavicle rhumerus
    rhumerus rradius
  end
"""


def asf() -> str:
    blocks = []
    for number, (name, (direction, length, axis, channels)) in enumerate(BONES.items()):
        limits = ''.join('  (-90.0 170.0)\n' for _ in channels.split())
        blocks.append(
            f'  begin\n  id {number}\n  name {name}\n'
            f'  direction {" ".join(map(str, direction))}\n  length {length}\n'
            f'  axis {" ".join(map(str, axis))} XYZ\n'
            + (f'  dof {channels}\n  limits {limits.strip()}\n' if channels else '')
            + '  end\n'
        )
    return ASF_HEAD + ''.join(blocks) + TREE


def amc(frames: list[dict[str, tuple[float, ...]]]) -> str:
    lines = ['#!OML:ASF', ':FULLY-SPECIFIED', ':DEGREES']
    for number, frame in enumerate(frames, 1):
        lines.append(str(number))
        for name, (*_, channels) in {'root': (0, 0, 0, '6'), **BONES}.items():
            if channels:
                values = frame.get(name, (0.0,) * (6 if name == 'root' else len(channels.split())))
                lines.append(' '.join([name, *(f'{value:.6g}' for value in values)]))
    return '\n'.join(lines) + '\n'


def tar(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, 'w:xz') as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def at(clip: Clip, name: str, frame: int = 0) -> np.ndarray:
    return clip.joints_m[frame, H36M_17.index(name)]


def test_acclaim_turns_about_the_bones_own_axis_in_the_stated_order(tmp_path):
    still: dict[str, tuple[float, ...]] = {'root': (100, 90, -50, 0, 0, 0)}
    # femur: x before y takes down to back to the right; tibia: its x is the room's -z
    bent = {**still, 'lfemur': (90, 90, 0), 'rtibia': (90,), 'lhumerus': (90,), 'head': (90,)}
    turned = {'root': (0, 0, 0, 0, 90, 0)}
    frames = [still, still, bent, bent, turned]
    path = tar(tmp_path / 'cmu_amc.tar.xz', {'x/07.asf': asf(), 'x/07_01.amc': amc(frames)})
    (clip,) = read_acclaim(path)
    assert clip.name == 'amc/07_01'
    assert clip.rate_hz == 60.0
    assert len(clip.joints_m) == 3  # every second frame
    hip = np.array([1.1, 0.9, -0.5])
    np.testing.assert_allclose(at(clip, 'left_hip'), hip, atol=1e-9)
    np.testing.assert_allclose(at(clip, 'pelvis'), [1.0, 0.9, -0.5], atol=1e-9)
    np.testing.assert_allclose(at(clip, 'left_ankle'), hip + [0, -0.8, 0], atol=1e-9)
    np.testing.assert_allclose(clip.toes[0], [[0, 0, 1], [0, 0, 1]], atol=1e-9)
    np.testing.assert_allclose(at(clip, 'left_knee', 1), hip + [-0.4, 0, 0], atol=1e-9)
    right = np.array([0.9, 0.5, -0.5])
    np.testing.assert_allclose(at(clip, 'right_knee', 1), right, atol=1e-9)
    np.testing.assert_allclose(at(clip, 'right_ankle', 1), right + [-0.4, 0, 0], atol=1e-9)
    arm = at(clip, 'left_wrist', 1) - at(clip, 'left_shoulder', 1)
    np.testing.assert_allclose(arm, [0, 0.55, 0], atol=1e-9)
    face = at(clip, 'nose', 1) - at(clip, 'neck', 1)  # the head looks left
    assert face[0] > 0.1
    assert abs(face[2]) < 1e-9
    # a quarter turn about y takes left (x) to the back (-z)
    hips = at(clip, 'left_hip', 2) - at(clip, 'right_hip', 2)
    np.testing.assert_allclose(hips, [0, 0, -0.2], atol=1e-9)


def test_acclaim_states_limits_and_channels():
    skeleton = parse_skeleton(asf())
    assert skeleton.unit_m == pytest.approx(0.01)
    assert skeleton.bones['lfemur'].channels == ('rx', 'ry', 'rz')
    assert skeleton.bones['lfemur'].limits_deg == ((-90.0, 170.0),) * 3
    assert skeleton.bones['lhipjoint'].channels == ()


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('rtibia', 'tail'),
        lambda text: text.replace('\n3\n', '\n4\n'),
        lambda text: '',
    ],
)
def test_acclaim_motion_cut_short_or_foreign_names_the_file(tmp_path, damage):
    text = damage(amc([{}, {}, {}, {}]))
    path = tar(tmp_path / 'cmu_amc.tar.xz', {'x/07.asf': asf(), 'x/07_01.amc': text})
    with pytest.raises(RsbPoseError, match=r'07_01\.amc.*expected whole Acclaim'):
        read_acclaim(path)


def test_acclaim_motion_without_its_skeleton_is_refused(tmp_path):
    (tmp_path / '09_01.amc').write_text(amc([{}]))
    with pytest.raises(RsbPoseError, match=r'no 09\.asf beside it'):
        read_motion(tmp_path)


BVH = {  # name: parent, offset in cm
    'Hips': ('', (0, 0, 0)), 'Spine1': ('Hips', (0, 20, 0)), 'Neck': ('Spine1', (0, 25, 0)),
    'Head': ('Neck', (0, 10, 0)),
    **{
        f'{side}{bone}': (parent.format(side), offset)
        for side, out in (('Left', 1), ('Right', -1))
        for bone, parent, offset in (
            ('Arm', 'Neck', (18 * out, 0, 0)), ('ForeArm', '{}Arm', (30 * out, 0, 0)),
            ('Hand', '{}ForeArm', (25 * out, 0, 0)), ('UpLeg', 'Hips', (10 * out, 0, 0)),
            ('Leg', '{}UpLeg', (0, -40, 0)), ('Foot', '{}Leg', (0, -40, 0)),
            ('ToeBase', '{}Foot', (0, -5, 15)),
        )
    },
}  # fmt: skip
MAKEHUMAN = {
    'Hips': 'root', 'Spine1': 'spine03', 'Neck': 'neck01', 'Head': 'head',
    **{
        f'{side}{bone}': f'{name}.{letter}'
        for side, letter in (('Left', 'L'), ('Right', 'R'))
        for bone, name in (
            ('Arm', 'upperarm01'), ('ForeArm', 'lowerarm01'), ('Hand', 'wrist'),
            ('UpLeg', 'upperleg01'), ('Leg', 'lowerleg01'), ('Foot', 'foot'),
            ('ToeBase', 'toe1-1'),
        )
    },
}  # fmt: skip


def bvh(frames: list[dict[str, tuple[float, float, float]]], *, makehuman: bool = False) -> str:
    """A BVH file with channels Z, Y, X; in MakeHuman's axes (z up, -y ahead) and decimetres."""
    order: list[str] = []

    def block(name: str) -> str:
        order.append(name)
        x, y, z = (0.1 * v for v in BVH[name][1]) if makehuman else BVH[name][1]
        offset = (x, -z, y) if makehuman else (x, y, z)
        label = MAKEHUMAN[name] if makehuman else name
        below = ''.join(block(child) for child, (parent, _) in BVH.items() if parent == name)
        return (
            f'{"JOINT" if BVH[name][0] else "ROOT"} {label}\n{{\nOFFSET {offset[0]} {offset[1]} '
            f'{offset[2]}\nCHANNELS '
            + ('' if BVH[name][0] else '6 Xposition Yposition Zposition ')
            + ('3 ' if BVH[name][0] else '')
            + 'Zrotation Yrotation Xrotation\n'
            + (below or 'End Site\n{\nOFFSET 0 1 0\n}\n')
            + '}\n'
        )

    text = 'HIERARCHY\n' + block('Hips') + f'MOTION\nFrames: {len(frames)}\nFrame Time: 0.04\n'
    for frame in frames:
        values = [*frame.get('place', (0.0, 0.0, 0.0))]
        for name in order:
            values += frame.get(name, (0.0, 0.0, 0.0))
        text += ' '.join(map(str, values)) + '\n'
    return text


def test_bvh_turns_about_moving_axes_in_the_order_of_its_channels(tmp_path):
    path = tmp_path / 'wave.bvh'
    frames = [{}, {'LeftArm': (90.0, 90.0, 0.0), 'place': (0.0, 90.0, 0.0)}]
    path.write_text(bvh(frames))
    clip = read_bvh(path)
    assert clip.name == 'bvh/wave'
    assert clip.rate_hz == pytest.approx(25.0)
    np.testing.assert_allclose(at(clip, 'left_wrist'), [0.73, 0.45, 0.0], atol=1e-9)
    # z then the new y: the arm along x goes to z of the turned frame, which is still the room's -z
    shoulder = at(clip, 'left_shoulder', 1)
    np.testing.assert_allclose(shoulder, [0.18, 1.35, 0.0], atol=1e-9)
    np.testing.assert_allclose(at(clip, 'left_wrist', 1) - shoulder, [0, 0, -0.55], atol=1e-9)
    np.testing.assert_allclose(at(clip, 'pelvis', 1), [0, 0.9, 0], atol=1e-9)
    assert clip.turns == {}


def test_bvh_of_makehumans_rig_is_brought_to_y_up_metres_with_its_turns(tmp_path):
    path = tmp_path / 'kick.bvh'
    # about MakeHuman's x, 90 degrees: a leg that hangs (-z) swings ahead (-y), seen from x
    path.write_text(bvh([{'LeftUpLeg': (0.0, 0.0, -90.0)}], makehuman=True))
    clip = read_bvh(path)
    np.testing.assert_allclose(at(clip, 'neck'), [0, 0.45, 0], atol=1e-9)
    np.testing.assert_allclose(at(clip, 'left_knee'), [0.1, 0, 0.4], atol=1e-9)
    np.testing.assert_allclose(clip.toes[0], [[0, 1, 0], [0, 0, 1]], atol=1e-9)
    turn = clip.turns['upperleg01.L'][0]
    np.testing.assert_allclose(turn @ [0, -1, 0], [0, 0, 1], atol=1e-9)


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: text[:-30],
        lambda text: text[: text.index('MOTION')],
        lambda text: text[: text.index('MOTION') - 4] + text[text.index('MOTION') :],
        lambda text: text.replace('LeftUpLeg', 'pedipalp'),
        lambda text: text.replace('Frame Time: 0.04', 'Frame Time: 0'),
        lambda text: 'solid cube',
    ],
)
def test_bvh_cut_short_or_foreign_names_the_file(tmp_path, damage):
    path = tmp_path / 'walk.bvh'
    path.write_text(damage(bvh([{}, {}])))
    with pytest.raises(RsbPoseError, match=r'walk\.bvh.*expected a whole BVH file'):
        read_motion(tmp_path)


DEEPMIMIC = [  # name, kind, parent, offset: x ahead, y up, z to the right
    ('root', 'none', -1, (0, 0, 0)), ('chest', 'spherical', 0, (0, 0.24, 0)),
    ('neck', 'spherical', 1, (0, 0.22, 0)),
    *(
        (f'{side}_{name}', kind, parent if parent < 2 else parent + 3 * (side == 'left'), offset)
        for side, z in (('right', 1), ('left', -1))
        for name, kind, parent, offset in (
            ('hip', 'spherical', 0, (0, 0, 0.08 * z)), ('knee', 'revolute', 3, (0, -0.42, 0)),
            ('ankle', 'spherical', 4, (0, -0.41, 0)),
        )
    ),
    *(
        (f'{side}_{name}', kind, parent if parent < 2 else parent + 3 * (side == 'left'), offset)
        for side, z in (('right', 1), ('left', -1))
        for name, kind, parent, offset in (
            ('shoulder', 'spherical', 1, (0, 0.24, 0.18 * z)),
            ('elbow', 'revolute', 9, (0, -0.27, 0)), ('wrist', 'fixed', 10, (0, -0.26, 0)),
        )
    ),
]  # fmt: skip


def deepmimic(**turns: tuple[float, ...]) -> dict[str, str]:
    joints = [
        {'Name': name, 'Type': kind, 'Parent': parent,
         'AttachX': offset[0], 'AttachY': offset[1], 'AttachZ': offset[2]}
        for name, kind, parent, offset in DEEPMIMIC
    ]  # fmt: skip
    values = [0.025, 1.0, 0.9, 2.0, 1.0, 0.0, 0.0, 0.0]
    for name, kind, *_ in DEEPMIMIC[1:]:
        if kind != 'fixed':
            rest = (1.0, 0.0, 0.0, 0.0) if kind == 'spherical' else (0.0,)
            values += turns.get(name, rest)
    return {
        'd/character_humanoid3d.txt': json.dumps({'Skeleton': {'Joints': joints}}),
        'd/humanoid3d_step.txt': json.dumps({'Loop': 'wrap', 'Frames': [values, values]}),
    }


def test_deepmimic_faces_ahead_with_its_knees_and_elbows_bent_by_hand(tmp_path):
    half = np.sqrt(0.5)
    files = deepmimic(
        left_knee=(-np.pi / 2,), right_elbow=(np.pi / 2,), left_shoulder=(half, half, 0.0, 0.0)
    )
    (clip,) = read_deepmimic(tar(tmp_path / 'deepmimic.tar.xz', files))
    assert clip.name == 'humanoid3d_step'
    assert clip.rate_hz == pytest.approx(40.0)
    np.testing.assert_allclose(at(clip, 'pelvis'), [-2.0, 0.9, 1.0], atol=1e-9)
    # a negative turn about the right-hand axis takes the shin back
    knee = at(clip, 'left_knee')
    np.testing.assert_allclose(knee, [-1.92, 0.48, 1.0], atol=1e-9)
    np.testing.assert_allclose(at(clip, 'left_ankle') - knee, [0, 0, -0.41], atol=1e-9)
    elbow = at(clip, 'right_elbow')
    np.testing.assert_allclose(at(clip, 'right_wrist') - elbow, [0, 0, 0.26], atol=1e-9)
    # a quarter turn about the axis ahead takes the hanging left arm out to the left
    arm = at(clip, 'left_wrist') - at(clip, 'left_shoulder')
    np.testing.assert_allclose(arm, [0.53, 0, 0], atol=1e-9)
    np.testing.assert_allclose(clip.toes[0, 1], [0, 0, 1], atol=1e-9)


def test_cut_or_foreign_archives_and_arrays_are_one_sentence(tmp_path):
    path = tar(tmp_path / 'deepmimic.tar.xz', deepmimic())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RsbPoseError, match=r'deepmimic\.tar\.xz.*expected a whole tar archive'):
        read_deepmimic(path)
    files = deepmimic()
    files['d/humanoid3d_step.txt'] = '{"Frames": ['
    with pytest.raises(RsbPoseError, match='expected DeepMimic clips'):
        read_deepmimic(tar(path, files))
    cmu = tmp_path / 'cmu_17joints_60hz.npz'
    cmu.write_bytes(b'no archive')
    with pytest.raises(RsbPoseError, match='expected an npz with joints_mm'):
        read_cmu_17_joints(cmu)
    np.savez(cmu, joints_mm=np.zeros((4, 16, 3)), sequence=np.zeros(4), names=['a'])
    with pytest.raises(RsbPoseError, match=r'shape \(4, 16, 3\).*expected \(frames, 17, 3\)'):
        read_cmu_17_joints(cmu)
    cmu.write_bytes(cmu.read_bytes()[:-100])
    with pytest.raises(RsbPoseError, match='expected an npz'):
        read_cmu_17_joints(cmu)
    idle = tmp_path / 'reactidle_26j_m_3fps.npz'
    np.savez(
        idle, joints=np.zeros((4, 2, 3)), seq=np.zeros(4), names=['a'], joint_names=['b', 'c']
    )
    with pytest.raises(RsbPoseError, match='expected joints named as in ReActIdle'):
        read_reactidle(idle)
    with pytest.raises(RsbPoseError, match='no motion in'):
        read_motion(tmp_path / 'nowhere')
    with pytest.raises(RsbPoseError, match='joints that are no numbers'):
        Clip('a', np.full((2, 17, 3), np.nan), 30.0)


def test_cmu_joints_are_reordered_in_metres_with_the_face_ahead_of_the_chest(tmp_path):
    file = tmp_path / 'cmu_17joints_60hz.npz'
    joints = np.zeros((2, 17, 3), np.float32)
    upright = {0: (0, 900, 0), 1: (-100, 900, 0), 4: (100, 900, 0), 7: (0, 1100, 0),
               8: (0, 1300, 0), 9: (0, 1400, 0), 10: (0, 1500, 0), 11: (180, 1300, 0),
               13: (180, 750, 50), 14: (-180, 1300, 0)}  # fmt: skip
    for row, place in upright.items():
        joints[:, row] = place
    np.savez(file, joints_mm=joints, sequence=[0, 0], names=['walking_1.txt'])
    (clip,) = read_cmu_17_joints(file)
    assert clip.rate_hz == 60.0
    np.testing.assert_allclose(at(clip, 'pelvis'), [0, 0.9, 0], atol=1e-6)
    np.testing.assert_allclose(at(clip, 'left_hip'), [0.1, 0.9, 0], atol=1e-6)
    arm = at(clip, 'left_wrist') - at(clip, 'left_shoulder')
    np.testing.assert_allclose(arm, [0, -0.55, 0.05], atol=1e-6)
    assert at(clip, 'nose')[2] > at(clip, 'neck')[2] + 0.1


def test_a_clip_belongs_to_one_split_by_its_name():
    shape = np.zeros((1, 17, 3))

    def split(name: str) -> str:
        return split_of(Clip(name, shape, 30.0))

    assert [split(f'walking_{i}.txt') for i in (1, 4, 5)] == ['train', 'val', 'test']
    assert split('humanoid3d_dance_b') == 'test'
    assert split('humanoid3d_long_walk3') == 'val'
    assert split('train/directing_traffic/directing_traffic_4.txt') == 'test'
    # what one actor did stays together
    for actor in range(30):
        kinds = {split(f'reactidle/{kind}/{actor:03}_{kind}.bvh') for kind in ('acted', 'genuine')}
        assert len(kinds) == 1
    shares = Counter(split(f'bvh/pose{i}') for i in range(2000))
    assert 0.15 < shares['test'] / 2000 < 0.25
    assert 0.07 < shares['val'] / 2000 < 0.13


def test_the_library_weighs_clips_alike():
    clips = [
        Clip(f'walking_{i}.txt', np.full((10 * i, 17, 3), i, np.float64), 60.0) for i in (1, 4, 5)
    ]
    library = pose_library(clips, frames_per_clip=7)
    assert library.shape == (21, 17, 3)
    assert [(library[:, 0, 0] == i).sum() for i in (1, 4, 5)] == [7, 7, 7]


@real_data
def test_acclaim_and_17_joints_of_one_recording_agree(tmp_path):
    # CMU's subject 02, motion 01 is in both files, read by different ways
    with tarfile.open(MOTION / 'cmu_amc.tar.xz') as archive:
        for name in ('cmu_amc/02.asf', 'cmu_amc/02_01.amc'):
            content = archive.extractfile(name)
            (tmp_path / Path(name).name).write_bytes(content.read())
    (clip,) = read_motion(tmp_path)
    other = next(
        clip for clip in read_cmu_17_joints(MOTION / 'cmu_17joints_60hz.npz')
        if clip.name.endswith('walking_1.txt')
    )  # fmt: skip
    count = min(len(clip.joints_m), len(other.joints_m))
    for limb in ('hip', 'knee', 'ankle'):
        for side in ('left', 'right'):
            k = H36M_17.index(f'{side}_{limb}')
            apart = np.linalg.norm(clip.joints_m[:count, k] - other.joints_m[:count, k], axis=1)
            assert apart.max() < 0.015  # their skeletons differ by one per cent


@real_data
def test_every_kind_of_recording_is_read_upright():
    clips = [*read_reactidle(MOTION / 'reactidle_26j_m_3fps.npz')]
    if POSES.exists():
        clips += [read_bvh(POSES / f'standing0{i}.bvh') for i in (1, 2, 3, 4, 5)]
    for clip in clips:
        middle = np.median(clip.joints_m, axis=0)
        rise = middle[H36M_17.index('head')] - middle[H36M_17.index('left_ankle')]
        assert 1.2 < rise[1] < 2.0
        face = middle[H36M_17.index('nose')] - middle[H36M_17.index('neck')]
        across = middle[H36M_17.index('left_hip')] - middle[H36M_17.index('right_hip')]
        # the face is ahead of the hips: left x up = ahead
        assert np.cross(across, [0, 1, 0]) @ face > 0
