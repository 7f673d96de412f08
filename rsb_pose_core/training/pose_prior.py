"""Stages `ppt` and `refiner`: the Pose Transformer on true poses by Algorithm 1, then on what a
frozen network makes of pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from rsb_pose_core.checkpoint import load_model, load_refiner, save_checkpoint, save_refiner
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.models.layers import bfloat16_where_fast
from rsb_pose_core.training.estimates import Estimates, cached_estimates
from rsb_pose_core.training.loop import Schedule, optimize
from rsb_pose_core.training.masking import iterative_recovery, random_mask
from rsb_pose_core.training.motion import (
    Poses,
    PoseSet,
    read_pose_set,
    seen_from_random_cameras,
)
from rsb_pose_core.training.pool import PairPool

CASCADES = ('occ_mask', 'conf_mask', 'no_mask')  # of Table V
CYCLED_RATIOS = (0.1, 0.2, 0.3, 0.4)  # of the authors' program, one a step
VALIDATION_POSES_PER_RECORDING = 40


@dataclass(frozen=True)
class PptConfig(Schedule):
    """Pre-training. The loss is Eq. (6) summed over the passes of Algorithm 1, as the authors do.

    Every pass then learns from what it was given: the first from truth, the others from recovered
    joints. With the last pass alone, the transformer would never learn the first step.
    """

    mask_ratio: float = 0.4
    cycle_ratios: bool = False  # the authors' program masks 0.1, 0.2, 0.3, 0.4 in turn
    times: int = 2  # T of Algorithm 1
    kept: int = 2  # its K
    relative: bool = True  # poses relative to the pelvis
    concatenate: bool = False  # joint positions beside the embedding instead of added to it
    use_root: bool = False  # also tell where the pelvis is
    depth: int = 16  # blocks
    drop_path: float = 0.1
    prepared: tuple[str, ...] = ()  # patterns of .npz files with further true poses, xyz_m

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_ratio < 1 or self.times < 1 or self.kept < 1:
            raise ConfigError(
                f'mask_ratio {self.mask_ratio}, times {self.times}, kept {self.kept}: expected a '
                f'ratio between 0 and 1 and at least 1; correct the configuration'
            )

    def ratio(self, step: int) -> float:
        """Share of joints to mask at a step."""
        return CYCLED_RATIOS[step % len(CYCLED_RATIOS)] if self.cycle_ratios else self.mask_ratio

    def build(self) -> PoseTransformer:
        """A transformer with random weights."""
        return PoseTransformer(
            depth=self.depth,
            drop_path=self.drop_path,
            relative=self.relative,
            concatenate=self.concatenate,
            use_root=self.use_root,
        )


def run_ppt(
    config: PptConfig, data: Path, out: Path, *, resume: bool, device: torch.device | str = 'cpu'
) -> PoseTransformer:
    """Pre-train on the training clips of a data folder; writes out/refiner.safetensors.

    The held-out validation clips are measured at every save. Raises DataError where there is
    nothing to train on or a loss is not a number.
    """
    poses = read_pose_set(data, 'train', config.prepared)
    held_out = read_pose_set(data, 'val').evenly(VALIDATION_POSES_PER_RECORDING)
    device = torch.device(device)
    torch.manual_seed(config.seed)
    transformer = config.build().to(device)
    weights = poses.weights()

    def backward(step: int, generator: torch.Generator) -> dict[str, float]:
        chosen = torch.multinomial(
            weights, config.batch_size, replacement=True, generator=generator
        )
        seen = seen_from_random_cameras(poses.poses[chosen], generator)
        masked = random_mask(len(seen), seen.shape[1], config.ratio(step), generator)
        truth, root = as_taken(transformer, seen.to(device))
        with bfloat16_where_fast(device, wanted=config.bf16):
            passes = list(
                iterative_recovery(
                    transformer, truth, masked.to(device), config.times, config.kept, root
                )
            )
        errors = torch.stack([pose_errors(each.recovered, truth) for each in passes])  # T B
        check_finite(errors.sum(0), poses.name, chosen, step)
        errors.mean(1).sum().backward()
        means = (1000 * errors.detach().mean(1)).tolist()
        return {f'pass_{number}_mm': mean for number, mean in enumerate(means, 1)}

    def export(step: int) -> dict[str, float]:
        save_refiner(out / 'refiner.safetensors', transformer, {'stage': 'ppt', 'steps': step})
        return {'val/restored_mm': 1000 * float(restoring_error(transformer, config, held_out))}

    optimize(transformer, backward, config, out, name='ppt', resume=resume, export=export)
    return transformer


@dataclass(frozen=True)
class RefinerConfig(Schedule):
    """Refinement of a frozen network's estimates, the loss Eq. (6).

    cascade: Table V's no_mask, occ_mask (joints labelled occluded are masked) or conf_mask.
    gated: PoseTransformer's, beyond the paper. varied: the estimates are mirrored, turned and
    scaled anew whenever they are drawn (Estimates.varied).
    """

    steps: int = 1500
    batch_size: int = 256
    learning_rate: float = 3e-4
    passes: int = 3  # over the pairs, augmented anew each time
    max_pairs: int = 24000
    cascade: str = 'no_mask'
    gated: bool = False
    varied: bool = True
    drop_path: float = 0.1
    relative: bool = True  # from here on only without a pre-trained transformer
    concatenate: bool = False
    use_root: bool = False
    depth: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cascade not in CASCADES:
            raise ConfigError(
                f'cascade {self.cascade}: expected one of {", ".join(CASCADES)}; correct the '
                f'configuration'
            )

    def build(self) -> PoseTransformer:
        """A transformer that was not pre-trained."""
        return PoseTransformer(
            depth=self.depth,
            drop_path=self.drop_path,
            relative=self.relative,
            concatenate=self.concatenate,
            use_root=self.use_root,
            use_confidence=self.cascade == 'conf_mask',
            gated=self.gated,
        )


def run_refiner(
    config: RefinerConfig,
    weights: Path,
    data: str,
    out: Path,
    *,
    refiner: Path | None = None,
    resume: bool = False,
    device: torch.device | str = 'cpu',
) -> PoseTransformer:
    """Train a Pose Transformer on what the network of `weights` says of training pairs.

    data: pattern of the pairs' files; refiner: weights of run_ppt (without them it starts at
    random). Writes out/model.safetensors, network and refiner together; the estimates are kept in
    `out` and used again. Raises DataError and CheckpointError.
    """
    network, _, metadata = load_model(weights, device)
    size = int(metadata.get('input_size', 256))
    pool = PairPool(data, config.max_pairs, size)
    if pool.scan() == 0:
        raise DataError(f'no training pairs match {data}; correct --data, or render some')
    found = cached_estimates(
        out, weights, network, pool, size, passes=config.passes, device=device
    ).complete()
    torch.manual_seed(config.seed)
    transformer = starting_transformer(config, refiner).to(device)

    def export(step: int) -> dict[str, float]:
        kept = {**metadata, 'refiner_stage': 'refiner', 'refiner_steps': step}
        save_checkpoint(out / 'model.safetensors', network, kept, transformer)
        return {}

    train_refiner(transformer, config, found, out, pool.name, resume=resume, export=export)
    return transformer


def starting_transformer(config: RefinerConfig, refiner: Path | None) -> PoseTransformer:
    """The transformer of a file, pre-trained or a refiner that goes on learning, or a new one;
    conf_mask and a gate add what they need where it is not there yet."""
    if refiner is None:
        return config.build()
    transformer, _ = load_refiner(refiner)
    transformer.set_drop_path(config.drop_path)
    if config.cascade == 'conf_mask' and transformer.confidence_head is None:
        transformer.add_confidence_head()
    if config.gated and transformer.gate is None:
        transformer.add_gate()
    return transformer


def train_refiner(
    transformer: PoseTransformer,
    config: RefinerConfig,
    found: Estimates,
    out: Path,
    name: Callable[[int], str],
    *,
    resume: bool = False,
    export: Callable[[int], dict[str, float]] = lambda step: {},
) -> None:
    """The loop of run_refiner on complete estimates; `name` is of a pair by its number."""
    device = next(transformer.parameters()).device

    def backward(step: int, generator: torch.Generator) -> dict[str, float]:
        chosen = torch.randint(len(found), (config.batch_size,), generator=generator)
        some = found.select(chosen)
        if config.varied:
            some = some.varied(generator)
        with bfloat16_where_fast(device, wanted=config.bf16):
            refined = refine(transformer, some, config.cascade)
        errors = pose_errors(refined, some.truth_m.to(device))
        check_finite(errors, name, found.numbers[chosen], step)
        errors.mean().backward()
        return {'refined_mm': 1000 * float(errors.detach().mean())}

    optimize(transformer, backward, config, out, name='refiner', resume=resume, export=export)


def refine(transformer: PoseTransformer, found: Estimates, cascade: str) -> Poses:
    """Estimates refined by one of the cascade strategies of Table V."""
    device = next(transformer.parameters()).device
    return transformer.refine(
        found.initial_m.to(device),
        masked=found.occluded.to(device) if cascade == 'occ_mask' else None,
        confidence=found.confidence.to(device),
    )


def as_taken(transformer: PoseTransformer, xyz_m: Poses) -> tuple[Poses, Float[Tensor, 'poses 3']]:
    """Absolute poses as the transformer takes them, relative or not, and their roots."""
    root = xyz_m[:, transformer.root]
    return (xyz_m - root[:, None] if transformer.relative else xyz_m), root


def pose_errors(estimate: Poses, truth: Poses) -> Float[Tensor, ' poses']:
    """Mean distance of the joints of each pose, in the unit of the poses: Eq. (6)."""
    distance: Tensor = (estimate.float() - truth).norm(dim=-1)
    return distance.mean(1)


def check_finite(
    errors: Float[Tensor, ' poses'], name: Callable[[int], str], chosen: Tensor, step: int
) -> None:
    """Raise DataError with the name of the first chosen pose whose error is not a number."""
    wrong = (~errors.isfinite()).nonzero()[:, 0].tolist()
    if wrong:
        raise DataError(
            f'step {step + 1}: the loss of {len(wrong)} of {len(errors)} poses is not a number, '
            f'first {name(int(chosen[wrong[0]]))}; look at the pose, or go on with --resume and a '
            f'lower learning_rate (the last checkpoint is kept)'
        )


@torch.inference_mode()
def restoring_error(
    transformer: PoseTransformer, config: PptConfig, held_out: PoseSet
) -> Float[Tensor, '']:
    """Mean error in metres of the masked joints, after Algorithm 1 on poses never trained on."""
    generator = torch.Generator().manual_seed(1)
    seen = seen_from_random_cameras(held_out.poses, generator, vary_body=False)
    masked = random_mask(len(seen), seen.shape[1], config.mask_ratio, generator)
    device = next(transformer.parameters()).device
    truth, root = as_taken(transformer.eval(), seen.to(device))
    *_, last = iterative_recovery(
        transformer, truth, masked.to(device), config.times, config.kept, root
    )
    distance: Tensor = (last.recovered - truth).norm(dim=-1)[masked.to(device)]
    return distance.mean()
