"""The one-euro filter: still when the signal is still, quick when it is quick."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OneEuroSettings:
    """Cut-off at rest (Hz), its growth with speed (Hz per m/s), cut-off of the speed (Hz).

    Casiez, Roussel and Vogel, "1 EUR filter", CHI 2012.
    """

    minimum_cutoff_hz: float = 1.5
    speed_coefficient: float = 2.0
    derivative_cutoff_hz: float = 1.0


class OneEuroFilter:
    """Filters points (N, 3), each at its own speed. NaN points pass through and start afresh."""

    def __init__(self, settings: OneEuroSettings) -> None:
        self._settings = settings
        self._last: Array | None = None
        self._rate: Array | None = None

    def __call__(self, points: Array, elapsed_s: float) -> Array:
        """The filtered points; `elapsed_s` since the previous call."""
        if self._last is None or self._rate is None or elapsed_s <= 0:
            self._last, self._rate = points.copy(), np.zeros_like(points)
            return points.copy()
        fresh = ~np.isfinite(self._last)
        rate = np.where(fresh, 0.0, (points - self._last) / elapsed_s)
        previous_rate = np.where(np.isfinite(self._rate), self._rate, 0.0)
        smoothing = _smoothing(np.array(self._settings.derivative_cutoff_hz), elapsed_s)
        self._rate = previous_rate + smoothing * (rate - previous_rate)
        speed = np.linalg.norm(self._rate, axis=1, keepdims=True)
        cutoff = self._settings.minimum_cutoff_hz + self._settings.speed_coefficient * speed
        filtered = self._last + _smoothing(cutoff, elapsed_s) * (points - self._last)
        self._last = np.where(fresh, points, filtered)
        return self._last.copy()


def _smoothing(cutoff_hz: Array, elapsed_s: float) -> Array:
    """Share of the new sample in an exponential filter of this cut-off."""
    turn = 2 * np.pi * cutoff_hz * elapsed_s
    return np.asarray(turn / (turn + 1))
