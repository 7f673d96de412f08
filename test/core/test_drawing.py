"""Overlays and 3D pictures: where the ink goes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stereo_scene import STANDING_M, camera

from rsb_pose_core.drawing import (
    CENTRE,
    LEFT_SIDE,
    RIGHT_SIDE,
    bone_colors,
    draw_people,
    side_by_side,
    skeleton_figure,
)
from rsb_pose_core.geometry import project
from rsb_pose_core.people import PersonPose, TrackState, assemble_person
from rsb_pose_core.skeleton import H36M_17

GREY = np.full((480, 640, 3), 100, np.uint8)


def person(offset_x: float = 0.0, depth_m: float = 2.5, **changes: object) -> PersonPose:
    xyz = STANDING_M + np.array([offset_x, 0.0, depth_m])
    certain = np.ones(17, bool)
    certain[15] = False
    pose = assemble_person(
        uvd=project(torch.from_numpy(xyz), camera()).numpy(),
        xyz_m=xyz,
        covariance_m2=np.tile(np.eye(3), (17, 1, 1)),
        confidence=np.ones(17),
        certain=certain,
        image_size=(640, 480),
        has_prior=True,
    )
    assert pose is not None
    return replace(pose, **{'track_id': 3, **changes})  # type: ignore[arg-type]


def near(image: np.ndarray, uv: np.ndarray, color: tuple[int, int, int]) -> bool:
    u, v = uv.round().astype(int)
    window = image[v - 2 : v + 3, u - 2 : u + 3].reshape(-1, 3).astype(int)
    return bool((np.abs(window - color).max(axis=1) < 40).any())


def test_sides_have_their_own_colours() -> None:
    by_child = dict(zip([child for _, child in H36M_17.bones], bone_colors(), strict=True))
    assert by_child[H36M_17.index('left_knee')] == LEFT_SIDE
    assert by_child[H36M_17.index('right_wrist')] == RIGHT_SIDE
    assert by_child[H36M_17.index('neck')] == CENTRE
    assert len(bone_colors()) == 16


@pytest.mark.parametrize('view', ['left', 'right'])
def test_bones_lie_between_their_joints_in_each_view(view: str) -> None:
    pose = person()
    image = draw_people(GREY, [pose], view=view)
    uv = pose.uv_left if view == 'left' else pose.uv_right
    for (parent, child), color in zip(H36M_17.bones, bone_colors(), strict=True):
        if np.linalg.norm(uv[parent] - uv[child]) > 30:
            assert near(image, (uv[parent] + uv[child]) / 2, color), (parent, child)
    assert (GREY == 100).all()


def test_measured_joints_are_discs_and_inferred_ones_are_not() -> None:
    pose = person()
    image = draw_people(GREY, [pose])
    u, v = pose.uv_left[0].round().astype(int)
    assert (image[v, u - 2 : u + 3] > 200).all()
    dark = image.astype(int).min(axis=2) < 200
    assert dark[v - 4, u - 4]
    u, v = pose.uv_left[15].round().astype(int)  # a cross: bright corners, dark between them
    assert not dark[v - 3, u - 3]
    assert not dark[v - 3, u + 3]
    assert dark[v + 4, u]


def test_missing_joints_far_joints_and_lost_people_are_no_fault() -> None:
    pose = person()
    uv = pose.uv_left.copy()
    uv[3] = np.nan
    uv[4] = 1e9
    odd = person(uv_left=uv)
    lost = person(track_state=TrackState.LOST, uv_left=np.full((17, 2), np.nan))
    assert not np.array_equal(draw_people(GREY, [odd]), GREY)
    image = draw_people(GREY, [lost])
    assert {tuple(pixel) for pixel in image.reshape(-1, 3)} == {(100, 100, 100), (150, 150, 150)}


def test_nobody_leaves_the_image_as_it_is() -> None:
    assert np.array_equal(draw_people(GREY, []), GREY)
    assert side_by_side(GREY, GREY, []).shape == (480, 1280, 3)


def test_figure_shows_estimate_and_truth() -> None:
    pose = STANDING_M + np.array([0.0, 0.0, 2.5])
    alone = skeleton_figure([pose], size=(700, 350))
    both = skeleton_figure([pose], [pose + 0.1], title='frame 7', size=(700, 350))
    assert alone.shape == both.shape == (350, 700, 3)
    assert alone.dtype == np.uint8
    assert (alone != both).any()
    blue = np.abs(alone.astype(int) - (0, 134, 196)).max(axis=2) < 30
    assert blue.sum() > 30


def test_figure_of_nobody_and_of_missing_joints() -> None:
    assert skeleton_figure([], size=(300, 200)).shape == (200, 300, 3)
    assert skeleton_figure([np.full((17, 3), np.nan)], size=(300, 200)).shape == (200, 300, 3)
