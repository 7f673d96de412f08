"""`rsb-pose train`: train a network on stored pairs, or on pairs drawn meanwhile."""

import argparse
from pathlib import Path
from typing import Any

import cv2
import torch

from rsb_pose_core.training.config import load_config
from rsb_pose_core.training.sources import BatchSource, RenderedSource, ShardSource
from rsb_pose_core.training.state import keep_freed_memory
from rsb_pose_core.training.trainer import Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Data, output and length of the run."""
    parser.add_argument('--config', type=Path, required=True, help='YAML file of config/train')
    pairs = parser.add_mutually_exclusive_group(required=True)
    pairs.add_argument('--data', help="training shards, e.g. 'shards/train_*.npz'")
    pairs.add_argument(
        '--render', type=Path, metavar='DATA_DIR',
        help='draw the pairs on the device while the network trains; folder with motion/, hdri/ '
        'and so on',
    )  # fmt: skip
    parser.add_argument('--val', help="validation shards, e.g. 'shards/val_*.npz'")
    parser.add_argument('--out', type=Path, required=True, help='directory of the run')
    parser.add_argument('--model', help="lite, lite-baseline or resnet50, instead of the file's")
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--minutes', type=float, help='length of the run in training time')
    length.add_argument('--steps', type=int, help='length of the run in steps')
    parser.add_argument('--resume', action='store_true', help='go on from OUT/last.pt')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')
    parser.add_argument('--seed', type=int)


def run(args: argparse.Namespace) -> int:
    """Train; 0 when the run is complete or was asked to stop."""
    overrides: dict[str, Any] = {}
    for name in ('model', 'seed'):
        if getattr(args, name) is not None:
            overrides[name] = getattr(args, name)
    if args.minutes is not None:
        overrides |= {'minutes': args.minutes, 'steps': None}
    if args.steps is not None:
        overrides |= {'steps': args.steps, 'minutes': None}
    config = load_config(args.config, **overrides)
    if args.threads:
        torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)  # augmentation runs beside the network
    if args.device == 'cpu':
        keep_freed_memory()
    source: BatchSource
    if args.render is not None:
        source = RenderedSource(config, args.render, args.device)
    else:
        source = ShardSource(config, args.data)
    trainer = Trainer(
        config, source, args.val, args.out, device=torch.device(args.device), resume=args.resume
    )
    trainer.run()
    return 0
