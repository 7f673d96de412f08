"""PCK of 2D joints in photographs: how a network trained on rendered people sees real ones.

Each person is cropped to 1.25 times the extent of the labelled joints, upright, black outside the
photograph, and fed as both views: all disparities are zero, and the co-heatmap's (u, v) counts.
"""

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import nn
from tqdm import tqdm

from rsb_pose_core.datasets.photographs import Photograph, Photographs
from rsb_pose_core.errors import DataError
from rsb_pose_core.models import StereoHeatmaps, co_keypoints
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.photo_pairs import NETWORK_CROP, warp_photograph

THRESHOLDS = (0.1, 0.2, 0.5)  # of the torso
HEADLINE = 0.2
# a torso that is seen from above or below is taken to be at least so much of the crop's side
SHORTEST_TORSO = 1 / 32
LIMBS = tuple(
    H36M_17.index(f'{side}_{joint}')
    for joint in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
    for side in ('right', 'left')
)
BATCH_SIZE = 16
DEFINITIONS = """\
PCK@t is the share of the 12 limb joints (shoulders, elbows, wrists, hips, knees, ankles) that are
nearer to their label than t torso lengths; joints that were not found are missed. The torso is
the distance in the photograph between the middle of the labelled shoulders and the middle of the
labelled hips, but at least 1/32 of the crop's side. Of a swapped joint the label is missed by 0.2
torso lengths or more, while the label of the same joint on the other side of the body is hit.
Every person is cropped to the upright square of 1.25 times the extent of the labelled joints,
black outside the photograph, and fed as both views. +- is one standard error, over photographs."""

Joints = Float[np.ndarray, 'people 17 2']
PerJoint = Float[np.ndarray, 'people joints']


@dataclass(frozen=True, eq=False)
class KeypointScores:
    """Of one method on N people; errors in torso lengths of the 12 LIMBS.

    errors: (N,12), infinite where a joint was not found, NaN where it has no label; swapped:
    (N,12); found: share of the labelled limb joints that have a position.
    """

    errors: PerJoint
    swapped: Bool[np.ndarray, 'people joints']
    found: float

    @property
    def labelled(self) -> Bool[np.ndarray, 'people joints']:
        """Limb joints that count."""
        return np.asarray(~np.isnan(self.errors))

    def pck(self, threshold: float = HEADLINE) -> float:
        """Share of the limb joints within `threshold` torso lengths, 0..1."""
        return float((self.errors[self.labelled] < threshold).mean())

    def standard_error(self, threshold: float = HEADLINE) -> float:
        """Of pck(), the photographs being drawn at random."""
        labelled = self.labelled
        off = np.where(labelled, (self.errors < threshold) - self.pck(threshold), 0.0).sum(1)
        people = len(off)
        spread = float(np.sqrt((off**2).sum() / max(people - 1, 1) * people))
        return spread / int(labelled.sum())

    def joint_pck(self, threshold: float = HEADLINE) -> dict[str, float]:
        """The same of each limb joint by its name; NaN where none is labelled."""
        rates = {}
        for column, joint in enumerate(LIMBS):
            errors = self.errors[self.labelled[:, column], column]
            rate = float((errors < threshold).mean()) if len(errors) else float('nan')
            rates[H36M_17.joint_names[joint]] = rate
        return rates

    @property
    def swaps(self) -> float:
        """Share of the limb joints that lie on the other side's label instead of their own."""
        return float(self.swapped[self.labelled].mean())

    def badness(self) -> Float[np.ndarray, ' people']:
        """Mean error of each person, by which pictures are chosen; no joint counts more than 2."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', RuntimeWarning)  # a person without a labelled joint
            return np.asarray(np.nanmean(np.minimum(self.errors, 2.0), axis=1))

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            'people': len(self.errors),
            'joints': int(self.labelled.sum()),
            'found': self.found,
            **{f'pck@{threshold}': self.pck(threshold) for threshold in THRESHOLDS},
            'standard_error@0.2': self.standard_error(),
            'swapped': self.swaps,
            'joint_pck@0.2': self.joint_pck(),
            'person_pck@0.2': [
                float((row[~np.isnan(row)] < HEADLINE).mean()) if (~np.isnan(row)).any() else None
                for row in self.errors
            ],
        }


def score(
    predicted: Joints, truth: Joints, crop_sides: Float[np.ndarray, ' people']
) -> KeypointScores:
    """Compare joints in pixels of each photograph, NaN where not found or without a label.

    crop_sides: of the upright crops, in the same pixels. People of whom the torso has no labels
    do not count. Raises DataError where nobody is left.
    """
    torso = torso_lengths_px(truth, crop_sides)[:, None]
    mirror = np.array(H36M_17.mirror)
    errors, across = (
        np.linalg.norm(predicted - labels, axis=-1)[:, LIMBS] / torso
        for labels in (truth, truth[:, mirror])
    )
    labelled = np.isfinite(truth).all(-1)[:, LIMBS] & np.isfinite(torso)
    if not labelled.any():
        raise DataError('no limb joint and torso is labelled; give photographs with labels')
    found = np.isfinite(predicted).all(-1)[:, LIMBS]
    errors = np.where(labelled, np.where(found, errors, np.inf), np.nan)
    swapped = labelled & (errors >= HEADLINE) & (across < HEADLINE)  # NaN compares false
    return KeypointScores(errors, swapped, float(found[labelled].mean()))


def torso_lengths_px(
    uv: Joints, crop_sides: Float[np.ndarray, ' people']
) -> Float[np.ndarray, ' people']:
    """Middle of the shoulders to middle of the hips, at least SHORTEST_TORSO of the crop."""
    shoulders, hips = (
        uv[:, [H36M_17.index(f'{side}_{joint}') for side in ('right', 'left')]].mean(1)
        for joint in ('shoulder', 'hip')
    )
    lengths = np.linalg.norm(shoulders - hips, axis=-1)
    return np.asarray(np.maximum(lengths, SHORTEST_TORSO * crop_sides))


def crop_sides(photographs: Photographs) -> Float[np.ndarray, ' people']:
    """Sides of the upright crops, pixels of the photographs."""
    low, high = np.nanmin(photographs.uv, 1), np.nanmax(photographs.uv, 1)
    return np.asarray((high - low).max(-1) * NETWORK_CROP)


def upright_affine(photograph: Photograph, size: int) -> Float[np.ndarray, '2 3']:
    """From the photograph's pixels to those of a crop of `size`, centres of pixels at integers."""
    middle, side = photograph.square(NETWORK_CROP)
    scale = size / side
    return np.column_stack([np.eye(2) * scale, (size - 1) / 2 - scale * middle])


def upright_crop(photograph: Photograph, size: int) -> UInt8[np.ndarray, 'size size 3']:
    """The person's square, resampled as in training."""
    columns = np.repeat(np.arange(size, dtype=np.float64)[None], size, 0)
    return warp_photograph(photograph.image, upright_affine(photograph, size), columns)


def to_photograph(
    uv_crop: Float[np.ndarray, 'joints 2'], affine: Float[np.ndarray, '2 3']
) -> Float[np.ndarray, 'joints 2']:
    """Pixels of a crop back to those of its photograph."""
    return np.asarray((uv_crop - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T)


@torch.inference_mode()
def find_joints(
    network: nn.Module,
    photographs: Photographs,
    size: int,
    device: torch.device | None = None,
    progress: str | None = None,
) -> dict[str, Joints]:
    """Joints in pixels of each photograph: 'joints' the co-keypoints, and for a network with a
    co-heatmap also 'heat maps', those of the left view by itself. `progress` names a bar.

    The network gives StereoHeatmaps, as RSBPose and IndependentHeatmaps do.
    """
    device = device or torch.device('cpu')
    network.eval()
    found: dict[str, list[Float[np.ndarray, 'joints 2']]] = {}
    with tqdm(total=len(photographs), desc=progress, disable=progress is None) as bar:
        for start in range(0, len(photographs), BATCH_SIZE):
            end = min(start + BATCH_SIZE, len(photographs))
            some = [photographs[i] for i in range(start, end)]
            crops = torch.from_numpy(np.stack([upright_crop(one, size) for one in some]))
            view = crops.to(device).permute(0, 3, 1, 2).float() / 255
            output: StereoHeatmaps = network(view, view)
            stages = {'joints': co_keypoints(output)}
            if output.co_heatmap is not None:
                stages['heat maps'] = co_keypoints(replace(output, co_heatmap=None))
            for name, keypoints in stages.items():
                uv = keypoints.uvd[..., :2].double().cpu().numpy()
                found.setdefault(name, []).extend(
                    to_photograph(joints, upright_affine(one, size))
                    for joints, one in zip(uv, some, strict=True)
                )
            bar.update(len(some))
    return {name: np.stack(joints) for name, joints in found.items()}


# ---- other people's detectors, which run elsewhere ----


def write_crops(photographs: Photographs, size: int, path: Path) -> None:
    """The crops as .npz: images (N,size,size,3) RGB, names (N), to_photograph (N,2,3) affine maps
    of crop pixels to the photograph's."""
    people = [photographs[i] for i in range(len(photographs))]
    affines = np.stack([upright_affine(one, size) for one in people])
    turn = np.linalg.inv(affines[:, :, :2])
    back = np.concatenate([turn, -turn @ affines[:, :, 2:]], axis=2)
    images = np.stack([upright_crop(one, size) for one in people])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('wb') as file:
            np.savez(file, images=images, names=np.array(photographs.names), to_photograph=back)
    except OSError as error:
        raise DataError(
            f'{path}: crops cannot be written there ({error.strerror}); choose another --crops'
        ) from error


def read_joints(path: Path, photographs: Photographs) -> Joints:
    """Joints that another detector found: .npz with names (N) as of the photographs, in their
    order, and uv (N,17,2) in pixels of the photographs, H36M_17, NaN where not found.

    Raises DataError where the file does not fit.
    """
    try:
        with np.load(path) as archive:
            arrays: Mapping[str, np.ndarray] = {key: archive[key] for key in ('names', 'uv')}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(
            f'{path}: joints cannot be read ({error}); give an .npz with names and uv'
        ) from error
    uv, shape = arrays['uv'].astype(np.float64), photographs.uv.shape
    if uv.shape != shape or tuple(arrays['names'].tolist()) != photographs.names:
        raise DataError(
            f'{path}: joints of shape {uv.shape} are not of these {shape[0]} people; give joints '
            f'(people, 17, 2) of the crops that --crops writes for this --data and --split'
        )
    return uv
