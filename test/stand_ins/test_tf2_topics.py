import os
import threading

import pytest
import rclpy
from geometry_msgs.msg import PointStamped, TransformStamped
from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from tf2_msgs.msg import TFMessage
from tf2_msgs.srv import FrameGraph
from tf2_ros import (
    Buffer,
    BufferInterface,
    ConvertRegistration,
    NotImplementedException,
    Stamped,
    StaticTransformBroadcaster,
    TransformBroadcaster,
    TransformListener,
    TransformRegistration,
    TypeException,
    convert,
)


def transform(child, x=0.0, time_s=1.0, parent='base'):
    message = TransformStamped()
    message.header.frame_id, message.child_frame_id = parent, child
    message.header.stamp = Time(seconds=time_s).to_msg()
    message.transform.translation.x = x
    return message


@pytest.fixture
def received(node):
    """The lists of child frames received on /tf and /tf_static by a late subscriber."""
    messages = {'/tf': [], '/tf_static': []}

    def subscribe():
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, qos in (('/tf', 100), ('/tf_static', latched)):
            keep = messages[topic].append
            node.create_subscription(
                TFMessage,
                topic,
                lambda message, keep=keep: keep([t.child_frame_id for t in message.transforms]),
                qos,
            )
        return messages

    return subscribe


def test_broadcaster_publishes_one_or_many_in_one_message(node, spin_until, received):
    broadcaster, messages = TransformBroadcaster(node), received()
    assert spin_until(lambda: broadcaster.pub_tf.get_subscription_count() == 1)
    broadcaster.sendTransform(transform('one'))
    broadcaster.sendTransform([transform('two'), transform('three')])
    broadcaster.sendTransform(transform(name) for name in ('four', 'five'))
    broadcaster.sendTransform((transform('six'),))
    assert spin_until(lambda: len(messages['/tf']) == 4)
    assert messages['/tf'] == [['one'], ['two', 'three'], ['four', 'five'], ['six']]


def test_broadcaster_qos(node):
    profile = TransformBroadcaster(node).pub_tf.qos_profile
    assert (profile.depth, profile.reliability) == (100, ReliabilityPolicy.RELIABLE)
    assert profile.durability == DurabilityPolicy.VOLATILE
    best_effort = QoSProfile(depth=3, reliability=ReliabilityPolicy.BEST_EFFORT)
    profile = TransformBroadcaster(node, best_effort).pub_tf.qos_profile
    assert (profile.depth, profile.reliability) == (3, ReliabilityPolicy.BEST_EFFORT)
    assert TransformBroadcaster(node, qos=5).pub_tf.topic_name == '/tf'
    profile = StaticTransformBroadcaster(node).pub_tf.qos_profile
    assert (profile.depth, profile.durability) == (1, DurabilityPolicy.TRANSIENT_LOCAL)


def test_late_subscriber_gets_every_static_transform_once(node, spin_until, received):
    broadcaster = StaticTransformBroadcaster(node)
    broadcaster.sendTransform(transform('one'))
    broadcaster.sendTransform([transform('two'), transform('one', 9.0)])
    messages = received()
    assert spin_until(lambda: messages['/tf_static'])
    assert messages['/tf_static'] == [['one', 'two']]
    assert [t.transform.translation.x for t in broadcaster.net_message.transforms] == [0.0, 0.0]


def test_listener_fills_the_buffer(node, spin_until):
    buffer = Buffer()
    listener = TransformListener(buffer, node)
    moving, static = TransformBroadcaster(node), StaticTransformBroadcaster(node)
    assert spin_until(lambda: moving.pub_tf.get_subscription_count() == 1)
    moving.sendTransform([transform('arm', 1.0, 1.0), transform('arm', 3.0, 2.0)])
    static.sendTransform(transform('hand', 10.0, parent='arm'))
    assert spin_until(lambda: buffer.can_transform('base', 'hand', Time(seconds=1.5)))
    found = buffer.lookup_transform('base', 'hand', Time(seconds=1.5))
    assert found.transform.translation.x == pytest.approx(12.0)
    listener.unregister()
    assert spin_until(lambda: moving.pub_tf.get_subscription_count() == 0)


def test_listener_qos(node):
    listener = TransformListener(Buffer(), node, qos=7, static_qos=9)
    assert (listener.tf_sub.qos_profile.depth, listener.tf_static_sub.qos_profile.depth) == (7, 9)
    listener = TransformListener(Buffer(), node)
    assert listener.tf_sub.qos_profile.durability == DurabilityPolicy.VOLATILE
    assert listener.tf_static_sub.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    with pytest.raises(TypeError):
        TransformListener(Buffer(), node, True)


@pytest.mark.filterwarnings('error::pytest.PytestUnhandledThreadExceptionWarning')
def test_listener_with_a_thread_of_its_own():
    rclpy.init(domain_id=1 + os.getpid() % 100)
    node = rclpy.create_node('threaded')
    buffer = Buffer()
    listener = TransformListener(buffer, node, spin_thread=True)
    broadcaster = TransformBroadcaster(node)
    stop = threading.Event()

    def broadcast():
        while not stop.wait(0.05):
            broadcaster.sendTransform(transform('camera', 2.0))

    sender = threading.Thread(target=broadcast)
    sender.start()
    found = buffer.lookup_transform('base', 'camera', Time(), Duration(seconds=10))
    stop.set()
    sender.join()
    assert found.transform.translation.x == 2.0
    thread = listener.dedicated_listener_thread
    del listener.buffer, listener
    rclpy.shutdown()
    thread.join(10.0)
    assert not thread.is_alive()


def test_buffer_forgets_when_the_time_of_its_node_jumps_back(node):
    buffer = Buffer(node=node)
    assert buffer.clock is node.get_clock()
    buffer.set_transform(transform('camera'), 'test')
    buffer.time_jump_callback(None)
    assert not buffer.can_transform('base', 'camera', Time())


def test_buffer_of_a_node_answers_with_its_frames(node, spin_until):
    buffer = Buffer(node=node)
    buffer.set_transform(transform('camera'), 'test')
    client = node.create_client(FrameGraph, 'tf2_frames')
    assert spin_until(client.service_is_ready)
    answer = client.call_async(FrameGraph.Request())
    assert spin_until(answer.done)
    assert answer.result().frame_yaml == buffer.all_frames_as_yaml()
    assert "parent: 'base'" in answer.result().frame_yaml


def test_registered_type_is_transformed():
    def move(point, found):
        moved = Stamped(PointStamped(), point.header.stamp, found.header.frame_id)
        moved.point.x = point.point.x + found.transform.translation.x
        return moved

    TransformRegistration().add(PointStamped, move)
    ConvertRegistration().add_convert((PointStamped, float), lambda point: point.point.x)
    buffer = Buffer()
    buffer.set_transform(transform('camera', 2.0, 1.0), 'test')
    buffer.set_transform(transform('camera', 4.0, 2.0), 'test')
    point = Stamped(PointStamped(), Time(seconds=1.5).to_msg(), 'camera')
    point.point.x = 0.5
    moved = buffer.transform(point, 'base')
    assert (moved.point.x, moved.header.frame_id) == (pytest.approx(3.5), 'base')
    assert buffer.transform(point, 'base', new_type=float) == pytest.approx(3.5)
    full = buffer.transform_full(point, 'base', Time(seconds=2.0), 'base')
    assert full.point.x == pytest.approx(3.5)


def test_type_that_nobody_registered():
    unknown = Stamped(TransformStamped(), Time().to_msg(), 'camera')
    with pytest.raises(TypeException, match='not loaded or supported'):
        Buffer().transform(unknown, 'base')
    copied = convert(unknown, TransformStamped)
    assert copied == unknown
    assert copied is not unknown
    with pytest.raises(TypeException):
        convert(unknown, bytes)


def test_conversion_by_way_of_a_message():
    ConvertRegistration().add_to_msg(int, str)
    ConvertRegistration().add_from_msg(complex, complex)
    assert convert(7, complex) == 7 + 0j


def test_interface_without_lookups():
    for lookup in ('lookup_transform', 'can_transform'):
        with pytest.raises(NotImplementedException):
            getattr(BufferInterface(), lookup)('base', 'camera', Time())
    for lookup in ('lookup_transform_full', 'can_transform_full'):
        with pytest.raises(NotImplementedException):
            getattr(BufferInterface(), lookup)('base', Time(), 'camera', Time(), 'base')
