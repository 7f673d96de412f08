"""What an evaluation found, for people and programs: a Markdown table, report.md, report.json."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsb_pose_core.errors import DataError
from rsb_pose_core.metrics import Distribution, Scores, joint_scores, scores
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.evaluation import Evaluated

DEFINITIONS = """\
MPJPE_ab, MPJPE_re: distance of a joint from the truth in mm, as it is and after both pelvises were
  moved to the origin (paper IV-A2), over the joints that were found.
visible, occluded: MPJPE_ab of joints that the left view shows, and of those that the body itself
  or something else hides there.
JDR crop, JDR box: share of 2D keypoints, of both views, within 5 % of the crop's side (the
  authors' code) and within half of 2.5 % of the width of the joints' box (the paper's words).
SIM_cos: cosine similarity, -1..1, of both views' last features before the head, each read
  bilinearly at the view's 2D keypoint.
PCK3D, AUC: share of joints within 150 mm relative to the pelvis, and its mean over 31 thresholds
  of 0..150 mm (as on MPI-INF-3DHP).
PCK2D: share of 2D keypoints, of both views, within 0.2 of the distance from the left shoulder to
  the right hip.
found: share of joints that got a position; joints not found are misses in every rate.
Counted are joints that have a true position and are inside both crops and pictures. 2D keypoints
are those before the Pose Transformer, which works in 3D; '-' where a method has none.
"""

COLUMNS = (
    'method', 'MPJPE_ab', 'MPJPE_re', 'visible', 'occluded', 'JDR crop', 'JDR box', 'SIM_cos',
    'PCK3D', 'AUC', 'PCK2D', 'found',
)  # fmt: skip
PICTURES = {
    'joints.png': 'Error of each joint',
    'cumulative.png': 'Share of joints within a distance of the truth',
    'distance.png': 'Error against distance from the camera',
    'occlusion.png': 'Visible and occluded joints',
    'pairs.png': 'Best, median and worst pairs',
}


@dataclass(frozen=True, eq=False)
class EvaluatedMethod:
    """A method with its weights, what it said at each stage of evaluation.evaluate_method, and
    what else the report says of it (`facts`: plain values for JSON)."""

    name: str
    facts: Mapping[str, Any]
    stages: Mapping[str, Evaluated]

    @property
    def final(self) -> Evaluated:
        """The refined joints where there is a Pose Transformer."""
        return self.stages.get('refined', self.stages['initial'])

    def rows(self) -> Iterator[tuple[str, Evaluated]]:
        """The stages under the names that people read, the final one first."""
        yield self.name, self.final
        if 'refined' in self.stages:
            yield f'{self.name}, before the Pose Transformer', self.stages['initial']
        if 'heatmaps' in self.stages:
            yield f'{self.name}, each view by itself', self.stages['heatmaps']


def markdown_table(methods: Sequence[EvaluatedMethod]) -> str:
    """A row for each stage of each method; the columns are explained in DEFINITIONS."""
    rows = [score_row(name, found) for method in methods for name, found in method.rows()]
    return aligned_table(COLUMNS, rows)


def score_row(name: str, found: Evaluated) -> tuple[str, ...]:
    """The cells of COLUMNS."""
    errors = found.errors
    every, visible, occluded = (
        scores(errors, group) for group in (None, errors.visible, errors.occluded)
    )
    return (
        name,
        median_mean(every.mpjpe_ab_mm),
        median_mean(every.mpjpe_re_mm),
        median_mean(visible.mpjpe_ab_mm),
        median_mean(occluded.mpjpe_ab_mm),
        as_percent(every.jdr_crop_side),
        as_percent(every.jdr_box_width),
        as_number(every.sim_cos.mean, 3),
        as_percent(every.pck_3d),
        as_percent(every.auc_3d),
        as_percent(every.pck_2d),
        as_percent(every.found),
    )


def median_mean(found: Distribution) -> str:
    """'median / mean' in whole units."""
    return f'{as_number(found.median)} / {as_number(found.mean)}'


def as_number(value: float, digits: int = 0) -> str:
    """With so many decimals; '-' of nothing."""
    return f'{value:.{digits}f}' if math.isfinite(value) else '-'


def as_percent(value: float) -> str:
    """A rate of 0..1; '-' of nothing."""
    return f'{value:.1%}' if math.isfinite(value) else '-'


def aligned_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown whose columns line up in a terminal as well: text to the left, numbers right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f'| {" | ".join(padded)} |'

    rule = [('-' * width if i == 0 else '-' * (width - 1) + ':') for i, width in enumerate(widths)]
    return '\n'.join([line(head), line(rule), *(line(row) for row in rows)])


def report_markdown(methods: Sequence[EvaluatedMethod], settings: Mapping[str, Any]) -> str:
    """The page that people read; its pictures lie beside it (PICTURES)."""
    weights = [
        f'- {method.name}: {method.facts["weights"]}, {method.facts["model"]} at '
        f'{method.facts["input_size"]} px, sha256 {str(method.facts["sha256"])[:12]}'
        for method in methods
    ]
    joints = [joint_scores(method.final.errors) for method in methods]
    per_joint = [
        (name.replace('_', ' '), *(median_mean(scored[j].mpjpe_ab_mm) for scored in joints))
        for j, name in enumerate(H36M_17.joint_names)
    ]
    pictures = [f'![{text}]({name})' for name, text in PICTURES.items()]
    parts = [
        '# Evaluation',
        f'{settings["pairs"]} pairs of {settings["data"]}, the right crop moved by up to '
        f'{settings["jitter_px"]} px. Lengths in mm, median / mean.',
        markdown_table(methods),
        '\n'.join(weights),
        '## Each joint: MPJPE_ab',
        aligned_table(('joint', *(method.name for method in methods)), per_joint),
        '## Pictures',
        *pictures,
        '## What the columns say',
        f'```\n{DEFINITIONS}```',
    ]
    return '\n\n'.join(parts) + '\n'


def report_dict(methods: Sequence[EvaluatedMethod], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for JSON: NaN is null, rates are 0..1."""
    whole = {
        **settings,
        'definitions': DEFINITIONS,
        'methods': {
            method.name: {
                **method.facts,
                'stages': {stage: stage_figures(found) for stage, found in method.stages.items()},
            }
            for method in methods
        },
    }
    plain: dict[str, Any] = plain_values(whole)
    return plain


def stage_figures(found: Evaluated) -> dict[str, Any]:
    """Scores of all joints, of visible and occluded ones, and of each joint, for JSON."""
    errors = found.errors
    groups: dict[str, Scores] = {
        'all': scores(errors),
        'visible': scores(errors, errors.visible),
        'occluded': scores(errors, errors.occluded),
    }
    joints = zip(H36M_17.joint_names, joint_scores(errors), strict=True)
    return {
        **{name: asdict(group) for name, group in groups.items()},
        'joints': {name: asdict(group) for name, group in joints},
    }


def plain_values(value: Any) -> Any:
    """The same with null for NaN, as JSON has none, and at most six decimals."""
    if isinstance(value, Mapping):
        return {key: plain_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@contextmanager
def report_folder(out: Path, what: str = 'report') -> Iterator[Path]:
    """The folder `out`, made where it is missing. DataError where it cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield out
    except OSError as error:
        raise DataError(
            f'{out}: the {what} cannot be written there ({error.strerror}); give --out a folder '
            f'that can be'
        ) from error
