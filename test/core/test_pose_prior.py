"""Algorithm 1 joint by joint, the poses it trains on, and both stages of the training."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rsb_pose_core.checkpoint import load_refiner, save_refiner
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.models.pose_transformer import Recovered
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.config import read_settings
from rsb_pose_core.training.estimates import Estimates
from rsb_pose_core.training.loop import Schedule, optimize
from rsb_pose_core.training.masking import (
    attention_confidence,
    iterative_recovery,
    most_confident,
    random_mask,
)
from rsb_pose_core.training.motion import (
    PoseSet,
    pose_set,
    read_pose_set,
    seen_from_random_cameras,
)
from rsb_pose_core.training.pose_prior import (
    PptConfig,
    RefinerConfig,
    pose_errors,
    refine,
    run_ppt,
    starting_transformer,
    train_refiner,
)

CONFIG = Path(__file__).parents[2] / 'config' / 'train'
ROOT = H36M_17.root
MASKED = [0, 2, 3, 5, 8, 11, 14]


class Oracle(PoseTransformer):
    """Recovers joint j at (100 n + j, 0, 0) in its n-th pass; in the last layer joint j is looked
    at as much as `looks` says, in the first the other way round."""

    def __init__(self, looks: list[float]) -> None:
        super().__init__(width=8, depth=1, heads=1)
        self.looks = torch.tensor(looks)
        self.given: list[torch.Tensor] = []

    def forward(
        self,
        pose_m: torch.Tensor,
        root_m: torch.Tensor | None = None,
        confidence: torch.Tensor | None = None,
    ) -> Recovered:
        self.given.append(pose_m.clone())
        count = len(pose_m)
        last = self.looks.expand(count, 2, 17, 17)
        recovered = torch.zeros(count, 17, 3)
        recovered[..., 0] = 100.0 * len(self.given) + torch.arange(17.0)
        return Recovered(recovered, (-last, last))


def mask_of(joints: list[int]) -> torch.Tensor:
    masked = torch.zeros(1, 17, dtype=torch.bool)
    masked[0, joints] = True
    return masked


TRUTH = 5000.0 + torch.arange(17.0)[None, :, None].expand(1, 17, 3)
RISING = list(map(float, range(17)))


def test_confidence_sums_heads_and_queries() -> None:
    attention = torch.rand(2, 3, 17, 17)
    found = attention_confidence(attention)
    for b in range(2):
        for joint in range(17):
            by_hand = sum(attention[b, h, a, joint].item() for h in range(3) for a in range(17))
            assert found[b, joint].item() == pytest.approx(by_hand, rel=1e-5)


def test_algorithm_1_step_by_step() -> None:
    """T = 3, K = 2 on seven masked joints: 7, 5, 3."""
    oracle = Oracle(RISING)
    passes = list(iterative_recovery(oracle, TRUTH, mask_of(MASKED), times=3, kept=2))
    assert len(passes) == len(oracle.given) == 3
    first, second, third = (given[0, :, 0].tolist() for given in oracle.given)
    for joint in range(17):
        # initial masking: m where masked, the truth elsewhere
        assert first[joint] == (0.0 if joint in MASKED else 5000.0 + joint)
        # 11 and 14 were the most confident of M; all but the rest of M are now recovered ones
        assert second[joint] == (0.0 if joint in [0, 2, 3, 5, 8] else 100.0 + joint)
        # then 5 and 8; also what was kept before is replaced by the second recovery
        assert third[joint] == (0.0 if joint in [0, 2, 3] else 200.0 + joint)
    assert [each.masked[0].nonzero()[:, 0].tolist() for each in passes] == [
        MASKED, [0, 2, 3, 5, 8], [0, 2, 3],
    ]  # fmt: skip
    assert passes[-1].recovered[0, :, 0].tolist() == [300.0 + joint for joint in range(17)]
    for each, given in zip(passes, oracle.given, strict=True):
        assert torch.equal(each.given, given)


def test_the_most_confident_are_chosen_among_masked_joints_only() -> None:
    looks = [0.0] * 17
    looks[16], looks[1], looks[3], looks[5] = 9.0, 8.0, 2.0, 1.0  # 16 and 1 are not masked
    oracle = Oracle(looks)
    *_, last = iterative_recovery(oracle, TRUTH, mask_of(MASKED), times=2, kept=2)
    assert last.masked[0].nonzero()[:, 0].tolist() == [0, 2, 8, 11, 14]


def test_one_iteration_is_masking_and_recovering_once() -> None:
    oracle = Oracle(RISING)
    (only,) = iterative_recovery(oracle, TRUTH, mask_of(MASKED), times=1)
    assert len(oracle.given) == 1
    assert only.masked[0].nonzero()[:, 0].tolist() == MASKED
    assert only.recovered[0, 3, 0] == 103.0


@pytest.mark.parametrize('kept', [3, 4, 17, 50])
def test_keeping_as_many_as_are_masked_leaves_nothing_masked(kept: int) -> None:
    oracle = Oracle(RISING)
    passes = list(iterative_recovery(oracle, TRUTH, mask_of([4, 7, 9]), times=3, kept=kept))
    assert [int(each.masked.sum()) for each in passes] == [3, 0, 0]
    assert oracle.given[1][0, :, 0].tolist() == [100.0 + joint for joint in range(17)]


def test_masks_of_a_batch_shrink_by_themselves() -> None:
    confidence = torch.stack([torch.arange(17.0), -torch.arange(17.0)])
    masked = mask_of(MASKED).expand(2, 17)
    chosen = most_confident(confidence, masked, 2)
    assert [row.nonzero()[:, 0].tolist() for row in chosen] == [[11, 14], [0, 2]]


def test_equal_confidences_still_keep_exactly_k() -> None:
    chosen = most_confident(torch.ones(4, 17), mask_of(MASKED).expand(4, 17), 2)
    assert chosen.sum(1).tolist() == [2] * 4


def test_no_gradient_flows_back_through_recovered_points() -> None:
    torch.manual_seed(0)
    model = PoseTransformer(width=8, depth=2, heads=2)
    passes = list(iterative_recovery(model, torch.randn(2, 17, 3), mask_of(MASKED).expand(2, 17)))
    assert not passes[1].given.requires_grad
    assert passes[0].recovered.requires_grad
    assert passes[1].recovered.requires_grad


@pytest.mark.parametrize(('ratio', 'count'), [(0.1, 2), (0.2, 3), (0.3, 5), (0.4, 7)])
def test_masks_hide_the_ratio_s_number_of_joints(ratio: float, count: int) -> None:
    masked = random_mask(50, 17, ratio, torch.Generator().manual_seed(0))
    assert masked.sum(1).tolist() == [count] * 50
    assert masked.any(0).all()


# ---- poses ----


def recordings(lengths: tuple[int, ...] = (100, 4)) -> PoseSet:
    rng = np.random.default_rng(0)
    parts = [(f'clip_{n}', 0.3 * rng.standard_normal((c, 17, 3))) for n, c in enumerate(lengths)]
    return pose_set(parts, 'test')


def test_a_recording_counts_as_the_square_root_of_its_length() -> None:
    poses = recordings((100, 4))
    weights = poses.weights()
    shares = [float(weights[poses.recording == n].sum()) for n in (0, 1)]
    assert shares == pytest.approx([10.0, 2.0])


def test_poses_know_where_they_come_from_and_incomplete_ones_are_left_out() -> None:
    joints = np.ones((3, 17, 3))
    joints[1, 4, 2] = np.nan
    poses = pose_set([('whole', np.ones((2, 17, 3))), ('torn', joints)], 'test')
    assert len(poses) == 4
    assert [poses.name(i) for i in range(4)] == [
        'whole frame 0', 'whole frame 1', 'torn frame 0', 'torn frame 2',
    ]  # fmt: skip


def test_even_poses_span_each_recording() -> None:
    even = recordings((100, 4)).evenly(5)
    assert even.frame.tolist() == [0, 25, 50, 74, 99, 0, 1, 2, 3]


def lengths_of(poses: torch.Tensor) -> torch.Tensor:
    return torch.stack([(poses[:, a] - poses[:, b]).norm(dim=-1) for a, b in H36M_17.bones], 1)


def test_random_cameras_turn_but_do_not_bend() -> None:
    poses = recordings((200,)).poses
    seen = seen_from_random_cameras(poses, torch.Generator().manual_seed(1), vary_body=False)
    assert torch.allclose(lengths_of(seen), lengths_of(poses), atol=1e-5)
    relative, before = seen - seen[:, [ROOT]], poses - poses[:, [ROOT]]
    turns = torch.linalg.lstsq(before, relative).solution
    assert (torch.linalg.det(turns) > 0.99).all()  # no mirror image
    down = turns[:, 1]  # where the vertical goes
    assert (down[:, 1] > 0.8).all()  # cameras tilt little
    assert down[:, 1].std() > 0.003
    assert turns[:, 0, 0].min() < -0.9  # and turn fully
    assert turns[:, 0, 0].max() > 0.9
    assert seen[:, ROOT, 2].min() >= 1.5
    assert seen[:, ROOT, 2].max() <= 5.0


def test_varied_bodies_are_scaled_and_half_of_them_mirrored() -> None:
    poses = recordings((400,)).poses
    seen = seen_from_random_cameras(poses, torch.Generator().manual_seed(1))
    relative, before = seen - seen[:, [ROOT]], poses - poses[:, [ROOT]]
    swapped = before[:, list(H36M_17.mirror)]
    sizes = relative.flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    assert sizes.std().item() == pytest.approx(0.06, abs=0.015)
    heights = [(relative[..., 1] * b[..., 1]).sum(1) for b in (before, swapped)]
    assert (heights[1] > heights[0]).float().mean().item() == pytest.approx(0.5, abs=0.1)


def write_motion(folder: Path, frames: int = 12) -> Path:
    """A data folder with one clip of each split, of the format of cmu_17joints_60hz.npz."""
    names = ['walking_1', 'walking_4', 'walking_5']
    order = np.array([6, 2, 1, 0, 3, 4, 5, 7, 8, 16, 9, 13, 14, 15, 12, 11, 10])
    stand = np.zeros((17, 3))  # x left, y up
    heights = {0: 0.1, 1: 0.5, 2: 0.95, 6: 0.97, 7: 1.2, 8: 1.5, 9: 1.75, 16: 1.6,
               10: 0.9, 11: 1.15, 12: 1.45}  # fmt: skip
    for joint, height in heights.items():
        for one, side in ((joint, -1.0), (H36M_17.mirror[joint], 1.0)):
            stand[one] = (0.0 if H36M_17.mirror[joint] == joint else 0.2 * side, height, 0.0)
    rng = np.random.default_rng(0)
    moved = stand + 0.03 * rng.standard_normal((3 * frames, 17, 3))
    (folder / 'motion').mkdir(parents=True)
    np.savez(
        folder / 'motion' / 'cmu_17joints_60hz.npz',
        joints_mm=1000 * moved[:, order],
        sequence=np.repeat(np.arange(3), frames),
        names=np.array(names),
    )
    return folder


def test_the_split_s_clips_are_read_head_up_in_an_optical_frame(tmp_path: Path) -> None:
    data = write_motion(tmp_path)
    for split, name in (('train', 'walking_1'), ('val', 'walking_4'), ('test', 'walking_5')):
        poses = read_pose_set(data, split)
        assert poses.names == (name,)
        assert len(poses) == 12
        head, ankle = (H36M_17.index(joint) for joint in ('head', 'left_ankle'))
        assert (poses.poses[:, head, 1] < poses.poses[:, ankle, 1] - 1.0).all()  # y down


def test_prepared_pairs_add_their_poses(tmp_path: Path) -> None:
    data = write_motion(tmp_path)
    xyz = np.ones((5, 17, 3), np.float32)
    xyz[2, 0] = np.nan
    np.savez(tmp_path / 'train_0.npz', xyz_m=xyz)
    poses = read_pose_set(data, 'train', [str(tmp_path / 'train_*.npz')])
    assert len(poses) == 12 + 4
    assert poses.name(15) == f'{tmp_path / "train_0.npz"} frame 4'


def test_missing_and_foreign_poses_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no folder motion in it, expected recorded motion'):
        read_pose_set(tmp_path, 'train')
    with pytest.raises(DataError, match='no files match .*nothing.npz'):
        read_pose_set(tmp_path, 'train', [str(tmp_path / 'nothing.npz')])
    np.savez(tmp_path / 'p.npz', xyz_m=np.zeros((5, 26, 3)))
    with pytest.raises(DataError, match=r'shape \(5, 26, 3\), expected \(N, 17, 3\) in metres'):
        read_pose_set(tmp_path, 'train', [str(tmp_path / 'p.npz')])
    (tmp_path / 'q.npz').write_bytes(b'PK\x03\x04 cut')
    with pytest.raises(DataError, match='cannot be read'):
        read_pose_set(tmp_path, 'train', [str(tmp_path / 'q.npz')])


# ---- pre-training ----

SMALL = PptConfig(steps=6, batch_size=4, depth=2, warmup_steps=2, bf16=False, drop_path=0.5)


def weights_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_motion(tmp_path)
    whole = run_ppt(SMALL, data, tmp_path / 'whole', resume=False)
    calls = 0

    def stop_after_three(model: PoseTransformer, *args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return iterative_recovery(model, *args, **kwargs)

    # saved after every step, so that the last one is what an interruption leaves
    often = replace(SMALL, save_minutes=0.0)
    monkeypatch.setattr('rsb_pose_core.training.pose_prior.iterative_recovery', stop_after_three)
    monkeypatch.setattr(
        'rsb_pose_core.training.pose_prior.restoring_error', lambda *args: torch.tensor(0.0)
    )
    with pytest.raises(KeyboardInterrupt):
        run_ppt(often, data, tmp_path / 'parts', resume=False)
    monkeypatch.undo()
    assert torch.load(tmp_path / 'parts' / 'last.pt', weights_only=True)['step'] == 3
    resumed = run_ppt(SMALL, data, tmp_path / 'parts', resume=True)
    assert torch.equal(weights_of(whole), weights_of(resumed))
    kept, metadata = load_refiner(tmp_path / 'parts' / 'refiner.safetensors')
    assert metadata['steps'] == '6'
    assert (weights_of(kept) - weights_of(resumed)).abs().max() < 1e-3


def test_another_seed_trains_otherwise(tmp_path: Path) -> None:
    data = write_motion(tmp_path)
    one, two = (
        run_ppt(replace(SMALL, steps=2, seed=seed), data, tmp_path / str(seed), resume=False)
        for seed in (0, 1)
    )
    assert not torch.equal(weights_of(one), weights_of(two))


def test_pretraining_learns_to_restore_masked_joints(tmp_path: Path) -> None:
    data = write_motion(tmp_path, frames=40)
    config = replace(
        SMALL, steps=80, batch_size=16, learning_rate=3e-3, warmup_steps=10, drop_path=0.0
    )
    run_ppt(config, data, tmp_path / 'run', resume=False)
    model, _ = load_refiner(tmp_path / 'run' / 'refiner.safetensors')
    seen = seen_from_random_cameras(
        read_pose_set(data, 'test').poses, torch.Generator().manual_seed(0), vary_body=False
    )
    truth = seen - seen[:, [ROOT]]
    masked = random_mask(len(truth), 17, 0.4, torch.Generator().manual_seed(0))
    with torch.inference_mode():
        *_, last = iterative_recovery(model, truth, masked)
    error = (last.recovered - truth).norm(dim=-1)[masked].mean()
    assert error < 0.65 * truth.norm(dim=-1)[masked].mean()


def test_nan_names_the_clip_and_frame_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_motion(tmp_path)
    run_ppt(replace(SMALL, steps=2), data, tmp_path / 'run', resume=False)
    before = (tmp_path / 'run' / 'last.pt').read_bytes()

    def broken(poses: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        seen = poses.clone()
        seen[1] = torch.nan
        return seen

    monkeypatch.setattr('rsb_pose_core.training.pose_prior.seen_from_random_cameras', broken)
    message = r'step 3: the loss of 1 of 4 poses is not a number, first walking_1 frame \d+; '
    with pytest.raises(DataError, match=message):
        run_ppt(SMALL, data, tmp_path / 'run', resume=True)
    assert (tmp_path / 'run' / 'last.pt').read_bytes() == before


def test_resuming_nothing_or_another_model_is_one_sentence(tmp_path: Path) -> None:
    data = write_motion(tmp_path)
    with pytest.raises(DataError, match='no such run to resume'):
        run_ppt(SMALL, data, tmp_path / 'none', resume=True)
    run_ppt(replace(SMALL, steps=1), data, tmp_path / 'run', resume=False)
    with pytest.raises(DataError, match='of another model or program'):
        run_ppt(replace(SMALL, depth=3), data, tmp_path / 'run', resume=True)


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    schedule = Schedule(steps=100, learning_rate=2.0, warmup_steps=10)
    assert schedule.rate(0) == pytest.approx(0.2)
    assert schedule.rate(50) == pytest.approx(1.0)
    assert schedule.rate(99) < 0.001


def test_the_loop_stops_where_it_is_asked_to_and_says_so(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)

    def backward(step: int, generator: torch.Generator) -> dict[str, float]:
        model(torch.ones(1, 2)).sum().backward()
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    finished = optimize(model, backward, Schedule(steps=9), tmp_path, name='t')
    assert not finished
    assert torch.load(tmp_path / 'last.pt', weights_only=True)['step'] == 3


def test_a_gradient_that_is_not_a_number_leaves_the_weights_as_they_are(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    before = weights_of(model)

    def backward(step: int, generator: torch.Generator) -> dict[str, float]:
        (model(torch.ones(1, 2)).sum() * torch.nan).backward()
        return {}

    optimize(model, backward, Schedule(steps=2), tmp_path, name='t')
    assert torch.equal(weights_of(model), before)


@pytest.mark.parametrize('cycle', [False, True])
def test_ratios_are_fixed_as_in_the_paper_or_cycle_as_the_authors_do(cycle: bool) -> None:
    config = PptConfig(cycle_ratios=cycle)
    expected = [0.1, 0.2, 0.3, 0.4, 0.1] if cycle else [0.4] * 5
    assert [config.ratio(step) for step in range(5)] == expected


@pytest.mark.parametrize(
    ('kind', 'values', 'message'),
    [
        (PptConfig, {'mask_ratio': 1.0}, 'expected a ratio between 0 and 1'),
        (PptConfig, {'times': 0}, 'at least 1'),
        (PptConfig, {'batch_size': 0}, 'expected all above 0'),
        (RefinerConfig, {'cascade': 'some_mask'}, 'expected one of occ_mask, conf_mask, no_mask'),
    ],
)
def test_values_that_cannot_be_are_one_sentence(
    kind: Callable[..., object], values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**values)


def test_the_configurations_of_the_paper_are_read() -> None:
    ppt = read_settings(PptConfig, CONFIG / 'ppt.yaml')
    assert (ppt.mask_ratio, ppt.times, ppt.kept, ppt.learning_rate) == (0.4, 2, 2, 1e-3)
    assert (ppt.weight_decay, ppt.drop_path, ppt.depth) == (0.1, 0.1, 16)
    assert read_settings(RefinerConfig, CONFIG / 'refiner.yaml').cascade == 'no_mask'
    assert read_settings(PptConfig, CONFIG.parent / 'experiments' / 'ppt_rounds.yaml').depth == 4


# ---- refinement ----


def estimates(count: int = 64) -> Estimates:
    """The right wrist is always half a metre too far; it is occluded and not trusted."""
    truth = recordings((count,)).poses * 0.3 + torch.tensor([0.0, 0.0, 3.0])
    initial = truth.clone()
    initial[:, 10, 2] += 0.5
    occluded = torch.zeros(count, 17, dtype=torch.bool)
    occluded[:, 10] = True
    confidence = torch.where(occluded, 0.05, 0.95)
    return Estimates(initial, truth, confidence, occluded, ~occluded, torch.arange(count))


@pytest.mark.parametrize('cascade', ['no_mask', 'occ_mask', 'conf_mask'])
def test_refining_removes_a_systematic_error(tmp_path: Path, cascade: str) -> None:
    config = RefinerConfig(
        steps=70, batch_size=16, learning_rate=5e-3, warmup_steps=10, depth=1, drop_path=0.0,
        cascade=cascade, varied=False, bf16=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = starting_transformer(config, None)
    train_refiner(model, config, estimates(), tmp_path, str)
    with torch.inference_mode():
        refined = refine(model, estimates(), cascade)
    wrist = pose_errors(refined[:, [10]], estimates().truth_m[:, [10]]).mean()
    assert wrist < 0.2  # from 0.5 m
    assert (model.confidence_head is not None) == (cascade == 'conf_mask')


def test_a_gate_leaves_alone_what_needs_no_correction(tmp_path: Path) -> None:
    config = RefinerConfig(
        steps=250, batch_size=16, learning_rate=5e-3, warmup_steps=10, depth=1, drop_path=0.0,
        varied=False, bf16=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = starting_transformer(config, None)
    others = [joint for joint in range(17) if joint != 10]
    found = {}
    for gated in (False, True):
        if gated:
            model.add_gate()
            config = replace(config, steps=150, learning_rate=1e-3)
        train_refiner(model, config, estimates(), tmp_path / str(gated), str)
        with torch.inference_mode():
            refined = refine(model, estimates(), 'no_mask')
        for joints in ([10], others):
            errors = pose_errors(refined[:, joints], estimates().truth_m[:, joints])
            found[gated, len(joints)] = float(errors.mean())
    assert found[True, 1] < found[False, 1] < 0.2  # the wrist, from 0.5 m
    assert found[True, 16] < 0.5 * found[False, 16]


def test_varied_estimates_keep_their_errors_along_the_line_of_sight() -> None:
    found = estimates(200)
    found.initial_m[:, 10] = found.truth_m[:, 10] * 1.2  # 20 % too far
    found.initial_m[:, 2, 0] += 0.01  # the right hip, towards the person's left
    varied = found.varied(torch.Generator().manual_seed(0))
    # half of the pairs are mirrored, and then the left wrist and hip err
    mirrored = varied.occluded[:, H36M_17.mirror[10]]
    assert 70 < int(mirrored.sum()) < 130
    assert torch.equal(varied.occluded[:, 10], ~mirrored)
    assert torch.equal(varied.confidence < 0.5, varied.occluded)
    assert torch.equal(varied.counted, ~varied.occluded)
    error = varied.initial_m - varied.truth_m
    pairs, wrist = torch.arange(200), torch.where(mirrored, H36M_17.mirror[10], 10)
    along = error[pairs, wrist] / varied.truth_m[pairs, wrist].norm(dim=-1, keepdim=True)
    sight = varied.truth_m[pairs, wrist] / varied.truth_m[pairs, wrist].norm(dim=-1, keepdim=True)
    assert torch.allclose(along, 0.2 * sight, atol=1e-5)
    hip = torch.where(mirrored, H36M_17.mirror[2], 2)
    towards = error[pairs, hip, 0]
    assert (torch.where(mirrored, -towards, towards) > 0.007).all()

    # sizes change by up to 15 %, shapes do not, and the vertical stays vertical
    def lengths(pose: torch.Tensor) -> torch.Tensor:
        return (pose[:, 9] - pose[:, 0]).norm(dim=-1)

    flipped = torch.where(
        mirrored[:, None, None], varied.truth_m[:, list(H36M_17.mirror)], varied.truth_m
    )
    scale = lengths(flipped) / lengths(found.truth_m)
    assert 0.85 < scale.min() < 0.9
    assert 1.1 < scale.max() < 1.17
    heights = flipped[..., 1] / scale[:, None]
    assert torch.allclose(heights, found.truth_m[..., 1], atol=1e-4)
    assert not torch.equal(found.varied(torch.Generator().manual_seed(1)).truth_m, varied.truth_m)


def test_incomplete_estimates_are_left_out_and_none_at_all_is_one_sentence() -> None:
    found = estimates(4)
    found.truth_m[1, 3] = torch.nan
    found.initial_m[2, 0] = torch.nan
    assert found.complete().numbers.tolist() == [0, 3]
    found.truth_m[:, 5] = torch.nan
    with pytest.raises(DataError, match='no pair has a position of every joint'):
        found.complete()


def test_a_pair_that_is_not_a_number_is_named(tmp_path: Path) -> None:
    found = estimates(8)
    found.initial_m[5] = torch.inf
    config = RefinerConfig(steps=20, batch_size=8, depth=1, bf16=False)
    with pytest.raises(DataError, match='is not a number, first shard pair 5; look'):
        train_refiner(
            starting_transformer(config, None), config, found, tmp_path,
            lambda number: f'shard pair {number}',
        )  # fmt: skip


def test_conf_mask_begins_from_pre_trained_weights_without_its_head(tmp_path: Path) -> None:
    data = write_motion(tmp_path)
    pretrained = run_ppt(replace(SMALL, steps=1), data, tmp_path / 'run', resume=False)
    config = RefinerConfig(cascade='conf_mask', drop_path=0.2)
    started = starting_transformer(config, tmp_path / 'run' / 'refiner.safetensors')
    assert started.confidence_head is not None
    gated = starting_transformer(
        RefinerConfig(gated=True), tmp_path / 'run' / 'refiner.safetensors'
    )
    assert gated.gate is not None
    assert started.gate is gated.confidence_head is None
    assert (started.position - pretrained.position).abs().max() < 1e-3
    assert [encoder.drop_path for encoder in started.encoders] == [0.0, 0.2]


def test_a_refiner_goes_on_with_its_own_gate(tmp_path: Path) -> None:
    learnt = PoseTransformer(depth=1, gated=True, use_confidence=True)
    assert learnt.gate is not None
    assert learnt.confidence_head is not None
    learnt.gate.weight.data.fill_(0.25)
    learnt.confidence_head.bias.data.fill_(-0.5)
    save_refiner(tmp_path / 'refiner.safetensors', learnt, {})
    config = RefinerConfig(gated=True, cascade='conf_mask')
    started = starting_transformer(config, tmp_path / 'refiner.safetensors')
    assert started.gate is not None
    assert started.confidence_head is not None
    assert torch.equal(started.gate.weight, learnt.gate.weight)
    assert torch.equal(started.confidence_head.bias, learnt.confidence_head.bias)
