"""Preparing a data set: what is written, what is skipped, what is told."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import cv2
import mhad_files
import numpy as np
import pytest
from stereo_scene import camera, render

from rsb_pose_core.cli import main
from rsb_pose_core.datasets import preparation
from rsb_pose_core.datasets.mhad_files import H36M_NAMES
from rsb_pose_core.datasets.preparation import Preparation, pair_arrays, prepare, stored_pair
from rsb_pose_core.datasets.preparation_check import (
    check_picture,
    check_recording,
    row_errors,
)
from rsb_pose_core.datasets.prepared import PreparedPair, Recording, box_of_joints, pixels
from rsb_pose_core.errors import ConfigError, DataError, RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.frames import FrameSet, read_frames
from rsb_pose_core.synthesis.labels import OUTSIDE, SELF_OCCLUDED
from rsb_pose_core.training.pool import PairPool

SETTINGS = {'data_set': 'drawn', 'every': 3}


@cache
def drawn_pair(number: int = 0, visibility: int = 0) -> PreparedPair:
    """A person before a wall, with cameras whose principal columns differ."""
    scene = render(
        np.random.default_rng(number), depth_m=2.4 + 0.1 * number, offset_x=0.05 * number,
        size=(360, 480), calibration=camera(480, 360, cx_offset=7.0, baseline_m=0.2), noise=0.0,
    )  # fmt: skip
    xyz_m = scene.xyz_m
    boxes = [box_of_joints(uv, 20.0) for uv in pixels(xyz_m, scene.calibration)]
    codes = np.full((2, 17), visibility, np.uint8)
    return PreparedPair(
        scene.left, scene.right, xyz_m, codes, boxes[0], boxes[1], scene.calibration
    )


@dataclass(frozen=True)
class Drawn:
    """A recording of drawn pairs. `fault` is a pair that cannot be read, or ends the recording;
    each reading leaves a mark in `marks`."""

    name: str
    split: str = 'train'
    count: int = 3
    unread: int = -1
    fault: type[BaseException] | None = None
    visibility: int = 0
    marks: Path | None = None

    def pairs(self) -> Iterator[PreparedPair | DataError]:
        if self.marks is not None:
            with (self.marks / self.name).open('a') as file:
                file.write('x')
        for number in range(self.count):
            if number == self.unread:
                yield DataError(f'{self.name}_{number}.pgm: cut, expected 9 bytes; get it again')
                continue
            yield drawn_pair(number, self.visibility)
        if self.fault is not None:
            raise self.fault(f'{self.name}.bvh: cut, expected more; get it again')


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def test_pairs_come_back_as_they_were(tmp_path: Path) -> None:
    recordings = [Drawn('s01_c13'), Drawn('s08_c13', 'test', count=2, visibility=SELF_OCCLUDED)]
    assert all(isinstance(one, Recording) for one in recordings)
    found = prepare(recordings, tmp_path, SETTINGS, lossless=True)
    assert (found.failures, found.warnings) == ([], [])
    assert files(tmp_path) == [
        'checks/s01_c13.jpg', 'checks/s01_c13.json', 'checks/s08_c13.jpg',
        'checks/s08_c13.json', 'index.json', 'test/s08_c13.npz', 'train/s01_c13.npz',
    ]  # fmt: skip
    frames = FrameSet(tmp_path / 'train')
    assert len(frames) == 3
    for number in range(3):
        expected, frame = drawn_pair(number), frames.pair(number)
        assert (frame.left == expected.left).all()
        assert (frame.right == expected.right).all()
        assert np.allclose(frame.labels.h36m.xyz_m[0, 0], expected.xyz_m, atol=1e-6)
        for name, uv in zip(
            ('uv_left', 'uv_right'), pixels(expected.xyz_m, expected.calibration), strict=True
        ):
            assert np.allclose(getattr(frame.labels.h36m, name)[0, 0], uv, atol=1e-4)
        assert np.allclose(frame.labels.box_left[0, 0], expected.box_left, atol=1e-4)
        assert np.allclose(frame.labels.box_right[0, 0], expected.box_right, atol=1e-4)
        assert frame.labels.present.tolist() == [[True]]
        assert frame.labels.coco.xyz_m.isnan().all()
        assert (frame.labels.coco.visibility == OUTSIDE).all()
        assert [float(v) for v in frame.calibration.fields()] == [
            float(v) for v in expected.calibration.fields()
        ]
    test = FrameSet(tmp_path / 'test')
    assert (test.pair(1).labels.h36m.visibility == SELF_OCCLUDED).all()
    index = json.loads((tmp_path / 'index.json').read_text())
    assert index['splits'] == {
        'train': {'recordings': 1, 'pairs': 3, 'occluded_pairs': 0},
        'test': {'recordings': 1, 'pairs': 2, 'occluded_pairs': 2},
    }
    assert index['settings'] == {'version': 1, 'lossless': True, **SETTINGS}


def test_training_reads_crops_whose_pixels_are_those_of_the_joints(tmp_path: Path) -> None:
    prepare([Drawn('s01_c13')], tmp_path, SETTINGS)
    pool = PairPool(str(tmp_path / 'train'))
    assert pool.scan() == 3
    for number in range(3):
        pair = pool.pair(number)
        fx, fy, cx_left, cx_right, cy, baseline = pair['calibration']
        x, y, z = drawn_pair(number).xyz_m.T
        left = np.stack([fx * x / z + cx_left, fy * y / z + cy], 1)
        right = np.stack([fx * (x - baseline) / z + cx_right, fy * y / z + cy], 1)
        assert np.allclose(pair['uv_left'], left, atol=2e-3)
        assert np.allclose(pair['uv_right'], right, atol=2e-3)


def test_pictures_are_jpeg_unless_lossless(tmp_path: Path) -> None:
    pair = drawn_pair()
    jpeg, webp = pair_arrays(pair), pair_arrays(pair, lossless=True)
    assert jpeg['left_pictures'][:3].tolist() == [0xFF, 0xD8, 0xFF]
    assert webp['left_pictures'][:4].tobytes() == b'RIFF'
    near = stored_pair(jpeg)
    assert 0 < np.abs(near.left.astype(int) - pair.left).mean() < 6
    assert (stored_pair(webp).right == pair.right).all()
    swapped = np.abs(near.left[..., ::-1].astype(int) - pair.left).mean()
    assert swapped > 3 * np.abs(near.left.astype(int) - pair.left).mean()


def marks(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in sorted(folder.iterdir())}


def test_finished_recordings_are_skipped_and_half_read_ones_tried_again(tmp_path: Path) -> None:
    seen, out = tmp_path / 'seen', tmp_path / 'out'
    seen.mkdir()
    whole, half = Drawn('a', count=1, marks=seen), Drawn('b', count=2, unread=1, marks=seen)
    first = prepare([whole, half], out, SETTINGS)
    assert first.failures == ['b: b_1.pgm: cut, expected 9 bytes; get it again']
    assert first.counts()['train'] == {'recordings': 2, 'pairs': 2, 'occluded_pairs': 0}
    second = prepare([whole, replace(half, unread=-1)], out, SETTINGS)
    assert marks(seen) == {'a': 1, 'b': 2}
    assert second.failures == []
    assert second.counts()['train']['pairs'] == 3
    (out / 'train' / 'a.npz').unlink()
    prepare([whole], out, SETTINGS)
    assert marks(seen) == {'a': 2, 'b': 2}


def test_a_report_cut_short_counts_as_none(tmp_path: Path) -> None:
    prepare([Drawn('a', count=1)], tmp_path, SETTINGS)
    for text in ('', '{"name": "a"', '[]', '{"name": "a", "split": "train"}'):
        (tmp_path / 'checks' / 'a.json').write_text(text)
        assert prepare([Drawn('a', count=2)], tmp_path, SETTINGS).counts()['train']['pairs'] == 2
        (tmp_path / 'train' / 'a.npz').unlink()


def test_recordings_of_another_run_stay_in_the_index(tmp_path: Path) -> None:
    prepare([Drawn('a', count=1)], tmp_path, SETTINGS)
    prepare([Drawn('b', 'test', count=1)], tmp_path, SETTINGS)
    index = json.loads((tmp_path / 'index.json').read_text())
    assert index['recordings'] == {
        'b': {'split': 'test', 'pairs': 1}, 'a': {'split': 'train', 'pairs': 1},
    }  # fmt: skip


def test_other_settings_are_another_data_set(tmp_path: Path) -> None:
    prepare([Drawn('a', count=1)], tmp_path, SETTINGS)
    with pytest.raises(ConfigError, match='prepared with every 3, not 2; give another'):
        prepare([Drawn('a', count=1)], tmp_path, {**SETTINGS, 'every': 2})
    with pytest.raises(ConfigError, match='prepared with lossless False, not True'):
        prepare([Drawn('a', count=1)], tmp_path, SETTINGS, lossless=True)
    (tmp_path / 'index.json').write_text('{')
    with pytest.raises(ConfigError, match='no index of prepared pairs'):
        prepare([Drawn('a', count=1)], tmp_path, SETTINGS)


def test_bad_recordings_are_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    recordings = [
        Drawn('a', fault=DataError), Drawn('b', count=1), Drawn('c', count=1, unread=0),
        Drawn('d', count=0),
    ]  # fmt: skip
    found = prepare(recordings, tmp_path, SETTINGS, problems=['e: Cam03 is missing'])
    assert found.failures == [
        'e: Cam03 is missing',
        'a: a.bvh: cut, expected more; get it again',
        'c: c_0.pgm: cut, expected 9 bytes; get it again',
        'd: it has no pairs',
    ]
    assert json.loads((tmp_path / 'index.json').read_text())['failures'] == found.failures
    assert [name for name in files(tmp_path) if name.startswith('train')] == ['train/b.npz']


def test_an_interrupted_run_leaves_no_parts_and_goes_on(tmp_path: Path) -> None:
    stale = tmp_path / 'train' / 'z.part'
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b'half')
    with pytest.raises(KeyboardInterrupt):
        prepare([Drawn('a', count=1), Drawn('b', fault=KeyboardInterrupt)], tmp_path, SETTINGS)
    assert [name for name in files(tmp_path) if 'checks' not in name] == [
        'index.json', 'train/a.npz',
    ]  # fmt: skip
    found = prepare([Drawn('a', count=1), Drawn('b', count=1)], tmp_path, SETTINGS)
    assert found.counts()['train']['pairs'] == 2


def test_a_full_disk_ends_the_run_with_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, arrays: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(preparation, 'write_arrays', full)
    with pytest.raises(RsbPoseError, match='No space left.*make room and run again'):
        prepare([Drawn('a', count=1)], tmp_path, SETTINGS)
    assert files(tmp_path) == ['index.json']


@pytest.mark.slow
def test_several_processes_write_the_same_files(tmp_path: Path) -> None:
    recordings = [Drawn('a', count=1), Drawn('b', count=2, unread=0), Drawn('c', fault=DataError)]
    found: list[Preparation] = []
    for name, processes in (('one', 1), ('two', 2)):
        found.append(prepare(recordings, tmp_path / name, SETTINGS, processes=processes))
    assert found[0].failures == found[1].failures
    for name in ('a', 'b'):
        arrays = [read_frames(tmp_path / run / 'train' / f'{name}.npz') for run in ('one', 'two')]
        assert arrays[0].keys() == arrays[1].keys()
        for key, values in arrays[0].items():
            np.testing.assert_array_equal(values, arrays[1][key], err_msg=key)


# ---- the check ----


def lifted(picture: np.ndarray, rows: float) -> np.ndarray:
    height, width = picture.shape[:2]
    move = np.array([(1, 0, 0), (0, 1, -rows)], float)
    return cv2.warpAffine(picture, move, (width, height), borderMode=cv2.BORDER_REFLECT)


def swapped(pair: PreparedPair) -> PreparedPair:
    return replace(pair, left=pair.right, right=pair.left)


def turned(pair: PreparedPair) -> PreparedPair:
    return replace(pair, xyz_m=pair.xyz_m * (1, 1, -1))


def check(pair: PreparedPair) -> list[str]:
    return check_recording([pair], pair.xyz_m[None], pair.visibility[None]).warnings()


@pytest.mark.parametrize(
    ('spoil', 'match'),
    [
        (lambda pair: replace(pair, right=lifted(pair.right, 2.0)), 'spots 2.0 rows apart'),
        (turned, 'm before the cameras'),
        (lambda pair: replace(pair, visibility=np.full((2, 17), OUTSIDE, np.uint8)), '100% of'),
        (lambda pair: replace(pair, calibration=replace(
            pair.calibration, baseline_m=pair.calibration.baseline_m * 1e-4)), 'joints come back'),
    ],
)  # fmt: skip
def test_a_wrong_calibration_is_warned_of(
    spoil: Callable[[PreparedPair], PreparedPair], match: str
) -> None:
    pair = drawn_pair()
    assert check(pair) == []
    (warning,) = [text for text in check(spoil(pair)) if match in text]
    assert warning.endswith('is it the calibration of these cameras?')


def test_rows_are_measured_in_pixels_with_their_sign() -> None:
    pair = drawn_pair()
    errors = row_errors(pair.left, pair.right)
    assert len(errors) > 60
    assert abs(np.median(errors)) < 0.1
    assert np.median(row_errors(pair.left, lifted(pair.right, 1.5))) == pytest.approx(1.5, abs=0.1)
    assert len(row_errors(np.zeros_like(pair.left), pair.right)) == 0


def test_nothing_to_compare_is_no_warning() -> None:
    pair = replace(drawn_pair(), left=np.zeros((360, 480, 3), np.uint8))
    found = check_recording([pair], pair.xyz_m[None], pair.visibility[None])
    assert np.isnan(found.row_error_px)
    assert found.matches == 0
    assert found.warnings() == []


def test_the_picture_shows_joints_and_rows_in_both_views() -> None:
    hidden = H36M_17.index('left_wrist')
    codes = np.zeros((2, 17), np.uint8)
    codes[1, hidden] = SELF_OCCLUDED
    pair = replace(drawn_pair(), visibility=codes)
    canvas = check_picture(pair, 'a')
    assert canvas.shape == (360, 960, 3)
    for side, uv in enumerate(pixels(pair.xyz_m, pair.calibration)):
        for joint in (0, 5, 10, 15):
            column, row = uv[joint].round().astype(int)
            beside = canvas[row, column + 480 * side + 3]  # in a disc, between a cross's arms
            assert (beside.min() > 230) == ((side, joint) != (1, hidden))
    row = round(float(pixels(pair.xyz_m, pair.calibration)[0][0, 1]))
    changed = (canvas[row, :480] != pair.left[row]).any(-1).mean()
    assert 0.45 < changed < 0.6


# ---- the command ----


@pytest.fixture(scope='module')
def mhad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('mhad')
    mhad_files.write_mhad(folder, ((11, 4, 1), (2, 4, 1)), list(H36M_NAMES))
    return folder


def command(*words: object) -> int:
    return main(['prepare', *map(str, words), '--processes', '1'])


def test_the_command_prepares_mhad_and_says_so(
    mhad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = partial(command, 'mhad', mhad, tmp_path, '--subjects', 11)
    assert run() == 0
    said = capsys.readouterr().out
    assert 'test: 2 recordings, 6 pairs, 0 with occluded joints' in said
    assert 'train: 0 recordings' in said
    assert run('--every', 6) == 2
    assert 'prepared with every 3, not 6' in capsys.readouterr().err
    settings = json.loads((tmp_path / 'index.json').read_text())['settings']
    assert settings['data_set'] == 'mhad'
    assert settings['rectification'] == 'bouguet'
    assert settings['occlusion']['torso_m'] == 0.13
    pool = PairPool(str(tmp_path / 'test'))
    assert pool.scan() == 6


def test_the_command_ends_with_a_list_and_status_1(
    mhad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / 'mhad', tmp_path / 'out'
    shutil.copytree(mhad, source)
    cut = source / 'Camera/Cluster01/Cam02/S11/A04/R01/img_l01_c02_s11_a04_r01_00003.pgm'
    os.truncate(cut, 5000)
    shutil.rmtree(source / 'Camera/Cluster01/Cam01/S02')
    assert command('mhad', source, out, '--rectification', 'loop-zhang') == 1
    said = capsys.readouterr()
    missing = [line for line in said.err.splitlines() if line.startswith('missing: ')]
    assert len(missing) == 2
    assert 's02_a04_r01_c13' in missing[0]
    assert f'{cut}: 4985 of 307200 pixels' in missing[1]
    assert 'test: 2 recordings, 5 pairs' in said.out
    assert 'train: 1 recordings, 3 pairs' in said.out


@pytest.mark.parametrize(
    ('words', 'match'),
    [
        (('mhad', '{mhad}', '{out}', '--every', '0'), 'every 0 pictures'),
        (('mhad', '{mhad}', '{out}', '--subjects', '13'), 'no subject 13'),
        (('mhad', '{mhad}', '{out}', '--undamaged'), '--undamaged is of h36m'),
        (('h36m', '{mhad}', '{out}', '--authors-wrist'), '--authors-wrist are of mhad'),
        (('mhad', '{out}/none', '{out}'), 'is no folder'),
        (('mhad', '{out}', '{out}'), 'RwTw_l01.txt: No such file'),
        (('h36m', '{out}', '{out}'), 'metadata.xml'),
    ],
)
def test_bad_arguments_end_with_one_sentence_and_status_2(
    mhad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
    match: str,
) -> None:  # fmt: skip
    assert command(*(word.format(mhad=mhad, out=tmp_path) for word in words)) == 2
    said = capsys.readouterr().err
    assert match in said
    assert len(said.splitlines()) == 1
