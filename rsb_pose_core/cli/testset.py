"""`rsb-pose testset`: make or verify the frozen test sets."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rsb_pose_core.errors import ConfigError
from rsb_pose_core.synthesis.cycles import require_bpy
from rsb_pose_core.synthesis.cycles_set import NAME as CYCLES
from rsb_pose_core.synthesis.cycles_set import PAIRS, SOURCE, make_cycles, scene_checksums
from rsb_pose_core.synthesis.testsets import (
    SETS,
    FrameFiles,
    check,
    frame_checksums,
    freeze,
    make_set,
    set_files,
)

HELP = 'make or verify the frozen test sets'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which set, from what and where."""
    parser.add_argument(
        'name', choices=(*SETS, CYCLES, 'all'),
        help='of the set; all: every one but cycles, which needs bpy and hours',
    )  # fmt: skip
    parser.add_argument('--data', type=Path, help='folder with motion/, hdri/ and so on')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder of the sets, each in a folder of its name'
    )
    parser.add_argument('--processes', type=int, default=2, help='default: %(default)s')
    parser.add_argument('--pairs', type=int, help='only the first so many, in whole files')
    parser.add_argument(
        '--python', default=sys.executable, help='an interpreter with bpy, to make cycles'
    )
    parser.add_argument('--maps', action='store_true', help='store person masks and depth as well')
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        '--check', action='store_true', help='make nothing, compare with the committed checksums'
    )
    what.add_argument(
        '--freeze', action='store_true', help='make the set and write its checksums down'
    )


def run(args: argparse.Namespace) -> int:
    """Make the files that are not there, and compare them with the checksums."""
    if args.data is None and not args.check:
        raise ConfigError('--data is missing, expected the folder with motion/; give --data DIR')
    for value, name in ((args.pairs, '--pairs'), (args.processes, '--processes')):
        if value is not None and value < 1:
            raise ConfigError(f'{name} must be at least 1')
    if args.freeze and args.pairs is not None:
        raise ConfigError('--freeze writes down whole sets; leave --pairs out')
    for name in SETS if args.name == 'all' else (args.name,):
        if not args.check:
            (_make_cycles if name == CYCLES else _make)(args, name)
        if args.freeze:
            freeze(name, _checksums(args.out, name), args.data)
        pairs = check(name, _checksums(args.out, name), args.data) * FrameFiles.pairs_per_file
        print(f'{name}: {pairs} pairs in {args.out / name}, as committed')
    return 0


def _checksums(out: Path, name: str) -> Iterator[tuple[Path, str]]:
    if name == CYCLES:
        return scene_checksums(out / name, FrameFiles.pairs_per_file)
    return frame_checksums(out / name)


def _make(args: argparse.Namespace, name: str) -> None:
    files = set_files(name, args.out, args.data, args.maps)
    make_set(files, args.processes, args.pairs or SETS[name].pairs)


def _make_cycles(args: argparse.Namespace, name: str) -> None:
    """Path-trace, after the engine's own pairs, whose labels they share."""
    require_bpy(args.python)
    pairs = args.pairs or PAIRS
    files = set_files(SOURCE, args.out, args.data)
    make_set(files, args.processes, pairs)
    make_cycles(files, args.out / name, pairs, args.processes, args.python)
