"""A bank of textures: woven and printed cloth, walls, floors, clutter, photographs."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

SIZE = 256
Picture = np.ndarray  # SIZE SIZE 3, float 0..1, sRGB


def spectral_noise(rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Noise (SIZE, SIZE) whose power falls as frequency^-exponent; mean 0, deviation 1."""
    f = np.fft.fftfreq(SIZE) * SIZE
    radius = np.hypot(f[:, None], f[None])
    radius[0, 0] = 1
    amplitude = radius ** (-exponent / 2)
    amplitude[0, 0] = 0
    phase = np.exp(2j * np.pi * rng.random((SIZE, SIZE)))
    noise = np.fft.ifft2(amplitude * phase).real
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """RGB colours (count, 3) as clothes and things have them: many dull, some strong."""
    hsv = np.stack([rng.random(count) * 180, rng.beta(1.1, 1.8, count) * 255,
                    (0.05 + 0.95 * rng.beta(1.3, 1.2, count)) * 255], -1)  # fmt: skip
    rgb = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0]
    return np.asarray(rgb, np.float32) / 255


def grid() -> tuple[np.ndarray, np.ndarray]:
    """x and y (SIZE, SIZE) over the tile, 0..1."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    return x, y


def stripes(rng: np.random.Generator) -> Picture:
    """Cloth with stripes of two to four colours."""
    x, y = grid()
    palette = colours(rng, int(rng.integers(2, 5)))
    edges = np.sort(rng.random(len(palette) - 1))
    along = x if rng.random() < 0.4 else y
    return palette[np.searchsorted(edges, (along * rng.integers(3, 20)) % 1)]


def plaid(rng: np.random.Generator) -> Picture:
    """Cloth with crossing bands."""
    base, *bands = colours(rng, 4)
    picture = np.broadcast_to(base, (SIZE, SIZE, 3)).copy()
    for along in grid():
        for band in bands:
            repeat, width = rng.integers(3, 10), rng.uniform(0.05, 0.4)
            mask = ((along * repeat + rng.random()) % 1) < width
            picture = picture + mask[..., None] * (band - base) * rng.uniform(0.3, 0.6)
    return picture


def dots(rng: np.random.Generator) -> Picture:
    """Cloth with dots in staggered rows."""
    x, y = grid()
    repeat = int(rng.integers(5, 20))
    u = (x * repeat + 0.5 * ((y * repeat).astype(int) % 2)) % 1 - 0.5
    base, dot = colours(rng, 2)
    inside = np.hypot(u, (y * repeat) % 1 - 0.5) < rng.uniform(0.12, 0.4)
    return np.asarray(np.where(inside[..., None], dot, base))


def denim(rng: np.random.Generator) -> Picture:
    """Twill, blue, black or sand."""
    x, y = grid()
    tones = np.array([[0.10, 0.14, 0.25], [0.22, 0.30, 0.46], [0.42, 0.52, 0.66],
                      [0.12, 0.12, 0.14], [0.35, 0.33, 0.30], [0.55, 0.50, 0.42]])  # fmt: skip
    tone = tones[rng.integers(len(tones))] * rng.uniform(0.7, 1.3)
    twill = 1 + 0.1 * np.sin(2 * np.pi * (x + y) * 64) + 0.12 * spectral_noise(rng, 0.2)
    return np.asarray(tone * (twill + 0.1 * spectral_noise(rng, 2.5))[..., None])


def blotches(rng: np.random.Generator) -> Picture:
    """Camouflage: five colours in soft patches."""
    palette = colours(rng, 5)
    return np.asarray(palette[np.digitize(spectral_noise(rng, 2.6), [-0.8, -0.1, 0.5, 1.1])])


def shapes(rng: np.random.Generator) -> Picture:
    """Dead leaves: opaque polygons and ellipses with power-law sizes."""
    picture = np.ones((SIZE, SIZE, 3), np.float32) * colours(rng, 1)[0]
    palette = colours(rng, int(rng.integers(3, 30)))
    largest = rng.uniform(15.0, 120.0)
    shade = 1 + 0.1 * spectral_noise(rng, 1.8)[..., None]
    for _ in range(int(rng.integers(60, 400))):
        size = (4.0**-2 + (largest**-2 - 4.0**-2) * rng.random()) ** -0.5
        centre = rng.random(2) * SIZE
        colour = tuple(map(float, np.clip(palette[rng.integers(len(palette))], 0, 1)))
        if rng.random() < 0.5:
            axes = (max(1, int(size)), max(1, int(size * rng.uniform(0.3, 1.0))))
            place = (int(centre[0]), int(centre[1]))
            cv2.ellipse(picture, place, axes, rng.uniform(0.0, 180.0), 0, 360, colour, -1)
        else:
            turn = np.sort(rng.random(rng.integers(3, 8)) * 2 * np.pi)
            rim = size * rng.uniform(0.5, 1.2, len(turn))
            points = centre + np.stack([rim * np.cos(turn), rim * np.sin(turn)], 1)
            cv2.fillPoly(picture, [points.astype(np.int32)], colour)
    return np.asarray(picture * shade)


def lettering(rng: np.random.Generator) -> Picture:
    """Cloth with letters on it."""
    base, ink = (colours(rng, 2) * 255).astype(np.uint8)
    picture = np.full((SIZE, SIZE, 3), base, np.uint8)
    for _ in range(int(rng.integers(1, 3))):
        text = ''.join(rng.choice(list('ABCDEFGHIKLMNOPRSTUVXYZ0123456789'), rng.integers(2, 7)))
        place = (int(rng.uniform(0.0, 0.5) * SIZE), int(rng.uniform(0.2, 0.9) * SIZE))
        cv2.putText(picture, text, place, int(rng.integers(0, 8)), rng.uniform(0.8, 3.0),
                    tuple(map(int, ink)), int(rng.integers(2, 9)), cv2.LINE_AA)  # fmt: skip
    return picture.astype(np.float32) / 255


def plaster(rng: np.random.Generator) -> Picture:
    """A wall, nearly plain."""
    tone = np.clip(
        np.array([0.72, 0.70, 0.66]) + rng.normal(0, 0.13) + rng.normal(0, 0.05, 3), 0.05, 1
    )
    return np.asarray(tone * (1 + rng.uniform(0.01, 0.1) * spectral_noise(rng, 2.4))[..., None])


def planks(rng: np.random.Generator) -> Picture:
    """Boards with grain."""
    x, y = grid()
    count = int(rng.integers(3, 9))
    row = (y * count).astype(int)
    grain = np.sin((x * 1.5 + rng.random(count)[row] * 9) * 3 + spectral_noise(rng, 3.0) + y * 30)
    tone = np.array([[0.3, 0.2, 0.1], [0.8, 0.65, 0.45]]) * rng.uniform(0.6, 1.15)
    mix = np.clip(0.5 + 0.25 * grain + rng.normal(0, 0.1, count)[row], 0, 1)[..., None]
    picture = tone[0] * (1 - mix) + tone[1] * mix
    picture[((y * count) % 1) < 0.03] *= 0.5
    return np.asarray(picture)


def bricks(rng: np.random.Generator) -> Picture:
    """Bricks or tiles with joints."""
    x, y = grid()
    count, wide = int(rng.integers(4, 14)), rng.choice([0.5, 1.0])
    row = (y * count).astype(int)
    u = x * count * wide + 0.5 * (row % 2) * (wide < 1)
    tone = np.array([0.5, 0.27, 0.2]) if rng.random() < 0.4 else colours(rng, 1)[0]
    vary = 1 + rng.normal(0, 0.1, (64, 64))[row % 64, u.astype(int) % 64]
    picture = tone * vary[..., None]
    joint = ((u % 1) < 0.05) | (((y * count) % 1) < 0.06)
    picture[joint] = rng.uniform(0.3, 0.85)
    return np.asarray(picture)


def shelves(rng: np.random.Generator) -> Picture:
    """Rows of books and boxes."""
    picture = np.ones((SIZE, SIZE, 3), np.float32) * colours(rng, 1)[0] * 0.6
    count = int(rng.integers(3, 7))
    height = SIZE // count
    for i in range(count):
        x = 0
        while x < SIZE:
            width, tall = int(rng.uniform(3.0, 16.0)), int(height * rng.uniform(0.5, 0.9))
            colour = tuple(map(float, colours(rng, 1)[0]))
            cv2.rectangle(picture, (x, (i + 1) * height - tall), (x + width, (i + 1) * height),
                          colour, -1)  # fmt: skip
            x += width + 1
    return np.asarray(picture)


CLOTH = (stripes, plaid, dots, denim, denim, blotches, shapes, lettering)
SURFACE = (plaster, plaster, planks, bricks, shapes, blotches, shelves)


def photographs(rng: np.random.Generator, folder: Path, count: int) -> list[Picture]:
    """Square cut-outs of the panoramas (.hdr) in a folder, tone-mapped."""
    files = sorted(folder.glob('*.hdr'))
    pictures: list[Picture] = []
    for i in range(count if files else 0):
        panorama = cv2.imread(str(files[i % len(files)]), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)
        if panorama is None:
            continue
        height, width = panorama.shape[:2]
        side = int(height * rng.uniform(0.25, 0.6))
        y = int(rng.uniform(0.1 * height, 0.95 * height - side))
        cut = np.roll(panorama, int(rng.integers(width)), axis=1)[y : y + side, :side, ::-1]
        cut = cut / np.percentile(cut, 80).clip(1e-3) * 0.5
        cut = cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).clip(0)
        pictures.append((cut / (1 + 0.4 * cut)).clip(0, 1) ** (1 / 2.2))
    return pictures


class TextureBank:
    """Textures with mip levels on one device: cloth first, then surfaces and photographs."""

    def __init__(
        self, seed: int, cloths: int = 64, surfaces: int = 64, photo_folder: Path | None = None,
        device: str = 'cpu', progress: bool = False,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        makers = [CLOTH[i % len(CLOTH)] for i in range(cloths)]
        makers += [SURFACE[i % len(SURFACE)] for i in range(surfaces)]
        fine = [
            1 + 0.04 * spectral_noise(rng, 0.4) + 0.06 * spectral_noise(rng, 2.2) for _ in range(8)
        ]
        pictures = [
            maker(rng) * fine[i % len(fine)][..., None]
            for i, maker in enumerate(tqdm(makers, 'textures', disable=not progress, leave=False))
        ]
        if photo_folder is not None:
            pictures += photographs(rng, photo_folder, surfaces)
        self.cloths, self.count = cloths, len(pictures)
        level = torch.from_numpy(np.stack(pictures).clip(0, 1).astype(np.float32)) ** 2.2
        levels, starts = [], []
        start = 0
        while level.shape[1] >= 4:
            starts.append(start)
            levels.append((level * 65535).to(torch.int32).reshape(-1, 3))
            start += len(levels[-1])
            level = torch.nn.functional.avg_pool2d(level.permute(0, 3, 1, 2), 2).permute(
                0, 2, 3, 1
            )
        self.texels = torch.cat(levels).to(torch.float32).div_(65535).half().to(device)
        self.starts = torch.tensor(starts, device=device)

    def sample(self, texture: Tensor, uv: Tensor, texels_per_pixel: Tensor) -> Tensor:
        """Linear-light colour (P, 3) of textures (P,) at uv (P, 2), in tiles, wrapping."""
        level = texels_per_pixel.clamp_min(1).log2().round().long().clamp(0, len(self.starts) - 1)
        size = SIZE >> level
        base = self.starts[level] + texture * size * size
        place = (uv - uv.floor()) * size[:, None] - 0.5
        corner = place.floor()
        fraction = (place - corner).to(self.texels.dtype)
        x0, y0 = (corner.long() % size[:, None]).unbind(1)
        x1, y1 = (x0 + 1) % size, (y0 + 1) % size
        fx, fy = fraction[:, :1], fraction[:, 1:]
        top = self.texels[base + y0 * size + x0].lerp(self.texels[base + y0 * size + x1], fx)
        bottom = self.texels[base + y1 * size + x0].lerp(self.texels[base + y1 * size + x1], fx)
        return top.lerp(bottom, fy).float()
