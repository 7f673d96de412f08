"""Postures that motion capture seldom shows: how legs, trunk and arms are placed in each.

Numbers are (mean, spread). Lengths of legs are in leg lengths from the own hip joint, of arms in
arm lengths from the own shoulder or in metres from a landmark; out is away from the middle.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

STAND, SIT, LIE, KNEEL, HANG, GROUND = range(6)
"""What bears a person: feet, a seat, the floor along the trunk, knees, hands too, buttocks on the
floor."""

Triple = tuple[float, float, float]
Pair = tuple[float, float]


@dataclass(frozen=True)
class Leg:
    """Where an ankle is: out, up, ahead of the hip; where the knee points: the same."""

    ankle: Triple
    spread: Triple = (0.06, 0.02, 0.08)
    knee: Triple = (0.1, 0.0, 1.0)
    toes_down_deg: float = 0.0


@dataclass(frozen=True)
class Posture:
    """A whole-body posture; `along_trunk`: legs are placed in the pelvis' axes, not the room's."""

    category: str
    support: int
    odds: float
    legs: tuple[Leg, Leg]
    pitch_deg: Pair = (2, 5)  # of the pelvis, forward
    roll_deg: Pair = (0, 3)
    flexion_deg: Pair = (4, 9)  # of the spine
    rotation_deg: float = 9.0
    sideways_deg: float = 5.0
    drop: Pair = (0, 0.02)  # of both ankles together: height of a seat, depth of a squat
    thigh_deg: Pair | None = None  # kneeling thighs lean back so far from upright
    along_trunk: bool = False
    gaze_deg: float = 0.0  # the head bends back so far against the trunk's pitch
    gestures: tuple[tuple[str, float], ...] = (('any', 1.0),)


ARMS_FREE = (('any', 1.5), ('hang', 1.2), ('up', 1.5), ('crossed', 4.0), ('hips', 4.2),
             ('head', 2.9), ('behind', 4.0), ('ahead', 1.0), ('aside', 0.7), ('face', 0.8),
             ('table', 0.6))  # fmt: skip
ARMS_SITTING = (('lap', 3.0), ('any', 2.0), ('table', 1.6), ('crossed', 1.1), ('head', 0.9),
                ('up', 0.8), ('face', 0.8), ('hang', 0.6), ('behind', 0.3),
                ('ahead', 0.5))  # fmt: skip
ARMS_DOWN = (('floor', 3.0), ('any', 1.0), ('knees', 1.0), ('ahead', 0.5))
ARMS_ON_FLOOR = (('behind_floor', 2.0), ('knees', 2.0), ('lap', 1.0), ('any', 1.0), ('up', 0.4))
ARMS_LYING = (('hang', 2.0), ('any', 2.0), ('head', 1.0), ('up', 0.8), ('belly', 1.0),
              ('aside', 1.0))  # fmt: skip


def both(leg: Leg) -> tuple[Leg, Leg]:
    """The same for both sides."""
    return leg, leg


KNEELING = Leg((0.04, 0.0, 0.0), (0.05, 0.0, 0.05), (0.15, -0.4, 1.0), 60.0)
POSTURES = {
    'stand': Posture('stand', STAND, 6.0, both(Leg((0.02, -0.995, 0.0), (0.05, 0.008, 0.07))),
                     gestures=ARMS_FREE),
    'wide': Posture('stand', STAND, 0.6, both(Leg((0.28, -0.93, 0.0), (0.12, 0.008, 0.1),
                    (0.35, 0.0, 1.0))), (5, 8), gestures=ARMS_FREE),
    'lunge': Posture('bend', STAND, 0.5, (
        Leg((0.02, -0.72, 0.5), (0.06, 0.04, 0.1)),
        Leg((0.03, -0.74, -0.52), (0.06, 0.04, 0.1), (0.1, -0.5, 0.8), 55.0)), (6, 8),
        gestures=ARMS_FREE),
    'bend': Posture('bend', STAND, 1.6, both(Leg((0.05, -0.96, 0.04), (0.07, 0.01, 0.08))),
                    (45, 14), (0, 4), (32, 14), 14, 8, (0, 0.025), gaze_deg=25,
                    gestures=ARMS_DOWN),
    'squat': Posture('crouch', STAND, 2.6, both(Leg((0.1, -0.46, 0.08), (0.08, 0.01, 0.07),
                     (0.45, 0.2, 1.0))), (22, 12), (0, 4), (18, 12), 12, drop=(0, 0.11),
                     gaze_deg=18, gestures=(*ARMS_DOWN, ('table', 1.0), ('up', 0.3))),
    'sit': Posture('sit', SIT, 4.0, both(Leg((0.06, -0.5, 0.5), (0.09, 0.015, 0.09),
                   (0.3, 1.0, 0.7))), (-4, 9), (0, 3), (9, 12), 11, drop=(0, 0.09),
                   gestures=ARMS_SITTING),
    'perch': Posture('sit', SIT, 0.8, both(Leg((0.06, -0.82, 0.36), (0.09, 0.015, 0.1),
                     (0.3, 0.6, 1.0))), (2, 8), (0, 3), (8, 10), 11, drop=(0, 0.05),
                     gestures=ARMS_FREE),
    'ankle_on_knee': Posture('sit', SIT, 0.5, (
        Leg((-0.26, -0.1, 0.42), (0.04, 0.03, 0.04), (1.0, 0.25, 0.45), 20.0),
        Leg((0.04, -0.5, 0.48), (0.05, 0.03, 0.07), (0.2, 1.0, 0.7))), (-8, 7), (0, 3), (10, 8),
        gestures=ARMS_SITTING),
    'sit_floor': Posture('sit_floor', GROUND, 0.8, both(Leg((0.09, -0.04, 0.9), (0.1, 0.012, 0.06),
                         (0.25, 1.0, 0.3), 10.0)), (-10, 10), (0, 3), (22, 10), 10,
                         gestures=ARMS_ON_FLOOR),
    'sit_knees_up': Posture('sit_floor', GROUND, 0.8, both(Leg((0.07, -0.005, 0.56),
                            (0.08, 0.01, 0.1), (0.2, 1.0, 0.3))), (-10, 9), (0, 3), (22, 10), 10,
                            gestures=ARMS_ON_FLOOR),
    'cross_legged': Posture('cross_legged', GROUND, 1.3, both(Leg((-0.17, -0.045, 0.36),
                            (0.05, 0.01, 0.05), (1.0, 0.38, 0.35), 48.0)), (-4, 8), (0, 3),
                            (16, 9), gestures=ARMS_SITTING),
    'kneel': Posture('kneel', KNEEL, 1.2, both(KNEELING), (4, 8), (0, 3), (5, 9), 11,
                     thigh_deg=(8, 14), gestures=ARMS_FREE),
    'sit_heels': Posture('kneel', KNEEL, 0.7, both(KNEELING), (8, 8), (0, 3), (14, 9), 9,
                         thigh_deg=(72, 8), gestures=ARMS_SITTING),
    'kneel_one': Posture('kneel', KNEEL, 0.9, (
        Leg((0.05, -0.465, 0.44), (0.05, 0.0, 0.06), (0.2, 1.0, 0.8)), KNEELING), (6, 9), (0, 3),
        (9, 9), 11, thigh_deg=(4, 9), gestures=(*ARMS_FREE, ('knees', 1.5), ('floor', 0.6))),
    'crawl': Posture('crawl', KNEEL, 0.7, both(KNEELING), (80, 8), (0, 4), (4, 9), 8,
                     thigh_deg=(8, 16), gaze_deg=40, gestures=(('floor', 1.0),)),
    'lie_back': Posture('lie', LIE, 1.6, both(Leg((0.07, -0.95, -0.06), (0.1, 0.04, 0.015),
                        (0.2, 0.0, 1.0), 25.0)), (-87, 2), (0, 3), (2, 5), 6, along_trunk=True,
                        gestures=ARMS_LYING),
    'lie_knees_up': Posture('lie', LIE, 0.6, both(Leg((0.03, -0.6, -0.02), (0.07, 0.14, 0.015),
                            (0.1, 0.0, 1.0))), (-87, 2), (0, 3), (2, 5), 6,
                            along_trunk=True, gestures=ARMS_LYING),
    'lie_front': Posture('lie', LIE, 1.0, both(Leg((0.09, -0.96, -0.02), (0.1, 0.02, 0.03),
                         (0.5, 0.0, 1.0), 60.0)), (90, 3), (0, 3), (-4, 5), 6, along_trunk=True,
                         gaze_deg=20, gestures=(('head', 1.0), ('any', 1.0), ('up', 1.0),
                         ('hang', 0.7), ('aside', 1.0))),
    'lie_side': Posture('lie', LIE, 1.0, both(Leg((-0.06, -0.72, 0.3), (0.02, 0.14, 0.14),
                        (0.0, 0.0, 1.0), 20.0)), (0, 4), (90, 5), (16, 12), 8, along_trunk=True,
                        gestures=(('ahead', 1.5), ('belly', 1.0), ('head', 1.0), ('any', 1.0))),
    'climb': Posture('climb', HANG, 2.0, (
        Leg((0.1, -0.55, 0.34), (0.09, 0.14, 0.09), (0.5, 0.4, 1.0)),
        Leg((0.06, -0.94, 0.08), (0.07, 0.05, 0.07), (0.3, 0.0, 1.0), 25.0)), (4, 10), (0, 7),
        (2, 9), 14, 9, gestures=(('hold', 3.0), ('up', 1.5))),
}  # fmt: skip


@dataclass(frozen=True)
class Gesture:
    """Where a wrist goes: (out, up, ahead) of an anchor, and where the elbow points."""

    anchor: str
    offset: Triple
    spread: Triple
    elbow: Triple
    both_odds: float = 0.6  # that the other arm does the same


ANCHORS = ('shoulder', 'hip', 'knee', 'head', 'across', 'floor', 'back', 'lap')
GESTURES = {
    'any': Gesture('shoulder', (0.3, -0.35, 0.4), (0.35, 0.5, 0.35), (0.8, -0.5, -0.3), 0.3),
    'hang': Gesture('shoulder', (0.14, -0.93, 0.06), (0.09, 0.05, 0.1), (0.4, 0.0, -1.0), 0.95),
    'up': Gesture('shoulder', (0.14, 0.82, 0.2), (0.22, 0.14, 0.25), (1.0, -0.1, 0.3), 0.5),
    'crossed': Gesture('across', (0.06, -0.4, 0.36), (0.05, 0.05, 0.03), (0.5, -1.0, 0.0), 1.0),
    'hips': Gesture('hip', (0.095, 0.12, 0.0), (0.02, 0.03, 0.03), (1.0, 0.0, -0.35), 0.7),
    'head': Gesture('head', (0.11, 0.06, -0.07), (0.02, 0.05, 0.04), (1.0, 0.1, 0.35), 0.7),
    'behind': Gesture('back', (0.05, 0.08, -0.19), (0.05, 0.07, 0.02), (1.0, 0.0, -0.7), 0.85),
    'ahead': Gesture('shoulder', (-0.02, -0.05, 0.85), (0.2, 0.2, 0.1), (0.6, -0.8, 0.0), 0.5),
    'aside': Gesture('shoulder', (0.88, 0.02, 0.1), (0.1, 0.22, 0.2), (0.0, -1.0, -0.4), 0.6),
    'face': Gesture('head', (0.05, -0.16, 0.14), (0.04, 0.06, 0.04), (0.7, -1.0, 0.1), 0.25),
    'table': Gesture('shoulder', (-0.04, -0.5, 0.6), (0.15, 0.12, 0.12), (0.7, -0.6, -0.5), 0.8),
    'lap': Gesture('lap', (-0.02, 0.1, 0.0), (0.05, 0.03, 0.1), (0.8, -0.3, -0.6), 0.85),
    'knees': Gesture('knee', (0.0, 0.1, 0.02), (0.05, 0.03, 0.05), (0.9, 0.0, -0.3), 0.7),
    'belly': Gesture('hip', (-0.07, 0.25, 0.16), (0.05, 0.07, 0.03), (1.0, -0.2, -0.3), 0.6),
    'floor': Gesture('floor', (0.02, 0.095, 0.05), (0.1, 0.02, 0.12), (0.7, 0.0, -0.5), 0.85),
    'behind_floor': Gesture('floor', (0.1, 0.095, -0.34), (0.06, 0.02, 0.06), (0.6, 0.0, -1.0)),
    'hold': Gesture('shoulder', (0.1, 0.4, 0.6), (0.15, 0.45, 0.15), (0.9, -0.6, 0.0), 0.5),
}  # fmt: skip


def reach(
    start_m: Tensor, goal_m: Tensor, lengths_m: tuple[Tensor, Tensor], pole: Tensor
) -> tuple[Tensor, Tensor]:
    """Directions (..., 3) of two bones from `start_m` that end at `goal_m`, or as near as can be.

    lengths_m: of both bones (...,); pole (..., 3): where the joint between them points.
    """
    a, b = lengths_m
    way = goal_m - start_m
    span = way.norm(dim=-1)
    far = span.clamp_min(1e-6)
    least = ((a - b).abs() + 0.12 * (a + b)).clamp_min(1e-6)
    span = torch.minimum(torch.maximum(span, least), 0.999 * (a + b))
    along = way / far[..., None]
    aside = normalize(pole - (pole * along).sum(-1, keepdim=True) * along, dim=-1)
    run = (a * a + span * span - b * b) / (2 * span)
    rise = (a * a - run * run).clamp_min(0).sqrt()
    first = run[..., None] * along + rise[..., None] * aside
    second = span[..., None] * along - first
    return normalize(first, dim=-1), normalize(second, dim=-1)
