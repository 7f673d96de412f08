"""Scenes for the path tracer; the path tracer itself where BPY_PYTHON, or this Python, has bpy."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis import cycles
from rsb_pose_core.synthesis.cycles_scene import (
    CHEST_M,
    ENVIRONMENT_ROWS,
    GROUND_REACH_M,
    cut_holes,
    picture_of,
    scene_arrays,
)
from rsb_pose_core.synthesis.lighting import Light
from rsb_pose_core.synthesis.mesh import PLAIN, Mesh, Surfaces, join
from rsb_pose_core.synthesis.room import Room
from rsb_pose_core.synthesis.view import View

BPY_PYTHON = os.environ.get('BPY_PYTHON', sys.executable)
PATCH = 0.02  # m


class Bank:
    """Three textures of 2 x 2 texels; number n shows n * 20 + 10 in its first texel."""

    bits = torch.tensor([1, 1, 1])

    def sample(self, texture, uv, tiles_per_pixel):
        row = (uv[:, 1] * 2).long() * 2 + (uv[:, 0] * 2).long()
        srgb = (texture * 20 + 10 + row).float() / 255
        linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return torch.stack([linear, linear, linear, torch.ones_like(linear)], 1)


class Panoramas:
    """Radiance that rises with x of the map, and blinds around its +z."""

    def radiance(self, panorama, direction):
        value = 2 + direction[:, :1] + panorama[:, None]
        return torch.where(direction[:, 2:] > 0.98, 40.0, value).expand(-1, 3)


def square(centre, number=0, scene=0, opacity=(1.0, 1.0, 1.0, 1.0)):
    """A square of two triangles that faces +z."""
    corner = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    mesh = Mesh.solid(
        corner * PATCH + torch.tensor(centre), torch.tensor([[0.0, 0, 1]]).repeat(4, 1),
        corner[:, :2] / 2 + 0.5, torch.full((4,), scene), torch.tensor([[0, 1, 2], [0, 2, 3]]),
        torch.full((2,), number),
    )  # fmt: skip
    return replace(mesh, opacity=torch.tensor(opacity))


def a_room(outdoors=(False, False)):
    return Room(
        turn=torch.tensor([[[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]]).repeat(2, 1, 1),
        low_m=torch.tensor([[-2.0, 0, -3]]).repeat(2, 1),
        high_m=torch.tensor([[2.0, 2.5, 3]]).repeat(2, 1), outdoors=torch.tensor(outdoors),
        texture=torch.tensor([[0, 1, 2, 0, 1, 2]]).repeat(2, 1),
        tiles_per_m=torch.full((2, 6), 0.5), tint=torch.full((2, 6, 3), 0.8),
        gloss=torch.zeros(2, 6),
    )  # fmt: skip


def a_light(panorama=0):
    ambient = torch.zeros(2, 9, 3)
    ambient[:, 0] = 0.5
    return Light(
        sun_direction=torch.tensor([[0.6, 0.8, 0.0]]).repeat(2, 1),
        sun=torch.tensor([[0.3, 0.2, 0.1]]).repeat(2, 1), sun_size=torch.full((2,), 0.1),
        ambient=ambient, panorama=torch.full((2,), panorama),
        panorama_turn=torch.eye(3)[None].repeat(2, 1, 1), panorama_gain=torch.full((2, 3), 2.0),
    )  # fmt: skip


def a_view(scale=1):
    """Two heads: images 0, 1 left, 2, 3 right. Looking along -z, tilted, fx unlike fy."""

    def centre(values):
        return (torch.tensor(values) + 0.5) * scale - 0.5

    angle = torch.tensor(0.2)
    forward = torch.stack([torch.tensor(0.1), -angle.sin(), -angle.cos()])
    forward = forward / forward.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 1, 0]))
    right = right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    left_m = torch.tensor([0.1, 1.6, 1.5])
    return View(
        torch.tensor([100.0, 100, 104, 104]) * scale, torch.tensor([100.0, 100, 90, 90]) * scale,
        centre([70.0, 70, 81, 81]), centre([52.0, 52, 66, 66]),
        rotation.repeat(4, 1, 1),
        torch.stack([left_m, left_m, left_m + 0.2 * right, left_m + 0.2 * right]),
        120 * scale, 160 * scale,
    )  # fmt: skip


def arrays_of(parts, number=0, room=None, light=None, view=None):
    mesh, surfaces = join(parts)
    return scene_arrays(
        mesh, surfaces, room or a_room(), light or a_light(), view or a_view(),
        torch.tensor([0, 1, 0, 1]), Bank(), Panoramas(), number,
    )  # fmt: skip


def plain(count=1, **values):
    return Surfaces.plain(torch.linspace(0.2, 0.9, 3 * count).view(count, 3), **values)


def test_a_scene_gets_its_own_faces_surfaces_and_cameras():
    parts = [
        (square((0.0, 1, 0), scene=0), plain()),
        (square((0.5, 1, 0), scene=1), plain(texture=torch.tensor([2]))),
    ]
    arrays = arrays_of(parts, number=1)
    assert len(arrays['faces']) == 2 + 12  # the square and six walls
    np.testing.assert_allclose(arrays['vertices_m'][:4, 0], [0.48, 0.52, 0.52, 0.48], atol=1e-6)
    np.testing.assert_allclose(arrays['focal_px'], [[100, 100], [104, 90]])
    np.testing.assert_allclose(arrays['centre_px'], [[70, 52], [81, 66]])
    assert arrays['size'].tolist() == [160, 120]
    row = arrays['surface'][0]
    picture = arrays[f'picture_{arrays["texture"][row]}']
    assert picture[..., 0].tolist() == [[50, 51], [52, 53]]
    assert (picture[..., 3] == 255).all()
    assert arrays['double_sided'][row] == np.False_
    assert arrays['double_sided'][arrays['surface'][2:]].all()


def test_surfaces_without_texture_have_no_picture():
    arrays = arrays_of([(square((0.0, 1, 0)), plain(texture=torch.tensor([PLAIN])))])
    assert arrays['texture'][arrays['surface'][0]] == -1
    assert sorted(name for name in arrays if name.startswith('picture')) == [
        'picture_0', 'picture_1', 'picture_2',
    ]  # fmt: skip


def test_textures_keep_their_bytes():
    assert picture_of(Bank(), 1)[..., :3].max(-1).tolist() == [[30, 31], [32, 33]]


def test_holes_are_cut_along_zero_opacity():
    values = torch.tensor([[0.0, 0], [2, 0], [0, 2], [2, 2]])
    opacity = torch.tensor([1.0, -1, -1, -1])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    cut, kept, surface = cut_holes(values, opacity, faces, torch.tensor([5, 6]))
    corners = cut[kept]
    torch.testing.assert_close(corners, torch.tensor([[[0.0, 0], [1, 0], [0, 1]]]))
    assert surface.tolist() == [5]


def test_the_rest_of_a_face_with_one_hidden_corner_keeps_area_and_orientation():
    values = torch.tensor([[0.0, 0], [2, 0], [0, 2]])
    for hidden in range(3):
        opacity = torch.ones(3)
        opacity[hidden] = -1.0
        faces = torch.tensor([[0, 1, 2]])
        cut, kept, _ = cut_holes(values, opacity, faces, torch.tensor([0]))
        a, b, c = (cut[kept[:, k]] for k in range(3))
        area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        assert (area > 0).all()
        assert float(area.sum()) == pytest.approx(2 * 3 / 4)


def test_lifted_layers_come_nearer():
    lifted = plain(lift=torch.tensor([0.01]))
    low = arrays_of([(square((0.1, 1.6, 0)), plain())])['vertices_m'][:4]
    high = arrays_of([(square((0.1, 1.6, 0)), lifted)])['vertices_m'][:4]
    np.testing.assert_allclose(high[:, 2] - low[:, 2], 0.01 * 1.5, rtol=1e-3)


def test_walls_face_inwards_and_bound_the_room():
    arrays = arrays_of([(square((0.0, 1, 0)), plain())])
    points, faces = arrays['vertices_m'], arrays['faces'][2:]
    # the room's x is the world's z: 6 m along x, 4 m along z
    np.testing.assert_allclose(points[4:].min(0), [-3, 0, -2], atol=1e-6)
    np.testing.assert_allclose(points[4:].max(0), [3, 2.5, 2], atol=1e-6)
    a, b, c = (points[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    assert ((normal * ([0, 1.2, 0] - a)).sum(1) > 0).all()
    given = arrays['normals'][faces[:, 0]]
    assert ((normal / np.linalg.norm(normal, axis=1, keepdims=True) * given).sum(1) > 0.999).all()


def test_walls_have_the_texture_coordinates_of_the_renderer():
    room, view = a_room(), a_view()
    from rsb_pose_core.synthesis.room import FLOOR, cast

    hit = cast(room, torch.tensor([0, 1, 0, 1]), view)
    arrays = arrays_of([(square((0.0, 1, 0)), plain())], room=room)
    points, uv = arrays['vertices_m'][4:], arrays['uv'][4:]
    for wall in hit.wall[0].unique().tolist():
        here = slice(4 * wall, 4 * wall + 4)
        # affine map from the wall's corners to their texture coordinates
        matrix, *_ = np.linalg.lstsq(np.c_[points[here], np.ones(4)], uv[here], rcond=None)
        seen = hit.wall[0] == wall
        point = np.c_[hit.point_m[0][seen].numpy(), np.ones(int(seen.sum()))]
        expected = hit.uv_m[0][seen].numpy() * 0.5
        np.testing.assert_allclose(point @ matrix, expected, atol=1e-4)
    assert FLOOR in hit.wall[0].unique().tolist()


def test_outdoors_there_is_wide_ground_a_sun_and_no_lamp():
    outdoors = a_room(outdoors=(True, True))
    arrays = arrays_of([(square((0.0, 1, 0)), plain())], room=outdoors)
    ground = arrays['vertices_m'][4:]
    assert len(ground) == 4
    np.testing.assert_allclose(np.abs(ground), [[GROUND_REACH_M, 0, GROUND_REACH_M]] * 4)
    np.testing.assert_allclose(arrays['sun'], [0.3, 0.2, 0.1])
    assert arrays['lamp_m'].shape == (0, 3)


def test_the_environment_is_the_panorama_with_a_dimmed_sun():
    light = a_light(panorama=1)
    light = replace(light, sun_direction=torch.tensor([[0.0, 0.0, 1.0]]).repeat(2, 1))
    environment = arrays_of([(square((0.0, 1, 0)), plain())], light=light)['environment']
    rows = ENVIRONMENT_ROWS
    assert environment.shape == (rows, 2 * rows, 3)
    # to the right of the middle (+z) lies +x
    np.testing.assert_allclose(environment[rows // 2, rows * 3 // 2], 2 * (2 + 1 + 1), atol=0.02)
    np.testing.assert_allclose(environment[rows // 2, rows // 2], 2 * (2 - 1 + 1), atol=0.02)
    np.testing.assert_allclose(environment[rows // 2, rows], 2 * 6.0)  # GLARE times the gain


def test_lamps_of_a_room_light_its_middle_as_the_engine_does():
    arrays = arrays_of([(square((0.0, 1, 0)), plain())])
    middle = np.array([0, CHEST_M, 0])
    to_lamp = arrays['lamp_m'] - middle
    away = np.linalg.norm(to_lamp, axis=1)
    facing = -(to_lamp * arrays['lamp_direction']).sum(1) / away
    solid_angle = facing * arrays['lamp_side_m'] ** 2 / away**2
    irradiance = (arrays['lamp_radiance'] * solid_angle[:, None])[0]
    np.testing.assert_allclose(irradiance / np.pi, [0.3, 0.2, 0.1], rtol=1e-4)
    inside = np.abs(arrays['lamp_m']) <= [3, 2.5, 2]
    assert inside.all()


def test_a_scene_needs_two_views():
    mesh, surfaces = square((0.0, 1, 0)), plain()
    with pytest.raises(RsbPoseError, match='has 1 views where a left and a right one'):
        scene_arrays(
            mesh, surfaces, a_room(), a_light(), a_view(), torch.tensor([0, 1, 1, 1]), Bank(),
            Panoramas(), 0,
        )  # fmt: skip


def test_checksums_see_values_shapes_and_names():
    array = np.arange(6.0)
    reference = cycles.scene_checksum({'a': array})
    assert reference == cycles.scene_checksum({'a': array.copy()})
    others = [
        {'a': array + 1},
        {'a': array.reshape(2, 3)},
        {'b': array},
        {'a': array.astype('f4')},
    ]
    assert reference not in [cycles.scene_checksum(other) for other in others]


def test_without_bpy_one_sentence_says_what_to_install(tmp_path):
    stub = tmp_path / 'python'
    stub.write_text('#!/bin/sh\nexit 1\n')
    stub.chmod(0o755)
    with pytest.raises(RsbPoseError, match=r"bpy is not installed .*pip install 'rsb_pose_core\["):
        cycles.render_pairs([], tmp_path / 'out', python=str(stub))
    with pytest.raises(RsbPoseError, match='cannot be run'):
        cycles.require_bpy(str(tmp_path / 'no_python'))


def test_noise_and_jpeg_are_mild_and_repeatable():
    picture = np.full((32, 48, 3), 120, np.uint8)
    first, again = (cycles.sensed(picture, np.random.default_rng([3, 1])) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert 0 < np.abs(first.astype(int) - 120).mean() < 4


FAKE_BLENDER = """
import json, sys, zlib, struct
def png(path, w, h):
    raw = b''.join(b'\\0' + bytes([90] * 3 * w) for _ in range(h))
    def chunk(kind, data):
        body = kind + data
        return struct.pack('>I', len(data)) + body + struct.pack('>I', zlib.crc32(body))
    head = struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0)
    with open(path, 'wb') as file:
        file.write(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head)
                   + chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b''))
for line in sys.stdin:
    job = json.loads(line)
    png(job['left'], 16, 12), png(job['right'], 16, 12)
    print(json.dumps({'seconds': 0.1}), flush=True)
"""


@pytest.fixture
def fake_blender(tmp_path, monkeypatch):
    """A worker that answers with grey pictures."""
    worker = tmp_path / 'worker.py'
    worker.write_text(FAKE_BLENDER)
    monkeypatch.setattr(cycles, 'WORKER', worker)
    monkeypatch.setattr(cycles, 'require_bpy', lambda python: None)
    return worker


def test_finished_pairs_are_kept_and_missing_or_changed_ones_rendered(tmp_path, fake_blender):
    out = tmp_path / 'out'
    scenes = [{'vertices': np.full(3, float(i))} for i in range(3)]
    assert cycles.render_pairs(scenes, out, processes=2) == 3
    assert cycles.render_pairs(scenes, out) == 0
    cycles.picture_path(out, 'right', 1).unlink()
    scenes[2]['vertices'] += 1
    assert cycles.render_pairs(scenes, out) == 2
    assert cycles.finished(out) == {i: cycles.scene_checksum(scenes[i]) for i in range(3)}
    records = [json.loads(line) for line in (out / cycles.RECORDS).read_text().splitlines()]
    record = next(record for record in records if record['number'] == 0)
    picture = cv2.imread(str(out / 'left_00000.png'))[..., ::-1]
    assert record['left'] == cycles.picture_checksum(np.ascontiguousarray(picture))


def test_a_worker_that_dies_is_reported_with_its_last_words(tmp_path, fake_blender):
    fake_blender.write_text('import sys; sys.exit("no room for the scene")')
    with pytest.raises(RsbPoseError, match=r'pair 0 \(no room for the scene\).*are kept'):
        cycles.render_pairs([{'a': np.zeros(2)}], tmp_path / 'out')


def path_traced(folder, arrays):
    """Left and right luminance (H, W) as Blender shows a scene; skips without bpy."""
    try:
        cycles.require_bpy(BPY_PYTHON)
    except RsbPoseError:
        pytest.skip('needs bpy; set BPY_PYTHON to an interpreter that has it')
    np.savez(folder / 'scene.npz', **arrays)
    files = {side: str(folder / f'{side}.png') for side in cycles.SIDES}
    worker = subprocess.run(
        [BPY_PYTHON, str(cycles.WORKER), '--samples', '64'], text=True, capture_output=True,
        input=json.dumps({'scene': str(folder / 'scene.npz'), **files}) + '\n',
    )  # fmt: skip
    assert 'seconds' in json.loads(worker.stdout), worker.stderr
    return [cv2.imread(files[side], cv2.IMREAD_GRAYSCALE).astype(float) for side in cycles.SIDES]


def centroid(picture, u, v, radius):
    """Of the brightness (H, W) round a pixel."""
    x, y = int(round(u)) - radius, int(round(v)) - radius
    patch = picture[y : y + 2 * radius + 1, x : x + 2 * radius + 1]
    patch = patch - np.median(np.r_[patch[0], patch[-1]])
    rows, columns = np.mgrid[0 : len(patch), 0 : len(patch[0])]
    return (columns * patch).sum() / patch.sum() + x, (rows * patch).sum() / patch.sum() + y


def bare(parts, view):
    """Arrays of a scene without ground, sun or lamps, in an even white environment."""
    open_ground = a_room(outdoors=(True, True))
    arrays = arrays_of(parts, room=open_ground, light=a_light(panorama=-1), view=view)
    for name in ('faces', 'surface'):  # the ground is last
        arrays[name] = arrays[name][:-2]
    arrays['environment'][:] = 1.0
    arrays['sun'][:] = 0.0
    return arrays


@pytest.mark.slow
def test_blender_shows_points_where_the_view_projects_them(tmp_path):
    view = a_view(scale=4)
    points = torch.tensor(
        [[0.0, 1.2, 0], [0.5, 1.5, -0.3], [-0.4, 1.0, 0.2], [0.4, 0.9, 0.0], [-0.3, 1.6, -0.4]]
    )
    black = Surfaces.plain(torch.zeros(1, 3), double_sided=torch.ones(1, dtype=torch.bool))
    arrays = bare([(square(tuple(point.tolist())), black) for point in points], view)
    for picture, image in zip(path_traced(tmp_path, arrays), (0, 2), strict=True):
        seen_by = torch.tensor([image])
        for u, v in view.project(view.camera(points[None], seen_by), seen_by)[0].tolist():
            found = centroid(-picture, u, v, 12)
            assert np.hypot(found[0] - u, found[1] - v) < 0.05


@pytest.mark.slow
def test_blender_shows_the_environment_where_the_view_looks(tmp_path):
    view = a_view(scale=4)
    towards = torch.nn.functional.normalize(
        torch.tensor([[0.1, -0.2, -1.0], [0.5, 0.05, -1.0], [-0.3, -0.35, -1.0]]), dim=1
    )
    arrays = bare([(square((0.0, 1, 9)), plain())], view)  # behind the cameras
    polar = (np.arange(ENVIRONMENT_ROWS) + 0.5)[:, None] * (np.pi / ENVIRONMENT_ROWS)
    azimuth = (np.arange(2 * ENVIRONMENT_ROWS) + 0.5) * (np.pi / ENVIRONMENT_ROWS) - np.pi
    axes = [np.sin(polar) * np.sin(azimuth), np.cos(polar) + 0 * azimuth]
    texel = np.stack([*axes, np.sin(polar) * np.cos(azimuth)], -1)
    near = np.exp(((texel @ towards.numpy().T) - 1) / 0.02**2).sum(-1)
    arrays['environment'] = (0.3 + np.repeat(near[..., None], 3, 2)).astype(np.float32)
    for picture, image in zip(path_traced(tmp_path, arrays), (0, 2), strict=True):
        seen_by = torch.tensor([image])
        far = view.centre_m[image] + 1e4 * towards[None]
        for u, v in view.project(view.camera(far, seen_by), seen_by)[0].tolist():
            found = centroid(picture, u, v, 24)
            assert np.hypot(found[0] - u, found[1] - v) < 0.4
