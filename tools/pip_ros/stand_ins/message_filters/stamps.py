"""The time of a message, for the filters that keep messages by their time."""

from typing import Any

from rclpy.clock import ROSClock
from rclpy.logging import LoggingSeverity, get_logger
from rclpy.time import Time


def header_stamp(msg: Any) -> Time | None:
    """Return the stamp of the message's header, or None when it has no header."""
    stamp = getattr(getattr(msg, 'header', None), 'stamp', None)
    if stamp is None or hasattr(stamp, 'nanoseconds'):
        return stamp
    return Time.from_msg(stamp)


def stamp_or_arrival(msg: Any, allow_headerless: bool, logger_name: str) -> Time | None:
    """Return the message's stamp, or the ROS time of now for one without a header.

    Returns None, with a warning in the log, when headerless messages are not allowed.
    """
    stamp = header_stamp(msg)
    if stamp is not None:
        return stamp
    if allow_headerless:
        return ROSClock().now()
    logger = get_logger(logger_name)
    logger.set_level(LoggingSeverity.INFO)
    logger.warning(
        f'dropped a message of type {type(msg).__name__}: it has no header with a stamp; '
        'construct the filter with allow_headerless=True to use its time of arrival instead'
    )
    return None
