"""The ways between the frames of a tree."""

from collections.abc import Mapping

from tf2_py.caches import StaticCache, TimeCache
from tf2_py.exceptions import ConnectivityException, ExtrapolationException, LookupException
from tf2_py.rigid import Rigid

MAX_GRAPH_DEPTH = 1000  # hops after which a tree must have a loop

Caches = Mapping[str, TimeCache | StaticCache]


def latest_common_time_ns(caches: Caches, target: str, source: str) -> int:
    """Return the latest time at which every hop from source to target has data, 0 if all static.

    Raises ConnectivityException or LookupException.
    """
    if source == target:
        return caches[source].latest_ns if source in caches else 0
    source_hops = _latest_hops(caches, source, target)
    if source_hops and source_hops[-1][1] == target:
        return _earliest([time_ns for time_ns, _ in source_hops])
    parents = [parent for _, parent in source_hops]
    target_hops = _latest_hops(caches, target, source)
    for up, (_, parent) in enumerate(target_hops, 1):
        if parent in parents:
            shared = source_hops[: parents.index(parent) + 1]
            return _earliest([time_ns for time_ns, _ in target_hops[:up] + shared])
        if parent == source:
            return _earliest([time_ns for time_ns, _ in target_hops[:up]])
    raise _not_connected(target, source)


def transform_between(caches: Caches, target: str, source: str, time_ns: int) -> tuple[Rigid, int]:
    """Return the transform of points from source to target and the time that it holds for.

    Time 0 asks for the latest common time. Raises ConnectivityException,
    ExtrapolationException or LookupException.
    """
    if source == target:
        return Rigid(), time_ns
    if time_ns == 0:
        time_ns = latest_common_time_ns(caches, target, source)
    where = f', when looking up transform from frame [{source}] to frame [{target}]'

    source_to_top, top, broken = _climb(caches, source, {target}, time_ns)
    target_to_top, end, broken_below_target = _climb(caches, target, {top, source}, time_ns)
    if end == top:
        return target_to_top.inverse() @ source_to_top, time_ns
    if end == source:
        return target_to_top.inverse(), time_ns
    if broken_below_target is not None and (
        broken is None or caches[top].latest_ns < caches[end].latest_ns
    ):
        broken = broken_below_target
    if broken is not None:
        raise ExtrapolationException(f'{broken}{where}')
    raise _not_connected(target, source)


def _climb(
    caches: Caches, frame: str, ends: set[str], time_ns: int
) -> tuple[Rigid, str, ExtrapolationException | None]:
    """Climb from a frame to one of `ends`, to the root, or to where the data does not reach.

    Returns the transform to the frame reached, that frame, and what barred the way, if anything.
    """
    total = Rigid()
    for _ in range(MAX_GRAPH_DEPTH + 1):
        if frame in ends or frame not in caches:
            return total, frame, None
        try:
            hop = caches[frame].at(time_ns)
        except ExtrapolationException as error:
            return total, frame, error
        total = hop.transform @ total
        frame = hop.parent
    raise _has_loop()


def _latest_hops(caches: Caches, frame: str, end: str) -> list[tuple[int, str]]:
    """Return the latest time and parent of each hop from a frame up to `end` or the root."""
    hops: list[tuple[int, str]] = []
    while frame in caches and frame != end:
        parent = caches[frame].latest_parent
        if parent is None:
            break
        hops.append((caches[frame].latest_ns, parent))
        if len(hops) > MAX_GRAPH_DEPTH:
            raise _has_loop()
        frame = parent
    return hops


def _earliest(times_ns: list[int]) -> int:
    return min((time_ns for time_ns in times_ns if time_ns != 0), default=0)


def _not_connected(target: str, source: str) -> ConnectivityException:
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not "
        'part of the same tree.Tf has two or more unconnected trees.'
    )


def _has_loop() -> LookupException:
    return LookupException('The tf tree is invalid because it contains a loop.')
