"""A small Berkeley MHAD in its original formats: dots at the joints, seen by its four cameras."""

from pathlib import Path

import cv2
import numpy as np

from rsb_pose_core.datasets.mhad_files import JOINT_NAMES

WIDTH, HEIGHT = 640, 480
# The quad L1 as its published calibration has it: fx, fy, cx, cy; k1, k2, p1, p2; PosRel.
LENSES = np.array([
    (523.62481689, 524.78002930, 351.50247192, 225.29899597,
     -0.30726913, 0.11957706, 7.77966125e-6, -1.81283604e-3),
    (532.78863525, 533.49108887, 320.36187744, 231.61149597,
     -0.30525380, 0.11849667, -2.24173709e-5, -1.13707327e-3),
    (535.76379395, 536.48388672, 351.78421021, 258.91003418,
     -0.30206695, 0.10986967, 2.87068815e-5, -5.85383852e-4),
    (541.68511963, 542.19091797, 334.84011841, 229.06407166,
     -0.30782333, 0.12185945, -6.21398794e-4, -6.72762864e-4),
])  # fmt: skip
PLACES = np.array([
    (0, 0, 0, 0, 0, 0),
    (-113.23552704, -3.12581921, 5.35904837, 0.02384871, 0.10327590, 0.03027969),
    (-225.57591248, -8.37060165, 10.44907475, 0.06187005, 0.10036616, 0.03608300),
    (-331.18945313, -5.80678654, 43.41628647, 0.01283832, 0.17892610, 0.01941607),
])  # fmt: skip
ROOM_ROTATION = np.array([
    (0.895701051, 0.002872461, -0.444647521), (0.050160084, -0.994248986, 0.094619878),
    (-0.441818565, -0.107054681, -0.890693903),
])  # fmt: skip
ROOM_MM = np.array((-654.692443848, 1101.511840820, 3154.582519531))

# Offsets in centimetres of a person who stands along y, looks along z, arms out.
OFFSETS = {
    'Hips': (11.0, 95.0, -7.0), 'spine': (0, 9, 0), 'spine1': (0, 11, 0), 'spine2': (0, 12, 1),
    'Neck': (0, 18, -1), 'Head': (0, 11, 2), 'Head_end': (0, 17, 0),
    'Shoulder': (5, 13, 0), 'Arm': (12, 0, 0), 'ArmRoll': (14, 0, 0), 'ForeArm': (14, 0, 0),
    'ForeArmRoll': (12, 0, 0), 'Hand': (13, 0, 0), 'Hand_end': (9, 0, 0),
    'UpLeg': (10, -5, 0), 'UpLegRoll': (2, -20, 0), 'Leg': (1, -21, 0), 'LegRoll': (1, -20, 0),
    'Foot': (0, -19, -1), 'ToeBase': (0, -6, 13), 'ToeBase_end': (0, 0, 5),
}  # fmt: skip
STARTS = {'Shoulder': 'spine2', 'UpLeg': 'Hips'}
MOTION_FRAMES, EVERY_MOTION = 60, 7
PICTURES = (0, 3, 6)  # written; the correspondences name all from 0 to 7
BACKGROUND = (30, 70, 110)  # RGB
DOT_PX = 2.2


def parent_of(name: str) -> str | None:
    """The joint before a joint of JOINT_NAMES."""
    before = JOINT_NAMES[JOINT_NAMES.index(name) - 1]
    for side in ('Right', 'Left'):
        if name.startswith(side) and name[len(side) :] in STARTS:
            return STARTS[name[len(side) :]]
    return None if name == 'Hips' else before


def offset_cm(name: str) -> np.ndarray:
    """Right is towards negative x."""
    bare = name.removeprefix('Right').removeprefix('Left')
    sign = -1 if name.startswith('Right') else 1
    return np.array(OFFSETS[bare], float) * (sign, 1, 1)


def angles_deg(frame: int) -> dict[str, tuple[float, float, float]]:
    """Turns about z, then x, then y of some joints; the rest does not move."""
    swing = 25 * np.sin(frame / 9)
    return {
        'Hips': (2.0, -3.0, 28.0 + 10 * np.cos(frame / 11)),
        'spine1': (3.0, 4.0, -6.0),
        'RightArm': (18 + swing, 5.0, 12.0),
        'RightForeArm': (-30.0, 10.0, 25.0),
        'LeftArm': (-35 + swing, 8.0, -10.0),
        'LeftForeArm': (40.0, -5.0, -15.0),
        'RightUpLeg': (-9.0, -12.0, 0.0),
        'LeftUpLeg': (11.0, -20 + swing / 2, 0.0),
        'LeftLeg': (0.0, 25.0, 0.0),
    }


def root_cm(frame: int) -> np.ndarray:
    return np.array((-14 + 0.3 * frame, 93 + 2 * np.sin(frame / 5), 20 - 0.4 * frame))


def joints_m(frame: int) -> dict[str, np.ndarray]:
    """Where all 35 joints are in the room, by plain matrices: the oracle of the reader."""
    axes = {'z': (0, 0, 1), 'x': (1, 0, 0), 'y': (0, 1, 0)}
    turns, places = {}, {}
    for name in JOINT_NAMES:
        own = np.eye(3)
        for axis, angle in zip('zxy', angles_deg(frame).get(name, (0, 0, 0)), strict=True):
            own = own @ cv2.Rodrigues(np.radians(angle) * np.array(axes[axis], float))[0]
        parent = parent_of(name)
        if parent is None:
            turns[name], places[name] = own, root_cm(frame)
        else:
            turns[name] = turns[parent] @ own
            places[name] = places[parent] + turns[parent] @ moved_cm(name, frame)
    return {name: place / 100 for name, place in places.items()}


def moved_cm(name: str, frame: int) -> np.ndarray:
    """The neck has position channels, and they are not its OFFSET."""
    return offset_cm(name) + ((0, 0.02 * frame, 0) if name == 'Neck' else (0, 0, 0))


def bvh_text(frames: int = MOTION_FRAMES, drop: str = '') -> str:
    """A whole file; without the joint `drop` and what hangs on it."""
    children: dict[str | None, list[str]] = {}
    for name in JOINT_NAMES:
        if drop and name.startswith(drop):
            continue
        children.setdefault(parent_of(name), []).append(name)
    order: list[str] = []

    def block(name: str, depth: int) -> list[str]:
        tab = '\t' * depth
        offset = ' '.join(f'{v:.4f}' for v in offset_cm(name))
        if name.endswith('_end'):
            return [f'{tab}End Site', tab + '{', f'{tab}\tOFFSET {offset}', tab + '}']
        order.append(name)
        places = 'Xposition Yposition Zposition ' if name in ('Hips', 'Neck') else ''
        count = 6 if places else 3
        kind = 'ROOT' if name == 'Hips' else 'JOINT'
        lines = [f'{tab}{kind} {name}', tab + '{', f'{tab}\tOFFSET {offset}']
        lines += [f'{tab}\tCHANNELS {count} {places}Zrotation Xrotation Yrotation']
        for child in children.get(name, []):
            lines += block(child, depth + 1)
        return [*lines, tab + '}']

    lines = ['HIERARCHY', *block('Hips', 0), 'MOTION', f'Frames: {frames}']
    lines += ['Frame Time: 0.002083']
    for frame in range(frames):
        values: list[float] = []
        for name in order:
            if name in ('Hips', 'Neck'):
                values += list(root_cm(frame) if name == 'Hips' else moved_cm(name, frame))
            values += angles_deg(frame).get(name, (0, 0, 0))
        lines.append(' '.join(f'{value:.6f}' for value in values))
    return '\n'.join(lines) + '\n'


def calibration_text(cameras: int = 4) -> str:
    lines = ['%YAML:1.0', f'Number of cameras: {cameras}']
    for number in range(cameras):
        fx, fy, cx, cy, *lens = LENSES[number]
        lines += [f'Camera_{number + 1}:', f'   imgWidth: {WIDTH}', f'   imgHeight: {HEIGHT}']
        shapes = {'K': (3, 3), 'Dist': (4, 1), 'PosRel': (6, 1)}
        values = {'K': (fx, 0, cx, 0, fy, cy, 0, 0, 1), 'Dist': lens, 'PosRel': PLACES[number]}
        for name, (rows, columns) in shapes.items():
            data = ', '.join(f'{value:.8e}' for value in values[name])
            lines += [f'   {name}: !!opencv-matrix', f'      rows: {rows}']
            lines += [f'      cols: {columns}', '      dt: f', f'      data: [ {data} ]']
    return '\n'.join(lines) + '\n'


def room_text() -> str:
    rotation = ' '.join(f'{value:.9f}' for value in ROOM_ROTATION.ravel())
    return f'Rw={rotation} \nTw={" ".join(f"{value:.9f}" for value in ROOM_MM)} \n'


def to_camera(camera: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation, and translation in metres, from the room to camera 1..4."""
    turn = cv2.Rodrigues(PLACES[camera - 1, 3:])[0]
    return turn @ ROOM_ROTATION, (turn @ ROOM_MM + PLACES[camera - 1, :3]) / 1000


def raw_pixels(xyz_m: np.ndarray, camera: int) -> np.ndarray:
    """Where a camera's raw picture shows points (N, 3) of the room, (N, 2)."""
    rotation, translation = to_camera(camera)
    fx, fy, cx, cy, *lens = LENSES[camera - 1]
    k = np.array([(fx, 0, cx), (0, fy, cy), (0, 0, 1)])
    turn = cv2.Rodrigues(rotation)[0]
    return cv2.projectPoints(xyz_m, turn, translation, k, np.array(lens))[0].reshape(-1, 2)


def dots(xyz_m: np.ndarray, camera: int) -> np.ndarray:
    """Raw RGB picture of white dots before a plain background."""
    picture = np.tile(np.array(BACKGROUND, float), (HEIGHT, WIDTH, 1))
    for spot in raw_pixels(xyz_m, camera):
        column, row = (max(round(value - 6 * DOT_PX), 0) for value in spot)
        part = picture[row : row + round(12 * DOT_PX), column : column + round(12 * DOT_PX)]
        v, u = np.mgrid[row : row + part.shape[0], column : column + part.shape[1]]
        bright = np.exp(-((u - spot[0]) ** 2 + (v - spot[1]) ** 2) / (2 * DOT_PX**2))
        part += bright[..., None] * (255 - part)
    return picture


def mosaic(rgb: np.ndarray) -> np.ndarray:
    """What a sensor sees of it: green, red, ... above blue, green, ..."""
    raw = rgb[..., 1].copy()
    raw[::2, 1::2] = rgb[::2, 1::2, 0]
    raw[1::2, ::2] = rgb[1::2, ::2, 2]
    return raw.round().astype(np.uint8)


def write_pgm(path: Path, raw: np.ndarray) -> None:
    height, width = raw.shape
    path.write_bytes(b'P5\n%d %d\n255\n' % (width, height) + raw.tobytes())


def write_mhad(folder: Path, takes: tuple[tuple[int, int, int], ...], joints: list[str]) -> None:
    """The data set with dots at `joints` in takes of (subject, action, repetition)."""
    for name in ('Calibration', 'Camera/Correspondences', 'Mocap/SkeletalData'):
        (folder / name).mkdir(parents=True)
    (folder / 'Calibration' / 'camcfg_l01.yml').write_text(calibration_text())
    (folder / 'Calibration' / 'RwTw_l01.txt').write_text(room_text())
    spots = {}
    for frame in PICTURES:
        places = joints_m(motion_frame(frame))
        spots[frame] = np.stack([places[name] for name in joints])
    raws = {(f, c): mosaic(dots(spots[f], c)) for f in PICTURES for c in (1, 2, 3, 4)}
    for subject, action, repetition in takes:
        take = f's{subject:02d}_a{action:02d}_r{repetition:02d}'
        (folder / 'Mocap' / 'SkeletalData' / f'skl_{take}.bvh').write_text(bvh_text())
        rows = [f'{n} {n / 22:.4f} {motion_frame(n)}' for n in range(8)]
        corr = folder / 'Camera' / 'Correspondences' / f'corr_moc_img_{take}.txt'
        corr.write_text('\n'.join(rows) + '\n')
        for camera in (1, 2, 3, 4):
            place = f'S{subject:02d}/A{action:02d}/R{repetition:02d}'
            pictures = folder / 'Camera' / 'Cluster01' / f'Cam{camera:02d}' / place
            pictures.mkdir(parents=True)
            for frame in PICTURES:
                name = f'img_l01_c{camera:02d}_{take}_{frame:05d}.pgm'
                write_pgm(pictures / name, raws[frame, camera])


def motion_frame(picture: int) -> int:
    """Which frame of the motion belongs to a picture."""
    return 4 + EVERY_MOTION * picture
