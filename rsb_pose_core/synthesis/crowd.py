"""Where the people of a scene stand, so that nobody stands in anybody or before the lens."""

import torch
from torch import Tensor

from rsb_pose_core.synthesis.draw import Draw

CANDIDATES = 16  # places tried for each person, ever farther out
CLEARANCE_M = 0.04  # between the spheres that fill two people
LENS_CLEARANCE_M = 0.5
NEAREST_M, FARTHEST_M = 0.45, 6.0
NOWHERE_M = 1e3  # where people not yet placed are


def place_others(
    spheres: Tensor, scene: Tensor, slot: Tensor, camera_m: Tensor, draw: Draw
) -> Tensor:
    """Shifts (P, 3) that bring people from the origin to their places.

    spheres (P, K, 4): centres and radii in m of people who all stand at the origin; scene, slot
    (P,): the subject (slot 0) of each of the B scenes stays; camera_m (B, 3). Half of the others
    stand near the line from the camera through the subject, before or behind it, the rest anywhere
    round it. Each takes the first of CANDIDATES places, from near to far, where its spheres keep
    clear of everybody already placed; the last, far behind the subject, is taken unseen.
    """
    scenes, people = len(camera_m), len(scene)
    slots = int(slot.max()) + 1
    shift = spheres.new_zeros(people, 3)
    placed = torch.full((scenes, slots, *spheres.shape[1:]), NOWHERE_M, device=spheres.device)
    placed[..., 3] = 0.0
    subject = slot == 0
    placed[scene[subject], 0] = spheres[subject]
    towards = torch.atan2(camera_m[:, 0], camera_m[:, 2])
    reach = torch.linspace(0.0, 1.0, CANDIDATES, device=spheres.device)
    for number in range(1, slots):
        who = (slot == number).nonzero()[:, 0]
        home = scene[who]
        shape = (len(who), CANDIDATES)
        aligned = draw.chance(0.5, *shape)
        away = torch.where(draw.chance(0.5, *shape), 0.0, torch.pi)
        near_line = towards[home][:, None] + away + 0.3 * draw.normal(*shape)
        bearing = torch.where(aligned, near_line, draw.uniform(-torch.pi, torch.pi, *shape))
        far = NEAREST_M * (FARTHEST_M / NEAREST_M) ** (reach * draw.uniform(0.5, 1.0, *shape))
        bearing[:, -1], far[:, -1] = towards[home] + torch.pi, FARTHEST_M + number
        place = torch.stack([far * bearing.sin(), 0 * far, far * bearing.cos()], -1)
        own = spheres[who][:, None] + torch.nn.functional.pad(place, (0, 1))[:, :, None]
        others = placed[home].flatten(1, 2)[:, None]  # people 1 slots*K 4
        apart = (own[..., None, :3] - others[..., None, :, :3]).norm(dim=-1)
        gap = apart - own[..., 3, None] - others[..., None, :, 3]
        lens = (own[..., :3] - camera_m[home][:, None, None]).norm(dim=-1) - own[..., 3]
        fits = (gap.flatten(2).amin(2) > CLEARANCE_M) & (lens.amin(2) > LENS_CLEARANCE_M)
        fits[:, -1] = True
        chosen = fits.int().argmax(1)
        row = torch.arange(len(who), device=spheres.device)
        shift[who] = place[row, chosen]
        placed[home, number] = own[row, chosen]
    return shift
