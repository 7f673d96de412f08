"""`rsb-pose counts`: MACs and parameters of every network beside the paper's."""

import argparse
import json
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from rsb_pose_core.counting import Count, Row, percent_above, row_names, rows
from rsb_pose_core.errors import ConfigError

MACS_CLOSE, PARAMETERS_CLOSE = 0.5, 0.2  # percent
GREEN, YELLOW, PLAIN = '\033[32m', '\033[33m', '\033[0m'
NOTES = """
One pair of crops. thop, with which the paper counted, takes transposed convolutions several times
over and counts norms too; true: the convolutions and matrix products that are computed.
-wide has the disparities of H36M (Table II), whose printed MACs fit no depth of the volume; with
one other digit, in the last column, they do. ppt is on top: the paper's counts leave it out.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where else to write."""
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures here as well')


def run(args: argparse.Namespace) -> int:
    """Count, print a table and write the JSON."""
    if args.json and not args.json.parent.is_dir():
        raise ConfigError(f'{args.json}: its folder does not exist; make it or name another file')
    progress = tqdm(rows(), 'counting', len(row_names()), leave=False, disable=None)
    found = list(progress)
    colour = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
    print('\n'.join(table(found, colour=colour)), NOTES, sep='\n', end='')
    if args.json:
        args.json.write_text(json.dumps([as_json(row) for row in found], indent=1) + '\n')
    return 0


def as_json(row: Row) -> dict[str, object]:
    """A row's figures by name, with the differences from the paper in percent."""
    difference = row.percent_above_paper
    return asdict(row) | {'percent_above_paper': asdict(difference) if difference else None}


def table(found: list[Row], *, colour: bool = False) -> list[str]:
    """Lines of at most 120 columns; differences beyond 0.5 and 0.2 % stand out in colour."""
    return [
        f'{"":33}{"MACs (G), counted by thop":^28}{"  parameters (M)":^29}{"MACs (G)":>11}',
        f'{"network":28}{"side":>5}'
        + 2 * f'{"here":>10}{"paper":>9}{"differ":>9}'
        + f'{"true":>12}',
        *(_line(row, colour) for row in found),
    ]


def _line(row: Row, colour: bool) -> str:
    absent = Count(math.nan, math.nan)
    here, paper, true = (count or absent for count in (row.thop, row.paper, row.true))
    difference = row.percent_above_paper or absent
    note = row.note
    if row.likely_gmac is not None:
        note = f'{row.likely_gmac:.2f}? ({percent_above(here.gmac, row.likely_gmac):+.2f}%)'
    columns = [
        f'{row.network:28}{row.input_size or "":>5}',
        f'{_figure(here.gmac, 3):>10}{_figure(paper.gmac, 2):>9}',
        _difference(difference.gmac, MACS_CLOSE, colour),
        f'{_figure(here.parameters_m, 3):>10}{_figure(paper.parameters_m, 2):>9}',
        _difference(difference.parameters_m, PARAMETERS_CLOSE, colour),
        f'{_figure(true.gmac, 3):>12}  {note}',
    ]
    return ''.join(columns).rstrip()


def _figure(value: float, digits: int) -> str:
    return '-' if math.isnan(value) else f'{value:.{digits}f}'


def _difference(percent: float, close: float, colour: bool) -> str:
    """Nine columns, green where the difference is small and yellow where it is not."""
    if math.isnan(percent):
        return f'{"-":>9}'
    text = f'{f"{percent:+.2f}%":>9}'
    return f'{GREEN if abs(percent) <= close else YELLOW}{text}{PLAIN}' if colour else text
