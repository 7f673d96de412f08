"""Image messages to RGB arrays, and back."""

from typing import Any

import cv2
import numpy as np
from cv_bridge import CvBridge, CvBridgeError
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from rsb_pose_ros.faults import InputError, Part

RgbImage = NDArray[np.uint8]

_BRIDGE = CvBridge()
_TO_RGB = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}  # by channels


def image_to_rgb(message: Image | CompressedImage, view: str) -> RgbImage:
    """Decode a raw or compressed image of any encoding to uint8 (height, width, 3) RGB.

    `view` names the camera in the sentence of the InputError that is raised for an image that is
    empty, cut short, or of an encoding that has no colour or grey picture.
    """
    if len(message.data) == 0:
        raise InputError(Part.IMAGES, f'the {view} image has no data; check its camera driver')
    try:
        if isinstance(message, CompressedImage):
            rgb = _decompressed(message)
        else:
            rgb = _BRIDGE.imgmsg_to_cv2(message, 'rgb8')
    except (CvBridgeError, cv2.error, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise InputError(Part.IMAGES, _undecodable(message, view)) from error
    if rgb is None or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(Part.IMAGES, _undecodable(message, view))
    return rgb


def _decompressed(message: CompressedImage) -> RgbImage:
    """Grey, BGR or BGRA of 8 or 16 bits as RGB; cv_bridge makes RGB of BGR alone."""
    picture = _BRIDGE.compressed_imgmsg_to_cv2(message)
    if picture is None:
        raise ValueError('no picture')
    if picture.dtype == np.uint16:
        picture = cv2.convertScaleAbs(picture, alpha=1 / 257)
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    return np.asarray(cv2.cvtColor(picture, _TO_RGB[channels]))


def rgb_to_image(rgb: RgbImage, header: Header) -> Image:
    """Wrap an RGB array (height, width, 3) in a message."""
    message = _BRIDGE.cv2_to_imgmsg(rgb, 'rgb8')
    message.header = header
    return message


def require_equal_size(left: RgbImage, right: RgbImage) -> None:
    """Raise InputError when the two images of a pair differ in size."""
    if left.shape != right.shape:
        raise InputError(
            Part.IMAGES,
            f'the left image has {left.shape[1]}x{left.shape[0]} pixels and the right '
            f'{right.shape[1]}x{right.shape[0]}, expected equal sizes; set both cameras alike',
        )


def _undecodable(message: Any, view: str) -> str:
    if isinstance(message, CompressedImage):
        return (
            f'the {view} compressed image of format {message.format!r} cannot be decoded, '
            'expected a whole jpeg or png; check its publisher'
        )
    return (
        f'the {view} image with encoding {message.encoding!r}, {message.width}x{message.height}, '
        f'step {message.step} and {len(message.data)} bytes cannot be turned into RGB, expected '
        'a grey, colour or Bayer encoding of sensor_msgs and step * height bytes; check its driver'
    )
