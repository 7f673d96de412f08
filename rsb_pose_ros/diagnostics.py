"""The node's state as diagnostic_msgs: images, calibration, network."""

import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from rsb_pose_core.rectification import StereoRectifier
from rsb_pose_ros.faults import Fault, FaultBook, Level, Part
from rsb_pose_ros.loading import LoadedPipeline
from rsb_pose_ros.pairing import PairingCounts
from rsb_pose_ros.worker import WorkerCounts

_WINDOW = 200  # pairs over which latencies are taken
_RATE_WINDOW_S = 5.0

_LEVELS = {
    Level.OK: DiagnosticStatus.OK,
    Level.WARN: DiagnosticStatus.WARN,
    Level.ERROR: DiagnosticStatus.ERROR,
}


class FrameStatistics:
    """Latency, skew and rate of the latest processed pairs."""

    def __init__(self) -> None:
        self._latencies_ms: deque[float] = deque(maxlen=_WINDOW)
        self._times_s: deque[float] = deque(maxlen=_WINDOW)
        self._skew_ms = float('nan')

    def add(self, latency_ms: float, skew_ms: float) -> None:
        self._latencies_ms.append(latency_ms)
        self._times_s.append(time.monotonic())
        self._skew_ms = skew_ms

    @property
    def skew_ms(self) -> float:
        return self._skew_ms

    @property
    def rate_hz(self) -> float:
        """Processed pairs a second over the last seconds; 0 when there was none."""
        since_s = time.monotonic() - _RATE_WINDOW_S
        times_s = [moment for moment in tuple(self._times_s) if moment >= since_s]
        if len(times_s) < 2:
            return 0.0
        return (len(times_s) - 1) / max(times_s[-1] - times_s[0], 1e-9)

    def latency_ms(self, percent: float) -> float:
        """Percentile of the latency; NaN when there was no pair."""
        latencies_ms = tuple(self._latencies_ms)
        return float(np.percentile(latencies_ms, percent)) if latencies_ms else float('nan')


@dataclass(frozen=True)
class Health:
    """Everything that /diagnostics tells, at one moment. None: not there in this state."""

    node: str
    state: str
    enabled: bool
    pairing: PairingCounts | None
    worker: WorkerCounts | None
    statistics: FrameStatistics
    rectifier: StereoRectifier | None
    loaded: LoadedPipeline | None


def diagnostic_array(health: Health, faults: FaultBook, stamp: Time) -> DiagnosticArray:
    """One status for each part of the node. A part at fault says why in its message."""
    statuses = [
        _status(health.node, 'images', faults.get(Part.IMAGES), *_images(health)),
        _status(health.node, 'calibration', faults.get(Part.CALIBRATION), *_calibration(health)),
        _status(health.node, 'network', faults.get(Part.NETWORK), *_network(health, faults.last)),
    ]
    array = DiagnosticArray(status=statuses)
    array.header.stamp = stamp
    return array


def _images(health: Health) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {'state': health.state, 'enabled': health.enabled}
    if health.pairing is not None:
        counts = health.pairing
        values |= {
            'images_left': counts.left,
            'images_right': counts.right,
            'pairs_matched': counts.matched,
            'images_unmatched': counts.unmatched,
            'images_waiting': counts.waiting,
            'synchronizer_rebuilds': counts.rebuilds,
            'stamp_skew_ms': f'{health.statistics.skew_ms:.3f}',
        }
    if health.state != 'active':
        return f'the node is {health.state}', values
    if not health.enabled:
        return 'disabled: images are not taken', values
    return 'images arrive in pairs' if values.get('pairs_matched') else 'waiting', values


def _calibration(health: Health) -> tuple[str, dict[str, object]]:
    if health.rectifier is None:
        return 'no calibration yet', {}
    calibration = health.rectifier.calibration
    values = {
        'image_size': f'{health.rectifier.width}x{health.rectifier.height}',
        'focal_length_px': f'{float(calibration.fx):.2f}',
        'baseline_m': f'{float(calibration.baseline_m):.4f}',
    }
    return 'the stereo calibration is consistent', values


def _network(health: Health, last: Fault | None) -> tuple[str, dict[str, object]]:
    values: dict[str, object] = {}
    if health.loaded is not None:
        values |= {
            'model': health.loaded.model,
            'weights': health.loaded.weights,
            'weights_sha256': health.loaded.sha256,
            'device': health.loaded.device,
        }
    if health.worker is not None:
        values |= {
            'pairs_processed': health.worker.processed,
            'pairs_dropped': health.worker.dropped,
            'pairs_in_hand': health.worker.in_hand,
            'rate_hz': f'{health.statistics.rate_hz:.2f}',
            'latency_p50_ms': f'{health.statistics.latency_ms(50):.1f}',
            'latency_p99_ms': f'{health.statistics.latency_ms(99):.1f}',
        }
    if last is not None:
        values['last_fault'] = last.sentence
        values['last_fault_age_s'] = f'{time.monotonic() - last.since_s:.0f}'
    return 'ready' if health.loaded is not None else 'no network loaded', values


def _status(
    node: str, part: str, fault: Fault | None, message: str, values: dict[str, object]
) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=_LEVELS[Level.OK if fault is None else fault.level],
        name=f'{node}: {part}',
        message=message if fault is None else fault.sentence,
        hardware_id='stereo_pose',
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
