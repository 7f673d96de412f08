import pytest
from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import PointStamped
from message_filters import SimpleFilter
from message_filters.delta_filter import (
    CachedComparisonHandler,
    ComparisonFilter,
    DeltaFilter,
    PathDeltaFilter,
)
from message_filters.input_aligner import InputAligner, QueueStatus
from rclpy.duration import Duration


def point(x, time_s=0, frame='camera'):
    message = PointStamped()
    message.header.stamp = TimeMsg(sec=time_s)
    message.header.frame_id = frame
    message.point.x = x
    return message


@pytest.mark.parametrize(
    'make',
    [
        lambda source: DeltaFilter([lambda m: m.point.x, lambda m: m.header.frame_id], source),
        lambda source: PathDeltaFilter(['point.x', 'header.frame_id'], source),
    ],
)
def test_delta_filter_passes_on_what_changed(make):
    source, passed = SimpleFilter(), []
    changes = make(source)
    changes.registerCallback(lambda m: passed.append((m.point.x, m.header.frame_id)))
    for x, frame in ((1.0, 'a'), (1.0, 'a'), (2.0, 'a'), (2.0, 'b'), (2.0, 'b'), (1.0, 'a')):
        source.signalMessage(point(x, frame=frame))
    assert passed == [(1.0, 'a'), (2.0, 'a'), (2.0, 'b'), (1.0, 'a')]
    with pytest.raises(RuntimeError, match='already has an incoming connection'):
        changes.connectInput(source)


def test_delta_filter_refuses_what_it_cannot_compare():
    changes = DeltaFilter([lambda m: m.point])
    changes.add(point(1.0))
    with pytest.raises(TypeError, match='Unable to compare'):
        changes.add(point(1.0))
    wrong = PathDeltaFilter(['point.w'])
    wrong.add(point(1.0))
    with pytest.raises(RuntimeError, match=r"'w' of Point \(full path: 'point.w'\)"):
        wrong.add(point(1.0))


def test_comparison_filter_takes_a_handler_of_ones_own():
    class Growing(CachedComparisonHandler):
        _field_getters = (lambda m: m.point.x,)

        def do_fields_fit(self, field_a, field_b):
            return field_b > field_a

    passed = []
    growing = ComparisonFilter(Growing())
    growing.registerCallback(lambda m: passed.append(m.point.x))
    for x in (2.0, 1.0, 3.0, 3.0, 4.0):
        growing.add(point(x))
    assert passed == [2.0, 3.0, 4.0]


def aligner(timeout_s=5.0):
    inputs, delivered = [SimpleFilter(), SimpleFilter()], []
    aligned = InputAligner(Duration(seconds=timeout_s), inputs)
    for index, name in enumerate(('left', 'right')):
        aligned.registerCallback(
            index,
            lambda m, name: delivered.append((name, m.header.stamp.sec)),
            name,
        )
    return inputs, aligned, delivered


def test_aligner_delivers_in_the_order_of_the_stamps():
    inputs, aligned, delivered = aligner()
    for index, time_s in ((0, 3), (1, 2), (0, 1), (1, 4)):
        inputs[index].signalMessage(point(0.0, time_s))
    assert delivered == []
    aligned.dispatchMessages()
    # right's next message may still have the stamp 4 that left has not reached
    assert delivered == [('left', 1), ('right', 2), ('left', 3)]
    assert aligned.getQueueStatus(1) == QueueStatus(True, 1, 1, 0)
    inputs[0].signalMessage(point(0.0, 2))
    assert aligned.getQueueStatus(0).msgs_dropped == 1


def test_aligner_stops_waiting_after_the_timeout():
    inputs, aligned, delivered = aligner(timeout_s=5.0)
    aligned.setInputPeriod(0, Duration(seconds=1.0))
    inputs[0].signalMessage(point(0.0, 1))
    for time_s in (1, 2, 6):
        inputs[1].signalMessage(point(0.0, time_s))
    aligned.dispatchMessages()
    # left is expected at 2; the newest stamp 6 is only 4 s later
    assert delivered == [('left', 1), ('right', 1)]
    inputs[1].signalMessage(point(0.0, 7))
    aligned.dispatchMessages()
    assert delivered[2:] == [('right', 2), ('right', 6), ('right', 7)]
    assert not aligned.getQueueStatus(0).active


def test_disconnected_aligner_takes_nothing():
    inputs, aligned, _ = aligner()
    aligned.disconnectAll()
    inputs[0].signalMessage(point(0.0, 1))
    assert aligned.getQueueStatus(0).queue_size == 0
    aligned.setName('pair')
    assert aligned.getName() == 'pair'
