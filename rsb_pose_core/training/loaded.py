"""Weights ready to be evaluated, and what reports say of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rsb_pose_core.checkpoint import heatmap_network, load_model, load_refiner, read_metadata
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.models import (
    NETWORKS,
    Architecture,
    Network,
    PoseTransformer,
)
from rsb_pose_core.models.flip_test import FlipTest
from rsb_pose_core.training.augmentation import Pairs
from rsb_pose_core.training.evaluation import evaluate_method
from rsb_pose_core.training.report import EvaluatedMethod, sha256

METHOD_TITLES = {
    'rsb-pose': 'RSB-Pose',
    'triangulation': 'heat maps + triangulation',
    'algebraic': 'Algebraic-T',
    'volumetric': 'Volume-T',
}


@dataclass(frozen=True, eq=False)
class LoadedMethod:
    """A network on its device with the Pose Transformer behind it; `facts` are for reports."""

    name: str
    model: Network | FlipTest
    refiner: PoseTransformer | None
    input_size: int
    facts: dict[str, Any]

    @property
    def architecture(self) -> Architecture:
        return NETWORKS[self.facts['model']]

    def evaluate(
        self, pairs: Pairs, numbers: Sequence[int], jitter_px: int, device: torch.device
    ) -> EvaluatedMethod:
        """Every stage of evaluation.evaluate_method, with a progress bar."""
        stages = evaluate_method(
            self.model,
            pairs,
            refiner=self.refiner,
            input_size=self.input_size,
            jitter_px=jitter_px,
            numbers=numbers,
            device=device,
            progress=self.name,
        )
        return EvaluatedMethod(self.name, self.facts, stages)


def check_counted(data: str, found: EvaluatedMethod) -> None:
    """DataError where nothing could be measured on the pairs of `data`."""
    if not found.final.errors.counted.any():
        raise DataError(
            f'{data}: no joint has a true position inside both crops, so nothing can be '
            f'measured; give pairs that show people'
        )


def load_methods(
    named: Sequence[tuple[str, Path]],
    device: torch.device,
    *,
    refiner: Path | None = None,
    input_size: int | None = None,
    flip_test: bool = False,
) -> list[LoadedMethod]:
    """The networks of weights files under these names, on the device.

    `refiner` goes behind every network instead of its own, `input_size` is by default that of the
    weights, `flip_test` wraps each network in a FlipTest. Raises CheckpointError, and ConfigError
    where the flip test cannot be had.
    """
    other = None if refiner is None else load_refiner(refiner, device)[0]
    for _, path in named:
        read_metadata(path)  # says what is missing before seconds of work on the others
    loaded = []
    for name, path in named:
        model, own, metadata = load_model(path, device)
        used = other or own
        behind = {'weights': "the method's own"} if refiner is None else file_facts(refiner)
        size = input_size or trained_size(metadata)
        facts = {
            **file_facts(path),
            'model': metadata['model'],
            'input_size': size,
            'flip_test': flip_test,
            'refiner': None if used is None else behind,
            'metadata': {key: metadata[key] for key in sorted(metadata) if key != 'validation'},
        }
        network = FlipTest(heatmap_network(model, metadata, path)) if flip_test else model
        loaded.append(LoadedMethod(name, network, used, size, facts))
    return loaded


def trained_size(metadata: dict[str, str]) -> int:
    """Side of the crops that weights were trained at, in pixels."""
    return int(metadata.get('input_size', NETWORKS[metadata['model']].input_size))


def networks_in(folder: Path) -> list[Path]:
    """Weights files of networks in a folder, not those of a Pose Transformer alone.

    Raises ConfigError where there is none, CheckpointError where one cannot be read.
    """
    paths = sorted(folder.glob('*.safetensors'))
    networks = [path for path in paths if 'model' in read_metadata(path)]
    if not networks:
        raise ConfigError(f'no weights of a network in {folder}; give --weights FILE')
    return networks


def titles(methods: Sequence[LoadedMethod]) -> list[str]:
    """What each network is, in words; where two are alike, with the name of the weights."""
    plain = []
    for method in methods:
        what = method.architecture
        mask = ', no mask' if what.method == 'rsb-pose' and not what.attention_mask else ''
        plain.append(f'{METHOD_TITLES.get(what.method, what.method)}, {what.backbone}{mask}')
    return [
        title if plain.count(title) == 1 else f'{title} ({method.name})'
        for title, method in zip(plain, methods, strict=True)
    ]


def file_facts(path: Path) -> dict[str, Any]:
    """Name and checksum, for reports."""
    return {'weights': path.name, 'sha256': sha256(path)}
