"""`rsb-pose prepare`: turn Berkeley MHAD or Human3.6M into rectified stereo pairs."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from rsb_pose_core.datasets.h36m import SUBJECTS as H36M_SUBJECTS
from rsb_pose_core.datasets.h36m import h36m_recordings
from rsb_pose_core.datasets.mhad import MhadOptions, mhad_recordings
from rsb_pose_core.datasets.mhad_occlusion import OcclusionRule
from rsb_pose_core.datasets.preparation import Preparation, prepare
from rsb_pose_core.datasets.prepared import Recording
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.stereo_rectification import ROTATIONS

Found = tuple[list[Recording], list[str], Mapping[str, object]]
SHOWN = 20  # lines of failures; the index has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which data set, from where to where, and what of it."""
    parser.add_argument('data_set', choices=tuple(READERS), help='which one')
    parser.add_argument('source', type=Path, metavar='SRC', help='its folder, as published')
    parser.add_argument('destination', type=Path, metavar='DST', help='of the pairs; continued')
    parser.add_argument('--rectification', choices=tuple(ROTATIONS), default='bouguet')
    parser.add_argument(
        '--every', type=int, metavar='N', help="take every N-th picture, else the authors' choice"
    )
    parser.add_argument('--subjects', type=int, nargs='+', metavar='S', help='only these')
    parser.add_argument('--processes', type=int, default=2, help='default: %(default)s')
    parser.add_argument(
        '--lossless', action='store_true', help='WebP without loss, not JPEG of quality 95'
    )
    h36m = parser.add_argument_group('only h36m')
    h36m.add_argument(
        '--undamaged', action='store_true', help="without subject 9's takes of known faults"
    )
    mhad = parser.add_argument_group('only mhad')
    mhad.add_argument(
        '--occlusion', type=Path, metavar='FILE',
        help='YAML of the radii that tell occluded joints, as config/datasets/mhad_occ.yaml',
    )  # fmt: skip
    mhad.add_argument(
        '--authors-wrist', action='store_true', help="the right wrist of RSB-Pose's authors"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare, and say what is missing; 1 where something is."""
    if args.processes < 1:
        raise ConfigError(f'--processes {args.processes}, expected at least 1')
    if not args.source.is_dir():
        raise ConfigError(f'{args.source} is no folder, expected that of {args.data_set}')
    recordings, problems, settings = READERS[args.data_set](args)
    found = prepare(
        recordings,
        args.destination,
        {'data_set': args.data_set, **settings},
        problems=problems,
        processes=args.processes,
        lossless=args.lossless,
    )
    _print(found, args.destination)
    return 1 if found.failures else 0


def _print(found: Preparation, destination: Path) -> None:
    for split, counts in found.counts().items():
        print(
            f'{split}: {counts["recordings"]} recordings, {counts["pairs"]} pairs, '
            f'{counts["occluded_pairs"]} with occluded joints, in {destination / split}'
        )
    print(f'look at some of {destination / "checks"}: joints on bodies, rows through one spot')
    for kind, lines in (('warning', found.warnings), ('missing', found.failures)):
        for line in lines[:SHOWN]:
            print(f'{kind}: {line}', file=sys.stderr)
        if len(lines) > SHOWN:
            print(
                f'{kind}: {len(lines) - SHOWN} more, in {destination / "index.json"}',
                file=sys.stderr,
            )


def _mhad(args: argparse.Namespace) -> Found:
    if args.undamaged:
        raise ConfigError('--undamaged is of h36m; leave it out for mhad')
    options = MhadOptions(
        rectification=args.rectification,
        every=3 if args.every is None else args.every,
        authors_wrist=args.authors_wrist,
        occlusion=OcclusionRule.read(args.occlusion) if args.occlusion else OcclusionRule(),
    )
    recordings, problems = mhad_recordings(args.source, options, _subjects(args))
    return recordings, problems, asdict(options)


def _h36m(args: argparse.Namespace) -> Found:
    if args.occlusion or args.authors_wrist:
        raise ConfigError('--occlusion and --authors-wrist are of mhad, leave them out for h36m')
    recordings, problems = h36m_recordings(
        args.source,
        rectification=args.rectification,
        every=args.every,
        damaged=not args.undamaged,
        subjects=_subjects(args) or H36M_SUBJECTS,
    )
    return recordings, problems, {'rectification': args.rectification, 'every': args.every}


def _subjects(args: argparse.Namespace) -> list[int] | None:
    return sorted(set(args.subjects)) if args.subjects else None


READERS: dict[str, Callable[[argparse.Namespace], Found]] = {'mhad': _mhad, 'h36m': _h36m}
