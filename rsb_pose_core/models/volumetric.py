"""Volume-T: features of both views unprojected into a cube round the person and read by a 3D
network (Iskakov et al., "Learnable Triangulation of Human Pose", ICCV 2019, section 3.2).
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.geometry import project
from rsb_pose_core.models.backbones import Backbone
from rsb_pose_core.models.estimate import Image, StereoEstimate
from rsb_pose_core.models.keypoints import crop_to_heatmap, estimate_views
from rsb_pose_core.models.layers import without_autocast
from rsb_pose_core.models.soft_argmax import volume_moments
from rsb_pose_core.models.volume_networks import V2V

JointMaps = Float[Tensor, 'batch joints height width']
JointVolumes = Float[Tensor, 'batch joints z y x']
Features = Float[Tensor, 'batch channels height width']
FeatureVolume = Float[Tensor, 'batch channels cells cells cells']
Points = Float[Tensor, 'batch points 3']

CONFIDENCE_RADIUS_M = 0.1


@dataclass(frozen=True)
class Cube:
    """A cube of cells^3 in the left optical frame, `side_m` long.

    centre_m: (B,3); rotation: (B,3,3), whose columns are the cube's axes. Cells count from the
    centre of the first one, in the order x, y, z; volumes hold them as z, y, x.
    """

    centre_m: Float[Tensor, 'batch 3']
    rotation: Float[Tensor, 'batch 3 3']
    side_m: float
    cells: int

    @property
    def cell_m(self) -> float:
        return self.side_m / self.cells

    def to_metres(self, cells: Points) -> Points:
        """Places in the cube, in cells, to metres in the left optical frame."""
        local = (cells - (self.cells - 1) / 2) * self.cell_m
        return local @ self.rotation.mT + self.centre_m[:, None]

    def to_cells(self, xyz_m: Points) -> Points:
        """The inverse of `to_metres`."""
        local = (xyz_m - self.centre_m[:, None]) @ self.rotation
        return local / self.cell_m + (self.cells - 1) / 2

    def centres(self) -> Points:
        """Every cell's centre in metres, (B, cells^3, 3), x changing fastest."""
        steps = torch.arange(self.cells, device=self.centre_m.device, dtype=self.centre_m.dtype)
        z, y, x = torch.meshgrid(steps, steps, steps, indexing='ij')
        cells = torch.stack([x, y, z], -1).view(1, -1, 3)
        return self.to_metres(cells.expand(len(self.centre_m), -1, -1))


@dataclass(frozen=True)
class VolumeHeatmaps:
    """heatmap_left, heatmap_right: (B,J,H,W) logits of each view, which place the cube; volume:
    (B,J,z,y,x) logits over its cells, None where only 2D heat maps were asked for; all float32.
    features_left, features_right: (B,C,H,W) of the trunk."""

    heatmap_left: JointMaps
    heatmap_right: JointMaps
    volume: JointVolumes | None = None
    cube: Cube | None = None
    features_left: Features | None = None
    features_right: Features | None = None

    def estimate(self, calibration: StereoCalibration) -> StereoEstimate:
        """Soft-argmax in metres. There are no keypoints in the views.

        The confidence is the probability within CONFIDENCE_RADIUS_M of the joint. Without a
        volume each view's own keypoints, triangulated.
        """
        if self.volume is None or self.cube is None:
            return estimate_views(self.heatmap_left, self.heatmap_right, calibration)
        moments = volume_moments(self.volume, 0)
        axes = self.cube.rotation[:, None] * self.cube.cell_m  # B 1 3 3
        return StereoEstimate(
            xyz_m=self.cube.to_metres(moments.mean),
            covariance_m2=axes @ moments.covariance @ axes.mT,
            confidence=_mass_near(
                self.volume, moments.mean, CONFIDENCE_RADIUS_M / self.cube.cell_m
            ),
            uv_left=None,
            uv_right=None,
        )


class VolumetricTriangulation(nn.Module):
    """Both views' features in a cube round the pelvis, and V2V over it.

    The pelvis (joint `root`) is triangulated from the network's own 2D heads, which the 2D loss
    trains; no gradient of the volume reaches them. In training the cube is turned about the
    vertical axis at random, unless `turned` is False.
    """

    def __init__(
        self,
        trunk: Backbone,
        network: V2V,
        joints: int,
        root: int,
        *,
        side_m: float = 2.5,
        cells: int = 64,
        turned: bool = True,
    ) -> None:
        super().__init__()
        self.joints, self.root, self.side_m, self.cells = joints, root, side_m, cells
        self.turned = turned
        self.trunk = trunk
        self.head = nn.Conv2d(trunk.channels_out, joints, 1)
        self.reduction = nn.Conv2d(trunk.channels_out, network.channels_in, 1)
        self.network = network

    def forward(
        self,
        left: Image,
        right: Image,
        calibration: StereoCalibration | None = None,
        *,
        volume: bool = True,
        centre_m: Float[Tensor, 'batch 3'] | None = None,
    ) -> VolumeHeatmaps:
        """As StereoMethod, with the calibration of the crops. `volume=False` stops after the 2D
        heat maps; `centre_m` puts the cube there. Raises RsbPoseError without a calibration."""
        images = torch.cat([left, right]).contiguous(memory_format=torch.channels_last)
        features = self.trunk(images)  # 2B C H W
        heatmap_left, heatmap_right = self.head(features).float().chunk(2)
        views = VolumeHeatmaps(heatmap_left, heatmap_right, None, None, *features.chunk(2))
        if not volume:
            return views
        if calibration is None:
            raise RsbPoseError(
                'Volume-T works in metres but got no calibration; give that of the crops'
            )
        cube = self._cube(self._pelvis(views, calibration) if centre_m is None else centre_m)
        reduced_left, reduced_right = self.reduction(features).chunk(2)
        filled = unproject(reduced_left, reduced_right, cube, calibration)
        return replace(views, volume=self.network(filled).float(), cube=cube)

    def _pelvis(
        self, views: VolumeHeatmaps, calibration: StereoCalibration
    ) -> Float[Tensor, 'batch 3']:
        """Where the 2D heads see the root joint."""
        root = slice(self.root, self.root + 1)
        with torch.no_grad():
            found = estimate_views(
                views.heatmap_left[:, root], views.heatmap_right[:, root], calibration
            )
        return found.xyz_m[:, 0]

    def _cube(self, centre_m: Float[Tensor, 'batch 3']) -> Cube:
        angle = torch.zeros_like(centre_m[:, 0])
        if self.training and self.turned:
            angle = 2 * math.pi * torch.rand_like(angle)
        return Cube(centre_m, about_vertical(angle), self.side_m, self.cells)


def about_vertical(angle: Float[Tensor, ' batch']) -> Float[Tensor, 'batch 3 3']:
    """Rotations about the y axis, which is vertical where the cameras are level."""
    sine, cosine, zero = torch.sin(angle), torch.cos(angle), torch.zeros_like(angle)
    rows = [cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine]
    return torch.stack(rows, -1).view(-1, 3, 3)


def unproject(
    left: Features, right: Features, cube: Cube, calibration: StereoCalibration
) -> FeatureVolume:
    """Fill each cell with what both views show where it is seen, (B,C,z,y,x).

    Bilinear samples, 0 outside a view and behind the cameras; the views are averaged with the
    softmax of their values as weights, channel by channel (their best aggregation).
    """
    with without_autocast(left):
        uvd = project(cube.centres(), calibration)
        uv_left = uvd[..., :2]
        uv_right = torch.stack([uvd[..., 0] - uvd[..., 2], uvd[..., 1]], -1)
        values = torch.stack(
            [_sample(view.float(), uv) for view, uv in ((left, uv_left), (right, uv_right))]
        )  # 2 B C N
        mixed: Tensor = (torch.softmax(values, 0) * values).sum(0)
    size = cube.cells
    return mixed.reshape(*mixed.shape[:2], size, size, size)


def _sample(
    view: Features, uv_crop: Float[Tensor, 'batch points 2']
) -> Float[Tensor, 'batch channels points']:
    """Features of a view at crop pixels; 0 outside and where the pixel is NaN."""
    height, width = view.shape[-2:]
    last_cell = uv_crop.new_tensor([width - 1, height - 1])
    unit = 2 * crop_to_heatmap(uv_crop) / last_cell - 1  # -1..1 from first to last cell
    unit = unit.nan_to_num(nan=-1e3).clamp(-1e3, 1e3)  # far outside
    sampled = functional.grid_sample(view, unit[:, None], align_corners=True)
    return sampled[:, :, 0]


def _mass_near(
    volume: JointVolumes, mean: Float[Tensor, 'batch joints 3'], radius: float
) -> Float[Tensor, 'batch joints']:
    """Probability within `radius` of (x, y, z), all in cells."""
    probability = torch.softmax(volume.flatten(2), -1).view_as(volume)
    squares = [
        (torch.arange(size, device=mean.device, dtype=mean.dtype) - mean[..., [axis]]) ** 2
        for axis, size in enumerate(volume.shape[:1:-1])
    ]
    x, y, z = squares  # each B J cells
    near = x[..., None, None, :] + y[..., None, :, None] + z[..., :, None, None] <= radius**2
    return (probability * near).sum((2, 3, 4)).clamp(0.0, 1.0)
