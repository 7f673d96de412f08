"""`rsb-pose photographs`: how well weights see people in real photographs, by PCK of 2D joints."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsb_pose_core.checkpoint import heatmap_network, load_model
from rsb_pose_core.cli.evaluate import unique_names
from rsb_pose_core.datasets.photographs import SPLITS, Photographs, read_photographs
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.models.flip_test import FlipTest
from rsb_pose_core.training.loaded import trained_size
from rsb_pose_core.training.photo_evaluation import (
    DEFINITIONS,
    THRESHOLDS,
    Joints,
    KeypointScores,
    crop_sides,
    find_joints,
    read_joints,
    score,
    write_crops,
)
from rsb_pose_core.training.photo_sheet import write_photo_sheet
from rsb_pose_core.training.report import report_folder, sha256
from rsb_pose_core.training.state import keep_freed_memory

CROP_PX = 256  # of --crops


@dataclass(frozen=True, eq=False)
class _Judged:
    """One row of the table: joints in pixels of the photographs, and their scores."""

    name: str
    facts: dict[str, Any]
    joints: Joints
    scores: KeypointScores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Photographs, who is to look at them, and where the report goes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DEFINITIONS
    parser.add_argument(
        '--data', type=Path, required=True, metavar='FOLDER',
        help='images.zip with joints.npz (LSPET) or person_keypoints.json (COCO)',
    )  # fmt: skip
    parser.add_argument('--split', choices=SPLITS, default='test', help='of them (test)')
    parser.add_argument(
        '--weights', type=Path, nargs='+', default=[], metavar='FILE',
        help='.safetensors of rsb-pose train, one for each method',
    )  # fmt: skip
    parser.add_argument(
        '--joints', type=Path, nargs='+', default=[], metavar='FILE',
        help="another detector's joints, .npz: names (N), uv (N,17,2) pixels of the photographs",
    )  # fmt: skip
    parser.add_argument(
        '--crops', type=Path, metavar='FILE',
        help=f'write the crops, {CROP_PX} px, to this .npz, for another detector',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path, metavar='FOLDER',
        help='write report.json and for each method a sheet of its worst and best pictures here',
    )  # fmt: skip
    parser.add_argument(
        '--flip-test', action='store_true',
        help='let each network look at the mirrored photograph as well: twice its time',
    )  # fmt: skip
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def run(args: argparse.Namespace) -> int:
    """Print the table; with --out write the report."""
    if not (args.weights or args.joints or args.crops):
        raise ConfigError('nothing to do; give --weights, --joints or --crops')
    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise ConfigError(f'--out {args.out} is a file; give a folder')
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    photographs = read_photographs(args.data, args.split)
    if len(photographs) == 0:
        raise DataError(
            f'{args.data}: nobody is in the split {args.split}; choose another --split'
        )
    if args.crops is not None:
        write_crops(photographs, CROP_PX, args.crops)
        print(f'{len(photographs)} crops in {args.crops}')
    judged = [
        *_judge_weights(args, photographs),
        *(_judge_joints(name, path, photographs) for name, path in _named(args.joints)),
    ]
    if judged:
        print(photo_table(judged))
        print('--help says what the columns are')
    if judged and args.out is not None:
        _write(args, photographs, judged)
    return 0


def photo_table(judged: list[_Judged]) -> str:
    """Two markdown tables: the figures of each method, and PCK@0.2 of each joint."""
    rows = [
        f'| method | found | {" | ".join(f"PCK@{t}" for t in THRESHOLDS)} | swapped |',
        f'|---|---|{"---|" * len(THRESHOLDS)}---|',
    ]
    for one in judged:
        figures = ' | '.join(
            f'{one.scores.pck(t):.3f} +- {one.scores.standard_error(t):.3f}' for t in THRESHOLDS
        )
        rows.append(
            f'| {one.name} | {one.scores.found:.1%} | {figures} | {one.scores.swaps:.1%} |'
        )
    of_joints = [one.scores.joint_pck() for one in judged]
    rows += ['', f'| PCK@0.2 of | {" | ".join(one.name for one in judged)} |']
    rows += [f'|---|{"---|" * len(judged)}']
    for name in of_joints[0]:
        rates = ' | '.join(f'{pck[name]:.3f}' for pck in of_joints)
        rows.append(f'| {name.replace("_", " ")} | {rates} |')
    return '\n'.join(rows)


def _named(paths: list[Path]) -> list[tuple[str, Path]]:
    return list(zip(unique_names(paths), paths, strict=True))


def _judge_weights(args: argparse.Namespace, photographs: Photographs) -> list[_Judged]:
    judged = []
    sides = crop_sides(photographs)
    for name, path in _named(args.weights):
        loaded, _, metadata = load_model(path, args.device)
        network = heatmap_network(loaded, metadata, path)
        size = trained_size(metadata)
        facts = {
            'weights': path.name,
            'sha256': sha256(path),
            'model': metadata['model'],
            'flip_test': args.flip_test,
        }
        device = torch.device(args.device)
        sees = FlipTest(network) if args.flip_test else network
        found = find_joints(sees, photographs, size, device, progress=name)
        for stage, joints in found.items():
            judged.append(
                _Judged(
                    name if stage == 'joints' else f'{name}, {stage}',
                    {**facts, 'input_size': size},
                    joints,
                    score(joints, photographs.uv, sides),
                )
            )
    return judged


def _judge_joints(name: str, path: Path, photographs: Photographs) -> _Judged:
    joints = read_joints(path, photographs)
    scores = score(joints, photographs.uv, crop_sides(photographs))
    return _Judged(name, {'joints': path.name, 'sha256': sha256(path)}, joints, scores)


def _write(args: argparse.Namespace, photographs: Photographs, judged: list[_Judged]) -> None:
    report = {
        'data': args.data.name,
        'split': args.split,
        'photographs': list(photographs.names),
        'definitions': DEFINITIONS,
        'methods': {one.name: {**one.facts, **one.scores.as_dict()} for one in judged},
    }
    with report_folder(args.out) as out:
        (out / 'report.json').write_text(json.dumps(report, indent=1))
        (out / 'report.md').write_text(f'{photo_table(judged)}\n\n{DEFINITIONS}\n')
    for one in judged:
        pck, swaps = one.scores.pck(), one.scores.swaps
        title = (
            f'{one.name} on {len(photographs)} photographs of {args.data.name}: PCK@0.2 of the '
            f'torso {pck:.3f}, left and right swapped {swaps:.1%}'
        )
        file = f'{one.name.replace("/", "_").replace(", ", "_").replace(" ", "_")}.png'
        write_photo_sheet(photographs, one.joints, one.scores, title, args.out / file)
    print(f'{args.out / "report.md"}, report.json and a sheet of pictures for each method')
