"""A bank of textures: procedural ones, photographs and named pictures, with mip levels."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.errors import DataError
from rsb_pose_core.synthesis.materials import MAKERS
from rsb_pose_core.synthesis.patterns import SIZE, Noise, Picture
from rsb_pose_core.synthesis.splits import names_of

log = logging.getLogger(__name__)

LEVELS = 11  # of the largest picture, 1024 to 1 texels
SOFTNESS = 0.7  # of a mip level: a texel spans 0.6 to 1.2 pixels
SURFACE_KINDS = ('wall', 'floor', 'ground', 'furniture')
LUMINANCE = (0.21, 0.72, 0.07)
RELIEF_TEXELS = 32  # a slope is the change of sqrt(luminance) over 1 / RELIEF_TEXELS of a tile


def linear_from_srgb(value: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values 0..1 (IEC 61966-2-1)."""
    value = np.clip(value, 0, 1)
    return np.asarray(
        np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4), np.float32
    )


def srgb_from_linear(value: np.ndarray) -> np.ndarray:
    """SRGB values 0..1 of linear light (IEC 61966-2-1)."""
    value = np.clip(value, 0, 1)
    return np.asarray(
        np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055), np.float32
    )


LINEAR_OF_BYTE = linear_from_srgb(np.arange(256) / 255)


def halvings(picture: np.ndarray) -> list[np.ndarray]:
    """A picture (S, S, C), and its means over 2 x 2, 4 x 4 ... texels down to (1, 1, C)."""
    levels = [picture]
    while len(levels[-1]) > 1:
        half = len(levels[-1]) // 2
        smaller = cv2.resize(levels[-1], (half, half), interpolation=cv2.INTER_AREA)
        levels.append(smaller.reshape(half, half, -1))
    return levels


def mip_levels(rgba: np.ndarray) -> list[np.ndarray]:
    """Levels (S, S, 4), (S/2, S/2, 4) ... (1, 1, 4) of a linear-light picture.

    Colours are averaged by alpha, and colour flows into what is transparent, so that no
    background bleeds into the edges of hair; alpha is scaled at each level so that as much of the
    picture stays above one half.
    """
    if (rgba[..., 3] == 1).all():
        return halvings(rgba)
    weighted = rgba.copy()
    weighted[..., :3] *= rgba[..., 3:]
    sums = halvings(weighted)
    share = float((rgba[..., 3] >= 0.5).mean())
    levels = []
    coarser = np.zeros((1, 1, 3), np.float32)
    for level in reversed(sums):
        alpha = level[..., 3:]
        if len(level) > 1:
            coarser = coarser.repeat(2, 0).repeat(2, 1)
        coarser = np.where(alpha > 1e-3, level[..., :3] / np.maximum(alpha, 1e-3), coarser)
        middle = np.quantile(alpha, 1 - share) if 0 < share < 1 else 0.5
        alpha = np.clip(alpha * (0.5 / max(float(middle), 1e-3)), 0, 1)
        levels.append(np.concatenate([coarser, alpha], -1))
    levels[-1][..., 3] = rgba[..., 3]
    return levels[::-1]


def packed(rgba: np.ndarray) -> np.ndarray:
    """Texels as 32-bit integers of four bytes: square roots of linear red, green, blue; alpha."""
    value = np.sqrt(np.clip(rgba, 0, 1))
    value[..., 3] = np.clip(rgba[..., 3], 0, 1)
    return np.ascontiguousarray(np.round(value * 255).astype(np.uint8)).view(np.int32).reshape(-1)


def opaque(picture: Picture) -> np.ndarray:
    """Linear RGBA (SIZE, SIZE, 4) of a picture in sRGB."""
    if picture.shape[:2] != (SIZE, SIZE):
        picture = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    linear = linear_from_srgb(picture)
    return np.concatenate([linear, np.ones((SIZE, SIZE, 1), np.float32)], -1)


class TextureBank:
    """Textures with mip levels in one flat buffer of texels on one device."""

    def __init__(
        self,
        seed: int,
        *,
        pictures: Sequence[Picture] = (),
        named: Mapping[str, np.ndarray] | None = None,
        cloths: int = 64,
        surfaces: int = 64,
        device: str = 'cpu',
    ) -> None:
        """Make `cloths` kinds of cloth and `surfaces` walls, floors, ground and furniture.

        pictures: photographs, H W 3 float sRGB 0..1. named: sRGB uint8 RGBA pictures, square with
        a power of two up to 1024 texels a side. The same seed makes the same textures.
        """
        rng = np.random.default_rng(seed)
        noise = Noise(rng)
        each = surfaces // len(SURFACE_KINDS)
        counts = {'cloth': cloths, **dict.fromkeys(SURFACE_KINDS, each)}
        texels: list[np.ndarray] = []
        base: list[list[int]] = []
        bits: list[int] = []
        self._kinds: dict[str, Tensor] = {}
        self._names: dict[str, int] = {}
        place = 0

        def add(rgba: np.ndarray) -> int:
            nonlocal place
            levels = [packed(level) for level in mip_levels(rgba)]
            starts = [place + sum(map(len, levels[:k])) for k in range(len(levels))]
            place += sum(map(len, levels))
            base.append(starts + starts[-1:] * (LEVELS - len(levels)))
            bits.append(len(levels) - 1)
            texels.extend(levels)
            return len(bits) - 1

        for kind, count in counts.items():
            makers = MAKERS[kind]
            numbers = [add(opaque(makers[i % len(makers)](rng, noise))) for i in range(count)]
            self._kinds[kind] = torch.tensor(numbers, dtype=torch.long, device=device)
        numbers = [add(opaque(picture)) for picture in pictures]
        self._kinds['picture'] = torch.tensor(numbers, dtype=torch.long, device=device)
        for name, rgba in (named or {}).items():
            self._names[name] = add(_checked(name, rgba))
        self.white = add(np.ones((1, 1, 4), np.float32))  # what surfaces without a texture show
        self.texels = torch.from_numpy(np.concatenate(texels)).to(device)
        self.base = torch.tensor(base, dtype=torch.int32, device=device).reshape(-1)
        self.bits = torch.tensor(bits, dtype=torch.int32, device=device)

    def __len__(self) -> int:
        return len(self.bits)

    def of(self, kind: str) -> Tensor:
        """Numbers of the 'cloth', 'wall', 'floor', 'ground', 'furniture' or 'picture' textures."""
        return self._kinds[kind]

    def number(self, name: str) -> int:
        """Number of a named picture; DataError if there is none of that name."""
        if name not in self._names:
            raise DataError(
                f"the texture bank has no picture '{name}'; it has {len(self._names)} named"
                ' pictures: add it to `named` when the bank is made'
            )
        return self._names[name]

    def sample(self, texture: Tensor, uv: Tensor, tiles_per_pixel: Tensor) -> Tensor:
        """Linear-light RGBA (P, 4) of textures (P,) at uv (P, 2), in tiles, wrapping.

        tiles_per_pixel (P,): how much of a tile a pixel spans; chooses the mip level.
        """
        taps, weight, _ = self._taps(texture, uv.t(), tiles_per_pixel)
        colour = [(self._channel(taps, k) ** 2 * weight).sum(0) for k in range(3)]
        return torch.stack([*colour, (self._channel(taps, 3) * weight).sum(0)], 1)

    def alpha(self, texture: Tensor, uv: Tensor, tiles_per_pixel: Tensor) -> Tensor:
        """Alpha (P,) at uv (2, P)."""
        taps, weight, _ = self._taps(texture, uv, tiles_per_pixel)
        return (self._channel(taps, 3) * weight).sum(0)

    def relief(
        self, texture: Tensor, uv: Tensor, tiles_per_pixel: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Colour (3, P) in linear light at uv (2, P), and how steeply brightness rises (2, P)."""
        taps, weight, size = self._taps(texture, uv, tiles_per_pixel)
        colour = torch.empty_like(weight[:3])
        height = torch.zeros_like(weight)
        for k in range(3):
            channel = self._channel(taps, k)
            height.add_(channel, alpha=LUMINANCE[k])
            torch.sum(channel.square_().mul_(weight), 0, out=colour[k])
        across = (height[1] - height[0]) * (weight[0] + weight[1])
        across += (height[3] - height[2]) * (weight[2] + weight[3])
        along = (height[2] - height[0]) * (weight[0] + weight[2])
        along += (height[3] - height[1]) * (weight[1] + weight[3])
        return colour, torch.stack([across, along]) * (size / RELIEF_TEXELS)

    def _taps(
        self, texture: Tensor, uv: Tensor, tiles_per_pixel: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Texels and weights (4, P) round uv (2, P), and the side of the level in texels (P,)."""
        texture = texture.int()
        bits = self.bits.index_select(0, texture)
        level = (tiles_per_pixel.clamp_min(1e-9).log2() + bits + SOFTNESS).floor_()
        level = torch.minimum(level.clamp_min_(0).int(), bits)
        base = self.base.index_select(0, texture * LEVELS + level)
        bits = bits - level
        side = torch.ones_like(bits) << bits
        size = side.to(uv.dtype)
        place = (uv - uv.floor()) * size - 0.5
        corner = place.floor()
        fraction = place - corner
        last = side - 1
        x0, y0 = corner.int() & last
        x1, y1 = (x0 + 1) & last, (y0 + 1) & last
        top, bottom = base + (y0 << bits), base + (y1 << bits)
        index = torch.stack([top + x0, top + x1, bottom + x0, bottom + x1])
        taps = self.texels.index_select(0, index.view(-1)).view(index.shape)
        fx, fy = fraction
        ex, ey = 1 - fx, 1 - fy
        return taps, torch.stack([ex * ey, fx * ey, ex * fy, fx * fy]), size

    @staticmethod
    def _channel(taps: Tensor, number: int) -> Tensor:
        """One byte of texels as 0..1."""
        return ((taps >> (8 * number)) & 255).float().mul_(1 / 255)


def _checked(name: str, rgba: np.ndarray) -> np.ndarray:
    """Linear RGBA of a named picture; DataError where it is none."""
    side = len(rgba)
    good = rgba.ndim == 3 and rgba.shape == (side, side, 4) and rgba.dtype == np.uint8
    if not good or side & (side - 1) or not 1 <= side <= 2 ** (LEVELS - 1):
        raise DataError(
            f"picture '{name}' is {rgba.dtype} of shape {rgba.shape}; expected uint8 RGBA, square,"
            ' with a power of two up to 1024 texels a side: resize it'
        )
    colour = LINEAR_OF_BYTE[rgba[..., :3]]
    return np.concatenate([colour, rgba[..., 3:].astype(np.float32) / 255], -1)


def read_pictures(
    folder: Path, split: str, *, count: int = 64, seed: int = 0, suffixes: Iterable[str] = ()
) -> list[Picture]:
    """`count` square cut-outs (SIZE, SIZE, 3) float sRGB of the photographs of a split.

    Takes .hdr panoramas (tone-mapped), .jpg and .png in `folder` and below; `suffixes` chooses
    among these. Unreadable files are named in a warning and left out. Empty without photographs.
    """
    wanted = tuple(suffixes) or ('.hdr', '.jpg', '.jpeg', '.png')
    files = {
        path.relative_to(folder).with_suffix('').as_posix(): path
        for path in sorted(folder.rglob('*'))
        if path.suffix.lower() in wanted
    }
    rng = np.random.default_rng(seed)
    chosen = names_of(split, files)
    order = [chosen[i] for i in rng.permutation(len(chosen))[:count]]
    photographs = [photo for name in order if (photo := _photograph(files[name])) is not None]
    if not photographs:
        return []
    return [_square(rng, photographs[i % len(photographs)]) for i in range(count)]


def _photograph(path: Path) -> Picture | None:
    """Float sRGB, tone-mapped where it is a panorama; None, with a warning, if unreadable."""
    try:
        picture = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None or min(picture.shape[:2]) < 32:
        log.warning(
            '%s is no readable picture of at least 32 pixels a side; it is left out: replace or'
            ' delete it', path,
        )  # fmt: skip
        return None
    picture = picture[..., ::-1]
    if picture.dtype == np.uint8:
        return np.asarray(picture, np.float32) / 255
    linear = np.maximum(np.nan_to_num(picture.astype(np.float32), posinf=65504.0), 0)
    linear = linear * (0.4 / max(float(np.percentile(linear, 70)), 1e-4))
    return srgb_from_linear(linear * (1 + linear / 16) / (1 + linear))  # Reinhard 2002, eq. 4


def _square(rng: np.random.Generator, picture: Picture) -> Picture:
    """A random square of a photograph; panoramas lose their poles, where they are stretched."""
    height, width = picture.shape[:2]
    if width == 2 * height:
        picture = np.roll(picture, int(rng.integers(width)), 1)[height // 6 : height * 5 // 6]
        height = len(picture)
    side = int(min(height, width) * rng.uniform(0.4, 1.0))
    y, x = (int(rng.integers(extent - side + 1)) for extent in (height, width))
    cut = np.ascontiguousarray(picture[y : y + side, x : x + side])
    how = cv2.INTER_AREA if side > SIZE else cv2.INTER_CUBIC
    return np.clip(cv2.resize(cut, (SIZE, SIZE), interpolation=how), 0, 1)
