"""Triangulation, projection and their covariance in a rectified pair."""

import pytest
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import (
    FARTHEST_M,
    metric_disparity,
    position_covariance,
    position_jacobian,
    project,
    triangulate,
    triangulate_clamped,
    triangulate_views,
)


@pytest.fixture
def calibration() -> StereoCalibration:
    return StereoCalibration.from_values(
        fx=612.0, fy=598.0, cx_left=331.5, cx_right=318.25, cy=236.75, baseline_m=0.12
    )


def random_points(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    unit = torch.rand(*shape, 3, generator=generator, dtype=torch.float64)
    xyz = unit * torch.tensor([2.4, 1.8, 4.5]) + torch.tensor([-1.2, -0.9, 0.5])
    return xyz.to(dtype)


def textbook_dlt(
    uv_left: torch.Tensor,
    uv_right: torch.Tensor,
    calibration: StereoCalibration,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The direct linear transform from projection matrices in pixels and millimetres, one SVD a
    point in float64; NaN where it is not within 1000 km in front of the cameras."""
    fx, fy, cx_left, cx_right, cy, baseline = (float(v) for v in calibration.fields())
    rows = [[fx, 0, cx_left, 0], [0, fy, cy, 0], [0, 0, 1, 0]]
    left = torch.tensor(rows, dtype=torch.float64)
    right = left.clone()
    right[0, 2:] = torch.tensor([cx_right, -1000 * fx * baseline])
    counts = torch.ones_like(uv_left) if weights is None else weights
    points = []
    for (u0, v0), (u1, v1), (w0, w1) in zip(
        *(x.double().reshape(-1, 2) for x in (uv_left, uv_right, counts)), strict=True
    ):
        planes = [w0 * (u0 * left[2] - left[0]), w0 * (v0 * left[2] - left[1])]
        planes += [w1 * (u1 * right[2] - right[0]), w1 * (v1 * right[2] - right[1])]
        point = torch.linalg.svd(torch.stack(planes)).Vh[-1]
        xyz = point[:3] / point[3] / 1000
        points.append(xyz if 0 < xyz[2] < 1e6 else torch.full_like(xyz, torch.nan))
    return torch.stack(points).view(*uv_left.shape[:-1], 3)


def views_of(uvd: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of a co-keypoint in the left and the right view."""
    return uvd[..., :2], torch.stack([uvd[..., 0] - uvd[..., 2], uvd[..., 1]], -1)


def triangulate_dlt(uvd: torch.Tensor, calibration: StereoCalibration) -> torch.Tensor:
    return textbook_dlt(*views_of(uvd), calibration)


def test_a_point_on_the_axis_has_the_textbook_disparity(calibration: StereoCalibration) -> None:
    uvd = project(torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64), calibration)
    expected = torch.tensor([[331.5, 236.75, 612.0 * 0.12 / 2.0 + 13.25]], dtype=torch.float64)
    assert torch.allclose(uvd, expected, atol=1e-12)
    assert metric_disparity(uvd, calibration).item() == pytest.approx(36.72)


@pytest.mark.parametrize(('dtype', 'tolerance_m'), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
def test_project_then_triangulate_returns_the_points(
    calibration: StereoCalibration, dtype: torch.dtype, tolerance_m: float
) -> None:
    xyz = random_points(5, 17, dtype=dtype)
    back = triangulate(project(xyz, calibration), calibration)
    assert back.dtype == dtype
    assert (back - xyz).abs().max() < tolerance_m


def test_triangulate_then_project_returns_the_pixels(calibration: StereoCalibration) -> None:
    uvd = project(random_points(4, 17), calibration)
    assert torch.allclose(project(triangulate(uvd, calibration), calibration), uvd, atol=1e-9)


def test_closed_form_is_the_dlt(calibration: StereoCalibration) -> None:
    uvd = project(random_points(6, 17), calibration)
    difference = triangulate(uvd, calibration) - triangulate_dlt(uvd, calibration)
    assert difference.abs().max() < 1e-9


def test_zero_and_negative_disparity_are_nan_not_infinity(calibration: StereoCalibration) -> None:
    infinity = 331.5 - 318.25
    uvd = torch.tensor(
        [[300.0, 200.0, infinity], [300.0, 200.0, infinity - 5], [300.0, 200.0, infinity + 5]],
        dtype=torch.float64,
    )
    for lift in (triangulate, triangulate_dlt):
        xyz = lift(uvd, calibration)
        assert xyz[:2].isnan().all()
        assert xyz[2, 2].item() == pytest.approx(612.0 * 0.12 / 5)
    covariance = position_covariance(uvd, torch.eye(3).double().expand(3, 3, 3), calibration)
    assert covariance[:2].isnan().any(dim=-1).any(dim=-1).all()
    assert covariance[2].isfinite().all()


def test_points_behind_the_camera_project_to_nan(calibration: StereoCalibration) -> None:
    xyz = torch.tensor([[0.1, 0.1, -2.0], [0.1, 0.1, 0.0], [0.1, 0.1, 2.0]])
    uvd = project(xyz, calibration)
    assert uvd[:2].isnan().all()
    assert uvd[2].isfinite().all()


def test_nan_points_leave_the_gradient_of_the_others_finite(
    calibration: StereoCalibration,
) -> None:
    uvd = torch.tensor([[300.0, 200.0, 0.0], [300.0, 200.0, 60.0]], requires_grad=True)
    triangulate(uvd, calibration)[1].sum().backward()
    assert uvd.grad is not None
    assert uvd.grad.isfinite().all()
    assert (uvd.grad[1] != 0).all()


def test_a_batch_with_its_own_calibrations_equals_the_single_ones() -> None:
    first = StereoCalibration.from_values(500.0, 510.0, 320.0, 310.0, 240.0, 0.1)
    calibrations = [first, first.crop(torch.tensor(40.0), torch.tensor(22.0), torch.tensor(9.0))]
    calibrations.append(calibrations[1].resize(0.37))
    batch = StereoCalibration.stack(
        [StereoCalibration(*(v.double() for v in c.fields())) for c in calibrations]
    )
    xyz = random_points(3, 17)
    uvd = project(xyz, batch)
    covariance = torch.diag(torch.tensor([1.0, 2.0, 0.5])).double().expand(3, 17, 3, 3)
    for i, calibration in enumerate(calibrations):
        assert torch.allclose(project(xyz[i], calibration), uvd[i])
        assert torch.allclose(triangulate(uvd[i], calibration), xyz[i])
        assert torch.allclose(
            position_covariance(uvd[i], covariance[i], calibration),
            position_covariance(uvd, covariance, batch)[i],
        )


def test_jacobian_is_that_of_autograd(calibration: StereoCalibration) -> None:
    uvd = project(random_points(4), calibration)
    for point, analytic in zip(uvd, position_jacobian(uvd, calibration), strict=True):
        numeric = torch.autograd.functional.jacobian(
            lambda x: triangulate(x[None], calibration)[0], point
        )
        assert torch.allclose(analytic, numeric, rtol=1e-10, atol=1e-12)


def test_covariance_is_that_of_a_monte_carlo_run(calibration: StereoCalibration) -> None:
    generator = torch.Generator().manual_seed(11)
    uvd = project(torch.tensor([[0.4, -0.3, 2.5]], dtype=torch.float64), calibration)
    root = torch.tensor([[0.8, 0.0, 0.0], [0.2, 0.7, 0.0], [0.1, -0.05, 0.15]]).double()
    noise = torch.randn(200_000, 3, generator=generator, dtype=torch.float64) @ root.T
    sampled = triangulate(uvd + noise, calibration).T.cov()
    predicted = position_covariance(uvd, (root @ root.T)[None], calibration)[0]
    assert ((sampled - predicted).abs().max() / predicted.abs().max()) < 0.02


def test_depth_deviation_grows_with_the_square_of_depth(calibration: StereoCalibration) -> None:
    xyz = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    covariance = torch.diag(torch.tensor([0.0, 0.0, 0.25])).double().expand(2, 3, 3)
    deviation = position_covariance(project(xyz, calibration), covariance, calibration)[:, 2, 2]
    assert deviation.sqrt()[0].item() == pytest.approx(0.5 / (612.0 * 0.12), rel=1e-9)
    assert (deviation[1] / deviation[0]).sqrt().item() == pytest.approx(4.0, rel=1e-9)


# ---- views that were looked at apart ----


def noisy_views(
    calibration: StereoCalibration, *shape: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels with 2 px of noise in both views, so that rows disagree, and weights."""
    generator = torch.Generator().manual_seed(8)
    left, right = views_of(project(random_points(*shape), calibration))
    noise = 2 * torch.randn(2, *left.shape, generator=generator, dtype=torch.float64)
    weights = 0.05 + torch.rand(left.shape, generator=generator, dtype=torch.float64)
    return left + noise[0], right + noise[1], weights


@pytest.mark.parametrize('weighted', [False, True])
def test_triangulated_views_are_the_textbook_dlt(
    calibration: StereoCalibration, weighted: bool
) -> None:
    left, right, weights = noisy_views(calibration, 3, 17)
    chosen = weights if weighted else None
    found = triangulate_views(left, right, calibration, chosen)
    expected = textbook_dlt(left, right, calibration, chosen)
    assert expected.isfinite().all()
    assert (found - expected).abs().max() < 1e-9


def test_triangulated_views_on_equal_rows_are_the_closed_form(
    calibration: StereoCalibration,
) -> None:
    uvd = project(random_points(6, 17), calibration)
    weights = torch.tensor([0.9, 0.1], dtype=torch.float64).expand(6, 17, 2)
    found = triangulate_views(*views_of(uvd), calibration, weights)
    assert (found - triangulate(uvd, calibration)).abs().max() < 1e-9
    single = triangulate_views(*(x.float() for x in views_of(uvd)), calibration)
    assert single.dtype == torch.float32
    assert (single - triangulate(uvd, calibration)).abs().max() < 3e-5  # rounding of the pixels


def test_weights_choose_between_the_rows_and_leave_depth_alone(
    calibration: StereoCalibration,
) -> None:
    """Y follows the mean row by squared weights; X and Z follow the columns."""
    left = torch.tensor([[300.0, 200.0]], dtype=torch.float64)
    right = torch.tensor([[260.0, 206.0]], dtype=torch.float64)
    for w_left, w_right in ((1.0, 1.0), (0.9, 0.1), (0.2, 0.6)):
        weights = torch.tensor([[w_left, w_right]], dtype=torch.float64)
        row = (200 * w_left**2 + 206 * w_right**2) / (w_left**2 + w_right**2)
        uvd = torch.tensor([[300.0, row, 40.0]], dtype=torch.float64)
        found = triangulate_views(left, right, calibration, weights)
        assert (found - triangulate(uvd, calibration)).abs().max() < 5e-4  # of 2.7 m


def test_views_beyond_the_farthest_depth_are_triangulated_there(
    calibration: StereoCalibration,
) -> None:
    uvd = torch.tensor([[300.0, 200.0, 13.25], [310.0, 220.0, -40.0]], dtype=torch.float64)
    left, right = (x.clone().requires_grad_() for x in views_of(uvd))
    found = triangulate_views(left, right, calibration)
    assert found[:, 2].tolist() == pytest.approx([FARTHEST_M] * 2, rel=1e-9)
    assert torch.allclose(found, triangulate_clamped(uvd, calibration), atol=1e-8)
    found.sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    assert left.grad.isfinite().all()
    assert right.grad.isfinite().all()
    assert right.grad[:, 0].abs().max() == 0  # a clamped column has no say


def test_views_without_a_keypoint_are_nan_and_leave_the_others_gradient_finite(
    calibration: StereoCalibration,
) -> None:
    left = torch.tensor([[torch.nan, 200.0], [300.0, 200.0]], requires_grad=True)
    right = torch.tensor([[260.0, 200.0], [260.0, torch.inf]], requires_grad=True)
    both = torch.tensor([[310.0, 210.0]]), torch.tensor([[270.0, 210.0]])
    found = triangulate_views(torch.cat([left, both[0]]), torch.cat([right, both[1]]), calibration)
    assert found[:2].isnan().all()
    assert found[2].isfinite().all()
    found[2].sum().backward()
    assert left.grad is not None
    assert right.grad is not None
    assert left.grad.abs().max() == 0
    assert right.grad.abs().max() == 0


def test_gradients_are_those_of_differences(calibration: StereoCalibration) -> None:
    left, right, weights = noisy_views(calibration, 2, 3)
    uvd = project(random_points(2, 3), calibration)
    xyz = random_points(2, 3)
    covariance = torch.eye(3, dtype=torch.float64).expand(2, 3, 3, 3).contiguous()
    for function, inputs in (
        (lambda *x: triangulate_views(x[0], x[1], calibration, x[2]), (left, right, weights)),
        (lambda x: triangulate(x, calibration), (uvd,)),
        (lambda x: triangulate_clamped(x, calibration), (uvd,)),
        (lambda x: project(x, calibration), (xyz,)),
        (lambda *x: position_covariance(x[0], x[1], calibration), (uvd, covariance)),
    ):
        tracked = tuple(x.detach().requires_grad_() for x in inputs)
        assert torch.autograd.gradcheck(function, tracked)


def test_triangulated_views_of_a_batch_equal_the_single_ones() -> None:
    first = StereoCalibration.from_values(500.0, 510.0, 320.0, 310.0, 240.0, 0.1)
    second = first.crop(torch.tensor(40.0), torch.tensor(22.0), torch.tensor(9.0)).resize(0.37)
    calibrations = [StereoCalibration(*(v.double() for v in c.fields())) for c in (first, second)]
    uv = [noisy_views(calibration, 5) for calibration in calibrations]
    left, right, weights = (torch.stack(parts) for parts in zip(*uv, strict=True))
    together = triangulate_views(left, right, StereoCalibration.stack(calibrations), weights)
    for i, calibration in enumerate(calibrations):
        single = triangulate_views(left[i], right[i], calibration, weights[i])
        assert torch.allclose(together[i], single, atol=1e-12)
