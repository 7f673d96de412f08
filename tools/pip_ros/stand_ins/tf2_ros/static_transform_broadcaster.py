"""Static transforms on /tf_static."""

from collections.abc import Iterable

from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from tf2_ros.transform_broadcaster import as_list


class StaticTransformBroadcaster:
    """Publishes transforms on /tf_static that late subscribers receive too.

    Every message holds all the transforms sent so far, since only the last message is kept. As in
    Jazzy the first transform of a child frame stays: sending another for it changes nothing.
    """

    def __init__(self, node: Node, qos: QoSProfile | int | None = None) -> None:
        if qos is None:
            qos = QoSProfile(
                depth=1,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
                history=HistoryPolicy.KEEP_LAST,
            )
        self.pub_tf = node.create_publisher(TFMessage, '/tf_static', qos)
        self.net_message = TFMessage()
        self._child_frame_ids: set[str] = set()

    def sendTransform(self, transform: TransformStamped | Iterable[TransformStamped]) -> None:
        """Add one transform or several and publish all."""
        for added in as_list(transform):
            if added.child_frame_id not in self._child_frame_ids:
                self._child_frame_ids.add(added.child_frame_id)
                self.net_message.transforms.append(added)
        self.pub_tf.publish(self.net_message)
