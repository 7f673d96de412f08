"""Two processes that train one network do what one process does; they stop and resume together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_ranks
from test_training import write_config, write_shard
from test_training_guard import spoil

from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.training.augmentation import Augmentation, training_batch
from rsb_pose_core.training.distributed import Ranks
from rsb_pose_core.training.pool import PairPool, ShuffledOrder

ROOT = Path(__file__).parents[2]
# Every joint counts in both views, so a mean over half a batch's joints is half of the whole's.
STILL = {
    'shift_px': 0, 'right_shift_px': 0, 'scale': [0.7, 0.7], 'flip': 0, 'occluder': 0,
    'black_edge': 0,
}  # fmt: skip
LOSSES = {
    'heatmap_ce': 1.0, 'volume_ce': 1.0, 'volume_l1': 0.3, 'pose_l1_m': 1.0, 'refined_mpjpe': 1.0,
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of both processes."""
    folder = tmp_path_factory.mktemp('ranks')
    write_shard(folder / 'train_0.npz', 6)
    write_shard(folder / 'train_1.npz', 5, seed=1)
    write_shard(folder / 'spoilt.npz', 4)
    spoil(folder / 'spoilt.npz', 'calibration', (2, 0), np.nan)
    both = [{'name': 'both', 'input_size': 64, 'batch_size': 4, 'losses': LOSSES}]
    write_config(
        folder / 'exact.yaml', stages=both, precision='float32', augmentation=STILL, clip_norm=1e9
    )
    write_config(folder / 'plain.yaml', stages=[{**both[0], 'losses': {'heatmap_ce': 1.0}}])
    write_config(folder / 'timed.yaml', stages=both, steps=None, minutes=0.02)
    write_config(folder / 'run.yaml', stages=both)
    launcher = ['torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    subprocess.run(
        [sys.executable, '-m', *launcher, training_ranks.__file__, str(folder)],
        check=True, timeout=200,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    return folder


@pytest.fixture(scope='module')
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f'found_{rank}.pt', weights_only=False) for rank in range(2)]


def test_each_rank_takes_its_part_of_the_batches_of_one_process(
    folder: Path, found: list[dict[str, Any]]
) -> None:
    alone = training_ranks.gradients(folder, Ranks())
    for step in range(2):
        parts = [one['gradients']['names'][step] for one in found]
        assert [len(part) for part in parts] == [2, 2]
        assert parts[0] + parts[1] == alone['names'][step]


def test_gradients_and_weights_are_those_of_one_process_with_the_whole_batch(
    folder: Path, found: list[dict[str, Any]]
) -> None:
    """Norms use running statistics here: on CPUs each rank has those of its own part alone."""
    alone = training_ranks.gradients(folder, Ranks())
    first, second = (one['gradients'] for one in found)
    for step in range(2):
        assert torch.allclose(first['terms'][step].float(), alone['terms'][step], rtol=1e-3)
        for name, expected in alone['gradients'][step].items():
            got = first['gradients'][step][name]
            assert torch.equal(got, second['gradients'][step][name]), name
            tolerance = (1e-3 if step == 0 else 2e-2) * float(expected.abs().max()) + 1e-6
            assert (got - expected).abs().max() < tolerance, name
    for name, value in first['weights'].items():
        assert torch.equal(value, second['weights'][name]), name
        assert torch.allclose(value, alone['weights'][name], atol=5e-4), name


def test_ctrl_c_on_one_rank_stops_all_and_they_resume_exactly(
    found: list[dict[str, Any]],
) -> None:
    runs = [one['interrupted'] for one in found]
    assert [run['stopped_at'] for run in runs] == [2, 2]
    for run in runs:
        for name, value in run['whole'].items():
            # ranks' own statistics are not saved; before a forward they take the first rank's
            if run is runs[0] or 'running' not in name:
                assert torch.equal(value, run['resumed'][name]), name


def test_the_first_rank_tells_the_time(found: list[dict[str, Any]]) -> None:
    first, second = (one['timed'] for one in found)
    assert first['steps'] == second['steps'] > 0
    assert first['seconds'] == second['seconds'] >= 1.2


def test_a_bad_pair_of_one_rank_ends_all_and_is_named_once(found: list[dict[str, Any]]) -> None:
    ends = [one['spoilt']['end'] for one in found]
    assert 'spoilt.npz pair 2' in ends[0]
    assert ends[1] == 2


def test_the_command_trains_in_both_processes(folder: Path) -> None:
    _, _, metadata = load_model(folder / 'command' / 'model.safetensors')
    assert (metadata['model'], metadata['pairs_seen']) == ('lite-baseline', '8')
    kinds = [
        json.loads(line)['kind']
        for line in (folder / 'command' / 'log.jsonl').read_text().splitlines()
    ]
    assert kinds == ['validation']


def test_a_batch_that_cannot_be_shared_evenly_is_one_sentence() -> None:
    assert Ranks(1, 3).part(12) == slice(4, 8)
    with pytest.raises(ConfigError, match='batch_size of 16 cannot be shared by 3 processes'):
        Ranks(0, 3).part(16)


def test_parts_of_a_batch_are_those_of_the_whole_one(folder: Path) -> None:
    """Augmented alike, whoever makes them."""
    pool = PairPool(str(folder / 'train_*.npz'))
    pool.scan()
    chosen, ranges = ShuffledOrder(3, len(pool)).take(6), Augmentation(occluder=1.0)
    whole = training_batch(pool, chosen, 64, (0, 5), ranges)
    for rank in range(3):
        part = Ranks(rank, 3).part(6)
        some = training_batch(pool, chosen[part], 64, (0, 5), ranges, first=part.start)
        assert torch.equal(some.left, whole.left[part])
        assert torch.equal(some.xyz_m, whole.xyz_m[part])
