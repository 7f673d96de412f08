"""A run small enough to carry to another machine, beside the exact last.pt.

A folder of parts of at most 15 MiB and carried.json, which names them with their checksums. Groups
in the order of their worth: `average` and `model`, the averaged and the current weights in half
precision, and `optimizer`, its moments in bfloat16. What would make the whole larger than 60 MiB
is left out, from the end; an average that is too large by itself is kept in 8 bits. A run goes on
from the average alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rsb_pose_core.checkpoint import half_precision
from rsb_pose_core.errors import DataError
from rsb_pose_core.training.state import MovingAverage, match_layout

FORMAT = 'rsb_pose_ros/carried/1'
CONTENTS = 'carried.json'
PART_BYTES, WHOLE_BYTES = 15 * 2**20, 60 * 2**20
SCALE = '/scale'  # behind the name of a tensor in 8 bits: of its rows
LEVELS = 127

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Resumed:
    """What load_carried found. facts: as write_carried took them; missing: groups left out."""

    facts: dict[str, Any]
    missing: tuple[str, ...]

    @property
    def in_words(self) -> str:
        """What is not as it was."""
        words = {
            'model': 'from the averaged weights',
            'optimizer': 'with fresh moments of the optimizer and another warm-up',
        }
        losses = [words[name] for name in self.missing]
        return ' and '.join(losses) or 'in half precision'


def write_carried(
    folder: Path,
    model: nn.Module,
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Replace what a folder carries; a crash leaves the old parts or the new ones, whole.

    facts: plain values, among them counters/step.
    """
    makers: list[tuple[str, Callable[[], Tensors]]] = [
        ('average', lambda: _halves(average.values)),
        ('optimizer', lambda: _moments(model, optimizer)),
    ]
    if average.decay > 0:  # else the average is the model
        makers.insert(1, ('model', lambda: _halves(model.state_dict())))
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[dict[str, Any]]] = {}
    left = WHOLE_BYTES
    for name, make in makers:
        content = save(make())
        if len(content) > left and name == 'average':
            content = save(_eighths(average.values))
        elif len(content) > left:
            break  # what comes later is worth less
        left -= len(content)
        pieces = (content[i : i + PART_BYTES] for i in range(0, len(content), PART_BYTES))
        stem = f'{name}-step{facts["counters"]["step"]}'
        groups[name] = [
            _write_part(folder, f'{stem}-{number}', piece) for number, piece in enumerate(pieces)
        ]
    contents = {
        'format': FORMAT, 'groups': groups, 'updates': average.updates, 'facts': dict(facts),
    }  # fmt: skip
    _replace(folder / CONTENTS, json.dumps(contents, indent=1).encode())
    kept = {part['file'] for parts in groups.values() for part in parts}
    for path in folder.glob('*.part'):
        if path.name not in kept:
            path.unlink()


def carried_step(folder: Path) -> int | None:
    """The step that a folder's parts are of; None where there are none."""
    if not (folder / CONTENTS).exists():
        return None
    return int(_contents(folder)['facts']['counters']['step'])


def load_carried(
    folder: Path, model: nn.Module, average: MovingAverage, optimizer: torch.optim.Optimizer
) -> Resumed:
    """Fill all three with what is there; the model with the average where its own part is missing.

    Without its part the optimizer stays as it is. DataError where the average is missing, a part
    is damaged, or the weights are of another network.
    """
    contents = _contents(folder)
    found = {name: _group(folder, parts) for name, parts in contents['groups'].items()}
    weights = found.get('average')
    if weights is None:
        raise DataError(f'{folder}: the parts of the averaged weights are missing; copy them too')
    averaged = _whole(weights)
    own = found.get('model')
    state = averaged if own is None else _whole(own)
    if any(_shapes(tensors) != _shapes(model.state_dict()) for tensors in (averaged, state)):
        raise DataError(f'{folder}: weights of another network; give the options of its run')
    model.load_state_dict(state)
    average.load_state({'updates': contents['updates'], 'values': averaged})
    moments = found.get('optimizer')
    if moments is not None:
        _set_moments(model, optimizer, moments)
    has_model = own is not None or average.decay == 0
    missing = [] if has_model else ['model']
    missing += [] if moments is not None else ['optimizer']
    return Resumed(contents['facts'], tuple(missing))


def _contents(folder: Path) -> dict[str, Any]:
    path = folder / CONTENTS
    try:
        contents: dict[str, Any] = json.loads(path.read_text())
        known = contents['format'] == FORMAT
        int(contents['facts']['counters']['step'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: cannot be read ({error!r}); copy the folder again') from error
    if not known:
        raise DataError(f'{path}: of format {contents["format"]}, expected {FORMAT}')
    return contents


def _group(folder: Path, parts: list[dict[str, Any]]) -> Tensors | None:
    """Tensors of a group; None where one of its parts is not there."""
    paths = [folder / part['file'] for part in parts]
    if not all(path.exists() for path in paths):
        return None
    content = b''
    for path, part in zip(paths, parts, strict=True):
        piece = path.read_bytes()
        if hashlib.sha256(piece).hexdigest() != part['sha256']:
            raise DataError(
                f'{path}: damaged ({len(piece)} bytes, expected {part["bytes"]} with another '
                f'checksum); copy it again'
            )
        content += piece
    try:
        return load(content)
    except SafetensorError as error:
        raise DataError(f'{paths[0]}: no tensors ({error}); copy the folder again') from error


def _write_part(folder: Path, stem: str, content: bytes) -> dict[str, Any]:
    """Write a part, never over one with other content; its line in the contents."""
    digest = hashlib.sha256(content).hexdigest()
    name = f'{stem}-{digest[:8]}.part'
    _replace(folder / name, content)
    return {'file': name, 'bytes': len(content), 'sha256': digest}


def _replace(path: Path, content: bytes) -> None:
    """Write a file that is there whole or as it was."""
    unfinished = path.with_name(f'{path.name}.new')
    with unfinished.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


# ---- tensors, smaller ----


def _halves(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: half_precision(value) for name, value in tensors.items()}


def _eighths(tensors: Mapping[str, Tensor]) -> Tensors:
    """Weights in 8 bits and a scale for each of their rows; norms and biases as they are."""
    out: Tensors = {}
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        if value.ndim <= 1 or not value.is_floating_point():
            out[name] = value
            continue
        scale = value.flatten(1).abs().amax(1).clamp_min(1e-12) / LEVELS
        rows = scale.view(-1, *[1] * (value.ndim - 1))
        out[name] = (value / rows).round().to(torch.int8)
        out[name + SCALE] = scale
    return out


def _whole(tensors: Tensors) -> Tensors:
    """Back to float32."""
    out: Tensors = {}
    for name, value in tensors.items():
        if name.endswith(SCALE):
            continue
        scale = tensors.get(name + SCALE)
        if scale is not None:
            value = value.float() * scale.view(-1, *[1] * (value.ndim - 1))
        out[name] = value.float() if value.is_floating_point() else value
    return out


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in tensors.items()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's state by the names of its parameters."""
    return {
        f'{key}/{name}': (value.bfloat16() if value.ndim else value).detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _set_moments(model: nn.Module, optimizer: torch.optim.Optimizer, moments: Tensors) -> None:
    parameters = dict(model.named_parameters())
    for path, value in moments.items():
        key, name = path.split('/', 1)
        if name in parameters:
            parameter = parameters[name]
            optimizer.state[parameter][key] = value.to(parameter.device, torch.float32)
    match_layout(optimizer)
