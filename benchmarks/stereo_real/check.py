"""Does the overlay lie on the man? A real stereo head, calibrated from its pictures of a board.

Printed are the calibration, how well rows agree after rectification, what the node would do with
the pair, and where found joints lie beside those clicked by hand. overlay.png shows it all.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from boards import HeadCalibration, calibrate_head, find_corners, row_differences
from numpy.typing import NDArray
from tqdm import tqdm

from rsb_pose_core.detection.boxes import Box, intersection_over_union
from rsb_pose_core.drawing import side_by_side, skeleton_figure
from rsb_pose_core.errors import DataError, RsbPoseError
from rsb_pose_core.geometry import triangulate
from rsb_pose_core.people import PersonPose
from rsb_pose_core.pipeline import PipelineSettings, load_pipeline
from rsb_pose_core.rectification import StereoRectifier
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.tracking import PersonGate

PATTERN = (8, 5)
UNMISTAKABLE = 0.7  # a match's distance by that of the second best (Lowe 2004)
BOARDS, PAIR = 'source_images_stereo_synced', 'testing'
# Shares of the body height (Drillis and Contini 1966; biacromial width: Pheasant 1996).
BONES = {
    'right upper arm': ('right_shoulder', 'right_elbow', 0.186),
    'left upper arm': ('left_shoulder', 'left_elbow', 0.186),
    'right forearm': ('right_elbow', 'right_wrist', 0.146),
    'left forearm': ('left_elbow', 'left_wrist', 0.146),
    'shoulders': ('right_shoulder', 'left_shoulder', 0.226),
}
HEIGHT_M = 1.75  # of a man whose bones are plausible
# A gate that lets everything pass: to see what the network makes of a box.
OPEN_GATE = PersonGate(0.0, 0.0, 0, 1e3, 1e3, 1.0, 0.0, 1e3)

Image = NDArray[np.uint8]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class GivenBox:
    """A detector that always says the same."""

    box: Box

    def detect(self, rgb: Image) -> list[Box]:
        return [self.box]


def read_rgb(path: Path) -> Image:
    bgr = cv2.imread(str(path))
    if bgr is None:
        raise DataError(
            f'{path}: no picture can be read; give the folder with {BOARDS} and {PAIR}'
        )
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def calibrate(folder: Path, square_m: float) -> HeadCalibration:
    """From all board pairs; prints what came out."""
    pairs: list[list[NDArray[np.float32]]] = []
    numbers = sorted(int(path.stem[7:]) for path in (folder / BOARDS).glob('ImgLeft*.png'))
    size = (0, 0)
    for number in tqdm(numbers, 'boards'):
        views = [
            read_rgb(folder / BOARDS / f'Img{side}{number}.png') for side in ('Left', 'Right')
        ]
        size = views[0].shape[1::-1]
        corners = [find_corners(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), PATTERN) for view in views]
        if corners[0] is not None and corners[1] is not None:
            pairs.append([corners[0], corners[1]])
    left, right = ([pair[view] for pair in pairs] for view in (0, 1))
    head = calibrate_head(left, right, PATTERN, square_m, size)
    baseline_m = -head.right.p[0, 3] / head.right.p[0, 0]
    rows = row_differences(head, left, right)
    print(f'calibration from {len(pairs)} of {len(numbers)} pairs: rms {head.rms_px:.3f} px')
    for camera in (head.left, head.right):
        print(
            f'  {camera.name}: fx {camera.k[0, 0]:.1f}, fy {camera.k[1, 1]:.1f}, '
            f'centre ({camera.k[0, 2]:.1f}, {camera.k[1, 2]:.1f}), D {np.round(camera.d, 4)}'
        )
    print(
        f'  baseline {baseline_m / square_m:.2f} squares: {baseline_m:.3f} m of the ASSUMED scale'
    )
    print(f'  rows of board corners: {spread(rows)}')
    return head


def matched_rows(left: Image, right: Image) -> Array:
    """Row differences of features that both rectified views of the pair show."""
    sift = cv2.SIFT_create()
    found = [sift.detectAndCompute(view, None) for view in (left, right)]
    rows = []
    for best, second in cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2):
        row_left, row_right = (
            found[0][0][best.queryIdx].pt[1], found[1][0][best.trainIdx].pt[1]
        )  # fmt: skip
        if best.distance < UNMISTAKABLE * second.distance and abs(row_left - row_right) < 20:
            rows.append(row_left - row_right)
    return np.array(rows)


def spread(rows: Array) -> str:
    size = np.abs(rows)
    return (
        f'median |difference| {np.median(size):.2f} px, 90 % within '
        f'{np.quantile(size, 0.9):.2f} px, median {np.median(rows):+.2f} px, of {len(rows)}'
    )


def clicked_joints(rectifier: StereoRectifier) -> tuple[Array, Array]:
    """Hand-clicked joints (17, 2) in both rectified views; NaN where there is none."""
    labels = json.loads((Path(__file__).parent / 'joints.json').read_text())
    views = []
    for side, camera in (('left', rectifier.left), ('right', rectifier.right)):
        uv = np.full((len(H36M_17), 2), np.nan)
        names = list(labels[side])
        uv[[H36M_17.index(name) for name in names]] = camera.rectify_points(
            np.array([labels[side][name] for name in names], np.float64)
        )
        views.append(uv)
    return views[0], views[1]


def lift(clicked: tuple[Array, Array], rectifier: StereoRectifier) -> Array:
    """Clicked joints (17, 3) in metres, rows averaged."""
    left, right = clicked
    uvd = np.column_stack([left[:, 0], (left + right)[:, 1] / 2, (left - right)[:, 0]])
    return triangulate(torch.from_numpy(uvd), rectifier.calibration).numpy()


def bone_table(xyz_m: Array | None, clicked_m: Array) -> str:
    """Lengths in metres at the assumed scale, beside those of a man of HEIGHT_M."""

    def length(pose: Array | None, a: str, b: str) -> float:
        if pose is None:
            return float('nan')
        return float(np.linalg.norm(pose[H36M_17.index(a)] - pose[H36M_17.index(b)]))

    lines = ['bone               found  clicked  plausible, m']
    ratios = []
    for name, (a, b, share) in BONES.items():
        found, clicked = length(xyz_m, a, b), length(clicked_m, a, b)
        ratios.append(clicked / (share * HEIGHT_M))
        lines.append(f'{name:17s} {found:6.2f} {clicked:8.2f} {share * HEIGHT_M:10.2f}')
    lines.append(f'clicked / plausible: median {np.median(ratios):.2f} (1: the scale is right)')
    return '\n'.join(lines)


def judged(person: PersonPose, clicked: tuple[Array, Array]) -> str:
    """Distance from the clicked joints in torso lengths, both views."""
    torso = [
        np.linalg.norm(
            uv[[H36M_17.index('right_shoulder'), H36M_17.index('left_shoulder')]].mean(0)
            - uv[[H36M_17.index('right_hip'), H36M_17.index('left_hip')]].mean(0)
        )
        for uv in clicked
    ]
    off = [
        np.linalg.norm(uv - true, axis=1) / length
        for uv, true, length in zip((person.uv_left, person.uv_right), clicked, torso, strict=True)
    ]
    lines = ['joint             off by, torso lengths: left  right']
    for joint in np.flatnonzero(np.isfinite(clicked[0]).all(1)):
        lines.append(f'{H36M_17.joint_names[joint]:37s} {off[0][joint]:7.2f} {off[1][joint]:6.2f}')
    both = np.concatenate([view[np.isfinite(clicked[0]).all(1)] for view in off])
    within = float((both < 0.2).mean())  # NaN, a missing joint, is a miss
    lines.append(f'within 0.2 torso lengths in both views: {within:.0%}')
    return '\n'.join(lines)


def picture(
    left: Image, right: Image, people: list[PersonPose], clicked: tuple[Array, Array],
    clicked_m: Array, title: str,
) -> Image:  # fmt: skip
    """Both views with skeletons and clicked joints, and the skeletons in space."""
    views = side_by_side(left, right, people)
    for number, uv in enumerate(clicked):
        for u, v in uv[np.isfinite(uv).all(1)] + (number * left.shape[1], 0):
            for color, width in (((0, 0, 0), 4), ((60, 230, 90), 2)):
                cv2.drawMarker(views, (round(u), round(v)), color, cv2.MARKER_DIAMOND, 9, width)
    space = skeleton_figure(
        [person.xyz_m for person in people], [clicked_m], title=title,
        size=(views.shape[1], 600),
    )  # fmt: skip
    return np.concatenate([views, space])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help=f'frames: holds {BOARDS} and {PAIR}')
    parser.add_argument('--weights', type=Path, required=True, help='.safetensors of RSB-Pose')
    parser.add_argument(
        '--square-mm', type=float, default=60.0,
        help="side of the board's squares; unknown, assumed (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        '--box', type=float, nargs=4, metavar=('X', 'Y', 'WIDTH', 'HEIGHT'),
        help='of the man in the rectified left view, instead of the detector; if it finds nobody '
        'and this is not given, the box round the clicked joints',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, default=Path('.'), help='where overlay.png goes')
    args = parser.parse_args()
    try:
        run(args)
    except (RsbPoseError, OSError) as error:
        print(f'check.py: {error}', file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    head = calibrate(args.folder, args.square_mm / 1000)
    rectifier = StereoRectifier(head.left, head.right)
    raw = [read_rgb(args.folder / PAIR / f'Img{side}0.png') for side in ('Left', 'Right')]
    left, right = rectifier.rectify(raw[0], raw[1])
    clicked = clicked_joints(rectifier)
    clicked_m = lift(clicked, rectifier)
    print(f'  rows of matched features of the pair: {spread(matched_rows(left, right))}')
    difference = (clicked[0] - clicked[1])[:, 1]
    print(f'  rows of clicked joints: {spread(difference[np.isfinite(difference)])}')

    around = Box.around(clicked[0]) or Box(0, 0, left.shape[1], left.shape[0])
    node = load_pipeline(args.weights)
    boxes = node.detector.detect(left)
    people = node.process(left, right, rectifier.calibration, 0.0).people
    found = [f'{p.root_m[2]:.2f} m, confidence {p.overall_confidence:.2f}' for p in people]
    print(
        f'the node: its detector finds {len(boxes)} boxes, '
        f'it tells of {len(people)} people {found}'
    )
    for found_box in boxes:
        overlap = intersection_over_union(found_box, around)
        print(
            f'  box at ({found_box.x:.0f}, {found_box.y:.0f}) of {found_box.width:.0f} x '
            f'{found_box.height:.0f} px, overlap with the clicked joints {overlap:.2f}'
        )
    title = 'as the node does it'
    if args.box or not people:
        box = Box(*args.box) if args.box else around
        settings = PipelineSettings(gate=OPEN_GATE)
        given = load_pipeline(args.weights, detector=GivenBox(box), settings=settings)
        people = given.process(left, right, rectifier.calibration, 0.0).people
        title = 'in the box ' + ('given' if args.box else 'round the clicked joints')
        for person in people:
            verdict = 'accept' if PersonGate().accepts(person, followed=False) else 'refuse'
            print(
                f'{title}: confidence {person.overall_confidence:.2f}, pelvis at '
                f'{person.root_m[2]:.2f} m; the node would {verdict} this pose'
            )
    for person in people:
        print(judged(person, clicked))
        print(bone_table(person.xyz_m, clicked_m))
    if not people:
        print(bone_table(None, clicked_m))
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / 'overlay.png'
    title += f'; squares of {args.square_mm:g} mm assumed; green: clicked by hand (the truth)'
    page = picture(left, right, list(people), clicked, clicked_m, title)
    if not cv2.imwrite(str(path), page[..., ::-1]):
        raise DataError(f'{path}: cannot be written; choose another --out')
    print(f'the picture is {path}')


if __name__ == '__main__':
    sys.exit(main())
