"""Where scenes play: rooms of six walls, or open ground under a sky. World: y up, floor y = 0."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.mesh import PLAIN
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.view import View

WALLS = 6
LOW_X, HIGH_X, FLOOR, CEILING, LOW_Z, HIGH_Z = range(WALLS)
SIDES = [LOW_X, HIGH_X, LOW_Z, HIGH_Z]
LENS_M = 0.45  # between the left camera and anything; the right one is nearer than this
WALL_GAP_M = (0.05, 3.0)  # between people or cameras and the walls
OPEN_M = 60.0  # half the side of the ground outdoors that things may stand on
PAINTED = 0.3  # share of walls of one colour
PHOTOGRAPHED = 0.12  # share of walls that show a photograph
# inward normals in room axes
NORMALS = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))


@dataclass(frozen=True)
class Room:
    """B rooms. Outdoors only the floor is drawn; what lies beyond it is the panorama."""

    turn: Tensor  # B 3 3, room from world
    low_m: Tensor  # B 3
    high_m: Tensor  # B 3
    outdoors: Tensor  # B bool
    texture: Tensor  # B 6: -x, +x, floor, ceiling, -z, +z; number in the TextureBank or PLAIN
    tiles_per_m: Tensor  # B 6
    tint: Tensor  # B 6 3
    gloss: Tensor  # B 6

    def normals(self) -> Tensor:
        """Inward normals (B, 6, 3) of the walls in the world."""
        return torch.tensor(NORMALS, dtype=self.low_m.dtype, device=self.low_m.device) @ self.turn

    def holds(self, place_m: Tensor, radius_m: Tensor) -> Tensor:
        """Do discs (B, K) on the floor, of places (B, K, 3), lie inside? (B, K) bool."""
        local = place_m @ self.turn.mT
        gap = torch.minimum(local - self.low_m[:, None], self.high_m[:, None] - local)
        return gap[..., [0, 2]].amin(-1) > radius_m


@dataclass(frozen=True)
class RoomHit:
    """Where the rays of N images meet their rooms, per pixel (N, H, W)."""

    depth_m: Tensor  # optical depth; inf: sky
    wall: Tensor  # long, 0..5; the ceiling where the sky is
    uv_m: Tensor  # ... 2, on the wall, v downward; multiply by tiles_per_m
    normal: Tensor  # ... 3, world
    point_m: Tensor  # ... 3, world; the camera's centre + the ray where the sky is


def _spread(across: Tensor, down: Tensor) -> Tensor:
    """Sum (N, H, W) of a row (N, W) and a column (N, H)."""
    return across[:, None] + down[:, :, None]


def cast(room: Room, image_scene: Tensor, view: View) -> RoomHit:
    """What every pixel of images (N,) of scenes sees of its room, exactly.

    1 / depth of a plane is linear in the pixel, so the nearest wall is the one with the largest of
    six linear functions. The last axis of the vectors is not contiguous.
    """
    device, count = view.fx.device, len(view)
    x = (torch.arange(view.width, device=device) - view.cx[:, None]) / view.fx[:, None]  # N W
    y = (torch.arange(view.height, device=device) - view.cy[:, None]) / view.fy[:, None]  # N H
    turn, open_ = room.turn[image_scene], room.outdoors[image_scene]
    axes = turn @ view.rotation.mT  # N 3 3, room from camera
    origin = (turn @ view.centre_m[..., None])[..., 0]
    low, high = (bound[image_scene] - origin for bound in (room.low_m, room.high_m))
    distance = torch.stack([low, high], -1).flatten(1)  # N 6, signed, along the room's axes
    planes = axes.repeat_interleave(2, 1) / distance[..., None]  # N 6 3, 1 / depth = plane . ray
    planes[:, [LOW_X, HIGH_X, CEILING, LOW_Z, HIGH_Z]] *= ~open_[:, None, None]
    nearness = torch.zeros(count, view.height, view.width, device=device)
    wall = torch.full(nearness.shape, CEILING, dtype=torch.uint8, device=device)
    for number in range(WALLS):
        a, b, c = planes[:, number].unbind(1)
        value = _spread(a[:, None] * x, b[:, None] * y + c[:, None])
        wall.masked_fill_(value > nearness, number)
        nearness = torch.maximum(nearness, value)
    depth = nearness.reciprocal_()
    sky = torch.isinf(depth)
    reach = torch.where(sky, 1.0, depth)
    room_point, point = (
        [
            _spread(m[:, k, :1] * x, m[:, k, 1:2] * y + m[:, k, 2:]).mul_(reach)
            .add_(start[:, k, None, None])
            for k in range(3)
        ]
        for m, start in ((axes, origin), (view.rotation.mT, view.centre_m))
    )  # fmt: skip
    level = (wall == FLOOR) | (wall == CEILING)
    across = torch.where(wall < FLOOR, room_point[2], room_point[0])
    down = torch.where(level, room_point[2], -room_point[1])
    index = wall.long()
    rows = index + (image_scene * WALLS)[:, None, None]
    return RoomHit(
        depth, index, torch.stack([across, down]).permute(1, 2, 3, 0),
        room.normals().reshape(-1, 3)[rows], torch.stack(point).permute(1, 2, 3, 0),
    )  # fmt: skip


def sample_room(
    bank: TextureBank, draw: Draw, outdoors: Tensor, ground: Tensor, lenses_m: Tensor,
    scene: Tensor, spheres: Tensor,
) -> Room:  # fmt: skip
    """Rooms with cameras and people inside; open ground where `outdoors` (B,).

    ground (B, 3): albedo that the panorama's own ground suggests; lenses_m (B, 2, 3);
    spheres (P, K, 4): what fills the people of scenes (P,).
    """
    count = len(outdoors)
    turn = rotations.about_y(draw.uniform(-torch.pi, torch.pi, count))
    lenses = lenses_m @ turn.mT
    middle = spheres[..., :3] @ turn[scene].mT
    radius, rows = spheres[..., 3:], scene[:, None].expand(-1, 3)
    low = (lenses.amin(1) - LENS_M).scatter_reduce(0, rows, (middle - radius).amin(1), 'amin')
    high = (lenses.amax(1) + LENS_M).scatter_reduce(0, rows, (middle + radius).amax(1), 'amax')
    low = low - draw.log_uniform(*WALL_GAP_M, count, 3)
    high = high + draw.log_uniform(*WALL_GAP_M, count, 3)
    height = torch.where(
        draw.chance(0.85, count), draw.uniform(2.3, 3.2, count), draw.uniform(3.2, 6.0, count)
    )
    low[:, 1], high[:, 1] = 0.0, torch.maximum(high[:, 1], height)
    wide = outdoors[:, None] & torch.tensor([True, False, True], device=outdoors.device)
    low, high = torch.where(wide, -OPEN_M, low), torch.where(wide, OPEN_M, high)

    texture = draw.choose(bank.of('wall'), count, WALLS)
    plain = torch.where(torch.arange(WALLS, device=draw.device) == CEILING, 0.75, PAINTED)
    texture = torch.where(draw.uniform(0.0, 1.0, count, WALLS) < plain, PLAIN, texture)
    same = draw.chance(0.7, count)
    for side in SIDES[1:]:
        texture[:, side] = torch.where(same, texture[:, LOW_X], texture[:, side])
    tiles = 1 / draw.log_uniform(0.8, 2.5, count, WALLS)
    tiles[:, SIDES] = torch.where(same[:, None], tiles[:, :1], tiles[:, SIDES])
    photographs = bank.of('picture')
    if len(photographs) > 0:
        photograph = draw.chance(PHOTOGRAPHED, count, WALLS)
        photograph[:, [FLOOR, CEILING]] = False
        texture = torch.where(photograph, draw.choose(photographs, count, WALLS), texture)
        tiles = torch.where(photograph, 1 / draw.uniform(2.0, 6.0, count, WALLS), tiles)
    texture[:, FLOOR] = torch.where(
        outdoors, draw.choose(bank.of('ground'), count), draw.choose(bank.of('floor'), count)
    )
    hue = 1 - draw.uniform(0.0, 0.7, count, WALLS, 1) * draw.uniform(0.0, 1.0, count, WALLS, 3)
    paint = draw.uniform(0.15, 0.85, count, WALLS, 1) * hue
    tint = draw.uniform(0.55, 1.1, count, WALLS, 1) * (0.7 + 0.3 * hue)
    tint = torch.where((texture == PLAIN)[..., None], paint, tint)
    tint[:, SIDES] = torch.where(same[:, None, None], tint[:, :1], tint[:, SIDES])
    tint[:, CEILING] = tint[:, CEILING].clamp_min(0.55)
    # the ground before the panorama has the colour of the panorama's ground
    mean = bank.sample(
        texture[:, FLOOR], draw.uniform(0.0, 1.0, count, 2), torch.ones(count, device=draw.device)
    )[:, :3]
    alike = (ground / mean.clamp_min(0.02)).clamp(0.2, 2.5) * draw.log_uniform(0.8, 1.25, count, 1)
    tint[:, FLOOR] = torch.where(outdoors[:, None], alike, tint[:, FLOOR])
    gloss = draw.uniform(0.0, 0.06, count, WALLS)
    gloss[:, FLOOR] = draw.uniform(0.0, 0.3, count) * ~outdoors
    return Room(turn, low, high, outdoors, texture, tiles, tint, gloss)
