"""Following people from frame to frame."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.detection.boxes import intersection_over_union
from rsb_pose_core.people import JointState, PersonPose, TrackState
from rsb_pose_core.tracking.one_euro import OneEuroFilter, OneEuroSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TrackerSettings:
    """How people are followed.

    A pose belongs to a track if their pelvises are within `farthest_m` or their boxes overlap by
    `least_overlap` (intersection over union): depth is uncertain far away, boxes are not. A track
    is ACTIVE after `confirming_frames` frames; an ACTIVE one that is not found is LOST for
    `lost_for_s`, then it ends; after a gap of `forget_after_s` in the stamps, or a step
    back, all tracks end. Ids run from 1 to `last_id` and then start again, leaving out those in
    use. `smoothing` filters the joints' positions; None leaves them as measured.
    """

    farthest_m: float = 0.6
    least_overlap: float = 0.4
    confirming_frames: int = 3
    lost_for_s: float = 0.7
    forget_after_s: float = 2.0
    last_id: int = 99
    velocity_time_constant_s: float = 0.25
    smoothing: OneEuroSettings | None = None


@dataclass(eq=False)
class Track:
    """One person followed: the pose last seen, and the filters' memory."""

    track_id: int
    pose: PersonPose
    seen_s: float
    frames: int = 1
    state: TrackState = TrackState.NEW
    velocity_mps: Array = field(default_factory=lambda: np.full(3, np.nan))
    smoother: OneEuroFilter | None = None


class Tracker:
    """Gives every pose the id of the person it belongs to."""

    def __init__(self, settings: TrackerSettings | None = None) -> None:
        self.settings = settings or TrackerSettings()
        self._tracks: list[Track] = []
        self._last_id = 0
        self._stamp_s: float | None = None

    @property
    def tracks(self) -> tuple[Track, ...]:
        """People followed now, lost ones among them."""
        return tuple(self._tracks)

    def reset(self) -> None:
        """Forget everybody. Ids go on."""
        self._tracks, self._stamp_s = [], None

    def advance(self, stamp_s: float) -> None:
        """Begin the frame of this stamp: end the tracks that time has overtaken."""
        if self._stamp_s is not None:
            elapsed = stamp_s - self._stamp_s
            if not 0 <= elapsed <= self.settings.forget_after_s:
                self._tracks = []
        self._tracks = [t for t in self._tracks if stamp_s - t.seen_s <= self.settings.lost_for_s]
        self._stamp_s = stamp_s

    def update(self, poses: Sequence[PersonPose], stamp_s: float) -> tuple[PersonPose, ...]:
        """Match this frame's poses with the tracks; return them with id, state and velocity.

        Tracks that found no pose follow as LOST, all joints MISSING.
        """
        self.advance(stamp_s)
        matches = self._associate(poses)
        people, seen = [], set()
        for index, pose in enumerate(poses):
            track = matches.get(index)
            if track is None:
                track = self._start(pose, stamp_s)
            else:
                self._continue(track, pose, stamp_s)
            people.append(self._seen(track))
            seen.add(id(track))
        for track in list(self._tracks):
            if id(track) not in seen:
                if track.state is TrackState.NEW:
                    self._tracks.remove(track)
                else:
                    track.state = TrackState.LOST
                    people.append(_lost(track))
        return tuple(people)

    def _associate(self, poses: Sequence[PersonPose]) -> dict[int, Track]:
        """Greedily, the surest pairs first: pose index -> track."""
        costs = []
        for index, pose in enumerate(poses):
            for track in self._tracks:
                distance = float(np.linalg.norm(pose.root_m - track.pose.root_m))
                overlap = intersection_over_union(pose.box_left, track.pose.box_left)
                if distance <= self.settings.farthest_m or overlap >= self.settings.least_overlap:
                    nearness = 1 / (1 + np.nan_to_num(distance, nan=np.inf))
                    costs.append((nearness + overlap, index, track))
        matches: dict[int, Track] = {}
        taken: set[int] = set()
        for _, index, track in sorted(costs, key=lambda cost: cost[0], reverse=True):
            if index not in matches and track.track_id not in taken:
                matches[index] = track
                taken.add(track.track_id)
        return matches

    def _start(self, pose: PersonPose, stamp_s: float) -> Track:
        track = Track(self._next_id(), pose, stamp_s)
        if self.settings.smoothing is not None:
            track.smoother = OneEuroFilter(self.settings.smoothing)
            track.smoother(pose.xyz_m, 0.0)
        self._tracks.append(track)
        return track

    def _continue(self, track: Track, pose: PersonPose, stamp_s: float) -> None:
        elapsed = stamp_s - track.seen_s
        if track.smoother is not None:
            pose = replace(pose, xyz_m=track.smoother(pose.xyz_m, elapsed))
        if elapsed > 0:
            velocity = (pose.root_m - track.pose.root_m) / elapsed
            share = 1 - np.exp(-elapsed / self.settings.velocity_time_constant_s)
            known = np.isfinite(track.velocity_mps).all()
            filtered = track.velocity_mps + share * (velocity - track.velocity_mps)
            track.velocity_mps = filtered if known else velocity
        track.pose, track.seen_s = pose, stamp_s
        track.frames += 1
        if track.frames >= self.settings.confirming_frames:
            track.state = TrackState.ACTIVE

    def _seen(self, track: Track) -> PersonPose:
        return replace(
            track.pose,
            track_id=track.track_id,
            track_state=track.state,
            velocity_mps=track.velocity_mps,
        )

    def _next_id(self) -> int:
        used = {track.track_id for track in self._tracks}
        last_id = max(self.settings.last_id, len(used) + 1)
        self._last_id = self._last_id % last_id + 1
        while self._last_id in used:
            self._last_id = self._last_id % last_id + 1
        return self._last_id


def _lost(track: Track) -> PersonPose:
    """The track's person, with nothing known but where the boxes were."""
    pose = track.pose
    return replace(
        pose,
        xyz_m=np.full_like(pose.xyz_m, np.nan),
        covariance_m2=np.full_like(pose.covariance_m2, np.nan),
        confidence=np.zeros_like(pose.confidence),
        state=np.full_like(pose.state, JointState.MISSING),
        uv_left=np.full_like(pose.uv_left, np.nan),
        uv_right=np.full_like(pose.uv_right, np.nan),
        velocity_mps=np.full(3, np.nan),
        track_id=track.track_id,
        track_state=TrackState.LOST,
    )
