"""MediaPipe Pose on the crops of `rsb-pose photographs --crops`: joints for its --joints.

MediaPipe 0.10.14 with the full model that its wheel bundles, one picture at a time. Written are
its shoulders, elbows, wrists, hips, knees, ankles and nose in pixels of the photographs, NaN for
all others and where it finds nobody.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

JOINTS = 17
# rows of MediaPipe's 33 landmarks as joints of rsb_pose_core.skeleton.H36M_17
LANDMARKS = {
    28: 0, 26: 1, 24: 2, 23: 3, 25: 4, 27: 5,
    16: 10, 14: 11, 12: 12, 11: 13, 13: 14, 15: 15, 0: 16,
}  # fmt: skip


class InputError(Exception):
    """Said in one sentence, exit status 2."""


def find_joints(images: np.ndarray, confidence: float) -> np.ndarray:
    """Joints (N, 17, 2) in pixels of RGB crops (N, H, W, 3), centres of pixels at integers."""
    os.environ.setdefault('GLOG_minloglevel', '2')
    try:
        import mediapipe
    except ImportError as error:
        raise InputError(
            f'mediapipe cannot be imported ({error}); pip install -r requirements.txt in an '
            'environment of its own'
        ) from error
    uv = np.full((len(images), JOINTS, 2), np.nan)
    with mediapipe.solutions.pose.Pose(
        static_image_mode=True, model_complexity=1, min_detection_confidence=confidence
    ) as pose:
        for found, image in zip(uv, tqdm(images, 'mediapipe'), strict=True):
            result = pose.process(np.ascontiguousarray(image))
            if result.pose_landmarks is None:
                continue
            height, width = image.shape[:2]
            for row, joint in LANDMARKS.items():
                landmark = result.pose_landmarks.landmark[row]
                # MediaPipe's corners are at 0 and 1
                found[joint] = landmark.x * width - 0.5, landmark.y * height - 0.5
    return uv


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('crops', type=Path, help='.npz of rsb-pose photographs --crops')
    parser.add_argument('--out', type=Path, default=Path('mediapipe.npz'), help='%(default)s')
    parser.add_argument(
        '--confidence',
        type=float,
        default=0.5,
        help="least score of a detection, MediaPipe's own default (%(default)s)",
    )
    args = parser.parse_args()
    try:
        with np.load(args.crops) as archive:
            images, names, back = (archive[key] for key in ('images', 'names', 'to_photograph'))
        uv = find_joints(images, args.confidence)
        uv = np.einsum('nij,nkj->nki', back[:, :, :2], uv) + back[:, None, :, 2]
        np.savez(args.out, names=names, uv=uv)
    except (InputError, OSError, KeyError, ValueError) as error:
        print(f'find.py: {error}', file=sys.stderr)
        return 2
    found = np.isfinite(uv).any((1, 2)).mean()
    print(f'somebody was found in {found:.1%} of {len(uv)} crops; joints are in {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
