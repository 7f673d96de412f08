"""Errors of estimated skeletons: MPJPE, JDR, SIM_cos and PCK (paper IV-A2).

A joint that was not found (NaN) has no error; every figure therefore says what share was found,
and rates count it as a miss.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from rsb_pose_core.skeleton import H36M_17

CROP_SIDE_SHARE = 0.05  # the authors' code
BOX_WIDTH_SHARE = 0.5 * 0.025  # the paper's words: half of a head size of 2.5 % of the box width
TORSO_SHARE = 0.2  # PCK@0.2
PCK_MM = 150.0  # PCK3D of MPI-INF-3DHP (Mehta et al. 2017), half the size of a head
AUC_MM = torch.linspace(0.0, PCK_MM, 31)  # the thresholds of its area under the curve

VISIBLE = 0  # visibility code, as in the labels of stored pairs

Joints = Float[Tensor, 'poses joints 3']
PerJoint = Float[Tensor, 'poses joints']
JointMask = Bool[Tensor, 'poses joints']
Keypoints = Float[Tensor, 'poses joints 2']
Features = Float[Tensor, 'poses channels rows columns']


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


def joint_errors_mm(predicted_m: Joints, truth_m: Joints, *, root: int | None = None) -> PerJoint:
    """Distance of every joint from the truth in mm; NaN where the joint was not found.

    With `root`, both poses are first moved so that this joint is at the origin (MPJPE_re): a pose
    without its root then has no errors at all.
    """
    if root is not None:
        predicted_m = predicted_m - predicted_m[:, root : root + 1]
        truth_m = truth_m - truth_m[:, root : root + 1]
    distance: Tensor = torch.linalg.vector_norm(predicted_m - truth_m, dim=-1)
    return distance * 1000


def summarize(errors_mm: PerJoint, expected: JointMask | None = None) -> ErrorSummary:
    """Mean, median and found share of the errors of the expected joints (all by default)."""
    errors = errors_mm.flatten() if expected is None else errors_mm[expected]
    found = distribution(errors)
    return ErrorSummary(
        mean_mm=found.mean,
        median_mm=found.median,
        found=found.count / len(errors) if len(errors) else torch.nan,
        count=found.count,
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
    predicted_uv: Keypoints,
    truth_uv: Keypoints,
    crop_side_px: Float[Tensor, ' poses'],
    box_width_px: Float[Tensor, ' poses'],
    expected: JointMask | None = None,
) -> DetectionRates:
    """Share of joints whose pixel is near the true one; joints not found count as not detected.

    All in pixels of one image. NaN if no joint was expected.
    """
    distance = torch.linalg.vector_norm(predicted_uv - truth_uv, dim=-1)
    counted = torch.ones_like(distance, dtype=torch.bool) if expected is None else expected
    return DetectionRates(
        crop_side=_share(distance < CROP_SIDE_SHARE * crop_side_px[:, None], counted),
        box_width=_share(distance < BOX_WIDTH_SHARE * box_width_px[:, None], counted),
        found=_share(distance.isfinite(), counted),
    )


# ---- every joint of many pairs, and the figures of any group of them ----


@dataclass(frozen=True)
class Distribution:
    """Mean, percentiles (median: the 50th) and number of the finite values; NaN of none."""

    mean: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    count: int


def distribution(values: Tensor) -> Distribution:
    """Of the finite values of a tensor of any shape, in float64."""
    found = values[values.isfinite()].double()
    if not len(found):
        nan = torch.nan
        return Distribution(nan, nan, nan, nan, nan, nan, count=0)
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    p5, p25, median, p75, p95 = found.quantile(levels.to(found.device)).tolist()
    return Distribution(found.mean().item(), p5, p25, median, p75, p95, count=len(found))


@dataclass(frozen=True, eq=False)
class JointErrors:
    """Errors of every joint of N pairs, raw, so that they can be grouped in any way.

    absolute_mm, relative_mm: distance from the truth, and after both pelvises were moved to the
    origin; uv_px: distance of the 2D keypoint, left and right view, in pixels of the crop, None of
    a method that has no 2D keypoints; disparity_px: its absolute error; similarity: SIM_cos. These
    are NaN where the joint was not found. Of the truth: depth_m of each joint; visibility codes,
    left then right; counted: has a true position, inside both crops; rooted: the true pelvis is
    known; crop_side_px, and in each view the width of the box of the joints and the length of the
    torso, from the left shoulder to the right hip.
    """

    absolute_mm: PerJoint
    relative_mm: PerJoint
    uv_px: Float[Tensor, 'poses 2 joints'] | None
    disparity_px: PerJoint
    similarity: PerJoint
    depth_m: PerJoint
    visibility: UInt8[Tensor, 'poses 2 joints']
    counted: JointMask
    rooted: Bool[Tensor, ' poses']
    crop_side_px: Float[Tensor, ' poses']
    box_width_px: Float[Tensor, 'poses 2']
    torso_px: Float[Tensor, 'poses 2']

    def __len__(self) -> int:
        return len(self.counted)

    @property
    def visible(self) -> JointMask:
        """Counted joints that the left view, in whose frame positions are, shows."""
        return self.counted & (self.visibility[:, 0] == VISIBLE)

    @property
    def occluded(self) -> JointMask:
        """Counted joints that the body itself or something else hides from the left view."""
        return self.counted & (self.visibility[:, 0] != VISIBLE)

    def pose_mm(self) -> Float[Tensor, ' poses']:
        """MPJPE_ab of each pair: the mean over its counted joints; NaN where none was found."""
        return self.absolute_mm.where(self.counted, torch.nan).nanmean(1)

    @classmethod
    def join(cls, parts: 'Sequence[JointErrors]') -> 'JointErrors':
        """The pairs of several batches of one method, one after another."""
        joined: dict[str, Any] = {}
        for item in fields(cls):
            values = [getattr(part, item.name) for part in parts]
            joined[item.name] = None if values[0] is None else torch.cat(values)
        return cls(**joined)

    def take(self, rows: Sequence[int]) -> 'JointErrors':
        """Some of the pairs."""
        chosen = list(rows)
        taken: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            taken[item.name] = None if value is None else value[chosen]
        return JointErrors(**taken)


@dataclass(frozen=True)
class Scores:
    """The paper's figures over a group of joints, and the field's.

    expected: joints of the group; found: the share of them that has a position. mpjpe_ab_mm,
    mpjpe_re_mm, uv_px, disparity_px, sim_cos: distributions over the joints found. Rates, 0..1 of
    the expected joints, of both views where they are 2D: jdr_crop_side within 5 % of the crop's
    side, jdr_box_width within half of 2.5 % of the box's width; pck_2d within 0.2 torso lengths;
    pck_3d within 150 mm relative to the pelvis, auc_3d its mean over thresholds of 0..150 mm.
    NaN where there is nothing to count.
    """

    expected: int
    found: float
    mpjpe_ab_mm: Distribution
    mpjpe_re_mm: Distribution
    uv_px: Distribution
    disparity_px: Distribution
    sim_cos: Distribution
    jdr_crop_side: float
    jdr_box_width: float
    pck_2d: float
    pck_3d: float
    auc_3d: float


def scores(errors: JointErrors, group: JointMask | None = None) -> Scores:
    """Figures of the counted joints of a group, such as errors.visible (all by default)."""
    chosen = errors.counted if group is None else errors.counted & group
    rooted = chosen & errors.rooted[:, None]
    area = (errors.relative_mm[..., None] < AUC_MM.to(errors.relative_mm)).double().mean(-1)
    both_views = chosen[:, None].expand(-1, 2, -1)
    uv_px = errors.uv_px
    side_px = errors.crop_side_px[:, None].expand(-1, 2)

    def rate_2d(limit_px: Float[Tensor, 'poses 2']) -> float:
        if uv_px is None:
            return torch.nan
        limit = limit_px[..., None].expand_as(uv_px)
        return _share(uv_px < limit, both_views & limit.isfinite())

    return Scores(
        expected=int(chosen.sum()),
        found=_share(errors.absolute_mm.isfinite(), chosen),
        mpjpe_ab_mm=distribution(errors.absolute_mm[chosen]),
        mpjpe_re_mm=distribution(errors.relative_mm[rooted]),
        uv_px=distribution(torch.empty(0) if uv_px is None else uv_px[both_views]),
        disparity_px=distribution(errors.disparity_px[chosen]),
        sim_cos=distribution(errors.similarity[chosen]),
        jdr_crop_side=rate_2d(CROP_SIDE_SHARE * side_px),
        jdr_box_width=rate_2d(BOX_WIDTH_SHARE * errors.box_width_px),
        pck_2d=rate_2d(TORSO_SHARE * errors.torso_px),
        pck_3d=_share(errors.relative_mm < PCK_MM, rooted),
        auc_3d=_share(area, rooted),
    )


def joint_scores(errors: JointErrors) -> list[Scores]:
    """Figures of each joint by itself."""
    joints = torch.eye(errors.counted.shape[1], dtype=torch.bool, device=errors.counted.device)
    return [scores(errors, joint.expand_as(errors.counted)) for joint in joints]


def feature_similarity(
    left: Features, right: Features, uv_left: Keypoints, uv_right: Keypoints, crop_side_px: int
) -> PerJoint:
    """SIM_cos: cosine of the angle between both views' features at their keypoints, -1..1.

    Features cover the whole crop and are read bilinearly at keypoints in crop pixels; NaN where a
    keypoint is outside its crop.
    """

    def sampled(features: Features, uv: Keypoints) -> Float[Tensor, 'poses channels joints']:
        grid = (uv.float() + 0.5) * (2 / crop_side_px) - 1  # -1 and 1: the crop's outer edges
        values = functional.grid_sample(
            features.float(), grid[:, None], padding_mode='border', align_corners=False
        )
        inside = (grid.abs() <= 1).all(-1)  # NaN compares false
        return values[:, :, 0].where(inside[:, None], torch.nan)

    cosine: Tensor = functional.cosine_similarity(
        sampled(left, uv_left), sampled(right, uv_right), dim=1
    )
    return cosine


def box_widths(uv: Keypoints) -> Float[Tensor, ' poses']:
    """Width of the box round all joints that have a label, in pixels; NaN of fewer than two."""
    u = uv[..., 0]
    known = u.isfinite()
    width = u.where(known, -torch.inf).amax(1) - u.where(known, torch.inf).amin(1)
    return width.where(known.sum(1) >= 2, torch.nan)


def torso_lengths(uv: Keypoints) -> Float[Tensor, ' poses']:
    """From the left shoulder to the right hip (Sapp and Taskar 2013), in pixels."""
    shoulder, hip = H36M_17.index('left_shoulder'), H36M_17.index('right_hip')
    length: Tensor = torch.linalg.vector_norm(uv[:, shoulder] - uv[:, hip], dim=-1)
    return length


def _share(hit: Tensor, expected: Tensor) -> float:
    """Mean hit, 0..1, of what is expected; NaN where nothing is."""
    return hit[expected].double().mean().item() if expected.any() else torch.nan
