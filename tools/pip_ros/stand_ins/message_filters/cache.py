"""The last messages of a filter, kept with their times."""

from typing import Any

from rclpy.time import Time

from message_filters.simple_filter import SimpleFilter
from message_filters.stamps import stamp_or_arrival


class Cache(SimpleFilter):
    """Keeps the last `cache_size` messages in the order of their arrival and passes them on.

    A message without a header is dropped with a warning, or kept with its time of arrival when
    `allow_headerless` is set.
    """

    def __init__(
        self, f: SimpleFilter, cache_size: int = 1, allow_headerless: bool = False
    ) -> None:
        super().__init__()
        self.cache_size = cache_size
        self.cache_msgs: list[Any] = []
        self.cache_times: list[Time] = []
        self.allow_headerless = allow_headerless
        self.connectInput(f)

    def connectInput(self, f: SimpleFilter) -> None:
        """Take the messages of `f`."""
        self.incoming_connection = f.registerCallback(self.add)

    def add(self, msg: Any) -> None:
        """Keep a message, drop the first to arrive when there are too many, pass it on."""
        stamp = stamp_or_arrival(msg, self.allow_headerless, 'message_filters_cache')
        if stamp is None:
            return
        self.cache_msgs.append(msg)
        self.cache_times.append(stamp)
        if len(self.cache_msgs) > self.cache_size:
            del self.cache_msgs[0]
            del self.cache_times[0]
        self.signalMessage(msg)

    def getInterval(self, from_stamp: Time, to_stamp: Time) -> list[Any]:
        """Return the messages from `from_stamp` to `to_stamp`, both included.

        Raises AssertionError when the interval ends before it begins.
        """
        assert from_stamp <= to_stamp
        return [
            msg
            for msg, time in zip(self.cache_msgs, self.cache_times, strict=True)
            if from_stamp <= time <= to_stamp
        ]

    def getElemAfterTime(self, stamp: Time) -> Any:
        """Return the first kept message at `stamp` or later, or None."""
        pairs = zip(self.cache_msgs, self.cache_times, strict=True)
        return next((msg for msg, time in pairs if time >= stamp), None)

    def getElemBeforeTime(self, stamp: Time) -> Any:
        """Return the last kept message at `stamp` or earlier, or None."""
        pairs = zip(reversed(self.cache_msgs), reversed(self.cache_times), strict=True)
        return next((msg for msg, time in pairs if time <= stamp), None)

    def getLastestTime(self) -> Time | None:
        """Return the time of the message that arrived last, or None."""
        return self.cache_times[-1] if self.cache_times else None

    def getOldestTime(self) -> Time | None:
        """Return the time of the message that arrived first, or None."""
        return self.cache_times[0] if self.cache_times else None

    def getLast(self) -> Any:
        """Return the first kept message that is no older than the last one to arrive, or None."""
        latest = self.getLastestTime()
        return None if latest is None else self.getElemAfterTime(latest)
