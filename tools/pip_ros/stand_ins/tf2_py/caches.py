"""What the buffer keeps of one frame: its parent and where it was, over time."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

from tf2_py.exceptions import ExtrapolationException
from tf2_py.rigid import Rigid


def seconds_text(time_ns: int) -> str:
    """Return a time as tf2's messages show it: seconds with six decimals."""
    return f'{time_ns // 10**9 + (time_ns % 10**9) * 1e-9:.6f}'


@dataclass(frozen=True)
class Stored:
    """The transform from a frame to its parent at one time."""

    time_ns: int
    parent: str
    transform: Rigid


class TimeCache:
    """The transforms of a moving frame, oldest first, for the last `duration_ns`."""

    def __init__(self, duration_ns: int) -> None:
        self.duration_ns = duration_ns
        self.entries: list[Stored] = []
        self._times_ns: list[int] = []

    @property
    def latest_ns(self) -> int:
        """The newest time kept, or 0."""
        return self._times_ns[-1] if self._times_ns else 0

    @property
    def oldest_ns(self) -> int:
        """The oldest time kept, or 0."""
        return self._times_ns[0] if self._times_ns else 0

    @property
    def latest_parent(self) -> str | None:
        """The parent at the newest time, or None when nothing is kept."""
        return self.entries[-1].parent if self.entries else None

    def insert(self, entry: Stored) -> bool:
        """Keep an entry in the order of time; returns False for one that is too old to be kept."""
        oldest_kept_ns = self.latest_ns - self.duration_ns
        stale = bisect_left(self._times_ns, oldest_kept_ns)
        del self.entries[:stale], self._times_ns[:stale]
        if self.entries and entry.time_ns < oldest_kept_ns:
            return False
        end = bisect_right(self._times_ns, entry.time_ns)
        if entry not in self.entries[bisect_left(self._times_ns, entry.time_ns) : end]:
            self.entries.insert(end, entry)
            self._times_ns.insert(end, entry.time_ns)
        return True

    def at(self, time_ns: int) -> Stored:
        """Return the entry at a time, interpolated between its neighbours; 0 asks for the newest.

        Where the parent changes, the older neighbour holds. Raises ExtrapolationException
        outside the times kept.
        """
        if not self.entries:
            raise ExtrapolationException('')
        if time_ns in (0, self.latest_ns):
            return self.entries[-1]
        if time_ns == self.oldest_ns:
            return self.entries[0]
        self._refuse_extrapolation(time_ns)
        newer = bisect_right(self._times_ns, time_ns)
        before, after = self.entries[newer - 1], self.entries[newer]
        if before.parent != after.parent:
            return before
        ratio = (time_ns - before.time_ns) / (after.time_ns - before.time_ns)
        return replace(before, transform=before.transform.toward(after.transform, ratio))

    def _refuse_extrapolation(self, time_ns: int) -> None:
        asked = seconds_text(time_ns)
        if len(self.entries) == 1:
            raise ExtrapolationException(
                f'Lookup would require extrapolation at time {asked}, but only time '
                f'{seconds_text(self.latest_ns)} is in the buffer'
            )
        if time_ns > self.latest_ns:
            raise ExtrapolationException(
                'Lookup would require extrapolation into the future.  Requested time '
                f'{asked} but the latest data is at time {seconds_text(self.latest_ns)}'
            )
        if time_ns < self.oldest_ns:
            raise ExtrapolationException(
                'Lookup would require extrapolation into the past.  Requested time '
                f'{asked} but the earliest data is at time {seconds_text(self.oldest_ns)}'
            )

    def clear(self) -> None:
        """Forget everything."""
        self.entries.clear()
        self._times_ns.clear()


class StaticCache:
    """The transform of a frame that never moves: the last one set, at any time."""

    latest_ns = 0
    oldest_ns = 0

    def __init__(self) -> None:
        self.entries: list[Stored] = []

    @property
    def latest_parent(self) -> str | None:
        """The parent."""
        return self.entries[0].parent if self.entries else None

    def insert(self, entry: Stored) -> bool:
        """Replace the transform; always returns True."""
        self.entries = [entry]
        return True

    def at(self, time_ns: int) -> Stored:
        """Return the transform as of a time."""
        return replace(self.entries[0], time_ns=time_ns)

    def clear(self) -> None:
        """Keep the transform: static frames outlive a jump in time."""
