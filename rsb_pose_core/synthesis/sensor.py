"""From linear light to what a camera delivers: exposure, optics, noise, tone curve, JPEG."""

import cv2
import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.synthesis.draw import Draw

TARGET_MEAN = 0.165  # linear-light mean that auto exposure aims at


def _blur(
    picture: Tensor, along: Tensor, across: Tensor, angle: Tensor, radius: int = 4
) -> Tensor:
    """Elliptic Gaussian, one per picture (N, 3, H, W), deviations in pixels."""
    count, channels, height, width = picture.shape
    step = torch.arange(-radius, radius + 1, device=picture.device).float()
    y, x = torch.meshgrid(step, step, indexing='ij')
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u, v = (x * c + y * s) / along[:, None, None], (y * c - x * s) / across[:, None, None]
    kernel = torch.exp(-0.5 * (u * u + v * v))
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    padded = torch.nn.functional.pad(
        picture.reshape(1, count * channels, height, width), (radius,) * 4, mode='replicate'
    )
    kernel = kernel[:, None].repeat_interleave(channels, 0)
    return torch.nn.functional.conv2d(padded, kernel, groups=count * channels).view_as(picture)


def expose(linear: Tensor, sharpness: Tensor, draw: Draw) -> Tensor:
    """Pictures (2B, 3, H, W) in 0..1 from linear light; all left views first, then all right.

    The two views share the camera's settings but differ a little in each, as real heads do.
    sharpness (B,): full-image pixels per crop pixel; below 1 a crop is an enlargement and soft.
    """
    pairs = len(linear) // 2

    def shared(value: Tensor) -> Tensor:
        return torch.cat([value, value])

    def unequal(deviation: float, *shape: int) -> Tensor:
        return torch.exp(deviation * draw.normal(2 * pairs, *shape))

    mean = linear.mean((1, 2, 3))
    exposure = TARGET_MEAN * torch.exp(0.4 * draw.normal(pairs)) / (mean[:pairs] + 1e-3)
    balance = shared(torch.exp(0.07 * draw.normal(pairs, 3))) * unequal(0.02, 3)
    gain = shared(exposure) * unequal(0.08)
    picture = linear * (gain[:, None] * balance)[:, :, None, None]
    soft = 0.45 / sharpness.clamp_max(1.0) * (sharpness < 1) + draw.log_uniform(0.2, 1.0, pairs)
    smear = draw.chance(0.2, pairs) * draw.uniform(0.5, 2.5, pairs)
    across = shared(soft) * unequal(0.1)
    along = (across**2 + shared(smear) ** 2).sqrt()
    picture = _blur(picture, along, across, shared(draw.uniform(0.0, torch.pi, pairs)))
    iso = shared(draw.log_uniform(0.002, 0.04, pairs))[:, None, None, None]
    noise = 0.6 * draw.normal(*picture.shape) + 0.5 * draw.normal(2 * pairs, 1, *picture.shape[2:])
    picture = picture + noise * (iso * (0.6 * picture.clamp_min(0) + iso)).sqrt()
    # tone: roll-off of the lights, gamma, contrast, saturation
    knee = shared(draw.uniform(0.0, 0.35, pairs))[:, None, None, None]
    picture = picture.clamp_min(0)
    picture = (picture / (1 + knee * picture)).clamp(0, 1)
    gamma = shared(torch.exp(0.1 * draw.normal(pairs)))[:, None, None, None] / 2.2
    picture = picture.clamp_min(1e-5) ** gamma
    contrast = (shared(torch.exp(0.13 * draw.normal(pairs))) * unequal(0.015))[:, None, None, None]
    picture = (picture - 0.5) * contrast + 0.5
    grey = picture.mean(1, keepdim=True)
    saturation = 1 + 0.2 * draw.normal(pairs)
    saturation = torch.where(draw.chance(0.06, pairs), 0.0, saturation).clamp(0, 2)
    return (grey + (picture - grey) * shared(saturation)[:, None, None, None]).clamp(0, 1)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Compress and decompress an RGB picture (H, W, 3) uint8."""
    ok, code = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR) if ok else None
    assert decoded is not None, 'JPEG codec failed'
    return np.ascontiguousarray(decoded[..., ::-1])
