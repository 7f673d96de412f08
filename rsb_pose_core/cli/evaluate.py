"""`rsb-pose evaluate`: errors of weights on stored pairs."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.errors import DataError
from rsb_pose_core.synthesis.frames import occluded_subset
from rsb_pose_core.training.evaluation import evaluate, table
from rsb_pose_core.training.pool import PairPool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Weights, data and size of the crops."""
    parser.add_argument('--weights', type=Path, required=True, help='.safetensors file')
    parser.add_argument(
        '--data', required=True, help="shards, 'shards/val_*.npz', or the folder of a test set"
    )
    parser.add_argument('--limit', type=int, default=2000, help='at most so many pairs')
    parser.add_argument(
        '--occluded', type=int, metavar='N',
        help='only pairs in which neither view shows at least N joints of the subject',
    )  # fmt: skip
    parser.add_argument('--jitter-px', type=int, default=12, help='of the right crop')
    parser.add_argument('--input-size', type=int, help='side of the crops, else of the weights')
    parser.add_argument('--json', type=Path, help='write the figures here as well')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def run(args: argparse.Namespace) -> int:
    """Print a table with the right crop centred and moved."""
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    model, refiner, metadata = load_model(args.weights, device)
    pool = PairPool(args.data, args.limit)
    if pool.scan() == 0:
        raise DataError(f'no pairs match {args.data}; render some or correct --data')
    chosen = None
    if args.occluded is not None:
        visibility = np.stack([pool.pair(index)['visibility'] for index in range(len(pool))])
        chosen = occluded_subset(visibility, args.occluded)
        if not chosen:
            raise DataError(
                f'{args.data}: no pair with {args.occluded} occluded joints; lower --occluded'
            )
        print(f'{len(chosen)} of {len(pool)} pairs')
    size = args.input_size or int(metadata.get('input_size', 256))
    report = {}
    for name, jitter in (('centred', 0), ('jittered', args.jitter_px)):
        report[name] = evaluate(
            model,
            pool,
            input_size=size,
            jitter_px=jitter,
            limit=args.limit,
            chosen=chosen,
            device=device,
            refiner=refiner,
        )
        print(table(report[name], f'{metadata["model"]} {size}px {name}'))
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))
    return 0
