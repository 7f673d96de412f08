"""`rsb-pose train STAGE`: the stages of the paper's training (IV-A3), one after the other.

ppt pre-trains the Pose Transformer on true poses; sce trains a network on stereo pairs, RSB-Pose
or any other of its tables; end-to-end trains both together; refiner trains the Pose Transformer on
what a frozen network says. On several GPUs: torchrun --nproc-per-node N -m rsb_pose_core train ...
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch

from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.training.config import load_config, read_settings
from rsb_pose_core.training.distributed import Ranks, torchrun_ranks
from rsb_pose_core.training.disturbing import windows_only
from rsb_pose_core.training.objective import FRESH, build_system
from rsb_pose_core.training.pose_prior import PptConfig, RefinerConfig, run_ppt, run_refiner
from rsb_pose_core.training.sources import (
    BatchSource,
    MixedSource,
    PhotographSource,
    RenderedSource,
    ShardSource,
)
from rsb_pose_core.training.state import keep_freed_memory
from rsb_pose_core.training.trainer import Trainer

STAGES = ('ppt', 'sce', 'refiner', 'end-to-end')
# Where configurations lie beside the working directory, the repository or the installed package.
FOLDERS = ('config/train', 'share/rsb_pose_ros/config/train')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Stage, data, what to begin with, output and length of the run."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = __doc__
    parser.add_argument('stage', choices=STAGES)
    parser.add_argument('--config', type=Path, help='YAML file, else config/train/STAGE.yaml')
    pairs = parser.add_mutually_exclusive_group(required=True)
    pairs.add_argument(
        '--data', metavar='GLOB|DIR',
        help="training pairs, e.g. 'shards/train_*.npz' or a folder of rsb-pose prepare; of ppt: "
        'the folder that holds motion/',
    )  # fmt: skip
    pairs.add_argument(
        '--render', type=Path, metavar='DATA_DIR',
        help='draw the pairs on the device while the network trains; folder with motion/, hdri/ '
        'and so on',
    )  # fmt: skip
    parser.add_argument(
        '--photographs', type=Path, nargs='+', metavar='FOLDER',
        help='mix in photographs of people, as stereo pairs: folders of LSPET or COCO',
    )  # fmt: skip
    parser.add_argument('--val', metavar='GLOB|DIR', help="validation pairs: 'shards/val_*.npz'")
    parser.add_argument('--out', type=Path, required=True, help='directory of the run')
    parser.add_argument('--model', help="network to train, instead of the file's; see counts")
    parser.add_argument(
        '--backbone-weights', type=Path, metavar='FILE',
        help='published weights of the 2D backbone (ImageNet or COCO)',
    )  # fmt: skip
    parser.add_argument('--weights', type=Path, help='begin with weights of an earlier stage')
    parser.add_argument(
        '--refiner', type=Path, metavar='FILE',
        help='Pose Transformer of stage ppt, or `fresh`; else the one in --weights',
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--epochs', type=float, help='length of the run, of 15000 pairs each')
    length.add_argument('--steps', type=int, help='length of the run in steps')
    length.add_argument('--minutes', type=float, help='length of the run in training time')
    parser.add_argument(
        '--resume', action='store_true', help='go on from OUT/last.pt or OUT/carried'
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')
    parser.add_argument('--seed', type=int)


def run(args: argparse.Namespace) -> int:
    """Train; 0 when the run is complete or was asked to stop."""
    if args.threads:
        torch.set_num_threads(args.threads)
    path = args.config or default_config(args.stage)
    with torchrun_ranks(args.device) as (ranks, device):
        if device.type == 'cpu':
            keep_freed_memory()
        if args.stage in ('ppt', 'refiner'):
            _train_transformer(args, path, ranks, device)
        else:
            _train_network(args, path, ranks, device)
    return 0


def default_config(stage: str) -> Path:
    """The YAML file of a stage. ConfigError where none is found."""
    for parent in (Path.cwd(), *Path(__file__).resolve().parents):
        for folder in FOLDERS:
            path = parent / folder / f'{stage}.yaml'
            if path.is_file():
                return path
    raise ConfigError(f'no config/train/{stage}.yaml here; give --config FILE')


def _train_network(
    args: argparse.Namespace, path: Path, ranks: Ranks, device: torch.device
) -> None:
    """Stages sce and end-to-end."""
    if args.stage == 'end-to-end' and args.weights is None:
        raise ConfigError('end-to-end goes on from rsb-pose train sce; give its --weights FILE')
    overrides: dict[str, Any] = {}
    begun = {} if args.weights is None else load_model(args.weights)[2]
    if args.model is not None:
        overrides['model'] = args.model
    elif args.weights is not None:
        overrides['model'] = begun['model']
        asked = load_config(path).model
        if asked != overrides['model']:
            print(
                f'training {overrides["model"]} as of --weights, not the {asked} of {path.name}; '
                f'give --model {asked} to train that with what fits'
            )
    if args.seed is not None:
        overrides['seed'] = args.seed
    if (args.epochs, args.steps, args.minutes) != (None, None, None):
        overrides |= {'epochs': args.epochs, 'steps': args.steps, 'minutes': args.minutes}
    config = load_config(path, **overrides)
    cv2.setNumThreads(1)  # augmentation runs beside the network
    drawn_from = config
    if device.type != 'cpu':
        torch.backends.cudnn.benchmark = True
        drawn_from = replace(config, augmentation=windows_only(config.augmentation))
    before = int(begun.get('pairs_seen', 0))
    shuffled = replace(drawn_from, seed=config.seed + before)  # not the earlier run's order again
    source: BatchSource
    if args.render is not None:
        source = RenderedSource(drawn_from, args.render, str(device), ranks=ranks, before=before)
    else:
        source = ShardSource(shuffled, args.data, ranks)
    if args.photographs is not None:
        photographs = PhotographSource(shuffled, args.photographs, ranks)
        source = MixedSource(source, photographs, config.photo_share)
    torch.manual_seed(config.seed)
    system = build_system(
        config.model,
        weights=args.weights,
        refiner=args.refiner,
        backbone_weights=args.backbone_weights,
    )
    trainer = Trainer(
        config, source, args.val, args.out,
        device=device, resume=args.resume, system=system, ranks=ranks,
        disturb=None if drawn_from is config else config.augmentation,
        pairs_before=before,
    )  # fmt: skip
    trainer.run()


def _train_transformer(
    args: argparse.Namespace, path: Path, ranks: Ranks, device: torch.device
) -> None:
    """Stages ppt and refiner."""
    _refuse(
        args, ('render', 'photographs', 'val', 'model', 'backbone_weights', 'epochs', 'minutes')
    )
    if ranks.count > 1:
        raise ConfigError(f'{args.stage} runs in one process; start it without torchrun')
    given = {'steps': args.steps, 'seed': args.seed}
    overrides = {name: value for name, value in given.items() if value is not None}
    if args.stage == 'ppt':
        _refuse(args, ('weights', 'refiner'))
        config = read_settings(PptConfig, path, **overrides)
        run_ppt(config, Path(args.data), args.out, resume=args.resume, device=device)
        return
    if args.weights is None:
        raise ConfigError('refiner goes on from rsb-pose train sce; give its --weights FILE')
    run_refiner(
        read_settings(RefinerConfig, path, **overrides), args.weights, args.data, args.out,
        refiner=None if str(args.refiner) == FRESH else args.refiner,
        resume=args.resume, device=device,
    )  # fmt: skip


def _refuse(args: argparse.Namespace, names: tuple[str, ...]) -> None:
    """ConfigError for an option that a stage has no use for."""
    for name in names:
        if getattr(args, name) is not None:
            option = '--' + name.replace('_', '-')
            raise ConfigError(f'{option} does not apply to stage {args.stage}; leave it out')
