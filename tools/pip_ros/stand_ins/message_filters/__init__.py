"""Message filters with the names, arguments and behaviour of ROS 2 Jazzy's message_filters 4.11.

A stand-in for installations of ROS 2 from PyPI, which has no wheel of message_filters.
"""

from message_filters.cache import Cache
from message_filters.chain import Chain
from message_filters.simple_filter import SimpleFilter
from message_filters.subscriber import Subscriber
from message_filters.synchronizers import ApproximateTimeSynchronizer, TimeSynchronizer

__all__ = [
    'ApproximateTimeSynchronizer',
    'Cache',
    'Chain',
    'SimpleFilter',
    'Subscriber',
    'TimeSynchronizer',
]
