"""Filters that pass a message on only when it differs from the last one passed."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from message_filters.simple_filter import SimpleFilter

FieldGetter = Callable[[Any], Any]


class ComparisonHandler:
    """Decides which messages a ComparisonFilter passes on."""

    def message_fits(self, message: Any) -> bool:
        """Return whether to pass the message on."""
        raise NotImplementedError

    def do_fields_fit(self, field_a: Any, field_b: Any) -> bool:
        """Return whether two values of a field make a message worth passing on."""
        raise NotImplementedError


class CachedComparisonHandler(ComparisonHandler):
    """Compares each message with the last one that fitted; the first always fits."""

    _field_getters: Sequence[FieldGetter] = ()

    def __init__(self) -> None:
        super().__init__()
        self._message_cache: Any = None

    def message_fits(self, message: Any) -> bool:
        """Return whether any field of the message fits, and remember a message that does."""
        cached = self._message_cache
        fits = cached is None or any(
            self.do_fields_fit(get(cached), get(message)) for get in self._field_getters
        )
        if fits:
            self._message_cache = message
        return fits

    def do_fields_fit(self, field_a: Any, field_b: Any) -> bool:
        """Return whether the cached value and the new one make the message fit."""
        raise NotImplementedError(
            f'{type(self).__name__} does not compare fields: implement do_fields_fit'
        )


class DeltaCompare(CachedComparisonHandler):
    """Takes a message when one of its fields, read by `field_getters`, has changed."""

    _basic_types = (bool, int, float, str)

    def __init__(self, field_getters: Sequence[FieldGetter]) -> None:
        super().__init__()
        self._field_getters = field_getters

    def do_fields_fit(self, field_a: Any, field_b: Any) -> bool:
        """Return whether the values differ; raises TypeError for others than numbers and text."""
        if not (isinstance(field_a, self._basic_types) and isinstance(field_b, self._basic_types)):
            raise TypeError(
                f'Unable to compare fields of types {type(field_a)} and {type(field_b)}'
            )
        return bool(field_a != field_b)


class ComparisonFilter(SimpleFilter):
    """Passes on the messages that its handler takes."""

    def __init__(
        self,
        comparison_handler: CachedComparisonHandler,
        message_filter: SimpleFilter | None = None,
    ) -> None:
        super().__init__()
        self._comparison_handler = comparison_handler
        self.incoming_connection: int | None = None
        self.connectInput(message_filter)

    def add(self, message: Any) -> None:
        """Pass a message on if it fits."""
        if self.message_fits(message):
            self.signalMessage(message)

    def message_fits(self, message: Any) -> bool:
        """Return whether the handler takes a message."""
        return self._comparison_handler.message_fits(message)

    def connectInput(self, message_filter: SimpleFilter | None) -> None:
        """Take the messages of a filter; raises RuntimeError for a second one."""
        if self.incoming_connection is not None:
            raise RuntimeError(
                'This instance of ComparisonFilter already has an incoming connection'
            )
        if message_filter is not None:
            self.incoming_connection = message_filter.registerCallback(self.add)


class DeltaFilter(ComparisonFilter):
    """Passes on the messages in which a field, read by `field_getters`, has changed."""

    def __init__(
        self, field_getters: Sequence[FieldGetter], message_filter: SimpleFilter | None = None
    ) -> None:
        super().__init__(DeltaCompare(field_getters), message_filter)


class PathDeltaFilter(DeltaFilter):
    """Passes on the messages in which a field, named like 'header.frame_id', has changed."""

    def __init__(
        self, field_path_list: Sequence[str], message_filter: SimpleFilter | None = None
    ) -> None:
        super().__init__(
            [
                lambda message, path=path: self.get_field_by_path(message, path)
                for path in field_path_list
            ],
            message_filter,
        )

    def get_field_by_path(self, message: Any, field_path: str) -> Any:
        """Return a field of a message; raises RuntimeError when there is no such field."""

        def step(value: Any, name: str) -> Any:
            found = getattr(value, name, None)
            if found is None:
                raise RuntimeError(
                    f'Unable to access field {name!r} of {type(value).__name__} '
                    f'(full path: {field_path!r})'
                )
            return found

        return reduce(step, field_path.split('.'), message)
