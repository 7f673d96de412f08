import math
import threading

import numpy as np
import pytest
import tf2_py
import tf2_ros
from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import TransformStamped
from numpy.testing import assert_allclose
from rclpy.duration import Duration
from rclpy.time import Time
from scipy.spatial.transform import Rotation, Slerp
from tf2_ros import (
    Buffer,
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)

LATEST = Time()


def transform(parent, child, time_s=1.0, xyz=(0.0, 0.0, 0.0), xyzw=(0.0, 0.0, 0.0, 1.0)):
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp = Time(seconds=time_s).to_msg()
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = (float(c) for c in xyz)
    rotation.x, rotation.y, rotation.z, rotation.w = (float(c) for c in xyzw)
    return message


def random_pose(seed):
    return np.random.default_rng(seed).normal(size=3), Rotation.random(random_state=seed)


def matrix(xyz, rotation):
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation.as_matrix(), xyz
    return result


def matrix_of(message):
    t, r = message.transform.translation, message.transform.rotation
    return matrix((t.x, t.y, t.z), Rotation.from_quat((r.x, r.y, r.z, r.w)))


def stamp_s(message):
    return Time.from_msg(message.header.stamp).nanoseconds / 1e9


@pytest.fixture
def buffer():
    return Buffer()


def add(buffer, *transforms, static=False):
    for message in transforms:
        (buffer.set_transform_static if static else buffer.set_transform)(message, 'test')


def test_lookup_of_one_hop_is_the_transform_itself(buffer):
    message = transform('base', 'camera', 3.25, (42.0, -3.14, 0.5))
    add(buffer, message)
    found = buffer.lookup_transform('base', 'camera', Time(seconds=3.25))
    assert found == message
    assert buffer.lookup_transform('base', 'camera', LATEST) == message


def test_lookup_the_other_way_is_the_inverse(buffer):
    xyz, rotation = random_pose(1)
    add(buffer, transform('base', 'camera', 1.0, xyz, rotation.as_quat()))
    found = buffer.lookup_transform('camera', 'base', Time(seconds=1.0))
    assert (found.header.frame_id, found.child_frame_id) == ('camera', 'base')
    assert_allclose(matrix_of(found), np.linalg.inv(matrix(xyz, rotation)), atol=1e-12)


def test_chain_through_a_common_parent(buffer):
    poses = {
        ('map', 'base'): random_pose(1),
        ('base', 'left_arm'): random_pose(2),
        ('left_arm', 'left_hand'): random_pose(3),
        ('base', 'right_arm'): random_pose(4),
    }
    for (parent, child), (xyz, rotation) in poses.items():
        add(buffer, transform(parent, child, 1.0, xyz, rotation.as_quat()))
    hop = {key: matrix(*pose) for key, pose in poses.items()}
    hand = hop['base', 'left_arm'] @ hop['left_arm', 'left_hand']
    expected = {
        ('base', 'left_hand'): hand,
        ('map', 'left_hand'): hop['map', 'base'] @ hand,
        ('right_arm', 'left_hand'): np.linalg.inv(hop['base', 'right_arm']) @ hand,
        ('left_hand', 'map'): np.linalg.inv(hop['map', 'base'] @ hand),
    }
    for (target, source), wanted in expected.items():
        found = buffer.lookup_transform(target, source, Time(seconds=1.0))
        assert_allclose(matrix_of(found), wanted, atol=1e-12)


@pytest.mark.parametrize('ratio', [0.0, 0.2, 0.5, 0.999, 1.0])
@pytest.mark.parametrize('sign', [1, -1])
def test_between_two_times_positions_are_linear_and_rotations_slerped(buffer, ratio, sign):
    (xyz_0, rotation_0), (xyz_1, rotation_1) = random_pose(5), random_pose(6)
    add(buffer, transform('base', 'camera', 10.0, xyz_0, rotation_0.as_quat()))
    add(buffer, transform('base', 'camera', 12.0, xyz_1, sign * rotation_1.as_quat()))
    found = buffer.lookup_transform('base', 'camera', Time(seconds=10 + 2 * ratio))
    wanted = Slerp([0, 1], Rotation.concatenate([rotation_0, rotation_1]))(ratio)
    assert_allclose(
        matrix_of(found), matrix((1 - ratio) * xyz_0 + ratio * xyz_1, wanted), atol=1e-9
    )
    assert stamp_s(found) == pytest.approx(10 + 2 * ratio)


def test_slerp_takes_the_shorter_way(buffer):
    for time_s, degrees in ((1.0, 170.0), (2.0, -170.0)):
        turn = Rotation.from_euler('z', degrees, degrees=True)
        add(buffer, transform('base', 'camera', time_s, xyzw=turn.as_quat()))
    found = buffer.lookup_transform('base', 'camera', Time(seconds=1.5))
    angle = Rotation.from_matrix(matrix_of(found)[:3, :3]).as_euler('zyx', degrees=True)[0]
    assert abs(angle) == pytest.approx(180.0)


def test_time_zero_is_the_latest_time_common_to_all_hops(buffer):
    for time_s in (1.0, 2.0, 3.0):
        add(buffer, transform('map', 'base', time_s, (time_s, 0, 0)))
    for time_s in (1.0, 2.5):
        add(buffer, transform('base', 'camera', time_s))
    add(buffer, transform('camera', 'lens', 9.0), static=True)
    found = buffer.lookup_transform('map', 'lens', LATEST)
    assert stamp_s(found) == 2.5
    assert found.transform.translation.x == pytest.approx(2.5)
    assert buffer.get_latest_common_time('map', 'lens').nanoseconds == 2_500_000_000


def test_times_may_be_messages(buffer):
    add(buffer, transform('base', 'camera', 3.5, (1, 2, 3)))
    when = TimeMsg(sec=3, nanosec=500_000_000)
    assert buffer.lookup_transform('base', 'camera', when).transform.translation.z == 3.0
    with pytest.raises(TypeError, match='sec and nanosec'):
        buffer.lookup_transform('base', 'camera', 3.5)


def test_static_transform_holds_at_any_time_and_is_replaced(buffer):
    add(buffer, transform('base', 'camera', 5.0, (1, 0, 0)), static=True)
    found = buffer.lookup_transform('base', 'camera', Time(seconds=1e6))
    assert (found.transform.translation.x, stamp_s(found)) == (1.0, 1e6)
    add(buffer, transform('base', 'camera', 1.0, (2, 0, 0)), static=True)
    found = buffer.lookup_transform('base', 'camera', LATEST)
    assert (found.transform.translation.x, stamp_s(found)) == (2.0, 0.0)


def test_frame_that_starts_to_move_is_no_longer_static(buffer):
    add(buffer, transform('base', 'camera', 5.0), static=True)
    add(buffer, transform('base', 'camera', 5.0, (1, 0, 0)))
    assert buffer.can_transform('base', 'camera', Time(seconds=5.0))
    assert not buffer.can_transform('base', 'camera', Time(seconds=6.0))


def test_same_frame_is_the_identity_even_when_unknown(buffer):
    found = buffer.lookup_transform('nowhere', 'nowhere', Time(seconds=4.0))
    assert_allclose(matrix_of(found), np.eye(4))
    assert stamp_s(found) == 4.0
    assert buffer.can_transform('nowhere', 'nowhere', LATEST)


def test_errors_are_one_family_in_both_namespaces():
    for name in ('Connectivity', 'Lookup', 'Extrapolation', 'InvalidArgument', 'Timeout'):
        error = getattr(tf2_ros, f'{name}Exception')
        assert error is getattr(tf2_py, f'{name}Exception')
        assert issubclass(error, TransformException)


def test_unknown_frame(buffer):
    add(buffer, transform('base', 'camera'))
    wanted = r'"lens" passed to lookupTransform argument source_frame does not exist\. '
    with pytest.raises(LookupException, match=wanted):
        buffer.lookup_transform('base', 'lens', LATEST)
    with pytest.raises(LookupException, match='argument target_frame'):
        buffer.lookup_transform('lens', 'base', LATEST)
    assert buffer.can_transform('base', 'lens', LATEST, return_debug_tuple=True) == (
        0,
        'Invalid frame ID "lens" passed to canTransform argument source_frame - '
        'frame does not exist',
    )


def test_names_that_are_no_frames(buffer):
    add(buffer, transform('base', 'camera'))
    with pytest.raises(InvalidArgumentException, match='cannot be empty'):
        buffer.lookup_transform('', 'camera', LATEST)
    with pytest.raises(InvalidArgumentException, match="cannot start with a '/'"):
        buffer.lookup_transform('base', '/camera', LATEST)


def test_slash_in_front_of_a_broadcast_frame_is_dropped(buffer):
    add(buffer, transform('/base', '/camera', 1.0, (7, 0, 0)))
    assert buffer.lookup_transform('base', 'camera', LATEST).transform.translation.x == 7.0


def test_trees_that_are_not_connected(buffer):
    add(buffer, transform('base', 'camera'), transform('map', 'robot'))
    with pytest.raises(ConnectivityException, match='two or more unconnected trees'):
        buffer.lookup_transform('base', 'robot', LATEST)
    with pytest.raises(ConnectivityException):
        buffer.lookup_transform('camera', 'robot', Time(seconds=1.0))


@pytest.mark.parametrize(
    ('times_s', 'asked_s', 'reason'),
    [
        ((1.0, 2.0), 2.001, 'into the future.  Requested time 2.001000 but the latest data is'),
        ((1.0, 2.0), 0.999, 'into the past.  Requested time 0.999000 but the earliest data is'),
        ((1.0,), 1.001, 'at time 1.001000, but only time 1.000000 is in the buffer'),
    ],
)
def test_extrapolation_is_refused(buffer, times_s, asked_s, reason):
    for time_s in times_s:
        add(buffer, transform('base', 'camera', time_s))
    with pytest.raises(ExtrapolationException, match=reason) as refused:
        buffer.lookup_transform('base', 'camera', Time(seconds=asked_s))
    assert 'when looking up transform from frame [camera] to frame [base]' in str(refused.value)
    assert not buffer.can_transform('base', 'camera', Time(seconds=asked_s))


def test_loop_is_an_error(buffer):
    add(buffer, transform('a', 'b'), transform('b', 'c'), transform('c', 'a'))
    add(buffer, transform('x', 'y'))
    with pytest.raises(LookupException, match='loop'):
        buffer.lookup_transform('x', 'a', Time(seconds=1.0))


def test_parent_may_change(buffer):
    add(buffer, transform('left', 'ball', 1.0, (1, 0, 0)), transform('left', 'ball', 2.0))
    add(buffer, transform('right', 'ball', 3.0, (5, 0, 0)))
    add(buffer, transform('world', 'left'), transform('world', 'right'), static=True)
    found = buffer.lookup_transform('world', 'ball', Time(seconds=2.5))
    assert found.transform.translation.x == 0.0  # not between two different parents
    found = buffer.lookup_transform('world', 'ball', Time(seconds=3.0))
    assert found.transform.translation.x == 5.0


def test_old_transforms_are_forgotten():
    buffer = Buffer(cache_time=Duration(seconds=2.0))
    for time_s in (1.0, 2.0, 3.0, 4.0, 5.0):
        add(buffer, transform('base', 'camera', time_s))
    add(buffer, transform('base', 'camera', 5.5))
    assert buffer.can_transform('base', 'camera', Time(seconds=3.0))
    assert not buffer.can_transform('base', 'camera', Time(seconds=2.9))
    add(buffer, transform('base', 'camera', 3.4))  # too old to be taken
    assert 'oldest_transform: 4.000000' in buffer.all_frames_as_yaml()


def test_ten_seconds_are_kept_by_default(buffer):
    for time_s in (1.0, 1.1, 11.05, 11.06):
        add(buffer, transform('base', 'camera', time_s))
    assert buffer.can_transform('base', 'camera', Time(seconds=1.1))
    assert not buffer.can_transform('base', 'camera', Time(seconds=1.05))


def test_out_of_order_transforms_are_sorted(buffer):
    for time_s in (3.0, 1.0, 2.0):
        add(buffer, transform('base', 'camera', time_s, (time_s**2, 0, 0)))
    found = buffer.lookup_transform('base', 'camera', Time(seconds=1.5))
    assert found.transform.translation.x == pytest.approx(2.5)


@pytest.mark.parametrize(
    'bad',
    [
        transform('base', 'base'),
        transform('', 'camera'),
        transform('base', ''),
        transform('base', 'camera', xyz=(math.nan, 0, 0)),
        transform('base', 'camera', xyzw=(0, 0, 0, 0)),
        transform('base', 'camera', xyzw=(0, math.nan, 0, 1)),
    ],
)
def test_unusable_transform_is_ignored(buffer, bad):
    add(buffer, bad)
    assert buffer.all_frames_as_yaml() == '[]'


def test_rotation_is_normalised(buffer):
    turn = Rotation.from_euler('xyz', (0.3, 0.4, 0.5))
    add(buffer, transform('base', 'camera', xyzw=1.7 * turn.as_quat()))
    found = buffer.lookup_transform('base', 'camera', LATEST).transform.rotation
    assert_allclose((found.x, found.y, found.z, found.w), turn.as_quat(canonical=True))


def test_clear_forgets_all_but_static_transforms(buffer):
    add(buffer, transform('base', 'camera'))
    add(buffer, transform('camera', 'lens'), static=True)
    buffer.clear()
    assert not buffer.can_transform('base', 'camera', LATEST)
    assert buffer.can_transform('camera', 'lens', LATEST)


def test_full_lookup_goes_through_the_fixed_frame(buffer):
    for time_s, x in ((1.0, 10.0), (2.0, 13.0)):
        add(buffer, transform('map', 'robot', time_s, (x, 0, 0)))
    times = (Time(seconds=2.0), Time(seconds=1.0))
    arguments = ('robot', times[0], 'robot', times[1], 'map')
    found = buffer.lookup_transform_full(*arguments)
    assert found.transform.translation.x == pytest.approx(-3.0)  # where the robot was, seen now
    assert stamp_s(found) == 2.0
    assert buffer.can_transform_full(*arguments)
    with pytest.raises(LookupException, match='fixed_frame'):
        buffer.lookup_transform_full(*arguments[:4], 'earth')


def test_lookup_waits_for_a_transform(buffer):
    later = threading.Timer(0.15, add, (buffer, transform('base', 'camera', 1.0, (1, 0, 0))))
    later.start()
    found = buffer.lookup_transform('base', 'camera', LATEST, Duration(seconds=5.0))
    assert found.transform.translation.x == 1.0
    later.join()


def test_lookup_gives_up_after_the_timeout(buffer):
    add(buffer, transform('base', 'camera'))
    assert not buffer.can_transform('base', 'lens', LATEST, Duration(seconds=0.05))
    with pytest.raises(LookupException):
        buffer.lookup_transform('base', 'lens', LATEST, timeout=Duration(seconds=0.05))


def test_future_is_done_when_the_transform_comes(buffer):
    future = buffer.wait_for_transform_async('base', 'camera', LATEST)
    full = buffer.wait_for_transform_full_async('base', LATEST, 'camera', LATEST, 'camera')
    add(buffer, transform('base', 'other'))
    assert not future.done()
    message = transform('base', 'camera', 2.0, (1, 2, 3))
    add(buffer, message)
    assert future.result() == full.result() == message
    assert buffer.wait_for_transform_async('base', 'camera', LATEST).result() == message


def test_coroutine_returns_the_transform(buffer):
    message = transform('base', 'camera', 2.0, (1, 2, 3))
    coroutine = buffer.lookup_transform_async('base', 'camera', LATEST)
    coroutine.send(None)
    add(buffer, message)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == message


def test_lists_of_frames(buffer):
    add(buffer, transform('base', 'camera', 1.0), transform('base', 'camera', 1.5))
    assert buffer.all_frames_as_string() == 'Frame camera exists with parent base.\n'
    assert buffer.all_frames_as_yaml() == (
        "camera: \n  parent: 'base'\n  broadcaster: 'test'\n  rate: 4.000\n"
        '  most_recent_transform: 1.500000\n  oldest_transform: 1.000000\n'
        '  buffer_length: 0.500\n'
    )


def test_threads_may_set_and_look_up_at_once(buffer):
    add(buffer, transform('base', 'camera', 1.0), transform('base', 'camera', 2.0))
    failures = []

    def look_up():
        for _ in range(300):
            try:
                buffer.lookup_transform('base', 'camera', LATEST)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=look_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for step in range(300):
        add(buffer, transform('base', 'camera', 2.0 + step * 0.01))
    for thread in threads:
        thread.join()
    assert failures == []
    assert stamp_s(buffer.lookup_transform('base', 'camera', LATEST)) == pytest.approx(4.99)
