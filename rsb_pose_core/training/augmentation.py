"""From a stored pair to a training crop whose labels and calibration still fit exactly.

Geometry: both views are cropped with the same rows and side, each at its own column, so that the
position of the crops tells nothing about depth; a stereo flip swaps and mirrors the views.
Appearance: exposure, colour, noise, blur and occluding patches. uint8 and OpenCV throughout.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.batches import StereoBatch

# Stored images have 288 pixels, of which a crop without augmentation covers the middle 256; images
# of another size (432 for networks of 384) the same parts of theirs.
STORED_SIDE, STORED_CROP = 288, 256
Pair = dict[str, np.ndarray]


@runtime_checkable
class Pairs(Protocol):
    """Numbered pairs, such as a pool.PairPool."""

    def __len__(self) -> int: ...

    def pair(self, index: int) -> Pair: ...

    def name(self, index: int) -> str: ...


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; lengths are in pixels of stored images of 288."""

    shift_px: int = 10  # both views alike, and the rows
    right_shift_px: int = 14  # the right crop against the left
    scale: tuple[float, float] = (0.85, 1.2)
    flip: float = 0.5  # probabilities from here on
    occluder: float = 0.35
    black_edge: float = 0.15
    blur: float = 0.15
    noise: float = 0.5
    gain_std: float = 0.25  # of the logarithm, both views
    colour_std: float = 0.08
    unequal_std: float = 0.06  # between the views
    gamma_std: float = 0.15


@dataclass(frozen=True)
class Window:
    """Square windows of the stored images: rows y0.., columns x0_left.. and x0_right..."""

    x0_left: int
    x0_right: int
    y0: int
    side: int


def stored_side(input_size: int) -> int:
    """Pixels of a stored image for a network's input: 288 up to 256, 432 for 384."""
    return STORED_SIDE * max(input_size, STORED_CROP) // STORED_CROP


def centred_window(image_side: int, right_shift: int = 0) -> Window:
    """The window that pipelines see: 8/9 of the image, the right one moved by stored pixels."""
    side = image_side * STORED_CROP // STORED_SIDE
    margin = (image_side - side) // 2
    return Window(margin, margin + round(right_shift * image_side / STORED_SIDE), margin, side)


def random_window(rng: np.random.Generator, image_side: int, ranges: Augmentation) -> Window:
    """A window of random size and place, the right view's column shifted by itself."""
    grain = image_side / STORED_SIDE
    side = round(STORED_CROP * grain / rng.uniform(*ranges.scale))
    corner = (image_side - side) // 2
    x, y = rng.integers(-ranges.shift_px, ranges.shift_px + 1, 2)
    right = rng.integers(-ranges.right_shift_px, ranges.right_shift_px + 1)
    x, moved, y = (round(float(shift) * grain) for shift in (x, x + right, y))
    return Window(corner + x, corner + moved, corner + y, side)


def crop_pair(pair: Pair, window: Window, size: int) -> Pair:
    """Cut the window out of both views at `size` x `size` pixels; labels and calibration follow.

    What lies outside the stored image is mirrored, so that its edge does not tell the shift.
    """
    scale = size / window.side
    out = dict(pair)
    for view, x0 in (('left', window.x0_left), ('right', window.x0_right)):
        out[view] = _cut(pair[view], x0, window.y0, window.side, size)
        origin = np.array([x0, window.y0], np.float32)
        out[f'uv_{view}'] = (pair[f'uv_{view}'] - origin + 0.5) * np.float32(scale) - 0.5
    fields = torch.from_numpy(np.asarray(pair['calibration'], np.float64)).unbind()
    offsets = (torch.tensor(float(v)) for v in (window.x0_left, window.x0_right, window.y0))
    calibration = StereoCalibration(*fields).crop(*offsets).resize(scale)
    out['calibration'] = torch.stack(calibration.fields()).numpy()
    return out


def _cut(image: np.ndarray, x0: int, y0: int, side: int, size: int) -> np.ndarray:
    height, width = image.shape[:2]
    x1, y1 = x0 + side, y0 + side
    inside = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    margins = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
    if any(margins):
        inside = cv2.copyMakeBorder(inside, *margins, cv2.BORDER_REFLECT_101)
    if side == size:
        return np.ascontiguousarray(inside)
    interpolation = cv2.INTER_AREA if side >= 1.5 * size else cv2.INTER_LINEAR
    return cv2.resize(inside, (size, size), interpolation=interpolation)


def flip_pair(pair: Pair) -> Pair:
    """Mirror the scene: the views swap and mirror, left joints become right ones.

    The new left camera is the old right one, so x becomes baseline - x.
    """
    mirror = list(H36M_17.mirror)
    width = pair['left'].shape[1]
    fx, fy, cx_left, cx_right, cy, baseline = pair['calibration']
    out = {
        'left': np.ascontiguousarray(pair['right'][:, ::-1]),
        'right': np.ascontiguousarray(pair['left'][:, ::-1]),
        'visibility': pair['visibility'][::-1, mirror],
        'calibration': np.array([fx, fy, width - 1 - cx_right, width - 1 - cx_left, cy, baseline]),
    }
    for new, old in (('left', 'right'), ('right', 'left')):
        u, v = pair[f'uv_{old}'][mirror].T
        out[f'uv_{new}'] = np.stack([width - 1 - u, v], -1)
    x, y, z = pair['xyz_m'][mirror].T
    out['xyz_m'] = np.stack([baseline - x, y, z], -1).astype(np.float32)
    return out


def occlude(pair: Pair, other: np.ndarray, rng: np.random.Generator) -> Pair:
    """Hang a rectangle of another picture before both views, each at its own column."""
    size = pair['left'].shape[0]
    height, width = (int(size * f) for f in rng.uniform(0.08, 0.35, 2))
    y, x = rng.integers(0, size - height), rng.integers(0, size - width)
    x_right = int(np.clip(x - rng.uniform(-0.02, 0.15) * size, 0, size - width))
    top, side = (int(v) for v in rng.integers(0, other.shape[0] - max(height, width), 2))
    patch = other[top : top + height, side : side + width]
    out = dict(pair)
    for view, column in (('left', int(x)), ('right', x_right)):
        image = pair[view].copy()
        image[y : y + height, column : column + width] = patch
        out[view] = image
    return out


def blacken_edge(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A black strip along one side, as where a crop reaches over the camera's image."""
    out = image.copy()
    depth = int(rng.uniform(0.0, 0.15) * image.shape[0])
    edge = (
        np.s_[:depth],
        np.s_[len(out) - depth :],
        np.s_[:, :depth],
        np.s_[:, len(out) - depth :],
    )
    out[edge[int(rng.integers(4))]] = 0
    return out


def colour_pair(pair: Pair, rng: np.random.Generator, ranges: Augmentation) -> Pair:
    """Exposure, white balance and gamma alike in both views and slightly unequal; blur; noise."""
    common = ranges.gain_std * rng.standard_normal() + ranges.colour_std * rng.standard_normal(3)
    gamma = np.exp(ranges.gamma_std * rng.standard_normal())
    sharp, quiet = rng.random() >= ranges.blur, rng.random() >= ranges.noise
    sigma_blur, sigma_noise = rng.uniform(0.3, 1.2), rng.uniform(1.0, 9.0)
    ramp = np.linspace(0.0, 1.0, 256)[:, None]
    out = dict(pair)
    for view in ('left', 'right'):
        own = ranges.unequal_std * (rng.standard_normal() + 0.5 * rng.standard_normal(3))
        table = 255 * np.clip(ramp**gamma * np.exp(common + own), 0, 1)
        image = cv2.LUT(pair[view], np.round(table).astype(np.uint8)[None])
        if not sharp:
            image = cv2.GaussianBlur(image, (0, 0), sigma_blur)
        if not quiet:
            noise = np.empty(image.shape, np.int16)
            cv2.randn(noise, np.zeros(3), np.full(3, sigma_noise))
            image = cv2.add(image, noise, dtype=cv2.CV_8U)
        out[view] = image
    return out


def augment(
    pool: Pairs, index: int, size: int, rng: np.random.Generator, ranges: Augmentation
) -> Pair:
    """One training pair of the pool, changed at random; the same `rng` gives the same pair."""
    pair = pool.pair(index)
    out = crop_pair(pair, random_window(rng, pair['left'].shape[0], ranges), size)
    return disturb(out, lambda: pool.pair(int(rng.integers(len(pool))))['left'], rng, ranges)


def disturb(
    pair: Pair,
    other: Callable[[], np.ndarray],
    rng: np.random.Generator,
    ranges: Augmentation,
) -> Pair:
    """Flip, cover, darken and colour crops at random; patches are of the picture `other` gives."""
    out = pair
    if rng.random() < ranges.flip:
        out = flip_pair(out)
    if rng.random() < ranges.occluder:
        out = occlude(out, other(), rng)
    for view in ('left', 'right'):
        if rng.random() < ranges.black_edge:
            out[view] = blacken_edge(out[view], rng)
    cv2.setRNGSeed(int(rng.integers(2**31)))
    return colour_pair(out, rng, ranges)


def collate(pairs: Sequence[Pair], names: Sequence[str] = ()) -> StereoBatch:
    """Stack pairs of one size into a batch."""
    arrays = {name: np.stack([pair[name] for pair in pairs]) for name in pairs[0]}
    images = {
        view: torch.from_numpy(arrays[view]).permute(0, 3, 1, 2) for view in ('left', 'right')
    }
    return StereoBatch(
        **images,
        uv_left=torch.from_numpy(arrays['uv_left'].astype(np.float32)),
        uv_right=torch.from_numpy(arrays['uv_right'].astype(np.float32)),
        xyz_m=torch.from_numpy(arrays['xyz_m'].astype(np.float32)),
        visibility=torch.from_numpy(arrays['visibility'].astype(np.uint8)),
        calibration=StereoCalibration(*torch.from_numpy(arrays['calibration']).unbind(-1)),
        names=tuple(names),
    )


def training_batch(
    pool: Pairs,
    indices: list[int],
    size: int,
    seed: tuple[int, ...],
    ranges: Augmentation,
    *,
    first: int = 0,
    executor: Executor | None = None,
) -> StereoBatch:
    """An augmented batch, a function of its arguments alone.

    Part of a batch is the same as in the whole one where `first` says at which place it begins;
    `executor`, one of threads, makes pairs side by side.
    """

    def one(index: int, place: int) -> Pair:
        return augment(pool, index, size, np.random.default_rng((*seed, place)), ranges)

    places = range(first, first + len(indices))
    side_by_side = map if executor is None else executor.map
    return collate(list(side_by_side(one, indices, places)), [pool.name(i) for i in indices])


def evaluation_batch(pool: Pairs, indices: list[int], size: int, jitter_px: int) -> StereoBatch:
    """A batch without augmentation; the right crop moved by up to `jitter_px`, fixed per pair."""
    pairs = []
    for index in indices:
        pair = pool.pair(index)
        rng = np.random.default_rng((7, index))
        shift = int(rng.integers(-jitter_px, jitter_px + 1))
        pairs.append(crop_pair(pair, centred_window(pair['left'].shape[0], shift), size))
    return collate(pairs, [pool.name(index) for index in indices])
