"""A contact sheet: rendered pairs with the joints of everybody drawn on them."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.labels import (
    OCCLUDED,
    OUTSIDE,
    SELF_OCCLUDED,
    VISIBLE,
)
from rsb_pose_core.synthesis.pairs import PairSpace, StereoPairs, make_renderer
from rsb_pose_core.synthesis.shards import first_seed

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

# RGB by visibility code, told apart by the colour-blind too (Okabe and Ito).
COLORS: dict[int, Color] = {
    VISIBLE: (0, 200, 120), SELF_OCCLUDED: (240, 228, 66), OCCLUDED: (230, 90, 0),
    OUTSIDE: (150, 110, 255),
}  # fmt: skip
NAMES = {
    VISIBLE: 'visible', SELF_OCCLUDED: 'hidden by the body itself', OCCLUDED: 'hidden by others',
    OUTSIDE: 'outside (at the edge)',
}  # fmt: skip
PAPER, INK, BONE = (24, 24, 24), (225, 225, 225), (255, 255, 255)
CAPTION_PX, GAP_PX, TILE_PX = 22, 6, 320
SUBPIXEL_BITS = 4
FONT = cv2.FONT_HERSHEY_SIMPLEX


def write_sheet(
    path: Path, data: Path, split: str, seed: int, count: int, device: str, batch: int
) -> None:
    """Render `count` pairs as the first shard of a split and seed has them, and draw the sheet.

    Raises RsbPoseError where the file cannot be written.
    """
    first = first_seed(split, seed)
    renderer = make_renderer(data, split, first, PairSpace(), device)
    tiles: list[Image] = []
    for number in tqdm(range(0, count, batch), desc='render', unit='batch'):
        tiles += pair_tiles(renderer.batch(batch, first, number))
    try:
        written = cv2.imwrite(str(path), sheet(tiles[:count])[..., ::-1])
    except cv2.error:
        written = False
    if not written:
        raise RsbPoseError(
            f'{path}: cannot be written; give --sheet FILE.png in a folder that is there'
        )


def pair_tiles(pairs: StereoPairs) -> list[Image]:
    """For each of B pairs its two pictures side by side with joints, bones and a caption."""
    joints = pairs.labels.h36m
    uv = [joints.uv_left.cpu().numpy(), joints.uv_right.cpu().numpy()]
    codes = joints.visibility.cpu().numpy()
    depth_m = joints.xyz_m[:, 0, H36M_17.root, 2].tolist()
    people = pairs.labels.present.sum(1).tolist()
    baseline_m = pairs.calibration.baseline_m.tolist()
    focal = pairs.calibration.fx.tolist()
    tiles = []
    for i in range(len(pairs.left)):
        views = []
        for side, picture in enumerate((pairs.left[i], pairs.right[i])):
            scale = TILE_PX / picture.shape[0]
            size = (round(picture.shape[1] * scale), TILE_PX)
            view = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            for slot in range(codes.shape[1]):
                if np.isfinite(uv[side][i, slot]).all():
                    pixels = (uv[side][i, slot] + 0.5) * scale - 0.5
                    draw_joints(view, pixels, codes[i, slot, side], thin=slot > 0)
            views.append(view)
        others = f', {people[i] - 1} others' if people[i] > 1 else ''
        caption = (
            f'baseline {1000 * baseline_m[i]:.0f} mm, pelvis at {depth_m[i]:.1f} m, '
            f'f {focal[i]:.0f} px{others}'
        )
        tiles.append(_captioned(np.concatenate(views, 1), caption))
    return tiles


def draw_joints(
    picture: Image, uv: NDArray[np.floating], codes: NDArray[np.uint8], *, thin: bool
) -> None:
    """Draw a skeleton with joints (17, 2) on a picture (H, W, 3), coloured by visibility (17,).

    Joints outside are drawn at the nearest edge; `thin` skeletons are those of others.
    """
    height, width = picture.shape[:2]
    placed = uv.clip((1, 1), (width - 2, height - 2))
    points = [tuple(int(round(v * 2**SUBPIXEL_BITS)) for v in point) for point in placed]
    for parent, child in H36M_17.bones:
        if OUTSIDE not in (codes[parent], codes[child]):
            cv2.line(picture, points[parent], points[child], BONE, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    radius = int((1.5 if thin else 2.8) * 2**SUBPIXEL_BITS)
    for point, code in zip(points, codes, strict=True):
        rim = radius + 2**SUBPIXEL_BITS
        cv2.circle(picture, point, rim, PAPER, -1, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.circle(picture, point, radius, COLORS[int(code)], -1, cv2.LINE_AA, SUBPIXEL_BITS)


def _captioned(picture: Image, text: str) -> Image:
    strip = np.full((CAPTION_PX, picture.shape[1], 3), PAPER, np.uint8)
    cv2.putText(strip, text, (4, CAPTION_PX - 7), FONT, 0.42, INK, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


def sheet(tiles: list[Image]) -> Image:
    """Tiles of one size on a grid of about 4:3, under a legend of the joints' colours."""
    height, width = tiles[0].shape[:2]
    columns = max(1, round((len(tiles) * height / width * 4 / 3) ** 0.5))
    rows = -(-len(tiles) // columns)
    page = np.full((rows * (height + GAP_PX), columns * (width + GAP_PX), 3), PAPER, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = number // columns * (height + GAP_PX), number % columns * (width + GAP_PX)
        page[y : y + height, x : x + width] = tile
    return np.concatenate([_legend(page.shape[1]), page])


def _legend(width: int) -> Image:
    strip = np.full((CAPTION_PX + GAP_PX, width, 3), PAPER, np.uint8)
    x = 10
    for code, name in NAMES.items():
        cv2.circle(strip, (x, 13), 5, COLORS[code], -1, cv2.LINE_AA)
        cv2.putText(strip, name, (x + 10, 18), FONT, 0.45, INK, 1, cv2.LINE_AA)
        x += 30 + cv2.getTextSize(name, FONT, 0.45, 1)[0][0]
    return strip
