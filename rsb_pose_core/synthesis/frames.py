"""Full pictures of test pairs on disk: lossless, with the labels of everybody in them.

A file is an .npz of some pairs. `left_pictures` and `right_pictures` hold the bytes of one
lossless WebP file after the other and `left_ends`, `right_ends` (B,) where each ends. Labels are
the tensors of labels.PersonLabels under the names h36m_xyz_m, coco_uv_left, box_left, present and
so on; `calibration` (B,6) holds fx, fy, cx_left, cx_right, cy and baseline_m. Where the maps were
asked for, mask_left, mask_right (PNG, person slot + 1, 0 nobody) and depth_left (16-bit PNG,
mm, 0 sky or beyond 65 m) follow in the same way as the pictures.
"""

import glob
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.cropping import BOX_MARGIN, StereoCrop
from rsb_pose_core.detection.boxes import Box
from rsb_pose_core.errors import DataError
from rsb_pose_core.synthesis.labels import OCCLUDED, SELF_OCCLUDED, JointLabels, PersonLabels
from rsb_pose_core.synthesis.pairs import StereoPairs

Arrays = dict[str, np.ndarray]
PICTURES = ('left', 'right')
SKELETONS = ('h36m', 'coco')
CROP_SIZE, NETWORK_PART = 288, 256 / 288  # as training shards: networks see the middle 256 pixels
LOSSLESS_WEBP = (cv2.IMWRITE_WEBP_QUALITY, 101)
FARTHEST_MM = 65535
OCCLUDED_JOINTS = 5  # hidden in both pictures, of the occluded subset


@dataclass(frozen=True)
class FramePair:
    """One pair of a frame set. Labels have one scene; maps are None where they were not stored."""

    left: NDArray[np.uint8]  # H W 3 RGB
    right: NDArray[np.uint8]
    labels: PersonLabels
    calibration: StereoCalibration  # of the pictures, shape ()
    mask_left: NDArray[np.uint8] | None  # H W, person slot + 1, 0 nobody
    mask_right: NDArray[np.uint8] | None
    depth_m_left: NDArray[np.float32] | None  # H W, inf in the sky


def frame_arrays(pairs: StereoPairs, maps: bool = False) -> Arrays:
    """What a file holds of B rendered pairs."""
    arrays: Arrays = {}
    for view in PICTURES:
        bgr = getattr(pairs, view)[..., ::-1]
        arrays |= encode_pictures(f'{view}_pictures', view, bgr, '.webp', LOSSLESS_WEBP)
    labels = pairs.labels
    for skeleton in SKELETONS:
        joints = getattr(labels, skeleton)
        for item in fields(JointLabels):
            arrays[f'{skeleton}_{item.name}'] = getattr(joints, item.name).cpu().numpy()
    for name in ('box_left', 'box_right', 'present'):
        arrays[name] = getattr(labels, name).cpu().numpy()
    arrays['calibration'] = torch.stack(pairs.calibration.fields(), 1).double().cpu().numpy()
    if maps:
        for view in PICTURES:
            mask = getattr(pairs, f'person_mask_{view}').cpu().numpy()
            arrays |= encode_pictures(f'mask_{view}', f'mask_{view}', mask, '.png')
        depth_mm = pairs.depth_m_left.cpu().numpy() * 1000
        depth_mm = np.where(depth_mm < FARTHEST_MM, depth_mm, 0).round().astype(np.uint16)
        arrays |= encode_pictures('depth_left', 'depth_left', depth_mm, '.png')
    return arrays


def encode_pictures(
    name: str, ends: str, pictures: np.ndarray, kind: str, options: Sequence[int] = ()
) -> Arrays:
    """Arrays `name` and `ends`_ends of pictures (B,H,W) or BGR (B,H,W,3) as files of a kind."""
    encoded = [cv2.imencode(kind, np.ascontiguousarray(p), options)[1] for p in pictures]
    return {
        name: np.concatenate(encoded),
        f'{ends}_ends': np.cumsum([len(part) for part in encoded]),
    }


def join_frames(parts: Sequence[Arrays]) -> Arrays:
    """The arrays of one file from those of successive batches."""
    whole: Arrays = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name.endswith('_ends'):
            starts = np.cumsum([0, *(part[-1] for part in values[:-1])])
            values = [part + start for part, start in zip(values, starts, strict=True)]
        whole[name] = np.concatenate(values)
    return whole


def checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the decoded pictures and the labels of a file, in hexadecimal."""
    digest = hashlib.sha256()
    values = {view: _pictures(arrays, view) for view in PICTURES}
    stored = ('_pictures', '_ends', 'mask_left', 'mask_right', 'depth_left')
    values |= {name: array for name, array in arrays.items() if not name.endswith(stored)}
    for name in sorted(values):
        array = np.ascontiguousarray(values[name])
        digest.update(f'{name} {array.dtype.str} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _pictures(arrays: Mapping[str, np.ndarray], view: str) -> NDArray[np.uint8]:
    """All pictures (B,H,W,3) of a view, RGB."""
    count = len(arrays[f'{view}_ends'])
    return np.stack([_picture(arrays, view, i) for i in range(count)])


def _picture(arrays: Mapping[str, np.ndarray], view: str, index: int) -> NDArray[np.uint8]:
    bgr = _decode(arrays, f'{view}_pictures', view, index, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(bgr[..., ::-1])


def _decode(
    arrays: Mapping[str, np.ndarray], name: str, ends: str, index: int, how: int
) -> np.ndarray:
    limits = arrays[f'{ends}_ends']
    start = int(limits[index - 1]) if index else 0
    picture = cv2.imdecode(arrays[name][start : limits[index]], how)
    if picture is None:
        raise DataError(f'picture {index} of {name} cannot be decoded; make the file again')
    return np.asarray(picture)


def read_frames(path: str | Path) -> Arrays:
    """Arrays of a file. Raises DataError where it is none."""
    try:
        with np.load(path) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f'{path}: not a readable .npz of stereo frames ({error})') from error
    missing = {'left_pictures', 'right_pictures', 'calibration', 'present'} - set(arrays)
    if missing:
        raise DataError(
            f'{path}: no array {sorted(missing)[0]}; expected full pictures of stereo pairs, as '
            f'rsb-pose testset makes them'
        )
    return arrays


def is_frames(path: str | Path) -> bool:
    """Whether an .npz holds full pictures; False for other .npz and files that are none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return 'left_pictures.npy' in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


class FrameSet:
    """The pairs of all files of a folder, in the order of their names."""

    def __init__(self, folder: str | Path) -> None:
        """Raises DataError where the folder holds no frames or a file is damaged."""
        self.paths = sorted(glob.glob(f'{glob.escape(str(folder))}/*.npz'))
        if not self.paths:
            raise DataError(f'{folder}: no .npz files; make them with rsb-pose testset')
        self._starts = [0]
        for path in self.paths:
            try:
                with np.load(path) as archive:
                    self._starts.append(self._starts[-1] + len(archive['present']))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise DataError(f'{path}: not a readable .npz of stereo frames') from error
        self._loaded: tuple[int, Arrays] | None = None

    def __len__(self) -> int:
        return self._starts[-1]

    def pair(self, index: int) -> FramePair:
        """Pictures and labels of one pair."""
        arrays, row = self._file_of(index)
        values = {name: torch.from_numpy(array[[row]]) for name, array in _labels(arrays)}
        joints = [
            JointLabels(*(values[f'{skeleton}_{item.name}'] for item in fields(JointLabels)))
            for skeleton in SKELETONS
        ]
        labels = PersonLabels(
            joints[0], joints[1], values['box_left'], values['box_right'], values['present']
        )
        calibration = StereoCalibration(*torch.from_numpy(arrays['calibration'][row]).unbind())
        left, right = (_picture(arrays, view, row) for view in PICTURES)
        if 'depth_left' not in arrays:
            return FramePair(left, right, labels, calibration, None, None, None)
        masks = [
            _decode(arrays, f'mask_{view}', f'mask_{view}', row, cv2.IMREAD_UNCHANGED)
            for view in PICTURES
        ]
        depth = _decode(arrays, 'depth_left', 'depth_left', row, cv2.IMREAD_UNCHANGED)
        depth_m = np.where(depth > 0, depth / np.float32(1000), np.float32(np.inf))
        return FramePair(left, right, labels, calibration, masks[0], masks[1], depth_m)

    def _file_of(self, index: int) -> tuple[Arrays, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'pair {index} of {len(self)}')
        number = int(np.searchsorted(self._starts, index, side='right')) - 1
        if self._loaded is None or self._loaded[0] != number:
            self._loaded = number, read_frames(self.paths[number])
        return self._loaded[1], index - self._starts[number]


def _labels(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    prefixes = (*(f'{skeleton}_' for skeleton in SKELETONS), 'box_', 'present')
    return [(name, array) for name, array in arrays.items() if name.startswith(prefixes)]


def crops(
    arrays: Mapping[str, np.ndarray], rows: Sequence[int] | None = None, size: int = CROP_SIZE
) -> Arrays:
    """Square crops of the subjects of a file, in the arrays of a training shard.

    Of the pairs in `rows` (all by default), at `size` pixels. Only their pictures are decoded.

    The pipeline's own crops (cropping.StereoCrop): around the box of the visible body in the left
    picture, or of the joints where the picture shows nothing of it, and the right crop at the
    median disparity of the joints; a margin round them takes moved crops, as in training.
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in ('left', 'right', 'calibration')}
    uv_left, uv_right = (arrays[f'h36m_uv_{view}'][:, 0].astype(np.float64) for view in PICTURES)
    moved: dict[str, list[np.ndarray]] = {'uv_left': [], 'uv_right': []}
    rows = range(len(arrays['present'])) if rows is None else rows
    for row in rows:
        crop = subject_crop(arrays['box_left'][row, 0], uv_left[row], uv_right[row], size)
        images = crop.cut(_picture(arrays, 'left', row), _picture(arrays, 'right', row))
        full = StereoCalibration(*torch.from_numpy(arrays['calibration'][row]).unbind())
        found['left'].append(images[0])
        found['right'].append(images[1])
        found['calibration'].append(torch.stack(crop.calibration(full).fields()).numpy())
        for view, uv, x0 in (
            ('uv_left', uv_left[row], crop.x0_left), ('uv_right', uv_right[row], crop.x0_right),
        ):  # fmt: skip
            moved[view].append((uv - (x0, crop.y0) + 0.5) * crop.scale - 0.5)
    return {
        **{name: np.stack(values) for name, values in found.items()},
        **{name: np.stack(values).astype(np.float32) for name, values in moved.items()},
        'xyz_m': arrays['h36m_xyz_m'][rows, 0],
        'visibility': arrays['h36m_visibility'][rows, 0],
    }


def subject_crop(
    box: np.ndarray, uv_left: np.ndarray, uv_right: np.ndarray, size: int = CROP_SIZE
) -> StereoCrop:
    """The crop of a person with box (4: x, y, width, height, NaN: unseen) and joints (J,2)."""
    seen = np.isfinite(box).all()
    around = Box(*(float(value) for value in box)) if seen else Box.around(uv_left)
    assert around is not None, 'a subject has joints'
    disparity = float(np.median(uv_left[:, 0] - uv_right[:, 0]))
    return StereoCrop.around(around, disparity, margin=BOX_MARGIN / NETWORK_PART, size=size)


def occluded_subset(
    visibility: UInt8[np.ndarray, 'pairs 2 joints'], joints: int = OCCLUDED_JOINTS
) -> list[int]:
    """Indices of the pairs whose subject has at least `joints` joints that neither picture shows:
    the body itself, another person or a thing hides them (as in MHAD_occ, Sec. IV-A)."""
    hidden = (visibility == SELF_OCCLUDED) | (visibility == OCCLUDED)
    return [int(index) for index in np.flatnonzero(hidden.all(1).sum(-1) >= joints)]
