"""Recorded motion as 17 joints, and how a moving skeleton of another kind becomes that.

Axes everywhere: y up; in rest a skeleton faces +z, x to its left; metres.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17

SIDES = ('left', 'right')
# from the root of the neck, in the axes of the head: where the body's own nose and crown are
NOSE_M = (0.0, 0.103, 0.151)
CROWN_M = (0.0, 0.245, 0.045)


@dataclass(frozen=True)
class Clip:
    """One recorded motion: joints (frames, 17, 3) in metres, y up, at `rate_hz`.

    toes (frames, 2, 3): where the soles of the left and right foot point, unit vectors; NaN or
    absent where the recording does not tell. turns: rotations (frames, 3, 3) of bones of the
    synthetic body relative to their parents, by bone name, for poses made on its own rig; 'root'
    turns the whole body.
    """

    name: str
    joints_m: np.ndarray
    rate_hz: float
    toes: np.ndarray | None = None
    turns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.joints_m.shape
        if len(shape) != 3 or shape[0] < 1 or shape[1:] != (len(H36M_17), 3):
            raise RsbPoseError(
                f'motion {self.name}: joints of shape {shape}, expected (frames, {len(H36M_17)}, '
                '3) with at least one frame; leave the file out'
            )
        if not np.isfinite(self.joints_m).all():
            raise RsbPoseError(
                f'motion {self.name}: joints that are no numbers, expected metres; leave the file '
                'out'
            )


def stack_joints(heads: Mapping[str, np.ndarray]) -> np.ndarray:
    """Joints (frames, 17, 3) from positions by joint name; the pelvis is midway of the hips."""
    made = {**heads, 'pelvis': (heads['left_hip'] + heads['right_hip']) / 2}
    return np.stack([made[name] for name in H36M_17.joint_names], 1)


def face_of(neck: np.ndarray, turn: np.ndarray) -> dict[str, np.ndarray]:
    """Nose and crown (frames, 3) of heads turned by (frames, 3, 3) on necks (frames, 3)."""
    return {'nose': neck + turn @ np.asarray(NOSE_M), 'head': neck + turn @ np.asarray(CROWN_M)}


def level(direction: np.ndarray) -> np.ndarray:
    """A rest direction (3,) of a foot without its height: where the sole points, unit."""
    flat = np.asarray(direction, float) * (1.0, 0.0, 1.0)
    return flat / max(float(np.linalg.norm(flat)), 1e-9)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors along the last axis; a zero vector stays zero."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9))
