"""Worlds round people: a room or open ground, light, and furniture that is in nobody's way."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rsb_pose_core.synthesis import furniture, rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.lighting import Light, LightBank
from rsb_pose_core.synthesis.mesh import Mesh, Surfaces
from rsb_pose_core.synthesis.room import LENS_M, NORMALS, SIDES, Room, sample_room
from rsb_pose_core.synthesis.solids import Boxes, Catalogue, Things
from rsb_pose_core.synthesis.textures import TextureBank

FREE, ALONG, HUNG = 10, 8, 8  # places for things in a scene: standing free, along walls, on walls
BODY_GAP_M = 0.03  # between people and things
HIDES_AT_MOST = 0.3  # share of the subject's joints behind one piece of furniture
# height in m of the lower edge of what hangs on walls, of kinds in furniture.ON_WALL's order
HUNG_AT_M = ((1.2, 1.6), (0.8, 1.4), (0.7, 1.0), (0.0, 0.0), (1.2, 1.7), (1.7, 2.0), (0.9, 1.3))


@dataclass(frozen=True)
class World:
    """Everything of B scenes but people and what they carry."""

    room: Room
    light: Light
    mesh: Mesh
    surfaces: Surfaces


def subjects(scene: Tensor, count: int) -> Tensor:
    """The first person (B,) of each of `count` scenes, of people in scenes (P,)."""
    number = torch.arange(len(scene), device=scene.device)
    first = torch.full((count,), len(scene), device=scene.device)
    return first.scatter_reduce(0, scene, number, 'amin')


def body_gap_m(boxes: Boxes, spheres: Tensor, scene: Tensor) -> Tensor:
    """Smallest gap (B, K) between boxes (B, K) and people's spheres (P, S, 4) of scenes (P,)."""
    around = Boxes(*(getattr(boxes, name)[scene] for name in vars(boxes)))  # P K
    gap = around.distance_m(spheres[:, None, :, :3]) - spheres[:, None, :, 3]
    far = torch.full(boxes.present.shape, torch.inf, device=gap.device)
    rows = scene[:, None].expand(-1, far.shape[1])
    return far.scatter_reduce(0, rows, gap.amin(-1), 'amin')


def hidden(boxes: Boxes, camera_m: Tensor, joints_m: Tensor) -> Tensor:
    """Which joints (B, J, 3) boxes (B, K) hide from cameras (B, 3): (B, K, J) bool."""
    return boxes.block(camera_m[:, None].expand_as(boxes.centre_m), joints_m[:, None])


def footprints_overlap(boxes: Boxes) -> Tensor:
    """Do upright boxes (B, K) overlap as seen from above? (B, K, K) bool, true for itself."""
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]], device=boxes.half_m.device)
    axes = boxes.turn[..., [0, 2], :][..., [0, 2]].mT  # B K 2 2, rows: the axes x and z
    half, centre = boxes.half_m[..., [0, 2]], boxes.centre_m[..., [0, 2]]
    corners = (square * half[..., None, :]) @ axes + centre[..., None, :]  # B K 4 2
    along = torch.einsum('bjcx,biax->bijac', corners, axes)  # corners of j along axes of i
    own = torch.einsum('bix,biax->bia', centre, axes)[:, :, None]
    apart = (along.amin(-1) > own + half[:, :, None]) | (along.amax(-1) < own - half[:, :, None])
    return ~(apart.any(-1) | apart.any(-1).mT)


def facing(normal: Tensor) -> Tensor:
    """Rotations (..., 3, 3) that turn upright things' fronts (+z) to horizontal normals."""
    up = normal.new_tensor([0.0, 1.0, 0.0]).expand_as(normal)
    return torch.stack([torch.linalg.cross(up, normal), up, normal], -1)


def sample(
    count: int, bank: TextureBank, lights: LightBank, draw: Draw, lenses_m: Tensor,
    joints_m: Tensor, scene: Tensor, spheres: Tensor, *, outdoors: float = 0.3,
) -> World:  # fmt: skip
    """Worlds of `count` scenes round cameras and people, all of whom keep free of things.

    lenses_m (B, 2, 3): left and right cameras; joints_m (P, J, 3), scene (P,), spheres (P, K, 4):
    the people; the first person of a scene is its subject. outdoors: share of open scenes.
    """
    camera_m = lenses_m[:, 0]
    open_ = draw.chance(outdoors, count)
    light = lights.sample(count, draw, open_)
    ground = lights.ground[light.panorama]
    room = sample_room(bank, draw, open_, ground, lenses_m, scene, spheres)
    catalogue = furniture.catalogue(draw.device)
    joints = joints_m[subjects(scene, count)]
    middle = joints.mean(1) * joints.new_tensor([1.0, 0.0, 1.0])
    standing = _standing(catalogue, room, camera_m, middle, draw)
    boxes = catalogue.bounds(standing)
    boxes = Boxes(*(value.view(count, FREE + ALONG, *value.shape[1:])
                    for value in vars(boxes).values()))  # fmt: skip
    present = boxes.present & (body_gap_m(boxes, spheres, scene) > BODY_GAP_M)
    present &= boxes.distance_m(lenses_m[:, None]).amin(-1) > LENS_M
    present &= hidden(boxes, camera_m, joints).float().mean(-1) <= HIDES_AT_MOST
    overlap = footprints_overlap(boxes)
    for number in range(1, FREE + ALONG):
        before = overlap[:, number, :number] & present[:, :number]
        present[:, number] &= ~before.any(1)
    standing = replace(standing, present=present.view(-1))
    things = [standing, _hung(catalogue, room, draw), *_fittings(catalogue, room, middle, draw)]
    every = Things.cat(things)
    mesh, surfaces = catalogue.build(every, bank, draw)
    return World(room, light, mesh, surfaces)


def _standing(
    catalogue: Catalogue, room: Room, camera_m: Tensor, middle: Tensor, draw: Draw
) -> Things:
    """FREE things beside and behind the subject, then ALONG things with their backs to walls."""
    count, total = len(camera_m), FREE + ALONG
    indoors = draw.choose(catalogue.numbers(*furniture.FREE), count, FREE)
    outdoor_kinds = (*furniture.OUTSIDE, *furniture.OUTSIDE, 'bench', 'barrel', 'boxes', 'bin',
                     'plant', 'robot', 'ladder', 'table', 'chair')  # fmt: skip
    outdoors = draw.choose(catalogue.numbers(*outdoor_kinds), count, FREE)
    kind = torch.where(room.outdoors[:, None], outdoors, indoors)
    walled = draw.choose(catalogue.numbers(*furniture.ALONG_WALL, 'sofa', 'table'), count, ALONG)
    scene = torch.arange(count, device=draw.device).repeat_interleave(total)
    things = catalogue.things(torch.cat([kind, walled], 1).view(-1), scene, draw)
    size = things.size_m.view(count, total, 3)
    behind = torch.atan2(middle[:, 0] - camera_m[:, 0], middle[:, 2] - camera_m[:, 2])
    bearing = behind[:, None] + draw.normal(count, FREE)
    reach = draw.log_uniform(0.15, 3.0, count, FREE)
    reach = torch.where(room.outdoors[:, None], reach * reach.clamp_min(1) * 2, reach)
    reach = reach + size[:, :FREE, [0, 2]].norm(dim=-1) / 2 + 0.2
    place = torch.stack([bearing.sin() * reach, 0 * reach, bearing.cos() * reach], -1)
    place = place + middle[:, None]
    spin = draw.uniform(-torch.pi, torch.pi, count, FREE)
    turn = rotations.about_y(spin)
    inside = room.holds(place, size[:, :FREE, [0, 2]].norm(dim=-1) / 2)
    inside &= size[:, :FREE, 1] < room.high_m[:, None, 1]
    present = inside & draw.chance(0.75, count, FREE)
    number = draw.integer(len(SIDES), count, ALONG)
    wall_place, wall_turn, fits = _at_walls(
        room, number, draw.uniform(0.0, 1.0, count, ALONG), size[:, FREE:]
    )
    fits &= draw.chance(0.7, count, ALONG) & ~room.outdoors[:, None]
    return replace(
        things, place_m=torch.cat([place, wall_place], 1).view(-1, 3),
        turn=torch.cat([turn, wall_turn], 1).view(-1, 3, 3),
        present=torch.cat([present, fits], 1).view(-1),
    )  # fmt: skip


def _at_walls(
    room: Room, number: Tensor, along: Tensor, size_m: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """World places (B, K, 3) and turns of things of size (B, K, 3) with their backs to a wall.

    number (B, K): which of SIDES; along (B, K) 0..1: from one corner to the other. The last value
    tells whether the thing fits there.
    """
    device = size_m.device
    normal = torch.tensor(NORMALS, dtype=size_m.dtype, device=device)[
        torch.tensor(SIDES, device=device)[number]
    ]
    low, high = room.low_m[:, None].expand_as(size_m), room.high_m[:, None].expand_as(size_m)
    back = torch.where(normal > 0, low, high)  # right along the normal's axis
    across = 1 - normal.abs()
    wide, deep = size_m[..., :1], size_m[..., 2:]
    from_, to = low + wide / 2 + 0.02, high - wide / 2 - 0.02
    place = across * (from_ + (to - from_) * along[..., None])
    place = place + normal.abs() * back + normal * (deep / 2 + 0.002)
    place = place * place.new_tensor([1.0, 0.0, 1.0])
    room_length = (across * (high - low))[..., [0, 2]].amax(-1)
    fits = (size_m[..., 0] + 0.06 < room_length) & (size_m[..., 1] + 0.02 < high[..., 1])
    world = room.turn.mT[:, None]
    return (world @ place[..., None])[..., 0], facing((world @ normal[..., None])[..., 0]), fits


def _hung(catalogue: Catalogue, room: Room, draw: Draw) -> Things:
    """HUNG things on walls: two halves of each wall take one each."""
    count, device = len(room.turn), draw.device
    kinds = catalogue.numbers(*furniture.ON_WALL)
    chosen = draw.integer(len(kinds), count, HUNG)
    scene = torch.arange(count, device=device).repeat_interleave(HUNG)
    things = catalogue.things(kinds[chosen].view(-1), scene, draw)
    size = things.size_m.view(count, HUNG, 3)
    number = torch.arange(HUNG, device=device).expand(count, -1)
    side, half = number % len(SIDES), number // len(SIDES)
    spans = (room.high_m - room.low_m)[:, [2, 2, 0, 0]]
    length = spans.gather(1, side)
    # the middle of its half, and as far from there as it may be
    slack = (length / 2 - size[..., 0] * 1.35).clamp_min(0)
    at = (0.25 + 0.5 * half) * length + slack / 2 * draw.uniform(-1.0, 1.0, count, HUNG)
    free = (length - size[..., 0] - 0.04).clamp_min(0.1)
    along = ((at - size[..., 0] / 2 - 0.02) / free).clamp(0, 1)
    place, turn, fits = _at_walls(room, side, along, size)
    fits &= size[..., 0] * 1.35 < length / 2
    least, highest = torch.tensor(HUNG_AT_M, device=device)[chosen].unbind(-1)
    height = least + (highest - least) * draw.uniform(0.0, 1.0, count, HUNG)
    top = room.high_m[:, None, 1] - size[..., 1] - 0.1
    place[..., 1] = torch.minimum(height, top)
    fits &= (top > 0) & draw.chance(0.7, count, HUNG) & ~room.outdoors[:, None]
    return replace(
        things, place_m=place.view(-1, 3), turn=turn.reshape(-1, 3, 3), present=fits.view(-1)
    )


def _fittings(catalogue: Catalogue, room: Room, middle: Tensor, draw: Draw) -> list[Things]:
    """Skirting boards, a carpet and a lamp that hangs from the ceiling."""
    count = len(middle)
    scene = torch.arange(count, device=draw.device)
    indoors = ~room.outdoors
    board = catalogue.things(catalogue.numbers('skirting').expand(count), scene, draw)
    extent, centre = room.high_m - room.low_m, (room.high_m + room.low_m) / 2
    flat = extent.new_tensor([1.0, 0.0, 1.0])
    board = replace(
        board, size_m=extent * flat + board.size_m * (1 - flat), turn=room.turn.mT,
        place_m=(room.turn.mT @ (centre * flat)[..., None])[..., 0],
        present=indoors & draw.chance(0.7, count),
    )  # fmt: skip
    carpet = catalogue.things(catalogue.numbers('carpet').expand(count), scene, draw)
    place = middle + 0.6 * draw.normal(count, 3) * flat
    inside = room.holds(place[:, None], carpet.size_m.norm(dim=-1)[:, None] / 2)[:, 0]
    carpet = replace(
        carpet, place_m=place, turn=room.turn.mT,
        present=indoors & inside & draw.chance(0.5, count),
    )  # fmt: skip
    lamp = catalogue.things(catalogue.numbers('ceiling lamp').expand(count), scene, draw)
    place = middle + draw.normal(count, 3) * flat
    place[:, 1] = room.high_m[:, 1] - lamp.size_m[:, 1]
    fits = room.holds(place[:, None], lamp.size_m[:, :1])[:, 0] & (place[:, 1] > 2.1)
    lamp = replace(lamp, place_m=place, present=indoors & fits & draw.chance(0.5, count))
    return [board, carpet, lamp]
