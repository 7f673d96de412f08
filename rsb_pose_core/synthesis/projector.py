"""Infrared dots that a head throws on the world, as both its cameras see them."""

import torch
from torch import Tensor

from rsb_pose_core.synthesis.cameras import StereoShots
from rsb_pose_core.synthesis.view import View

# About 5,000 dots in 86 by 57 degrees (Intel RealSense D400 series data sheet, wide projector).
SPACING = 0.02  # of dots, as tangents
WIDTH = 0.0014  # deviation of a dot, as a tangent
ROOM = 0.3  # of a cell at each side in which its dot does not stand
PLACE = 0.55  # of the projector between the left and the right camera
FULL_M = 1.2  # where a dot has the brightness 1


def projector_dots(shots: StereoShots, view: View, depth_m: Tensor) -> Tensor:
    """Light of the dots (2B, H, W) on what the pictures of `view` show at depths (2B, H, W).

    Dots stick to the world, so both pictures show each at its true disparity. They fall off with
    the square of the distance; heads without a projector give zeros.
    """
    which = shots.projector.repeat(2).nonzero()[:, 0]
    depth, fx, fy = depth_m[which], view.fx[which, None], view.fy[which, None]
    u = torch.arange(view.width, device=depth.device) - view.cx[which, None]
    v = torch.arange(view.height, device=depth.device) - view.cy[which, None]
    # the projector in the frame of each camera; the small turns of the true cameras move no dot
    # against another and are left out
    place = shots.calibration.baseline_m * PLACE
    aside = torch.cat([place, place - shots.calibration.baseline_m])[which]
    column = ((u / fx)[:, None] - aside[:, None, None] / depth) / SPACING
    row = ((v / fy)[:, :, None] / SPACING).expand_as(column)
    i, j = column.floor(), row.floor()
    seed = (i.long() * 73856093) ^ (j.long() * 19349663)
    mixed = (seed * 83492791) ^ (seed >> 7)
    across, down, gain = ((mixed >> shift & 255) / 255 for shift in (3, 11, 19))
    inner = 1 - 2 * ROOM
    far_x = column - i - ROOM - inner * across
    far_y = row - j - ROOM - inner * down
    # a dot smaller than a pixel fills it with the light it has
    width = (0.5 / fx).clamp_min(WIDTH)[:, None]
    square = (far_x * far_x + far_y * far_y) * (SPACING / width) ** 2
    light = (-0.5 * square).exp() * (WIDTH / width) ** 2 * (0.4 + 0.6 * gain)
    light = light * (FULL_M / depth).square().clamp_max(6)
    return torch.zeros_like(depth_m).index_copy(0, which, light)
