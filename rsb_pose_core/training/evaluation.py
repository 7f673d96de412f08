"""Errors of a network on stored pairs, with and without moving the right crop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rsb_pose_core.geometry import triangulate_clamped
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.models.rsb_pose import STRIDE, StereoHeatmaps, co_keypoints
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.augmentation import STORED_CROP, evaluation_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.pool import PairPool

PerJoint = Float[Tensor, 'pairs joints']


@dataclass(frozen=True)
class JointErrors:
    """Per joint: 2D and disparity in heat-map pixels of a 64-cell map, 3D in mm.

    counted: inside both crops and with a true position; visible: seen in the left view.
    """

    uv: PerJoint
    disparity: PerJoint
    absolute_mm: PerJoint
    relative_mm: PerJoint
    counted: Bool[Tensor, 'pairs joints']
    visible: Bool[Tensor, 'pairs joints']

    def summary(self) -> dict[str, float]:
        """Medians and means over what is counted; NaN where nothing is."""
        groups = {
            '': self.counted,
            '_visible': self.counted & self.visible,
            '_occluded': self.counted & ~self.visible,
        }
        out: dict[str, float] = {}
        for suffix, chosen in groups.items():
            for name in ('uv', 'disparity', 'absolute_mm', 'relative_mm'):
                values = getattr(self, name)[chosen]
                out[f'{name}_median{suffix}'] = (
                    float(values.median()) if len(values) else torch.nan
                )
                out[f'{name}_mean{suffix}'] = float(values.mean()) if len(values) else torch.nan
        return out


def joint_errors(
    heatmaps: StereoHeatmaps, batch: StereoBatch, refiner: PoseTransformer | None = None
) -> JointErrors:
    """Errors of one batch. Joints beyond 20 m count as 20 m away, as in the losses."""
    uvd = co_keypoints(heatmaps).uvd
    xyz = triangulate_clamped(uvd, batch.calibration)
    if refiner is not None:
        xyz = refiner.refine(xyz)
    true_disparity = batch.uv_left[..., 0] - batch.uv_right[..., 0]
    cells = STORED_CROP / batch.side / STRIDE
    root = H36M_17.root
    moved = (xyz - xyz[:, [root]]) - (batch.xyz_m - batch.xyz_m[:, [root]])
    return JointErrors(
        uv=(uvd[..., :2] - batch.uv_left).norm(dim=-1) * cells,
        disparity=(uvd[..., 2] - true_disparity).abs() * cells,
        absolute_mm=(xyz - batch.xyz_m).norm(dim=-1) * 1000,
        relative_mm=moved.norm(dim=-1) * 1000,
        counted=batch.in_view(0) & batch.in_view(1) & batch.xyz_m.isfinite().all(-1),
        visible=batch.visibility[:, 0] == 0,
    )


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    pool: PairPool,
    *,
    input_size: int = STORED_CROP,
    jitter_px: int = 0,
    limit: int | None = None,
    chosen: Sequence[int] | None = None,
    batch_size: int = 16,
    device: torch.device | None = None,
    bf16: bool = False,
    refiner: PoseTransformer | None = None,
) -> dict[str, dict[str, float]]:
    """Summaries by method: 'network' (co-heatmap, if there is one), 'refined' (the same after the
    refiner, if there is one) and 'heatmaps' (each view by itself). Of the first `limit` pairs, or
    of those `chosen`.

    The model is left in the mode it was in.
    """
    device = device or torch.device('cpu')
    numbers = range(min(len(pool), limit or len(pool))) if chosen is None else chosen
    found: dict[str, list[JointErrors]] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(numbers), batch_size):
        indices = list(numbers[start : start + batch_size])
        batch = evaluation_batch(pool, indices, input_size, jitter_px).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            heatmaps: StereoHeatmaps = model(*batch.images())
        if heatmaps.co_heatmap is not None:
            found.setdefault('network', []).append(joint_errors(heatmaps, batch))
            if refiner is not None:
                found.setdefault('refined', []).append(joint_errors(heatmaps, batch, refiner))
        independent = replace(heatmaps, co_heatmap=None)
        found.setdefault('heatmaps', []).append(joint_errors(independent, batch))
    model.train(was_training)
    return {method: _join(parts).summary() for method, parts in found.items()}


def _join(parts: list[JointErrors]) -> JointErrors:
    names = ('uv', 'disparity', 'absolute_mm', 'relative_mm', 'counted', 'visible')
    return JointErrors(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def table(results: dict[str, dict[str, float]], title: str) -> str:
    """The summaries as lines of text: 2D and disparity in cells of 1/64 crop, 3D in mm."""
    lines = [
        f'{title:24s} {"2D":>11s} {"disparity":>13s} {"MPJPE_ab":>13s} '
        f'{"MPJPE_re":>13s} {"ab visible":>11s} {"ab occluded":>11s}   (median/mean)'
    ]
    for method, s in results.items():
        lines.append(
            f'{method:24s} {s["uv_median"]:5.2f}/{s["uv_mean"]:5.2f} '
            f'{s["disparity_median"]:6.3f}/{s["disparity_mean"]:6.3f} '
            f'{s["absolute_mm_median"]:6.0f}/{s["absolute_mm_mean"]:6.0f} '
            f'{s["relative_mm_median"]:6.0f}/{s["relative_mm_mean"]:6.0f} '
            f'{s["absolute_mm_median_visible"]:11.0f} {s["absolute_mm_median_occluded"]:11.0f}'
        )
    return '\n'.join(lines)
