"""The pictures of a run: the left view with the skeletons as a film, and skeletons in 3D."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from torch import from_numpy

from rsb_pose_core.geometry import project
from rsb_pose_core.rectification import StereoRectifier
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_ros.bag_evaluator import TRUTH_TOPIC
from rsb_pose_ros.bags import Bag, BagError, message_class
from rsb_pose_ros.camera_info import RectifierSource
from rsb_pose_ros.images import image_to_rgb
from rsb_pose_ros.msg import HumanPose3DArray
from rsb_pose_ros.overlay import draw_bones, draw_caption, draw_person
from rsb_pose_ros.pairing import stamp_ns
from rsb_pose_ros.people import joint_positions
from rsb_pose_ros.topics import StereoTopics

_TRUTH_COLOR = (255, 255, 255)
_INSTANTS = 4

RgbImage = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """The rectified left image of one moment with the true joints there, (people, joints, 3) m."""

    stamp_ns: int
    rgb: RgbImage
    truth_m: list[NDArray[np.float64]]


def read_views(bag: Bag, topics: StereoTopics) -> Iterator[View]:
    """Rectified left images of a bag in order, each with its truth. Raises BagError."""
    truths: dict[int, list[NDArray[np.float64]]] = {}
    for record in bag.records((TRUTH_TOPIC,)):
        message = deserialize_message(record.data, message_class(record.kind))
        truths.setdefault(stamp_ns(message), []).append(joint_positions(message))
    rectifier = read_rectifier(bag, topics)
    for record in bag.records((topics.left_image,)):
        message = deserialize_message(record.data, message_class(record.kind))
        rgb = image_to_rgb(message, 'left')
        left, _ = rectifier.rectify(rgb, rgb)
        stamp = stamp_ns(message)
        yield View(stamp, left, truths.get(stamp, []))


def read_rectifier(bag: Bag, topics: StereoTopics) -> StereoRectifier:
    """Rectifier of the first CameraInfos of a bag. Raises BagError where there are none."""
    source = RectifierSource(input_rectified=False)
    for record in bag.records((topics.left_info, topics.right_info)):
        message = deserialize_message(record.data, message_class(record.kind))
        (source.set_left if record.topic == topics.left_info else source.set_right)(message)
        if not source.missing:
            return source.get()
    raise BagError(f'the bag {bag.path} has no camera_info; name a bag with calibration')


def write_film(
    path: Path, bag: Bag, topics: StereoTopics, frames: dict[int, HumanPose3DArray]
) -> int:
    """Draw poses (coloured) and truth (thin white) on the left view; return the frame count."""
    rectifier = read_rectifier(bag, topics)
    rate_hz = (bag.count(topics.left_image) - 1) / max(bag.duration_s, 1e-3)
    size = (rectifier.width, rectifier.height)
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), max(rate_hz, 1.0), size)
    if not film.isOpened():
        raise BagError(f'OpenCV cannot write {path} as mp4v; install its video codecs')
    count = 0
    for view in read_views(bag, topics):
        film.write(cv2.cvtColor(draw_view(view, rectifier, frames), cv2.COLOR_RGB2BGR))
        count += 1
    film.release()
    return count


def draw_view(
    view: View, rectifier: StereoRectifier, frames: dict[int, HumanPose3DArray]
) -> RgbImage:
    """One picture of the film."""
    picture = view.rgb.copy()
    message = frames.get(view.stamp_ns)
    for person in () if message is None else message.people:
        draw_person(picture, person)
    for truth_m in view.truth_m:
        uvd = project(from_numpy(truth_m), rectifier.calibration).numpy()
        draw_bones(picture, uvd[:, :2], width=1, color=_TRUTH_COLOR)
    if message is None:
        draw_caption(picture, 'dropped: the node was busy with an older pair')
    else:
        draw_caption(picture, f'{len(message.people)} people, {message.latency_ms:.0f} ms')
    return picture


def write_skeletons(
    path: Path, bag: Bag, topics: StereoTopics, frames: dict[int, HumanPose3DArray]
) -> None:
    """A few moments: the left view above, poses and truth (grey) in 3D below."""
    with_people = [stamp for stamp, frame in sorted(frames.items()) if frame.people]
    picks = np.linspace(0, len(with_people) - 1, _INSTANTS + 2).round().astype(int)[1:-1]
    stamps = sorted({with_people[pick] for pick in picks}) if with_people else []
    rectifier = read_rectifier(bag, topics)
    views = [view for view in read_views(bag, topics) if view.stamp_ns in stamps]
    columns = max(len(views), 1)
    figure = Figure(figsize=(4 * columns, 7.2), layout='constrained')
    FigureCanvasAgg(figure)
    for column, view in enumerate(views):
        picture = figure.add_subplot(2, columns, column + 1)
        picture.imshow(draw_view(view, rectifier, frames))
        picture.set_axis_off()
        space = figure.add_subplot(2, columns, columns + column + 1, projection='3d')
        for truth_m in view.truth_m:
            _plot(space, truth_m, '0.6', 'truth')
        for person in frames[view.stamp_ns].people:
            _plot(space, joint_positions(person), 'C0', 'rsb_pose_ros')
        space.set(xlabel='x [m]', ylabel='z [m]', zlabel='-y [m]')
        space.set_aspect('equal')
        space.view_init(elev=12, azim=-65)
        if column == 0:
            space.legend(loc='upper left')
    figure.savefig(path, dpi=90)


def _plot(axes: object, xyz_m: NDArray[np.float64], color: str, label: str) -> None:
    """A skeleton with depth to the back and height upwards."""
    for number, (parent, child) in enumerate(H36M_17.bones):
        x, y, z = xyz_m[[parent, child]].T
        axes.plot(x, z, -y, color=color, label=label if number == 0 else None)
    axes.scatter(xyz_m[:, 0], xyz_m[:, 2], -xyz_m[:, 1], color=color, s=8)
