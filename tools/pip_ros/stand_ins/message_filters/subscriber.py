"""A subscription as a filter."""

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from message_filters.simple_filter import SimpleFilter


class Subscriber(SimpleFilter):
    """Hands the messages of a topic on to the filters connected to it.

    Takes the arguments of `Node.create_subscription` without the callback; without a
    `qos_profile` it keeps the last 10 messages, reliable and volatile. Attributes that it does
    not have itself are those of the subscription, `self.sub`.
    """

    def __init__(
        self,
        node: Node,
        msg_type: Any,
        topic: str,
        qos_profile: QoSProfile | int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        self.sub = node.create_subscription(
            msg_type=msg_type,
            topic=topic,
            callback=self.callback,
            qos_profile=qos_profile,
            **kwargs,
        )

    def callback(self, msg: Any) -> None:
        """Pass a received message on."""
        self.signalMessage(msg)

    def getTopic(self) -> str:
        """Return the topic's name as given to the constructor, before remapping."""
        return self.topic

    def __getattr__(self, key: str) -> Any:
        if key == 'sub':  # not subscribed yet: there is nothing to ask
            raise AttributeError(key)
        return getattr(self.sub, key)
