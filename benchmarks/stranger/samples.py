"""What the stranger looks at: pictures with the labels of one person each, from three sources."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

COCO_17 = (
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder', 'right_shoulder',
    'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist', 'left_hip', 'right_hip', 'left_knee',
    'right_knee', 'left_ankle', 'right_ankle',
)  # fmt: skip
VISIBLE = 0  # the engine's code; 1 self-occluded, 2 occluded by something else, 3 outside
COCO_VISIBLE = 2  # COCO's code; 1 labelled but not visible, 0 not labelled
LSPET_SHORT = {'l_': 'left_', 'r_': 'right_'}


class InputError(Exception):
    """What was given cannot be used; the message is one sentence."""


@dataclass(frozen=True)
class Sample:
    """One picture of one labelled person, pixel centres at integers."""

    name: str
    bgr: np.ndarray  # H W 3 uint8
    uv: np.ndarray  # 17 2, NaN: not labelled
    visible: np.ndarray  # 17 bool


def rendered(folder: Path, limit: int) -> Iterator[Sample]:
    """Left views and subjects of a test set as `rsb-pose testset` makes it (frames_*.npz)."""
    files = sorted(folder.glob('frames_*.npz'))
    if not files:
        raise InputError(f'{folder} holds no frames_*.npz; make a set with rsb-pose testset')
    left = limit
    for file in files:
        try:
            with np.load(file) as arrays:
                pictures, ends = arrays['left_pictures'], arrays['left_ends']
                uv, visibility = arrays['coco_uv_left'][:, 0], arrays['coco_visibility'][:, 0, 0]
        except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
            raise InputError(
                f'{file} does not hold left pictures with COCO-17 labels ({error}); make the set '
                'again with rsb-pose testset'
            ) from error
        for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            if left == 0:
                return
            left -= 1
            name = f'{file.stem}:{i}'
            picture = _decode(pictures[start:end], f'{file}, picture {i}')
            yield Sample(name, picture, uv[i].astype(float), visibility[i] == VISIBLE)


def lspet(folder: Path, limit: int) -> Iterator[Sample]:
    """Leeds Sports Pose Extended: images.zip and joints.npz (joints (N, 14, 3), names)."""
    try:
        with np.load(folder / 'joints.npz') as labels:
            joints, joint_names = labels['joints'], [str(name) for name in labels['names']]
        archive = zipfile.ZipFile(folder / 'images.zip')
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f'images.zip and joints.npz were expected in {folder} ({error}); name the folder of '
            'Leeds Sports Pose Extended'
        ) from error
    target = [_coco_row(name) for name in joint_names]
    with archive:
        for i in _spread(len(joints), limit):
            uv, visible = np.full((17, 2), np.nan), np.zeros(17, bool)
            for source, row in enumerate(target):
                if row is not None and joints[i, source, 2] > 0:
                    uv[row], visible[row] = joints[i, source, :2], True
            name = f'im{i + 1:05d}.jpg'
            picture = _decode(np.frombuffer(archive.read(name), np.uint8), name)
            yield Sample(name, picture, uv, visible)


def coco(folder: Path, limit: int) -> Iterator[Sample]:
    """The tallest person of each COCO picture, where it has 8 joints and 80 pixels or more.

    Only joints that the annotators saw count as visible.
    """
    try:
        content = json.loads((folder / 'person_keypoints.json').read_text())
        archive = zipfile.ZipFile(folder / 'images.zip')
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f'images.zip and person_keypoints.json were expected in {folder} ({error}); name the '
            'folder of the COCO pictures'
        ) from error
    files = {image['id']: image['file_name'] for image in content['images']}
    people: dict[int, list[dict]] = {}
    for annotation in content['annotations']:
        people.setdefault(annotation['image_id'], []).append(annotation)
    single = []
    for number, found in sorted(people.items()):
        tallest = max(found, key=lambda person: person['bbox'][3])
        if tallest['num_keypoints'] >= 8 and tallest['bbox'][3] >= 80:
            single.append((files[number], tallest))
    with archive:
        for i in _spread(len(single), limit):
            name, annotation = single[i]
            keypoints = np.array(annotation['keypoints'], float).reshape(17, 3)
            uv = np.where(keypoints[:, 2:] > 0, keypoints[:, :2], np.nan)
            picture = _decode(np.frombuffer(archive.read(name), np.uint8), name)
            yield Sample(name, picture, uv, keypoints[:, 2] == COCO_VISIBLE)


READERS = {'rendered': rendered, 'lspet': lspet, 'coco': coco}


def _spread(count: int, limit: int) -> list[int]:
    """At most `limit` numbers below `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int)).tolist()


def _coco_row(name: str) -> int | None:
    full = LSPET_SHORT.get(name[:2], '') + name[2:]
    return COCO_17.index(full) if full in COCO_17 else None


def _decode(encoded: np.ndarray, name: str) -> np.ndarray:
    picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError(f'{name} cannot be decoded; fetch or make it again')
    return picture
