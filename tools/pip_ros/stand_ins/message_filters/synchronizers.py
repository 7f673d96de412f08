"""Sets of messages that belong to the same time."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

from rclpy.duration import Duration
from rclpy.time import Time

from message_filters.simple_filter import SimpleFilter
from message_filters.stamps import stamp_or_arrival

Queue = dict[int, Any]  # messages by their time in nanoseconds


class TimeSynchronizer(SimpleFilter):
    """Calls back with one message of each input, all with the same stamp.

    Each input keeps its `queue_size` latest stamps. After a set is complete, whatever is older
    is dropped. The callbacks run under `self.lock`: one that raises leaves the lock held, as in
    Jazzy, and the next message then waits for ever, so a callback must not raise.
    """

    def __init__(self, fs: Sequence[SimpleFilter], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.lock = threading.Lock()
        self.connectInput(fs)

    def connectInput(self, fs: Sequence[SimpleFilter]) -> None:
        """Take the messages of the filters `fs`, each into an empty queue of its own."""
        self.queues: list[Queue] = [{} for _ in fs]
        self.input_connections = [
            f.registerCallback(self.add, queue, index)
            for index, (f, queue) in enumerate(zip(fs, self.queues, strict=True))
        ]

    def add(self, msg: Any, my_queue: Queue, my_queue_index: int | None = None) -> None:
        """Keep a message in `my_queue` and signal the oldest complete set."""
        self.lock.acquire()
        self._keep(msg, Time.from_msg(msg.header.stamp).nanoseconds, my_queue)
        complete = set(self.queues[0]).intersection(*self.queues[1:])
        if complete:
            stamp_ns = min(complete)
            self._signal_set([stamp_ns] * len(self.queues))
            for queue in self.queues:
                for older in [kept for kept in queue if kept < stamp_ns]:
                    del queue[older]
        self.lock.release()

    def _keep(self, msg: Any, stamp_ns: int, queue: Queue) -> None:
        """Put a message into a queue and drop the oldest stamps of a queue that is too long."""
        queue[stamp_ns] = msg
        while len(queue) > self.queue_size:
            del queue[min(queue)]

    def _signal_set(self, stamps_ns: Sequence[int]) -> None:
        """Signal the messages with one stamp per queue, then remove them."""
        pairs = list(zip(self.queues, stamps_ns, strict=True))
        self.signalMessage(*(queue[stamp_ns] for queue, stamp_ns in pairs))
        for queue, stamp_ns in pairs:
            del queue[stamp_ns]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Calls back with one message of each input, all less than `slop` seconds apart.

    A set is complete as soon as a message finds partners, the nearest in time of the earlier
    inputs first. Messages exactly `slop` apart do not match, so a slop of 0 matches nothing.
    A message without a header is dropped with a warning, or kept with its time of arrival when
    `allow_headerless` is set. Messages that never find a partner stay until the queue overflows.
    """

    def __init__(
        self,
        fs: Sequence[SimpleFilter],
        queue_size: int,
        slop: float,
        allow_headerless: bool = False,
    ) -> None:
        super().__init__(fs, queue_size)
        self.slop = Duration(seconds=slop)
        self.allow_headerless = allow_headerless

    def add(self, msg: Any, my_queue: Queue, my_queue_index: int | None = None) -> None:
        """Keep a message in `my_queue` and signal the best set that it completes."""
        stamp = stamp_or_arrival(msg, self.allow_headerless, 'message_filters_approx')
        if stamp is None:
            return
        self.lock.acquire()
        self._keep(msg, stamp.nanoseconds, my_queue)
        stamps_ns = self._complete_set(stamp.nanoseconds, my_queue_index)
        if stamps_ns is not None:
            self._signal_set(stamps_ns)
        self.lock.release()

    def _complete_set(self, stamp_ns: int, queue_index: int | None) -> tuple[int, ...] | None:
        """Return one stamp per queue with `stamp_ns` at `queue_index`, or None without a set."""
        candidates: list[Sequence[int]] = []
        for index, queue in enumerate(self.queues):
            if index == queue_index:
                candidates.append((stamp_ns,) if stamp_ns in queue else ())
                continue
            near = [kept for kept in queue if abs(kept - stamp_ns) <= self.slop.nanoseconds]
            candidates.append(sorted(near, key=lambda kept: abs(kept - stamp_ns)))
        for stamps_ns in itertools.product(*candidates):
            if max(stamps_ns) - min(stamps_ns) < self.slop.nanoseconds:
                return stamps_ns
        return None
