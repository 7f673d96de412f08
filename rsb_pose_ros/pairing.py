"""Pairs left and right images by their stamps, and counts those that find no partner."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from message_filters import ApproximateTimeSynchronizer, SimpleFilter, TimeSynchronizer

# A stamp may fall behind the newest of its camera by this much before it counts as a time jump.
_JUMP_BACK_NS = 50_000_000
# After a jump, images this close to the new time are kept: they belong to the new run of the bag.
_KEEP_NS = 1_000_000_000


@dataclass(frozen=True)
class Pair:
    """Two images of one moment. arrival_s: time.monotonic() when the later one came."""

    left: Any
    right: Any
    arrival_s: float

    @property
    def skew_ms(self) -> float:
        """Right stamp minus left stamp."""
        return (stamp_ns(self.right) - stamp_ns(self.left)) * 1e-6


@dataclass(frozen=True)
class PairingCounts:
    """Since the pairer was made. Unmatched images found no partner, waiting ones still may."""

    left: int
    right: int
    matched: int
    unmatched: int
    waiting: int
    rebuilds: int


def stamp_ns(message: Any) -> int:
    """Stamp of a message's header in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec * 1_000_000_000 + stamp.nanosec)


class ImagePairer:
    """Feeds a message_filters synchronizer and makes a new one where it would stay stuck.

    The synchronizers evict the smallest stamp from a full queue. Once time jumps back (a bag that
    loops) while a queue is full of later stamps, that is every new image, for ever. So a new
    synchronizer is made when a camera's stamps jump back, and when both cameras deliver a queue
    full without one match. `on_pair` is called inside add_left or add_right: it must only enqueue.
    """

    def __init__(
        self, on_pair: Callable[[Pair], None], *, approximate: bool, queue_size: int, slop_s: float
    ) -> None:
        self._on_pair = on_pair
        self._approximate = approximate
        self._queue_size = queue_size
        self._slop_s = slop_s
        self._received = [0, 0]
        self._since_match = [0, 0]
        self._stuck_reason = ''
        self._refused: list[str] = ['', '']
        self._newest_ns: list[int | None] = [None, None]
        self._matched = 0
        self._rebuilds = 0
        self._jumps = 0
        self._build()

    def add_left(self, image: Any) -> None:
        self._add(0, image)

    def add_right(self, image: Any) -> None:
        self._add(1, image)

    def set_policy(self, *, approximate: bool, queue_size: int, slop_s: float) -> None:
        """Change how images are paired; those that wait stay in line."""
        self._approximate = approximate
        self._queue_size = queue_size
        self._slop_s = slop_s
        self._rebuild(self._waiting())

    @property
    def counts(self) -> PairingCounts:
        waiting = sum(len(queue) for queue in self._synchronizer.queues)
        left, right = self._received
        # While a pair is handed on, it is counted and still in line.
        unmatched = max(left + right - 2 * self._matched - waiting, 0)
        return PairingCounts(left, right, self._matched, unmatched, waiting, self._rebuilds)

    @property
    def jumps(self) -> int:
        """How often a camera's stamps jumped back."""
        return self._jumps

    @property
    def stuck_reason(self) -> str:
        """Why images come but never match; empty while they match or too few came to tell."""
        return self._stuck_reason

    @property
    def refused(self) -> str:
        """Why the last image of a camera was not taken; empty where both were."""
        return next(filter(None, self._refused), '')

    def _describe_stamps(self) -> str:
        left, right = (list(queue) for queue in self._synchronizer.queues)
        gaps_ns = [abs(a - b) for a in left for b in right]
        rule = f'at most {self._slop_s * 1e3:g} ms apart' if self._approximate else 'equal'
        closest = f', the closest are about {_rounded_ms(min(gaps_ns))} apart' if gaps_ns else ''
        advice = 'raise slop_s' if self._approximate else 'set approximate_sync'
        return (
            f'left and right images arrive but their stamps never match: they must be {rule}'
            f'{closest}; synchronise the cameras or {advice}'
        )

    def _build(self) -> None:
        self._inputs = (SimpleFilter(), SimpleFilter())
        if self._approximate:
            self._synchronizer = ApproximateTimeSynchronizer(
                list(self._inputs), self._queue_size, self._slop_s
            )
        else:
            self._synchronizer = TimeSynchronizer(list(self._inputs), self._queue_size)
        self._synchronizer.registerCallback(self._match)

    def _add(self, side: int, image: Any) -> None:
        self._received[side] += 1
        now_ns = stamp_ns(image)
        self._refused[side] = _bad_stamp(('left', 'right')[side]) if now_ns < 0 else ''
        if self._refused[side]:
            return
        newest_ns = self._newest_ns[side]
        if newest_ns is not None and now_ns < newest_ns - _JUMP_BACK_NS:
            self._jumps += 1
            self._rebuild(
                [entry for entry in self._waiting() if abs(entry[1] - now_ns) <= _KEEP_NS]
            )
            self._newest_ns[side] = now_ns
        else:
            self._newest_ns[side] = max(now_ns, newest_ns or now_ns)
        self._since_match[side] += 1
        if min(self._since_match) > 2 * self._queue_size:
            self._stuck_reason = self._describe_stamps()
            self._since_match = [0, 0]
            self._rebuild([])
        self._inputs[side].signalMessage(image)

    def _match(self, left: Any, right: Any) -> None:
        self._matched += 1
        self._since_match = [0, 0]
        self._stuck_reason = ''
        self._on_pair(Pair(left, right, time.monotonic()))

    def _waiting(self) -> list[tuple[int, int, Any]]:
        """(side, stamp, image) of the images in line, oldest first."""
        return sorted(
            (
                (side, stamp, image)
                for side, queue in enumerate(self._synchronizer.queues)
                for stamp, image in queue.items()
            ),
            key=lambda entry: entry[1],
        )

    def _rebuild(self, keep: list[tuple[int, int, Any]]) -> None:
        self._rebuilds += 1
        self._build()
        for side, _, image in keep:
            self._inputs[side].signalMessage(image)


def _bad_stamp(view: str) -> str:
    return (
        f'the {view} images have stamps before the year 1970, which ROS does not take, and are '
        'left out; set the clock of its camera driver'
    )


def _rounded_ms(gap_ns: int) -> str:
    """One significant digit, so that the sentence does not change with every frame."""
    return f'{float(f"{gap_ns * 1e-6:.0e}"):g} ms'
