"""The stranger's check: does a detector that learned on photographs see the rendered people?

MediaPipe Pose 0.10.14 (the full model that its wheel bundles) looks at left views with known
joints. Printed: the share of pictures in which it finds somebody, and PCK@0.2 of the torso on
visible limb joints (shoulders, elbows, wrists, hips, knees, ankles), where a picture without a
detection misses every joint. failures.png shows the worst: labels green, found joints red.
"""

import argparse
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from score import LIMBS, TORSOS, Judgement, Score, badness, score
from tqdm import tqdm

from samples import COCO_17, READERS, InputError, Sample

# rows of MediaPipe's 33 landmarks in the order of COCO-17
LANDMARKS = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
BONES = [
    (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15),
    (12, 14), (14, 16),
]  # fmt: skip
TILE = (240, 320)  # height, width of a picture of the contact sheet
LABEL, FOUND, HIDDEN = (80, 220, 80), (60, 60, 255), (150, 150, 150)  # BGR


class Stranger:
    """MediaPipe Pose on single pictures; works without a network: the model is in the wheel."""

    def __init__(self, confidence: float) -> None:
        os.environ.setdefault('GLOG_minloglevel', '2')
        try:
            import mediapipe
        except ImportError as error:
            raise InputError(
                f'mediapipe cannot be imported ({error}); pip install -r requirements.txt in an '
                'environment of its own'
            ) from error
        model = Path(mediapipe.__file__).parent / 'modules/pose_landmark/pose_landmark_full.tflite'
        if not model.is_file():
            raise InputError(f'{model} is missing; mediapipe 0.10.14 from PyPI bundles it')
        self._pose = mediapipe.solutions.pose.Pose(
            static_image_mode=True, model_complexity=1, min_detection_confidence=confidence
        )

    def find(self, bgr: np.ndarray) -> np.ndarray | None:
        """COCO-17 joints (17, 2) in pixels, centres at integers; None where nobody is found."""
        result = self._pose.process(np.ascontiguousarray(bgr[..., ::-1]))
        if result.pose_landmarks is None:
            return None
        landmarks = result.pose_landmarks.landmark
        height, width = bgr.shape[:2]
        unit = np.array([[landmarks[row].x, landmarks[row].y] for row in LANDMARKS])
        return unit * (width, height) - 0.5  # MediaPipe's corners are at 0 and 1


def report(judgements: list[Judgement]) -> str:
    """The figures as text; the first line is the headline."""
    count = len(judgements)
    found = sum(judgement.found is not None for judgement in judgements)
    on_person = sum(judgement.on_person for judgement in judgements)
    scores = {torso: score(judgements, torso) for torso in TORSOS}
    usual = next(iter(scores.values()))
    lines = [
        f'found somebody in {found / count:.1%} of {count} pictures '
        f'(on the person: {on_person / count:.1%}); PCK@0.2 torso {usual.pck:.3f}'
    ]
    for torso, value in scores.items():
        lines += [
            f'torso {torso}: PCK@0.2 {value.pck:.3f}; where somebody was found '
            f'{value.pck_found:.3f}; left and right exchanged where that is better '
            f'{value.pck_best_side:.3f}; {value.judged.sum()} visible limb joints'
        ]
    lines += ['joint            visible    PCK   best side']
    lines += [_joint_line(usual, row) for row in LIMBS]
    return '\n'.join(lines)


def _joint_line(value: Score, row: int) -> str:
    judged = max(1, value.judged[row])
    return (
        f'{COCO_17[row]:16s} {value.judged[row]:7d} {value.hits[row] / judged:6.3f} '
        f'{value.hits_best_side[row] / judged:11.3f}'
    )


def contact_sheet(judgements: list[Judgement], columns: int = 5, rows: int = 6) -> np.ndarray:
    """The worst pictures: half of them undetected people where there are as many."""
    worst = sorted(judgements, key=badness, reverse=True)
    missed = [judgement for judgement in worst if judgement.found is None]
    wrong = [judgement for judgement in worst if judgement.found is not None]
    half = columns * rows // 2
    shown = (missed[:half] + wrong)[: columns * rows]
    tiles = [_tile(judgement) for judgement in shown]
    tiles += [np.zeros((*TILE, 3), np.uint8)] * (columns * rows - len(tiles))
    return np.vstack([np.hstack(tiles[i * columns : (i + 1) * columns]) for i in range(rows)])


def _tile(judgement: Judgement) -> np.ndarray:
    sample = judgement.sample
    height, width = sample.bgr.shape[:2]
    scale = min(TILE[0] / height, TILE[1] / width)
    tile = np.zeros((*TILE, 3), np.uint8)
    small = cv2.resize(sample.bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile[: small.shape[0], : small.shape[1]] = small[: TILE[0], : TILE[1]]
    if judgement.found is not None:
        _draw(tile, judgement.found * scale, np.ones(17, bool), FOUND, FOUND)
    _draw(tile, sample.uv * scale, sample.visible, LABEL, HIDDEN)
    text = f'{sample.name} {"nobody" if judgement.found is None else f"{badness(judgement):.2f}"}'
    cv2.putText(tile, text, (4, TILE[0] - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1)
    return tile


def _draw(
    tile: np.ndarray, uv: np.ndarray, visible: np.ndarray, colour: tuple, hidden: tuple
) -> None:
    known = np.isfinite(uv).all(1) & (np.abs(uv) < 4 * max(TILE)).all(1)
    place = np.nan_to_num(uv).clip(-4096, 4096).round().astype(int)
    for a, b in BONES:
        if known[a] and known[b]:
            cv2.line(tile, tuple(place[a]), tuple(place[b]), colour, 1, cv2.LINE_AA)
    for row in LIMBS:
        if known[row]:
            cv2.circle(tile, tuple(place[row]), 3, colour if visible[row] else hidden, -1)


def judge(samples: list[Sample], confidence: float) -> list[Judgement]:
    """Show every picture to the stranger."""
    stranger = Stranger(confidence)
    return [Judgement(sample, stranger.find(sample.bgr)) for sample in tqdm(samples, 'look')]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', type=Path, help='folder of the pictures and their labels')
    parser.add_argument(
        '--kind', choices=READERS, default='rendered',
        help='rendered: a set of rsb-pose testset; lspet, coco: photographs (%(default)s)',
    )  # fmt: skip
    parser.add_argument('--limit', type=int, default=1000, help='pictures at most (%(default)s)')
    parser.add_argument(
        '--confidence',
        type=float,
        default=0.5,
        help="least score of a detection, MediaPipe's own default (%(default)s)",
    )
    parser.add_argument('--out', type=Path, default=Path('.'), help='where failures.png goes')
    args = parser.parse_args()
    try:
        if args.limit < 1:
            raise InputError(f'--limit {args.limit}: at least 1 picture was expected')
        samples = list(READERS[args.kind](args.folder, args.limit))
        if not samples:
            raise InputError(f'{args.folder} holds no picture that can be judged; export some')
        judgements = judge(samples, args.confidence)
        print(report(judgements))
        args.out.mkdir(parents=True, exist_ok=True)
        sheet = args.out / 'failures.png'
        if not cv2.imwrite(str(sheet), contact_sheet(judgements)):
            raise InputError(f'{sheet} cannot be written; choose another --out')
    except (InputError, OSError) as error:
        print(f'check.py: {error}', file=sys.stderr)
        return 2
    print(f'the worst pictures are in {sheet}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
