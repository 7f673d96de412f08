"""Inputs put into the order of their stamps, each still with its own output."""

import heapq
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.clock import ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time

from message_filters.simple_filter import SimpleFilter

NEVER = Time(nanoseconds=2**63 - 1, clock_type=ClockType.ROS_TIME)


@dataclass
class QueueStatus:
    """How one input is doing."""

    active: bool
    queue_size: int
    msgs_processed: int
    msgs_dropped: int


class EventQueue:
    """The waiting messages of one input and when it may deliver the next."""

    def __init__(self) -> None:
        self.events: list[tuple[Time, int, Any]] = []
        self.next_ts = NEVER
        self.period = Duration(seconds=0)
        self.active = False
        self.msgs_processed = 0
        self.msgs_dropped = 0
        self._pushed = 0

    def push(self, stamp: Time, msg: Any) -> None:
        """Keep a message; those of the same stamp stay in their order."""
        heapq.heappush(self.events, (stamp, self._pushed, msg))
        self._pushed += 1

    def first_timestamp(self) -> Time:
        """Return the time of the next message: known, expected by the period, or never."""
        if self.events:
            self.active = True
            self.next_ts = self.events[0][0] + self.period
            return self.events[0][0]
        return self.next_ts if self.active else NEVER

    def pop_first(self) -> tuple[Time, Any]:
        """Take the message with the smallest stamp out of the queue."""
        stamp, _, msg = heapq.heappop(self.events)
        self.msgs_processed += 1
        return stamp, msg

    def get_status(self) -> QueueStatus:
        """Return the counts so far."""
        return QueueStatus(self.active, len(self.events), self.msgs_processed, self.msgs_dropped)


class InputAligner:
    """Delivers the messages of several inputs in the order of their stamps.

    Each input has callbacks of its own. An input that should have delivered, by its period, is
    waited for until the newest stamp is `timeout` later.
    """

    def __init__(self, timeout: Duration, filters: Sequence[SimpleFilter] | None = None) -> None:
        self.timeout = timeout
        self.last_in_ts = Time(clock_type=ClockType.ROS_TIME)
        self.last_out_ts = Time(clock_type=ClockType.ROS_TIME)
        self.name = ''
        self.lock = threading.RLock()
        self.event_queues: list[EventQueue] = []
        self.input_connections: list[tuple[SimpleFilter, int]] = []
        self.signals: list[SimpleFilter] = []
        self.dispatch_timer: Any = None
        if filters is not None:
            self.connectInput(filters)

    def connectInput(self, filters: Sequence[SimpleFilter]) -> None:
        """Take the messages of `filters` instead of the inputs and callbacks so far."""
        with self.lock:
            self.disconnectAll()
            self.event_queues = [EventQueue() for _ in filters]
            self.signals = [SimpleFilter() for _ in filters]
            self.input_connections = [
                (source, source.registerCallback(self.add, index))
                for index, source in enumerate(filters)
            ]

    def disconnectAll(self) -> None:
        """Take no more messages."""
        with self.lock:
            for source, connection in self.input_connections:
                source.unregisterCallback(connection)
            self.input_connections = []

    def registerCallback(self, index: int, callback: Callable[..., Any], *args: Any) -> int:
        """Call `callback` with the messages of one input, followed by `args`."""
        return self.signals[index].registerCallback(callback, *args)

    def setName(self, name: str) -> None:
        """Set the aligner's name."""
        self.name = name

    def getName(self) -> str:
        """Return the aligner's name."""
        return self.name

    def add(self, msg: Any, queue_index: int) -> None:
        """Keep a message of an input, or count it as dropped when it is older than the output."""
        stamp = Time.from_msg(msg.header.stamp)
        with self.lock:
            queue = self.event_queues[queue_index]
            if stamp < self.last_out_ts:
                queue.msgs_dropped += 1
                return
            self.last_in_ts = max(self.last_in_ts, stamp)
            queue.push(stamp, msg)

    def setInputPeriod(self, index: int, period: Duration) -> None:
        """Set how long after a message the next of an input is expected."""
        self.event_queues[index].period = period

    def getQueueStatus(self, index: int) -> QueueStatus:
        """Return how an input is doing."""
        return self.event_queues[index].get_status()

    def setupDispatchTimer(self, node: Node, update_rate: Duration) -> None:
        """Deliver every `update_rate` (a period in spite of its name) from a timer of the node."""
        self.dispatch_timer = node.create_timer(
            update_rate.nanoseconds / 1e9, self.dispatchMessages
        )

    def dispatchMessages(self) -> None:
        """Deliver all messages that no other input can precede any more."""
        with self.lock:
            if any(queue.events for queue in self.event_queues):
                while self._dispatch_first():
                    pass

    def _dispatch_first(self) -> bool:
        """Deliver one message or stop waiting for one input; returns False when neither is due."""
        first = [queue.first_timestamp().nanoseconds for queue in self.event_queues]
        index = first.index(min(first))
        queue = self.event_queues[index]
        if queue.events:
            self.last_out_ts, msg = queue.pop_first()
            self.signals[index].signalMessage(msg)
            return True
        if self.last_in_ts - queue.first_timestamp() >= self.timeout:
            queue.active = False
            return True
        return False
