"""Why a transform cannot be had."""


class TransformException(Exception):
    """The base of all errors of tf2."""


class ConnectivityException(TransformException):
    """The frames are not part of the same tree."""


class LookupException(TransformException):
    """A frame is not known, or the tree has a loop."""


class ExtrapolationException(TransformException):
    """The time is outside what the buffer holds for a frame on the way."""


class InvalidArgumentException(TransformException):
    """A frame has no proper name."""


class TimeoutException(TransformException):
    """The transform did not come in time."""
