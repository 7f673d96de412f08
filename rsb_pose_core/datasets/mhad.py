"""Berkeley MHAD: recordings of two stereo pairs of its quad camera L1, from the original files.

F. Ofli, R. Chaudhry, G. Kurillo, R. Vidal and R. Bajcsy, "Berkeley MHAD: A Comprehensive
Multimodal Human Action Database" (WACV 2013); https://tele-immersion.citris-uc.org/berkeley_mhad.
What its files hold and how that is known: mhad_files. As RSB-Pose has it (Sec. IV-A1), cameras 1
and 3 are a pair, 2 and 4 the other, and subjects 8 and 11 are for testing; as its authors have
it, every third picture counts. The authors ignore the lenses' distortion (k1 about -0.31), these
pictures are free of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.datasets.mhad_files import (
    check_pair,
    read_bayer,
    read_cameras,
    read_correspondences,
    read_motion,
)
from rsb_pose_core.datasets.mhad_occlusion import OcclusionRule, visibility_codes
from rsb_pose_core.datasets.prepared import PreparedPair, Recording, box_of_joints, pixels
from rsb_pose_core.errors import ConfigError, DataError
from rsb_pose_core.stereo_rectification import Camera, RectifiedPair, rectify_pair

CAMERAS = (1, 2, 3, 4)
PAIRS = ((1, 3), (2, 4))  # the left one first
SUBJECTS, ACTIONS, REPETITIONS = range(1, 13), range(1, 12), range(1, 6)
TEST_SUBJECTS = (8, 11)
BOX_MARGIN_PX = 20.0  # round the joints, as the authors take it


@dataclass(frozen=True)
class MhadOptions:
    """What is taken of the data set: every n-th picture, how rectified, and of what joints."""

    rectification: str = 'bouguet'
    every: int = 3
    authors_wrist: bool = False
    occlusion: OcclusionRule = field(default_factory=OcclusionRule)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f'every {self.every} pictures, expected at least 1; take 3')


@dataclass(frozen=True, eq=False)
class MhadRecording:
    """One repetition of an action, seen by one pair of cameras."""

    source: Path
    subject: int
    action: int
    repetition: int
    pair: tuple[int, int]
    cameras: tuple[Camera, Camera]
    options: MhadOptions

    @property
    def name(self) -> str:
        return f'{self.take}_c{self.pair[0]}{self.pair[1]}'

    @property
    def take(self) -> str:
        """As the data set's files name it: 's08_a03_r02'."""
        return f's{self.subject:02d}_a{self.action:02d}_r{self.repetition:02d}'

    @property
    def split(self) -> str:
        return 'test' if self.subject in TEST_SUBJECTS else 'train'

    @property
    def correspondences(self) -> Path:
        return self.source / 'Camera' / 'Correspondences' / f'corr_moc_img_{self.take}.txt'

    @property
    def motion(self) -> Path:
        return self.source / 'Mocap' / 'SkeletalData' / f'skl_{self.take}.bvh'

    def folder(self, camera: int) -> Path:
        """Where the pictures of a camera are."""
        return picture_folder(self.source, camera, self.subject, self.action, self.repetition)

    def picture(self, camera: int, frame: int) -> Path:
        """A picture of camera 1..4."""
        return self.folder(camera) / f'img_l01_c{camera:02d}_{self.take}_{frame:05d}.pgm'

    def pairs(self) -> Iterator[PreparedPair | DataError]:
        """The pairs, and a DataError for each that cannot be read."""
        rectified = rectify_pair(*self.cameras, self.options.rectification)
        rows = read_correspondences(self.correspondences)
        rows = rows[rows[:, 0] % self.options.every == 0]
        poses = self._poses_m(rows[:, 1])
        for frame, pose_m in zip(rows[:, 0].tolist(), poses, strict=True):
            try:
                raw = [
                    read_bayer(self.picture(number, frame), (camera.width, camera.height))
                    for number, camera in zip(self.pair, self.cameras, strict=True)
                ]
            except DataError as error:
                yield error
                continue
            yield self._pair(rectified, raw, pose_m)

    def _poses_m(self, frames: Int[np.ndarray, ' n']) -> Float[np.ndarray, 'n 17 3']:
        """Joints in metres, in the room, of frames of the motion."""
        poses = read_motion(self.motion, self.options.authors_wrist)
        last = int(frames.max(initial=-1))
        if last >= len(poses):
            raise DataError(
                f'{self.motion}: {len(poses)} frames, expected at least {last + 1} as '
                f'{self.correspondences.name} says; get the file again'
            )
        return np.asarray(poses[frames])

    def _pair(
        self,
        rectified: RectifiedPair,
        raw: Sequence[NDArray[np.uint8]],
        pose_m: Float[np.ndarray, '17 3'],
    ) -> PreparedPair:
        left, right = rectified.rectify(raw[0], raw[1])
        xyz_m = rectified.to_rectified(pose_m)
        calibration = rectified.calibration
        boxes = [box_of_joints(uv, BOX_MARGIN_PX) for uv in pixels(xyz_m, calibration)]
        codes = visibility_codes(xyz_m, calibration, rectified.valid, self.options.occlusion)
        return PreparedPair(left, right, xyz_m, codes, boxes[0], boxes[1], calibration)


def mhad_recordings(
    source: Path, options: MhadOptions | None = None, subjects: Sequence[int] | None = None
) -> tuple[list[Recording], list[str]]:
    """The recordings below a folder, and a sentence for each that lacks files.

    Raises DataError where the folder holds no MHAD or no calibration can be read.
    """
    options = options or MhadOptions()
    unknown = sorted(set(subjects or ()) - set(SUBJECTS))
    if unknown:
        raise ConfigError(f'MHAD has no subject {unknown[0]}, expected 1 to 12')
    cameras = read_cameras(source / 'Calibration')
    found: list[Recording] = []
    problems: list[str] = []
    pairs = []
    for left, right in PAIRS:
        pair = (cameras[left - 1], cameras[right - 1])
        try:
            check_pair(rectify_pair(*pair, options.rectification).calibration)
            pairs.append(((left, right), pair))
        except CalibrationError as error:
            problems.append(f'{source / "Calibration"}, cameras {left} and {right}: {error}')
    for subject in SUBJECTS if subjects is None else subjects:
        takes = [
            (action, repetition)
            for action, repetition in product(ACTIONS, REPETITIONS)
            if any(
                picture_folder(source, camera, subject, action, repetition).is_dir()
                for camera in CAMERAS
            )
        ]
        if not takes and subjects is not None:
            problems.append(
                f'{picture_folder(source, 1, subject, 1, 1)} and the like are missing, expected '
                f'the pictures of subject {subject}; unpack them there'
            )
        for (action, repetition), (numbers, pair) in product(takes, pairs):
            recording = MhadRecording(source, subject, action, repetition, numbers, pair, options)
            missing = _missing(recording)
            if missing:
                problems.append(f'{recording.name}: {missing}')
            else:
                found.append(recording)
    if not found and not problems:
        raise DataError(
            f'{source}: no folder Camera/Cluster01/Cam01/S01/A01/R01 or the like, expected the '
            f'pictures of Berkeley MHAD; unpack its archives there'
        )
    return found, problems


def picture_folder(source: Path, camera: int, subject: int, action: int, repetition: int) -> Path:
    """Where the pictures of a camera of the quad are."""
    take = Path(f'S{subject:02d}') / f'A{action:02d}' / f'R{repetition:02d}'
    return source / 'Camera' / 'Cluster01' / f'Cam{camera:02d}' / take


def _missing(recording: MhadRecording) -> str | None:
    """What a recording lacks, in a sentence."""
    for camera in recording.pair:
        folder = recording.folder(camera)
        if not any(folder.glob('*.pgm')):
            others = sorted({path.suffix for path in folder.glob('img_*')})
            instead = f', only {", ".join(others)}' if others else ''
            return (
                f'{folder} has no .pgm{instead}, expected the pictures of camera {camera} as '
                f'published; unpack them there'
            )
    for path in (recording.correspondences, recording.motion):
        if not path.is_file():
            return f'{path} is missing, expected beside the pictures; unpack it there'
    return None
