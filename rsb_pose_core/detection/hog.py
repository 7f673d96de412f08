"""OpenCV's histogram-of-gradients people detector (Dalal and Triggs, CVPR 2005)."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rsb_pose_core.detection.boxes import Box, non_maximum_suppression
from rsb_pose_core.errors import RsbPoseError

# The detector's window is 64x128 pixels, of which the person takes the middle 96 rows.
WINDOW_WIDTH, WINDOW_HEIGHT = 64, 128
PERSON_TOP, PERSON_HEIGHT = 16 / 128, 96 / 128
PERSON_LEFT, PERSON_WIDTH = 10 / 64, 44 / 64


class HogDetector:
    """Finds upright people whose head and feet are about in the picture; needs no weights.

    Images are first brought to `working_height` rows, at which the smallest person that can be
    found is 96 rows high: a person of 1.7 m at 4.9 m from a camera of 60 degrees' vertical field
    of view with the default. `minimum_score` is the linear classifier's margin.
    """

    def __init__(self, working_height: int = 320, minimum_score: float = 0.35) -> None:
        if not hasattr(cv2, 'HOGDescriptor'):
            raise RsbPoseError(
                f'OpenCV {cv2.__version__} has no HOGDescriptor, expected OpenCV 4, which is the '
                f'last with it; install opencv-python-headless below 5 or choose another detector'
            )
        self.working_height = working_height
        self.minimum_score = minimum_score
        self._hog = cv2.HOGDescriptor()
        self._hog.setSVMDetector(np.asarray(cv2.HOGDescriptor.getDefaultPeopleDetector()))

    def detect(self, rgb: NDArray[np.uint8]) -> list[Box]:
        """Boxes round people in an (H, W, 3) image, best first, reaching over its borders."""
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        scale = self.working_height / grey.shape[0]
        if scale < 1:
            size = (max(round(grey.shape[1] * scale), 1), self.working_height)
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        else:
            scale = 1.0
        # People who fill the image: the window has its own margins, which must find room.
        border = round(0.15 * grey.shape[0])
        grey = cv2.copyMakeBorder(grey, border, border, border, border, cv2.BORDER_REPLICATE)
        if grey.shape[0] < WINDOW_HEIGHT or grey.shape[1] < WINDOW_WIDTH:
            return []
        windows, scores = self._hog.detectMultiScale(
            grey, hitThreshold=self.minimum_score, winStride=(8, 8), scale=1.06, groupThreshold=0
        )
        found = [
            Box(
                float((x - border + PERSON_LEFT * width) / scale),
                float((y - border + PERSON_TOP * height) / scale),
                float(PERSON_WIDTH * width / scale),
                float(PERSON_HEIGHT * height / scale),
                float(score),
            )
            for (x, y, width, height), score in zip(windows, np.ravel(scores), strict=True)
        ]
        return non_maximum_suppression(found)
