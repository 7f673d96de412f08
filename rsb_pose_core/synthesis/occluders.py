"""Things in the foreground: each hides some of the subject's joints, hardly ever all of them."""

import functools
import itertools
from dataclasses import replace

import torch
from torch import Tensor

from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.furniture import ALONG_WALL, FREE, OUTSIDE, frame, legs, middle
from rsb_pose_core.synthesis.mesh import Mesh, Surfaces
from rsb_pose_core.synthesis.room import Room
from rsb_pose_core.synthesis.solids import ALL, Boxes, Catalogue, Kind, Part
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.world import BODY_GAP_M, body_gap_m, hidden, subjects

CANDIDATES = 16  # foreground things tried for each scene
LENS_M = 0.3  # between the left camera and a thing: farther than the right camera
SHARE = (0.25, 0.85)  # place on the line from the camera to a joint
LOWEST_HUNG_M = 0.9  # lamps and cloths that hang end above this
ABOVE_AIM_M = (0.03, 0.2)  # by how much a thing that stands rises above the line to the joint

# What stands on the floor and reaches up to the joint that it is to hide.
STANDING = {
    'low table': Kind((0.5, 0.3, 0.3), (1.6, 1.1, 0.9), [
        Part('box', 'wood', y=((1.0, -0.05), 1.0)), *legs('wood', 0.06, (1.0, -0.05)),
        Part('box', 'paint', (0.03, 0.97), ((1.0, -0.25), (1.0, -0.05)), (0.05, 0.9), chance=0.6),
        Part('box', 'print', middle(0.1, 0.3), (1.0, (1.0, 0.16)), middle(0.07), chance=0.5,
             loose=0.6),
        Part('tube', 'metal', middle(0.04, 0.7), (1.0, (1.0, 0.2)), middle(0.04), chance=0.5,
             loose=0.6),
    ]),
    'counter': Kind((0.6, 0.5, 0.3), (2.2, 1.3, 0.7), [
        Part('box', 'paint', (0.02, 0.98), ALL, (0.02, 0.98)),
        Part('box', 'wood', ALL, ((1.0, -0.04), (1.0, 0.01)), ALL),
        Part('box', 'picture', (0.1, 0.9), (0.15, 0.85), (0.98, (1.0, -0.001)), fit=True,
             chance=0.5),
    ]),
    'railing': Kind((1.0, 0.5, 0.05), (2.6, 1.2, 0.08), [
        *[Part('box', 'metal', ALL, (y, (y, 0.05)), ALL) for y in (0.1, 0.95)],
        *[Part('tube', 'metal', middle(0.012, x), (0.1, 0.98), middle(0.012))
          for x in (0.09, 0.23, 0.36, 0.5, 0.64, 0.77, 0.91)],
        *[Part('box', 'metal', middle(0.025, x), ALL, ALL) for x in (0.01, 0.99)],
    ]),
    'board': Kind((0.4, 0.5, 0.03), (1.2, 1.6, 0.05), [
        Part('box', 'wood', ALL, ((0.0, 0.25), 1.0), (0.2, 0.8)),
        Part('card', 'picture', (0.03, 0.97), ((0.0, 0.3), (1.0, -0.03)), middle(0.0, 1.1),
             fit=True),
        *[Part('tube', 'metal', middle(0.015, x), (0.0, (0.0, 0.3)), middle(0.015))
          for x in (0.1, 0.9)],
    ]),
    'big plant': FREE['plant'], 'seat': FREE['chair'], 'armchair': FREE['office chair'],
    'stack': FREE['boxes'], 'drum': FREE['barrel'], 'robot': FREE['robot'],
    'divan': FREE['sofa'], 'hedge': OUTSIDE['bush'], 'pickets': OUTSIDE['fence'],
    'cabinet': ALONG_WALL['shelf'],
}  # fmt: skip
# What reaches past the joint, up and down: from the floor, as high as the room or higher than men.
UPRIGHT = {
    'pole': Kind((0.04, 2.4, 0.04), (0.2, 3.2, 0.2), [
        Part('tube', 'paint'), Part('box', 'metal', (-0.4, 1.4), (0.0, (0.0, 0.04)), (-0.4, 1.4)),
    ]),
    'pillar': Kind((0.12, 2.4, 0.12), (0.45, 3.2, 0.45), [
        Part('box', 'paint'),
        Part('box', 'wood', (-0.08, 1.08), (0.0, (0.0, 0.12)), (-0.08, 1.08)),
    ]),
    'door leaf': Kind((0.7, 2.0, 0.035), (1.0, 2.2, 0.05), [
        Part('box', 'paint'), Part('box', 'metal', (0.86, 0.97), middle(0.012, 0.48), (-1.5, 2.5)),
        *[Part('box', 'wood', (0.15, 0.85), y, (-0.15, 1.15)) for y in ((0.1, 0.42),
               (0.55, 0.92))],
    ]),
    'trunk': Kind((0.12, 2.6, 0.12), (0.4, 3.6, 0.4), [
        Part('tube', 'wood', taper=-0.2), Part('tube', 'wood', middle(0.03, 1.6), (0.5, 0.8),
                                            middle(0.03), tilt_deg=(0, 0, -50)),
        Part('crown', 'leaf', (-2.0, 3.0), (0.75, 1.1), (-2.0, 3.0)),
    ]),
    'sign': Kind((0.25, 2.0, 0.04), (0.5, 2.6, 0.05), [
        Part('tube', 'metal', middle(0.025), ALL, middle(0.025)),
        Part('box', 'picture', ALL, (0.62, 0.98), (0.9, 1.2), fit=True),
    ]),
    'curtain': Kind((0.3, 2.2, 0.08), (0.9, 2.8, 0.15), [
        Part('drape', 'cloth', ALL, ((0.0, 0.05), 1.0)),
        Part('tube', 'metal', middle(0.012), ((1.0, -0.02), (1.0, 0.01)), middle(0.012),
             tilt_deg=(0, 0, 90)),
    ]),
    'rack': Kind((0.4, 1.8, 0.3), (0.9, 2.2, 0.4), [
        *frame('metal', 0.03, (0.0, 0.1)), *frame('metal', 0.03, (0.9, 1.0)),
        *[Part('box', 'metal', ALL, (y, (y, 0.02)), ALL) for y in (0.25, 0.5, 0.75)],
        *[Part('box', 'print', x, ((y, 0.02), (y, 0.3)), (0.1, 0.9), chance=0.7, loose=0.5)
          for x, y in itertools.product(((0.06, 0.48), (0.52, 0.94)), (0.25, 0.5))],
    ]),
}  # fmt: skip
# What comes down from above as far as the joint.
HANGING = {
    'lamp': Kind((0.2, 0.2, 0.2), (0.6, 0.6, 0.6), [
        Part('tube', 'glow', y=(0.0, (0.0, 0.25)), taper=-0.4),
        Part('tube', 'dark', middle(0.006), ((0.0, 0.2), 1.0), middle(0.006)),
    ]),
    'cloth': Kind((0.3, 0.3, 0.06), (0.9, 0.9, 0.12), [
        Part('drape', 'cloth'), Part('box', 'metal', (-0.1, 1.1), ((1.0, -0.01), (1.0, 0.01)),
                                   middle(0.01)),
    ]),
    'banner': Kind((0.3, 0.3, 0.02), (0.9, 0.8, 0.03), [
        Part('box', 'picture', fit=True),
    ]),
    'hanging plant': Kind((0.3, 0.4, 0.3), (0.6, 0.8, 0.6), [
        Part('tuft', 'leaf', ALL, ((0.0, 0.2), (0.0, 0.6)), ALL),
        Part('tuft', 'leaf', ALL, (0.0, (0.0, 0.25)), ALL, tilt_deg=(180, 40, 0)),
        Part('tube', 'paint', (0.3, 0.7), ((0.0, 0.14), (0.0, 0.3)), (0.3, 0.7), taper=0.2),
        Part('tube', 'dark', middle(0.004), ((0.0, 0.25), 1.0), middle(0.004)),
    ]),
}  # fmt: skip


@functools.cache
def catalogue(device: str) -> Catalogue:
    """All foreground things, on one device."""
    return Catalogue(STANDING | UPRIGHT | HANGING, device)


def occluders(
    bank: TextureBank, draw: Draw, room: Room, camera_m: Tensor, joints_m: Tensor, scene: Tensor,
    spheres: Tensor, *, share: float = 0.8, most: int = 8,
) -> tuple[Mesh, Surfaces]:  # fmt: skip
    """Things between cameras and subjects.

    camera_m (B, 3): left cameras; joints_m (P, J, 3), scene (P,), spheres (P, K, 4): the people;
    the first person of a scene is its subject. Of the scenes, `share` have such things; together
    those of a scene hide 1 to `most` joints as the left camera sees them, as far as boxes round
    their parts can tell.
    """
    count = len(camera_m)
    kinds = catalogue(draw.device)
    joints = joints_m[subjects(scene, count)]
    shape = (count, CANDIDATES)
    family = draw.choose(torch.tensor([0, 0, 0, 1, 1, 2], device=draw.device), *shape)
    kind = torch.stack(
        [draw.choose(kinds.numbers(*table), *shape) for table in (STANDING, UPRIGHT, HANGING)]
    ).gather(0, family[None])[0]
    number = torch.arange(count, device=draw.device).repeat_interleave(CANDIDATES)
    things = kinds.things(kind.view(-1), number, draw)
    size = things.size_m.view(*shape, 3).clone()

    row = torch.arange(count, device=draw.device)[:, None]
    aim = joints[row, draw.integer(joints.shape[1], *shape)]
    along = draw.uniform(*SHARE, *shape, 1)
    point = camera_m[:, None] + (aim - camera_m[:, None]) * along
    rise = draw.uniform(*ABOVE_AIM_M, *shape)
    low, high = kinds.low_m[kind][..., 1], kinds.high_m[kind][..., 1]
    ceiling = torch.where(room.outdoors, torch.inf, room.high_m[:, 1])[:, None]
    standing, hanging = family == 0, family == 2
    wished = point[..., 1] + rise
    fits = ~standing | ((wished > 0.8 * low) & (wished < 1.2 * high))
    fits &= ~hanging | (~room.outdoors[:, None] & (point[..., 1] - rise > LOWEST_HUNG_M))
    tall = torch.where(standing, wished, torch.minimum(size[..., 1], ceiling - 0.02))
    bottom = torch.where(hanging, point[..., 1] - rise, 0.0)
    tall = torch.where(hanging, ceiling.clamp_max(1e3) - bottom, tall)
    size[..., 1] = tall.clamp_min(0.05)
    # not always with its middle before the joint
    aside = draw.uniform(-0.6, 0.6, *shape) * size[..., 0]
    towards = camera_m[:, None] - aim
    yaw = torch.atan2(towards[..., 0], towards[..., 2]) + 0.7 * draw.normal(*shape)
    turn = rotations.about_y(yaw)
    place = point + turn[..., 0] * aside[..., None]
    place = torch.stack([place[..., 0], bottom, place[..., 2]], -1)
    things = replace(
        things, size_m=size.view(-1, 3), place_m=place.view(-1, 3), turn=turn.view(-1, 3, 3),
        present=fits.view(-1),
    )  # fmt: skip

    boxes = kinds.boxes(things)
    fill = kinds.fill[things.kind][..., None]
    covering = replace(boxes, half_m=boxes.half_m * fill)

    def by_scene(value: Boxes) -> Boxes:
        return Boxes(*(v.reshape(count, -1, *v.shape[2:]) for v in vars(value).values()))

    parts = kinds.parts
    joints_hidden = hidden(by_scene(covering), camera_m, joints)
    joints_hidden = joints_hidden.view(*shape, parts, -1).any(2)  # B C J
    every = by_scene(boxes)
    fits &= body_gap_m(every, spheres, scene).view(*shape, parts).amin(-1) > BODY_GAP_M
    lens = every.distance_m(camera_m[:, None, None])[..., 0].view(*shape, parts)
    fits &= lens.amin(-1) > LENS_M
    # take one after another while they hide something more, and not too much
    limit = draw.integer(most, count) + 1
    limit = torch.where(draw.chance(share, count), limit, 0)
    covered = torch.zeros_like(joints_hidden[:, 0])
    taken = torch.zeros_like(fits)
    for candidate in range(CANDIDATES):
        together = covered | joints_hidden[:, candidate]
        total = together.sum(1)
        good = fits[:, candidate] & (total > covered.sum(1)) & (total <= limit)
        taken[:, candidate] = good
        covered = torch.where(good[:, None], together, covered)
    return kinds.build(replace(things, present=taken.view(-1)), bank, draw)
