"""Skeletons as RViz markers: bones, joints, covariance ellipsoids, track ids."""

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Quaternion
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from rsb_pose_core.skeleton import H36M_17, Skeleton
from rsb_pose_ros.msg import HumanPose3D, HumanPose3DArray, Joint3D
from rsb_pose_ros.people import quaternion_from_matrix

STATE_COLORS = {
    Joint3D.MEASURED: ColorRGBA(r=0.1, g=0.9, b=0.2, a=1.0),
    Joint3D.ONE_VIEW: ColorRGBA(r=1.0, g=0.7, b=0.0, a=1.0),
    Joint3D.INFERRED: ColorRGBA(r=0.9, g=0.2, b=0.2, a=1.0),
}
_LEFT_COLOR = ColorRGBA(r=0.2, g=0.5, b=1.0, a=1.0)
_RIGHT_COLOR = ColorRGBA(r=1.0, g=0.4, b=0.2, a=1.0)
_MIDDLE_COLOR = ColorRGBA(r=0.9, g=0.9, b=0.9, a=1.0)
_ELLIPSOID_COLOR = ColorRGBA(r=0.6, g=0.4, b=1.0, a=0.25)
_BONE_WIDTH_M = 0.03
_JOINT_DIAMETER_M = 0.06
_LARGEST_ELLIPSOID_M = 2.0  # a joint that uncertain would hide the scene


class MarkerWriter:
    """Makes a MarkerArray of every message and deletes the markers of people who left."""

    def __init__(self, skeleton: Skeleton = H36M_17) -> None:
        self._skeleton = skeleton
        self._shown: set[tuple[str, int]] = set()

    def write(
        self, message: HumanPose3DArray, lifetime_s: float, ellipsoid_sigmas: float
    ) -> MarkerArray:
        """Markers of all people, then DELETE for each marker of the last call that is gone."""
        markers = []
        for person in message.people:
            markers += self._person(person, ellipsoid_sigmas)
        lifetime = Duration(sec=int(lifetime_s), nanosec=int(lifetime_s % 1 * 1e9))
        for marker in markers:
            marker.header = message.header
            marker.lifetime = lifetime
            marker.action = Marker.ADD
        shown = {(marker.ns, marker.id) for marker in markers}
        for namespace, marker_id in sorted(self._shown - shown):
            markers.append(
                Marker(header=message.header, ns=namespace, id=marker_id, action=Marker.DELETE)
            )
        self._shown = shown
        return MarkerArray(markers=markers)

    def clear(self) -> MarkerArray:
        """Delete everything."""
        self._shown = set()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])

    def _person(self, person: HumanPose3D, ellipsoid_sigmas: float) -> list[Marker]:
        present = [joint.state != Joint3D.MISSING for joint in person.joints]
        if not any(present):
            return []
        markers = [self._bones(person, present), _joints(person), _label(person)]
        if ellipsoid_sigmas > 0:
            markers += _ellipsoids(person, ellipsoid_sigmas)
        return markers

    def _bones(self, person: HumanPose3D, present: list[bool]) -> Marker:
        marker = _marker('bones', person.track_id, Marker.LINE_LIST)
        marker.scale.x = _BONE_WIDTH_M
        for parent, child in self._skeleton.bones:
            if present[parent] and present[child]:
                marker.points += [person.joints[parent].position, person.joints[child].position]
                marker.colors += [_side_color(person.joints[child].name)] * 2
        return marker


def _joints(person: HumanPose3D) -> Marker:
    marker = _marker('joints', person.track_id, Marker.SPHERE_LIST)
    marker.scale.x = marker.scale.y = marker.scale.z = _JOINT_DIAMETER_M
    for joint in person.joints:
        if joint.state in STATE_COLORS:
            marker.points.append(joint.position)
            marker.colors.append(STATE_COLORS[joint.state])
    return marker


def _label(person: HumanPose3D) -> Marker:
    marker = _marker('track_ids', person.track_id, Marker.TEXT_VIEW_FACING)
    top = min(
        (joint for joint in person.joints if joint.state != Joint3D.MISSING),
        key=lambda joint: joint.position.y,
    )
    marker.pose.position.x = top.position.x
    marker.pose.position.y = top.position.y - 0.25
    marker.pose.position.z = top.position.z
    marker.scale.z = 0.15
    marker.color = _MIDDLE_COLOR
    marker.text = f'{person.track_id} ({person.confidence:.2f})'
    return marker


def _ellipsoids(person: HumanPose3D, sigmas: float) -> list[Marker]:
    markers = []
    for index, joint in enumerate(person.joints):
        covariance = np.asarray(joint.covariance, np.float64).reshape(3, 3)
        if joint.state == Joint3D.MISSING or not np.isfinite(covariance).all():
            continue
        variances, axes = np.linalg.eigh((covariance + covariance.T) / 2)
        if np.linalg.det(axes) < 0:
            axes[:, 0] *= -1
        diameters = 2 * sigmas * np.sqrt(np.clip(variances, 0, None))
        marker = _marker('covariance', person.track_id * 100 + index, Marker.SPHERE)
        marker.pose.position = joint.position
        x, y, z, w = quaternion_from_matrix(axes)
        marker.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
        marker.scale.x, marker.scale.y, marker.scale.z = np.clip(
            diameters, 1e-3, _LARGEST_ELLIPSOID_M
        ).tolist()
        marker.color = _ELLIPSOID_COLOR
        markers.append(marker)
    return markers


def _marker(namespace: str, number: int, shape: int) -> Marker:
    marker = Marker(ns=namespace, id=number % 2**31, type=shape)
    marker.pose.orientation.w = 1.0
    return marker


def _side_color(joint_name: str) -> ColorRGBA:
    if joint_name.startswith('left_'):
        return _LEFT_COLOR
    return _RIGHT_COLOR if joint_name.startswith('right_') else _MIDDLE_COLOR
