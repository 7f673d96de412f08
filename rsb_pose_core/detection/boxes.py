"""Boxes round people, in pixels of an image."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Number = float | int


@dataclass(frozen=True)
class Box:
    """Upper left corner, width and height in pixels, and the detector's score (higher is surer).

    x and y are edges: the centre of the first pixel inside a box at x = 0 is at u = 0.
    """

    x: Number
    y: Number
    width: Number
    height: Number
    score: Number = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, float(getattr(self, field.name)))

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box, pixels."""
        return self.x + (self.width - 1) / 2, self.y + (self.height - 1) / 2

    @property
    def area(self) -> float:
        """Square pixels."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    def shifted(self, dx: Number, dy: Number = 0.0) -> 'Box':
        """The same box elsewhere."""
        return Box(self.x + dx, self.y + dy, self.width, self.height, self.score)

    def clipped(self, width: int, height: int) -> 'Box':
        """The part inside an image of this size; of no area if there is none."""
        x0, y0 = (min(max(value, 0.0), end) for value, end in ((self.x, width), (self.y, height)))
        x1 = min(max(self.x + self.width, x0), width)
        y1 = min(max(self.y + self.height, y0), height)
        return Box(x0, y0, x1 - x0, y1 - y0, self.score)

    @classmethod
    def around(cls, uv: NDArray[np.floating], margin: float = 0.0) -> 'Box | None':
        """Box round points (N, 2), grown on all sides by `margin` of its longer side.

        Points that are NaN are left out; None if all are.
        """
        points = uv[np.isfinite(uv).all(axis=-1)]
        if len(points) == 0:
            return None
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        extra = margin * max(x1 - x0, y1 - y0)
        return cls(
            float(x0 - extra),
            float(y0 - extra),
            float(x1 - x0 + 1 + 2 * extra),
            float(y1 - y0 + 1 + 2 * extra),
        )


def intersection(a: Box, b: Box) -> float:
    """Area that two boxes share, square pixels."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(width, 0.0) * max(height, 0.0)


def intersection_over_union(a: Box, b: Box) -> float:
    """Overlap of two boxes, 0..1."""
    shared = intersection(a, b)
    return shared / (a.area + b.area - shared) if shared > 0 else 0.0


def containment(a: Box, b: Box) -> float:
    """Share of the smaller box that lies in the other, 0..1."""
    shared = intersection(a, b)
    return shared / min(a.area, b.area) if shared > 0 else 0.0


def non_maximum_suppression(
    boxes: Sequence[Box], *, overlap: float = 0.4, contained: float = 0.7
) -> list[Box]:
    """Keep the best of boxes on one person, best first.

    A box goes if its intersection over union with a better one is above `overlap`, or if one of
    the two lies in the other by more than `contained` (a detector's box of a torso in that of its
    person).
    """
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda candidate: candidate.score, reverse=True):
        if all(
            intersection_over_union(box, better) <= overlap
            and containment(box, better) <= contained
            for better in kept
        ):
            kept.append(box)
    return kept
