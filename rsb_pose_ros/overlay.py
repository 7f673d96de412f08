"""Skeletons drawn on the left image."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.skeleton import H36M_17, Skeleton
from rsb_pose_ros.msg import HumanPose3D, Joint3D

RgbImage = NDArray[np.uint8]
Color = tuple[int, int, int]

_STATE_COLORS: dict[int, Color] = {
    Joint3D.MEASURED: (30, 230, 60),
    Joint3D.ONE_VIEW: (255, 180, 0),
    Joint3D.INFERRED: (230, 50, 50),
}
_LEFT_COLOR: Color = (60, 130, 255)
_RIGHT_COLOR: Color = (255, 110, 50)
_MIDDLE_COLOR: Color = (235, 235, 235)


def draw_person(rgb: RgbImage, person: HumanPose3D, skeleton: Skeleton = H36M_17) -> None:
    """Draw bones, joints coloured by state, box and track id of one person into `rgb`."""
    uv = np.array([joint.uv_left for joint in person.joints], np.float64)
    draw_bones(rgb, uv, skeleton, width=2)
    for joint, pixel in zip(person.joints, uv, strict=True):
        if joint.state in _STATE_COLORS and np.isfinite(pixel).all():
            cv2.circle(rgb, _point(pixel), 3, _STATE_COLORS[joint.state], -1, cv2.LINE_AA)
    box = person.box_left
    if box.width and box.height:
        corner = (box.x_offset, box.y_offset)
        opposite = (box.x_offset + box.width, box.y_offset + box.height)
        cv2.rectangle(rgb, corner, opposite, _MIDDLE_COLOR, 1)
        _text(rgb, str(person.track_id), (box.x_offset + 3, box.y_offset + 14))


def draw_bones(
    rgb: RgbImage,
    uv: NDArray[np.float64],
    skeleton: Skeleton = H36M_17,
    *,
    width: int,
    color: Color | None = None,
) -> None:
    """Draw the bones between finite pixels uv (joints, 2); without a color, by body side."""
    for parent, child in skeleton.bones:
        if np.isfinite(uv[[parent, child]]).all():
            side = _side_color(skeleton.joint_names[child]) if color is None else color
            cv2.line(rgb, _point(uv[parent]), _point(uv[child]), side, width, cv2.LINE_AA)


def draw_caption(rgb: RgbImage, text: str) -> None:
    """Write a line of text into the top left corner."""
    _text(rgb, text, (6, 16))


def _text(rgb: RgbImage, text: str, corner: tuple[int, int]) -> None:
    for color, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(rgb, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, color, width, cv2.LINE_AA)


def _point(pixel: NDArray[np.float64]) -> tuple[int, int]:
    """Whole pixel, kept within what OpenCV can draw."""
    x, y = np.clip(np.rint(pixel), -10_000, 10_000).astype(int).tolist()
    return x, y


def _side_color(joint_name: str) -> Color:
    if joint_name.startswith('left_'):
        return _LEFT_COLOR
    return _RIGHT_COLOR if joint_name.startswith('right_') else _MIDDLE_COLOR
