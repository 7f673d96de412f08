"""The node in real DDS: poses, counters, faults and recovery, lifecycle, parameters."""

import time

import numpy as np
import pytest
from bench import VIEWS, Bench, until
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger
from stereo_world import (
    FRAME,
    HEIGHT,
    JOINTS,
    WIDTH,
    OraclePipeline,
    board_position,
    compressed_image,
    image,
    stamped,
    truth,
)
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_ros.images import rgb_to_image
from rsb_pose_ros.msg import HumanPose3D, SkeletonDefinition
from rsb_pose_ros.pairing import stamp_ns
from rsb_pose_ros.people import joint_positions

pytestmark = pytest.mark.usefixtures('ros_domain')


def grey_image(stamp: int) -> Image:
    return rgb_to_image(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), stamped(stamp))


def test_pose_is_where_the_board_is_and_carries_the_left_stamp_and_frame(bench):
    bench.publish_infos()
    message = bench.pair_until_poses(0)
    stamp = stamp_ns(message)
    index = round((stamp - 1_700_000_000_000_000_000) / 66_666_667)
    assert stamp == 1_700_000_000_000_000_000 + index * 66_666_667
    assert message.header.frame_id == FRAME
    (person,) = message.people
    assert person.header == message.header
    expected = joint_positions(truth(index, stamp))
    np.testing.assert_allclose(joint_positions(person), expected, atol=1e-3)
    assert [joint.name for joint in person.joints] == list(H36M_17.joint_names)
    assert message.model == 'oracle oracle.safetensors'
    assert message.stages == ['convert', 'rectify', 'network']
    assert 0 < message.latency_ms < 10_000
    assert message.pairs_processed == 1


def test_single_pose_messages_and_joint_frames_and_late_skeleton(bench):
    poses, transforms, skeletons = [], [], []
    bench.client.create_subscription(HumanPose3D, 'human_pose3d', poses.append, 10)
    bench.client.create_subscription(TFMessage, '/tf', transforms.append, 10)
    bench.publish_infos()
    bench.pair_until_poses(0)
    until(lambda: bench.pair_until_poses(200) and poses and transforms, 'poses and frames')
    names = {entry.child_frame_id for entry in transforms[-1].transforms}
    assert names == {f'{joint}_1' for joint in H36M_17.joint_names}
    assert {entry.header.frame_id for entry in transforms[-1].transforms} == {FRAME}
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    bench.client.create_subscription(
        SkeletonDefinition, 'stereo_pose/skeleton', skeletons.append, latched
    )
    until(lambda: skeletons, 'the definition for a late joiner')
    assert skeletons[-1].joint_names == list(H36M_17.joint_names)
    assert skeletons[-1].header.frame_id == FRAME
    assert list(skeletons[-1].parents) == list(H36M_17.parents)


def test_empty_message_when_nobody_is_there_and_markers_are_deleted(bench):
    markers, overlays = [], []
    bench.client.create_subscription(MarkerArray, 'stereo_pose/markers', markers.append, 50)
    bench.client.create_subscription(Image, 'stereo_pose/overlay', overlays.append, 10)
    bench.publish_infos()
    until(lambda: bench.pair_until_poses(0) and markers and overlays, 'markers and overlay')
    assert (overlays[-1].width, overlays[-1].height) == (WIDTH, HEIGHT)
    stamp = stamp_ns(bench.people[-1]) + 5_000_000_000
    for view in VIEWS:
        bench.publish(view, grey_image(stamp))
    until(lambda: stamp_ns(bench.people[-1]) == stamp, 'the empty message')
    assert bench.people[-1].people == []
    until(lambda: stamp_ns(markers[-1].markers[0]) == stamp, 'DELETE')
    assert {marker.action for marker in markers[-1].markers} == {Marker.DELETE}


def test_newest_pair_wins_and_every_pair_is_processed_or_dropped():
    pipeline = OraclePipeline(work=lambda _: time.sleep(0.15))
    with Bench(pipeline) as bench:
        bench.connect()
        bench.publish_infos()
        for index in range(40):
            last = bench.publish_pair(index)
            time.sleep(0.03)
        until(lambda: bench.people and stamp_ns(bench.people[-1]) == last, 'the last pair')

        def settled():
            counts = bench.counts()
            return counts['pairs_matched'] >= 1 and counts['pairs_in_hand'] == 0 and counts

        until(lambda: bench.counts().get('pairs_processed') == len(bench.people), 'counts')
        counts = until(settled, 'an idle worker')
    assert counts['pairs_processed'] == len(bench.people) == pipeline.calls
    assert counts['pairs_matched'] == counts['pairs_processed'] + counts['pairs_dropped']
    assert counts['pairs_dropped'] > 10
    images = counts['images_left'] + counts['images_right']
    assert images == 2 * counts['pairs_matched'] + (
        counts['images_unmatched'] + counts['images_waiting']
    )
    assert counts['images_left'] == 40
    assert sorted(pipeline.stamps_s) == pipeline.stamps_s


def test_pair_that_fails_is_told_and_dropped_and_the_next_one_works():
    def fail_twice(call: int) -> None:
        if call <= 2:
            raise RuntimeError('boom')

    with Bench(OraclePipeline(work=fail_twice)) as bench:
        bench.connect()
        bench.publish_infos()
        bench.publish_pair(0)
        bench.await_fault('a pair failed and was dropped', 'RuntimeError: boom')
        bench.pair_until_poses(1)
        until(lambda: not bench.fault(), 'recovery')
        assert bench.counts()['pairs_dropped'] == 2
        assert bench.values('network')['last_fault'].endswith('RuntimeError: boom')


def test_bag_that_loops_after_a_camera_missed_frames_matches_again_and_resets_tracks():
    with Bench(queue_size=5) as bench:
        bench.connect()
        bench.publish_infos()
        bench.pair_until_poses(0)
        resets = bench.pipeline.resets
        for index in range(200, 212):
            bench.publish(
                'left', image(index, 'left', 1_700_000_000_000_000_000 + index * 66_666_667)
            )
            time.sleep(0.01)
        bench.publish_infos()
        before = bench.counts()['pairs_matched']
        for index in range(20):
            last = bench.publish_pair(index, start_ns=1_690_000_000_000_000_000)
            time.sleep(0.03)
        until(lambda: stamp_ns(bench.people[-1]) == last, 'the last pair after the loop')
        until(lambda: bench.counts()['pairs_matched'] >= before + 20, 'all pairs after the loop')
        assert bench.pipeline.resets > resets
        assert bench.counts()['images_unmatched'] >= 12


def test_lifecycle_services_stop_and_start_the_poses(bench):
    bench.publish_infos()
    bench.pair_until_poses(0)
    assert bench.state() == 'active'
    assert bench.transition('deactivate')
    seen = len(bench.people)
    for index in range(200, 205):
        bench.publish_pair(index)
    until(lambda: bench.status('images').message == 'the node is inactive', 'diagnostics')
    assert len(bench.people) == seen
    assert bench.transition('cleanup')
    assert bench.state() == 'unconfigured'
    assert bench.transition('configure')
    assert bench.transition('activate')
    bench.publish_infos()
    assert bench.pair_until_poses(300).pairs_processed == 1


def test_parameter_that_needs_a_new_network_is_refused_while_active(bench):
    refused = bench.set_parameter('weights', '/elsewhere.safetensors')
    assert not refused.successful
    assert 'only while the node is unconfigured' in refused.reason
    assert not bench.set_parameter('queue_size', 0).successful
    assert not bench.set_parameter('autostart', False).successful
    assert bench.set_parameter('queue_size', 20).successful
    assert bench.transition('deactivate')
    assert bench.transition('cleanup')
    assert bench.set_parameter('weights', '/elsewhere.safetensors').successful
    wrong = bench.set_parameter('image_transport', 'carrier pigeon')
    assert not wrong.successful
    assert 'expected one of raw, compressed' in wrong.reason


@pytest.mark.parametrize('content', [None, b'safetensors, they said'])
def test_weights_that_are_missing_or_no_weights_leave_the_node_up(tmp_path, content):
    from rsb_pose_ros.loading import load

    path = tmp_path / 'weights.safetensors'
    if content is not None:
        path.write_bytes(content)
    with Bench(loader=load, weights=str(path), device='cpu') as bench:
        fault = bench.await_fault('cannot configure', 'weights.safetensors')
        assert '\n' not in fault
        assert bench.state() == 'unconfigured'
        assert not bench.transition('configure')
        assert bench.state() == 'unconfigured'
        path.write_bytes(lite_weights(tmp_path))
        assert bench.transition('configure')
        assert bench.transition('activate')
        until(lambda: 'cannot configure' not in bench.fault(), 'recovery')
        bench.connect()
        bench.publish_infos()
        message = bench.pair_until_poses(0)
        assert message.model == 'lite weights.safetensors'
        assert message.device == 'cpu'
        assert 'network' in message.stages


def test_flip_test_is_handed_on(tmp_path):
    from rsb_pose_core.models.flip_test import FlipTest
    from rsb_pose_ros.loading import load
    from rsb_pose_ros.parameters import NodeParameters

    path = tmp_path / 'weights.safetensors'
    path.write_bytes(lite_weights(tmp_path))
    for asked in (False, True):
        loaded = load(NodeParameters(weights=str(path), device='cpu', flip_test=asked))
        assert isinstance(loaded.pipeline.model, FlipTest) is asked


def lite_weights(folder) -> bytes:
    """A weights file of the lite model, as it is before training."""
    from rsb_pose_core.checkpoint import save_checkpoint
    from rsb_pose_core.models import NETWORKS

    path = folder / 'untrained.safetensors'
    save_checkpoint(path, NETWORKS['lite'].build(), {'model': 'lite'})
    return path.read_bytes()


def test_enable_and_reset_tracks_services(bench):
    bench.publish_infos()
    bench.pair_until_poses(0)
    resets = bench.pipeline.resets
    assert bench.call(Trigger, 'stereo_pose/reset_tracks', Trigger.Request()).success
    bench.pair_until_poses(100)
    assert bench.pipeline.resets == resets + 1
    off = bench.call(SetBool, 'stereo_pose/enable', SetBool.Request(data=False))
    assert off.success
    assert 'disabled' in off.message
    calls = bench.pipeline.calls
    for index in range(300, 305):
        bench.publish_pair(index)
    until(lambda: bench.values('images')['enabled'] == 'False', 'diagnostics')
    assert bench.pipeline.calls == calls
    assert bench.call(SetBool, 'stereo_pose/enable', SetBool.Request(data=True)).success
    bench.pair_until_poses(400)


def test_compressed_images_are_taken():
    with Bench(
        image_type=CompressedImage,
        image_topic='image_raw/compressed',
        image_transport='compressed',
    ) as bench:
        bench.connect()
        bench.publish_infos()
        stamp = 1_700_000_000_000_000_000
        for view in VIEWS:
            bench.publish(view, compressed_image(0, view, stamp))
        until(lambda: bench.people, 'poses')
        expected = joint_positions(truth(0, stamp))
        found = joint_positions(bench.people[-1].people[0])
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_rectified_images_need_only_p():
    def only_p(left, right):
        for info in (left, right):
            info.k, info.r, info.d = np.zeros(9), np.zeros(9), [0.3, 0.0, 0.0, 0.0, 0.0]

    with Bench(image_topic='image_rect', input_rectified=True) as bench:
        bench.connect()
        bench.publish_infos(only_p)
        message = bench.pair_until_poses(0)
        assert joint_positions(message.people[0]).shape == (JOINTS, 3)
        depth = joint_positions(message.people[0])[0, 2]
        assert depth == pytest.approx(300.0 * 0.1 / board_position(0)[2], abs=1e-3)


def test_frame_id_parameter_replaces_that_of_the_images(bench):
    bench.publish_infos()
    assert bench.set_parameter('frame_id', 'head_left').successful
    assert bench.pair_until_poses(0).header.frame_id == 'head_left'
