"""What belongs to people: seats under them, bars that they hang from, bags, things held."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.mesh import Mesh, Surfaces
from rsb_pose_core.synthesis.prop_kinds import (
    BACKED,
    BAGS,
    HELD,
    IN_PALM,
    RUCKSACK,
    SEATS,
    SHOULDER_BAG,
    catalogue,
)  # fmt: skip
from rsb_pose_core.synthesis.solids import Things
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.world import facing

SEATS_TRIED = 10  # for each sitter
LOWEST_SEAT_M = 0.1  # who sits lower sits on the floor
FRONT_M = 0.1  # of the seat, before the point under the buttocks
FLESH_M = 0.13  # from the spine's joints to the skin of the back
DEEPEST_M = 0.55  # from the seat's point to the back of who leans back
LIMB_M = 0.05  # radius of calves and forearms
CARRIED_TRIED = 6  # for each person who carries something
HOLDS = 0.55  # share of those who hold it in the hand; the others have a bag
NEAR_HAND_M = 0.2  # what of the body may touch what a hand holds
LEVEL_M = 0.12  # a bar for both hands slopes no more than this

RIGHT_HIP, LEFT_HIP, RIGHT_KNEE, LEFT_KNEE, PELVIS, SPINE, NECK = (
    H36M_17.index(name)
    for name in ('right_hip', 'left_hip', 'right_knee', 'left_knee', 'pelvis', 'spine', 'neck')
)
LIMBS = tuple(
    (H36M_17.index(f'{side}_{a}'), H36M_17.index(f'{side}_{b}'))
    for side in ('left', 'right')
    for a, b in (('knee', 'ankle'), ('elbow', 'wrist'))
)
WRISTS = [H36M_17.index('left_wrist'), H36M_17.index('right_wrist')]
SHOULDERS = [H36M_17.index('left_shoulder'), H36M_17.index('right_shoulder')]
HIPS = [LEFT_HIP, RIGHT_HIP]


def flat(vector: Tensor) -> Tensor:
    """The horizontal direction (..., 3) of vectors."""
    return normalize(vector * vector.new_tensor([1.0, 0.0, 1.0]), dim=-1)


def rods(
    start_m: Tensor, end_m: Tensor, wide_m: Tensor, kind: str, scene: Tensor, draw: Draw
) -> Things:
    """Thin things from points (T, 3) to points, wide_m (T, 2) along their x and z."""
    kinds = catalogue(draw.device)
    things = kinds.things(kinds.numbers(kind).expand(len(scene)), scene, draw)
    along = end_m - start_m
    y = normalize(along, dim=-1)
    level = y.new_tensor([0.0, 1.0, 0.0]).expand_as(y)
    x = normalize(torch.linalg.cross(y, level) + y.new_tensor([1e-6, 0.0, 0.0]), dim=-1)
    turn = torch.stack([x, y, torch.linalg.cross(x, y)], -1)
    size = torch.stack([wide_m[:, 0], along.norm(dim=-1), wide_m[:, 1]], -1)
    return replace(things, size_m=size, place_m=start_m, turn=turn)


def seats(joints_m: Tensor, seat_m: Tensor, scene: Tensor, draw: Draw) -> Things:
    """One seat for each person (P,) who sits on something (seat_m (P, 3) is not NaN).

    Its top is as high as the point under the buttocks, its back behind the person's back. Of
    SEATS_TRIED random seats the first is taken that no calf or forearm cuts.
    """
    kinds = catalogue(draw.device)
    people, tried = len(scene), SEATS_TRIED
    sits = ~seat_m.isnan().any(1) & (seat_m[:, 1] > LOWEST_SEAT_M)
    seat_m = seat_m.nan_to_num(0.0)
    kind = draw.integer(len(SEATS), people, tried)
    kind[:, -1] = kinds.names.index('post')
    things = kinds.things(kind.view(-1), scene.repeat_interleave(tried), draw)
    size = things.size_m.view(people, tried, 3)
    ahead = flat(joints_m[:, [LEFT_KNEE, RIGHT_KNEE]].mean(1) - joints_m[:, PELVIS])
    leaning = ((seat_m[:, None] - joints_m[:, [PELVIS, SPINE, NECK]]) * ahead[:, None]).sum(-1)
    behind = leaning.amax(1) + FLESH_M
    backed = kind < BACKED
    depth = torch.where(backed, behind[:, None] + FRONT_M, size[..., 2])
    round_ = kind >= kinds.names.index('stool')
    front = torch.where(round_, depth / 2, FRONT_M)
    size = torch.stack([size[..., 0], seat_m[:, None, 1].expand(-1, tried), depth], -1)
    turn = facing(ahead)[:, None].expand(-1, tried, 3, 3)
    aside = draw.uniform(-0.4, 0.4, people, tried) * (size[..., 0] - 0.4).clamp_min(0)
    place = seat_m[:, None] + ahead[:, None] * (front - depth / 2)[..., None]
    place = place + turn[..., 0] * aside[..., None]
    place = place * place.new_tensor([1.0, 0.0, 1.0])
    things = replace(
        things, size_m=size.reshape(-1, 3), place_m=place.reshape(-1, 3),
        turn=turn.reshape(-1, 3, 3), present=sits.repeat_interleave(tried),
    )  # fmt: skip
    steps = torch.linspace(0.1, 1.0, 6, device=draw.device)[:, None]
    limbs = torch.cat(
        [joints_m[:, None, a] + steps * (joints_m[:, b] - joints_m[:, a])[:, None]
         for a, b in LIMBS], 1,
    )  # fmt: skip
    limbs = limbs.repeat_interleave(tried, 0)[:, None]
    gap = kinds.boxes(things).distance_m(limbs).amin((1, 2)).view(people, tried)
    fits = (gap > LIMB_M) & (~backed | (behind < DEEPEST_M)[:, None])
    fits[:, -1] = True
    chosen = torch.nn.functional.one_hot(fits.int().argmax(1), tried).bool()
    return replace(things, present=(chosen & sits[:, None]).view(-1))


def bars(
    joints_m: Tensor, hands_m: Tensor, scene: Tensor, spheres: Tensor, hanging: Tensor, draw: Draw
) -> Things:
    """What people who hang (P,) hold on to: a bar on two posts, or rungs on a post for each hand.

    joints_m (P, 17, 3); hands_m (P, 2, 4, 4); spheres (P, K, 4) fill the people. A bar goes
    through both palms where they are nearly level and it would not cut the body; rungs are left
    out where they or their posts would.
    """
    left, right = hands_m[:, 0, :3, 3], hands_m[:, 1, :3, 3]
    shoulders = joints_m[:, SHOULDERS]
    aside = flat(shoulders[:, 0] - shoulders[:, 1])
    across = left - right
    level = (across[:, 1].abs() < LEVEL_M) & (across.norm(dim=-1) > LEVEL_M)
    over = normalize(across, dim=-1) * draw.uniform(0.25, 0.9, len(scene), 1)
    thin = draw.uniform(0.026, 0.04, len(scene), 1).expand(-1, 2)
    floor = left.new_tensor([1.0, 0.0, 1.0])

    def clear(piece: Things) -> Tensor:
        body = spheres[..., :3]
        off = torch.minimum(*((body - palm[:, None]).norm(dim=-1) for palm in (left, right)))
        gap = catalogue(draw.device).bounds(piece).distance_m(body) - spheres[..., 3]
        return torch.where(off > NEAR_HAND_M, gap, torch.inf).amin(-1) > 0

    def posted(start: Tensor, end: Tensor, *posts: Tensor) -> list[Things]:
        return [rods(start, end, thin, 'rod', scene, draw)] + [
            rods(post * floor, post, 2 * thin, 'rod', scene, draw) for post in posts
        ]

    start, end = right - over, right + across + over
    one = posted(start, end, start, end)
    together = hanging & level & torch.stack([clear(piece) for piece in one]).all(0)
    reach = draw.uniform(0.15, 0.4, len(scene), 1)
    rungs = []
    for palm, outward in ((left, aside), (right, -aside)):
        post = palm + reach * outward
        pair = posted(palm - 0.12 * outward, post, post)
        present = hanging & ~together & clear(pair[0]) & clear(pair[1])
        rungs += [replace(piece, present=present) for piece in pair]
    return Things.cat([*(replace(piece, present=together) for piece in one), *rungs])


def held(hands_m: Tensor, scene: Tensor, draw: Draw) -> Things:
    """Something for the palms (P, 4, 4) of P people: in the fist or on the palm.

    The frame of a palm: x across it, y along the fingers, z out of it.
    """
    kinds, people = catalogue(draw.device), len(scene)
    fist_kinds, palm_kinds = kinds.numbers(*HELD), kinds.numbers(*IN_PALM)
    grip_of = torch.tensor([grip for grip, _ in HELD.values()], device=draw.device)
    number = draw.integer(len(HELD), people)
    gripped = draw.chance(0.6, people)
    kind = torch.where(gripped, fist_kinds[number], draw.choose(palm_kinds, people))
    things = kinds.things(kind, scene, draw)
    size = things.size_m
    thumb, fingers, out, origin = hands_m[:, :3].unbind(-1)
    up = torch.where(thumb[:, 1:2] < 0, -1.0, 1.0)
    y = torch.where(gripped[:, None], thumb * up, fingers)
    turn = torch.stack([torch.linalg.cross(y, out), y, out], -1)
    grip = torch.where(gripped, grip_of[number], 0.5)
    narrow = (number == list(HELD).index('bottle')) | (number == list(HELD).index('cup'))
    radius = torch.where(narrow, size[:, 0] / 2, 0.016)
    off = torch.where(gripped, radius, size[:, 2] / 2)
    place = origin + out * off[:, None] - y * (grip * size[:, 1])[:, None]
    umbrella = gripped & (number == list(HELD).index('umbrella'))
    present = ~umbrella | (thumb[:, 1].abs() > 0.6)
    return replace(things, place_m=place, turn=turn, present=present)


def bags(
    joints_m: Tensor, hands_m: Tensor, back_m: Tensor, which: Tensor, scene: Tensor, draw: Draw
) -> Things:
    """Bags of kind which (P,) in BAGS' order: on backs (P, 4, 4), in hands (P, 4, 4), at hips.

    The frame of a back: x to the person's left, y up along the spine, z forward.
    """
    kinds, people = catalogue(draw.device), len(scene)
    things = kinds.things(kinds.numbers(*BAGS)[which], scene, draw)
    size = things.size_m
    left, up_back, forward, back = back_m[:, :3].unbind(-1)
    rucksack = torch.stack([-left, up_back, -forward], -1)
    on_back = back - up_back * 0.7 * size[:, 1:2] - forward * (size[:, 2:] / 2 - 0.01)
    world_up = torch.zeros_like(back)
    world_up[:, 1] = 1.0
    out = flat(hands_m[:, :3, 2])
    hanging = torch.stack([out, world_up, torch.linalg.cross(out, world_up)], -1)
    palm = hands_m[:, :3, 3]
    in_hand = palm - world_up * size[:, 1:2]
    side = draw.integer(2, people)
    row = torch.arange(people, device=draw.device)
    hips = joints_m[:, HIPS]
    aside = flat(hips[row, side] - hips[row, 1 - side])
    at_hip = torch.stack([aside, world_up, torch.linalg.cross(aside, world_up)], -1)
    by_hip = hips[row, side] + aside * (0.16 + size[:, :1] / 2)
    by_hip = by_hip - world_up * size[:, 1:2] * 0.6
    families = torch.tensor([0, 1, 1, 2], device=draw.device)[which]

    def pick(*options: Tensor) -> Tensor:
        return torch.stack(options)[families, row]

    trunk = normalize(joints_m[:, NECK] - joints_m[:, PELVIS], dim=-1)
    upright = trunk[:, 1] > 0.85
    clear_of_floor = palm[:, 1] > size[:, 1] + 0.02
    present = pick(torch.ones_like(upright), clear_of_floor & (hands_m[:, 1, 1] < -0.5), upright)
    return replace(
        things, place_m=pick(on_back, in_hand, by_hip), turn=pick(rucksack, hanging, at_hip),
        present=present,
    )  # fmt: skip


def props(
    bank: TextureBank, draw: Draw, *, joints_m: Tensor, scene: Tensor, spheres: Tensor,
    seat_m: Tensor, hands_m: Tensor, back_m: Tensor, hanging: Tensor,
    velocity_m_s: Tensor | None = None, share: float = 0.25,
) -> tuple[Mesh, Surfaces]:  # fmt: skip
    """What people (P,) sit on, hang from, carry and hold; nobody owns it.

    joints_m (P, 17, 3) in H36M_17's order; spheres (P, K, 4) fill the people; seat_m (P, 3), NaN:
    does not sit; hands_m (P, 2, 4, 4), left and right; back_m (P, 4, 4); hanging (P,) bool;
    velocity_m_s (P, 17, 3) of the joints; share: of people who carry or hold something.
    """
    kinds = catalogue(draw.device)
    carried, motion = _carried(joints_m, scene, spheres, hands_m, back_m, hanging, share, draw)
    sat_on = seats(joints_m, seat_m, scene, draw)
    held_on = bars(joints_m, hands_m, scene, spheres, hanging, draw)
    every = Things.cat([carried, sat_on, held_on])
    velocity = None
    if velocity_m_s is not None:
        velocity = torch.zeros_like(every.place_m)
        person = torch.arange(len(scene), device=draw.device).repeat_interleave(CARRIED_TRIED)
        velocity[: len(motion)] = velocity_m_s[person, motion]
    return kinds.build(every, bank, draw, velocity)


def _carried(
    joints_m: Tensor, scene: Tensor, spheres: Tensor, hands_m: Tensor, back_m: Tensor,
    hanging: Tensor, share: float, draw: Draw,
) -> tuple[Things, Tensor]:  # fmt: skip
    """One thing for each of a share of the people, and the joint with which each moves.

    Of CARRIED_TRIED random things a person gets the first that does not go through a body.
    """
    people, tried = len(scene), CARRIED_TRIED
    person = torch.arange(people, device=draw.device).repeat_interleave(tried)
    count = len(person)
    side = draw.integer(2, count)
    hand, body = hands_m[person, side], spheres[person]
    which = draw.integer(len(BAGS), count)
    holds = draw.chance(HOLDS, count)
    thing = held(hand, scene[person], draw)
    bag = bags(joints_m[person], hand, back_m[person], which, scene[person], draw)
    things = Things(
        *(
            torch.where(holds.view(-1, *[1] * (own.dim() - 1)), own, other)
            for own, other in zip(vars(thing).values(), vars(bag).values(), strict=True)
        )
    )
    boxes = catalogue(draw.device).boxes(things)
    gap = boxes.distance_m(body[:, None, :, :3]).amin(1) - body[..., 3]
    # a hand may touch what it holds, and bags press on the body
    near_hand = (body[..., :3] - hand[:, None, :3, 3]).norm(dim=-1) < NEAR_HAND_M
    deepest = torch.where(near_hand, torch.inf, gap).amin(-1)
    worn = ~holds & ((which == RUCKSACK) | (which == SHOULDER_BAG))
    fits = things.present & (deepest > torch.where(worn, -0.07, 0.0))
    fits &= ~hanging[person] | (worn & (which == RUCKSACK))
    fits = fits.view(people, tried)
    chosen = torch.nn.functional.one_hot(fits.int().argmax(1), tried).bool()
    present = chosen & fits & draw.chance(share, people)[:, None]
    wrists = torch.tensor(WRISTS, device=draw.device)[side]
    return replace(things, present=present.view(-1)), torch.where(worn, SPINE, wrists)
