"""The body: its skeleton, its skin, its regressors, and how its assets are made."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rsb_pose_core.cli import main
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import COCO_17, H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.body import JOINT_BONES, TWISTS, Body, PosedBones, twist
from rsb_pose_core.synthesis.mhclo import read_garment
from rsb_pose_core.synthesis.simplify import simplify


@pytest.fixture(scope='module')
def body() -> Body:
    return Body()


def neutral(body: Body, count: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vertices, heads = body.rest(torch.zeros(count, body.shapes.shape[1]))
    return vertices, heads, torch.eye(3).repeat(count, len(body.bones), 1, 1)


def at_rest(body: Body, heads: torch.Tensor, rotation: torch.Tensor) -> PosedBones:
    return body.pose(heads, rotation, torch.eye(3).repeat(len(heads), 1, 1))


def random_turns(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    axis = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return rotations.about_axis(axis, torch.rand(count, generator=generator) * 2 - 1)


def test_rest_pose_is_a_symmetric_person_of_plausible_size(body):
    vertices, heads, still = neutral(body)
    posed = at_rest(body, heads, still)
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    for skeleton, regress in ((H36M_17, body.joints), (COCO_17, body.coco)):
        joints = regress(posed, vertices)[0]
        assert (joints - joints[list(skeleton.mirror)] * mirror).abs().max() < 0.01
        assert joints[skeleton.index('left_wrist'), 0] > 0.3  # x is the person's left
    joints = body.joints(posed, vertices)[0]
    assert joints[H36M_17.index('nose'), 2] > joints[H36M_17.index('head'), 2]  # faces +z
    height = vertices[0, body.number, 1].max() - vertices[0, body.number, 1].min()
    assert 1.5 < height < 1.8


def test_sample_people_span_children_to_old_and_thin_to_heavy(body):
    assert body.age.min() < 6
    assert body.age.max() > 78
    child = body.shapes[(body.age < 7)][:20]
    adult = body.shapes[(body.age > 25) & (body.age < 60)][:200]

    def sizes(shape):
        vertices = body.rest(shape)[0][:, body.number]
        waist = (body.vertices[body.number, 1] - 0.12).abs() < 0.02
        trunk = waist & (body.vertices[body.number, 0].abs() < 0.2)
        depth = vertices[:, trunk, 2].amax(1) - vertices[:, trunk, 2].amin(1)
        return vertices[..., 1].amax(1) - vertices[..., 1].amin(1), depth

    height, _ = sizes(child)
    assert 1.0 < height.mean() < 1.3
    height, depth = sizes(adult)
    assert 1.55 < height.mean() < 1.8
    assert depth.amax() > 1.6 * depth.amin()


def test_surface_faces_outward(body):
    a, b, c = (body.vertices[body.number][body.faces[:, k]] for k in range(3))
    volume = (a * torch.linalg.cross(b, c)).sum() / 6
    assert 0.04 < volume < 0.12  # cubic metres: a person weighs 40 to 120 kg


def test_unposed_skin_is_the_rest_shape(body):
    vertices, heads, still = neutral(body)
    posed = at_rest(body, heads, still)
    moved = posed.skin(body.skin, vertices) - vertices + heads[:, :1]
    assert moved.abs().max() < 1e-5


def test_posing_keeps_bone_lengths(body):
    vertices, heads, still = neutral(body, 3)
    turn = still.clone()
    for seed, bone in enumerate(('upperarm01.L', 'lowerarm01.R', 'upperleg01.L', 'spine03')):
        turn[:, body.bone_index[bone]] = random_turns(3, seed)
    ends = ('knee', 'ankle', 'elbow', 'wrist')
    limbs = [(a, b) for a, b in H36M_17.bones if H36M_17.joint_names[b].endswith(ends)]
    start, end = ([pair[k] for pair in limbs] for k in range(2))
    rest, posed = (
        body.joints(at_rest(body, heads, rotation), vertices) for rotation in (still, turn)
    )
    lengths = [(joints[:, start] - joints[:, end]).norm(dim=-1) for joints in (rest, posed)]
    torch.testing.assert_close(lengths[0], lengths[1], atol=1e-5, rtol=0)
    assert (rest - posed).norm(dim=-1).max() > 0.05


def test_shared_twist_moves_no_joint(body):
    _, heads, rotation = neutral(body, 2)
    names = {name for pair in TWISTS for name in pair[:2]}
    for seed, name in enumerate(sorted(names)):
        for side in 'LR':
            rotation[:, body.bone_index[f'{name}.{side}']] = random_turns(2, seed)
    posed = at_rest(body, heads, rotation)
    # plain forward kinematics, bone by bone
    turn, head = rotation.clone(), torch.zeros_like(heads)
    for bone, parent in enumerate(body.parents):
        if parent >= 0:
            turn[:, bone] = turn[:, parent] @ rotation[:, bone]
            offset = heads[:, bone] - heads[:, parent]
            head[:, bone] = head[:, parent] + (turn[:, parent] @ offset[..., None])[..., 0]
    torch.testing.assert_close(posed.head_m, head, atol=1e-5, rtol=0)
    for name in ('lowerarm01', 'wrist', 'finger3-2', 'foot', 'lowerleg01'):
        bone = body.bone_index[f'{name}.L']
        if name not in {pair[0] for pair in TWISTS}:
            torch.testing.assert_close(posed.rotation[:, bone], turn[:, bone], atol=1e-5, rtol=0)


def test_forearm_turns_half_way_with_the_hand(body):
    _, heads, rotation = neutral(body)
    lower, wrist = (body.bone_index[f'{name}.L'] for name in ('lowerarm02', 'wrist'))
    axis = torch.nn.functional.normalize(heads[:, wrist] - heads[:, lower], dim=-1)
    rotation[:, wrist] = rotations.about_axis(axis, torch.tensor([1.2]))
    posed = at_rest(body, heads, rotation)
    assert float(twist(posed.rotation[:, wrist], axis)) == pytest.approx(1.2, abs=1e-4)
    assert 0.4 * 1.2 < float(twist(posed.rotation[:, lower], axis)) < 0.8 * 1.2


def test_twist_ignores_swing():
    axis = torch.tensor([[0.0, 1.0, 0.0]])
    swing = rotations.about_x(torch.tensor([0.7]))
    turned = swing @ rotations.about_axis(axis, torch.tensor([0.4]))
    assert float(twist(turned, axis)) == pytest.approx(0.4, abs=1e-5)
    assert float(twist(swing, axis)) == pytest.approx(0.0, abs=1e-6)


def test_every_joint_has_a_source():
    assert set(H36M_17.joint_names) == set(JOINT_BONES) | {'pelvis', 'nose', 'head'}


def test_regressors_agree_within_centimetres_but_are_not_the_same(body):
    vertices, heads, still = neutral(body)
    posed = at_rest(body, heads, still)
    h36m, coco = body.joints(posed, vertices)[0], body.coco(posed, vertices)[0]
    shared = [name for name in COCO_17.joint_names if name in H36M_17.joint_names]
    gap = torch.stack([h36m[H36M_17.index(n)] - coco[COCO_17.index(n)] for n in shared])
    assert 0.005 < gap.norm(dim=-1).max() < 0.05
    eye, ear = (coco[COCO_17.index(f'left_{name}')] for name in ('eye', 'ear'))
    assert eye[2] > ear[2] + 0.04
    assert ear[0] > eye[0] + 0.02
    assert eye[1] > coco[0, 1]  # the nose


def test_coco_keypoints_follow_the_skin(body):
    vertices, heads, rotation = neutral(body)
    head = body.bone_index['head']
    rotation[:, head] = rotations.about_y(torch.tensor([0.8]))
    rest = body.coco(at_rest(body, heads, torch.eye(3).expand_as(rotation)), vertices)[0]
    turned = body.coco(at_rest(body, heads, rotation), vertices)[0]
    pivot = heads[0, head] - heads[0, 0]
    wanted = (rotations.about_y(torch.tensor(0.8)) @ (rest[1] - pivot)) + pivot
    torch.testing.assert_close(turned[1], wanted, atol=2e-3, rtol=0)
    torch.testing.assert_close(turned[9:], rest[9:])


@pytest.mark.parametrize('content', [b'no archive', b''])
def test_broken_body_is_one_sentence(tmp_path, content):
    file = tmp_path / 'body.npz'
    file.write_bytes(content)
    with pytest.raises(RsbPoseError, match='cannot read the body asset .*expected the file that'):
        Body(file)


def test_foreign_body_is_one_sentence(tmp_path):
    file = tmp_path / 'body.npz'
    np.savez(file, vertices=np.zeros((3, 3)))
    with pytest.raises(RsbPoseError, match='it has no bones'):
        Body(file)


def test_bake_without_anny_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__('sys').modules, 'anny', None)
    assert main(['bake', '--wardrobe', str(tmp_path), '--out', str(tmp_path)]) == 2
    assert 'pip install rsb_pose_core[bake]' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


MHCLO = """# a patch
basemesh hm08
tag Female
tag Shoes
name patch
obj_file patch.obj
x_scale 3 5 2.0
y_scale 4 6 1.0
z_scale 7 8 0.5
verts 0
10 11 12 0.5 0.25 0.25 0.1 0.0 -0.2
11 12 13 1.0 0.0 0.0 0.0 0.0 0.0
12 13 14 0.0 1.0 0.0 0.0 1e-2 0.0
13 14 15 0.0 0.0 1.0 0.0 0.0 0.3

delete_verts
3 5 - 7
9
"""
PATCH = 'v 0 0 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3 4/4\n'


def write_patch(folder: Path, fit: str = MHCLO) -> Path:
    (folder / 'patch.obj').write_text(PATCH)
    (folder / 'patch.mhclo').write_text(fit)
    return folder / 'patch.mhclo'


def test_garment_file_is_read_as_makehuman_wrote_it(tmp_path):
    garment = read_garment(write_patch(tmp_path))
    assert garment.tags == {'female', 'shoes'}
    assert garment.anchor.tolist()[1] == [11, 12, 13]
    assert garment.offset[2].tolist() == [0.0, 0.01, 0.0]
    assert garment.ends.tolist() == [[3, 5], [4, 6], [7, 8]]
    assert garment.span.tolist() == [2.0, 1.0, 0.5]
    assert garment.hidden.tolist() == [3, 5, 6, 7, 9]
    assert garment.faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert garment.face_uv.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ('old', 'new'),
    [('12 13 14 0.0 1.0', '12 99999 14 0.0 1.0'), ('-0.2', ''), ('obj_file patch.obj', '')],
)
def test_broken_garment_file_is_one_sentence(tmp_path, old, new):
    with pytest.raises(RsbPoseError, match='cannot read the garment .*expected a MakeHuman'):
        read_garment(write_patch(tmp_path, MHCLO.replace(old, new)))


def test_simplified_sphere_keeps_its_shape_and_its_boundary():
    turn, rise = np.meshgrid(np.linspace(0, 2 * np.pi, 41), np.linspace(0, np.pi / 2, 16))
    points = np.stack([np.sin(rise) * np.cos(turn), np.sin(rise) * np.sin(turn), np.cos(rise)], -1)
    grid = np.arange(turn.size).reshape(turn.shape)
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    faces = np.stack([a, b, c, a, c, d], -1).reshape(-1, 3)
    points = points.reshape(-1, 3)
    fewer = simplify(points, faces, 500, 0.02)
    assert 500 <= len(fewer) < 520
    assert set(grid[-1]) <= set(fewer.ravel())  # the rim is a boundary
    centres = points[fewer].mean(1)
    assert np.abs(np.linalg.norm(centres, axis=1) - 1).max() < 0.06
    corner = points[fewer]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert (normal * centres).sum(1).min() > -1e-9  # none turned over; some at the pole are flat


def test_flat_cloth_needs_few_triangles():
    x, y = np.meshgrid(np.arange(9.0), np.arange(9.0))
    points = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    grid = np.arange(81).reshape(9, 9)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    faces = np.stack([a, b, c, a, c, d], -1).reshape(-1, 3)
    fewer = simplify(points, faces, 0, 0.3)
    assert len(fewer) < 50
    corner = points[fewer]
    area = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])[:, 2].sum() / 2
    assert area == pytest.approx(64.0)
