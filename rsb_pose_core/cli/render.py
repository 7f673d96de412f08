"""`rsb-pose render`: training pairs of rendered people, a sheet to look at, and a benchmark."""

import argparse
from pathlib import Path

import torch

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.synthesis.splits import SPLITS

HELP = 'render stereo pairs of people into shards (resumable)'
BATCH = {'cpu': 10, 'cuda': 100}  # pairs at once by kind of device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--out', type=Path, help='folder of the shards; goes on where it was left')
    what.add_argument(
        '--sheet', type=Path, metavar='FILE.png', help='draw a contact sheet with joints instead'
    )
    what.add_argument(
        '--benchmark', action='store_true',
        help='print the rate at 256 x 256 without supersampling, and where the time goes',
    )  # fmt: skip
    parser.add_argument(
        '--data', type=Path, required=True,
        help='folder with motion/ and, where there are some, wardrobe/, hdri/ and pictures/',
    )  # fmt: skip
    parser.add_argument(
        '--pairs', type=int,
        help='pairs in all, rounded up to whole shards (1000; 12 on a sheet; 100 to benchmark)',
    )  # fmt: skip
    parser.add_argument('--split', choices=SPLITS, default='train', help='default: %(default)s')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--processes', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--device', default='cpu', help='cpu or cuda (%(default)s)')
    parser.add_argument(
        '--batch-size', type=int, help='pairs at once (10; 100 on cuda); others give other pairs'
    )
    parser.add_argument(
        '--maps', action='store_true', help='store person masks, depth and disparity as well'
    )


def run(args: argparse.Namespace) -> int:
    """Render what is missing, or a sheet, or measure."""
    for name in ('pairs', 'processes', 'batch_size'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ConfigError(f'--{name.replace("_", "-")} must be at least 1')
    batch = args.batch_size or BATCH.get(args.device.partition(':')[0], BATCH['cpu'])
    if args.sheet is not None:
        return _sheet(args, batch)
    if args.benchmark:
        return _benchmark(args, batch)
    return _shards(args, batch)


def _shards(args: argparse.Namespace, batch: int) -> int:
    from rsb_pose_core.synthesis.shards import ShardFiles, make_files

    files = ShardFiles(
        args.out, args.data, args.split, args.seed, args.device, args.maps, pairs_per_batch=batch
    )
    size = files.pairs_per_file
    if size % batch:
        raise ConfigError(
            f'--batch-size {batch}: expected a divisor of {size}, the pairs of a shard'
        )
    shards = -(-(args.pairs or 1000) // size)
    made = make_files(files, shards, args.processes)
    print(f'{made * size} pairs rendered, {shards * size} of {args.split} in {args.out}')
    return 0


def _sheet(args: argparse.Namespace, batch: int) -> int:
    from rsb_pose_core.synthesis.sheet import write_sheet

    torch.set_num_threads(1)  # its many small steps would wait for each other's threads
    write_sheet(args.sheet, args.data, args.split, args.seed, args.pairs or 12, args.device, batch)
    print(f'{args.pairs or 12} pairs of {args.split} in {args.sheet}')
    return 0


def _benchmark(args: argparse.Namespace, batch: int) -> int:
    from rsb_pose_core.synthesis.benchmark import measure

    print(measure(args.data, args.processes, args.device, batch, args.pairs or 100))
    return 0
