"""Weights on disk: safetensors in half precision, the network and its refiner in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.models import NETWORKS, IndependentHeatmaps, Network, PoseTransformer, RSBPose

Module = TypeVar('Module', bound=nn.Module)

FORMAT = 'rsb_pose_ros/1'
NETWORK, REFINER = 'network.', 'refiner.'
SWITCHES = ('relative', 'keep_extremities')  # of the PoseTransformer, kept in the metadata


class CheckpointError(RsbPoseError, ValueError):
    """A weights file is missing, cut short, of another kind or of another model."""


def save_checkpoint(
    path: Path, model: Network, metadata: dict[str, Any], refiner: nn.Module | None = None
) -> None:
    """Write float16 weights. `metadata['model']` names the network: 'lite', 'lite-baseline', ...

    The number of joints and, where there is one, the disparity range are added to the metadata;
    all of it is stored as strings.
    """
    if 'model' not in metadata:
        raise CheckpointError("metadata lacks 'model', the name of the network; add it")
    tensors = {NETWORK + name: value for name, value in model.state_dict().items()}
    if refiner is not None:
        tensors |= {REFINER + name: value for name, value in refiner.state_dict().items()}
        metadata = {**metadata, **_switches(refiner)}
    stored = {name: half_precision(value) for name, value in tensors.items()}
    described = {'format': FORMAT, 'joints': model.joints, **metadata}
    if isinstance(model, RSBPose | IndependentHeatmaps):
        described['disparity_first'] = model.disparities.first
        described['disparity_last'] = model.disparities.last
        described['disparity_step'] = model.disparities.step
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(stored, str(path), {name: str(value) for name, value in described.items()})


def load_model(
    path: Path | str, device: torch.device | str = 'cpu'
) -> tuple[Network, PoseTransformer | None, dict[str, str]]:
    """The network (in eval mode, float32), its refiner or None, and the metadata.

    Raises CheckpointError in one sentence for every file that cannot be used.
    """
    path = Path(path)
    metadata, tensors = _read(path)
    name = metadata.get('model')
    if name is None:
        raise CheckpointError(
            f'{path}: holds a Pose Transformer alone and no network; give the weights of a '
            f'network, such as rsb_pose_lite.safetensors'
        )
    if name not in NETWORKS:
        raise CheckpointError(
            f'{path}: weights of an unknown model {name}, perhaps of a newer version of this '
            f'package; update it, or give other weights'
        )
    model = NETWORKS[name].build()
    _fill(model, NETWORK, tensors, path, name)
    refiner = None
    if any(key.startswith(REFINER) for key in tensors):
        refiner = _refiner_of(tensors, metadata, path).to(device).eval()
    return model.to(device).eval(), refiner, metadata


def heatmap_network(
    model: Network, metadata: dict[str, str], path: Path | str
) -> RSBPose | IndependentHeatmaps:
    """The network, if a pair of crops is all that it needs; `metadata` and `path` are its own.

    Raises CheckpointError for the rivals that want cameras or more, which only an evaluation has.
    """
    if not isinstance(model, RSBPose | IndependentHeatmaps):
        raise CheckpointError(
            f'{path} holds weights of {metadata["model"]}, expected RSB-Pose or heat maps of each '
            f'view; give others, and in rsb-pose evaluate leave this file or --flip-test out'
        )
    return model


def average_models(
    paths: Sequence[Path],
) -> tuple[Network, PoseTransformer | None, dict[str, Any]]:
    """The mean of the weights of one model in several files, with running statistics; also of
    their refiners, where every file has one.

    The metadata: model, the largest input size, the most pairs that one of them has seen, and of
    how many it is the mean. Raises CheckpointError where there is nothing to average, or models
    differ.
    """
    if len(paths) < 2:
        raise CheckpointError(f'{paths[0]}: is alone; give two or more weights to average')
    loaded = [load_model(path) for path in paths]
    described = [metadata for _, _, metadata in loaded]
    for path, metadata in zip(paths, described, strict=True):
        if metadata['model'] != described[0]['model']:
            raise CheckpointError(
                f'{path}: weights of model {metadata["model"]}, those of {paths[0]} are of '
                f'{described[0]["model"]}; give weights of one model'
            )
    network = _average([network for network, _, _ in loaded])
    refiners = [refiner for _, refiner, _ in loaded if refiner is not None]
    refiner = _average(refiners) if len(refiners) == len(loaded) else None
    kept: dict[str, Any] = {'model': described[0]['model']}
    sizes = [int(metadata['input_size']) for metadata in described if 'input_size' in metadata]
    if sizes:
        kept['input_size'] = max(sizes)
    kept['pairs_seen'] = max(int(metadata.get('pairs_seen', 0)) for metadata in described)
    return network, refiner, {**kept, 'mean_of': len(paths)}


def _average(modules: Sequence[Module]) -> Module:
    """The first of some modules with the mean of all their weights."""
    states = [module.state_dict() for module in modules]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    switches = [{name: getattr(module, name, None) for name in SWITCHES} for module in modules]
    if any(other != shapes[0] for other in shapes) or any(o != switches[0] for o in switches):
        raise CheckpointError(
            'the Pose Transformers beside the weights differ in their layers or in what they do; '
            'give weights whose refiners are alike, or of none'
        )
    for name, value in states[0].items():
        if value.is_floating_point():  # the others count batches
            value.copy_(torch.stack([state[name] for state in states]).mean(0))
    return modules[0]


def read_metadata(path: Path) -> dict[str, str]:
    """What weights say of themselves; 'model' only where they hold a network.

    Raises CheckpointError.
    """
    return _read(path)[0]


def save_refiner(path: Path, refiner: PoseTransformer, metadata: dict[str, Any]) -> None:
    """Write the float16 weights of a Pose Transformer alone, as load_refiner reads them."""
    tensors = {
        REFINER + name: half_precision(value) for name, value in refiner.state_dict().items()
    }
    described = {'format': FORMAT, **metadata, **_switches(refiner)}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), {name: str(value) for name, value in described.items()})


def load_refiner(
    path: Path | str, device: torch.device | str = 'cpu'
) -> tuple[PoseTransformer, dict[str, str]]:
    """The Pose Transformer of a file (in eval mode, float32), with or without a network beside it,
    and the metadata. Raises CheckpointError."""
    path = Path(path)
    metadata, tensors = _read(path)
    if not any(key.startswith(REFINER) for key in tensors):
        raise CheckpointError(
            f'{path}: holds no pose transformer; give a file of rsb-pose train ppt or refiner'
        )
    return _refiner_of(tensors, metadata, path).to(device).eval(), metadata


def _switches(refiner: nn.Module) -> dict[str, bool]:
    """What a Pose Transformer does that its tensors do not show."""
    return {'refiner_' + name: getattr(refiner, name) for name in SWITCHES}


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a file of ours."""
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
    return metadata, tensors


def _refiner_of(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], path: Path
) -> PoseTransformer:
    """The refiner with the switches that the tensors under its prefix and the metadata show."""
    position, norm = tensors.get(REFINER + 'position'), tensors.get(REFINER + 'norm.weight')
    concatenated = position is not None and norm is not None and len(norm) > position.shape[-1]
    blocks = {name.split('.')[2] for name in tensors if name.startswith(REFINER + 'encoders.')}
    refiner = PoseTransformer(
        depth=len(blocks),
        concatenate=concatenated,
        use_root=REFINER + 'root_embed.weight' in tensors,
        use_confidence=REFINER + 'confidence_head.weight' in tensors,
        gated=REFINER + 'gate.weight' in tensors,
    )
    for name in SWITCHES:
        stored = metadata.get('refiner_' + name)
        if stored is not None:
            setattr(refiner, name, stored == 'True')
    _fill(refiner, REFINER, tensors, path, 'pose transformer')
    return refiner


def half_precision(value: torch.Tensor) -> torch.Tensor:
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
