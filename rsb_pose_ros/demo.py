"""The whole way on one machine: a bag's player, the node, an evaluator, over real DDS.

`python -m rsb_pose_ros.demo --out out/demo` leaves report.json, overlay.mp4 and skeletons.png.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_ros.bag_evaluator import load_frames
from rsb_pose_ros.bags import BagError, open_bag
from rsb_pose_ros.demo_pictures import write_film, write_skeletons
from rsb_pose_ros.faults import TRANSITION_FAILED
from rsb_pose_ros.pairing import stamp_ns
from rsb_pose_ros.processes import Child, dds_environment, remove_shared_memory, share_file
from rsb_pose_ros.report import not_finite, table_text
from rsb_pose_ros.topics import StereoTopics

_LIMIT_S = 300.0  # without progress
_LONGEST_S = '86400'  # for a bag at the rate that the machine can hold
_CONNECT_LIMIT_S = 60.0
_CONNECT_SETTLE_S = 1.0  # the node learns of the evaluator a little later than the reverse
_DOMAINS = range(40, 100)  # ports below the range that the system gives away


class DemoError(RsbPoseError):
    """The run gave no report. The message is one sentence."""


@dataclass(frozen=True)
class Run:
    """The three processes of a run."""

    evaluator: Child
    node: Child
    player: Child

    @property
    def children(self) -> tuple[Child, ...]:
        return (self.player, self.node, self.evaluator)


class ProgressLine:
    """One line that is written over on a terminal, and written anew every 5 s elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._next_s = 0.0

    def show(self, text: str) -> None:
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + (0.2 if self._terminal else 5.0)
        print(f'\r\033[K{text}' if self._terminal else text, end='' if self._terminal else '\n')
        sys.stdout.flush()

    def end(self) -> None:
        if self._terminal:
            print()


def node_arguments(
    topics: StereoTopics, weights: Path | None, parameters: Sequence[str] = ()
) -> list[str]:
    """ROS arguments of the node for the topics of a bag; `parameters` are NAME:=VALUE."""
    arguments = ['--ros-args', '-p', f'image_transport:={topics.transport}']
    if topics.rectified:
        arguments += ['-p', 'input_rectified:=true']
    for parameter in parameters:
        arguments += ['-p', parameter]
    if weights is not None:
        arguments += ['-p', f'weights:={weights}']
    for remapping in topics.remappings:
        arguments += ['-r', remapping]
    return arguments


def start(options: argparse.Namespace, topics: StereoTopics, node: Sequence[str]) -> Run:
    """Start evaluator, node and player. `node` is the command that runs the node."""
    environment = dds_environment(options.domain_id)
    logs = options.out / 'logs'
    sent = options.out / 'player.json'
    sent.unlink(missing_ok=True)

    def child(name: str, command: Sequence[str]) -> Child:
        return Child(name, command, environment, logs / f'{name}.log')

    python = [sys.executable, '-m']
    evaluator_command = [*python, 'rsb_pose_ros.bag_evaluator', '--out', str(options.out)]
    player_command = [*python, 'rsb_pose_ros.bag_player', str(options.bag), '--rate', options.rate]
    player_command += ['--longest', _LONGEST_S]
    evaluator_command += ['--progress', '--player-report', str(sent)]
    evaluator = child('evaluator', evaluator_command)
    worker = child('node', [*node, *node_arguments(topics, options.weights, options.parameters)])
    try:
        _await_connection(evaluator, worker)
    except BaseException:
        evaluator.stop()
        worker.stop()
        raise
    player = child('player', [*player_command, '--report', str(sent), '--progress'])
    return Run(evaluator, worker, player)


def _await_connection(evaluator: Child, node: Child) -> None:
    """Wait until the evaluator hears the node: what came before would be lost to it.

    Ends early where something failed; watch() tells what.
    """
    end_s = time.monotonic() + _CONNECT_LIMIT_S
    while time.monotonic() < end_s and not evaluator.status.get('connected'):
        failed = evaluator.status.get('fault', '').startswith(TRANSITION_FAILED)
        if failed or node.exit_status is not None or evaluator.wait(0.1) is not None:
            return
    time.sleep(_CONNECT_SETTLE_S)


def watch(run: Run, expected_pairs: int) -> None:
    """Show progress until the evaluator is done. Raises DemoError when a process gives up."""
    line = ProgressLine()
    shown, end_s = '', time.monotonic() + _LIMIT_S
    while run.evaluator.wait(0.2) is None:
        for child in run.children:
            child.note_shared_memory()
        text = _progress_text(run, expected_pairs)
        line.show(text)
        if text != shown:
            shown, end_s = text, time.monotonic() + _LIMIT_S
        if run.player.exit_status not in (None, 0) or run.node.exit_status is not None:
            failed = run.node if run.node.exit_status is not None else run.player
            line.end()
            raise DemoError(
                f'the {failed.name} ended with exit status {failed.exit_status}: '
                f'{failed.last_words()}; see {failed.log}'
            )
        fault = run.evaluator.status.get('fault', '')
        if fault.startswith(TRANSITION_FAILED):
            line.end()
            raise DemoError(f'{fault}; see {run.node.log}')
        if time.monotonic() > end_s:
            line.end()
            raise DemoError(f'nothing came for {_LIMIT_S:g} s; see {run.evaluator.log.parent}')
    line.show(_progress_text(run, expected_pairs))
    line.end()
    if run.evaluator.exit_status != 0:
        raise DemoError(f'{run.evaluator.last_words()} (see {run.node.log})')


def _progress_text(run: Run, expected_pairs: int) -> str:
    seen, sent = run.evaluator.status, run.player.status.get('pairs_sent', 0)
    if seen.get('fault') and not seen.get('pairs_processed'):
        return f'waiting: {seen["fault"]}'
    latency_ms = seen.get('latency_ms')
    return (
        f'sent {sent}/{expected_pairs} pairs  matched {seen.get("pairs_matched", 0)}  '
        f'processed {seen.get("pairs_processed", 0)}  poses {seen.get("poses", 0)}  '
        f'latency {"-" if latency_ms is None else f"{latency_ms:.0f} ms"}'
    )


def problems(report: dict[str, Any]) -> list[str]:
    """What makes the run a failure; empty: poses came out and every number is finite."""
    found = []
    if not report['poses_published']:
        found.append('no poses came out')
    unfinished = not_finite(report) + [name for name in _nulls(report) if name != 'accuracy']
    if unfinished:
        found.append(f'not finite: {", ".join(unfinished)}')
    counted = report['processed'] + report['dropped'] + report['unmatched']
    if report['frames_sent'] != counted:
        found.append(f'{report["frames_sent"]} pairs were sent but {counted} are accounted for')
    return found


def _nulls(report: dict[str, Any], prefix: str = '') -> list[str]:
    names = [f'{prefix}{key}' for key, value in report.items() if value is None]
    for key, value in report.items():
        if isinstance(value, dict):
            names += _nulls(value, f'{prefix}{key}.')
    return names


def run_demo(options: argparse.Namespace, node: Sequence[str]) -> dict[str, Any]:
    """Run, draw and return the report. Raises RsbPoseError; leaves no process behind."""
    options.out.mkdir(parents=True, exist_ok=True)
    with open_bag(options.bag) as bag:
        topics = StereoTopics.of(bag)
        expected_pairs = min(bag.count(topics.left_image), bag.count(topics.right_image))
    for name in ('report.json', 'poses.npz', 'overlay.mp4', 'skeletons.png'):
        (options.out / name).unlink(missing_ok=True)
    run = start(options, topics, node)
    try:
        watch(run, expected_pairs)
    finally:
        for child in run.children:
            child.stop()
        remove_shared_memory(set().union(*(child.shared_memory for child in run.children)))
    frames = {stamp_ns(frame): frame for frame in load_frames(options.out / 'poses.npz')}
    with open_bag(options.bag) as bag:
        write_film(options.out / 'overlay.mp4', bag, topics, frames)
        write_skeletons(options.out / 'skeletons.png', bag, topics, frames)
    report: dict[str, Any] = json.loads((options.out / 'report.json').read_text())
    return report


def default_bag() -> Path:
    """The first sample bag of this package. Raises BagError where there is none."""
    samples = share_file('samples')
    bags = sorted(path.parent for path in samples.glob('*/metadata.yaml'))
    if not bags:
        raise BagError(f'there is no sample bag in {samples}; name one with --bag')
    return bags[0]


def _assignment(text: str) -> str:
    name, assigns, value = text.partition(':=')
    if not (name and assigns and value):
        raise argparse.ArgumentTypeError(f'{text!r}: expected NAME:=VALUE, as flip_test:=true')
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='demo', description=__doc__.splitlines()[0])
    parser.add_argument(
        '--out', type=Path, default=Path('out/demo'), help='folder for the results'
    )
    parser.add_argument('--bag', type=Path, help='stereo bag (default: the sample)')
    parser.add_argument('--weights', type=Path, help='weights file (default: those shipped)')
    parser.add_argument(
        '-p',
        dest='parameters',
        action='append',
        type=_assignment,
        default=[],
        metavar='NAME:=VALUE',
        help='parameter of the node, such as flip_test:=true',
    )
    parser.add_argument('--rate', default='auto', help='auto or a number (default: auto)')
    parser.add_argument(
        '--domain-id',
        type=int,
        default=_DOMAINS[os.getpid() % len(_DOMAINS)],
        help='ROS_DOMAIN_ID',
    )
    return parser


def main(arguments: list[str] | None = None, node: Sequence[str] | None = None) -> int:
    """Run the demo. Exit status 0 only if poses came out and all numbers are finite."""
    options = _parser().parse_args(arguments)
    try:
        options.bag = options.bag or default_bag()
        report = run_demo(options, node or [sys.executable, '-m', 'rsb_pose_ros.node'])
    except RsbPoseError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(table_text(report))
    print(f'left in {options.out}: report.json, overlay.mp4, skeletons.png, logs')
    failures = problems(report)
    for failure in failures:
        print(f'demo: {failure}', file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
