"""The pipeline that the parameters ask for, with what is needed to name it in messages."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from safetensors import safe_open

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.pipeline import PipelineSettings, StereoPosePipeline, load_pipeline
from rsb_pose_core.tracking import OneEuroSettings, TrackerSettings
from rsb_pose_ros.faults import InputError, Part
from rsb_pose_ros.parameters import NodeParameters
from rsb_pose_ros.processing import Pipeline

DEFAULT_WEIGHTS = 'rsb_pose_lite.safetensors'


@dataclass(frozen=True)
class LoadedPipeline:
    """A pipeline with its names: network, weights file and its SHA-256, device.

    apply() hands over the parameters that may change between two pairs.
    """

    pipeline: Pipeline
    model: str
    weights: str
    sha256: str
    device: str
    apply: Callable[[NodeParameters], None]


def load(parameters: NodeParameters) -> LoadedPipeline:
    """Load weights and build the pipeline. Raises InputError with one sentence when it cannot."""
    path = Path(parameters.weights).expanduser() if parameters.weights else default_weights()
    device = choose_device(parameters.device)
    try:
        pipeline = load_pipeline(path, device, parameters.detector, flip_test=parameters.flip_test)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        with safe_open(str(path), framework='pt') as file:
            model = (file.metadata() or {}).get('model', 'unknown')
    except RsbPoseError as error:
        raise InputError(Part.NETWORK, str(error)) from error
    except OSError as error:
        raise InputError(
            Part.NETWORK,
            f'the weights file {path} cannot be read ({error.strerror}); check weights',
        ) from error
    return LoadedPipeline(
        pipeline=pipeline,
        model=model,
        weights=path.name,
        sha256=sha256,
        device=device_name(device),
        apply=lambda changed: apply_settings(pipeline, changed),
    )


def apply_settings(pipeline: StereoPosePipeline, parameters: NodeParameters) -> None:
    """Set what the pipeline may change between two pairs. Tracks go on."""
    pipeline.settings = PipelineSettings(
        detect_every=parameters.detect_every,
        max_people=parameters.max_people,
        joint_confidence=parameters.joint_confidence,
    )
    smoothing = OneEuroSettings(
        minimum_cutoff_hz=parameters.smoothing_minimum_cutoff_hz,
        speed_coefficient=parameters.smoothing_speed_coefficient,
    )
    pipeline.tracker.settings = TrackerSettings(
        lost_for_s=parameters.lost_for_s, smoothing=smoothing if parameters.smoothing else None
    )


def default_weights() -> Path:
    """The weights that come with the package, installed or in the source tree."""
    folders = [Path(__file__).resolve().parent.parent / 'weights']
    with contextlib.suppress(PackageNotFoundError):
        folders.insert(0, Path(get_package_share_directory('rsb_pose_ros')) / 'weights')
    for folder in folders:
        if (folder / DEFAULT_WEIGHTS).is_file():
            return folder / DEFAULT_WEIGHTS
    raise InputError(
        Part.NETWORK,
        f'no weights {DEFAULT_WEIGHTS} in {" or ".join(str(folder) for folder in folders)}; '
        'set the parameter weights to a file made by rsb-pose train',
    )


def choose_device(name: str) -> str:
    """Turn auto, cpu or cuda into a torch device that is there; InputError where it is not."""
    if name == 'cuda' and not torch.cuda.is_available():
        raise InputError(
            Part.NETWORK, 'device is cuda but torch finds no CUDA GPU; set device to auto or cpu'
        )
    if name == 'cpu' or not torch.cuda.is_available():
        return 'cpu'
    return f'cuda:{torch.cuda.current_device()}'


def device_name(device: str) -> str:
    """'cpu' or 'cuda:<index> <name of the GPU>'."""
    return device if device == 'cpu' else f'{device} {torch.cuda.get_device_name(device)}'
