"""Quick stand-in for the renderer: pairs of noise with a bright spot at each joint."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import project
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.labels import JointLabels, PersonLabels
from rsb_pose_core.synthesis.pairs import PairSpace, StereoPairs

SLOTS = 5
FOCAL, BASELINE_M = 260.0, 0.12


@dataclass(frozen=True)
class DrawnRenderer:
    """Pairs of `height` x `width` pixels: the subject, and one other in every second scene."""

    casting_seed: int
    height: int = 288
    width: int = 288

    def batch(self, count: int, seed: int, number: int) -> StereoPairs:
        draw = Draw(seed * 1_000_003 + number * 101 + self.casting_seed)
        shift = torch.tensor([0.0, 0.0, 2.5])
        xyz = torch.full((count, SLOTS, 17, 3), torch.nan)
        xyz[:, 0] = draw.normal(count, 17, 3) * torch.tensor([0.25, 0.3, 0.1]) + shift
        xyz[::2, 1] = draw.normal(len(xyz[::2]), 17, 3) * 0.1 + shift
        cx, cy = (self.width - 1) / 2, (self.height - 1) / 2
        calibration = StereoCalibration(
            *(torch.full((count,), v) for v in (FOCAL, FOCAL, cx, cx, cy, BASELINE_M))
        )
        uvd = torch.stack([project(xyz[:, slot], calibration) for slot in range(SLOTS)], 1)
        left = uvd[..., :2]
        right = left - uvd[..., 2:] * torch.tensor([1.0, 0.0])
        codes = draw.integer(4, count, SLOTS, 2, 17).to(torch.uint8)
        joints = JointLabels(xyz, left, right, codes)
        pictures = []
        for uv in (left, right):
            picture = draw.integer(60, count, self.height, self.width, 3).to(torch.uint8).numpy()
            for one, pixels in zip(picture, uv[:, 0].round().int().tolist(), strict=True):
                for u, v in pixels:
                    one[max(v - 2, 0) : max(v + 3, 0), max(u - 2, 0) : max(u + 3, 0)] = 255
            pictures.append(picture)
        boxes = [torch.cat([uv.amin(2), uv.amax(2) - uv.amin(2)], -1) for uv in (left, right)]
        labels = PersonLabels(joints, joints, *boxes, xyz[:, :, 0, 0].isfinite())
        mask = draw.integer(SLOTS + 1, count, self.height, self.width).to(torch.uint8)
        depth = draw.uniform(0.5, 9.0, count, self.height, self.width)
        depth[:, 0] = torch.inf
        return StereoPairs(
            pictures[0], pictures[1], labels, calibration, mask, mask,
            depth, FOCAL * BASELINE_M / depth,
        )  # fmt: skip


def drawn_crops(data: Path, split: str, seed: int, space: PairSpace, device: str) -> DrawnRenderer:
    """Stands in for pairs.make_renderer: square crops."""
    return DrawnRenderer(seed)


def drawn_frames(
    data: Path, split: str, seed: int, space: PairSpace, device: str
) -> DrawnRenderer:
    """Stands in for pairs.make_renderer: full pictures, not square."""
    return DrawnRenderer(seed, 120, 208)


class LastingRenderer(DrawnRenderer):
    """Takes a quarter of a second for a batch."""

    def batch(self, count: int, seed: int, number: int) -> StereoPairs:
        time.sleep(0.25)
        return super().batch(count, seed, number)


def drawn_slowly(
    data: Path, split: str, seed: int, space: PairSpace, device: str
) -> LastingRenderer:
    return LastingRenderer(seed)


class DyingRenderer(DrawnRenderer):
    """Its process is killed in the middle of the third shard."""

    def batch(self, count: int, seed: int, number: int) -> StereoPairs:
        if number >= 5:
            os.kill(os.getpid(), 9)
        return super().batch(count, seed, number)


def drawn_until_killed(
    data: Path, split: str, seed: int, space: PairSpace, device: str
) -> DyingRenderer:
    return DyingRenderer(seed)


def broken(data: Path, split: str, seed: int, space: PairSpace, device: str) -> DrawnRenderer:
    raise ValueError('a mistake in the program')


def arrays_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """The same names and the same bits, NaN included."""
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and first[name].shape == second[name].shape
        and first[name].tobytes() == second[name].tobytes()
        for name in first
    )
