"""Light from all around: environment maps as a sun and spherical harmonics.

A map is a picture of 360 x 180 degrees, its rows from straight up to straight down. Its brightest
lamp becomes a sun that casts shadows; what is left lights surfaces from all sides, as nine
coefficients (Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment
maps", 2001).
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis import rotations, skies
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.splits import names_of

log = logging.getLogger(__name__)

Map = np.ndarray  # H 2H 3 float, radiance in linear light
NO_PANORAMA = -1
ANALYSED_ROWS = 256  # larger maps are averaged to this height before they are measured
CONE = math.cos(math.radians(14.0))  # one sun lies within this angle of its middle
# a lamp's pixels are brighter than this many times the mean; it can be this share of them at most
GLARE = 6.0
SKY_BLUENESS = 1.09
SUN_SIZE = (0.005, 0.3)  # radius / distance
RADIANCE_MAX = 30.0  # of panoramas behind a scene: sensors saturate far below it
# Constants of the real spherical harmonics about y, squared, times pi; and what the cosine lobe
# makes of them, over pi: sums of radiance * polynomial * solid angle become irradiance / pi.
SQUARED = (1 / 4, 3 / 4, 3 / 4, 3 / 4, 15 / 4, 15 / 4, 15 / 4, 15 / 16, 5 / 16)
LOBE = (1.0, *[2 / 3] * 3, *[1 / 4] * 5)


@dataclass(frozen=True)
class Light:
    """What lights B scenes. Directions are world directions towards the light."""

    sun_direction: Tensor  # B 3, unit
    sun: Tensor  # B 3, irradiance of a surface that faces the sun, divided by pi
    sun_size: Tensor  # B, radius of the penumbra in m per m of distance, about 0.005..0.3
    ambient: Tensor  # B 9 3, spherical harmonics of irradiance / pi without the sun, world axes
    panorama: Tensor  # B, number of the environment map, -1: none
    panorama_turn: Tensor  # B 3 3, map axes from world axes (about y)
    panorama_gain: Tensor  # B 3, multiplies the map's radiance


def harmonics(direction: Tensor) -> Tensor:
    """The nine polynomials (..., 9) of unit directions (..., 3) that `Light.ambient` weighs."""
    x, y, z = direction.unbind(-1)
    terms = [torch.ones_like(x), x, y, z, x * y, y * z, x * z, x * x - z * z, 3 * y * y - 1]
    return torch.stack(terms, -1)


def ambient(light: Light, scene: Tensor, normal: Tensor) -> Tensor:
    """Irradiance / pi (P, 3) without the sun on surfaces of normals (P, 3) in scenes (P,)."""
    rows = scene[:, None] * 9 + torch.arange(9, device=scene.device)
    return torch.nn.functional.embedding_bag(
        rows, light.ambient.reshape(-1, 3), per_sample_weights=harmonics(normal), mode='sum'
    ).clamp_min(0)


def turned(coefficients: Tensor, angle: Tensor) -> Tensor:
    """Coefficients (B, 9, 3) of light turned by `angle` (B,) radians about y."""
    x, z, xy, yz, xz, xx = (coefficients[:, k] for k in (1, 3, 4, 5, 6, 7))
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    c2, s2 = (2 * angle).cos()[:, None], (2 * angle).sin()[:, None]
    # x -> c x + s z and z -> c z - s x; the terms of second order with xz, xx turn twice as fast
    return torch.stack(
        [
            coefficients[:, 0], c * x + s * z, coefficients[:, 2], c * z - s * x,
            c * xy + s * yz, c * yz - s * xy, c2 * xz - 2 * s2 * xx, c2 * xx + 0.5 * s2 * xz,
            coefficients[:, 8],
        ],
        1,
    )  # fmt: skip


def directions(rows: int, columns: int) -> np.ndarray:
    """Map-axes directions (rows, columns, 3) of a map's pixels: the middle of the map is +z."""
    polar = (np.arange(rows) + 0.5)[:, None] / rows * np.pi
    azimuth = (np.arange(columns) + 0.5)[None] / columns * 2 * np.pi - np.pi
    x, z = -np.sin(polar) * np.sin(azimuth), np.sin(polar) * np.cos(azimuth)
    return np.stack([x, np.broadcast_to(np.cos(polar), x.shape), z], -1)


def solid_angles(rows: int, columns: int) -> np.ndarray:
    """Solid angle in sr (rows, 1) of one pixel of each row."""
    edges = np.cos(np.arange(rows + 1) / rows * np.pi)
    return np.asarray((edges[:-1] - edges[1:])[:, None] * (2 * np.pi / columns))


@dataclass(frozen=True)
class Measured:
    """One environment map, taken apart; scaled so that its mean irradiance / pi is 1."""

    panorama: np.ndarray  # H 2H 3
    sun_direction: np.ndarray  # 3
    sun: np.ndarray  # 3, irradiance / pi
    sun_size: float
    ambient: np.ndarray  # 9 3
    ground: np.ndarray  # 3, albedo of the lower half as its light suggests
    blueness: float  # blue / red of the light from above: skies have more than 1.1


def measure(panorama: Map) -> Measured:
    """Split a map into its brightest lamp and the rest."""
    small = panorama.astype(np.float64)
    if small.shape[0] > ANALYSED_ROWS:
        size = (2 * ANALYSED_ROWS, ANALYSED_ROWS)
        small = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_AREA), np.float64)
    rows, columns = small.shape[:2]
    omega, towards = solid_angles(rows, columns), directions(rows, columns)
    total = (small * omega[..., None]).sum((0, 1))
    scale = 4 * np.pi / max(float(total.mean()), 1e-9)
    small = small * scale
    luminance = small.mean(-1)
    glare = np.clip(luminance - GLARE, 0, None)
    glare[rows // 2 :] = 0  # lamps stand above the horizon: reflections in the ground do not count
    power = glare * omega
    # the lamp whose cone holds the most power, then its middle
    cells = power[: rows - rows % 8, : columns - columns % 8].reshape(8, rows // 8, -1)
    cells = cells.reshape(8, rows // 8, 8, columns // 8).sum((1, 3))
    row, column = np.unravel_index(int(cells.argmax()), cells.shape)
    cell = np.zeros_like(power)
    cell[row * (rows // 8) : (row + 1) * (rows // 8),
         column * (columns // 8) : (column + 1) * (columns // 8)] = 1  # fmt: skip
    weight = power * cell
    middle = np.array([0.0, 1.0, 0.0])
    for _ in range(4):
        if weight.sum() > 0:
            middle = (towards * weight[..., None]).sum((0, 1))
            middle /= np.linalg.norm(middle)
        weight = power * (towards @ middle > CONE)
    share = np.where(weight > 0, glare / np.maximum(luminance, 1e-9), 0.0)
    taken = small * share[..., None]
    facing = np.clip(towards @ middle, 0, 1)
    sun = (taken * (facing * omega)[..., None]).sum((0, 1)) / np.pi
    off = 1 - facing**2  # squared sine of the angle from the lamp's middle
    spread = float((off * weight).sum() / max(float(weight.sum()), 1e-12))
    rest = small - taken
    basis = harmonics(torch.from_numpy(towards)).numpy()
    folded = np.einsum('yxk,yxc->kc', basis * omega[..., None], rest)
    folded *= (np.array(SQUARED) * np.array(LOBE) / np.pi)[:, None]
    falling = folded[0] + folded[2] + 2 * folded[8] + sun * max(middle[1], 0.0)
    below, above = slice(rows * 5 // 8, rows), slice(0, rows // 8)
    ground = (small * omega[..., None])[below].sum((0, 1)) / (omega[below].sum() * columns)
    overhead = small[above].mean((0, 1))
    return Measured(
        np.minimum(panorama * scale, RADIANCE_MAX), middle, sun,
        float(np.clip(math.sqrt(2 * spread), *SUN_SIZE)), folded,
        np.clip(ground / np.maximum(falling, 1e-3), 0.03, 0.9),
        float(overhead[2] / max(float(overhead[0]), 1e-9)),
    )  # fmt: skip


def read_maps(files: Sequence[Path]) -> list[Map]:
    """Radiance maps (H, W, 3), RGB. Unreadable files are left out with a warning.

    Raises RsbPoseError where not one of the files can be read.
    """
    maps = []
    for file in files:
        picture = None
        if file.is_file():
            data = np.fromfile(file, np.uint8)
            flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR
            picture = cv2.imdecode(data, flags) if len(data) else None
        wide = picture is not None and picture.shape[1] == 2 * picture.shape[0] >= 32
        if picture is None or not wide or not np.isfinite(picture).all():
            log.warning('%s is no Radiance picture twice as wide as high: it is left out.', file)
        else:
            maps.append(np.ascontiguousarray(picture[..., ::-1], np.float32))
    if not maps:
        raise RsbPoseError(
            f'None of the {len(files)} environment maps in {files[0].parent} can be read; '
            'expected Radiance pictures (.hdr) twice as wide as high; name another folder or none.'
        )
    return maps


class LightBank:
    """Environment maps of one split, measured; without a folder only made-up ones."""

    def __init__(
        self, folder: Path | None = None, split: str = 'train', device: str = 'cpu',
        made_up: int | None = None,
    ) -> None:  # fmt: skip
        """folder: Radiance maps (.hdr); `made_up` skies and rooms with lamps join them.

        Without a number of those there are 8, or 16 where there is no folder. Raises RsbPoseError
        where a folder has no readable map.
        """
        maps: list[Map] = []
        if folder is not None:
            files = {file.stem: file for file in folder.glob('*.hdr')}
            if not files:
                raise RsbPoseError(
                    f'{folder} holds no environment map (*.hdr); name another folder or none.'
                )
            maps += read_maps([files[name] for name in names_of(split, files)])
        rng = np.random.default_rng([ord(letter) for letter in split])
        made = made_up if made_up is not None else 8 if maps else 16
        for number in range(made):
            maps.append((skies.outdoors, skies.indoors)[number % 2](rng))
        measured = [measure(panorama) for panorama in maps]

        def table(values: Sequence[np.ndarray | float]) -> Tensor:
            return torch.from_numpy(np.stack(values).astype(np.float32)).to(device)

        self.sun_direction = table([m.sun_direction for m in measured])
        self.sun = table([m.sun for m in measured])
        self.sun_size = table([m.sun_size for m in measured])
        self.ambient = table([m.ambient for m in measured])
        self.ground = table([m.ground for m in measured])
        found = [m.blueness > SKY_BLUENESS for m in measured[: len(maps) - made]]
        self.outdoors = torch.tensor(
            found + [number % 2 == 0 for number in range(made)], device=device
        )
        rows = [len(m.panorama) for m in measured]
        self.rows = torch.tensor(rows, device=device)
        self.first = torch.tensor(np.cumsum([0, *[2 * r * r for r in rows]])[:-1], device=device)
        texels = np.concatenate([m.panorama.reshape(-1, 3) for m in measured])
        self.texels = torch.from_numpy(texels.astype(np.float32)).to(device)
        self.device = device

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, count: int, draw: Draw, outdoors: Tensor) -> Light:
        """Light for scenes, outdoors (count,) bool or in rooms; four of five maps fit the place.

        Rooms soften and mix what comes from outside: their suns are larger, their ambient light is
        nearer to the same from all sides.
        """
        # a random order per scene; the first map of the wished kind is taken
        fits = (self.outdoors == outdoors[:, None]) | draw.chance(0.2, count, 1)
        chosen = (draw.uniform(0.0, 1.0, count, len(self)) + fits).argmax(1)
        angle = draw.uniform(-math.pi, math.pi, count)
        turn = rotations.about_y(angle)
        gain = draw.log_uniform(0.6, 1.6, count, 1) * draw.log_uniform(0.9, 1.11, count, 3)
        inside = ~outdoors
        softness = torch.where(
            inside, draw.log_uniform(0.02, SUN_SIZE[1], count), torch.zeros_like(angle)
        )
        mixing = torch.where(inside, draw.uniform(0.4, 1.0, count), torch.ones_like(angle))
        # what the map lit from all sides is half hidden behind what the scene does not model
        ambient = self.ambient[chosen] * (gain * draw.uniform(0.4, 1.0, count, 1))[:, None]
        ambient = torch.cat([ambient[:, :1], ambient[:, 1:] * mixing[:, None, None]], 1)
        direction = (turn @ self.sun_direction[chosen][..., None])[..., 0]
        strength = torch.where(
            outdoors, draw.log_uniform(0.7, 1.7, count), draw.log_uniform(0.4, 2.2, count)
        )
        return Light(
            direction, self.sun[chosen] * gain * strength[:, None],
            torch.maximum(self.sun_size[chosen], softness), turned(ambient, angle), chosen,
            turn.mT, gain,
        )  # fmt: skip

    def radiance(self, panorama: Tensor, direction: Tensor) -> Tensor:
        """Linear-light radiance (P, 3) of maps (P,) in map-axes directions (P, 3).

        Directions need not have unit length. Pixels are interpolated, across the seam too.
        """
        x, y, z = direction.unbind(-1)
        rows, first = self.rows[panorama], self.first[panorama]
        v = torch.atan2(torch.hypot(x, z), y) * (rows / math.pi) - 0.5
        u = torch.atan2(-x, z) * (rows / math.pi) + (rows - 0.5)
        u0, v0 = u.floor(), v.floor()
        fu, fv = u - u0, v - v0
        left, top = u0.long(), v0.long()
        columns = 2 * rows
        right, left = (left + 1) % columns, left % columns
        above = first + top.clamp_min(0) * columns
        below = first + torch.minimum(top + 1, rows - 1) * columns
        return torch.nn.functional.embedding_bag(
            torch.stack([above + left, above + right, below + left, below + right], 1),
            self.texels, mode='sum',
            per_sample_weights=torch.stack(
                [(1 - fu) * (1 - fv), fu * (1 - fv), (1 - fu) * fv, fu * fv], 1
            ),
        )  # fmt: skip
