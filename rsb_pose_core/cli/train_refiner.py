"""`rsb-pose train-refiner`: train the Pose Transformer and put it beside its network's weights."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from rsb_pose_core.checkpoint import load_model, save_checkpoint
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.training.evaluation import evaluate, table
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.pose_prior import (
    PriorConfig,
    finetune,
    initial_poses,
    pretrain,
    read_poses,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Data, weights and length of both phases."""
    parser.add_argument('--network', type=Path, required=True, help='weights of rsb-pose train')
    parser.add_argument('--out', type=Path, required=True, help='weights of network and refiner')
    parser.add_argument('--data', required=True, help="training shards, 'shards/train_*.npz'")
    parser.add_argument('--val', help="validation shards, 'shards/val_*.npz'")
    parser.add_argument('--motion', type=Path, help='further true poses, .npy (N,17,3) in metres')
    parser.add_argument('--pretrain-steps', type=int, default=3000)
    parser.add_argument('--finetune-steps', type=int, default=1500)
    parser.add_argument('--passes', type=int, default=1, help='augmented passes over the shards')
    parser.add_argument('--max-pairs', type=int, default=12000)
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--use-root', action='store_true', help="hand the root's position in")
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def run(args: argparse.Namespace) -> int:
    """Pre-train on true poses, fine-tune on the frozen network's estimates, write both."""
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.pretrain_steps < 1 or args.finetune_steps < 1:
        raise ConfigError('--pretrain-steps and --finetune-steps must be at least 1')
    network, _, metadata = load_model(args.network)
    size = int(metadata.get('input_size', 256))
    pool = PairPool(args.data, args.max_pairs)
    pool.scan()
    torch.manual_seed(0)
    refiner = PoseTransformer(use_root=args.use_root)
    phase = PriorConfig(steps=args.pretrain_steps, batch_size=args.batch_size)
    pretrain(refiner, read_poses(pool, args.motion), phase)
    initial, truth = initial_poses(network, pool, passes=args.passes, input_size=size)
    phase = replace(phase, steps=args.finetune_steps, learning_rate=3e-4)
    finetune(refiner, initial, truth, phase)
    save_checkpoint(args.out, network, dict(metadata), refiner)
    if args.val is not None:
        held_out = PairPool(args.val)
        held_out.scan()
        results = evaluate(network, held_out, input_size=size, jitter_px=12, refiner=refiner)
        print(table(results, f'{metadata["model"]} {size}px jittered'))
    return 0
