"""ResNet+T, HRNet+T, Algebraic-T and Volume-T: counts, geometry and gradients."""

import math

import pytest
import torch
from torch import nn

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.errors import ConfigError, RsbPoseError
from rsb_pose_core.geometry import project, triangulate_views
from rsb_pose_core.models import METHODS, NETWORKS, Architecture
from rsb_pose_core.models.algebraic import AlgebraicTriangulation
from rsb_pose_core.models.backbones import BACKBONES, ResNetTrunk
from rsb_pose_core.models.baseline import IndependentHeatmaps
from rsb_pose_core.models.estimate import StereoMethod, StereoOutput
from rsb_pose_core.models.keypoints import crop_to_heatmap, estimate_views, heatmap_to_crop
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.models.volume_networks import V2V
from rsb_pose_core.models.volumetric import (
    Cube,
    VolumeHeatmaps,
    VolumetricTriangulation,
    about_vertical,
    unproject,
)

RANGE = DisparityRange(-3, 4)


def calibration(batch: int = 1) -> StereoCalibration:
    """Of crops of 96 x 64 pixels, other values for each pair."""
    return StereoCalibration.stack(
        [
            StereoCalibration.from_values(70.0 + 5 * i, 71.0 + 5 * i, 41.0, 45.0 + i, 33.0, 0.2)
            for i in range(batch)
        ]
    )


def images(batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(2, batch, 3, 64, 96, generator=generator)
    return left, right


def slim(method: str) -> nn.Module:
    torch.manual_seed(0)
    trunk = ResNetTrunk((1, 1, 1, 1), width=8, channels_out=16)
    if method == 'triangulation':
        return IndependentHeatmaps(trunk, RANGE, 5, multi_scale=False)
    if method == 'algebraic':
        return AlgebraicTriangulation(trunk, 5)
    network = V2V(4, 5, levels=2, width=8)
    return VolumetricTriangulation(trunk, network, 5, 2, side_m=2.0, cells=8)


RIVALS = ('triangulation', 'algebraic', 'volumetric')


@pytest.mark.parametrize(
    ('name', 'millions'),
    [
        ('resnet50-t', 33.9997),
        ('hrnet-w32-t', 28.546),
        ('algebraic-t', 79.522),
        ('volume-t', 80.588),
        ('algebraic-t-resnet50', 44.886),  # 33.9997 and the confidence head's 10.8864
        ('volume-t-resnet50', 45.952),
    ],
)
def test_parameters_are_those_that_reproduce_the_paper(name: str, millions: float) -> None:
    with torch.device('meta'):
        model = NETWORKS[name].build()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=2e-5)


def test_algebraic_t_needs_a_resnet() -> None:
    with pytest.raises(ConfigError, match='not from lite'):
        METHODS['algebraic'](BACKBONES['lite'](), Architecture('algebraic', 'lite'))


@pytest.mark.parametrize('method', RIVALS)
def test_batched_equals_single_and_the_interface_is_every_method_s(method: str) -> None:
    model = slim(method).eval()
    assert isinstance(model, StereoMethod)
    left, right = images(3)
    c = calibration(3)
    with torch.inference_mode():
        output = model(left, right, c)
        together = output.estimate(c)
        assert isinstance(output, StereoOutput)
        assert output.features_left is not None
        assert output.features_left.shape == (3, 16, 16, 24)
        for i in range(3):
            one = StereoCalibration(*(v[[i]] for v in c.fields()))
            single = model(left[[i]], right[[i]], one).estimate(one)
            assert torch.allclose(single.xyz_m[0], together.xyz_m[i], rtol=1e-3, atol=1e-3)
    assert (together.uv_left is None) == (method == 'volumetric')
    assert together.xyz_m.isfinite().all()
    assert ((together.confidence >= 0) & (together.confidence <= 1)).all()
    symmetric = together.covariance_m2
    finite = symmetric.isfinite().all((-1, -2))
    assert finite.any()
    assert (torch.linalg.eigvalsh(symmetric[finite]) > -1e-4).all()


@pytest.mark.parametrize('method', RIVALS)
def test_gradients_reach_every_parameter(method: str) -> None:
    model = slim(method).train()
    c = calibration(2)
    output = model(*images(2), c)
    loss = output.estimate(c).xyz_m.square().sum()
    loss = loss + output.heatmap_left.square().mean() + output.heatmap_right.square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # biases before a BatchNorm, and those of heads whose map is normalised, have no say
        if parameter.ndim > 1:
            assert parameter.grad.abs().max() > 0, name


# ---- each view by itself ----


def peaks(*cells: tuple[float, float], spread: float = 1.0) -> torch.Tensor:
    """(1, J, 24, 32) logits of Gaussians at (u, v) heat-map cells."""
    v, u = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing='ij')
    maps = [-((u - a) ** 2 + (v - b) ** 2) / (2 * spread**2) for a, b in cells]
    return torch.stack(maps)[None]


def test_views_keep_their_own_rows_and_are_triangulated() -> None:
    left, right = peaks((20.0, 10.0), (8.0, 12.0)), peaks((17.5, 10.5), (6.0, 12.0))
    found = estimate_views(left, right, calibration())
    assert found.uv_left is not None
    assert found.uv_right is not None
    assert torch.allclose(found.uv_left[0, 0], torch.tensor([81.5, 41.5]), atol=1e-3)
    assert torch.allclose(found.uv_right[0, 0], torch.tensor([71.5, 43.5]), atol=1e-3)
    expected = triangulate_views(found.uv_left, found.uv_right, calibration())
    assert torch.equal(found.xyz_m, expected)
    # the row is between the two, the depth that of the columns: f B / (d - d_infinity)
    assert found.xyz_m[0, 0, 2].item() == pytest.approx(70 * 0.2 / (10 + 4), rel=2e-3)


def test_covariance_of_views_is_that_of_the_triangulation_s_derivatives() -> None:
    """Against autograd through the transform; the maps' variance is that of their Gaussians."""
    left, right = peaks((20.0, 10.0), spread=0.9), peaks((17.5, 10.5), spread=1.4)
    weights = torch.tensor([[[0.7, 0.3]]])
    found = estimate_views(left, right, calibration(), weights)
    assert found.uv_left is not None
    assert found.uv_right is not None

    def lift(uv: torch.Tensor) -> torch.Tensor:
        return triangulate_views(
            uv[None, None, :2], uv[None, None, 2:], calibration(), weights.double()
        )[0, 0]

    at = torch.cat([found.uv_left[0, 0], found.uv_right[0, 0]]).double()
    jacobian = torch.autograd.functional.jacobian(lift, at)
    variance = 16 * torch.tensor([0.81, 0.81, 1.96, 1.96], dtype=torch.float64)
    expected = jacobian @ torch.diag(variance) @ jacobian.T
    assert torch.allclose(found.covariance_m2[0, 0].double(), expected, rtol=5e-3, atol=1e-6)


def test_confidence_of_views_is_that_of_the_less_certain_one() -> None:
    sharp, wide = peaks((20.0, 10.0), spread=0.5), peaks((17.0, 10.0), spread=4.0)
    both = estimate_views(sharp, wide, calibration()).confidence.item()
    assert both == estimate_views(wide, sharp, calibration()).confidence.item()
    assert both == pytest.approx(1 - math.exp(-(3**2) / (2 * 4**2)), abs=0.03)  # of a Gaussian


# ---- Algebraic-T ----


def test_weights_of_the_two_views_sum_to_one_for_each_joint() -> None:
    model = slim('algebraic').eval()
    with torch.inference_mode():
        weights = model(*images(2)).weights
    assert weights.shape == (2, 5, 2)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 5), atol=1e-6)
    assert (weights > 0).all()


def test_the_3d_error_teaches_to_trust_the_view_that_is_right() -> None:
    xyz = torch.tensor([[[0.1, 0.2, 2.5]]])
    uvd = project(xyz, calibration())
    left = uvd[..., :2]
    right = torch.stack([uvd[..., 0] - uvd[..., 2], uvd[..., 1] + 4], -1)  # its row is wrong
    weights = torch.full((1, 1, 2), 0.5, requires_grad=True)
    found = triangulate_views(left, right, calibration(), weights)
    (found - xyz).square().sum().backward()
    assert weights.grad is not None
    assert weights.grad[0, 0, 0] < 0 < weights.grad[0, 0, 1]


def test_confidences_that_vanish_in_both_views_stay_finite() -> None:
    model = slim('algebraic').eval()
    with torch.no_grad():
        model.confidence.mlp[4].bias.fill_(-1e4)
        output = model(*images(), calibration())
    assert output.weights.tolist() == [[[0.5, 0.5]] * 5]
    assert output.estimate(calibration()).xyz_m.isfinite().all()


# ---- Volume-T ----


def turned_cube(batch: int = 1, side_m: float = 1.6) -> Cube:
    centre = torch.tensor([[0.1, -0.2, 2.5]]).expand(batch, 3)
    return Cube(centre, about_vertical(torch.full((batch,), 0.7)), side_m, cells=8)


def test_cells_and_metres_of_a_turned_cube_are_inverse() -> None:
    cube = turned_cube(2)
    xyz = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(1)) + cube.centre_m[:, None]
    assert torch.allclose(cube.to_metres(cube.to_cells(xyz)), xyz, atol=1e-6)
    # the first cell's centre is half a cell from the corner, turned about y
    corner = torch.full((3,), -0.8 + 0.1)
    c, s = math.cos(0.7), math.sin(0.7)
    turned = torch.stack([c * corner[0] + s * corner[2], corner[1], c * corner[2] - s * corner[0]])
    assert torch.allclose(cube.centres()[0, 0], turned + cube.centre_m[0], atol=1e-6)
    # x changes fastest
    assert torch.allclose(cube.to_cells(cube.centres())[0, 8 * 8 * 3 + 8 * 4 + 5],
                          torch.tensor([5.0, 4.0, 3.0]), atol=1e-4)  # fmt: skip


def sampled(view: torch.Tensor, u: float, v: float) -> torch.Tensor:
    """Bilinear by hand at heat-map cells, 0 outside."""
    channels, height, width = view.shape
    total = torch.zeros(channels, dtype=view.dtype)
    for row in (math.floor(v), math.floor(v) + 1):
        for column in (math.floor(u), math.floor(u) + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(row - v)) * (1 - abs(column - u))
                total += weight * view[:, row, column]
    return total


def test_unprojection_samples_both_views_where_each_cell_is_seen() -> None:
    """Loops in float64, on crops that are not square; some cells fall outside the views."""
    generator = torch.Generator().manual_seed(2)
    left, right = torch.randn(2, 1, 3, 16, 24, generator=generator)
    cube, c = turned_cube(side_m=3.2), calibration()
    found = unproject(left, right, cube, c)
    assert found.shape == (1, 3, 8, 8, 8)
    fx, fy, cx_left, cx_right, cy, baseline = (float(v[0]) for v in c.fields())
    outside = 0
    for z, y, x in ((0, 0, 0), (3, 4, 2), (7, 1, 6), (4, 4, 4), (0, 7, 7), (7, 7, 0)):
        place = cube.to_metres(torch.tensor([[[x, y, z]]], dtype=torch.float32))[0, 0].tolist()
        v = crop_to_heatmap(torch.tensor(fy * place[1] / place[2] + cy)).item()
        views = []
        for view, cx, shift in ((left, cx_left, 0.0), (right, cx_right, baseline)):
            u = crop_to_heatmap(torch.tensor(fx * (place[0] - shift) / place[2] + cx)).item()
            views.append(sampled(view[0].double(), u, v))
            outside += not (0 <= u <= 23 and 0 <= v <= 15)
        values = torch.stack(views)
        expected = (torch.softmax(values, 0) * values).sum(0)
        assert torch.allclose(found[0, :, z, y, x].double(), expected, atol=1e-4)
    assert outside > 0


def test_cells_behind_the_cameras_are_empty() -> None:
    cube = Cube(torch.tensor([[0.0, 0.0, 0.1]]), torch.eye(3)[None], side_m=1.6, cells=8)
    view = torch.ones(1, 2, 16, 24)
    found = unproject(view, view, cube, calibration())
    assert found[:, :, :3].abs().max() == 0  # z below -0.1 m
    assert found.abs().max() > 0


def test_the_volume_s_moments_are_metres_along_the_cube_s_axes() -> None:
    """Two equal peaks along the cube's x, which is turned by 0.7 about y."""
    volume = torch.full((1, 1, 8, 8, 8), -60.0)
    volume[0, 0, 3, 4, 2] = volume[0, 0, 3, 4, 6] = 60.0
    flat = torch.zeros(1, 1, 16, 24)
    cube = turned_cube()
    found = VolumeHeatmaps(flat, flat, volume, cube).estimate(calibration())
    middle = cube.to_metres(torch.tensor([[[4.0, 4.0, 3.0]]]))[0, 0]
    assert torch.allclose(found.xyz_m[0, 0], middle, atol=1e-4)
    axis = torch.tensor([math.cos(0.7), 0.0, -math.sin(0.7)])
    assert torch.allclose(
        found.covariance_m2[0, 0], 0.4**2 * axis[:, None] * axis[None], atol=1e-4
    )
    assert found.confidence.item() == pytest.approx(0.0, abs=1e-6)
    volume[0, 0, 3, 4, 2] = -60.0
    assert VolumeHeatmaps(flat, flat, volume, cube).estimate(
        calibration()
    ).confidence.item() == pytest.approx(1.0, abs=1e-6)


def test_the_cube_stands_round_the_pelvis_of_the_2d_heads() -> None:
    model = slim('volumetric').eval()
    c = calibration(2)
    with torch.inference_mode():
        output = model(*images(2), c)
        views = model(*images(2), c, volume=False)
        given = model(*images(2), c, centre_m=torch.tensor([[0.0, 0.1, 2.0], [0.2, 0.0, 3.0]]))
    assert views.volume is None
    pelvis = views.estimate(c).xyz_m[:, 2]
    assert torch.allclose(output.cube.centre_m, pelvis, atol=1e-5)
    assert torch.equal(output.cube.rotation, torch.eye(3).expand(2, 3, 3))
    assert given.cube.centre_m[1].tolist() == pytest.approx([0.2, 0.0, 3.0])


def test_the_cube_turns_about_the_vertical_in_training_only() -> None:
    model = slim('volumetric').train()
    torch.manual_seed(4)
    rotation = model(*images(2), calibration(2)).cube.rotation
    assert not torch.allclose(rotation[0], rotation[1])
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(2, 3, 3), atol=1e-6)
    assert rotation[:, 1].tolist() == [[0.0, 1.0, 0.0]] * 2


def test_no_gradient_of_the_volume_reaches_the_heads_that_place_it() -> None:
    model = slim('volumetric').train()
    output = model(*images(2), calibration(2))
    output.estimate(calibration(2)).xyz_m.sum().backward()
    assert model.head.weight.grad is None
    assert model.reduction.weight.grad.abs().max() > 0


def test_volume_t_without_a_calibration_says_so() -> None:
    with pytest.raises(RsbPoseError, match='got no calibration'):
        slim('volumetric')(*images())


def test_heat_maps_and_crops_agree_about_pixels() -> None:
    x = torch.linspace(-3, 90, 7)
    assert torch.allclose(heatmap_to_crop(crop_to_heatmap(x)), x, atol=1e-5)
