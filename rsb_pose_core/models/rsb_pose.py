"""RSB-Pose's stereo co-keypoint estimation (paper III-B): two crops in, co-heatmaps out."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import position_covariance, triangulate_clamped
from rsb_pose_core.models.attention import AttentionHeads, attention_mask
from rsb_pose_core.models.backbones import Backbone
from rsb_pose_core.models.estimate import Image, StereoEstimate
from rsb_pose_core.models.keypoints import (
    STRIDE,
    crop_to_heatmap,
    estimate_views,
    heatmap_to_crop,
    mass_near,
)
from rsb_pose_core.models.matching import HalfMatching
from rsb_pose_core.models.soft_argmax import (
    keypoint_moments,
    mean_near,
    peak_cells,
    spread_about,
    volume_moments,
)
from rsb_pose_core.models.stereo_volume import DisparityRange, shift_sum

JointMaps = Float[Tensor, 'batch joints height width']
Features = Float[Tensor, 'batch channels height width']

__all__ = [
    'STRIDE',
    'CoKeypoints',
    'RSBPose',
    'StereoHeatmaps',
    'co_keypoints',
    'crop_to_heatmap',
    'heatmap_to_crop',
]

LOG_FLOOR = -14.0  # log-probability where a view does not look


@dataclass(frozen=True)
class StereoHeatmaps:
    """What the network says, all logits in float32.

    heatmap_left, heatmap_right: (B,J,H,W) of each view's attention heads; co_heatmap: (B,J,D,H,W)
    over left pixels and disparities, None where only 2D heat maps were asked for;
    features_left, features_right: (B,C,H,W) of the trunk, where the network hands them on;
    peak_radius: keypoints are means within so many heat-map pixels of the peak, None as in the
    paper: of everything.
    """

    heatmap_left: JointMaps
    heatmap_right: JointMaps
    co_heatmap: Float[Tensor, 'batch joints depth height width'] | None
    disparities: DisparityRange
    features_left: Features | None = None
    features_right: Features | None = None
    peak_radius: int | None = None

    def estimate(self, calibration: StereoCalibration) -> StereoEstimate:
        """Co-keypoints triangulated, their covariance carried along.

        Without a co-heatmap each view's own keypoints, triangulated.
        """
        if self.co_heatmap is None:
            return estimate_views(
                self.heatmap_left, self.heatmap_right, calibration, peak_radius=self.peak_radius
            )
        found = co_keypoints(self)
        uv, disparity = found.uvd[..., :2], found.uvd[..., 2]
        return StereoEstimate(
            xyz_m=triangulate_clamped(found.uvd, calibration),
            covariance_m2=position_covariance(found.uvd, found.covariance, calibration),
            confidence=found.confidence,
            uv_left=uv,
            uv_right=torch.stack([uv[..., 0] - disparity, uv[..., 1]], -1),  # Eq. (3)
        )


@dataclass(frozen=True)
class CoKeypoints:
    """Joints in pixels of the network's input.

    uvd: (B,J,3) left column, row and disparity u_left - u_right; covariance: (B,J,3,3) of uvd;
    confidence: (B,J), 0..1, the probability that the joint is within 12 pixels of (u, v).
    """

    uvd: Float[Tensor, 'batch joints 3']
    covariance: Float[Tensor, 'batch joints 3 3']
    confidence: Float[Tensor, 'batch joints']


class RSBPose(nn.Module):
    """Shared 2D trunk, attention mask, stereo volume and a 3D network over it.

    `volume` is called with the masked features of both views and with their matching features.
    `attention_mask=False` leaves the features as they are ("w/o AM" of Table III); `heatmap_skip`
    adds both views' 2D log-probabilities to the co-heatmap, and matching features come from the
    trunk or, with a `matching_stride` of 2, from HalfMatching; a trained network's keypoints are
    means within `peak_radius` heat-map pixels of their peaks (all four beyond the paper).
    """

    def __init__(
        self,
        trunk: Backbone,
        reduction: tuple[int, ...],
        volume: nn.Module,
        disparities: DisparityRange,
        joints: int,
        *,
        matching_channels: int = 0,
        matching_stride: int = 4,
        attention_mask: bool = True,
        heatmap_skip: bool = True,
        peak_radius: int | None = None,
    ) -> None:
        super().__init__()
        self.peak_radius = peak_radius
        self.joints, self.disparities, self.heatmap_skip = joints, disparities, heatmap_skip
        self.attention_mask = attention_mask
        self.trunk, channels = trunk, trunk.channels_out
        self.attention = AttentionHeads(channels, joints)
        widths = (channels, *reduction)
        self.reduction = nn.Sequential(
            *(nn.Conv2d(a, b, 1) for a, b in zip(widths[:-1], widths[1:], strict=True))
        )
        self.matching: nn.Module | None = None
        self.half_matching = bool(matching_channels) and matching_stride == 2
        if self.half_matching:
            self.matching = HalfMatching(trunk, matching_channels)
        elif matching_channels:
            self.matching = nn.Conv2d(channels, matching_channels, 1)
        self.volume = volume

    def forward(
        self,
        left: Image,
        right: Image,
        calibration: StereoCalibration | None = None,
        *,
        volume: bool = True,
    ) -> StereoHeatmaps:
        """RGB 0..1 crops of both views with the same rows; sides multiples of 64.

        `volume=False` stops after the 2D heat maps. The calibration is not needed.
        """
        images = torch.cat([left, right]).contiguous(memory_format=torch.channels_last)
        features, fine = self._features(images)  # 2B C H W
        logits = self.attention(features).float()  # 2B J H W
        left_logits, right_logits = logits.chunk(2)
        features_left, features_right = features.chunk(2)
        views = StereoHeatmaps(
            left_logits,
            right_logits,
            None,
            self.disparities,
            features_left,
            features_right,
            None if self.training else self.peak_radius,
        )
        if not volume:
            return views
        masked = self.reduction(features)
        if self.attention_mask:
            masked = masked * attention_mask(logits).to(features.dtype)  # Eq. (2)
        matching = self._matching_features(features, fine)
        co_heatmap = self.volume(*masked.chunk(2), *matching.chunk(2)).float()  # B J D H W
        if self.heatmap_skip:
            co_heatmap = co_heatmap + self._joint_log_probability(left_logits, right_logits)
        return replace(views, co_heatmap=co_heatmap)

    def _features(self, images: Image) -> tuple[Features, Tensor]:
        """The trunk's features, and what HalfMatching looks at."""
        if self.half_matching and self.trunk.channels_half:
            return self.trunk.forward_with_half(images)
        features: Tensor = self.trunk(images)
        return features, images

    def _matching_features(self, features: Features, fine: Tensor) -> Tensor:
        """What the volume compares; the features themselves where it compares nothing."""
        if self.matching is None:
            return features
        inputs = (fine, features) if self.half_matching else (features,)
        matching: Tensor = self.matching(*inputs)
        return matching

    def _joint_log_probability(
        self, heatmap_left: JointMaps, heatmap_right: JointMaps
    ) -> Float[Tensor, 'batch joints depth height width']:
        """log p_left(h, w) + log p_right(h, w - dd), as if the views were independent."""
        log_left, log_right = (
            functional.log_softmax(heatmap.flatten(2), -1).view_as(heatmap).clamp_min(LOG_FLOOR)
            for heatmap in (heatmap_left, heatmap_right)
        )
        return shift_sum(log_left, log_right, self.disparities, LOG_FLOOR)


def co_keypoints(heatmaps: StereoHeatmaps) -> CoKeypoints:
    """Soft-argmax of the co-heatmap (Eq. 3), or of each view's heat map where there is none.

    Independent views disagree about the row: the mean is returned, and the disparity is the
    difference of their columns. With a peak_radius the covariance is that of the whole map about
    the keypoint: places that were not chosen count as well.
    """
    if heatmaps.co_heatmap is not None:
        planes = heatmaps.disparities
        moments = volume_moments(heatmaps.co_heatmap, planes.first, planes.step)
        uvd, covariance = moments.mean, moments.covariance
        log_plane = torch.logsumexp(heatmaps.co_heatmap.float(), 2)
        if heatmaps.peak_radius is not None:
            uvd = mean_near(
                heatmaps.co_heatmap, peak_cells(log_plane), heatmaps.peak_radius, planes.first,
                planes.step,
            )  # fmt: skip
            covariance = spread_about(uvd, moments)
    else:
        uvd, covariance = _independent_uvd(heatmaps)
        log_plane = heatmaps.heatmap_left.float()
    uv, disparity = heatmap_to_crop(uvd[..., :2]), uvd[..., 2:] * STRIDE
    confidence = mass_near(log_plane, uvd[..., :2])
    return CoKeypoints(torch.cat([uv, disparity], -1), covariance * STRIDE**2, confidence)


def _independent_uvd(heatmaps: StereoHeatmaps) -> tuple[Tensor, Tensor]:
    """(u, v, d) and covariance from two maps that know nothing of each other."""
    left, right = (
        keypoint_moments(heatmap, heatmaps.peak_radius)
        for heatmap in (heatmaps.heatmap_left, heatmaps.heatmap_right)
    )
    (u_left, v_left), (u_right, v_right) = left.mean.unbind(-1), right.mean.unbind(-1)
    uvd = torch.stack([u_left, (v_left + v_right) / 2, u_left - u_right], -1)
    return uvd, _share(left.covariance, 1.0, 1.0) + _share(right.covariance, 0.0, -1.0)


def _share(covariance: Tensor, in_u: float, in_d: float) -> Tensor:
    """(...,3,3) of (u, v, d) that one view's (...,2,2) of (u, v) brings in; half of v is its own.

    No matrix: a CUDA graph cannot be recorded where numbers come from the host.
    """
    of_u, of_v = covariance.unbind(-2)
    rows = torch.stack([in_u * of_u, of_v / 2, in_d * of_u], -2)
    of_u, of_v = rows.unbind(-1)
    return torch.stack([in_u * of_u, of_v / 2, in_d * of_u], -1)
