"""A frozen network's estimates of stored pairs: what a Pose Transformer has to refine."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from tqdm import tqdm

from rsb_pose_core.errors import DataError
from rsb_pose_core.models.layers import bfloat16_where_fast
from rsb_pose_core.models.pose_transformer import Confidence, Mask
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.labels import VISIBLE
from rsb_pose_core.synthesis.rotations import about_y
from rsb_pose_core.training.augmentation import Augmentation, evaluation_batch, training_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.motion import Poses
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.state import save_state

BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class Estimates:
    """N pairs as a network sees them; everything on the CPU.

    initial_m, truth_m: (N,17,3) metres, left optical frame of the crop's camera; truth is NaN
    where unknown. confidence: (N,17), 0..1; occluded: what the left view does not show; counted:
    inside both crops with a true position; numbers: of the pairs in their pool.
    """

    initial_m: Poses
    truth_m: Poses
    confidence: Confidence
    occluded: Mask
    counted: Mask
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def select(self, chosen: Bool[Tensor, ' poses'] | Tensor) -> 'Estimates':
        """Some of the pairs."""
        return Estimates(*(getattr(self, item.name)[chosen] for item in fields(self)))

    def varied(self, generator: torch.Generator) -> 'Estimates':
        """Each pair as another of its kind: half of them mirrored, all of them turned about the
        camera's vertical axis (up to 0.35 rad) and scaled (by up to 15 %), estimate and truth
        alike. Errors keep their direction along the line of sight and their share of the depth."""
        count = len(self)

        def uniform() -> Tensor:
            return 2 * torch.rand(count, generator=generator) - 1

        mirrored = uniform() < 0
        moved = about_y(0.35 * uniform()) * (0.15 * uniform()).exp()[:, None, None]
        moved[mirrored, :, 0] *= -1

        def own(values: Tensor) -> Tensor:
            picked = mirrored.view(-1, *[1] * (values.ndim - 1))
            return torch.where(picked, values[:, list(H36M_17.mirror)], values)

        return Estimates(
            own(self.initial_m) @ moved.mT,
            own(self.truth_m) @ moved.mT,
            own(self.confidence),
            own(self.occluded),
            own(self.counted),
            self.numbers,
        )

    def complete(self) -> 'Estimates':
        """The pairs of which every joint has a true and an estimated position."""
        known = (self.initial_m + self.truth_m).isfinite().all(-1).all(-1)
        if not bool(known.any()):
            raise DataError('no pair has a position of every joint; give other training pairs')
        return self.select(known)


@torch.inference_mode()
def estimate_pairs(
    method: nn.Module,
    pool: PairPool,
    input_size: int,
    *,
    passes: int = 0,
    augmentation: Augmentation | None = None,
    jitter_px: int = 0,
    device: torch.device | str = 'cpu',
    bf16: bool = True,
) -> Estimates:
    """Estimates of all pairs of a pool, augmented and `passes` times, or once as they are (0).

    Joints outside the crops stay in: what the method makes of them is to be refined too.
    """
    device = torch.device(device)
    starts = range(0, len(pool), BATCH_SIZE)
    jobs = [(number, start) for number in range(max(passes, 1)) for start in starts]
    found: list[Estimates] = []
    method.eval()
    for number, start in tqdm(jobs, desc='estimates', unit='batch', mininterval=5.0):
        indices = list(range(start, min(start + BATCH_SIZE, len(pool))))
        if passes:
            ranges = augmentation or Augmentation()
            batch = training_batch(pool, indices, input_size, (77, number, start), ranges)
        else:
            batch = evaluation_batch(pool, indices, input_size, jitter_px)
        found.append(_estimates(method, batch, indices, device, bf16))
    return Estimates(
        *(torch.cat([getattr(part, item.name) for part in found]) for item in fields(Estimates))
    )


def _estimates(
    method: nn.Module, batch: StereoBatch, indices: Sequence[int], device: torch.device, bf16: bool
) -> Estimates:
    moved = batch.to(device)
    with bfloat16_where_fast(device, wanted=bf16):
        output = method(*moved.images(), moved.calibration)
    estimate = output.estimate(moved.calibration)
    return Estimates(
        initial_m=estimate.xyz_m.float().cpu(),
        truth_m=batch.xyz_m,
        confidence=estimate.confidence.float().cpu(),
        occluded=batch.visibility[:, 0] != VISIBLE,
        counted=batch.in_view(0) & batch.in_view(1) & batch.xyz_m.isfinite().all(-1),
        numbers=torch.tensor(indices),
    )


def cached_estimates(
    folder: Path,
    weights: Path,
    method: nn.Module,
    pool: PairPool,
    input_size: int,
    *,
    passes: int = 0,
    jitter_px: int = 0,
    device: torch.device | str = 'cpu',
) -> Estimates:
    """estimate_pairs, kept in `folder` for the same weights, pairs and passes."""
    files = [(path, Path(path).stat().st_mtime_ns) for path in pool.paths]
    told = f'{files} {len(pool)} {input_size} {passes} {jitter_px}'
    key = hashlib.sha256(weights.read_bytes() + told.encode()).hexdigest()[:16]
    path = folder / f'estimates_{key}.pt'
    if path.is_file():
        stored: dict[str, Tensor] = torch.load(path, weights_only=True)
        return Estimates(**stored)
    made = estimate_pairs(
        method, pool, input_size, passes=passes, jitter_px=jitter_px, device=device
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_state(path, {item.name: getattr(made, item.name) for item in fields(made)})
    return made
