"""The renderer: what it draws is where the geometry says it is."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample

from rsb_pose_core.geometry import project
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.pairs import OCCLUDED, OUTSIDE, PairRenderer, PairSpace, visibility
from rsb_pose_core.synthesis.people import Casting
from rsb_pose_core.synthesis.rasterizer import fragments_of, rasterize
from rsb_pose_core.synthesis.shards import ShardJob, arrays_of
from rsb_pose_core.synthesis.textures import TextureBank


@pytest.fixture(scope='module')
def casting() -> Casting:
    return Casting(Body(), TextureBank(3, cloths=8, surfaces=8))


@pytest.fixture(scope='module')
def poses(casting) -> np.ndarray:
    """A few poses near the rest pose: the tests need no motion capture."""
    body = casting.body
    vertices, heads = body.rest(torch.zeros(1, body.shapes.shape[1]))
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    joints = body.pose(vertices, heads, still, torch.eye(3)[None]).joints_m.numpy()
    return (joints + np.random.default_rng(0).normal(0, 0.05, (6, 17, 3))).astype(np.float32)


@pytest.fixture(scope='module')
def aligned(casting, poses):
    """Pairs whose rectification is perfect."""
    return PairRenderer(casting, poses, PairSpace(misalignment_deg=0.0)).batch(4, 1, 2)


def brute_force(uv, nearness, faces, height, width):
    """Pixel by pixel, in float64: the nearest face whose triangle holds the centre."""
    best = np.full((height, width), -1)
    near = np.zeros((height, width))
    for number, face in enumerate(faces):
        a, b, c = uv[face]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        for y in range(height):
            for x in range(width):
                wb = ((x - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (y - a[1])) / area
                wc = ((b[0] - a[0]) * (y - a[1]) - (x - a[0]) * (b[1] - a[1])) / area
                if min(wb, wc, 1 - wb - wc) < 0:
                    continue
                z = nearness[face] @ [1 - wb - wc, wb, wc]
                if z > near[y, x]:
                    best[y, x], near[y, x] = number, z
    return best


def test_rasterizer_agrees_with_brute_force():
    rng = np.random.default_rng(4)
    uv, nearness = rng.uniform(-4, 24, (30, 2)), rng.uniform(0.2, 1.0, 30)
    faces = rng.permutation(30).reshape(10, 3)
    drawn = rasterize(
        torch.tensor(uv, dtype=torch.float32), torch.tensor(nearness, dtype=torch.float32),
        torch.tensor(faces), torch.zeros(10, dtype=torch.long), (1, 17, 21),
    )  # fmt: skip
    expected = brute_force(uv, nearness, faces, 17, 21)
    assert (drawn[0].numpy() != expected).sum() <= 1  # an edge through a pixel's centre


def test_rasterizer_gives_the_same_in_small_portions():
    rng = np.random.default_rng(5)
    uv = torch.tensor(rng.uniform(-4, 40, (60, 2)), dtype=torch.float32)
    nearness = torch.tensor(rng.uniform(0.2, 1.0, 60), dtype=torch.float32)
    faces, image = torch.arange(60).view(20, 3), torch.arange(20) % 2
    whole = rasterize(uv, nearness, faces, image, (2, 32, 40))
    parts = rasterize(uv, nearness, faces, image, (2, 32, 40), max_fragments=500)
    assert (whole >= 0).sum() > 500
    assert torch.equal(whole, parts)


def test_what_lies_behind_the_camera_is_not_drawn():
    uv = torch.tensor([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    faces, image = torch.tensor([[0, 1, 2]]), torch.zeros(1, dtype=torch.long)
    nearness = torch.tensor([0.5, -1.0, 0.5])
    assert (rasterize(uv, nearness, faces, image, (1, 10, 10)) == -1).all()


def test_interpolation_is_perspective_correct():
    """A square that recedes from 1 m to 4 m: halfway across the image lies nearer than halfway."""
    points = torch.tensor([[-1.0, -1, 1], [-1, 1, 1], [4.0, -4, 4], [4, 4, 4]])
    uv = 16 * points[:, :2] / points[:, 2:] + 16
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    drawn = rasterize(uv, 1 / points[:, 2], faces, torch.zeros(2, dtype=torch.long), (1, 33, 33))
    part = fragments_of(drawn, uv, 1 / points[:, 2], faces)
    found = part.interpolate(points)
    u = (part.pixel % 33).float()
    # on the plane through (-1, 1 m) and (4, 4 m): x = 5/3 z - 8/3, and x/z = (u - 16) / 16
    depth = (8 / 3) / (5 / 3 - (u - 16) / 16)
    assert len(u) > 500
    assert torch.allclose(found[:, 2], depth, atol=1e-4)
    assert torch.allclose(1 / part.inverse_depth, depth, atol=1e-4)


def test_disparity_is_focal_length_times_baseline_over_depth(aligned):
    calibration = aligned.calibration
    full = (aligned.uv_left[..., 0] - calibration.cx_left[:, None]) - (
        aligned.uv_right[..., 0] - calibration.cx_right[:, None]
    )
    expected = (calibration.fx * calibration.baseline_m)[:, None] / aligned.xyz_m[..., 2]
    assert (full - expected).abs().max() < 0.01
    assert (aligned.uv_left[..., 1] - aligned.uv_right[..., 1]).abs().max() < 0.01
    uvd = project(aligned.xyz_m, calibration)
    assert (uvd[..., :2] - aligned.uv_left).abs().max() < 0.01


def test_right_view_warped_by_disparity_matches_the_left_best_at_zero(aligned):
    left, right = (
        torch.from_numpy(view).permute(0, 3, 1, 2).float() / 255
        for view in (aligned.left, aligned.right)
    )
    size = left.shape[-1]
    x, y = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='xy')
    errors = {}
    for shift in (-1.0, -0.5, 0.0, 0.5, 1.0):
        column = x - aligned.disparity_map + shift
        row = y.expand_as(column)
        grid = torch.stack([(column + 0.5) / size * 2 - 1, (row + 0.5) / size * 2 - 1], -1)
        warped = grid_sample(right, grid, align_corners=False)
        seen = (left.sum(1) > 0.05) & (warped.sum(1) > 0.05)
        errors[shift] = float((warped - left).abs().mean(1)[seen].median())
    assert min(errors, key=errors.__getitem__) == 0.0
    assert min(errors[1.0], errors[-1.0]) > 1.05 * errors[0.0]


def test_a_batch_depends_on_its_number_alone(casting, poses):
    renderer = PairRenderer(casting, poses)
    first = arrays_of(renderer.batch(2, 7, 5))
    renderer.batch(2, 7, 9)
    again = arrays_of(renderer.batch(2, 7, 5))
    other = arrays_of(renderer.batch(2, 8, 5))
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first['left'], other['left'])


def test_shard_arrays_have_the_documented_format(aligned):
    arrays = arrays_of(aligned)
    shapes = {key: (value.shape, value.dtype.name) for key, value in arrays.items()}
    assert shapes == {
        'left': ((4, 288, 288, 3), 'uint8'),
        'right': ((4, 288, 288, 3), 'uint8'),
        'xyz_m': ((4, 17, 3), 'float32'),
        'uv_left': ((4, 17, 2), 'float32'),
        'uv_right': ((4, 17, 2), 'float32'),
        'visibility': ((4, 2, 17), 'uint8'),
        'calibration': ((4, 6), 'float64'),
    }
    for field, column in zip(
        dataclasses.fields(aligned.calibration), arrays['calibration'].T, strict=True
    ):
        assert np.allclose(getattr(aligned.calibration, field.name), column)
    assert 0.065 <= arrays['calibration'][:, 5].min() <= arrays['calibration'][:, 5].max() <= 0.25


def test_visibility_reads_the_depth_buffer():
    surface = torch.tensor([[[2.0, 2.0, 1.0, 2.0]]])
    owned = torch.tensor([[[True, True, False, True]]])
    uv = torch.zeros(1, 17, 2)
    uv[0, :4, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    depth = torch.full((1, 17), 2.05)
    depth[0, 1] = 2.6  # deep behind the own surface: the body hides it
    outside = torch.zeros(1, 17, dtype=torch.bool)
    outside[0, 3] = True
    code = visibility(uv, depth, outside, surface, owned)[0, :4].tolist()
    assert code == [0, 1, OCCLUDED, OUTSIDE]


def test_people_are_drawn_and_most_joints_seen(aligned):
    assert (aligned.visibility == 0).float().mean() > 0.5
    assert aligned.left.std() > 10


def test_splits_name_their_shards_apart(tmp_path):
    train, val = (ShardJob(tmp_path, tmp_path, None, split) for split in ('train', 'val'))
    assert train.path(3).name == 'train_000_00003.npz'
    assert val.path(3) != train.path(3)
