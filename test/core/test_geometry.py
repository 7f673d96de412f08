"""Triangulation, projection and their covariance in a rectified pair."""

import pytest
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import (
    metric_disparity,
    position_covariance,
    position_jacobian,
    project,
    triangulate,
    triangulate_dlt,
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
