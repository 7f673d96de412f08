"""Procedural textures of walls, floors, ground and furniture."""

import cv2
import numpy as np

from rsb_pose_core.synthesis.patterns import (
    CLOTH,
    SIZE,
    Maker,
    Noise,
    Picture,
    X,
    Y,
    blend,
    colours,
    hsv,
    light_tone,
    plain,
    shaded,
    stamped,
    stripes,
    wood_tones,
    woven,
)


def plaster(rng: np.random.Generator, noise: Noise) -> Picture:
    """A painted wall: nearly plain, stained, or rough."""
    rough, stain = rng.choice([0.005, 0.02, 0.06]), rng.uniform(0.005, 0.05)
    return shaded(light_tone(rng), 1 + rough * noise(1.0) + stain * noise(2.3))


def wallpaper(rng: np.random.Generator, noise: Noise) -> Picture:
    """A motif, mirrored and repeated, little stronger than its ground; or broad stripes."""
    ground = light_tone(rng)
    ink = np.clip(ground * rng.uniform(0.55, 1.25) + rng.normal(0, 0.06, 3), 0.03, 1)
    repeat = int(rng.choice([2, 4]))
    if rng.random() < 0.3:
        mask = np.sign(np.sin(2 * np.pi * X * repeat * 2)) * 0.5 + 0.5
    else:
        field = noise(2.3)[: SIZE // 2, : SIZE // 2]
        motif = np.block([[field, field[:, ::-1]], [field[::-1], field[::-1, ::-1]]])
        motif = cv2.resize(motif, (SIZE // repeat,) * 2, interpolation=cv2.INTER_AREA)
        mask = np.tile(np.clip(motif * 3 + 0.5, 0, 1), (repeat, repeat))
    return shaded(blend(ground, ink, mask), 1 + 0.012 * noise(0.3))


def courses(
    rng: np.random.Generator, noise: Noise, rows: int, columns: int, stagger: float,
    tone: np.ndarray, spread: float, joint: np.ndarray, width: float,
) -> Picture:  # fmt: skip
    """Bricks, tiles, slabs or boards in rows: each of its own shade, with joints between."""
    row = (Y * rows).astype(int)
    shift = (row * stagger) % 1 if stagger else np.zeros_like(Y)
    u, v = X * columns + shift, Y * rows
    column = u.astype(int) % columns
    own = rng.normal(0, spread, (rows, columns))[row, column]
    tint = 1 + 0.4 * spread * rng.normal(0, 1, (rows, columns, 3))[row, column]
    gap = np.minimum(np.minimum(u % 1, 1 - u % 1) / columns, np.minimum(v % 1, 1 - v % 1) / rows)
    edge = np.clip((gap - width) * SIZE + 0.5, 0, 1)
    face = shaded(tone * tint, 1 + own + 0.05 * noise(1.0) + 0.5 * spread * noise(2.3))
    mortar = shaded(joint, 1 + 0.08 * noise(0.3))
    return np.asarray(mortar * (1 - edge[..., None]) + face * edge[..., None])


def bricks(rng: np.random.Generator, noise: Noise) -> Picture:
    """Red, yellow, dark or painted bricks."""
    tones = np.array([[0.55, 0.28, 0.2], [0.7, 0.55, 0.38], [0.3, 0.24, 0.23], [0.85, 0.83, 0.8]])
    joint = np.ones(3) * rng.uniform(0.35, 0.8)
    return courses(rng, noise, 2 * int(rng.integers(4, 8)), int(rng.integers(3, 7)), 0.5,
                   tones[rng.integers(4)] * rng.uniform(0.8, 1.15), 0.1, joint, 0.006)  # fmt: skip


def tiles(rng: np.random.Generator, noise: Noise) -> Picture:
    """Square ceramic tiles, of one colour or like a chessboard."""
    count = 2 * int(rng.integers(1, 5))
    tone = light_tone(rng) if rng.random() < 0.7 else colours(rng, 1)[0]
    joint = np.ones(3) * rng.uniform(0.3, 0.85)
    picture = courses(rng, noise, count, count, 0.0, tone, rng.uniform(0.01, 0.06), joint, 0.004)
    if rng.random() < 0.25:
        dark = ((X * count).astype(int) + (Y * count).astype(int)) % 2 == 1
        picture[dark] *= rng.uniform(0.2, 0.7)
    return picture


def concrete(rng: np.random.Generator, noise: Noise) -> Picture:
    """Grey, clouded, pitted."""
    tone = np.array([1.0, 0.98, 0.94]) * rng.uniform(0.3, 0.75)
    shade = 1 + rng.uniform(0.02, 0.09) * noise(2.3) + 0.04 * noise(1.0)
    return shaded(tone, shade - 0.25 * (noise(1.7) > 2.6))


def grain(rng: np.random.Generator, noise: Noise, boards: int) -> Picture:
    """Wood whose grain runs along x, cut into boards of their own shades."""
    dark, light = wood_tones(rng)
    row = (Y * boards).astype(int)
    phase = rng.random(boards)[row] * 40
    wave = Y * boards * 2 * np.pi * rng.integers(2, 5) + phase
    rings = np.sin(wave + 1.6 * noise.streaks(2.3, 4))
    share = 0.55 + 0.18 * rings + 0.16 * noise.streaks(0.3, 8) + rng.normal(0, 0.16, boards)[row]
    return blend(dark, light, share)


def planks(rng: np.random.Generator, noise: Noise) -> Picture:
    """Floor boards with dark joints."""
    boards = int(rng.choice([4, 5, 6, 8]))
    picture = grain(rng, noise, boards)
    row = (Y * boards).astype(int)
    across = np.abs((Y * boards) % 1 - 0.5) > 0.5 - boards * 0.004
    butt = np.abs((X * 2 + rng.random(boards)[row]) % 1 - 0.5) < 0.006
    picture[across | butt] *= rng.uniform(0.35, 0.8)
    return picture


def parquet(rng: np.random.Generator, noise: Noise) -> Picture:
    """Blocks of boards laid crosswise."""
    blocks = int(rng.choice([2, 4]))
    along = planks(rng, noise)
    small = cv2.resize(along, (SIZE // blocks,) * 2, interpolation=cv2.INTER_AREA)
    pair = np.block([[[small], [small.transpose(1, 0, 2)]], [[small.transpose(1, 0, 2)], [small]]])
    return np.asarray(np.tile(pair, (blocks // 2, blocks // 2, 1)))


def panels(rng: np.random.Generator, noise: Noise) -> Picture:
    """Upright boards with grooves, of wood or painted."""
    boards = int(rng.choice([4, 8, 12]))
    if rng.random() < 0.4:
        picture = shaded(light_tone(rng), 1 + 0.02 * noise(1.7))
    else:
        picture = grain(rng, noise, boards)
    groove = np.abs((Y * boards) % 1 - 0.5) > 0.5 - boards * 0.008
    return np.asarray((picture * np.where(groove, 0.55, 1.0)[..., None]).transpose(1, 0, 2))


def shelves(rng: np.random.Generator, noise: Noise) -> Picture:
    """Rows of books and boxes on boards."""
    picture = np.full((SIZE, SIZE, 3), light_tone(rng) * 0.35, np.float32)
    count = int(rng.choice([2, 4]))
    height = SIZE // count
    board = tuple(float(c) for c in wood_tones(rng)[1])
    for i in range(count):
        foot, x = (i + 1) * height, 0
        while x < SIZE:
            wide, tall = int(rng.uniform(4, 22)), int(height * rng.uniform(0.5, 0.88))
            if rng.random() < 0.88:
                colour = colours(rng, 1)[0]
                picture[foot - tall : foot, x : x + wide] = colour
                picture[foot - tall : foot, x : x + 1] = colour * 0.5
                label = foot - tall + int(tall * rng.uniform(0.1, 0.6))
                picture[label : label + int(rng.uniform(2, 12)), x + 1 : x + wide] *= 1.5
            x += wide
        cv2.rectangle(picture, (0, foot - 5), (SIZE, foot), board, -1)
    return shaded(picture, 1 + 0.03 * noise(1.0))


def curtain(rng: np.random.Generator, noise: Noise) -> Picture:
    """Hanging cloth in folds."""
    folds = int(rng.choice([6, 8, 12]))
    wave = np.sin(2 * np.pi * X * folds + 0.6 * noise.streaks(2.3, 4).T)
    return shaded(colours(rng, 1)[0], (0.8 + 0.25 * wave) * woven(rng, noise))


def carpet(rng: np.random.Generator, noise: Noise) -> Picture:
    """Pile in one or two colours."""
    one, two = colours(rng, 2) * 0.8
    share = 0.3 * noise(0.3) + (noise(2.3) > 0.8 if rng.random() < 0.4 else 0.2)
    return shaded(blend(one, two, share), 1 + 0.12 * noise(0.3))


def terrazzo(rng: np.random.Generator, noise: Noise) -> Picture:
    """Chips of stone in a light ground; without chips linoleum or marble."""
    ground = light_tone(rng)
    vein = np.clip(1 - np.abs(noise(2.3)) * 4, 0, 1) * rng.choice([0.0, 0.25])
    picture = shaded(ground, 1 - vein + 0.02 * noise(1.7))
    chips = ground * rng.uniform(0.4, 1.2, (6, 1))
    return stamped(rng, picture, int(rng.choice([0, 150])), 1.0, 6.0, chips, 5)


def grass(rng: np.random.Generator, noise: Noise) -> Picture:
    """Blades, patches, dry spots."""
    hue = rng.normal(0.24, 0.03)
    low, high = hsv(np.array([hue, hue - 0.03]), rng.uniform(0.35, 0.7, 2), np.array([0.16, 0.5]))
    dry = np.array([0.5, 0.44, 0.27])
    picture = blend(low, high, 0.42 + 0.22 * noise(0.3) + 0.12 * noise(1.0))
    share = np.clip(0.3 * noise(2.3) - 0.15, 0, 0.8)[..., None]
    return np.asarray(picture * (1 - share) + dry * share * (1 + 0.2 * noise(0.3)[..., None]))


def asphalt(rng: np.random.Generator, noise: Noise) -> Picture:
    """Dark with light grains, patched and cracked."""
    tone = np.array([1.0, 1.0, 1.02]) * rng.uniform(0.2, 0.5)
    crack = np.clip(1 - np.abs(noise(2.3)) * 25, 0, 1) * rng.choice([0.0, 0.4])
    return shaded(tone, 1 + 0.16 * noise(0.3) + 0.07 * noise(2.3) - crack)


def gravel(rng: np.random.Generator, noise: Noise) -> Picture:
    """Pebbles upon pebbles."""
    tones = rng.uniform(0.25, 0.75, (8, 1)) * (1 + rng.normal(0, 0.05, (8, 3)))
    picture = shaded(tones[0] * 0.5, 1 + 0.2 * noise(0.3))
    picture = stamped(rng, picture, 700, 3.0, rng.uniform(6, 12), tones, 6)
    return shaded(picture, 1 + 0.1 * noise(0.3))


def sand(rng: np.random.Generator, noise: Noise) -> Picture:
    """Sand or bare earth."""
    tones = np.array([[0.78, 0.7, 0.55], [0.45, 0.34, 0.25], [0.6, 0.5, 0.4]])
    ripple = 0.05 * np.sin(2 * np.pi * Y * 12 + 1.5 * noise(2.3)) * rng.integers(2)
    shade = 1 + ripple + 0.08 * noise(0.3) + 0.06 * noise(1.7)
    return shaded(tones[rng.integers(3)] * rng.uniform(0.8, 1.15), shade)


def paving(rng: np.random.Generator, noise: Noise) -> Picture:
    """Slabs or setts."""
    count, tone = int(rng.choice([2, 4, 6])), np.array([1.0, 0.97, 0.92]) * rng.uniform(0.35, 0.7)
    return courses(rng, noise, count, count, float(rng.choice([0.0, 0.5])), tone, 0.07,
                   tone * rng.uniform(0.3, 0.7), 0.005)  # fmt: skip


def litter(rng: np.random.Generator, noise: Noise) -> Picture:
    """Forest floor: earth under leaves."""
    hue = rng.uniform(0.04, 0.3, 8)
    leaves = hsv(hue, rng.uniform(0.2, 0.6, 8), rng.uniform(0.15, 0.6, 8))
    picture = stamped(rng, sand(rng, noise) * 0.6, 500, 3.0, 14.0, leaves, 8)
    return shaded(picture, 1 + 0.1 * noise(0.3))


def timber(rng: np.random.Generator, noise: Noise) -> Picture:
    """Veneer or solid wood."""
    return grain(rng, noise, int(rng.choice([1, 1, 2])))


def metal(rng: np.random.Generator, noise: Noise) -> Picture:
    """Brushed or lacquered sheet, sometimes rusty."""
    tone = np.ones(3) * rng.uniform(0.3, 0.8) if rng.random() < 0.6 else colours(rng, 1)[0]
    picture = shaded(tone, 1 + 0.05 * noise.streaks(0.3, 8) + 0.02 * noise(2.3))
    rust = np.clip((noise(1.7) - 1.5) * rng.choice([0.0, 0.0, 2.0]), 0, 1)[..., None]
    return np.asarray(picture * (1 - rust) + np.array([0.4, 0.22, 0.12]) * rust)


def plastic(rng: np.random.Generator, noise: Noise) -> Picture:
    """Smooth, one colour."""
    return shaded(colours(rng, 1)[0], 1 + 0.01 * noise(1.0) + 0.01 * noise(2.3))


def leather(rng: np.random.Generator, noise: Noise) -> Picture:
    """Black, brown or coloured hide with fine creases."""
    browns = wood_tones(rng)[0] * rng.uniform(0.5, 1.2)
    tone = browns if rng.random() < 0.5 else colours(rng, 1)[0] * 0.8
    crease = np.clip(1 - np.abs(noise(1.0)) * 3, 0, 1)
    return shaded(tone, 1 - 0.15 * crease + 0.06 * noise(2.3))


def painted(rng: np.random.Generator, noise: Noise) -> Picture:
    """Paint on wood, worn through in places."""
    worn = np.clip((noise(1.7) - rng.uniform(1.3, 4)) * 4, 0, 1)[..., None]
    paint = shaded(colours(rng, 1)[0], 1 + 0.03 * noise.streaks(1.0, 4))
    return np.asarray(paint * (1 - worn) + grain(rng, noise, 1) * worn)


WALL: tuple[Maker, ...] = (
    plaster, plaster, wallpaper, bricks, concrete, shelves, panels, tiles, plaster, curtain,
)  # fmt: skip
FLOOR: tuple[Maker, ...] = (planks, tiles, carpet, concrete, parquet, terrazzo, planks, carpet)
GROUND: tuple[Maker, ...] = (grass, asphalt, gravel, sand, paving, litter, grass, concrete)
FURNITURE: tuple[Maker, ...] = (timber, plastic, metal, leather, plain, painted, timber, stripes)
MAKERS = {'cloth': CLOTH, 'wall': WALL, 'floor': FLOOR, 'ground': GROUND, 'furniture': FURNITURE}
