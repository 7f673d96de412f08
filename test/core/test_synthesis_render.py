"""The renderer: what it draws is where the geometry and the light say it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from rsb_pose_core.synthesis import lighting
from rsb_pose_core.synthesis.lighting import Light
from rsb_pose_core.synthesis.mesh import NOBODY, Mesh, Surfaces, join
from rsb_pose_core.synthesis.occlusion import sphere_openness
from rsb_pose_core.synthesis.rasterizer import NEAR_M, rasterize
from rsb_pose_core.synthesis.render import Renderer
from rsb_pose_core.synthesis.room import Room
from rsb_pose_core.synthesis.shading import Surfels, ambient_light, relieved, shade
from rsb_pose_core.synthesis.shadows import shadow_map
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.view import View

Part = tuple[Mesh, Surfaces]


class Gradient:
    """A panorama whose colour is the direction."""

    def radiance(self, panorama: Tensor, direction: Tensor) -> Tensor:
        return normalize(direction, dim=1) * 0.5 + 0.5 + panorama[:, None]


@pytest.fixture(scope='module')
def bank() -> TextureBank:
    hole = np.full((16, 16, 4), 255, np.uint8)
    hole[4:12, 4:12, 3] = 0
    return TextureBank(3, named={'hole': hole}, cloths=14, surfaces=40)


@pytest.fixture(scope='module')
def renderer(bank) -> Renderer:
    return Renderer(bank, Gradient())


def ball(centre: tuple[float, float, float], radius: float, rows: int = 60, **values) -> Part:
    """A sphere of 2 * rows * rows triangles."""
    polar = torch.linspace(0, torch.pi, rows + 1)
    azimuth = torch.arange(rows) / rows * 2 * torch.pi
    t, p = torch.meshgrid(polar, azimuth, indexing='ij')
    normal = torch.stack([t.sin() * p.sin(), t.cos(), t.sin() * p.cos()], -1).view(-1, 3)
    i, j = torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing='ij')
    a, b = i * rows + j, i * rows + (j + 1) % rows
    quads = torch.stack([a, a + rows, b + rows, b], -1).view(-1, 4)
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return part(normal * radius + torch.tensor(centre), normal, faces, **values)


def quad(corners: list[tuple[float, float, float]], **values) -> Part:
    """A rectangle of two triangles; texture coordinates 0..1."""
    points = torch.tensor(np.array(corners), dtype=torch.float32)
    normal = normalize(torch.linalg.cross(points[1] - points[0], points[2] - points[0]), dim=0)
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    return part(points, normal.repeat(4, 1), torch.tensor([[0, 1, 2], [0, 2, 3]]), uv, **values)


def part(
    points: Tensor, normals: Tensor, faces: Tensor, uv: Tensor | None = None, scene: int = 0,
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0), grey: float = 0.5, **values,
) -> Part:  # fmt: skip
    uv = points[:, :2] if uv is None else uv
    mesh = Mesh.solid(
        points, normals, uv, torch.full((len(points),), scene), faces,
        torch.zeros(len(faces), dtype=torch.long),
    )  # fmt: skip
    mesh = replace(mesh, velocity_m_s=torch.tensor(velocity).expand(len(points), 3))
    surfaces = Surfaces.plain(torch.full((1, 3), grey))
    given = {
        name: torch.as_tensor(value).expand_as(getattr(surfaces, name))
        for name, value in values.items()
    }
    return mesh, replace(surfaces, **given)


def room(bank: TextureBank, count: int = 1, outdoors: bool = False, **values) -> Room:
    walls = torch.full((count, 6), bank.white)
    made = Room(
        torch.eye(3).repeat(count, 1, 1), torch.tensor([[-3.0, 0, -2]]).repeat(count, 1),
        torch.tensor([[3.0, 2.8, 4]]).repeat(count, 1), torch.full((count,), outdoors), walls,
        torch.full((count, 6), 0.7), torch.full((count, 6, 3), 0.6), torch.zeros(count, 6),
    )  # fmt: skip
    return replace(made, **values)


def light(
    count: int = 1, direction: tuple[float, float, float] = (0.48, 0.8, 0.36), sun: float = 1.0,
    size: float = 0.01, ambient: float = 0.3,
) -> Light:  # fmt: skip
    coefficients = torch.zeros(count, 9, 3)
    coefficients[:, 0] = ambient
    return Light(
        torch.tensor([direction]).repeat(count, 1), torch.full((count, 3), sun),
        torch.full((count,), size), coefficients, torch.zeros(count, dtype=torch.long),
        torch.eye(3).repeat(count, 1, 1), torch.ones(count, 3),
    )  # fmt: skip


def stereo(
    count: int = 1,
    height: int = 96,
    width: int = 128,
    baseline: float = 0.15,
    focal: float = 130.0,
) -> tuple[View, Tensor]:
    """Pairs at 1.3 m, 3 m before the origin, looking a little down; and the images' scenes."""
    pitch = torch.tensor(0.1)
    rotation = torch.tensor([
        [1.0, 0, 0], [0, -pitch.cos(), -pitch.sin()], [0, pitch.sin(), -pitch.cos()],
    ])  # fmt: skip
    centre = torch.tensor([-baseline / 2, 1.3, 3.0]).repeat(2 * count, 1)
    centre[count:, 0] += baseline
    number = torch.full((2 * count,), focal)
    view = View(
        number, number * 1.02, number * 0 + width * 0.47, number * 0 + height * 0.52,
        rotation.repeat(2 * count, 1, 1), centre, height, width,
    )  # fmt: skip
    return view, torch.arange(count).repeat(2)


def no_spheres(count: int = 1) -> Tensor:
    return torch.zeros(count, 1, 4)


def brute_force(
    points: np.ndarray, faces: np.ndarray, size: tuple[int, int], cull: np.ndarray,
    opacity: np.ndarray, lift: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Face and depth at every pixel, by float64 rays against every triangle."""
    best, race, depth = np.full(size, -1), np.zeros(size), np.full(size, np.inf)
    for number, face in enumerate(faces):
        corners = points[:, face].T  # rows u w, v w, w
        inverse = np.linalg.inv(corners.T)
        for y in range(size[0]):
            for x in range(size[1]):
                q = inverse @ [x, y, 1]  # corners^T q = (x, y, 1): sum(q) is 1 / depth
                nearness = q.sum()
                if q.min() < 0 or not 0 < nearness < 1 / NEAR_M or q @ opacity[face] <= 0:
                    continue
                if cull[number] and np.linalg.det(corners) > 0:
                    continue
                if nearness * (1 + lift[number]) > race[y, x]:
                    best[y, x], depth[y, x] = number, 1 / nearness
                    race[y, x] = nearness * (1 + lift[number])
    return best, depth


def random_soup(seed: int, faces: int) -> tuple[np.ndarray, ...]:
    """Triangles around a camera, some of them across its near plane and behind it."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 1.2, (3, 3 * faces))
    xyz[2] = rng.uniform(-1.0, 4.0, 3 * faces)
    points = np.stack([20 * xyz[0] + 10 * xyz[2], 20 * xyz[1] + 8 * xyz[2], xyz[2]])
    return (
        points, rng.permutation(3 * faces).reshape(faces, 3), rng.random(faces) < 0.3,
        rng.uniform(-0.4, 1.0, 3 * faces), rng.choice([0.0, 0.2], faces),
    )  # fmt: skip


@pytest.mark.parametrize('seed', range(3))
def test_rasterizer_agrees_with_rays_in_float64(seed):
    points, faces, cull, opacity, lift = random_soup(seed, 24)
    expected, depth = brute_force(points, faces, (17, 21), cull, opacity, lift)
    drawn = rasterize(
        torch.tensor(points, dtype=torch.float32), torch.tensor(faces.T),
        torch.zeros(len(faces), dtype=torch.long), (1, 17, 21), cull=torch.tensor(cull),
        opacity=torch.tensor(opacity, dtype=torch.float32),
        lift=torch.tensor(lift, dtype=torch.float32),
    )  # fmt: skip
    found = drawn.fragments()
    best, z = np.full(17 * 21, -1), np.full(17 * 21, np.inf)
    best[found.pixel] = found.face
    z[found.pixel] = 1 / found.inverse_depth
    behind = (points[2, faces] < NEAR_M).any(1) & (points[2, faces] > NEAR_M).any(1)
    assert behind[expected[expected >= 0]].sum() > 20  # the test has faces across the near plane
    assert (best != expected.ravel()).sum() <= 1  # an edge through a pixel's centre
    same = (best == expected.ravel()) & (best >= 0)
    assert np.allclose(z[same], depth.ravel()[same], rtol=1e-4)
    assert torch.allclose(found.weight.sum(0), torch.ones(len(found.pixel)))


def test_rasterizer_gives_the_same_in_small_portions():
    points, faces, _, opacity, _ = random_soup(5, 30)
    arguments = (
        torch.tensor(points, dtype=torch.float32), torch.tensor(faces.T), torch.arange(30) % 2,
        (2, 32, 40),
    )  # fmt: skip
    values = torch.tensor(opacity, dtype=torch.float32)
    whole = rasterize(*arguments, opacity=values)
    parts = rasterize(*arguments, opacity=values, max_fragments=500)
    assert (whole.race > 0).sum() > 300
    assert torch.equal(whole.race, parts.race)
    only = torch.rand(2, 32, 40, generator=torch.Generator().manual_seed(0)) < 0.3
    some = rasterize(*arguments, opacity=values, only=only)
    assert torch.equal(some.race, whole.race * only.view(-1))


def test_interpolation_is_perspective_correct():
    """A rectangle recedes from 1 m to 4 m: halfway across the image is nearer than halfway."""
    points = torch.tensor([[-1.0, -1, 1], [-1, 1, 1], [4.0, -4, 4], [4, 4, 4]]).T
    pixels = torch.stack([*(16 * points[:2] + 16 * points[2]), points[2]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]]).T
    found = rasterize(pixels, faces, torch.zeros(2, dtype=torch.long), (1, 33, 33)).fragments()
    x, _, z = found.interpolate(points, faces)
    u = (found.pixel % 33).float()
    # on the plane through (-1, 1 m) and (4, 4 m): x = 5/3 z - 8/3, and x/z = (u - 16) / 16
    depth = (8 / 3) / (5 / 3 - (u - 16) / 16)
    assert len(u) > 500
    assert torch.allclose(z, depth, atol=1e-4)
    assert torch.allclose(x, (u - 16) / 16 * depth, atol=1e-4)
    # the area of the plane that a pixel sees
    a, b, c = points.T[faces]
    area = torch.linalg.cross(b - a, c - a)
    slant = area.norm(dim=1)[found.face] * found.spread
    cosine = torch.tensor([-1.0, 0, 5 / 3]) / (1 + 25 / 9) ** 0.5
    ray = torch.stack([(u - 16) / 16, ((found.pixel / 33).floor() - 16) / 16, torch.ones_like(u)])
    facing = (cosine[:, None] * ray).sum(0).abs()  # of the ray with optical depth 1
    assert torch.allclose(slant, (depth / 16) ** 2 / facing, rtol=1e-3)


def test_depth_and_disparity_of_a_plane_are_exact(bank, renderer):
    """A big tilted rectangle from behind the camera to the far wall."""
    corners = [(-2.0, 0.2, 3.5), (2.0, 0.4, 3.6), (2.2, 1.6, -1.9), (-2.0, 1.4, -1.8)]
    corners[2] = tuple(np.subtract(np.add(corners[1], corners[3]), corners[0]))
    view, images = stereo()
    mesh, surfaces = quad(corners, double_sided=True)
    drawn = renderer.render(mesh, surfaces, room(bank), light(), view, images, no_spheres())
    rays = view.rays().double()
    a, b, c = (torch.tensor(corner, dtype=torch.float64) for corner in corners[:3])
    normal = torch.linalg.cross(b - a, c - a)
    expected = ((a - view.centre_m) @ normal)[:, None, None] / (rays @ normal)
    covered = drawn.thing
    assert covered.sum() > 4000
    focal_baseline = 130.0 * 0.15
    error = focal_baseline / drawn.depth_m - focal_baseline / expected
    assert error[covered].abs().max() < 1e-3  # pixels of disparity
    # the same point of the plane in the right image, fB/Z further left, has the same depth
    y, x = covered[0].nonzero().T
    column = x - focal_baseline / drawn.depth_m[0, y, x]
    place = torch.stack([(column + 0.5) / 128 * 2 - 1, (y + 0.5) / 96 * 2 - 1], -1)
    inverse = torch.where(covered[1], 1 / drawn.depth_m[1], torch.nan)[None, None]
    there = grid_sample(inverse, place[None, None].float(), align_corners=False)[0, 0, 0]
    seen = torch.isfinite(there) & (column > 1)
    difference = focal_baseline * (there - 1 / drawn.depth_m[0, y, x])
    assert seen.sum() > 2000
    assert difference[seen].abs().max() < 0.01


def test_depth_of_a_sphere_is_exact(bank, renderer):
    view, images = stereo()
    mesh, surfaces = ball((0.2, 1.0, 0.3), 0.5, rows=150, owner=4)
    drawn = renderer.render(mesh, surfaces, room(bank), light(), view, images, no_spheres())
    rays = view.rays().double()
    away = view.centre_m[:, None, None].double() - torch.tensor([0.2, 1.0, 0.3])
    a, b = (rays**2).sum(-1), (rays * away).sum(-1)
    root = b**2 - a * ((away**2).sum(-1) - 0.25)
    expected = (-b - root.clamp_min(0).sqrt()) / a
    inside = root / b**2 > 0.002
    assert (drawn.owner[inside] == 4).all()
    assert (drawn.owner[root < 0] == NOBODY).all()
    error = 130 * 0.15 * (1 / drawn.depth_m - 1 / expected)
    assert error[inside].abs().max() < 0.01


def test_right_view_warped_by_disparity_matches_the_left_best_at_zero(bank, renderer):
    view, images = stereo(height=120, width=160)
    wall, floor = int(bank.of('wall')[3]), int(bank.of('floor')[1])
    textured = room(bank, texture=torch.tensor([[wall, wall, floor, wall, wall, wall]]))
    scene = join([
        ball((0.0, 1.2, 0.4), 0.5, texture=int(bank.of('cloth')[2]), grey=0.9),
        quad([(0.5, 0.1, -0.4), (1.3, 0.2, 0.6), (1.2, 1.4, 0.5), (0.4, 1.3, -0.5)],
             texture=int(bank.of('cloth')[4]), grey=0.9, double_sided=True),
    ])  # fmt: skip
    drawn = renderer.render(*scene, textured, light(), view, images, no_spheres())
    left, right = drawn.linear.permute(0, 3, 1, 2)[:, None]
    disparity = 130 * 0.15 / drawn.depth_m[0]
    y, x = torch.meshgrid(torch.arange(120), torch.arange(160), indexing='ij')
    errors = {}
    for shift in (-0.5, -0.25, 0.0, 0.25, 0.5):
        column = x - disparity + shift
        place = torch.stack([(column + 0.5) / 160 * 2 - 1, (y + 0.5) / 120 * 2 - 1], -1)
        warped = grid_sample(right, place[None], align_corners=False)
        seen = (column > 0) & (column < 159)
        errors[shift] = float((warped - left).abs().mean(1)[0][seen].median())
    assert min(errors, key=errors.__getitem__) == 0.0
    assert min(errors[0.25], errors[-0.25]) > 1.3 * errors[0.0]


def test_cut_outs_show_what_lies_behind(bank, renderer):
    corners = [(-0.4, 0.8, 1.0), (0.4, 0.8, 1.0), (0.4, 1.6, 1.0), (-0.4, 1.6, 1.0)]
    view, images = stereo()
    mesh, surfaces = quad(corners, texture=bank.number('hole'), cut_out=True)
    drawn = renderer.render(mesh, surfaces, room(bank), light(), view, images, no_spheres())
    rays = view.rays()
    depth = (1.0 - view.centre_m[:, None, None, 2]) / rays[..., 2]
    place = view.centre_m[:, None, None] + rays * depth[..., None]
    off = torch.maximum(place[..., 0].abs(), (place[..., 1] - 1.2).abs())
    assert drawn.thing[(off > 0.22) & (off < 0.39)].all()
    assert not drawn.thing[off < 0.18].any()
    assert (drawn.depth_m[off < 0.18] > 4).all()
    # the sun shines through the hole onto the far wall
    axis = (0.0, 0.0, 1.0)
    through = shadow_map(
        mesh, surfaces, torch.tensor([axis]), torch.tensor([0.001]),
        solid=renderer._solid(mesh, surfaces),
    )  # fmt: skip
    wall = torch.tensor([[0.0, 0.3, 1.0], [1.2, 1.2, 1.2], [-2, -2, -2]])[:, None]
    normal = torch.tensor(axis)[:, None, None].expand(3, 1, 3)
    lit = through.lit(wall, normal, torch.zeros(1, 3), torch.zeros(1, dtype=torch.long))
    assert lit.tolist() == [[1.0, 0.0, 1.0]]


def test_faces_seen_from_behind_are_left_out_unless_double_sided(bank, renderer):
    corners = [(-0.4, 0.8, 1.0), (0.4, 0.8, 1.0), (0.4, 1.6, 1.0), (-0.4, 1.6, 1.0)]
    view, images = stereo()
    shown = {}
    for turned in (False, True):
        for double in (False, True):
            mesh, surfaces = quad(corners[::-1] if turned else corners, double_sided=double)
            drawn = renderer.render(
                mesh, surfaces, room(bank), light(), view, images, no_spheres()
            )
            shown[turned, double] = int(drawn.thing.sum())
    assert shown[True, False] == 0
    assert shown[False, False] == shown[False, True] == shown[True, True] > 1000


def test_lift_wins_the_race_and_leaves_the_depth(bank, renderer):
    corners = [(-0.4, 0.8, 1.0), (0.4, 0.8, 1.0), (0.4, 1.6, 1.0), (-0.4, 1.6, 1.0)]
    behind = [(x, y, z - 0.02) for x, y, z in corners]
    view, images = stereo()
    parts = [quad(corners, owner=1), quad(behind, owner=2, lift=0.03)]
    drawn = renderer.render(*join(parts), room(bank), light(), view, images, no_spheres())
    alone = renderer.render(*parts[1], room(bank), light(), view, images, no_spheres())
    assert (drawn.owner == 2).sum() > 900
    assert torch.equal(drawn.depth_m[drawn.owner == 2], alone.depth_m[drawn.owner == 2])


def ray_test(points: Tensor, direction: Tensor, mesh: Mesh) -> np.ndarray:
    """Which points (P, 3) see the light (float64 Moeller-Trumbore against every triangle)."""
    origin, towards = points.double().numpy(), direction.double().numpy()
    free = np.ones(len(origin), bool)
    for a, b, c in mesh.vertices_m.double().numpy()[mesh.faces.numpy()]:
        p = np.cross(towards, c - a)
        scale = p @ (b - a)
        if abs(scale) < 1e-12:
            continue
        u = (origin - a) @ p / scale
        q = np.cross(origin - a, b - a)
        v, t = q @ towards / scale, q @ (c - a) / scale
        free &= ~((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6))
    return free


def test_shadows_fall_where_rays_say():
    mesh, surfaces = join([
        ball((0.0, 1.2, 0.0), 0.3, rows=16, owner=0),
        quad([(0.6, 0.0, 0.2), (1.1, 0.0, 0.0), (1.1, 0.9, 0.0), (0.6, 0.9, 0.2)]),
    ])  # fmt: skip
    direction = normalize(torch.tensor([0.5, 0.8, 0.4]), dim=0)
    found = shadow_map(mesh, surfaces, direction[None], torch.tensor([0.0005]))
    draw = torch.rand(1500, 2, generator=torch.Generator().manual_seed(3)) * 2.4 - 1.2
    ground = torch.stack([draw[:, 0] - 0.3, torch.zeros(1500), draw[:, 1] - 0.3], 1)
    normal = torch.tensor([0.0, 1, 0])[:, None, None].expand(3, 1, 1500)
    scene = torch.zeros(1, dtype=torch.long)
    lit = found.lit(ground.T[:, None], normal, torch.zeros(1, 1500), scene)[0].numpy()
    expected = ray_test(ground, direction, mesh)
    near = [ray_test(ground + torch.tensor(s), direction, mesh) != expected
            for s in ((0.05, 0, 0), (-0.05, 0, 0), (0, 0, 0.05), (0, 0, -0.05))]  # fmt: skip
    clear = ~np.any(near, 0)
    assert 100 < (~expected).sum() < 700
    assert np.abs(lit - expected)[clear].max() < 0.01
    assert np.abs(lit - expected).mean() < 0.03
    # the ball: no shadow on its day side, night on its other side
    points, normals = mesh.vertices_m[:272].T[:, None], mesh.normals[:272].T[:, None]
    own = found.lit(points, normals, torch.zeros(1, 272), scene)[0]
    facing = mesh.normals[:272] @ direction
    assert (own[facing > 0.15] > 0.9).all()


def test_a_wide_lamp_makes_a_wide_penumbra():
    mesh, surfaces = quad([(-1.0, 1.0, -1.0), (-1.0, 1.0, 1.0), (0, 1.0, 1.0), (0, 1.0, -1.0)])
    x = torch.linspace(-0.5, 0.5, 401)
    ground = torch.stack([x, 0 * x, 0 * x])[:, None]
    normal = torch.tensor([0.0, 1, 0])[:, None, None].expand_as(ground)
    for size in (0.02, 0.1, 0.2):
        found = shadow_map(mesh, surfaces, torch.tensor([[0.0, 1, 0]]), torch.tensor([size]))
        lit = found.lit(ground, normal, torch.zeros(1, 401), torch.zeros(1, dtype=torch.long))[0]
        assert lit[:80].max() < 0.05
        assert lit[-80:].min() == 1
        # the straight edge of a disc: half of its light 0.4 radii about the middle
        width = float(((lit > 0.25) & (lit < 0.75)).float().sum()) * 0.0025
        assert 0.5 * 0.8 * size < width < 1.6 * 0.8 * size + 0.02
        middle = float(x[(lit > 0.5).float().argmax()])
        assert abs(middle) < 0.03


def test_spheres_hide_as_much_of_the_sky_as_random_rays_say():
    rng = np.random.default_rng(2)
    z = np.sqrt(rng.random(40000))  # cosine-weighted about +y
    turn = rng.random(40000) * 2 * np.pi
    rays = np.stack([np.sqrt(1 - z**2) * np.cos(turn), z, np.sqrt(1 - z**2) * np.sin(turn)], 1)
    spheres = [
        (0.0, 1.0, 0.0, 0.5), (1.0, 0.2, 0.0, 0.4), (0.0, -0.1, 0.8, 0.5), (0.6, 1.0, 0.3, 0.2),
        (0.0, -1.0, 0.0, 0.6), (0.0, 0.3, 0.0, 0.5), (0.0, 1.0, 0.0, 0.0),
    ]  # fmt: skip
    point, normal = torch.zeros(3, 1), torch.tensor([[0.0], [1.0], [0.0]])
    for sphere in spheres:
        centre, radius = np.array(sphere[:3]), sphere[3]
        along = rays @ centre
        expected = ((along > 0) & (centre @ centre - along**2 < radius**2)).mean()
        if radius > np.linalg.norm(centre):
            expected = 0.0  # inside: left out
        found = sphere_openness(point, normal, torch.tensor(sphere)[:, None, None])
        assert float(found) == pytest.approx(1 - expected, abs=0.03), sphere


def test_ambient_light_is_that_of_the_light_bank():
    generator = torch.Generator().manual_seed(1)
    lights = replace(light(3), ambient=torch.rand(3, 9, 3, generator=generator))
    normal = normalize(torch.randn(60, 3, generator=generator), dim=1)
    scene = torch.arange(3).repeat_interleave(20)
    expected = lighting.ambient(lights, scene, normal)
    found = ambient_light(lights.ambient, normal.T.reshape(3, 3, 20))
    assert torch.allclose(found.reshape(3, -1).T, expected, atol=1e-5)


def test_matt_surfaces_reflect_what_falls_on_them():
    normal = normalize(torch.tensor([[0.0, 1, 0], [0.6, 0.8, 0], [-1, -1, 0]]), dim=1).T[:, None]
    zero = torch.zeros(1, 3)
    surfels = Surfels(
        torch.full((3, 1, 3), 0.5), normal, normal, torch.tensor([[1.0, 0.5, 1.0]]),
        torch.tensor([[1.0, 1.0, 0.25]]), zero + 1, zero, torch.zeros(3, 1, 3),
    )  # fmt: skip
    found = shade(surfels, light(direction=(0, 1, 0), sun=2.0, ambient=0.4), torch.zeros(1).long())
    hidden = 0.5 * 0.4 * 0.25 / (1 - 0.5 * 0.75)  # light goes to and fro where it is narrow
    assert torch.allclose(found[0, 0], torch.tensor([1.2, 0.6, hidden]), atol=1e-5)
    shiny = shade(replace(surfels, gloss=zero + 0.8), light(), torch.zeros(1).long())
    assert (shiny > shade(surfels, light(), torch.zeros(1).long())).all()


def test_relief_leaves_flat_surfaces_alone_and_tilts_steep_ones():
    normal = normalize(torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(6)), dim=0)
    normal[:, 0, 0] = torch.tensor([0.0, 1, 0])
    slope = torch.zeros(2, 2, 50)
    assert torch.allclose(relieved(normal, slope), normal, atol=1e-6)
    tilted = relieved(normal, slope + 0.3)
    assert torch.allclose((tilted * normal).sum(0), torch.tensor((1 + 2 * 0.09) ** -0.5))
    assert torch.allclose(tilted.norm(dim=0), torch.ones(2, 50))


def test_sky_is_the_panorama_in_the_direction_of_the_pixel(bank, renderer):
    view, images = stereo()
    turn = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    lights = replace(light(), panorama_turn=turn[None], panorama_gain=torch.full((1, 3), 2.0))
    mesh, surfaces = ball((0.0, 1.0, 0.0), 0.2, rows=8)
    outdoors = room(bank, outdoors=True)
    drawn = renderer.render(mesh, surfaces, outdoors, lights, view, images, no_spheres())
    sky = torch.isinf(drawn.depth_m)
    assert 1000 < sky.sum() < 20000
    expected = normalize(view.rays(), dim=-1) @ turn.T + 1
    assert torch.allclose(drawn.linear[sky], expected[sky], atol=1e-5)
    assert (drawn.owner[sky] == NOBODY).all()
    assert torch.isfinite(drawn.linear).all()


def two_scenes(bank: TextureBank) -> tuple[list[Part], Room, Light, Tensor]:
    parts = []
    for scene in range(2):
        parts += [
            ball((0.3 * scene, 1.0, 0.2), 0.4, scene=scene, owner=scene,
                 texture=int(bank.of('cloth')[scene]), gloss=0.4, bump=0.3, scatter=0.2),
            quad([(-1.0, 0.0, 0.5), (-0.4, 0.0, 0.8), (-0.4, 0.9, 0.8), (-1.0, 0.9, 0.5)],
                 scene=scene, texture=bank.number('hole'), cut_out=True, double_sided=True),
        ]  # fmt: skip
    rooms = room(bank, 2, texture=torch.stack([bank.of('wall')[:6], bank.of('floor')[:6]]))
    rooms = replace(rooms, gloss=torch.full((2, 6), 0.3))
    lights = light(2, size=0.1)
    directions = normalize(torch.tensor([[0.4, 0.8, 0.5], [-0.6, 0.7, 0.2]]), dim=1)
    spheres = torch.tensor([[[0.0, 1, 0.2, 0.35]], [[0.3, 1, 0.2, 0.35]]])
    return parts, rooms, replace(lights, sun_direction=directions), spheres


def rows(value, pick):
    """The scenes `pick` of a dataclass of tensors."""
    return replace(value, **{name: field[pick] for name, field in vars(value).items()})


def test_a_scene_in_a_batch_is_the_scene_alone(bank, renderer):
    parts, rooms, lights, spheres = two_scenes(bank)
    both = renderer.render(*join(parts), rooms, lights, *stereo(2), spheres, velocity=True)
    for scene in range(2):
        mesh, surfaces = join(parts[2 * scene : 2 * scene + 2])
        mesh = replace(mesh, scene=torch.zeros_like(mesh.scene))
        pick = slice(scene, scene + 1)
        alone = renderer.render(
            mesh, surfaces, rows(rooms, pick), rows(lights, pick), *stereo(1), spheres[pick],
            velocity=True,
        )  # fmt: skip
        for name, value in vars(alone).items():
            assert torch.equal(getattr(both, name)[scene::2], value), name


def test_one_image_of_a_scene_is_that_of_the_pair(bank, renderer):
    parts, rooms, lights, spheres = two_scenes(bank)
    view, images = stereo(2)
    both = renderer.render(*join(parts), rooms, lights, view, images, spheres)
    pick = torch.tensor([3, 0, 1])
    fields = {name: value for name, value in vars(view).items() if isinstance(value, Tensor)}
    some = replace(view, **{name: value[pick] for name, value in fields.items()})
    three = renderer.render(*join(parts), rooms, lights, some, images[pick], spheres)
    assert torch.equal(three.linear, both.linear[pick])
    assert torch.equal(three.owner, both.owner[pick])


def test_scenes_without_triangles_or_seen_by_no_camera_are_drawn(bank, renderer):
    parts, rooms, lights, spheres = two_scenes(bank)
    view, images = stereo()
    mesh, surfaces = join(parts[2:])  # the first scene is empty
    for scene in (0, 1):
        drawn = renderer.render(mesh, surfaces, rooms, lights, view, images + scene, spheres)
        assert (drawn.owner == 1).any() == (scene == 1)
        assert torch.isfinite(drawn.linear).all()
        assert torch.isfinite(drawn.depth_m).all()
    nothing = replace(mesh, faces=mesh.faces[:0], surface=mesh.surface[:0])
    drawn = renderer.render(nothing, surfaces, rooms, lights, view, images, spheres, velocity=True)
    assert (drawn.owner == NOBODY).all()
    assert not drawn.thing.any()
    assert torch.isfinite(drawn.linear).all()


def test_supersampling_averages_light_and_keeps_planes_exact(bank, renderer):
    parts, rooms, lights, spheres = two_scenes(bank)
    scene = (*join(parts), rooms, lights, *stereo(2), spheres)
    plain = renderer.render(*scene)
    for factor in (2, 3):
        fine = renderer.render(*scene, supersample=factor)
        assert fine.linear.shape == plain.linear.shape
        room_pixels = (plain.owner == NOBODY) & ~plain.thing & (fine.owner == NOBODY) & ~fine.thing
        error = 130 * 0.15 * (1 / fine.depth_m - 1 / plain.depth_m).abs()
        assert torch.quantile(error[room_pixels], 0.97) < 1e-4
        # edges move by less than a pixel
        assert (fine.owner != plain.owner).float().mean() < 0.01
        assert (fine.linear - plain.linear).abs().mean() < 0.03


def test_smooth_edges_show_the_share_of_each_side(bank, renderer):
    """As many samples per pixel would, without moving what lies beside the edges."""
    view, images = stereo()
    scene = join([
        quad([(-0.5, 0.7, 1.0), (0.3, 0.6, 1.0), (0.5, 1.6, 0.8), (-0.4, 1.7, 0.8)], owner=0),
        ball((0.1, 1.1, 1.3), 0.25, grey=0.2, owner=1),
    ])  # fmt: skip
    arguments = (*scene, room(bank), light(), view, images, no_spheres())
    plain = renderer.render(*arguments, smooth=False)
    smooth = renderer.render(*arguments)
    many = renderer.render(*arguments, smooth=False, supersample=4).linear
    for name in ('depth_m', 'owner', 'thing'):
        assert torch.equal(getattr(plain, name), getattr(smooth, name))
    changed = (plain.linear != smooth.linear).any(-1)
    assert 0.01 < changed.float().mean() < 0.1
    before, after = ((drawn.linear - many)[changed].abs().mean() for drawn in (plain, smooth))
    assert after < 0.5 * before


def test_a_rolling_shutter_bends_what_moves(bank, renderer):
    corners = [(-0.3, 0.4, 1.0), (0.3, 0.4, 1.0), (0.3, 2.2, 1.0), (-0.3, 2.2, 1.0)]
    view, images = stereo()
    mesh, surfaces = quad(corners, velocity=(3.0, 0.0, 0.0), owner=0)
    scene = (room(bank), light(), view, images, no_spheres())
    still = renderer.render(mesh, surfaces, *scene, velocity=True)
    bent = renderer.render(mesh, surfaces, *scene, readout_s=torch.tensor([0.05, 0.0]))
    assert torch.equal(still.owner[1], bent.owner[1])

    def middle(owner: Tensor) -> Tensor:
        x = torch.arange(128).float().expand(96, -1)
        return (x * (owner == 0)).sum(1) / (owner == 0).sum(1)

    moved = middle(bent.owner[0]) - middle(still.owner[0])
    speed = still.velocity_px_s[0, ..., 0].amax(1)
    expected = speed * (torch.arange(96) - 47.5) / 95 * 0.05
    seen = torch.isfinite(moved)
    assert seen.sum() > 60
    assert (moved - expected)[seen].abs().max() < 1.0
    assert expected[seen].abs().max() > 2


def test_velocity_is_what_the_next_moment_shows(bank, renderer):
    view, images = stereo()
    corners = [(-0.4, 0.8, 1.0), (0.4, 0.8, 1.0), (0.4, 1.6, 1.0), (-0.4, 1.6, 1.0)]
    velocity, step = (0.4, -0.3, 0.5), 1e-3
    mesh, surfaces = quad(corners, velocity=velocity)
    drawn = renderer.render(
        mesh, surfaces, room(bank), light(), view, images, no_spheres(), velocity=True
    )
    n, y, x = drawn.thing.nonzero().T
    points = view.centre_m[n] + view.rays()[n, y, x] * drawn.depth_m[n, y, x, None]
    numbers = {name: value for name, value in vars(view).items() if isinstance(value, Tensor)}
    exact = replace(view, **{name: value.double() for name, value in numbers.items()})
    later = exact.camera((points.double() + torch.tensor(velocity) * step)[:, None], n)
    moved = (exact.project(later, n)[:, 0] - torch.stack([x, y], 1)) / step
    assert torch.allclose(drawn.velocity_px_s[n, y, x].double(), moved, atol=0.05)
    assert (drawn.velocity_px_s[~drawn.thing] == 0).all()
