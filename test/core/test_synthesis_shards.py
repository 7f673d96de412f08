"""Shards on disk: resumable, complete, readable by the trainer, one sentence on bad input."""

import numpy as np
import pytest
import torch

from rsb_pose_core.cli import main
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import shards
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.motion import H36M_FILE_ORDER
from rsb_pose_core.training.pool import PairPool


@pytest.fixture
def motion(tmp_path):
    """A motion file in CMU's 17-joint format, of a body that stands."""
    body = Body()
    vertices, heads = body.rest(torch.zeros(1, body.shapes.shape[1]))
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    ours = body.pose(vertices, heads, still, torch.eye(3)[None]).joints_m[0].numpy()
    joints = np.stack([ours[H36M_17.index(name)] for name in H36M_FILE_ORDER]) * 1000
    folder = tmp_path / 'motion'
    folder.mkdir()
    np.savez(
        folder / 'cmu_17joints_60hz.npz', joints_mm=np.stack([joints] * 4),
        sequence=np.array([0, 0, 1, 1]), names=np.array(['walking_1.txt', 'walking_5.txt']),
    )  # fmt: skip
    return folder


def test_shards_are_what_the_trainer_reads_and_are_not_made_twice(motion, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, 'SHARD_PAIRS', 2)
    monkeypatch.setattr(shards, 'BATCH_PAIRS', 1)
    job = shards.ShardJob(tmp_path / 'out', motion, None)
    renderer = shards.ShardRenderer(job)
    job.out.mkdir()
    for number in (0, 1):
        with job.path(number).open('wb') as file:
            np.savez(file, **renderer.shard(number))
    pool = PairPool(str(job.out / 'train_*.npz'), 100)
    assert pool.scan() == 4
    assert pool.pair(0)['left'].shape == (288, 288, 3)
    assert shards.render_shards(job, 2, processes=1) == 0  # nothing left to do
    again = shards.ShardRenderer(job).shard(1)
    with np.load(job.path(1)) as written:
        assert all(np.array_equal(written[key], again[key]) for key in again)


def test_missing_motion_is_one_sentence_and_status_2(tmp_path, capsys):
    status = main(['render', '--out', str(tmp_path / 'o'), '--motion', str(tmp_path / 'none')])
    assert status == 2
    assert 'no motion in' in capsys.readouterr().err


def test_a_split_without_clips_is_one_sentence(motion, tmp_path):
    with pytest.raises(RsbPoseError, match='no clips of the val split'):
        shards.ShardRenderer(shards.ShardJob(tmp_path, motion, None, 'val'))


def test_unwritable_folder_is_one_sentence(motion, tmp_path):
    blocked = tmp_path / 'file'
    blocked.write_text('')
    with pytest.raises(RsbPoseError, match='cannot write to'):
        shards.render_shards(shards.ShardJob(blocked / 'out', motion, None), 1, 1)
