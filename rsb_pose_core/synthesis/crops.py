"""Which part of the rectified images a training pair shows: squares round the subject."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import project
from rsb_pose_core.synthesis.draw import Draw

BOX_MARGIN = (1.1, 1.5)  # side of the square against the longest extent of the joints
BOX_JITTER = 0.03  # deviation of the middle, as a share of the side
DISPARITY_JITTER = 0.015  # how far the right crop may be shifted, as a share of the side


@dataclass(frozen=True)
class Crops:
    """Pictures of H x W pixels cut from the rectified images of B pairs."""

    calibration: StereoCalibration  # of the pictures
    origin_px: Tensor  # B 3, image pixels: left x, right x, y of the corner
    scale: Tensor  # B, picture pixels per image pixel
    image_size: Tensor  # B 2, width and height of the images
    height: int
    width: int

    def inside(self) -> Tensor:
        """Picture pixels (2B, H, W) that lie on the sensors: left, then right."""
        left, right, top = self.origin_px.unbind(1)
        limit = self.image_size.repeat(2, 1) - 0.5

        def on_sensor(first: Tensor, count: int, limit: Tensor) -> Tensor:
            step = torch.arange(count, device=first.device) + 0.5
            place = first[:, None] + step / self.scale.repeat(2)[:, None] - 0.5
            return (place >= -0.5) & (place < limit[:, None])

        columns = on_sensor(torch.cat([left, right]), self.width, limit[:, 0])
        rows = on_sensor(top.repeat(2), self.height, limit[:, 1])
        return rows[:, :, None] & columns[:, None]


def whole_images(calibration: StereoCalibration, size: Tensor, height: int, width: int) -> Crops:
    """No crop: the pictures are the images, all of one size (B, 2)."""
    zero = size.new_zeros(len(size), 3)
    return Crops(calibration, zero, size.new_ones(len(size)), size, height, width)


def squares_round(
    subject_m: Tensor, full: StereoCalibration, size: Tensor, side_px: int, margin_px: int,
    draw: Draw,
) -> Crops:  # fmt: skip
    """Squares of side_px pixels round subjects (B, 17, 3: rectified frame), jittered.

    Both views are cut at the same rows; each at its own columns, as a tracker does that knows the
    person's disparity roughly. margin_px of the square are spare, for shifts in training.
    """
    uvd = project(subject_m, full)
    u, v = uvd[..., 0], uvd[..., 1]
    # most boxes know only what the image shows, as a detector's do
    low, high = torch.stack([u.amin(1), v.amin(1)], 1), torch.stack([u.amax(1), v.amax(1)], 1)
    seen_low, seen_high = low.clamp_min(0), torch.minimum(high, size)
    enough = ((seen_high - seen_low) > 0.2 * (high - low)).all(1)
    clip = (draw.chance(0.75, len(u)) & enough)[:, None]
    low, high = torch.where(clip, seen_low, low), torch.where(clip, seen_high, high)
    longest = (high - low).amax(1).clamp_min(8.0)
    inner = side_px - 2 * margin_px
    side = longest * draw.uniform(*BOX_MARGIN, len(u)) * (side_px / inner)
    middle = (low + high) / 2 + BOX_JITTER * side[:, None] * draw.normal(len(u), 2)
    jitter = draw.uniform(-DISPARITY_JITTER, DISPARITY_JITTER, len(u)) * side
    disparity = uvd[..., 2].median(1).values + jitter
    x0, y0 = middle[:, 0] - side / 2, middle[:, 1] - side / 2
    scale = side_px / side
    calibration = full.crop(x0, x0 - disparity, y0).resize(scale)
    origin = torch.stack([x0, x0 - disparity, y0], 1)
    return Crops(calibration, origin, scale, size, side_px, side_px)
