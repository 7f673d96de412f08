"""Errors of estimated skeletons: MPJPE in millimetres and the joint detection rate.

A joint that was not found (NaN) has no error; every figure therefore says what share was found.
"""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rsb_pose_core.skeleton import H36M_17

CROP_SIDE_SHARE = 0.05  # the authors' code
BOX_WIDTH_SHARE = 0.5 * 0.025  # the paper's words: half of a head size of 2.5 % of the box width

Joints = Float[Tensor, 'poses joints 3']
JointErrors = Float[Tensor, 'poses joints']
JointMask = Bool[Tensor, 'poses joints']


@dataclass(frozen=True)
class ErrorSummary:
    """Mean and median in mm over the joints that were found (NaN if none), and their share.

    `found` is found joints over expected ones (NaN if none was expected), `count` the found ones.
    """

    mean_mm: float
    median_mm: float
    found: float
    count: int


@dataclass(frozen=True)
class PoseErrors:
    """MPJPE_ab and MPJPE_re of the paper (IV-A), over all joints and over the visible ones."""

    absolute: ErrorSummary
    relative: ErrorSummary
    absolute_visible: ErrorSummary
    relative_visible: ErrorSummary

    def as_dict(self) -> dict[str, dict[str, float]]:
        """Nested plain numbers, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class DetectionRates:
    """Joint detection rate, 0..1 of the expected joints, by both thresholds in use.

    crop_side: within 5 % of the crop's side; box_width: within half of 2.5 % of the box's width.
    """

    crop_side: float
    box_width: float
    found: float


def joint_errors_mm(
    predicted_m: Joints, truth_m: Joints, *, root: int | None = None
) -> JointErrors:
    """Distance of every joint from the truth in mm; NaN where the joint was not found.

    With `root`, both poses are first moved so that this joint is at the origin (MPJPE_re): a pose
    without its root then has no errors at all.
    """
    if root is not None:
        predicted_m = predicted_m - predicted_m[:, root : root + 1]
        truth_m = truth_m - truth_m[:, root : root + 1]
    distance: Tensor = torch.linalg.vector_norm(predicted_m - truth_m, dim=-1)
    return distance * 1000


def summarize(errors_mm: JointErrors, expected: JointMask | None = None) -> ErrorSummary:
    """Mean, median and found share of the errors of the expected joints (all by default)."""
    errors = errors_mm.flatten() if expected is None else errors_mm[expected]
    found = errors[errors.isfinite()].double()
    return ErrorSummary(
        mean_mm=found.mean().item() if len(found) else torch.nan,
        median_mm=found.quantile(0.5).item() if len(found) else torch.nan,
        found=len(found) / len(errors) if len(errors) else torch.nan,
        count=len(found),
    )


def pose_errors(
    predicted_m: Joints,
    truth_m: Joints,
    visible: JointMask | None = None,
    *,
    root: int = H36M_17.root,
) -> PoseErrors:
    """MPJPE of poses in metres, absolute and relative to the root joint, all and visible joints.

    `visible` marks the joints that count as visible (all by default); NaN predictions are missing.
    """
    absolute = joint_errors_mm(predicted_m, truth_m)
    relative = joint_errors_mm(predicted_m, truth_m, root=root)
    return PoseErrors(
        absolute=summarize(absolute),
        relative=summarize(relative),
        absolute_visible=summarize(absolute, visible),
        relative_visible=summarize(relative, visible),
    )


def joint_detection_rates(
    predicted_uv: Float[Tensor, 'poses joints 2'],
    truth_uv: Float[Tensor, 'poses joints 2'],
    crop_side_px: Float[Tensor, ' poses'],
    box_width_px: Float[Tensor, ' poses'],
    expected: JointMask | None = None,
) -> DetectionRates:
    """Share of joints whose pixel is near the true one; joints not found count as not detected.

    All in pixels of one image. NaN if no joint was expected.
    """
    distance = torch.linalg.vector_norm(predicted_uv - truth_uv, dim=-1)
    counted = torch.ones_like(distance, dtype=torch.bool) if expected is None else expected
    if not counted.any():
        return DetectionRates(torch.nan, torch.nan, torch.nan)

    def share(hit: JointMask) -> float:
        return hit[counted].double().mean().item()

    return DetectionRates(
        crop_side=share(distance < CROP_SIDE_SHARE * crop_side_px[:, None]),
        box_width=share(distance < BOX_WIDTH_SHARE * box_width_px[:, None]),
        found=share(distance.isfinite()),
    )
