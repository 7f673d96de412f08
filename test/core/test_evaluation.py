"""Evaluation against plain formulas, of every kind of method, and the report it writes."""

import json
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_sets import write_pairs

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.checkpoint import save_checkpoint
from rsb_pose_core.cli import main
from rsb_pose_core.cli.evaluate import unique_names
from rsb_pose_core.metrics import JointErrors, scores
from rsb_pose_core.models import (
    NETWORKS,
    AlgebraicTriangulation,
    IndependentHeatmaps,
    PoseTransformer,
    RSBPose,
    VolumetricTriangulation,
)
from rsb_pose_core.models.backbones import ResNetTrunk
from rsb_pose_core.models.estimate import StereoEstimate
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.models.volume_networks import V2V, StereoV2V
from rsb_pose_core.training import evaluation
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.evaluation import Evaluated, evaluate, evaluate_method, table
from rsb_pose_core.training.pair_sheet import chosen_pairs, write_sheet
from rsb_pose_core.training.plots import write_plots
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.report import EvaluatedMethod, markdown_table

SIZE, JITTER = 64, 9
PAIRS = 5


@pytest.fixture(scope='module')
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('shards')
    write_pairs(folder / 'val_0.npz', 3, 0)
    write_pairs(folder / 'val_1.npz', PAIRS - 3, 1)
    return folder


@pytest.fixture(scope='module')
def pool(shards: Path) -> PairPool:
    found = PairPool(str(shards))
    assert found.scan() == PAIRS
    return found


@dataclass(frozen=True)
class Told:
    """An estimate that is known in advance."""

    known: StereoEstimate
    features_left: torch.Tensor | None
    features_right: torch.Tensor | None

    def estimate(self, calibration: StereoCalibration) -> StereoEstimate:
        return self.known


class Oracle(torch.nn.Module):
    """Says the truth moved by known offsets; a joint of pair 1 is not found."""

    def __init__(self, pool: PairPool, numbers: list[int]) -> None:
        super().__init__()
        self.pool, self.left_over = pool, list(numbers)

    def forward(
        self, left: torch.Tensor, right: torch.Tensor, calibration: StereoCalibration
    ) -> Told:
        some, self.left_over = self.left_over[: len(left)], self.left_over[len(left) :]
        batch = evaluation_batch(self.pool, some, SIZE, JITTER)
        xyz = batch.xyz_m + torch.tensor([0.03, 0.0, 0.04])
        xyz[:, 10, 0] += 0.2
        for row, number in enumerate(some):
            if number == 1:
                xyz[row, 4] = torch.nan
        features = torch.randn(len(some), 3, 16, 16, generator=torch.Generator().manual_seed(0))
        known = StereoEstimate(
            xyz_m=xyz,
            covariance_m2=torch.zeros(*xyz.shape, 3),
            confidence=torch.ones(xyz.shape[:2]),
            uv_left=batch.uv_left + torch.tensor([0.0, 3.0]),
            uv_right=batch.uv_right + torch.tensor([4.0, 0.0]),
        )
        return Told(known, features, features)


def test_known_offsets_come_back_as_errors(pool: PairPool) -> None:
    numbers = [4, 1, 2]
    found = evaluate_method(
        Oracle(pool, numbers), pool, input_size=SIZE, jitter_px=JITTER, numbers=numbers
    )
    assert set(found) == {'initial'}
    assert found['initial'].numbers == (4, 1, 2)
    errors = found['initial'].errors
    batch = evaluation_batch(pool, numbers, SIZE, JITTER)
    for row in range(3):
        for joint in range(17):
            expected = math.hypot(0.23, 0.04) if joint == 10 else 0.05
            absolute = float(errors.absolute_mm[row, joint])
            relative = float(errors.relative_mm[row, joint])
            if (row, joint) == (1, 4):
                assert math.isnan(absolute)
                assert math.isnan(relative)
            else:
                assert absolute == pytest.approx(1000 * expected, abs=1e-3)
                assert relative == pytest.approx(200.0 if joint == 10 else 0.0, abs=1e-3)
            inside = all(
                0 <= float(x) <= SIZE - 1
                for uv in (batch.uv_left, batch.uv_right)
                for x in uv[row, joint]
            )
            seen = [int(pool.pair(numbers[row])['visibility'][view, joint]) for view in range(2)]
            assert bool(errors.counted[row, joint]) == (inside and 3 not in seen)
            assert bool(errors.visible[row, joint]) == (inside and 3 not in seen and seen[0] == 0)
    assert 0 < int(errors.counted.sum()) < 3 * 17
    assert errors.uv_px is not None
    assert torch.allclose(errors.uv_px[:, 0], torch.full((3, 17), 3.0).double(), atol=1e-4)
    assert torch.allclose(errors.uv_px[:, 1], torch.full((3, 17), 4.0).double(), atol=1e-4)
    assert torch.allclose(errors.disparity_px, torch.full((3, 17), 4.0).double(), atol=1e-4)
    assert torch.equal(errors.depth_m, batch.xyz_m[..., 2].double())
    assert scores(errors).jdr_crop_side == 0.5  # within 3.2 px: the left view's 3, not 4


def test_a_refiner_is_measured_beside_the_initial_pose(pool: PairPool) -> None:
    class Shift(PoseTransformer):
        def refine(
            self, xyz_m: torch.Tensor, *, confidence: torch.Tensor | None = None
        ) -> torch.Tensor:
            assert confidence is not None
            return xyz_m - torch.tensor([0.03, 0.0, 0.04])

    refiner = Shift(width=8, depth=2, heads=2).train()
    found = evaluate_method(
        Oracle(pool, [0, 2]), pool, refiner=refiner, input_size=SIZE, jitter_px=JITTER,
        numbers=[0, 2],
    )  # fmt: skip
    assert set(found) == {'initial', 'refined'}
    assert refiner.training
    before, after = found['initial'].errors, found['refined'].errors
    others = torch.arange(17) != 10
    assert torch.allclose(before.absolute_mm[:, others], torch.tensor(50.0).double(), atol=1e-3)
    assert after.absolute_mm[:, others].max() < 1e-3
    assert torch.equal(before.similarity.nan_to_num(9), after.similarity.nan_to_num(9))


def slim(name: str) -> torch.nn.Module:
    """A method of Tables I and II on a trunk of a few channels."""
    torch.manual_seed(0)
    trunk, disparities = ResNetTrunk((1, 1, 1, 1), width=4, channels_out=8), DisparityRange(-3, 4)
    if name == 'rsb-pose':
        volume = StereoV2V(V2V(8, 17, levels=2), disparities)
        return RSBPose(trunk, (4,), volume, disparities, 17, heatmap_skip=False)
    if name == 'triangulation':
        return IndependentHeatmaps(trunk, disparities, 17, multi_scale=False)
    if name == 'algebraic':
        return AlgebraicTriangulation(trunk, 17)
    return VolumetricTriangulation(trunk, V2V(8, 17, levels=2), 17, 6, cells=8)


@pytest.mark.parametrize('name', ['rsb-pose', 'triangulation', 'algebraic', 'volumetric'])
def test_every_method_is_evaluated_alike(
    name: str, pool: PairPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = slim(name).train()
    refiner = PoseTransformer(width=8, depth=2, heads=2)
    whole = evaluate_method(method, pool, refiner=refiner, input_size=SIZE, jitter_px=JITTER)
    assert method.training
    assert set(whole) == {'initial', 'refined'} | ({'heatmaps'} if name == 'rsb-pose' else set())
    half = evaluate_method(method, pool, input_size=SIZE, jitter_px=JITTER, bf16=True)
    moved = half['initial'].xyz_m - whole['initial'].xyz_m
    assert 0 < float(moved.abs().median()) < 0.02
    monkeypatch.setattr(evaluation, 'BATCH_SIZE', 2)
    parts = evaluate_method(method, pool, refiner=refiner, input_size=SIZE, jitter_px=JITTER)
    for stage, found in whole.items():
        assert found.xyz_m.shape == (PAIRS, 17, 3)
        assert found.xyz_m.dtype == torch.float64
        assert torch.allclose(found.xyz_m, parts[stage].xyz_m, atol=1e-2, equal_nan=True)
        result = scores(found.errors)
        assert result.expected > 20
        has_2d = name != 'volumetric'
        assert math.isfinite(result.jdr_crop_side) == has_2d
        assert math.isfinite(result.sim_cos.mean) == has_2d
        if has_2d:
            assert -1 <= result.sim_cos.p5 <= result.sim_cos.p95 <= 1


def test_validation_measures_in_cells_of_a_map_of_64(pool: PairPool) -> None:
    numbers = list(range(PAIRS))
    summary = evaluate(Oracle(pool, numbers), pool, input_size=SIZE, jitter_px=JITTER)['initial']
    assert summary['uv_median'] == pytest.approx(3.0 * 256 / SIZE / 4, abs=1e-4)
    assert summary['disparity_mean'] == pytest.approx(4.0 * 256 / SIZE / 4, abs=1e-4)
    assert summary['absolute_mm_median_visible'] == pytest.approx(50.0, abs=1e-2)
    assert summary['absolute_mm_median_occluded'] == pytest.approx(50.0, abs=1e-2)
    text = table({'initial': summary}, 'step 3')
    assert text.startswith('step 3')
    assert ' 50/' in text.splitlines()[1]
    two = evaluate(Oracle(pool, [0, 1]), pool, input_size=SIZE, jitter_px=JITTER, limit=2)
    assert two['initial']['absolute_mm_mean'] != summary['absolute_mm_mean']


def test_the_sheet_shows_best_median_and_worst_pairs_once(pool: PairPool) -> None:
    found = evaluate_method(slim('triangulation'), pool, input_size=SIZE)['initial']

    def chosen(errors_mm: list[float]) -> list[tuple[str, int]]:
        rows = [0] * len(errors_mm)
        errors = JointErrors(
            **{
                field.name: getattr(found.errors, field.name)[rows]
                for field in fields(found.errors)
                if field.name not in ('absolute_mm', 'counted')
            },
            absolute_mm=torch.tensor(errors_mm).double()[:, None].expand(-1, 17),
            counted=torch.ones(len(rows), 17, dtype=torch.bool),
        )
        return chosen_pairs(Evaluated(tuple(rows), found.xyz_m[rows], errors))

    nan = math.nan
    assert chosen([30.0, 10.0, nan, 20.0, 40.0]) == [
        ('best', 1), ('best', 3), ('median', 0), ('worst', 4),
    ]  # fmt: skip
    assert chosen([nan, 7.0, nan]) == [('best', 1)]
    assert chosen([nan]) == []
    assert chosen([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]) == [
        ('best', 8), ('best', 7), ('median', 5), ('median', 4), ('worst', 1), ('worst', 0),
    ]  # fmt: skip


# ---- the command ----


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    paths = [folder / 'ours.safetensors', folder / 'baseline.safetensors']
    for path, name, refiner in zip(
        paths, ('lite', 'lite-baseline'), (PoseTransformer(), None), strict=True
    ):
        metadata = {'model': name, 'input_size': SIZE, 'validation': 'long'}
        save_checkpoint(path, NETWORKS[name].build(), metadata, refiner)
    return paths


def command(weights: list[Path], shards: Path, *more: str) -> list[str]:
    paths = [str(path) for path in weights]
    return ['evaluate', '--weights', *paths, '--data', str(shards), '--device', 'cpu', *more]


def test_a_report_holds_several_methods_side_by_side(
    weights: list[Path], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'new' / 'report'
    assert main(command(weights, shards, '--limit', '4', '--out', str(out))) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    names = [row.split('|')[1].strip() for row in rows[2:]]
    assert names == [
        'ours', 'ours, before the Pose Transformer', 'ours, each view by itself', 'baseline',
    ]  # fmt: skip
    assert len({len(row) for row in rows}) == 1
    assert '\n'.join(rows) in (out / 'report.md').read_text()

    def no_nan(name: str) -> float:
        raise AssertionError(f'{name} is not JSON')

    report = json.loads((out / 'report.json').read_text(), parse_constant=no_nan)
    assert (report['pairs'], report['jitter_px']) == (4, 12)
    assert report['files'] == ['val_0.npz', 'val_1.npz']
    ours = report['methods']['ours']
    assert len(ours['sha256']) == 64
    assert ours['input_size'] == SIZE
    assert 'validation' not in ours['metadata']
    assert set(ours['stages']) == {'initial', 'refined', 'heatmaps'}
    assert set(report['methods']['baseline']['stages']) == {'initial'}
    final = ours['stages']['refined']
    median, mean = (final['all']['mpjpe_ab_mm'][key] for key in ('median', 'mean'))
    assert rows[2].split('|')[2].strip() == f'{median:.0f} / {mean:.0f}'
    joints = final['joints'].values()
    assert sum(joint['expected'] for joint in joints) == final['all']['expected']
    assert final['visible']['expected'] + final['occluded']['expected'] == final['all']['expected']
    for name in ('joints', 'cumulative', 'distance', 'occlusion'):
        picture = cv2.imread(str(out / f'{name}.png'))
        assert picture.shape[1] == 1000
        assert picture.std() > 5
    sheet = cv2.imread(str(out / 'pairs.png'))
    assert sheet.shape[1] == 2 * (3 * 256 + 8)
    assert sheet.shape[0] > 4 * 256


def test_without_out_only_the_table_is_printed(
    weights: list[Path], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    assert main(command(weights[1:], shards, '--jitter-px', '0', '--limit', '2')) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith('| method ')
    assert '2/2' in printed.err  # the progress bar
    assert sorted(tmp_path.iterdir()) == before


def test_a_refiner_plugs_into_a_method_that_has_none(
    weights: list[Path], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['--refiner', str(weights[0]), '--limit', '2', '--out', str(tmp_path)]
    assert main(command(weights[1:], shards, *options)) == 0
    assert 'baseline, before the Pose Transformer' in capsys.readouterr().out
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['methods']['baseline']['refiner']['weights'] == 'ours.safetensors'
    assert main(command(weights, shards, '--refiner', str(weights[1]))) == 2
    assert 'pose transformer' in capsys.readouterr().err


def test_another_input_size_is_said_and_recorded(
    weights: list[Path], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ['--input-size', '96', '--limit', '2', '--out', str(tmp_path)]
    assert main(command(weights[1:], shards, *options)) == 0
    assert 'baseline.safetensors was trained at 64 px' in capsys.readouterr().err
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['methods']['baseline']['input_size'] == 96


def test_the_flip_test_is_another_measurement_and_recorded(
    weights: list[Path], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    means = []
    for folder, options in (('plain', []), ('flipped', ['--flip-test'])):
        out = tmp_path / folder
        assert main(command(weights, shards, '--limit', '2', '--out', str(out), *options)) == 0
        report = json.loads((out / 'report.json').read_text())
        assert report['methods']['ours']['flip_test'] is bool(options)
        means.append(report['methods']['ours']['stages']['initial']['all']['mpjpe_ab_mm']['mean'])
    assert means[0] != pytest.approx(means[1], rel=1e-4)
    rival = tmp_path / 'rival.safetensors'
    save_checkpoint(
        rival, NETWORKS['algebraic-t-resnet50'].build(), {'model': 'algebraic-t-resnet50'}
    )
    assert main(command([rival], shards, '--flip-test')) == 2
    assert 'leave this file or --flip-test out' in capsys.readouterr().err


def test_names_tell_weights_apart() -> None:
    runs = [Path('runs/a/model.safetensors'), Path('runs/b/model.safetensors')]
    assert unique_names([*runs, Path('x.safetensors')]) == ['a/model', 'b/model', 'x']
    assert unique_names([Path('w/x.safetensors'), Path('v/y.safetensors')]) == ['x', 'y']
    assert unique_names([runs[0], runs[0]]) == ['a/model 1', 'a/model 2']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--input-size', '100'], 'give a multiple of 32'),
        (['--limit', '0'], 'give at least 1'),
        (['--jitter-px', '-1'], 'give 0 or more'),
        (['--data', 'nowhere/*.npz'], 'no pairs match'),
        (['--weights', 'nowhere.safetensors'], 'no such weights file'),
        (['--refiner', 'nowhere.safetensors'], 'no such'),
        (['--out', __file__], 'is a file; give a folder'),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str],
    message: str,
    weights: list[Path],
    shards: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(weights, shards, *options)) == 2
    printed = capsys.readouterr().err.strip()
    assert message in printed
    assert '\n' not in printed


def test_a_missing_file_is_named_before_the_work_on_the_others(
    weights: list[Path], shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = weights[0].with_name('missing.safetensors')
    assert main(command([*weights, missing], shards)) == 2
    printed = capsys.readouterr()
    assert 'missing.safetensors: no such weights file' in printed.err
    assert 'pair/s' not in printed.err


def test_pairs_in_which_nothing_can_be_measured_are_one_sentence(
    weights: list[Path], shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load(shards / 'val_0.npz'))
    arrays['visibility'][:] = 3
    np.savez(tmp_path / 'a.npz', **arrays)
    assert main(command(weights[1:], tmp_path, '--out', str(tmp_path / 'out'))) == 2
    assert 'no joint has a true position inside both crops' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_method_that_finds_nothing_still_gets_a_report(pool: PairPool, tmp_path: Path) -> None:
    found = evaluate_method(slim('triangulation'), pool, input_size=SIZE)['initial']
    nan = torch.full_like(found.errors.absolute_mm, torch.nan)
    lost = replace(found, errors=replace(found.errors, absolute_mm=nan, relative_mm=nan))
    method = EvaluatedMethod('lost', {'input_size': SIZE}, {'initial': lost})
    assert '| 0.0% |' in markdown_table([method])
    write_plots([method], tmp_path)
    write_sheet([method], pool, JITTER, tmp_path / 'pairs.png')
    assert len(list(tmp_path.glob('*.png'))) == 5
