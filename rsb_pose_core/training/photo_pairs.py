"""Photographs as stereo pairs, so that the whole stereo network sees real people.

A photograph has no depth. A smooth disparity field that we choose makes a right view of it: known
disparity, real texture, no occlusion. Where only 2D heat maps are trained, the views of a pair are
two different photographs instead. Positions in metres stay unknown (NaN).
"""

import math
from concurrent.futures import Executor
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from rsb_pose_core.datasets.photographs import Photograph, Photographs
from rsb_pose_core.models.keypoints import STRIDE
from rsb_pose_core.training.augmentation import Augmentation, Pair, collate, disturb
from rsb_pose_core.training.batches import StereoBatch

NETWORK_CROP = 1.25  # side of an unchanged crop by the joints' extent


@dataclass(frozen=True)
class PhotoAugmentation:
    """Ranges of the random changes that photographs get beyond those of all pairs."""

    rotated: float = 0.8  # probability
    rotation_deg: float = 40.0  # either way
    scale_std: float = 0.18  # of the logarithm
    shift_std: float = 0.05  # of the crop's side
    disparity: tuple[float, float] = (-5.0, 6.0)  # of the whole crop, heat-map pixels
    relief_std: float = 0.35  # of the disparity inside the crop, heat-map pixels


def photo_crop(
    photograph: Photograph, size: int, rng: np.random.Generator, ranges: PhotoAugmentation
) -> Float[np.ndarray, '2 3']:
    """Affine map of the photograph's pixels to those of a crop: turned, scaled, moved."""
    middle, side = photograph.square(NETWORK_CROP)
    angle = math.radians(rng.uniform(-ranges.rotation_deg, ranges.rotation_deg))
    if rng.random() >= ranges.rotated:
        angle = 0.0
    scale = size / side * math.exp(ranges.scale_std * rng.standard_normal())
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    target = (size - 1) / 2 + size * ranges.shift_std * rng.standard_normal(2)
    return np.column_stack([turn, target - turn @ middle])


def disparity_field(
    size: int, rng: np.random.Generator, ranges: PhotoAugmentation
) -> Float[np.ndarray, 'size size']:
    """Disparity in crop pixels at each pixel of the right view, smooth."""
    knots = ranges.relief_std * rng.standard_normal((4, 4)) + rng.uniform(*ranges.disparity)
    field = cv2.resize(knots * STRIDE, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field)


def warp_photograph(
    image: np.ndarray,
    affine: Float[np.ndarray, '2 3'],
    columns: Float[np.ndarray, 'size size'],
    border: int = cv2.BORDER_CONSTANT,
) -> np.ndarray:
    """A crop of a photograph whose pixel (x, y) shows point (columns[y, x], y) of the affine crop.

    The photograph is interpolated once, from twice as many points where it is shrunk.
    """
    size = len(columns)
    inverse = cv2.invertAffineTransform(affine)
    finer = 2 if np.linalg.norm(inverse[:, 0]) > 1.4 else 1
    if finer > 1:
        half = np.arange(finer * size) / finer - (finer - 1) / (2 * finer)
        x, y = (axis.astype(np.float32) for axis in np.meshgrid(half, half))
        columns = cv2.remap(
            columns, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ) + _beyond(x, size)
    else:
        y = np.repeat(np.arange(size, dtype=np.float32)[:, None], size, 1)
    u = inverse[0, 0] * columns + inverse[0, 1] * y + inverse[0, 2]
    v = inverse[1, 0] * columns + inverse[1, 1] * y + inverse[1, 2]
    out = cv2.remap(
        image, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR, borderMode=border
    )
    if finer > 1:
        out = cv2.resize(out, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(out)


def _beyond(x: np.ndarray, size: int) -> np.ndarray:
    """How far x is outside 0..size-1: there the nearest column's value goes on at slope one."""
    return np.asarray(x - np.clip(x, 0, size - 1))


def right_columns(
    uv: Float[np.ndarray, 'joints 2'], field: Float[np.ndarray, 'size size']
) -> Float[np.ndarray, ' joints']:
    """x with x + field(x, v) = u: where joints of the left view are in the right one."""
    u, v = uv.astype(np.float32).T
    x = u.copy()
    for _ in range(6):  # contracts by the field's slope, some hundredths
        moved = cv2.remap(
            field.astype(np.float32), x, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        x = u - moved[:, 0]
    return np.asarray(x, np.float64)


def photo_pair(
    photographs: list[Photograph],
    size: int,
    rng: np.random.Generator,
    ranges: PhotoAugmentation,
) -> Pair:
    """A pair of crops of one photograph, or of two photographs that have nothing in common."""
    plain = np.repeat(np.arange(size, dtype=np.float64)[None], size, 0)
    affine = photo_crop(photographs[0], size, rng, ranges)
    border = cv2.BORDER_CONSTANT if rng.random() < 0.5 else cv2.BORDER_REPLICATE
    uv = [_moved(photographs[0].uv, affine)]
    views = [warp_photograph(photographs[0].image, affine, plain, border)]
    if len(photographs) == 2:
        affine = photo_crop(photographs[1], size, rng, ranges)
        uv.append(_moved(photographs[1].uv, affine))
        views.append(warp_photograph(photographs[1].image, affine, plain, border))
    else:
        field = disparity_field(size, rng, ranges)
        uv.append(np.column_stack([right_columns(uv[0], field), uv[0][:, 1]]))
        views.append(warp_photograph(photographs[0].image, affine, plain + field, border))
    joints = len(uv[0])
    middle = (size - 1) / 2
    return {
        'left': views[0],
        'right': views[1],
        'uv_left': uv[0],
        'uv_right': uv[1],
        'xyz_m': np.full((joints, 3), np.nan),
        'visibility': np.zeros((2, joints), np.uint8),
        'calibration': np.array([size, size, middle, middle, middle, 0.1]),  # of no meaning
    }


def _moved(
    uv: Float[np.ndarray, 'joints 2'], affine: Float[np.ndarray, '2 3']
) -> Float[np.ndarray, 'joints 2']:
    return np.asarray(uv @ affine[:, :2].T + affine[:, 2])


@dataclass(frozen=True, eq=False)
class PhotoPool:
    """People of several data sets, numbered through."""

    parts: tuple[Photographs, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Photograph:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(f'photograph {index} beyond the last')


def photo_batch(
    pool: PhotoPool,
    indices: list[int],
    size: int,
    seed: tuple[int, ...],
    ranges: PhotoAugmentation,
    colours: Augmentation,
    *,
    stereo: bool,
    first: int = 0,
    executor: Executor | None = None,
) -> StereoBatch:
    """An augmented batch, a function of its arguments alone; place `first` begins it.

    stereo: views of one photograph; else of two, the second drawn at random. executor: of threads,
    which make pairs side by side.
    """

    def one(index: int, place: int) -> tuple[Pair, str]:
        rng = np.random.default_rng((*seed, place, 1))
        chosen = [pool[index]]
        if not stereo:
            chosen.append(pool[int(rng.integers(len(pool)))])
        pair = photo_pair(chosen, size, rng, ranges)

        def other() -> np.ndarray:
            image = pool[int(rng.integers(len(pool)))].image
            return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)

        return disturb(pair, other, rng, colours), ' and '.join(p.name for p in chosen)

    side_by_side = map if executor is None else executor.map
    made = list(side_by_side(one, indices, range(first, first + len(indices))))
    return collate([pair for pair, _ in made], [name for _, name in made])
