"""Rosbag2 recordings (mcap, sqlite3) without ROS's own rosbag2."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_ros.processes import share_file


class BagError(RsbPoseError):
    """A bag is missing, cut short, or lacks topics. The message is one sentence."""


@dataclass(frozen=True)
class Record:
    """One recorded message, serialized (CDR). time_ns: when it was recorded."""

    topic: str
    kind: str
    time_ns: int
    data: bytes


class Bag:
    """An open bag: its topics and its messages in recorded order. Raises BagError throughout."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self._reader = reader

    @property
    def kinds(self) -> dict[str, str]:
        """Type name of each topic, such as sensor_msgs/msg/Image."""
        return {connection.topic: connection.msgtype for connection in self._reader.connections}

    @property
    def duration_s(self) -> float:
        """From the first to the last message."""
        return self._reader.duration * 1e-9

    def count(self, topic: str) -> int:
        """Number of messages on `topic`."""
        return sum(entry.msgcount for entry in self._reader.connections if entry.topic == topic)

    def require(self, topics: tuple[str, ...]) -> None:
        """Raise BagError unless all of `topics` have messages."""
        absent = [topic for topic in topics if not self.count(topic)]
        if absent:
            raise BagError(
                f'the bag {self.path} has no messages on {", ".join(absent)}, it has '
                f'{", ".join(sorted(self.kinds)) or "no topics"}; name its topics or another bag'
            )

    def records(self, topics: tuple[str, ...] | None = None) -> Iterator[Record]:
        """Messages of `topics` (all by default) as they were recorded."""
        chosen: list[Connection] = [
            entry for entry in self._reader.connections if topics is None or entry.topic in topics
        ]
        if not chosen:
            return
        with _one_sentence(self.path):
            for connection, time_ns, data in self._reader.messages(chosen):
                yield Record(connection.topic, connection.msgtype, time_ns, bytes(data))


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag folder or a single .mcap or .db3 file. Raises BagError."""
    if not path.exists():
        raise BagError(f'there is no bag {path}; give the folder of a bag or its .mcap file')
    with _one_sentence(path):
        reader = Reader(path)
        reader.open()
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except BagError:
        raise
    # A damaged file can make the reader fail in any way, from struct.error to UnicodeDecodeError.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise BagError(
            f'the bag {path} cannot be read, it may be cut short ({lines[0].rstrip(".")}); '
            'expected a whole rosbag2 recording, copy it again'
        ) from error


def message_class(kind: str) -> Any:
    """Message class of a type name such as sensor_msgs/msg/Image. Raises BagError."""
    parts = kind.split('/')
    try:
        return getattr(importlib.import_module('.'.join(parts[:-1])), parts[-1])
    except (ImportError, AttributeError, ValueError) as error:
        raise BagError(
            f'the message type {kind} is not installed; build or install its package'
        ) from error


def message_types() -> Typestore:
    """ROS 2 Jazzy's message types and ours, for the schemas of a bag that is written."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for file in sorted(share_file('msg').glob('*.msg')):
        store.register(get_types_from_msg(file.read_text(), f'rsb_pose_ros/msg/{file.stem}'))
    return store
