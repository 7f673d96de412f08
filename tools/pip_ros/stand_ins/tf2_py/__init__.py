"""The transform buffer and its errors with the names and behaviour of ROS 2 Jazzy's tf2_py 0.36.

A stand-in for installations of ROS 2 from PyPI, which has no wheel of tf2_py.
"""

from tf2_py.buffer_core import BufferCore
from tf2_py.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TimeoutException,
    TransformException,
)

__all__ = [
    'BufferCore',
    'ConnectivityException',
    'ExtrapolationException',
    'InvalidArgumentException',
    'LookupException',
    'TimeoutException',
    'TransformException',
]
