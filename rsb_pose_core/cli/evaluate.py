"""`rsb-pose evaluate`: errors of weights on stored pairs, several methods side by side."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsb_pose_core.checkpoint import load_model, load_refiner
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.models import NETWORKS, PoseTransformer
from rsb_pose_core.synthesis.frames import occluded_subset
from rsb_pose_core.training.evaluation import evaluate_method
from rsb_pose_core.training.pair_sheet import write_sheet
from rsb_pose_core.training.plots import write_plots
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.report import (
    DEFINITIONS,
    EvaluatedMethod,
    markdown_table,
    report_dict,
    report_markdown,
    sha256,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, data, and where the report goes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DEFINITIONS
    parser.add_argument(
        '--weights', type=Path, nargs='+', required=True, metavar='FILE',
        help='.safetensors of rsb-pose train, one for each method',
    )  # fmt: skip
    parser.add_argument(
        '--data', required=True, help="shards, 'shards/val_*.npz', or the folder of a test set"
    )
    parser.add_argument(
        '--out', type=Path, metavar='FOLDER',
        help='write report.md, report.json, plots and a sheet of pairs here',
    )  # fmt: skip
    parser.add_argument(
        '--refiner', type=Path, metavar='FILE',
        help='put this Pose Transformer behind every method, instead of its own',
    )  # fmt: skip
    parser.add_argument('--limit', type=int, default=2000, help='at most so many pairs (2000)')
    parser.add_argument(
        '--occluded', type=int, metavar='N',
        help='only pairs in which neither view shows at least N joints of the subject',
    )  # fmt: skip
    parser.add_argument(
        '--jitter-px', type=int, default=12, help='how far the right crop is moved at most (12)'
    )
    parser.add_argument('--input-size', type=int, help='side of the crops, else of the weights')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def run(args: argparse.Namespace) -> int:
    """Print a table; with --out write the whole report."""
    if args.threads:
        torch.set_num_threads(args.threads)
    _check(args)
    device = torch.device(args.device)
    refiner = None if args.refiner is None else load_refiner(args.refiner, device)[0]
    missing = [path for path in args.weights if not path.is_file()]
    if missing:
        load_model(missing[0])  # says what is wrong before minutes of work on the others
    pool = _open(args, 256)
    numbers = _chosen(pool, args)
    methods = []
    for name, path in zip(unique_names(args.weights), args.weights, strict=True):
        model, own_refiner, metadata = load_model(path, device)
        size = _input_size(args, path, metadata)
        used = refiner or own_refiner
        stages = evaluate_method(
            model,
            _open(args, size),
            refiner=used,
            input_size=size,
            jitter_px=args.jitter_px,
            numbers=numbers,
            device=device,
            progress=name,
        )
        if not stages['initial'].errors.counted.any():
            raise DataError(
                f'{args.data}: no joint has a true position inside both crops, so nothing can be '
                f'measured; give pairs that show people'
            )
        facts: dict[str, Any] = {
            **_file_facts(path),
            'model': metadata['model'],
            'input_size': size,
            'refiner': _refiner_facts(args.refiner, used),
            'metadata': {key: metadata[key] for key in sorted(metadata) if key != 'validation'},
        }
        methods.append(EvaluatedMethod(name, facts, stages))
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
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise ConfigError(f'--out {args.out} is a file; give a folder')


def _open(args: argparse.Namespace, input_size: int) -> PairPool:
    """The pairs, with pixels enough for a network of that size."""
    pool = PairPool(args.data, args.limit, input_size)
    if pool.scan() == 0:
        raise DataError(f'no pairs match {args.data}; render some or correct --data')
    return pool


def _chosen(pool: PairPool, args: argparse.Namespace) -> list[int]:
    """Numbers of the pairs to evaluate."""
    numbers = range(min(len(pool), args.limit))
    if args.occluded is None:
        return list(numbers)
    visibility = np.stack([pool.labels(number)['visibility'] for number in numbers])
    chosen = occluded_subset(visibility, args.occluded)
    if not chosen:
        raise DataError(
            f'{args.data}: no pair with {args.occluded} occluded joints; lower --occluded'
        )
    print(f'{len(chosen)} of {len(numbers)} pairs')
    return chosen


def _input_size(args: argparse.Namespace, path: Path, metadata: dict[str, str]) -> int:
    """--input-size, or what the weights were trained at; a sentence where the two differ."""
    trained = int(metadata.get('input_size', NETWORKS[metadata['model']].input_size))
    if args.input_size is None or args.input_size == trained:
        return trained
    print(
        f'rsb-pose evaluate: {path.name} was trained at {trained} px and does worse at '
        f'{args.input_size} px; leave --input-size out to see what it can do',
        file=sys.stderr,
    )
    return int(args.input_size)


def _refiner_facts(path: Path | None, used: PoseTransformer | None) -> dict[str, Any] | None:
    """Which Pose Transformer stood behind a method: a file of --refiner, or the weights' own."""
    if used is None:
        return None
    return {'weights': "the method's own"} if path is None else _file_facts(path)


def _file_facts(path: Path) -> dict[str, Any]:
    return {'weights': path.name, 'sha256': sha256(path)}


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
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        report = json.dumps(report_dict(methods, settings), indent=1)
        (args.out / 'report.json').write_text(report)
        (args.out / 'report.md').write_text(report_markdown(methods, settings))
        write_plots(methods, args.out)
        write_sheet(methods, pool, args.jitter_px, args.out / 'pairs.png')
    except OSError as error:
        raise DataError(
            f'{args.out}: the report cannot be written there ({error.strerror}); give --out a '
            f'folder that can be'
        ) from error
    print(f'{args.out / "report.md"} with its plots, and report.json')
