"""The Pose Transformer: its size, Algorithm 1, and that it learns how joints belong together."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rsb_pose_core.errors import DataError
from rsb_pose_core.models.pose_transformer import (
    PoseTransformer,
    Recovered,
    attention_confidence,
    iterative_recovery,
)
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.pose_prior import (
    PriorConfig,
    finetune,
    pose_error,
    pretrain,
    random_mask,
    read_poses,
    turn_poses,
)


def parameters(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def stick_poses(count: int) -> torch.Tensor:
    """Poses with two degrees of freedom: whole-body lean and arm height."""
    generator = torch.Generator().manual_seed(0)
    rest = torch.randn(17, 3, generator=torch.Generator().manual_seed(1)) * 0.4
    lean, lift = torch.rand(2, count, 1, 1, generator=generator)
    poses = rest * (1 + 0.3 * lean)
    poses = poses + lift * torch.tensor([0.0, -0.4, 0.1]) * (torch.arange(17) > 9)[:, None]
    return poses - poses[:, [H36M_17.root]]


def test_adding_positions_costs_2_123_million_parameters() -> None:
    assert parameters(PoseTransformer()) == pytest.approx(2.123e6, rel=0.001)


def test_concatenating_positions_costs_8_44_million_parameters() -> None:
    assert parameters(PoseTransformer(concatenate=True)) == pytest.approx(8.44e6, rel=0.002)


@pytest.mark.parametrize(
    ('concatenate', 'use_root'), [(False, False), (True, False), (False, True)]
)
def test_refining_moves_with_the_person_unless_it_sees_the_root(
    concatenate: bool, use_root: bool
) -> None:
    torch.manual_seed(0)
    model = PoseTransformer(concatenate=concatenate, use_root=use_root).eval()
    pose = stick_poses(2) + torch.tensor([0.0, 0.0, 3.0])
    shift = torch.tensor([0.5, -0.2, 1.0])
    with torch.inference_mode():
        difference = model.refine(pose + shift) - model.refine(pose) - shift
    assert pose.shape == (2, 17, 3)
    assert (difference.abs().max() < 1e-5) == (not use_root)


def test_attention_rows_sum_to_one_and_confidence_to_heads_times_joints() -> None:
    recovered = PoseTransformer().eval()(stick_poses(3))
    assert recovered.attention.shape == (3, 8, 17, 17)
    assert torch.allclose(recovered.attention.sum(-1), torch.ones(3, 8, 17), atol=1e-5)
    confidence = attention_confidence(recovered.attention)
    assert confidence.sum(1).tolist() == pytest.approx([8 * 17] * 3, rel=1e-5)


class Recorder(PoseTransformer):
    """Recovers every joint at (1, 1, 1); joint j is looked at j times as much as joint 1."""

    def __init__(self) -> None:
        super().__init__(width=8, depth=2, heads=1)
        self.seen: list[torch.Tensor] = []

    def forward(self, pose_m: torch.Tensor, root_m: torch.Tensor | None = None) -> Recovered:
        self.seen.append(pose_m.clone())
        attention = torch.arange(17.0).expand(len(pose_m), 8, 17, 17)
        return Recovered(torch.ones_like(pose_m), attention)


def test_algorithm_1_keeps_the_two_most_confident_of_seven_masked_joints() -> None:
    recorder = Recorder()
    masked = torch.zeros(1, 17, dtype=torch.bool)
    masked[0, [0, 2, 3, 5, 8, 11, 14]] = True
    pose = torch.full((1, 17, 3), 5.0)
    poses = iterative_recovery(recorder, pose, masked, torch.zeros(3))
    assert len(poses) == 2
    first, second = (seen[0, :, 0].tolist() for seen in recorder.seen)
    assert [j for j in range(17) if first[j] == 0.0] == [0, 2, 3, 5, 8, 11, 14]
    assert {first[j] for j in range(17) if not masked[0, j]} == {5.0}
    assert [j for j in range(17) if second[j] == 0.0] == [0, 2, 3, 5, 8]  # 11 and 14 stay
    assert {second[j] for j in (11, 14, 1, 16)} == {1.0}  # recovered points come in


@pytest.mark.parametrize(('ratio', 'count'), [(0.1, 2), (0.2, 3), (0.3, 5), (0.4, 7)])
def test_masks_hide_the_ratio_s_number_of_joints(ratio: float, count: int) -> None:
    masked = random_mask(50, 17, ratio, torch.Generator().manual_seed(0))
    assert masked.sum(1).tolist() == [count] * 50
    assert masked.any(0).all()


def test_turned_poses_keep_their_bones() -> None:
    poses = stick_poses(64)
    turned = turn_poses(poses, torch.Generator().manual_seed(3))
    child, parent = 0, 1
    before = (poses[:, child] - poses[:, parent]).norm(dim=-1)
    mirrored = (poses[:, 5] - poses[:, 4]).norm(dim=-1)
    after = (turned[:, child] - turned[:, parent]).norm(dim=-1)
    ratio = torch.minimum((after / before - 1).abs(), (after / mirrored - 1).abs())
    assert ratio.max() < 0.3  # scaled by a few per cent
    assert turned[:, H36M_17.root].abs().max() == 0


def test_pretraining_learns_to_recover_masked_joints() -> None:
    torch.manual_seed(0)
    model = PoseTransformer(width=32, depth=2, heads=4, drop_path=0.0)
    config = PriorConfig(steps=80, batch_size=32, learning_rate=3e-3, warmup_steps=10)
    losses = pretrain(model, stick_poses(200), config)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_finetuning_removes_a_systematic_error() -> None:
    torch.manual_seed(0)
    model = PoseTransformer(width=32, depth=2, heads=4, drop_path=0.0)
    truth = stick_poses(200) + torch.tensor([0.0, 0.0, 3.0])
    initial = truth.clone()
    initial[:, 10] += torch.tensor([0.0, 0.0, 0.5])  # the right wrist is always too far
    config = PriorConfig(steps=150, batch_size=32, learning_rate=3e-3, warmup_steps=10)
    finetune(model, initial, truth, config)
    with torch.inference_mode():
        refined = model.refine(initial)
    assert pose_error(refined[:, [10]], truth[:, [10]]) < 0.1  # from 0.5 m


def test_poses_of_another_skeleton_are_one_sentence(tmp_path: Path) -> None:
    np.save(tmp_path / 'p.npy', np.zeros((5, 26, 3)))
    with pytest.raises(DataError, match=r'shape \(5, 26, 3\), expected \(N, 17, 3\) in metres'):
        read_poses(None, tmp_path / 'p.npy')


def test_incomplete_poses_are_left_out(tmp_path: Path) -> None:
    poses = np.ones((3, 17, 3))
    poses[1, 4, 2] = np.nan
    np.save(tmp_path / 'p.npy', poses)
    assert read_poses(None, tmp_path / 'p.npy').shape == (2, 17, 3)
