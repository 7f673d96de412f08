import threading
from types import SimpleNamespace

import pytest
from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import PointStamped
from message_filters import (
    ApproximateTimeSynchronizer,
    Cache,
    Chain,
    SimpleFilter,
    Subscriber,
    TimeSynchronizer,
)
from rclpy.clock import ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.time import Time
from std_msgs.msg import String

MS = 10**6


def stamped(stamp_ns, name=''):
    message = PointStamped()
    message.header.stamp = TimeMsg(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    message.header.frame_id = name
    return message


def stamp_ns(message):
    return Time.from_msg(message.header.stamp).nanoseconds


class Inputs:
    """A synchronizer of some inputs and the sets of stamps in milliseconds that it signalled."""

    def __init__(self, number, make):
        self.filters = [SimpleFilter() for _ in range(number)]
        self.synchronizer = make(self.filters)
        self.sets = []
        self.synchronizer.registerCallback(
            lambda *messages: self.sets.append(tuple(stamp_ns(m) // MS for m in messages))
        )

    def send(self, index, *stamps_ms):
        for stamp_ms in stamps_ms:
            self.filters[index].signalMessage(stamped(int(stamp_ms * MS)))


def exact(number, queue_size):
    return Inputs(number, lambda filters: TimeSynchronizer(filters, queue_size))


def approximate(number, queue_size, slop_s, **kwargs):
    return Inputs(
        number, lambda filters: ApproximateTimeSynchronizer(filters, queue_size, slop_s, **kwargs)
    )


def test_callbacks_get_the_message_then_their_own_arguments_in_order():
    source, calls = SimpleFilter(), []
    first = source.registerCallback(lambda *args: calls.append(('first', *args)), 'a', 2)
    second = source.registerCallback(lambda *args: calls.append(('second', *args)))
    source.signalMessage('message', 'another')
    assert (first, second) == (0, 1)
    assert calls == [('first', 'message', 'another', 'a', 2), ('second', 'message', 'another')]


def test_unregistered_callback_is_not_called():
    source, calls = SimpleFilter(), []
    source.unregisterCallback(source.registerCallback(calls.append))
    source.unregisterCallback(7)
    source.signalMessage('message')
    assert calls == []


def test_exact_pair_needs_the_same_nanosecond():
    inputs = exact(2, 5)
    inputs.filters[0].signalMessage(stamped(1000))
    inputs.filters[1].signalMessage(stamped(1001))
    assert inputs.sets == []
    inputs.filters[1].signalMessage(stamped(1000))
    assert inputs.sets == [(0, 0)]


def test_exact_sets_keep_the_order_of_the_inputs():
    inputs, names = exact(3, 5), []
    inputs.synchronizer.registerCallback(lambda *m: names.append([x.header.frame_id for x in m]))
    for index in (2, 0, 1):
        inputs.filters[index].signalMessage(stamped(7 * MS, f'input {index}'))
    assert names == [['input 0', 'input 1', 'input 2']]


def test_exact_sets_match_out_of_order_within_the_queue():
    inputs = exact(2, 4)
    inputs.send(0, 30, 10, 40, 20)
    inputs.send(1, 10, 20, 30, 40)
    assert inputs.sets == [(10, 10), (20, 20), (30, 30), (40, 40)]


def test_exact_set_drops_whatever_is_older():
    inputs = exact(2, 4)
    inputs.send(0, 10, 20, 30)
    inputs.send(1, 20)
    assert inputs.sets == [(20, 20)]
    assert [list(queue) for queue in inputs.synchronizer.queues] == [[30 * MS], []]
    inputs.send(1, 10)
    assert inputs.sets == [(20, 20)]


def test_exact_queue_overflow_drops_the_smallest_stamp():
    inputs = exact(2, 2)
    inputs.send(0, 30, 10, 20)
    assert sorted(inputs.synchronizer.queues[0]) == [20 * MS, 30 * MS]
    inputs.send(1, 10)
    assert inputs.sets == []


def test_full_queue_of_later_stamps_refuses_messages_after_a_jump_back():
    # The trap of a looped bag: the newest message has the smallest stamp and is dropped at once.
    inputs = exact(2, 2)
    inputs.send(0, 1000, 1010)
    for stamp_ms in (0, 10, 20):
        inputs.send(0, stamp_ms)
        inputs.send(1, stamp_ms)
    assert inputs.sets == []


@pytest.mark.parametrize('make', [lambda: exact(2, 3), lambda: approximate(2, 3, 0.1)])
def test_callback_that_raises_leaves_the_lock_held(make):
    inputs = make()
    inputs.synchronizer.registerCallback(lambda *_: 1 / 0)
    inputs.send(0, 10)
    with pytest.raises(ZeroDivisionError):
        inputs.send(1, 10)
    assert inputs.synchronizer.lock.locked()


@pytest.mark.parametrize('make', [lambda: exact(4, 500), lambda: approximate(4, 500, 0.0005)])
def test_inputs_from_several_threads_are_all_matched_once(make):
    inputs, stamps_ms = make(), range(200)
    threads = [
        threading.Thread(target=inputs.send, args=(index, *stamps_ms)) for index in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(inputs.sets) == len(set(inputs.sets))
    assert all(len(set(stamps)) == 1 for stamps in inputs.sets)
    assert inputs.sets[-1] == (199,) * 4


@pytest.mark.parametrize(
    ('apart_ns', 'matches'), [(0, True), (100 * MS - 1, True), (100 * MS, False)]
)
@pytest.mark.parametrize('sign', [1, -1])
def test_approximate_pair_must_be_closer_than_the_slop(apart_ns, matches, sign):
    inputs = approximate(2, 5, 0.1)
    inputs.filters[0].signalMessage(stamped(10**9))
    inputs.filters[1].signalMessage(stamped(10**9 + sign * apart_ns))
    assert len(inputs.sets) == matches


def test_slop_of_zero_matches_nothing():
    inputs = approximate(2, 5, 0.0)
    inputs.send(0, 10)
    inputs.send(1, 10)
    assert inputs.sets == []


def test_slop_holds_for_the_whole_set_not_only_for_the_newest():
    inputs = approximate(3, 5, 0.010)
    inputs.send(0, 100)
    inputs.send(1, 108)
    inputs.send(2, 98)  # 2 ms and 10 ms from the others: 98 to 108 is the whole slop
    assert inputs.sets == []
    inputs.send(2, 104)
    assert inputs.sets == [(100, 108, 104)]


def test_approximate_takes_the_nearest_partner():
    inputs = approximate(2, 5, 0.1)
    inputs.send(0, 100, 130, 160)
    inputs.send(1, 140)
    assert inputs.sets == [(130, 140)]
    assert sorted(inputs.synchronizer.queues[0]) == [100 * MS, 160 * MS]


def test_approximate_message_is_used_once():
    inputs = approximate(2, 5, 0.1)
    inputs.send(0, 100)
    inputs.send(1, 101, 102)
    assert inputs.sets == [(100, 101)]


def test_approximate_queue_overflow_drops_the_smallest_stamp_even_the_newest():
    inputs = approximate(2, 2, 0.005)
    inputs.send(0, 100, 200)
    inputs.send(0, 50)
    inputs.send(1, 50)
    assert inputs.sets == []
    assert sorted(inputs.synchronizer.queues[0]) == [100 * MS, 200 * MS]


def test_approximate_accepts_stamps_that_are_rclpy_times():
    inputs = [SimpleFilter(), SimpleFilter()]
    synchronizer, pairs = ApproximateTimeSynchronizer(inputs, 5, 0.1), []
    synchronizer.registerCallback(lambda *pair: pairs.append(pair))
    left = SimpleNamespace(header=SimpleNamespace(stamp=Time(seconds=3)))
    inputs[0].signalMessage(left)
    right = stamped(3 * 10**9 + 1)
    inputs[1].signalMessage(right)
    assert pairs == [(left, right)]


def test_headerless_message_is_dropped_unless_allowed():
    refusing = approximate(1, 5, 0.1)
    refusing.filters[0].signalMessage(String(data='hello'))
    assert refusing.synchronizer.queues == [{}]

    inputs = [SimpleFilter(), SimpleFilter()]
    allowing, pairs = ApproximateTimeSynchronizer(inputs, 5, 10.0, allow_headerless=True), []
    allowing.registerCallback(lambda *pair: pairs.append(pair))
    for index, source in enumerate(inputs):
        source.signalMessage(String(data=f'message {index}'))
    assert [[m.data for m in pair] for pair in pairs] == [['message 0', 'message 1']]


def test_slop_and_headerless_are_given_by_position_as_in_jazzy():
    synchronizer = ApproximateTimeSynchronizer([SimpleFilter()], 3, 0.25, True)
    assert synchronizer.slop.nanoseconds == 250 * MS
    assert synchronizer.allow_headerless is True
    with pytest.raises(TypeError):
        ApproximateTimeSynchronizer([SimpleFilter()], 3, 0.25, sync_arrival_time=True)


@pytest.fixture
def cache():
    source = SimpleFilter()
    cache = Cache(source, 4)
    for stamp_s in (1, 2, 3, 4, 5):
        source.signalMessage(stamped(stamp_s * 10**9))
    return cache


def ros(seconds):
    return Time(seconds=seconds, clock_type=ClockType.ROS_TIME)


def test_cache_keeps_the_last_messages(cache):
    assert [stamp_ns(m) // 10**9 for m in cache.cache_msgs] == [2, 3, 4, 5]
    assert cache.getOldestTime() == ros(2)
    assert cache.getLastestTime() == ros(5)
    assert stamp_ns(cache.getLast()) == 5 * 10**9


def test_cache_intervals_include_their_ends(cache):
    found = cache.getInterval(ros(3), ros(4))
    assert [stamp_ns(m) // 10**9 for m in found] == [3, 4]
    assert cache.getInterval(ros(3.1), ros(3.9)) == []
    with pytest.raises(AssertionError):
        cache.getInterval(ros(4), ros(3))


def test_cache_neighbours_of_a_time(cache):
    assert stamp_ns(cache.getElemAfterTime(ros(3))) == 3 * 10**9
    assert stamp_ns(cache.getElemAfterTime(ros(3.5))) == 4 * 10**9
    assert stamp_ns(cache.getElemBeforeTime(ros(3))) == 3 * 10**9
    assert stamp_ns(cache.getElemBeforeTime(ros(3.5))) == 3 * 10**9
    assert cache.getElemAfterTime(ros(5.5)) is None
    assert cache.getElemBeforeTime(ros(1.5)) is None


def test_empty_cache_has_no_times():
    empty = Cache(SimpleFilter())
    assert empty.cache_size == 1
    assert empty.getLastestTime() is None
    assert empty.getOldestTime() is None
    assert empty.getLast() is None


def test_cache_passes_on_what_it_keeps():
    source, passed = SimpleFilter(), []
    cache = Cache(source, 2)
    cache.registerCallback(passed.append)
    source.signalMessage(String())
    message = stamped(1)
    source.signalMessage(message)
    assert passed == [message]

    headerless = Cache(source, 2, allow_headerless=True)
    source.signalMessage(String(data='now'))
    assert headerless.getLast().data == 'now'
    assert headerless.getLastestTime().clock_type == ClockType.ROS_TIME


def test_chain_feeds_its_filters_in_order():
    source, passed = SimpleFilter(), []
    chain = Chain(source)
    chain.registerCallback(lambda message: passed.append(message.header.frame_id))
    source.signalMessage(stamped(1, 'empty chain'))
    first, second = Cache(SimpleFilter(), 5), Cache(SimpleFilter(), 5)
    chain.addFilter(first)
    chain.addFilter(second)
    source.signalMessage(stamped(2, 'two filters'))
    assert passed == ['empty chain', 'two filters']
    assert len(first.cache_msgs) == len(second.cache_msgs) == 1
    assert chain.getFilter(1) is second
    with pytest.raises(RuntimeError):
        chain.connectInput(source)


def test_subscriber_is_reliable_and_keeps_ten_by_default(node):
    subscriber = Subscriber(node, PointStamped, 'points')
    profile = subscriber.qos_profile  # an attribute of the subscription
    assert profile.depth == 10
    assert profile.reliability == ReliabilityPolicy.RELIABLE
    assert profile.durability == DurabilityPolicy.VOLATILE
    assert subscriber.getTopic() == 'points'
    assert subscriber.topic_name == '/test/points'


@pytest.mark.parametrize('qos', [qos_profile_sensor_data, 3, QoSProfile(depth=7)])
def test_subscriber_takes_a_qos_by_position_or_name(node, qos):
    for subscriber in (
        Subscriber(node, PointStamped, 'points', qos),
        Subscriber(node, PointStamped, 'points', qos_profile=qos),
    ):
        assert subscriber.sub.qos_profile.depth == (qos if isinstance(qos, int) else qos.depth)


def test_pairs_published_on_topics_arrive_synchronized(node, spin_until):
    pairs = []
    subscribers = [Subscriber(node, PointStamped, topic, 10) for topic in ('left', 'right')]
    synchronizer = TimeSynchronizer(subscribers, 10)
    synchronizer.registerCallback(lambda *pair: pairs.append(pair))
    publishers = [node.create_publisher(PointStamped, topic, 10) for topic in ('left', 'right')]
    assert spin_until(lambda: all(p.get_subscription_count() for p in publishers))
    for index in range(5):
        for publisher, name in zip(publishers, ('left', 'right'), strict=True):
            publisher.publish(stamped(index * 33 * MS, name))
    assert spin_until(lambda: len(pairs) == 5)
    assert [stamp_ns(left) // MS for left, _ in pairs] == [0, 33, 66, 99, 132]
    assert {(left.header.frame_id, right.header.frame_id) for left, right in pairs} == {
        ('left', 'right')
    }
