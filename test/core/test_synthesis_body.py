"""The body: its skeleton, its skin, and how it takes the poses of others."""

import io
import tarfile

import numpy as np
import pytest
import torch

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.body import JOINT_BONES, Body, transform
from rsb_pose_core.synthesis.motion import (
    Clip,
    pose_library,
    read_cmu_17_joints,
    read_deepmimic,
    read_motion,
    retarget,
    split_of,
)


@pytest.fixture(scope='module')
def body() -> Body:
    return Body()


def neutral(body: Body, count: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vertices, heads = body.rest(torch.zeros(count, body.shapes.shape[1]))
    still = torch.eye(3).repeat(count, len(body.bones), 1, 1)
    return vertices, heads, still


def bone_lengths(joints: torch.Tensor) -> torch.Tensor:
    return torch.stack([(joints[:, a] - joints[:, b]).norm(dim=-1) for a, b in H36M_17.bones], 1)


def test_rest_pose_is_a_symmetric_person_of_plausible_size(body):
    vertices, heads, still = neutral(body)
    posed = body.pose(vertices, heads, still, torch.eye(3)[None])
    joints = posed.joints_m[0]
    mirrored = joints[list(H36M_17.mirror)] * torch.tensor([-1.0, 1.0, 1.0])
    assert (joints - mirrored).abs().max() < 0.01
    height = vertices[0, :, 1].max() - vertices[0, :, 1].min()
    assert 1.5 < height < 1.9
    assert joints[H36M_17.index('left_wrist'), 0] > 0.3  # x is the person's left
    assert joints[H36M_17.index('nose'), 2] > joints[H36M_17.index('head'), 2]  # faces +z


def test_unposed_skin_is_the_rest_shape(body):
    vertices, heads, still = neutral(body)
    posed = body.pose(vertices, heads, still, torch.eye(3)[None])
    skinned = transform(posed.blend, vertices)
    moved = skinned - vertices - (posed.bone_head_m[:, :1] - heads[:, :1])
    assert moved.abs().max() < 1e-5


def test_posing_keeps_bone_lengths(body):
    vertices, heads, still = neutral(body, 3)
    turn = still.clone()
    for bone in ('upperarm01.L', 'lowerarm01.R', 'upperleg01.L', 'lowerleg01.R', 'spine03'):
        axis = torch.nn.functional.normalize(torch.randn(3, 3), dim=-1)
        turn[:, body.bone_index[bone]] = rotations.about_axis(axis, torch.randn(3))
    root = torch.eye(3).repeat(3, 1, 1)
    rest, posed = (body.pose(vertices, heads, r, root).joints_m for r in (still, turn))
    ends = ('knee', 'ankle', 'elbow', 'wrist')
    names = H36M_17.joint_names
    limbs = [i for i, (_, child) in enumerate(H36M_17.bones) if names[child].endswith(ends)]
    assert torch.allclose(bone_lengths(rest)[:, limbs], bone_lengths(posed)[:, limbs], atol=1e-5)
    assert (rest - posed).norm(dim=-1).max() > 0.05


def test_retargeted_limbs_point_where_the_pose_says(body):
    vertices, heads, still = neutral(body, 4)
    rest = body.pose(vertices, heads, still, torch.eye(3).repeat(4, 1, 1)).joints_m
    torch.manual_seed(0)
    pose = rest + 0.08 * torch.randn(4, 17, 3)
    pose = pose @ rotations.about_y(torch.tensor([0.0, 1.0, 2.0, 3.0])).mT
    rotation, root = retarget(body, heads, pose)
    posed = body.pose(vertices, heads, rotation, root).joints_m
    for parent, child in H36M_17.bones:
        if H36M_17.joint_names[child].endswith(('knee', 'ankle', 'elbow', 'wrist')):
            wanted = torch.nn.functional.normalize(pose[:, child] - pose[:, parent], dim=-1)
            found = torch.nn.functional.normalize(posed[:, child] - posed[:, parent], dim=-1)
            assert (wanted * found).sum(-1).min() > 1 - 1e-4


def test_every_joint_has_a_source():
    made = {'pelvis', 'nose', 'head'}
    assert set(H36M_17.joint_names) == set(JOINT_BONES) | made


@pytest.mark.parametrize('angle', [0.0, 0.5, 3.0, np.pi])
def test_rotation_between_directions_takes_one_to_the_other(angle):
    a = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[np.sin(angle), np.cos(angle), 0.0]], dtype=torch.float64)
    matrix = rotations.between(a, b)
    assert torch.allclose((matrix @ a[..., None])[..., 0], b, atol=1e-9)
    assert torch.allclose(matrix @ matrix.mT, torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_rotation_log_undoes_about_axis():
    axis = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=-1)
    angle = torch.tensor([0.01, 0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    found_axis, found_angle = rotations.log(rotations.about_axis(axis, angle))
    assert torch.allclose(found_axis, axis, atol=1e-7)
    assert torch.allclose(found_angle, angle, atol=1e-7)


def test_cmu_joints_are_reordered_and_in_metres(tmp_path):
    joints = np.arange(2 * 17 * 3, dtype=np.float32).reshape(2, 17, 3)
    file = tmp_path / 'cmu_17joints_60hz.npz'
    np.savez(file, joints_mm=joints, sequence=np.array([0, 0]), names=np.array(['walking_1.txt']))
    (clip,) = read_cmu_17_joints(file)
    assert clip.rate_hz == 60.0
    np.testing.assert_allclose(clip.joints_m[:, H36M_17.index('pelvis')], joints[:, 0] / 1000)
    np.testing.assert_allclose(clip.joints_m[:, H36M_17.index('left_wrist')], joints[:, 13] / 1000)


def test_broken_motion_is_one_sentence(tmp_path):
    cut = tmp_path / 'deepmimic.tar.xz'
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w:xz') as archive:
        content = io.BytesIO(b'{"Frames": [')
        info = tarfile.TarInfo('humanoid3d_walk.txt')
        info.size = len(content.getvalue())
        archive.addfile(info, content)
    cut.write_bytes(data.getvalue()[:-20])
    with pytest.raises(RsbPoseError, match='cannot read motion from .*expected DeepMimic'):
        read_deepmimic(cut)
    (tmp_path / 'cmu_17joints_60hz.npz').write_bytes(b'no archive')
    with pytest.raises(RsbPoseError, match='expected an npz with joints_mm'):
        read_cmu_17_joints(tmp_path / 'cmu_17joints_60hz.npz')
    with pytest.raises(RsbPoseError, match='no motion in'):
        read_motion(tmp_path / 'nowhere')


def test_splits_share_no_clip_and_weigh_clips_alike():
    clips = [
        Clip(f'walking_{i}.txt', np.full((10 * i, 17, 3), i, np.float64), 60.0) for i in (1, 4, 5)
    ]
    assert [split_of(clip) for clip in clips] == ['train', 'val', 'test']
    library = pose_library(clips, frames_per_clip=7)
    assert library.shape == (21, 17, 3)
    assert [(library[:, 0, 0] == i).sum() for i in (1, 4, 5)] == [7, 7, 7]
