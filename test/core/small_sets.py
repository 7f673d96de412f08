"""Small test sets and a file of predictions of one of them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import project
from rsb_pose_core.skeleton import H36M_17

ABSENT = [H36M_17.index(name) for name in ('spine', 'neck', 'head')]
Arrays = dict[str, Any]


def write_pairs(
    path: Path, pairs: int, seed: int, *, baseline_m: float = 0.12, depth_std_m: float = 0.1
) -> np.ndarray:
    """Noise with people before it, some joints outside the crops; returns the true positions."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, (0.3, 0.45, depth_std_m), (pairs, 17, 3)) + (0, 0, 2.5)
    cx_right = 143.5 + 260 * baseline_m / 2.5
    one = StereoCalibration.from_values(260.0, 260.0, 143.5, cx_right, 140.0, baseline_m)
    calibration = StereoCalibration.stack([one] * pairs)
    uvd = project(torch.from_numpy(xyz), calibration).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        left=rng.integers(0, 255, (pairs, 288, 288, 3), dtype=np.uint8),
        right=rng.integers(0, 255, (pairs, 288, 288, 3), dtype=np.uint8),
        xyz_m=xyz.astype(np.float32),
        uv_left=uvd[..., :2].astype(np.float32),
        uv_right=(uvd[..., :2] - uvd[..., 2:] * (1.0, 0.0)).astype(np.float32),
        visibility=rng.integers(0, 4, (pairs, 2, 17)).astype(np.uint8),
        calibration=torch.stack(calibration.fields(), -1).numpy(),
    )
    return xyz


def write_set(folder: Path, pairs: int, baseline_m: float, seed: int) -> np.ndarray:
    """A test set of one file; returns the true positions."""
    path = folder / 'frames_000.npz'
    return write_pairs(path, pairs, seed, baseline_m=baseline_m, depth_std_m=0.3)


def arrays_of(xyz_m: np.ndarray, name: str, pairs: list[int]) -> Arrays:
    return {
        'method': np.array('a stranger'), 'set': np.array(name), 'pairs': np.array(pairs),
        'xyz_m': xyz_m.astype(np.float32),
    }  # fmt: skip


def write_sets(folder: Path) -> None:
    """Two sets, and predictions of pairs 4, 0 and 2 of one: 3 cm off, without three joints."""
    xyz = write_set(folder / 'mhad-like', 5, 0.12, 0)
    write_set(folder / 'cycles', 3, 0.12, 1)
    (folder / 'empty').mkdir()
    told = xyz[[4, 0, 2]] + (0.03, 0.0, 0.0)
    told[:, ABSENT] = np.nan
    told[1] = np.nan  # pair 0 was not found
    np.savez(folder / 'told.npz', **arrays_of(told, 'mhad-like', [4, 0, 2]))
