"""A sheet of what a network sees and says, to look at while it trains."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rsb_pose_core.drawing import INK, PAPER, bone_colors
from rsb_pose_core.geometry import project
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.batches import StereoBatch

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

SUBPIXEL_BITS = 4
TRUTH: Color = (255, 255, 255)


def prediction_sheet(xyz_m: Float[Tensor, 'batch joints 3'], batch: StereoBatch) -> Image:
    """One row a pair, left view and right: the estimate in colours over the truth in white.

    xyz_m: estimated joints in metres; both poses are projected into the crops. RGB,
    (B side, 2 side, 3).
    """
    rows = []
    estimated, true = (views_of(xyz, batch) for xyz in (xyz_m, batch.xyz_m))
    for row in range(len(batch)):
        views = []
        for view, images in enumerate((batch.left, batch.right)):
            canvas = np.ascontiguousarray(images[row].permute(1, 2, 0).cpu().numpy())
            draw_skeleton(canvas, true[view][row], (TRUTH,) * len(H36M_17.bones), 1)
            draw_skeleton(canvas, estimated[view][row], bone_colors(), 2)
            views.append(canvas)
        error_mm = 1000 * (xyz_m[row] - batch.xyz_m[row]).norm(dim=-1).cpu()
        text = f'{float(error_mm.nanmean()):.0f} mm'
        for color, thickness in ((PAPER, 3), (INK, 1)):
            cv2.putText(
                views[0], text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness,
                cv2.LINE_AA,
            )  # fmt: skip
        rows.append(np.concatenate(views, 1))
    return np.concatenate(rows)


def views_of(
    xyz_m: Float[Tensor, 'batch joints 3'], batch: StereoBatch
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (B,J,2) of joints in the left crops and in the right."""
    uvd = project(xyz_m.double(), batch.calibration).cpu()
    right = torch.stack([uvd[..., 0] - uvd[..., 2], uvd[..., 1]], -1)
    return uvd[..., :2].numpy(), right.numpy()


def draw_skeleton(
    canvas: Image, uv: NDArray[np.float64], colors: Sequence[Color], thickness: int
) -> None:
    """Bones (in the order of H36M_17.bones) onto an image; those with an unknown end are left out.

    uv: (J,2) pixels.
    """
    for (parent, child), color in zip(H36M_17.bones, colors, strict=True):
        ends = uv[[parent, child]]
        if not np.isfinite(ends).all():
            continue
        # cv2 counts in fixed point, up to some thousand pixels
        first, last = (np.clip(ends, -4000, 8000) * 2**SUBPIXEL_BITS).round().astype(int).tolist()
        cv2.line(canvas, first, last, PAPER, thickness + 1, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.line(canvas, first, last, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
