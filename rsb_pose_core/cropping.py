"""Square crops of a person from both rectified views: same rows and side, own columns.

Crops begin at whole pixels of the image, so that the only resampling is the one resize, which
keeps pixel centres as StereoCalibration.resize() says. It averages over areas where it shrinks
(cv2.INTER_AREA: no aliasing) and is bilinear where it enlarges. Outside the image all is black.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.detection.boxes import Box

NETWORK_SIDE = 256
# The joints' box fills 1 / 1.25 = 80 % of the crop.
BOX_MARGIN = 1.25
SMALLEST_SIDE = 16

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class StereoCrop:
    """Where a crop lies: its first column in each view, its first row and its side, in pixels."""

    x0_left: int
    x0_right: int
    y0: int
    side: int
    size: int = NETWORK_SIDE

    @classmethod
    def around(
        cls, box: Box, disparity_px: float, *, margin: float = BOX_MARGIN, size: int = NETWORK_SIDE
    ) -> 'StereoCrop':
        """Crop round a person's box in the left view, `disparity_px` further left in the right.

        The box is that of the joints or of the visible body, in full rectified pixels.
        """
        side = max(round(margin * max(box.width, box.height)), SMALLEST_SIDE)
        u, v = box.center
        x0 = round(u - (side - 1) / 2)
        return cls(x0, x0 - round(disparity_px), round(v - (side - 1) / 2), side, size)

    @property
    def scale(self) -> float:
        """Crop pixels per image pixel."""
        return self.size / self.side

    def calibration(self, full: StereoCalibration) -> StereoCalibration:
        """Calibration of the crop from that of the whole rectified pair."""
        x0_left, x0_right, y0 = (
            torch.as_tensor(value).to(full.fx) for value in (self.x0_left, self.x0_right, self.y0)
        )
        return full.crop(x0_left, x0_right, y0).resize(self.scale)

    def to_image(self, uvd: Float[Tensor, '*batch 3']) -> Float[Tensor, '*batch 3']:
        """(u, v, disparity) in crop pixels to full rectified pixels."""
        origin = uvd.new_tensor([self.x0_left, self.y0])
        uv = (uvd[..., :2] + 0.5) / self.scale - 0.5 + origin
        disparity = uvd[..., 2:] / self.scale + (self.x0_left - self.x0_right)
        return torch.cat((uv, disparity), dim=-1)

    def from_image(self, uvd: Float[Tensor, '*batch 3']) -> Float[Tensor, '*batch 3']:
        """(u, v, disparity) in full rectified pixels to crop pixels."""
        origin = uvd.new_tensor([self.x0_left, self.y0])
        uv = (uvd[..., :2] - origin + 0.5) * self.scale - 0.5
        disparity = (uvd[..., 2:] - (self.x0_left - self.x0_right)) * self.scale
        return torch.cat((uv, disparity), dim=-1)

    def cut(self, left: Image, right: Image) -> tuple[Image, Image]:
        """The crops of both views, (size, size, 3) each, from images (H, W, 3)."""
        return (
            cut_square(left, self.x0_left, self.y0, self.side, self.size),
            cut_square(right, self.x0_right, self.y0, self.side, self.size),
        )


def cut_square(image: Image, x0: int, y0: int, side: int, size: int) -> Image:
    """Cut the square of `side` pixels at (x0, y0) from (H, W, 3), resized to `size`.

    Pixel x of the image is at (x - x0 + 0.5) size / side - 0.5 of the crop.
    """
    height, width = image.shape[:2]
    rows = slice(min(max(y0, 0), height), min(max(y0 + side, 0), height))
    columns = slice(min(max(x0, 0), width), min(max(x0 + side, 0), width))
    inside = image[rows, columns]
    if inside.shape[:2] != (side, side):
        square = np.zeros((side, side, *image.shape[2:]), np.uint8)
        top, left = rows.start - y0, columns.start - x0
        if inside.size:
            square[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        inside = square
    if side == size:
        return inside.copy()
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(inside, (size, size), interpolation=interpolation), np.uint8)
