"""Tables of what belongs to people: seats, bars, bags, things held."""

import functools

from rsb_pose_core.synthesis.furniture import legs, middle
from rsb_pose_core.synthesis.solids import ALL, Catalogue, Kind, Part

# The top of a seat is the height of its box; backs rise above it.
SEATS = {
    'chair': Kind((0.38, 1, 0.4), (0.5, 1, 0.5), [
        *legs('wood', 0.035, (1.0, -0.04)), Part('box', 'wood', y=((1.0, -0.04), 1.0)),
        *[Part('box', 'wood', x, (1.0, (1.0, 0.5)), (0.0, (0.0, 0.03)))
          for x in ((0.02, 0.1), (0.9, 0.98))],
        Part('box', 'wood', (0.1, 0.9), ((1.0, 0.24), (1.0, 0.48)), ((0.0, 0.002), (0.0, 0.028))),
    ]),
    'office chair': Kind((0.45, 1, 0.45), (0.55, 1, 0.5), [
        Part('box', 'cloth', y=((1.0, -0.07), 1.0)),
        Part('cushion', 'cloth', (0.05, 0.95), ((1.0, 0.1), (1.0, 0.6)),
             ((0.0, -0.04), (0.0, 0.02))),
        Part('box', 'dark', middle(0.03), ((1.0, -0.05), (1.0, 0.2)),
             ((0.0, -0.06), (0.0, -0.03))),
        Part('tube', 'metal', middle(0.03), ((0.0, 0.05), (1.0, -0.07)), middle(0.03)),
        Part('tube', 'dark', (0.1, 0.9), (0.0, (0.0, 0.05)), (0.1, 0.9), taper=-0.3),
    ]),
    'sofa': Kind((0.8, 1, 0.6), (1.9, 1, 0.7), [
        Part('box', 'cloth', ALL, ((0.0, 0.05), (1.0, -0.03)), ALL),
        Part('box', 'cloth', (0.005, 0.995), ((1.0, -0.03), 1.0), (0.0, 0.99)),
        Part('cushion', 'cloth', ALL, ((0.0, 0.1), (1.0, 0.45)), ((0.0, -0.22), (0.0, 0.02))),
        *[Part('cushion', 'cloth', x, ((0.0, 0.1), (1.0, 0.2)), ALL)
          for x in ((-0.1, 0.02), (0.98, 1.1))],
    ]),
    'bench': Kind((0.9, 1, 0.35), (2.0, 1, 0.5), [
        Part('box', 'wood', y=((1.0, -0.05), 1.0)),
        *[Part('box', 'metal', x, (0.0, (1.0, -0.05)), (0.1, 0.9))
          for x in ((0.05, (0.05, 0.05)), ((0.95, -0.05), 0.95))],
    ]),
    'crate': Kind((0.35, 1, 0.35), (0.7, 1, 0.5), [
        Part('box', 'print'), Part('box', 'wood', (-0.01, 1.01), (0.3, 0.36), (-0.01, 1.01)),
    ]),
    'block': Kind((0.5, 1, 0.4), (1.6, 1, 0.6), [Part('box', 'paint')]),
    'stool': Kind((0.3, 1, 0.3), (0.4, 1, 0.4), [
        Part('tube', 'wood', y=((1.0, -0.04), 1.0)),
        *legs('metal', 0.03, (1.0, -0.04), 'tube', 0.04),
    ]),
    'post': Kind((0.26, 1, 0.26), (0.3, 1, 0.3), [  # fits under everybody
        Part('tube', 'wood', y=((1.0, -0.04), 1.0)),
        Part('tube', 'metal', middle(0.03), (0.0, (1.0, -0.04)), middle(0.03)),
        Part('tube', 'metal', (0.1, 0.9), (0.0, (0.0, 0.02)), (0.1, 0.9), taper=-0.2),
    ]),
}  # fmt: skip
BACKED = 3  # so many of the first kinds of SEATS have a back

# Held things stand in their boxes as a hand holds them: the fist closes round the y axis, the
# height at which it does follows below.
HELD = {
    'bottle': (0.45, Kind((0.06, 0.2, 0.06), (0.09, 0.3, 0.09), [
        Part('tube', 'print', y=(0.0, 0.7)),
        Part('tube', 'print', (0.05, 0.95), (0.7, 0.85), (0.05, 0.95),
                                                taper=-0.5),
        Part('tube', 'metal', (0.28, 0.72), (0.84, 1.0), (0.28, 0.72)),
    ])),
    'stick': (0.5, Kind((0.025, 0.5, 0.025), (0.04, 1.5, 0.04), [Part('tube', 'wood')])),
    'cup': (0.5, Kind((0.07, 0.08, 0.07), (0.09, 0.12, 0.09), [
        Part('tube', 'paint', taper=0.12),
        Part('box', 'paint', (0.9, 1.35), (0.2, 0.8), middle(0.006)),
    ])),
    'umbrella': (0.06, Kind((0.85, 0.75, 0.85), (1.1, 0.95, 1.1), [
        Part('tube', 'metal', middle(0.008), ALL, middle(0.008)),
        Part('tube', 'dark', middle(0.014), (0.0, 0.12), middle(0.014)),
        Part('tube', 'print', ALL, (0.72, 0.97), ALL, taper=-0.95),
    ])),
    'racket': (0.12, Kind((0.22, 0.6, 0.02), (0.28, 0.7, 0.03), [
        Part('tube', 'dark', middle(0.016), (0.0, 0.3), middle(0.016)),
        Part('tube', 'metal', middle(0.01), (0.3, 0.52), middle(0.01)),
        Part('tube', 'paint', ALL, middle(0.01, 0.75), ((0.5, -0.17), (0.5, 0.17)),
             tilt_deg=(90, 0, 0)),
    ])),
    'broom': (0.6, Kind((0.3, 1.2, 0.05), (0.45, 1.5, 0.08), [
        Part('tube', 'wood', middle(0.013), ALL, middle(0.013)),
        Part('box', 'paint', ALL, (0.06, 0.1), ALL),
        Part('box', 'dark', (0.03, 0.97), (0.0, 0.06)),
    ])),
    'hammer': (0.2, Kind((0.1, 0.28, 0.03), (0.14, 0.36, 0.04), [
        Part('tube', 'wood', middle(0.014), ALL, middle(0.014)),
        Part('box', 'metal', ALL, (0.86, 1.0), ALL),
    ])),
}  # fmt: skip
# What lies in the palm, its back (z = 0) on it.
IN_PALM = {
    'phone': Kind((0.07, 0.14, 0.008), (0.08, 0.165, 0.01), [
        Part('box', 'dark'), Part('card', 'picture', (0.05, 0.95), (0.03, 0.97), middle(0.0, 1.05),
                                fit=True),
    ]),
    'tablet': Kind((0.16, 0.22, 0.008), (0.2, 0.28, 0.01), [
        Part('box', 'dark'), Part('card', 'picture', (0.05, 0.95), (0.03, 0.97), middle(0.0, 1.05),
                                fit=True),
    ]),
    'ball': Kind((0.08, 0.08, 0.08), (0.24, 0.24, 0.24), [Part('ball', 'print')]),
    'parcel': Kind((0.15, 0.12, 0.1), (0.4, 0.35, 0.3), [
        Part('box', 'print'), Part('box', 'paint', middle(0.02), (-0.005, 1.005), (-0.005, 1.005)),
    ]),
    'book': Kind((0.13, 0.2, 0.015), (0.2, 0.28, 0.04), [Part('box', 'picture', fit=True)]),
}  # fmt: skip
BAGS = {
    'rucksack': Kind((0.26, 0.38, 0.12), (0.36, 0.52, 0.24), [
        Part('cushion', 'cloth'), Part('cushion', 'cloth', (0.15, 0.85), (0.08, 0.48), (0.7, 1.2)),
        Part('box', 'dark', (0.1, 0.9), middle(0.008, 0.72), (0.9, 1.02)),
    ]),
    'handbag': Kind((0.1, 0.28, 0.22), (0.2, 0.5, 0.42), [
        Part('cushion', 'print', y=(0.0, 0.62)),
        *[Part('box', 'dark', middle(0.012), (0.55, 1.0), middle(0.01, z), tilt_deg=(t, 0, 0))
          for z, t in ((0.32, 16), (0.68, -16))],
    ]),
    'shopping bag': Kind((0.1, 0.4, 0.25), (0.18, 0.55, 0.38), [
        Part('box', 'picture', y=(0.0, 0.68), fit=True),
        *[Part('box', 'paint', middle(0.006), (0.66, 1.0), middle(0.006, z), tilt_deg=(t, 0, 0))
          for z, t in ((0.38, 14), (0.62, -14))],
    ]),
    'shoulder bag': Kind((0.08, 0.2, 0.22), (0.14, 0.32, 0.4), [
        Part('cushion', 'cloth'), Part('box', 'cloth', (0.9, 1.02), (0.45, 0.98), (0.04, 0.96)),
        Part('box', 'dark', (0.97, 1.08), middle(0.02, 0.5), middle(0.02)),
    ]),
}  # fmt: skip
RUCKSACK, SHOULDER_BAG = (list(BAGS).index(name) for name in ('rucksack', 'shoulder bag'))
FIXTURES = {'rod': Kind((1, 1, 1), (1, 1, 1), [Part('tube', 'metal')])}


@functools.cache
def catalogue(device: str) -> Catalogue:
    """All that people carry or sit on, on one device."""
    held = {name: kind for name, (_, kind) in HELD.items()}
    return Catalogue(SEATS | held | IN_PALM | BAGS | FIXTURES, device)
