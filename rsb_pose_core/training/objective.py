"""What a step minimises: a method's losses and, with a refiner behind it, Eq. (6)."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rsb_pose_core.checkpoint import load_model, load_refiner
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.models import NETWORKS, Network, PoseTransformer
from rsb_pose_core.models.backbones.published import load_published
from rsb_pose_core.models.layers import multiplies_bfloat16
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import PRECISIONS, Stage
from rsb_pose_core.training.losses import method_losses, refined_loss

# What each of PRECISIONS computes networks in; losses and the refiner are always in float32.
DTYPES = dict(zip(PRECISIONS, (torch.bfloat16, torch.float16, torch.float32), strict=True))
FRESH = 'fresh'  # as a refiner's file: one that was not pre-trained (Table V)

Terms = dict[str, Float[Tensor, '']]


class Objective(nn.Module):
    """Loss terms of a batch, by name. One module, so that DistributedDataParallel can hold it.

    dtype: what networks compute in; float32 instead of the bfloat16 that a device only imitates.
    """

    def __init__(self, system: PoseSystem, precision: str = 'float32') -> None:
        super().__init__()
        self.system, self.dtype = system, DTYPES[precision]
        device = next(system.parameters()).device
        if self.dtype == torch.bfloat16 and not multiplies_bfloat16(device):
            self.dtype = torch.float32

    def forward(self, batch: StereoBatch, stage: Stage) -> Terms:
        """The weighted terms of a stage; their sum is the loss."""
        device, half = batch.left.device.type, self.dtype != torch.float32
        only_heatmaps = {} if stage.volume else {'volume': False}
        with torch.autocast(device, self.dtype if half else None, enabled=half):
            output = self.system.method(*batch.images(), batch.calibration, **only_heatmaps)
        weights, refiner = stage.losses, self.system.refiner
        if refiner is None or not weights.refined_mpjpe:
            return method_losses(output, batch, weights)
        initial = output.estimate(batch.calibration)
        refined = refiner.refine(initial.xyz_m, confidence=initial.confidence)
        eq_6 = {'refined_mpjpe': weights.refined_mpjpe * refined_loss(refined, batch)}
        own = (weight for name, weight in vars(weights).items() if name not in eq_6)
        return method_losses(output, batch, weights) | eq_6 if any(own) else eq_6


def build_model(name: str) -> Network:
    """A network by its name in a configuration: 'lite', 'rsb-pose-resnet50', ...."""
    if name not in NETWORKS:
        raise ConfigError(f'unknown model {name}; known are {", ".join(NETWORKS)}')
    return NETWORKS[name].build()


def build_system(
    model: str,
    *,
    weights: Path | None = None,
    refiner: Path | None = None,
    backbone_weights: Path | None = None,
) -> PoseSystem:
    """A network as a stage begins with it, in float32 on the CPU.

    weights: of an earlier stage, and the refiner beside them; those of another network on the same
    backbone fill what both have. refiner: of stage ppt, instead of it, or 'fresh';
    backbone_weights: published ones. ConfigError where they contradict each other.
    """
    method, transformer = build_model(model), None
    if weights is not None:
        if backbone_weights is not None:
            raise ConfigError('--weights hold a backbone already; leave out --backbone-weights')
        trained, transformer, metadata = load_model(weights)
        if metadata['model'] == model:
            method = trained
        else:
            _take_over(method, model, trained, metadata['model'], weights)
            transformer = None  # it knew another network's errors
    if backbone_weights is not None:
        found = load_published(method.trunk, backbone_weights)
        print(f'{backbone_weights}: {found}')
    if refiner is not None:
        fresh = str(refiner) == FRESH
        transformer = PoseTransformer() if fresh else load_refiner(refiner)[0]
    return PoseSystem(method, transformer)


def _take_over(method: Network, model: str, trained: Network, other: str, path: Path) -> None:
    """Fill the trunk, and all else that fits by name and shape, from another network."""
    if NETWORKS[other].backbone != NETWORKS[model].backbone:
        raise ConfigError(
            f'{path}: weights of model {other}, the run is of {model} with another backbone; give '
            f'--model {other}, or weights of a network on {NETWORKS[model].backbone}'
        )
    own, theirs = method.state_dict(), trained.state_dict()
    fitting = {
        name: value
        for name, value in theirs.items()
        if name in own and own[name].shape == value.shape
    }
    method.load_state_dict(fitting, strict=False)
    print(
        f'{path}: {len(fitting)} of {len(own)} tensors taken over from {other}, the others begin '
        f'afresh'
    )
