"""CvBridge: images between numpy arrays and messages."""

import sys
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage
from sensor_msgs.msg import Image as ImageMsg
from std_msgs.msg import Header

from cv_bridge.conversion import DTYPES, Image, cvtColor2, getCvType
from cv_bridge.encodings import cv_depth_and_channels


class CvBridgeError(TypeError):
    """An image cannot be converted."""


class CvBridge:
    """Converts sensor_msgs/Image and CompressedImage to numpy arrays and back.

    Encodings are those that Jazzy's cv_bridge reads: mono, rgb, bgr, rgba and bgra with 8 or 16
    bits, bayer_* with 8 or 16 bits, yuv422 (UYVY), yuv422_yuy2 (YUYV) and the generic types 8U to
    64FC<n>. It refuses the newer names uyvy, yuyv, nv21 and nv24, as Jazzy does.
    """

    def __init__(self) -> None:
        depths = {name: getattr(cv2, f'CV_{name}') for name in DTYPES}
        numpy_names = {name: np.dtype(dtype).name for name, dtype in DTYPES.items()}
        self.cvdepth_to_numpy_depth = {depths[name]: numpy_names[name] for name in DTYPES}
        self.cvtype_to_name = {
            getCvType(f'{name}C{channels}'): f'{name}C{channels}'
            for name in DTYPES
            for channels in (1, 2, 3, 4)
        }
        self.numpy_type_to_cvtype = {
            **{numpy_name: name for name, numpy_name in numpy_names.items()},
            **numpy_names,
        }

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype[Any], n_channels: int) -> str:
        """Return the generic encoding, such as '8UC3'; raises KeyError for another dtype."""
        return f'{self.numpy_type_to_cvtype[dtype.name]}C{n_channels}'

    def cvtype2_to_dtype_with_channels(self, cvtype: int) -> tuple[str, int]:
        """Return numpy's name of the dtype and the number of channels of an OpenCV type."""
        step = cv2.CV_MAKETYPE(0, 2)  # one more channel adds this much to a type
        return self.cvdepth_to_numpy_depth[cvtype % step], cvtype // step + 1

    def encoding_to_cvtype2(self, encoding: str) -> int:
        """Return the OpenCV type of an encoding; raises CvBridgeError for an unknown one."""
        try:
            return getCvType(encoding)
        except RuntimeError as error:
            raise CvBridgeError(error) from error

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Return numpy's name of the dtype and the number of channels of an encoding.

        Raises CvBridgeError for an unknown encoding.
        """
        try:
            depth, channels = cv_depth_and_channels(encoding)
        except RuntimeError as error:
            raise CvBridgeError(error) from error
        return np.dtype(DTYPES[depth]).name, channels

    def imgmsg_to_cv2(self, img_msg: ImageMsg, desired_encoding: str = 'passthrough') -> Image:
        """Return the image as an array, H W for one channel and H W C for more.

        With 'passthrough' the array keeps the message's encoding and, where the rows have no
        padding and the bytes the machine's order, shares the message's memory. With another
        encoding it is a new, converted array. Raises CvBridgeError when there is no such
        encoding or conversion and TypeError when the message has too few bytes.
        """
        name, channels = self.encoding_to_dtype_with_channels(img_msg.encoding)
        dtype = np.dtype(name).newbyteorder('>' if img_msg.is_bigendian else '<')
        pixel_bytes = dtype.itemsize * channels
        columns = min(img_msg.width, img_msg.step // pixel_bytes)
        rows = np.ndarray((img_msg.height, img_msg.step), np.uint8, img_msg.data)
        image: Image = np.ascontiguousarray(rows[:, : columns * pixel_bytes]).view(dtype)
        if channels > 1:
            image = image.reshape(img_msg.height, columns, channels)
        if bool(img_msg.is_bigendian) == (sys.byteorder == 'little'):
            image = image.byteswap().view(np.dtype(name))
        if desired_encoding == 'passthrough':
            return image
        return self._convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(
        self, cvim: Image, encoding: str = 'passthrough', header: Header | None = None
    ) -> ImageMsg:
        """Return the array (H W or H W C) as a message, without padding and in its byte order.

        With 'passthrough' the encoding is generic, such as '8UC3'. Raises TypeError when `cvim`
        is no array, CvBridgeError when the encoding is unknown or has another dtype or number of
        channels than the array, and KeyError when no encoding holds the array's dtype.
        """
        if not isinstance(cvim, (np.ndarray, np.generic)):
            raise TypeError('Your input type is not a numpy array')
        message = ImageMsg()
        message.height, message.width = cvim.shape[:2]
        if header is not None:
            message.header = header
        channels = cvim.shape[2] if cvim.ndim > 2 else 1
        cv_type = self.dtype_with_channels_to_cvtype2(cvim.dtype, channels)
        if encoding == 'passthrough':
            message.encoding = cv_type
        else:
            if self.cvtype_to_name[self.encoding_to_cvtype2(encoding)] != cv_type:
                raise CvBridgeError(
                    f'encoding specified as {encoding}, but image has incompatible type {cv_type}'
                )
            message.encoding = encoding
        message.is_bigendian = cvim.dtype.byteorder == '>'
        message.data.frombytes(np.ascontiguousarray(cvim).reshape(-1).view(np.uint8))
        message.step = len(message.data) // message.height
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = 'passthrough'
    ) -> Image:
        """Return the decoded image, H W, H W 3 (BGR) or H W 4 (BGRA), with its own depth.

        With another encoding than 'passthrough' it is converted as if it were bgr8. Returns None
        with 'passthrough' when the bytes are no image; raises CvBridgeError when the
        conversion fails.
        """
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if desired_encoding == 'passthrough':
            return image
        if image is None:
            raise CvBridgeError('the bytes of the message are no image that OpenCV can decode')
        return self._convert(image, 'bgr8', desired_encoding)

    def cv2_to_compressed_imgmsg(self, cvim: Image, dst_format: str = 'jpg') -> CompressedImage:
        """Return the array (H W, H W 3 as BGR or H W 4 as BGRA) encoded as jpg, png or the like.

        `dst_format` is the extension of a file that OpenCV writes, and becomes the message's
        format. Raises TypeError when `cvim` is no array and cv2.error when OpenCV cannot encode.
        """
        if not isinstance(cvim, (np.ndarray, np.generic)):
            raise TypeError('Your input type is not a numpy array')
        message = CompressedImage()
        message.format = dst_format
        message.data.frombytes(cv2.imencode(f'.{dst_format}', cvim)[1].reshape(-1))
        return message

    def _convert(self, image: Image, encoding_in: str, encoding_out: str) -> Image:
        try:
            return cvtColor2(image, encoding_in, encoding_out)
        except (RuntimeError, cv2.error) as error:
            raise CvBridgeError(error) from error
