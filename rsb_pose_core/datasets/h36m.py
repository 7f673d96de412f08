"""Human3.6M: recordings of two pairs of its cameras, from the original files.

C. Ionescu, D. Papava, V. Olaru and C. Sminchisescu, "Human3.6M: Large Scale Datasets and
Predictive Methods for 3D Human Sensing in Natural Environments" (TPAMI 2014);
http://vision.imar.ro/human3.6m. What its files hold and how that is known: h36m_files. As
RSB-Pose has it (Sec. IV-A1), cameras 2 and 4 are a pair, 1 and 3 the other, subjects 1, 5, 6, 7
and 8 train and 9 and 11 test. Each subject has a calibration, and so a rectification, of its own.

Pairs converge by 45 degrees on baselines of 3.7 to 3.9 m. Camera 4 stands 1.3 m before camera 2,
so that a rectified camera 2 looks 43 degrees aside. People of the capture space whom both cameras
see whole are 260 to 980 pixels high there, and reach from -33 to 27 heat-map pixels of disparity
of 64 in their box: just the network's -31 to 32. Both rectifications differ little.

The authors undistort to 1000x1000 pixels first and then rectify; here one step does both. Their
boxes are the data set's, round its silhouettes; here they are round the joints.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from tqdm import tqdm

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.datasets.h36m_files import (
    CAMERAS,
    count_frames,
    read_cameras,
    read_frames,
    read_poses,
)
from rsb_pose_core.datasets.prepared import (
    PreparedPair,
    Recording,
    box_of_joints,
    pixels,
    reached,
)
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.stereo_rectification import (
    Camera,
    RectifiedPair,
    left_camera_first,
    rectify_pair,
)
from rsb_pose_core.synthesis.labels import OUTSIDE, VISIBLE

PAIRS = ((2, 4), (1, 3))  # of CAMERAS, from 1
TRAIN_SUBJECTS, TEST_SUBJECTS = (1, 5, 6, 7, 8), (9, 11)
SUBJECTS = TRAIN_SUBJECTS + TEST_SUBJECTS
# Takes whose positions are known not to fit their videos.
DAMAGED = ((9, 'Greeting'), (9, 'SittingDown 1'), (9, 'Waiting 1'))
# Every 64th frame of a test video is common since "Compositional Human Pose Regression" (Sun et
# al. 2017), and likely the choice of the authors, who have 2181: the 60 takes of S9 and S11 with
# 137,617 frames (others count 135,836, with 1,612 of the 3,393 of S9's damaged 'Waiting 1'), each
# begun with its first, give 137,617 / 64 + 60 / 2 = 2180 on average.
EVERY = {'train': 5, 'test': 64}
SPARE_FRAMES = 10  # by which video and positions may differ in length
BOX_MARGIN_M = 0.12  # round the joints, which end at wrists and ankles
BASELINE_M = (2.0, 6.0)
PERSON_M = (0.4, 3.5)  # diagonal of the box round the joints


@dataclass(frozen=True, eq=False)
class H36mRecording:
    """One take of a subject, seen by one pair of cameras.

    take: as its files are named, 'Directions 1'; pair: the left camera's number in the paper, and
    the right one's; frames: how many have positions and pictures.
    """

    source: Path
    subject: int
    take: str
    pair: tuple[int, int]
    cameras: tuple[Camera, Camera]
    frames: int
    every: int
    rectification: str

    @property
    def name(self) -> str:
        take = self.take.lower().replace(' ', '_')
        return f's{self.subject:02d}_{take}_c{min(self.pair)}{max(self.pair)}'

    @property
    def split(self) -> str:
        return _split(self.subject)

    def pairs(self) -> Iterator[PreparedPair | DataError]:
        """The pairs, and a DataError for each that cannot be read."""
        rectified = rectify_pair(*self.cameras, self.rectification)
        poses_m = read_poses(positions_path(self.source, self.subject, self.take))
        numbers = range(0, self.frames, self.every)
        views = [
            read_frames(
                video_path(self.source, self.subject, self.take, number),
                numbers,
                (camera.width, camera.height),
            )
            for number, camera in zip(self.pair, self.cameras, strict=True)
        ]
        for number, left, right in zip(numbers, *views, strict=True):
            if isinstance(left, DataError):
                yield left
            elif isinstance(right, DataError):
                yield right
            else:
                yield _pair(rectified, left, right, poses_m[number])


def h36m_recordings(
    source: Path,
    *,
    rectification: str = 'bouguet',
    every: int | None = None,
    damaged: bool = True,
    subjects: Sequence[int] = SUBJECTS,
) -> tuple[list[Recording], list[str]]:
    """The recordings below a folder, and a sentence for each that is missing or odd.

    every: take every n-th frame (None: of EVERY); damaged: with the takes of DAMAGED, which the
    authors' count of test frames includes; subjects: some of SUBJECTS.

    Raises DataError where the folder holds no calibration or no positions, and ConfigError for
    options that cannot be.
    """
    if every is not None and every < 1:
        raise ConfigError(f'every {every} frames, expected at least 1; take 64 for testing')
    unknown = sorted(set(subjects) - set(SUBJECTS))
    if unknown:
        raise ConfigError(
            f'subject {unknown[0]} of Human3.6M has no published positions, expected some of '
            f'{", ".join(map(str, SUBJECTS))}'
        )
    cameras = read_cameras(source / 'metadata.xml')
    found: list[Recording] = []
    problems: list[str] = []
    takes = []
    for subject in subjects:
        folder = positions_path(source, subject, '').parent
        names = sorted(path.stem for path in folder.glob('*.cdf'))
        takes += [(subject, n) for n in names if damaged or (subject, n) not in DAMAGED]
        if not names:
            problems.append(
                f'{folder} has no .cdf, expected the positions of subject {subject}; unpack '
                f'Poses_D3_Positions_S{subject}.tgz there'
            )
    if not takes:
        raise DataError(problems[0] if problems else f'{source}: only damaged takes, add others')
    rectified = {}
    for subject in dict.fromkeys(subject for subject, _ in takes):
        rectified[subject] = _rectified(cameras[subject - 1], rectification, problems, subject)
    for subject, take in tqdm(takes, desc='look through Human3.6M', unit='take'):
        try:
            poses_m = read_poses(positions_path(source, subject, take))
        except DataError as error:
            problems.append(str(error))
            continue
        for pair, views in rectified[subject].items():
            path = positions_path(source, subject, take)
            videos = [video_path(source, subject, take, number) for number in pair]
            try:
                _check_seen(path, poses_m[0], views)
                frames = _usable_frames(path, videos, len(poses_m), problems)
            except DataError as error:
                problems.append(str(error))
                continue
            step = EVERY[_split(subject)] if every is None else every
            both = (views.left, views.right)
            found.append(
                H36mRecording(source, subject, take, pair, both, frames, step, rectification)
            )
    return found, list(dict.fromkeys(problems))


def positions_path(source: Path, subject: int, take: str) -> Path:
    """Of the joints' positions in the world."""
    return source / f'S{subject}' / 'MyPoseFeatures' / 'D3_Positions' / f'{take}.cdf'


def video_path(source: Path, subject: int, take: str, camera: int) -> Path:
    """Of what camera 1..4 of the paper took."""
    return source / f'S{subject}' / 'Videos' / f'{take}.{list(CAMERAS)[camera - 1]}.mp4'


def _split(subject: int) -> str:
    return 'test' if subject in TEST_SUBJECTS else 'train'


def _rectified(
    cameras: Sequence[Camera], rectification: str, problems: list[str], subject: int
) -> dict[tuple[int, int], RectifiedPair]:
    """Rectified views of a subject's pairs, by the left and the right camera's number."""
    views = {}
    for numbers in PAIRS:
        first, second = (cameras[number - 1] for number in numbers)
        left, right = left_camera_first(first, second)
        pair = numbers if left is first else (numbers[1], numbers[0])
        try:
            rectified = rectify_pair(left, right, rectification)
            baseline_m = float(rectified.calibration.baseline_m)
            if not BASELINE_M[0] < baseline_m < BASELINE_M[1]:
                raise CalibrationError(
                    f'the cameras stand {baseline_m:g} m apart, expected about 3.8; get the '
                    f'metadata.xml of Release-v1.1'
                )
            views[pair] = rectified
        except CalibrationError as error:
            problems.append(f'metadata.xml, subject {subject}, cameras {pair}: {error}')
    return views


def _check_seen(path: Path, pose_m: Float[np.ndarray, '17 3'], views: RectifiedPair) -> None:
    """Raises DataError for a first pose that is no person whom both cameras see by half."""
    size_m = float(np.linalg.norm(np.ptp(pose_m, axis=0)))
    codes = _codes(views.to_rectified(pose_m), views)
    seen = float((codes == VISIBLE).mean(axis=1).min())
    if not PERSON_M[0] < size_m < PERSON_M[1] or seen < 0.5:
        raise DataError(
            f'{path}: its first pose is {size_m:.3g} m across with {seen:.0%} of the joints '
            f'before the {views.left.name} and the {views.right.name}, expected a person before '
            f'both, in the world, in mm; take the CDF of D3_Positions, not of D3_Positions_mono'
        )


def _usable_frames(path: Path, videos: Sequence[Path], poses: int, problems: list[str]) -> int:
    """Frames with positions and both pictures. Raises DataError for a missing or cut video."""
    frames = poses
    for video in videos:
        count = count_frames(video)
        if count is None:
            continue
        if count < poses - SPARE_FRAMES:
            raise DataError(
                f'{video}: {count} frames, expected the {poses} of {path.name}; the video is '
                f'cut, get it again'
            )
        if count > poses + SPARE_FRAMES:
            problems.append(
                f'{video}: {count} frames, expected the {poses} of {path.name}; those after '
                f'them are left out'
            )
        frames = min(frames, count)
    return frames


def _pair(
    rectified: RectifiedPair,
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    pose_m: Float[np.ndarray, '17 3'],
) -> PreparedPair:
    """pose_m: in the world."""
    pictures = rectified.rectify(left, right)
    xyz_m = rectified.to_rectified(pose_m)
    calibration = rectified.calibration
    margin_px = BOX_MARGIN_M * float(calibration.fx) / float(xyz_m[H36M_17.root, 2])
    boxes = [box_of_joints(uv, margin_px) for uv in pixels(xyz_m, calibration)]
    codes = _codes(xyz_m, rectified)
    return PreparedPair(*pictures, xyz_m, codes, boxes[0], boxes[1], calibration)


def _codes(xyz_m: Float[np.ndarray, '17 3'], views: RectifiedPair) -> UInt8[np.ndarray, '2 17']:
    """VISIBLE, as the data set knows no other, but OUTSIDE where a view does not reach."""
    views_uv = pixels(xyz_m, views.calibration)
    inside = [reached(uv, shown) for uv, shown in zip(views_uv, views.valid, strict=True)]
    return np.where(np.stack(inside), VISIBLE, OUTSIDE).astype(np.uint8)
