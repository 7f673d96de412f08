"""A sheet of evaluated pairs with true and estimated skeletons: best, median and worst."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rsb_pose_core.drawing import bone_colors
from rsb_pose_core.errors import DataError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.evaluation import Evaluated
from rsb_pose_core.training.pictures import TRUTH, draw_skeleton, views_of
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.report import EvaluatedMethod

Image = NDArray[np.uint8]
Array = NDArray[np.float64]

TILE_PX = 256
SIDE_M = 2.4  # what a side view shows, up and down and in depth
PER_KIND = 2
KINDS = ('best', 'median', 'worst')
PAPER, INK, GRID = (24, 24, 24), (225, 225, 225), (70, 70, 70)
CAPTION_PX, GAP_PX = 22, 8
FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_sheet(
    methods: Sequence[EvaluatedMethod], pool: PairPool, jitter_px: int, path: Path
) -> None:
    """A row for each of a few pairs, chosen by the mean error of the first method's joints; for
    each method both views and the person seen from the right-hand side.

    Raises DataError where the file cannot be written.
    """
    rows = []
    for kind, row in chosen_pairs(methods[0].final):
        tiles = [_tile(method, row, kind, pool, jitter_px) for method in methods]
        rows.append(np.concatenate(tiles, 1))
    width = len(methods) * (3 * TILE_PX + GAP_PX)
    page = np.concatenate([_legend(width), *rows])
    if not cv2.imwrite(str(path), page[..., ::-1]):
        raise DataError(f'{path}: cannot be written; give --out a folder that can be')


def chosen_pairs(found: Evaluated) -> list[tuple[str, int]]:
    """Kind and row of the pairs to show; none twice, and none without a joint that was found."""
    error = found.errors.pose_mm()
    order = [int(row) for row in error.argsort() if bool(error[row].isfinite())]
    middle = max(0, (len(order) - PER_KIND) // 2)
    kinds = (order[:PER_KIND], order[middle : middle + PER_KIND], order[-PER_KIND:])
    shown: dict[int, str] = {}
    for kind, rows in zip(KINDS, kinds, strict=True):
        for row in rows:
            shown.setdefault(row, kind)
    return [(kind, row) for row, kind in shown.items()]


def _tile(method: EvaluatedMethod, row: int, kind: str, pool: PairPool, jitter_px: int) -> Image:
    found = method.final
    number = found.numbers[row]
    batch = evaluation_batch(pool, [number], TILE_PX, jitter_px)
    xyz = found.xyz_m[row]
    absolute, relative = (
        float(errors[row][found.errors.counted[row]].nanmean())
        for errors in (found.errors.absolute_mm, found.errors.relative_mm)
    )
    caption = (
        f'{kind}: pair {number}, {method.name}: MPJPE_ab {absolute:.0f} mm, '
        f'MPJPE_re {relative:.0f} mm'
    )
    views = [*_views(batch, xyz), _from_the_side(xyz.numpy(), batch.xyz_m[0].double().numpy())]
    body = np.concatenate(views, 1)
    strip = np.full((CAPTION_PX, body.shape[1], 3), PAPER, np.uint8)
    cv2.putText(strip, caption, (4, CAPTION_PX - 7), FONT, 0.45, INK, 1, cv2.LINE_AA)
    tile = np.concatenate([strip, body])
    framed = cv2.copyMakeBorder(tile, 0, GAP_PX, 0, GAP_PX, cv2.BORDER_CONSTANT, value=PAPER)
    return np.asarray(framed, np.uint8)


def _views(batch: StereoBatch, xyz_m: Float[Tensor, 'joints 3']) -> list[Image]:
    """Both crops of a batch of one; the truth is where they show it."""
    estimated = views_of(xyz_m[None], batch)
    views = []
    for image, uv, true_uv in zip(
        (batch.left, batch.right), estimated, (batch.uv_left, batch.uv_right), strict=True
    ):
        view = np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
        _draw(view, uv[0], true_uv[0].double().numpy())
        views.append(view)
    return views


def _from_the_side(xyz_m: Array, true_m: Array) -> Image:
    """On a grid of half metres, the cameras far to the left: errors in depth."""
    view = np.full((TILE_PX, TILE_PX, 3), PAPER, np.uint8)
    scale = TILE_PX / SIDE_M
    for line in np.arange(-2, 3) * 0.5 * scale + TILE_PX / 2:
        cv2.line(view, (round(line), 0), (round(line), TILE_PX), GRID, 1)
        cv2.line(view, (0, round(line)), (TILE_PX, round(line)), GRID, 1)
    centre = np.nanmean(true_m, 0)[[2, 1]]
    estimated, true = (
        (pose[:, [2, 1]] - centre) * scale + TILE_PX / 2 for pose in (xyz_m, true_m)
    )
    _draw(view, estimated, true)
    return view


def _draw(picture: Image, estimated: Array, true: Array) -> None:
    """Joints (17, 2): the estimate broad and coloured, the truth thin and white upon it."""
    draw_skeleton(picture, estimated, bone_colors(), 3)
    draw_skeleton(picture, true, (TRUTH,) * len(H36M_17.bones), 1)


def _legend(width: int) -> Image:
    lines = (
        'white: truth, colours: estimate, orange on the right side of the body, blue on the left',
        'left view, right view, and from the side: depth to the right, one square is 0.5 m',
    )
    strip = np.full((len(lines) * CAPTION_PX, width, 3), PAPER, np.uint8)
    for number, line in enumerate(lines):
        place = (4, (number + 1) * CAPTION_PX - 7)
        cv2.putText(strip, line, place, FONT, 0.45, INK, 1, cv2.LINE_AA)
    return strip
