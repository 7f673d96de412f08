"""Several filters as one."""

from dataclasses import dataclass
from typing import Any

from message_filters.simple_filter import SimpleFilter


class Chain(SimpleFilter):
    """Feeds its input through the filters added to it, one after the other."""

    @dataclass
    class FilterInfo:
        """A filter of the chain and the key of the callback that takes its output."""

        message_filter: Any
        connection_callback_index: int

    def __init__(self, message_filter: SimpleFilter | None = None) -> None:
        super().__init__()
        self.incoming_connection: int | None = None
        self._message_filters: dict[int, Chain.FilterInfo] = {}
        if message_filter is not None:
            self.connectInput(message_filter)

    def connectInput(self, message_filter: SimpleFilter) -> None:
        """Take the messages of `message_filter`; raises RuntimeError for a second input."""
        if self.incoming_connection is not None:
            raise RuntimeError('Already connected')
        self.incoming_connection = message_filter.registerCallback(self.add)

    def add(self, message: Any) -> None:
        """Give a message to the first filter, or straight to the callbacks of an empty chain."""
        if self._message_filters:
            self._message_filters[0].message_filter.add(message)
        else:
            self.signalMessage(message)

    def addFilter(self, message_filter: Any) -> None:
        """Append a filter, which must have `add(message)`, to the end of the chain."""
        index = len(self._message_filters)
        if index > 0:
            previous = self._message_filters[index - 1]
            previous.message_filter.unregisterCallback(previous.connection_callback_index)
            previous.connection_callback_index = previous.message_filter.registerCallback(
                message_filter.add
            )
        self._message_filters[index] = Chain.FilterInfo(
            message_filter, message_filter.registerCallback(self.signalMessage)
        )

    def getFilter(self, index: int) -> Any:
        """Return the filter added as number `index`; raises KeyError for an unknown one."""
        return self._message_filters[index].message_filter
