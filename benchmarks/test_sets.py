"""What no network can find in the test sets: joints beyond its planes, people whom no view shows.

    python benchmarks/test_sets.py SETS [--limit 300]

Prints a table in Markdown, of the crops that `rsb-pose evaluate` makes of each set.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rsb_pose_core.models import NETWORKS
from rsb_pose_core.models.keypoints import STRIDE
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.comparison import COMMON_DEPTH_M
from rsb_pose_core.training.pool import open_pool

FEW = 2  # joints of which the left view shows no more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('sets', type=Path, help='folder of rsb-pose testset')
    parser.add_argument('--limit', type=int, default=300, help='pairs of each (%(default)s)')
    parser.add_argument('--model', default='lite-efficientnet', choices=sorted(NETWORKS))
    parser.add_argument('--jitter-px', type=int, default=12, help='as of evaluate (%(default)s)')
    args = parser.parse_args()
    planes = NETWORKS[args.model].disparities
    near, far = COMMON_DEPTH_M
    print(
        f'| set | joints beyond the planes {planes.first:g} to {planes.last:g} '
        f'| of those {near:g} to {far:g} m deep '
        f'| pairs of {FEW} joints or fewer in the left view | of none in either |'
    )
    print('|---|---|---|---|---|')
    for folder in sorted(path for path in args.sets.iterdir() if path.is_dir()):
        pool = open_pool(str(folder), args.limit, 256)
        beyond, deep, shown = [], [], []
        for index in tqdm(range(len(pool)), folder.name, leave=False):
            batch = evaluation_batch(pool, [index], 256, args.jitter_px)
            counted = batch.in_view(0) & batch.in_view(1) & batch.xyz_m.isfinite().all(-1)
            disparity = (batch.uv_left - batch.uv_right)[..., 0][counted] / STRIDE
            beyond += ((disparity < planes.first) | (disparity > planes.last)).tolist()
            depth_m = batch.xyz_m[..., 2][counted]
            deep += ((depth_m > near) & (depth_m < far)).tolist()
            shown.append((batch.visibility[0] == 0).sum(-1).tolist())
        outside, at_depth, views = np.array(beyond), np.array(deep), np.array(shown)
        common = outside[at_depth].mean() if at_depth.any() else np.nan
        print(
            f'| {folder.name} | {outside.mean():.1%} | {common:.0%} | '
            f'{(views[:, 0] <= FEW).mean():.1%} | {(views == 0).all(1).mean():.1%} |'
        )


if __name__ == '__main__':
    main()
