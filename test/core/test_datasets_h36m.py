"""Human3.6M from small files in its original formats: dots at the joints, seen by four cameras."""

import shutil
from pathlib import Path

import cdflib
import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.datasets.h36m import DAMAGED, h36m_recordings
from rsb_pose_core.datasets.h36m_files import CAMERAS, H36M_JOINTS, read_cameras, read_poses
from rsb_pose_core.datasets.preparation import prepare
from rsb_pose_core.datasets.prepared import PreparedPair, Recording, pixels
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.geometry import triangulate
from rsb_pose_core.synthesis.labels import OUTSIDE, VISIBLE

# Much like subject 9's: angles (rad) and places (mm); f, c, k, p of the four cameras.
OUTER = np.array([
    (-1.387, -3.183, 0.441, 2044.0, 4935.0, 1481.0),
    (-1.364, 3.149, 2.770, 1991.0, -5124.0, 1569.0),
    (-1.349, -3.103, -0.383, -1671.0, 5212.0, 1528.0),
    (-1.302, -3.205, -2.732, -1696.0, -3827.0, 1591.0),
])  # fmt: skip
INNER = np.array([
    (1145.0, 1143.8, 512.5, 515.5, -0.207, 0.248, -0.0031, -0.0014, -0.0010),
    (1149.7, 1147.6, 508.8, 508.1, -0.194, 0.240, 0.0068, -0.0027, -0.0016),
    (1149.1, 1148.8, 519.8, 501.4, -0.208, 0.255, -0.0025, -0.0008, 0.0015),
    (1145.5, 1144.8, 515.0, 501.9, -0.198, 0.218, -0.0089, -0.0018, -0.0006),
])  # fmt: skip
SUBJECT = 9
FRAMES = 5
TAKE = 'Directions 1'
# A person 1.7 m tall, arms out, mm about the place where it stands, in the order of H36M_17.
PERSON = np.array([
    (-320, 10, 90), (-210, 30, 470), (-130, 0, 900), (130, 0, 900), (220, 30, 480), (330, 0, 85),
    (0, 0, 930), (0, -20, 1180), (0, 0, 1420), (0, 10, 1700), (-640, 80, 1250), (-420, 20, 1330),
    (-170, 0, 1380), (170, 0, 1380), (430, 20, 1480), (650, 60, 1620), (0, 90, 1560),
])  # fmt: skip


def joints_mm() -> np.ndarray:
    """(frames, 32, 3): 17 that count, the rest at the origin."""
    poses = np.zeros((FRAMES, 32, 3))
    for frame in range(FRAMES):
        angle = 0.1 * frame
        turn = np.array([(np.cos(angle), -np.sin(angle), 0), (np.sin(angle), np.cos(angle), 0),
                         (0, 0, 1)])  # fmt: skip
        place = (150.0 - 60 * frame, 300.0 * frame - 500, 0)
        poses[frame, list(H36M_JOINTS)] = PERSON @ turn.T + place
    return poses


def plain_pixels(outer: np.ndarray, inner: np.ndarray, xyz_mm: np.ndarray) -> np.ndarray:
    """The release's model of a camera, term by term."""
    a, b, c = outer[:3]
    rotation = (
        np.array([(1, 0, 0), (0, np.cos(a), -np.sin(a)), (0, np.sin(a), np.cos(a))])
        @ np.array([(np.cos(b), 0, np.sin(b)), (0, 1, 0), (-np.sin(b), 0, np.cos(b))])
        @ np.array([(np.cos(c), -np.sin(c), 0), (np.sin(c), np.cos(c), 0), (0, 0, 1)])
    )
    f, centre, k, p = inner[:2], inner[2:4], inner[4:7], inner[7:]
    seen = []
    for point in xyz_mm:
        x, y, z = rotation @ (point - outer[3:])
        xy = np.array((x, y)) / z
        r2 = xy @ xy
        radial = 1 + k[0] * r2 + k[1] * r2**2 + k[2] * r2**3
        tangential = p[0] * xy[1] + p[1] * xy[0]
        seen.append(f * (xy * (radial + tangential) + p[::-1] * r2) + centre)
    return np.array(seen)


def write_metadata(path: Path, outer: np.ndarray = OUTER, count: int = 300) -> None:
    """All subjects but SUBJECT have other cameras."""
    numbers = np.concatenate([
        np.stack([outer + (0 if subject == SUBJECT else (0.01, 0, 0, 50, 0, 0))
                  for subject in range(1, 12)], axis=1).ravel(),
        INNER.ravel(),
    ])  # fmt: skip
    text = ' '.join(repr(float(number)) for number in numbers[:count])
    path.write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n<metadata><mapping><tr><td>_ALL</td></tr>'
        f'</mapping><w0>[{text}]</w0></metadata>'
    )


def write_poses(path: Path, poses: np.ndarray, variable: str = 'Pose') -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    values = poses.reshape(1, len(poses), -1)
    writer = cdflib.cdfwrite.CDF(path, cdf_spec={'rDim_sizes': []})
    spec = {
        'Variable': variable, 'Data_Type': 45, 'Num_Elements': 1, 'Rec_Vary': True,
        'Dim_Sizes': list(values.shape[1:]), 'Compress': 6,
    }  # fmt: skip
    writer.write_var(spec, var_data=values)
    writer.close()


def picture(camera: int, pose_mm: np.ndarray) -> np.ndarray:
    """A smooth white dot at each joint on a dark ground."""
    width, height = list(CAMERAS.values())[camera - 1]
    image = np.zeros((height, width))
    for u, v in plain_pixels(OUTER[camera - 1], INNER[camera - 1], pose_mm):
        x, y = round(u), round(v)
        rows, columns = np.mgrid[max(y - 9, 0) : y + 10, max(x - 9, 0) : x + 10]
        dot = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 2.0**2))
        part = image[max(y - 9, 0) : y + 10, max(x - 9, 0) : x + 10]
        part += dot[: part.shape[0], : part.shape[1]]
    grey = (20 + 220 * image.clip(0, 1)).round().astype(np.uint8)
    return np.stack([grey // 2, grey, grey], axis=-1)  # BGR: yellow, so that RGB is told from it


def video_path(root: Path, camera: int, take: str = TAKE) -> Path:
    return root / f'S{SUBJECT}' / 'Videos' / f'{take}.{list(CAMERAS)[camera - 1]}.mp4'


def poses_path(root: Path, take: str = TAKE) -> Path:
    return root / f'S{SUBJECT}' / 'MyPoseFeatures' / 'D3_Positions' / f'{take}.cdf'


def write_video(path: Path, pictures: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 50, (width, height))
    for image in pictures:
        writer.write(image)
    writer.release()


@pytest.fixture(scope='module')
def data_set(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('h36m')
    write_metadata(root / 'metadata.xml')
    poses = joints_mm()
    write_poses(poses_path(root), poses)
    for camera in (1, 2, 3, 4):
        pictures = [picture(camera, pose[list(H36M_JOINTS)]) for pose in poses]
        write_video(video_path(root, camera), pictures)
    return root


@pytest.fixture
def copy(data_set, tmp_path) -> Path:
    """To be damaged by a test."""
    return Path(shutil.copytree(data_set, tmp_path / 'h36m'))


def found(root: Path, **options: object) -> tuple[list[Recording], list[str]]:
    return h36m_recordings(root, **({'subjects': (SUBJECT,), 'every': 2} | options))


def dots(pair: PreparedPair) -> list[np.ndarray]:
    """Centre of the dot near each joint in both pictures, (17, 2) each."""
    centres = []
    shown = (pair.left, pair.right)
    for view, uv in zip(shown, pixels(pair.xyz_m, pair.calibration), strict=True):
        grey = view[..., 0].astype(float)  # red
        view_centres = []
        for u, v in uv:
            x, y = round(u), round(v)
            rows, columns = np.mgrid[y - 6 : y + 7, x - 6 : x + 7]
            weight = (grey[y - 6 : y + 7, x - 6 : x + 7] - 40).clip(0)
            view_centres.append(
                ((columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum())
            )
        centres.append(np.array(view_centres))
    return centres


def crowded(uv: np.ndarray) -> np.ndarray:
    """Joints whose dot reaches into the window about another's."""
    gaps = np.abs(uv[:, None] - uv).max(-1) + 1e3 * np.eye(len(uv))
    return gaps.min(1) < 14


# ---- files ----


def test_cameras_project_as_the_release_does(tmp_path):
    write_metadata(tmp_path / 'metadata.xml')
    cameras = read_cameras(tmp_path / 'metadata.xml')
    assert len(cameras) == 11
    pose = joints_mm()[3, list(H36M_JOINTS)]
    for camera, outer, inner in zip(cameras[SUBJECT - 1], OUTER, INNER, strict=True):
        assert np.abs(camera.project(pose / 1000) - plain_pixels(outer, inner, pose)).max() < 1e-8
        assert np.allclose(camera.centre_m * 1000, outer[3:])
    assert [c.name[-8:] for c in cameras[0]] == list(CAMERAS)
    assert np.allclose(cameras[0][2].centre_m * 1000, OUTER[2, 3:] + (50, 0, 0))
    sizes = [(c.width, c.height) for c in cameras[0]]
    assert sizes == [(1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002)]


def test_positions_are_the_17_joints_in_metres(data_set):
    poses = read_poses(poses_path(data_set))
    assert poses.shape == (FRAMES, 17, 3)
    assert np.allclose(poses, joints_mm()[:, list(H36M_JOINTS)] / 1000, atol=1e-12)


# ---- recordings ----


@pytest.mark.parametrize('rectification', ['bouguet', 'loop-zhang'])
def test_dots_are_at_the_joints_and_triangulate_to_the_positions(data_set, rectification):
    recordings, problems = found(data_set, rectification=rectification)
    assert problems == []
    assert [(r.name, r.split) for r in recordings] == [
        ('s09_directions_1_c24', 'test'),
        ('s09_directions_1_c13', 'test'),
    ]
    poses = joints_mm()[::2, list(H36M_JOINTS)] / 1000
    for recording in recordings:
        pairs = list(recording.pairs())
        assert len(pairs) == 3
        for pair, world in zip(pairs, poses, strict=True):
            assert pair.left.shape == pair.right.shape
            assert pair.left.shape[0] != pair.left.shape[1]
            expected = pixels(pair.xyz_m, pair.calibration)
            left, right = dots(pair)
            alone = ~np.any([crowded(uv) for uv in expected], axis=0)
            assert alone.sum() >= 12
            for uv, seen in zip(expected, (left, right), strict=True):
                assert np.abs(uv - seen)[alone].max() < 0.3  # MPEG-4 lies in between
                assert np.abs(uv - seen)[alone].mean() < 0.08
            assert np.abs(left - right)[alone, 1].mean() < 0.08
            uvd = np.column_stack((left, (left - right)[:, 0]))
            lifted = triangulate(torch.from_numpy(uvd), pair.calibration).numpy()
            assert np.linalg.norm(lifted - pair.xyz_m, axis=1)[alone].mean() < 1e-3
            # the same person as in the world, rigidly moved
            gaps = np.linalg.norm(world[:, None] - world, axis=-1)
            assert np.allclose(np.linalg.norm(pair.xyz_m[:, None] - pair.xyz_m, axis=-1), gaps)
            assert (pair.visibility == VISIBLE).all()
            assert pair.left[..., 2].max() < 0.8 * pair.left[..., 0].max()  # RGB of yellow


def test_boxes_are_round_the_joints(data_set):
    pair = next(found(data_set)[0][0].pairs())
    depth = pair.xyz_m[6, 2]
    margin = 0.12 * pair.calibration.fx.item() / depth
    shown = pixels(pair.xyz_m, pair.calibration)
    for box, uv in zip((pair.box_left, pair.box_right), shown, strict=True):
        assert np.allclose(box[:2], uv.min(0) - margin)
        assert np.allclose(box[:2] + box[2:] - 1, uv.max(0) + margin)
    assert pair.box_left[1] == pytest.approx(pair.box_right[1])
    assert 300 < pair.box_left[3] < 700


def test_left_is_the_camera_on_the_left_whatever_its_number(data_set):
    pairs = {recording.name[-3:]: recording.pair for recording in found(data_set)[0]}
    assert pairs == {'c24': (4, 2), 'c13': (1, 3)}


def test_the_disparity_of_a_person_fits_the_network(data_set):
    """32 heat-map pixels of 64 either way, with the box's own columns (architecture of H36M)."""
    for recording in found(data_set)[0]:
        for pair in recording.pairs():
            left, right = pixels(pair.xyz_m, pair.calibration)
            boxes = (pair.box_left, pair.box_right)
            side = max(max(box[2:]) for box in boxes)
            offset = [box[0] + box[2] / 2 for box in boxes]
            disparity = ((left - right)[:, 0] - (offset[0] - offset[1])) * 64 / side
            assert -31 <= disparity.min() < disparity.max() <= 32
            assert np.ptp(disparity) > 5


def test_a_joint_outside_a_raw_picture_is_outside(copy):
    poses = joints_mm()
    poses[2, 15, 2] = 4500  # the head, joint 9 of H36M_17
    write_poses(poses_path(copy), poses)
    _, pair, _ = found(copy)[0][0].pairs()
    assert (pair.visibility[:, 9] == OUTSIDE).all()
    assert (np.delete(pair.visibility, 9, axis=1) == VISIBLE).all()


def test_every_without_a_number_is_64_for_testing_and_5_for_training(copy):
    for name in ('MyPoseFeatures', 'Videos'):
        shutil.copytree(copy / 'S9' / name, copy / 'S5' / name)
    for video in (copy / 'S5' / 'Videos').iterdir():
        video.unlink()
    # subject 5's cameras stand elsewhere; only the numbers of frames count here
    for camera in (1, 2, 3, 4):
        shutil.copy(video_path(copy, camera), copy / 'S5' / 'Videos')
    recordings, problems = h36m_recordings(copy, subjects=(5, 9))
    assert problems == []
    assert {(r.split, r.every) for r in recordings} == {('train', 5), ('test', 64)}
    assert [len(list(r.pairs())) for r in recordings] == [1, 1, 1, 1]


def test_a_folder_of_pictures_stands_for_a_video(copy):
    expected = [list(r.pairs()) for r in found(copy)[0]]
    for camera in (1, 2, 3, 4):
        video = video_path(copy, camera)
        capture = cv2.VideoCapture(str(video))
        video.with_suffix('').mkdir()
        for frame in range(FRAMES):
            image = capture.read()[1]
            if frame % 2 == 0:  # the others are not asked for
                name = f'img_{frame + 1:06d}.jpg'
                cv2.imwrite(str(video.with_suffix('') / name), image)
        video.unlink()
    for recording, pairs in zip(found(copy)[0], expected, strict=True):
        for pair, other in zip(recording.pairs(), pairs, strict=True):
            assert np.array_equal(pair.xyz_m, other.xyz_m)
            assert np.abs(pair.left.astype(int) - other.left).mean() < 2


def test_prepare_writes_the_pairs_and_what_was_missing(copy, tmp_path):
    video_path(copy, 3).unlink()
    recordings, problems = found(copy, every=4)
    destination = tmp_path / 'prepared'
    result = prepare(recordings, destination, {'data_set': 'h36m'}, problems=problems)
    assert len(result.failures) == 1
    assert str(video_path(copy, 3)) in result.failures[0]
    assert result.counts()['test'] == {'recordings': 1, 'pairs': 2, 'occluded_pairs': 0}
    with np.load(destination / 'test' / 's09_directions_1_c24.npz') as arrays:
        assert arrays['h36m_xyz_m'].shape == (2, 1, 17, 3)
        expected = next(recordings[0].pairs())
        assert np.allclose(arrays['h36m_xyz_m'][0, 0], expected.xyz_m, atol=1e-6)
    assert (destination / 'checks' / 's09_directions_1_c24.jpg').stat().st_size > 1000


# ---- faults ----


def test_damaged_takes_are_a_switch(copy):
    for _, take in DAMAGED:
        shutil.copy(poses_path(copy), poses_path(copy, take))
        for camera in (1, 2, 3, 4):
            shutil.copy(video_path(copy, camera), video_path(copy, camera, take))
    assert {r.take for r in found(copy)[0]} == {TAKE, 'Greeting', 'SittingDown 1', 'Waiting 1'}
    assert {r.take for r in found(copy, damaged=False)[0]} == {TAKE}


def test_a_missing_video_leaves_out_its_pair_only(copy):
    video_path(copy, 2).unlink()
    recordings, problems = found(copy)
    assert [r.name for r in recordings] == ['s09_directions_1_c13']
    assert len(problems) == 1
    assert f'{video_path(copy, 2)} is missing, expected a video' in problems[0]


def test_a_file_that_is_no_video_is_named(copy):
    video_path(copy, 1).write_bytes(b'not a video' * 100)
    recordings, problems = found(copy)
    assert [r.name for r in recordings] == ['s09_directions_1_c24']
    assert problems == [
        f'{video_path(copy, 1)}: no video can be read, expected an .mp4; get it again'
    ]


def test_a_cut_video_is_named_with_both_counts(copy):
    poses = np.repeat(joints_mm(), 4, axis=0)
    write_poses(poses_path(copy), poses)
    for camera in (2, 3, 4):
        write_video(video_path(copy, camera), [picture(camera, poses[0, list(H36M_JOINTS)])] * 19)
    recordings, problems = found(copy)
    assert [(r.name, r.frames) for r in recordings] == [('s09_directions_1_c24', 19)]
    assert problems == [
        f'{video_path(copy, 1)}: 5 frames, expected the 20 of Directions 1.cdf; the video is cut, '
        f'get it again'
    ]


def test_a_longer_video_is_told_and_used(copy):
    pictures = [picture(4, joints_mm()[0, list(H36M_JOINTS)])] * 17
    write_video(video_path(copy, 4), pictures)
    recordings, problems = found(copy)
    assert [r.frames for r in recordings] == [5, 5]
    assert problems == [
        f'{video_path(copy, 4)}: 17 frames, expected the 5 of Directions 1.cdf; those after them '
        f'are left out'
    ]


def test_a_video_that_ends_before_its_header_says_stops_the_recording(copy):
    recordings, _ = found(copy)
    write_video(video_path(copy, 4), [picture(4, joints_mm()[0, list(H36M_JOINTS)])] * 3)
    pairs = recordings[0].pairs()
    next(pairs)
    next(pairs)
    with pytest.raises(DataError, match=r'60457274.mp4: the video ends at frame 3, expected fr'):
        next(pairs)


def test_a_picture_that_cannot_be_read_is_an_error_in_its_place(copy):
    video = video_path(copy, 3)
    capture = cv2.VideoCapture(str(video))
    video.with_suffix('').mkdir()
    for frame in range(FRAMES):
        image = capture.read()[1]
        if frame != 2:
            cv2.imwrite(str(video.with_suffix('') / f'img_{frame + 1:06d}.jpg'), image)
    pairs = list(found(copy)[0][1].pairs())
    assert [isinstance(pair, DataError) for pair in pairs] == [False, True, False]
    assert 'img_000003.jpg: no picture can be read' in str(pairs[1])


def test_pictures_of_another_size_are_named(copy):
    small = [np.zeros((500, 500, 3), np.uint8)] * FRAMES
    write_video(video_path(copy, 4), small)
    pairs = list(found(copy)[0][0].pairs())
    assert all('500x500 pixels, expected 1000x1002' in str(pair) for pair in pairs)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: path.write_bytes(b'no CDF at all, but text'), 'no positions can be read'),
        (lambda path: path.write_bytes(path.read_bytes()[:400]), 'no positions can be read'),
        (lambda path: write_poses(path, joints_mm(), 'Angles'), "expected a CDF with 'Pose'"),
        (
            lambda path: write_poses(path, joints_mm()[:, :, :2]),
            "'Pose' is 1x5x64, expected 1 x frames x 96",
        ),
        (lambda path: write_poses(path, joints_mm() * np.nan), 'not finite'),
        (lambda path: write_poses(path, joints_mm() / 1000), 'expected a person before both'),
        (
            lambda path: write_poses(path, joints_mm()[..., [0, 2, 1]] + (0, 0, 5000)),
            'not of D3_Positions_mono',
        ),
    ],
)
def test_positions_that_are_none_are_named_and_the_rest_goes_on(copy, damage, message):
    shutil.copy(poses_path(copy), poses_path(copy, 'Eating'))
    for camera in (1, 2, 3, 4):
        shutil.copy(video_path(copy, camera), video_path(copy, camera, 'Eating'))
    damage(poses_path(copy))
    recordings, problems = found(copy)
    assert {r.take for r in recordings} == {'Eating'}
    assert problems
    assert all(str(poses_path(copy)) in text for text in problems)
    assert message in problems[0]


def test_a_missing_subject_is_listed(copy):
    recordings, problems = found(copy, subjects=(9, 11))
    assert len(recordings) == 2
    assert problems == [
        f'{copy}/S11/MyPoseFeatures/D3_Positions has no .cdf, expected the positions of subject '
        f'11; unpack Poses_D3_Positions_S11.tgz there'
    ]


def test_a_folder_without_positions_is_refused(copy):
    with pytest.raises(DataError, match='S1/MyPoseFeatures/D3_Positions has no .cdf'):
        h36m_recordings(copy, subjects=(1, 5))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('<metadata></metadata>', 'no numbers <w0> of cameras'),
        ('<metadata><w0>[1 2 three]</w0></metadata>', 'no numbers <w0> of cameras'),
        ('<metadata><w0>[1 2', 'no numbers <w0> of cameras'),
        ('<metadata><w0>[1 2 3]</w0></metadata>', '3 numbers in <w0>, expected 300'),
    ],
)
def test_other_metadata_is_refused(copy, text, message):
    (copy / 'metadata.xml').write_text(text)
    with pytest.raises(DataError, match=f'metadata.xml: {message}'):
        found(copy)


def test_missing_metadata_is_refused(copy):
    (copy / 'metadata.xml').unlink()
    with pytest.raises(DataError, match='metadata.xml: No such file'):
        found(copy)


def test_a_calibration_in_metres_is_named(copy):
    write_metadata(copy / 'metadata.xml', OUTER * (1, 1, 1, 1e-3, 1e-3, 1e-3))
    recordings, problems = found(copy)
    assert recordings == []
    assert len(problems) == 2
    assert 'subject 9' in problems[0]
    assert 'm apart, expected about 3.8' in problems[0]


def test_options_that_cannot_be_are_refused(copy):
    with pytest.raises(ConfigError, match='every 0 frames, expected at least 1'):
        found(copy, every=0)
    with pytest.raises(ConfigError, match='subject 2 of Human3.6M has no published positions'):
        found(copy, subjects=(2,))
