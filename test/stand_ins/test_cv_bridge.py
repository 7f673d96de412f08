import sys
from array import array

import cv2
import numpy as np
import pytest
from cv_bridge import CvBridge, CvBridgeError, getCvType
from numpy.testing import assert_array_equal
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

HEIGHT, WIDTH = 4, 6

# encoding: (dtype, channels), for every encoding that Jazzy's cv_bridge reads
NAMED = {
    'mono8': ('uint8', 1),
    'mono16': ('uint16', 1),
    'rgb8': ('uint8', 3),
    'bgr8': ('uint8', 3),
    'rgba8': ('uint8', 4),
    'bgra8': ('uint8', 4),
    'rgb16': ('uint16', 3),
    'bgr16': ('uint16', 3),
    'rgba16': ('uint16', 4),
    'bgra16': ('uint16', 4),
    'yuv422': ('uint8', 2),
    'yuv422_yuy2': ('uint8', 2),
    **{f'bayer_{p}8': ('uint8', 1) for p in ('rggb', 'bggr', 'gbrg', 'grbg')},
    **{f'bayer_{p}16': ('uint16', 1) for p in ('rggb', 'bggr', 'gbrg', 'grbg')},
}
DEPTHS = {
    '8U': 'uint8',
    '8S': 'int8',
    '16U': 'uint16',
    '16S': 'int16',
    '32S': 'int32',
    '32F': 'float32',
    '64F': 'float64',
}
GENERIC = {
    **{f'{depth}C{n}': (dtype, n) for depth, dtype in DEPTHS.items() for n in (1, 2, 3, 4)},
    **{depth: (dtype, 1) for depth, dtype in DEPTHS.items()},
}
ENCODINGS = NAMED | GENERIC


@pytest.fixture
def bridge():
    return CvBridge()


def picture(dtype, channels, seed=0):
    """Return an array of random bytes, H W or H W C; floats are finite."""
    shape = (HEIGHT, WIDTH) if channels == 1 else (HEIGHT, WIDTH, channels)
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == 'f':
        return random.normal(0.0, 100.0, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def message(image, encoding, *, padding=0, bigendian=False):
    """Return an Image whose bytes are laid out by hand."""
    if bigendian:
        image = image.astype(image.dtype.newbyteorder('>'))
    rows = [row.tobytes() + b'\xee' * padding for row in image]
    result = Image(height=image.shape[0], width=image.shape[1], encoding=encoding)
    result.step = len(rows[0])
    result.is_bigendian = int(bigendian)
    result.data = array('B', b''.join(rows))
    return result


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_dtype_and_channels(bridge, encoding):
    assert bridge.encoding_to_dtype_with_channels(encoding) == ENCODINGS[encoding]
    cvtype = bridge.encoding_to_cvtype2(encoding)
    assert cvtype == getCvType(encoding)
    assert bridge.cvtype2_to_dtype_with_channels(cvtype) == ENCODINGS[encoding]


def test_opencv_types_are_those_of_cv2(bridge):
    assert bridge.encoding_to_cvtype2('bgr8') == cv2.CV_8UC3
    assert bridge.encoding_to_cvtype2('32FC4') == cv2.CV_32FC4
    assert bridge.encoding_to_cvtype2('64F') == cv2.CV_64FC1
    assert bridge.encoding_to_cvtype2('8UC7') == cv2.CV_8UC(7)
    assert bridge.dtype_with_channels_to_cvtype2(np.dtype('float32'), 2) == '32FC2'
    assert bridge.cvtype_to_name[cv2.CV_16SC3] == '16SC3'


@pytest.mark.parametrize('encoding', ['', 'rgb', 'BGR8', '8UC', 'uyvy', 'yuyv', 'nv21', 'nv24'])
def test_unknown_encoding_is_refused(bridge, encoding):
    for call in (bridge.encoding_to_cvtype2, bridge.encoding_to_dtype_with_channels):
        with pytest.raises(CvBridgeError, match=r'Unrecognized image encoding \['):
            call(encoding)
    with pytest.raises(CvBridgeError, match='Unrecognized'):
        bridge.imgmsg_to_cv2(message(picture('uint8', 1), encoding))
    with pytest.raises(CvBridgeError, match='Unrecognized'):
        bridge.cv2_to_imgmsg(picture('uint8', 3), encoding)


def test_error_is_a_type_error():
    assert issubclass(CvBridgeError, TypeError)


@pytest.mark.parametrize('bigendian', [False, True])
@pytest.mark.parametrize('padding', [0, 8])
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_is_read_in_either_byte_order_with_padded_rows(
    bridge, encoding, padding, bigendian
):
    dtype, channels = ENCODINGS[encoding]
    image = picture(dtype, channels)
    read = bridge.imgmsg_to_cv2(message(image, encoding, padding=padding, bigendian=bigendian))
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    assert read.flags.c_contiguous
    assert_array_equal(read, image)
    assert_array_equal(bridge.imgmsg_to_cv2(message(image, encoding), encoding), image)


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_every_encoding_is_written_without_padding(bridge, encoding):
    dtype, channels = ENCODINGS[encoding]
    image = picture(dtype, channels)
    written = bridge.cv2_to_imgmsg(image, encoding)
    assert written.encoding == encoding
    assert (written.height, written.width) == (HEIGHT, WIDTH)
    assert written.step == WIDTH * channels * np.dtype(dtype).itemsize
    assert written.is_bigendian == (sys.byteorder == 'big')
    assert isinstance(written.data, array)
    assert written.data.typecode == 'B'
    assert bytes(written.data) == image.tobytes()
    generic = bridge.cv2_to_imgmsg(image)
    assert generic.encoding == bridge.dtype_with_channels_to_cvtype2(image.dtype, channels)


def test_bytes_of_a_colour_pixel(bridge):
    blue_green_red = np.array([[[255, 128, 1]]], np.uint8)
    written = bridge.cv2_to_imgmsg(blue_green_red, 'bgr8')
    assert list(written.data) == [255, 128, 1]
    assert bridge.imgmsg_to_cv2(written, 'rgb8').tolist() == [[[1, 128, 255]]]
    assert bridge.imgmsg_to_cv2(written, 'rgba8').tolist() == [[[1, 128, 255, 255]]]
    assert bridge.imgmsg_to_cv2(written, 'bgra16').tolist() == [[[65535, 32896, 257, 65535]]]
    # 0.114 B + 0.587 G + 0.299 R = 104.5; OpenCV rounds in fixed point
    assert bridge.imgmsg_to_cv2(written, 'mono8').tolist() in ([[104]], [[105]])


def test_bytes_of_a_big_endian_pixel(bridge):
    image = np.array([[0x0102, 0xFFFE]], '>u2')
    written = bridge.cv2_to_imgmsg(image, 'mono16')
    assert written.is_bigendian == 1
    assert list(written.data) == [0x01, 0x02, 0xFF, 0xFE]
    assert bridge.imgmsg_to_cv2(written).tolist() == [[0x0102, 0xFFFE]]
    assert bridge.imgmsg_to_cv2(written, 'mono8').tolist() == [[1, 255]]


def test_rows_padded_to_four_bytes(bridge):
    image = picture('uint8', 3)[:, :5]  # 15 bytes a row in a step of 16
    padded = message(image, 'rgb8', padding=1)
    assert padded.step == 16
    assert_array_equal(bridge.imgmsg_to_cv2(padded), image)
    assert_array_equal(bridge.imgmsg_to_cv2(padded, 'bgr8'), image[:, :, ::-1])


def test_passthrough_shares_the_memory_of_the_message(bridge):
    source = message(picture('uint8', 3), 'bgr8')
    shared, copied = bridge.imgmsg_to_cv2(source), bridge.imgmsg_to_cv2(source, 'bgr8')
    shared[0, 0] = (1, 2, 3)
    assert list(source.data[:3]) == [1, 2, 3]
    assert copied.base is None
    copied[0, 0] = (7, 8, 9)
    assert list(source.data[:3]) == [1, 2, 3]


@pytest.mark.parametrize('make', [lambda image: image[:, ::-1], lambda image: image[::2, 1:]])
def test_views_are_written_in_their_own_order(bridge, make):
    view = make(picture('uint16', 3))
    written = bridge.cv2_to_imgmsg(view, 'rgb16')
    assert bytes(written.data) == view.tobytes()
    assert written.step == view.shape[1] * 6


def test_single_channel_axis_is_accepted_and_dropped(bridge):
    image = picture('uint8', 1)
    written = bridge.cv2_to_imgmsg(image[:, :, np.newaxis], 'mono8')
    assert bridge.imgmsg_to_cv2(written).shape == (HEIGHT, WIDTH)
    assert bridge.imgmsg_to_cv2(written, 'mono8').shape == (HEIGHT, WIDTH)


def test_header_is_taken_over(bridge):
    header = Header(frame_id='left_optical')
    header.stamp.sec = 7
    written = bridge.cv2_to_imgmsg(picture('uint8', 1), header=header)
    assert written.header == header
    assert bridge.cv2_to_imgmsg(picture('uint8', 1)).header == Header()


def test_array_that_does_not_fit_the_encoding_is_refused(bridge):
    for dtype, channels, encoding in (
        ('uint8', 3, 'rgba8'),
        ('uint8', 3, 'mono8'),
        ('uint16', 3, 'rgb8'),
        ('float32', 1, '16UC1'),
    ):
        with pytest.raises(CvBridgeError, match=f'specified as {encoding}, but image has incom'):
            bridge.cv2_to_imgmsg(picture(dtype, channels), encoding)


@pytest.mark.parametrize('wrong', [1, [[1, 2]], None, 'image'])
def test_what_is_no_array_is_refused(bridge, wrong):
    with pytest.raises(TypeError, match='not a numpy array'):
        bridge.cv2_to_imgmsg(wrong)
    with pytest.raises(TypeError, match='not a numpy array'):
        bridge.cv2_to_compressed_imgmsg(wrong)


def test_dtype_that_no_encoding_holds_is_refused(bridge):
    with pytest.raises(KeyError):
        bridge.cv2_to_imgmsg(np.zeros((2, 2), np.int64))


def test_message_with_too_few_bytes_is_refused(bridge):
    short = message(picture('uint8', 3), 'bgr8')
    short.data = short.data[:-1]
    with pytest.raises(TypeError):
        bridge.imgmsg_to_cv2(short)


def test_empty_message_is_an_empty_array(bridge):
    empty = Image(encoding='bgr8')
    assert bridge.imgmsg_to_cv2(empty).shape == (0, 0, 3)
    with pytest.raises(CvBridgeError):
        bridge.imgmsg_to_cv2(empty, 'rgb8')


@pytest.mark.parametrize('extension', ['png', 'jpg', 'jpeg', 'bmp', 'tiff'])
@pytest.mark.parametrize('channels', [1, 3])
def test_compressed_round_trip(bridge, extension, channels):
    # even rows are flat so that jpg keeps them
    image = np.full((16, 24) + ((3,) if channels == 3 else ()), 90, np.uint8)
    written = bridge.cv2_to_compressed_imgmsg(image, extension)
    assert written.format == extension
    assert bytes(written.data) == cv2.imencode(f'.{extension}', image)[1].tobytes()
    read = bridge.compressed_imgmsg_to_cv2(written)
    assert read.shape == image.shape
    assert np.abs(read.astype(int) - 90).max() <= 1


def test_compressed_is_jpg_by_default(bridge):
    written = bridge.cv2_to_compressed_imgmsg(picture('uint8', 3))
    assert written.format == 'jpg'
    assert bytes(written.data[:2]) == b'\xff\xd8'


def test_compressed_keeps_sixteen_bits_and_alpha(bridge):
    for dtype, channels in (('uint16', 1), ('uint16', 3), ('uint8', 4)):
        image = picture(dtype, channels)
        read = bridge.compressed_imgmsg_to_cv2(bridge.cv2_to_compressed_imgmsg(image, 'png'))
        assert read.dtype == np.dtype(dtype)
        assert_array_equal(read, image)


def test_compressed_is_converted_from_bgr8(bridge):
    image = picture('uint8', 3)
    written = bridge.cv2_to_compressed_imgmsg(image, 'png')
    assert_array_equal(bridge.compressed_imgmsg_to_cv2(written, 'bgr8'), image)
    assert_array_equal(bridge.compressed_imgmsg_to_cv2(written, 'rgb8'), image[:, :, ::-1])
    gray = bridge.cv2_to_compressed_imgmsg(image[:, :, 0], 'png')
    with pytest.raises(CvBridgeError):
        bridge.compressed_imgmsg_to_cv2(gray, 'rgb8')


def test_compressed_that_is_no_image(bridge):
    broken = CompressedImage(format='jpg', data=array('B', b'no image at all'))
    assert bridge.compressed_imgmsg_to_cv2(broken) is None
    with pytest.raises(CvBridgeError):
        bridge.compressed_imgmsg_to_cv2(broken, 'bgr8')
    with pytest.raises(cv2.error):
        bridge.cv2_to_compressed_imgmsg(picture('uint8', 3), 'no_such_format')
