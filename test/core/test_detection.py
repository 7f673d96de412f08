"""Boxes, suppression of double ones, and OpenCV's detector."""

import cv2
import numpy as np
import pytest
from stereo_scene import render

from rsb_pose_core.detection import (
    DETECTORS,
    Box,
    HogDetector,
    PersonDetector,
    intersection_over_union,
    non_maximum_suppression,
)
from rsb_pose_core.detection.boxes import containment
from rsb_pose_core.errors import RsbPoseError

needs_hog = pytest.mark.skipif(
    not hasattr(cv2, 'HOGDescriptor'), reason='OpenCV 5 has no HOGDescriptor'
)


def test_overlap_of_boxes() -> None:
    a, b = Box(0, 0, 10, 20), Box(5, 0, 10, 20)
    assert intersection_over_union(a, b) == pytest.approx(1 / 3)
    assert intersection_over_union(a, Box(10, 0, 5, 5)) == 0.0
    assert intersection_over_union(a, Box(0, 0, 0, 0)) == 0.0
    assert containment(a, Box(2, 2, 4, 4)) == 1.0


def test_suppression_keeps_the_best_of_each_person() -> None:
    person = Box(100, 50, 80, 200, score=0.8)
    double = Box(108, 55, 82, 190, score=0.9)
    torso = Box(110, 80, 50, 90, score=0.5)
    other = Box(300, 60, 70, 190, score=0.4)
    assert non_maximum_suppression([person, torso, other, double]) == [double, other]


def test_box_around_points_leaves_out_missing_ones() -> None:
    points = np.array([[10.0, 20.0], [30.0, 80.0], [np.nan, 5.0]])
    assert Box.around(points) == Box(10.0, 20.0, 21.0, 61.0)
    grown = Box.around(points, margin=0.1)
    assert grown == Box(4.0, 14.0, 33.0, 73.0)
    assert grown.center == Box(10.0, 20.0, 21.0, 61.0).center
    assert Box.around(np.full((3, 2), np.nan)) is None


def test_clipping_at_the_image() -> None:
    assert Box(-10, 5, 30, 100).clipped(640, 50) == Box(0, 5, 20, 45)
    assert Box(700, 5, 30, 100).clipped(640, 50).area == 0.0


@needs_hog
@pytest.mark.parametrize('width', [640, 1280])
def test_hog_finds_a_person_and_draws_the_box_close(width: int) -> None:
    scene = render(np.random.default_rng(1), depth_m=2.6, cloth_contrast=2.0, wall_contrast=4.0)
    truth = Box.around(scene.uvd[:, :2], margin=0.05)
    assert truth is not None
    image = scene.left
    if width == 1280:  # the same view by a 1280x720 camera, 1.5 times as large, wider
        image = cv2.copyMakeBorder(
            cv2.resize(image, (960, 720)), 0, 0, 160, 160, cv2.BORDER_REFLECT
        )
        truth = Box(truth.x * 1.5 + 160, truth.y * 1.5, truth.width * 1.5, truth.height * 1.5)
    detector: PersonDetector = HogDetector()
    boxes = detector.detect(image)
    assert max(intersection_over_union(box, truth) for box in boxes) > 0.6


@needs_hog
@pytest.mark.parametrize('shape', [(480, 640), (1, 1), (7, 900), (900, 7), (100, 50)])
@pytest.mark.parametrize('level', [0, 127, 255])
def test_uniform_images_hold_nobody(shape: tuple[int, int], level: int) -> None:
    assert HogDetector().detect(np.full((*shape, 3), level, np.uint8)) == []


@needs_hog
def test_detectors_are_found_by_name() -> None:
    assert isinstance(DETECTORS['hog'](), HogDetector)


def test_opencv_without_hog_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, 'HOGDescriptor', raising=False)
    with pytest.raises(RsbPoseError, match='no HOGDescriptor, expected OpenCV 4'):
        HogDetector()
