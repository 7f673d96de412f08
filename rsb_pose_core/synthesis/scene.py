"""Rooms, boxes and light; a scene is centred on a person. World: y up, floor at y = 0, metres."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.textures import TextureBank

OPEN_HEIGHT_M = 30.0  # a room this high is outdoors: its ceiling is sky


@dataclass(frozen=True)
class View:
    """N pinhole images of H x W pixels; rows of `rotation` are the camera's axes in the world."""

    fx: Tensor  # N
    fy: Tensor
    cx: Tensor
    cy: Tensor
    rotation: Tensor  # N 3 3
    centre_m: Tensor  # N 3
    height: int
    width: int

    def camera(self, points_m: Tensor, image: Tensor) -> Tensor:
        """World points (P, V, 3) in the optical frames of the images (P,) that see them."""
        moved = points_m - self.centre_m[image][:, None]
        return moved @ self.rotation[image].mT

    def project(self, points_m: Tensor, image: Tensor) -> Tensor:
        """Optical-frame points (P, V, 3) to pixels (P, V, 2)."""
        z = points_m[..., 2].clamp_min(1e-3)
        u = self.fx[image][:, None] * points_m[..., 0] / z + self.cx[image][:, None]
        v = self.fy[image][:, None] * points_m[..., 1] / z + self.cy[image][:, None]
        return torch.stack([u, v], -1)

    def rays(self) -> Tensor:
        """World directions (N, H, W, 3) with optical depth 1."""
        u = torch.arange(self.width, device=self.fx.device)
        v = torch.arange(self.height, device=self.fx.device)
        x = ((u - self.cx[:, None]) / self.fx[:, None])[:, None].expand(-1, self.height, -1)
        y = ((v - self.cy[:, None]) / self.fy[:, None])[:, :, None].expand(-1, -1, self.width)
        return torch.stack([x, y, torch.ones_like(x)], -1) @ self.rotation[:, None]


@dataclass(frozen=True)
class Scene:
    """B scenes: a room, K boxes in it, and light."""

    room_turn: Tensor  # B 3 3, room from world
    room_low_m: Tensor  # B 3
    room_high_m: Tensor  # B 3
    wall_texture: Tensor  # B 6: -x, +x, floor, ceiling, -z, +z
    wall_tiles_per_m: Tensor  # B 6
    wall_tint: Tensor  # B 6 3
    sky: Tensor  # B 3, colour; NaN indoors
    box_centre_m: Tensor  # B K 3
    box_half_m: Tensor  # B K 3
    box_turn: Tensor  # B K 3 3, world from box
    box_present: Tensor  # B K
    box_texture: Tensor  # B K
    box_tiles_per_m: Tensor  # B K
    box_tint: Tensor  # B K 3
    sun_direction: Tensor  # B 3, towards the light
    sun: Tensor  # B 3
    above: Tensor  # B 3, light from the sky or ceiling
    below: Tensor  # B 3, light from the floor
    fill_direction: Tensor  # B 3
    fill: Tensor  # B 3


def sample_scene(
    count: int, bank: TextureBank, draw: Draw, camera_m: Tensor, person_m: Tensor, boxes: int = 5
) -> Scene:
    """Scenes round a person at the origin whose body reaches from 0 to `person_m` (B, 3) high.

    camera_m (B, 3): the camera, which must be inside the room. Boxes are furniture beside the
    person; the last one is an occluder between the camera and the person in one scene of four.
    """
    device = draw.device
    outdoors = draw.chance(0.3, count)[:, None]
    turn = rotations.about_y(draw.uniform(-torch.pi, torch.pi, count))
    inside = (turn @ camera_m[..., None])[..., 0]
    margin = draw.uniform(0.15, 0.6, count, 3)
    reach = torch.where(
        outdoors, draw.uniform(6.0, 30.0, count, 3), draw.uniform(0.9, 4.5, count, 3)
    )
    low = torch.minimum(-reach, inside - margin)
    reach = torch.where(
        outdoors, draw.uniform(6.0, 30.0, count, 3), draw.uniform(0.9, 4.5, count, 3)
    )
    high = torch.maximum(reach, inside + margin)
    low[:, 1] = 0.0
    ceiling = torch.maximum(draw.uniform(2.3, 3.4, count), person_m[:, 1] + 0.1)
    high[:, 1] = torch.where(
        outdoors[:, 0], OPEN_HEIGHT_M, torch.maximum(ceiling, inside[:, 1] + 0.1)
    )
    surfaces = bank.count - bank.cloths
    walls = bank.cloths + draw.integer(surfaces, count, 6)
    same = draw.chance(0.5, count)
    for wall in (1, 4, 5):
        walls[:, wall] = torch.where(same, walls[:, 0], walls[:, wall])
    tiles = torch.where(
        outdoors, draw.log_uniform(2.0, 10.0, count, 6), draw.log_uniform(0.8, 4.0, count, 6)
    )
    sky = draw.uniform(0.3, 1.0, count, 3)
    sky = torch.where(outdoors, sky, torch.full_like(sky, torch.nan))

    # furniture beside and behind the person
    sizes = ((0.06, 0.7), (0.05, 0.9), (0.05, 0.6))
    half = torch.stack([draw.log_uniform(*size, count, boxes) for size in sizes], -1)
    bearing = draw.uniform(-torch.pi, torch.pi, count, boxes)
    away = half[..., [0, 2]].norm(dim=-1) + draw.log_uniform(0.4, 3.5, count, boxes)
    lifted = draw.chance(0.3, count, boxes) * draw.uniform(0.0, 1.5, count, boxes)
    centre = torch.stack([away * bearing.sin(), half[..., 1] + lifted, away * bearing.cos()], -1)
    towards = torch.nn.functional.normalize(
        camera_m * camera_m.new_tensor([1.0, 0.0, 1.0]), dim=-1
    )
    ahead = (centre * towards[:, None]).sum(-1) > 0.1
    blocked = (centre - camera_m[:, None]).norm(dim=-1) < half.norm(dim=-1) + 0.4
    present = draw.chance(0.65, count, boxes) & ~ahead & ~blocked
    # the occluder: a pole, a low table or a plate somewhere on the line of sight
    share = draw.uniform(0.3, 0.75, count, 1)
    target = person_m * 0.5 + draw.normal(count, 3) * 0.3
    centre[:, -1] = target + (camera_m - target) * share
    kind = draw.integer(3, count)[:, None]
    pole = torch.tensor([0.04, 1.5, 0.04], device=device) * draw.uniform(0.5, 2.0, count, 1)
    table = torch.cat([draw.uniform(0.3, 0.9, count, 1), draw.uniform(0.02, 0.2, count, 1),
                       draw.uniform(0.1, 0.4, count, 1)], 1)  # fmt: skip
    plate = draw.uniform(0.05, 0.3, count, 3)
    half[:, -1] = torch.where(kind == 0, pole, torch.where(kind == 1, table, plate)) * (
        1.2 - share
    )
    centre[:, -1, 1] = torch.where(kind[:, 0] == 1, centre[:, -1, 1] - 0.35, centre[:, -1, 1])
    clear = (centre[:, -1] - camera_m).norm(dim=-1) > half[:, -1].norm(dim=-1) + 0.3
    present[:, -1] = draw.chance(0.25, count) & clear

    elevation = draw.uniform(0.35, 1.4, count)
    azimuth = draw.uniform(-torch.pi, torch.pi, count)
    sun_direction = torch.stack([elevation.cos() * azimuth.sin(), elevation.sin(),
                                 elevation.cos() * azimuth.cos()], 1)  # fmt: skip
    warmth = 0.12 * draw.normal(count, 1)
    tint = torch.cat([1 + warmth, torch.ones_like(warmth), 1 - warmth], 1).clamp(0.5, 1.5)
    sun = torch.where(
        outdoors, draw.log_uniform(0.3, 2.4, count, 1), draw.log_uniform(0.1, 0.9, count, 1)
    )
    ambient = draw.log_uniform(0.25, 0.9, count, 1)
    return Scene(
        turn, low, high, walls, 1 / tiles, draw.uniform(0.6, 1.1, count, 6, 3), sky,
        centre, half, rotations.about_y(draw.uniform(-torch.pi, torch.pi, count, boxes)), present,
        draw.integer(bank.count, count, boxes), 1 / draw.log_uniform(0.4, 2.0, count, boxes),
        draw.uniform(0.2, 1.2, count, boxes, 1) * draw.uniform(0.6, 1.0, count, boxes, 3),
        sun_direction, sun * tint, ambient * (2 - tint) * draw.uniform(0.8, 1.3, count, 1),
        ambient * draw.uniform(0.2, 0.8, count, 3),
        torch.nn.functional.normalize(draw.normal(count, 3), dim=-1),
        draw.log_uniform(0.03, 0.5, count, 1) * draw.uniform(0.7, 1.2, count, 3),
    )  # fmt: skip


CORNERS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
# corners of each face of a box, seen from outside counter-clockwise or not: boxes are not culled
BOX_QUADS = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
BOX_NORMALS = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
BOX_FACES = torch.tensor(
    [[4 * q + k for k in t] for q in range(6) for t in ((0, 1, 2), (0, 2, 3))]
)


def box_mesh(scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
    """World vertices and normals (B, K, 24, 3), and texture uv in metres (B, K, 24, 2)."""
    quads = torch.tensor(BOX_QUADS).flatten()
    corners = CORNERS.to(scene.box_half_m.device)[quads]  # 24 3
    local = corners * scene.box_half_m[:, :, None]
    world = local @ scene.box_turn.mT + scene.box_centre_m[:, :, None]
    normal = torch.tensor(BOX_NORMALS, dtype=local.dtype, device=local.device)
    normal = normal.repeat_interleave(4, 0)
    across = torch.where(normal[:, :1].abs() > 0.5, local[..., [2]], local[..., [0]])
    up = torch.where(normal[:, 1:2].abs() > 0.5, local[..., [2]], local[..., [1]])
    return world, normal @ scene.box_turn.mT, torch.cat([across, -up], -1)


@dataclass(frozen=True)
class RoomHit:
    """Where rays meet the room, per pixel (N, H, W)."""

    depth_m: Tensor
    wall: Tensor  # 0..5
    uv_m: Tensor  # ... 2
    normal: Tensor  # ... 3, world
    point_m: Tensor  # ... 3, world


def cast_room(scene: Scene, image_scene: Tensor, view: View) -> RoomHit:
    """Intersect every pixel's ray with the inside of its room; exact depth."""
    rays = view.rays()
    turn = scene.room_turn[image_scene]
    direction = rays @ turn[:, None].mT
    origin = (turn @ view.centre_m[..., None])[..., 0][:, None, None]
    low, high = (
        bound[image_scene][:, None, None] for bound in (scene.room_low_m, scene.room_high_m)
    )
    positive = direction > 0
    distance = (torch.where(positive, high, low) - origin) / torch.where(
        direction.abs() < 1e-9, 1e-9, direction
    )
    depth, axis = distance.min(-1)
    chosen = torch.nn.functional.one_hot(axis, 3).to(rays.dtype)
    hit = origin + direction * depth[..., None]
    side = (positive * chosen).sum(-1)
    across = torch.where(axis == 0, hit[..., 2], hit[..., 0])
    up = torch.where(axis == 1, hit[..., 2], -hit[..., 1])
    normal = (chosen * (1 - 2 * side)[..., None]) @ turn[:, None]
    point = view.centre_m[:, None, None] + rays * depth[..., None]
    wall = axis * 2 + side.long()
    return RoomHit(depth, wall, torch.stack([across, up], -1), normal, point)
