"""Weights on disk: safetensors in half precision, the network and its refiner in one file."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.models import NETWORKS, Network, PoseTransformer

FORMAT = 'rsb_pose_ros/1'
NETWORK, REFINER = 'network.', 'refiner.'


class CheckpointError(RsbPoseError, ValueError):
    """A weights file is missing, cut short, of another kind or of another model."""


def save_checkpoint(
    path: Path, model: Network, metadata: dict[str, Any], refiner: nn.Module | None = None
) -> None:
    """Write float16 weights. `metadata['model']` names the network: 'lite', 'lite-baseline', ...

    The numbers of joints and the disparity range are added to the metadata; all of it is stored
    as strings.
    """
    if 'model' not in metadata:
        raise CheckpointError("metadata lacks 'model', the name of the network; add it")
    tensors = {NETWORK + name: value for name, value in model.state_dict().items()}
    if refiner is not None:
        tensors |= {REFINER + name: value for name, value in refiner.state_dict().items()}
    stored = {name: _half(value) for name, value in tensors.items()}
    described = {
        'format': FORMAT,
        'joints': model.joints,
        'disparity_first': model.disparities.first,
        'disparity_last': model.disparities.last,
        **metadata,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored, str(path), {name: str(value) for name, value in described.items()})


def load_model(
    path: Path | str, device: torch.device | str = 'cpu'
) -> tuple[Network, PoseTransformer | None, dict[str, str]]:
    """The network (in eval mode, float32), its refiner or None, and the metadata.

    Raises CheckpointError in one sentence for every file that cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f'{path}: no such weights file; give the path of a .safetensors file of rsb-pose train'
        )
    try:
        with safe_open(str(path), framework='pt') as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f'{path}: cut short or not a safetensors file ({error}); fetch the weights again'
        ) from error
    if metadata.get('format') != FORMAT:
        raise CheckpointError(
            f'{path}: weights of another program (format {metadata.get("format", "absent")}), '
            f'expected {FORMAT}; give a file of rsb-pose train'
        )
    name = metadata.get('model', 'absent')
    if name not in NETWORKS:
        raise CheckpointError(
            f'{path}: weights of an unknown model {name}, expected one of {", ".join(NETWORKS)}; '
            f'give weights of one of these'
        )
    model = NETWORKS[name].build()
    _fill(model, NETWORK, tensors, path, name)
    refiner = None
    if any(key.startswith(REFINER) for key in tensors):
        refiner = _refiner_of(tensors)
        _fill(refiner, REFINER, tensors, path, 'pose transformer')
        refiner = refiner.to(device).eval()
    return model.to(device).eval(), refiner, metadata


def _refiner_of(tensors: dict[str, torch.Tensor]) -> PoseTransformer:
    """A refiner with the switches that the tensors under its prefix show."""
    position, norm = tensors.get(REFINER + 'position'), tensors.get(REFINER + 'norm.weight')
    concatenated = position is not None and norm is not None and len(norm) > position.shape[-1]
    return PoseTransformer(
        concatenate=concatenated, use_root=REFINER + 'root_embed.weight' in tensors
    )


def _half(value: torch.Tensor) -> torch.Tensor:
    """Weights in float16; biases, norms and their statistics, which can be tiny, as they are."""
    value = value.detach().cpu().contiguous()
    if not value.is_floating_point() or value.ndim <= 1:
        return value
    largest = torch.finfo(torch.float16).max
    return value.half() if float(value.abs().max()) < largest else value.float()


def _fill(
    module: nn.Module, prefix: str, tensors: dict[str, torch.Tensor], path: Path, name: str
) -> None:
    """Load the tensors under `prefix`; all of them must fit."""
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    expected = module.state_dict()
    wrong = sorted(set(state) ^ set(expected)) or [
        key for key, value in state.items() if value.shape != expected[key].shape
    ]
    if wrong:
        raise CheckpointError(
            f'{path}: does not fit model {name} ({len(wrong)} tensors differ, first {wrong[0]}); '
            f'use weights trained for this version'
        )
    module.load_state_dict(state)
