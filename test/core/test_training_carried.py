"""Small checkpoints: written whole or not at all, resumed from as far as they are there."""

import json
from pathlib import Path

import pytest
import torch
from test_training import write_config, write_shard
from torch import nn

from rsb_pose_core.errors import DataError
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.training import carried
from rsb_pose_core.training.carried import carried_step, load_carried, write_carried
from rsb_pose_core.training.config import load_config
from rsb_pose_core.training.resuming import same_source
from rsb_pose_core.training.sources import ShardSource
from rsb_pose_core.training.state import MovingAverage, make_optimizer
from rsb_pose_core.training.trainer import Trainer

FACTS = {'counters': {'step': 7}, 'config': {'model': 'lite'}, 'source': {'pairs': 3}}
Run = tuple[PoseSystem, MovingAverage, torch.optim.Optimizer]


class Small(nn.Module):
    """As little as an optimizer is made for: 0.15 million weights."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64))
        self.volume = nn.Conv3d(64, width, (1, 3, 3))


def begun(tmp_path: Path, seed: int, *, steps: int = 0, decay: float = 0.9) -> Run:
    """A network after some steps along random gradients."""
    config = load_config(write_config(tmp_path / 'c.yaml'))
    torch.manual_seed(seed)
    model = PoseSystem(Small())
    average, optimizer = MovingAverage(model, decay), make_optimizer(model, config)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        average.update(model)
    return model, average, optimizer


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return begun(tmp_path_factory.mktemp('trained'), 0, steps=2)


def near(found: torch.Tensor, truth: torch.Tensor, tolerance: float) -> bool:
    """Within a share of the largest value."""
    worst = (found.float() - truth.float()).abs().max()
    return bool(worst <= tolerance * truth.float().abs().max())


def test_half_precision_is_all_that_is_lost(tmp_path: Path, trained: Run) -> None:
    model, average, optimizer = trained
    write_carried(tmp_path / 'carried', *trained, FACTS)
    assert carried_step(tmp_path / 'carried') == 7
    other, other_average, other_optimizer = begun(tmp_path, 1)
    found = load_carried(tmp_path / 'carried', other, other_average, other_optimizer)
    assert (found.facts, found.missing) == (FACTS, ())
    assert found.in_words == 'in half precision'
    for name, value in model.state_dict().items():
        assert near(other.state_dict()[name], value, 5e-4), name
        assert near(other_average.values[name], average.values[name], 5e-4), name
    assert other_average.updates == 2
    for theirs, ours in zip(model.parameters(), other.parameters(), strict=True):
        for key, value in optimizer.state[theirs].items():
            assert near(other_optimizer.state[ours][key], value, 4e-3), key
            assert other_optimizer.state[ours][key].dtype == torch.float32
    other_optimizer.step()  # its state is one that it can go on with


def test_parts_are_small_and_old_ones_go(
    tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, 'PART_BYTES', 2**16)
    write_carried(tmp_path, *trained, FACTS)
    before = {path.name for path in tmp_path.iterdir()}
    write_carried(tmp_path, *trained, {**FACTS, 'counters': {'step': 8}})
    after = {path.name for path in tmp_path.iterdir()}
    assert before & after == {'carried.json'}
    assert len(after) > 10
    assert all(path.stat().st_size <= 2**16 for path in tmp_path.glob('*.part'))
    assert load_carried(tmp_path, *begun(tmp_path, 1)).missing == ()


def test_a_crash_leaves_the_parts_before_it(
    tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'carried'
    write_carried(folder, *trained, FACTS)
    replace, written = carried._replace, []

    def crash_at_the_third(path: Path, content: bytes) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        replace(path, content)

    monkeypatch.setattr(carried, '_replace', crash_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        write_carried(folder, *begun(tmp_path, 2, steps=1), {**FACTS, 'counters': {'step': 7}})
    monkeypatch.undo()
    model, average, optimizer = begun(tmp_path, 1)
    assert load_carried(folder, model, average, optimizer).facts == FACTS
    name = 'method.volume.weight'
    assert near(average.values[name], trained[1].values[name], 5e-4)


def test_what_does_not_fit_is_left_out_from_the_end(
    tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    average = trained[1]
    for whole, missing, tolerance in (
        (700_000, ('optimizer',), 5e-4),
        (400_000, ('model', 'optimizer'), 5e-4),
        (200_000, ('model', 'optimizer'), 5e-3),  # 8 bits
    ):
        folder = tmp_path / str(whole)
        monkeypatch.setattr(carried, 'WHOLE_BYTES', whole)
        write_carried(folder, *trained, FACTS)
        assert sum(path.stat().st_size for path in folder.glob('*.part')) <= whole
        model, found, optimizer = begun(tmp_path, 1)
        assert load_carried(folder, model, found, optimizer).missing == missing
        assert not optimizer.state
        for name, value in average.values.items():
            assert near(found.values[name], value, tolerance), name
        if 'model' in missing:
            assert all(
                torch.equal(value, found.values[name])
                for name, value in model.state_dict().items()
            )


def test_without_an_average_the_model_is_carried_once(tmp_path: Path) -> None:
    run = begun(tmp_path, 0, steps=1, decay=0.0)
    write_carried(tmp_path / 'carried', *run, FACTS)
    assert not list((tmp_path / 'carried').glob('model*'))
    assert load_carried(tmp_path / 'carried', *begun(tmp_path, 1, decay=0.0)).missing == ()


def test_missing_and_damaged_parts_are_one_sentence(tmp_path: Path, trained: Run) -> None:
    folder = tmp_path / 'carried'
    write_carried(folder, *trained, FACTS)
    fresh = begun(tmp_path, 1)
    for path in folder.glob('optimizer*'):
        path.unlink()
    assert load_carried(folder, *fresh).missing == ('optimizer',)
    part = next(folder.glob('model*'))
    content = part.read_bytes()
    part.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r'model-step7-0-\w+\.part: damaged \(\d+ bytes, expected'):
        load_carried(folder, *fresh)
    part.unlink()
    found = load_carried(folder, *fresh)
    assert found.in_words == (
        'from the averaged weights and with fresh moments of the optimizer and another warm-up'
    )
    next(folder.glob('average*')).unlink()
    with pytest.raises(DataError, match='parts of the averaged weights are missing'):
        load_carried(folder, *fresh)
    (folder / 'carried.json').write_text('{}')
    with pytest.raises(DataError, match=r'carried\.json: cannot be read .* copy the folder again'):
        carried_step(folder)


def test_weights_of_another_network_are_refused(tmp_path: Path, trained: Run) -> None:
    write_carried(tmp_path / 'carried', *trained, FACTS)
    config = load_config(write_config(tmp_path / 'c.yaml'))
    model = PoseSystem(Small(128))
    average, optimizer = MovingAverage(model, 0.9), make_optimizer(model, config)
    with pytest.raises(DataError, match='weights of another network'):
        load_carried(tmp_path / 'carried', model, average, optimizer)


def test_only_a_source_of_the_same_kind_goes_on() -> None:
    drawn, order = {'pairs': 5}, {'round': 1, 'position': 2, 'size': 3}
    shards = {'order': order, 'shards': ['a.npz']}
    assert same_source(drawn, {'pairs': 0})
    assert not same_source(shards, {'pairs': 0})
    assert not same_source(shards, {'order': order, 'shards': []})  # files of another machine
    mixed = {'pairs': drawn, 'photographs': {'order': order}}
    assert same_source(mixed, mixed)
    assert not same_source(mixed, {'pairs': shards, 'photographs': {'order': order}})


# ---- runs ----


def trainer(tmp_path: Path, steps: int, *, resume: bool = False) -> Trainer:
    config = load_config(write_config(tmp_path / 'c.yaml', steps=steps))
    source = ShardSource(config, str(tmp_path / 'train_*.npz'))
    cpu = torch.device('cpu')
    return Trainer(config, source, None, tmp_path / 'run', device=cpu, resume=resume)


def test_a_run_goes_on_from_weights_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shard(tmp_path / 'train_0.npz', 4)
    first = trainer(tmp_path, 3)
    first.run()
    folder = tmp_path / 'run' / 'carried'
    (tmp_path / 'run' / 'last.pt').unlink()
    for path in (*folder.glob('optimizer*'), *folder.glob('model*')):
        path.unlink()
    again = trainer(tmp_path, 5, resume=True)
    said = capsys.readouterr().out
    assert 'going on from step 3, from the averaged weights and with fresh moments' in said
    assert (again.step, again.pairs_seen, again.stage_step) == (3, first.pairs_seen, 0)
    assert again.stage_index == first.stage_index
    assert again.skipped == 0
    assert not again.optimizer.state
    name = 'method.trunk.stem.0.weight'
    assert near(again.model.state_dict()[name], first.average.values[name], 5e-4)
    again.run()
    assert again.step == 5


def test_the_further_one_of_both_checkpoints_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts that come back from another machine lie beside the last.pt of before the trip."""
    write_shard(tmp_path / 'train_0.npz', 4)
    trainer(tmp_path, 2).run()
    assert trainer(tmp_path, 4, resume=True).step == 2
    assert 'going on' not in capsys.readouterr().out  # exactly, from last.pt
    contents = tmp_path / 'run' / 'carried' / 'carried.json'
    facts = json.loads(contents.read_text())
    facts['facts']['counters']['step'] = 3
    contents.write_text(json.dumps(facts))
    assert trainer(tmp_path, 4, resume=True).step == 3
    assert 'going on from step 3, in half precision' in capsys.readouterr().out
    facts['facts']['config']['model'] = 'lite-baseline'
    contents.write_text(json.dumps(facts))
    with pytest.raises(DataError, match='the run is of model lite-baseline, the configuration'):
        trainer(tmp_path, 4, resume=True)
