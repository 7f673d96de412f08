"""Conversion of images between encodings."""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cv_bridge.encodings import (
    Color,
    bits_and_channels,
    color_of,
    cv_depth_and_channels,
    is_color,
)

Image = NDArray[Any]  # H W or H W C

DTYPES: dict[str, type[np.generic]] = {
    '8U': np.uint8,
    '8S': np.int8,
    '16U': np.uint16,
    '16S': np.int16,
    '32S': np.int32,
    '32F': np.float32,
    '64F': np.float64,
}

# OpenCV names a Bayer pattern by the second row's second and third pixel, ROS by the first two
_SOURCES: dict[Color, str] = {
    Color.GRAY: 'GRAY2{}',
    Color.RGB: 'RGB2{}',
    Color.BGR: 'BGR2{}',
    Color.RGBA: 'RGBA2{}',
    Color.BGRA: 'BGRA2{}',
    Color.UYVY: 'YUV2{}_UYVY',
    Color.YUY2: 'YUV2{}_YUY2',
    Color.BAYER_RGGB: 'BayerBG2{}',
    Color.BAYER_BGGR: 'BayerRG2{}',
    Color.BAYER_GBRG: 'BayerGR2{}',
    Color.BAYER_GRBG: 'BayerGB2{}',
}
_OPAQUE = (Color.GRAY, Color.RGB, Color.BGR)
_TARGETS = (*_OPAQUE, Color.RGBA, Color.BGRA)
_SAME_COLOR = (*_TARGETS, Color.UYVY)


def getCvType(encoding: str) -> int:
    """Return the OpenCV type, such as cv2.CV_8UC3, of an encoding.

    Raises RuntimeError for an encoding that cv_bridge does not know.
    """
    depth, channels = cv_depth_and_channels(encoding)
    return int(cv2.CV_MAKETYPE(getattr(cv2, f'CV_{depth}'), channels))


def cvtColor2(image: Image, encoding_in: str, encoding_out: str) -> Image:
    """Return a copy of `image` (H W or H W C) converted to another encoding.

    Between 8 and 16 bits values are scaled by 257; other changes of depth round and saturate.
    An image of one channel comes back as H W. Raises RuntimeError when there is no conversion,
    and RuntimeError or cv2.error when the image does not have the channels of its encoding.
    """
    if encoding_in == encoding_out:
        return _drop_single_channel(image).copy()
    code = _color_conversion(encoding_in, encoding_out)
    converted = _drop_single_channel(image)
    if code is not None:
        _refuse_gray_as_color(converted, encoding_in)
        converted = cv2.cvtColor(np.ascontiguousarray(converted), code)
    return _drop_single_channel(_change_depth(converted, encoding_in, encoding_out))


def _refuse_gray_as_color(image: Image, encoding: str) -> None:
    """Raise RuntimeError as OpenCV 4, the one of Jazzy, does; OpenCV 5 takes gray for BGR."""
    if bits_and_channels(encoding)[1] >= 3 and image.ndim < 3:
        raise RuntimeError(f'[{encoding}] needs 3 or 4 channels but the image has 1')


def _drop_single_channel(image: Image) -> Image:
    return image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image


def _color_conversion(encoding_in: str, encoding_out: str) -> int | None:
    """Return OpenCV's conversion code, or None where at most the depth changes."""
    _, channels_in = bits_and_channels(encoding_in)
    _, channels_out = bits_and_channels(encoding_out)
    if not is_color(encoding_in) and is_color(encoding_out):
        raise RuntimeError(
            f'[{encoding_in}] is not a color format. but [{encoding_out}] is. '
            'The conversion does not make sense'
        )
    if not is_color(encoding_out):
        if channels_in == channels_out:
            return None
        if is_color(encoding_in):
            raise RuntimeError(
                f'[{encoding_in}] is a color format but [{encoding_out}] is not so they must '
                'have the same OpenCV type, CV_8UC3, CV16UC1 ....'
            )
        raise RuntimeError(
            f'[{encoding_in}] and [{encoding_out}] do not have the same number of channel'
        )
    source, target = color_of(encoding_in), color_of(encoding_out)
    if source == target and source in _SAME_COLOR:
        return None
    mosaic = source is not None and source.name.startswith('BAYER')
    if source is None or target not in (_OPAQUE if mosaic else _TARGETS) or source == target:
        raise RuntimeError(f'Unsupported conversion from [{encoding_in}] to [{encoding_out}]')
    return int(getattr(cv2, 'COLOR_' + _SOURCES[source].format(target.value)))


def _change_depth(image: Image, encoding_in: str, encoding_out: str) -> Image:
    """Return the image in the depth of `encoding_out`, copied only where it changes."""
    bits_in, _ = bits_and_channels(encoding_in)
    bits_out, _ = bits_and_channels(encoding_out)
    dtype = DTYPES[cv_depth_and_channels(encoding_out)[0]]
    if image.dtype == dtype:
        return image
    if (bits_in, bits_out) == (16, 8) and (image.dtype, dtype) == (np.uint16, np.uint8):
        return _high_bytes()[image]
    scale = {(8, 16): 257.0, (16, 8): 1 / 257.0}.get((bits_in, bits_out), 1.0)
    if np.issubdtype(dtype, np.floating):
        return (image * scale).astype(dtype)
    limits = np.iinfo(dtype)  # type: ignore[type-var]
    rounded = np.rint(np.nan_to_num(image.astype(np.float64), copy=False) * scale)
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


@lru_cache(maxsize=1)
def _high_bytes() -> NDArray[np.uint8]:
    """Return the nearest 8-bit value of every 16-bit one: 65535 becomes 255."""
    return np.rint(np.arange(65536) / 257.0).astype(np.uint8)
