"""Fig. 1A: how 2D errors grow in 3D as the baseline shrinks, measured and by theory.

Poses of held-out motion stand midway before two rectified views whose pictures have no edges.
Gaussian noise moves every joint in both views; triangulated again, it errs in 3D.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.experiments.agreement import Agreement, view_agreement
from rsb_pose_core.experiments.baseline_figure import Point, draw
from rsb_pose_core.experiments.methods import HeldOut, named_weights
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.geometry import (
    metric_disparity,
    position_covariance,
    project,
    triangulate_views,
)
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.clips import pose_library, read_motion, split_of

BASELINES_MM = (30, 50, 75, 100, 150, 220, 300, 500, 750, 1000, 1500, 2000, 3000)
# The paper's N(0, 10): a variance of 10 px^2, or a standard deviation of 10 px.
NOISES_PX = (math.sqrt(10.0), 10.0)

Points = Float[Tensor, 'poses joints 3']


@dataclass(frozen=True)
class Camera:
    """Focal length in pixels and the range of distances of people, of a data set of the paper."""

    focal_px: float
    nearest_m: float
    farthest_m: float


CAMERAS = {'mhad': Camera(533.0, 2.0, 3.3), 'h36m': Camera(1145.0, 4.0, 6.0)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Motion, noise and size of the experiment."""
    parser.add_argument('--data', type=Path, required=True, help='folder with motion/')
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument('--camera', choices=list(CAMERAS), default='mhad', help='of the figure')
    parser.add_argument('--poses', type=int, default=400, help='held-out poses')
    parser.add_argument('--draws', type=int, default=5, help='of the noise, for each pose')
    parser.add_argument(
        '--correlations', type=float, nargs='+', default=[0.93, 0.99], metavar='R',
        help="of the two views' errors along rows, for views that agree",
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0)
    measured = parser.add_argument_group(
        'how far the views of networks agree (they need pictures)'
    )
    measured.add_argument('--weights', nargs='+', default=[], metavar='NAME=FILE')
    measured.add_argument('--pairs', metavar='PAIRS', help='shards, or the folder of a test set')
    measured.add_argument('--limit', type=int, default=300, help='at most so many pairs (300)')


def run(args: argparse.Namespace) -> int:
    """Measure, hold against theory, write the table and the figure."""
    if min(args.poses, args.draws) < 1 or not all(0 < r < 1 for r in args.correlations):
        raise ConfigError(
            'expected --poses and --draws of at least 1 and --correlations between 0 and 1'
        )
    if bool(args.weights) != bool(args.pairs):
        raise ConfigError('give --weights and --pairs together, or neither')
    agreements = {
        name: view_agreement(path, HeldOut(args.pairs, args.limit, 12), 'cpu')
        for name, path in named_weights(args.weights).items()
    }
    poses = held_out_poses(args.data / 'motion', args.poses, args.seed)
    sweeps = list(product(CAMERAS, NOISES_PX, (0.0, *args.correlations)))
    points: list[Point] = []
    for name, noise, correlation in tqdm(sweeps, desc='noise', unit='sweep'):
        points += sweep(poses, name, noise, correlation, args.draws, args.seed)
    results = {
        'poses': args.poses,
        'draws': args.draws,
        'cameras': {name: asdict(camera) for name, camera in CAMERAS.items()},
        'points': [asdict(point) for point in points],
        'slopes': slopes(points),
        'agreements': {name: asdict(found) for name, found in agreements.items()},
    }
    shown = [point for point in points if point.camera == args.camera]
    camera = CAMERAS[args.camera]
    depth = (camera.nearest_m + camera.farthest_m) / 2
    figure = draw(shown, camera.focal_px, depth, args.seed)
    write_results(args.out, results, report(points) + agreement_table(agreements), figure)
    return 0


def held_out_poses(motion: Path, count: int, seed: int) -> Points:
    """Poses of the test split's clips in metres, the pelvis at the origin, turned at random.

    Axes of a camera that a person at rest looks at: x right, y down, z away from it.
    """
    clips = [clip for clip in read_motion(motion) if split_of(clip) == 'test']
    if not clips:
        raise DataError(f'{motion}: no clip of the test split; give the whole motion folder')
    rng = np.random.default_rng(seed)
    library = pose_library(clips)
    some = library[rng.permutation(len(library))[:count]].astype(np.float64)
    some = (some - some[:, [H36M_17.root]]) * (1.0, -1.0, -1.0)
    yaw = rng.uniform(-math.pi, math.pi, len(some))
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    x, y, z = np.moveaxis(some, -1, 0)
    return torch.from_numpy(np.stack([cos * x + sin * z, y, cos * z - sin * x], -1))


def sweep(
    poses: Points, camera: str, noise_px: float, correlation: float, draws: int, seed: int
) -> list[Point]:
    """All baselines with the same poses at the same distances and the same noise."""
    setting = CAMERAS[camera]
    random = torch.Generator().manual_seed(seed)
    away = torch.rand(len(poses), 1, generator=random, dtype=torch.float64)
    depth = setting.nearest_m + away * (setting.farthest_m - setting.nearest_m)
    unit = torch.randn(draws, *poses.shape[:2], 4, generator=random, dtype=torch.float64)
    noise_left, noise_right = noise_of_views(unit, noise_px, correlation)
    points = []
    for baseline_mm in BASELINES_MM:
        calibration = rectified_pair(setting.focal_px, baseline_mm / 1000)
        middle = torch.full_like(depth, baseline_mm / 2000)
        xyz = poses + torch.stack([middle, torch.zeros_like(depth), depth], -1)
        uvd = project(xyz, calibration)
        uv_left = uvd[..., :2] + noise_left
        uv_right = uvd[..., :2] - uvd[..., 2:] * uvd.new_tensor([1.0, 0.0]) + noise_right
        found = triangulate_views(uv_left, uv_right, calibration)
        errors_mm = 1000 * (found - xyz).norm(dim=-1)
        behind = uv_left[..., 0] <= uv_right[..., 0]
        covariance = uvd_covariance(noise_px, correlation)
        spread = position_covariance(uvd, covariance.expand(*uvd.shape, 3), calibration)
        relative = covariance[2, 2].sqrt() / metric_disparity(uvd, calibration)
        points.append(
            Point(
                camera=camera,
                noise_px=noise_px,
                correlation=correlation,
                baseline_mm=float(baseline_mm),
                mean_mm=float(errors_mm.mean()),
                median_mm=float(errors_mm.median()),
                lost=float(behind.double().mean()),
                theory_mm=1000 * float(mean_length(spread).mean()),
                disparity_noise=float(relative.median()),
            )
        )
    return points


def rectified_pair(focal_px: float, baseline_m: float) -> StereoCalibration:
    """Two level views with the origin of their pictures on the optical axes."""
    return StereoCalibration.from_values(focal_px, focal_px, 0.0, 0.0, 0.0, baseline_m)


def noise_of_views(
    unit: Float[Tensor, '*draws joints 4'], noise_px: float, correlation: float
) -> tuple[Float[Tensor, '*draws joints 2'], Float[Tensor, '*draws joints 2']]:
    """Errors of (u, v) in the left and the right view from four unit normal numbers.

    In each view alone every column and row errs by noise_px, however the views agree. Independent
    views (correlation 0) disagree about the row too; views that agree have one row between them.
    """
    first, second, row_left, row_right = unit.unbind(-1)
    right = correlation * first + math.sqrt(1 - correlation**2) * second
    left_view = noise_px * torch.stack([first, row_left], -1)
    return left_view, noise_px * torch.stack([right, row_left if correlation else row_right], -1)


def uvd_covariance(noise_px: float, correlation: float) -> Float[Tensor, '3 3']:
    """Covariance of (u, v, disparity) under `noise_of_views`, px^2.

    Where the rows differ, the triangulation is at their mean, of half the variance.
    """
    row = 1.0 if correlation else 0.5
    apart = 1 - correlation
    matrix = [[1.0, 0.0, apart], [0.0, row, 0.0], [apart, 0.0, 2 * apart]]
    return noise_px**2 * torch.tensor(matrix, dtype=torch.float64)


def mean_length(covariance: Float[Tensor, '*batch 3 3'], nodes: int = 64) -> Tensor:
    """Expected length (*batch,) of a Gaussian vector of mean 0 with this covariance.

    With eigenvalues l_i and ratios r_i to the largest, l:
    sqrt(2 l / pi) * integral over 0..pi/2 of (1 - prod(1 + r_i tan^2 a)^-1/2) / sin^2 a,
    from E sqrt(q) = 1 / (2 sqrt(pi)) * integral of t^-3/2 (1 - E exp(-t q)).
    """
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp_min(0.0)
    largest = eigenvalues[..., -1:]
    ratios = (eigenvalues / largest)[..., None]
    position, weight = np.polynomial.legendre.leggauss(nodes)
    angle = torch.from_numpy((position + 1) * math.pi / 4)
    integrand = 1 - (1 + ratios * angle.tan() ** 2).rsqrt().prod(dim=-2)
    weights = torch.from_numpy(weight * math.pi / 4) / angle.sin() ** 2
    length: Tensor = (2 * largest[..., 0] / math.pi).sqrt() * (integrand * weights).sum(-1)
    return length


def slopes(points: Sequence[Point]) -> list[dict[str, float | str]]:
    """d log error / d log baseline from 100 to 500 mm: -1 where depth carries the error."""
    found: list[dict[str, float | str]] = []
    for kind in dict.fromkeys((p.camera, p.noise_px, p.correlation) for p in points):
        ends = {
            point.baseline_mm: point
            for point in points
            if (point.camera, point.noise_px, point.correlation) == kind
        }
        near, far = ends[100.0], ends[500.0]
        found.append(
            {
                'camera': kind[0],
                'noise_px': kind[1],
                'correlation': kind[2],
                'measured_median': math.log(far.median_mm / near.median_mm) / math.log(5.0),
                'theory': math.log(far.theory_mm / near.theory_mm) / math.log(5.0),
            }
        )
    return found


def report(points: Sequence[Point]) -> str:
    """Markdown: one table for each camera and noise, one row for each baseline."""
    text = '# Fig. 1A: 3D error against baseline\n\nThe paper draws this figure without numbers.\n'
    agreeing = sorted({point.correlation for point in points} - {0.0})
    header = (
        'baseline, mm', 'median, mm', 'mean', 'first order', 'mean / first order',
        'noise / disparity', 'behind', *(f'mean, agree to {r:g}' for r in agreeing),
    )  # fmt: skip
    for camera, noise in dict.fromkeys((p.camera, p.noise_px) for p in points):
        here = {
            (p.baseline_mm, p.correlation): p
            for p in points
            if (p.camera, p.noise_px) == (camera, noise)
        }
        setting = CAMERAS[camera]
        text += (
            f'\n## {camera}: {setting.focal_px:.0f} px at {setting.nearest_m} to '
            f'{setting.farthest_m} m, noise of {noise:.2f} px in each view\n\n'
        )
        rows = []
        for baseline in BASELINES_MM:
            p = here[baseline, 0.0]
            rows.append(
                (
                    f'{baseline}', f'{p.median_mm:.0f}', f'{p.mean_mm:.0f}',
                    f'{p.theory_mm:.0f}', f'{p.mean_mm / p.theory_mm:.2f}',
                    f'{p.disparity_noise:.2f}', f'{100 * p.lost:.1f} %',
                    *(f'{here[baseline, r].mean_mm:.0f}' for r in agreeing),
                )
            )  # fmt: skip
        text += markdown(header, rows)
    return text


def agreement_table(found: Mapping[str, Agreement]) -> str:
    """Markdown: how far the views of networks agree; nothing where none was measured."""
    if not found:
        return ''
    header = ('network', 'error of the left column, px', 'of the disparity', 'correlation')
    rows = [(name, a.left_px, a.disparity_px, a.correlation) for name, a in found.items()]
    return '\n## Errors along rows of networks, medians in pixels of a crop of 256\n\n' + markdown(
        header, rows
    )
