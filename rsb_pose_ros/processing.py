"""What the worker does with one pair: convert, rectify, estimate, and fill the message."""

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from rsb_pose_core.calibration import CalibrationError, StereoCalibration
from rsb_pose_core.people import FrameResult, PersonPose
from rsb_pose_ros.camera_info import RectifierSource
from rsb_pose_ros.faults import InputError, Part
from rsb_pose_ros.images import image_to_rgb, require_equal_size
from rsb_pose_ros.msg import HumanPose3DArray
from rsb_pose_ros.pairing import Pair, stamp_ns
from rsb_pose_ros.people import person_to_message

RgbImage = NDArray[np.uint8]


class Pipeline(Protocol):
    """The part of rsb_pose_core.pipeline.StereoPosePipeline that the node uses."""

    def process(
        self,
        left_rgb: RgbImage,
        right_rgb: RgbImage,
        calibration: StereoCalibration,
        stamp_s: float,
    ) -> FrameResult: ...

    def reset(self) -> None: ...


@dataclass(frozen=True)
class ProcessedPair:
    """The message, without counters, the same people, and the rectified left image."""

    message: HumanPose3DArray
    people: tuple[PersonPose, ...]
    left_rgb: RgbImage


def process_pair(
    pair: Pair,
    pipeline: Pipeline,
    rectifiers: RectifierSource,
    *,
    frame_id: str,
    input_rectified: bool,
) -> ProcessedPair:
    """Turn a pair of image messages into people, stamped and framed as the left image.

    A `frame_id` that is not empty replaces that of the left image. Raises InputError with one
    sentence where the images or the calibration cannot be used.
    """
    marks = [('', time.perf_counter())]
    left = image_to_rgb(pair.left, 'left')
    right = image_to_rgb(pair.right, 'right')
    require_equal_size(left, right)
    marks.append(('convert', time.perf_counter()))
    rectifier = rectifiers.get()
    try:
        rectified = rectifier.rectify(left, right)
    except CalibrationError as error:
        raise InputError(Part.CALIBRATION, str(error)) from error
    if input_rectified:
        rectified = left, right
    marks.append(('rectify', time.perf_counter()))
    result = pipeline.process(*rectified, rectifier.calibration, stamp_ns(pair.left) * 1e-9)

    latencies = {
        name: (end - start) * 1e3
        for (_, start), (name, end) in zip(marks[:-1], marks[1:], strict=True)
    }
    latencies.update(result.stage_latency_ms)
    size = (rectifier.width, rectifier.height)
    left_header = pair.left.header
    header = Header(stamp=left_header.stamp, frame_id=frame_id or left_header.frame_id)
    message = HumanPose3DArray(
        header=header,
        people=[person_to_message(person, header, size) for person in result.people],
        stamp_skew_ms=pair.skew_ms,
        stages=list(latencies),
        stage_latencies_ms=list(latencies.values()),
    )
    return ProcessedPair(message, result.people, rectified[0])
