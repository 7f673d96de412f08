"""A batch that is no good ends a run with its name; the last checkpoint stays as it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_training import write_config, write_shard

from rsb_pose_core.errors import DataError
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import load_config
from rsb_pose_core.training.guard import why_not_finite
from rsb_pose_core.training.objective import Objective
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.sources import ShardSource
from rsb_pose_core.training.trainer import Trainer


def spoil(path: Path, array: str, index: tuple[int, ...], value: float) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name].copy() for name in archive.files}
    arrays[array][index] = value
    np.savez(path, **arrays)


def trainer(folder: Path, **changes: Any) -> Trainer:
    config = load_config(write_config(folder / 'c.yaml', **{'steps': 8, **changes}))
    source = ShardSource(config, str(folder / 'train_*.npz'))
    return Trainer(config, source, None, folder / 'run', device=torch.device('cpu'))


@pytest.mark.parametrize(
    ('array', 'index', 'value'),
    [('calibration', (4, 0), np.nan), ('uv_right', (4, 3, 0), np.inf)],
)
def test_labels_that_are_no_numbers_are_named_by_file_and_pair(
    tmp_path: Path, array: str, index: tuple[int, ...], value: float
) -> None:
    write_shard(tmp_path / 'train_0.npz', 6)
    spoil(tmp_path / 'train_0.npz', array, index, value)
    run = trainer(tmp_path)
    run.save()
    before = (tmp_path / 'run' / 'last.pt').read_bytes()
    with pytest.raises(DataError, match=r'train_0\.npz pair 4: .* \(the last checkpoint is kept'):
        run.run()
    assert (tmp_path / 'run' / 'last.pt').read_bytes() == before


def test_joints_without_a_label_are_no_reason_to_stop(tmp_path: Path) -> None:
    write_shard(tmp_path / 'train_0.npz', 3)
    for array, index in (('xyz_m', (1, 4)), ('uv_left', (1, 4)), ('uv_right', (1, 4))):
        spoil(tmp_path / 'train_0.npz', array, index, np.nan)
    run = trainer(tmp_path, steps=2)
    run.run()
    assert run.step == 2
    assert run.skipped == 0


class Blind(Objective):
    """The loss is NaN where a pair's first pixel is 7."""

    def __init__(self, system: PoseSystem, *, only_together: bool = False) -> None:
        super().__init__(system)
        self.only_together = only_together

    def forward(self, batch: StereoBatch, stage: object) -> dict[str, torch.Tensor]:
        bad = (batch.left[:, 0, 0, 0] == 7).any() and not (self.only_together and len(batch) == 1)
        weight = next(self.system.parameters()).sum()
        return {'first': weight, 'second': weight * (torch.nan if bad else 1.0)}


def test_the_guilty_pair_is_found_where_only_the_sum_says_so(tmp_path: Path) -> None:
    write_shard(tmp_path / 'train_0.npz', 4)
    run = trainer(tmp_path)
    pool = PairPool(str(tmp_path / 'train_0.npz'))
    pool.scan()
    batch = evaluation_batch(pool, [3, 1, 2], 64, 0)
    batch.left[:] = 5
    batch.left[1, :, 0, 0] = 7
    run._step_module = run.objective = Blind(run.model)
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(DataError, match=r'step 0: the loss of \S*train_0\.npz pair 1 is not a'):
        run.train_step(batch)
    assert all(torch.equal(weights[name], v) for name, v in run.model.state_dict().items())
    together = Blind(run.model, only_together=True)
    stage = run.config.stages[0]
    found = why_not_finite(together, batch, stage, 5, 'fp16')
    assert 'that of no pair by itself' in found
    assert 'another precision than fp16' in found


def test_weights_that_are_no_numbers_are_never_saved(tmp_path: Path) -> None:
    write_shard(tmp_path / 'train_0.npz', 3)
    run = trainer(tmp_path)
    run.save()
    before = (tmp_path / 'run' / 'last.pt').read_bytes()
    weight = run.model.get_parameter('method.trunk.stem.0.weight')
    with torch.no_grad():
        weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match=r'method\.trunk\.stem\.0\.weight\), training diverged'):
        run.save()
    assert (tmp_path / 'run' / 'last.pt').read_bytes() == before
    with pytest.raises(DataError, match='diverged'):
        run.run()


def test_steps_without_finite_gradients_are_skipped_and_twenty_in_a_row_end_the_run(
    tmp_path: Path,
) -> None:
    write_shard(tmp_path / 'train_0.npz', 3)
    run = trainer(tmp_path)

    class Steep(Objective):
        def forward(self, batch: StereoBatch, stage: object) -> dict[str, torch.Tensor]:
            weight = next(self.system.parameters()).sum()
            return {'root': (weight * 0).abs().sqrt()}  # 0, its gradient is not finite

    run._step_module = run.objective = Steep(run.model)
    pool = PairPool(str(tmp_path / 'train_0.npz'))
    pool.scan()
    batch = evaluation_batch(pool, [0, 1], 64, 0)
    weights = {name: value.clone() for name, value in run.model.state_dict().items()}
    for _ in range(19):
        run.train_step(batch)
    assert (run.step, run.skipped) == (19, 19)
    assert all(torch.equal(weights[name], v) for name, v in run.model.state_dict().items())
    with pytest.raises(DataError, match='gradients of 20 steps in a row were not finite'):
        run.train_step(batch)


def test_a_batch_knows_its_pairs_by_name_and_takes_some(tmp_path: Path) -> None:
    write_shard(tmp_path / 'train_0.npz', 3)
    write_shard(tmp_path / 'train_1.npz', 2, seed=1)
    pool = PairPool(str(tmp_path / 'train_*.npz'))
    pool.scan()
    batch = evaluation_batch(pool, [4, 0, 2], 64, 0)
    assert [Path(name).name for name in batch.names] == [
        'train_1.npz pair 1', 'train_0.npz pair 0', 'train_0.npz pair 2',
    ]  # fmt: skip
    some = batch.take([2, 0])
    assert some.names == (batch.names[2], batch.names[0])
    assert torch.equal(some.xyz_m, batch.xyz_m[[2, 0]])
    assert torch.equal(some.calibration.fx, batch.calibration.fx[[2, 0]])
    assert replace(batch, names=()).name(1) == 'pair 1 of the batch'


@pytest.mark.parametrize('fast', [True, False])
def test_bfloat16_that_a_cpu_only_imitates_becomes_float32_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fast: bool
) -> None:
    monkeypatch.setattr('torch.cpu._is_avx512_bf16_supported', lambda: fast)
    write_shard(tmp_path / 'train_0.npz', 3)
    run = trainer(tmp_path, precision='bf16')
    assert run.objective.dtype == (torch.bfloat16 if fast else torch.float32)
    told = 'this cpu has no bfloat16 instructions: float32 instead'
    with run.monitor.running(0.0):
        pass
    assert (told in capsys.readouterr().out) != fast
