"""Files of predictions: measured as networks are, and refused in one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_sets import ABSENT, Arrays, arrays_of, write_sets

from rsb_pose_core.errors import DataError
from rsb_pose_core.training.augmentation import evaluation_batch
from rsb_pose_core.training.pool import open_pool
from rsb_pose_core.training.predictions import Predictions

JITTER = 7


@pytest.fixture(scope='module')
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('sets')
    write_sets(folder)
    return folder


def test_predictions_are_measured_as_networks_are(sets: Path) -> None:
    told = Predictions.read(sets / 'told.npz')
    assert (told.method, told.data_set, told.numbers) == ('a stranger', 'mhad-like', (4, 0, 2))
    assert told.joints.tolist() == [joint not in ABSENT for joint in range(17)]
    pool = open_pool(str(sets / 'mhad-like'), 5)
    found = told.evaluate(pool, JITTER)
    batch = evaluation_batch(pool, [4, 0, 2], 256, JITTER)
    errors = found.errors
    uv = {}
    for view, one in (('left', batch.uv_left), ('right', batch.uv_right)):
        uv[view] = one.double().numpy()
    fx = batch.calibration.fx.numpy()[:, None]
    for row in (0, 2):
        known = [joint for joint in range(17) if joint not in ABSENT]
        assert errors.absolute_mm[row, known].numpy() == pytest.approx(30.0, abs=1e-3)
        assert errors.relative_mm[row, known].numpy() == pytest.approx(0.0, abs=1e-3)
        assert errors.absolute_mm[row, ABSENT].isnan().all()
        assert errors.uv_px is not None
        # 3 cm to the right are fx 0.03 / Z pixels in both views
        z = batch.xyz_m[row, known, 2].double().numpy()
        assert errors.uv_px[row, 0, known].numpy() == pytest.approx(fx[row] * 0.03 / z, abs=1e-3)
        assert errors.uv_px[row, 1, known].numpy() == pytest.approx(fx[row] * 0.03 / z, abs=1e-3)
        assert errors.disparity_px[row, known].numpy() == pytest.approx(0.0, abs=1e-3)
    assert errors.absolute_mm[1].isnan().all()
    inside = np.stack([((p >= 0) & (p <= 255)).all(-1) for p in uv.values()]).all(0)
    shown = np.stack([pool.labels(n)['visibility'] for n in (4, 0, 2)])
    assert errors.counted.numpy().tolist() == (inside & (shown != 3).all(1)).tolist()


def test_a_part_of_predictions_keeps_its_numbers(sets: Path) -> None:
    told = Predictions.read(sets / 'told.npz')
    part = told.of([2, 3, 4])
    assert part.numbers == (4, 2)
    assert torch.equal(part.xyz_m.nan_to_num(9), told.xyz_m[[0, 2]].nan_to_num(9))
    with pytest.raises(DataError, match='none of the pairs of mhad-like'):
        told.of([1, 3])


POSES = np.zeros((2, 17, 3))
HALF = POSES.copy()
HALF[0, 3, 1] = np.nan


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'xyz_m': None}, 'expected arrays method, set, pairs, xyz_m'),
        ({'xyz_m': POSES[:, :16]}, r'\(2, 16, 3\), expected floats \(2, 17, 3\)'),
        ({'xyz_m': POSES.astype(int)}, 'expected floats'),
        ({'xyz_m': HALF}, 'NaN in part'),
        ({'xyz_m': POSES + np.inf}, 'infinite'),
        ({'pairs': np.array([0.0, 1.0])}, 'pairs is float64'),
        ({'pairs': np.array([1, 1])}, 'twice'),
        ({'pairs': np.array([-1, 1])}, 'below 0'),
        ({'method': np.array(3)}, 'method is no string'),
        ({'set': np.array(['a'])}, 'set is no string'),
    ],
)
def test_a_bad_file_of_predictions_is_one_sentence(
    changed: Arrays, message: str, tmp_path: Path
) -> None:
    arrays = {**arrays_of(POSES, 'mhad-like', [0, 1]), **changed}
    path = tmp_path / 'p.npz'
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(DataError, match=message) as caught:
        Predictions.read(path)
    assert '\n' not in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_no_npz_is_no_file_of_predictions(tmp_path: Path) -> None:
    path = tmp_path / 'p.npz'
    for content in (None, b'', b'words'):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match='not a readable .npz of predictions'):
            Predictions.read(path)
