"""Smooth edges: who covers the quarters of a pixel decides how much of its neighbours it shows.

Only visibility is sampled more finely. The colour of a quarter is that of the nearest pixel that
shows the same surface, so that nothing is textured or lit twice.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from rsb_pose_core.synthesis.rasterizer import NEAR_M, Drawn

CREASE = 0.004  # relative second difference of 1 / depth: planes have none
STRANGER = 0.3  # what another material counts, as a relative difference of 1 / depth


def edge_pixels(nearness: Tensor, material: Tensor) -> Tensor:
    """Which pixels (N, H, W) border on another material, or on a jump or crease of 1 / depth."""
    edge = torch.zeros_like(material, dtype=torch.bool)
    for axis in (1, 2):
        length = material.shape[axis]
        low, high = material.narrow(axis, 0, length - 1), material.narrow(axis, 1, length - 1)
        differs = low != high
        edge.narrow(axis, 0, length - 1).logical_or_(differs)
        edge.narrow(axis, 1, length - 1).logical_or_(differs)
        before, here, after = (nearness.narrow(axis, k, length - 2) for k in range(3))
        bent = (before + after - 2 * here).abs() > CREASE * here
        edge.narrow(axis, 1, length - 2).logical_or_(bent)
    return edge


def quarters(points: Tensor) -> Tensor:
    """Homogeneous pixels (3, V) in pixels half as large."""
    x, y, w = points
    return torch.stack([2 * x + 0.5 * w, 2 * y + 0.5 * w, w])


def near_edges(points: Tensor, faces: Tensor, image: Tensor, edge: Tensor) -> Tensor:
    """Numbers of the faces (3, F) of `points` (3, V) whose rectangles hold edges (N, H, W)."""
    _, height, width = edge.shape
    # how many edge pixels lie above and left of a corner of pixels, N H+1 W+1
    table = pad(edge.int(), (1, 0, 1, 0)).cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
    depth = points[2][faces]
    place = (points[:2] / points[2].clamp_min(NEAR_M))[:, faces]  # 2 3 F
    low, high = place.amin(1), place.amax(1)
    left, right = ((x + 0.5).clamp(0, width).int() for x in (low[0] - 0.5, high[0] + 1.5))
    top, bottom = ((y + 0.5).clamp(0, height).int() for y in (low[1] - 0.5, high[1] + 1.5))
    first, side = image.int() * ((height + 1) * (width + 1)), width + 1
    corners = torch.stack([
        bottom * side + right, top * side + left, top * side + right, bottom * side + left,
    ])  # fmt: skip
    count = table.view(-1).index_select(0, (corners + first).view(-1)).view(corners.shape)
    holds = count[0] + count[1] > count[2] + count[3]
    front = depth >= NEAR_M
    return (front.all(0) & holds | front.any(0) & ~front.all(0)).nonzero()[:, 0]


def smoothed(
    linear: Tensor,
    nearness: Tensor,
    material: Tensor,
    room_material: Tensor,
    edge: Tensor,
    fine: Drawn,
    surface: Callable[[Tensor], Tensor],
) -> Tensor:
    """Light (3, N*H*W) in which pixels at edges show their share of each side.

    nearness, material (N, H, W): what pixels show, and room_material what the room would show.
    fine: the race in pixels half as large; surface: materials of its faces.
    """
    count, height, width = edge.shape
    pixel = edge.view(-1).nonzero()[:, 0]
    row = torch.div(pixel, width, rounding_mode='floor')
    x, y = pixel - row * width, row % height
    near, kind = nearness.reshape(-1), material.reshape(-1)
    total = torch.zeros(3, len(pixel), device=linear.device)
    for down in (0, 1):
        for across in (0, 1):
            quarter = (2 * row + down) * (2 * width) + 2 * x + across
            entry = fine.race[quarter]
            number = entry & 0xFFFFFFFF
            its_near = (entry >> 32).int().view(torch.float32)
            its_kind = room_material.reshape(-1)[pixel]
            drawn = number.nonzero()[:, 0]
            its_kind[drawn] = surface(fine.planes.face[number[drawn] - 1])
            aside = (x + 2 * across - 1).clamp(0, width - 1) - x
            below = ((y + 2 * down - 1).clamp(0, height - 1) - y) * width
            choice = torch.stack([pixel, pixel + aside, pixel + below, pixel + aside + below])
            other = near[choice]
            far = (other - its_near).abs() / (other + its_near + 1e-6)
            unlike = far + STRANGER * (kind[choice] != its_kind)
            best, least = choice[0], unlike[0]
            for k in (1, 2, 3):
                best = torch.where(unlike[k] < least, choice[k], best)
                least = torch.minimum(unlike[k], least)
            total += linear[:, best]
    result = linear.clone()
    result[:, pixel] = total * 0.25
    return result
