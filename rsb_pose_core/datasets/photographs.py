"""Photographs of people with 2D joints: Leeds Sports Pose Extended, and COCO's person keypoints.

A folder holds images.zip and beside it joints.npz (LSPET: names, joints (N,14,3) x, y, labelled)
or person_keypoints.json (COCO). LSPET has no licence: weights trained on it are for research.
"""

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from rsb_pose_core.errors import DataError
from rsb_pose_core.skeleton import COCO_17, H36M_17

SPLITS = ('train', 'val', 'test')
IMAGES, LSPET_JOINTS, COCO_JOINTS = 'images.zip', 'joints.npz', 'person_keypoints.json'
# LSPET's neighbours are often of one scene, so val and test are the last photographs in its order:
# from the end so many with all joints, and what lies between them.
COMPLETE_OF_TEST, COMPLETE_OF_VAL = 500, 200
# photographs of the split train that show what one of val or test does (difference hash, by eye)
TWINS = (100, 828, 854, 1583, 2120)
LEAST_JOINTS = 8  # of a person, to train on
LEAST_SIDE = 40.0  # px, of the joints' square

# LSPET's joints, in its order, as joints of H36M_17
LSPET_TO_H36M = tuple(
    H36M_17.index(name)
    for name in (
        'right_ankle', 'right_knee', 'right_hip', 'left_hip', 'left_knee', 'left_ankle',
        'right_wrist', 'right_elbow', 'right_shoulder', 'left_shoulder', 'left_elbow',
        'left_wrist', 'neck', 'head',
    )
)  # fmt: skip
# joints that COCO_17 and H36M_17 share, as (COCO index, H36M index)
COCO_TO_H36M = tuple(
    (COCO_17.index(name), H36M_17.index(name))
    for name in COCO_17.joint_names
    if name in H36M_17.joint_names
)


@dataclass(frozen=True, eq=False)
class Photograph:
    """One person in a picture. uv: (17,2) pixels in the order of H36M_17, NaN without a label."""

    name: str
    image: UInt8[np.ndarray, 'height width 3']  # RGB
    uv: Float[np.ndarray, '17 2']

    def square(self, factor: float = 1.25) -> tuple[Float[np.ndarray, ' 2'], float]:
        """Middle (u, v) and side of the square round the joints, `factor` times their extent."""
        return square_round(self.uv, factor)


class Photographs:
    """People in the photographs of a split; pictures are decoded whenever they are asked for."""

    def __init__(
        self, archive: Path, names: Sequence[str], uv: Float[np.ndarray, 'people 17 2']
    ) -> None:
        """names: of pictures in the archive, one for each person."""
        self.names, self.uv = tuple(names), uv
        self._archive = archive
        try:
            with zipfile.ZipFile(archive) as pictures:
                self._encoded = {name: pictures.read(name) for name in set(names)}
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise DataError(
                f'{archive}: pictures cannot be read ({error}); fetch the file again'
            ) from error

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Photograph:
        name = self.names[index]
        bgr = cv2.imdecode(np.frombuffer(self._encoded[name], np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise DataError(f'{self._archive}: {name} is no picture; fetch the file again')
        image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        return Photograph(name, image.astype(np.uint8, copy=False), self.uv[index])


def square_round(
    uv: Float[np.ndarray, 'joints 2'], factor: float
) -> tuple[Float[np.ndarray, ' 2'], float]:
    """Middle and side of the square round labelled joints, `factor` times their larger extent."""
    low, high = np.nanmin(uv, 0), np.nanmax(uv, 0)
    return (low + high) / 2, float((high - low).max()) * factor


def read_photographs(folder: Path | str, split: str = 'train') -> Photographs:
    """People of one data set's folder; COCO's few are all of the split 'train'.

    Raises DataError where the folder is of neither data set or a file does not fit.
    """
    folder = Path(folder)
    if split not in SPLITS:
        raise DataError(f'unknown split {split!r} of photographs; known are {", ".join(SPLITS)}')
    if (folder / LSPET_JOINTS).is_file():
        names, uv = _lspet(folder / LSPET_JOINTS, split)
    elif (folder / COCO_JOINTS).is_file():
        names, uv = _coco(folder / COCO_JOINTS, split)
    else:
        raise DataError(
            f'{folder}: neither {LSPET_JOINTS} nor {COCO_JOINTS} is there; give the folder of a '
            f'data set of photographs'
        )
    return Photographs(folder / IMAGES, names, uv)


def _lspet(path: Path, split: str) -> tuple[list[str], Float[np.ndarray, 'people 17 2']]:
    try:
        with np.load(path) as archive:
            joints = archive['joints'].astype(np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f'{path}: cannot be read ({error}); fetch the file again') from error
    if joints.ndim != 3 or joints.shape[1:] != (len(LSPET_TO_H36M), 3):
        raise DataError(
            f'{path}: array joints has shape {joints.shape}, expected (photographs, 14, 3); fetch '
            f'the file again'
        )
    labelled = joints[..., 2] > 0
    uv = np.full((len(joints), len(H36M_17), 2), np.nan)
    uv[:, LSPET_TO_H36M] = np.where(labelled[..., None], joints[..., :2], np.nan)
    complete = labelled.all(1)
    numbers = np.arange(len(joints))
    twin = np.isin(numbers + 1, TWINS)
    chosen = complete if split != 'train' else _trainable(uv) & ~twin
    starts = _starts(complete)
    begin, end = {
        'train': (0, starts[0]),
        'val': (starts[0], starts[1]),
        'test': (starts[1], len(joints)),
    }[split]
    kept = numbers[chosen & (numbers >= begin) & (numbers < end)]
    return [f'im{number + 1:05d}.jpg' for number in kept], uv[kept]


def _starts(complete: np.ndarray) -> tuple[int, int]:
    """Where val and test begin, so that they hold their numbers of complete photographs."""
    from_the_end = np.cumsum(complete[::-1])[::-1]
    return (
        int((from_the_end > COMPLETE_OF_TEST + COMPLETE_OF_VAL).sum()),
        int((from_the_end > COMPLETE_OF_TEST).sum()),
    )


def _coco(path: Path, split: str) -> tuple[list[str], Float[np.ndarray, 'people 17 2']]:
    names, people = [], []
    try:
        content = json.loads(path.read_text())
        files = {image['id']: image['file_name'] for image in content['images']}
        for annotation in content['annotations'] if split == 'train' else ():
            keypoints = np.array(annotation['keypoints'], np.float64).reshape(len(COCO_17), 3)
            uv = np.full((len(H36M_17), 2), np.nan)
            for theirs, ours in COCO_TO_H36M:
                if keypoints[theirs, 2] > 0:
                    uv[ours] = keypoints[theirs, :2]
            names.append(files[annotation['image_id']])
            people.append(uv)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: cannot be read ({error!r}); fetch the file again') from error
    found = np.array(people).reshape(-1, len(H36M_17), 2)
    kept = np.flatnonzero(_trainable(found))
    return [names[i] for i in kept], found[kept]


def _trainable(uv: Float[np.ndarray, 'people 17 2']) -> np.ndarray:
    """People with enough labelled joints and pixels."""
    labelled = np.isfinite(uv).all(-1)
    low = np.where(labelled[..., None], uv, np.inf).min(1)
    high = np.where(labelled[..., None], uv, -np.inf).max(1)
    sides = (high - low).max(-1)
    return np.asarray((labelled.sum(1) >= LEAST_JOINTS) & (sides >= LEAST_SIDE))
