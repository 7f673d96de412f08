"""Made-up environment maps: skies with suns and clouds over plain ground, and rooms with lamps."""

import numpy as np

ROWS = 128


def noise(rng: np.random.Generator, rows: int, exponent: float) -> np.ndarray:
    """Noise (rows, 2 rows) whose power falls as frequency^-exponent; mean 0, deviation 1."""
    across, down = np.fft.fftfreq(2 * rows) * rows * 2, np.fft.fftfreq(rows) * rows
    frequency = np.hypot(down[:, None] * 2, across[None])
    frequency[0, 0] = np.inf
    spectrum = frequency ** (-exponent / 2) * np.exp(2j * np.pi * rng.random((rows, 2 * rows)))
    field = np.fft.ifft2(spectrum).real
    return np.asarray((field - field.mean()) / field.std())


def elevations(rows: int) -> np.ndarray:
    """Elevation in radians (rows, 1) of each row."""
    return np.asarray(np.pi / 2 - (np.arange(rows) + 0.5)[:, None] / rows * np.pi)


def outdoors(rng: np.random.Generator, rows: int = ROWS) -> np.ndarray:
    """A sky from clear noon to overcast dusk above plain ground (rows, 2 rows, 3), linear RGB."""
    elevation = elevations(rows)
    height = np.clip(elevation / (np.pi / 2), 0, 1)[..., None]
    warmth = rng.random() ** 3
    zenith = np.array([0.16, 0.33, 0.75]) * rng.uniform(0.5, 1.2)
    horizon = np.array([0.75, 0.85, 1.0]) * (1 - warmth) + np.array([1.3, 0.8, 0.5]) * warmth
    sky = horizon + (zenith - horizon) * height ** rng.uniform(0.3, 0.7)
    cover = rng.random()
    cloud = np.clip(noise(rng, rows, 3.4) * 0.6 + 3 * cover - 1.5, 0, 1)[..., None]
    sky = sky + (rng.uniform(0.6, 1.3) * np.array([1.0, 0.98, 0.95]) - sky) * cloud
    ground = np.array([0.3, 0.27, 0.22]) * rng.uniform(0.3, 1.3) * rng.uniform(0.8, 1.2, 3)
    ground = ground * (1 + 0.25 * noise(rng, rows, 2.4))[..., None].clip(0.3, 1.7)
    # hills and trees: noise along the horizon
    treeline = np.clip(rng.uniform(-0.1, 0.15) + 0.06 * noise(rng, rows, 2.6)[rows // 2], 0, 0.5)
    far = np.array([0.12, 0.15, 0.08]) * (1 + 0.4 * noise(rng, rows, 1.5))[..., None].clip(0.2, 2)
    picture = np.where((elevation > treeline)[..., None], sky, far)
    picture = np.where((elevation > 0)[..., None], picture, ground)
    if cover < 0.75:
        angle = rng.uniform(0.15, 1.3)
        row, column = int((0.5 - angle / np.pi) * rows), int(rng.integers(2 * rows))
        pixel = np.cos(angle) * (np.pi / rows) ** 2
        strength = rng.uniform(1.0, 6.0) / pixel * (1 - cover)
        picture[row, column] += strength * (horizon * 0.3 + 0.7)
    return np.asarray(picture, np.float32)


def indoors(rng: np.random.Generator, rows: int = ROWS) -> np.ndarray:
    """Walls, floor and ceiling with one to six lamps or windows (rows, 2 rows, 3), linear RGB."""
    elevation = elevations(rows)
    tones = rng.uniform(0.08, 0.6, (3, 1)) * rng.uniform(0.8, 1.15, (3, 3))
    edge = rng.uniform(0.3, 0.9, 2)
    part = np.where(elevation > edge[0], 0, np.where(elevation < -edge[1], 2, 1))
    picture = tones[part] * (1 + 0.3 * noise(rng, rows, 2.6))[..., None].clip(0.2, 2)
    picture = np.broadcast_to(picture, (rows, 2 * rows, 3)).copy()
    for _ in range(int(rng.integers(1, 7))):
        row = int((0.5 - rng.uniform(0.08, 0.42)) * rows)
        tall, wide = (int(rows * rng.uniform(0.02, 0.14)) + 1 for _ in range(2))
        columns = (int(rng.integers(2 * rows)) + np.arange(wide)) % (2 * rows)
        warmth = rng.uniform(-0.25, 0.35)
        picture[row : row + tall, columns] += rng.uniform(4.0, 40.0) * np.array(
            [1 + warmth, 1.0, 1 - warmth]
        )
    return np.asarray(picture, np.float32)
