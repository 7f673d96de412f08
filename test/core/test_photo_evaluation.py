"""PCK on photographs: figures against plain loops, crops against known places, the command."""

import json
import math
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from rsb_pose_core.cli import main
from rsb_pose_core.datasets.photographs import (
    LSPET_TO_H36M,
    Photograph,
    Photographs,
    read_photographs,
)
from rsb_pose_core.errors import DataError
from rsb_pose_core.models import StereoHeatmaps
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.photo_evaluation import (
    crop_sides,
    find_joints,
    read_joints,
    score,
    to_photograph,
    upright_affine,
    upright_crop,
    write_crops,
)
from rsb_pose_core.training.photo_sheet import chosen_people

NAMES = H36M_17.joint_names


def people(count: int, seed: int = 0) -> np.ndarray:
    """Joints (count, 17, 2) in pictures of 200 x 150 pixels."""
    return np.random.default_rng(seed).uniform((20, 20), (180, 130), (count, 17, 2))


def spot_picture(uv: np.ndarray, sigma_px: float = 2.5) -> np.ndarray:
    """A picture of 200 x 150 pixels, in each channel a Gaussian spot at its place."""
    v, u = np.mgrid[:150, :200]
    picture = np.zeros((150, 200, 3))
    for channel, (x, y) in enumerate(uv):
        picture[..., channel] = 250 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma_px**2))
    return picture.round().astype(np.uint8)


def lspet_folder(folder: Path, count: int = 3) -> Path:
    """A data set in LSPET's own files, all of it complete and so in the split `test`."""
    folder.mkdir()
    uv = people(count)[:, LSPET_TO_H36M]
    np.savez(folder / 'joints.npz', joints=np.dstack([uv, np.ones((count, 14, 1))]))
    with zipfile.ZipFile(folder / 'images.zip', 'w') as archive:
        for i in range(count):
            picture = np.random.default_rng(i).integers(0, 255, (150, 200, 3), np.uint8)
            archive.writestr(f'im{i + 1:05d}.jpg', cv2.imencode('.jpg', picture)[1].tobytes())
    return folder


def test_pck_of_every_joint_is_that_of_plain_loops() -> None:
    truth, sides = people(20), np.full(20, 200.0)
    off = np.random.default_rng(1).normal(0, 15, truth.shape)
    predicted = truth + off
    predicted[3, NAMES.index('left_knee')] = np.nan
    truth[5, NAMES.index('right_wrist')] = np.nan
    scores = score(predicted, truth, sides)
    limbs = [
        name for name in NAMES
        if name.split('_')[-1] in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
    ]  # fmt: skip
    assert len(limbs) == 12
    hits: dict[str, list[bool]] = {name: [] for name in limbs}
    for found, labels, side in zip(predicted, truth, sides, strict=True):
        joint = dict(zip(NAMES, labels, strict=True))
        shoulders = (joint['left_shoulder'] + joint['right_shoulder']) / 2
        hips = (joint['left_hip'] + joint['right_hip']) / 2
        torso = max(math.dist(shoulders, hips), side / 32)
        for name in limbs:
            if not np.isnan(joint[name]).any():
                away = math.dist(found[NAMES.index(name)], joint[name])
                hits[name].append(away < 0.2 * torso)  # NaN is a miss
    every = [hit for values in hits.values() for hit in values]
    assert len(every) == 20 * 12 - 1
    assert 0.05 < np.mean(every) < 0.95
    assert scores.pck(0.2) == pytest.approx(np.mean(every))
    for name, rate in scores.joint_pck().items():
        assert rate == pytest.approx(np.mean(hits[name]))
    assert scores.found == pytest.approx((20 * 12 - 2) / (20 * 12 - 1))


def test_a_torso_seen_from_above_counts_as_a_32nd_of_the_crop() -> None:
    truth = people(1)
    for joint in ('shoulder', 'hip'):
        for side, du in (('left', -10), ('right', 10)):
            truth[0, NAMES.index(f'{side}_{joint}')] = (100 + du, 70)
    crop = np.array([320.0])  # a torso of 10 px, 0.2 of it: 2 px
    assert score(truth + (1.9, 0), truth, crop).pck(0.2) == 1
    assert score(truth + (2.1, 0), truth, crop).pck(0.2) == 0


def test_exchanged_sides_are_swaps_and_a_person_not_found_is_wrong() -> None:
    truth, sides = people(4, seed=2), np.full(4, 200.0)
    exchanged = truth[:, H36M_17.mirror]
    scores = score(exchanged, truth, sides)
    assert scores.swaps == pytest.approx(1 - scores.pck(0.2))
    assert scores.swaps > 0.7
    nobody = truth.copy()
    nobody[0] = np.nan
    scores = score(nobody, truth, sides)
    assert (scores.pck(0.5), scores.found, scores.swaps) == (0.75, 0.75, 0)


def test_the_standard_error_is_that_of_a_bootstrap() -> None:
    truth, sides = people(200), np.full(200, 200.0)
    size = np.random.default_rng(4).uniform(1, 25, (200, 1, 1))  # people differ
    scores = score(truth + np.random.default_rng(3).normal(0, 1, truth.shape) * size, truth, sides)
    hits = (scores.errors < 0.2).mean(1)
    drawn = np.random.default_rng(5).integers(0, 200, (2000, 200))
    assert scores.standard_error(0.2) == pytest.approx(hits[drawn].mean(1).std(), rel=0.08)


@pytest.mark.parametrize('size', [64, 256])
def test_a_joint_is_where_the_crop_shows_it_to_a_tenth_of_a_pixel(size: int) -> None:
    uv = np.full((17, 2), np.nan)
    uv[[0, 3, 15]] = [(40.3, 35.7), (150.6, 60.2), (90.45, 120.9)]
    photograph = Photograph('spots', spot_picture(uv[[0, 3, 15]]), uv)
    crop, affine = upright_crop(photograph, size), upright_affine(photograph, size)
    moved = uv[[0, 3, 15]] @ affine[:, :2].T + affine[:, 2]
    v, u = np.mgrid[:size, :size]
    for channel in range(3):
        weight = crop[..., channel].astype(float)
        seen = [(weight * axis).sum() / weight.sum() for axis in (u, v)]
        np.testing.assert_allclose(seen, moved[channel], atol=0.1)
    extent = 150.6 - 40.3
    assert affine[0, 0] == pytest.approx(size / (1.25 * extent))
    np.testing.assert_allclose((moved.min(0) + moved.max(0)) / 2, (size - 1) / 2)
    np.testing.assert_allclose(to_photograph(moved, affine), uv[[0, 3, 15]])


class Brightest(nn.Module):
    """Stands in for a network: its co-heatmap peaks at the brightest cell, disparity 0."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> StereoHeatmaps:
        assert torch.equal(left, right)
        plane = nn.functional.avg_pool2d(left.mean(1, keepdim=True), 4)
        maps = (40 * plane).expand(-1, 17, -1, -1)
        volume = torch.full((*maps.shape[:2], 3, *maps.shape[2:]), -50.0)
        volume[:, :, 1] = maps
        views = torch.zeros_like(maps)
        return StereoHeatmaps(views, views, volume, DisparityRange(-1, 1))


def test_joints_of_the_co_heatmap_come_back_in_pixels_of_the_photograph(tmp_path: Path) -> None:
    uv = people(1)
    spot = spot_picture(uv[0, :1], sigma_px=8.0).max(2)
    with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as archive:
        archive.writestr('spot.png', cv2.imencode('.png', spot)[1].tobytes())
    album = Photographs(tmp_path / 'images.zip', ['spot.png'], uv)
    found = find_joints(Brightest(), album, 256)
    np.testing.assert_allclose(found['joints'][0], np.tile(uv[0, 0], (17, 1)), atol=0.2)
    middle, _ = album[0].square()
    np.testing.assert_allclose(found['heat maps'][0], np.tile(middle, (17, 1)), atol=1e-3)


def test_crops_for_another_detector_and_its_joints_go_round(tmp_path: Path) -> None:
    album = read_photographs(lspet_folder(tmp_path / 'lspet'), 'test')
    write_crops(album, 256, tmp_path / 'crops.npz')
    with np.load(tmp_path / 'crops.npz') as crops:
        assert crops['images'].shape == (3, 256, 256, 3)
        np.testing.assert_array_equal(crops['images'][1], upright_crop(album[1], 256))
        back = crops['to_photograph'][1]
    in_crop = album.uv[1] @ upright_affine(album[1], 256)[:, :2].T
    in_crop += upright_affine(album[1], 256)[:, 2]
    np.testing.assert_allclose(in_crop @ back[:, :2].T + back[:, 2], album.uv[1])
    np.savez(tmp_path / 'joints.npz', names=np.array(album.names), uv=album.uv)
    np.testing.assert_array_equal(read_joints(tmp_path / 'joints.npz', album), album.uv)
    assert score(album.uv, album.uv, crop_sides(album)).pck(0.1) == 1
    np.savez(tmp_path / 'others.npz', names=np.array(album.names[::-1]), uv=album.uv)
    with pytest.raises(DataError, match='are not of these 3 people'):
        read_joints(tmp_path / 'others.npz', album)


def test_the_command_prints_figures_and_leaves_a_report_and_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = lspet_folder(tmp_path / 'lspet')
    album = read_photographs(folder, 'test')
    uv = album.uv.copy()
    uv[0] = np.nan
    np.savez(tmp_path / 'other.npz', names=np.array(album.names), uv=uv)
    command = ['photographs', '--data', str(folder), '--out', str(tmp_path / 'out')]
    assert main([*command, '--joints', str(tmp_path / 'other.npz')]) == 0
    printed = capsys.readouterr().out
    assert '| other | 66.7% | 0.667 +- 0.333 | 0.667' in printed
    report = json.loads((tmp_path / 'out' / 'report.json').read_text())
    assert report['methods']['other']['pck@0.2'] == pytest.approx(2 / 3)
    assert report['methods']['other']['person_pck@0.2'] == [0, 1, 1]
    assert report['photographs'] == ['im00001.jpg', 'im00002.jpg', 'im00003.jpg']
    sheet = cv2.imread(str(tmp_path / 'out' / 'other.png'))
    assert sheet.shape[1] == 6 * (256 + 6)
    assert main(['photographs', '--data', str(folder)]) == 2
    assert 'give --weights' in capsys.readouterr().err


def test_the_sheet_shows_the_worst_first_and_nobody_twice() -> None:
    badness = np.arange(40.0)
    badness[7] = np.nan
    rows = list(chosen_people(badness))
    assert rows[0] == ('worst', [39, 38, 37, 36, 35, 34])
    assert rows[-1] == ('best', [0, 1, 2, 3, 4, 5])
    shown = [person for _, row in rows for person in row]
    assert len(shown) == len(set(shown)) == 30
    assert 7 not in shown
