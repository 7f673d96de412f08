"""The lifecycle node stereo_pose: it wires images, pipeline and publishers together.

Callbacks run in the executor's thread and only store or enqueue. One worker thread does the work
and publishes. Whatever goes wrong is reported on the log and on /diagnostics; the node goes on.
"""

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger

from rsb_pose_ros import parameters as node_parameters
from rsb_pose_ros.diagnostics import FrameStatistics, Health, diagnostic_array
from rsb_pose_ros.faults import (
    TRANSITION_FAILED,
    FaultBook,
    InputError,
    Level,
    MissingCameraInfoError,
    Part,
)
from rsb_pose_ros.inputs import StereoInputs
from rsb_pose_ros.loading import LoadedPipeline, load
from rsb_pose_ros.msg import HumanPose3DArray
from rsb_pose_ros.outputs import PoseOutputs
from rsb_pose_ros.pairing import Pair, stamp_ns
from rsb_pose_ros.parameters import NodeParameters
from rsb_pose_ros.processing import process_pair
from rsb_pose_ros.worker import NewestWorker

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
_TICK_S = 1.0
_PAIRING = ('approximate_sync', 'slop_s', 'queue_size')


Transition = Callable[['StereoPoseNode', LifecycleState], TransitionCallbackReturn]


def _told(transition: Transition) -> Transition:
    """Make an exception of a transition its failure, and tell it: rclpy swallows it silently."""

    @functools.wraps(transition)
    def guarded(node: 'StereoPoseNode', state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:
            node.tell_failed_transition(transition.__name__.removeprefix('on_'), error)
            return FAILURE

    return guarded


class StereoPoseNode(LifecycleNode):
    """Stereo images in, HumanPose3DArray out. `loader` builds the pipeline on configure."""

    def __init__(
        self, loader: Callable[[NodeParameters], LoadedPipeline] = load, **arguments: Any
    ) -> None:
        super().__init__('stereo_pose', **arguments)
        self._loader = loader
        self._settings = node_parameters.declare(self)
        self._faults = FaultBook(self._log)
        self._statistics = FrameStatistics()
        self._applied: NodeParameters | None = None
        self._loaded: LoadedPipeline | None = None
        self._inputs: StereoInputs | None = None
        self._outputs: PoseOutputs | None = None
        self._worker: NewestWorker[Pair] | None = None
        self._enabled = True
        self._reset_tracks = threading.Event()
        self._jumps_seen = 0
        self._input_faults: dict[Part, str] = {}  # as of the last tick
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # Steady: with use_sim_time and no clock the node must still tell what is wrong.
        self.create_timer(_TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(Trigger, '~/reset_tracks', self._on_reset_tracks)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)

    def autostart(self) -> None:
        """Configure and activate, where the parameter autostart says so."""
        if self._settings.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    # Lifecycle transitions

    @_told
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network. Fails with a sentence when it cannot; may be tried again."""
        self._loaded = self._loader(self._settings)
        self._faults.clear(Part.NETWORK, f'network loaded from {self._loaded.weights}')
        self._outputs = PoseOutputs(self)
        self.get_logger().info(f'configured with {self._loaded.weights} on {self._loaded.device}')
        return super().on_configure(state)

    @_told
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        assert self._outputs is not None
        result = super().on_activate(state)
        self._outputs.publish_skeleton(Header(frame_id=self._settings.frame_id))
        self._statistics = FrameStatistics()
        self._reset_tracks.set()
        self._applied = None
        self._worker = NewestWorker(self._work, self._on_work_error, 'stereo_pose_worker')
        self._worker.start()
        self._jumps_seen = 0
        self._inputs = StereoInputs(self, self._settings, self._worker.offer)
        if not self._enabled:
            self._inputs.unsubscribe()
        return result

    @_told
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, let the worker end its pair, delete the markers."""
        self._stop_work()
        if self._outputs is not None:
            self._outputs.clear_markers()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of network and publishers."""
        self._release()
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return SUCCESS

    def tell_failed_transition(self, name: str, error: Exception) -> None:
        """Report why a transition failed, at once and not with the next diagnostics."""
        sentence = str(error) if isinstance(error, InputError) else _describe(error)
        self._faults.report(Part.NETWORK, Level.ERROR, f'{TRANSITION_FAILED}{name}: {sentence}')
        self._tick()

    # Work

    def _work(self, pair: Pair) -> None:
        """One pair, in the worker's thread."""
        inputs, outputs, loaded, worker = self._inputs, self._outputs, self._loaded, self._worker
        if inputs is None or outputs is None or loaded is None or worker is None:
            return  # deactivated meanwhile
        parameters = self._settings
        if parameters is not self._applied:
            self._applied = parameters
            loaded.apply(parameters)
        if self._reset_tracks.is_set() or inputs.pairer.jumps != self._jumps_seen:
            self._reset_tracks.clear()
            self._jumps_seen = inputs.pairer.jumps
            loaded.pipeline.reset()
        processed = process_pair(
            pair,
            loaded.pipeline,
            inputs.rectifiers,
            frame_id=parameters.frame_id,
            input_rectified=parameters.input_rectified,
        )
        message = processed.message
        message.model = f'{loaded.model} {loaded.weights}'
        message.device = loaded.device
        pairing, work = inputs.pairer.counts, worker.counts
        message.pairs_matched = pairing.matched
        message.pairs_processed = work.processed + 1  # this one included
        message.pairs_dropped = work.dropped
        message.images_unmatched = pairing.unmatched
        message.latency_ms = (time.monotonic() - pair.arrival_s) * 1e3
        outputs.publish(processed, parameters)
        self._statistics.add(message.latency_ms, pair.skew_ms)
        lacking = _lacking(message)
        if lacking:
            self._faults.report(Part.IMAGES, Level.WARN, lacking)
        self._clear_faults(part for part in Part if not (lacking and part is Part.IMAGES))

    def _on_work_error(self, error: Exception) -> None:
        if isinstance(error, MissingCameraInfoError):
            self._clear_faults_before(error.part)
        elif isinstance(error, InputError):
            self._clear_faults_before(error.part)
            self._faults.report(error.part, error.level, str(error))
        elif isinstance(error, torch.OutOfMemoryError):
            torch.cuda.empty_cache()
            self._clear_faults_before(Part.NETWORK)
            self._faults.report(
                Part.NETWORK,
                Level.ERROR,
                'GPU memory ran out and the pair was dropped; close other programs on the GPU '
                'or set device to cpu',
            )
        else:
            self._faults.report(
                Part.NETWORK, Level.ERROR, f'a pair failed and was dropped: {_describe(error)}'
            )

    def _clear_faults_before(self, part: Part) -> None:
        """A pair that came as far as `part` proves that what comes before it works."""
        self._clear_faults(list(Part)[:part])

    def _clear_faults(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self._faults.clear(part, f'{part.name.lower()}: working again')

    # Services, parameters, diagnostics

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> Any:
        self._enabled = request.data
        if self._inputs is not None and self._enabled:
            self._inputs.subscribe()
        elif self._inputs is not None:
            self._unsubscribe()
        response.success = True
        response.message = 'enabled' if self._enabled else 'disabled: images are not taken'
        return response

    def _on_reset_tracks(self, request: Trigger.Request, response: Trigger.Response) -> Any:
        self._reset_tracks.set()
        response.success = self._worker is not None
        response.message = 'tracks start anew' if response.success else 'the node is not active'
        return response

    def _check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        unconfigured = self._state_machine.current_state[1] == 'unconfigured'
        reason = node_parameters.reason_to_refuse(
            self._settings, changes, unconfigured=unconfigured
        )
        return SetParametersResult(successful=not reason, reason=reason)

    def _apply_parameters(self, changes: list[Parameter]) -> None:
        self._settings = node_parameters.updated(self._settings, changes)
        if self._inputs is not None and any(change.name in _PAIRING for change in changes):
            self._inputs.pairer.set_policy(
                approximate=self._settings.approximate_sync,
                queue_size=self._settings.queue_size,
                slop_s=self._settings.slop_s,
            )

    def _tick(self) -> None:
        inputs, worker = self._inputs, self._worker
        self._tell_faults_of(inputs)
        health = Health(
            node=self.get_fully_qualified_name(),
            state=self._state_machine.current_state[1],
            enabled=self._enabled,
            pairing=None if inputs is None else inputs.pairer.counts,
            worker=None if worker is None else worker.counts,
            statistics=self._statistics,
            rectifier=None if inputs is None else inputs.rectifiers.current,
            loaded=self._loaded,
        )
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostic_array(health, self._faults, stamp))

    def _tell_faults_of(self, inputs: StereoInputs | None) -> None:
        """Report what keeps pairs from coming, and clear what did so at the last tick."""
        faults = () if inputs is None else inputs.faults(self._settings.silence_timeout_s)
        present = {part: (level, sentence) for part, level, sentence in faults}
        for part, sentence in self._input_faults.items():
            standing = self._faults.get(part)
            if part not in present and standing is not None and standing.sentence == sentence:
                self._clear_faults([part])
        for part, (level, sentence) in present.items():
            self._faults.report(part, level, sentence)
        self._input_faults = {part: sentence for part, (_, sentence) in present.items()}

    def _log(self, level: Level, sentence: str) -> None:
        # rclpy refuses another severity from the same line of code.
        if level == Level.ERROR:
            self.get_logger().error(sentence)
        elif level == Level.WARN:
            self.get_logger().warning(sentence)
        else:
            self.get_logger().info(sentence)

    # Starting and stopping

    def _unsubscribe(self) -> None:
        if self._inputs is not None:
            self._inputs.unsubscribe()
        for part in (Part.IMAGES, Part.CALIBRATION):
            self._faults.clear(part)

    def _stop_work(self) -> None:
        self._unsubscribe()
        if self._worker is not None and not self._worker.stop():
            self.get_logger().warning('the worker is still busy with a pair')
        self._worker = None
        self._inputs = None

    def _release(self) -> None:
        self._stop_work()
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self._loaded = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _lacking(message: HumanPose3DArray) -> str:
    """What the left image's header lacks, though its pair was worked on; empty: nothing."""
    if not message.header.frame_id:
        return (
            'the left images have no frame_id, so the poses have none; set it in the camera '
            'driver or set the parameter frame_id'
        )
    if stamp_ns(message) == 0:
        return (
            'the left images have no stamp, so people cannot be followed in time; set it in the '
            'camera driver'
        )
    return ''


def _describe(error: Exception) -> str:
    """Type and first line of an exception."""
    lines = str(error).splitlines()
    return f'{type(error).__name__}: {lines[0] if lines else "no message"}'


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is interrupted. Exit status 2 for parameters that cannot be."""
    rclpy.init(args=arguments)
    try:
        node = StereoPoseNode()
    except (ParameterException, ValueError) as error:
        print(f'stereo_pose: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    try:
        node.autostart()
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        _end(node)
    return 0


def _end(node: StereoPoseNode) -> None:
    """Stop the worker and leave. A second Ctrl-C, as launch sends, must not cut this short."""
    try:
        node.on_shutdown(LifecycleState('', 0))
        node.destroy_node()
        rclpy.try_shutdown()
    except KeyboardInterrupt:
        pass


if __name__ == '__main__':
    sys.exit(main())
