"""Light on surfaces: sun, ambient light, relief and highlights.

Per-pixel values lie channels first, (3, N, P) for N images of P pixels: elementwise work on long
rows is what both kinds of device do best.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.lighting import Light

DIELECTRIC = 0.04  # reflectance of most things that are no metal, seen straight


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar product over the first dimension of three."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(vector: Tensor) -> Tensor:
    """Vectors (3, ...) of length one."""
    return vector * dot(vector, vector).clamp_min(1e-20).rsqrt()


def ambient_light(coefficients: Tensor, normal: Tensor) -> Tensor:
    """Irradiance / pi (3, N, P) on normals (3, N, P) from coefficients (N, 9 or 4, 3).

    The same as `lighting.ambient`; the first four coefficients alone are a blurred light.
    """
    x, y, z = normal
    weight = coefficients.permute(2, 1, 0)[..., None]  # 3 9 N 1
    total: Tensor = weight[:, 0] + weight[:, 1] * x
    total = total.addcmul_(weight[:, 2], y).addcmul_(weight[:, 3], z)
    if coefficients.shape[1] == 9:
        terms = (x * y, y * z, x * z, x * x - z * z, 3 * y * y - 1)
        for k, term in enumerate(terms):
            total.addcmul_(weight[:, 4 + k], term)
    return total.clamp_min_(0)


def relieved(normal: Tensor, slope: Tensor) -> Tensor:
    """Normals (3, N, P) tilted against slopes (2, N, P) across and down."""
    x, y, z = normal
    level = torch.hypot(x, z)
    flat = level < 1e-3
    inverse = 1 / level.clamp_min(1e-3)
    ax, az = torch.where(flat, 1.0, z * inverse), torch.where(flat, 0.0, -x * inverse)
    # across = (ax, 0, az); down = across x normal
    down_x, down_y, down_z = -az * y, az * x - ax * z, ax * y
    return unit(
        torch.stack([
            x - slope[0] * ax - slope[1] * down_x,
            y - slope[1] * down_y,
            z - slope[0] * az - slope[1] * down_z,
        ])
    )  # fmt: skip


def fresnel(cosine: Tensor) -> Tensor:
    """Reflectance of a dielectric at an angle of this cosine (Schlick 1994)."""
    off = 1 - cosine
    square = off * off
    return (square * square * off).mul_(1 - DIELECTRIC).add_(DIELECTRIC)


@dataclass(frozen=True)
class Surfels:
    """What N images of P pixels show."""

    albedo: Tensor  # 3 N P
    normal: Tensor  # 3 N P, towards the eye
    to_eye: Tensor  # 3 N P
    lit: Tensor  # N P, share of the sun
    openness: Tensor  # N P, share of the ambient light that nothing hides
    daylight: Tensor  # N P, gain of the ambient light
    gloss: Tensor  # N P
    scatter: Tensor  # 3 N P


def shade(surfels: Surfels, light: Light, image_scene: Tensor) -> Tensor:
    """Radiance (3, N, P) towards the eye.

    Sun: wrapped Lambert, so that scattering skin has soft edges, and normalised Blinn-Phong.
    Ambient light: spherical harmonics, and their reflection with Schlick's Fresnel term.
    """
    direction = light.sun_direction[image_scene].t()[..., None]  # 3 N 1
    sun = light.sun[image_scene].t()[..., None]
    coefficients = light.ambient[image_scene]
    normal, to_eye, scatter = surfels.normal, surfels.to_eye, surfels.scatter
    towards = dot(normal, direction)
    direct = (towards + scatter).clamp_min_(0) / (1 + scatter).square_()
    direct = direct.mul_(surfels.lit).mul_(sun)
    openness, daylight = surfels.openness, surfels.daylight
    # what is hidden from the sky sees surfaces of about the same colour instead
    around = ambient_light(coefficients, normal).mul_(openness * daylight)
    around.div_(1 - surfels.albedo * (1 - openness))
    half = unit(to_eye + direction)
    exponent = 8 + 160 * surfels.gloss.square()
    peak = (dot(normal, half).clamp_min(1e-4).log_() * exponent).exp_() * (exponent + 8) / 8
    facing = dot(normal, to_eye).clamp(0, 1)
    mirror = 2 * facing * normal - to_eye
    gloss = surfels.gloss
    glance = fresnel(dot(half, to_eye).clamp(0, 1)) * gloss
    shine = glance * peak * towards.clamp_min(0) * surfels.lit
    rim = fresnel(facing) * gloss * openness * daylight
    colour = (direct + around).mul_(surfels.albedo)
    colour.addcmul_(sun, shine)
    return colour.addcmul_(ambient_light(coefficients[:, :4], mirror), rim)
