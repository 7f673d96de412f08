"""BufferCore: the transforms of the last seconds and lookups among them."""

import math
import threading
from typing import Any

from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3
from rclpy.logging import get_logger
from rclpy.time import Time

from tf2_py.caches import StaticCache, Stored, TimeCache, seconds_text
from tf2_py.exceptions import InvalidArgumentException, LookupException, TransformException
from tf2_py.rigid import Rigid, canonical
from tf2_py.tree import latest_common_time_ns, transform_between

DEFAULT_CACHE_TIME_NS = 10 * 10**9


class BufferCore:
    """Keeps the transforms of `cache_time` (default 10 s) and answers lookups, from any thread.

    Times are rclpy's Time or Duration or their messages; time 0 asks for the latest.
    """

    def __init__(self, cache_time: Any = None) -> None:
        self._duration_ns = (
            DEFAULT_CACHE_TIME_NS if cache_time is None else _nanoseconds(cache_time, 'duration')
        )
        self._caches: dict[str, TimeCache | StaticCache] = {}
        self._authorities: dict[str, str] = {}
        self._frames: dict[str, None] = {}  # every name heard of, in that order
        self._lock = threading.RLock()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Keep where `child_frame_id` is in `header.frame_id` at `header.stamp`.

        A transform that is not usable is ignored with an error in the log, one older than the
        buffer reaches with a warning.
        """
        self._set(transform, authority, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Keep where `child_frame_id` is in `header.frame_id` at any time."""
        self._set(transform, authority, static=True)

    def _set(self, transform: TransformStamped, authority: str, *, static: bool) -> None:
        time_ns = _nanoseconds(transform.header.stamp, 'time')
        parent = transform.header.frame_id.removeprefix('/')
        child = transform.child_frame_id.removeprefix('/')
        rigid = _rigid(transform)
        reason = _reason_to_ignore(parent, child, rigid)
        if reason is not None:
            get_logger('tf2').error(
                f'{reason}: Ignoring transform from authority "{authority}" with frame_id '
                f'"{parent}" and child_frame_id "{child}"'
            )
            return
        with self._lock:
            self._frames.setdefault(child)
            cache = self._caches.get(child)
            if cache is None or isinstance(cache, StaticCache) != static:
                cache = StaticCache() if static else TimeCache(self._duration_ns)
                self._caches[child] = cache
            self._frames.setdefault(parent)
            if cache.insert(Stored(time_ns, parent, rigid)):
                self._authorities[child] = authority
                return
        get_logger('tf2').warning(
            f'TF_OLD_DATA ignoring data from the past for frame {child} at time '
            f'{seconds_text(time_ns)} according to authority {authority}'
        )

    def lookup_transform_core(
        self, target_frame: str, source_frame: str, time: Any
    ) -> TransformStamped:
        """Return the transform that takes points from the source to the target frame.

        Raises LookupException, ConnectivityException, ExtrapolationException or
        InvalidArgumentException.
        """
        rigid, time_ns = self._lookup(target_frame, source_frame, _nanoseconds(time, 'time'))
        return _message(rigid, time_ns, target_frame, source_frame)

    def lookup_transform_full_core(
        self,
        target_frame: str,
        target_time: Any,
        source_frame: str,
        source_time: Any,
        fixed_frame: str,
    ) -> TransformStamped:
        """Return the transform from the source at one time to the target at another.

        Goes through `fixed_frame`, which does not move between the times. Raises as
        `lookup_transform_core`.
        """
        source_ns, target_ns = _nanoseconds(source_time, 'time'), _nanoseconds(target_time, 'time')
        with self._lock:
            self._require_frame(target_frame, 'lookupTransform argument target_frame')
            self._require_frame(source_frame, 'lookupTransform argument source_frame')
            self._require_frame(fixed_frame, 'lookupTransform argument fixed_frame')
            to_fixed, _ = self._lookup(fixed_frame, source_frame, source_ns)
            to_target, time_ns = self._lookup(target_frame, fixed_frame, target_ns)
        return _message(to_target @ to_fixed, time_ns, target_frame, source_frame)

    def can_transform_core(
        self, target_frame: str, source_frame: str, time: Any
    ) -> tuple[int, str]:
        """Return 1 and '' when the lookup would succeed, else 0 and the reason."""
        time_ns = _nanoseconds(time, 'time')
        if target_frame == source_frame:
            return 1, ''
        return self._can(
            [('target_frame', target_frame), ('source_frame', source_frame)],
            [(target_frame, source_frame, time_ns)],
        )

    def can_transform_full_core(
        self,
        target_frame: str,
        target_time: Any,
        source_frame: str,
        source_time: Any,
        fixed_frame: str,
    ) -> tuple[int, str]:
        """Return 1 and '' when the full lookup would succeed, else 0 and the reason."""
        return self._can(
            [
                ('target_frame', target_frame),
                ('source_frame', source_frame),
                ('fixed_frame', fixed_frame),
            ],
            [
                (target_frame, fixed_frame, _nanoseconds(target_time, 'time')),
                (fixed_frame, source_frame, _nanoseconds(source_time, 'time')),
            ],
        )

    def _can(
        self, arguments: list[tuple[str, str]], lookups: list[tuple[str, str, int]]
    ) -> tuple[int, str]:
        with self._lock:
            for name, frame in arguments:
                reason = self._bad_frame(frame) or (
                    None if frame in self._frames else 'frame does not exist'
                )
                if reason is not None:
                    return 0, (
                        f'Invalid frame ID "{frame}" passed to canTransform argument {name} - '
                        f'{reason}'
                    )
            try:
                for target, source, time_ns in lookups:
                    transform_between(self._caches, target, source, time_ns)
            except TransformException as error:
                return 0, str(error)
        return 1, ''

    def get_latest_common_time(self, target_frame: str, source_frame: str, /) -> Time:
        """Return the latest time for which the transform between the frames is known.

        Raises LookupException or InvalidArgumentException for a bad frame, and
        TransformException when the frames are not connected.
        """
        with self._lock:
            for frame in (target_frame, source_frame):
                self._require_frame(frame, 'get_latest_common_time')
            try:
                time_ns = latest_common_time_ns(self._caches, target_frame, source_frame)
            except TransformException as error:
                raise TransformException(str(error)) from error
        return Time(nanoseconds=time_ns)

    def clear(self) -> None:
        """Forget all transforms but the static ones; the names of the frames stay known."""
        with self._lock:
            for cache in self._caches.values():
                cache.clear()

    def all_frames_as_string(self) -> str:
        """Return one line per frame with its parent."""
        with self._lock:
            return ''.join(
                f'Frame {frame} exists with parent {cache.latest_parent or "NO_PARENT"}.\n'
                for frame, cache in self._caches.items()
            )

    def all_frames_as_yaml(self) -> str:
        """Return a YAML mapping from each frame to its parent, source, rate and times."""
        with self._lock:
            if not self._frames:
                return '[]'
            return ''.join(
                _yaml_entry(frame, cache, self._authorities[frame])
                for frame, cache in self._caches.items()
                if cache.entries
            )

    def _frameExists(self, frame_id: str) -> bool:
        with self._lock:
            return frame_id in self._frames

    def _getFrameStrings(self) -> list[str]:
        with self._lock:
            return list(self._frames)

    def _lookup(self, target: str, source: str, time_ns: int) -> tuple[Rigid, int]:
        with self._lock:
            if target == source:
                if time_ns == 0 and target in self._caches:
                    time_ns = self._caches[target].latest_ns
                return Rigid(), time_ns
            self._require_frame(target, 'lookupTransform argument target_frame')
            self._require_frame(source, 'lookupTransform argument source_frame')
            return transform_between(self._caches, target, source, time_ns)

    @staticmethod
    def _bad_frame(frame: str) -> str | None:
        if not frame:
            return 'in tf2 frame_ids cannot be empty'
        return "in tf2 frame_ids cannot start with a '/'" if frame.startswith('/') else None

    def _require_frame(self, frame: str, argument: str) -> None:
        reason = self._bad_frame(frame)
        if reason is not None:
            raise InvalidArgumentException(
                f'Invalid argument "{frame}" passed to {argument} - {reason}'
            )
        if frame not in self._frames:
            raise LookupException(f'"{frame}" passed to {argument} does not exist. ')


def _nanoseconds(time: Any, kind: str) -> int:
    """Return the nanoseconds of rclpy's Time or Duration or of their messages."""
    if hasattr(time, 'sec') and hasattr(time, 'nanosec'):
        return int(time.sec) * 10**9 + int(time.nanosec)
    if hasattr(time, 'nanoseconds'):
        return int(time.nanoseconds)
    raise TypeError(f'{kind} must have sec and nanosec, or nanoseconds.')


def _rigid(message: TransformStamped) -> Rigid:
    translation, rotation = message.transform.translation, message.transform.rotation
    return Rigid(
        (float(translation.x), float(translation.y), float(translation.z)),
        canonical((float(rotation.x), float(rotation.y), float(rotation.z), float(rotation.w))),
    )


def _reason_to_ignore(parent: str, child: str, rigid: Rigid) -> str | None:
    """Return tf2's name of what is wrong with a transform, or None."""
    if parent == child:
        return 'TF_SELF_TRANSFORM'
    if not child:
        return 'TF_NO_CHILD_FRAME_ID'
    if not parent:
        return 'TF_NO_FRAME_ID'
    if any(math.isnan(value) for value in (*rigid.translation, *rigid.rotation)):
        return 'TF_NAN_INPUT'
    return None


def _message(rigid: Rigid, time_ns: int, target: str, source: str) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp = TimeMsg(sec=time_ns // 10**9, nanosec=time_ns % 10**9)
    message.header.frame_id = target
    message.child_frame_id = source
    x, y, z = rigid.translation
    message.transform.translation = Vector3(x=x, y=y, z=z)
    x, y, z, w = canonical(rigid.rotation)
    message.transform.rotation = Quaternion(x=x, y=y, z=z, w=w)
    return message


def _yaml_entry(frame: str, cache: TimeCache | StaticCache, authority: str) -> str:
    length_s = (cache.latest_ns - cache.oldest_ns) * 1e-9
    rate_hz = len(cache.entries) / max(length_s, 1e-4)
    return (
        f"{frame}: \n  parent: '{cache.latest_parent}'\n  broadcaster: '{authority}'\n"
        f'  rate: {rate_hz:.3f}\n  most_recent_transform: {seconds_text(cache.latest_ns)}\n'
        f'  oldest_transform: {seconds_text(cache.oldest_ns)}\n  buffer_length: {length_s:.3f}\n'
    )
