"""The pictures of a run: the left view with the skeletons as a film, and skeletons in 3D."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from torch import from_numpy

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.drawing import draw_people, skeleton_figure
from rsb_pose_core.geometry import project
from rsb_pose_core.rectification import StereoRectifier
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_ros.bag_evaluator import seen_people
from rsb_pose_ros.bags import Bag, BagError, message_class
from rsb_pose_ros.camera_info import RectifierSource
from rsb_pose_ros.faults import InputError
from rsb_pose_ros.images import image_to_rgb
from rsb_pose_ros.msg import HumanPose3DArray
from rsb_pose_ros.pairing import stamp_ns
from rsb_pose_ros.people import joint_positions, person_from_message
from rsb_pose_ros.topics import TRUTH_TOPIC, StereoTopics

RgbImage = NDArray[np.uint8]
Frames = Mapping[int, HumanPose3DArray]

_TRUTH_COLOR, _INK, _PAPER = (255, 255, 255), (255, 255, 255), (20, 20, 20)
_INSTANTS = 3
_FIGURE_SIZE = (900, 450)  # pixels


@dataclass(frozen=True)
class View:
    """The rectified left image of one moment with the true joints there, (joints, 3) metres."""

    stamp_ns: int
    rgb: RgbImage
    truth_m: list[NDArray[np.float64]]


def read_rectifier(bag: Bag, topics: StereoTopics) -> StereoRectifier:
    """Rectifier of the first CameraInfos of a bag. Raises BagError where there are none."""
    source = RectifierSource(input_rectified=topics.rectified)
    for record in bag.records((topics.left_info, topics.right_info)):
        message = deserialize_message(record.data, message_class(record.kind))
        (source.set_left if record.topic == topics.left_info else source.set_right)(message)
        if not source.missing:
            return source.get()
    raise BagError(f'the bag {bag.path} has no camera_info; name a bag with calibration')


def read_views(bag: Bag, topics: StereoTopics, rectifier: StereoRectifier) -> Iterator[View]:
    """Rectified left images of a bag in order, each with its truth. Raises BagError.

    Images that cannot be decoded or are of another size are left out, as the node does.
    """
    truths: dict[int, list[NDArray[np.float64]]] = {}
    for record in bag.records((TRUTH_TOPIC,)):
        message = deserialize_message(record.data, message_class(record.kind))
        truths.setdefault(stamp_ns(message), []).append(joint_positions(message))
    for record in bag.records((topics.left_image,)):
        message = deserialize_message(record.data, message_class(record.kind))
        try:
            rgb = image_to_rgb(message, 'left')
            left, _ = rectifier.rectify(rgb, rgb)
        except (InputError, CalibrationError):
            continue
        stamp = stamp_ns(message)
        yield View(stamp, left, truths.get(stamp, []))


def write_film(path: Path, bag: Bag, topics: StereoTopics, frames: Frames) -> int:
    """Film every left image with its poses and, thin, the truth; return the number of pictures."""
    rectifier = read_rectifier(bag, topics)
    rate_hz = (bag.count(topics.left_image) - 1) / max(bag.duration_s, 1e-3)
    size = (rectifier.width, rectifier.height)
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), max(rate_hz, 1.0), size)
    if not film.isOpened():
        raise BagError(f'OpenCV cannot write {path} as mp4v; install its video codecs')
    count = 0
    for view in read_views(bag, topics, rectifier):
        film.write(cv2.cvtColor(draw_view(view, rectifier, frames), cv2.COLOR_RGB2BGR))
        count += 1
    film.release()
    return count


def draw_view(view: View, rectifier: StereoRectifier, frames: Frames) -> RgbImage:
    """One picture of the film."""
    message = frames.get(view.stamp_ns)
    people = [] if message is None else [person_from_message(p) for p in message.people]
    picture = draw_people(view.rgb, people)
    for truth_m in view.truth_m:
        uvd = project(from_numpy(truth_m), rectifier.calibration).numpy()
        _draw_thin(picture, uvd[:, :2])
    if message is None:
        caption = 'dropped: the node was busy with an older pair'
    else:
        caption = f'{len(seen_people(message))} found, {message.latency_ms:.0f} ms; thin: truth'
    for color, width in ((_PAPER, 3), (_INK, 1)):
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, caption, (6, 16), font, 0.45, color, width, cv2.LINE_AA)
    return picture


def write_skeletons(path: Path, bag: Bag, topics: StereoTopics, frames: Frames) -> None:
    """A few moments, one a row: the left view, and beside it poses and truth in 3D."""
    found = [stamp for stamp, frame in sorted(frames.items()) if seen_people(frame)]
    picks = np.linspace(0, len(found) - 1, _INSTANTS + 2).round().astype(int)[1:-1]
    stamps = {found[pick] for pick in picks} if found else set()
    rectifier = read_rectifier(bag, topics)
    rows = []
    for view in read_views(bag, topics, rectifier):
        if view.stamp_ns in stamps:
            picture = draw_view(view, rectifier, frames)
            scale = _FIGURE_SIZE[1] / picture.shape[0]
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            poses = [joint_positions(person) for person in seen_people(frames[view.stamp_ns])]
            space = skeleton_figure(poses, view.truth_m, size=_FIGURE_SIZE)
            rows.append(np.concatenate([picture, space], axis=1))
    if rows:
        cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))


def _draw_thin(rgb: RgbImage, uv: NDArray[np.float64]) -> None:
    """Bones between finite pixels uv (joints, 2) as thin lines."""
    for parent, child in H36M_17.bones:
        if np.isfinite(uv[[parent, child]]).all():
            ends = np.clip(np.rint(uv[[parent, child]]), -10_000, 10_000).astype(int).tolist()
            cv2.line(rgb, ends[0], ends[1], _TRUTH_COLOR, 1, cv2.LINE_AA)
