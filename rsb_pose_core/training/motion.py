"""True poses to pre-train the Pose Transformer on: recorded motion seen from random cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rsb_pose_core.errors import DataError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.clips import Clip, read_motion, split_of
from rsb_pose_core.synthesis.rotations import about_x, about_y

Poses = Float[Tensor, 'poses joints 3']
FOLDERS = ('motion', 'wardrobe')  # of a data folder
UPRIGHT_TO_OPTICAL = np.array([1.0, -1.0, -1.0])  # half a turn about x: y up -> y down

PITCH_SD_RAD = 0.15  # cameras look a little up or down
SCALE_SD = 0.06  # people are taller and shorter than the recorded ones
DISTANCE_M = (1.5, 5.0)
ASIDE, ABOVE = 0.4, 0.2  # the root's largest x / z and y / z


@dataclass(frozen=True)
class PoseSet:
    """Poses of several recordings.

    poses: (N,17,3) metres in an optical frame's axes (x right, y down, z ahead), float32;
    recording: (N,) index into names; frame: (N,) number of the pose within its recording.
    """

    poses: Poses
    recording: Int[Tensor, ' poses']
    frame: Int[Tensor, ' poses']
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.poses)

    def name(self, index: int) -> str:
        """Where a pose comes from."""
        return f'{self.names[int(self.recording[index])]} frame {int(self.frame[index])}'

    def weights(self) -> Float[Tensor, ' poses']:
        """How often to draw each pose: a recording counts as the square root of its length.

        Long recordings hold more, but neighbouring frames are alike.
        """
        lengths = torch.bincount(self.recording, minlength=len(self.names)).float()
        return lengths[self.recording] ** -0.5

    def evenly(self, per_recording: int) -> 'PoseSet':
        """At most so many poses of each recording, evenly spread over it."""
        chosen = []
        for number in range(len(self.names)):
            found = (self.recording == number).nonzero()[:, 0]
            steps = torch.linspace(0, len(found) - 1, min(per_recording, len(found)))
            chosen.append(found[steps.round().long()])
        at = torch.cat(chosen)
        return PoseSet(self.poses[at], self.recording[at], self.frame[at], self.names)


def read_pose_set(data: Path, split: str, prepared: Sequence[str] = ()) -> PoseSet:
    """The split ('train', 'val' or 'test') of a data folder's clips: motion/ and wardrobe/.

    prepared: patterns of .npz files with xyz_m (N,17,3), metres in an optical frame: stored pairs
    of the same split. Poses with a joint that is not known are left out. Raises DataError.
    """
    folders = [data / name for name in FOLDERS if (data / name).is_dir()]
    if not folders and not prepared:
        raise DataError(
            f'{data}: no folder {FOLDERS[0]} in it, expected recorded motion; correct --data'
        )
    clips = [clip for clip in read_motion(*folders) if split_of(clip) == split] if folders else []
    parts = [(clip.name, _optical(clip)) for clip in clips]
    for pattern in prepared:
        files = sorted(glob(pattern))
        if not files:
            raise DataError(f'no files match {pattern}; correct the pattern of prepared poses')
        parts += [(file, _stored_poses(Path(file))) for file in files]
    return pose_set(parts, f'split {split} of {data}')


def pose_set(parts: Sequence[tuple[str, np.ndarray]], where: str) -> PoseSet:
    """Recordings by name, each (frames,17,3), as one set without incomplete poses."""
    poses, recordings, frames = [], [], []
    for number, (_, joints) in enumerate(parts):
        whole = np.flatnonzero(np.isfinite(joints).all((1, 2)))
        poses.append(joints[whole].astype(np.float32))
        frames.append(whole)
        recordings.append(np.full(len(whole), number))
    if not sum(map(len, poses)):
        raise DataError(f'no complete poses in the {where}; give a folder with recorded motion')
    return PoseSet(
        torch.from_numpy(np.concatenate(poses)),
        torch.from_numpy(np.concatenate(recordings)),
        torch.from_numpy(np.concatenate(frames)),
        tuple(name for name, _ in parts),
    )


def _optical(clip: Clip) -> np.ndarray:
    return np.asarray(clip.joints_m * UPRIGHT_TO_OPTICAL)


def _stored_poses(path: Path) -> np.ndarray:
    try:
        with np.load(path) as file:
            xyz: np.ndarray = file['xyz_m']
    except Exception as error:  # a damaged zip raises what zipfile and zlib please
        raise DataError(f'{path}: cannot be read ({error}); expected .npz with xyz_m') from error
    if xyz.ndim != 3 or xyz.shape[1:] != (len(H36M_17), 3):
        raise DataError(
            f'{path}: xyz_m of shape {xyz.shape}, expected (N, {len(H36M_17)}, 3) in metres; '
            f'convert the poses to the skeleton {H36M_17.name}'
        )
    return xyz


def seen_from_random_cameras(
    poses: Poses, generator: torch.Generator, *, vary_body: bool = True
) -> Poses:
    """Absolute poses (metres, a camera's optical frame) of people who stand anywhere in view.

    The camera stands anywhere around the person (yaw) and looks a little up or down (pitch). With
    `vary_body`, people are scaled and half of them mirrored.
    """
    count, root = len(poses), H36M_17.root
    turned = poses - poses[:, [root]]
    if vary_body:
        turned = turned * (1 + SCALE_SD * torch.randn(count, 1, 1, generator=generator))
        mirrored = turned[:, list(H36M_17.mirror)] * turned.new_tensor([-1.0, 1.0, 1.0])
        chosen = torch.rand(count, 1, 1, generator=generator) < 0.5
        turned = torch.where(chosen, mirrored, turned)
    yaw = 2 * torch.pi * torch.rand(count, generator=generator)
    pitch = PITCH_SD_RAD * torch.randn(count, generator=generator)
    turned = turned @ (about_x(pitch) @ about_y(yaw)).mT
    nearest, farthest = DISTANCE_M
    z = nearest + (farthest - nearest) * torch.rand(count, generator=generator)
    aside = torch.rand(count, 2, generator=generator) * 2 - 1
    placed = torch.stack([aside[:, 0] * ASIDE * z, aside[:, 1] * ABOVE * z, z], -1)
    return turned + placed[:, None]
