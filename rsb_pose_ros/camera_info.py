"""CameraInfo messages to a rectifier that follows them when they change."""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.rectification import CameraModel, StereoRectifier
from rsb_pose_ros.faults import InputError, MissingCameraInfoError, Part

_LEFT, _RIGHT = 0, 1
_VIEWS = ('left', 'right')


def camera_model(info: CameraInfo, view: str, *, input_rectified: bool) -> CameraModel:
    """Turn a CameraInfo into a CameraModel for the images that come with it.

    Binning and region of interest are applied to K and P (REP-104). With `input_rectified` the
    images obey P alone: K becomes its left part, R the identity, D empty. Raises CalibrationError.
    """
    k = np.asarray(info.k, np.float64).reshape(3, 3).copy()
    p = np.asarray(info.p, np.float64).reshape(3, 4).copy()
    roi = info.roi
    width, height = info.width, info.height
    if roi.width and roi.height:
        width, height = roi.width, roi.height
        offset = np.array([roi.x_offset, roi.y_offset], np.float64)
        k[:2, 2] -= offset
        p[:2, 2] -= offset
    binning = np.array([max(info.binning_x, 1), max(info.binning_y, 1)], np.float64)
    k[:2] /= binning[:, None]
    p[:2] /= binning[:, None]
    return CameraModel(
        width=width // int(binning[0]),
        height=height // int(binning[1]),
        distortion_model='' if input_rectified else info.distortion_model,
        d=np.zeros(0) if input_rectified else np.asarray(info.d, np.float64),
        k=p[:, :3] if input_rectified else k,
        r=np.eye(3) if input_rectified else np.asarray(info.r, np.float64).reshape(3, 3),
        p=p,
        name=f'{view} camera',
    )


@dataclass(frozen=True)
class _Outcome:
    """What a pair of CameraInfos led to: a rectifier, or the sentence that says why not."""

    key: bytes
    rectifier: StereoRectifier | None
    reason: str


class RectifierSource:
    """Holds the newest CameraInfo of each camera; builds a rectifier when their content changes.

    set_info() only stores; the building happens in the caller of get(), the worker.
    """

    def __init__(self, *, input_rectified: bool) -> None:
        self._input_rectified = input_rectified
        self._lock = threading.Lock()
        self._infos: list[CameraInfo | None] = [None, None]
        self._outcome: _Outcome | None = None

    def set_left(self, info: CameraInfo) -> None:
        with self._lock:
            self._infos[_LEFT] = info

    def set_right(self, info: CameraInfo) -> None:
        with self._lock:
            self._infos[_RIGHT] = info

    @property
    def missing(self) -> tuple[str, ...]:
        """Views whose CameraInfo has not come yet."""
        with self._lock:
            return tuple(
                view for view, info in zip(_VIEWS, self._infos, strict=True) if info is None
            )

    @property
    def current(self) -> StereoRectifier | None:
        """The rectifier of the last get(), None where that failed."""
        outcome = self._outcome
        return None if outcome is None else outcome.rectifier

    def get(self) -> StereoRectifier:
        """Return the rectifier of the newest CameraInfos.

        Raises MissingCameraInfoError when one is missing, InputError when they do not make a pair.
        """
        with self._lock:
            left, right = self._infos
        if left is None or right is None:
            raise MissingCameraInfoError(Part.CALIBRATION, 'no camera_info yet')
        key = _content(left) + _content(right)
        if self._outcome is None or self._outcome.key != key:
            self._outcome = self._build(left, right, key)
        if self._outcome.rectifier is None:
            raise InputError(Part.CALIBRATION, self._outcome.reason)
        return self._outcome.rectifier

    def _build(self, left: CameraInfo, right: CameraInfo, key: bytes) -> _Outcome:
        try:
            models = [
                camera_model(info, view, input_rectified=self._input_rectified)
                for info, view in zip((left, right), _VIEWS, strict=True)
            ]
            return _Outcome(key, StereoRectifier(*models), '')
        except CalibrationError as error:
            return _Outcome(key, None, f'camera_info: {error}')


def _content(info: CameraInfo) -> bytes:
    """Everything that rectification depends on; the header is left out."""
    roi = info.roi
    sizes: NDArray[np.int64] = np.array(
        [info.width, info.height, info.binning_x, info.binning_y]
        + [roi.x_offset, roi.y_offset, roi.width, roi.height, len(info.d)],
        np.int64,
    )
    matrices = (np.asarray(values, np.float64).tobytes() for values in (info.d, info.k, info.r))
    return b''.join(
        (info.distortion_model.encode(), sizes.tobytes(), *matrices, np.asarray(info.p).tobytes())
    )
