"""Augmentation keeps labels true; runs are deterministic and resume exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.cli import main
from rsb_pose_core.cli.train import STAGES, default_config
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.geometry import project, triangulate
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.augmentation import (
    Augmentation,
    Window,
    centred_window,
    crop_pair,
    evaluation_batch,
    flip_pair,
    training_batch,
)
from rsb_pose_core.training.config import load_config, read_settings
from rsb_pose_core.training.evaluation import evaluate
from rsb_pose_core.training.objective import build_model
from rsb_pose_core.training.pool import PairPool, ShuffledOrder
from rsb_pose_core.training.pose_prior import RefinerConfig
from rsb_pose_core.training.sources import ShardSource
from rsb_pose_core.training.state import MovingAverage
from rsb_pose_core.training.trainer import Trainer


def write_shard(path: Path, pairs: int, seed: int = 0) -> None:
    """People of noise, 288 px, with a bright spot at each joint in both views."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, (0.25, 0.35, 0.1), (pairs, 17, 3)) + (0, 0, 2.5)
    fields = [
        StereoCalibration.from_values(260.0, 260.0, 143.5, 143.5 + 260 * 0.12 / 2.5, 140.0, 0.12)
        for _ in range(pairs)
    ]
    calibration = StereoCalibration.stack(fields)
    uvd = project(torch.from_numpy(xyz), calibration).numpy()
    uv = np.stack([uvd[..., :2], uvd[..., :2] - uvd[..., 2:] * (1.0, 0.0)], 1)
    images = rng.integers(0, 60, (pairs, 2, 288, 288, 3), dtype=np.uint8)
    for pair in range(pairs):
        for view in range(2):
            for joint in range(17):
                u, v = np.round(uv[pair, view, joint]).astype(int)
                images[pair, view, max(v - 2, 0) : v + 3, max(u - 2, 0) : u + 3, joint % 3] = 255
    np.savez(
        path,
        left=images[:, 0],
        right=images[:, 1],
        xyz_m=xyz.astype(np.float32),
        uv_left=uv[:, 0].astype(np.float32),
        uv_right=uv[:, 1].astype(np.float32),
        visibility=rng.integers(0, 3, (pairs, 2, 17)).astype(np.uint8),
        calibration=torch.stack(calibration.fields(), -1).numpy(),
    )


@pytest.fixture(scope='module')
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('shards')
    write_shard(folder / 'train_0.npz', 6)
    write_shard(folder / 'train_1.npz', 5, seed=1)
    return folder


@pytest.fixture(scope='module')
def pool(shards: Path) -> PairPool:
    found = PairPool(str(shards / 'train_*.npz'))
    assert found.scan() == 11
    return found


def uvd_of(pair: dict[str, np.ndarray]) -> torch.Tensor:
    left, right = pair['uv_left'].astype(np.float64), pair['uv_right'].astype(np.float64)
    return torch.from_numpy(np.concatenate([left, left[:, :1] - right[:, :1]], -1))


def triangulated(pair: dict[str, np.ndarray]) -> np.ndarray:
    calibration = StereoCalibration(*torch.from_numpy(pair['calibration']).unbind())
    return triangulate(uvd_of(pair), calibration).numpy()


# ---- augmentation ----


@pytest.mark.parametrize('size', [128, 256])
def test_cropped_labels_triangulate_to_the_same_points(pool: PairPool, size: int) -> None:
    pair = crop_pair(pool.pair(0), Window(-3, 21, 12, 231), size)
    assert pair['left'].shape == (size, size, 3)
    assert np.abs(triangulated(pair) - pair['xyz_m']).max() < 1e-5
    assert np.array_equal(pair['xyz_m'], pool.pair(0)['xyz_m'])


def test_flipped_labels_triangulate_to_the_mirrored_points(pool: PairPool) -> None:
    original = crop_pair(pool.pair(1), centred_window(288, 9), 256)
    flipped = flip_pair(original)
    assert np.abs(triangulated(flipped) - flipped['xyz_m']).max() < 1e-5
    wrist, other = H36M_17.index('left_wrist'), H36M_17.index('right_wrist')
    x, y, z = original['xyz_m'][other]
    assert flipped['xyz_m'][wrist].tolist() == pytest.approx([0.12 - x, y, z], abs=1e-6)
    assert flipped['visibility'][0, wrist] == original['visibility'][1, other]


def test_flipping_twice_changes_nothing(pool: PairPool) -> None:
    pair = crop_pair(pool.pair(2), centred_window(288), 256)
    twice = flip_pair(flip_pair(pair))
    for name in ('left', 'right', 'visibility'):
        assert np.array_equal(twice[name], pair[name])
    for name in ('uv_left', 'uv_right', 'xyz_m', 'calibration'):
        assert np.allclose(twice[name], pair[name], atol=1e-4)


@pytest.mark.parametrize('size', [128, 256])
def test_augmented_batches_keep_labels_and_calibration_together(pool: PairPool, size: int) -> None:
    batch = training_batch(pool, list(range(11)) * 3, size, (0, 1), Augmentation())
    disparity = batch.uv_left[..., :1] - batch.uv_right[..., :1]
    uvd = torch.cat([batch.uv_left, disparity], -1).double()
    assert (triangulate(uvd, batch.calibration) - batch.xyz_m).abs().max() < 2e-5
    assert (batch.uv_left[..., 1] - batch.uv_right[..., 1]).abs().max() < 1e-3


def test_labels_point_at_the_same_pixels_after_cropping(pool: PairPool) -> None:
    pair = crop_pair(pool.pair(0), Window(10, 30, 20, 256), 256)
    for view, x0 in (('left', 10), ('right', 30)):
        moved = pool.pair(0)[f'uv_{view}'] - np.array([x0, 20], np.float32)
        assert np.allclose(pair[f'uv_{view}'], moved, atol=1e-4)
        u, v = np.round(moved[3]).astype(int)
        assert np.array_equal(pair[view][v, u], pool.pair(0)[view][v + 20, u + x0])


def test_right_crops_move_independently_of_depth(pool: PairPool) -> None:
    """With one pair drawn often, the disparity in the crop spreads over the shifts."""
    still = Augmentation(flip=0.0, scale=(1.0, 1.0), right_shift_px=12)
    batch = training_batch(pool, [0] * 200, 256, (0, 2), still)
    disparity = (batch.uv_left - batch.uv_right)[:, 6, 0]
    spread = disparity - disparity.min()
    assert spread.max().item() == pytest.approx(24, abs=1e-3)
    assert spread.mean().item() == pytest.approx(12, abs=1.5)


def test_the_same_seed_gives_the_same_batch_and_another_one_does_not(pool: PairPool) -> None:
    first, again, other = (
        training_batch(pool, [0, 1, 2], 128, (0, seed), Augmentation()) for seed in (1, 1, 2)
    )
    assert torch.equal(first.left, again.left)
    assert torch.equal(first.uv_right, again.uv_right)
    assert not torch.equal(first.left, other.left)


def test_evaluation_moves_only_the_right_crop(pool: PairPool) -> None:
    still, moved = evaluation_batch(pool, [0, 1], 256, 0), evaluation_batch(pool, [0, 1], 256, 12)
    assert torch.equal(still.left, moved.left)
    shift = (still.uv_right - moved.uv_right)[..., 0]
    assert torch.allclose(shift, shift[:, :1].expand_as(shift), atol=1e-4)
    assert 0 < shift.abs().max() <= 12


# ---- pool and order ----


def test_the_pool_takes_in_shards_that_appear_later(tmp_path: Path) -> None:
    write_shard(tmp_path / 'a.npz', 2)
    pool = PairPool(str(tmp_path / '*.npz'))
    assert (pool.scan(), pool.scan()) == (2, 0)
    first = pool.pair(1)['xyz_m']
    write_shard(tmp_path / '0_sorts_first.npz', 3, seed=5)
    assert pool.scan() == 3
    assert np.array_equal(pool.pair(1)['xyz_m'], first)
    assert len(pool) == 5


def test_a_shard_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / 'a.npz', left=np.zeros((1, 288, 288, 3), np.uint8))
    with pytest.raises(DataError, match=r'a\.npz.*render the shard again'):
        PairPool(str(tmp_path / '*.npz')).scan()
    (tmp_path / 'a.npz').write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(DataError, match='not a readable'):
        PairPool(str(tmp_path / '*.npz')).scan()


def test_a_round_shows_every_pair_once() -> None:
    order = ShuffledOrder(0, 10)
    assert sorted(order.take(4) + order.take(6)) == list(range(10))


def test_the_order_continues_from_its_state() -> None:
    order = ShuffledOrder(3, 7)
    order.take(9)
    again = ShuffledOrder(3, 0)
    again.load_state(order.state())
    assert again.take(20) == order.take(20)


# ---- runs ----


def write_config(path: Path, **changes: object) -> Path:
    volume = {'heatmap_ce': 1.0, 'volume_ce': 0.5, 'volume_l1': 0.3, 'pose_l1_m': 1.0}
    config = {
        'model': 'lite',
        'minutes': None,
        'steps': 4,
        'validate_jitter_px': 5,
        'stages': [
            {'name': 'flat', 'share': 0.5, 'input_size': 64, 'batch_size': 3, 'volume': False},
            {'name': 'full', 'share': 0.5, 'input_size': 64, 'batch_size': 2, 'losses': volume},
        ],
        **changes,
    }
    path.write_text(yaml.safe_dump(config))
    return path


def trainer(tmp_path: Path, shards: Path, name: str, *, resume: bool = False) -> Trainer:
    config = load_config(write_config(tmp_path / 'c.yaml'))
    source, device = ShardSource(config, str(shards / 'train_*.npz')), torch.device('cpu')
    return Trainer(config, source, None, tmp_path / name, device=device, resume=resume)


def test_a_run_is_deterministic_and_resumes_exactly(tmp_path: Path, shards: Path) -> None:
    whole = trainer(tmp_path, shards, 'whole')
    whole.run()
    assert (whole.step, whole.pairs_seen, whole.stage_index) == (4, 10, 1)

    interrupted = trainer(tmp_path, shards, 'parts')
    step = interrupted.train_step

    def stop_after_three(batch: object) -> object:
        terms = step(batch)  # type: ignore[arg-type]
        interrupted._stop = interrupted.step == 3
        return terms

    interrupted.train_step = stop_after_three  # type: ignore[method-assign, assignment]
    interrupted.run()
    assert interrupted.step == 3
    assert load_model(tmp_path / 'parts/model.safetensors')[2]['steps'] == '3'
    resumed = trainer(tmp_path, shards, 'parts', resume=True)
    assert resumed.step == 3
    resumed.run()
    assert resumed.step == 4
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for name, value in whole.average.values.items():
        assert torch.equal(value, resumed.average.values[name]), name


def test_a_few_steps_lower_the_loss_of_a_batch(pool: PairPool) -> None:
    """The gradient goes all the way: 15 steps on one batch halve the 2D distance's loss."""
    from rsb_pose_core.training.losses import LossWeights, stereo_losses
    from rsb_pose_core.training.state import adamw

    torch.manual_seed(0)
    model = build_model('lite')
    optimizer = adamw(model, 2e-3, 0.0)
    batch = evaluation_batch(pool, [0, 1, 2, 3], 64, 0)
    weights = LossWeights(heatmap_ce=1.0, volume_ce=1.0, volume_l1=0.3)
    losses = []
    for _ in range(15):
        terms = stereo_losses(model(*batch.images()), batch, weights)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]


def test_train_and_evaluate_from_the_command_line(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / 'c.yaml', steps=2)
    data = str(shards / 'train_*.npz')
    common = ['--config', str(config), '--data', data, '--out', str(tmp_path / 'run')]
    assert main(['train', 'sce', *common, '--val', data, '--device', 'cpu']) == 0
    records = [json.loads(line) for line in (tmp_path / 'run/log.jsonl').read_text().splitlines()]
    assert records[-1]['kind'] == 'validation'
    assert records[-1]['jittered_initial']['absolute_mm_median'] > 0
    _, _, metadata = load_model(tmp_path / 'run/model.safetensors')
    assert (metadata['steps'], metadata['pairs_seen']) == ('2', '5')
    report = tmp_path / 'report.json'
    weights = ['--weights', str(tmp_path / 'run/model.safetensors')]
    assert main(['evaluate', *weights, '--data', data, '--out', str(report.parent)]) == 0
    assert 'MPJPE_ab' in capsys.readouterr().out
    stages = json.loads(report.read_text())['methods']['model']['stages']
    assert set(stages) == {'initial', 'heatmaps'}


def test_pairs_seen_go_on_from_the_weights_a_run_begins_with(tmp_path: Path, shards: Path) -> None:
    config = write_config(tmp_path / 'c.yaml', steps=2)

    def pairs_seen(folder: str, *more: str) -> str:
        command = ['train', 'sce', '--config', str(config), '--out', str(tmp_path / folder)]
        command += ['--data', str(shards / 'train_*.npz'), '--device', 'cpu', *more]
        assert main(command) == 0
        return load_model(tmp_path / folder / 'model.safetensors')[2]['pairs_seen']

    assert pairs_seen('first') == '5'
    going_on = ['--weights', str(tmp_path / 'first/model.safetensors')]
    assert pairs_seen('second', *going_on) == '10'
    assert pairs_seen('second', *going_on, '--resume') == '10'


def test_a_run_behind_another_does_not_take_the_same_pairs_in_the_same_order(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[list[int], object]] = []

    def recorded(pool: PairPool, indices: list[int], size: int, seed: object, *more, **options):
        taken.append((indices, seed))
        return training_batch(pool, indices, size, seed, *more, **options)

    monkeypatch.setattr('rsb_pose_core.training.sources.training_batch', recorded)
    config = write_config(tmp_path / 'c.yaml', steps=2)
    runs = []
    for name, more in (
        ('first', []), ('again', []),
        ('behind', ['--weights', str(tmp_path / 'first/model.safetensors')]),
    ):  # fmt: skip
        taken.clear()
        command = ['train', 'sce', '--config', str(config), '--out', str(tmp_path / name)]
        command += ['--data', str(shards / 'train_*.npz'), '--device', 'cpu', *more]
        assert main(command) == 0
        runs.append(list(taken[:2]))
    assert runs[0] == runs[1]
    assert [indices for indices, _ in runs[2]] != [indices for indices, _ in runs[0]]
    assert not {seed for _, seed in runs[2]} & {seed for _, seed in runs[0]}


def test_the_baseline_trains_with_the_same_trainer(tmp_path: Path, shards: Path) -> None:
    config = load_config(write_config(tmp_path / 'c.yaml', model='lite-baseline', steps=2))
    data = str(shards / 'train_*.npz')
    source = ShardSource(config, data)
    run = Trainer(config, source, data, tmp_path / 'run', device=torch.device('cpu'))
    run.run()
    assert set(run.validate()) == {'centred_initial', 'jittered_initial'}


def test_perfect_predictions_have_no_error(pool: PairPool) -> None:
    """A network that knows the answers: everything between batch and table is exact."""

    class Oracle(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = 0

        def forward(
            self, left: torch.Tensor, right: torch.Tensor, calibration: StereoCalibration
        ) -> object:
            from rsb_pose_core.models.rsb_pose import StereoHeatmaps, crop_to_heatmap
            from rsb_pose_core.models.stereo_volume import DisparityRange

            batch = evaluation_batch(pool, list(range(len(left))), 256, 0)
            maps = []
            for uv in (batch.uv_left, batch.uv_right):
                u, v = (a[..., None] for a in crop_to_heatmap(uv).unbind(-1))
                cells = torch.arange(64)
                maps.append(
                    -0.5 * (cells - u)[..., None, :] ** 2 - 0.5 * (cells - v)[..., :, None] ** 2
                )
            return StereoHeatmaps(maps[0], maps[1], None, DisparityRange(-7, 8))

    found = evaluate(Oracle(), pool)['initial']
    assert found['uv_median'] < 1e-3
    assert found['absolute_mm_median'] < 0.1
    assert found['relative_mm_median'] < 0.1


def test_the_average_follows_the_weights() -> None:
    model = torch.nn.BatchNorm1d(2)
    average = MovingAverage(model, 0.999)
    with torch.no_grad():
        model.weight += 1
    model.num_batches_tracked += 5
    average.update(model)
    assert average.values['weight'].tolist() == pytest.approx([1 + 9 / 11] * 2)
    assert average.values['num_batches_tracked'].item() == 5


# ---- bad input ----


def test_an_unknown_setting_is_one_sentence(tmp_path: Path) -> None:
    path = write_config(tmp_path / 'c.yaml', learning_rat=1.0)
    with pytest.raises(ConfigError, match=r'unknown setting learning_rat; known are model'):
        load_config(path)


@pytest.mark.parametrize('content', ['a: [', '- 1\n', ''])
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / 'c.yaml').write_text(content)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / 'c.yaml')
    assert '\n' not in str(caught.value)


def test_missing_data_and_missing_runs_end_with_status_2(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / 'c.yaml')
    common = ['train', 'sce', '--config', str(config), '--out', str(tmp_path / 'run')]
    common += ['--device', 'cpu']
    assert main([*common, '--data', str(tmp_path / 'none_*.npz')]) == 2
    assert 'no training pairs match' in capsys.readouterr().err
    assert main([*common, '--data', str(shards / 'train_*.npz'), '--resume']) == 2
    assert 'no such run to resume' in capsys.readouterr().err
    assert main([*common, '--data', 'x', '--model', 'giant']) == 2
    assert 'unknown model giant' in capsys.readouterr().err


def test_shipped_configurations_are_valid() -> None:
    folder = Path(__file__).parents[2] / 'config' / 'train'
    names = {path.stem for path in folder.glob('*.yaml')}
    assert names >= {'lite', 'rsb_pose_resnet50', *STAGES}
    refiners = {'refiner', 'lite_efficientnet_refiner'}
    for name in names - {'ppt', *refiners}:
        assert load_config(folder / f'{name}.yaml').stages
    for name in refiners:
        assert read_settings(RefinerConfig, folder / f'{name}.yaml').steps == 1500
    for stage in STAGES:
        assert default_config(stage) == folder / f'{stage}.yaml'
