"""The sample recording: real enough, and its person lands inside the network's disparity range."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage

from rsb_pose_core.cropping import StereoCrop
from rsb_pose_core.detection import Box
from rsb_pose_core.disparity import coarse_disparity, disparity_limits
from rsb_pose_core.geometry import project, triangulate
from rsb_pose_core.models.rsb_pose import STRIDE
from rsb_pose_core.pipeline import load_pipeline
from rsb_pose_core.rectification import StereoRectifier
from rsb_pose_ros.bags import open_bag
from rsb_pose_ros.camera_info import camera_model
from rsb_pose_ros.loading import default_weights
from rsb_pose_ros.msg import HumanPose3D, Joint3D

BAG = Path(__file__).resolve().parents[2] / 'samples' / 'walk_and_reach'
LEFT, RIGHT = (f'/stereo/{side}/image_raw/compressed' for side in ('left', 'right'))
DISPARITIES = (-7, 8)  # heat-map pixels, of both shipped models


@pytest.fixture(scope='module')
def sample():
    """Rectifier, and every tenth frame: stamps, raw images, truth."""
    infos, images, truths = {}, {LEFT: {}, RIGHT: {}}, {}
    with open_bag(BAG) as bag:
        for record in bag.records():
            if record.topic in images:
                images[record.topic][record.time_ns] = record.data
            elif record.topic.endswith('camera_info'):
                infos.setdefault(record.topic, deserialize_message(record.data, CameraInfo))
            else:
                truths[record.time_ns] = deserialize_message(record.data, HumanPose3D)
    rectifier = StereoRectifier(
        *(
            camera_model(infos[f'/stereo/{side}/camera_info'], side, input_rectified=False)
            for side in ('left', 'right')
        )
    )

    def decode(data: bytes) -> np.ndarray:
        message = deserialize_message(data, CompressedImage)
        return cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)

    stamps = sorted(truths)
    frames = [
        (decode(images[LEFT][stamp]), decode(images[RIGHT][stamp]), truths[stamp])
        for stamp in stamps[::10]
    ]
    return rectifier, stamps, frames


def joints(truth: HumanPose3D) -> np.ndarray:
    return np.array([(j.position.x, j.position.y, j.position.z) for j in truth.joints])


def test_it_is_a_recording_of_a_short_baseline_head_at_15_hz(sample):
    rectifier, stamps, frames = sample
    assert 0.065 <= float(rectifier.calibration.baseline_m) <= 0.25
    assert (rectifier.width, rectifier.height) == (640, 480)
    assert (stamps[-1] - stamps[0]) * 1e-9 >= 10
    np.testing.assert_allclose(np.diff(stamps), 1e9 / 15, atol=1e3)
    depth = np.array([joints(truth)[6, 2] for *_, truth in frames])
    assert depth.min() < 2.2
    assert depth.max() > 3.3
    assert depth.min() > 1.4
    assert sum(file.stat().st_size for file in BAG.iterdir()) <= 15e6


def test_true_poses_and_pixels_obey_the_recorded_calibration(sample):
    rectifier, _, frames = sample
    for *_, truth in frames:
        xyz_m = torch.tensor(joints(truth))
        uvd = project(xyz_m, rectifier.calibration)
        left = np.array([joint.uv_left for joint in truth.joints])
        right = np.array([joint.uv_right for joint in truth.joints])
        np.testing.assert_allclose(left, uvd[:, :2], atol=1e-3)
        np.testing.assert_allclose(left[:, 0] - right[:, 0], uvd[:, 2], atol=1e-3)
        np.testing.assert_allclose(triangulate(uvd, rectifier.calibration), xyz_m, atol=1e-6)


def test_coarse_disparity_brings_the_joints_into_the_range_of_the_volume(sample):
    """Of the joints that the images show, at least 99 % lie within the planes of the volume."""
    rectifier, _, frames = sample
    inside, offsets = [], []
    for left, right, truth in frames:
        views = [cv2.cvtColor(v, cv2.COLOR_BGR2GRAY) for v in rectifier.rectify(left, right)]
        shown = np.array([joint.state != Joint3D.MISSING for joint in truth.joints])
        uvd = project(torch.tensor(joints(truth)), rectifier.calibration)
        low, high = uvd[shown, :2].amin(0), uvd[shown, :2].amax(0)
        box = Box(*low.tolist(), *(high - low).tolist())
        found = coarse_disparity(views[0], views[1], box, disparity_limits(rectifier.calibration))
        assert found is not None
        crop = StereoCrop.around(box, found.disparity_px)
        planes = crop.from_image(uvd)[shown, 2] / STRIDE
        inside.append((planes >= DISPARITIES[0]) & (planes <= DISPARITIES[1]))
        offsets.append(float(planes.median()))
    share = float(torch.cat(inside).double().mean())
    print(f'{100 * share:.2f} % of the joints lie within planes {DISPARITIES}')
    assert share >= 0.99
    assert max(map(abs, offsets)) < 1.5


def test_shipped_weights_find_the_person_and_err_by_less_than_150_mm(sample):
    """The pipeline as shipped, without ROS: detector, tracker, network and refiner."""
    rectifier, stamps, frames = sample
    pipeline = load_pipeline(default_weights())
    errors, found = [], 0
    for stamp, (left, right, truth) in zip(stamps[::10], frames, strict=True):
        views = [np.ascontiguousarray(view[..., ::-1]) for view in rectifier.rectify(left, right)]
        result = pipeline.process(*views, rectifier.calibration, stamp * 1e-9)
        people = [p for p in result.people if np.isfinite(p.xyz_m).any()]
        assert len(people) <= 1, 'there is one person in the sample'
        for person in people:
            errors.append(np.linalg.norm(person.xyz_m - joints(truth), axis=1) * 1000)
            found += 1
    assert found >= 0.7 * len(frames)
    assert np.nanmedian(np.concatenate(errors)) < 150
