"""Training of the Pose Transformer: Algorithm 1 on true poses, then on a network's estimates.

Poses are relative to the root and in metres, in a camera's optical frame (y down).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm import tqdm

from rsb_pose_core.errors import DataError
from rsb_pose_core.geometry import triangulate_clamped
from rsb_pose_core.models import PoseTransformer, co_keypoints
from rsb_pose_core.models.pose_transformer import iterative_recovery
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.rotations import about_x, about_y
from rsb_pose_core.training.augmentation import Augmentation, training_batch
from rsb_pose_core.training.pool import PairPool

Poses = Float[Tensor, 'poses joints 3']
MASK_RATIOS = (0.1, 0.2, 0.3, 0.4)


@dataclass(frozen=True)
class PriorConfig:
    """One phase of the refiner's training."""

    steps: int = 3000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    warmup_steps: int = 100
    rounds: int = 2  # T of Algorithm 1
    kept_per_round: int = 2  # K
    seed: int = 0


def read_poses(pool: PairPool | None, motion: Path | None) -> Poses:
    """True poses of stored pairs and of an (N,17,3) .npy in metres, relative to the root."""
    found: list[np.ndarray] = []
    if pool is not None:
        found += [pool.pair(index)['xyz_m'] for index in range(len(pool))]
    poses = np.stack(found) if found else np.zeros((0, len(H36M_17), 3))
    if motion is not None:
        try:
            extra = np.load(motion)
        except (OSError, ValueError) as error:
            raise DataError(f'{motion}: not a readable .npy of poses ({error})') from error
        if extra.ndim != 3 or extra.shape[1:] != (len(H36M_17), 3):
            raise DataError(
                f'{motion}: shape {extra.shape}, expected (N, {len(H36M_17)}, 3) in metres; '
                f'convert the poses to the skeleton {H36M_17.name}'
            )
        poses = np.concatenate([poses, extra])
    poses = poses[np.isfinite(poses).all((1, 2))].astype(np.float32)
    if len(poses) == 0:
        raise DataError('no complete poses to train on; give --data or --motion')
    return torch.from_numpy(poses - poses[:, [H36M_17.root]])


def turn_poses(poses: Poses, generator: torch.Generator) -> Poses:
    """Random view: turned about the vertical, tilted a little, scaled, half of them mirrored."""
    count = len(poses)
    yaw = 2 * torch.pi * torch.rand(count, generator=generator)
    pitch = 0.25 * torch.randn(count, generator=generator)
    turned = poses @ (about_x(pitch) @ about_y(yaw)).mT
    turned = turned * (1 + 0.06 * torch.randn(count, 1, 1, generator=generator))
    mirrored = turned[:, list(H36M_17.mirror)] * turned.new_tensor([-1.0, 1.0, 1.0])
    chosen = torch.rand(count, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, mirrored, turned)


def random_mask(
    count: int, joints: int, ratio: float, generator: torch.Generator
) -> Bool[Tensor, 'poses joints']:
    """round(ratio * joints) joints of each pose, chosen at random."""
    order = torch.rand(count, joints, generator=generator).argsort(1)
    return order < round(ratio * joints)


def pose_error(estimate: Poses, truth: Poses) -> Float[Tensor, '']:
    """Mean distance of the joints: Eq. (6)."""
    distance: Tensor = (estimate.float() - truth).norm(dim=-1)
    return distance.mean()


def pretrain(model: PoseTransformer, poses: Poses, config: PriorConfig) -> list[float]:
    """Recover masked joints by Algorithm 1; every round's error counts. Returns the losses."""
    generator = torch.Generator().manual_seed(config.seed)
    padding = torch.zeros(3, device=poses.device)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(poses), (config.batch_size,), generator=generator)
        truth = turn_poses(poses[chosen], generator)
        ratio = MASK_RATIOS[step % len(MASK_RATIOS)]
        masked = random_mask(len(truth), truth.shape[1], ratio, generator)
        recovered = iterative_recovery(
            model, truth, masked, padding, config.rounds, config.kept_per_round
        )
        return torch.stack([pose_error(pose, truth) for pose in recovered]).sum()

    return _optimize(model, loss, config, 'pretrain')


def finetune(
    model: PoseTransformer, initial: Poses, truth: Poses, config: PriorConfig
) -> list[float]:
    """From a network's absolute estimates to the true absolute poses, both in metres."""
    generator = torch.Generator().manual_seed(config.seed)

    def loss(step: int) -> Tensor:
        chosen = torch.randint(len(initial), (config.batch_size,), generator=generator)
        return pose_error(model.refine(initial[chosen]), truth[chosen])

    return _optimize(model, loss, config, 'finetune')


@torch.inference_mode()
def initial_poses(
    network: nn.Module,
    pool: PairPool,
    *,
    passes: int,
    input_size: int,
    augmentation: Augmentation | None = None,
    batch_size: int = 16,
    bf16: bool = True,
) -> tuple[Poses, Poses]:
    """The network's estimates on augmented pairs and the truth, (N,17,3) in metres.

    Pairs with a joint without a position are left out. Joints outside a crop stay in: what the
    network makes of them is what the refiner has to mend.
    """
    ranges = augmentation or Augmentation()
    found: list[tuple[Tensor, Tensor]] = []
    network.eval()
    starts = range(0, len(pool), batch_size)
    for number, start in enumerate(tqdm([s for _ in range(passes) for s in starts])):
        indices = list(range(start, min(start + batch_size, len(pool))))
        batch = training_batch(pool, indices, input_size, (77, number), ranges)
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            heatmaps = network(*batch.images())
        xyz = triangulate_clamped(co_keypoints(heatmaps).uvd, batch.calibration)
        known = batch.xyz_m.isfinite().all(-1).all(-1)
        found.append((xyz[known], batch.xyz_m[known]))
    initial, truth = (torch.cat(parts).clone() for parts in zip(*found, strict=True))
    return initial, truth


def _optimize(
    model: PoseTransformer, loss: Callable[[int], Tensor], config: PriorConfig, name: str
) -> list[float]:
    """AdamW with warm-up and cosine; bf16 halves the time on a CPU."""
    torch.manual_seed(config.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / config.warmup_steps)
        return warm * 0.5 * (1 + float(np.cos(np.pi * step / config.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    losses: list[float] = []
    for step in (bar := tqdm(range(config.steps), desc=name, mininterval=5.0)):
        with torch.autocast('cpu', torch.bfloat16):
            value = loss(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(value.item())
        if step % 20 == 0:
            bar.set_postfix_str(f'{1000 * np.mean(losses[-20:]):.1f} mm')
    model.eval()
    return losses
