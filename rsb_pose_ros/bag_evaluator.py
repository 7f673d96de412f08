"""Compares the node's poses with the true ones of a bag: `bag_evaluator --out FOLDER`.

Listens to /human_pose3d/people, /ground_truth/human_pose3d and /diagnostics. It ends when the
player's report is there and the node is through with its pairs, or when it is interrupted, and
leaves report.json and poses.npz in FOLDER and a table on stdout.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_ros.bag_player import PEOPLE_TOPIC, write_json
from rsb_pose_ros.msg import HumanPose3D, HumanPose3DArray
from rsb_pose_ros.pairing import stamp_ns
from rsb_pose_ros.report import (
    PoseTable,
    accuracy,
    percentiles_ms,
    plain,
    pose_table,
    table_text,
    versions,
)
from rsb_pose_ros.topics import TRUTH_TOPIC

_PROGRESS_S = 0.2
_SETTLED_S = 3.0  # without a new frame, once the player has ended
_GIVEN_UP_S = 8.0


def seen_people(frame: HumanPose3DArray) -> list[HumanPose3D]:
    """Those of whom something was seen in this frame: LOST tracks left out."""
    return [person for person in frame.people if person.track_state != HumanPose3D.TRACK_LOST]


class EvaluationError(RsbPoseError):
    """There is nothing to report on. The message is one sentence."""


class BagEvaluator(Node):
    """Collects what the node and the player publish."""

    def __init__(self, node_name: str) -> None:
        super().__init__('bag_evaluator')
        self._node_name = node_name
        self.frames: list[HumanPose3DArray] = []
        self.arrivals_s: list[float] = []
        self._truths: dict[int, dict[int, HumanPose3D]] = defaultdict(dict)
        self._counted_before: dict[str, str] | None = None
        self.diagnostics: dict[str, str] = {}
        self.changed_s = time.monotonic()
        reliable = QoSProfile(depth=200, reliability=ReliabilityPolicy.RELIABLE)
        self.create_subscription(HumanPose3DArray, PEOPLE_TOPIC, self._on_frame, reliable)
        self.create_subscription(HumanPose3D, TRUTH_TOPIC, self._on_truth, reliable)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, reliable)

    def count(self, name: str) -> int:
        """A counter of the node's diagnostics since the first ones that came."""
        before = self._counted_before or {}
        return int(self.diagnostics.get(name, 0)) - int(before.get(name, 0))

    @property
    def truths(self) -> dict[int, list[HumanPose3D]]:
        """True people by stamp, each once, however often a bag was looped."""
        return {stamp: list(people.values()) for stamp, people in self._truths.items()}

    @property
    def poses(self) -> int:
        """People found, those of whom nothing was seen left out."""
        return sum(len(seen_people(frame)) for frame in self.frames)

    @property
    def settled(self) -> bool:
        """Whether the node is through with its pairs and all its counts and frames are here.

        A message can be lost on the way: what has not come after a while is not waited for.
        """
        quiet_s = time.monotonic() - self.changed_s
        through = self.count('pairs_matched') == (
            self.count('pairs_processed') + self.count('pairs_dropped')
        )
        complete = len(self.frames) >= self.count('pairs_processed')
        return quiet_s > (_SETTLED_S if through and complete else _GIVEN_UP_S)

    def progress(self) -> dict[str, Any]:
        """Latest counts, for a progress line."""
        newest = self.frames[-1] if self.frames else None
        return {
            'pairs_matched': 0 if newest is None else newest.pairs_matched,
            'pairs_processed': len(self.frames),
            'poses': self.poses,
            'latency_ms': None if newest is None else round(float(newest.latency_ms), 1),
            # with diagnostics, from which its counters are counted on
            'connected': bool(self.diagnostics) and self.count_publishers(PEOPLE_TOPIC) > 0,
            'fault': self.diagnostics.get('fault', ''),
        }

    def _on_frame(self, message: HumanPose3DArray) -> None:
        self.frames.append(message)
        self.arrivals_s.append(time.monotonic())
        self.changed_s = time.monotonic()

    def _on_truth(self, message: HumanPose3D) -> None:
        self._truths[stamp_ns(message)][message.track_id] = message
        self.changed_s = time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        ours = [entry for entry in message.status if entry.name.startswith(f'{self._node_name}: ')]
        if not ours:
            return
        values = {pair.key: pair.value for entry in ours for pair in entry.values}
        faults = [entry.message for entry in ours if entry.level != b'\x00']
        values['fault'] = faults[0] if faults else ''
        if self._counted_before is None:
            self._counted_before = values
        counters = ('pairs_matched', 'pairs_processed', 'pairs_dropped', 'images_left')
        if any(values.get(name) != self.diagnostics.get(name) for name in counters):
            self.changed_s = time.monotonic()
        self.diagnostics = values


def build_report(evaluator: BagEvaluator, table: PoseTable, played: dict[str, Any]) -> dict:
    """All numbers of a run. `played` is the player's report, empty where there is none.

    sent = processed + dropped + unmatched, in pairs: unmatched ones never reached the worker.
    """
    matched = evaluator.count('pairs_matched')
    arrivals_s = evaluator.arrivals_s
    span_s = arrivals_s[-1] - arrivals_s[0] if len(arrivals_s) > 1 else float('nan')
    sent = played.get('pairs_sent', matched)
    received = evaluator.count('images_left') + evaluator.count('images_right')
    sent_images = played.get('images_left', 0) + played.get('images_right', 0)
    newest = evaluator.frames[-1] if evaluator.frames else HumanPose3DArray()
    return {
        'bag': played.get('bag', 'live'),
        'play_rate': played.get('rate', 1.0),
        'frames_sent': sent,
        'pairs_matched': matched,
        'processed': evaluator.count('pairs_processed'),
        'dropped': evaluator.count('pairs_dropped'),
        'unmatched': sent - matched,
        'images_lost_on_the_way': max(sent_images - received, 0) if played else 0,
        'frames_received': len(evaluator.frames),
        'poses_published': evaluator.poses,
        'latency_ms': percentiles_ms([frame.latency_ms for frame in evaluator.frames]),
        'stages_ms': _stages(evaluator.frames),
        'rate_hz': (len(arrivals_s) - 1) / span_s if len(arrivals_s) > 1 else float('nan'),
        'accuracy': accuracy(table),
        'model': newest.model,
        'weights': {
            'name': evaluator.diagnostics.get('weights', 'unknown'),
            'sha256': evaluator.diagnostics.get('weights_sha256', 'unknown'),
        },
        'device': newest.device,
        'versions': versions(),
    }


def _stages(frames: list[HumanPose3DArray]) -> dict[str, float]:
    """Median time of each stage in ms."""
    times: dict[str, list[float]] = defaultdict(list)
    for frame in frames:
        for name, value in zip(frame.stages, frame.stage_latencies_ms, strict=True):
            times[name].append(value)
    return {name: float(np.median(values)) for name, values in times.items()}


def save_frames(path: Path, frames: list[HumanPose3DArray], table: PoseTable) -> None:
    """Keep the table's arrays and the messages themselves, serialized one after the other."""
    serialized = [serialize_message(frame) for frame in frames]
    np.savez_compressed(
        path,
        messages=np.frombuffer(b''.join(serialized), np.uint8),
        message_sizes=np.array([len(data) for data in serialized]),
        **vars(table),
    )


def load_frames(path: Path) -> list[HumanPose3DArray]:
    """The messages that save_frames() kept."""
    with np.load(path) as stored:
        data, sizes = stored['messages'].tobytes(), stored['message_sizes']
    starts = np.cumsum(sizes) - sizes
    return [
        deserialize_message(data[start : start + size], HumanPose3DArray)
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)
    ]


def listen(evaluator: BagEvaluator, player_report: Path | None, *, progress: bool) -> None:
    """Spin until the player's report is there and the node settled, or until interrupted."""
    next_s = 0.0
    try:
        while True:
            rclpy.spin_once(evaluator, timeout_sec=0.1)
            if progress and time.monotonic() >= next_s:
                next_s = time.monotonic() + _PROGRESS_S
                print(json.dumps(evaluator.progress()), flush=True)
            ended = player_report is not None and player_report.exists()
            if ended and evaluator.settled:
                return
    except (KeyboardInterrupt, ExternalShutdownException):
        return


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='bag_evaluator', description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, required=True, help='folder for report and poses')
    parser.add_argument('--player-report', type=Path, help='JSON file that ends the run')
    parser.add_argument('--node', default='/stereo_pose', help='node whose diagnostics count')
    parser.add_argument('--progress', action='store_true', help='print progress as JSON lines')
    return parser


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Listen as the command line says, then write and return the report."""
    evaluator = BagEvaluator(options.node)
    listen(evaluator, options.player_report, progress=options.progress)
    if not evaluator.frames:
        fault = evaluator.diagnostics.get('fault')
        raise EvaluationError(
            f'no poses came on {PEOPLE_TOPIC}: {fault or "the node said nothing"}; '
            'start the node and play a bag with images'
        )
    played = {}
    if options.player_report is not None and options.player_report.exists():
        played = json.loads(options.player_report.read_text())
    table = pose_table(evaluator.frames, evaluator.truths)
    report = build_report(evaluator, table, played)
    options.out.mkdir(parents=True, exist_ok=True)
    save_frames(options.out / 'poses.npz', evaluator.frames, table)
    write_json(options.out / 'report.json', plain(report))
    return report


def main(arguments: list[str] | None = None) -> int:
    """Listen and report. Exit status 2 with one sentence when nothing came."""
    rclpy.init(args=arguments)
    words = rclpy.utilities.remove_ros_args(sys.argv if arguments is None else arguments)
    try:
        options = _parser().parse_args(words[1:])
        report = evaluate(options)
    except RsbPoseError as error:
        print(f'bag_evaluator: {error}', file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    if not options.progress:
        print(table_text(report))
    return 0


if __name__ == '__main__':
    sys.exit(main())
