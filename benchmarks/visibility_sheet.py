"""A sheet of random joints with their visibility, to be checked by eye.

Each tile shows the surroundings of one joint of a subject in the left view, twice: plain, and with
the joint marked and its code: V visible, S hidden by the body itself, O hidden by something else.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.labels import OUTSIDE
from rsb_pose_core.synthesis.levels import LEVELS
from rsb_pose_core.synthesis.pairs import PairSpace, make_renderer

CODES = 'VSO'
COLOURS = ((80, 220, 80), (255, 220, 60), (255, 90, 60))
REACH_PX, TILE_PX, COLUMNS = 48, 150, 10
SPACE = PairSpace(crop_size=384, margin=0, sensor=LEVELS['mild'], smear=False)


def tile(picture: NDArray[np.uint8], uv: NDArray[np.float32], code: int, text: str) -> np.ndarray:
    """Surroundings of a joint, plain above and marked below (2 TILE_PX, TILE_PX, 3)."""
    u, v = (int(round(float(x))) + REACH_PX for x in uv)
    padded = cv2.copyMakeBorder(picture, *[REACH_PX] * 4, cv2.BORDER_CONSTANT)
    cut = padded[v - REACH_PX : v + REACH_PX, u - REACH_PX : u + REACH_PX]
    plain = cv2.resize(cut, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)
    marked = plain.copy()
    middle = TILE_PX // 2
    cv2.circle(marked, (middle, middle), 5, COLOURS[code], 2, cv2.LINE_AA)
    cv2.putText(marked, text, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(marked, text, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, COLOURS[code], 1,
                cv2.LINE_AA)  # fmt: skip
    return np.concatenate([plain, marked])


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', type=Path, required=True, help='folder with motion/ and hdri/')
    parser.add_argument('--joints', type=int, default=100, help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--out', type=Path, default=Path('visibility.png'))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    renderer = make_renderer(args.data, 'val', 11, SPACE)
    tiles: list[np.ndarray] = []
    number = 0
    while len(tiles) < args.joints:
        pairs = renderer.batch(10, 3 + args.seed, number)
        number += 10
        codes = pairs.subject.visibility[:, 0].numpy()
        for i in range(10):
            inside = np.nonzero(codes[i] != OUTSIDE)[0]
            for joint in rng.choice(inside, min(2, len(inside)), replace=False):
                code, uv = int(codes[i, joint]), pairs.subject.uv_left[i, joint].numpy()
                text = f'{len(tiles)} {CODES[code]} {H36M_17.joint_names[joint]}'
                tiles.append(tile(pairs.left[i], uv, code, text))
    tiles = tiles[: args.joints]
    rows = [np.concatenate(tiles[i : i + COLUMNS], 1) for i in range(0, len(tiles), COLUMNS)]
    cv2.imwrite(str(args.out), np.concatenate(rows)[..., ::-1])
    print(f'{len(tiles)} joints in {args.out}')


if __name__ == '__main__':
    main()
