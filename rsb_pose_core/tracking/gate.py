"""Telling people from ghosts: a network asked about an empty place answers all the same."""

from dataclasses import dataclass

import numpy as np

from rsb_pose_core.people import JointState, PersonPose
from rsb_pose_core.skeleton import H36M_17

SHORTEST_SPAN_M = 0.3


@dataclass(frozen=True)
class PersonGate:
    """What a pose must hold to be a person's.

    new_confidence, kept_confidence: mean confidence of the joints, 0..1, asked of somebody new and
    of somebody followed; seen_joints: joints that an image must show for certain; the longest
    bone and reach (any joint from the pelvis) in metres, which a quarter of the joints may exceed,
    for noise; the range of the pelvis' depth in metres.
    """

    new_confidence: float = 0.4
    kept_confidence: float = 0.25
    seen_joints: int = 5
    longest_bone_m: float = 0.9
    longest_reach_m: float = 1.6
    tolerated_share: float = 0.25
    nearest_m: float = 0.3
    farthest_m: float = 15.0

    def accepts(self, pose: PersonPose, *, followed: bool) -> bool:
        """Whether this is a person; `followed` if a track was there already."""
        least = self.kept_confidence if followed else self.new_confidence
        if not pose.overall_confidence >= least:
            return False
        if np.count_nonzero(pose.state >= JointState.ONE_VIEW) < self.seen_joints:
            return False
        if not self.nearest_m <= pose.root_m[2] <= self.farthest_m:
            return False
        return self._is_plausible(pose)

    def _is_plausible(self, pose: PersonPose) -> bool:
        parents, children = np.array(H36M_17.bones).T
        bones = np.linalg.norm(pose.xyz_m[children] - pose.xyz_m[parents], axis=1)
        reach = np.linalg.norm(pose.xyz_m - pose.root_m, axis=1)
        bones, reach = bones[np.isfinite(bones)], reach[np.isfinite(reach)]
        if len(bones) == 0 or reach.max() < SHORTEST_SPAN_M:
            return False
        return bool(
            (bones > self.longest_bone_m).mean() <= self.tolerated_share
            and (reach > self.longest_reach_m).mean() <= self.tolerated_share
        )
