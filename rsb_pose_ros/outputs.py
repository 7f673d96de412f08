"""The node's publishers, and which of them have something to do for a processed pair."""

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tf2_ros import TransformBroadcaster
from visualization_msgs.msg import MarkerArray

from rsb_pose_core.drawing import draw_people
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_ros.frames import joint_transforms
from rsb_pose_ros.images import rgb_to_image
from rsb_pose_ros.markers import MarkerWriter
from rsb_pose_ros.msg import HumanPose3D, HumanPose3DArray, SkeletonDefinition
from rsb_pose_ros.parameters import NodeParameters
from rsb_pose_ros.people import skeleton_message
from rsb_pose_ros.processing import ProcessedPair


class PoseOutputs:
    """Publishers of `node`, silent while the node is not active."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        reliable = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._people = self._create(HumanPose3DArray, 'human_pose3d/people', reliable)
        self._pose = self._create(HumanPose3D, 'human_pose3d', reliable)
        self._markers = self._create(MarkerArray, '~/markers', reliable)
        self._overlay = self._create(Image, '~/overlay', reliable)
        self._skeleton = node.create_lifecycle_publisher(SkeletonDefinition, '~/skeleton', latched)
        self._broadcaster = TransformBroadcaster(node)
        self._marker_writer = MarkerWriter()
        self._markers_shown = False
        self._skeleton_frame: str | None = None

    def publish_skeleton(self, header: Header) -> None:
        """Publish the definition once for every frame that it is valid in."""
        if header.frame_id != self._skeleton_frame:
            self._skeleton_frame = header.frame_id
            self._skeleton.publish(skeleton_message(H36M_17, header))

    def publish(self, processed: ProcessedPair, parameters: NodeParameters) -> None:
        """Publish poses and, where somebody listens, transforms, markers and overlay."""
        message = processed.message
        self._people.publish(message)
        for person in message.people:
            self._pose.publish(person)
        self.publish_skeleton(message.header)
        if parameters.publish_tf and message.people:
            self._broadcaster.sendTransform(joint_transforms(message, prefix=parameters.tf_prefix))
        self._publish_markers(message, parameters)
        if parameters.publish_overlay and self._overlay.get_subscription_count():
            picture = draw_people(processed.left_rgb, processed.people)
            self._overlay.publish(rgb_to_image(picture, message.header))

    def clear_markers(self) -> None:
        """Delete the markers that are shown."""
        if self._markers_shown:
            self._markers.publish(self._marker_writer.clear())
            self._markers_shown = False

    def destroy(self) -> None:
        publishers = (self._people, self._pose, self._markers, self._overlay, self._skeleton)
        for publisher in publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._node.destroy_publisher(self._broadcaster.pub_tf)

    def _publish_markers(self, message: HumanPose3DArray, parameters: NodeParameters) -> None:
        if not parameters.publish_markers or not self._markers.get_subscription_count():
            self.clear_markers()
            return
        markers = self._marker_writer.write(
            message, parameters.marker_lifetime_s, parameters.ellipsoid_sigmas
        )
        if markers.markers:
            self._markers.publish(markers)
        self._markers_shown = True

    def _create(self, kind: type, name: str, qos: QoSProfile) -> object:
        return self._node.create_lifecycle_publisher(
            kind,
            name,
            QoSProfile(depth=qos.depth, reliability=qos.reliability),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
