"""What keeps a GPU busy: changes of whole batches, no waiting within a step, memory layouts."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_training import write_config, write_shard

from rsb_pose_core.cli import main
from rsb_pose_core.geometry import triangulate
from rsb_pose_core.models.layers import channels_last
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.training import disturbing
from rsb_pose_core.training.augmentation import (
    Augmentation,
    Pair,
    centred_window,
    collate,
    crop_pair,
    flip_pair,
    training_batch,
)
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import load_config
from rsb_pose_core.training.disturbing import disturb_batch, windows_only
from rsb_pose_core.training.feeding import Feeder, each_tensor
from rsb_pose_core.training.losses import LossWeights, method_losses
from rsb_pose_core.training.objective import build_model
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.sources import ShardSource
from rsb_pose_core.training.state import compile_parts, make_optimizer, match_layout
from rsb_pose_core.training.trainer import Trainer

STILL = windows_only(Augmentation())


@pytest.fixture(scope='module')
def pool(tmp_path_factory: pytest.TempPathFactory) -> PairPool:
    folder = tmp_path_factory.mktemp('shards')
    write_shard(folder / 'train_0.npz', 6)
    found = PairPool(str(folder / 'train_0.npz'))
    found.scan()
    return found


def crops(pool: PairPool, size: int = 64) -> list[Pair]:
    return [crop_pair(pool.pair(i), centred_window(288, 3 * i), size) for i in range(6)]


# ---- random changes of a batch ----


def test_a_flipped_batch_is_that_of_flipped_pairs(pool: PairPool) -> None:
    pairs = crops(pool)
    expected = collate([flip_pair(pair) if i % 2 else pair for i, pair in enumerate(pairs)])
    found = disturbing.flipped(collate(pairs), torch.arange(6) % 2 == 1)
    for name in ('left', 'right', 'visibility'):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ('uv_left', 'uv_right', 'xyz_m'):
        assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-4), name
    fields = (torch.stack(batch.calibration.fields()) for batch in (found, expected))
    assert torch.allclose(*fields)


def test_labels_of_changed_batches_still_triangulate(pool: PairPool) -> None:
    batch = disturb_batch(collate(crops(pool)), Augmentation(), (0, 1))
    disparity = (batch.uv_left - batch.uv_right)[..., :1]
    uvd = torch.cat([batch.uv_left, disparity], -1).double()
    assert (triangulate(uvd, batch.calibration) - batch.xyz_m).abs().max() < 2e-5
    assert batch.left.dtype == torch.uint8


def test_changes_are_a_function_of_the_seed(pool: PairPool) -> None:
    batch = collate(crops(pool))
    one, same, other = (disturb_batch(batch, Augmentation(), (0, s)) for s in (1, 1, 2))
    assert torch.equal(one.left, same.left)
    assert torch.equal(one.uv_left, same.uv_left)
    assert not torch.equal(one.left, other.left)


def test_without_changes_a_batch_stays_as_it_is(pool: PairPool) -> None:
    batch = collate(crops(pool))
    still = disturb_batch(batch, STILL, (0, 1))
    assert torch.equal(still.left, batch.left)
    assert torch.equal(still.right, batch.right)
    assert torch.equal(still.xyz_m, batch.xyz_m)


@pytest.mark.parametrize('sigma', [0.5, 1.2])
def test_blur_is_that_of_opencv(pool: PairPool, sigma: float) -> None:
    image = crops(pool)[0]['left'].astype(np.float32)
    expected = cv2.GaussianBlur(image, (9, 9), sigma)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].expand(2, -1, -1, -1)
    found = disturbing.blurred(planes, torch.tensor([sigma, 0.0]))
    assert np.abs(found[0].permute(1, 2, 0).numpy() - expected).max() < 1e-2
    assert torch.equal(found[1], planes[1])


def test_noise_and_exposure_have_their_spread() -> None:
    grey = torch.full((200, 3, 16, 16), 100, dtype=torch.uint8)
    batch = labelled(grey)
    noisy = disturb_batch(batch, replace(STILL, noise=1.0), (0, 3))
    spread = noisy.left.float().std((1, 2, 3))
    assert 1.0 < spread.min() < 2.0
    assert 8.0 < spread.max() < 9.8
    assert not torch.equal(noisy.left, noisy.right)
    lit = disturb_batch(batch, replace(STILL, gain_std=0.25), (0, 3))
    gain = torch.log(lit.left[:, 0, 0, 0].float() / 100)
    assert gain.std().item() == pytest.approx(0.25, rel=0.2)
    assert torch.equal(lit.left, lit.right)


def test_occluders_are_patches_of_other_pairs_shifted_between_the_views() -> None:
    own = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(40, 3, 64, 64)
    found = disturb_batch(labelled(own.contiguous()), replace(STILL, occluder=1.0), (0, 4))
    for number in range(40):
        left, right = (view[number, 0] != number for view in (found.left, found.right))
        assert left.sum() == right.sum()
        assert 0.07**2 < left.float().mean() < 0.36**2
        assert len(found.left[number, 0][left].unique()) == 1  # one other pair
        assert torch.equal(left.any(1), right.any(1))  # the same rows
        shift = int(left.any(0).nonzero()[0]) - int(right.any(0).nonzero()[0])
        assert -2 <= shift <= 10


def test_black_edges_are_strips_along_one_side_of_each_view() -> None:
    bright = labelled(torch.full((60, 3, 64, 64), 200, dtype=torch.uint8))
    found = disturb_batch(bright, replace(STILL, black_edge=1.0), (0, 5))
    black = found.left[:, 0] == 0
    assert black.float().mean((1, 2)).max() < 0.15
    ends = torch.stack(
        [black[:, 0].all(1), black[:, -1].all(1), black[:, :, 0].all(1), black[:, :, -1].all(1)]
    )
    assert (ends.sum(0) <= 1).all()
    assert (ends.sum(1) > 5).all()  # every side now and then


def labelled(images: torch.Tensor) -> StereoBatch:
    """A batch of pictures, both views alike, whose labels do not matter."""
    count, joints = len(images), 17
    pair = {
        'left': np.zeros((1, 1, 3), np.uint8),
        'right': np.zeros((1, 1, 3), np.uint8),
        'uv_left': np.zeros((joints, 2)),
        'uv_right': np.zeros((joints, 2)),
        'xyz_m': np.ones((joints, 3)),
        'visibility': np.zeros((2, joints), np.uint8),
        'calibration': np.ones(6),
    }
    return replace(collate([pair] * count), left=images, right=images.clone())


def test_windows_only_are_crops_without_other_changes(pool: PairPool) -> None:
    """What processors do for a GPU and what it does itself are, together, the whole."""
    cut = training_batch(pool, [0, 1], 256, (0, 1), replace(STILL, scale=(1.0, 1.0)))
    corner = cut.left[0, :, 100:110, 100:110]
    picture = torch.from_numpy(np.array(pool.pair(0)['left'])).permute(2, 0, 1)
    places = picture.unfold(1, 10, 1).unfold(2, 10, 1) == corner[:, None, None]
    assert places.all(0).flatten(2).all(-1).any()


# ---- no waiting ----


def test_loss_and_gradients_need_nothing_from_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device without data refuses whatever would have to be waited for on a GPU."""
    with torch.device('meta'):
        model = build_model('lite')
    batch = each_tensor(
        labelled(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)), lambda value: value.to('meta')
    )
    weights = LossWeights(volume_ce=1.0, volume_svf=1.0, volume_l1=1.0, pose_l1_m=1.0)

    def copied(*args: object, **options: object) -> None:
        raise AssertionError('values of Python are copied to the device, which is waited for')

    monkeypatch.setattr(torch.Tensor, 'new_tensor', copied)
    monkeypatch.setattr(torch, 'tensor', copied)
    output = model(*batch.images(), batch.calibration)
    terms = method_losses(output, batch, weights)
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert len(terms) == 6


@pytest.mark.parametrize(
    ('name', 'parts'),
    [('lite-efficientnet', {'trunk', 'volume'}), ('lite', {'trunk', 'volume'}),
     ('rsb-pose-resnet50-stride2', {'trunk', 'volume'}), ('lite-baseline', {'trunk'})],
)  # fmt: skip
def test_what_is_compiled_is_what_a_step_calls(
    monkeypatch: pytest.MonkeyPatch, name: str, parts: set[str]
) -> None:
    model = build_model(name)
    called = set()

    def recorded(function: Callable[..., object], **options: object) -> Callable[..., object]:
        owner = function.__self__  # type: ignore[attr-defined]
        part = next(key for key, child in model.named_children() if child is owner)

        def run(*arguments: object, **more: object) -> object:
            called.add(part)
            return function(*arguments, **more)

        return run

    monkeypatch.setattr(torch, 'compile', recorded)
    compile_parts(model)
    model(*torch.rand(2, 2, 3, 64, 64))
    assert called == parts


# ---- memory ----


def test_moments_follow_the_layout_of_their_weights(tmp_path: Path) -> None:
    """A run goes on alike on a machine whose weights lie otherwise in memory."""
    config = load_config(write_config(tmp_path / 'c.yaml'))
    torch.manual_seed(0)
    plain, last = (PoseSystem(build_model('lite')) for _ in range(2))
    last.load_state_dict(plain.state_dict())
    channels_last(last)
    assert last.method.trunk.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    optimizers = [make_optimizer(system, config) for system in (plain, last)]
    gradients = [torch.randn_like(p) for p in plain.parameters()]

    def step(system: PoseSystem, optimizer: torch.optim.Optimizer) -> None:
        for parameter, gradient in zip(system.parameters(), gradients, strict=True):
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()

    step(plain, optimizers[0])
    last.load_state_dict(plain.state_dict())
    optimizers[1].load_state_dict(deepcopy(optimizers[0].state_dict()))
    match_layout(optimizers[1])
    gradients = [torch.randn_like(p) for p in plain.parameters()]
    for system, optimizer in zip((plain, last), optimizers, strict=True):
        step(system, optimizer)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, last.state_dict()[name], atol=1e-6), name


# ---- on a GPU: one minute proves it ----


def gpu_trainer(tmp_path: Path, name: str, *, compiled: bool = False) -> Trainer:
    write_shard(tmp_path / 'train_0.npz', 8)
    volume = {'heatmap_ce': 1.0, 'volume_ce': 0.5, 'volume_l1': 0.3, 'pose_l1_m': 1.0}
    stage = {'name': 'all', 'input_size': 128, 'batch_size': 8, 'losses': volume}
    path = write_config(tmp_path / 'c.yaml', stages=[stage], compile=compiled, steps=8)
    config = load_config(path)
    still = replace(config, augmentation=STILL)
    source = ShardSource(still, str(tmp_path / 'train_*.npz'))
    return Trainer(
        config, source, None, tmp_path / name,
        device=torch.device('cuda'), disturb=config.augmentation,
    )  # fmt: skip


def fed(run: Trainer, pool: PairPool) -> StereoBatch:
    def load() -> StereoBatch:
        return training_batch(pool, [0, 1, 2, 3], 128, (0, 1), STILL)

    return run._feeder.arrived(run._feeder.feed(load, 0))


@pytest.mark.gpu
def test_a_step_on_a_gpu_waits_for_nothing(tmp_path: Path, pool: PairPool) -> None:
    run = gpu_trainer(tmp_path, 'run')
    batch = fed(run, pool)
    for _ in range(2):
        run.train_step(batch)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        run.train_step(batch)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    run.save()
    assert run.step == 3


@pytest.mark.gpu
def test_batches_are_copied_and_changed_beside_the_training(pool: PairPool) -> None:
    device = torch.device('cuda')
    cut = training_batch(pool, [0, 1, 2, 3], 128, (0, 1), STILL)
    plain, changed = Feeder(device, 0), Feeder(device, 0, disturb=Augmentation())
    copied = plain.arrived(plain.feed(lambda: cut, 0))
    assert copied.left.is_cuda
    assert torch.equal(copied.left.cpu(), cut.left)
    first, again = (changed.arrived(changed.feed(lambda: cut, 5)) for _ in range(2))
    assert torch.equal(first.left, again.left)
    uvd = torch.cat([first.uv_left, (first.uv_left - first.uv_right)[..., :1]], -1).double()
    assert (triangulate(uvd, first.calibration) - first.xyz_m).abs().max() < 2e-5


@pytest.mark.gpu
def test_weights_and_features_are_channels_last(tmp_path: Path, pool: PairPool) -> None:
    run = gpu_trainer(tmp_path, 'run')
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for name, parameter in run.model.named_parameters():
        if parameter.ndim in formats:
            assert parameter.is_contiguous(memory_format=formats[parameter.ndim]), name
    seen = []
    run.model.method.trunk.register_forward_hook(lambda module, given, out: seen.append(out))
    run.train_step(fed(run, pool))
    assert seen[0].dtype == torch.bfloat16
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_compiled_steps_have_the_same_loss(tmp_path: Path, pool: PairPool) -> None:
    losses = []
    for compiled in (False, True):
        run = gpu_trainer(tmp_path, f'run{compiled}', compiled=compiled)
        batch = fed(run, pool)
        losses.append([float(sum(run.train_step(batch).values())) for _ in range(4)])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.gpu
def test_a_gpu_goes_on_from_what_was_carried_to_it(tmp_path: Path) -> None:
    write_shard(tmp_path / 'train_0.npz', 8)
    out = tmp_path / 'run'
    command = ['train', 'sce', '--data', str(tmp_path / 'train_*.npz'), '--out', str(out)]
    for device, steps in (('cpu', 2), ('cuda', 5), ('cpu', 6)):
        config = write_config(tmp_path / 'c.yaml', steps=steps)
        more = [] if steps == 2 else ['--resume']
        assert main([*command, '--config', str(config), '--device', device, *more]) == 0
        (out / 'last.pt').unlink()
