"""`rsb-pose experiment`: the paper's tables and figures on data at hand."""

import argparse

from rsb_pose_core.experiments.registry import EXPERIMENTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The experiment's name; it has options of its own."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f'experiments:\n{_listed()}\n\nOptions: rsb-pose experiment NAME --help'
    parser.add_argument('name', nargs='?', choices=list(EXPERIMENTS), metavar='NAME')
    parser.add_argument('options', nargs=argparse.REMAINDER, help='of the experiment')


def run(args: argparse.Namespace) -> int:
    """Run the experiment, or list them where none is named; its exit status."""
    if args.name is None:
        print(_listed())
        return 0
    experiment = EXPERIMENTS[args.name]
    module = experiment.load()
    parser = argparse.ArgumentParser(
        prog=f'rsb-pose experiment {args.name}', description=experiment.summary
    )
    module.add_arguments(parser)
    parser.set_defaults(experiment=args.name)
    status: int = module.run(parser.parse_args(args.options))
    return status


def _listed() -> str:
    return '\n'.join(f'  {name:10s} {item.summary}' for name, item in EXPERIMENTS.items())
