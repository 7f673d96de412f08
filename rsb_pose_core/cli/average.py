"""`rsb-pose average`: one network from the weights of several runs of it."""

import argparse
from pathlib import Path

from rsb_pose_core.checkpoint import average_models, save_checkpoint

EPILOG = """\
Runs that went on from the same weights end at different places of one valley; their mean is often
better than each of them (Wortsman et al. 2022, "Model soups"). Pose Transformers are averaged
too, where every file has one. Judge the mean by evaluate and photographs before you keep it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to average, and where it goes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        'weights', type=Path, nargs='+', metavar='FILE',
        help='.safetensors of rsb-pose train, two or more of one model',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='.safetensors')


def run(args: argparse.Namespace) -> int:
    """Write the mean; 0."""
    model, refiner, metadata = average_models(args.weights)
    save_checkpoint(args.out, model, metadata, refiner)
    print(f'{args.out}: {metadata["model"]}, the mean of {len(args.weights)} weights')
    return 0
