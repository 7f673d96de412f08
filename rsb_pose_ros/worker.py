"""One thread that works on the newest item and counts the items it had no time for."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar('Item')


@dataclass(frozen=True)
class WorkerCounts:
    """offered = processed + dropped + in_hand. dropped: replaced by a newer one, or failed."""

    offered: int
    processed: int
    dropped: int
    in_hand: int


class NewestWorker(Generic[Item]):
    """Calls `work` on the newest item offered, in a thread that no exception ends.

    An item that is still waiting when a newer one comes is dropped. An item whose work raises is
    dropped too, and `on_error` gets the exception. A worker can be started again after stop().
    """

    def __init__(
        self, work: Callable[[Item], None], on_error: Callable[[Exception], None], name: str
    ) -> None:
        self._work = work
        self._on_error = on_error
        self._name = name
        self._condition = threading.Condition()
        self._waiting: Item | None = None
        self._offered = 0
        self._processed = 0
        self._dropped = 0
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; nothing happens when it runs already."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Drop what waits and end the thread; False when it is still at work after timeout_s."""
        with self._condition:
            self._stopping = True
            self._drop_waiting()
            self._condition.notify_all()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def offer(self, item: Item) -> None:
        """Put the newest item in line in place of the one that waits there."""
        with self._condition:
            self._offered += 1
            self._drop_waiting()
            if self._stopping:
                self._dropped += 1
                return
            self._waiting = item
            self._condition.notify_all()

    @property
    def counts(self) -> WorkerCounts:
        with self._condition:
            in_hand = self._offered - self._processed - self._dropped
            return WorkerCounts(self._offered, self._processed, self._dropped, in_hand)

    def _drop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting = None
            self._dropped += 1

    def _run(self) -> None:
        while True:
            with self._condition:
                while self._waiting is None and not self._stopping:
                    self._condition.wait()
                if self._waiting is None:
                    return
                item, self._waiting = self._waiting, None
            try:
                self._work(item)
            except Exception as error:
                self._report(error)
                with self._condition:
                    self._dropped += 1
            else:
                with self._condition:
                    self._processed += 1

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception as second:
            print(f'{self._name}: reporting "{error}" failed: {second}')
