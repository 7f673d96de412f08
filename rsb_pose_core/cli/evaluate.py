"""`rsb-pose evaluate`: errors of weights on stored pairs, several methods side by side."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from rsb_pose_core.checkpoint import read_metadata
from rsb_pose_core.cli.evaluate_all import run_all
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.training.loaded import (
    check_counted,
    load_methods,
    networks_in,
    trained_size,
)
from rsb_pose_core.training.pair_sheet import write_sheet
from rsb_pose_core.training.plots import write_plots
from rsb_pose_core.training.pool import PairPool, chosen_numbers, open_pool
from rsb_pose_core.training.report import (
    DEFINITIONS,
    EvaluatedMethod,
    markdown_table,
    report_dict,
    report_folder,
    report_markdown,
)
from rsb_pose_core.training.state import keep_freed_memory

WEIGHTS = Path('weights')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, data, and where the report goes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DEFINITIONS
    parser.add_argument(
        '--weights', type=Path, nargs='+', metavar='FILE',
        help='.safetensors of rsb-pose train, one for each method (every network in weights/)',
    )  # fmt: skip
    parser.add_argument(
        '--data', required=True,
        help="shards, 'shards/val_*.npz', or the folder of a test set; of several with --all",
    )  # fmt: skip
    parser.add_argument(
        '--all', action='store_true',
        help='compare the methods on every test set that lies in --data, in one table',
    )  # fmt: skip
    parser.add_argument(
        '--predictions', type=Path, nargs='+', metavar='FILE',
        help='with --all: what other programs say of the sets (see training/predictions.py)',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path, metavar='FOLDER',
        help='write report.md, report.json, plots and a sheet of pairs here; with --all '
        'comparison.md, comparison.json and plots',
    )  # fmt: skip
    parser.add_argument(
        '--refiner', type=Path, metavar='FILE',
        help='put this Pose Transformer behind every method, instead of its own',
    )  # fmt: skip
    parser.add_argument(
        '--limit', type=int, default=2000, help='at most so many pairs, of each set (2000)'
    )
    parser.add_argument(
        '--occluded', type=int, metavar='N',
        help='only pairs in which neither view shows at least N joints of the subject',
    )  # fmt: skip
    parser.add_argument(
        '--jitter-px', type=int, default=12, help='how far the right crop is moved at most (12)'
    )
    parser.add_argument('--input-size', type=int, help='side of the crops, else of the weights')
    parser.add_argument(
        '--flip-test', action='store_true',
        help='let each network look at the mirrored pair as well: twice its time',
    )  # fmt: skip
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def run(args: argparse.Namespace) -> int:
    """Print a table; with --out write the whole report."""
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    _check(args)
    device = torch.device(args.device)
    paths = args.weights or networks_in(WEIGHTS)
    _warn_of_sizes(args, paths)
    loaded = load_methods(
        list(zip(unique_names(paths), paths, strict=True)), device,
        refiner=args.refiner, input_size=args.input_size, flip_test=args.flip_test,
    )  # fmt: skip
    if args.all:
        return run_all(args, loaded, device)
    pool = open_pool(args.data, args.limit, 256)
    numbers = chosen_numbers(pool, args.limit, args.occluded)
    if args.occluded is not None:
        print(f'{len(numbers)} of {min(len(pool), args.limit)} pairs')
    methods = []
    for method in loaded:
        pairs = open_pool(args.data, args.limit, method.input_size)
        found = method.evaluate(pairs, numbers, args.jitter_px, device)
        check_counted(args.data, found)
        methods.append(found)
    print(markdown_table(methods))
    print('mm: median / mean; --help says what the columns are')
    if args.out is not None:
        _write(args, methods, pool, numbers)
    return 0


def unique_names(paths: Sequence[Path]) -> list[str]:
    """What tables call weights: the file's name, with its folder where names are alike."""
    stems = [path.stem for path in paths]
    names = [
        path.stem if stems.count(path.stem) == 1 else f'{path.absolute().parent.name}/{path.stem}'
        for path in paths
    ]
    return [
        name if names.count(name) == 1 else f'{name} {names[: i + 1].count(name)}'
        for i, name in enumerate(names)
    ]


def _check(args: argparse.Namespace) -> None:
    size = args.input_size
    if size is not None and (size < 32 or size % 32):
        raise ConfigError(f'--input-size {size} is no crop; give a multiple of 32 pixels')
    if args.limit < 1:
        raise ConfigError(f'--limit {args.limit} leaves no pair; give at least 1')
    if args.jitter_px < 0:
        raise ConfigError(f'--jitter-px {args.jitter_px} is no distance; give 0 or more')
    if args.predictions and not args.all:
        raise ConfigError('--predictions are of test sets; give --all and the folder of the sets')
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise ConfigError(f'--out {args.out} is a file; give a folder')


def _warn_of_sizes(args: argparse.Namespace, paths: Sequence[Path]) -> None:
    """A sentence for each of the weights that were trained at another size than --input-size."""
    for path in paths if args.input_size else ():
        metadata = read_metadata(path)
        if 'model' in metadata and trained_size(metadata) != args.input_size:
            print(
                f'rsb-pose evaluate: {path.name} was trained at {trained_size(metadata)} px and '
                f'does worse at {args.input_size} px; leave --input-size out to see what it can '
                f'do',
                file=sys.stderr,
            )


def _write(
    args: argparse.Namespace, methods: list[EvaluatedMethod], pool: PairPool, numbers: list[int]
) -> None:
    settings = {
        'data': args.data,
        'files': [Path(path).name for path in pool.paths],
        'pairs': len(numbers),
        'occluded': args.occluded,
        'jitter_px': args.jitter_px,
        'device': args.device,
        'torch': torch.__version__,
    }
    with report_folder(args.out) as out:
        report = json.dumps(report_dict(methods, settings), indent=1)
        (out / 'report.json').write_text(report)
        (out / 'report.md').write_text(report_markdown(methods, settings))
        write_plots(methods, out)
        write_sheet(methods, pool, args.jitter_px, out / 'pairs.png')
    print(f'{args.out / "report.md"} with its plots, and report.json')
