from array import array

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge, CvBridgeError
from numpy.testing import assert_array_equal
from sensor_msgs.msg import Image

COLORS = ('mono', 'rgb', 'bgr', 'rgba', 'bgra')
CHANNELS = {'mono': 1, 'rgb': 3, 'bgr': 3, 'rgba': 4, 'bgra': 4}
PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')


def convert(image, encoding_in, encoding_out):
    bridge = CvBridge()
    return bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(image, encoding_in), encoding_out)


def picture(color, dtype=np.uint8):
    """Return random values, 4 x 6 of every channel."""
    shape = (4, 6) if CHANNELS[color] == 1 else (4, 6, CHANNELS[color])
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def red_green_blue(image, color):
    """Return the (red, green, blue) planes."""
    if color == 'mono':
        return image, image, image
    order = {'r': 'rgb', 'b': 'bgr'}[color[0]]
    return tuple(image[:, :, order.index(name)] for name in 'rgb')


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('target', COLORS)
@pytest.mark.parametrize('source', COLORS)
def test_colours_keep_their_values(source, target, dtype):
    bits = np.iinfo(dtype).bits
    image = picture(source, dtype)
    converted = convert(image, f'{source}{bits}', f'{target}{bits}')
    assert converted.dtype == dtype
    expected = red_green_blue(image, source)
    if target == 'mono' and source != 'mono':
        weights = (0.299, 0.587, 0.114)
        gray = sum(w * plane.astype(float) for w, plane in zip(weights, expected, strict=True))
        assert np.abs(converted - gray).max() <= (1 if bits == 8 else 2)
        return
    for plane, expected_plane in zip(red_green_blue(converted, target), expected, strict=True):
        assert_array_equal(plane, expected_plane)
    if CHANNELS[target] == 4:
        opaque = image[:, :, 3] if CHANNELS[source] == 4 else np.iinfo(dtype).max
        assert_array_equal(converted[:, :, 3], np.broadcast_to(opaque, (4, 6)))


@pytest.mark.parametrize('target', COLORS)
@pytest.mark.parametrize('source', COLORS)
def test_depth_is_scaled_so_that_white_stays_white(source, target):
    image = picture(source)
    wide = convert(image, f'{source}8', f'{target}16')
    assert_array_equal(wide, convert(image, f'{source}8', f'{target}8').astype(np.uint16) * 257)
    assert_array_equal(
        convert(wide, f'{target}16', f'{target}8'), convert(image, f'{source}8', f'{target}8')
    )


def test_sixteen_bits_are_rounded_to_the_nearest_of_eight():
    image = np.array([[0, 128, 129, 257, 385, 386, 65406, 65407, 65535]], np.uint16)
    assert convert(image, 'mono16', 'mono8').tolist() == [[0, 0, 1, 1, 1, 2, 254, 255, 255]]


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('pattern', PATTERNS)
def test_bayer_mosaic_of_one_colour_comes_back_as_that_colour(pattern, bits):
    maximum = 2**bits - 1
    colour = {'r': maximum, 'g': maximum // 2, 'b': maximum // 8}
    tile = np.array(
        [[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]]
    )
    mosaic = np.tile(tile, (4, 6)).astype(f'uint{bits}')
    inner = (slice(2, -2), slice(2, -2))
    for name, order in (('rgb', 'rgb'), ('bgr', 'bgr')):
        converted = convert(mosaic, f'bayer_{pattern}{bits}', f'{name}{bits}')
        assert (converted[inner] == [colour[c] for c in order]).all()
    gray = convert(mosaic, f'bayer_{pattern}{bits}', f'mono{bits}')
    expected = 0.299 * colour['r'] + 0.587 * colour['g'] + 0.114 * colour['b']
    assert np.abs(gray[inner] - expected).max() <= 2
    eight = convert(mosaic, f'bayer_{pattern}{bits}', 'rgb8')
    assert (
        np.abs(eight[inner].astype(int) - [round(colour[c] / maximum * 255) for c in 'rgb']).max()
        <= 1
    )


@pytest.mark.parametrize(('encoding', 'order'), [('yuv422', 'uyvy'), ('yuv422_yuy2', 'yuyv')])
def test_packed_yuv_is_read_in_its_order(encoding, order):
    values = {'y': 81, 'u': 90, 'v': 240}  # BT.601 red
    packed = np.tile([values[name] for name in order], (4, 3)).astype(np.uint8).reshape(4, 6, 2)
    rgb = convert(packed, encoding, 'rgb8')
    assert rgb.shape == (4, 6, 3)
    assert np.abs(rgb.astype(int) - [255, 0, 0]).max() <= 2
    assert_array_equal(convert(packed, encoding, 'bgr8'), rgb[:, :, ::-1])
    assert (convert(packed, encoding, 'mono8') == 81).all()
    assert (convert(packed, encoding, 'rgba8')[:, :, 3] == 255).all()


def test_generic_types_convert_by_rounding_and_saturating():
    image = np.array([[-3.0, 0.5, 1.5, 2.5, 254.6, 300.0, np.nan]], np.float32)
    assert convert(image, '32FC1', '8UC1').tolist() == [[0, 0, 2, 2, 255, 255, 0]]
    assert convert(image[:, :6], '32FC1', '16SC1').tolist() == [[-3, 0, 2, 2, 255, 300]]
    wide = convert(np.array([[-7, 70000]], np.int32), '32SC1', '64FC1')
    assert wide.dtype == np.float64
    assert wide.tolist() == [[-7.0, 70000.0]]
    assert convert(np.array([[-7, 70000]], np.int32), '32SC1', '16UC1').tolist() == [[0, 65535]]


def test_colour_becomes_a_generic_type_of_as_many_channels():
    image = picture('rgb')
    assert_array_equal(convert(image, 'rgb8', '8UC3'), image)
    assert_array_equal(convert(image, 'rgb8', '32FC3'), image.astype(np.float32))
    assert_array_equal(convert(image, 'rgb8', '16UC3'), image.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ('encoding_in', 'encoding_out', 'reason'),
    [
        ('8UC3', 'bgr8', r'\[8UC3\] is not a color format. but \[bgr8\] is'),
        ('16UC1', 'mono16', 'does not make sense'),
        ('32FC1', 'mono8', 'does not make sense'),
        ('32FC1', '32FC3', 'same number of channel'),
        ('rgb8', '8UC1', 'same OpenCV type'),
        ('mono8', 'yuv422', 'Unsupported conversion'),
        ('rgb8', 'bayer_rggb8', 'Unsupported conversion'),
        ('bayer_rggb8', 'rgba8', 'Unsupported conversion'),
        ('bayer_rggb8', 'bayer_bggr8', 'Unsupported conversion'),
        ('bayer_rggb8', 'bayer_rggb16', 'Unsupported conversion'),
        ('yuv422', 'yuv422_yuy2', 'Unsupported conversion'),
        ('rgb8', 'uyvy', 'Unsupported conversion'),
        ('rgb8', 'nv21', 'Unsupported conversion'),
        ('rgb8', 'rgb24', 'Unknown encoding rgb24'),
    ],
)
def test_conversion_without_a_meaning_is_refused(encoding_in, encoding_out, reason):
    dtype, channels = CvBridge().encoding_to_dtype_with_channels(encoding_in)
    image = np.zeros((4, 6) + ((channels,) if channels > 1 else ()), dtype)
    with pytest.raises(CvBridgeError, match=reason):
        convert(image, encoding_in, encoding_out)


def test_failure_inside_opencv_is_a_bridge_error():
    odd = Image(height=2, width=3, step=6, encoding='yuv422', data=array('B', bytes(12)))
    with pytest.raises(CvBridgeError) as failure:
        CvBridge().imgmsg_to_cv2(odd, 'rgb8')
    assert isinstance(failure.value.__cause__, cv2.error)
