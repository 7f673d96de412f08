"""What other programs say of a test set: files of positions, measured by the code of networks.

A file of predictions is an .npz of four arrays:

method  one string, what tables call the method
set     one string, the folder of the test set, such as mhad-like
pairs   (N,) integers, numbers of pairs in the set, from 0, each once
xyz_m   (N,17,3) floats, joints of H36M_17 in its order, metres in the rectified left optical frame
        of the whole pictures; NaN where a joint was not found

A joint that is NaN in all pairs is one that the method does not have.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.errors import DataError
from rsb_pose_core.metrics import JointErrors
from rsb_pose_core.models.estimate import StereoEstimate
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.augmentation import STORED_CROP, Pairs, evaluation_batch
from rsb_pose_core.training.evaluation import Evaluated, joint_errors
from rsb_pose_core.training.pictures import views_of

ARRAYS = ('method', 'set', 'pairs', 'xyz_m')


@dataclass(frozen=True)
class _Known:
    """A models.estimate.StereoOutput of which only the estimate is known."""

    known: StereoEstimate
    features_left: Tensor | None = None
    features_right: Tensor | None = None

    def estimate(self, calibration: StereoCalibration) -> StereoEstimate:
        return self.known


@dataclass(frozen=True, eq=False)
class Predictions:
    """A file of predictions: see above."""

    path: Path
    method: str
    data_set: str
    numbers: tuple[int, ...]
    xyz_m: Float[Tensor, 'pairs joints 3']  # float64

    @classmethod
    def read(cls, path: Path) -> 'Predictions':
        """Raises DataError, one sentence, for a file that is none."""
        try:
            with np.load(path) as archive:
                arrays = {name: archive[name] for name in ARRAYS}
        except KeyError as error:
            raise DataError(
                f'{path}: {error.args[0]}, expected arrays {", ".join(ARRAYS)}; write them as '
                f'training/predictions.py says'
            ) from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f'{path}: not a readable .npz of predictions ({error}); give a file with arrays '
                f'{", ".join(ARRAYS)}'
            ) from error
        problem = _problem(**{name.replace('set', 'data_set'): arrays[name] for name in ARRAYS})
        if problem:
            raise DataError(f'{path}: {problem}; write it as training/predictions.py says')
        return cls(
            path=path,
            method=str(arrays['method']),
            data_set=str(arrays['set']),
            numbers=tuple(int(number) for number in arrays['pairs']),
            xyz_m=torch.from_numpy(arrays['xyz_m'].astype(np.float64)),
        )

    @property
    def joints(self) -> Bool[Tensor, ' joints']:
        """Those that the method has: found in some pair."""
        return self.xyz_m.isfinite().all(-1).any(0)

    def of(self, numbers: Sequence[int]) -> 'Predictions':
        """The part that is about these pairs. Raises DataError where there is none."""
        wanted = set(numbers)
        rows = [row for row, number in enumerate(self.numbers) if number in wanted]
        if not rows:
            raise DataError(
                f'{self.path}: predictions of none of the pairs of {self.data_set} that are '
                f'evaluated; predict these, or raise --limit'
            )
        kept = tuple(self.numbers[row] for row in rows)
        return replace(self, numbers=kept, xyz_m=self.xyz_m[rows])

    def evaluate(self, pairs: Pairs, jitter_px: int, side: int = STORED_CROP) -> Evaluated:
        """Errors by the code and on the joints of evaluate_method, with crops of `side` pixels.

        2D keypoints are the positions projected into the crops.
        """
        batch = evaluation_batch(pairs, list(self.numbers), side, jitter_px)
        left, right = (torch.from_numpy(uv) for uv in views_of(self.xyz_m, batch))
        estimate = StereoEstimate(
            xyz_m=self.xyz_m,
            covariance_m2=torch.full((*self.xyz_m.shape, 3), torch.nan, dtype=torch.float64),
            confidence=self.xyz_m.isfinite().all(-1).double(),
            uv_left=left,
            uv_right=right,
        )
        errors: JointErrors = joint_errors(estimate, _Known(estimate), batch)
        return Evaluated(self.numbers, self.xyz_m, errors)


def _problem(
    method: np.ndarray, data_set: np.ndarray, pairs: np.ndarray, xyz_m: np.ndarray
) -> str | None:
    """What is wrong with the arrays of a file, and what was expected."""
    for name, text in (('method', method), ('set', data_set)):
        if text.ndim or text.dtype.kind != 'U' or not str(text):
            return f'{name} is no string, expected one'
    if pairs.ndim != 1 or pairs.dtype.kind not in 'iu' or not len(pairs):
        return f'pairs is {pairs.dtype} {pairs.shape}, expected integers (N,)'
    if pairs.min() < 0 or len(np.unique(pairs)) < len(pairs):
        return 'pairs has numbers below 0 or the same one twice, expected each once, from 0'
    expected = (len(pairs), len(H36M_17), 3)
    if xyz_m.shape != expected or xyz_m.dtype.kind != 'f':
        return f'xyz_m is {xyz_m.dtype} {xyz_m.shape}, expected floats {expected}'
    if np.isinf(xyz_m).any() or (np.isnan(xyz_m).any(-1) != np.isnan(xyz_m).all(-1)).any():
        return 'xyz_m has joints that are infinite or NaN in part, expected NaN in all of x, y, z'
    return None
