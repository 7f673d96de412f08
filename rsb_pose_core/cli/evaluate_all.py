"""`rsb-pose evaluate --all`: every network on every test set of a folder, in one comparison."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsb_pose_core.errors import DataError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.cycles_set import NAME as CYCLES
from rsb_pose_core.synthesis.testsets import SETS
from rsb_pose_core.training.augmentation import STORED_CROP, stored_side
from rsb_pose_core.training.comparison import SetResult, in_order
from rsb_pose_core.training.comparison_plots import write_comparison_plots
from rsb_pose_core.training.comparison_report import (
    comparison_dict,
    comparison_markdown,
    headline,
    ratio_lines,
    rival_table,
    set_table,
)
from rsb_pose_core.training.loaded import LoadedMethod, check_counted, titles
from rsb_pose_core.training.pool import HeldPairs, chosen_numbers, open_pool
from rsb_pose_core.training.predictions import Predictions
from rsb_pose_core.training.report import EvaluatedMethod, report_folder

FIRST_SETS = ('mhad-like', CYCLES)  # then those of SETS, then what else there is


def run_all(args: argparse.Namespace, loaded: Sequence[LoadedMethod], device: torch.device) -> int:
    """Print the tables; with --out write comparison.md, comparison.json and plots."""
    predictions = [Predictions.read(path) for path in args.predictions or ()]
    folders = test_sets(Path(args.data))
    names = {folder.name for folder in folders}
    for told in predictions:
        if told.data_set not in names:
            raise DataError(
                f'{told.path}: predictions of the set {told.data_set}, which {args.data} has '
                f'not; leave it out, or make the set with rsb-pose testset'
            )
    methods = [
        replace(method, name=title) for method, title in zip(loaded, titles(loaded), strict=True)
    ]
    results = []
    for folder in folders:
        mine = [told for told in predictions if told.data_set == folder.name]
        results.append(_evaluate_set(folder, methods, mine, args, device))
        print(f'\n{results[-1].title}\n{set_table(results[-1])}\n')
    ratios = rival_table(results)
    print('\n\n'.join(part for part in (headline(results), ratios) if part))
    print('\n'.join(ratio_lines(results)))
    if args.out is not None:
        _write(args, results)
    return 0


def test_sets(folder: Path) -> list[Path]:
    """The folders of pairs in a folder. Raises DataError where there are none."""
    order = [*FIRST_SETS, *SETS]

    def place(path: Path) -> tuple[int, str]:
        return (order.index(path.name) if path.name in order else len(order)), path.name

    found = sorted((path.parent for path in folder.glob('*/*.npz')), key=place)
    if not found:
        raise DataError(
            f'{folder}: no test sets; give --data the folder that holds theirs, as rsb-pose '
            f'testset makes them'
        )
    return list(dict.fromkeys(found))


def _evaluate_set(
    folder: Path,
    methods: Sequence[LoadedMethod],
    predictions: Sequence[Predictions],
    args: argparse.Namespace,
    device: torch.device,
) -> SetResult:
    held: dict[int, HeldPairs] = {}
    pool = open_pool(str(folder), args.limit)
    numbers = chosen_numbers(pool, args.limit, args.occluded)

    def pairs(input_size: int) -> HeldPairs:
        """The pictures, read once for all methods of a size."""
        side = stored_side(input_size)
        if side not in held:
            sized = open_pool(str(folder), args.limit, input_size)
            held[side] = HeldPairs(sized, numbers, f'{folder.name}, pictures')
        return held[side]

    evaluated = []
    for method in methods:
        shown = replace(method, name=f'{folder.name}, {method.name}')
        found = shown.evaluate(pairs(method.input_size), numbers, args.jitter_px, device)
        check_counted(str(folder), found)
        evaluated.append(replace(found, name=method.name))
    return SetResult(
        name=folder.name,
        baseline_m=float(np.median([pool.labels(n)['calibration'][5] for n in numbers])),
        numbers=tuple(numbers),
        methods=tuple(in_order(evaluated)),
        predicted=tuple(
            _measured(told, numbers, pairs(STORED_CROP), args.jitter_px) for told in predictions
        ),
    )


def _measured(
    told: Predictions, numbers: Sequence[int], pairs: HeldPairs, jitter_px: int
) -> EvaluatedMethod:
    joints, part = told.joints.nonzero().flatten().tolist(), told.of(numbers)
    facts: dict[str, Any] = {
        'file': told.path.name,
        'pairs': len(part.numbers),
        'pairs_found': int(part.xyz_m.isfinite().all(-1).any(1).sum()),
        'joint_numbers': joints,
        'joints': [H36M_17.joint_names[joint].replace('_', ' ') for joint in joints],
    }
    return EvaluatedMethod(told.method, facts, {'initial': part.evaluate(pairs, jitter_px)})


def _write(args: argparse.Namespace, results: Sequence[SetResult]) -> None:
    settings = {
        'data': Path(args.data).name,
        'limit': args.limit,
        'occluded': args.occluded,
        'jitter_px': args.jitter_px,
        'device': args.device,
        'torch': torch.__version__,
    }
    with report_folder(args.out, 'comparison') as out:
        report = json.dumps(comparison_dict(results, settings), indent=1)
        (out / 'comparison.json').write_text(report)
        (out / 'comparison.md').write_text(comparison_markdown(results, settings))
        write_comparison_plots(results, out)
    print(f'{args.out / "comparison.md"} with its plots, and comparison.json')
