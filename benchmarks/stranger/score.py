"""How well a detector's joints agree with the labels: PCK on visible limb joints."""

from dataclasses import dataclass

import numpy as np

from samples import COCO_17, Sample

THRESHOLD = 0.2  # of the torso
LIMBS = tuple(
    COCO_17.index(f'{side}_{joint}')
    for joint in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
    for side in ('left', 'right')
)
MIRRORED = [
    COCO_17.index(name.replace('left', 'r!ght').replace('right', 'left').replace('r!ght', 'right'))
    for name in COCO_17
]
L_SHOULDER, R_SHOULDER = COCO_17.index('left_shoulder'), COCO_17.index('right_shoulder')
L_HIP, R_HIP = COCO_17.index('left_hip'), COCO_17.index('right_hip')


def diagonal_torso(uv: np.ndarray) -> float:
    """Left shoulder to right hip: the torso of PCK on Leeds Sports Pose. NaN: not labelled."""
    return float(np.linalg.norm(uv[L_SHOULDER] - uv[R_HIP]))


def middle_torso(uv: np.ndarray) -> float:
    """Middle of the shoulders to middle of the hips."""
    shoulders, hips = uv[[L_SHOULDER, R_SHOULDER]].mean(0), uv[[L_HIP, R_HIP]].mean(0)
    return float(np.linalg.norm(shoulders - hips))


TORSOS = {'left shoulder - right hip': diagonal_torso, 'mid-shoulders - mid-hips': middle_torso}


@dataclass(frozen=True)
class Judgement:
    """One picture and what was found in it."""

    sample: Sample
    found: np.ndarray | None  # 17 2, None: nobody

    @property
    def judged(self) -> np.ndarray:
        """Limb joints (17,) that are visible and labelled."""
        limb = np.zeros(17, bool)
        limb[list(LIMBS)] = True
        return limb & self.sample.visible & np.isfinite(self.sample.uv).all(1)

    def errors(self, swapped: bool = False) -> np.ndarray:
        """Distances in pixels (17,), infinite where nobody was found."""
        if self.found is None:
            return np.full(17, np.inf)
        found = self.found[MIRRORED] if swapped else self.found
        return np.linalg.norm(found - self.sample.uv, axis=1)

    def hits(self, torso: str, best_side: bool = False) -> np.ndarray | None:
        """Joints (17,) within the threshold; best_side: left and right may be exchanged.

        None where the picture cannot be judged: the torso or all limb joints lack a label.
        """
        length = TORSOS[torso](self.sample.uv)
        if not np.isfinite(length) or not self.judged.any():
            return None
        options = [self.errors(swapped) for swapped in ((False, True) if best_side else (False,))]
        hits = [(error <= THRESHOLD * length) & self.judged for error in options]
        return max(hits, key=np.sum)

    @property
    def on_person(self) -> bool:
        """Somebody was found, and its hips or shoulders lie within the labelled joints' box."""
        if self.found is None:
            return False
        known = self.sample.uv[np.isfinite(self.sample.uv).all(1)]
        if not len(known):
            return False
        low, high = known.min(0), known.max(0)
        middle = self.found[[L_SHOULDER, R_SHOULDER, L_HIP, R_HIP]].mean(0)
        margin = 0.1 * (high - low).max()
        return bool(((middle >= low - margin) & (middle <= high + margin)).all())


@dataclass(frozen=True)
class Score:
    """PCK of many pictures under one definition of the torso."""

    judged: np.ndarray  # 17, visible joints
    hits: np.ndarray  # 17
    hits_best_side: np.ndarray  # 17
    judged_found: int  # visible joints of pictures in which somebody was found

    @property
    def pck(self) -> float:
        """Over all pictures: nobody found is a miss of every joint."""
        return float(self.hits.sum() / max(1, self.judged.sum()))

    @property
    def pck_best_side(self) -> float:
        return float(self.hits_best_side.sum() / max(1, self.judged.sum()))

    @property
    def pck_found(self) -> float:
        """Over the pictures in which somebody was found."""
        return float(self.hits.sum() / max(1, self.judged_found))


def score(judgements: list[Judgement], torso: str) -> Score:
    """Sums over all pictures whose torso is labelled."""
    judged, hits, best = np.zeros(17, int), np.zeros(17, int), np.zeros(17, int)
    judged_found = 0
    for judgement in judgements:
        right = judgement.hits(torso)
        either = judgement.hits(torso, best_side=True)
        if right is None or either is None:
            continue
        judged += judgement.judged
        hits += right
        best += either
        judged_found += int(judgement.judged.sum()) * (judgement.found is not None)
    return Score(judged, hits, best, judged_found)


def badness(judgement: Judgement) -> float:
    """Mean error of the judged joints in torsos, each at most 2; nobody found: 2."""
    length = diagonal_torso(judgement.sample.uv)
    if not np.isfinite(length) or not judgement.judged.any():
        return -1.0
    error = np.nan_to_num(judgement.errors()[judgement.judged] / max(length, 1.0), posinf=2.0)
    return float(np.minimum(error, 2.0).mean())
