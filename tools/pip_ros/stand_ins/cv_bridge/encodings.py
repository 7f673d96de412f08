"""The encodings of sensor_msgs/Image: depth, channels and what their channels mean."""

import re
from enum import Enum


class Color(Enum):
    """What the channels of an image mean."""

    GRAY = 'GRAY'
    RGB = 'RGB'
    BGR = 'BGR'
    RGBA = 'RGBA'
    BGRA = 'BGRA'
    UYVY = 'UYVY'
    YUY2 = 'YUY2'
    BAYER_RGGB = 'BAYER_RGGB'
    BAYER_BGGR = 'BAYER_BGGR'
    BAYER_GBRG = 'BAYER_GBRG'
    BAYER_GRBG = 'BAYER_GRBG'


# encoding: (OpenCV depth, channels, colour); cv_bridge converts these, and only these, by colour
COLOR_ENCODINGS: dict[str, tuple[str, int, Color]] = {
    'mono8': ('8U', 1, Color.GRAY),
    'mono16': ('16U', 1, Color.GRAY),
    'rgb8': ('8U', 3, Color.RGB),
    'rgb16': ('16U', 3, Color.RGB),
    'bgr8': ('8U', 3, Color.BGR),
    'bgr16': ('16U', 3, Color.BGR),
    'rgba8': ('8U', 4, Color.RGBA),
    'rgba16': ('16U', 4, Color.RGBA),
    'bgra8': ('8U', 4, Color.BGRA),
    'bgra16': ('16U', 4, Color.BGRA),
    'yuv422': ('8U', 2, Color.UYVY),
    'yuv422_yuy2': ('8U', 2, Color.YUY2),
    'bayer_rggb8': ('8U', 1, Color.BAYER_RGGB),
    'bayer_bggr8': ('8U', 1, Color.BAYER_BGGR),
    'bayer_gbrg8': ('8U', 1, Color.BAYER_GBRG),
    'bayer_grbg8': ('8U', 1, Color.BAYER_GRBG),
    'bayer_rggb16': ('16U', 1, Color.BAYER_RGGB),
    'bayer_bggr16': ('16U', 1, Color.BAYER_BGGR),
    'bayer_gbrg16': ('16U', 1, Color.BAYER_GBRG),
    'bayer_grbg16': ('16U', 1, Color.BAYER_GRBG),
}

# encodings of sensor_msgs that Jazzy's cv_bridge knows to be colours but can neither read nor make
UNREADABLE_COLORS = ('uyvy', 'yuyv', 'nv21', 'nv24')

_CV_TYPE = re.compile(r'(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?')
_ABSTRACT = re.compile(r'(8|16|32|64)[USF]C([0-9]*)')


def cv_depth_and_channels(encoding: str) -> tuple[str, int]:
    """Return the OpenCV depth ('8U' to '64F') and the number of channels of an encoding.

    Raises RuntimeError for an encoding that cv_bridge does not know.
    """
    if encoding in COLOR_ENCODINGS:
        depth, channels, _ = COLOR_ENCODINGS[encoding]
        return depth, channels
    match = _CV_TYPE.fullmatch(encoding)
    if match is None:
        raise RuntimeError(f'Unrecognized image encoding [{encoding}]')
    return match[1], int(match[2] or 1)


def color_of(encoding: str) -> Color | None:
    """Return what the channels of an encoding mean, or None for numbers without a meaning."""
    return COLOR_ENCODINGS[encoding][2] if encoding in COLOR_ENCODINGS else None


def is_color(encoding: str) -> bool:
    """Return whether the channels of an encoding have a meaning."""
    return encoding in COLOR_ENCODINGS or encoding in UNREADABLE_COLORS


def bits_and_channels(encoding: str) -> tuple[int, int]:
    """Return the bits of a channel and the number of channels, as sensor_msgs counts them.

    Raises RuntimeError for an encoding that sensor_msgs does not know.
    """
    if encoding in UNREADABLE_COLORS:
        return 8, 2
    if encoding in COLOR_ENCODINGS:
        depth, channels, _ = COLOR_ENCODINGS[encoding]
        return int(depth[:-1]), channels
    match = _ABSTRACT.fullmatch(encoding)
    if match is None:
        raise RuntimeError(f'Unknown encoding {encoding}')
    return int(match[1]), int(match[2] or 1)
