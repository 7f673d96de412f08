"""The base of every filter: a list of callbacks and a way to call them."""

from collections.abc import Callable
from typing import Any


class SimpleFilter:
    """A source of messages that calls every registered callback."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, callback: Callable[..., Any], *args: Any) -> int:
        """Call `callback` with each output, followed by `args`; returns the connection's key."""
        connection = len(self.callbacks)
        self.callbacks[connection] = (callback, args)
        return connection

    def unregisterCallback(self, conn: int) -> None:
        """Forget the callback of a connection; an unknown key is ignored."""
        self.callbacks.pop(conn, None)

    def signalMessage(self, *msg: Any) -> None:
        """Call the callbacks in the order of their registration, in the caller's thread."""
        for callback, args in self.callbacks.values():
            callback(*msg, *args)
