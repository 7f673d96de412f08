"""Errors of any method on stored pairs: before and after the Pose Transformer, in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from rsb_pose_core.metrics import (
    JointErrors,
    box_widths,
    distribution,
    feature_similarity,
    joint_errors_mm,
    torso_lengths,
)
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.models.estimate import StereoEstimate, StereoOutput
from rsb_pose_core.models.keypoints import STRIDE
from rsb_pose_core.models.rsb_pose import StereoHeatmaps
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.augmentation import STORED_CROP, Pairs, evaluation_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.pool import PairPool

BATCH_SIZE = 16


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What a method said of N pairs, by their numbers in the pool: positions and their errors.

    xyz_m: (N,J,3), rectified left optical frame. Everything is on the CPU, in float64.
    """

    numbers: tuple[int, ...]
    xyz_m: Float[Tensor, 'pairs joints 3']
    errors: JointErrors


@torch.inference_mode()
def evaluate_method(
    method: nn.Module,
    pool: Pairs,
    *,
    refiner: PoseTransformer | None = None,
    input_size: int = STORED_CROP,
    jitter_px: int = 0,
    numbers: Sequence[int] | None = None,
    device: torch.device | None = None,
    bf16: bool = False,
    progress: str | None = None,
) -> dict[str, Evaluated]:
    """Evaluate a models.estimate.StereoMethod on the pairs with these numbers (all by default).

    The result has 'initial', the method's own joints; with a refiner 'refined', the same after it
    (Fig. 7); of a method with a co-heatmap also 'heatmaps', each view by itself. 2D figures of
    'refined' are those of the keypoints before it. Pairs are cut at `input_size` pixels, the right
    crop moved by up to `jitter_px` stored pixels, always the same for a pair. `progress` names a
    progress bar. Both networks are left in the mode they were in.
    """
    device = device or torch.device('cpu')
    numbers = range(len(pool)) if numbers is None else numbers
    networks = [network for network in (method, refiner) if network is not None]
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    found: dict[str, list[tuple[Tensor, JointErrors]]] = {}
    with tqdm(total=len(numbers), desc=progress, unit='pair', disable=progress is None) as bar:
        for start in range(0, len(numbers), BATCH_SIZE):
            some = list(numbers[start : start + BATCH_SIZE])
            batch = evaluation_batch(pool, some, input_size, jitter_px)
            for stage, estimate, output in _stages(method, refiner, batch.to(device), bf16):
                parts = found.setdefault(stage, [])
                parts.append(
                    (estimate.xyz_m.cpu().double(), joint_errors(estimate, output, batch))
                )
            bar.update(len(some))
    for network, mode in zip(networks, modes, strict=True):
        network.train(mode)
    return {
        stage: Evaluated(
            tuple(numbers),
            torch.cat([xyz for xyz, _ in parts]),
            JointErrors.join([errors for _, errors in parts]),
        )
        for stage, parts in found.items()
    }


def _stages(
    method: nn.Module, refiner: PoseTransformer | None, batch: StereoBatch, bf16: bool
) -> list[tuple[str, StereoEstimate, StereoOutput]]:
    """The estimates of a batch by stage. Only the network itself may run in half precision."""
    with torch.autocast(batch.left.device.type, torch.bfloat16, enabled=bf16):
        output: StereoOutput = method(*batch.images(), batch.calibration)
    initial = output.estimate(batch.calibration)
    stages: list[tuple[str, StereoEstimate, StereoOutput]] = [('initial', initial, output)]
    if refiner is not None:
        refined = initial.with_positions(
            refiner.refine(initial.xyz_m, confidence=initial.confidence)
        )
        stages.append(('refined', refined, output))
    if isinstance(output, StereoHeatmaps) and output.co_heatmap is not None:
        views = replace(output, co_heatmap=None)
        stages.append(('heatmaps', views.estimate(batch.calibration), views))
    return stages


def joint_errors(
    estimate: StereoEstimate, output: StereoOutput, batch: StereoBatch
) -> JointErrors:
    """Errors of the estimate of a batch, which is on the CPU, in float64.

    Counted are joints that have a true position and are inside both crops and pictures.
    """
    xyz_m, true_m = estimate.xyz_m.cpu().double(), batch.xyz_m.double()
    true_uv = [batch.uv_left.double(), batch.uv_right.double()]
    nothing = torch.full_like(true_m[..., 0], torch.nan)
    uv_px, disparity_px, similarity = None, nothing, nothing
    if estimate.uv_left is not None and estimate.uv_right is not None:
        uv = [view.cpu().double() for view in (estimate.uv_left, estimate.uv_right)]
        off = [found - true for found, true in zip(uv, true_uv, strict=True)]
        uv_px = torch.stack([torch.linalg.vector_norm(view, dim=-1) for view in off], 1)
        disparity_px = (off[0] - off[1])[..., 0].abs()
        left, right = output.features_left, output.features_right
        if left is not None and right is not None:
            similarity = feature_similarity(
                left, right, estimate.uv_left, estimate.uv_right, batch.side
            )
    return JointErrors(
        absolute_mm=joint_errors_mm(xyz_m, true_m),
        relative_mm=joint_errors_mm(xyz_m, true_m, root=H36M_17.root),
        uv_px=uv_px,
        disparity_px=disparity_px,
        similarity=similarity.cpu().double(),
        depth_m=true_m[..., 2],
        visibility=batch.visibility,
        counted=batch.in_view(0) & batch.in_view(1) & true_m.isfinite().all(-1),
        rooted=true_m[:, H36M_17.root].isfinite().all(-1),
        crop_side_px=torch.full((len(batch),), float(batch.side), dtype=torch.float64),
        box_width_px=torch.stack([box_widths(uv) for uv in true_uv], 1),
        torso_px=torch.stack([torso_lengths(uv) for uv in true_uv], 1),
    )


# ---- what training looks at ----


def evaluate(
    model: nn.Module,
    pool: PairPool,
    *,
    input_size: int = STORED_CROP,
    jitter_px: int = 0,
    limit: int | None = None,
    device: torch.device | None = None,
    bf16: bool = False,
    refiner: PoseTransformer | None = None,
) -> dict[str, dict[str, float]]:
    """Summaries of the first `limit` pairs by stage (see evaluate_method), while training.

    Medians and means of uv (left view) and disparity in cells of a map of 64, and of absolute_mm
    and relative_mm; of all joints and of those that the left view shows and hides: ..._visible,
    ..._occluded.
    """
    results = evaluate_method(
        model,
        pool,
        refiner=refiner,
        input_size=input_size,
        jitter_px=jitter_px,
        numbers=range(min(len(pool), limit or len(pool))),
        device=device,
        bf16=bf16,
    )
    return {stage: _summary(found.errors, input_size) for stage, found in results.items()}


def _summary(errors: JointErrors, input_size: int) -> dict[str, float]:
    cells = STORED_CROP / input_size / STRIDE
    values = {
        'disparity': errors.disparity_px * cells,
        'absolute_mm': errors.absolute_mm,
        'relative_mm': errors.relative_mm,
    }
    if errors.uv_px is not None:
        values['uv'] = errors.uv_px[:, 0] * cells
    groups = {'': errors.counted, '_visible': errors.visible, '_occluded': errors.occluded}
    out: dict[str, float] = {}
    for suffix, group in groups.items():
        for name, value in values.items():
            found = distribution(value[group])
            out[f'{name}_median{suffix}'] = found.median
            out[f'{name}_mean{suffix}'] = found.mean
    return out


def table(results: dict[str, dict[str, float]], title: str) -> str:
    """The summaries as lines of text: 2D and disparity in cells of 1/64 crop, 3D in mm."""
    lines = [
        f'{title:24s} {"2D":>11s} {"disparity":>13s} {"MPJPE_ab":>13s} '
        f'{"MPJPE_re":>13s} {"ab visible":>11s} {"ab occluded":>11s}   (median/mean)'
    ]
    for stage, s in results.items():
        uv = [s.get(f'uv_{kind}', torch.nan) for kind in ('median', 'mean')]
        lines.append(
            f'{stage:24s} {uv[0]:5.2f}/{uv[1]:5.2f} '
            f'{s["disparity_median"]:6.3f}/{s["disparity_mean"]:6.3f} '
            f'{s["absolute_mm_median"]:6.0f}/{s["absolute_mm_mean"]:6.0f} '
            f'{s["relative_mm_median"]:6.0f}/{s["relative_mm_mean"]:6.0f} '
            f'{s["absolute_mm_median_visible"]:11.0f} {s["absolute_mm_median_occluded"]:11.0f}'
        )
    return '\n'.join(lines)
