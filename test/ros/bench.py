"""The node under test and a client that plays camera and consumer, spun in the background."""

import contextlib
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from stereo_world import PERIOD_NS, START_NS, OraclePipeline, camera_info, image, oracle_loader

from rsb_pose_ros.msg import HumanPose3DArray
from rsb_pose_ros.node import StereoPoseNode

PATIENCE_S = 30.0
VIEWS = ('left', 'right')
TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
}


def until(condition, what: str, patience_s: float = PATIENCE_S):
    """Wait until condition() is true and return it; fail with `what` after patience_s."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f'not within {patience_s:g} s: {what}')


class Bench:
    """Use as a context manager. Parameters are overrides of the node's."""

    def __init__(
        self,
        pipeline: OraclePipeline | None = None,
        *,
        loader=None,
        image_type: type = Image,
        image_topic: str = 'image_raw',
        **parameters,
    ) -> None:
        self.pipeline = pipeline or OraclePipeline()
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        self.node = StereoPoseNode(
            loader or oracle_loader(self.pipeline), parameter_overrides=overrides
        )
        self.client = Node('client')
        self.people: list[HumanPose3DArray] = []
        self._diagnostics: dict[str, DiagnosticArray] = {}
        reliable = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.client.create_subscription(
            HumanPose3DArray, 'human_pose3d/people', self.people.append, reliable
        )
        self.client.create_subscription(DiagnosticArray, '/diagnostics', self._diagnose, 10)
        self._images = {
            view: self.client.create_publisher(image_type, f'{view}/{image_topic}', reliable)
            for view in VIEWS
        }
        self._infos = {}
        self._threads = []
        self._executors = []

    def __enter__(self) -> 'Bench':
        for node in (self.node, self.client):
            executor = SingleThreadedExecutor()
            executor.add_node(node)
            thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
            thread.start()
            self._executors.append(executor)
            self._threads.append(thread)
        self.node.autostart()
        return self

    def __exit__(self, *_) -> None:
        for executor in self._executors:
            executor.shutdown()
        for thread in self._threads:
            thread.join(5)
        self.node.on_shutdown(None)
        self.node.destroy_node()
        self.client.destroy_node()

    # The camera

    def connect(self) -> None:
        """Wait until the node has subscribed to all that is published, both sides knowing it."""
        publishers = [*self._images.values(), *self._infos.values()]
        until(lambda: all(p.get_subscription_count() for p in publishers), 'subscriptions')
        until(lambda: self.status('images') is not None, 'diagnostics')
        time.sleep(0.3)

    def publish_infos(self, change=None) -> None:
        """Publish CameraInfo of both views; change(left, right) may spoil them first."""
        infos = {view: camera_info(view) for view in VIEWS}
        if change is not None:
            change(infos['left'], infos['right'])
        for view in VIEWS:
            if view not in self._infos:
                self._infos[view] = self.client.create_publisher(
                    CameraInfo, f'{view}/camera_info', 10
                )
        until(lambda: all(p.get_subscription_count() for p in self._infos.values()), 'info')
        time.sleep(0.3)
        for view in VIEWS:
            self._infos[view].publish(infos[view])
        time.sleep(0.1)

    def publish(self, view: str, message) -> None:
        self._images[view].publish(message)

    def publish_pair(self, index: int, *, skew_ns: int = 0, start_ns: int = START_NS) -> int:
        """Publish pair `index` and return its stamp."""
        stamp_ns = start_ns + index * PERIOD_NS
        self.publish('left', image(index, 'left', stamp_ns))
        self.publish('right', image(index, 'right', stamp_ns + skew_ns))
        return stamp_ns

    def pair_until_poses(self, first: int, **arguments) -> HumanPose3DArray:
        """Publish pairs, from number `first` on, until a new message comes, and return it."""
        before = len(self.people)
        for index in range(first, first + 150):
            self.publish_pair(index, **arguments)
            time.sleep(0.05)
            if len(self.people) > before:
                return self.people[-1]
        raise AssertionError(f'no poses came back: {self.fault()}')

    # The consumer

    def status(self, part: str):
        """Latest DiagnosticStatus of a part: images, calibration or network."""
        return self._diagnostics.get(f'/stereo_pose: {part}')

    def values(self, part: str) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.status(part).values}

    def counts(self) -> dict[str, int]:
        """The node's counters of pairs."""
        everything = self.values('images') | self.values('network')
        return {k: int(v) for k, v in everything.items() if k.startswith(('pairs_', 'images_'))}

    def fault(self) -> str:
        """Sentences of all parts that are not well."""
        return ' / '.join(
            status.message for status in self._diagnostics.values() if status.level != b'\x00'
        )

    def await_fault(self, *words: str, keep_publishing=None) -> str:
        """Wait for a fault whose sentence has all these words."""

        def told() -> bool:
            if keep_publishing is not None:
                keep_publishing()
            return all(word in self.fault() for word in words)

        until(told, f'a fault with {words}, last was: {self.fault()}')
        return self.fault()

    # Services

    def transition(self, name: str) -> bool:
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        return self.call(ChangeState, 'stereo_pose/change_state', request).success

    def state(self) -> str:
        return self.call(GetState, 'stereo_pose/get_state', GetState.Request()).current_state.label

    def set_parameter(self, name: str, value):
        """Result (successful, reason) of setting one parameter from outside."""
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, 'stereo_pose/set_parameters', request).results[0]

    def call(self, kind: type, name: str, request):
        client = self.client.create_client(kind, name)
        assert client.wait_for_service(PATIENCE_S), name
        future = client.call_async(request)
        until(future.done, f'answer of {name}')
        self.client.destroy_client(client)
        return future.result()

    def _diagnose(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._diagnostics[status.name] = status


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()
