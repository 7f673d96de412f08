"""The stages of the paper: their recipes, the command that runs each, and exact resumption."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import drawn_pairs
import numpy as np
import pytest
import torch
import training_ranks
from test_training import triangulated, write_config, write_shard

from rsb_pose_core.checkpoint import load_model, save_checkpoint
from rsb_pose_core.cli import main
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.synthesis.frames import crops, frame_arrays, read_frames
from rsb_pose_core.synthesis.shards import write_arrays
from rsb_pose_core.training import pool as pool_module
from rsb_pose_core.training.augmentation import Augmentation, evaluation_batch, training_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import load_config
from rsb_pose_core.training.distributed import Ranks
from rsb_pose_core.training.mapped import mapped_array
from rsb_pose_core.training.objective import build_model, build_system
from rsb_pose_core.training.pictures import prediction_sheet
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.state import make_optimizer
from rsb_pose_core.training.trainer import Trainer

CONFIG = Path(__file__).parents[2] / 'config' / 'train'
END_TO_END = [
    {
        'name': 'end-to-end',
        'input_size': 64,
        'batch_size': 3,
        'losses': {'refined_mpjpe': 1.0, 'heatmap_ce': 0, 'heatmap_l1': 0},
    }
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('stages')
    write_shard(folder / 'train_0.npz', 7)
    return folder


# ---- recipes ----


def test_stage_sce_is_the_papers() -> None:
    config = load_config(CONFIG / 'sce.yaml')
    optimizer = make_optimizer(PoseSystem(build_model('lite')), config)
    assert type(optimizer) is torch.optim.Adam
    rates = {config.rate_at(p, 0, step) for p in (0.0, 0.5, 1.0) for step in (0, 9)}
    assert rates == {1e-3}
    assert {group['lr_scale'] for group in optimizer.param_groups[:2]} == {0.1}
    assert {group['lr_scale'] for group in optimizer.param_groups[2:]} == {1.0}
    losses = {name: weight for name, weight in vars(config.stages[0].losses).items() if weight}
    assert losses == {'volume_svf': 0.01, 'pose_l1_paper': 1.0}
    assert config.progress(step=0, pairs=75000, seconds=1e9) == pytest.approx(0.5)
    assert config.stages[0].batch_size == 12


def test_end_to_end_is_the_papers() -> None:
    config = load_config(CONFIG / 'end-to-end.yaml')
    assert (config.learning_rate, config.backbone_lr_scale, config.epochs) == (1e-4, 1.0, 10)
    losses = {name: weight for name, weight in vars(config.stages[0].losses).items() if weight}
    assert losses == {'refined_mpjpe': 1.0}


def test_the_backbones_rate_is_a_tenth(folder: Path, tmp_path: Path) -> None:
    config = load_config(CONFIG / 'sce.yaml', model='lite', epochs=None, steps=1)
    source = training_ranks.ShardSource(config, str(folder / 'train_*.npz'))
    run = Trainer(config, source, None, tmp_path, device=torch.device('cpu'))
    before = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    run.train_step(source.take(2, 64, 0)())
    moved = {
        name: float((value.detach() - before[name]).abs().max())
        for name, value in run.model.named_parameters()
    }
    # the first step of Adam is the learning rate, whatever the gradient
    trunk = [value for name, value in moved.items() if name.startswith('method.trunk')]
    others = [value for name, value in moved.items() if not name.startswith('method.trunk')]
    assert max(trunk) == pytest.approx(1e-4, rel=1e-2)
    assert max(others) == pytest.approx(1e-3, rel=1e-2)


def test_crops_are_those_of_the_network() -> None:
    config = load_config(CONFIG / 'sce.yaml', model='rsb-pose-resnet152')
    assert [stage.input_size for stage in config.stages] == [384]
    assert PairPool('none', None, config.largest_input).crop_size == 432
    assert PairPool('none').crop_size == 288


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'optimizer': 'sgd'}, 'optimizer sgd: expected one of adam, adamw, muon'),
        ({'precision': 'fp8'}, 'precision fp8: expected one of'),
        ({'epochs': 2}, 'one of epochs, steps and minutes'),
        ({'steps': 0}, 'above 0, by one of'),
        ({'steps': 'many'}, "steps: expected int, got 'many'"),
        ({'ema_decay': 1}, 'ema_decay 1.0: expected 0, or a value below 1'),
        ({'augmentation': 3}, 'expected a mapping of settings, got 3'),
        ({'stages': [{'name': 'a', 'input_size': 100}]}, 'multiple of 32'),
    ],
)
def test_settings_that_mean_nothing_are_one_sentence(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write_config(tmp_path / 'c.yaml', **changes))
    assert '\n' not in str(caught.value)


# ---- exact resumption ----


@pytest.mark.parametrize(
    'changes',
    [
        {'stages': END_TO_END, 'optimizer': 'adam', 'ema_decay': 0, 'schedule': 'constant'},
        {'precision': 'fp16', 'model': 'lite-baseline'},
        {'optimizer': 'muon'},
    ],
    ids=['end-to-end', 'fp16', 'muon'],
)
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    tmp_path: Path, folder: Path, changes: dict[str, Any]
) -> None:
    config = load_config(write_config(tmp_path / 'c.yaml', **changes))

    def run(out: str, stop_at: int | None = None, *, resume: bool = False) -> Trainer:
        made = training_ranks.make(config, folder, str(tmp_path / out), Ranks(), resume=resume)
        made.scaler._growth_interval = 2  # the scale changes within a few steps
        step = made.train_step

        def stop(batch: StereoBatch) -> dict[str, torch.Tensor]:
            terms = step(batch)
            made._stop = made.step == stop_at
            return terms

        made.train_step = stop  # type: ignore[method-assign]
        made.run()
        return made

    whole = run('whole')
    run('parts', stop_at=3)
    resumed = run('parts', resume=True)
    assert resumed.step == whole.step == 4
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for name, value in whole.average.values.items():
        assert torch.equal(value, resumed.average.values[name]), name
    states = (one.optimizer.state_dict()['state'] for one in (whole, resumed))
    for first, second in zip(*(state.values() for state in states), strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_end_to_end_teaches_network_and_refiner(folder: Path, tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path / 'c.yaml', stages=END_TO_END, warmup_steps=0))
    run = training_ranks.make(config, folder, str(tmp_path / 'run'), Ranks())
    run.train_step(run.source.take(3, 64, 0)())
    for name, parameter in run.model.named_parameters():
        if 'root_embed' not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert run.model.method.trunk.stem[0].weight.grad.abs().max() > 0
    assert run.model.refiner.embed.weight.grad.abs().max() > 0


# ---- the command ----


def test_sce_then_end_to_end_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    write_config(tmp_path / 'sce.yaml', steps=2)
    write_config(tmp_path / 'end.yaml', stages=END_TO_END)
    common = ['--data', str(folder / 'train_*.npz'), '--device', 'cpu', '--steps', '1']
    sce, end = tmp_path / 'sce', tmp_path / 'end'
    command = ['train', 'sce', '--config', str(tmp_path / 'sce.yaml'), '--out', str(sce)]
    assert main([*command, *common, '--model', 'lite']) == 0
    weights = ['--weights', str(sce / 'model.safetensors')]
    command = ['train', 'end-to-end', '--config', str(tmp_path / 'end.yaml'), '--out', str(end)]
    assert main([*command, *common, *weights, '--refiner', 'fresh']) == 0
    before, nothing, _ = load_model(sce / 'model.safetensors')
    after, refiner, metadata = load_model(end / 'model.safetensors')
    assert nothing is None
    assert refiner is not None
    assert metadata['model'] == 'lite'
    for name, value in before.named_parameters():  # it began where sce ended
        assert torch.allclose(value, after.get_parameter(name), atol=3e-3), name


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['end-to-end'], 'goes on from rsb-pose train sce; give its --weights FILE'),
        (['refiner'], 'goes on from rsb-pose train sce; give its --weights FILE'),
        (['ppt', '--minutes', '3'], '--minutes does not apply to stage ppt; leave it out'),
        (['ppt', '--weights', 'x'], '--weights does not apply to stage ppt; leave it out'),
        (['sce', '--weights', 'x'], 'x: no such weights file'),
        (['sce', '--backbone-weights', 'x'], 'x: no such file'),
        (['sce', '--config', 'none.yaml'], 'none.yaml: cannot be read'),
    ],
)
def test_options_that_a_stage_lacks_or_has_no_use_for_are_one_sentence(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], options: list[str],
    message: str,
) -> None:  # fmt: skip
    data = ['--data', str(folder / 'train_*.npz'), '--out', str(tmp_path), '--device', 'cpu']
    assert main(['train', *options, *data]) == 2
    assert message in capsys.readouterr().err


def test_a_stage_that_trains_a_refiner_needs_one(folder: Path, tmp_path: Path) -> None:
    config = load_config(write_config(tmp_path / 'c.yaml', stages=END_TO_END))
    source = training_ranks.ShardSource(config, str(folder / 'train_*.npz'))
    with pytest.raises(ConfigError, match='end-to-end trains a refiner, and there is none'):
        Trainer(config, source, None, tmp_path, device=torch.device('cpu'))


def test_published_weights_fill_the_backbone_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    trunk = build_model('resnet50-t').trunk
    torch.save(trunk.state_dict(), tmp_path / 'w.pth')
    made = build_system('resnet50-t', backbone_weights=tmp_path / 'w.pth').method
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, made.trunk.state_dict()[name]), name


def test_another_network_on_the_same_backbone_gives_what_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(2)
    trained = build_model('lite-baseline')
    save_checkpoint(tmp_path / 'w.safetensors', trained, {'model': 'lite-baseline'})
    made = build_system('lite', weights=tmp_path / 'w.safetensors').method
    own, fresh = made.state_dict(), build_model('lite').state_dict()
    theirs = trained.state_dict()
    taken = [name for name in own if name in theirs]
    assert any(name.startswith('trunk.') for name in taken)
    for name in taken:
        if theirs[name].is_floating_point():
            assert torch.allclose(own[name], theirs[name], atol=1e-3), name
    assert len(taken) < len(fresh)
    assert f'{len(taken)} of {len(own)} tensors taken over' in capsys.readouterr().out
    with pytest.raises(ConfigError, match='with another backbone; give --model lite-baseline'):
        build_system('lite-efficientnet', weights=tmp_path / 'w.safetensors')


def test_weights_of_another_model_than_the_configuration_s_are_pointed_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(
        tmp_path / 'w.safetensors', build_model('lite-baseline'), {'model': 'lite-baseline'}
    )
    path = write_config(tmp_path / 'c.yaml')
    arguments = [
        'train', 'sce', '--config', str(path), '--data', str(folder / 'train_*.npz'),
        '--weights', str(tmp_path / 'w.safetensors'), '--out', str(tmp_path / 'run'),
        '--device', 'cpu', '--steps', '1',
    ]  # fmt: skip
    assert load_config(path).model == 'lite'
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert 'training lite-baseline as of --weights, not the lite of c.yaml' in said
    assert load_model(tmp_path / 'run' / 'model.safetensors')[2]['model'] == 'lite-baseline'


# ---- full pictures ----


def closed_form_m(uvd: torch.Tensor, batch: StereoBatch) -> torch.Tensor:
    """Z = f B / d, written out."""
    c = batch.calibration
    depth = (c.fx * c.baseline_m)[:, None] / (uvd[..., 2] - (c.cx_left - c.cx_right)[:, None])
    x = (uvd[..., 0] - c.cx_left[:, None]) * depth / c.fx[:, None]
    y = (uvd[..., 1] - c.cy[:, None]) * depth / c.fy[:, None]
    return torch.stack([x, y, depth], -1)


@pytest.fixture(scope='module')
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('frames')
    for number in range(2):
        pairs = drawn_pairs.DrawnRenderer(0, 120, 208).batch(3, 0, 4 * number)
        write_arrays(folder / f'{number}.npz', frame_arrays(pairs))
    return folder


def test_crops_of_full_pictures_are_cut_when_asked_for(
    frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def watched(arrays: Any, rows: list[int], size: int) -> Any:
        asked.extend(rows)
        return crops(arrays, rows, size)

    monkeypatch.setattr(pool_module, 'crops', watched)
    pool = PairPool(str(frames), input_size=384)
    assert (pool.scan(), asked) == (6, [])
    expected = crops(read_frames(frames / '1.npz'), size=432)
    pair = pool.pair(4)
    assert asked == [1]
    assert pair['left'].shape == (432, 432, 3)
    for name, array in expected.items():
        assert np.array_equal(pair[name], array[1]), name
    assert np.abs(triangulated(pair) - pair['xyz_m']).max() < 1e-4
    labels = pool.labels(4)
    assert asked == [1]
    assert np.array_equal(labels['xyz_m'], pair['xyz_m'])
    assert np.array_equal(labels['visibility'], pair['visibility'])
    assert pool.name(4).endswith('1.npz pair 1')


def test_a_network_of_384_pixels_sees_the_same_part_of_the_picture(frames: Path) -> None:
    small, large = PairPool(str(frames)), PairPool(str(frames), input_size=384)
    small.scan()
    large.scan()
    one, other = (evaluation_batch(p, [0, 3], s, 9) for p, s in ((small, 256), (large, 384)))
    for uv in ('uv_left', 'uv_right'):
        scaled = (getattr(one, uv) + 0.5) * 1.5 - 0.5
        assert (getattr(other, uv) - scaled).abs().max() < 0.76  # windows begin at whole pixels
    batch = training_batch(large, [0, 1, 2, 3] * 3, 384, (0, 1), Augmentation())
    uvd = torch.cat([batch.uv_left, (batch.uv_left - batch.uv_right)[..., :1]], -1).double()
    assert (closed_form_m(uvd, batch) - batch.xyz_m).abs().max() < 1e-4


def test_threads_make_the_same_batch(frames: Path) -> None:
    pool = PairPool(str(frames))
    pool.scan()
    chosen = [5, 0, 3, 1, 2, 4] * 2
    noisy = Augmentation(noise=1.0, blur=0.5, occluder=1.0)
    alone = training_batch(pool, chosen, 64, (0, 9), noisy)
    with ThreadPoolExecutor(3) as executor:
        together = training_batch(pool, chosen, 64, (0, 9), noisy, executor=executor)
    assert torch.equal(alone.left, together.left)
    assert torch.equal(alone.right, together.right)
    assert alone.names == together.names


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_a_mapped_array_is_the_stored_one(tmp_path: Path, save: Any) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 255, (3, 5, 7), np.uint8), rng.normal(size=(4, 3))
    save(tmp_path / 'a.npz', first=first, second=np.asfortranarray(second))
    assert np.array_equal(mapped_array(tmp_path / 'a.npz', 'first'), first)
    assert np.array_equal(mapped_array(tmp_path / 'a.npz', 'second'), second)
    with pytest.raises(KeyError):
        mapped_array(tmp_path / 'a.npz', 'third')


def test_frames_that_lack_labels_are_one_sentence(frames: Path, tmp_path: Path) -> None:
    arrays = read_frames(frames / '0.npz')
    write_arrays(tmp_path / 'a.npz', {k: v for k, v in arrays.items() if k != 'box_left'})
    with pytest.raises(DataError, match=r'a\.npz: .*box_left.*make the file again'):
        PairPool(str(tmp_path)).scan()
    write_arrays(tmp_path / 'a.npz', {**arrays, 'box_left': arrays['box_left'][:2]})
    with pytest.raises(DataError, match=r'array box_left has 2 entries, expected 3'):
        PairPool(str(tmp_path)).scan()


# ---- pictures ----


def test_the_sheet_shows_the_estimate_over_the_truth(folder: Path) -> None:
    pool = PairPool(str(folder / 'train_*.npz'))
    pool.scan()
    batch = evaluation_batch(pool, [0, 1], 256, 0)
    batch.left[:] = batch.right[:] = 0
    same = prediction_sheet(batch.xyz_m, batch)
    assert same.shape == (512, 512, 3)
    moved = prediction_sheet(batch.xyz_m + torch.tensor([0.3, 0.0, 0.0]), batch)
    white = [int((sheet > 200).all(-1)[30:256].sum()) for sheet in (same, moved)]
    assert white[1] > 3 * white[0]  # the truth comes out from under the estimate
    u, v = batch.uv_left[0, [0, 1]].mean(0).round().int().tolist()  # middle of the shin
    assert same[v, u].max() > 100
    assert same[v, 256 + round(float(batch.uv_right[0, [0, 1], 0].mean()))].max() > 100
