"""Full pictures on disk: exact, read one by one, and cropped as the pipeline crops."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import drawn_pairs
import numpy as np
import pytest
import torch

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.checkpoint import save_checkpoint
from rsb_pose_core.cli import main
from rsb_pose_core.cropping import StereoCrop
from rsb_pose_core.detection.boxes import Box
from rsb_pose_core.errors import DataError
from rsb_pose_core.geometry import triangulate
from rsb_pose_core.models import NETWORKS
from rsb_pose_core.synthesis.frames import (
    FrameSet,
    checksum,
    crops,
    frame_arrays,
    join_frames,
    occluded_subset,
    read_frames,
)
from rsb_pose_core.synthesis.pairs import PairSpace, StereoPairs
from rsb_pose_core.synthesis.shards import write_arrays
from rsb_pose_core.training.augmentation import centred_window, crop_pair
from rsb_pose_core.training.pool import SHARD_ARRAYS, PairPool


def drawn(number: int, count: int = 3) -> StereoPairs:
    renderer = drawn_pairs.drawn_frames(Path(), 'test', 0, PairSpace(), 'cpu')
    return renderer.batch(count, 0, number)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files: pairs 0..4 of two batches, and 5..7."""
    folder = tmp_path_factory.mktemp('frames')
    parts = [frame_arrays(drawn(0), maps=True), frame_arrays(drawn(1, 2), maps=True)]
    write_arrays(folder / 'a.npz', join_frames(parts))
    write_arrays(folder / 'b.npz', frame_arrays(drawn(2)))
    return folder


def test_every_pair_comes_back_bit_for_bit(folder: Path) -> None:
    frames = FrameSet(folder)
    assert len(frames) == 8
    for start, pairs in ((0, drawn(0)), (3, drawn(1, 2)), (5, drawn(2))):
        for row in reversed(range(len(pairs.left))):
            found = frames.pair(start + row)
            assert np.array_equal(found.left, pairs.left[row])
            assert np.array_equal(found.right, pairs.right[row])
            for kind in ('h36m', 'coco'):
                for name in ('xyz_m', 'uv_left', 'uv_right', 'visibility'):
                    mine = getattr(getattr(found.labels, kind), name)
                    true = getattr(getattr(pairs.labels, kind), name)[[row]]
                    assert torch.equal(mine.nan_to_num(-1), true.nan_to_num(-1))
            assert found.labels.present.tolist() == pairs.labels.present[[row]].tolist()
            assert found.calibration.fx.item() == pairs.calibration.fx[row].item()


def test_maps_come_back_where_they_were_stored(folder: Path) -> None:
    frames, pairs = FrameSet(folder), drawn(1, 2)
    found = frames.pair(4)
    assert np.array_equal(found.mask_right, pairs.person_mask_right[1].numpy())
    true = pairs.depth_m_left[1].numpy()
    assert np.isinf(found.depth_m_left[0]).all()
    assert np.abs(found.depth_m_left[1:] - true[1:]).max() < 0.00051
    assert frames.pair(5).depth_m_left is None


def test_a_pair_that_is_not_there_is_an_index_error(folder: Path) -> None:
    with pytest.raises(IndexError, match='pair 8 of 8'):
        FrameSet(folder).pair(8)


# ---- checksums ----


def test_a_checksum_sees_every_pixel_and_label_but_not_the_compression() -> None:
    arrays = frame_arrays(drawn(0))
    before = checksum(arrays)
    assert checksum(frame_arrays(drawn(0), maps=True)) == before
    assert before != checksum(frame_arrays(drawn(1)))
    png = [cv2.imencode('.png', picture[..., ::-1])[1] for picture in drawn(0).left]
    other = {'left_pictures': np.concatenate(png), 'left_ends': np.cumsum([len(p) for p in png])}
    assert checksum({**arrays, **other}) == before
    pairs = drawn(0)
    pairs.left[2, 119, 207, 2] ^= 1
    assert checksum(frame_arrays(pairs)) != before
    for name in ('coco_uv_right', 'box_left', 'calibration', 'present', 'h36m_visibility'):
        changed = arrays[name].copy()
        changed.reshape(-1).view(np.uint8)[-1] ^= 1
        assert checksum({**arrays, name: changed}) != before, name


# ---- crops ----


def test_crops_are_those_of_the_pipeline_with_a_margin(folder: Path) -> None:
    """The middle 256 pixels, which networks see, against StereoCrop around the same box."""
    arrays = read_frames(folder / 'b.npz')
    cut, pairs = crops(arrays), drawn(2)
    assert set(cut) == set(SHARD_ARRAYS)
    for row in range(3):
        box = Box(*pairs.labels.box_left[row, 0].tolist())
        uv = pairs.labels.h36m.uv_left[row, 0]
        disparity = (uv - pairs.labels.h36m.uv_right[row, 0])[:, 0].median().item()
        expected = StereoCrop.around(box, disparity)
        seen = crop_pair({name: cut[name][row] for name in cut}, centred_window(288), 256)
        true = expected.from_image(torch.cat([uv, torch.zeros(17, 1)], 1))[:, :2]
        assert np.abs(seen['uv_left'] - true.numpy()).max() < 256 / expected.side
        for view in ('left', 'right'):
            full = getattr(pairs.labels.h36m, f'uv_{view}')[row, 0].numpy()
            inside = ((full > 1) & (full < (206, 118))).all(1)
            inside &= ((seen[f'uv_{view}'] > 4) & (seen[f'uv_{view}'] < 251)).all(1)
            assert inside.sum() > 4
            u, v = seen[f'uv_{view}'][inside].round().astype(int).T
            assert (seen[view][v, u] > 200).all()


def test_labels_and_calibration_of_crops_triangulate_to_the_true_points(folder: Path) -> None:
    cut = crops(read_frames(folder / 'a.npz'))
    uvd = np.concatenate([cut['uv_left'], (cut['uv_left'] - cut['uv_right'])[..., :1]], -1)
    calibration = StereoCalibration(*torch.from_numpy(cut['calibration']).unbind(-1))
    found = triangulate(torch.from_numpy(uvd).double(), calibration).numpy()
    assert np.abs(found - cut['xyz_m']).max() < 1e-3


def test_a_subject_that_is_not_seen_is_cropped_round_its_joints(folder: Path) -> None:
    arrays = read_frames(folder / 'b.npz')
    boxes = arrays['box_left'].copy()
    boxes[1, 0] = np.nan
    uv = arrays['h36m_uv_left'][1, 0]
    cut = crops({**arrays, 'box_left': boxes})
    assert ((cut['uv_left'][1] > 0) & (cut['uv_left'][1] < 287)).all()
    fx = cut['calibration'][1, 0] / arrays['calibration'][1, 0]
    assert fx == pytest.approx(256 / (1.25 * np.ptp(uv, axis=0).max()), rel=0.02)


def test_evaluate_reads_a_folder_of_frames(folder: Path, tmp_path: Path) -> None:
    pool = PairPool(str(folder))
    assert pool.scan() == 8
    torch.manual_seed(0)
    weights = tmp_path / 'w.safetensors'
    save_checkpoint(weights, NETWORKS['lite'].build(), {'model': 'lite', 'input_size': 64})
    command = ['evaluate', '--weights', str(weights), '--data', str(folder), '--device', 'cpu']
    assert main([*command, '--jitter-px', '0', '--out', str(tmp_path)]) == 0
    stages = json.loads((tmp_path / 'report.json').read_text())['methods']['w']['stages']
    assert stages['initial']['all']['mpjpe_ab_mm']['median'] > 0


def test_evaluate_takes_the_occluded_subset(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / 'w.safetensors'
    save_checkpoint(weights, NETWORKS['lite'].build(), {'model': 'lite', 'input_size': 64})
    command = ['evaluate', '--weights', str(weights), '--data', str(folder), '--device', 'cpu']
    assert main([*command, '--occluded', '6']) == 0
    codes = [FrameSet(folder).pair(i).labels.h36m.visibility[0, 0] for i in range(8)]
    hidden = [((code == 1) | (code == 2)).all(0).sum() for code in codes]
    count = sum(int(joints) >= 6 for joints in hidden)
    assert 0 < count < 8
    assert capsys.readouterr().out.startswith(f'{count} of 8 pairs')
    assert main([*command, '--occluded', '17']) == 2
    assert 'no pair with 17 occluded joints' in capsys.readouterr().err


def test_pairs_with_hidden_joints_form_the_occluded_subset() -> None:
    visibility = np.zeros((4, 2, 17), np.uint8)
    visibility[1, 0, :5] = 2  # hidden by others in the left picture, by the body in the right
    visibility[1, 1, :5] = 1
    visibility[2, 0, :9] = 1  # in one picture only
    visibility[3, :, :2] = 2
    assert occluded_subset(visibility) == [1]
    assert occluded_subset(visibility, joints=2) == [1, 3]


# ---- bad input ----


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'no \.npz files; make them with rsb-pose testset'):
        FrameSet(tmp_path)


def test_a_file_cut_short_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'a.npz').write_bytes((folder / 'a.npz').read_bytes()[:-2000])
    with pytest.raises(DataError, match=r'a\.npz: not a readable \.npz of stereo frames'):
        FrameSet(tmp_path)
    with pytest.raises(DataError, match=r'a\.npz: not a readable'):
        PairPool(str(tmp_path)).scan()


def test_a_foreign_npz_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / 'a.npz', present=np.zeros((2, 5), bool))
    with pytest.raises(DataError, match=r'a\.npz: no array calibration'):
        FrameSet(tmp_path).pair(0)


def test_a_damaged_picture_is_named(folder: Path, tmp_path: Path) -> None:
    arrays = read_frames(folder / 'b.npz')
    write_arrays(tmp_path / 'b.npz', {**arrays, 'left_pictures': arrays['left_pictures'] * 0})
    with pytest.raises(DataError, match='picture 1 of left_pictures cannot be decoded'):
        FrameSet(tmp_path).pair(1)


def test_coco_labels_may_differ_from_h36m(tmp_path: Path) -> None:
    pairs = drawn(0)
    moved = replace(pairs.labels.coco, xyz_m=pairs.labels.coco.xyz_m + 1)
    write_arrays(
        tmp_path / 'a.npz', frame_arrays(replace(pairs, labels=replace(pairs.labels, coco=moved)))
    )
    labels = FrameSet(tmp_path).pair(0).labels
    assert torch.allclose(labels.coco.xyz_m[0, 0], labels.h36m.xyz_m[0, 0] + 1)
