"""Muon: its orthogonal steps against an SVD and torch's own, and AdamW for the rest."""

import pytest
import torch
from torch import Tensor, nn

from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.training.config import Stage, TrainConfig
from rsb_pose_core.training.muon import Muon, is_matrix, orthogonal
from rsb_pose_core.training.objective import build_model
from rsb_pose_core.training.state import BETAS, make_optimizer

RATE, DECAY = 1e-2, 0.1


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def muon(parameter: nn.Parameter, *, matrices: bool = True) -> Muon:
    group = {'params': [parameter], 'weight_decay': DECAY, 'orthogonal': matrices}
    return Muon([group], RATE, BETAS)


@pytest.mark.parametrize('shape', [(16, 64), (64, 16), (48, 48)])
def test_steps_turn_as_the_singular_vectors_do(shape: tuple[int, int]) -> None:
    """Singular values a thousand apart come out near one, between the same vectors."""
    u, _, vh = torch.linalg.svd(drawn(*shape).double(), full_matrices=False)
    values = torch.logspace(0, -2, len(vh), dtype=torch.float64)
    found = orthogonal((u @ values.diag() @ vh).float()).double()
    between = u.mT @ found @ vh.mT
    assert between.diagonal().min() > 0.65
    assert between.diagonal().max() < 1.25
    assert (between - between.diagonal().diag()).abs().max() < 1e-3


@pytest.mark.parametrize('shape', [(24, 40), (40, 24)])
def test_matrices_move_as_with_torchs_muon(shape: tuple[int, int]) -> None:
    """Its own takes matrices only, and iterates in bfloat16."""
    ours, theirs = (nn.Parameter(drawn(*shape)) for _ in range(2))
    begun = ours.detach().clone()
    optimizers = (
        muon(ours),
        torch.optim.Muon(
            [theirs], lr=RATE, weight_decay=DECAY, momentum=0.95, adjust_lr_fn='match_rms_adamw'
        ),
    )
    for seed in range(1, 4):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = drawn(*shape, seed=seed)
            optimizer.step()
    assert (theirs - begun).norm() > 0.1
    assert (ours - theirs).norm() < 0.01 * (theirs - begun).norm()


def test_filters_are_laid_flat_and_keep_their_layout() -> None:
    flat, filters = (
        nn.Parameter(drawn(20, 32 * 9)),
        nn.Parameter(drawn(20, 32, 3, 3).to(memory_format=torch.channels_last)),
    )
    flat.grad, filters.grad = drawn(20, 32 * 9, seed=1), drawn(20, 32, 3, 3, seed=1)
    muon(flat).step()
    muon(filters).step()
    assert torch.allclose(flat.view(20, 32, 3, 3), filters, atol=1e-6)
    assert filters.is_contiguous(memory_format=torch.channels_last)


def test_other_groups_move_as_with_adamw() -> None:
    ours, theirs = (nn.Parameter(drawn(8)) for _ in range(2))
    optimizers = (
        muon(ours, matrices=False),
        torch.optim.AdamW([theirs], lr=RATE, betas=BETAS, weight_decay=DECAY),
    )
    for seed in range(1, 4):
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = drawn(8, seed=seed)
            optimizer.step()
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    """And the step after it is the one that would have been without it."""
    one, two = (nn.Parameter(drawn(20, 30)) for _ in range(2))
    disturbed, plain = muon(one), muon(two)
    for parameter, optimizer in ((one, disturbed), (two, plain)):
        parameter.grad = drawn(20, 30, seed=1)
        optimizer.step()
    before = one.detach().clone()
    one.grad = torch.full_like(one, torch.nan)
    disturbed.found_inf = torch.ones(())  # type: ignore[attr-defined]
    disturbed.step()
    assert torch.equal(one, before)
    disturbed.found_inf = torch.zeros(())  # type: ignore[attr-defined]
    for parameter, optimizer in ((one, disturbed), (two, plain)):
        parameter.grad = drawn(20, 30, seed=2)
        optimizer.step()
    assert torch.equal(one, two)
    assert not torch.equal(one, before)


def test_matrices_of_the_network_are_chosen_by_their_sides() -> None:
    stage = Stage('all', input_size=64)
    config = TrainConfig(
        'lite-efficientnet', (stage,), steps=1, optimizer='muon', backbone_lr_scale=0.5
    )
    system = PoseSystem(build_model(config.model))
    optimizer = make_optimizer(system, config)
    assert isinstance(optimizer, Muon)
    groups = [
        (g['lr_scale'], g['weight_decay'] > 0, g['orthogonal']) for g in optimizer.param_groups
    ]
    assert groups == [
        (0.5, True, False), (0.5, True, True), (0.5, False, False),
        (1.0, True, True), (1.0, False, False),
    ]  # fmt: skip
    turned = sum(p.numel() for g in optimizer.param_groups if g['orthogonal'] for p in g['params'])
    every = sum(p.numel() for p in system.parameters())
    assert sum(p.numel() for g in optimizer.param_groups for p in g['params']) == every
    assert 0.9 * every < turned < every
    assert not is_matrix(torch.zeros(240, 1, 5, 5))  # depthwise
    assert not is_matrix(torch.zeros(14, 64, 1, 1))  # a head
    assert is_matrix(torch.zeros(32, 3, 3, 3))


def test_closures_are_refused() -> None:
    with pytest.raises(ValueError, match='without a closure'):
        muon(nn.Parameter(drawn(20, 20))).step(lambda: 0.0)


@pytest.mark.gpu
@pytest.mark.parametrize('shape', [(20, 32, 3, 3), (64, 24)])
def test_a_gpu_makes_the_same_step(shape: tuple[int, ...]) -> None:
    here, there = nn.Parameter(drawn(*shape)), nn.Parameter(drawn(*shape).cuda())
    begun = here.detach().clone()
    optimizers = muon(here), muon(there)
    for seed in range(1, 4):
        for parameter, optimizer in zip((here, there), optimizers, strict=True):
            parameter.grad = drawn(*shape, seed=seed).to(parameter.device)
            optimizer.step()
    assert (there.detach().cpu() - here).norm() < 0.01 * (here - begun).norm()
