"""Who is who from frame to frame, ghosts, and the one-euro filter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stereo_scene import STANDING_M, camera

from rsb_pose_core.geometry import project
from rsb_pose_core.people import (
    JointState,
    PersonPose,
    TrackState,
    assemble_person,
    without_doubles,
)
from rsb_pose_core.tracking import (
    OneEuroFilter,
    OneEuroSettings,
    PersonGate,
    Tracker,
    TrackerSettings,
)


def person(x: float = 0.0, z: float = 2.5, confidence: float = 0.9) -> PersonPose:
    xyz = STANDING_M + np.array([x, 0.0, z])
    pose = assemble_person(
        uvd=project(torch.from_numpy(xyz), camera()).numpy(),
        xyz_m=xyz,
        covariance_m2=np.tile(np.eye(3), (17, 1, 1)),
        confidence=np.full(17, confidence),
        certain=np.ones(17, bool),
        image_size=(640, 480),
        has_prior=True,
    )
    assert pose is not None
    return pose


def borrowing(pose: PersonPose, joints: int) -> PersonPose:
    """A pose as of a crop of a part of somebody: so many joints are theirs, the others made up."""
    uv, xyz = pose.uv_left.copy(), pose.xyz_m.copy()
    uv[joints:, 0] += 0.3 * pose.box_left.height
    xyz[joints:, 2] += 0.5
    return replace(pose, uv_left=uv, xyz_m=xyz, confidence=np.full(17, 0.4))


def test_who_was_found_twice_stays_once() -> None:
    surer = person()
    assert without_doubles([borrowing(surer, 5), surer]) == [surer]
    assert without_doubles([person(x=0.1, confidence=0.5), surer]) == [surer]
    assert len(without_doubles([borrowing(surer, 4), surer])) == 2
    missing = borrowing(surer, 5)
    missing.uv_left[:3] = np.nan  # who shares but two joints
    assert len(without_doubles([missing, surer])) == 2


@pytest.mark.parametrize(('x', 'z'), [(0.35, 2.5), (0.12, 3.2), (0.0, 3.6)])
def test_who_stands_beside_or_behind_is_another_person(x: float, z: float) -> None:
    assert len(without_doubles([person(), person(x, z, confidence=0.5)])) == 2


def test_ids_stay_with_people_who_pass_each_other_in_depth() -> None:
    tracker = Tracker()
    for frame in range(20):
        x = -0.8 + 0.08 * frame
        people = tracker.update([person(-x, z=3.6), person(x, z=2.2)], frame / 10)
        by_depth = {round(p.root_m[2], 1): p.track_id for p in people}
        assert by_depth == {3.6: 1, 2.2: 2}


def test_people_seen_once_are_forgotten_though_the_stamps_stand_still() -> None:
    tracker = Tracker()
    assert len(tracker.update([person(), person(x=1.5)], 0.0)) == 2
    assert tracker.update([], 0.0) == ()
    assert tracker.tracks == ()


def test_a_jump_in_depth_is_held_by_the_box() -> None:
    tracker = Tracker()
    tracker.update([person(z=3.0)], 0.0)
    jumped = person(z=3.0)
    jumped = replace(jumped, xyz_m=jumped.xyz_m * 1.4)  # along the rays: 1.2 m further away
    (found,) = tracker.update([jumped], 0.1)
    assert found.track_id == 1


def test_one_pose_goes_to_the_nearer_of_two_tracks_and_the_other_is_lost() -> None:
    tracker = Tracker()
    for frame in range(3):
        tracker.update([person(-0.3), person(0.3)], frame / 10)
    people = tracker.update([person(0.2)], 0.3)
    assert [(p.track_id, p.track_state) for p in people] == [
        (2, TrackState.ACTIVE),
        (1, TrackState.LOST),
    ]


def test_new_then_active_then_lost_then_gone() -> None:
    tracker = Tracker(TrackerSettings(confirming_frames=3, lost_for_s=0.25))
    states = []
    for frame in range(7):
        people = tracker.update([person()] if frame < 4 else [], frame / 10)
        states.append([p.track_state for p in people])
    assert states == [
        [TrackState.NEW],
        [TrackState.NEW],
        [TrackState.ACTIVE],
        [TrackState.ACTIVE],
        [TrackState.LOST],
        [TrackState.LOST],
        [],
    ]
    assert tracker.tracks == ()


def test_a_lost_person_found_again_is_the_same() -> None:
    tracker = Tracker()
    for frame in range(4):
        tracker.update([person()], frame / 10)
    tracker.update([], 0.4)
    (found,) = tracker.update([person(0.1)], 0.5)
    assert (found.track_id, found.track_state) == (1, TrackState.ACTIVE)


def test_one_frame_of_a_ghost_leaves_no_lost_track() -> None:
    tracker = Tracker()
    tracker.update([person()], 0.0)
    assert tracker.update([], 0.1) == ()
    assert tracker.tracks == ()


def test_ids_are_never_zero_bounded_and_not_given_twice() -> None:
    tracker = Tracker(TrackerSettings(last_id=3))
    ids = []
    for frame in range(8):
        (found,) = tracker.update([person()], 10.0 * frame)
        ids.append(found.track_id)
    assert ids == [1, 2, 3, 1, 2, 3, 1, 2]
    crowd = [person(x, z) for x in (-0.8, 0.8) for z in (2.0, 4.0, 6.0)]
    people = tracker.update(crowd, 500.0)
    assert len({p.track_id for p in people}) == 6
    assert 0 not in {p.track_id for p in people}


def test_velocity_is_unknown_at_first_and_then_that_of_the_pelvis() -> None:
    tracker = Tracker()
    (first,) = tracker.update([person(0.0)], 0.0)
    assert np.isnan(first.velocity_mps).all()
    for frame in range(1, 15):
        (found,) = tracker.update([person(0.02 * frame, 2.5 - 0.05 * frame)], frame / 10)
    assert found.velocity_mps == pytest.approx([0.2, 0.0, -0.5], abs=1e-6)
    (again,) = tracker.update([person(0.28, 1.8)], 1.4)  # the same stamp twice
    assert np.isfinite(again.velocity_mps).all()


def test_a_person_without_a_pelvis_is_still_followed() -> None:
    tracker = Tracker()
    tracker.update([person()], 0.0)
    headless = person()
    xyz = headless.xyz_m.copy()
    xyz[6] = np.nan
    (found,) = tracker.update([replace(headless, xyz_m=xyz)], 0.1)
    assert found.track_id == 1


def test_smoothing_quiets_noise_only_when_asked_for() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(scale=0.02, size=(60, 17, 3))

    def spread(settings: TrackerSettings) -> float:
        tracker, seen = Tracker(settings), []
        for frame, offset in enumerate(noise):
            pose = person()
            noisy = replace(pose, xyz_m=pose.xyz_m + offset)
            seen.append(tracker.update([noisy], frame / 15)[0].xyz_m)
        return float(np.std(seen[20:], axis=0).mean())

    assert spread(TrackerSettings()) == pytest.approx(np.std(noise[20:], axis=0).mean())
    smoothed = spread(TrackerSettings(smoothing=OneEuroSettings()))
    assert smoothed < 0.75 * spread(TrackerSettings())


def test_one_euro_follows_a_walk_and_starts_afresh_after_nan() -> None:
    smooth = OneEuroFilter(OneEuroSettings())
    for frame in range(40):
        given = np.full((2, 3), 0.1 * frame)
        if frame == 30:
            given[1] = np.nan
        found = smooth(given, 0.1)
        if frame == 30:
            assert np.isnan(found[1]).all()
            assert np.isfinite(found[0]).all()
        if frame == 31:
            assert found[1] == pytest.approx(given[1])
    assert np.abs(found - given).max() < 0.08  # lags by less than a frame at 1.7 m/s


def test_the_gate_lets_people_in_and_ghosts_not() -> None:
    gate = PersonGate(new_confidence=0.3, kept_confidence=0.2)
    assert gate.accepts(person(), followed=False)
    unsure = person(confidence=0.25)
    assert not gate.accepts(unsure, followed=False)
    assert gate.accepts(unsure, followed=True)
    assert not gate.accepts(person(confidence=0.1), followed=True)
    assert not gate.accepts(person(confidence=np.nan), followed=True)


def test_the_gate_refuses_what_is_no_body() -> None:
    gate, good = PersonGate(), person()

    def accepts(xyz_m: np.ndarray, state: np.ndarray = good.state) -> bool:
        return gate.accepts(replace(good, xyz_m=xyz_m, state=state), followed=True)

    root = good.xyz_m[6]
    assert accepts(good.xyz_m)
    assert not accepts(root + 4.0 * (good.xyz_m - root))  # a giant
    assert not accepts(root + 0.05 * (good.xyz_m - root))  # a point
    assert not accepts(good.xyz_m + np.array([0, 0, 30.0]))
    assert not accepts(good.xyz_m - np.array([0, 0, 2.4]))
    assert not accepts(np.full((17, 3), np.nan))
    one_wild_wrist = good.xyz_m.copy()
    one_wild_wrist[10, 2] += 3.0
    assert accepts(one_wild_wrist)
    unseen = np.full(17, JointState.INFERRED, np.uint8)
    assert not accepts(good.xyz_m, unseen)
