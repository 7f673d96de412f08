"""Rigid transforms in plain floats: a lookup handles too few numbers to be worth arrays."""

import math
from dataclasses import dataclass

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]  # x, y, z, w


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """Return the rotation `b` followed by the rotation `a`."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by + ay * bw + az * bx - ax * bz,
        aw * bz + az * bw + ax * by - ay * bx,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def conjugate(q: Quaternion) -> Quaternion:
    """Return the inverse of a unit quaternion."""
    return (-q[0], -q[1], -q[2], q[3])


def rotate(q: Quaternion, v: Vector) -> Vector:
    """Return `v` turned by the unit quaternion `q`."""
    x, y, z, _ = multiply(multiply(q, (*v, 0.0)), conjugate(q))
    return (x, y, z)


def canonical(q: Quaternion) -> Quaternion:
    """Return `q` with length 1 and the sign that tf2 gives a rotation read from a matrix.

    That is w > 0 for turns below 120 degrees and a positive largest of x, y and z above. A
    quaternion of length 0 becomes NaN.
    """
    length = math.sqrt(sum(c * c for c in q))
    if length == 0.0:
        return (math.nan, math.nan, math.nan, math.nan)
    decisive = q[3] if abs(q[3]) > 0.5 * length else max(q[:3], key=abs)
    scale = math.copysign(1.0, decisive) / length
    return (q[0] * scale, q[1] * scale, q[2] * scale, q[3] * scale)


def slerp(a: Quaternion, b: Quaternion, ratio: float) -> Quaternion:
    """Return the rotation at `ratio` (0..1) of the shorter way from `a` to `b`."""
    dot = sum(p * q for p, q in zip(a, b, strict=True))
    half_angle = math.acos(min(abs(dot), 1.0))
    if half_angle == 0.0:
        return a
    scale_a = math.sin((1.0 - ratio) * half_angle) / math.sin(half_angle)
    scale_b = math.copysign(math.sin(ratio * half_angle) / math.sin(half_angle), dot)
    x, y, z, w = (scale_a * p + scale_b * q for p, q in zip(a, b, strict=True))
    return (x, y, z, w)


@dataclass(frozen=True)
class Rigid:
    """A rotation followed by a translation in metres."""

    translation: Vector = (0.0, 0.0, 0.0)
    rotation: Quaternion = (0.0, 0.0, 0.0, 1.0)

    def __matmul__(self, other: 'Rigid') -> 'Rigid':
        """Return the transform `other` followed by this one."""
        return Rigid(self.apply(other.translation), multiply(self.rotation, other.rotation))

    def apply(self, point: Vector) -> Vector:
        """Return the transformed point, metres."""
        x, y, z = rotate(self.rotation, point)
        return (x + self.translation[0], y + self.translation[1], z + self.translation[2])

    def inverse(self) -> 'Rigid':
        """Return the transform back."""
        rotation = conjugate(self.rotation)
        x, y, z = rotate(rotation, self.translation)
        return Rigid((-x, -y, -z), rotation)

    def toward(self, other: 'Rigid', ratio: float) -> 'Rigid':
        """Return the transform at `ratio` (0..1) of the way to `other`."""
        x, y, z = (
            (1.0 - ratio) * p + ratio * q
            for p, q in zip(self.translation, other.translation, strict=True)
        )
        return Rigid((x, y, z), slerp(self.rotation, other.rotation, ratio))
