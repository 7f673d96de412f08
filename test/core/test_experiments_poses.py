"""Experiments on poses: what they compare the Pose Transformer with, and that they run."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from rsb_pose_core.checkpoint import load_model, save_refiner
from rsb_pose_core.cli import main
from rsb_pose_core.errors import DataError
from rsb_pose_core.experiments.attention_maps import attention_figures, first_layer, limb_masks
from rsb_pose_core.experiments.cascade import PAPER, Row
from rsb_pose_core.experiments.linear_inpainting import (
    PoseGaussian,
    facing_ahead,
    inpaint_along_bones,
    inpaint_facing,
    tilted,
)
from rsb_pose_core.experiments.restoring import HeldOut, by_transformer
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.rotations import about_y
from rsb_pose_core.training.masking import iterative_recovery, random_mask
from rsb_pose_core.training.pose_prior import RefinerConfig, run_refiner

ROOT = H36M_17.root
JOINTS = {name: i for i, name in enumerate(H36M_17.joint_names)}
ORDER = [6, 2, 1, 0, 3, 4, 5, 7, 8, 16, 9, 13, 14, 15, 12, 11, 10]  # of the file below


def standing(count: int, seed: int = 0) -> torch.Tensor:
    """People who stand about, pelvis at the origin, y down, left at +x; arms and legs vary."""
    pose = torch.zeros(17, 3)
    heights = {0: 0.85, 1: 0.45, 2: 0.0, 6: 0.0, 7: -0.25, 8: -0.5, 9: -0.75, 16: -0.6,
               10: 0.05, 11: -0.2, 12: -0.48}  # fmt: skip
    for joint, height in heights.items():
        for one, side in ((joint, -1.0), (H36M_17.mirror[joint], 1.0)):
            middle = H36M_17.mirror[joint] == joint
            pose[one] = torch.tensor([0.0 if middle else 0.2 * side, height, 0.0])
    pose[16, 2] = -0.1  # the nose looks at the camera
    generator = torch.Generator().manual_seed(seed)
    poses = pose + 0.05 * torch.randn(count, 17, 3, generator=generator)
    return poses - poses[:, [ROOT]]


def masks(count: int, seed: int = 1) -> torch.Tensor:
    return random_mask(count, 17, 0.4, torch.Generator().manual_seed(seed))


def test_the_conditional_mean_is_the_textbook_s() -> None:
    rng = np.random.default_rng(0)
    mixing = torch.from_numpy(rng.standard_normal((51, 51)))
    gaussian = PoseGaussian(torch.from_numpy(rng.standard_normal(51)), mixing @ mixing.T)
    poses = torch.from_numpy(rng.standard_normal((3, 17, 3)))
    masked = masks(3)
    found, distance = gaussian.conditional_mean(poses, masked, 0.01)
    for pose, hidden, restored, away in zip(poses, masked, found, distance, strict=True):
        m = hidden.repeat_interleave(3)
        s = gaussian.covariance[~m][:, ~m] + 0.01 * torch.eye(int((~m).sum()))
        off = pose.flatten()[~m] - gaussian.mean[~m]
        expected = gaussian.mean[m] + gaussian.covariance[m][:, ~m] @ torch.linalg.inv(s) @ off
        assert torch.allclose(restored.flatten()[m], expected, atol=1e-8)
        assert torch.equal(restored.flatten()[~m], pose.flatten()[~m])
        assert away.item() == pytest.approx((off @ torch.linalg.inv(s) @ off).item())


def test_what_is_linear_is_restored_exactly() -> None:
    """Poses of a space of 9 dimensions: 10 visible joints tell all of them."""
    rng = np.random.default_rng(0)
    basis = torch.from_numpy(rng.standard_normal((9, 51)))
    poses = (torch.from_numpy(rng.standard_normal((200, 9))) @ basis).view(-1, 17, 3)
    gaussian = PoseGaussian.fit(poses[:100])
    restored, _ = gaussian.conditional_mean(poses[100:], masks(100), 1e-10)
    assert (restored - poses[100:]).abs().max() < 1e-3


def test_joints_are_interpolated_linearly_along_bones() -> None:
    pose = standing(1)
    hidden = ['right_knee', 'left_knee', 'left_ankle', 'right_shoulder', 'right_elbow']
    masked = torch.zeros(1, 17, dtype=torch.bool)
    masked[0, [H36M_17.index(name) for name in hidden]] = True
    restored = inpaint_along_bones(pose + 9.0 * masked[..., None], masked)[0]
    at = {name: pose[0, H36M_17.index(name)].double() for name in H36M_17.joint_names}
    expected = {
        'right_knee': (at['right_hip'] + at['right_ankle']) / 2,
        'left_knee': at['left_hip'],
        'left_ankle': at['left_hip'],
        'right_shoulder': (2 * at['neck'] + at['right_wrist']) / 3,
        'right_elbow': (at['neck'] + 2 * at['right_wrist']) / 3,
    }
    for name, joint in JOINTS.items():
        assert torch.allclose(restored[joint], expected.get(name, at[name]), atol=1e-9)


def test_turning_ahead_lays_the_hips_along_x_whatever_the_yaw() -> None:
    poses = standing(50).double()
    yaw = torch.linspace(0, 6, 50, dtype=torch.float64)
    turned = facing_ahead(poses @ about_y(yaw).mT)
    across = turned[:, H36M_17.index('left_hip')] - turned[:, H36M_17.index('right_hip')]
    assert across[:, 2].abs().max() < 1e-9
    assert (across[:, 0] > 0).all()
    assert torch.allclose(turned, facing_ahead(poses), atol=1e-9)


def test_the_yaw_is_found_from_visible_joints_alone() -> None:
    ahead = facing_ahead(standing(300)).double()
    gaussian = PoseGaussian.fit(tilted(ahead, torch.Generator().manual_seed(0)))
    yaw = torch.linspace(0, 6, 40, dtype=torch.float64)
    seen = ahead[:40] @ about_y(yaw).mT
    masked = masks(40)
    linear, mean = inpaint_facing(gaussian, seen, masked, 1e-4)
    hidden_moved = torch.where(masked[..., None], seen + 9.0, seen)
    assert torch.allclose(inpaint_facing(gaussian, hidden_moved, masked, 1e-4)[0], linear)
    errors = (linear - seen).norm(dim=-1)[masked]
    in_place = PoseGaussian.fit(seen).mean.view(1, 17, 3).expand_as(seen)
    assert errors.mean() < 0.15
    assert errors.mean() < 0.6 * (in_place - seen).norm(dim=-1)[masked].mean()
    assert (mean - seen).norm(dim=-1)[masked].mean() < 0.2


def held_out(count: int = 6) -> HeldOut:
    absolute = standing(count) + torch.tensor([0.3, 0.1, 3.0])
    return HeldOut(absolute, masks(count), ('clip',), torch.zeros(count, dtype=torch.long))


def test_errors_are_of_masked_joints_without_the_pelvis() -> None:
    test = held_out()
    wrong = test.relative().double()
    wrong[..., 0] += 0.02
    wrong[:, ROOT] += 100.0
    errors = test.errors_mm(wrong)
    assert len(errors) == int(test.masked.sum()) - int(test.masked[:, ROOT].sum())
    assert errors.tolist() == pytest.approx([20.0] * len(errors), rel=1e-4)


@pytest.mark.parametrize('relative', [True, False])
def test_restored_poses_are_relative_to_the_true_pelvis(relative: bool) -> None:
    torch.manual_seed(0)
    model = PoseTransformer(width=16, depth=1, heads=2, relative=relative).eval()
    test = held_out()
    taken = test.relative() if relative else test.poses
    with torch.inference_mode():
        *_, last = iterative_recovery(model, taken, test.masked)
        moved = torch.zeros(6, 1, 3) if relative else test.poses[:, [ROOT]]
    assert torch.allclose(by_transformer(model, test, 2), last.recovered - moved, atol=1e-6)


def test_attention_figures_are_means_over_the_right_pairs() -> None:
    hidden = limb_masks()[[0]]
    uniform = torch.full((1, 17, 17), 1 / 17)
    shy = uniform.clone()
    shy[:, :, hidden[0]] = 0.01
    for parent, child in H36M_17.bones:
        uniform[0, parent, child] = uniform[0, child, parent] = 0.2
    found = attention_figures({'visible': uniform, 'noisy': shy, 'masked': shy / 2}, hidden)
    assert found.neighbours == pytest.approx(0.2)
    assert found.others == pytest.approx(1 / 17)
    assert found.occluded['noisy'] == pytest.approx(0.01)
    assert found.occluded['masked'] == pytest.approx(0.005)
    # of the 42 pairs from 14 joints to the 3 of the arm one is a bone: neck to shoulder
    assert found.occluded['visible'] == pytest.approx((41 / 17 + 0.2) / 42)
    assert found.occluded_self['visible'] == pytest.approx(1 / 17)


def test_the_map_is_the_first_layer_s_mean_over_heads() -> None:
    torch.manual_seed(0)
    model = PoseTransformer(width=16, depth=2, heads=2).eval()
    with torch.inference_mode():
        attention = model(standing(3)).attention
    found = first_layer(model, standing(3), torch.zeros(3, 3))
    assert torch.allclose(found, attention[0].mean(1), atol=1e-6)
    assert not torch.allclose(found, attention[1].mean(1), atol=1e-3)


def test_table_5_of_the_paper_is_whole() -> None:
    assert len(PAPER) == 6
    assert PAPER[Row('no_mask')] == (33.90, 37.05, 32.59, 36.41)
    assert len({row.label for row in PAPER}) == 6


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motion of three clips, one of each split, and a transformer of one block."""
    path = tmp_path_factory.mktemp('poses')
    (path / 'motion').mkdir()
    upright = standing(24).numpy() * (1.0, -1.0, -1.0)
    np.savez(
        path / 'motion' / 'cmu_17joints_60hz.npz',
        joints_mm=1000 * upright[:, ORDER],
        sequence=np.repeat(np.arange(3), 8),
        names=np.array(['walking_1', 'walking_4', 'walking_5']),
    )
    torch.manual_seed(0)
    save_refiner(path / 'r.safetensors', PoseTransformer(depth=1), {})
    return path


def options_of(folder: Path, out: Path) -> list[str]:
    refiner = str(folder / 'r.safetensors')
    return ['--data', str(folder), '--refiner', refiner, '--out', str(out)]


def test_restore_holds_every_method_side_by_side(folder: Path) -> None:
    out = folder / 'restore'
    options = options_of(folder, out)
    assert main(['experiment', 'restore', *options]) == 0
    errors = json.loads((out / 'results.json').read_text())['errors']
    assert len(errors) == 7
    assert errors['best linear guess']['mean_mm'] < errors['mean pose']['mean_mm']
    assert 'walking_5' in (out / 'results.md').read_text()


def test_figure_8_is_drawn(folder: Path) -> None:
    out = folder / 'figure'
    options = options_of(folder, out)
    assert main(['experiment', 'figure-8', *options]) == 0
    assert (out / 'figure.png').stat().st_size > 10000
    assert set(json.loads((out / 'results.json').read_text())['attention']['occluded']) == {
        'visible', 'noisy', 'masked',
    }  # fmt: skip


def test_table_4_trains_every_t_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, config = folder / 'table_4', folder / 'ppt.yaml'
    config.write_text(yaml.safe_dump({'steps': 2, 'batch_size': 4, 'depth': 1, 'bf16': False}))
    options = ['--data', str(folder), '--out', str(out), '--config', str(config)]
    options += ['--times', '1', '3', '--device', 'cpu']
    assert main(['experiment', 'table-4', *options]) == 0
    table = (out / 'results.md').read_text()
    assert '| 1 |' in table
    assert '23.86' in table  # the paper's T = 3
    trained = (out / 't3_seed0' / 'last.pt').stat().st_mtime_ns
    assert main(['experiment', 'table-4', *options]) == 0
    assert (out / 't3_seed0' / 'last.pt').stat().st_mtime_ns == trained
    assert (out / 'results.md').read_text() == table


WEIGHTS = Path(__file__).parents[2] / 'weights' / 'rsb_pose_lite.safetensors'


@pytest.fixture(scope='module')
def pairs(folder: Path) -> str:
    """A pattern of four pairs of noise."""
    rng = np.random.default_rng(0)
    count, side = 4, 288
    uv = rng.uniform(60, 220, (count, 17, 2)).astype(np.float32)
    np.savez(
        folder / 'train_0.npz',
        left=rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8),
        right=rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8),
        xyz_m=standing(count).numpy() + np.float32([0, 0, 3]),
        uv_left=uv,
        uv_right=uv - np.float32([8, 0]),
        visibility=rng.integers(0, 3, (count, 2, 17), dtype=np.uint8),
        calibration=np.tile([300.0, 300.0, 144.0, 144.0, 144.0, 0.1], (count, 1)),
    )
    return str(folder / 'train_*.npz')


def test_table_5_refines_cached_estimates_by_every_strategy(folder: Path, pairs: str) -> None:
    config = folder / 'refiner.yaml'
    config.write_text(yaml.safe_dump({'steps': 1, 'batch_size': 2, 'depth': 1, 'passes': 1}))
    options = [
        '--weights', str(WEIGHTS), '--train', pairs, '--data', pairs,
        '--refiner', str(folder / 'r.safetensors'),
        '--config', str(config), '--out', str(folder / 'table_5'), '--device', 'cpu',
    ]  # fmt: skip
    assert main(['experiment', 'table-5', *options]) == 0
    rows = json.loads((folder / 'table_5' / 'results.json').read_text())['rows']
    assert list(rows) == [
        'no refinement',
        'occ_mask, pre-trained, relative',
        'conf_mask, pre-trained, relative',
        'no_mask, pre-trained, relative',
        'no_mask, from scratch, relative',
    ]
    assert len(list((folder / 'table_5').glob('estimates_*.pt'))) == 2


def test_stage_refiner_writes_network_and_refiner_and_estimates_once(
    folder: Path, pairs: str
) -> None:
    config = RefinerConfig(steps=1, batch_size=2, passes=1, drop_path=0.0, bf16=False)
    out, start = folder / 'refiner', folder / 'r.safetensors'
    run_refiner(config, WEIGHTS, pairs, out, refiner=start)
    (kept,) = out.glob('estimates_*.pt')
    made = kept.stat().st_mtime_ns
    trained = run_refiner(
        replace(config, steps=2), WEIGHTS, pairs, out, refiner=start, resume=True
    )
    assert kept.stat().st_mtime_ns == made
    _, loaded, metadata = load_model(out / 'model.safetensors')
    assert (metadata['model'], metadata['refiner_steps']) == ('lite-efficientnet', '2')
    assert loaded is not None
    with torch.inference_mode():
        far = standing(2) + 3.0
        assert torch.allclose(loaded.refine(far), trained.refine(far), atol=0.01)
    run_refiner(replace(config, passes=2), WEIGHTS, pairs, out, refiner=start)
    assert len(list(out.glob('estimates_*.pt'))) == 2  # others than of one pass
    for path in folder.glob(Path(pairs).name):
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # drawn again
    run_refiner(config, WEIGHTS, pairs, out, refiner=start)
    assert len(list(out.glob('estimates_*.pt'))) == 3
    with pytest.raises(DataError, match='no training pairs match'):
        run_refiner(config, WEIGHTS, str(folder / 'none_*.npz'), out)
