"""Every method learns eight rendered pairs by heart, to an error that only working parts allow.

Each time a pair is shown, its right crop is moved sideways by up to two heat-map cells and the
calibration with it: the left view and memory tell no depth, only comparing the views does. The
errors are measured at shifts that training did not show. All runs are on one thread with fixed
seeds; the figures in the tests were measured with this file, the key part taken out as said.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsb_pose_core.models import (
    AlgebraicTriangulation,
    IndependentHeatmaps,
    PoseTransformer,
    RSBPose,
    VolumetricTriangulation,
)
from rsb_pose_core.models.backbones import ResNetTrunk
from rsb_pose_core.models.estimate import StereoOutput
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.models.volume_networks import V2V, StereoV2V
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.pairs import PairSpace, make_renderer
from rsb_pose_core.synthesis.shards import shard_arrays
from rsb_pose_core.training.augmentation import Pair, Window, collate, crop_pair
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.losses import LossWeights, method_losses, refined_loss
from rsb_pose_core.training.pool import SHARD_ARRAYS

DATA = Path(__file__).parents[3] / 'shared' / 'data'
PAIRS, SIDE, JOINTS = 8, 64, len(H36M_17)
LARGEST_SHIFT = 32  # pixels of the stored 288; 16 of them are a heat-map cell
DISPARITIES = DisparityRange(-4, 3)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason='needs the shared motion and garments'),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def pairs() -> list[Pair]:
    arrays = shard_arrays(make_renderer(DATA, 'train', 3, PairSpace(), 'cpu').batch(PAIRS, 3, 0))
    return [{name: arrays[name][i] for name in SHARD_ARRAYS} for i in range(PAIRS)]


def shifted(pairs: list[Pair], rng: np.random.Generator) -> StereoBatch:
    """All pairs, the right crop of each moved at random."""
    shifts = rng.integers(-LARGEST_SHIFT, LARGEST_SHIFT + 1, len(pairs))
    return collate(
        [
            crop_pair(pair, Window(16, 16 + int(shift), 16, 256), SIDE)
            for pair, shift in zip(pairs, shifts, strict=True)
        ]
    )


def trunk() -> ResNetTrunk:
    torch.manual_seed(0)
    return ResNetTrunk((1, 1, 1, 1), width=8, channels_out=32)


def slim_v2v(channels_in: int) -> V2V:
    # PyTorch's 3D convolutions on a CPU are faster with channels last
    return V2V(channels_in, JOINTS, levels=2, width=16).to(memory_format=torch.channels_last_3d)


def slim_rsb_pose() -> RSBPose:
    return RSBPose(
        trunk(), (8, 4), StereoV2V(slim_v2v(8), DISPARITIES), DISPARITIES, JOINTS,
        heatmap_skip=False,
    )  # fmt: skip


def call(method: nn.Module, batch: StereoBatch, rng: np.random.Generator) -> StereoOutput:
    """Volume-T's cube is put up to 0.3 m off the pelvis along each axis."""
    if not isinstance(method, VolumetricTriangulation):
        output: StereoOutput = method(*batch.images(), batch.calibration)
        return output
    off = torch.from_numpy(rng.uniform(-0.3, 0.3, (len(batch), 3)).astype(np.float32))
    centre = batch.xyz_m[:, H36M_17.root] + off
    return method(*batch.images(), batch.calibration, centre_m=centre)


def learn(
    method: nn.Module, pairs: list[Pair], weights: LossWeights, steps: int, heatmap_steps: int = 0
) -> None:
    """The first `heatmap_steps` see no volume, as in the stages of config/train."""
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(method.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    method.train()
    for step in range(steps):
        batch = shifted(pairs, rng)
        if step < heatmap_steps:
            output = method(*batch.images(), volume=False)
            terms = method_losses(output, batch, LossWeights())
        else:
            terms = method_losses(call(method, batch, rng), batch, weights)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        schedule.step()


@torch.inference_mode()
def errors_mm(method: nn.Module, pairs: list[Pair], *, relative: bool = False) -> torch.Tensor:
    """Distances from the truth of joints in both crops, at four new shifts; relative to the
    pelvis on request."""
    method.eval()
    rng = np.random.default_rng(99)
    found = []
    for _ in range(4):
        batch = shifted(pairs, rng)
        if isinstance(method, PoseSystem):
            xyz_m = method(*batch.images(), batch.calibration).final.xyz_m
        else:
            xyz_m = call(method, batch, rng).estimate(batch.calibration).xyz_m
        moved = xyz_m - batch.xyz_m
        if relative:
            moved = moved - moved[:, [H36M_17.root]]
        seen = batch.in_view(0) & batch.in_view(1) & batch.xyz_m.isfinite().all(-1)
        found.append(1000 * moved.norm(dim=-1)[seen])
    return torch.cat(found)


def test_independent_heatmaps_learn_eight_pairs(pairs: list[Pair]) -> None:
    method = IndependentHeatmaps(trunk(), DISPARITIES, JOINTS, multi_scale=False)
    learn(method, pairs, LossWeights(heatmap_ce=1.0, heatmap_l1=0.3), steps=100)
    # 326 mm; 3419 where the right view is a copy of the left
    assert errors_mm(method, pairs).mean() < 600


def test_algebraic_triangulation_learns_eight_pairs(pairs: list[Pair]) -> None:
    method = AlgebraicTriangulation(trunk(), JOINTS)
    weights = LossWeights(heatmap_ce=1.0, heatmap_l1=0.3, pose_soft_mse=1e-3)
    learn(method, pairs, weights, steps=140)
    # 523 mm; 3417 where the right view is a copy of the left
    assert errors_mm(method, pairs).mean() < 700


def test_volumetric_triangulation_learns_eight_pairs(pairs: list[Pair]) -> None:
    method = VolumetricTriangulation(
        trunk(), slim_v2v(8), JOINTS, H36M_17.root, side_m=2.0, cells=8, turned=False
    )
    weights = LossWeights(heatmap_ce=0.2, heatmap_l1=0.0, volume_ce=1.0, pose_l1_m=3.0)
    learn(method, pairs, weights, steps=160, heatmap_steps=20)
    # 69 mm; 306 where nothing is unprojected into the cube, so that its place is not known
    assert errors_mm(method, pairs).median() < 100


@pytest.fixture(scope='module')
def rsb_pose(pairs: list[Pair]) -> RSBPose:
    torch.set_num_threads(1)
    method = slim_rsb_pose()
    weights = LossWeights(heatmap_ce=0.5, heatmap_l1=0.0, volume_ce=1.0)
    learn(method, pairs, weights, steps=120, heatmap_steps=40)
    return method


def test_rsb_pose_learns_eight_pairs(rsb_pose: RSBPose, pairs: list[Pair]) -> None:
    # 347 mm; 3373 where the right view is a copy of the left
    assert errors_mm(rsb_pose, pairs).mean() < 600


def test_rsb_pose_and_its_refiner_learn_eight_pairs_end_to_end(
    rsb_pose: RSBPose, pairs: list[Pair]
) -> None:
    torch.manual_seed(1)
    refiner = PoseTransformer(width=64, depth=2, heads=4, drop_path=0.0)
    learn_poses(refiner, torch.from_numpy(np.stack([pair['xyz_m'] for pair in pairs])))
    system = PoseSystem(rsb_pose, refiner)
    rng = np.random.default_rng(5)
    groups = [(rsb_pose, 3e-4), (refiner, 2e-3)]
    optimizer = torch.optim.AdamW([{'params': m.parameters(), 'lr': lr} for m, lr in groups])
    system.train()
    for _ in range(25):
        batch = shifted(pairs, rng)
        refined = system(*batch.images(), batch.calibration).refined_m
        optimizer.zero_grad()
        refined_loss(refined, batch).backward()
        optimizer.step()
    # 271 mm, and 148 relative to the pelvis where the joints given to the refiner have 266;
    # 1085 was measured behind a refiner with fresh weights
    assert errors_mm(system, pairs).mean() < 450
    relative = errors_mm(system, pairs, relative=True).mean()
    assert relative < 0.75 * errors_mm(rsb_pose, pairs, relative=True).mean()


def learn_poses(refiner: PoseTransformer, xyz_m: torch.Tensor) -> None:
    """Pre-training in small: recover the poses from noise of 0.3 m."""
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.AdamW(refiner.parameters(), 3e-3)
    for _ in range(400):
        noise = 0.3 * torch.randn(xyz_m.shape, generator=generator)
        loss = (refiner.refine(xyz_m + noise) - noise[:, [H36M_17.root]] - xyz_m).norm(dim=-1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
