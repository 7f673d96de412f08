"""Labels of rendered people: visibility, boxes, slots; places in a crowd; splits of assets."""

import math

import numpy as np
import pytest
import torch

from rsb_pose_core.skeleton import COCO_17, H36M_17
from rsb_pose_core.synthesis.crowd import CLEARANCE_M, LENS_CLEARANCE_M, place_others
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.labels import (
    OCCLUDED,
    OUTSIDE,
    PERSON_SLOTS,
    SELF_OCCLUDED,
    VISIBLE,
    SeenJoints,
    Sight,
    boxes_of,
    flesh_m,
    joint_labels,
    person_slots,
    visibility,
)
from rsb_pose_core.synthesis.mesh import NOBODY, Mesh, Surfaces, join
from rsb_pose_core.synthesis.splits import SPLITS, names_of


@pytest.mark.parametrize(
    ('surface', 'own', 'outside', 'expected'),
    [
        (1.95, True, False, VISIBLE),  # its own skin, 5 cm before the joint
        (1.80, True, False, SELF_OCCLUDED),  # an arm 20 cm before it
        (1.99, False, False, OCCLUDED),  # anything else before it
        (3.00, False, False, VISIBLE),  # the background beside a thin limb
        (math.inf, False, False, VISIBLE),  # the sky beside a thin limb
        (1.80, True, True, OUTSIDE),
    ],
)
def test_visibility_follows_the_depth_buffer(surface, own, outside, expected):
    code = visibility(
        torch.tensor([2.0]), torch.tensor([surface]), torch.tensor([own]),
        torch.tensor([outside]), torch.tensor([0.11]),
    )  # fmt: skip
    assert code.item() == expected


def test_a_childs_joints_lie_less_deep():
    """10 cm of own surface before the wrist: flesh of a grown person, an arm of a child."""
    seen = SeenJoints(
        torch.zeros(2, 17, 3), torch.full((2, 2, 17, 2), 3.0), torch.full((2, 2, 17), 2.0),
        torch.full((2, 2, 17, 2), 4.5),
    )  # fmt: skip
    owner = torch.zeros(4, 8, 6, dtype=torch.long)
    owner[1], owner[3] = 1, 1
    sight = Sight(torch.full((4, 8, 6), 1.9), owner, torch.ones(4, 8, 6, dtype=torch.bool))
    scene = torch.arange(2)
    scale = torch.tensor([1.0, 0.6])
    labels = joint_labels(seen, H36M_17, scale, sight, scene, torch.zeros(2, dtype=torch.long))
    wrist = H36M_17.index('left_wrist')
    assert labels.visibility[0, 0, :, wrist].tolist() == [VISIBLE, VISIBLE]
    assert labels.visibility[1, 0, :, wrist].tolist() == [SELF_OCCLUDED, SELF_OCCLUDED]
    assert (labels.uv_left[:, 0] == 4.5).all()  # the label is where the lens shows the joint
    assert (labels.visibility[:, 1:] == OUTSIDE).all()
    assert labels.xyz_m[:, 1:].isnan().all()


def test_labels_tell_each_persons_own_surface_from_the_others():
    """Both people are seen at pixel (2, 1), where person 1 stands before person 0."""
    uv = torch.full((2, 2, 17, 2), 0.0) + torch.tensor([2.0, 1.0])
    depth = torch.stack([torch.full((2, 17), 3.0), torch.full((2, 17), 2.0)], 1)
    owner = torch.ones(2, 4, 5, dtype=torch.long)
    inside = torch.ones(2, 4, 5, dtype=torch.bool)
    inside[1, 1, 2] = False  # the right sensor ends before it
    sight = Sight(torch.full((2, 4, 5), 1.95), owner, inside)
    scene, slot = torch.tensor([0, 0]), torch.tensor([0, 1])
    seen = SeenJoints(torch.zeros(2, 17, 3), uv, depth, uv)
    labels = joint_labels(seen, H36M_17, torch.ones(2), sight, scene, slot)
    assert (labels.visibility[0, 0, 0] == OCCLUDED).all()
    assert (labels.visibility[0, 1, 0] == VISIBLE).all()
    assert (labels.visibility[0, :, 1] == OUTSIDE).all()


def test_every_joint_has_its_depth_of_flesh():
    assert flesh_m(H36M_17)[H36M_17.index('pelvis')] == pytest.approx(0.26)
    assert flesh_m(COCO_17)[COCO_17.index('left_ear')] == pytest.approx(0.06)
    assert flesh_m(COCO_17)[COCO_17.index('right_knee')] == pytest.approx(0.11)


def test_boxes_are_the_extent_of_each_persons_pixels():
    owner = torch.full((2, 6, 9), -1)
    owner[0, 1:4, 2:5] = 1
    owner[0, 5, 8] = 1
    owner[1, 0, 0] = 0
    box = boxes_of(owner, 2)
    assert box[0, 1].tolist() == [2, 1, 7, 5]
    assert box[1, 0].tolist() == [0, 0, 1, 1]
    assert box[0, 0].isnan().all()
    assert box[1, 1].isnan().all()


def test_slots_count_the_people_of_each_scene():
    scene = torch.tensor([0, 1, 2, 2, 0, 2])
    assert person_slots(scene, 3).tolist() == [0, 0, 0, 1, 1, 2]


def test_nobody_stands_in_anybody_or_before_the_lens():
    draw = Draw(5)
    scenes, people = 8, 8 * PERSON_SLOTS
    scene = torch.arange(scenes).repeat(PERSON_SLOTS)
    slot = person_slots(scene, scenes)
    spheres = torch.cat(
        [0.25 * draw.normal(people, 6, 3), draw.uniform(0.1, 0.3, people, 6, 1)], 2
    )
    camera = torch.stack([draw.uniform(-3, 3, scenes), draw.uniform(0.2, 2, scenes),
                          draw.uniform(1.5, 4, scenes)], 1)  # fmt: skip
    shift = place_others(spheres, scene, slot, camera, draw)
    assert (shift[slot == 0] == 0).all()
    assert (shift[:, 1] == 0).all()
    spheres = spheres.double().numpy()
    spheres[..., :3] += shift.double().numpy()[:, None]
    for a in range(people):
        if slot[a] > 0:
            lens = np.linalg.norm(spheres[a, :, :3] - camera[scene[a]].numpy(), axis=1)
            assert (lens - spheres[a, :, 3]).min() > LENS_CLEARANCE_M - 1e-4
        for b in range(a):
            if scene[a] == scene[b]:
                apart = np.linalg.norm(spheres[a, :, None, :3] - spheres[b, None, :, :3], axis=-1)
                gap = apart - spheres[a, :, None, 3] - spheres[b, None, :, 3]
                assert gap.min() > CLEARANCE_M - 1e-4
    assert shift[slot > 0].norm(dim=1).median() < 3.5  # a crowd, not a scattering


def test_joined_meshes_keep_their_surfaces_and_people():
    def triangle(x: float, owner: int) -> tuple[Mesh, Surfaces]:
        vertices = torch.tensor([[x, 0, 0], [x + 1, 0, 0], [x, 1, 0]])
        faces = torch.tensor([[0, 1, 2]])
        mesh = Mesh.solid(
            vertices, torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3), vertices[:, :2],
            torch.zeros(3, dtype=torch.long), faces, torch.zeros(1, dtype=torch.long),
        )  # fmt: skip
        return mesh, Surfaces.plain(torch.full((1, 3), x / 10), owner=torch.tensor([owner]))

    mesh, surfaces = join([triangle(0.0, NOBODY), triangle(5.0, 3)])
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert surfaces.owner[mesh.surface].tolist() == [NOBODY, 3]
    assert mesh.vertices_m[mesh.faces[1, 1]].tolist() == [6.0, 0.0, 0.0]
    assert torch.allclose(mesh.normals, torch.tensor([0.0, 0.0, 1.0]).expand(6, 3))
    assert surfaces.colour[1].tolist() == pytest.approx([0.5] * 3)


def test_splits_share_no_asset_and_do_not_depend_on_the_order():
    names = [f'suit{i:02d}' for i in range(30)]
    parts = {split: names_of(split, names) for split in SPLITS}
    assert sorted(sum(parts.values(), [])) == names
    assert [len(parts[split]) for split in SPLITS] == [21, 3, 6]
    assert names_of('test', reversed(names)) == parts['test']
    assert names_of('val', ['one', 'two']) == ['one', 'two']
    assert [len(names_of(split, 'abc')) for split in SPLITS] == [1, 1, 1]
