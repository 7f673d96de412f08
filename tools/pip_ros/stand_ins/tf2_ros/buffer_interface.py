"""What all buffers offer: transforming messages, and the registers of how to do it."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, ClassVar

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time
from std_msgs.msg import Header

import tf2_ros

NO_WAIT = Duration()


class BufferInterface:
    """Transforms stamped objects with the lookups of a subclass."""

    def __init__(self) -> None:
        self.registration = tf2_ros.TransformRegistration()

    def transform(
        self,
        object_stamped: Any,
        target_frame: str,
        timeout: Duration = NO_WAIT,
        new_type: Any = None,
    ) -> Any:
        """Return a stamped object in another frame, at its own time, as `new_type` if given.

        Raises TypeException when no package has registered its type, or the lookup's errors.
        """
        header = object_stamped.header
        do_transform = self.registration.get(type(object_stamped))
        transform = self.lookup_transform(target_frame, header.frame_id, header.stamp, timeout)
        result = do_transform(object_stamped, transform)
        return result if new_type is None else convert(result, new_type)

    def transform_full(
        self,
        object_stamped: Any,
        target_frame: str,
        target_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
        new_type: Any = None,
    ) -> Any:
        """Return a stamped object in another frame at another time, by way of a fixed frame.

        Raises TypeException when no package has registered its type, or the lookup's errors.
        """
        header = object_stamped.header
        do_transform = self.registration.get(type(object_stamped))
        transform = self.lookup_transform_full(
            target_frame, target_time, header.frame_id, header.stamp, fixed_frame, timeout
        )
        result = do_transform(object_stamped, transform)
        return result if new_type is None else convert(result, new_type)

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = NO_WAIT,
    ) -> TransformStamped:
        """Return the transform from the source to the target frame."""
        raise NotImplementedException

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
    ) -> TransformStamped:
        """Return the transform from the source at one time to the target at another."""
        raise NotImplementedException

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = NO_WAIT,
    ) -> bool:
        """Return whether the lookup would succeed."""
        raise NotImplementedException

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
    ) -> bool:
        """Return whether the full lookup would succeed."""
        raise NotImplementedException


class TypeException(Exception):
    """A type is transformed or converted that no package has registered."""

    def __init__(self, errstr: str) -> None:
        super().__init__(errstr)
        self.errstr = errstr


class NotImplementedException(Exception):
    """A buffer has no such lookup."""

    def __init__(self) -> None:
        self.errstr = 'CanTransform or LookupTransform not implemented'
        super().__init__(self.errstr)


def Stamped(obj: Any, stamp: Any, frame_id: str) -> Any:
    """Give an object a header and return it."""
    obj.header = Header(frame_id=frame_id, stamp=stamp)
    return obj


def _registered(register: dict[Any, Callable[..., Any]], key: Any) -> Callable[..., Any]:
    if key not in register:
        raise TypeException(f'Type {key} is not loaded or supported')
    return register[key]


class TransformRegistration:
    """How to transform each type; packages such as tf2_geometry_msgs add theirs on import."""

    _transforms: ClassVar[dict[Any, Callable[..., Any]]] = {}

    def print_me(self) -> None:
        """Print the register."""
        print(self._transforms)

    def add(self, key: Any, callback: Callable[[Any, TransformStamped], Any]) -> None:
        """Transform the type `key` with `callback`."""
        self._transforms[key] = callback

    def get(self, key: Any) -> Callable[[Any, TransformStamped], Any]:
        """Return how to transform a type; raises TypeException for an unknown one."""
        return _registered(self._transforms, key)


class ConvertRegistration:
    """How to convert each type to and from messages, or straight to another type."""

    _from_msg: ClassVar[dict[Any, Callable[..., Any]]] = {}
    _to_msg: ClassVar[dict[Any, Callable[..., Any]]] = {}
    _convert: ClassVar[dict[Any, Callable[..., Any]]] = {}

    def add_from_msg(self, key: Any, callback: Callable[[Any], Any]) -> None:
        """Make the type `key` from a message with `callback`."""
        self._from_msg[key] = callback

    def add_to_msg(self, key: Any, callback: Callable[[Any], Any]) -> None:
        """Make a message from the type `key` with `callback`."""
        self._to_msg[key] = callback

    def add_convert(self, key: tuple[Any, Any], callback: Callable[[Any], Any]) -> None:
        """Convert the first type of `key` to the second with `callback`."""
        self._convert[key] = callback

    def get_from_msg(self, key: Any) -> Callable[[Any], Any]:
        """Return how to make a type from a message; raises TypeException for an unknown one."""
        return _registered(self._from_msg, key)

    def get_to_msg(self, key: Any) -> Callable[[Any], Any]:
        """Return how to make a message from a type; raises TypeException for an unknown one."""
        return _registered(self._to_msg, key)

    def get_convert(self, key: tuple[Any, Any]) -> Callable[[Any], Any]:
        """Return how to convert a pair of types; raises TypeException for an unknown one."""
        return _registered(self._convert, key)


def convert(a: Any, b_type: Any) -> Any:
    """Return `a` as a `b_type`: converted straight, copied, or by way of a message.

    Raises TypeException when no package has registered a way.
    """
    registration = ConvertRegistration()
    try:
        straight = registration.get_convert((type(a), b_type))
    except TypeException:
        if type(a) is b_type:
            return deepcopy(a)
        return registration.get_from_msg(b_type)(registration.get_to_msg(type(a))(a))
    return straight(a)
