"""Checks of a prepared recording: numbers that a wrong calibration spoils, and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from rsb_pose_core.datasets.prepared import PreparedPair, pixels
from rsb_pose_core.detection.boxes import Box
from rsb_pose_core.drawing import INK, PAPER, draw_people
from rsb_pose_core.geometry import triangulate
from rsb_pose_core.people import JointState, PersonPose
from rsb_pose_core.synthesis.labels import OUTSIDE, VISIBLE

MATCH_RATIO = 0.75  # of the best to the second best descriptor, as D. Lowe has it
FEATURES = 800
FEWEST_MATCHES = 30
# What is right stays below these: laboratories reach a quarter of a pixel between the rows.
LARGEST_ROW_ERROR_PX = 1.0
LARGEST_OUTSIDE_SHARE = 0.25
LARGEST_REPROJECTION_MM = 0.5

JOINTS_WITH_ROWS = (0, 5, 6, 8, 9, 10, 15)  # ankles, pelvis, neck, head, wrists


@dataclass(frozen=True)
class Check:
    """What a recording's pairs show.

    outside_share: of the joints in either picture; nearest_m: smallest depth of a joint;
    reprojection_mm: largest distance of a joint, put into both pictures and triangulated, from
    itself; row_error_px: median distance between the rows in which both pictures show the same
    spot, over `matches` spots, NaN where there are none.
    """

    outside_share: float
    nearest_m: float
    reprojection_mm: float
    row_error_px: float
    matches: int

    def warnings(self) -> list[str]:
        """Sentences about what cannot be with the right calibration."""
        found = []
        if not self.nearest_m > 0:
            found.append(f'a joint lies {self.nearest_m:.2f} m before the cameras')
        if self.outside_share > LARGEST_OUTSIDE_SHARE:
            found.append(f'{self.outside_share:.0%} of the joints lie outside the pictures')
        if not self.reprojection_mm < LARGEST_REPROJECTION_MM:
            found.append(f'joints come back {self.reprojection_mm:.1f} mm from where they were')
        if self.matches >= FEWEST_MATCHES and self.row_error_px > LARGEST_ROW_ERROR_PX:
            found.append(
                f'the pictures show the same spots {self.row_error_px:.1f} rows apart (median of '
                f'{self.matches} spots)'
            )
        return [f'{text}; is it the calibration of these cameras?' for text in found]


def check_recording(
    pairs: Sequence[PreparedPair],
    xyz_m: Float[np.ndarray, 'pairs joints 3'],
    visibility: UInt8[np.ndarray, 'pairs 2 joints'],
) -> Check:
    """The numbers of a recording: of all its joints and of some of its pairs' pictures."""
    depth = xyz_m[..., 2]
    errors = np.concatenate([row_errors(pair.left, pair.right) for pair in pairs])
    return Check(
        outside_share=float((visibility == OUTSIDE).mean()),
        nearest_m=float(np.nanmin(depth)) if np.isfinite(depth).any() else float('nan'),
        reprojection_mm=max(map(reprojection_mm, pairs)),
        row_error_px=float(np.median(np.abs(errors))) if len(errors) else float('nan'),
        matches=len(errors),
    )


def row_errors(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> Float[np.ndarray, ' n']:
    """Row in the left less that in the right picture of spots that both show (SIFT), pixels."""
    sift = cv2.SIFT_create(FEATURES)  # type: ignore[attr-defined]
    points, descriptors = [], []
    for picture in (left, right):
        spots, described = sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
        if described is None or len(spots) < 2:
            return np.zeros(0)
        points.append(spots)
        descriptors.append(described)
    found = [
        points[0][best.queryIdx].pt[1] - points[1][best.trainIdx].pt[1]
        for best, second in cv2.BFMatcher(cv2.NORM_L2).knnMatch(
            descriptors[0], descriptors[1], k=2
        )
        if best.distance < MATCH_RATIO * second.distance
    ]
    return np.array(found, np.float64)


def reprojection_mm(pair: PreparedPair) -> float:
    """Largest distance of a joint from where both pictures' single-precision pixels put it."""
    left, right = (uv.astype(np.float32) for uv in pixels(pair.xyz_m, pair.calibration))
    uvd = torch.from_numpy(np.concatenate([left, left[:, :1] - right[:, :1]], 1)).double()
    apart = np.linalg.norm(triangulate(uvd, pair.calibration).numpy() - pair.xyz_m, axis=-1)
    return float(np.nanmax(apart) * 1000) if np.isfinite(apart).any() else float('nan')


def check_picture(pair: PreparedPair, title: str) -> UInt8[np.ndarray, 'h w 3']:
    """Both views side by side, RGB, with the joints and the rows of some of them.

    Joints that a view shows are discs, others crosses. A row that leaves its spot in the right
    view shows a wrong rectification, a joint beside its limb a wrong calibration or motion.
    """
    views = []
    uvs = pixels(pair.xyz_m, pair.calibration)
    for side, name in enumerate(('left', 'right')):
        states = np.where(pair.visibility[side] == VISIBLE, JointState.MEASURED, 0)
        states[states == 0] = JointState.INFERRED
        picture = (pair.left, pair.right)[side]
        views.append(draw_people(picture, [_person(pair, uvs, states)], view=name))
    canvas = np.concatenate(views, axis=1)
    for joint in JOINTS_WITH_ROWS:
        row = uvs[0][joint, 1]
        if np.isfinite(row) and 0 <= row < len(canvas):
            _dotted_row(canvas, round(float(row)))
    for color, thickness in ((PAPER, 3), (INK, 1)):
        cv2.putText(
            canvas, title, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness, cv2.LINE_AA
        )
    return canvas


def _dotted_row(canvas: NDArray[np.uint8], row: int) -> None:
    """Every other six pixels of a row, brighter: what lies below stays to be seen."""
    dots = (np.arange(canvas.shape[1]) // 6) % 2 == 0
    canvas[row, dots] = canvas[row, dots] // 2 + 127


def _person(
    pair: PreparedPair,
    uvs: tuple[NDArray[np.float64], NDArray[np.float64]],
    states: NDArray[np.int64],
) -> PersonPose:
    joints = len(pair.xyz_m)
    return PersonPose(
        xyz_m=pair.xyz_m,
        covariance_m2=np.zeros((joints, 3, 3)),
        confidence=np.ones(joints),
        state=states.astype(np.uint8),
        uv_left=uvs[0],
        uv_right=uvs[1],
        box_left=Box(*pair.box_left),
        box_right=Box(*pair.box_right),
        velocity_mps=np.zeros(3),
    )
