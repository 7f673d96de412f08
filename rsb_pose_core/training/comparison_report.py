"""The comparison of methods on test sets, for people and programs: Markdown tables and JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rsb_pose_core.metrics import distribution, scores
from rsb_pose_core.training.comparison import (
    COMMON_DEPTH_M,
    Ratio,
    SetResult,
    against_rivals,
    by_distance,
    by_ppt,
    depth_group,
    found_any,
    on_same_joints,
    path_traced,
    rows_of_rsb_pose,
    times_better,
)
from rsb_pose_core.training.evaluation import Evaluated
from rsb_pose_core.training.report import (
    COLUMNS,
    DEFINITIONS,
    EvaluatedMethod,
    aligned_table,
    as_number,
    as_percent,
    median_mean,
    plain_values,
    score_row,
    stage_figures,
)

PICTURES = {
    'sets.png': 'Error of each method on each test set',
    'distances.png': 'Error against distance from the cameras, by test set',
}
FIRST_COLUMNS = ('MPJPE_ab', 'MPJPE_re', 'visible', 'occluded', 'JDR', 'PCK3D')
LENGTHS = 'Lengths in mm, median / mean.'


def headline(results: Sequence[SetResult]) -> str:
    """The table of a README: the first set in figures, MPJPE_ab on the others."""
    first, *others = results
    head = ('method', *FIRST_COLUMNS, *(f'{result.name} MPJPE_ab' for result in others))
    stages = [dict(result.rows()) for result in results]
    rows = []
    for name, found in stages[0].items():
        errors = found.errors
        every = scores(errors)
        rows.append((
            name,
            median_mean(every.mpjpe_ab_mm),
            median_mean(every.mpjpe_re_mm),
            median_mean(distribution(errors.absolute_mm[errors.visible])),
            median_mean(distribution(errors.absolute_mm[errors.occluded])),
            as_percent(every.jdr_crop_side),
            as_percent(every.pck_3d),
            *(median_mean(scores(stage[name].errors).mpjpe_ab_mm) for stage in stages[1:]),
        ))  # fmt: skip
    return (
        f'{first.title}, {len(first.numbers)} pairs, in figures, then MPJPE_ab on the other '
        f'sets. {LENGTHS}\n\n{aligned_table(head, rows)}'
    )


def set_table(result: SetResult) -> str:
    """A row for each network with and without its Pose Transformer: columns of DEFINITIONS."""
    return aligned_table(COLUMNS, [score_row(name, found) for name, found in result.rows()])


def same_joints_tables(result: SetResult, other: EvaluatedMethod) -> str:
    """A file of predictions beside the networks, on the pairs and joints that it found."""
    if not found_any(other):
        return f'{other.name}: found nobody in {len(other.final.numbers)} pairs.'
    same = on_same_joints({other.name: other.final, **dict(result.rows())})
    times = times_better(result, other)
    rows = []
    for name, found in same.items():
        every = scores(found.errors)
        rows.append((
            name,
            median_mean(every.mpjpe_ab_mm),
            median_mean(every.mpjpe_re_mm),
            as_percent(every.pck_3d),
            as_percent(every.jdr_crop_side),
            as_ratio(times[name]) if name in times else '',
        ))  # fmt: skip
    head = ('method', 'MPJPE_ab', 'MPJPE_re', 'PCK3D', 'JDR', f'{other.name} : this')
    return '\n\n'.join(
        [coverage(result, other), aligned_table(head, rows), distance_table(list(same.items()))]
    )


def coverage(result: SetResult, other: EvaluatedMethod) -> str:
    """On which joints and pairs a file of predictions is measured."""
    facts, errors = other.facts, other.final.errors
    counted = int(errors.counted[:, facts['joint_numbers']].sum())
    found = int((errors.absolute_mm.isfinite() & errors.counted).sum())
    return (
        f'{other.name}: somebody found in {facts["pairs_found"]} of {len(errors)} pairs (of '
        f'{len(result.numbers)} of the set), {found} of {counted} counted joints of '
        f'{", ".join(facts["joints"])}. All rows below are on these {found} joints.'
    )


def distance_table(rows: Sequence[tuple[str, Evaluated]]) -> str:
    """Median MPJPE_ab by the joint's true depth, of rows on equal joints."""
    errors = rows[0][1].errors
    bins = list(by_distance(errors))
    cells = [
        (name, *(as_number(part.median) for part in by_distance(found.errors).values()))
        for name, found in rows
    ]
    joints = ('joints', *(str(int(depth_group(errors, *limits).sum())) for limits in bins))
    head = ('MPJPE_ab, median', *(_span(*limits) for limits in bins))
    return aligned_table(head, [*cells, joints])


def baseline_table(results: Sequence[SetResult]) -> str:
    """Median MPJPE_ab at one depth, the sets in order of their baselines."""
    ordered = sorted(results, key=lambda result: result.baseline_m)
    stages = [dict(result.rows()) for result in ordered]

    def median(found: Evaluated) -> str:
        group = depth_group(found.errors, *COMMON_DEPTH_M)
        return as_number(distribution(found.errors.absolute_mm[group]).median)

    cells = [(name, *(median(stage[name]) for stage in stages)) for name in stages[0]]
    counts = [
        int(depth_group(next(iter(stage.values())).errors, *COMMON_DEPTH_M).sum())
        for stage in stages
    ]
    head = ('MPJPE_ab, median', *(result.title for result in ordered))
    return aligned_table(head, [*cells, ('joints', *map(str, counts))])


def rival_table(results: Sequence[SetResult]) -> str | None:
    """MPJPE_ab of RSB-Pose over heat maps + triangulation by set; None where there is no pair."""
    found = [against_rivals(result) for result in results]
    if not found[0]:
        return None
    rows = [(name, *(as_ratio(each[name]) for each in found)) for name in found[0]]
    return aligned_table(('method', *(result.title for result in results)), rows)


def ratio_lines(results: Sequence[SetResult]) -> list[str]:
    """What the Pose Transformer, path tracing and RSB-Pose beside other programs amount to."""
    ours = rows_of_rsb_pose(results[0])
    lines = [
        f'- {name}: MPJPE_ab of occluded joints of {result.name} with the Pose Transformer over '
        f'that without it: {as_ratio(ratio)}'
        for result in results
        for name, ratio in by_ppt(result).items()
        if name in ours
    ]
    lines += [
        f'- {name}: cycles over the same pairs of mhad-like: {as_ratio(ratio)}'
        for name, ratio in path_traced(results).items()
        if name in ours
    ]
    return lines + [
        f'- {other.name} over {name} on {result.name}, the same joints: {as_ratio(ratio)}'
        for result in results
        for other in result.predicted
        if found_any(other)
        for name, ratio in times_better(result, other).items()
        if name in ours
    ]


def as_ratio(ratio: Ratio) -> str:
    """'median / mean'."""
    return f'{as_number(ratio.median, 2)} / {as_number(ratio.mean, 2)}'


def comparison_markdown(results: Sequence[SetResult], settings: Mapping[str, Any]) -> str:
    """The page that people read; its pictures lie beside it (PICTURES)."""
    weights = [
        f'- {method.name}: {method.facts["weights"]}, {method.facts["model"]} at '
        f'{method.facts["input_size"]} px, {method.facts["metadata"].get("pairs_seen", "?")} '
        f'pairs drawn in training, sha256 {str(method.facts["sha256"])[:12]}'
        for method in results[0].methods
    ]
    ratios = rival_table(results)
    parts = [
        '# Methods side by side',
        f'The right crop moved by up to {settings["jitter_px"]} px; boxes from the truth. '
        f'"+ PPT": with the Pose Transformer.',
        headline(results),
        *(f'![{text}]({name})' for name, text in PICTURES.items()),
        '\n'.join(weights),
    ]
    if ratios:
        parts += ['## RSB-Pose over heat maps + triangulation on the same trunk',
                  'Ratio of the MPJPE_ab, of medians / of means; below 1 RSB-Pose is better.',
                  ratios]  # fmt: skip
    parts += [
        '## By baseline',
        f'Joints {_span(*COMMON_DEPTH_M)} deep; the sets differ in more than their baselines.',
        baseline_table(results),
    ]
    for result in results:
        parts += [f'## {result.title}', f'{len(result.numbers)} pairs. {LENGTHS}']
        parts += [set_table(result), distance_table(list(result.rows()))]
        parts += [same_joints_tables(result, other) for other in result.predicted]
    lines = ratio_lines(results)
    if lines:
        parts += ['## Other ratios', 'Of medians / of means.', '\n'.join(lines)]
    parts += ['## What the columns say', f'```\n{DEFINITIONS}```']
    return '\n\n'.join(parts) + '\n'


def comparison_dict(results: Sequence[SetResult], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for JSON: NaN is null, rates are 0..1."""
    whole = {
        **settings,
        'definitions': DEFINITIONS,
        'methods': {method.name: method.facts for method in results[0].methods},
        'sets': {result.name: _set_figures(result) for result in results},
        'path_traced': {name: asdict(ratio) for name, ratio in path_traced(results).items()},
    }
    plain: dict[str, Any] = plain_values(whole)
    return plain


def _set_figures(result: SetResult) -> dict[str, Any]:
    predicted = {
        other.name: {
            **other.facts,
            'figures': stage_figures(other.final),
            'same_joints': {
                name: asdict(scores(found.errors))
                for name, found in on_same_joints(
                    {other.name: other.final, **dict(result.rows())}
                ).items()
            },
        }
        for other in result.predicted
    }
    return {
        'pairs': len(result.numbers),
        'baseline_m': result.baseline_m,
        'rows': {
            name: {
                **stage_figures(found),
                'distances': {
                    _span(*limits): asdict(part)
                    for limits, part in by_distance(found.errors).items()
                },
            }
            for name, found in result.rows()
        },
        'over_heat_maps': {name: asdict(r) for name, r in against_rivals(result).items()},
        'occluded_with_ppt': {name: asdict(r) for name, r in by_ppt(result).items()},
        'predictions': predicted,
    }


def _span(low_m: float, high_m: float) -> str:
    """'2-3 m'."""
    return f'{low_m:g}-{high_m:g} m' if math.isfinite(high_m) else f'{low_m:g} m and more'
