"""A scene of the engine as plain arrays, for a path tracer that knows nothing of torch.

`scene_arrays` returns everything one stereo pair needs, in the world of the engine (y up, metres,
linear light). M surfaces, K lamps, all float32 unless said:

    number             ()        of the scene in its batch, int
    size               (2,)      width, height in pixels, int
    focal_px           (2, 2)    fx, fy of the left and the right view
    centre_px          (2, 2)    cx, cy; the centre of the top-left pixel is (0, 0)
    rotation           (2, 3, 3) rows: the cameras' axes (x right, y down, z forward) in the world
    position_m         (2, 3)
    vertices_m         (V, 3)    holes are cut out, room included
    normals            (V, 3)    unit
    uv                 (V, 2)    in tiles, v downward
    faces              (F, 3)    int32
    surface            (F,)      int32, row of what follows
    texture            (M,)      int32, number of a `picture_*`, -1: none
    colour             (M, 3)    multiplies the texture; the albedo where there is none
    gloss, bump        (M,)
    scatter            (M, 3)
    double_sided       (M,)      bool
    cut_out            (M,)      bool
    picture_0, ...     (H, W, 4) uint8 sRGB with alpha
    environment        (H, 2H, 3) radiance; column x looks at azimuth 2 pi (x + 1/2) / (2 H) - pi
                                 from z towards x, rows from straight up to straight down
    sun_direction      (3,)      towards it
    sun                (3,)      irradiance / pi of what faces it; zero in rooms
    sun_size           ()        radius / distance
    lamp_m             (K, 3)    middles of square lamps; none outdoors
    lamp_direction     (K, 3)    where they shine
    lamp_side_m        (K,)
    lamp_radiance      (K, 3)
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis.lighting import CONE, GLARE, Light, ambient
from rsb_pose_core.synthesis.mesh import PLAIN, Mesh, Surfaces
from rsb_pose_core.synthesis.room import CEILING, FLOOR, LOW_X, WALLS, Room
from rsb_pose_core.synthesis.textures import srgb_from_linear
from rsb_pose_core.synthesis.view import View

SceneArrays = dict[str, NDArray[Any]]
ENVIRONMENT_ROWS = 256
GROUND_REACH_M = 2000.0  # half a side of the ground outdoors: its edge is the horizon
CEILING_SHARE = 0.7  # of the light from above that ceiling lamps give; the walls return the rest
CEILING_LAMP_M = 0.9
LAMP_SIDE_M = (0.2, 1.6)
CHEST_M = 1.2  # height at which the lamps' light is what the engine's is
# corners of the six walls in units of low..high, inward side counter-clockwise
CORNERS = torch.tensor(
    [
        [[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],
        [[1, 0, 0], [1, 0, 1], [1, 1, 1], [1, 1, 0]],
        [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]],
        [[0, 1, 0], [1, 1, 0], [1, 1, 1], [0, 1, 1]],
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]],
        [[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 1]],
    ],
    dtype=torch.float32,
)
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


@runtime_checkable
class Textures(Protocol):
    """What is needed of a TextureBank."""

    bits: Tensor  # of each texture: log2 of its side in texels

    def sample(self, texture: Tensor, uv: Tensor, tiles_per_pixel: Tensor) -> Tensor:
        """Linear-light RGBA (P, 4) of textures (P,) at uv (P, 2)."""
        ...


@runtime_checkable
class Panoramas(Protocol):
    """What is needed of a LightBank."""

    def radiance(self, panorama: Tensor, direction: Tensor) -> Tensor:
        """Linear-light radiance (P, 3) of maps (P,) in map-axes directions (P, 3)."""
        ...


def scene_arrays(
    mesh: Mesh, surfaces: Surfaces, room: Room, light: Light, view: View, image_scene: Tensor,
    bank: Textures, lights: Panoramas, scene_number: int,
) -> SceneArrays:  # fmt: skip
    """The arrays listed above for scene `scene_number` of a batch (see Renderer.render).

    Raises RsbPoseError unless the scene has exactly two views, the left one first.
    """
    images = (image_scene == scene_number).nonzero()[:, 0]
    if len(images) != 2:
        raise RsbPoseError(
            f'scene {scene_number} has {len(images)} views where a left and a right one were '
            'expected; render it as a stereo pair'
        )
    parts = [
        _drawn(mesh, surfaces, scene_number, view.centre_m[images[0]]),
        _walls(room, scene_number, len(surfaces)),
    ]
    first = len(parts[0][0])
    vertices, normals, uv = (
        torch.cat([part[k].detach().float().cpu() for part in parts]) for k in range(3)
    )
    faces = torch.cat([parts[0][3].cpu(), parts[1][3].cpu() + first])
    surface = torch.cat([part[4].cpu() for part in parts])
    table = _with_walls(surfaces, room, scene_number)
    used, surface = surface.unique(return_inverse=True)
    table = {name: values[used] for name, values in table.items()}
    numbers, texture = table['texture'].unique(return_inverse=True)
    plain = int((numbers == PLAIN).sum())  # sorted first
    table['texture'] = (texture - plain).int()
    arrays = {
        'number': torch.tensor(scene_number),
        'size': torch.tensor([view.width, view.height]),
        'focal_px': torch.stack([view.fx, view.fy], 1)[images],
        'centre_px': torch.stack([view.cx, view.cy], 1)[images],
        'rotation': view.rotation[images],
        'position_m': view.centre_m[images],
        'vertices_m': vertices,
        'normals': normals,
        'uv': uv,
        'faces': faces.int(),
        'surface': surface.int(),
        **table,
        **_light(light, lights, room, scene_number),
    }
    pictures = {
        f'picture_{i}': picture_of(bank, int(number)) for i, number in enumerate(numbers[plain:])
    }
    return {name: value.detach().cpu().numpy() for name, value in arrays.items()} | pictures


def picture_of(bank: Textures, number: int) -> NDArray[np.uint8]:
    """The finest level of a texture: sRGB with alpha (H, W, 4)."""
    device = bank.bits.device
    side = 1 << int(bank.bits[number])
    middle = (torch.arange(side, device=device) + 0.5) / side
    uv = torch.stack([middle.repeat(side), middle.repeat_interleave(side)], 1)
    texture = torch.full((side * side,), number, device=device)
    texels = bank.sample(texture, uv, torch.zeros(side * side, device=device)).cpu().numpy()
    texels[:, :3] = srgb_from_linear(texels[:, :3])
    return (texels * 255).round().astype(np.uint8).reshape(side, side, 4)


Part = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # vertices, normals, uv, faces, surface


def _drawn(mesh: Mesh, surfaces: Surfaces, number: int, eye_m: Tensor) -> Part:
    """The triangles of one scene without holes, layers lifted off what they coincide with."""
    chosen = mesh.scene[mesh.faces[:, 0]] == number
    faces, surface = mesh.faces[chosen], mesh.surface[chosen]
    used, faces = faces.unique(return_inverse=True)
    points, normals = mesh.vertices_m[used], mesh.normals[used]
    lift = torch.zeros_like(points[:, 0]).scatter_reduce_(
        0, faces.flatten(), surfaces.lift[surface].repeat_interleave(3), 'amax'
    )
    # a gain in nearness is a share of the distance from the eye
    points = points + (lift * (points - eye_m).norm(dim=1))[:, None] * normals
    values = torch.cat([points, normals, mesh.uv[used]], 1)
    values, faces, surface = cut_holes(values, mesh.opacity[used], faces, surface)
    normals = torch.nn.functional.normalize(values[:, 3:6], dim=1)
    return values[:, :3], normals, values[:, 6:], faces, surface


def cut_holes(
    values: Tensor, opacity: Tensor, faces: Tensor, surface: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles clipped to where the interpolated opacity is above zero.

    values (V, C) and opacity (V,) of vertices; faces (F, 3), surface (F,). Faces that a hole's rim
    crosses become one or two smaller ones of the same orientation with new vertices on the rim.
    """
    solid = opacity[faces] > 0
    corners = solid.sum(1)
    whole = corners == 3
    parts, kinds, new = [faces[whole]], [surface[whole]], []
    count = len(values)
    for inside in (1, 2):
        row = (corners == inside).nonzero()[:, 0]
        # turn each face until the corner that differs from the other two comes first
        odd = (solid[row] == (inside == 1)).int().argmax(1)
        step = torch.arange(3, device=faces.device)
        a, b, c = faces[row].gather(1, (odd[:, None] + step) % 3).unbind(1)
        for other in (b, c):
            share = (opacity[a] / (opacity[a] - opacity[other]))[:, None]
            new.append(values[a].lerp(values[other], share))
        on_ab = torch.arange(len(row), device=faces.device) + count
        on_ac = on_ab + len(row)
        count += 2 * len(row)
        if inside == 1:
            parts += [torch.stack([a, on_ab, on_ac], 1)]
        else:
            parts += [torch.stack([on_ab, b, c], 1), torch.stack([on_ab, c, on_ac], 1)]
        kinds += [surface[row]] * inside
    return torch.cat([values, *new]), torch.cat(parts), torch.cat(kinds)


def _walls(room: Room, number: int, first_surface: int) -> Part:
    """Six walls, or a wide ground, as quadrilaterals that face inwards."""
    device = room.low_m.device
    low, high = room.low_m[number], room.high_m[number]
    walls = torch.arange(WALLS, device=device)
    if bool(room.outdoors[number]):
        walls = walls[FLOOR : FLOOR + 1]
        reach = low.new_tensor([GROUND_REACH_M, 0.0, GROUND_REACH_M])
        low, high = -reach + low * low.new_tensor([0, 1, 0]), reach + low.new_tensor([0, 1, 0])
    place = low + (high - low) * CORNERS.to(device)[walls]  # W 4 3, room axes
    side, level = walls <= LOW_X + 1, (walls == FLOOR) | (walls == CEILING)
    across = torch.where(side[:, None], place[..., 2], place[..., 0])
    down = torch.where(level[:, None], place[..., 2], -place[..., 1])
    uv = torch.stack([across, down], -1) * room.tiles_per_m[number, walls][:, None, None]
    normals = room.normals()[number, walls][:, None].expand(-1, 4, -1)
    faces = (QUAD.to(device) + 4 * torch.arange(len(walls), device=device)[:, None, None]).view(
        -1, 3
    )
    return (
        place.reshape(-1, 3) @ room.turn[number], normals.reshape(-1, 3), uv.reshape(-1, 2), faces,
        (first_surface + walls).repeat_interleave(2),
    )  # fmt: skip


def _with_walls(surfaces: Surfaces, room: Room, number: int) -> Mapping[str, Tensor]:
    """The columns of a table of the surfaces and the six walls."""
    walls = Surfaces.plain(
        room.tint[number], texture=room.texture[number], gloss=room.gloss[number],
        double_sided=torch.ones_like(room.texture[number], dtype=torch.bool),
    )  # fmt: skip
    names = ('texture', 'colour', 'gloss', 'scatter', 'bump', 'double_sided', 'cut_out')
    return {
        name: torch.cat([getattr(surfaces, name), getattr(walls, name)]).cpu() for name in names
    }


def _light(light: Light, lights: Panoramas, room: Room, number: int) -> dict[str, Tensor]:
    outdoors = bool(room.outdoors[number])
    lamps = [torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 3)]
    sun = light.sun[number]
    if not outdoors:
        lamps = _room_lamps(light, room, number)
        sun = torch.zeros_like(sun)
    return {
        'environment': _environment(light, lights, number),
        'sun_direction': light.sun_direction[number],
        'sun': sun,
        'sun_size': light.sun_size[number],
        'lamp_m': lamps[0],
        'lamp_direction': lamps[1],
        'lamp_side_m': lamps[2],
        'lamp_radiance': lamps[3],
    }


def _environment(light: Light, lights: Panoramas, number: int) -> Tensor:
    """The panorama in world axes (H, 2H, 3), where the sun is dimmed to what its lamp leaves."""
    rows = ENVIRONMENT_ROWS
    device = light.sun.device
    polar = (torch.arange(rows, device=device) + 0.5)[:, None] * (torch.pi / rows)
    azimuth = (torch.arange(2 * rows, device=device) + 0.5) * (torch.pi / rows) - torch.pi
    towards = torch.stack(
        torch.broadcast_tensors(
            polar.sin() * azimuth.sin(), polar.cos(), polar.sin() * azimuth.cos()
        ),
        -1,
    ).reshape(-1, 3)
    if int(light.panorama[number]) < 0:
        scene = torch.full((len(towards),), number, device=device)
        return ambient(light, scene, towards).view(rows, 2 * rows, 3)
    panorama = light.panorama[number].expand(len(towards))
    radiance = lights.radiance(panorama, towards @ light.panorama_turn[number].mT)
    near_sun = (towards @ light.sun_direction[number] > CONE)[:, None]
    dimmed = radiance * (GLARE / radiance.mean(1, keepdim=True).clamp_min(1e-6)).clamp_max(1.0)
    radiance = torch.where(near_sun, dimmed, radiance) * light.panorama_gain[number]
    return radiance.view(rows, 2 * rows, 3)


def _room_lamps(light: Light, room: Room, number: int) -> list[Tensor]:
    """Four lamps at the ceiling for the light from all sides, one at the wall that the sun shines
    through; irradiance in the room's middle at CHEST_M is as in the engine."""
    low, high, turn = (value[number].cpu() for value in (room.low_m, room.high_m, room.turn))
    middle = (low + high) / 2
    middle[1] = min(CHEST_M, float(high[1]) / 2)
    sun, direction = light.sun[number].cpu(), turn @ light.sun_direction[number].cpu()
    # the window or lamp: where the sun's ray meets the room, a hand before the wall
    ahead = torch.where(direction > 0, high - middle, low - middle)
    reach = (ahead / torch.where(direction.abs() < 1e-6, 1e-6, direction)).min() - 0.1
    reach = reach.clamp_min(0.3)
    side = (2 * reach * light.sun_size[number].cpu()).clamp(*LAMP_SIDE_M)
    places = [middle + direction * reach]
    sides, radiances = [side], [torch.pi * sun * reach**2 / side**2]
    up = torch.tensor([[0.0, 1.0, 0.0]], device=light.sun.device)
    above = ambient(light, torch.tensor([number], device=light.sun.device), up)[0].cpu()
    for x, z in ((0.28, 0.28), (0.28, 0.72), (0.72, 0.28), (0.72, 0.72)):
        share = torch.tensor([x, 1.0, z])
        place = low + (high - low) * share - torch.tensor([0.0, 0.03, 0.0])
        drop, off = (place - middle)[1], (place - middle).norm()
        facing = (drop / off).clamp_min(0.2)  # the lamp shines down on what faces up
        given = CEILING_LAMP_M**2 * facing**2 / off**2 * 4
        places.append(place)
        sides.append(torch.tensor(CEILING_LAMP_M))
        radiances.append(CEILING_SHARE * torch.pi * above / given)
    down = torch.tensor([0.0, -1.0, 0.0]).expand(4, 3)
    directions = torch.cat([-direction[None], down])
    return [
        torch.stack(places) @ turn, directions @ turn, torch.stack(sides), torch.stack(radiances),
    ]  # fmt: skip
