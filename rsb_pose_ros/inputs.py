"""The node's subscriptions: images go to the pairer, CameraInfo to the rectifier's source."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions, QoSPolicyKind
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from rsb_pose_ros.camera_info import RectifierSource
from rsb_pose_ros.faults import Level, Part
from rsb_pose_ros.pairing import ImagePairer, Pair
from rsb_pose_ros.parameters import NodeParameters

# rclpy's default ones, and durability for a CameraInfo that was published once before we came.
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


@dataclass
class _Topic:
    """One subscription and what came through it."""

    name: str
    view: str
    subscription: Any = None
    last_s: float = 0.0


class StereoInputs:
    """Subscribes on `node` as the parameters say. The callbacks only store or enqueue.

    Every subscription has SensorDataQoS unless qos_overrides.<topic>.subscription.* say otherwise.
    """

    def __init__(
        self, node: Node, parameters: NodeParameters, on_pair: Callable[[Pair], None]
    ) -> None:
        self._node = node
        self.rectifiers = RectifierSource(input_rectified=parameters.input_rectified)
        self.pairer = ImagePairer(
            on_pair,
            approximate=parameters.approximate_sync,
            queue_size=parameters.queue_size,
            slop_s=parameters.slop_s,
        )
        self._compressed = parameters.image_transport == 'compressed'
        self._image = 'image_rect' if parameters.input_rectified else 'image_raw'
        self._infos: tuple[_Topic, ...] = ()
        self._images: tuple[_Topic, ...] = ()
        self.subscribe()

    def subscribe(self) -> None:
        """Take images; nothing happens where they are taken already."""
        if self._images:
            return
        self._started_s = time.monotonic()
        image_type = CompressedImage if self._compressed else Image
        image = self._image + ('/compressed' if self._compressed else '')
        rectifiers, pairer = self.rectifiers, self.pairer
        self._infos = (
            self._subscribe(CameraInfo, 'left/camera_info', rectifiers.set_left),
            self._subscribe(CameraInfo, 'right/camera_info', rectifiers.set_right),
        )
        self._images = (
            self._subscribe(image_type, f'left/{image}', pairer.add_left),
            self._subscribe(image_type, f'right/{image}', pairer.add_right),
        )

    def unsubscribe(self) -> None:
        """Take no more images; the counts and the last CameraInfos stay."""
        for topic in (*self._infos, *self._images):
            self._node.destroy_subscription(topic.subscription)
        self._infos = self._images = ()

    def faults(self, timeout_s: float) -> Iterator[tuple[Part, Level, str]]:
        """What keeps pairs from being formed or rectified right now, a sentence for each part."""
        silent = [topic for topic in self._images if self._silent_s(topic) > timeout_s]
        if silent:
            yield Part.IMAGES, Level.ERROR, self._silence(silent, timeout_s, 'images')
        elif self._images and self.pairer.refused:
            yield Part.IMAGES, Level.ERROR, self.pairer.refused
        elif self._images and self.pairer.stuck_reason:
            yield Part.IMAGES, Level.WARN, self.pairer.stuck_reason
        absent = self.rectifiers.missing
        missing = [topic for topic in self._infos if topic.view in absent]
        if missing and time.monotonic() - self._started_s > timeout_s:
            yield Part.CALIBRATION, Level.ERROR, self._silence(missing, timeout_s, 'camera_info')

    def _subscribe(self, kind: type, name: str, store: Callable[[Any], None]) -> _Topic:
        def receive(message: Any) -> None:
            topic.last_s = time.monotonic()
            store(message)

        # A fresh profile each time: overrides are written into the object.
        sensor_data = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        topic = _Topic(self._node.resolve_topic_name(name), name.split('/')[0])
        topic.subscription = self._node.create_subscription(
            kind,
            name,
            receive,
            sensor_data,
            qos_overriding_options=QoSOverridingOptions(policy_kinds=_OVERRIDABLE),
        )
        return topic

    def _silent_s(self, topic: _Topic) -> float:
        return time.monotonic() - max(topic.last_s, self._started_s)

    def _silence(self, topics: list[_Topic], timeout_s: float, what: str) -> str:
        described = []
        for topic in topics:
            count = self._node.count_publishers(topic.name)
            described.append(f'{topic.name} ({count} publisher{"" if count == 1 else "s"})')
        published = any(self._node.count_publishers(topic.name) for topic in topics)
        advice = (
            'check that the publisher sends and that its QoS fits (qos_overrides)'
            if published
            else 'start the camera driver or remap the topic'
        )
        return f'no {what} for {timeout_s:g} s on {" and ".join(described)}; {advice}'
