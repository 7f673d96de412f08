"""A method and the Pose Transformer behind it: the whole framework of the paper's Fig. 2."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.models.estimate import Image, StereoEstimate, StereoOutput
from rsb_pose_core.models.layers import without_autocast
from rsb_pose_core.models.pose_transformer import PoseTransformer


@dataclass(frozen=True)
class SystemOutput:
    """output: of the method; initial: its joints; refined_m: (B,J,3) after the Pose Transformer,
    None without one."""

    output: StereoOutput
    initial: StereoEstimate
    refined_m: Float[Tensor, 'batch joints 3'] | None

    @property
    def final(self) -> StereoEstimate:
        """Refined joints where there is a refiner."""
        if self.refined_m is None:
            return self.initial
        return self.initial.with_positions(self.refined_m)


class PoseSystem(nn.Module):
    """Crops to joints in metres. `refiner` plugs into any method (paper Fig. 7)."""

    def __init__(self, method: nn.Module, refiner: PoseTransformer | None = None) -> None:
        super().__init__()
        self.method, self.refiner = method, refiner

    def forward(self, left: Image, right: Image, calibration: StereoCalibration) -> SystemOutput:
        """As StereoMethod; `calibration` is that of the crops, fields of shape (B,).

        Triangulation and refiner stay in float32 under autocast: bf16 has centimetres at 3 m.
        """
        output = self.method(left, right, calibration)
        with without_autocast(left):
            initial = output.estimate(calibration)
            refined = None
            if self.refiner is not None:
                refined = self.refiner.refine(initial.xyz_m, confidence=initial.confidence)
        return SystemOutput(output, initial, refined)
