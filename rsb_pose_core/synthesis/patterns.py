"""Procedural textures: what patterns are made of, and cloth.

A maker takes a random generator and a pool of noise and returns one tile, (SIZE, SIZE, 3) float
sRGB about 0..1, that joins itself at its edges.
"""

from collections.abc import Callable

import cv2
import numpy as np

SIZE = 256
Picture = np.ndarray  # H W 3, float 0..1, sRGB
Y, X = (np.mgrid[0:SIZE, 0:SIZE] / SIZE).astype(np.float32)
EXPONENTS = (0.3, 1.0, 1.7, 2.3, 3.0)


class Noise:
    """Periodic fields whose power falls as frequency^-exponent; mean 0, deviation 1."""

    def __init__(self, rng: np.random.Generator, each: int = 4) -> None:
        self.rng = rng
        self.pool = {
            exponent: [self._field(exponent) for _ in range(each)] for exponent in EXPONENTS
        }

    def _field(self, exponent: float) -> np.ndarray:
        f = np.fft.fftfreq(SIZE) * SIZE
        radius = np.hypot(f[:, None], f[None, : SIZE // 2 + 1])
        radius[0, 0] = 1
        white = np.fft.rfft2(self.rng.standard_normal((SIZE, SIZE)))
        white[0, 0] = 0
        noise = np.fft.irfft2(white * radius ** (-exponent / 2), (SIZE, SIZE))
        return np.asarray(noise / noise.std(), np.float32)

    def __call__(self, exponent: float) -> np.ndarray:
        """A field of the nearest exponent of the pool, shifted, turned and mirrored."""
        nearest = min(EXPONENTS, key=lambda value: abs(value - exponent))
        field = self.pool[nearest][self.rng.integers(len(self.pool[nearest]))]
        across, down = (int(shift) for shift in self.rng.integers(SIZE, size=2))
        field = np.rot90(np.roll(field, (down, across), (0, 1)), int(self.rng.integers(4)))
        return np.asarray(field if self.rng.random() < 0.5 else field[::-1])

    def streaks(self, exponent: float, stretch: int) -> np.ndarray:
        """A field drawn out along x: grain, brushed metal."""
        field = self(exponent)
        squeezed = field[:, : SIZE // stretch]
        wide = cv2.resize(squeezed, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        blend = np.clip((X - 0.8) / 0.2, 0, 1)  # joins itself at the right edge
        wide = wide * (1 - blend) + np.roll(wide[:, ::-1], 1, 1) * blend
        return np.asarray(wide / wide.std())


Maker = Callable[[np.random.Generator, Noise], Picture]


def hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """RGB (N, 3) of hue, saturation and value (N,) in 0..1."""
    stack = np.stack([hue * 360, saturation, value], -1)[None].astype(np.float32)
    return np.asarray(cv2.cvtColor(stack, cv2.COLOR_HSV2RGB)[0])


def colours(rng: np.random.Generator, count: int) -> np.ndarray:
    """RGB (count, 3) as clothes and things have them: many dull, dark or white, some strong."""
    grey = rng.random(count) < 0.3
    saturation = np.where(grey, rng.uniform(0, 0.12, count), rng.beta(1.5, 1.6, count))
    value = np.where(grey, rng.beta(0.7, 0.8, count) * 0.9 + 0.06, rng.beta(1.6, 1.3, count))
    hue = np.where(rng.random(count) < 0.4, rng.normal(0.6, 0.06, count), rng.random(count))
    return hsv(hue % 1, saturation, 0.05 + 0.9 * value)


def light_tone(rng: np.random.Generator) -> np.ndarray:
    """RGB (3,) as walls are painted: mostly light and nearly grey."""
    if rng.random() < 0.2:
        tone = hsv(rng.random(1), rng.uniform(0.1, 0.55, 1), rng.uniform(0.35, 0.9, 1))
    else:
        value = np.clip(rng.normal(0.8, 0.12, 1), 0.3, 0.97)
        tone = hsv(rng.normal(0.11, 0.06, 1) % 1, rng.beta(1.2, 9, 1), value)
    return np.asarray(tone[0])


def wood_tones(rng: np.random.Generator) -> np.ndarray:
    """Dark and light RGB (2, 3) of a wood."""
    hue, value = rng.normal(0.075, 0.015), rng.uniform(0.28, 0.85)
    saturation = rng.uniform(0.25, 0.7)
    dark = value * rng.uniform(0.5, 0.8)
    strong = min(1.0, saturation * 1.15)
    return hsv(
        np.array([hue, hue + 0.01]) % 1, np.array([strong, saturation]), np.array([dark, value])
    )


def blend(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> Picture:
    """From colour `low` to `high` (3,) by share (SIZE, SIZE), clipped to 0..1."""
    share = np.clip(share, 0, 1)[..., None]
    return np.asarray(low * (1 - share) + high * share)


def shaded(colour: np.ndarray, shade: np.ndarray) -> Picture:
    """A colour (3,) or picture times a shade (SIZE, SIZE)."""
    return np.asarray(colour * shade[..., None])


def stamped(
    rng: np.random.Generator, picture: Picture, count: int, least: float, most: float,
    palette: np.ndarray, corners: int = 0,
) -> Picture:  # fmt: skip
    """Ellipses, or polygons of so many corners, of power-law radii in pixels, over the edges."""
    picture = np.ascontiguousarray(picture, np.float32)
    sizes = (least**-2.0 + (most**-2.0 - least**-2.0) * rng.random(count)) ** -0.5
    for size, place, tone in zip(
        sizes, rng.random((count, 2)) * SIZE, rng.integers(len(palette), size=count), strict=True
    ):
        colour = tuple(float(c) for c in palette[tone] * rng.uniform(0.85, 1.1))
        angle, narrow = rng.uniform(0, 360), rng.uniform(0.4, 1.0)
        rim = cv2.ellipse2Poly((0, 0), (100, int(100 * narrow)), int(angle), 0, 360,
                               360 // corners if corners else 20)  # fmt: skip
        rim = rim * (size / 100)
        if corners:
            rim = rim * rng.uniform(0.6, 1.2, (len(rim), 1))
        for dx in (-SIZE, 0, SIZE):
            for dy in (-SIZE, 0, SIZE):
                at = place + (dx, dy)
                if (at > -size).all() and (at < SIZE + size).all():
                    cv2.fillPoly(picture, [np.round((rim + at) * 8).astype(np.int32)], colour,
                                 cv2.LINE_AA, 3)  # fmt: skip
    return picture


def woven(rng: np.random.Generator, noise: Noise) -> np.ndarray:
    """Shade of threads (SIZE, SIZE): plain weave, twill, herringbone or knit, with slubs."""
    threads = int(rng.choice([32, 48, 64]))
    kind, depth = rng.integers(4), rng.uniform(0.03, 0.14)
    x, y = X * threads, Y * threads
    if kind == 0:
        shade = np.sin(2 * np.pi * x) * np.sin(2 * np.pi * y)
    elif kind == 1:
        shade = np.sin(2 * np.pi * (x + y))
    elif kind == 2:
        shade = np.sin(2 * np.pi * (y + threads * np.abs((X * threads / 8) % 1 - 0.5) / 4))
    else:  # columns of V stitches
        column = (x / 2) % 1
        shade = np.sin(2 * np.pi * (y / 2 + np.abs(column - 0.5) * 1.2)) - (column < 0.12)
    slub = rng.uniform(0.02, 0.08) * noise(0.3) + rng.uniform(0.0, 0.05) * noise(2.3)
    return np.asarray(1 + depth * shade + slub, np.float32)


def plain(rng: np.random.Generator, noise: Noise) -> Picture:
    """Cloth of one colour, sometimes of two yarns."""
    one, other = colours(rng, 2)
    mixed = rng.random() < 0.3
    base = blend(one, one * 0.6 + other * 0.4, 0.5 + 0.4 * noise(1.0)) if mixed else one
    return shaded(base, woven(rng, noise))


def denim(rng: np.random.Generator, noise: Noise) -> Picture:
    """Twill in blue, black or sand, worn in places."""
    tones = np.array([[0.10, 0.14, 0.25], [0.2, 0.28, 0.44], [0.42, 0.52, 0.66],
                      [0.12, 0.12, 0.14], [0.35, 0.33, 0.30], [0.55, 0.50, 0.42]])  # fmt: skip
    tone = tones[rng.integers(len(tones))] * rng.uniform(0.8, 1.25)
    worn = blend(tone, tone * 0.6 + 0.3, 0.2 + rng.uniform(0.03, 0.15) * noise(2.3))
    twill = 1 + 0.1 * np.sin(2 * np.pi * (X + Y) * 64) + 0.1 * noise.streaks(0.3, 4).T
    return shaded(worn, twill)


def stripes(rng: np.random.Generator, noise: Noise) -> Picture:
    """Cloth with stripes of two to four colours."""
    palette = colours(rng, int(rng.integers(2, 5)))
    edges = np.sort(rng.random(len(palette) - 1))
    along = X if rng.random() < 0.4 else Y
    return shaded(palette[np.searchsorted(edges, (along * rng.integers(3, 24)) % 1)],
                  woven(rng, noise))  # fmt: skip


def plaid(rng: np.random.Generator, noise: Noise) -> Picture:
    """Cloth with crossing bands of coloured thread."""
    base, *bands = colours(rng, int(rng.integers(2, 5)))
    sheets = []
    for along in (X, Y):
        sheet = np.broadcast_to(base, (SIZE, SIZE, 3)).copy()
        repeat = rng.integers(2, 8)
        for band in bands:
            inside = ((along * repeat + rng.random()) % 1) < rng.uniform(0.05, 0.45)
            sheet[inside] = band
        sheets.append(sheet)
    over = ((X + Y) * 64 % 1 < 0.5)[..., None]
    return shaded(np.where(over, sheets[0], sheets[1]), woven(rng, noise))


def dots(rng: np.random.Generator, noise: Noise) -> Picture:
    """Cloth with dots in staggered rows."""
    repeat = 2 * int(rng.integers(2, 10))
    u = (X * repeat + 0.5 * ((Y * repeat).astype(int) % 2)) % 1 - 0.5
    base, dot = colours(rng, 2)
    edge = (rng.uniform(0.12, 0.4) - np.hypot(u, (Y * repeat) % 1 - 0.5)) * (SIZE / repeat) + 0.5
    return shaded(blend(base, dot, edge), woven(rng, noise))


def camouflage(rng: np.random.Generator, noise: Noise) -> Picture:
    """Soft patches of a few colours of one family, or of any."""
    if rng.random() < 0.6:
        hue = rng.choice([0.1, 0.22, 0.6]) + rng.normal(0, 0.03, 5)
        palette = hsv(hue % 1, rng.uniform(0.1, 0.5, 5), rng.uniform(0.12, 0.7, 5))
    else:
        palette = colours(rng, 5)
    return shaded(palette[np.digitize(noise(3.0), [-0.9, -0.2, 0.4, 1.0])], woven(rng, noise))


def printed(rng: np.random.Generator, noise: Noise) -> Picture:
    """Leaves, petals, confetti on cloth."""
    palette = colours(rng, int(rng.integers(2, 6)))
    least = rng.uniform(2.0, 6.0)
    corners = int(rng.choice([0, 0, 3, 4, 5, 8]))
    picture = np.broadcast_to(colours(rng, 1)[0], (SIZE, SIZE, 3))
    picture = stamped(rng, picture, int(rng.integers(30, 160)), least,
                      least * rng.uniform(2, 8), palette, corners)  # fmt: skip
    return shaded(picture, woven(rng, noise))


def lettering(rng: np.random.Generator, noise: Noise) -> Picture:
    """Cloth with words and numbers, sometimes over a badge."""
    base, ink, badge = (tuple(float(c) for c in row) for row in colours(rng, 3))
    picture = np.full((SIZE, SIZE, 3), base, np.float32)
    if rng.random() < 0.5:
        centre = tuple(int(c) for c in rng.uniform(0.3, 0.7, 2) * SIZE)
        cv2.circle(picture, centre, int(rng.uniform(0.08, 0.28) * SIZE), badge, -1, cv2.LINE_AA)
    for _ in range(int(rng.integers(1, 4))):
        text = ''.join(rng.choice(list('ABCDEFGHIKLMNOPRSTUVXYZ0123456789'), rng.integers(1, 8)))
        place = (int(rng.uniform(0.0, 0.4) * SIZE), int(rng.uniform(0.2, 0.95) * SIZE))
        cv2.putText(picture, text, place, int(rng.integers(0, 8)), rng.uniform(0.8, 3.5), ink,
                    int(rng.integers(2, 9)), cv2.LINE_AA)  # fmt: skip
    return shaded(picture, woven(rng, noise))


def dyed(rng: np.random.Generator, noise: Noise) -> Picture:
    """Two or three colours that run into each other."""
    one, two, three = colours(rng, 3)
    picture = blend(one, two, 0.5 + 0.5 * noise(2.3))
    share = np.clip(0.4 * noise(3.0), 0, 1)[..., None]
    return shaded(picture * (1 - share) + three * share, woven(rng, noise))


CLOTH: tuple[Maker, ...] = (
    plain, denim, stripes, plain, printed, plaid, denim, camouflage, lettering, plain, dots, dyed,
    stripes, printed,
)  # fmt: skip
