"""A textured, person-shaped thing in front of a background, seen by an ideal stereo pair."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import project

# A standing person in metres, pelvis at the origin, x right, y down, in the order of H36M_17.
STANDING_M = np.array([
    (-0.14, 0.88, 0.02), (-0.12, 0.46, 0.0), (-0.11, 0.02, 0.0),
    (0.11, 0.02, 0.0), (0.13, 0.45, -0.04), (0.15, 0.87, 0.03),
    (0.0, 0.0, 0.0), (0.0, -0.24, 0.0), (0.0, -0.48, 0.02), (0.0, -0.70, 0.0),
    (-0.36, 0.06, -0.12), (-0.28, -0.18, -0.02), (-0.18, -0.42, 0.02),
    (0.18, -0.42, 0.02), (0.27, -0.19, 0.03), (0.33, 0.04, -0.10), (0.0, -0.58, -0.08),
])  # fmt: skip
LIMBS = ((0, 1), (1, 2), (3, 4), (4, 5), (10, 11), (11, 12), (13, 14), (14, 15), (8, 9))


@dataclass(frozen=True)
class Scene:
    """Rectified RGB views (H, W, 3), the joints' XYZ and their (u, v, disparity)."""

    left: np.ndarray
    right: np.ndarray
    xyz_m: np.ndarray
    uvd: np.ndarray
    calibration: StereoCalibration

    @property
    def grey(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (self.left, self.right))


def camera(
    width: int = 640, height: int = 480, cx_offset: float = 0.0, baseline_m: float = 0.12
) -> StereoCalibration:
    focal = 0.72 * width
    cx = (width - 1) / 2 + 3.0
    return StereoCalibration.from_values(
        focal, focal, cx, cx - cx_offset, (height - 1) / 2 - 2.0, baseline_m
    )


def texture(rng: np.random.Generator, size: tuple[int, int], contrast: float) -> np.ndarray:
    """Cloth or wall: blurred noise at three scales, (H, W, 3) floats about 0."""
    height, width = size
    layers = np.zeros((height, width, 3))
    for cell in (3, 9, 31):
        noise = rng.normal(size=(height // cell + 2, width // cell + 2, 3))
        layers += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return contrast * layers / 1.7


def render(
    rng: np.random.Generator,
    *,
    depth_m: float = 2.5,
    offset_x: float = 0.0,
    calibration: StereoCalibration | None = None,
    size: tuple[int, int] = (480, 640),
    background_m: float = 5.0,
    cloth_contrast: float = 25.0,
    wall_contrast: float = 25.0,
    gain: float = 1.0,
    noise: float = 2.0,
    person: bool = True,
) -> Scene:
    """Draw the standing person as a billboard at `depth_m` in front of a wall."""
    calibration = calibration or camera(size[1], size[0])
    xyz = STANDING_M + np.array([offset_x, 0.02, depth_m])
    uvd = project(torch.from_numpy(xyz), calibration).numpy()
    fx, _, cx_left, cx_right, _, baseline = (v.item() for v in calibration.fields())
    shift = [fx * baseline / z + cx_left - cx_right for z in (background_m, depth_m)]
    height, width = size
    margin = int(max(shift)) + 2
    wall, cloth = (
        texture(rng, (height, width + 2 * margin), contrast) + mean
        for contrast, mean in ((wall_contrast, 120.0), (cloth_contrast, 90.0))
    )
    mask = np.zeros((height, width + 2 * margin), np.uint8)
    uv = uvd[:, :2] + [margin, 0]
    if person:
        _draw_body(mask, uv, thickness=max(2, round(0.13 * fx / depth_m)))
    views = []
    for view in (0, 1):
        layer = _moved(wall, shift[0] * view)[:, margin : margin + width]
        body = _moved(cloth, shift[1] * view)[:, margin : margin + width]
        alpha = _moved(mask.astype(float), shift[1] * view)[:, margin : margin + width, None] / 255
        image = (layer * (1 - alpha) + body * alpha) * (gain if view else 1.0)
        image = image + rng.normal(scale=noise, size=image.shape)
        views.append(image.round().clip(0, 255).astype(np.uint8))
    return Scene(views[0], views[1], xyz, uvd, calibration)


def _draw_body(mask: np.ndarray, uv: np.ndarray, thickness: int) -> None:
    points = uv.round().astype(int)
    for a, b in LIMBS:
        cv2.line(mask, tuple(map(int, points[a])), tuple(map(int, points[b])), 255, thickness)
    torso = points[[12, 13, 3, 2]]
    cv2.fillConvexPoly(mask, torso, 255)
    cv2.polylines(mask, [torso], True, 255, thickness)
    cv2.circle(mask, tuple(map(int, points[9])), thickness, 255, -1)


def _moved(image: np.ndarray, left_by: float) -> np.ndarray:
    """Shift columns to the left by a number that need not be whole."""
    x, y = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0]))
    return cv2.remap(
        image.astype(np.float32),
        (x + left_by).astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
