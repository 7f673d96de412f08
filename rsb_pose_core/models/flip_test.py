"""The flip test of 2D pose estimation, for stereo: a network also looks at the mirrored pair.

Mirrored, a rectified pair is one again once its views are swapped, and a joint keeps its
disparity: u_left' - u_right' = (W - 1 - u_right) - (W - 1 - u_left). Both looks go through the
network as one batch.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.models.backbones import Backbone
from rsb_pose_core.models.baseline import IndependentHeatmaps
from rsb_pose_core.models.estimate import Image
from rsb_pose_core.models.rsb_pose import RSBPose, StereoHeatmaps
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.skeleton import H36M_17

Volume = Float[Tensor, 'batch joints depth height width']


class FlipTest(nn.Module):
    """A trained network whose heat maps are the mean log-probabilities of both looks.

    It takes twice the network's time, or less where a GPU has room for the larger batch. The
    features that it hands on are those of the pair as it is.
    """

    def __init__(self, network: RSBPose | IndependentHeatmaps) -> None:
        super().__init__()
        self.network = network
        self.joints = network.joints

    @property
    def trunk(self) -> Backbone:
        """The 2D backbone of both looks."""
        return self.network.trunk

    def forward(
        self, left: Image, right: Image, calibration: StereoCalibration | None = None
    ) -> StereoHeatmaps:
        """As the network's own forward; where only one look can see, that one counts."""
        both: StereoHeatmaps = self.network(
            torch.cat([left, right.flip(-1)]), torch.cat([right, left.flip(-1)])
        )
        left_map, flipped_right = _log_probability(both.heatmap_left).chunk(2)
        right_map, flipped_left = _log_probability(both.heatmap_right).chunk(2)
        features = [
            None if view is None else view.chunk(2)[0]
            for view in (both.features_left, both.features_right)
        ]
        co_heatmap = both.co_heatmap
        if co_heatmap is not None:
            volume, flipped = _log_probability(co_heatmap).chunk(2)
            volume_of_left = left_columns(_unflipped(flipped), both.disparities)
            seen = volume_of_left.isfinite()
            co_heatmap = torch.where(seen, (volume + volume_of_left) / 2, volume)
        return replace(
            both,
            heatmap_left=(left_map + _unflipped(flipped_left)) / 2,
            heatmap_right=(right_map + _unflipped(flipped_right)) / 2,
            co_heatmap=co_heatmap,
            features_left=features[0],
            features_right=features[1],
        )


def left_columns(of_right: Volume, disparities: DisparityRange) -> Volume:
    """A volume over right columns as one over left columns: out[w] = of_right[w - dd].

    -inf where that is outside the right view. Between two columns their mean.
    """
    width = of_right.shape[-1]
    planes = []
    for plane, dd in zip(of_right.unbind(2), disparities.shifts(), strict=True):
        source, shift = plane, int(dd // 1)
        if dd % 1:  # column w - dd is between w - shift - 1 and w - shift
            source = functional.pad(
                (plane[..., :-1] + plane[..., 1:]) / 2, (1, 0), value=-torch.inf
            )
        moved = functional.pad(source, (max(shift, 0), max(-shift, 0)), value=-torch.inf)
        planes.append(moved[..., max(-shift, 0) :][..., :width])
    return torch.stack(planes, 2)


def _log_probability(logits: Tensor) -> Tensor:
    """Logits (B,J,...) that add up to one for each joint."""
    return functional.log_softmax(logits.flatten(2), -1).view_as(logits)


def _unflipped(maps: Tensor) -> Tensor:
    """Mirrored maps (B,J,...,W) back: columns reversed, left joints right ones."""
    flipped = maps.flip(-1)
    return torch.stack([flipped[:, joint] for joint in H36M_17.mirror], 1)  # CUDA graphs take this
