"""Buffer: the transforms of the last seconds, with waiting and a service."""

import threading
import time as wall
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from tf2_msgs.srv import FrameGraph
from tf2_py import BufferCore

from tf2_ros.buffer_interface import NO_WAIT, BufferInterface

POLL_S = 0.02  # how often a blocking call looks again
BACKWARD_JUMP = Duration(seconds=3.0)  # the clock went back this far: a bag looped, stop waiting


class Buffer(BufferCore, BufferInterface):
    """Keeps transforms, waits for them, and forgets them when the node's time jumps back.

    With a `node` it follows the node's clock and offers the service tf2_frames with
    all frames as YAML.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        BufferCore.__init__(self, cache_time)
        BufferInterface.__init__(self)
        self._new_data_callbacks: list[Callable[[], None]] = []
        self._callbacks_to_remove: list[Callable[[], None]] = []
        self._callbacks_lock = threading.RLock()
        if node is not None:
            self.srv = node.create_service(FrameGraph, 'tf2_frames', self._answer_frames)
        self.clock = Clock() if node is None else node.get_clock()
        threshold = JumpThreshold(
            min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
        )
        self.jump_handle = self.clock.create_jump_callback(
            threshold, post_callback=self.time_jump_callback
        )

    def _answer_frames(
        self, request: FrameGraph.Request, response: FrameGraph.Response
    ) -> FrameGraph.Response:
        response.frame_yaml = self.all_frames_as_yaml()
        return response

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        """Forget all transforms, which belong to another time."""
        get_logger('tf2_buffer').warning('Detected jump back in time. Clearing tf buffer.')
        self.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Keep a moving transform and wake those who wait."""
        super().set_transform(transform, authority)
        self._call_new_data_callbacks()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Keep a static transform and wake those who wait."""
        super().set_transform_static(transform, authority)
        self._call_new_data_callbacks()

    def _call_new_data_callbacks(self) -> None:
        with self._callbacks_lock:
            for callback in self._new_data_callbacks:
                callback()
            for callback in self._callbacks_to_remove:
                self._new_data_callbacks.remove(callback)
            self._callbacks_to_remove.clear()

    def _remove_callback(self, callback: Callable[[], None]) -> None:
        with self._callbacks_lock:  # removed after the round of calls that this may be part of
            self._callbacks_to_remove.append(callback)

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = NO_WAIT,
    ) -> TransformStamped:
        """Return the transform that takes points from the source to the target frame.

        Waits up to `timeout` for it; time 0 asks for the latest. Raises LookupException,
        ConnectivityException, ExtrapolationException or InvalidArgumentException.
        """
        self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)

    async def lookup_transform_async(
        self, target_frame: str, source_frame: str, time: Time
    ) -> TransformStamped:
        """Return the transform as soon as it is there."""
        await self.wait_for_transform_async(target_frame, source_frame, time)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
    ) -> TransformStamped:
        """Return the transform from the source at one time to the target at another.

        `fixed_frame` does not move between the times. Waits and raises as `lookup_transform`.
        """
        arguments = (target_frame, target_time, source_frame, source_time, fixed_frame)
        self.can_transform_full(*arguments, timeout)
        return self.lookup_transform_full_core(*arguments)

    async def lookup_transform_full_async(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
    ) -> TransformStamped:
        """Return the transform between two times as soon as it is there."""
        arguments = (target_frame, target_time, source_frame, source_time, fixed_frame)
        await self.wait_for_transform_full_async(*arguments)
        return self.lookup_transform_full_core(*arguments)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = NO_WAIT,
        return_debug_tuple: bool = False,
    ) -> Any:
        """Return whether the lookup succeeds within `timeout`, or that and the reason."""
        result = _poll(lambda: self.can_transform_core(target_frame, source_frame, time), timeout)
        return result if return_debug_tuple else result[0]

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = NO_WAIT,
        return_debug_tuple: bool = False,
    ) -> Any:
        """Return whether the full lookup succeeds within `timeout`, or that and the reason."""
        arguments = (target_frame, target_time, source_frame, source_time, fixed_frame)
        result = _poll(lambda: self.can_transform_full_core(*arguments), timeout)
        return result if return_debug_tuple else result[0]

    def wait_for_transform_async(self, target_frame: str, source_frame: str, time: Time) -> Future:
        """Return a future of the transform."""
        arguments = (target_frame, source_frame, time)
        return self._future(
            lambda: self.can_transform_core(*arguments)[0],
            lambda: self.lookup_transform_core(*arguments),
        )

    def wait_for_transform_full_async(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
    ) -> Future:
        """Return a future of the transform between two times."""
        arguments = (target_frame, target_time, source_frame, source_time, fixed_frame)
        return self._future(
            lambda: self.can_transform_full_core(*arguments)[0],
            lambda: self.lookup_transform_full_core(*arguments),
        )

    def _future(self, ready: Callable[[], int], lookup: Callable[[], TransformStamped]) -> Future:
        future = Future()
        if ready():
            future.set_result(lookup())
            return future

        def on_new_data() -> None:
            try:
                if ready():
                    future.set_result(lookup())
            except BaseException as error:
                future.set_exception(error)

        self._new_data_callbacks.append(on_new_data)
        future.add_done_callback(lambda _: self._remove_callback(on_new_data))
        return future


def _poll(check: Callable[[], tuple[int, str]], timeout: Duration) -> tuple[int, str]:
    """Repeat a check until it succeeds, the time is up or the clock jumps back."""
    if timeout != NO_WAIT:
        clock = Clock()
        start = clock.now()
        while (
            clock.now() < start + timeout
            and not check()[0]
            and clock.now() + BACKWARD_JUMP >= start
        ):
            wall.sleep(POLL_S)
    return check()
