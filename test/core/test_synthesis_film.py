"""The film: raw images of a real head, whose truth survives rectification."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.rectification import StereoRectifier
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.clips import Clip
from rsb_pose_core.synthesis.film import StereoFilm, Take, act, mhad_like_head
from rsb_pose_core.synthesis.lighting import LightBank
from rsb_pose_core.synthesis.people import Casting
from rsb_pose_core.synthesis.retarget import posed_joints
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.wardrobe import Wardrobe


@pytest.fixture(scope='module')
def body() -> Body:
    return Body()


@pytest.fixture(scope='module')
def walk(body) -> Clip:
    """Slides along +x at 1 m/s, facing +z."""
    _, heads = body.rest(torch.zeros(1, body.shapes.shape[1]))
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    standing = posed_joints(body, heads, still, torch.eye(3)[None])[0].double().numpy()
    step = np.arange(31)[:, None, None] / 30 * np.array([1.0, 0.0, 0.0])
    return Clip('slide', standing + step, 30.0)


@pytest.fixture(scope='module')
def film(body, walk) -> Callable[[int], StereoFilm]:
    wardrobe = Wardrobe(body)
    bank = TextureBank(1, named=wardrobe.pictures(), cloths=4, surfaces=4)
    casting, lights = Casting(body, wardrobe, bank), LightBank(made_up=2)
    poses, places = act([Take(walk, 0.0, 0.2, (0.0, 2.5), np.pi)], 10.0)

    def make(seed: int) -> StereoFilm:
        head = mhad_like_head(320, 240)
        return StereoFilm(casting, bank, lights, head, poses, places, 10.0, seed)

    return make


@pytest.fixture(scope='module')
def film_and_frame(film):
    made = film(3)
    return made, next(made.frames())


def test_raw_images_are_distorted_and_unequal(film_and_frame):
    film, frame = film_and_frame
    assert frame.left.shape == frame.right.shape == (240, 320, 3)
    assert film.head.left.d[0] < -0.2
    left, right = film.rectifier.rectify(frame.left, frame.right)
    assert np.abs(left.astype(int) - frame.left).mean() > 1
    assert left.mean() > 1.04 * right.mean()  # the right camera exposes less


def test_truth_agrees_with_the_lens_and_the_rectification(film_and_frame):
    """World -> each raw camera -> OpenCV's rectification of pixels: an independent way."""
    film, frame = film_and_frame
    joints = film.person(0).joints_m
    rectified = []
    for side, model in enumerate((film.head.left, film.head.right)):
        seen = film.view.camera(joints, torch.tensor([side]))[0].double().numpy()
        raw, _ = cv2.projectPoints(seen, np.zeros(3), np.zeros(3), model.k, model.d)
        criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-10)
        rectified.append(
            cv2.undistortPointsIter(raw, model.k, model.d, model.r, model.p, criteria)[:, 0]
        )
    left, right = rectified
    in_view = (np.abs(left - [160, 120]) < [150, 110]).all(1)
    assert in_view.sum() >= 10
    np.testing.assert_allclose(left[in_view], frame.uvd[in_view, :2], atol=0.01)
    np.testing.assert_allclose(left[in_view, 1], right[in_view, 1], atol=0.01)
    c = film.rectifier.calibration
    expected = float(c.fx * c.baseline_m) / frame.xyz_m[:, 2] + float(c.cx_left - c.cx_right)
    np.testing.assert_allclose((left - right)[in_view, 0], expected[in_view], atol=0.01)


def test_rectified_images_match_along_rows(film_and_frame):
    """The person's own texture is found at the true disparity, on the same row."""
    film, frame = film_and_frame
    left, right = film.rectifier.rectify(frame.left, frame.right)
    left, right = (cv2.cvtColor(view, cv2.COLOR_RGB2GRAY) for view in (left, right))
    u, v, disparity = frame.uvd[H36M_17.index('spine')]
    u, v = round(u), round(v)
    patch = left[v - 23 : v + 24, u - 15 : u + 16]
    search = right[v - 27 : v + 28, : u + 16]
    score = cv2.matchTemplate(search, patch, cv2.TM_CCOEFF_NORMED)
    _, _, _, (column, row) = cv2.minMaxLoc(score)
    assert abs(row - 4) <= 1
    assert abs((u - 15 - column) - disparity) < 2.5  # the surface lies some cm before the joint


def test_the_seed_decides_the_film(film, film_and_frame):
    assert np.array_equal(next(film(3).frames()).left, film_and_frame[1].left)
    assert not np.array_equal(next(film(4).frames()).left, film_and_frame[1].left)


def test_a_walk_goes_where_its_heading_says(walk):
    poses, places = act([Take(walk, 0.0, 1.0, (0.5, 3.0), np.pi)], 10.0)
    assert poses.shape == (10, 17, 3)
    np.testing.assert_allclose(places[0], [0.5, 3.0], atol=1e-9)
    np.testing.assert_allclose(places[-1], [0.5, 3.0 - 0.9], atol=1e-6)  # heading pi: towards -z


def test_too_few_frames_for_a_take_are_one_sentence(walk):
    with pytest.raises(RsbPoseError, match=r'0\.5 pairs a second are too few.*at least 2\.5'):
        act([Take(walk, 0.0, 1.0, (0.0, 3.0), np.pi)], 0.5)


def test_takes_are_joined_without_a_jump(walk):
    takes = [Take(walk, 0.0, 1.0, (0.0, 3.0), np.pi), Take(walk, 0.0, 1.0, (1.0, 3.0), 0.0)]
    _, places = act(takes, 30.0)
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 0.25


def test_the_heads_calibration_is_accepted_and_has_its_baseline():
    head = mhad_like_head(baseline_m=0.12)
    calibration = StereoRectifier(head.left, head.right).calibration
    assert float(calibration.baseline_m) == pytest.approx(0.12, abs=1e-9)
    assert 500 < float(calibration.fx) < 540
