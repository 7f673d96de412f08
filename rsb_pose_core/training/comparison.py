"""Several methods on several test sets: the figures beyond those of one method on one set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from rsb_pose_core.metrics import (
    Distribution,
    JointErrors,
    JointMask,
    distribution,
    scores,
)
from rsb_pose_core.models import NETWORKS, Architecture
from rsb_pose_core.synthesis.cycles_set import NAME as CYCLES
from rsb_pose_core.synthesis.cycles_set import SOURCE
from rsb_pose_core.training.evaluation import Evaluated
from rsb_pose_core.training.report import EvaluatedMethod

# Edges of the bins of a joint's true depth, in metres.
DISTANCES_M = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, torch.inf)
# What all rigs see: baselines are compared on joints this deep.
COMMON_DEPTH_M = (2.0, 3.0)
WITH_PPT = ' + PPT'
# Trained for numbers of pairs that differ by less than this share of the greater: alike.
ALIKE = 0.1


@dataclass(frozen=True, eq=False)
class SetResult:
    """What methods said of the pairs of one test set.

    methods: networks, on all `numbers`; predicted: what files of predictions said, perhaps on
    fewer of them. baseline_m: the median of the pairs.
    """

    name: str
    baseline_m: float
    numbers: tuple[int, ...]
    methods: tuple[EvaluatedMethod, ...]
    predicted: tuple[EvaluatedMethod, ...] = ()

    @property
    def title(self) -> str:
        """'mhad-like, 226 mm'; metres of a long baseline."""
        if self.baseline_m < 1:
            return f'{self.name}, {1000 * self.baseline_m:.0f} mm'
        return f'{self.name}, {self.baseline_m:.1f} m'

    def rows(self) -> Iterator[tuple[str, Evaluated]]:
        """The networks with their Pose Transformer and without."""
        for method in self.methods:
            if 'refined' in method.stages:
                yield method.name + WITH_PPT, method.stages['refined']
            yield method.name, method.stages['initial']


def architecture(method: EvaluatedMethod) -> Architecture:
    """Of a network's facts."""
    return NETWORKS[method.facts['model']]


def in_order(methods: Sequence[EvaluatedMethod]) -> list[EvaluatedMethod]:
    """Networks of one trunk together, RSB-Pose first and what it is held against after it."""
    ranks = ('rsb-pose', 'triangulation', 'algebraic', 'volumetric')
    trunks = sorted({architecture(method).backbone for method in methods})

    def place(method: EvaluatedMethod) -> tuple[int, int, bool]:
        what = architecture(method)
        return trunks.index(what.backbone), ranks.index(what.method), not what.attention_mask

    return sorted(methods, key=place)


def rivals(methods: Sequence[EvaluatedMethod]) -> dict[str, EvaluatedMethod]:
    """By the name of each RSB-Pose, heat maps + triangulation on the same trunk, trained alike:
    for as many pairs, up to ALIKE."""
    found: dict[str, EvaluatedMethod] = {}
    for method in methods:
        if architecture(method).method != 'rsb-pose':
            continue
        for other in methods:
            what = architecture(other)
            wanted = ('triangulation', architecture(method).backbone)
            if (what.method, what.backbone) == wanted and _alike(method, other):
                found.setdefault(method.name, other)
    return found


def _alike(method: EvaluatedMethod, other: EvaluatedMethod) -> bool:
    pairs = [int(each.facts['metadata'].get('pairs_seen', 0)) for each in (method, other)]
    return max(pairs) - min(pairs) <= ALIKE * max(pairs)


# ---- groups of joints ----


def depth_group(errors: JointErrors, low_m: float, high_m: float) -> JointMask:
    """Counted joints whose true depth is in [low, high)."""
    return errors.counted & (errors.depth_m >= low_m) & (errors.depth_m < high_m)


def by_distance(errors: JointErrors) -> dict[tuple[float, float], Distribution]:
    """MPJPE_ab of the counted joints by DISTANCES_M, of the bins that hold any."""
    found = {}
    for limits in zip(DISTANCES_M, DISTANCES_M[1:], strict=False):
        group = depth_group(errors, *limits)
        if group.any():
            found[limits] = distribution(errors.absolute_mm[group])
    return found


def found_any(method: EvaluatedMethod) -> bool:
    """Whether it found a counted joint."""
    errors = method.final.errors
    return bool((errors.counted & errors.absolute_mm.isfinite()).any())


def on_same_joints(several: Mapping[str, Evaluated]) -> dict[str, Evaluated]:
    """The pairs that all have, of which only the joints that all found are counted.

    So what one method did not find, or has not, counts for none of them.
    """
    order = sorted(set.intersection(*(set(found.numbers) for found in several.values())))
    parts = {}
    for name, found in several.items():
        row_of = {number: row for row, number in enumerate(found.numbers)}
        rows = [row_of[number] for number in order]
        parts[name] = Evaluated(tuple(order), found.xyz_m[rows], found.errors.take(rows))
    common = torch.stack([part.errors.absolute_mm.isfinite() for part in parts.values()]).all(0)
    return {
        name: replace(part, errors=replace(part.errors, counted=part.errors.counted & common))
        for name, part in parts.items()
    }


# ---- ratios ----


@dataclass(frozen=True)
class Ratio:
    """Of two MPJPE_ab: of their medians and of their means; NaN of nothing."""

    median: float
    mean: float

    @classmethod
    def of(cls, ours: Distribution, theirs: Distribution) -> 'Ratio':
        """Ours over theirs."""
        return cls(*(
            getattr(ours, kind) / getattr(theirs, kind) if getattr(theirs, kind) else torch.nan
            for kind in ('median', 'mean')
        ))  # fmt: skip


def against_rivals(result: SetResult) -> dict[str, Ratio]:
    """MPJPE_ab of each RSB-Pose row over that of heat maps + triangulation on its trunk."""
    found = {}
    against = rivals(result.methods)
    stages = dict(result.rows())
    for name, rival in against.items():
        theirs = scores(rival.final.errors).mpjpe_ab_mm
        for row in (name + WITH_PPT, name):
            if row in stages:
                found[row] = Ratio.of(scores(stages[row].errors).mpjpe_ab_mm, theirs)
    return found


def by_ppt(result: SetResult) -> dict[str, Ratio]:
    """MPJPE_ab of occluded joints with the Pose Transformer over that without it."""
    found = {}
    for method in result.methods:
        if 'refined' in method.stages:
            after, before = (method.stages[stage].errors for stage in ('refined', 'initial'))
            found[method.name] = Ratio.of(
                distribution(after.absolute_mm[after.occluded]),
                distribution(before.absolute_mm[before.occluded]),
            )
    return found


def path_traced(results: Sequence[SetResult]) -> dict[str, Ratio]:
    """MPJPE_ab on `cycles` over that on the same pairs as the engine draws them.

    Empty without both sets.
    """
    named = {result.name: result for result in results}
    if CYCLES not in named or SOURCE not in named:
        return {}
    found = {}
    drawn = dict(named[SOURCE].rows())
    for name, traced in named[CYCLES].rows():
        shared = sorted(set(traced.numbers) & set(drawn[name].numbers))
        if shared:
            ours, theirs = (
                scores(each.errors.take([each.numbers.index(n) for n in shared])).mpjpe_ab_mm
                for each in (traced, drawn[name])
            )
            found[name] = Ratio.of(ours, theirs)
    return found


def times_better(result: SetResult, other: EvaluatedMethod) -> dict[str, Ratio]:
    """MPJPE_ab of a file of predictions over that of each network, on the same joints."""
    same = on_same_joints({**dict(result.rows()), other.name: other.final})
    theirs = scores(same.pop(other.name).errors).mpjpe_ab_mm
    return {
        name: Ratio.of(theirs, scores(found.errors).mpjpe_ab_mm) for name, found in same.items()
    }


def rows_of_rsb_pose(result: SetResult) -> set[str]:
    """Names of the rows of RSB-Pose, with the Pose Transformer and without."""
    return {
        name + suffix
        for name in (m.name for m in result.methods if architecture(m).method == 'rsb-pose')
        for suffix in ('', WITH_PPT)
    }
