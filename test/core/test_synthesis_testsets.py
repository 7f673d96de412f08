"""Frozen sets: recreated bit for bit, checked by checksum, mismatches named."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import drawn_pairs
import numpy as np
import pytest

from rsb_pose_core.cli import main
from rsb_pose_core.errors import DataError, RsbPoseError
from rsb_pose_core.synthesis import cycles, cycles_set, testsets
from rsb_pose_core.synthesis.cycles_set import scene_checksums, with_pictures
from rsb_pose_core.synthesis.frames import FrameSet, checksum, read_frames
from rsb_pose_core.synthesis.shards import write_arrays
from rsb_pose_core.synthesis.testsets import (
    FrameFiles,
    check,
    frame_checksums,
    freeze,
    make_set,
)

DATA = Path(__file__).parents[3] / 'shared' / 'data'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / 'data' / 'motion').mkdir(parents=True)
    (tmp_path / 'data' / 'motion' / 'walk.npz').write_bytes(b'123')
    return tmp_path / 'data'


def tiny(folder: Path) -> FrameFiles:
    """Files of five quick pairs."""
    return FrameFiles(
        folder, folder, seed=3, pairs_per_file=5, files_per_casting=1,
        make=drawn_pairs.drawn_frames,
    )  # fmt: skip


@pytest.fixture(scope='module')
def made(tmp_path_factory: pytest.TempPathFactory) -> FrameFiles:
    """A set of three files from two processes."""
    files = tiny(tmp_path_factory.mktemp('sets') / 'tiny')
    assert make_set(files, 2, pairs=15) == 3
    return files


@pytest.fixture
def sums(made: FrameFiles, data: Path, tmp_path: Path) -> Path:
    """Its checksums."""
    freeze('tiny', frame_checksums(made.folder), data, tmp_path / 'sums.json')
    return tmp_path / 'sums.json'


def test_a_set_is_recreated_bit_for_bit_by_another_number_of_processes(
    data: Path, sums: Path, tmp_path: Path
) -> None:
    again = replace(tiny(tmp_path / 'again'), maps=True)
    make_set(again, 1, pairs=15)
    assert check('tiny', frame_checksums(again.folder), data, sums) == 3
    assert len(FrameSet(again.folder)) == 15


def test_the_first_pairs_of_a_set_are_checked_alone(
    made: FrameFiles, data: Path, sums: Path, tmp_path: Path
) -> None:
    part = tiny(tmp_path / 'part')
    part.folder.mkdir()
    shutil.copy(made.path(0), part.folder)
    assert make_set(part, 1, pairs=3) == 1
    assert check('tiny', frame_checksums(part.folder), data, sums) == 1


def test_a_mismatch_names_the_file_and_what_to_do(
    made: FrameFiles, data: Path, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'tiny'
    shutil.copytree(made.folder, folder)
    arrays = read_frames(made.path(1))
    arrays['h36m_xyz_m'][1, 0, 0, 0] += 1e-6
    write_arrays(folder / made.path(1).name, arrays)
    with pytest.raises(RsbPoseError, match=r'frames_001\.npz of 3 files differ.*delete them'):
        check('tiny', frame_checksums(folder), data, sums)
    (data / 'motion' / 'run.npz').write_bytes(b'4')
    with pytest.raises(RsbPoseError, match=r'files of .*motion are not those that the set'):
        check('tiny', frame_checksums(folder), data, sums)
    here = testsets.versions()
    monkeypatch.setattr(testsets, 'versions', lambda: {**here, 'torch': '9.9'})
    with pytest.raises(RsbPoseError, match=rf'torch {here["torch"]} \(here 9\.9\)'):
        check('tiny', frame_checksums(folder), None, sums)
    with pytest.raises(DataError, match='no checksums of other'):
        check('other', frame_checksums(folder), None, sums)


def test_freezing_one_set_keeps_the_others_of_the_same_versions(
    made: FrameFiles, data: Path, sums: Path
) -> None:
    freeze('two', frame_checksums(made.folder), data, sums)
    frozen = testsets.Frozen.read(sums)
    assert frozen.sets['tiny'] == frozen.sets['two']
    assert frozen.sets['two'][2] == checksum(read_frames(made.path(2)))
    (data / 'motion' / 'run.npz').write_bytes(b'4')
    freeze('two', frame_checksums(made.folder), data, sums)
    assert list(testsets.Frozen.read(sums).sets) == ['two']


@pytest.mark.parametrize('text', ['', '{"sets": {}}', '[]'])
def test_broken_checksums_are_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / 'sums.json').write_text(text)
    with pytest.raises(DataError, match=r'sums\.json: no checksums of test sets'):
        testsets.Frozen.read(tmp_path / 'sums.json')


def test_sets_do_not_share_seeds() -> None:
    assert len({one.seed for one in testsets.SETS.values()}) == len(testsets.SETS)
    assert {one.pairs for one in testsets.SETS.values()} == {1000}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason='needs the motion data')
def test_the_first_file_of_mhad_like_is_what_was_committed(tmp_path: Path) -> None:
    frozen, here = testsets.Frozen.read(), testsets.versions()
    alike = all(frozen.made_with[name] == here[name] for name in ('torch', 'numpy', 'opencv'))
    if not alike or frozen.data != testsets.fingerprints(DATA):
        pytest.skip('its checksums are of other versions or other data')
    files = testsets.set_files('mhad-like', tmp_path, DATA)
    make_set(files, 1, pairs=1)
    try:
        assert check('mhad-like', frame_checksums(files.folder), DATA) == 1
    except RsbPoseError:
        if frozen.made_with['processor'] == here['processor']:
            raise
        pytest.skip(f'{here["processor"]} draws other bits than {frozen.made_with["processor"]}')
    pair = FrameSet(files.folder).pair(0)
    assert pair.left.shape == (480, 640, 3)
    assert pair.calibration.baseline_m.item() == pytest.approx(0.226, rel=0.02)
    assert 1.5 < pair.labels.h36m.xyz_m[0, 0, 6, 2] < 3.6


# ---- cycles ----


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """The set with path-traced pictures of two files of five pairs, each of one grey."""
    pictures = tmp_path / 'cycles' / cycles_set.TRACED
    pictures.mkdir(parents=True)
    records = []
    for number in range(10):
        for view, side in enumerate(cycles.SIDES):
            grey = np.full((120, 208, 3), 10 * number + view, np.uint8)
            cv2.imwrite(str(cycles.picture_path(pictures, side, number)), grey)
        records.append(json.dumps({'number': number, 'scene': f'scene {number}'}))
    (pictures / cycles.RECORDS).write_text('\n'.join(records))
    return tmp_path / 'cycles'


def test_path_traced_pictures_take_the_place_of_the_engines(
    made: FrameFiles, traced: Path
) -> None:
    arrays = with_pictures(read_frames(made.path(1)), traced / cycles_set.TRACED, 1)
    write_arrays(traced / 'frames_001.npz', arrays)
    pair, own = FrameSet(traced).pair(2), FrameSet(made.folder).pair(7)
    assert (pair.left == 70).all()
    assert (pair.right == 71).all()
    assert np.array_equal(pair.labels.h36m.xyz_m, own.labels.h36m.xyz_m, equal_nan=True)


def test_path_traced_files_are_known_by_their_scenes(traced: Path) -> None:
    (traced / 'frames_001.npz').write_bytes(b'')
    scenes = ''.join(f'scene {number}' for number in range(5, 10))
    [(file, found)] = scene_checksums(traced, 5)
    assert (file.name, found) == ('frames_001.npz', hashlib.sha256(scenes.encode()).hexdigest())
    cycles.picture_path(traced / cycles_set.TRACED, 'left', 7).unlink()
    with pytest.raises(DataError, match='pair 7 is missing'):
        list(scene_checksums(traced, 5))


# ---- the command ----


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['testset', '--help'])
    text = capsys.readouterr().out
    for word in ('mhad-like', 'crowded', '--check', '--freeze', '--pairs'):
        assert word in text


def test_bad_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ['--out', str(tmp_path)]
    assert main(['testset', 'wide', *out]) == 2
    assert '--data is missing' in capsys.readouterr().err
    assert main(['testset', 'wide', *out, '--data', str(tmp_path / 'none')]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('rsb-pose testset: ')
    assert main(['testset', 'wide', *out, '--data', 'd', '--pairs', '0']) == 2
    assert '--pairs must be at least 1' in capsys.readouterr().err
    assert main(['testset', 'wide', *out, '--data', 'd', '--pairs', '9', '--freeze']) == 2
    assert 'leave --pairs out' in capsys.readouterr().err


def test_committed_checksums_cover_whole_sets() -> None:
    frozen = json.loads(testsets.CHECKSUMS.read_text())
    for name, sums in frozen['sets'].items():
        pairs = len(sums) * FrameFiles.pairs_per_file
        assert pairs == (200 if name == 'cycles' else testsets.SETS[name].pairs)
        assert all(len(value) == 64 for value in sums)
