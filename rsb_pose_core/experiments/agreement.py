"""How far the errors of a network's two views agree, which Fig. 1A takes as given."""

from dataclasses import dataclass
from pathlib import Path

import torch

from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.experiments.methods import HeldOut
from rsb_pose_core.training.augmentation import evaluation_batch

BATCH_SIZE = 16
SIZE = 256  # crops, in whose pixels errors are given


@dataclass(frozen=True)
class Agreement:
    """Errors of keypoints along rows, in pixels of a crop of 256, of joints inside both crops.

    left_px, disparity_px: medians of the absolute errors of the left column and of the
    disparity; correlation: of the errors of the left and the right column.
    """

    left_px: float
    disparity_px: float
    correlation: float
    joints: int


@torch.inference_mode()
def view_agreement(weights: Path, pairs: HeldOut, device: str) -> Agreement:
    """Of weights whose method has 2D keypoints (all but Volume-T)."""
    model, _, metadata = load_model(weights, device)
    size = int(metadata.get('input_size', SIZE))
    pool = pairs.open(size)
    count = min(len(pool), pairs.limit)
    parts = []
    for start in range(0, count, BATCH_SIZE):
        numbers = list(range(start, min(start + BATCH_SIZE, count)))
        batch = evaluation_batch(pool, numbers, size, pairs.jitter_px).to(torch.device(device))
        found = model(*batch.images(), batch.calibration).estimate(batch.calibration)
        if found.uv_left is None or found.uv_right is None:
            continue
        columns = [found.uv_left - batch.uv_left, found.uv_right - batch.uv_right]
        counted = batch.in_view(0) & batch.in_view(1)
        parts.append(torch.stack([column[..., 0][counted] for column in columns]).cpu())
    errors = torch.cat(parts, 1).double() * SIZE / size if parts else torch.full((2, 1), torch.nan)
    return Agreement(
        left_px=float(errors[0].abs().median()),
        disparity_px=float((errors[0] - errors[1]).abs().median()),
        correlation=float(torch.corrcoef(errors)[0, 1]),
        joints=errors.shape[1],
    )
