"""Photographs: reading their joints, warping them into stereo pairs, mixing them into batches."""

import io
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.datasets.photographs import (
    COCO_TO_H36M,
    LSPET_TO_H36M,
    Photograph,
    Photographs,
    read_photographs,
)
from rsb_pose_core.errors import DataError
from rsb_pose_core.skeleton import COCO_17, H36M_17
from rsb_pose_core.training.augmentation import Augmentation
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import Stage, TrainConfig
from rsb_pose_core.training.distributed import Ranks
from rsb_pose_core.training.photo_pairs import (
    PhotoAugmentation,
    PhotoPool,
    disparity_field,
    photo_batch,
    photo_crop,
    photo_pair,
    right_columns,
    warp_photograph,
)
from rsb_pose_core.training.sources import BatchSource, Load, MixedSource, PhotographSource

DATA = Path(__file__).parents[3] / 'shared' / 'data' / 'photos'
WIDTH, HEIGHT = 90, 120
STILL = Augmentation(
    flip=0, occluder=0, black_edge=0, blur=0, noise=0, gain_std=0, colour_std=0,
    unequal_std=0, gamma_std=0,
)  # fmt: skip


def smooth_picture() -> np.ndarray:
    """Red grows with the column, green with the row, so that a pixel tells where it is from."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([2 * u + 20, 2 * v + 10, 0 * u + 90], -1).astype(np.uint8)


def joints_at(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform([15, 20], [WIDTH - 15, HEIGHT - 20], (17, 2))


def photograph() -> Photograph:
    return Photograph('im.png', smooth_picture(), joints_at(np.random.default_rng(3)))


def archive(path: Path, names: list[str]) -> None:
    encoded = cv2.imencode('.png', smooth_picture()[..., ::-1])[1].tobytes()
    with zipfile.ZipFile(path / 'images.zip', 'w') as file:
        for name in names:
            file.writestr(name, encoded)


def lspet(path: Path, count: int, incomplete: tuple[int, ...] = ()) -> np.ndarray:
    rng = np.random.default_rng(0)
    joints = np.concatenate(
        [rng.uniform(20, 90, (count, 14, 2)), np.ones((count, 14, 1))], -1
    ).astype(np.float32)
    joints[list(incomplete), 5:7, 2] = 0
    np.savez(path / 'joints.npz', joints=joints)
    archive(path, [f'im{number + 1:05d}.jpg' for number in range(count)])
    return joints


def colour_at(image: np.ndarray, u: float, v: float) -> np.ndarray:
    return cv2.getRectSubPix(image, (1, 1), (float(u), float(v)))[0, 0].astype(float)


def test_lspet_joints_come_in_our_order(tmp_path: Path) -> None:
    joints = lspet(tmp_path, 1200, incomplete=(2,))
    people = read_photographs(tmp_path, 'train')
    found = people[people.names.index('im00003.jpg')]
    theirs = ['right_ankle', 'right_knee', 'right_hip', 'left_hip', 'left_knee']
    for index, name in enumerate(theirs):
        assert found.uv[H36M_17.index(name)] == pytest.approx(joints[2, index, :2])
    assert found.uv[H36M_17.index('neck')] == pytest.approx(joints[2, 12, :2])
    assert found.uv[H36M_17.index('head')] == pytest.approx(joints[2, 13, :2])
    unlabelled = {'left_ankle', 'right_wrist', 'pelvis', 'spine', 'nose'}
    missing = {H36M_17.joint_names[j] for j in np.flatnonzero(np.isnan(found.uv[:, 0]))}
    assert missing == unlabelled
    # the file's RGB, at any one pixel
    assert found.image[7, 11].tolist() == [42, 24, 90]


def test_lspet_splits_are_blocks_and_share_nothing(tmp_path: Path) -> None:
    lspet(tmp_path, 1200, incomplete=tuple(range(600, 700)))
    splits = {split: read_photographs(tmp_path, split) for split in ('train', 'val', 'test')}
    numbers = {
        split: [int(name[2:7]) for name in people.names] for split, people in splits.items()
    }
    assert len(numbers['test']) == 500
    assert numbers['test'] == list(range(701, 1201))
    assert len(numbers['val']) == 200
    assert numbers['val'] == list(range(401, 601))
    twins = {100, 828, 854, 1583, 2120}
    assert numbers['train'] == [n for n in range(1, 401) if n not in twins]
    assert np.isfinite(splits['test'].uv[:, list(LSPET_TO_H36M)]).all()


def test_coco_people_come_in_our_order(tmp_path: Path) -> None:
    keypoints = np.zeros((17, 3))
    keypoints[:, 0], keypoints[:, 1] = np.arange(17) * 5 + 4, np.arange(17) * 6 + 2
    keypoints[:, 2] = 2
    keypoints[COCO_17.index('left_knee'), 2] = 0
    small = keypoints * [0.1, 0.1, 1]
    content = {
        'images': [{'id': 7, 'file_name': 'a.jpg'}],
        'annotations': [
            {'image_id': 7, 'keypoints': keypoints.ravel().tolist()},
            {'image_id': 7, 'keypoints': small.ravel().tolist()},
        ],
    }
    (tmp_path / 'person_keypoints.json').write_text(json.dumps(content))
    archive(tmp_path, ['a.jpg'])
    people = read_photographs(tmp_path)
    assert len(people) == 1  # the other one is too small
    uv = people[0].uv
    for name in ('nose', 'right_hip', 'left_wrist'):
        assert uv[H36M_17.index(name)].tolist() == keypoints[COCO_17.index(name), :2].tolist()
    assert np.isnan(uv[H36M_17.index('left_knee')]).all()
    assert len(COCO_TO_H36M) == 13
    assert len(read_photographs(tmp_path, 'test')) == 0


@pytest.mark.parametrize(
    ('name', 'content', 'words'),
    [
        (None, b'', 'neither joints.npz nor person_keypoints.json'),
        ('joints.npz', b'no archive', 'cannot be read'),
        ('person_keypoints.json', b'{"images": 3', 'cannot be read'),
    ],
)
def test_what_is_no_data_set_is_one_sentence(
    tmp_path: Path, name: str | None, content: bytes, words: str
) -> None:
    if name is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        read_photographs(tmp_path)


def test_other_arrays_pictures_and_splits_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='unknown split'):
        read_photographs(tmp_path, 'tset')
    buffer = io.BytesIO()
    np.savez(buffer, joints=np.zeros((3, 16, 3)))
    (tmp_path / 'joints.npz').write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r'shape \(3, 16, 3\), expected'):
        read_photographs(tmp_path)
    with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as file:
        file.writestr('im00001.jpg', b'not a picture')
    one = Photographs(tmp_path / 'images.zip', ['im00001.jpg'], np.zeros((1, 17, 2)))
    with pytest.raises(DataError, match='is no picture'):
        one[0]
    with pytest.raises(DataError, match='pictures cannot be read'):
        Photographs(tmp_path / 'images.zip', ['im00002.jpg'], np.zeros((1, 17, 2)))


@pytest.mark.parametrize('size', [64, 160])  # shrunk, and made larger
def test_both_views_show_the_joint_where_the_label_says(size: int) -> None:
    person, ranges = photograph(), PhotoAugmentation(scale_std=0.05, shift_std=0.02)
    pair = photo_pair([person], size, np.random.default_rng(5), ranges)
    seen = 0
    for view in ('left', 'right'):
        for uv, there in zip(pair[f'uv_{view}'], person.uv, strict=True):
            if (uv > 3).all() and (uv < size - 4).all():
                colour = colour_at(pair[view], *uv)
                where = (colour[:2] - [20, 10]) / 2
                assert where == pytest.approx(there, abs=0.75), (view, uv)
                seen += 1
    assert seen > 20
    assert np.isnan(pair['xyz_m']).all()
    assert pair['uv_left'][:, 1] == pytest.approx(pair['uv_right'][:, 1])


def test_disparities_are_those_of_the_field() -> None:
    rng, ranges = np.random.default_rng(1), PhotoAugmentation()
    field = disparity_field(128, rng, ranges)
    uv = np.random.default_rng(2).uniform(25, 103, (17, 2))
    x = right_columns(uv, field)
    for (u, v), column in zip(uv, x, strict=True):
        there = cv2.getRectSubPix(field.astype(np.float32), (1, 1), (float(column), float(v)))[
            0, 0
        ]
        assert column + there == pytest.approx(u, abs=1e-2)
    means = [disparity_field(128, rng, ranges).mean() / 4 for _ in range(300)]
    assert -5.6 < min(means) < -4
    assert 5 < max(means) < 6.6
    assert 0.1 < np.mean([disparity_field(128, rng, ranges).std() / 4 for _ in range(50)]) < 0.6


def test_a_crop_without_changes_is_the_square_round_the_joints() -> None:
    person = photograph()
    still = PhotoAugmentation(rotated=0, scale_std=0, shift_std=0)
    affine = photo_crop(person, 100, np.random.default_rng(0), still)
    low, high = person.uv.min(0), person.uv.max(0)
    side = 1.25 * (high - low).max()
    corner = (low + high) / 2 - side / 2
    # pixel centres: column c of the photograph is at (c + 0.5 - corner) * 100 / side - 0.5
    expected = (person.uv + 0.5 - (corner + 0.5)) * 100 / side - 0.5
    assert person.uv @ affine[:, :2].T + affine[:, 2] == pytest.approx(expected)


def test_a_picture_is_reproduced_where_nothing_changes() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    plain = np.repeat(np.arange(40.0)[None], 40, 0)
    identity = np.eye(2, 3)
    assert np.array_equal(warp_photograph(image, identity, plain), image)
    halved = warp_photograph(image, np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]]), plain)
    blocks = image.reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(halved[:20, :20].astype(float) - blocks).max() <= 1.5


def pool() -> PhotoPool:
    names = [f'im{number:05d}.jpg' for number in range(6)]
    people = object.__new__(Photographs)
    people.names, people._archive = tuple(names), Path('images.zip')
    people.uv = np.stack([joints_at(np.random.default_rng(n)) for n in range(6)])
    people.uv[:, 6:8] = np.nan
    encoded = cv2.imencode('.png', smooth_picture()[..., ::-1])[1].tobytes()
    people._encoded = dict.fromkeys(names, encoded)
    return PhotoPool((people, people))


def test_a_batch_is_a_function_of_its_arguments() -> None:
    arguments = (64, (0, 7), PhotoAugmentation(), Augmentation())
    whole = photo_batch(pool(), [0, 9, 4, 2], *arguments, stereo=True)
    part = photo_batch(pool(), [4, 2], *arguments, stereo=True, first=2)
    assert torch.equal(whole.left[2:], part.left)
    assert torch.equal(whole.right[2:], part.right)
    assert torch.equal(whole.uv_left[2:].nan_to_num(), part.uv_left.nan_to_num())
    assert whole.unusable() == []
    assert not whole.in_view(0)[:, 6:8].any()
    assert whole.in_view(0).float().mean() > 0.6


def test_views_of_different_photographs_where_no_stereo_is_needed() -> None:
    arguments = (64, (0, 7), PhotoAugmentation(), STILL)
    batch = photo_batch(pool(), [0, 1, 2], *arguments, stereo=False)
    names = [name.split(' and ') for name in batch.names]
    assert [len(both) for both in names] == [2, 2, 2]
    assert (batch.uv_left - batch.uv_right)[..., 1].abs().nan_to_num().max() > 1


class Plain:
    """A source of grey pairs that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def start(self, state: dict[str, list[int]] | None) -> None:
        self.asked = [] if state is None else list(state['asked'])

    def take(self, count: int, size: int, step: int, *, stereo: bool = True) -> Load:
        self.asked.append(count)
        batch = photo_batch(
            pool(), [0] * count, size, (1,), PhotoAugmentation(), STILL, stereo=stereo
        )
        return lambda: batch

    def rescan(self) -> int:
        return 4

    def state(self) -> dict[str, list[int]]:
        return {'asked': list(self.asked)}

    def __len__(self) -> int:
        return 100


def mixed(share: float) -> tuple[MixedSource, Plain]:
    config = TrainConfig('lite', (Stage('only', input_size=64),), steps=1, photo_share=share)
    photographs = PhotographSource(config, [])
    photographs.pool = pool()
    photographs.order.start_round(len(photographs.pool))
    plain = Plain()
    assert isinstance(plain, BatchSource)
    return MixedSource(plain, photographs, share), plain


def load(source: MixedSource, step: int) -> StereoBatch:
    return source.take(8, 64, step)()


def test_a_batch_holds_the_share_of_photographs() -> None:
    source, plain = mixed(0.25)
    batch = load(source, 0)
    assert plain.asked == [6]
    assert len(batch) == 8
    assert len(batch.names) == 8
    assert len(source) == 112
    assert source.rescan() == 4
    only, plain = mixed(1.0)
    assert len(load(only, 0)) == 8
    assert plain.asked == []


def test_several_processes_share_photographs_out_evenly() -> None:
    source, plain = mixed(0.375)
    source.photographs.ranks = Ranks(1, 2)
    assert len(source.take(24, 64, 0)()) == 16 + 8 // 2  # Plain gives the parts of all ranks
    assert plain.asked == [16]
    source.photographs.ranks = Ranks()
    assert len(source.take(24, 64, 0)()) == 24
    assert plain.asked == [16, 15]


@pytest.mark.parametrize('size', [5, 40])
def test_photographs_that_are_more_or_fewer_than_before_begin_a_new_round(size: int) -> None:
    source, _ = mixed(1.0)
    kept = {'round': 3, 'position': size - 1, 'size': size}
    source.start({'pairs': {'asked': []}, 'photographs': {'order': kept}})
    taken = source.photographs.order.take(len(source.photographs))
    assert sorted(taken) == list(range(12))
    assert source.photographs.state()['order'] == {'round': 4, 'position': 12, 'size': 12}


def test_a_mixed_source_goes_on_from_its_state() -> None:
    source, _ = mixed(0.5)
    source.start(None)
    first = [load(source, step) for step in range(2)]
    state = source.state()
    then = load(source, 2)
    other, plain = mixed(0.5)
    other.start(state)
    again = load(other, 2)
    assert torch.equal(then.left, again.left)
    assert then.names == again.names
    assert plain.asked == [4, 4, 4]
    assert first[0].names != first[1].names


@pytest.mark.skipif(not (DATA / 'lspet').is_dir(), reason='photographs are not here')
def test_the_real_photographs_are_read() -> None:
    sizes = {split: len(read_photographs(DATA / 'lspet', split)) for split in ('val', 'test')}
    assert sizes == {'val': 200, 'test': 500}
    people = read_photographs(DATA / 'coco_cc_by')
    assert len(people) == 27
    assert people[0].image.ndim == 3
