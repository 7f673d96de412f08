"""Numbers and table of an evaluated run: what was sent, what came out, how far off it is."""

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rsb_pose_core.metrics import joint_detection_rates, pose_errors
from rsb_pose_ros.msg import HumanPose3D, HumanPose3DArray, Joint3D
from rsb_pose_ros.pairing import stamp_ns
from rsb_pose_ros.people import joint_positions, joint_states

_CROP_MARGIN = 1.25  # side of a crop over the longer side of the box round the true joints


@dataclass(frozen=True)
class PoseTable:
    """True people and the found ones, row by row. P rows, J joints; metres, rectified pixels.

    A person that was not found is a row of NaN in the predicted arrays.
    """

    stamps_ns: NDArray[np.int64]  # P
    predicted_m: NDArray[np.float64]  # P J 3
    truth_m: NDArray[np.float64]  # P J 3
    predicted_uv: NDArray[np.float64]  # P J 2, left view
    truth_uv: NDArray[np.float64]  # P J 2
    visible: NDArray[np.bool_]  # P J, in the left view
    beyond: NDArray[np.int64]  # one number: people found in frames of fewer true ones


def pose_table(
    frames: Sequence[HumanPose3DArray], truths: Mapping[int, Sequence[HumanPose3D]]
) -> PoseTable:
    """Match the people of each frame with the true ones of the same stamp.

    So that the sum of their distances is the smallest there is, however far off they are.
    """
    rows: list[tuple[int, HumanPose3D | None, HumanPose3D]] = []
    beyond = 0
    for frame in frames:
        stamp = stamp_ns(frame)
        present = truths.get(stamp, ())
        found = [person for person in frame.people if np.isfinite(joint_positions(person)).any()]
        matches = _nearest(found, present)
        rows += [(stamp, matches.get(index), truth) for index, truth in enumerate(present)]
        beyond += len(found) - len(matches) if present else 0
    joints = len(rows[0][2].joints) if rows else 0
    nothing = np.full((joints, 3), np.nan)
    return PoseTable(
        stamps_ns=np.array([row[0] for row in rows], np.int64),
        predicted_m=_stack([nothing if p is None else joint_positions(p) for _, p, _ in rows], 3),
        truth_m=_stack([joint_positions(truth) for _, _, truth in rows], 3),
        predicted_uv=_stack([nothing[:, :2] if p is None else _uv(p) for _, p, _ in rows], 2),
        truth_uv=_stack([_uv(truth) for _, _, truth in rows], 2),
        visible=np.array(
            [joint_states(truth) == Joint3D.MEASURED for _, _, truth in rows], bool
        ).reshape(len(rows), joints),
        beyond=np.array(beyond),
    )


def _nearest(
    found: Sequence[HumanPose3D], truths: Sequence[HumanPose3D]
) -> dict[int, HumanPose3D]:
    """The person found for each true one, by its index; as many as there are of the fewer."""
    if not found or not truths:
        return {}
    far_m = 1e6  # of people who share no joint
    distances = np.array([[_distance(person, truth) for person in found] for truth in truths])
    rows, columns = linear_sum_assignment(np.minimum(distances, far_m))
    return {int(row): found[column] for row, column in zip(rows, columns, strict=True)}


def accuracy(table: PoseTable) -> dict[str, Any] | None:
    """MPJPE in mm, JDR and share of people found; None where there is no truth to compare with."""
    if not len(table.stamps_ns):
        return None
    predicted, truth = torch.from_numpy(table.predicted_m), torch.from_numpy(table.truth_m)
    visible = torch.from_numpy(table.visible & np.isfinite(table.truth_m).all(-1))
    errors = pose_errors(predicted, truth, visible)
    span = np.nanmax(table.truth_uv, axis=1) - np.nanmin(table.truth_uv, axis=1)
    rates = joint_detection_rates(
        torch.from_numpy(table.predicted_uv),
        torch.from_numpy(table.truth_uv),
        crop_side_px=torch.from_numpy(_CROP_MARGIN * span.max(axis=1)),
        box_width_px=torch.from_numpy(span[:, 0]),
        expected=torch.from_numpy(np.isfinite(table.truth_uv).all(-1)),
    )
    return {
        'people_compared': len(table.stamps_ns),
        'people_beyond_truth': int(table.beyond),
        'share_found': float(np.isfinite(table.predicted_m).all(-1).any(-1).mean()),
        'MPJPE_ab_mm': {
            'all': asdict(errors.absolute),
            'visible': asdict(errors.absolute_visible),
        },
        'MPJPE_re_mm': {
            'all': asdict(errors.relative),
            'visible': asdict(errors.relative_visible),
        },
        'JDR': {'crop_side': rates.crop_side, 'box_width': rates.box_width},
    }


def versions() -> dict[str, str]:
    """Versions of the package and of what it computes with."""
    return {
        'rsb_pose_ros': _distribution('rsb_pose_ros'),
        'rclpy': _distribution('rclpy', 'ros-rclpy'),
        'torch': torch.__version__,
        'numpy': np.__version__,
        'opencv': cv2.__version__,
    }


def percentiles_ms(values: Sequence[float]) -> dict[str, float]:
    """p50 and p99; NaN where there is nothing."""
    if not len(values):
        return {'p50': math.nan, 'p99': math.nan}
    return {'p50': float(np.percentile(values, 50)), 'p99': float(np.percentile(values, 99))}


def not_finite(report: Mapping[str, Any], prefix: str = '') -> list[str]:
    """Names of all numbers in the report that are NaN or infinite."""
    names = []
    for key, value in report.items():
        if isinstance(value, Mapping):
            names += not_finite(value, f'{prefix}{key}.')
        elif isinstance(value, float) and not math.isfinite(value):
            names.append(f'{prefix}{key}')
    return names


def plain(value: Any) -> Any:
    """The report with null for NaN, as JSON has none."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table_text(report: Mapping[str, Any]) -> str:
    """The report as a table of two columns."""
    rows = [
        ('bag', f'{report["bag"]}, played at rate {report["play_rate"]:.2f}'),
        ('weights', f'{report["weights"]["name"]} ({report["weights"]["sha256"][:12]})'),
        ('device', report['device']),
        (
            'pairs',
            f'{report["frames_sent"]} sent = {report["processed"]} processed + '
            f'{report["dropped"]} dropped + {report["unmatched"]} unmatched',
        ),
        ('poses published', report['poses_published']),
        ('latency', '{p50:.0f} ms median, {p99:.0f} ms p99'.format(**report['latency_ms'])),
        ('rate', f'{report["rate_hz"]:.1f} Hz'),
    ]
    measured = report['accuracy']
    if measured is None:
        rows.append(('accuracy', 'the bag has no true poses'))
    else:
        rows.append(('people found', f'{measured["share_found"]:.1%}'))
        if measured['people_beyond_truth']:
            rows.append(('people beyond the truth', measured['people_beyond_truth']))
        for key, name in (('MPJPE_ab_mm', 'MPJPE_ab'), ('MPJPE_re_mm', 'MPJPE_re')):
            for joints in ('all', 'visible'):
                errors = measured[key][joints]
                rows.append(
                    (
                        f'{name}, {joints} joints',
                        f'{errors["median_mm"]:.0f} mm median, {errors["mean_mm"]:.0f} mm mean',
                    )
                )
        rows.append(
            (
                'JDR',
                '{crop_side:.1%} within 5 % of the crop, {box_width:.1%} within 1.25 % of the '
                'box width'.format(**measured['JDR']),
            )
        )
    width = max(len(name) for name, _ in rows)
    return '\n'.join(f'{name:<{width}}  {value}' for name, value in rows)


def _stack(rows: list[NDArray[np.float64]], last: int) -> NDArray[np.float64]:
    return np.stack(rows) if rows else np.zeros((0, 0, last))


def _uv(person: HumanPose3D) -> NDArray[np.float64]:
    return np.array([joint.uv_left for joint in person.joints], np.float64)


def _distance(person: HumanPose3D, truth: HumanPose3D) -> float:
    """Median distance of the joints that both have; infinite where they share none."""
    distances = np.linalg.norm(joint_positions(person) - joint_positions(truth), axis=-1)
    finite = distances[np.isfinite(distances)]
    return float(np.median(finite)) if len(finite) else math.inf


def _distribution(*names: str) -> str:
    """Version of the first of these distributions that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return 'unknown'
