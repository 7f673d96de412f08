"""What the pipeline finds: people, joint by joint, with how each joint was found."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.detection.boxes import Box, intersection_over_union
from rsb_pose_core.skeleton import H36M_17

# Two poses this close with overlapping boxes are one person found twice,
SAME_PERSON_M, SAME_PERSON_OVERLAP = 0.35, 0.35
# and so are two with so many joints at the same places of the left image: of the surer's box.
SAME_JOINTS, SAME_JOINT_SHARE = 5, 0.06

Array = NDArray[np.float64]


class JointState(IntEnum):
    """How a joint's position was found; the values of Joint3D.msg."""

    MISSING = 0
    INFERRED = 1
    ONE_VIEW = 2
    MEASURED = 3


class TrackState(IntEnum):
    """Whether a person is followed; the values of HumanPose3D.msg."""

    NEW = 0
    ACTIVE = 1
    LOST = 2


@dataclass(frozen=True, eq=False)
class PersonPose:
    """One person in one frame. J joints in the order of skeleton.H36M_17.

    xyz_m (J,3): rectified left optical frame, NaN where state is MISSING; covariance_m2 (J,3,3):
    of the measurement, NaN likewise; confidence (J,): 0..1; state (J,): JointState as uint8;
    uv_left, uv_right (J,2) and the boxes: full rectified pixels; velocity_mps (3,): of the
    pelvis, NaN until known. track_id is 0 only before tracking.
    """

    xyz_m: Array
    covariance_m2: Array
    confidence: Array
    state: NDArray[np.uint8]
    uv_left: Array
    uv_right: Array
    box_left: Box
    box_right: Box
    velocity_mps: Array
    track_id: int = 0
    track_state: TrackState = TrackState.NEW

    @property
    def overall_confidence(self) -> float:
        """Mean over the joints, 0..1."""
        return float(self.confidence.mean())

    @property
    def root_m(self) -> Array:
        """Pelvis (3,), or the mean of the joints found where it is missing; NaN without any."""
        root: Array = self.xyz_m[H36M_17.root]
        if np.isfinite(root).all():
            return root
        found = self.xyz_m[np.isfinite(self.xyz_m).all(axis=1)]
        return np.asarray(found.mean(axis=0)) if len(found) else np.full(3, np.nan)


@dataclass(frozen=True)
class FrameResult:
    """The people of one stereo pair, and what each step took, in order."""

    people: tuple[PersonPose, ...]
    stage_latency_ms: dict[str, float]


def joint_states(
    uv_left: Array,
    uv_right: Array,
    certain: NDArray[np.bool_],
    image_size: tuple[int, int],
    *,
    has_prior: bool,
) -> NDArray[np.uint8]:
    """JointState of joints (J,) from their pixels (J,2) in both images of size (width, height).

    A certain joint is MEASURED where both images show it and ONE_VIEW where one does. All others
    are INFERRED if a pose prior placed them, and MISSING if not.
    """
    limit = np.array(image_size) - 0.5
    seen_left, seen_right = (
        ((uv >= -0.5) & (uv < limit)).all(axis=1) & certain for uv in (uv_left, uv_right)
    )
    state = np.full(len(certain), JointState.INFERRED if has_prior else JointState.MISSING)
    state[seen_left ^ seen_right] = JointState.ONE_VIEW
    state[seen_left & seen_right] = JointState.MEASURED
    return state.astype(np.uint8)


def assemble_person(
    *,
    uvd: Array,
    xyz_m: Array,
    covariance_m2: Array,
    confidence: Array,
    certain: NDArray[np.bool_],
    image_size: tuple[int, int],
    has_prior: bool,
) -> PersonPose | None:
    """A person not yet tracked: states, boxes, and NaN where a joint is missing.

    uvd (J,3): full rectified pixels; the rest as in PersonPose and joint_states. None if no
    joint was found at all.
    """
    uv_left = uvd[:, :2].copy()
    uv_right = uv_left - uvd[:, 2:] * [1.0, 0.0]
    state = joint_states(uv_left, uv_right, certain, image_size, has_prior=has_prior)
    state[~np.isfinite(xyz_m).all(axis=1)] = JointState.MISSING
    missing = state == JointState.MISSING
    uv_left[missing] = uv_right[missing] = np.nan
    box_left, box_right = Box.around(uv_left), Box.around(uv_right)
    if box_left is None or box_right is None:
        return None
    return PersonPose(
        xyz_m=np.where(missing[:, None], np.nan, xyz_m),
        covariance_m2=np.where(missing[:, None, None], np.nan, covariance_m2),
        confidence=np.where(missing, 0.0, confidence),
        state=state,
        uv_left=uv_left,
        uv_right=uv_right,
        box_left=box_left,
        box_right=box_right,
        velocity_mps=np.full(3, np.nan),
    )


def without_doubles(poses: Sequence[PersonPose]) -> list[PersonPose]:
    """The surer one of any two poses of one person, surest first."""
    kept: list[PersonPose] = []
    for pose in sorted(poses, key=lambda candidate: candidate.overall_confidence, reverse=True):
        if not any(_same_person(pose, surer) for surer in kept):
            kept.append(pose)
    return kept


def _same_person(pose: PersonPose, surer: PersonPose) -> bool:
    """Whether both are where one person is, or the pose borrows the surer one's joints: a crop
    of a part of somebody has the joints that it shows right and makes up the others."""
    overlap = intersection_over_union(pose.box_left, surer.box_left)
    if overlap > SAME_PERSON_OVERLAP and (
        np.linalg.norm(pose.root_m - surer.root_m) < SAME_PERSON_M
    ):
        return True
    side_px = max(surer.box_left.width, surer.box_left.height)
    apart_px = np.linalg.norm(pose.uv_left - surer.uv_left, axis=1)  # NaN where one is missing
    shared = apart_px < SAME_JOINT_SHARE * side_px
    return bool(shared.sum() >= SAME_JOINTS)
