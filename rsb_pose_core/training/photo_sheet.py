"""A sheet of photographs with found and labelled limbs: the worst, middling and best ones."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from rsb_pose_core.datasets.photographs import Photographs
from rsb_pose_core.drawing import CENTRE, LEFT_SIDE, RIGHT_SIDE
from rsb_pose_core.errors import DataError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.photo_evaluation import (
    HEADLINE,
    Joints,
    KeypointScores,
    upright_affine,
    upright_crop,
)

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

TILE_PX, COLUMNS, GAP_PX, STRIP_PX = 256, 6, 6, 24
ROWS = {'worst': 3, 'middling': 1, 'best': 1}
DOT_SPACING_PX = 5.0
SHEET, INK, TRUTH, OUTLINE = (24, 24, 24), (235, 235, 235), (255, 255, 255), (0, 0, 0)
SIDES: dict[tuple[str, ...], Color] = {
    ('right', 'right'): RIGHT_SIDE,
    ('left', 'left'): LEFT_SIDE,
}
FONT = cv2.FONT_HERSHEY_SIMPLEX
# Limbs between joints that photographs label; the pelvis and the spine are not among them.
LIMB_LINES = tuple(
    (H36M_17.index(a), H36M_17.index(b))
    for a, b in (
        ('right_shoulder', 'left_shoulder'), ('right_hip', 'left_hip'),
        ('right_shoulder', 'right_hip'), ('left_shoulder', 'left_hip'), ('neck', 'head'),
        ('right_hip', 'right_knee'), ('right_knee', 'right_ankle'),
        ('left_hip', 'left_knee'), ('left_knee', 'left_ankle'),
        ('right_shoulder', 'right_elbow'), ('right_elbow', 'right_wrist'),
        ('left_shoulder', 'left_elbow'), ('left_elbow', 'left_wrist'),
    )
)  # fmt: skip


def write_photo_sheet(
    photographs: Photographs, found: Joints, scores: KeypointScores, title: str, path: Path
) -> None:
    """Write the crops of the worst, middling and best people as a picture.

    found: in pixels of the photographs. Raises DataError where the file cannot be written.
    """
    rows = [_strip(text, COLUMNS * (TILE_PX + GAP_PX)) for text in _legend(title)]
    shown = ''
    for kind, people in chosen_people(scores.badness()):
        tiles = [_tile(photographs, found, scores, i) for i in people]
        tiles += [np.full_like(tiles[0], SHEET[0])] * (COLUMNS - len(tiles))
        row = np.concatenate(tiles, 1)
        rows += [row] if kind == shown else [_strip(kind, row.shape[1]), row]
        shown = kind
    if not cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1]):
        raise DataError(f'{path}: cannot be written; give --out a folder that can be')


def chosen_people(badness: Float[np.ndarray, ' people']) -> Iterator[tuple[str, list[int]]]:
    """Rows of the sheet: what they show, and numbers of people, none twice."""
    order = [int(i) for i in np.argsort(badness, kind='stable') if np.isfinite(badness[i])]
    worst = order[::-1][: ROWS['worst'] * COLUMNS]
    rest = order[: len(order) - len(worst)]
    middle = max(0, (len(rest) - COLUMNS) // 2)
    middling = rest[middle : middle + COLUMNS * ROWS['middling']]
    best = [i for i in rest if i not in middling][: COLUMNS * ROWS['best']]
    for kind, people in (('worst', worst), ('middling', middling), ('best', best)):
        for start in range(0, len(people), COLUMNS):
            yield kind, people[start : start + COLUMNS]


def draw_limbs(canvas: Image, uv: Float[np.ndarray, '17 2'], *, dotted: bool = False) -> None:
    """Limbs between known joints onto an RGB image: solid by side, or dotted in white."""
    for a, b in LIMB_LINES:
        ends = uv[[a, b]]
        if not np.isfinite(ends).all():
            continue
        if dotted:
            _dots(canvas, ends)
            continue
        sides = tuple(H36M_17.joint_names[joint].split('_')[0] for joint in (a, b))
        color = SIDES.get(sides, CENTRE)
        first, last = (np.clip(ends, -2000, 4000) * 16).round().astype(int).tolist()
        cv2.line(canvas, first, last, OUTLINE, 4, cv2.LINE_AA, 4)
        cv2.line(canvas, first, last, color, 2, cv2.LINE_AA, 4)


def _dots(canvas: Image, ends: Float[np.ndarray, '2 2']) -> None:
    length = float(np.linalg.norm(ends[1] - ends[0]))
    for share in np.linspace(0, 1, max(2, round(length / DOT_SPACING_PX) + 1)):
        point = ((ends[0] + share * (ends[1] - ends[0])) * 16).round().astype(int).tolist()
        cv2.circle(canvas, point, 32, OUTLINE, -1, cv2.LINE_AA, 4)
        cv2.circle(canvas, point, 20, TRUTH, -1, cv2.LINE_AA, 4)


def _tile(photographs: Photographs, found: Joints, scores: KeypointScores, number: int) -> Image:
    photograph = photographs[number]
    picture = np.ascontiguousarray(upright_crop(photograph, TILE_PX))
    affine = upright_affine(photograph, TILE_PX)
    draw_limbs(picture, found[number] @ affine[:, :2].T + affine[:, 2])
    draw_limbs(picture, photograph.uv @ affine[:, :2].T + affine[:, 2], dotted=True)
    errors = scores.errors[number][scores.labelled[number]]
    hit = f'{int((errors < HEADLINE).sum())} of {len(errors)}'
    if not np.isfinite(found[number]).any():
        hit = 'nobody found'
    caption = _strip(f'{Path(photograph.name).stem}: {hit}', TILE_PX)
    tile = np.concatenate([caption, picture])
    framed = cv2.copyMakeBorder(tile, 0, GAP_PX, 0, GAP_PX, cv2.BORDER_CONSTANT, value=SHEET)
    return np.asarray(framed, np.uint8)


def _legend(title: str) -> tuple[str, ...]:
    return (
        title,
        'solid: found (orange: right side of the body, blue: left, yellow: across); dotted: label;'
        ' limb joints within 0.2 torso lengths of the label are counted',
    )


def _strip(text: str, width: int) -> Image:
    strip = np.full((STRIP_PX, width, 3), SHEET, np.uint8)
    cv2.putText(strip, text, (4, STRIP_PX - 7), FONT, 0.5, INK, 1, cv2.LINE_AA)
    return strip
