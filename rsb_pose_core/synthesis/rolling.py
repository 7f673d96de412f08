"""Shutters that roll: rows exposed one after the other, and where they show what moves."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.lens import pixel_grid, resample
from rsb_pose_core.synthesis.view import View


@dataclass(frozen=True)
class RollingRows:
    """When the rows of N pictures are exposed: 0 is the moment of the image's middle row."""

    first_px: Tensor  # N, row of the whole image at the picture's upper border
    scale: Tensor  # N, picture pixels per image pixel
    height_px: Tensor  # N, of the whole image
    readout_s: Tensor  # N, from the first row to the last; 0: global shutter

    @staticmethod
    def of_pictures(readout_s: Tensor, height: int) -> 'RollingRows':
        """Rows of pictures of `height` rows that take readout_s (N,) themselves; 0 is then the
        moment of the picture's own middle row."""
        zero = torch.zeros_like(readout_s)
        return RollingRows(zero, zero + 1, zero + height, readout_s)

    def time_s(self, v: Tensor) -> Tensor:
        """Seconds at which rows v (N, ...) of the pictures are exposed."""
        start, rate = (value.view(-1, *[1] * (v.dim() - 1)) for value in self._line())
        return start + rate * v

    def shown(self, uv: Tensor, flow_px_s: Tensor) -> Tensor:
        """Where pictures show points that are at uv (N, P, 2) when the middle row is exposed."""
        start, rate = (value[:, None] for value in self._line())
        u, v = uv.unbind(-1)
        row = (v + flow_px_s[..., 1] * start) / (1 - flow_px_s[..., 1] * rate)
        return torch.stack([u + flow_px_s[..., 0] * (start + rate * row), row], -1)

    def moved(self, points_m: Tensor, velocity_m_s: Tensor, view: View, image: Tensor) -> Tensor:
        """Points (P, V, 3) at the times of the rows that show them, by fixed-point iteration.

        Both in the optical frames of the images (P,); velocities relative to the camera, constant.
        """
        start, rate = (value[image][:, None] for value in self._line())
        there = points_m
        for _ in range(6):
            row = view.project(there, image)[..., 1]
            # points beside the picture need no times of their own
            row = torch.minimum(row.clamp_min(-view.height), row.new_tensor(2.0 * view.height))
            there = points_m + velocity_m_s * (start + rate * row)[..., None]
        return there

    def rolled(self, pictures: Tensor, flow_px_s: Tensor) -> Tensor:
        """Pictures (N, C, H, W) of one moment as a rolling shutter takes them.

        flow_px_s (N, H, W, 2): how what each pixel shows moves. What was hidden stays so.
        """
        height, width = pictures.shape[2:]
        here = pixel_grid(height, width, flow_px_s)
        time = self.time_s(here[..., 1].expand(len(pictures), -1))[..., None]
        flow = flow_px_s.permute(0, 3, 1, 2)
        there = here - flow_px_s.flatten(1, 2) * time
        for _ in range(2):
            seen = resample(flow, there, height, width, border='border')
            there = here - seen.flatten(2).mT * time
        return resample(pictures, there, height, width, border='border')

    def _line(self) -> tuple[Tensor, Tensor]:
        """Time of the picture's row 0, s, and from row to row."""
        per_row = self.readout_s / (self.height_px - 1)
        first = (0.5 / self.scale - 0.5 + self.first_px) - (self.height_px - 1) / 2
        return first * per_row, per_row / self.scale
