"""Training on pairs that are drawn meanwhile: exact, resumable, on the CPU and on a GPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn_pairs
import numpy as np
import pytest
import torch
from test_training import write_config

from rsb_pose_core.cli import main
from rsb_pose_core.errors import ConfigError, RsbPoseError
from rsb_pose_core.geometry import triangulate
from rsb_pose_core.synthesis.pairs import PairSpace
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import Rendering, TrainConfig, load_config
from rsb_pose_core.training.distributed import Ranks
from rsb_pose_core.training.sources import RenderedSource
from rsb_pose_core.training.trainer import Trainer


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Steps of 3 and of 2 pairs that are drawn 4 at once, another casting every 2 batches."""
    rendering = {'pairs_at_once': 4, 'batches_per_casting': 2}
    return load_config(write_config(tmp_path / 'c.yaml', steps=6, rendering=rendering))


def rendered(
    config: TrainConfig, made: list[int] | None = None, before: int = 0
) -> RenderedSource:
    def make(
        data: Path, split: str, seed: int, space: PairSpace, device: str
    ) -> drawn_pairs.DrawnRenderer:
        if made is not None:
            made.append(seed)
        return drawn_pairs.drawn_crops(data, split, seed, space, device)

    return RenderedSource(config, Path('data'), 'cpu', make, before=before)


def batches(source: RenderedSource, counts: list[int]) -> list[StereoBatch]:
    return [source.take(count, 64, step)() for step, count in enumerate(counts)]


def test_a_batch_is_a_function_of_the_seed_and_of_what_was_taken_before(
    config: TrainConfig,
) -> None:
    first, again, other = (
        batches(rendered(replace(config, seed=seed)), [3, 3, 2]) for seed in (0, 0, 1)
    )
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one.left, two.left)
        assert torch.equal(one.xyz_m, two.xyz_m)
        assert not torch.equal(one.left, three.left)


def test_every_pair_is_shown_once(config: TrainConfig) -> None:
    """Steps cut the drawn batches as they like; flips leave a pair's baseline as it is."""
    still = replace(config, augmentation=replace(config.augmentation, flip=0.0))
    found = torch.cat([batch.xyz_m for batch in batches(rendered(still), [3, 3, 2, 2])])
    seed = 0
    drawn = []
    for number, casting in ((0, 0), (4, 0), (8, 1)):
        renderer = drawn_pairs.DrawnRenderer(seed + casting)
        drawn.append(renderer.batch(4, seed, number).labels.h36m.xyz_m[:, 0])
    assert torch.equal(found, torch.cat(drawn)[:10])


def test_textures_and_people_change(config: TrainConfig) -> None:
    made: list[int] = []
    batches(rendered(config, made), [4] * 5)
    assert made == [0, 1, 2]


def test_labels_still_triangulate_to_the_joints(config: TrainConfig) -> None:
    batch = batches(rendered(config), [8])[0]
    uvd = torch.cat([batch.uv_left, (batch.uv_left - batch.uv_right)[..., :1]], -1).double()
    assert (triangulate(uvd, batch.calibration) - batch.xyz_m).abs().max() < 2e-5


def test_a_source_goes_on_from_its_state(config: TrainConfig) -> None:
    whole = rendered(config)
    states = []
    expected = []
    for step, count in enumerate([3, 3, 2]):
        states.append(whole.state())
        expected.append(whole.take(count, 64, step)())
    resumed = rendered(config)
    resumed.start(states[2])
    assert torch.equal(resumed.take(2, 64, 2)().left, expected[2].left)


def test_a_run_behind_another_draws_what_would_have_come_next(config: TrainConfig) -> None:
    still = replace(config, augmentation=replace(config.augmentation, flip=0.0))
    whole = torch.cat([batch.xyz_m for batch in batches(rendered(still), [3, 3, 2])])
    behind = rendered(still, before=6)
    assert torch.equal(behind.take(2, 64, 0)().xyz_m, whole[6:])


def test_a_run_on_drawn_pairs_resumes_exactly(config: TrainConfig, tmp_path: Path) -> None:
    def trainer(name: str, **options: Any) -> Trainer:
        cpu = torch.device('cpu')
        return Trainer(config, rendered(config), None, tmp_path / name, device=cpu, **options)

    whole = trainer('whole')
    whole.run()
    assert (whole.step, whole.pairs_seen) == (6, 15)
    interrupted = trainer('parts')
    step = interrupted.train_step

    def stop_after_four(batch: StereoBatch) -> dict[str, torch.Tensor]:
        terms = step(batch)
        interrupted._stop = interrupted.step == 4
        return terms

    interrupted.train_step = stop_after_four  # type: ignore[method-assign]
    interrupted.run()
    resumed = trainer('parts', resume=True)
    assert resumed.step == 4
    resumed.run()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_each_rank_draws_pairs_and_castings_of_its_own(config: TrainConfig) -> None:
    """A batch is shared out; what one process draws, no other does."""
    castings: list[list[int]] = [[], []]
    sources = []
    for rank in range(2):
        source = rendered(config, castings[rank])
        source.ranks = Ranks(rank, 2)
        sources.append(source)
    parts = [batches(source, [8, 8, 8]) for source in sources]
    assert [len(batch) for batch in parts[0] + parts[1]] == [4] * 6
    assert castings == [[0, 2], [1, 3]]
    poses = torch.cat([batch.xyz_m for part in parts for batch in part])[:, :, 2]
    assert len({tuple(pose) for pose in poses.sort(1).values.tolist()}) == 24
    assert [len(source) for source in sources] == [24, 24]
    resumed = rendered(config)
    resumed.ranks = Ranks(1, 2)
    resumed.start({'pairs': 16})
    assert torch.equal(resumed.take(8, 64, 2)().left, parts[1][2].left)


def test_what_goes_wrong_while_drawing_ends_the_run(config: TrainConfig, tmp_path: Path) -> None:
    class Failing:
        def batch(self, count: int, seed: int, number: int) -> object:
            if number >= 8:
                raise RsbPoseError('out of paint')
            return drawn_pairs.DrawnRenderer(0).batch(count, seed, number)

    source = RenderedSource(config, tmp_path, 'cpu', lambda *_: Failing())
    run = Trainer(config, source, None, tmp_path / 'run', device=torch.device('cpu'))
    with pytest.raises(RsbPoseError, match='out of paint'):
        run.run()


def test_rendering_without_data_is_one_sentence(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['train', 'sce', '--config', str(tmp_path / 'c.yaml'), '--device', 'cpu']
    command += ['--out', str(tmp_path / 'run'), '--render', str(tmp_path / 'none')]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith('rsb-pose train: ')


def test_rendering_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match='rendering: expected values of at least 1'):
        Rendering(pairs_at_once=0)


@pytest.mark.gpu
def test_a_gpu_trains_on_what_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real renderer, where its data is."""
    data = Path(__file__).parents[3] / 'shared' / 'data'
    if not data.is_dir():
        pytest.skip('needs the motion data')
    rendering = {'pairs_at_once': 8, 'batches_per_casting': 1}
    path = write_config(tmp_path / 'c.yaml', steps=4, rendering=rendering)
    command = ['train', 'sce', '--config', str(path), '--render', str(data), '--device', 'cuda']
    assert main([*command, '--out', str(tmp_path / 'run')]) == 0
    assert (tmp_path / 'run' / 'model.safetensors').exists()
    source = RenderedSource(load_config(path), data, 'cuda')
    batch = source.take(8, 256, 0)()
    assert len(np.unique(batch.left.numpy())) > 100
