"""Tables of furniture: what stands in rooms and in the open, hangs on walls and from ceilings."""

import functools
import itertools

from rsb_pose_core.synthesis.solids import ALL, Catalogue, Kind, Limit, Part, Span


def legs(
    stuff: str, thick_m: float, top: Limit, shape: str = 'box', inset_m: float = 0.01
) -> list[Part]:
    """Four legs from the floor to `top` in the corners."""
    near: Span = ((0.0, inset_m), (0.0, inset_m + thick_m))
    far: Span = ((1.0, -inset_m - thick_m), (1.0, -inset_m))
    return [
        Part(shape, stuff, x, (0.0, top), z) for x, z in itertools.product((near, far), repeat=2)
    ]


def middle(half_m: float, at: float = 0.5) -> Span:
    """A span of 2 * half_m about a fraction."""
    return (at, -half_m), (at, half_m)


def frame(stuff: str, wide_m: float, depth: Span = ALL) -> list[Part]:
    """Four bars round the edge of an upright thing."""
    low: Span = (0.0, (0.0, wide_m))
    high: Span = ((1.0, -wide_m), 1.0)
    return [Part('box', stuff, low, ALL, depth), Part('box', stuff, high, ALL, depth),
            Part('box', stuff, ALL, low, depth), Part('box', stuff, ALL, high, depth)]  # fmt: skip


def books(y: Span, chance: float) -> list[Part]:
    """What stands on a board of a shelf: three heaps of books or boxes."""
    ends = (0.03, 0.34, 0.66, 0.97)
    stuffs = ('print', 'picture', 'paint')
    return [
        Part(
            'box', stuff, (a, b), y, (0.1, 0.85), fit=stuff == 'picture', chance=chance, loose=0.5
        )
        for a, b, stuff in zip(ends[:-1], ends[1:], stuffs, strict=True)
    ]


SEAT: Span = ((0.0, 0.40), (0.0, 0.45))

FREE = {
    'table': Kind((0.7, 0.65, 0.5), (1.8, 0.8, 0.95), [
        Part('box', 'wood', y=((1.0, -0.04), 1.0)), *legs('wood', 0.05, (1.0, -0.04)),
        Part('tube', 'paint', middle(0.04, 0.3), (1.0, (1.0, 0.22)), middle(0.04), chance=0.5,
             loose=0.6),
        Part('box', 'picture', middle(0.12, 0.65), (1.0, (1.0, 0.06)), middle(0.09, 0.4), fit=True,
             tilt_deg=(0, 20, 0), chance=0.5, loose=0.7),
    ]),
    'desk': Kind((0.9, 0.68, 0.5), (1.7, 0.78, 0.8), [
        Part('box', 'wood', y=((1.0, -0.03), 1.0)),
        Part('box', 'paint', (0.0, (0.0, 0.03)), (0.0, (1.0, -0.03))),
        Part('box', 'paint', (0.7, 1.0), (0.0, (1.0, -0.03)), (0.05, 0.95)),
        Part('box', 'dark', middle(0.28), ((1.0, 0.12), (1.0, 0.46)), middle(0.015, 0.3)),
        Part('card', 'picture', middle(0.265), ((1.0, 0.135), (1.0, 0.445)), middle(0.0, 0.33),
             fit=True, tilt_deg=(0, 0, 0)),
        Part('box', 'metal', middle(0.03), (1.0, (1.0, 0.13)), middle(0.03, 0.27)),
        Part('box', 'dark', middle(0.2), (1.0, (1.0, 0.02)), middle(0.07, 0.7)),
    ]),
    'round table': Kind((0.5, 0.5, 0.5), (1.1, 1.1, 1.1), [
        Part('tube', 'wood', y=((1.0, -0.03), 1.0)),
        Part('tube', 'metal', middle(0.035), (0.0, (1.0, -0.03)), middle(0.035)),
        Part('tube', 'metal', (0.25, 0.75), (0.0, (0.0, 0.025)), (0.25, 0.75), taper=-0.2),
        Part('tube', 'paint', middle(0.05), (1.0, (1.0, 0.15)), middle(0.05), 0.25, chance=0.6,
             loose=0.4),
        Part('tuft', 'leaf', middle(0.14), ((1.0, 0.1), (1.0, 0.4)), middle(0.14), chance=0.5,
             loose=0.3),
    ]),
    'chair': Kind((0.4, 0.8, 0.4), (0.5, 1.05, 0.52), [
        *legs('wood', 0.035, (0.0, 0.41)),
        Part('box', 'wood', ALL, SEAT, ALL),
        Part('cushion', 'cloth', (0.02, 0.98), ((0.0, 0.44), (0.0, 0.5)), (0.05, 0.98),
             chance=0.5),
        Part('box', 'wood', (0.02, 0.1), ((0.0, 0.44), 1.0), ((0.0, 0.0), (0.0, 0.03))),
        Part('box', 'wood', (0.9, 0.98), ((0.0, 0.44), 1.0), ((0.0, 0.0), (0.0, 0.03))),
        Part('box', 'wood', (0.1, 0.9), (0.72, 0.98), ((0.0, 0.002), (0.0, 0.028))),
    ]),
    'office chair': Kind((0.45, 0.9, 0.45), (0.55, 1.1, 0.55), [
        Part('cushion', 'cloth', (0.02, 0.98), ((0.0, 0.4), (0.0, 0.5)), ALL),
        Part('cushion', 'cloth', (0.05, 0.95), ((0.0, 0.55), 1.0), ((0.0, 0.0), (0.0, 0.1)),
             tilt_deg=(-6, 0, 0)),
        Part('box', 'dark', middle(0.03), ((0.0, 0.42), (0.0, 0.65)), ((0.0, 0.02), (0.0, 0.05))),
        Part('tube', 'metal', middle(0.03), ((0.0, 0.08), (0.0, 0.42)), middle(0.03)),
        Part('box', 'dark', (-0.05, 1.05), ((0.0, 0.04), (0.0, 0.08)), middle(0.03)),
        Part('box', 'dark', middle(0.03), ((0.0, 0.041), (0.0, 0.079)), (-0.05, 1.05)),
    ]),
    'stool': Kind((0.3, 0.4, 0.3), (0.42, 0.75, 0.42), [
        Part('tube', 'wood', y=((1.0, -0.04), 1.0)),
        Part('cushion', 'cloth', y=((1.0, -0.03), (1.0, 0.03)), chance=0.4),
        *legs('metal', 0.03, (1.0, -0.04), 'tube', 0.05),
    ]),
    'sofa': Kind((0.8, 0.75, 0.8), (2.2, 0.95, 1.0), [
        Part('cushion', 'cloth', ALL, ((0.0, 0.06), (0.0, 0.3)), ALL),
        Part('cushion', 'cloth', (0.07, 0.5), ((0.0, 0.26), (0.0, 0.45)), (0.15, 1.0)),
        Part('cushion', 'cloth', (0.5, 0.93), ((0.0, 0.26), (0.0, 0.45)), (0.15, 1.0)),
        Part('cushion', 'cloth', (0.03, 0.97), ((0.0, 0.25), 1.0), (0.0, 0.28)),
        Part('cushion', 'cloth', (0.0, 0.1), ((0.0, 0.1), (0.0, 0.62)), (0.02, 1.0)),
        Part('cushion', 'cloth', (0.9, 1.0), ((0.0, 0.1), (0.0, 0.62)), (0.02, 1.0)),
        Part('cushion', 'print', (0.12, (0.12, 0.4)), ((0.0, 0.44), (0.0, 0.8)), (0.26, 0.42),
             tilt_deg=(-18, 0, 8), chance=0.5, loose=0.3),
        *legs('dark', 0.04, (0.0, 0.08), inset_m=0.06),
    ]),
    'bench': Kind((0.9, 0.4, 0.3), (1.8, 0.5, 0.45), [
        Part('box', 'wood', y=((1.0, -0.04), 1.0), z=(0.0, 0.3)),
        Part('box', 'wood', y=((1.0, -0.04), 1.0), z=(0.35, 0.65)),
        Part('box', 'wood', y=((1.0, -0.04), 1.0), z=(0.7, 1.0)),
        Part('box', 'metal', (0.06, (0.06, 0.05)), (0.0, (1.0, -0.04)), (0.05, 0.95)),
        Part('box', 'metal', ((0.94, -0.05), 0.94), (0.0, (1.0, -0.04)), (0.05, 0.95)),
        Part('box', 'wood', ALL, ((1.0, 0.18), (1.0, 0.36)), (-0.14, -0.06), tilt_deg=(-8, 0, 0)),
        Part('box', 'metal', (0.06, (0.06, 0.04)), (0.5, (1.0, 0.34)), (-0.2, -0.12),
             tilt_deg=(-8, 0, 0)),
        Part('box', 'metal', ((0.94, -0.04), 0.94), (0.5, (1.0, 0.34)), (-0.2, -0.12),
             tilt_deg=(-8, 0, 0)),
    ]),
    'plant': Kind((0.4, 0.6, 0.4), (0.9, 1.7, 0.9), [
        Part('tube', 'paint', (0.3, 0.7), (0.0, 0.3), (0.3, 0.7), taper=0.15),
        Part('tuft', 'leaf', ALL, (0.28, 1.0), ALL),
        Part('tuft', 'leaf', (0.1, 0.9), (0.28, 0.85), (0.1, 0.9), tilt_deg=(0, 70, 0)),
    ]),
    'barrel': Kind((0.4, 0.6, 0.4), (0.65, 0.95, 0.65), [
        Part('tube', 'paint'), Part('tube', 'metal', (-0.02, 1.02), (0.3, 0.34), (-0.02, 1.02)),
        Part('tube', 'metal', (-0.02, 1.02), (0.66, 0.7), (-0.02, 1.02)),
        Part('tube', 'metal', (-0.02, 1.02), (0.97, 1.01), (-0.02, 1.02)),
    ]),
    'boxes': Kind((0.3, 0.4, 0.3), (0.7, 1.3, 0.6), [
        Part('box', 'print', ALL, (0.0, 0.45), ALL, tilt_deg=(0, 6, 0)),
        Part('box', 'wood', (0.06, 0.96), (0.45, 0.8), (0.08, 0.98), tilt_deg=(0, -14, 0)),
        Part('box', 'picture', (0.2, 0.8), (0.8, 1.0), (0.2, 0.8), tilt_deg=(0, 25, 0), fit=True,
             chance=0.7),
    ]),
    'bin': Kind((0.25, 0.35, 0.25), (0.5, 1.0, 0.5), [
        Part('tube', 'paint', taper=0.12),
        Part('tube', 'dark', (-0.08, 1.08), ((1.0, -0.03), (1.0, 0.02)), (-0.08, 1.08)),
    ]),
    'floor lamp': Kind((0.3, 1.4, 0.3), (0.5, 1.8, 0.5), [
        Part('tube', 'metal', (0.15, 0.85), (0.0, (0.0, 0.03)), (0.15, 0.85)),
        Part('tube', 'metal', middle(0.014), (0.0, 0.9), middle(0.014)),
        Part('tube', 'glow', y=(0.82, 1.0), taper=-0.3),
    ]),
    'ladder': Kind((0.4, 1.9, 0.6), (0.55, 1.9, 0.6), [  # its legs meet at this height and depth
        *[Part('box', 'metal', x, ALL, middle(0.03, 0.75), tilt_deg=(-9, 0, 0))
          for x in ((0.0, (0.0, 0.03)), ((1.0, -0.03), 1.0))],
        *[Part('box', 'metal', x, (0.0, 0.97), middle(0.015, 0.25), tilt_deg=(9, 0, 0))
          for x in ((0.02, (0.02, 0.03)), ((0.98, -0.03), 0.98))],
        *[Part('box', 'metal', (0.03, 0.97), middle(0.014, y), middle(0.04, 1 - 0.5 * y))
          for y in (0.15, 0.32, 0.49, 0.66, 0.83, 0.97)],
    ]),
    'robot': Kind((0.4, 0.7, 0.45), (0.65, 1.5, 0.65), [
        Part('box', 'dark', (0.08, 0.92), ((0.0, 0.05), 0.22), ALL),
        *[Part('tube', 'dark', x, (0.0, (0.0, 0.2)), middle(0.1, z), tilt_deg=(0, 0, 90))
          for x, z in itertools.product((middle(0.1, 0.04), middle(0.1, 0.96)), (0.2, 0.8))],
        Part('tube', 'paint', (0.25, 0.75), (0.2, 0.75), (0.25, 0.75), taper=-0.25),
        Part('cushion', 'paint', (0.2, 0.8), (0.76, 1.0), (0.25, 0.75)),
        Part('card', 'glow', (0.3, 0.7), (0.82, 0.95), middle(0.0, 0.76)),
        Part('tube', 'metal', middle(0.04, 0.1), (0.35, 0.72), middle(0.04), tilt_deg=(0, 0, -12)),
        Part('tube', 'metal', middle(0.04, 0.9), (0.35, 0.72), middle(0.04),
             tilt_deg=(-30, 0, 12)),
    ]),
}  # fmt: skip

ALONG_WALL = {
    'shelf': Kind((0.6, 1.2, 0.25), (1.4, 2.1, 0.4), [
        Part('box', 'wood', (0.0, (0.0, 0.02))), Part('box', 'wood', ((1.0, -0.02), 1.0)),
        Part('box', 'wood', ((0.0, 0.02), (1.0, -0.02)), ALL, (0.0, (0.0, 0.01))),
        *[Part('box', 'wood', ((0.0, 0.02), (1.0, -0.02)), (y, (y, 0.02)), (0.0, 0.98))
          for y in (0.04, 0.34, 0.64)],
        Part('box', 'wood', ((0.0, 0.02), (1.0, -0.02)), ((1.0, -0.02), 1.0), (0.0, 0.98)),
        *books(((0.04, 0.02), 0.27), 0.8), *books(((0.34, 0.02), 0.6), 0.85),
        *books(((0.64, 0.02), 0.9), 0.85),
    ]),
    'cupboard': Kind((0.7, 0.8, 0.38), (1.6, 2.1, 0.6), [
        Part('box', 'wood', ALL, ((0.0, 0.06), 1.0), (0.0, 0.94)),
        Part('box', 'dark', (0.02, 0.98), (0.0, (0.0, 0.06)), (0.0, 0.9)),
        *[Part('box', 'wood', x, ((0.0, 0.08), (1.0, -0.02)), (0.94, 1.0))
          for x in ((0.01, 0.496), (0.504, 0.99))],
        *[Part('box', 'metal', middle(0.008, x), (0.5, (0.5, 0.14)), ((1.0, 0.0), (1.0, 0.02)))
          for x in (0.46, 0.54)],
        Part('box', 'picture', (0.1, 0.45), (1.0, (1.0, 0.25)), (0.2, 0.8), fit=True, chance=0.4,
             loose=0.5),
    ]),
    'bed': Kind((0.9, 0.8, 1.9), (1.6, 1.1, 2.1), [
        Part('box', 'wood', ALL, ((0.0, 0.12), (0.0, 0.32)), ALL),
        Part('cushion', 'cloth', (0.02, 0.98), ((0.0, 0.3), (0.0, 0.55)), (0.03, 0.98)),
        Part('cushion', 'print', (0.0, 1.0), ((0.0, 0.36), (0.0, 0.6)), (0.3, 0.99)),
        Part('cushion', 'cloth', (0.15, 0.85), ((0.0, 0.5), (0.0, 0.66)), (0.04, 0.24),
             tilt_deg=(-12, 0, 0)),
        Part('box', 'wood', ALL, ALL, (0.0, (0.0, 0.04))), *legs('wood', 0.06, (0.0, 0.14)),
    ]),
    'machine': Kind((0.5, 0.8, 0.45), (1.2, 1.9, 0.8), [
        Part('box', 'paint', ALL, (0.0, 0.62), ALL), Part('box', 'paint', (0.0, 0.6), (0.62, 1.0),
                                                        (0.0, 0.7)),
        Part('tube', 'metal', middle(0.1, 0.8), (0.62, 0.95), middle(0.1)),
        Part('card', 'glow', (0.08, 0.45), (0.72, 0.92), middle(0.0, 0.71)),
        Part('box', 'dark', (0.1, 0.9), (0.2, 0.5), (0.9, (1.0, 0.01))),
        Part('tube', 'metal', (0.65, 0.75), (0.1, 0.55), ((1.0, -0.02), (1.0, 0.06))),
    ]),
    'radiator': Kind((0.6, 0.5, 0.1), (1.4, 0.7, 0.14), [
        *[Part('cushion', 'paint', (i / 8, (i + 0.98) / 8), ((0.0, 0.12), 1.0), ALL)
          for i in range(8)],
        Part('tube', 'metal', middle(0.012, 0.98), (0.0, (0.0, 0.2)), middle(0.012)),
    ]),
}  # fmt: skip

OUTSIDE = {
    'fence': Kind((1.8, 0.8, 0.06), (3.2, 1.5, 0.1), [
        *[Part('box', 'wood', (i / 9 + 0.01, i / 9 + 0.09), ALL, (0.5, 1.0)) for i in range(9)],
        *[Part('box', 'wood', ALL, (y, y + 0.07), (0.0, 0.5)) for y in (0.15, 0.75)],
    ]),
    'tree': Kind((1.6, 3.0, 1.6), (4.0, 7.0, 4.0), [
        Part('tube', 'wood', middle(0.1), (0.0, 0.6), middle(0.1), taper=-0.35),
        Part('tube', 'wood', middle(0.05, 0.58), (0.32, 0.62), middle(0.05),
             tilt_deg=(10, 0, -28)),
        Part('ball', 'moss', (0.25, 0.75), (0.5, 0.9), (0.25, 0.75)),
        Part('crown', 'leaf', (0.05, 0.95), (0.4, 1.0), (0.05, 0.95)),
        Part('crown', 'leaf', (0.1, 0.9), (0.3, 0.85), (0.1, 0.9), tilt_deg=(0, 70, 0)),
    ]),
    'bush': Kind((0.6, 0.5, 0.6), (1.8, 1.4, 1.6), [
        Part('crown', 'leaf'),
        Part('crown', 'leaf', (0.1, 0.9), (0.0, 0.8), ALL, tilt_deg=(0, 80, 0)),
        Part('ball', 'moss', (0.18, 0.82), (0.0, 0.78), (0.18, 0.82)),
    ]),
    'car': Kind((1.65, 1.4, 3.8), (1.85, 1.7, 4.8), [
        Part('cushion', 'paint', ALL, (0.14, 0.62), ALL),
        Part('box', 'dark', (0.05, 0.95), (0.58, 0.95), (0.2, 0.72), taper=-0.22),
        Part('box', 'paint', (0.14, 0.86), (0.94, 1.0), (0.27, 0.65)),
        *[Part('tube', 'dark', middle(0.32, x), ((0.0, 0.22), (0.0, 0.42)), middle(0.32, z),
               tilt_deg=(0, 0, 90)) for x, z in itertools.product((0.06, 0.94), (0.18, 0.82))],
        *[Part('box', 'glow', (a, b), (0.4, 0.48), ((1.0, -0.06), (1.0, -0.01)))
          for a, b in ((0.1, 0.25), (0.75, 0.9))],
    ]),
    'wall': Kind((1.5, 0.5, 0.2), (5.0, 2.2, 0.4), [
        Part('box', 'paint'), Part('box', 'metal', (-0.01, 1.01), (1.0, (1.0, 0.05)), (-0.1, 1.1)),
    ]),
    'house': Kind((5.0, 3.0, 4.0), (12.0, 8.0, 9.0), [
        Part('box', 'paint', ALL, (0.0, 0.8)), Part('box', 'wood', (-0.05, 1.05), (0.8, 1.0),
                                                  (-0.05, 1.05), taper=-0.6),
        Part('box', 'dark', (0.1, 0.22), (0.0, (0.0, 2.1)), ((1.0, 0.0), (1.0, 0.04))),
        *[Part('box', 'window', (x, x + 0.14), ((0.0, 0.9), (0.0, 2.2)), ((1.0, 0.0), (1.0, 0.05)),
               fit=True) for x in (0.35, 0.58, 0.8)],
    ]),
}  # fmt: skip

ON_WALL = {
    'picture': Kind((0.3, 0.3, 0.03), (1.1, 0.9, 0.05), [
        *frame('wood', 0.03), Part('card', 'picture', z=middle(0.0, 0.5), fit=True),
    ]),
    'poster': Kind((0.4, 0.5, 0.01), (1.2, 1.4, 0.012), [
        Part('card', 'picture', z=middle(0.0, 1.0), fit=True),
    ]),
    'window': Kind((0.7, 0.9, 0.08), (1.8, 1.5, 0.12), [
        *frame('wood', 0.06), Part('card', 'window', z=middle(0.0, 0.3), fit=True),
        Part('box', 'wood', middle(0.02), ALL, (0.1, 0.8)),
        Part('box', 'wood', ALL, middle(0.02, 0.65), (0.1, 0.75)),
        Part('box', 'wood', (-0.05, 1.05), ((0.0, -0.04), 0.0), (0.0, (1.0, 0.1))),
        Part('drape', 'cloth', (-0.15, 0.12), ((0.0, -0.25), (1.0, 0.12)),
             ((1.0, 0.02), (1.0, 0.1)),
             chance=0.5),
        Part('drape', 'cloth', (0.88, 1.15), ((0.0, -0.25), (1.0, 0.12)),
             ((1.0, 0.02), (1.0, 0.1)),
             chance=0.5),
    ]),
    'door': Kind((0.85, 1.95, 0.08), (1.1, 2.15, 0.1), [
        *frame('wood', 0.07)[:2], frame('wood', 0.07)[3],
        Part('box', 'paint', ((0.0, 0.07), (1.0, -0.07)), (0.0, (1.0, -0.07)), (0.0, 0.6)),
        Part('box', 'metal', (0.8, (0.8, 0.12)), middle(0.012, 0.5), (0.6, (1.0, 0.02))),
    ]),
    'wall shelf': Kind((0.5, 0.28, 0.2), (1.2, 0.36, 0.3), [
        Part('box', 'wood', y=(0.0, (0.0, 0.025))), *books(((0.0, 0.025), 1.0), 0.85),
    ]),
    'clock': Kind((0.25, 0.25, 0.04), (0.4, 0.4, 0.05), [
        Part('tube', 'dark', z=middle(0.16), y=middle(0.02), tilt_deg=(90, 0, 0)),
        Part('tube', 'paint', middle(0.14), middle(0.024), middle(0.14), tilt_deg=(90, 0, 0)),
    ]),
    'screen': Kind((0.7, 0.45, 0.04), (1.4, 0.8, 0.06), [
        Part('box', 'dark'), Part('card', 'picture', (0.02, 0.98), (0.03, 0.97), middle(0.0, 1.05),
                                fit=True),
    ]),
}  # fmt: skip

FITTINGS = {
    'skirting': Kind((1, 0.05, 1), (1, 0.12, 1), [  # as large as its room
        *[Part('box', 'wood', x) for x in ((0.0, (0.0, 0.015)), ((1.0, -0.015), 1.0))],
        *[Part('box', 'wood', z=z) for z in ((0.0, (0.0, 0.015)), ((1.0, -0.015), 1.0))],
    ]),
    'carpet': Kind((1.0, 0.003, 0.8), (3.0, 0.006, 2.0), [Part('box', 'print')]),
    'ceiling lamp': Kind((0.25, 0.2, 0.25), (0.6, 0.5, 0.6), [
        Part('tube', 'glow', y=(0.0, 0.35), taper=-0.4),
        Part('tube', 'dark', middle(0.006), (0.3, 1.0),
                                                           middle(0.006)),
    ]),
}  # fmt: skip


@functools.cache
def catalogue(device: str) -> Catalogue:
    """All furniture, on one device."""
    return Catalogue(FREE | ALONG_WALL | OUTSIDE | ON_WALL | FITTINGS, device)
