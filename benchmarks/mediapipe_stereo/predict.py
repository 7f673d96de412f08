"""Stereo MediaPipe: two detections of one person, triangulated, as predictions of a test set.

MediaPipe Pose 0.10.14 (the full model that its wheel bundles) looks at each view by itself. Its
landmarks become joints of h36m_17, and the rectified calibration of the set makes metres of them.
`rsb-pose evaluate --all --predictions` reads the files and measures them as it does networks.
"""

import argparse
import os
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

# h36m_17's joints by MediaPipe's landmarks. The pelvis is the middle of the hips in both. The
# neck, which lies 9 cm above the middle of the shoulders, the spine and the head have none.
LANDMARKS = {0: 28, 1: 26, 2: 24, 3: 23, 4: 25, 5: 27, 10: 16, 11: 14, 12: 12, 13: 11, 14: 13,
             15: 15, 16: 0}  # fmt: skip
PELVIS, HIPS, TORSO, JOINTS = 6, (2, 3), (2, 3, 12, 13), 17
BONES = [
    (1, 0), (2, 1), (6, 2), (6, 3), (3, 4), (4, 5), (12, 11), (11, 10), (13, 14), (14, 15),
    (12, 13), (12, 2), (13, 3),
]  # fmt: skip
WAYS = {'pictures': 'stereo MediaPipe, whole pictures', 'crops': 'stereo MediaPipe, crops'}
CROP_MARGIN = 1.25  # as our own crops
FARTHEST_M = 20.0  # as our own triangulation
TRUTH, LEFT, RIGHT = (255, 255, 255), (255, 140, 40), (40, 140, 255)  # BGR
SHOWN, TILE_PX = 6, 240  # pairs of the overlay, side of a view in it


class InputError(Exception):
    """What was given cannot be used; the message is one sentence."""


@dataclass(frozen=True)
class Pair:
    """Both pictures, (H, W, 3) BGR, and labels of the subject, left then right."""

    pictures: tuple[np.ndarray, np.ndarray]
    uv: np.ndarray  # 2 17 2, pixels, centres at integers
    boxes: np.ndarray  # 2 4: x, y, width, height
    calibration: np.ndarray  # fx, fy, cx_left, cx_right, cy, baseline_m


def pairs_of(folder: Path, limit: int) -> Iterator[Pair]:
    """The first pairs of a test set, as `rsb-pose testset` makes it."""
    files = sorted(folder.glob('*.npz'))
    if not files:
        raise InputError(f'{folder} holds no .npz; make a set with rsb-pose testset')
    for file in files:
        try:
            with np.load(file) as archive:
                arrays = {name: archive[name] for name in archive.files}
            for row in range(len(arrays['present'])):
                if limit == 0:
                    return
                limit -= 1
                yield _pair(arrays, row)
        except (OSError, LookupError, ValueError, zipfile.BadZipFile, cv2.error) as error:
            raise InputError(
                f'{file} does not hold full pictures of stereo pairs ({error}); make the set '
                f'again with rsb-pose testset'
            ) from error


def _pair(arrays: dict[str, np.ndarray], row: int) -> Pair:
    pictures = []
    for view in ('left', 'right'):
        ends = arrays[f'{view}_ends']
        first = ends[row - 1] if row else 0
        encoded = arrays[f'{view}_pictures'][first : ends[row]]
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError(f'picture {row} of the {view} view cannot be decoded')
        pictures.append(picture)
    uv, boxes = (
        np.stack([arrays[f'{name}_{view}'][row, 0] for view in ('left', 'right')]).astype(float)
        for name in ('h36m_uv', 'box')
    )
    for view in range(2):
        if not (boxes[view, 2:] > 0).all():  # nothing of the body is seen: as our own crops
            low, high = np.nanmin(uv[view], 0), np.nanmax(uv[view], 0)
            boxes[view] = [*low, *(high - low + 1)]
    return Pair((pictures[0], pictures[1]), uv, boxes, arrays['calibration'][row])


class Detector:
    """MediaPipe Pose on single pictures; works without a network: the model is in the wheel."""

    def __init__(self) -> None:
        os.environ.setdefault('GLOG_minloglevel', '2')
        try:
            import mediapipe
        except ImportError as error:
            raise InputError(
                f'mediapipe cannot be imported ({error}); pip install -r requirements.txt in an '
                f'environment of its own'
            ) from error
        self._pose = mediapipe.solutions.pose.Pose(static_image_mode=True, model_complexity=1)

    def find(self, bgr: np.ndarray) -> np.ndarray | None:
        """Joints (17, 2) of the one person it sees in pixels, NaN: no landmark; None of nobody."""
        result = self._pose.process(np.ascontiguousarray(bgr[..., ::-1]))
        if result.pose_landmarks is None:
            return None
        marks = result.pose_landmarks.landmark
        height, width = bgr.shape[:2]
        uv = np.full((JOINTS, 2), np.nan)
        for joint, mark in LANDMARKS.items():
            uv[joint] = marks[mark].x * width - 0.5, marks[mark].y * height - 0.5
        uv[PELVIS] = uv[list(HIPS)].mean(0)
        return uv


def find_subject(detector: Detector, pair: Pair, view: int, way: str) -> np.ndarray | None:
    """Joints (17, 2) in pixels of the picture, None where it finds nobody or somebody else.

    The person found is the subject if the middle of shoulders and hips lies in the subject's box.
    """
    picture, (x, y, width, height) = pair.pictures[view], pair.boxes[view]
    x0 = y0 = 0
    if way == 'crops':
        x0, y0, side = square(pair.boxes[view])
        picture = cut(picture, x0, y0, side)
    uv = detector.find(picture)
    if uv is None:
        return None
    uv += (x0, y0)
    u, v = uv[list(TORSO)].mean(0)
    return uv if x <= u <= x + width and y <= v <= y + height else None


def square(box: np.ndarray) -> tuple[int, int, int]:
    """First column, first row and side of the crop round a box."""
    side = round(CROP_MARGIN * max(box[2:]))
    x0, y0 = (
        round(low + (extent - side) / 2) for low, extent in zip(box[:2], box[2:], strict=True)
    )
    return x0, y0, side


def cut(picture: np.ndarray, x0: int, y0: int, side: int) -> np.ndarray:
    """A square of a picture, black outside it."""
    square = np.zeros((side, side, 3), np.uint8)
    height, width = picture.shape[:2]
    rows, columns = (
        slice(max(first, 0), max(min(first + side, end), 0))
        for first, end in ((y0, height), (x0, width))
    )
    inside = picture[rows, columns]
    top, left = rows.start - y0, columns.start - x0
    square[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return square


def triangulate(uv: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """Joints (2, J, 2) of both views as metres (J, 3), rectified left optical frame.

    The row is the mean of both; no joint is farther than FARTHEST_M or behind the cameras.
    """
    fx, fy, cx_left, cx_right, cy, baseline_m = calibration
    disparity = (uv[0, :, 0] - cx_left) - (uv[1, :, 0] - cx_right)
    z = fx * baseline_m / np.maximum(disparity, fx * baseline_m / FARTHEST_M)
    x = (uv[0, :, 0] - cx_left) * z / fx
    y = (uv[:, :, 1].mean(0) - cy) * z / fy
    return np.stack([x, y, z], -1)


def predict(folder: Path, limit: int, out: Path) -> None:
    """Write the predictions of both ways, and pictures of some, for one set."""
    detector = Detector()
    xyz_m: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    shown: list[np.ndarray] = []
    every = max(limit // SHOWN, 1)
    for number, pair in enumerate(
        tqdm(pairs_of(folder, limit), desc=folder.name, total=limit, unit='pair')
    ):
        strips = []
        for way in WAYS:
            views = [find_subject(detector, pair, view, way) for view in range(2)]
            both = np.stack([np.full((JOINTS, 2), np.nan) if uv is None else uv for uv in views])
            xyz_m[way].append(triangulate(both, pair.calibration))
            strips.append(overlay(pair, both))
        if number % every == 0 and len(shown) < SHOWN:
            shown.append(np.concatenate(strips, 1))
    out.mkdir(parents=True, exist_ok=True)
    for way, title in WAYS.items():
        positions = np.stack(xyz_m[way]).astype(np.float32)
        path = out / f'{folder.name}_{way}.npz'
        np.savez_compressed(
            path, method=title, set=folder.name, pairs=np.arange(len(positions)), xyz_m=positions
        )
        found = np.isfinite(positions[:, PELVIS]).all(-1).mean()
        print(f'{path}: {len(positions)} pairs, the subject found in both views of {found:.1%}')
    cv2.imwrite(str(out / f'{folder.name}.png'), np.concatenate(shown))


def overlay(pair: Pair, uv: np.ndarray) -> np.ndarray:
    """The subject in both views: truth broad and white, found in colours, orange on the right."""
    views = []
    for view in range(2):
        x0, y0, side = square(pair.boxes[view])
        canvas = cut(pair.pictures[view], x0, y0, side)
        canvas = cv2.resize(canvas, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)
        for points, width in ((pair.uv[view], 5), (uv[view], 2)):
            shown = (points - (x0, y0) + 0.5) * TILE_PX / side - 0.5
            for a, b in BONES:
                ends = shown[[a, b]]
                if np.isfinite(ends).all():
                    first, last = (np.clip(ends, -4000, 4000) * 16).round().astype(int).tolist()
                    ours = RIGHT if {a, b} & {0, 1, 2, 10, 11, 12} else LEFT
                    color = TRUTH if width > 2 else ours
                    cv2.line(canvas, first, last, color, width, cv2.LINE_AA, 4)
        views.append(canvas)
    return np.concatenate(views, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('sets', type=Path, nargs='+', help='folders of frozen test sets')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder of the predictions and of pictures of some'
    )
    parser.add_argument('--limit', type=int, default=300, help='pairs of each set (300)')
    args = parser.parse_args()
    try:
        if args.limit < 1:
            raise InputError(f'--limit {args.limit} leaves no pair; give at least 1')
        for folder in args.sets:
            predict(folder, args.limit, args.out)
    except InputError as error:
        print(f'predict.py: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
