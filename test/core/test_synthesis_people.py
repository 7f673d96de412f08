"""People: clothes that fit and cover, looks, poses, contact, and where hands and seats are."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.appearance import SKIN_TONES
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.clothing import (
    MATERIAL,
    MATERIALS,
    UNDER_M,
    Style,
    Tailor,
    coverage,
    thickness,
)
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.layers import Layer, Sheet, welds
from rsb_pose_core.synthesis.people import Casting, People
from rsb_pose_core.synthesis.poses import DT_S, SIT, STAND, BodyPoses
from rsb_pose_core.synthesis.unwrap import GIRTH_M, Chart, unwrap
from rsb_pose_core.synthesis.volumes import TOLERANCE_M, segment_distance
from rsb_pose_core.synthesis.wardrobe import KINDS, Wardrobe

COUNT = 6


class StubBank:
    """Numbers for names, as a TextureBank gives them."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def of(self, kind: str) -> torch.Tensor:
        return 1000 + torch.arange(8)

    def number(self, name: str) -> int:
        return self.names.index(name)


def standing(heads: torch.Tensor) -> BodyPoses:
    count, bones = heads.shape[:2]
    rotation = torch.eye(3).repeat(count, bones, 1, 1)
    root = torch.eye(3).repeat(count, 1, 1)
    support = torch.full((count,), STAND)
    none = torch.full((count, 2), -1)
    return BodyPoses(rotation, root, rotation, root, torch.zeros(count, 3), support, support, none)


def turned(poses: BodyPoses, body: Body, bone: str, turn: torch.Tensor) -> BodyPoses:
    rotation = poses.rotation.clone()
    rotation[:, body.bone_index[bone]] = turn
    return replace(poses, rotation=rotation, later_rotation=rotation)


@pytest.fixture(scope='module')
def body() -> Body:
    return Body()


@pytest.fixture(scope='module')
def wardrobe(body) -> Wardrobe:
    return Wardrobe(body)


@pytest.fixture(scope='module')
def pictures(wardrobe) -> dict[str, np.ndarray]:
    return wardrobe.pictures()


@pytest.fixture(scope='module')
def casting(body, wardrobe, pictures) -> Casting:
    return Casting(body, wardrobe, StubBank(list(pictures)), 'train')


@pytest.fixture(scope='module')
def people(casting) -> People:
    return casting.people(standing, torch.arange(COUNT), Draw(3))


def test_garments_hang_on_their_anchors_as_makehuman_says(body, wardrobe):
    rest, _ = body.rest(body.shapes[[5, 900]])
    for name in ('male_casualsuit03', 'shoes04', 'fedora', 'long01'):
        garment = wardrobe.garments[name]
        fitted = garment.fit(rest)
        for person, v in ((0, 0), (1, len(garment.anchor) // 2)):
            point = np.zeros(3)
            for axis in range(3):
                a, b = garment.ends[axis].tolist()
                size = abs(rest[person, a, axis] - rest[person, b, axis]) / garment.span[axis]
                point[axis] = garment.offset[v, axis] * size
                for k in range(3):
                    anchor = rest[person, garment.anchor[v, k], axis]
                    point[axis] += garment.weight[v, k] * anchor
            np.testing.assert_allclose(fitted[person, v], point, atol=1e-5)


def test_suits_and_shoes_fit_children_and_adults(body, wardrobe):
    child, adult = int(body.age.argmin()), int((body.age - 40).abs().argmin())
    rest, _ = body.rest(body.shapes[[child, adult]])
    for garment in wardrobe.of_kind('shoes') + wardrobe.of_kind('suit'):
        # a garment stays within a hand's breadth of the body it was fitted to
        fitted = garment.fit(rest)[:, ::20]
        near = torch.cdist(fitted, rest[:, body.number]).amin(2)
        assert near.max() < 0.12, garment.name


def test_pictures_are_square_powers_of_two_with_holes_in_hair_only(wardrobe, pictures):
    hair = {garment.name for garment in wardrobe.of_kind('hair')}
    for name, picture in pictures.items():
        size = picture.shape[0]
        assert picture.shape == (size, size, 4)
        assert size & (size - 1) == 0
        assert picture.dtype == np.uint8
        assert (picture[..., 3].min() == 255) or name in hair
    assert {f'{name}/grey' for name in ('shoes01', 'male_casualsuit01')} <= set(pictures)
    grey = pictures['male_casualsuit03/grey']
    assert (grey[..., 0] == grey[..., 2]).all()


def test_eyebrows_darken_the_brow_and_beards_the_chin_only(pictures):
    plain = pictures['skin/young_lightskinned_male'].astype(int)
    bearded = pictures['skin/young_lightskinned_male/beard'].astype(int)
    changed = (plain - bearded)[..., 0] > 30
    assert 500 < changed.sum() < 8000  # of 512 x 512 texels
    assert not any(name.endswith('female/beard') for name in pictures)


def test_broken_wardrobe_is_one_sentence(body, tmp_path):
    file = tmp_path / 'wardrobe.npz'
    file.write_bytes(b'PK')
    with pytest.raises(RsbPoseError, match='cannot read the wardrobe asset'):
        Wardrobe(body, file)
    empty = np.zeros(0, np.uint8)
    arrays = {'kinds': empty, 'sexes': empty, 'mask/brow': empty, 'mask/beard': empty}
    np.savez(file, names=np.array(['coat']), **arrays)
    with pytest.raises(RsbPoseError, match='cannot read the wardrobe asset'):
        Wardrobe(body, file)
    np.savez(file, names=np.array([], str), **arrays)
    with pytest.raises(RsbPoseError, match='mask/brow is no picture'):
        Wardrobe(body, file).pictures()


def styles(count: int, seed: int) -> Style:
    draw = Draw(seed)
    none = torch.zeros(count, dtype=torch.bool)
    return Style.sample(draw.chance(0.5, count), none, none, draw)


def test_no_slit_can_open_between_top_and_trousers(body):
    tailor = Tailor(body)
    style = styles(200, 0)
    chart = tailor.shell_chart
    cover = coverage(style, chart)
    overlap = (style.hem < style.waist - 0.01)[:, 0] & ~style.topless[:, 0]
    waist = (chart.region == 0) & (chart.y > 0.0) & (chart.y < 0.4)
    both = torch.maximum(cover['top'], cover['trousers'])[overlap][:, waist]
    assert both.min() > 0
    assert overlap.float().mean() > 0.5


def test_outer_garments_lie_outside_inner_ones(body):
    tailor = Tailor(body)
    style = styles(100, 1)
    cover = coverage(style, tailor.shell_chart)
    off = thickness(style, tailor.shell_chart, cover)
    under_top = (cover['top'] > 0.01) & (cover['trousers'] > 0.01)
    assert (off['top'] - off['trousers'])[under_top].min() > 0.001
    under_jacket = (cover['jacket'] > 0.01) & (cover['top'] > 0.01)
    assert (off['jacket'] - off['top'])[under_jacket].min() > 0.001


def test_sleeves_and_legs_end_where_the_style_says(body):
    tailor = Tailor(body)
    chart = tailor.shell_chart
    style = styles(50, 2)
    cover = coverage(style, chart)
    arm = chart.is_arm > 0.6
    sleeved = (style.sleeve > 0.3)[:, 0] & ~style.topless[:, 0]
    beyond = (chart.arm > style.sleeve[sleeved] + 1e-3) & arm
    within = (chart.arm < style.sleeve[sleeved] - 1e-3) & arm
    assert cover['top'][sleeved][beyond].max() < 0
    assert cover['top'][sleeved][within].min() > 0
    leg = (chart.is_leg > 0.6) & (chart.y < -0.1)
    assert cover['trousers'][(chart.leg > style.leg + 1e-3) & leg].max() < 0


def test_cloth_is_laid_in_metres_round_the_limbs(body):
    number, uv, faces = unwrap(body, body.shell)
    assert set(number.tolist()) == set(body.shell.flatten().tolist())
    span = uv[faces].amax(1) - uv[faces].amin(1)
    wrapped = span[:, 0] > min(GIRTH_M) / 2  # round a limb; or at the poles: crotch and soles
    middle = body.vertices[number[faces[wrapped]]].mean(1)
    assert wrapped.sum() < 20
    assert (middle[:, 1] < 0).all()
    # a centimetre on the trunk is a centimetre of cloth, within a factor
    chart = Chart.of(body, number)
    trunk = ((chart.region == 0) & (chart.y > 0.1) & (chart.y < 0.4))[faces].all(1)
    for a, b in ((0, 1), (1, 2)):
        length = body.vertices[number[faces[trunk, a]]] - body.vertices[number[faces[trunk, b]]]
        cloth = (uv[faces[trunk, a]] - uv[faces[trunk, b]]).norm(dim=1) / length.norm(dim=1)
        assert 0.8 < cloth.median() < 1.25
    # mirrored limbs are laid alike
    assert uv[:, 0].min() > -0.6


def test_normals_are_smooth_across_texture_seams():
    # two triangles that share an edge in space but not in the picture
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, -1]])
    weld = welds(torch.tensor([7, 4, 9, 9, 4, 2]))
    assert weld.tolist() == [0, 1, 2, 2, 1, 5]
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    sheet = Sheet(torch.ones(6, 1), torch.zeros(6, 2), faces, weld, torch.zeros(2).long())
    normals = sheet.normals(points[None])[0]
    torch.testing.assert_close(normals[2], normals[3])
    a, b = (
        torch.tensor([0.0, 0, 1]),
        torch.linalg.cross(points[4] - points[3], points[5] - points[3]),
    )
    wanted = torch.nn.functional.normalize(a + b, dim=0)
    torch.testing.assert_close(normals[2], wanted)


def test_layers_keep_only_what_is_drawn():
    sheet = Sheet(
        torch.ones(5, 1), torch.zeros(5, 2), torch.tensor([[0, 1, 2], [1, 2, 3], [2, 3, 4]]),
        torch.arange(5), torch.tensor([3, 3, 4]),
    )  # fmt: skip
    opacity = torch.tensor([[1.0, 1, 1, 1, 1], [-1, -1, -1, 1, 1]])
    drawn = torch.tensor([[True, False, False], [True, True, True]])
    layer = Layer.make(
        sheet, torch.tensor([2, 5]), torch.zeros(2, 5, 3), 10, opacity=opacity, drawn=drawn
    )
    # person 2 shows the first triangle, person 5 all but the first, which is all hole
    assert layer.kept.tolist() == [0, 1, 2, 6, 7, 8, 9]
    assert layer.kept[layer.faces].tolist() == [[0, 1, 2], [6, 7, 8], [7, 8, 9]]
    assert layer.surface.tolist() == [23, 53, 54]


def test_same_seed_same_people(casting):
    first, again, other = (
        casting.people(standing, torch.arange(COUNT), Draw(seed)) for seed in (3, 3, 4)
    )
    for field in fields(first.mesh):
        assert torch.equal(getattr(first.mesh, field.name), getattr(again.mesh, field.name))
    for field in fields(first.surfaces):
        assert torch.equal(
            getattr(first.surfaces, field.name), getattr(again.surfaces, field.name)
        )
    assert not torch.equal(first.surfaces.colour, other.surfaces.colour)


def test_everyone_stands_on_the_floor_at_the_origin(people):
    for person in range(COUNT):
        own = people.mesh.vertices_m[people.vertex_person == person]
        assert float(own[:, 1].min()) == 0.0
        assert 0.9 < float(own[:, 1].max()) < 2.3
        assert people.height_m[person] == pytest.approx(float(own[:, 1].max()), abs=0.2)
    pelvis = people.joints_m[:, H36M_17.index('pelvis')]
    assert pelvis[:, [0, 2]].abs().max() < 1e-6
    torch.testing.assert_close(people.mesh.scene, people.vertex_person)


def test_mesh_is_sound(people):
    mesh, surfaces = people.mesh, people.surfaces
    assert mesh.faces.max() < len(mesh.vertices_m)
    assert len(torch.unique(mesh.faces)) == len(mesh.vertices_m)  # no vertex is idle
    assert mesh.surface.max() < len(surfaces) == COUNT * len(MATERIALS)
    torch.testing.assert_close(
        surfaces.owner[mesh.surface], people.vertex_person[mesh.faces[:, 0]]
    )
    assert torch.isfinite(mesh.vertices_m).all()
    assert (mesh.normals.norm(dim=1) - 1).abs().max() < 1e-3
    assert (surfaces.colour >= 0).all()
    assert (surfaces.colour <= 1).all()


def test_skin_under_clothes_is_left_out(casting):
    cast = casting.cast(40, Draw(0))
    skin = cast.layers[0]
    drawn = torch.bincount(skin.surface // len(MATERIALS), minlength=40)
    whole = len(casting.body.faces)
    assert (drawn < 0.93 * whole).all()
    assert drawn.float().mean() < 0.75 * whole
    style = styles(3, 5)
    cover = casting.outfitter.tailor.worn_over_skin(style)
    head_and_hands = (casting.body.bone_weight('head', 'finger')[casting.body.number] > 0.9)[None]
    assert (cover > UNDER_M).any(1).all()
    assert not ((cover > UNDER_M) & head_and_hands).any()


def test_half_wear_suits_and_everyone_may_be_told_apart(casting):
    draw = Draw(1)
    cast = casting.cast(90, draw)
    worn = torch.zeros(90, len(MATERIALS), dtype=torch.bool)
    for layer in cast.layers:
        worn.view(-1)[layer.surface] = True
    suited = worn[:, MATERIAL['upper']] | worn[:, MATERIAL['lower']]
    assert 0.35 < suited.float().mean() < 0.65
    bottoms = worn[:, MATERIAL['trousers']] | worn[:, MATERIAL['skirt']]
    assert not (bottoms & suited).any()
    assert (bottoms | worn[:, MATERIAL['top']] | worn[:, MATERIAL['jacket']])[~suited].all()
    for name in ('jacket', 'skirt', 'cap', 'strands', 'hat', 'footwear', 'shoes', 'hair'):
        assert 0.02 < worn[:, MATERIAL[name]].float().mean() < 0.9, name
    assert len(torch.unique(cast.surfaces.colour.view(90, -1), dim=0)) == 90


def test_skin_tones_span_dark_to_light_and_suit_the_picture(casting, body):
    count = 150
    look = casting.cast(count, Draw(2)).surfaces
    row = MATERIAL['skin'] + len(MATERIALS) * torch.arange(count)
    stylist = casting.stylist
    number = (look.texture[row][:, None] == stylist.skins).float().argmax(1)
    tone = look.colour[row] * stylist.skin_tone[number]
    assert tone[:, 0].min() < 1.3 * SKIN_TONES[-2][0]
    assert tone[:, 0].max() > 0.7 * SKIN_TONES[0][0]
    # dark pictures carry dark tones
    dark = stylist.skin_dark[number]
    assert tone[dark].mean() < 0.5 * tone[~dark].mean()


def test_splits_share_no_bodies_garments_or_skins(body, wardrobe, pictures):
    bank = StubBank(list(pictures))
    castings = [Casting(body, wardrobe, bank, split) for split in ('train', 'val', 'test')]
    for kind in KINDS:
        shown = [{g.name for g in casting.outfitter.garments[kind]} for casting in castings]
        if kind != 'hat':  # there are too few
            assert not (shown[0] & shown[1] | shown[0] & shown[2] | shown[1] & shown[2])
        assert all(shown)
    for values in ('shape_numbers',):
        sets = [set(getattr(casting, values).tolist()) for casting in castings]
        assert sum(map(len, sets)) == len(set.union(*sets)) == len(body.shapes)
    sets = [set(casting.stylist.skins.tolist()) for casting in castings]
    assert sum(map(len, sets)) == len(set.union(*sets))
    for casting in castings[1:]:
        assert len(casting.people(standing, torch.arange(3), Draw(0)).joints_m) == 3


def test_film_keeps_the_person_and_the_clothes(casting, body):
    def bowing(heads):
        turns = rotations.about_x(torch.tensor([0.0, 0.4, 0.0]))
        return turned(standing(heads), body, 'spine03', turns)

    frames = casting.people(bowing, torch.arange(3), Draw(7), one_person=True)
    own = [frames.mesh.vertices_m[frames.vertex_person == k] for k in range(3)]
    assert torch.equal(own[0], own[2])
    assert own[1].shape == own[0].shape
    assert (own[1] - own[0]).abs().max() > 0.05
    table = frames.surfaces.texture.view(3, -1)
    assert torch.equal(table[0], table[2])
    assert frames.surfaces.owner.view(3, -1)[:, 0].tolist() == [0, 1, 2]


def test_moved_people_turn_about_their_roots(people):
    yaw = torch.linspace(-2, 3, COUNT)
    shift = torch.arange(COUNT)[:, None] * torch.tensor([1.0, 0.0, -2.0])
    there = people.moved(shift, torch.zeros(COUNT)).moved(torch.zeros(COUNT, 3), yaw)
    turn = rotations.about_y(yaw)
    wanted = (turn[:, None] @ people.joints_m[..., None])[..., 0] + shift[:, None]
    torch.testing.assert_close(there.joints_m, wanted, atol=1e-5, rtol=0)
    k = people.vertex_person
    vertices = (turn[k] @ people.mesh.vertices_m[..., None])[..., 0] + shift[k]
    torch.testing.assert_close(there.mesh.vertices_m, vertices, atol=1e-5, rtol=0)
    normals = (turn[k] @ people.mesh.normals[..., None])[..., 0]
    torch.testing.assert_close(there.mesh.normals, normals, atol=1e-5, rtol=0)
    hands = turn[:, None] @ people.hands_m[..., :3, :3]
    torch.testing.assert_close(there.hands_m[..., :3, :3], hands, atol=1e-5, rtol=0)
    torch.testing.assert_close(there.spheres[..., 3], people.spheres[..., 3])
    back = people.moved(torch.zeros(COUNT, 3), torch.zeros(COUNT))
    torch.testing.assert_close(back.mesh.vertices_m, people.mesh.vertices_m, atol=1e-6, rtol=0)


def test_velocities_are_differences_of_positions(casting, body):
    cast = casting.cast(2, Draw(5))
    poses = standing(cast.heads_m)
    travel = torch.tensor([[0.02, 0.0, 0.01], [0.0, 0.03, 0.0]])
    later = turned(poses, body, 'upperarm01.L', rotations.about_z(torch.tensor([0.1, -0.2])))
    moving = replace(poses, later_rotation=later.rotation, root_shift_m=travel)
    scene = torch.arange(2)
    start, end = (casting.pose(cast, p, scene) for p in (moving, later))
    assert start.mesh.velocity_m_s.norm(dim=1).max() > 0.5
    # both poses are put on the floor: take that out
    drop = end.root_m - start.root_m
    k = start.vertex_person
    stepped = start.mesh.vertices_m + start.mesh.velocity_m_s * DT_S - travel[k]
    reached = end.mesh.vertices_m - (end.joints_m - start.joints_m)[k, 6]
    torch.testing.assert_close(stepped, reached, atol=1e-4, rtol=0)
    joints = start.joints_m + start.joint_velocity_m_s * DT_S - travel[:, None]
    torch.testing.assert_close(joints, end.joints_m - drop[:, None], atol=1e-4, rtol=0)


def test_only_sitters_have_a_seat_under_their_pelvis(casting, body):
    cast = casting.cast(2, Draw(6))
    poses = standing(cast.heads_m)
    for side in 'LR':
        bent = rotations.about_x(torch.full((2,), -1.5))
        poses = turned(poses, body, f'upperleg01.{side}', bent)
        poses = turned(poses, body, f'lowerleg01.{side}', bent.mT)
    poses = replace(poses, support=torch.tensor([SIT, STAND]))
    people = casting.pose(cast, poses, torch.arange(2))
    assert torch.isnan(people.seat_m[1]).all()
    seat, pelvis = people.seat_m[0], people.joints_m[0, H36M_17.index('pelvis')]
    below = pelvis[1] - seat[1]
    assert 0.04 < below / people.height_m[0] < 0.12
    assert (seat - pelvis)[[0, 2]].norm() < 0.12


def test_palms_face_each_other_and_the_back_faces_back(people):
    palms = people.hands_m
    eye = torch.eye(3).expand(COUNT, 2, 3, 3)
    turn = palms[..., :3, :3]
    torch.testing.assert_close(turn.mT @ turn, eye, atol=1e-4, rtol=0)
    assert torch.linalg.det(turn).min() > 0.99
    assert palms[:, 0, 0, 2].max() < -0.3  # out of the left palm: to the right
    assert palms[:, 1, 0, 2].min() > 0.3
    wrists = people.joints_m[:, [H36M_17.index('left_wrist'), H36M_17.index('right_wrist')]]
    along = ((palms[..., :3, 3] - wrists) * palms[..., :3, 1]).sum(-1)
    assert along.min() > 0.02
    assert along.max() < 0.12
    neck = people.joints_m[:, H36M_17.index('neck')]
    assert (people.back_m[:, 2, 3] < neck[:, 2]).all()
    assert ((neck - people.back_m[:, :3, 3])[:, 1] > 0.05).all()


def test_spheres_lie_inside_the_body_and_fill_it(people):
    assert 14 <= people.spheres.shape[1] <= 22
    for person in range(COUNT):
        vertices = people.mesh.vertices_m[people.vertex_person == person]
        spheres = people.spheres[person]
        gap = torch.cdist(vertices, spheres[:, :3]) - spheres[:, 3]
        # every vertex is near a sphere, but for fingers, hair, hats and skirts
        assert gap.amin(1).quantile(0.9) < 0.09
        assert (spheres[:, 3] > 0.015).all()
        assert (spheres[:, 3] < 0.25).all()
        assert (spheres[:, 1] - spheres[:, 3]).min() > -0.06


def test_segment_distance_agrees_with_a_search():
    generator = torch.Generator().manual_seed(0)
    a, b, c, d = torch.randn(4, 20, 3, generator=generator)
    share = torch.linspace(0, 1, 201)[:, None, None]
    first, second = a + share * (b - a), c + share * (d - c)
    search = (first[:, None] - second[None]).norm(dim=-1).amin((0, 1))
    torch.testing.assert_close(segment_distance(a, b, c, d), search, atol=2e-2, rtol=0)
    crossing = segment_distance(
        torch.tensor([[-1.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]),
        torch.tensor([[0.0, -1, 0.5]]), torch.tensor([[0.0, 1, 0.5]]),
    )  # fmt: skip
    assert float(crossing) == pytest.approx(0.5)


def test_an_arm_through_the_chest_is_found_and_rest_is_not(casting, body, people):
    assert casting.self_penetration_m(people).max() < TOLERANCE_M
    cast = casting.cast(COUNT, Draw(3))
    heads = cast.heads_m

    def head(name):
        return heads[:, body.bone_index[name]]

    poses = standing(heads)
    chest = (head('upperarm01.L') + head('upperarm01.R')) / 2 - torch.tensor([0.0, 0.12, 0.0])
    upper = head('lowerarm01.L') - head('upperarm01.L')
    down = rotations.between(upper, torch.tensor([0.4, -1.0, 0.2]).expand_as(upper))
    poses = turned(poses, body, 'upperarm01.L', down)
    elbow = head('upperarm01.L') + (down @ upper[..., None])[..., 0]
    fore = head('wrist.L') - head('lowerarm01.L')
    inward = (down.mT @ (chest - elbow)[..., None])[..., 0]
    through = turned(poses, body, 'lowerarm01.L', rotations.between(fore, inward))
    scene = torch.arange(COUNT)
    assert casting.self_penetration_m(casting.pose(cast, through, scene)).min() > 0.08
    # the same elbow with the forearm held out in front is no contact
    ahead = (down.mT @ torch.tensor([0.3, 0.0, 1.0]).expand(COUNT, 3)[..., None])[..., 0]
    free = turned(poses, body, 'lowerarm01.L', rotations.between(fore, ahead))
    assert casting.self_penetration_m(casting.pose(cast, free, scene)).max() < TOLERANCE_M
