"""TF frames of measured joints."""

import math

from geometry_msgs.msg import Quaternion, TransformStamped, Vector3

from rsb_pose_core.skeleton import H36M_17, Skeleton
from rsb_pose_ros.msg import HumanPose3DArray, Joint3D


def joint_transforms(
    message: HumanPose3DArray, skeleton: Skeleton = H36M_17, *, prefix: str = ''
) -> list[TransformStamped]:
    """One transform `<prefix><joint>_<track id>` under the message's frame, of MEASURED joints.

    Stamped as the message. The root carries the orientation of the pelvis where it is known, all
    other joints that of the parent frame.
    """
    transforms = []
    for person in message.people:
        for index, joint in enumerate(person.joints):
            if joint.state != Joint3D.MEASURED:
                continue
            transform = TransformStamped(
                header=message.header,
                child_frame_id=f'{prefix}{joint.name}_{person.track_id}',
            )
            position = joint.position
            transform.transform.translation = Vector3(x=position.x, y=position.y, z=position.z)
            orientation = person.root.pose.orientation
            if index == skeleton.root and math.isfinite(orientation.w):
                transform.transform.rotation = orientation
            else:
                transform.transform.rotation = Quaternion(w=1.0)
            transforms.append(transform)
    return transforms
