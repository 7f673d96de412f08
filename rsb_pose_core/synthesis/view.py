"""Pinhole views of the world."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """N pinhole images of H x W pixels; rows of `rotation` are the camera's axes in the world.

    Optical frame: x right, y down, z forward. The centre of the top-left pixel is (0, 0).
    """

    fx: Tensor  # N
    fy: Tensor
    cx: Tensor
    cy: Tensor
    rotation: Tensor  # N 3 3
    centre_m: Tensor  # N 3
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.fx)

    def __getitem__(self, images: Tensor | slice) -> 'View':
        """Some of the images."""
        return View(
            self.fx[images], self.fy[images], self.cx[images], self.cy[images],
            self.rotation[images], self.centre_m[images], self.height, self.width,
        )  # fmt: skip

    def camera(self, points_m: Tensor, image: Tensor) -> Tensor:
        """World points (P, V, 3) in the optical frames of the images (P,) that see them."""
        moved = points_m - self.centre_m[image][:, None]
        return moved @ self.rotation[image].mT

    def project(self, points_m: Tensor, image: Tensor) -> Tensor:
        """Optical-frame points (P, V, 3) to pixels (P, V, 2)."""
        z = points_m[..., 2].clamp_min(1e-3)
        u = self.fx[image][:, None] * points_m[..., 0] / z + self.cx[image][:, None]
        v = self.fy[image][:, None] * points_m[..., 1] / z + self.cy[image][:, None]
        return torch.stack([u, v], -1)

    def rays(self) -> Tensor:
        """World directions (N, H, W, 3) with optical depth 1."""
        u = torch.arange(self.width, device=self.fx.device)
        v = torch.arange(self.height, device=self.fx.device)
        x = ((u - self.cx[:, None]) / self.fx[:, None])[:, None].expand(-1, self.height, -1)
        y = ((v - self.cy[:, None]) / self.fy[:, None])[:, :, None].expand(-1, -1, self.width)
        return torch.stack([x, y, torch.ones_like(x)], -1) @ self.rotation[:, None]
