"""Rooms, furniture, props and occluders: exact geometry, and nothing where it must not be."""

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import furniture, occluders, props, rotations, shapes, solids, world
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.lighting import LightBank
from rsb_pose_core.synthesis.mesh import NOBODY, Mesh
from rsb_pose_core.synthesis.room import CEILING, FLOOR, Room, cast
from rsb_pose_core.synthesis.solids import Boxes
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.view import View

SCENES, PEOPLE = 24, 60
BANK = TextureBank(0, cloths=2, surfaces=8)
STANDING_M = {
    'pelvis': (0, 0.95, 0), 'spine': (0, 1.15, 0), 'neck': (0, 1.4, 0), 'nose': (0, 1.52, 0.1),
    'head': (0, 1.68, 0), 'left_hip': (0.1, 0.93, 0), 'left_knee': (0.1, 0.5, 0.03),
    'left_ankle': (0.1, 0.08, 0), 'left_shoulder': (0.18, 1.38, 0),
    'left_elbow': (0.28, 1.12, 0), 'left_wrist': (0.38, 0.9, 0.1),
}  # fmt: skip
SITTING_M = STANDING_M | {
    'pelvis': (0, 0.55, 0), 'spine': (0, 0.75, 0), 'neck': (0, 1.0, 0.02), 'nose': (0, 1.1, 0.1),
    'head': (0, 1.27, 0), 'left_hip': (0.1, 0.53, 0), 'left_knee': (0.12, 0.5, 0.42),
    'left_ankle': (0.12, 0.08, 0.4), 'left_shoulder': (0.18, 0.98, 0),
    'left_elbow': (0.25, 0.75, 0.1), 'left_wrist': (0.15, 0.62, 0.3),
}  # fmt: skip


def joints_of(places: dict[str, tuple[float, float, float]]) -> Tensor:
    """17 joints (17, 3); the right side mirrors the left."""
    mirror = torch.tensor([-1.0, 1.0, 1.0])
    return torch.stack(
        [
            torch.tensor(places[name]) if name in places
            else torch.tensor(places[name.replace('right', 'left')]) * mirror
            for name in H36M_17.joint_names
        ]
    )  # fmt: skip


def crowd(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Joints (P, 17, 3), scenes, spheres of people and cameras (B, 3); subjects at the origin."""
    draw = Draw(seed)
    scene = torch.cat([torch.arange(SCENES), draw.integer(SCENES, PEOPLE - SCENES)])
    yaw = rotations.about_y(draw.uniform(-3.0, 3.0, PEOPLE))
    place = draw.normal(PEOPLE, 3) * torch.tensor([2.0, 0.0, 2.0])
    place[:SCENES] = 0
    joints = joints_of(STANDING_M) + 0.04 * draw.normal(PEOPLE, 17, 3)
    joints = joints @ yaw.mT + place[:, None]
    spheres = torch.cat([joints, torch.full((PEOPLE, 17, 1), 0.07)], 2)
    bearing, away = draw.uniform(-3.0, 3.0, SCENES), draw.log_uniform(1.3, 6.0, SCENES)
    height = draw.uniform(0.15, 2.0, SCENES)
    camera = torch.stack([away * bearing.sin(), height, away * bearing.cos()], 1)
    return joints, scene, spheres, camera


def views(seed: int) -> tuple[View, Tensor]:
    """Eight 40 x 30 images from within 0.8 m of the origin, of four scenes."""
    draw, count = Draw(seed), 8
    turn = rotations.about_y(draw.uniform(-3.0, 3.0, count))
    turn = rotations.about_x(draw.uniform(2.7, 3.5, count)) @ turn  # y down
    focal = draw.uniform(20.0, 60.0, count)
    centre = draw.uniform(-0.8, 0.8, count, 3) + torch.tensor([0.0, 1.0, 0.0])
    ones = torch.ones(count)
    return View(focal, 1.1 * focal, 17 * ones, 16 * ones, turn, centre, 30, 40), (
        torch.arange(4).repeat(2)
    )


def rooms(seed: int, outdoors: bool = False) -> Room:
    draw, count = Draw(seed), 4
    low, high = -draw.uniform(1.2, 3.0, count, 3), draw.uniform(2.0, 3.0, count, 3)
    low[:, 1] = 0
    table = torch.zeros(count, 6)
    return Room(
        rotations.about_y(draw.uniform(-3.0, 3.0, count)), low, high,
        torch.full((count,), outdoors), table.long(), table, table[..., None].expand(-1, -1, 3),
        table,
    )  # fmt: skip


def triangles(mesh: Mesh) -> tuple[Tensor, Tensor]:
    """Corners (F, 3, 3) in float64 and scenes (F,)."""
    return mesh.vertices_m[mesh.faces].double(), mesh.scene[mesh.faces[:, 0]]


def blocked(corners: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Which segments (N, 3) triangles (F, 3, 3) cut, after Moeller and Trumbore, in float64."""
    start, way = start.double(), (end - start).double()
    a, b, c = corners.unbind(1)
    e1, e2 = b - a, c - a
    p = torch.linalg.cross(way[:, None].expand(-1, len(a), -1), e2[None])
    determinant = (p * e1).sum(-1)
    offset = start[:, None] - a
    u = (p * offset).sum(-1) / determinant
    q = torch.linalg.cross(offset, e1[None].expand(len(start), -1, -1))
    v, t = (q * way[:, None]).sum(-1) / determinant, (q * e2).sum(-1) / determinant
    return ((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < 1)).any(1)


def surface_points(corners: Tensor) -> Tensor:
    """Points (F, 28, 3) all over triangles."""
    step = torch.linspace(0, 1, 7, dtype=torch.float64)
    u, v = torch.meshgrid(step, step, indexing='ij')
    inside = u + v <= 1 + 1e-9
    u, v = u[inside][:, None], v[inside][:, None]
    a, b, c = corners[:, None].unbind(2)
    return a + u * (b - a) + v * (c - a)


def test_rays_end_on_the_nearest_wall() -> None:
    room, (view, scene) = rooms(0), views(1)
    hit = cast(room, scene, view)
    turn = room.turn[scene].double()
    rays = view.rays().double() @ turn[:, None].mT
    origin = (turn @ view.centre_m.double()[..., None])[:, None, None, :, 0]
    bounds = torch.stack([room.low_m, room.high_m], -1)[scene].double()[:, None, None]
    distance = (bounds - origin[..., None]) / rays[..., None]  # ... axis side
    distance = torch.where(distance > 0, distance, torch.inf).flatten(-2)
    expected, wall = distance.min(-1)
    torch.testing.assert_close(hit.depth_m.double(), expected, atol=1e-5, rtol=1e-5)
    clear = distance.sort(-1).values.diff(dim=-1)[..., 0] > 1e-4
    assert (hit.wall == wall)[clear].all()
    point = view.centre_m[:, None, None].double() + view.rays() * expected[..., None]
    torch.testing.assert_close(hit.point_m.double(), point, atol=1e-5, rtol=1e-5)
    towards = (hit.normal * view.rays()).sum(-1)
    assert (towards < 0).all()
    local = point @ turn[:, None].mT
    sideways = torch.where(wall < 2, local[..., 2], local[..., 0])
    torch.testing.assert_close(
        hit.uv_m[..., 0].double()[clear], sideways[clear], atol=1e-4, rtol=1e-4
    )


def test_outdoors_there_is_ground_below_the_horizon_and_nothing_above() -> None:
    room, (view, scene) = rooms(0, outdoors=True), views(1)
    hit = cast(room, scene, view)
    down = view.rays()[..., 1]
    ground = down < 0
    assert ground.any()
    assert (~ground).any()
    expected = view.centre_m[:, None, None, 1].expand_as(down) / -down
    torch.testing.assert_close(hit.depth_m[ground], expected[ground], rtol=1e-4, atol=1e-4)
    assert hit.depth_m[~ground].isinf().all()
    assert (hit.wall[ground] == FLOOR).all()
    assert (hit.wall[~ground] == CEILING).all()
    assert hit.uv_m.isfinite().all()


def test_shapes_fill_their_boxes_and_face_outwards() -> None:
    for name, make in shapes.SHAPES.items():
        shape = make()
        assert shape.vertices.abs().max() <= 1 + 1e-6, name
        torch.testing.assert_close(shape.normals.norm(dim=1), torch.ones(len(shape.normals)))
        a, b, c = shape.vertices[shape.faces].unbind(1)
        agree = (torch.linalg.cross(b - a, c - a) * shape.normals[shape.faces].sum(1)).sum(1)
        assert (agree > 0).all(), name
        if not shape.open:
            volume = (a * torch.linalg.cross(b, c)).sum() / 6
            assert 0.4 * 8 < volume <= 8.0001, name


def test_parts_have_the_sizes_of_their_table() -> None:
    kinds = {'slab': solids.Kind((2.0, 1.0, 0.5), (2.0, 1.0, 0.5), [
        solids.Part('box', 'picture', (0.0, 0.25), ((0.0, 0.2), 1.0), fit=True)])}  # fmt: skip
    catalogue = solids.Catalogue(kinds)
    things = catalogue.things(torch.zeros(1).long(), torch.tensor([3]), Draw(0))
    mesh, surfaces = catalogue.build(things, BANK, Draw(0))
    assert (mesh.scene == 3).all()
    torch.testing.assert_close(mesh.vertices_m.amin(0), torch.tensor([-1.0, 0.2, -0.25]))
    torch.testing.assert_close(mesh.vertices_m.amax(0), torch.tensor([-0.5, 1.0, 0.25]))
    torch.testing.assert_close(mesh.uv.amin(0), torch.zeros(2))
    torch.testing.assert_close(mesh.uv.amax(0), torch.ones(2))
    # upright as seen from the front: u to the right (+x), v downward
    front = mesh.normals[:, 2] > 0.9
    place, uv = mesh.vertices_m[front], mesh.uv[front]
    assert uv[place[:, 0].argmax(), 0] > uv[place[:, 0].argmin(), 0]
    assert uv[place[:, 1].argmax(), 1] < uv[place[:, 1].argmin(), 1]
    assert len(surfaces) == len(solids.STUFFS)


def test_things_that_are_absent_have_no_triangles() -> None:
    catalogue = furniture.catalogue('cpu')
    things = catalogue.things(torch.arange(len(catalogue.names)), torch.arange(4).repeat(9)[
        : len(catalogue.names)], Draw(0))  # fmt: skip
    full, _ = catalogue.build(things, BANK, Draw(1))
    none = replace(things, present=torch.zeros_like(things.present))
    mesh, _ = catalogue.build(none, BANK, Draw(1))
    assert len(full.faces) > 1000
    assert len(mesh.faces) == 0


def test_boxes_block_lines_as_sampling_says() -> None:
    draw, count = Draw(0), 300
    turn = rotations.about_y(draw.uniform(-3.0, 3.0, count)) @ rotations.about_x(
        draw.uniform(-3.0, 3.0, count)
    )
    half = draw.uniform(0.3, 1.5, count, 3)
    boxes = Boxes(draw.normal(count, 3), half, turn, torch.ones(count, dtype=torch.bool))
    start, end = 2 * draw.normal(count, 3), 2 * draw.normal(count, 1, 3)
    steps = torch.linspace(0, 1, 2001)[:, None]
    points = start[:, None] + steps * (end - start[:, None])
    expected = boxes.distance_m(points).amin(1) == 0
    found = boxes.block(start, end)[:, 0]
    assert 20 < int(expected.sum()) < 280
    assert int((found != expected).sum()) <= 2  # corners cut between two samples


def test_footprints_overlap_as_sampling_says() -> None:
    draw, count = Draw(1), 40
    half, centre = draw.uniform(0.1, 1.0, 1, count, 3), 2 * draw.normal(1, count, 3)
    centre[..., 1] = half[..., 1] = 1.0
    turn = rotations.about_y(draw.uniform(-3.0, 3.0, 1, count))
    boxes = Boxes(centre, half, turn, torch.ones(1, count, dtype=torch.bool))
    found = world.footprints_overlap(boxes)[0]
    axis = torch.linspace(-1, 1, 41)
    grid = torch.cartesian_prod(axis, torch.zeros(1), axis)
    points = (grid * half[0, :, None]) @ turn[0].mT + centre[0, :, None]  # K N 3
    gap = Boxes(*(value[0][:, None] for value in vars(boxes).values())).distance_m(points[None])
    expected = (gap == 0).any(-1)
    expected = expected | expected.mT
    assert 0.05 < expected.float().mean() < 0.6
    assert (found >= expected).all()
    assert (found != expected).float().mean() < 0.03  # slivers between the samples


def lenses(camera: Tensor) -> Tensor:
    """Left cameras (B, 3) and right ones 2 m along x: (B, 2, 3)."""
    return torch.stack([camera, camera + camera.new_tensor([2.0, 0.0, 0.0])], 1)


@pytest.fixture(scope='module')
def crowded_world() -> tuple[world.World, tuple[Tensor, Tensor, Tensor, Tensor]]:
    joints, scene, spheres, camera = people = crowd(4)
    lights = LightBank(made_up=4)
    return world.sample(
        SCENES, BANK, lights, Draw(5), lenses(camera), joints, scene, spheres
    ), people  # fmt: skip


def test_furniture_keeps_clear_of_people_and_cameras(
    crowded_world: tuple[world.World, tuple[Tensor, Tensor, Tensor, Tensor]],
) -> None:
    made, (_, scene, spheres, camera) = crowded_world
    corners, home = triangles(made.mesh)
    points = surface_points(corners)
    for number in range(SCENES):
        here = points[home == number].reshape(-1, 3)
        assert len(here) > 0
        body = spheres[scene == number].reshape(-1, 4).double()
        above = here[here[:, 1] > 0.05]  # feet stand on carpets
        gap = (torch.cdist(above, body[:, :3]) - body[:, 3]).amin(1)
        # what hangs on walls stays there: a radiator may touch who stands close to it
        room = made.room
        place = above @ room.turn[number].double().T
        to_wall = torch.minimum(place - room.low_m[number], room.high_m[number] - place)
        hung = (to_wall[:, [0, 2]].amin(1) < 0.3) & ~room.outdoors[number]
        assert (gap[~hung] > 0.0).all()
        assert gap.amin() > -0.06
        assert torch.cdist(here, lenses(camera)[number].double()).min() > 0.2


def test_furniture_is_inside_its_room_and_on_its_floor(
    crowded_world: tuple[world.World, tuple[Tensor, Tensor, Tensor, Tensor]],
) -> None:
    made, _ = crowded_world
    mesh, room = made.mesh, made.room
    inside = ~room.outdoors[mesh.scene]
    local = (room.turn[mesh.scene] @ mesh.vertices_m[..., None])[..., 0][inside]
    low, high = room.low_m[mesh.scene][inside], room.high_m[mesh.scene][inside]
    over = torch.maximum(low - local, local - high).amax()
    assert over < 0.25  # benches' backs and window sills reach a little beyond their boxes
    assert (mesh.vertices_m[:, 1] > -0.06).all()
    assert 0.1 < room.outdoors.float().mean() < 0.6
    faces = torch.bincount(mesh.scene[mesh.faces[:, 0]], minlength=SCENES)
    assert faces.float().mean() > 200
    assert faces.float().mean() < 1500


def test_rooms_hold_people_and_cameras(
    crowded_world: tuple[world.World, tuple[Tensor, Tensor, Tensor, Tensor]],
) -> None:
    made, (_, scene, spheres, camera) = crowded_world
    room = made.room
    body = (room.turn[scene][:, None] @ spheres[..., :3, None])[..., 0]
    low, high = room.low_m[scene][:, None], room.high_m[scene][:, None]
    assert (body - spheres[..., 3:] > low - 1e-4)[..., [0, 2]].all()
    assert (body + spheres[..., 3:] < high + 1e-4).all()
    lens = lenses(camera) @ room.turn.mT
    assert (lens > room.low_m[:, None] + 0.1).all()
    assert (lens < room.high_m[:, None] - 0.1).all()


def test_same_seed_gives_the_same_world() -> None:
    joints, scene, spheres, camera = crowd(4)
    lights = LightBank(made_up=4)
    first, second = (
        world.sample(SCENES, BANK, lights, Draw(9), lenses(camera), joints, scene, spheres).mesh
        for _ in range(2)
    )
    for field in fields(Mesh):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name))


def test_occluders_hide_part_of_the_subject() -> None:
    hidden = []
    for seed in range(5):
        joints, scene, spheres, camera = crowd(seed)
        open_ground = rooms(seed)
        room = Room(*(getattr(open_ground, f.name).repeat_interleave(SCENES // 4, 0)
                      for f in fields(Room)))  # fmt: skip
        mesh, surfaces = occluders.occluders(
            BANK, Draw(seed + 50), room, camera, joints, scene, spheres
        )
        assert (surfaces.owner == NOBODY).all()
        corners, home = triangles(mesh)
        for number in range(SCENES):
            here = corners[home == number]
            hidden.append(blocked(here, camera[number].expand(17, 3), joints[number]))
            if len(here) > 0:
                points = surface_points(here).reshape(-1, 3)
                assert torch.cdist(points, camera[number, None].double()).min() > 0.29
                body = spheres[scene == number].reshape(-1, 4).double()
                assert (torch.cdist(points, body[:, :3]) - body[:, 3]).min() > 0
    table = torch.stack(hidden).double()
    assert 0.12 <= table.mean() <= 0.35
    assert (table.sum(1) > 13).double().mean() < 0.03  # hardly ever all of the person
    assert (table.mean(0) > 0.04).all()  # every joint now and then


def sitters(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Joints of sitters, the points under them, and their scenes."""
    draw = Draw(2)
    yaw = rotations.about_y(draw.uniform(-3.0, 3.0, count))
    joints = joints_of(SITTING_M) + 0.01 * draw.normal(count, 17, 3)
    tall = draw.uniform(0.7, 1.1, count, 1, 1)
    seat = torch.tensor([0.0, 0.45, -0.02]) * tall[:, 0]
    return (joints * tall) @ yaw.mT, (yaw @ seat[..., None])[..., 0], torch.arange(count)


def test_seats_are_as_high_as_their_sitters_and_leave_their_legs_free() -> None:
    joints, seat, scene = sitters(50)
    things = props.seats(joints, seat, scene, Draw(3))
    assert int(things.present.sum()) == 50
    chosen = things[things.present]
    assert torch.equal(chosen.scene, scene)
    catalogue = props.catalogue('cpu')
    assert len(chosen.kind.unique()) >= 5
    torch.testing.assert_close(chosen.size_m[:, 1], seat[:, 1])
    boxes = catalogue.boxes(chosen)
    below = seat - torch.tensor([0.0, 0.02, 0.0])
    assert (boxes.distance_m(below[:, None, None]).amin(1) < 0.01).all()  # it carries them
    calves = [
        (H36M_17.index(f'{side}_knee'), H36M_17.index(f'{side}_ankle'))
        for side in ('left', 'right')
    ]
    steps = torch.linspace(0.1, 1, 20)[:, None]
    for knee, ankle in calves:
        calf = joints[:, None, knee] + steps * (joints[:, ankle] - joints[:, knee])[:, None]
        assert (boxes.distance_m(calf[:, None]) > 0.03).all()


def test_who_stands_has_no_seat() -> None:
    joints, _, scene = sitters(5)
    things = props.seats(joints, torch.full((5, 3), torch.nan), scene, Draw(3))
    assert not things.present.any()


def carried(share: float, **values: Tensor) -> Mesh:
    joints, scene, spheres, _ = crowd(1)
    hands = torch.eye(4).repeat(PEOPLE, 2, 1, 1)
    hands[:, 0, :3, 3] = joints[:, H36M_17.index('left_wrist')]
    hands[:, 1, :3, 3] = joints[:, H36M_17.index('right_wrist')]
    back = torch.eye(4).repeat(PEOPLE, 1, 1)
    back[:, :3, 3] = joints[:, H36M_17.index('spine')]
    mesh, surfaces = props.props(
        BANK, Draw(2), joints_m=joints, scene=scene, spheres=spheres, hands_m=hands, back_m=back,
        seat_m=torch.full((PEOPLE, 3), torch.nan), share=share,
        hanging=values.get('hanging', torch.zeros(PEOPLE, dtype=torch.bool)),
        velocity_m_s=values.get('velocity'),
    )  # fmt: skip
    assert (surfaces.owner == NOBODY).all()
    return mesh


def test_people_carry_things_as_often_as_asked() -> None:
    assert len(carried(0.0).faces) == 0
    some, all_ = carried(0.25), carried(1.0)
    assert 0 < len(some.faces) < len(all_.faces)
    assert len(all_.scene.unique()) > 10


def test_what_is_held_moves_with_the_hand() -> None:
    velocity = torch.tensor([0.5, -1.0, 2.0]).expand(PEOPLE, 17, 3)
    mesh = carried(1.0, velocity=velocity)
    torch.testing.assert_close(mesh.velocity_m_s, velocity[0, :1].expand_as(mesh.velocity_m_s))


def test_who_hangs_has_a_bar_through_both_palms() -> None:
    hands = torch.eye(4).repeat(3, 2, 1, 1)
    hands[:, 0, :3, 3] = torch.tensor([0.3, 2.0, 0.1])
    hands[:, 1, :3, 3] = torch.tensor([-0.3, 2.1, 0.0])
    joints, far = joints_of(STANDING_M).expand(3, 17, 3), torch.full((3, 1, 4), 50.0)
    far[..., 3] = 0.1
    hanging = torch.tensor([True, False, True])
    things = props.bars(joints, hands, torch.arange(3), far, hanging, Draw(0))
    assert sorted(things.scene[things.present].tolist()) == [0, 0, 0, 2, 2, 2]
    boxes = props.catalogue('cpu').bounds(things[things.present & (things.scene == 0)])
    palms = hands[0, :, :3, 3]
    assert (boxes.distance_m(palms[None]).amin(0) == 0).all()
    mesh, _ = props.catalogue('cpu').build(things, BANK, Draw(1))
    assert mesh.vertices_m[:, 1].min().abs() < 1e-5  # the posts stand on the floor


def test_who_climbs_has_a_rung_in_each_palm_and_none_through_the_head() -> None:
    hands = torch.eye(4).repeat(2, 2, 1, 1)
    hands[:, 0, :3, 3] = torch.tensor([0.3, 2.1, 0.1])
    hands[:, 1, :3, 3] = torch.tensor([-0.3, 1.2, 0.1])
    joints = joints_of(STANDING_M).expand(2, 17, 3)
    spheres = torch.tensor([[0.0, 1.65, 0.1, 0.15], [0.62, 1.0, 0.1, 0.2]])[:, None]
    things = props.bars(
        joints, hands, torch.arange(2), spheres, torch.ones(2, dtype=torch.bool), Draw(0)
    )
    catalogue = props.catalogue('cpu')
    for number in range(2):
        here = things[things.present & (things.scene == number)]
        boxes = catalogue.bounds(here)
        held = boxes.distance_m(hands[number, :, :3, 3][None]).amin(0) == 0
        # at the left hand of the second the post would stand in a body
        assert held.tolist() == [number == 0, True]
        assert (boxes.distance_m(spheres[number, None, :, :3]) > spheres[number, 0, 3]).all()
