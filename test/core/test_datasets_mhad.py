"""Berkeley MHAD from small files in its original formats, against plain formulas and dots."""

import shutil
from pathlib import Path

import cv2
import mhad_files as scene
import numpy as np
import pytest
import torch

from rsb_pose_core.datasets.mhad import (
    MhadOptions,
    MhadRecording,
    mhad_recordings,
)
from rsb_pose_core.datasets.mhad_files import (
    H36M_NAMES,
    JOINT_NAMES,
    read_bayer,
    read_cameras,
    read_correspondences,
    read_motion,
)
from rsb_pose_core.datasets.prepared import PreparedPair, Recording, pixels
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.geometry import triangulate
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.stereo_rectification import rectify_pair

TEST, TRAIN = (8, 1, 2), (1, 11, 5)


@pytest.fixture(scope='module')
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('mhad')
    scene.write_mhad(folder, (TEST, TRAIN), list(H36M_NAMES))
    return folder


@pytest.fixture
def copy(data_set: Path, tmp_path: Path) -> Path:
    """The take of the test split alone, to be damaged."""
    folder = tmp_path / 'mhad'
    shutil.copytree(data_set, folder, ignore=shutil.ignore_patterns('S01', '*s01*'))
    return folder


def recording(folder: Path, name: str = 's08_a01_r02_c13', **options: object) -> MhadRecording:
    found, _ = mhad_recordings(folder, MhadOptions(**options))
    (chosen,) = (one for one in found if one.name == name)
    assert isinstance(chosen, MhadRecording)
    return chosen


def truth_m(picture: int) -> np.ndarray:
    joints = scene.joints_m(scene.motion_frame(picture))
    return np.stack([joints[name] for name in H36M_NAMES])


def test_the_quad_has_the_published_baselines_and_every_camera_its_place(data_set: Path) -> None:
    cameras = read_cameras(data_set / 'Calibration')
    for left, right, baseline in ((1, 3, 0.226), (2, 4, 0.221)):
        views = rectify_pair(cameras[left - 1], cameras[right - 1])
        assert float(views.calibration.baseline_m) == pytest.approx(baseline, abs=5e-4)
    points = np.array([(0.0, 1.0, 0.0), (0.4, 1.6, -0.3)])
    for number, found in enumerate(cameras, start=1):
        rotation, translation = scene.to_camera(number)
        seen = points @ found.rotation.T + found.translation_m
        assert np.allclose(seen, [rotation @ p + translation for p in points], atol=1e-6)
        assert np.allclose(found.d, scene.LENSES[number - 1, 4:], atol=1e-7)
        assert (found.width, found.height) == (640, 480)


def test_motion_follows_from_plain_matrices_with_position_channels_for_offsets(
    data_set: Path,
) -> None:
    poses = read_motion(data_set / 'Mocap' / 'SkeletalData' / 'skl_s08_a01_r02.bvh')
    assert poses.shape == (scene.MOTION_FRAMES, 17, 3)
    for picture in scene.PICTURES:
        assert np.allclose(poses[scene.motion_frame(picture)], truth_m(picture), atol=1e-5)


def test_joints_are_the_authors_but_for_the_right_wrist(data_set: Path) -> None:
    authors = (25, 23, 21, 28, 30, 32, 0, 3, 4, 6, 13, 10, 8, 15, 17, 19, 5)
    ours = [JOINT_NAMES.index(name) for name in H36M_NAMES]
    wrist = H36M_17.index('right_wrist')
    assert [a == b for a, b in zip(ours, authors, strict=True)].count(False) == 1
    assert (ours[wrist], authors[wrist]) == (12, 13)
    path = data_set / 'Mocap' / 'SkeletalData' / 'skl_s08_a01_r02.bvh'
    hand_m = read_motion(path, authors_wrist=True)[4] - read_motion(path)[4]
    assert np.linalg.norm(hand_m[wrist]) == pytest.approx(0.09, abs=1e-5)
    assert np.allclose(np.delete(hand_m, wrist, axis=0), 0)


def test_takes_belong_to_two_pairs_and_their_subjects_split(data_set: Path) -> None:
    found, problems = mhad_recordings(data_set)
    assert [(r.name, r.split) for r in found] == [
        ('s01_a11_r05_c13', 'train'), ('s01_a11_r05_c24', 'train'),
        ('s08_a01_r02_c13', 'test'), ('s08_a01_r02_c24', 'test'),
    ]  # fmt: skip
    assert all(isinstance(one, Recording) for one in found)
    assert problems == []
    assert [r.name for r in mhad_recordings(data_set, subjects=[1])[0]] == [
        's01_a11_r05_c13', 's01_a11_r05_c24',
    ]  # fmt: skip


def centroid(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Middle of what is brighter than the background round a pixel."""
    column, row = uv.round().astype(int)
    part = picture[row - 9 : row + 10, column - 9 : column + 10].sum(-1).astype(float)
    bright = (part - sum(scene.BACKGROUND) - 6).clip(0)
    v, u = np.mgrid[row - 9 : row + 10, column - 9 : column + 10]
    return np.array([(bright * u).sum(), (bright * v).sum()]) / bright.sum()


@pytest.mark.parametrize('rectification', ['bouguet', 'loop-zhang'])
@pytest.mark.parametrize('name', ['s08_a01_r02_c13', 's08_a01_r02_c24'])
def test_dots_are_at_the_joints_and_triangulate_to_the_truth(
    data_set: Path, name: str, rectification: str
) -> None:
    pairs = list(recording(data_set, name, rectification=rectification).pairs())
    assert len(pairs) == len(scene.PICTURES)
    for picture, pair in zip(scene.PICTURES, pairs, strict=True):
        assert isinstance(pair, PreparedPair)
        truth = pixels(pair.xyz_m, pair.calibration)
        views = (pair.left, pair.right)
        seen = [
            np.stack([centroid(view, spot) for spot in uv])
            for view, uv in zip(views, truth, strict=True)
        ]
        for found, expected in zip(seen, truth, strict=True):
            assert np.linalg.norm(found - expected, axis=1).max() < 0.06  # pixels
        assert np.abs(seen[0][:, 1] - seen[1][:, 1]).max() < 0.06  # rows
        uvd = np.concatenate([seen[0], seen[0][:, :1] - seen[1][:, :1]], 1)
        xyz_m = triangulate(torch.from_numpy(uvd), pair.calibration).numpy()
        # a hundredth of a pixel of disparity is 0.8 mm of depth at 3 m
        assert np.linalg.norm(xyz_m - pair.xyz_m, axis=1).max() < 0.006
        room_m = truth_m(picture)
        apart = [np.linalg.norm(p[:, None] - p[None], axis=-1) for p in (xyz_m, room_m)]
        assert np.abs(apart[0] - apart[1]).max() < 0.008


def test_colours_are_those_before_the_mosaic(data_set: Path) -> None:
    pair = next(recording(data_set).pairs())
    assert isinstance(pair, PreparedPair)
    height, width = pair.left.shape[:2]
    for view in (pair.left, pair.right):
        assert view[height - 120, width // 2].tolist() == list(scene.BACKGROUND)
        assert view.dtype == np.uint8
        assert (view.shape[0], view.shape[1]) == (height, width)
        assert height != width


def test_boxes_leave_twenty_pixels_round_the_joints(data_set: Path) -> None:
    pair = next(recording(data_set).pairs())
    assert isinstance(pair, PreparedPair)
    uvs = pixels(pair.xyz_m, pair.calibration)
    for uv, box in zip(uvs, (pair.box_left, pair.box_right), strict=True):
        assert np.allclose(box[:2], uv.min(0) - 20)
        assert np.allclose(box[:2] + box[2:] - 1, uv.max(0) + 20)
    assert pair.box_left[1] == pytest.approx(pair.box_right[1])


def test_every_second_picture_is_another_choice(copy: Path) -> None:
    pairs = list(recording(copy, every=2).pairs())
    kinds = [isinstance(pair, PreparedPair) for pair in pairs]
    assert kinds == [True, False, False, True]  # 0 and 6 were written, 2 and 4 were not
    assert '_00002.pgm' in str(pairs[1])
    with pytest.raises(ConfigError, match='every 0'):
        MhadOptions(every=0)


# ---- bad input ----


def picture(folder: Path, camera: int, frame: int) -> Path:
    place = folder / f'Camera/Cluster01/Cam{camera:02d}/S08/A01/R02'
    return place / f'img_l01_c{camera:02d}_s08_a01_r02_{frame:05d}.pgm'


@pytest.mark.parametrize(
    ('data', 'match'),
    [
        (b'P5\n640 480\n255\n' + bytes(1000), '1000 of 307200 pixels'),
        (b'P5\n320 480\n255\n' + bytes(320 * 480), '320x480 pixels up to 255, expected 640x480'),
        (b'P5\n640 480\n65535\n' + bytes(640 * 480 * 2), 'up to 65535'),
        (b'P2\n640 480\n255\n0 0 0', 'no binary .pgm'),
        (b'', 'no binary .pgm'),
        (None, 'expected a picture'),
    ],
)
def test_a_damaged_picture_costs_its_pair_alone(
    copy: Path, data: bytes | None, match: str
) -> None:
    path = picture(copy, 3, 3)
    path.unlink() if data is None else path.write_bytes(data)
    first, damaged, last = recording(copy).pairs()
    assert isinstance(first, PreparedPair)
    assert isinstance(last, PreparedPair)
    assert isinstance(damaged, DataError)
    assert str(path) in str(damaged)
    assert match in str(damaged)


def test_a_comment_in_a_picture_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / 'a.pgm'
    raw = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
    path.write_bytes(b'P5\n# made by a camera\n6 4\n255\n' + raw.tobytes())
    expected = cv2.cvtColor(raw, cv2.COLOR_BayerGB2RGB)  # OpenCV's other name of the order
    assert (read_bayer(path, (6, 4)) == expected).all()


@pytest.mark.parametrize(
    ('change', 'match'),
    [
        (lambda text: text[: len(text) * 2 // 3], 'it holds'),
        (lambda text: text[:300], 'it has no HIERARCHY and MOTION'),
        (lambda text: '', 'expected a whole BVH of the 35 joints'),
        (lambda text: scene.bvh_text(drop='LeftHand'), 'it has no joint LeftHand among 33'),
        (lambda text: scene.bvh_text(frames=20), '20 frames, expected at least 47 as corr_moc'),
    ],
)
def test_a_damaged_motion_ends_its_recording_and_is_named(copy: Path, change, match: str) -> None:
    path = copy / 'Mocap' / 'SkeletalData' / 'skl_s08_a01_r02.bvh'
    one = recording(copy)
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=match) as caught:
        list(one.pairs())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ('text', 'match'),
    [
        ('0 0.0 4\n3 0.1\n', 'a row without three numbers'),
        ('0 0.0 4\n3.5 0.1 25\n', 'whole numbers'),
        ('', '0 rows'),
        ('0 x nan\n', 'whole numbers'),
        ('picture time motion\n', 'a row without three numbers'),
        ('é', 'not text'),
    ],
)
def test_damaged_correspondences_are_named(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / 'corr_moc_img_s08_a01_r02.txt'
    path.write_text(text)
    with pytest.raises(DataError, match=match) as caught:
        read_correspondences(path)
    assert str(path) in str(caught.value)


def test_missing_cameras_and_files_are_problems_and_the_rest_goes_on(copy: Path) -> None:
    shutil.rmtree(copy / 'Camera/Cluster01/Cam03')
    found, problems = mhad_recordings(copy)
    assert [one.name for one in found] == ['s08_a01_r02_c24']
    assert len(problems) == 1
    assert 'Cam03/S08/A01/R02 has no .pgm, expected the pictures of camera 3' in problems[0]
    for path in picture(copy, 4, 0).parent.glob('*.pgm'):
        path.rename(path.with_suffix('.jpg'))
    found, problems = mhad_recordings(copy)
    assert found == []
    assert 'has no .pgm, only .jpg' in problems[1]


@pytest.mark.parametrize(
    'name', ['Camera/Correspondences/corr_moc_img_s08_a01_r02.txt',
             'Mocap/SkeletalData/skl_s08_a01_r02.bvh'],
)  # fmt: skip
def test_a_take_without_motion_or_correspondences_is_a_problem(copy: Path, name: str) -> None:
    (copy / name).unlink()
    found, problems = mhad_recordings(copy)
    assert found == []
    assert len(problems) == 2
    assert all(f'{copy / name} is missing' in problem for problem in problems)


def test_a_wanted_subject_without_pictures_is_a_problem(copy: Path) -> None:
    found, problems = mhad_recordings(copy, subjects=[8, 11])
    assert len(found) == 2
    assert len(problems) == 1
    assert 'subject 11' in problems[0]
    with pytest.raises(ConfigError, match='no subject 13'):
        mhad_recordings(copy, subjects=[13])


def metres(text: str) -> str:
    """PosRel of all cameras in metres, as another version might have it."""
    for place in scene.PLACES:
        before, after = (
            ', '.join(f'{value:.8e}' for value in values)
            for values in (place, (*place[:3] / 1000, *place[3:]))
        )
        text = text.replace(before, after)
    return text


@pytest.mark.parametrize(
    ('name', 'change', 'match'),
    [
        ('camcfg_l01.yml', lambda text: '', 'no calibration of four cameras'),
        ('camcfg_l01.yml', lambda text: text[:700], 'no calibration of four cameras'),
        ('camcfg_l01.yml', lambda _: scene.calibration_text(2), 'Camera_3 has 0 numbers K'),
        ('camcfg_l01.yml', lambda text: text.replace('Dist', 'D'), '0 numbers Dist instead of 4'),
        ('camcfg_l01.yml', None, 'camcfg_l01.yml is missing'),
        ('RwTw_l01.txt', lambda text: text[:60], '5 numbers after Rw=, expected 9'),
        ('RwTw_l01.txt', lambda text: text.replace('Tw', 'T'), '0 numbers after Tw=, expected 3'),
        ('RwTw_l01.txt', None, 'No such file'),
    ],
)
def test_a_damaged_calibration_is_named(copy: Path, name: str, change, match: str) -> None:
    path = copy / 'Calibration' / name
    path.unlink() if change is None else path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=match) as caught:
        mhad_recordings(copy)
    assert str(path) in str(caught.value)


def test_a_calibration_in_metres_is_a_problem_of_both_pairs(copy: Path) -> None:
    path = copy / 'Calibration' / 'camcfg_l01.yml'
    path.write_text(metres(path.read_text()))
    found, problems = mhad_recordings(copy)
    assert found == []
    assert len(problems) == 2
    assert 'PosRel must be in mm' in problems[0]


def test_a_folder_without_pictures_is_no_mhad(copy: Path) -> None:
    shutil.rmtree(copy / 'Camera' / 'Cluster01')
    with pytest.raises(DataError, match='expected the pictures of Berkeley MHAD'):
        mhad_recordings(copy)
