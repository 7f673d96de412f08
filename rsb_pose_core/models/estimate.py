"""What every method says of a pair of crops, whichever way it got there."""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration

Image = Float[Tensor, 'batch 3 image_height image_width']


@dataclass(frozen=True)
class StereoEstimate:
    """Joints in B pairs of crops.

    xyz_m: (B,J,3), rectified left optical frame; covariance_m2: (B,J,3,3) of xyz_m;
    confidence: (B,J), 0..1; uv_left, uv_right: (B,J,2) crop pixels of each view, None of a
    method that has no 2D keypoints (Volume-T). What was not found is NaN.
    """

    xyz_m: Float[Tensor, 'batch joints 3']
    covariance_m2: Float[Tensor, 'batch joints 3 3']
    confidence: Float[Tensor, 'batch joints']
    uv_left: Float[Tensor, 'batch joints 2'] | None
    uv_right: Float[Tensor, 'batch joints 2'] | None

    def with_positions(self, xyz_m: Float[Tensor, 'batch joints 3']) -> 'StereoEstimate':
        """The same with refined positions."""
        return replace(self, xyz_m=xyz_m)


@runtime_checkable
class StereoOutput(Protocol):
    """What a method's forward returns: what its losses need, and the joints on demand.

    features_left, features_right: (B,C,H,W), the last features before the method's head, of which
    SIM_cos is measured (paper IV-A2).
    """

    @property
    def features_left(self) -> Tensor | None: ...

    @property
    def features_right(self) -> Tensor | None: ...

    def estimate(self, calibration: StereoCalibration) -> StereoEstimate:
        """The joints; `calibration` is that of the crops, fields of shape (B,)."""
        ...


@runtime_checkable
class StereoMethod(Protocol):
    """A network of Tables I and II: RSB-Pose or a rival. `trunk` is its 2D backbone.

    Losses and evaluation know outputs, not methods: Epipolar-T and TPPT would hand on a heat map
    of each view (StereoHeatmaps without a co-heatmap), AdaFuse weights too (WeightedHeatmaps).
    """

    joints: int
    trunk: torch.nn.Module

    def __call__(
        self, left: Image, right: Image, calibration: StereoCalibration | None = None
    ) -> StereoOutput:
        """RGB 0..1 crops of both views with the same rows; sides multiples of 64.

        Methods that work in metres (Volume-T) need the crops' calibration.
        """
        ...
