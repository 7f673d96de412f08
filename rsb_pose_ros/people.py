"""PersonPose to HumanPose3D and back, and the skeleton's definition as a message."""

import numpy as np
from geometry_msgs.msg import Point, PoseWithCovariance, Quaternion, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from rsb_pose_core.detection import Box
from rsb_pose_core.people import PersonPose, TrackState
from rsb_pose_core.skeleton import H36M_17, Skeleton
from rsb_pose_ros.msg import HumanPose3D, Joint3D, SkeletonDefinition

Array = NDArray[np.float64]

NAN_QUATERNION = (float('nan'),) * 4


def person_to_message(
    person: PersonPose, header: Header, image_size: tuple[int, int], skeleton: Skeleton = H36M_17
) -> HumanPose3D:
    """Convert one person. image_size: (width, height) of the rectified images, for the boxes.

    Joints in state MISSING become NaN throughout, whatever the person holds for them.
    """
    joints = [_joint(person, index, name) for index, name in enumerate(skeleton.joint_names)]
    message = HumanPose3D(
        header=header,
        track_id=int(person.track_id),
        track_state=int(person.track_state),
        confidence=person.overall_confidence,
        skeleton=skeleton.name,
        joints=joints,
        root=_root(joints, skeleton),
        box_left=_region(person.box_left, image_size),
        box_right=_region(person.box_right, image_size),
    )
    x, y, z = (float(value) for value in person.velocity_mps)
    message.velocity = Vector3(x=x, y=y, z=z)
    return message


def person_from_message(message: HumanPose3D) -> PersonPose:
    """Convert back; boxes keep the whole pixels that a RegionOfInterest holds."""
    velocity = message.velocity
    return PersonPose(
        track_id=message.track_id,
        track_state=TrackState(message.track_state),
        xyz_m=joint_positions(message),
        covariance_m2=np.array([joint.covariance for joint in message.joints]).reshape(-1, 3, 3),
        confidence=np.array([joint.confidence for joint in message.joints]),
        state=joint_states(message),
        uv_left=np.array([joint.uv_left for joint in message.joints], np.float64),
        uv_right=np.array([joint.uv_right for joint in message.joints], np.float64),
        box_left=_box(message.box_left),
        box_right=_box(message.box_right),
        velocity_mps=np.array([velocity.x, velocity.y, velocity.z]),
    )


def joint_positions(message: HumanPose3D) -> Array:
    """Positions (joints, 3) in metres, NaN where missing."""
    rows = [(joint.position.x, joint.position.y, joint.position.z) for joint in message.joints]
    return np.array(rows, np.float64).reshape(-1, 3)


def joint_states(message: HumanPose3D) -> NDArray[np.uint8]:
    """State (joints,) of each joint, one of Joint3D's constants."""
    return np.array([joint.state for joint in message.joints], np.uint8)


def skeleton_message(skeleton: Skeleton, header: Header) -> SkeletonDefinition:
    """What the joints of HumanPose3D mean."""
    return SkeletonDefinition(
        header=header,
        name=skeleton.name,
        joint_names=list(skeleton.joint_names),
        parents=list(skeleton.parents),
        mirror=list(skeleton.mirror),
        length_unit='m',
    )


def root_orientation(
    xyz_m: Array, skeleton: Skeleton = H36M_17
) -> tuple[float, float, float, float]:
    """Quaternion (x, y, z, w) of the pelvis: x to the person's left, y up the spine, z forward.

    xyz_m is (joints, 3) in any right-handed frame. NaN where a hip or the neck is missing, or
    where they lie on one line.
    """
    right_hip, left_hip, pelvis, neck = (
        xyz_m[skeleton.index(name)] for name in ('right_hip', 'left_hip', 'pelvis', 'neck')
    )
    to_left = left_hip - right_hip
    up = neck - pelvis
    front = np.cross(to_left, up)
    lengths = np.linalg.norm(to_left), np.linalg.norm(front)
    if not (np.isfinite(lengths).all() and min(lengths) > 1e-6):
        return NAN_QUATERNION
    x_axis, z_axis = to_left / lengths[0], front / lengths[1]
    return quaternion_from_matrix(np.stack([x_axis, np.cross(z_axis, x_axis), z_axis], axis=1))


def quaternion_from_matrix(rotation: Array) -> tuple[float, float, float, float]:
    """Unit quaternion (x, y, z, w), w >= 0, of a rotation matrix (3, 3).

    The eigenvector of Bar-Itzhack's symmetric matrix (2000): stable at every angle.
    """
    r = rotation
    symmetric = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    x, y, z, w = np.linalg.eigh(symmetric)[1][:, -1]  # eigh reads the lower triangle
    sign = -1.0 if w < 0 else 1.0
    return sign * float(x), sign * float(y), sign * float(z), sign * float(w)


def _joint(person: PersonPose, index: int, name: str) -> Joint3D:
    state = int(person.state[index])
    missing = state == Joint3D.MISSING
    x, y, z = (np.full(3, np.nan) if missing else person.xyz_m[index]).tolist()
    nan_pixel = np.full(2, np.nan, np.float32)
    return Joint3D(
        name=name,
        position=Point(x=x, y=y, z=z),
        covariance=(
            np.full(9, np.nan) if missing else np.asarray(person.covariance_m2[index]).reshape(9)
        ).astype(np.float64),
        confidence=0.0 if missing else float(person.confidence[index]),
        state=state,
        uv_left=nan_pixel if missing else np.asarray(person.uv_left[index], np.float32),
        uv_right=nan_pixel if missing else np.asarray(person.uv_right[index], np.float32),
    )


def _root(joints: list[Joint3D], skeleton: Skeleton) -> PoseWithCovariance:
    """Pelvis pose; the covariance of its orientation is not known: NaN."""
    pelvis = joints[skeleton.root]
    xyz_m = np.array([(joint.position.x, joint.position.y, joint.position.z) for joint in joints])
    covariance = np.full((6, 6), np.nan)
    covariance[:3, :3] = np.asarray(pelvis.covariance).reshape(3, 3)
    root = PoseWithCovariance()
    root.pose.position = pelvis.position
    x, y, z, w = root_orientation(xyz_m, skeleton)
    root.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
    root.covariance = covariance.reshape(36)
    return root


def _region(box: Box, image_size: tuple[int, int]) -> RegionOfInterest:
    """The part of a box inside the image, in whole pixels; empty where the box is not finite."""
    edges = np.array([box.x, box.y, box.x + box.width, box.y + box.height])
    if not np.isfinite(edges).all():
        return RegionOfInterest()
    left, top, right, bottom = np.clip(np.rint(edges), 0, [*image_size, *image_size]).astype(int)
    return RegionOfInterest(
        x_offset=int(left), y_offset=int(top), width=int(right - left), height=int(bottom - top)
    )


def _box(region: RegionOfInterest) -> Box:
    return Box(
        float(region.x_offset), float(region.y_offset), float(region.width), float(region.height)
    )
