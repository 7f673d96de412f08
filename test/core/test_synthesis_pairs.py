"""Pairs: what the pictures show is where the labels say, for every way of taking them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rsb_pose_core.geometry import project
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.cameras import CameraSpace, Drift
from rsb_pose_core.synthesis.clips import Clip
from rsb_pose_core.synthesis.labels import OCCLUDED, OUTSIDE, VISIBLE
from rsb_pose_core.synthesis.lens import LensSpace
from rsb_pose_core.synthesis.levels import LEVELS
from rsb_pose_core.synthesis.lighting import LightBank
from rsb_pose_core.synthesis.pairs import PairRenderer, PairSpace, StereoPairs, make_renderer
from rsb_pose_core.synthesis.people import Casting
from rsb_pose_core.synthesis.poses import PosePool
from rsb_pose_core.synthesis.testsets import SETS
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.wardrobe import Wardrobe

DATA = Path(__file__).parents[3] / 'shared' / 'data'
ALIGNED = Drift(aligned_share=1.0)
EXACT = PairSpace(
    crop_size=160, margin=0, sensor=LEVELS['clean'], smear=False,
    cameras=replace(CameraSpace(), drift=ALIGNED),
)  # fmt: skip


def standing(body: Body) -> Clip:
    """A clip of one who stands still and sways a little: tests need no motion capture."""
    rest, heads = body.rest(torch.zeros(1, body.shapes.shape[1]))
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    joints = body.joints(body.pose(heads, still, torch.eye(3)[None]), rest).numpy()
    sway = np.random.default_rng(0).normal(0, 0.01, (8, 17, 3))
    return Clip('standing_1', joints + sway, 30.0)


def engine(space: PairSpace, device: str = 'cpu') -> PairRenderer:
    body = Body(device=device)
    wardrobe = Wardrobe(body)
    bank = TextureBank(
        2, named=wardrobe.pictures(), cloths=8, surfaces=8, device=device
    )  # fmt: skip
    pool = PosePool([standing(Body())], 'train', mixture=space.poses, device=device)
    lights = LightBank(made_up=4, device=device)
    return PairRenderer(Casting(body, wardrobe, bank, 'train'), pool, lights, bank, space)


@pytest.fixture(scope='module')
def renderer() -> PairRenderer:
    return engine(EXACT)


@pytest.fixture(scope='module')
def pairs(renderer: PairRenderer) -> StereoPairs:
    return renderer.batch(6, 3, 0)


def with_space(renderer: PairRenderer, space: PairSpace) -> PairRenderer:
    return PairRenderer(renderer.casting, renderer.pool, renderer.lights, renderer.bank, space)


def test_labels_obey_the_stereo_equation(pairs):
    """u_left - u_right = f B / Z + cx_left - cx_right and equal rows, in float64."""
    c = pairs.calibration
    for joints in (pairs.labels.h36m, pairs.labels.coco):
        z = joints.xyz_m[..., 2].double()
        near = (z > 0.3) & (joints.uv_left.abs() < 1000).all(-1)
        assert near.sum() > 100
        shape = (-1, 1, 1)
        expected = (c.fx * c.baseline_m).double().view(shape) / z
        expected = expected + (c.cx_left - c.cx_right).double().view(shape)
        found = (joints.uv_left[..., 0] - joints.uv_right[..., 0]).double()
        assert (found - expected).abs()[near].max() < 0.01
        assert (joints.uv_left - joints.uv_right)[..., 1].abs()[near].max() < 0.01


def test_labels_are_the_projection_of_the_positions(pairs):
    subject = pairs.subject
    uvd = project(subject.xyz_m, pairs.calibration)
    assert (uvd[..., :2] - subject.uv_left).abs().max() < 0.01


def test_the_right_picture_warped_by_disparity_matches_best_at_zero_shift(pairs):
    left, right = (torch.from_numpy(v).permute(0, 3, 1, 2).float() for v in
                   (pairs.left, pairs.right))  # fmt: skip
    size = left.shape[-1]
    v, u = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')
    misses = []
    for shift in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = u - pairs.disparity_left + shift
        grid = torch.stack([(2 * x + 1) / size - 1, ((2 * v + 1) / size - 1).expand_as(x)], -1)
        warped = torch.nn.functional.grid_sample(right, grid, align_corners=False)
        seen = (x > 0) & (x < size - 1) & (left.sum(1) > 0) & (warped.sum(1) > 0)
        misses.append(((warped - left).abs().mean(1).clamp_max(30) * seen).sum((1, 2)))
    assert (torch.stack(misses).argmin(0) == 2).float().mean() > 0.8


def test_masks_boxes_and_visibility_agree(pairs):
    count = len(pairs.left)
    for mask, box, side in (
        (pairs.person_mask_left, pairs.labels.box_left, 0),
        (pairs.person_mask_right, pairs.labels.box_right, 1),
    ):
        for i in range(count):
            v, u = (mask[i] == 1).nonzero(as_tuple=True)
            if len(u):
                extent = [u.min(), v.min(), u.max() - u.min() + 1, v.max() - v.min() + 1]
                assert box[i, 0].tolist() == [float(value) for value in extent]
            code = pairs.labels.h36m.visibility[i, 0, side]
            uv = (pairs.subject.uv_left, pairs.subject.uv_right)[side][i].round().long()
            for joint in range(17):
                if code[joint] == VISIBLE:
                    assert int(mask[i, uv[joint, 1], uv[joint, 0]]) in (0, 1)
                if code[joint] == OCCLUDED:
                    assert int(mask[i, uv[joint, 1], uv[joint, 0]]) != 1


def test_depth_and_disparity_are_the_same_surface(pairs):
    c = pairs.calibration
    expected = (c.fx * c.baseline_m)[:, None, None] / pairs.depth_m_left
    expected = expected + (c.cx_left - c.cx_right)[:, None, None]
    finite = pairs.depth_m_left.isfinite()
    assert torch.allclose(pairs.disparity_left[finite], expected[finite], atol=1e-4)
    # a visible joint lies behind its surface, by no more than a person is thick
    subject, codes = pairs.subject, pairs.subject.visibility[:, 0]
    seen = codes == VISIBLE
    u, v = subject.uv_left.round().long().clamp(0, 159).unbind(-1)
    row = torch.arange(len(u))[:, None].expand_as(u)
    own = pairs.person_mask_left[row, v, u] == 1
    behind = subject.xyz_m[..., 2] - pairs.depth_m_left[row, v, u]
    assert behind[seen & own].max() < 0.35
    assert behind[seen & own].median() > 0.0


def test_a_batch_depends_on_its_number_alone(renderer, pairs):
    renderer.batch(3, 3, 77)
    again = renderer.batch(6, 3, 0)
    assert np.array_equal(again.left, pairs.left)
    assert np.array_equal(again.right, pairs.right)
    assert torch.equal(again.subject.xyz_m, pairs.subject.xyz_m)
    assert not np.array_equal(renderer.batch(6, 3, 6).left, pairs.left)


def test_drifted_calibrations_move_the_labels_not_the_positions(renderer):
    drift = Drift(aligned_share=0.0, severity_deg=(0.1, 0.1))
    space = replace(EXACT, cameras=replace(CameraSpace(), drift=drift))
    bad = with_space(renderer, space).batch(6, 3, 0)
    rows = (bad.subject.uv_left - bad.subject.uv_right)[..., 1].abs()
    inside = (bad.subject.visibility != OUTSIDE).all(1)
    assert rows[inside].median() > 0.05
    uvd = project(bad.subject.xyz_m, bad.calibration)
    assert (uvd[..., :2] - bad.subject.uv_left)[inside].abs().median() < 1.0


def test_imperfect_lenses_move_labels_by_their_residual(renderer):
    """Beside the ideal pictures of the same scenes: other labels, pictures alike where bent."""
    lens = LensSpace(share=1.0, residual_px=(2.0, 2.0))
    space = replace(EXACT, lenses=lens)
    bent, ideal = with_space(renderer, space).batch(6, 5, 0), renderer.batch(6, 5, 0)
    assert torch.equal(bent.subject.xyz_m, ideal.subject.xyz_m)
    inside = (bent.subject.visibility != OUTSIDE).all(1) & (
        ideal.subject.visibility != OUTSIDE
    ).all(1)
    moved = (bent.subject.uv_left - ideal.subject.uv_left).norm(dim=-1)[inside]
    assert moved.max() > 0.02
    assert moved.median() < 3.0
    alike = np.abs(bent.left.astype(int) - ideal.left).mean((1, 2, 3))
    assert np.median(alike) < 25


def test_rolling_shutters_move_what_moves(renderer):
    space = replace(EXACT, rolling=True)
    rolled = with_space(renderer, space)
    draw = rolled.draw(3, 0)
    staged = rolled.stage(6, draw)
    assert staged.rows is not None
    taken, still = rolled.batch(6, 3, 0), renderer.batch(6, 3, 0)
    assert torch.equal(taken.subject.xyz_m, still.subject.xyz_m)
    speed = staged.people.joint_velocity_m_s[:6].norm(dim=-1)
    readout = staged.rows.readout_s[:6, None]
    moved = (taken.subject.uv_left - still.subject.uv_left).norm(dim=-1)
    # nobody moves farther than a speed over half the readout (the pictures are 160 rows)
    near = (taken.subject.visibility != OUTSIDE).all(1)
    z, fx = still.subject.xyz_m[..., 2], still.calibration.fx[:, None]
    assert (moved <= speed * readout * fx / z * 0.75 + 0.02)[near].all()
    assert (moved[near & (readout == 0).expand_as(near)] == 0).all()


def test_whole_images_have_the_rigs_size():
    space = replace(SETS['zed-like'].space, smear=False)
    made = engine(space).batch(2, 1, 0)
    assert made.left.shape == (2, 376, 672, 3)
    assert made.calibration.fx.sub(265).abs().max() < 10


@pytest.fixture(scope='module')
def trained_on() -> PairRenderer:
    """What training draws from; small pictures, as only depth is asked for."""
    if not DATA.exists():
        pytest.skip('needs the motion data')
    space = PairSpace(crop_size=96, margin=5, sensor=LEVELS['clean'], smear=False, smooth=False)
    return make_renderer(DATA, 'train', 3, space)


def test_things_hide_more_than_15_percent_of_the_joints(trained_on):
    codes = torch.cat(
        [trained_on.batch(10, 9, number).subject.visibility for number in range(0, 60, 10)]
    )
    assert (codes == OCCLUDED).float().mean() >= 0.15
    assert (codes == VISIBLE).float().mean() > 0.4


def test_people_hardly_reach_into_themselves(trained_on):
    """Of dressed people in drawn poses, at most 3 % go deeper than 6 cm, none 12 cm."""
    draw, casting, depths = trained_on.draw(8, 0), trained_on.casting, []
    for _ in range(5):
        cast = casting.cast(40, draw)
        poses = trained_on.pool.sample(40, draw, cast.heads_m, casting.body)
        depths.append(casting.self_penetration_m(casting.pose(cast, poses, torch.arange(40))))
    depth = torch.cat(depths)
    assert (depth > 0.06).float().mean() <= 0.03
    assert depth.max() < 0.12
    assert depth.median() < 0.02


@pytest.mark.gpu
def test_cuda_draws_the_same_kind_of_pairs():
    """Other random numbers, so other scenes: exact geometry and a picture full of things."""
    made = engine(EXACT, 'cuda').batch(16, 3, 0)
    uvd = project(made.subject.xyz_m, made.calibration)
    assert (uvd[..., :2] - made.subject.uv_left).abs().max() < 0.01
    assert made.left.std() > 20
    assert made.person_mask_left.is_cuda
