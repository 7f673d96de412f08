"""The paper's tables and figures as commands, against direct computation."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import drawn_pairs
import numpy as np
import pytest
import torch
import yaml

from rsb_pose_core.checkpoint import load_model, load_refiner, save_refiner
from rsb_pose_core.cli import main
from rsb_pose_core.counting import count_network
from rsb_pose_core.experiments.agreement import view_agreement
from rsb_pose_core.experiments.baseline_error import (
    BASELINES_MM,
    held_out_poses,
    mean_length,
    noise_of_views,
    slopes,
    sweep,
    uvd_covariance,
)
from rsb_pose_core.experiments.baseline_figure import Point, uncertainty_area, uncertainty_region
from rsb_pose_core.experiments.convergence import summarize
from rsb_pose_core.experiments.methods import HeldOut
from rsb_pose_core.experiments.paper import TABLE_1, TABLE_2
from rsb_pose_core.experiments.registry import EXPERIMENTS
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.experiments.runs import Run, Training
from rsb_pose_core.experiments.tables import methods
from rsb_pose_core.metrics import JointErrors, scores
from rsb_pose_core.models import NETWORKS, PoseTransformer
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.shards import shard_arrays
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.evaluation import joint_errors
from rsb_pose_core.training.pool import PairPool
from rsb_pose_core.training.trainer import Trainer

# ---- the command and its results ----


def test_without_a_name_the_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['experiment']) == 0
    listed = capsys.readouterr().out
    for name, experiment in EXPERIMENTS.items():
        assert f'  {name}' in listed
        assert experiment.summary in listed


def test_an_unknown_experiment_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(['experiment', 'figure-99'])
    assert caught.value.code == 2
    assert 'figure-1a' in capsys.readouterr().err


def test_results_are_strict_json_and_tables_show_what_is_missing(tmp_path: Path) -> None:
    table = markdown(('a', 'b', 'c'), [('x', 1.234, math.nan), ('y', 2, None)])
    assert table.splitlines() == ['| a | b | c |', '|---|---|---|', '| x | 1.23 | - |',
                                  '| y | 2 | - |']  # fmt: skip
    write_results(tmp_path / 'out', {'values': [1.5, math.nan, {'deep': math.inf}]}, table)
    text = (tmp_path / 'out' / 'results.json').read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {'values': [1.5, None, {'deep': None}]}
    assert (tmp_path / 'out' / 'results.md').read_text() == table


# ---- Fig. 1A ----


def motion_folder(folder: Path) -> Path:
    """Two clips, of which one is held out: joints at random about a metre, y up, in mm."""
    rng = np.random.default_rng(0)
    (folder / 'motion').mkdir()
    np.savez(
        folder / 'motion' / 'cmu_17joints_60hz.npz',
        joints_mm=rng.normal(0, 300, (40, 17, 3)) + (500, 1000, -2000),
        sequence=np.repeat([0, 1], 20),
        names=np.array(['walking_1', 'walking_5']),
    )
    return folder


@pytest.fixture(scope='module')
def poses() -> torch.Tensor:
    random = torch.Generator().manual_seed(7)
    spread = torch.tensor([0.2, 0.45, 0.15], dtype=torch.float64)
    return torch.randn(60, 17, 3, generator=random, dtype=torch.float64) * spread


def test_the_mean_length_of_a_gaussian_is_that_of_closed_forms_and_of_samples() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    assert mean_length(4 * eye).item() == pytest.approx(2 * 2 * math.sqrt(2 / math.pi), rel=1e-9)
    flat = torch.diag(torch.tensor([0.0, 9.0, 0.0], dtype=torch.float64))
    assert mean_length(flat).item() == pytest.approx(3 * math.sqrt(2 / math.pi), rel=1e-9)
    plane = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    assert mean_length(plane).item() == pytest.approx(math.sqrt(math.pi / 2), rel=1e-9)
    rng = np.random.default_rng(1)
    root = rng.normal(size=(3, 3)) * (1.0, 0.1, 5.0)
    lengths = np.linalg.norm(rng.normal(size=(400000, 3)) @ root.T, axis=1)
    found = mean_length(torch.from_numpy(root @ root.T)).item()
    assert found == pytest.approx(lengths.mean(), rel=5e-3)


@pytest.mark.parametrize('correlation', [0.0, 0.8])
def test_views_that_agree_err_as_much_in_each_picture(correlation: float) -> None:
    unit = torch.randn(4000, 17, 4, generator=torch.Generator().manual_seed(0)).double()
    left, right = noise_of_views(unit, 3.0, correlation)
    for view in (left, right):
        assert view.std(dim=(0, 1)).tolist() == pytest.approx([3.0, 3.0], rel=0.02)
    rows = (left[..., 1] - right[..., 1]).std().item()
    assert rows == pytest.approx(0.0 if correlation else 3 * math.sqrt(2), rel=0.02, abs=1e-12)
    # least squares: the mean of both rows, the left column, the difference of the columns
    uvd = torch.stack(
        [left[..., 0], (left[..., 1] + right[..., 1]) / 2, (left - right)[..., 0]], -1
    )
    measured = torch.from_numpy(np.cov(uvd.flatten(0, 1).numpy().T))
    assert torch.allclose(measured, uvd_covariance(3.0, correlation), atol=0.2)


def test_errors_follow_first_order_at_long_baselines_and_exceed_it_at_short_ones(
    poses: torch.Tensor,
) -> None:
    points = {p.baseline_mm: p for p in sweep(poses, 'mhad', math.sqrt(10), 0.0, 8, 0)}
    assert list(points) == [float(baseline) for baseline in BASELINES_MM]
    for point in points.values():
        if point.disparity_noise < 0.1:
            assert point.mean_mm == pytest.approx(point.theory_mm, rel=0.05)
    assert points[30.0].mean_mm > 1.5 * points[30.0].theory_mm
    assert points[30.0].lost > 0.03
    assert points[3000.0].lost == 0
    # by hand for the pelvis of a person midway: sqrt(2 / pi) sqrt(2) noise Z^2 / (f B) in depth
    depth_alone = math.sqrt(4 / math.pi) * math.sqrt(10) * 2.65**2 / (533 * 0.22) * 1000
    assert points[220.0].theory_mm == pytest.approx(depth_alone, rel=0.1)


def test_views_that_agree_err_less_in_depth_as_the_square_root_says(poses: torch.Tensor) -> None:
    apart, agreeing = (sweep(poses, 'mhad', 1.0, r, 6, 0) for r in (0.0, 0.9))
    ratio = [a.theory_mm / b.theory_mm for a, b in zip(agreeing, apart, strict=True)]
    assert ratio[0] == pytest.approx(math.sqrt(0.1), rel=0.02)
    assert ratio == sorted(ratio)  # at wide baselines the error is no longer in depth
    measured = agreeing[5].mean_mm / agreeing[5].theory_mm
    assert measured == pytest.approx(1.0, abs=0.03)


def test_the_slope_is_minus_one_where_depth_carries_the_error() -> None:
    def point(baseline: float) -> Point:
        return Point('mhad', 1.0, 0.0, baseline, 0.0, 7 / baseline, 0.0, 3 / baseline**2, 0.0)

    (found,) = slopes([point(100.0), point(500.0)])
    assert (found['measured_median'], found['theory']) == pytest.approx((-1.0, -2.0))


def test_the_region_of_uncertainty_is_where_the_wedges_of_both_views_meet() -> None:
    depth, baseline, focal, half = 2.65, 0.22, 533.0, 3.0
    corners = uncertainty_region(depth, baseline, focal, half)
    column = focal * baseline / 2 / depth
    for (x, z), (left, right) in zip(corners, [(-1, 1), (1, 1), (1, -1), (-1, -1)], strict=True):
        rays = np.array([[1, -(column + left * half) / focal],
                         [1, -(-column + right * half) / focal]])  # fmt: skip
        assert np.allclose(rays @ (x, z), (0, baseline))  # x - u z / f: the camera's position
    x, z = corners.T
    shoelace = abs(x @ np.roll(z, 1) - z @ np.roll(x, 1)) / 2
    area = uncertainty_area(depth, baseline, focal, half)
    assert area == pytest.approx(shoelace, rel=1e-9)


def test_a_tenth_of_the_baseline_has_ten_times_the_region_until_it_is_unbounded() -> None:
    wide, short = (uncertainty_area(2.0, b, 500.0, 0.01) for b in (1.0, 0.1))
    assert short / wide == pytest.approx(10, rel=1e-3)
    assert wide == pytest.approx(4 * 0.01**2 * 2.0**3 / (500.0**2 * 1.0), rel=1e-3)
    assert uncertainty_area(2.0, 0.024, 500.0, 3.0) == math.inf
    assert np.isnan(uncertainty_region(2.0, 0.024, 500.0, 3.01)[0]).any()


def test_held_out_poses_face_a_camera_and_keep_their_size(tmp_path: Path) -> None:
    folder = motion_folder(tmp_path)
    found = held_out_poses(folder / 'motion', 12, 0)
    assert found.shape == (12, 17, 3)
    assert found[:, H36M_17.root].abs().max() == 0
    with np.load(folder / 'motion' / 'cmu_17joints_60hz.npz') as data:
        # file order: pelvis 0, right hip 1, right knee 2, neck 8; only the second clip is held out
        raw = data['joints_mm'][20:] / 1000

    def height(joints: np.ndarray, upper: int, lower: int) -> np.ndarray:
        return joints[:, upper, 1] - joints[:, lower, 1]

    knee, hip = H36M_17.index('right_knee'), H36M_17.index('right_hip')
    thighs = np.sort(np.linalg.norm(raw[:, 1] - raw[:, 2], axis=-1))
    ours = np.linalg.norm((found[:, hip] - found[:, knee]).numpy(), axis=-1)
    assert np.abs(ours[:, None] - thighs).min(1).max() < 1e-5
    ups = height(raw, 1, 2)
    assert np.abs(-height(found.numpy(), hip, knee)[:, None] - ups).min(1).max() < 1e-5


def test_figure_1a_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / 'out', str(motion_folder(tmp_path))
    small = ['--poses', '5', '--draws', '1', '--correlations', '0.5']
    command = ['experiment', 'figure-1a', '--data', data, '--out', str(out), *small]
    assert main(command) == 0
    results = json.loads((out / 'results.json').read_text())
    assert len(results['points']) == 2 * 2 * 2 * len(BASELINES_MM)
    point = results['points'][0]
    row = f'| 30 | {point["median_mm"]:.0f} | {point["mean_mm"]:.0f} | {point["theory_mm"]:.0f} |'
    assert row in (out / 'results.md').read_text()
    assert (out / 'figure.png').stat().st_size > 10000
    assert main([*command[:-1], '1.0']) == 2
    assert 'between 0 and 1' in capsys.readouterr().err


def test_motion_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['experiment', 'figure-1a', '--data', str(tmp_path), '--out', str(tmp_path / 'out')]
    assert main(command) == 2
    assert 'no motion in' in capsys.readouterr().err


# ---- experiments with networks: tiny trainings of the lite network at 64 px ----

CONFIG = {
    'model': 'lite',
    'steps': 100,
    'ema_decay': 0.0,
    'stages': [
        {'name': 'flat', 'share': 0.5, 'input_size': 64, 'batch_size': 2, 'volume': False},
        {
            'name': 'full', 'share': 0.5, 'input_size': 64, 'batch_size': 2,
            'losses': {'volume_ce': 0.5, 'volume_l1': 0.3},
        },
    ],
}  # fmt: skip
END_TO_END = {
    'model': 'lite',
    'steps': 100,
    'ema_decay': 0.0,
    'learning_rate': 1e-4,
    'stages': [
        {
            'name': 'end-to-end', 'input_size': 64, 'batch_size': 2,
            'losses': {'heatmap_ce': 0.0, 'heatmap_l1': 0.0, 'refined_mpjpe': 1.0},
        }
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """Files of tiny experiments, and options that name them."""

    folder: Path

    @property
    def pairs(self) -> str:
        return str(self.folder / 'val_*.npz')

    @property
    def refiner(self) -> Path:
        return self.folder / 'refiner.safetensors'

    def measured(self, out: Path | str) -> list[str]:
        return ['--data', self.pairs, '--out', str(self.folder / out), '--device', 'cpu']

    def trained(self, steps: int = 2) -> list[str]:
        return [
            '--backbone', 'lite', '--config', str(self.folder / 'lite.yaml'),
            '--train', str(self.folder / 'train_*.npz'), '--steps', str(steps),
        ]  # fmt: skip

    def results(self, out: str) -> dict[str, Any]:
        return json.loads((self.folder / out / 'results.json').read_text())

    def weights(self, run: str, out: str = 'figure-6') -> Path:
        return self.folder / out / 'runs' / run / 'model.safetensors'


@pytest.fixture(scope='module')
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """With Fig. 6 run: two trainings of two steps."""
    made = Setup(tmp_path_factory.mktemp('experiments'))
    for name, number, count in (('train_0', 0, 4), ('train_1', 1, 3), ('val_0', 2, 5)):
        pairs = shard_arrays(drawn_pairs.DrawnRenderer(0).batch(count, 0, number))
        np.savez(made.folder / f'{name}.npz', **pairs)
    (made.folder / 'lite.yaml').write_text(yaml.safe_dump(CONFIG))
    (made.folder / 'end-to-end.yaml').write_text(yaml.safe_dump(END_TO_END))
    torch.manual_seed(3)
    save_refiner(made.refiner, PoseTransformer(), {'stage': 'ppt'})
    figure_6 = ['experiment', 'figure-6', *made.trained(), '--every', '1']
    assert main([*figure_6, *made.measured('figure-6')]) == 0
    return made


def direct(weights: Path, pairs: str, refiner: PoseTransformer | None = None) -> JointErrors:
    """Errors of weights on all pairs of one file, jittered as by default."""
    model, own, _ = load_model(weights)
    pool = PairPool(pairs)
    pool.scan()
    batch = evaluation_batch(pool, list(range(len(pool))), 64, 12)
    with torch.inference_mode():
        output = model(*batch.images(), batch.calibration)
        found = output.estimate(batch.calibration)
        refiner = refiner or own
        if refiner is not None:
            found = found.with_positions(refiner.refine(found.xyz_m, confidence=found.confidence))
    return joint_errors(found, output, batch)


def test_the_agreement_of_views_is_that_of_the_errors_of_their_columns(setup: Setup) -> None:
    found = view_agreement(setup.weights('sce'), HeldOut(setup.pairs, 5, 12), 'cpu')
    model, _, _ = load_model(setup.weights('sce'))
    pool = PairPool(setup.pairs)
    pool.scan()
    batch = evaluation_batch(pool, list(range(5)), 64, 12)
    with torch.inference_mode():
        said = model(*batch.images()).estimate(batch.calibration)
    left, right = [], []
    for b in range(5):
        for j in range(17):
            if batch.in_view(0)[b, j] and batch.in_view(1)[b, j]:
                left.append(float(said.uv_left[b, j, 0] - batch.uv_left[b, j, 0]))
                right.append(float(said.uv_right[b, j, 0] - batch.uv_right[b, j, 0]))
    assert found.joints == len(left) > 20
    assert found.correlation == pytest.approx(np.corrcoef(left, right)[0, 1], abs=1e-4)
    # in pixels of a crop of 256, whatever the network's
    assert found.left_px == pytest.approx(4 * np.quantile(np.abs(left), 0.5), rel=0.05)


def test_both_kinds_of_figure_6_begin_alike_and_see_the_same_pairs(setup: Setup) -> None:
    curves = setup.results('figure-6')['curves']
    assert set(curves) == {'sce', 'sce-without-am'}
    for curve in curves.values():
        assert [record['step'] for record in curve] == [0, 1, 2]
        assert [record['pairs_seen'] for record in curve] == [0, 2, 4]
    # a mask changes what the volume sees, so the losses differ from the first step on
    first = [curve[0]['loss'] for curve in curves.values()]
    assert first[0] != first[1]
    states = [
        torch.load(setup.weights(run).parent / 'last.pt', weights_only=True)
        for run in ('sce', 'sce-without-am')
    ]
    assert states[0]['source'] == states[1]['source']
    assert (setup.folder / 'figure-6' / 'figure.png').stat().st_size > 5000


def test_the_loss_of_figure_6_is_equation_4(setup: Setup) -> None:
    """0.1 of the mean absolute error in mm and 0.01 of the cross-entropy, by hand."""
    state = torch.load(setup.weights('sce').parent / 'last.pt', weights_only=True)['model']
    model = NETWORKS['lite'].build().eval()
    model.load_state_dict(
        {k.removeprefix('method.'): v for k, v in state.items() if k.startswith('method.')}
    )
    pool = PairPool(setup.pairs)
    pool.scan()
    batch = evaluation_batch(pool, list(range(5)), 64, 12)
    with torch.inference_mode():
        output = model(*batch.images())
        xyz = output.estimate(batch.calibration).xyz_m
    errors, entropies = [], []
    log_p = output.co_heatmap.flatten(2).log_softmax(-1).view_as(output.co_heatmap)
    u, v = ((batch.uv_left[..., axis] + 0.5) / 4 - 0.5 for axis in (0, 1))
    d = (batch.uv_left - batch.uv_right)[..., 0] / 4
    for b in range(5):
        for j in range(17):
            both = bool(batch.in_view(0)[b, j] and batch.in_view(1)[b, j])
            if both and -7 <= d[b, j] <= 8:
                errors.append((xyz[b, j] - batch.xyz_m[b, j]).abs().mean())
                cell = (round(float(d[b, j])) + 7, round(float(v[b, j])), round(float(u[b, j])))
                at = [min(max(c, 0), n - 1) for c, n in zip(cell, log_p.shape[2:], strict=True)]
                entropies.append(-log_p[b, j, at[0], at[1], at[2]])
    expected = 0.1 * 1000 * torch.stack(errors).mean() + 0.01 * torch.stack(entropies).mean()
    last = setup.results('figure-6')['curves']['sce'][-1]
    assert last['loss'] == pytest.approx(float(expected), rel=1e-4)


def test_a_finished_training_is_not_done_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Trainer, 'train_step', pytest.fail)
    before = setup.results('figure-6')
    command = ['experiment', 'figure-6', '--every', '1', *setup.measured('figure-6')]
    assert main([*command, *setup.trained()]) == 0
    assert setup.results('figure-6') == before
    assert main([*command, *setup.trained(steps=3)]) == 2
    assert 'begun with other settings' in capsys.readouterr().err


def test_an_interrupted_experiment_goes_on_where_it_stopped(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step

    def one_step_only(self: Trainer, batch: StereoBatch) -> dict[str, torch.Tensor]:
        self._stop = True
        return step(self, batch)

    command = [
        'experiment',
        'figure-6',
        '--every',
        '1',
        *setup.trained(),
        *setup.measured('again'),
    ]
    monkeypatch.setattr(Trainer, 'train_step', one_step_only)
    assert main(command) == 130
    monkeypatch.undo()
    assert not (setup.folder / 'again' / 'results.json').exists()
    assert main(command) == 0
    assert setup.results('again')['curves'] == setup.results('figure-6')['curves']


def test_table_3_holds_what_evaluating_each_row_gives(setup: Setup) -> None:
    given = [f'{run}={setup.weights(run)}' for run in ('sce', 'sce-without-am')]
    ppt = ['--refiner', str(setup.refiner), '--end-to-end', str(setup.folder / 'end-to-end.yaml')]
    command = ['experiment', 'table-3', *setup.trained(), '--weights', *given, *ppt]
    assert main([*command, *setup.measured('table-3')]) == 0
    rows = setup.results('table-3')['rows']
    assert list(rows) == ['baseline', 'sce-without-am', 'sce', 'sce-ppt']
    weights = {
        row: setup.weights(row, 'figure-6' if row in ('sce', 'sce-without-am') else 'table-3')
        for row in rows
    }
    for row, path in weights.items():
        errors = direct(path, setup.pairs)
        chosen = errors.absolute_mm[errors.counted]
        assert rows[row]['mpjpe_ab_mean_all'] == pytest.approx(float(chosen.mean()), rel=1e-4)
        hidden = errors.relative_mm[errors.counted & (errors.visibility[:, 0] != 0)]
        found = rows[row]['mpjpe_re_median_occluded']
        assert found == pytest.approx(float(hidden.quantile(0.5)), rel=1e-4)
    # the last row began with the weights of the row before and has a refiner of its own
    before, last = (load_model(weights[row]) for row in ('sce', 'sce-ppt'))
    assert before[1] is None
    assert last[1] is not None
    for name, value in before[0].named_parameters():
        assert torch.allclose(value, last[0].get_parameter(name), atol=2e-3), name


def test_table_3_leaves_the_pose_transformer_out_where_there_is_none(setup: Setup) -> None:
    runs = ('sce', 'sce-without-am')
    given = [f'{run}={setup.weights(run)}' for run in runs]
    given.append(f'baseline={setup.weights("baseline", "table-3")}')
    command = ['experiment', 'table-3', '--backbone', 'lite', '--weights', *given]
    assert main([*command, *setup.measured('three')]) == 0
    assert list(setup.results('three')['rows']) == ['baseline', 'sce-without-am', 'sce']


def test_table_1_holds_methods_and_their_counts_beside_the_papers(setup: Setup) -> None:
    lite, baseline = setup.weights('sce'), setup.weights('baseline', 'table-3')
    command = [
        'experiment', 'table-1', '--backbone', 'lite', '--weights',
        f'lite={lite}', f'lite-baseline={baseline}',
    ]  # fmt: skip
    assert main([*command, *setup.measured('table-1')]) == 0
    results = setup.results('table-1')
    assert list(results['methods']) == ['lite-baseline', 'lite']
    found = results['methods']['lite']
    assert found['mpjpe_re_mean_all'] == pytest.approx(
        float(scores(direct(lite, setup.pairs)).mpjpe_re_mm.mean), rel=1e-4
    )
    assert found['true_gmac'] == count_network('lite', 64)[1].gmac
    text = (setup.folder / 'table-1' / 'results.md').read_text()
    (paper,) = [line for line in text.splitlines() if line.startswith('| rsb-pose-resnet50 ')]
    assert paper.endswith('| 26.93 | 32.10 | 96.62 | 0.96 | 65.29 | 43.24 |')


def test_table_2_takes_the_networks_of_the_wide_baseline() -> None:
    assert methods('table-2', 'lite') == ['lite-baseline', 'lite-wide']
    assert methods('table-1', 'lite') == ['lite-baseline', 'lite']
    assert methods('table-1', 'resnet50')[-1] == 'rsb-pose-resnet50'
    assert methods('table-2', 'resnet50')[-2] == 'volume-t-resnet50'
    assert methods('table-2', 'resnet50')[-1] == 'rsb-pose-resnet50-wide'
    assert set(methods('table-1', None)) == set(TABLE_1) - {'tppt', 'epipolar-t', 'adafuse'}
    assert set(methods('table-2', None)) == set(TABLE_2) - {'tppt', 'epipolar-t', 'adafuse'}
    # the paper's own words: 35.77 less in re, 31.08 less in ab with ResNet-50
    ours, base = TABLE_1['rsb-pose-resnet50'], TABLE_1['resnet50-t']
    assert base.mpjpe_re_mm - ours.mpjpe_re_mm == pytest.approx(35.77)
    assert base.mpjpe_ab_mm - ours.mpjpe_ab_mm == pytest.approx(31.08)


def test_methods_are_trained_as_their_own_configuration_says(tmp_path: Path) -> None:
    files = {'': 'all.yaml', 'triangulation': 'apart.yaml'}
    for file, rate in zip(files.values(), (1e-3, 2e-3), strict=True):
        (tmp_path / file).write_text(yaml.safe_dump({**CONFIG, 'learning_rate': rate}))
    paths = {method: tmp_path / file for method, file in files.items()}
    weights = {'resnet50': Path('r50.pth')}
    how = Training(paths, None, 'x', 'cpu', weights, 5, {'steps': 7})
    plain, apart = (how.configure(Run(name, name)) for name in ('lite', 'resnet50-t'))
    assert (plain.model, plain.learning_rate, plain.seed, plain.steps) == ('lite', 1e-3, 5, 7)
    assert (apart.model, apart.learning_rate, apart.seed, apart.steps) == (
        'resnet50-t',
        2e-3,
        5,
        7,
    )
    assert how.backbone(Run('resnet50-t', 'resnet50-t')) == Path('r50.pth')
    assert how.backbone(Run('lite', 'lite')) is None
    assert how.backbone(Run('x', 'resnet50-t', after='y')) is None


def test_figure_7_measures_the_network_itself_and_then_the_refined_joints(setup: Setup) -> None:
    lite, baseline = setup.weights('sce'), setup.weights('baseline', 'table-3')
    command = [
        'experiment', 'figure-7', '--refiner', str(setup.refiner), '--weights',
        f'ours={lite}', f'theirs={baseline}',
    ]  # fmt: skip
    assert main([*command, *setup.measured('figure-7')]) == 0
    found = setup.results('figure-7')['methods']
    refiner, _ = load_refiner(setup.refiner)
    for name, weights in (('ours', lite), ('theirs', baseline)):
        for stage, behind in (('before', None), ('after', refiner)):
            errors = direct(weights, setup.pairs, behind)
            expected = float(errors.absolute_mm[errors.counted].mean())
            assert found[name][stage]['mpjpe_ab_mean_all'] == pytest.approx(expected, rel=1e-3)
    assert (setup.folder / 'figure-7' / 'figure.png').stat().st_size > 5000


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['table-1', '--backbone', 'lite'], 'no weights of lite-baseline; give --weights'),
        (['table-1', '--backbone', 'lite', '--weights', 'lite'], 'expected NAME=FILE'),
        (['table-1', '--backbone', 'lite', '--weights', 'x=y'], 'no such row, expected one of'),
        (['table-1', '--config', 'volume=x.yaml'], '--config volume=x.yaml: expected FILE, or'),
        (['figure-6', '--weights', 'sce=y'], 'leave out --weights'),
        (['table-3', '--limit', '0'], '--limit of at least 1'),
    ],
)
def test_what_cannot_be_run_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    common = ['--data', str(tmp_path / 'none_*.npz'), '--out', str(tmp_path), '--device', 'cpu']
    assert main(['experiment', *options, *common]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count('\n') == 1


def test_a_wrong_pattern_of_training_pairs_leaves_nothing_that_is_in_the_way(
    setup: Setup, capsys: pytest.CaptureFixture[str]
) -> None:
    for pattern in ('none_*.npz', 'nor_here_*.npz'):
        options = [*setup.trained(), '--train', str(setup.folder / pattern)]
        assert main(['experiment', 'table-1', *options, *setup.measured('wrong')]) == 2
        assert f'no training pairs match {setup.folder / pattern}' in capsys.readouterr().err


def test_the_swing_of_a_curve_is_its_mean_change_in_the_second_half() -> None:
    curve = [{'step': s, 'loss': value} for s, value in enumerate([9.0, 4.0, 10.0, 9.0, 9.9])]
    found = summarize(curve)
    assert found['swing_percent'] == pytest.approx((10 + 10) / 2)
    assert (found['last'], found['best']) == pytest.approx((9.9, 4.0))


@pytest.mark.parametrize('name', list(EXPERIMENTS))
def test_every_experiment_explains_its_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(['experiment', name, '--help'])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f'rsb-pose experiment {name}' in shown
    assert '--out' in shown
