"""Finding people in one image. A detector is anything with the method of PersonDetector."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.detection.boxes import Box, intersection_over_union, non_maximum_suppression
from rsb_pose_core.detection.hog import HogDetector


@runtime_checkable
class PersonDetector(Protocol):
    """What the pipeline asks of a detector."""

    def detect(self, rgb: NDArray[np.uint8]) -> list[Box]:
        """Boxes round people in an (H, W, 3) RGB image, in its pixels, best first."""
        ...


DETECTORS: dict[str, Callable[[], PersonDetector]] = {'hog': HogDetector}

__all__ = [
    'DETECTORS',
    'Box',
    'HogDetector',
    'PersonDetector',
    'intersection_over_union',
    'non_maximum_suppression',
]
