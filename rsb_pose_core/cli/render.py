"""`rsb-pose render`: training pairs of rendered people."""

import argparse
from pathlib import Path

from rsb_pose_core.synthesis.shards import SHARD_PAIRS, SPLITS, ShardJob, render_shards

HELP = 'render stereo pairs of people into shards (resumable)'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--out', type=Path, required=True, help='folder of the shards')
    parser.add_argument(
        '--motion', type=Path, required=True,
        help='folder with cmu_17joints_60hz.npz and/or deepmimic.tar.xz',
    )  # fmt: skip
    parser.add_argument('--photos', type=Path, help='folder of .hdr panoramas used as textures')
    parser.add_argument('--pairs', type=int, default=1000, help='pairs in all (%(default)s)')
    parser.add_argument('--split', choices=SPLITS, default='train', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--processes', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (%(default)s)')


def run(args: argparse.Namespace) -> int:
    """Render what is missing."""
    job = ShardJob(args.out, args.motion, args.photos, args.split, args.seed, args.device)
    shards = -(-args.pairs // SHARD_PAIRS)
    made = render_shards(job, shards, args.processes)
    print(f'{made * SHARD_PAIRS} pairs rendered, {shards * SHARD_PAIRS} in {args.out}')
    return 0
