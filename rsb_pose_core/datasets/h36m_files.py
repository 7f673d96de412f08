"""Files of Human3.6M: metadata, positions and videos.

Expected below the folder of the data set, as its archives unpack:

    metadata.xml                                            of the release's code (Release-v1.1)
    S9/MyPoseFeatures/D3_Positions/Directions 1.cdf         of Poses_D3_Positions_S9.tgz
    S9/Videos/Directions 1.54138969.mp4                     of Videos_S9.tgz

or, instead of a video, its pictures counted from 1 in a folder of its name, as of
`ffmpeg -i 'Directions 1.54138969.mp4' 'Directions 1.54138969/img_%06d.jpg'`; those that are not
asked for may be missing.

From the release's own programs and from others' that read it, are known:
- metadata.xml holds 300 numbers in <w0>: for each of four cameras and, within, each of eleven
  subjects, three angles and where the camera stands in the world, mm; then for each camera f (2),
  c (2), k (3) and p (2). x_camera = Rx(a0) Ry(a1) Rz(a2) (x_world - centre). Checked on the
  published numbers.
- The release's lens model: with t = p0 y + p1 x, x_seen = x (1 + k0 r^2 + k1 r^4 + k2 r^6 + t) +
  p1 r^2, and y_seen likewise with p0. OpenCV has 2 t; half of p0 and p1 as its tangential and the
  other half as its thin prism coefficients are the same model.
- A CDF's 'Pose' is (1, frames, 96): 32 joints' x, y, z in mm; D3_Positions in the world.
- Cameras 54138969 and 60457274 take 1000x1002 pixels, the other two 1000x1000, all 50 Hz.
- A video may have some frames more or fewer than its CDF, whose first belongs to its first.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import cdflib
import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from rsb_pose_core.errors import DataError
from rsb_pose_core.stereo_rectification import Camera

# In the order of metadata.xml, numbered from 1 in the paper.
CAMERAS = {
    '54138969': (1000, 1002),
    '55011271': (1000, 1000),
    '58860488': (1000, 1000),
    '60457274': (1000, 1002),
}
METADATA_SUBJECTS = 11
EXTRINSIC, INTRINSIC = 6, 9  # numbers of metadata.xml
JOINTS = 32
# The joint of a CDF for each of skeleton.H36M_17.
H36M_JOINTS = (3, 2, 1, 6, 7, 8, 0, 12, 13, 15, 27, 26, 25, 17, 18, 19, 14)
MM = 0.001


def read_cameras(path: Path) -> list[list[Camera]]:
    """Cameras by subject 1..11 (index 0..10) and then in the order of CAMERAS, of metadata.xml.

    Raises DataError, naming the file.
    """
    expected = f'expected that of Release-v1.1 of {path.parent.name or "the data set"}'
    try:
        text = ElementTree.parse(path).getroot().findtext('w0') or ''
        numbers = np.array([float(number) for number in re.split(r'[\s,;]+', text.strip(' []\n'))])
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}, {expected}; put it there') from error
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(
            f'{path}: no numbers <w0> of cameras ({error}), {expected}; get the file again'
        ) from error
    size = len(CAMERAS) * (METADATA_SUBJECTS * EXTRINSIC + INTRINSIC)
    if numbers.size != size or not np.isfinite(numbers).all():
        raise DataError(
            f'{path}: {numbers.size} numbers in <w0>, expected {size} finite ones; get the '
            f'metadata.xml of Release-v1.1'
        )
    outer = numbers[: -len(CAMERAS) * INTRINSIC].reshape(
        len(CAMERAS), METADATA_SUBJECTS, EXTRINSIC
    )
    inner = numbers[-len(CAMERAS) * INTRINSIC :].reshape(len(CAMERAS), INTRINSIC)
    return [
        [_camera(name, outer[n, subject], inner[n]) for n, name in enumerate(CAMERAS)]
        for subject in range(METADATA_SUBJECTS)
    ]


def _camera(name: str, outer: NDArray[np.float64], inner: NDArray[np.float64]) -> Camera:
    (fx, fy), (cx, cy), (k0, k1, k2), (p0, p1) = (
        inner[first:last].tolist() for first, last in pairwise((0, 2, 4, 7, 9))
    )
    width, height = CAMERAS[name]
    rotation = Rotation.from_euler('XYZ', outer[:3]).as_matrix()
    return Camera(
        width,
        height,
        np.array([(fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0)]),
        np.array([k0, k1, p0 / 2, p1 / 2, k2, 0, 0, 0, p1 / 2, 0, p0 / 2, 0]),
        rotation,
        -rotation @ outer[3:] * MM,
        name=f'camera {name}',
    )


def read_poses(path: Path) -> Float[np.ndarray, 'frames 17 3']:
    """Joints of H36M_17 in metres, in the world, at 50 Hz. Raises DataError."""
    try:
        values = np.asarray(cdflib.CDF(path).varget('Pose'), np.float64)
    except Exception as error:  # cdflib raises many kinds where a file is cut
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: no positions can be read ({reason}), expected a CDF with 'Pose'; get it "
            f'again'
        ) from error
    if values.ndim not in (2, 3) or values.shape[-1] != 3 * JOINTS or not values.size:
        raise DataError(
            f"{path}: 'Pose' is {'x'.join(map(str, values.shape))}, expected 1 x frames x "
            f'{3 * JOINTS}; take the CDF of D3_Positions'
        )
    if not np.isfinite(values).all():
        raise DataError(f'{path}: positions that are not finite, expected mm; get it again')
    return values.reshape(-1, JOINTS, 3)[:, H36M_JOINTS] * MM


def count_frames(video: Path) -> int | None:
    """Frames of a video; None where a folder of pictures stands for it. Raises DataError."""
    if video.with_suffix('').is_dir():
        return None
    if not video.is_file():
        raise DataError(f'{video} is missing, expected a video or a folder of its pictures')
    capture = cv2.VideoCapture(str(video))
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    if count <= 0:
        raise DataError(f'{video}: no video can be read, expected an .mp4; get it again')
    return count


def read_frames(
    video: Path, numbers: Sequence[int], size: tuple[int, int]
) -> Iterator[UInt8[np.ndarray, 'h w 3'] | DataError]:
    """RGB of a video's frames, numbers rising from 0; an error for each that cannot be read.

    size: width and height in pixels. A video that ends before raises DataError.
    """
    folder = video.with_suffix('')
    found = _pictures(folder, numbers) if folder.is_dir() else _frames(video, numbers)
    for path, picture in found:
        width, height = size
        if picture is None:
            yield DataError(f'{path}: no picture can be read, expected a JPEG; extract it again')
        elif picture.shape != (height, width, 3):
            yield DataError(
                f'{path}: {picture.shape[1]}x{picture.shape[0]} pixels, expected {width}x{height}'
                f'; take the video as published'
            )
        else:
            yield np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


Picture = tuple[Path, NDArray[np.uint8] | None]


def _pictures(folder: Path, numbers: Sequence[int]) -> Iterator[Picture]:
    for number in numbers:
        path = folder / f'img_{number + 1:06d}.jpg'
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
        yield path, None if picture is None else np.asarray(picture, np.uint8)


def _frames(video: Path, numbers: Sequence[int]) -> Iterator[Picture]:
    """Goes through all frames: not every video is found where one seeks."""
    capture = cv2.VideoCapture(str(video))
    position = 0
    for number in numbers:
        while position < number and capture.grab():
            position += 1
        is_read, picture = capture.read()
        if not is_read:
            raise DataError(
                f'{video}: the video ends at frame {position}, expected frame {number}; get it '
                f'again'
            )
        position += 1
        yield video, np.asarray(picture, np.uint8)
