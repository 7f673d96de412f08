"""Where the time of rendering goes: named stages, measured only while somebody asks."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

_OFF: AbstractContextManager[None] = nullcontext()
_watch: 'Stopwatch | None' = None


class Stopwatch:
    """Seconds by stage. A stage inside another counts for itself, not for the outer one."""

    def __init__(self, device: str) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._cuda = torch.device(device).type == 'cuda'
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time until the end of the block as that of `name`."""
        self._turn()
        self._running.append(name)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        """Book the time since the last turn on the innermost running stage."""
        if self._cuda:
            torch.cuda.synchronize()  # kernels run on after their call returned
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def stage(name: str) -> AbstractContextManager[None]:
    """Context manager round a stage of rendering: does nothing outside `measured`."""
    return _OFF if _watch is None else _watch.stage(name)


@contextmanager
def measured(device: str) -> Iterator[Stopwatch]:
    """Measure the stages of this block, which renders on `device`, in one thread."""
    global _watch
    before, _watch = _watch, Stopwatch(device)
    try:
        yield _watch
    finally:
        _watch = before
