"""Conversions between messages and arrays, markers and frames; no DDS."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from stereo_world import (
    CX,
    FX,
    HEIGHT,
    JOINTS,
    WIDTH,
    OraclePipeline,
    camera_info,
    compressed_image,
    image,
    joints_around,
    pair_images,
    stamped,
)
from visualization_msgs.msg import Marker

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_ros.bag_evaluator import load_frames, save_frames
from rsb_pose_ros.camera_info import RectifierSource, camera_model
from rsb_pose_ros.faults import InputError, MissingCameraInfoError
from rsb_pose_ros.frames import joint_transforms
from rsb_pose_ros.images import image_to_rgb
from rsb_pose_ros.markers import MarkerWriter
from rsb_pose_ros.msg import HumanPose3D, HumanPose3DArray, Joint3D
from rsb_pose_ros.people import (
    person_from_message,
    person_to_message,
    quaternion_from_matrix,
    root_orientation,
)
from rsb_pose_ros.report import accuracy, not_finite, plain, pose_table

STAMP = 1_700_000_000_000_000_000
CALIBRATION = StereoCalibration.from_values(FX, FX, CX, CX, 119.5, 0.1)


def oracle_person(missing: tuple[int, ...] = ()):
    result = OraclePipeline().process(*pair_images(0), CALIBRATION, 0.0)
    (person,) = result.people
    state = person.state.copy()
    state[list(missing)] = Joint3D.MISSING
    return dataclasses.replace(person, state=state)


def frame_of(*people, stamp_ns: int = STAMP) -> HumanPose3DArray:
    header = stamped(stamp_ns)
    messages = [person_to_message(person, header, (WIDTH, HEIGHT)) for person in people]
    return HumanPose3DArray(header=header, people=messages)


def test_person_comes_back_from_the_wire_as_it_was():
    person = oracle_person()
    message = frame_of(person).people[0]
    back = person_from_message(deserialize_message(serialize_message(message), HumanPose3D))
    np.testing.assert_array_equal(back.xyz_m, person.xyz_m)
    np.testing.assert_array_equal(back.covariance_m2, person.covariance_m2)
    np.testing.assert_allclose(back.uv_left, person.uv_left, rtol=1e-6)
    np.testing.assert_allclose(back.uv_right, person.uv_right, rtol=1e-6)
    np.testing.assert_array_equal(back.state, person.state)
    assert (back.track_id, back.track_state) == (person.track_id, person.track_state)
    assert back.box_left.x == pytest.approx(person.box_left.x, abs=0.5)
    assert back.box_left.width == pytest.approx(person.box_left.width, abs=1)
    assert np.isnan(back.velocity_mps).all()
    assert message.confidence == pytest.approx(0.9)


def test_missing_joint_is_nan_with_its_state():
    message = frame_of(oracle_person(missing=(3, 6))).people[0]
    for index in (3, 6):
        joint = message.joints[index]
        assert joint.state == Joint3D.MISSING
        assert math.isnan(joint.position.x)
        assert np.isnan(joint.covariance).all()
        assert np.isnan(joint.uv_left).all()
        assert joint.confidence == 0.0
    assert math.isnan(message.root.pose.position.z)
    assert math.isnan(message.root.pose.orientation.w)
    assert math.isfinite(message.joints[0].position.x)


def test_box_is_clipped_to_the_image():
    person = dataclasses.replace(oracle_person(), box_left=oracle_person().box_left.shifted(190))
    box = frame_of(person).people[0].box_left
    assert box.x_offset + box.width == WIDTH
    assert 0 < box.width < 40


def test_root_orientation_of_a_person_who_faces_the_camera():
    """x to the person's left is the image's right, y up is -y, so z points to the camera."""
    xyz = np.full((JOINTS, 3), np.nan)
    xyz[H36M_17.index('left_hip')] = (0.15, 0.0, 3.0)
    xyz[H36M_17.index('right_hip')] = (-0.15, 0.0, 3.0)
    xyz[H36M_17.index('pelvis')] = (0.0, 0.0, 3.0)
    xyz[H36M_17.index('neck')] = (0.0, -0.5, 3.0)
    # The rotation by 180 degrees about x.
    np.testing.assert_allclose(np.abs(root_orientation(xyz)), (1.0, 0.0, 0.0, 0.0), atol=1e-12)
    xyz[H36M_17.index('neck')] = (0.5, 0.0, 3.0)
    assert all(math.isnan(value) for value in root_orientation(xyz))


def test_quaternion_rotates_as_its_matrix():
    random = np.random.default_rng(3)
    for _ in range(20):
        axis = random.normal(size=3)
        axis /= np.linalg.norm(axis)
        angle = random.uniform(-np.pi, np.pi)
        cross = np.cross(np.eye(3), axis)
        matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        expected = np.append(np.sin(angle / 2) * axis, np.cos(angle / 2))
        found = np.array(quaternion_from_matrix(matrix))
        assert abs(found @ expected) == pytest.approx(1.0)


def test_image_with_padded_rows_keeps_its_pixels():
    left = pair_images(0)[0]
    message = image(0, 'left', STAMP)
    padded = np.zeros((HEIGHT, WIDTH * 3 + 16), np.uint8)
    padded[:, : WIDTH * 3] = left.reshape(HEIGHT, -1)
    message.step = padded.shape[1]
    message.data = padded.tobytes()
    np.testing.assert_array_equal(image_to_rgb(message, 'left'), left)


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba8', 'mono8', 'bayer_rggb8'])
def test_encodings_become_rgb_of_the_same_size(encoding):
    channels = {'bgr8': 3, 'rgba8': 4}.get(encoding, 1)
    message = image(0, 'left', STAMP)
    pixels = np.zeros((HEIGHT, WIDTH, channels), np.uint8)
    pixels[..., 0] = 200
    message.encoding, message.step = encoding, WIDTH * channels
    message.data = pixels.tobytes()
    rgb = image_to_rgb(message, 'left')
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    expected = {'bgr8': (0, 0, 200), 'rgba8': (200, 0, 0)}.get(encoding, (200, 200, 200))
    assert tuple(rgb[100, 100]) == expected


def test_compressed_image_is_rgb_and_a_cut_one_is_told():
    message = compressed_image(0, 'left', STAMP)
    np.testing.assert_array_equal(image_to_rgb(message, 'left'), pair_images(0)[0])
    message.data = message.data[:20]
    with pytest.raises(InputError, match='left compressed image of format .* cannot be decoded'):
        image_to_rgb(message, 'left')


@pytest.mark.parametrize(
    ('extension', 'format_name', 'kind', 'channels', 'tolerance'),
    [
        ('.jpg', 'mono8; jpeg compressed ', np.uint8, 1, 2),
        ('.png', 'mono8; png compressed ', np.uint8, 1, 0),
        ('.png', '16UC1; png compressed ', np.uint16, 1, 0),
        ('.png', 'bgra8; png compressed bgra8', np.uint8, 4, 0),
        ('.jpg', 'bgr8; jpeg compressed bgr8', np.uint8, 3, 2),
    ],
)
def test_every_compressed_picture_becomes_rgb(extension, format_name, kind, channels, tolerance):
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (40, 1))
    views = {1: ramp, 3: np.stack([ramp // 4, ramp // 2, ramp], 2)}
    views[4] = np.dstack([views[3], np.full_like(ramp, 255)])
    stored = views[channels].astype(kind) * (257 if kind is np.uint16 else 1)
    message = compressed_image(0, 'left', STAMP)
    message.format, message.data = format_name, cv2.imencode(extension, stored)[1].tobytes()
    rgb = image_to_rgb(message, 'left').astype(int)
    expected = views[1][..., None].repeat(3, 2) if channels == 1 else views[3][..., ::-1]
    assert np.abs(rgb - expected).max() <= tolerance


def test_binning_and_region_of_interest_are_honoured():
    info = camera_info('right')
    info.binning_x = info.binning_y = 2
    info.roi.x_offset, info.roi.y_offset = 20, 40
    info.roi.width, info.roi.height = 200, 100
    model = camera_model(info, 'right', input_rectified=False)
    assert (model.width, model.height) == (100, 50)
    assert model.k[0, 0] == FX / 2
    assert model.k[0, 2] == (CX - 20) / 2
    assert model.p[1, 2] == (119.5 - 40) / 2
    assert model.p[0, 3] == -FX * 0.1 / 2


def test_rectifier_is_kept_until_the_content_of_camera_info_changes():
    source = RectifierSource(input_rectified=False)
    with pytest.raises(MissingCameraInfoError):
        source.get()
    source.set_left(camera_info('left', STAMP))
    assert source.missing == ('right',)
    source.set_right(camera_info('right', STAMP))
    first = source.get()
    source.set_left(camera_info('left', STAMP + 1))
    assert source.get() is first
    changed = camera_info('right', STAMP)
    changed.p[3] = -FX * 0.2
    source.set_right(changed)
    assert source.get() is not first
    assert float(source.get().calibration.baseline_m) == pytest.approx(0.2)


def test_markers_have_a_lifetime_and_are_deleted_with_the_person():
    writer = MarkerWriter()
    first = writer.write(frame_of(oracle_person()), 0.25, 2.0).markers
    assert {marker.ns for marker in first} == {'bones', 'joints', 'track_ids', 'covariance'}
    assert {marker.lifetime.nanosec for marker in first} == {250_000_000}
    bones = next(marker for marker in first if marker.ns == 'bones')
    assert len(bones.points) == 2 * len(H36M_17.bones)
    ellipsoid = next(marker for marker in first if marker.ns == 'covariance')
    sizes = sorted((ellipsoid.scale.x, ellipsoid.scale.y, ellipsoid.scale.z))
    np.testing.assert_allclose(sizes, (0.04, 0.04, 0.08))
    assert abs(ellipsoid.pose.orientation.w) <= 1
    gone = writer.write(frame_of(), 0.25, 2.0).markers
    assert {(m.ns, m.id) for m in gone} == {(m.ns, m.id) for m in first}
    assert {marker.action for marker in gone} == {Marker.DELETE}
    assert writer.write(frame_of(), 0.25, 2.0).markers == []


def test_only_measured_joints_have_frames_and_the_pelvis_has_the_orientation():
    person = oracle_person(missing=(0,))
    person.state[1] = Joint3D.INFERRED
    frame = frame_of(person)
    transforms = {entry.child_frame_id: entry for entry in joint_transforms(frame)}
    prefixed = [entry.child_frame_id for entry in joint_transforms(frame, prefix='rear_')]
    assert prefixed == [f'rear_{name}' for name in transforms]
    assert len(transforms) == JOINTS - 2
    assert 'right_ankle_1' not in transforms
    assert transforms['pelvis_1'].header == frame.header
    pelvis, root = transforms['pelvis_1'].transform, frame.people[0].root.pose
    assert pelvis.rotation == root.orientation
    assert transforms['nose_1'].transform.rotation.w == 1.0
    assert transforms['nose_1'].transform.translation.z == pytest.approx(2.5)


def shifted_truth(offset_m: float) -> HumanPose3D:
    person = oracle_person()
    xyz_m = person.xyz_m + [0.0, 0.0, offset_m]
    return frame_of(dataclasses.replace(person, xyz_m=xyz_m)).people[0]


def test_report_of_known_errors_and_of_nobody_found():
    frames = [frame_of(oracle_person()), frame_of(stamp_ns=STAMP + 1)]
    truth = shifted_truth(0.05)
    table = pose_table(frames, {STAMP: [truth], STAMP + 1: [truth], STAMP + 2: [truth]})
    measured = accuracy(table)
    assert measured['people_compared'] == 2
    assert measured['share_found'] == 0.5
    assert measured['MPJPE_ab_mm']['all']['median_mm'] == pytest.approx(50.0, abs=1e-3)
    assert measured['MPJPE_ab_mm']['all']['count'] == JOINTS
    assert measured['MPJPE_re_mm']['visible']['mean_mm'] == pytest.approx(0.0, abs=1e-6)
    assert measured['JDR']['crop_side'] == 0.5
    assert not_finite(measured) == []


def test_two_people_are_matched_with_the_nearest_truth():
    near = oracle_person()
    _, far_m = joints_around(np.array([220.0, 120.0]), 8.0)
    far = dataclasses.replace(near, xyz_m=far_m, track_id=2)
    truths = frame_of(far, near).people
    measured = accuracy(pose_table([frame_of(near, far)], {STAMP: truths}))
    assert measured['MPJPE_ab_mm']['all']['mean_mm'] == pytest.approx(0.0, abs=1e-9)
    assert measured['people_compared'] == 2


def test_somebody_missed_does_not_take_the_pose_of_who_was_found():
    far_off, found = shifted_truth(2.0), shifted_truth(0.0)
    for truths in ([far_off, found], [found, far_off]):
        measured = accuracy(pose_table([frame_of(oracle_person())], {STAMP: truths}))
        assert measured['share_found'] == 0.5
        assert measured['MPJPE_ab_mm']['all']['median_mm'] == pytest.approx(0.0, abs=1e-3)
        assert measured['people_beyond_truth'] == 0
    ghosts = pose_table([frame_of(oracle_person(), oracle_person())], {STAMP: [found]})
    assert accuracy(ghosts)['people_beyond_truth'] == 1


def test_no_truth_is_no_accuracy_and_nan_is_null():
    assert accuracy(pose_table([frame_of(oracle_person())], {})) is None
    report = {'a': {'b': math.nan, 'c': 1.0}, 'd': [math.inf]}
    assert not_finite(report) == ['a.b']
    assert plain(report) == {'a': {'b': None, 'c': 1.0}, 'd': [None]}


def test_frames_come_back_from_the_file(tmp_path):
    frames = [frame_of(oracle_person()), frame_of(stamp_ns=STAMP + 1)]
    save_frames(tmp_path / 'poses.npz', frames, pose_table(frames, {}))
    back = load_frames(tmp_path / 'poses.npz')
    assert [len(frame.people) for frame in back] == [1, 0]
    assert back[0].people[0].joints[5].name == frames[0].people[0].joints[5].name
