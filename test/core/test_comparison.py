"""The comparison on several test sets, against plain formulas."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_sets import arrays_of, write_sets

from rsb_pose_core.checkpoint import save_checkpoint, save_refiner
from rsb_pose_core.cli import main
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.metrics import JointErrors, scores
from rsb_pose_core.models import NETWORKS, PoseTransformer
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.comparison import (
    SetResult,
    against_rivals,
    by_distance,
    by_ppt,
    in_order,
    on_same_joints,
    path_traced,
    times_better,
)
from rsb_pose_core.training.comparison_plots import write_comparison_plots
from rsb_pose_core.training.comparison_report import (
    baseline_table,
    distance_table,
    headline,
    ratio_lines,
    rival_table,
    same_joints_tables,
)
from rsb_pose_core.training.evaluation import Evaluated
from rsb_pose_core.training.loaded import load_methods, networks_in, titles
from rsb_pose_core.training.pool import HeldPairs, PairPool
from rsb_pose_core.training.report import EvaluatedMethod

JITTER = 7


@pytest.fixture(scope='module')
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('sets')
    write_sets(folder)
    return folder


# ---- groups and ratios ----


def evaluated(seed: int, numbers: tuple[int, ...], lost: float = 0.0) -> Evaluated:
    """Random errors, a share of the joints not found."""
    rng = np.random.default_rng(seed)
    shape = (len(numbers), 17)
    absolute = torch.from_numpy(rng.uniform(5, 500, shape))
    absolute[torch.from_numpy(rng.random(shape) < lost)] = torch.nan
    nothing = torch.full(shape, torch.nan, dtype=torch.float64)
    of_pair = np.random.default_rng(99)  # the truth is the same for every method
    depths = torch.from_numpy(of_pair.uniform(0.5, 7, (20, 17)))
    visibility = torch.from_numpy(of_pair.integers(0, 3, (20, 2, 17)).astype(np.uint8))
    counted = torch.from_numpy(of_pair.random((20, 17)) < 0.8)
    rows = list(numbers)
    ones = torch.ones(len(numbers), 2, dtype=torch.float64)
    errors = JointErrors(
        absolute_mm=absolute, relative_mm=absolute / 2, uv_px=None, disparity_px=nothing,
        similarity=nothing, depth_m=depths[rows], visibility=visibility[rows],
        counted=counted[rows], rooted=torch.ones(len(numbers), dtype=torch.bool),
        crop_side_px=ones[:, 0], box_width_px=ones, torso_px=ones,
    )  # fmt: skip
    return Evaluated(numbers, torch.zeros(*shape, 3, dtype=torch.float64), errors)


def method(name: str, model: str, pairs_seen: int = 12, **stages: Evaluated) -> EvaluatedMethod:
    facts = {
        'model': model, 'weights': f'{name}.safetensors', 'input_size': 64, 'sha256': 'f' * 64,
        'metadata': {'pairs_seen': str(pairs_seen)},
    }  # fmt: skip
    return EvaluatedMethod(name, facts, stages)


NUMBERS = tuple(range(12))


@pytest.fixture
def result() -> SetResult:
    found = in_order([
        method('T', 'lite-baseline', initial=evaluated(2, NUMBERS)),
        method('unmasked', 'lite-unmasked', initial=evaluated(4, NUMBERS)),
        method('ours', 'lite', initial=evaluated(0, NUMBERS), refined=evaluated(1, NUMBERS)),
        method('V', 'volume-t', initial=evaluated(5, NUMBERS)),
    ])  # fmt: skip
    facts = {'joint_numbers': list(range(17)), 'joints': ['all'], 'pairs_found': 3}
    other = EvaluatedMethod('M', facts, {'initial': evaluated(3, (7, 0, 11), lost=0.4)})
    return SetResult('mhad-like', 0.226, NUMBERS, tuple(found), (other,))


def values(found: Evaluated, group: torch.Tensor | None = None) -> np.ndarray:
    return found.errors.absolute_mm[found.errors.counted if group is None else group].numpy()


def test_networks_of_one_trunk_stand_together(result: SetResult) -> None:
    assert [found.name for found in result.methods] == ['ours', 'unmasked', 'T', 'V']
    assert [name for name, _ in result.rows()] == ['ours + PPT', 'ours', 'unmasked', 'T', 'V']
    assert result.title == 'mhad-like, 226 mm'
    assert replace(result, name='wide', baseline_m=3.702).title == 'wide, 3.7 m'


def test_errors_by_distance_are_those_of_the_joints_there(result: SetResult) -> None:
    rows = dict(result.rows())
    errors = rows['ours'].errors
    found = by_distance(errors)
    assert list(found)[0] == (0.0, 1.0)
    assert list(found)[-1] == (6.0, math.inf)
    for (low, high), part in found.items():
        group = errors.counted & (errors.depth_m >= low) & (errors.depth_m < high)
        mine = values(rows['ours'], group)
        assert part.count == len(mine) > 0
        assert part.median == pytest.approx(np.median(mine))
    assert sum(part.count for part in found.values()) == int(errors.counted.sum())
    lines = distance_table(list(result.rows())).splitlines()
    cells = [cell.strip() for cell in lines[3].split('|')]
    assert cells[1] == 'ours'
    assert cells[2:-1] == [f'{part.median:.0f}' for part in found.values()]
    assert lines[0].split('|')[-2].strip() == '6 m and more'
    assert [line.split('|')[1].strip() for line in lines[2:]][-2:] == ['V', 'joints']
    counts = [int(cell) for cell in lines[-1].split('|')[2:-1]]
    assert counts == [part.count for part in found.values()]


def test_the_ratio_is_to_heat_maps_on_the_same_trunk(result: SetResult) -> None:
    found = against_rivals(result)
    assert set(found) == {'ours + PPT', 'ours', 'unmasked'}
    rows = dict(result.rows())
    for name, ratio in found.items():
        mine, theirs = values(rows[name]), values(rows['T'])
        assert ratio.median == pytest.approx(np.median(mine) / np.median(theirs))
        assert ratio.mean == pytest.approx(mine.mean() / theirs.mean())
    table = rival_table([result])
    assert table is not None
    first = table.splitlines()[2].split('|')
    median, mean = found['ours + PPT'].median, found['ours + PPT'].mean
    assert first[2].strip() == f'{median:.2f} / {mean:.2f}'
    assert rival_table([replace(result, methods=result.methods[:1])]) is None


@pytest.mark.parametrize(
    ('pairs_seen', 'alike'), [(11, True), (10, False), (14, False), (0, False)]
)
def test_only_what_was_trained_alike_is_a_rival(
    result: SetResult, pairs_seen: int, alike: bool
) -> None:
    ours = result.methods[0]
    rival = method('T', 'lite-baseline', pairs_seen, initial=evaluated(2, NUMBERS))
    assert (against_rivals(replace(result, methods=(ours, rival))) != {}) == alike


def test_the_pose_transformer_is_judged_by_occluded_joints(result: SetResult) -> None:
    (found,) = by_ppt(result).values()
    rows = dict(result.rows())
    hidden = rows['ours'].errors.counted & (rows['ours'].errors.visibility[:, 0] != 0)
    after, before = values(rows['ours + PPT'], hidden), values(rows['ours'], hidden)
    assert found.mean == pytest.approx(after.mean() / before.mean())
    assert found.median == pytest.approx(np.median(after) / np.median(before))


def test_path_traced_pairs_are_held_against_the_same_pairs(result: SetResult) -> None:
    few = tuple(replace_stages(found, (3, 1, 15)) for found in result.methods)
    cycles = SetResult('cycles', 0.226, (3, 1, 15), few)
    found = path_traced([result, cycles])
    drawn = dict(result.rows())['T']
    theirs = np.concatenate([
        drawn.errors.absolute_mm[row][drawn.errors.counted[row]].numpy() for row in (1, 3)
    ])  # fmt: skip
    traced = dict(cycles.rows())['T'].errors
    mine = np.concatenate([traced.absolute_mm[row][traced.counted[row]] for row in (0, 1)])
    assert found['T'].median == pytest.approx(np.median(mine) / np.median(theirs))
    assert path_traced([result]) == {}


def replace_stages(found: EvaluatedMethod, numbers: tuple[int, ...]) -> EvaluatedMethod:
    stages = {name: evaluated(50 + len(name), numbers) for name in found.stages}
    return replace(found, stages=stages)


def test_methods_are_compared_on_equal_joints_of_equal_pairs(result: SetResult) -> None:
    (other,) = result.predicted
    same = on_same_joints({'M': other.final, **dict(result.rows())})
    ours, theirs = dict(result.rows())['ours'].errors, other.final.errors
    mine, told = [], []
    for row, number in enumerate((7, 0, 11)):
        for joint in range(17):
            if theirs.counted[row, joint] and theirs.absolute_mm[row, joint].isfinite():
                told.append(float(theirs.absolute_mm[row, joint]))
                mine.append(float(ours.absolute_mm[number, joint]))
    assert 10 < len(mine) < int(theirs.counted.sum())
    measured = {name: scores(found.errors) for name, found in same.items()}
    assert {found.expected for found in measured.values()} == {len(mine)}
    assert measured['ours'].mpjpe_ab_mm.median == pytest.approx(np.median(mine))
    assert measured['M'].mpjpe_ab_mm.mean == pytest.approx(np.mean(told))
    assert measured['ours'].mpjpe_re_mm.mean == pytest.approx(np.mean(mine) / 2)
    ratio = times_better(result, other)['ours']
    assert ratio.median == pytest.approx(np.median(told) / np.median(mine))
    text = same_joints_tables(result, other)
    assert f'{len(mine)} of {int(theirs.counted.sum())} counted joints' in text
    assert 'found in 3 of 3 pairs (of 12 of the set)' in text
    row = next(line for line in text.splitlines() if line.startswith('| ours  '))
    assert row.split('|')[-2].strip() == f'{ratio.median:.2f} / {ratio.mean:.2f}'
    assert ratio_lines([result])[-2:] == [
        f'- M over {name} on mhad-like, the same joints: {found.median:.2f} / {found.mean:.2f}'
        for name, found in times_better(result, other).items()
        if name in ('ours', 'unmasked')
    ]


def test_baselines_are_compared_at_one_depth(result: SetResult) -> None:
    short = SetResult('short', 0.05, NUMBERS, result.methods)
    lines = baseline_table([result, short]).splitlines()
    assert [cell.strip() for cell in lines[0].split('|')[2:-1]] == ['short, 50 mm', result.title]
    errors = dict(result.rows())['T'].errors
    group = errors.counted & (errors.depth_m >= 2) & (errors.depth_m < 3)
    row = next(line for line in lines if line.startswith('| T '))
    assert row.split('|')[2].strip() == f'{float(errors.absolute_mm[group].quantile(0.5)):.0f}'
    assert lines[-1].split('|')[2].strip() == str(int(group.sum()))


def test_the_headline_holds_the_first_set_and_the_error_of_the_others(result: SetResult) -> None:
    short = SetResult('short', 0.05, NUMBERS, result.methods)
    lines = headline([result, short]).splitlines()
    row = next(line for line in lines if line.startswith('| ours + PPT'))
    found = dict(result.rows())['ours + PPT']
    mine = values(found)
    seen = values(found, found.errors.visible)
    cells = [cell.strip() for cell in row.split('|')[2:-1]]
    assert cells[0] == cells[-1] == f'{np.median(mine):.0f} / {mine.mean():.0f}'
    assert cells[2] == f'{np.median(seen):.0f} / {seen.mean():.0f}'
    assert cells[5] == f'{np.mean(mine / 2 < 150):.1%}'


def test_who_finds_nobody_is_said_and_left_out_of_the_comparison(
    result: SetResult, tmp_path: Path
) -> None:
    (other,) = result.predicted
    blind = replace(other, name='B', stages={'initial': evaluated(3, (1, 2), lost=2.0)})
    both = replace(result, predicted=(other, blind))
    assert same_joints_tables(both, blind) == 'B: found nobody in 2 pairs.'
    assert ratio_lines([both]) == ratio_lines([result])
    write_comparison_plots([both], tmp_path)
    assert cv2.imread(str(tmp_path / 'distances.png')).std() > 5


# ---- the command ----


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    for name, model, refiner in (
        ('ours', 'lite', PoseTransformer(depth=2)), ('base', 'lite-baseline', None),
    ):  # fmt: skip
        metadata = {'model': model, 'input_size': 64, 'pairs_seen': 12}
        save_checkpoint(folder / f'{name}.safetensors', NETWORKS[model].build(), metadata, refiner)
    save_refiner(folder / 'transformer.safetensors', PoseTransformer(depth=2), {})
    return folder


def test_networks_of_a_folder_are_taken_by_what_they_hold(weights: Path, tmp_path: Path) -> None:
    paths = networks_in(weights)
    assert [path.stem for path in paths] == ['base', 'ours']
    with pytest.raises(ConfigError, match='no weights of a network'):
        networks_in(tmp_path)
    loaded = load_methods([(path.stem, path) for path in paths], torch.device('cpu'))
    trunk = NETWORKS['lite'].backbone
    assert titles(loaded) == [f'heat maps + triangulation, {trunk}', f'RSB-Pose, {trunk}']
    twice = titles([*loaded, replace(loaded[1], name='again')])
    assert twice[1:] == [f'RSB-Pose, {trunk} (ours)', f'RSB-Pose, {trunk} (again)']


def test_pairs_in_memory_are_those_of_the_pool(sets: Path) -> None:
    pool = PairPool(str(sets / 'mhad-like'))
    pool.scan()
    held = HeldPairs(pool, [3, 1], 'pictures')
    assert (len(held), held.name(3)) == (5, pool.name(3))
    batches = [evaluation_batch(pairs, [1, 3], 64, JITTER) for pairs in (pool, held)]
    assert torch.equal(batches[0].right, batches[1].right)
    assert torch.equal(batches[0].uv_right, batches[1].uv_right)


def test_one_command_compares_everything(
    sets: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / 'weights').symlink_to(weights)
    monkeypatch.chdir(tmp_path)
    told = str(sets / 'told.npz')
    command = ['evaluate', '--all', '--data', str(sets), '--device', 'cpu', '--out', 'out']
    assert main([*command, '--predictions', told]) == 0
    printed = capsys.readouterr()
    assert 'mhad-like, RSB-Pose' in printed.err  # progress
    assert 'empty' not in printed.out
    report = json.loads((tmp_path / 'out' / 'comparison.json').read_text())
    assert list(report['sets']) == ['mhad-like', 'cycles']
    assert [one['pairs'] for one in report['sets'].values()] == [5, 3]
    assert report['sets']['cycles']['baseline_m'] == pytest.approx(0.12)
    first = report['sets']['mhad-like']
    (stranger,) = first['predictions'].values()
    assert (stranger['pairs'], stranger['pairs_found'], len(stranger['joints'])) == (3, 2, 14)
    assert stranger['figures']['all']['mpjpe_ab_mm']['median'] == pytest.approx(30.0, abs=1e-2)
    same = stranger['same_joints']
    assert len({found['expected'] for found in same.values()}) == 1
    trunk = NETWORKS['lite'].backbone
    names = [
        f'RSB-Pose, {trunk} + PPT', f'RSB-Pose, {trunk}', f'heat maps + triangulation, {trunk}',
    ]  # fmt: skip
    assert list(first['rows']) == names
    page = (tmp_path / 'out' / 'comparison.md').read_text()
    median, mean = (
        first['rows'][names[0]]['all']['mpjpe_ab_mm'][kind] for kind in ('median', 'mean')
    )
    row = next(line for line in page.splitlines() if line.startswith(f'| {names[0]} '))
    assert row.split('|')[2].strip() == f'{median:.0f} / {mean:.0f}'
    assert '12 pairs drawn in training' in page
    for name in ('sets', 'distances'):
        picture = cv2.imread(f'out/{name}.png')
        assert picture.shape[1] == 1000
        assert picture.std() > 5


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--data', 'nowhere'], 'no test sets'),
        (['--predictions', 'nowhere.npz'], 'not a readable .npz of predictions'),
        (['--predictions', 'OTHER'], 'predictions of the set other'),
        (['--predictions', 'LATE'], 'none of the pairs of mhad-like'),
    ],
)
def test_bad_input_is_one_sentence(
    options: list[str], message: str, sets: Path, weights: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, data_set, number in (('OTHER', 'other', 0), ('LATE', 'mhad-like', 1000)):
        path = tmp_path / f'{name}.npz'
        np.savez(path, **arrays_of(np.zeros((1, 17, 3)), data_set, [number]))
        options = [str(path) if option == name else option for option in options]
    command = ['evaluate', '--all', '--weights', str(weights / 'base.safetensors')]
    assert main([*command, '--data', str(sets), '--device', 'cpu', *options]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('rsb-pose evaluate:')
    assert message in last


def test_predictions_belong_to_all(
    sets: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['evaluate', '--weights', str(weights / 'base.safetensors'), '--data', str(sets)]
    assert main([*command, '--predictions', str(sets / 'told.npz')]) == 2
    assert 'give --all' in capsys.readouterr().err
