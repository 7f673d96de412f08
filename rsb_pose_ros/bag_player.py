"""Plays a stereo bag over DDS: `bag_player BAG [--rate auto|X] [--loops N]`.

All topics are played but those of an earlier run of the node, and those whose types are not
installed. The recorded bytes are published as they are, with the recorded spacing divided by the
rate. It starts when the image topics have subscribers, and says at the end how many pairs it sent.
With `--rate auto` the first pairs are sent one by one, each after the poses of the one before have
come back; the rest follow as fast as these answers came, and never faster than they were recorded.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time as TimeMessage
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_ros.bags import Bag, BagError, Record, message_class, open_bag
from rsb_pose_ros.msg import HumanPose3DArray
from rsb_pose_ros.topics import TRUTH_TOPIC, StereoTopics

PEOPLE_TOPIC = 'human_pose3d/people'
_PROBE_PAIRS = 12  # sent one by one with rate auto
_PROBE_SKIP = 4  # of these, not counted: first calls are slow
_HEADROOM = 0.8  # share of the measured rate that is asked for
_LONGEST_ANSWER_S = 20.0
_PROGRESS_S = 0.2


@dataclass(frozen=True)
class PlayReport:
    """What was sent. pairs_sent counts pairs of images, rate is that of the last stretch."""

    bag: str
    rate: float
    loops: int
    pairs_sent: int
    images_left: int
    images_right: int
    messages_sent: int
    duration_s: float
    finished: bool


class BagPlayer(Node):
    """Publishes the records of a bag whose image topics it finds as StereoTopics.of does.

    `unplayed` says of each topic whose type is not installed why it is left out.
    """

    def __init__(
        self,
        bag: Bag,
        *,
        publish_clock: bool,
        probe: bool,
        namespaces: tuple[str, str] | None = None,
    ) -> None:
        super().__init__('bag_player')
        self._bag = bag
        topics = StereoTopics.of(bag, namespaces)
        self.left, self.right = topics.left_image, topics.right_image
        reliable = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=50, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._outlets: dict[str, Publisher] = {}
        self.unplayed: list[str] = []
        for topic, kind in bag.kinds.items():
            if _said_by_a_run(topic, kind):
                continue
            try:
                message = message_class(kind)
            except BagError as error:
                self.unplayed.append(f'{topic} is not played: {error}')
                continue
            profile = latched if topic == '/tf_static' else reliable
            self._outlets[topic] = self.create_publisher(message, topic, profile)
        self._clock_publisher = (
            self.create_publisher(Clock, '/clock', 10) if publish_clock else None
        )
        self.sent = dict.fromkeys(self._outlets, 0)
        self._answers = 0
        if probe:
            self.create_subscription(HumanPose3DArray, PEOPLE_TOPIC, self._on_answer, reliable)

    @property
    def pairs_sent(self) -> int:
        return min(self.sent[self.left], self.sent[self.right])

    def wait_for_subscribers(self, timeout_s: float, settle_s: float = 1.0) -> None:
        """Wait until both image topics are subscribed. Raises BagError after timeout_s."""
        images = (self._outlets[self.left], self._outlets[self.right])
        end_s = time.monotonic() + timeout_s
        while not all(publisher.get_subscription_count() for publisher in images):
            if time.monotonic() > end_s:
                raise BagError(
                    f'nobody subscribed to {self.left} and {self.right} within {timeout_s:g} s; '
                    'start the node with these topics and the same ROS_DOMAIN_ID'
                )
            rclpy.spin_once(self, timeout_sec=0.05)
        # The other side may learn of us a little later than we learn of it.
        self._spin_until(time.monotonic() + settle_s)

    def play(self, rate: float | None, longest_s: float, progress: Callable[[], None]) -> float:
        """Send the bag once and return the rate of it.

        Without a `rate` one is measured, but the bag takes about longest_s at most.
        """
        records = iter(self._bag.records(tuple(self._outlets)))
        pending: Record | None = None
        if rate is None:
            rate, pending = self._probe(records, progress)
            rate = min(1.0, max(rate, self._bag.duration_s / longest_s))
        start_s, first_ns = time.monotonic(), None
        for record in _chain(pending, records):
            if first_ns is None:
                first_ns = record.time_ns
            self._spin_until(start_s + (record.time_ns - first_ns) * 1e-9 / rate)
            self._send(record)
            progress()
        return rate

    def _probe(
        self, records: Iterator[Record], progress: Callable[[], None]
    ) -> tuple[float, Record | None]:
        """Send pairs one by one. Returns the rate to go on with and the record that is next."""
        answers_s, image_times_ns = [], []
        newest_pair = self.pairs_sent
        for record in records:
            self._send(record)
            progress()
            if record.topic in (self.left, self.right) and self.pairs_sent > newest_pair:
                newest_pair = self.pairs_sent
                image_times_ns.append(record.time_ns)
                answers_s.append(self._await_answer(_LONGEST_ANSWER_S))
                if len(answers_s) == _PROBE_PAIRS or answers_s[-1] > _LONGEST_ANSWER_S:
                    break
        counted = answers_s[_PROBE_SKIP:] or answers_s
        if len(image_times_ns) < 2:
            return 1.0, None
        period_s = (image_times_ns[-1] - image_times_ns[0]) * 1e-9 / (len(image_times_ns) - 1)
        rate = _HEADROOM * period_s / max(statistics.median(counted), 1e-3)
        return rate, next(records, None)

    def _await_answer(self, timeout_s: float) -> float:
        """Wait for one more message of poses; return the time it took, over timeout_s if none."""
        start_s, count = time.monotonic(), self._answers
        while self._answers == count and time.monotonic() - start_s <= timeout_s:
            rclpy.spin_once(self, timeout_sec=0.05)
        return time.monotonic() - start_s

    def _send(self, record: Record) -> None:
        if self._clock_publisher is not None:
            seconds, nanoseconds = divmod(record.time_ns, 1_000_000_000)
            self._clock_publisher.publish(
                Clock(clock=TimeMessage(sec=seconds, nanosec=nanoseconds))
            )
        self._outlets[record.topic].publish(record.data)
        self.sent[record.topic] += 1

    def _spin_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=min(left_s, 0.05))

    def _on_answer(self, message: HumanPose3DArray) -> None:
        self._answers += 1


def _said_by_a_run(topic: str, kind: str) -> bool:
    """Whether the node or its player said this while the bag was recorded; but not its frames."""
    ours = kind.startswith('rsb_pose_ros/') and topic != TRUTH_TOPIC
    return ours or '/stereo_pose/' in topic or topic in ('/diagnostics', '/clock')


def _chain(first: Record | None, rest: Iterator[Record]) -> Iterator[Record]:
    if first is not None:
        yield first
    yield from rest


class _Progress:
    """Prints how many pairs were sent, a few times a second, as a line of JSON."""

    def __init__(self, player: BagPlayer) -> None:
        self._player = player
        self._next_s = 0.0

    def __call__(self) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _PROGRESS_S
            print(json.dumps({'pairs_sent': self._player.pairs_sent}), flush=True)


def _rate(text: str) -> float | None:
    if text == 'auto':
        return None
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f'rate is {text}, expected auto or a number in (0, 100]')
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='bag_player', description=__doc__.splitlines()[0])
    parser.add_argument('bag', type=Path, help='folder of a rosbag2 bag, or its .mcap file')
    parser.add_argument('--left', help='namespace of the left camera, where the bag has several')
    parser.add_argument('--right', help='namespace of the right camera')
    parser.add_argument('--rate', type=_rate, default=1.0, help='speed, or auto (default: 1)')
    parser.add_argument('--loops', type=int, default=1, help='how often; 0: until interrupted')
    parser.add_argument('--wait', type=float, default=60.0, help='for subscribers, at most [s]')
    parser.add_argument('--longest', type=float, default=75.0, help='with rate auto [s]')
    parser.add_argument('--clock', action='store_true', help='publish /clock with recorded times')
    parser.add_argument('--report', type=Path, help='write what was sent to this JSON file')
    parser.add_argument('--progress', action='store_true', help='print progress as JSON lines')
    return parser


def play(options: argparse.Namespace) -> PlayReport:
    """Play as the command line says. Raises BagError; leaves a report where it is interrupted."""
    with open_bag(options.bag) as bag:
        named = bool(options.left and options.right)
        player = BagPlayer(
            bag,
            publish_clock=options.clock,
            probe=options.rate is None,
            namespaces=(options.left, options.right) if named else None,
        )
        for sentence in player.unplayed:
            print(f'bag_player: {sentence}', file=sys.stderr)
        progress: Callable[[], None] = _Progress(player) if options.progress else lambda: None
        start_s, loops, rate, finished = time.monotonic(), 0, options.rate, False
        try:
            player.wait_for_subscribers(options.wait)
            start_s = time.monotonic()
            while options.loops == 0 or loops < options.loops:
                rate = player.play(rate, options.longest, progress)
                loops += 1
            finished = True
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        report = PlayReport(
            bag=str(options.bag),
            rate=rate or 0.0,
            loops=loops,
            pairs_sent=player.pairs_sent,
            images_left=player.sent[player.left],
            images_right=player.sent[player.right],
            messages_sent=sum(player.sent.values()),
            duration_s=time.monotonic() - start_s,
            finished=finished,
        )
        if finished:
            # Reliable readers may still ask for what they missed.
            player._spin_until(time.monotonic() + 0.5)
        player.destroy_node()
    if options.report is not None:
        write_json(options.report, asdict(report))
    return report


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(content, indent=2) + '\n')
    partial.replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Play a bag. Exit status 2 with one sentence when it cannot be played."""
    rclpy.init(args=arguments)
    words = rclpy.utilities.remove_ros_args(sys.argv if arguments is None else arguments)
    try:
        parser = _parser()
        options = parser.parse_args(words[1:])
        if bool(options.left) != bool(options.right):
            parser.error('expected both of --left and --right, or neither')
        report = play(options)
    except RsbPoseError as error:
        print(f'bag_player: {error}', file=sys.stderr)
        return 2
    finally:
        rclpy.try_shutdown()
    print(
        f'sent {report.pairs_sent} pairs in {report.duration_s:.1f} s at rate {report.rate:.2f}',
        file=sys.stderr,
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
