"""Files of Berkeley MHAD: calibration, correspondences, motion and Bayer pictures.

Expected below the folder of the data set, with two digits for camera, subject, action, repetition:

    Calibration/camcfg_l01.yml                                        of the quad's four cameras
    Calibration/RwTw_l01.txt                                          of the quad in the room
    Camera/Cluster01/Cam01/S01/A01/R01/img_l01_c01_s01_a01_r01_00000.pgm
    Camera/Correspondences/corr_moc_img_s01_a01_r01.txt
    Mocap/SkeletalData/skl_s01_a01_r01.bvh

From the data set's own example programs, and from others' that read it, are known:
- Pictures are binary .pgm of 640x480 bytes, a Bayer mosaic whose first row begins green, red and
  whose second begins blue, green (MATLAB's 'grbg').
- camcfg_l01.yml, OpenCV's, holds for Camera_1 to Camera_4: K (3x3), Dist (k1, k2, p1, p2), and
  PosRel (6: translation in mm, rotation vector) from the axes of camera 1 to the camera's.
  RwTw_l01.txt holds Rw= (9 numbers, by rows) and Tw= (3, mm) from the room to camera 1.
- A row of the correspondences belongs to a picture: its first number is the picture's, its third
  that of the motion's frame, both from 0.
- The BVH is in centimetres in the axes of the room, and has the 30 joints of JOINT_NAMES with
  five end sites. Where a joint has position channels they replace its OFFSET, at the root too.
- Subjects 1-12, actions 1-11, repetitions 1-5; that of subject 4, action 8, repetition 5 is not
  published, and some pictures are known to be damaged.

Inferred: that the joints of the BVH stand in the order of JOINT_NAMES (they are looked up by
name), what the second number of a correspondence is (it is not used), and that imgWidth and
imgHeight of the Kinects' calibration stand in the quad's as well (640x480 where they do not). No
file of the data set was at hand when this was written.

By that order the RSB-Pose authors' right wrist (joint 13) is the end of the right hand, while
their left wrist (19) is a wrist; here both are wrists, unless `authors_wrist` asks for theirs.
"""

import re
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray

from rsb_pose_core.calibration import CalibrationError, StereoCalibration
from rsb_pose_core.errors import DataError
from rsb_pose_core.stereo_rectification import Camera
from rsb_pose_core.synthesis.bvh import parse_bvh, pose_bvh

PICTURE_SIZE = (640, 480)
BASELINE_M = (0.05, 1.0)
CM = 0.01

TRUNK = ('Hips', 'spine', 'spine1', 'spine2', 'Neck', 'Head')
ARM = ('Shoulder', 'Arm', 'ArmRoll', 'ForeArm', 'ForeArmRoll', 'Hand')
LEG = ('UpLeg', 'UpLegRoll', 'Leg', 'LegRoll', 'Foot', 'ToeBase')
JOINT_NAMES = (
    *TRUNK, 'Head_end',
    *(f'{side}{bone}' for side in ('Right', 'Left') for bone in (*ARM, 'Hand_end')),
    *(f'{side}{bone}' for side in ('Right', 'Left') for bone in (*LEG, 'ToeBase_end')),
)  # fmt: skip
# The joint of the BVH for each of skeleton.H36M_17.
H36M_NAMES = (
    'RightFoot', 'RightLeg', 'RightUpLeg', 'LeftUpLeg', 'LeftLeg', 'LeftFoot',
    'Hips', 'spine2', 'Neck', 'Head_end', 'RightHand', 'RightForeArm', 'RightArm',
    'LeftArm', 'LeftForeArm', 'LeftHand', 'Head',
)  # fmt: skip
AUTHORS_WRIST = {'RightHand': 'RightHand_end'}


def read_cameras(folder: Path) -> list[Camera]:
    """The four cameras of the quad L1, from the room (metres), of the folder Calibration.

    Raises DataError, naming the file.
    """
    rotation, translation_mm = _read_room(folder / 'RwTw_l01.txt')
    path = folder / 'camcfg_l01.yml'
    if not path.is_file():
        raise DataError(f'{path} is missing, expected the calibration of the quad L1')
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        return [
            _camera(storage.getNode(f'Camera_{number}'), number, rotation, translation_mm)
            for number in (1, 2, 3, 4)
        ]
    except (SystemError, cv2.error, ValueError) as error:
        # OpenCV's own message is of its source code; SystemError is how it reports a bad file.
        said = f' ({error})' if isinstance(error, ValueError) else ''
        raise DataError(
            f'{path}: no calibration of four cameras{said}, expected K, Dist and PosRel of '
            f"Camera_1 to Camera_4 in OpenCV's format; get the file again"
        ) from error


def _camera(
    node: cv2.FileNode,
    number: int,
    rotation: NDArray[np.float64],
    translation_mm: NDArray[np.float64],
) -> Camera:
    values = {}
    for name, count in (('K', 9), ('Dist', 4), ('PosRel', 6)):
        item = node.getNode(name) if node.isMap() else None
        matrix = None if item is None or item.empty() else item.mat()
        if matrix is None or matrix.size != count:
            size = 0 if matrix is None else matrix.size
            raise ValueError(f'Camera_{number} has {size} numbers {name} instead of {count}')
        values[name] = matrix.astype(np.float64).reshape(-1)
    width, height = (int(node.getNode(name).real()) for name in ('imgWidth', 'imgHeight'))
    own = cv2.Rodrigues(values['PosRel'][3:])[0]
    return Camera(
        width or PICTURE_SIZE[0],
        height or PICTURE_SIZE[1],
        values['K'].reshape(3, 3),
        values['Dist'],
        own @ rotation,
        (own @ translation_mm + values['PosRel'][:3]) / 1000,
        name=f'camera {number}',
    )


def _read_room(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation (3, 3) and translation (3,), mm, from the room to camera 1."""
    text = read_text(path)
    values = []
    for name, count in (('Rw', 9), ('Tw', 3)):
        match = re.search(rf'{name}\s*=([-+.\deE\s]*)', text)
        numbers = match.group(1).split() if match else []
        try:
            values.append(np.array([float(number) for number in numbers]))
        except ValueError:
            values.append(np.zeros(0))
        if values[-1].size != count:
            raise DataError(
                f'{path}: {len(numbers)} numbers after {name}=, expected {count}; get the file '
                f'again'
            )
    return values[0].reshape(3, 3), values[1]


def check_pair(calibration: StereoCalibration) -> None:
    """Raises CalibrationError where the baseline cannot be one of the quad's, in metres."""
    baseline = float(calibration.baseline_m)
    if not BASELINE_M[0] < baseline < BASELINE_M[1]:
        raise CalibrationError(
            f'the cameras stand {baseline:g} m apart, expected about 0.22; PosRel must be in mm'
        )


def read_text(path: Path) -> str:
    """Raises DataError where the file cannot be read or is not text."""
    try:
        return path.read_text(encoding='ascii', errors='strict')
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is not text'
        raise DataError(f'{path}: {reason}, expected a text file of MHAD') from error


def read_correspondences(path: Path) -> Int[np.ndarray, 'pictures 2']:
    """Number of each picture and of the motion's frame at its time. Raises DataError."""
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    try:
        numbers = np.array([(float(row[0]), float(row[2])) for row in rows]).reshape(-1, 2)
    except (ValueError, IndexError) as error:
        raise DataError(
            f'{path}: a row without three numbers, expected picture, time and motion frame; get '
            f'the file again'
        ) from error
    whole = np.nan_to_num(numbers, nan=-1).astype(np.int64)
    if not len(whole) or (whole != numbers).any() or (whole < 0).any():
        raise DataError(
            f'{path}: {len(whole)} rows, expected some with whole numbers of picture and motion '
            f'frame; get the file again'
        )
    return np.asarray(whole)


def read_motion(path: Path, authors_wrist: bool = False) -> Float[np.ndarray, 'frames 17 3']:
    """Joints of H36M_17 in metres, in the room. Raises DataError."""
    try:
        joints, values, _ = parse_bvh(read_text(path))
        number = {joint.name: index for index, joint in enumerate(joints)}
        names = [AUTHORS_WRIST.get(n, n) if authors_wrist else n for n in H36M_NAMES]
        unknown = [name for name in names if name not in number]
        if unknown:
            raise ValueError(f'it has no joint {unknown[0]} among {len(joints)}')
    except (ValueError, IndexError) as error:
        raise DataError(
            f'{path}: {error}, expected a whole BVH of the {len(JOINT_NAMES)} joints of MHAD; '
            f'get the file again'
        ) from error
    heads, _ = pose_bvh(joints, values, moving_joints=True)
    return heads[:, [number[name] for name in names]] * CM


def read_bayer(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, 'h w 3']:
    """RGB of a Bayer mosaic in a .pgm of size (width, height). Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f'{path}: {error.strerror}, expected a picture; unpack it') from error
    header = re.match(rb'P5\s+(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)\s+(\d+)\s', data)
    width, height = size
    if header is None:
        raise DataError(f'{path}: no binary .pgm, expected one of {width}x{height}; get it again')
    found = tuple(int(value) for value in header.groups())
    if found != (width, height, 255):
        raise DataError(
            f'{path}: {found[0]}x{found[1]} pixels up to {found[2]}, expected {width}x{height} up '
            f'to 255 as calibrated; get the picture as published'
        )
    mosaic = np.frombuffer(data, np.uint8, offset=header.end())
    if mosaic.size < width * height:
        raise DataError(
            f'{path}: {mosaic.size} of {width * height} pixels, the file is cut; get it again'
        )
    mosaic = mosaic[: width * height].reshape(height, width)
    return np.asarray(cv2.cvtColor(mosaic, cv2.COLOR_BayerGRBG2RGB), np.uint8)
