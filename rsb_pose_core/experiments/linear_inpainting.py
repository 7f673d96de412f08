"""Masked joints from visible ones without a network.

Along the bones: linear interpolation, which knows no other poses. The mean pose and the best
linear guess know the training poses by mean and covariance: the guess is the conditional mean of a
Gaussian with these, which no other linear function of the visible joints betters in mean square on
the poses that it was fitted to.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rsb_pose_core.models.pose_transformer import Mask
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.rotations import about_x, about_y
from rsb_pose_core.training.motion import PITCH_SD_RAD, Poses

YAWS = 72  # of the search for the direction a person faces
CHUNK = 512  # poses at once: each has a system of 51 equations of its own


@dataclass(frozen=True)
class PoseGaussian:
    """Mean (51,) and covariance (51,51) of relative poses in metres, float64."""

    mean: Float[Tensor, ' numbers']
    covariance: Float[Tensor, 'numbers numbers']

    @classmethod
    def fit(cls, poses: Poses) -> 'PoseGaussian':
        """Of poses relative to their root."""
        flat = poses.double().flatten(1)
        centred = flat - flat.mean(0)
        return cls(flat.mean(0), centred.T @ centred / len(flat))

    def conditional_mean(
        self, poses: Poses, masked: Mask, ridge_m2: float
    ) -> tuple[Poses, Float[Tensor, ' poses']]:
        """The poses with their masked joints as expected from the others, and how far the visible
        joints are from the mean (squared Mahalanobis distance).

        ridge_m2: variance of noise assumed on the visible coordinates.
        """
        found, distances = [], []
        for some, hidden in zip(poses.double().split(CHUNK), masked.split(CHUNK), strict=True):
            seen = (~hidden).double().repeat_interleave(3, 1)  # B 51
            off = (some.flatten(1) - self.mean) * seen
            visible = self.covariance * seen[:, :, None] * seen[:, None]
            visible = visible + ridge_m2 * torch.eye(len(self.mean), dtype=torch.float64)
            weights = torch.linalg.solve(visible, off[..., None])[..., 0] * seen
            distances.append((off * weights).sum(1))
            expected = (self.mean + weights @ self.covariance).unflatten(1, (-1, 3))
            found.append(torch.where(hidden[..., None], expected, some))
        return torch.cat(found), torch.cat(distances)


def facing_ahead(poses: Poses) -> Poses:
    """Upright poses turned about the vertical until the hips lie along x."""
    across = poses[:, H36M_17.index('left_hip')] - poses[:, H36M_17.index('right_hip')]
    return poses @ about_y(torch.atan2(across[:, 2], across[:, 0])).mT


def tilted(poses: Poses, generator: torch.Generator) -> Poses:
    """As cameras that look up or down see them, in axes that face ahead nevertheless."""
    count = len(poses)
    yaw = 2 * torch.pi * torch.rand(count, generator=generator)
    pitch = PITCH_SD_RAD * torch.randn(count, generator=generator)
    turn = about_y(-yaw) @ about_x(pitch) @ about_y(yaw)
    return poses @ turn.to(poses).mT


def inpaint_facing(
    gaussian: PoseGaussian, poses: Poses, masked: Mask, ridge_m2: float
) -> tuple[Poses, Poses]:
    """Linear guess and mean pose for people who face anywhere, of a Gaussian of such who face
    ahead: each pose is turned to where its visible joints are the likeliest."""
    best = torch.full((len(poses),), torch.inf, dtype=torch.float64)
    linear = torch.zeros(poses.shape, dtype=torch.float64)
    mean = torch.zeros_like(linear)
    average = gaussian.mean.view(-1, 3)
    for yaw in torch.arange(YAWS, dtype=torch.float64) * (2 * torch.pi / YAWS):
        turn = about_y(yaw)
        guess, distance = gaussian.conditional_mean(poses.double() @ turn.mT, masked, ridge_m2)
        better = distance < best
        best = torch.minimum(best, distance)
        linear[better] = (guess @ turn)[better]
        mean[better] = (average @ turn).expand_as(mean)[better]
    return linear, mean


def inpaint_along_bones(poses: Poses, masked: Mask) -> Poses:
    """Masked joints on straight lines between the visible ones that bones lead to.

    Every masked joint is the mean of its neighbours (Laplace's equation on the skeleton); the end
    of a limb is where its last visible joint is.
    """
    laplacian = torch.zeros(len(H36M_17), len(H36M_17), dtype=torch.float64)
    for parent, child in H36M_17.bones:
        laplacian[parent, child] = laplacian[child, parent] = -1.0
    laplacian = laplacian - torch.diag(laplacian.sum(1))
    hidden = masked[..., None]
    system = torch.where(hidden, laplacian, torch.eye(len(H36M_17), dtype=torch.float64))
    restored: Tensor = torch.linalg.solve(system, poses.double().masked_fill(hidden, 0.0))
    return restored
