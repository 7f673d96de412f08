"""The texture bank: colours, levels and names are what was put in."""

import logging

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample, pad

from rsb_pose_core.errors import DataError
from rsb_pose_core.synthesis.materials import MAKERS
from rsb_pose_core.synthesis.patterns import SIZE, Noise
from rsb_pose_core.synthesis.textures import (
    TextureBank,
    linear_from_srgb,
    mip_levels,
    read_pictures,
    srgb_from_linear,
)

STEP = 1 / 255  # of the square root of linear light


@pytest.fixture(scope='module')
def noise_picture() -> np.ndarray:
    return np.random.default_rng(3).integers(1, 256, (32, 32, 4), np.uint8)


@pytest.fixture(scope='module')
def bank(noise_picture) -> TextureBank:
    photo = np.full((100, 140, 3), (0.2, 0.5, 0.8), np.float32)
    return TextureBank(5, pictures=[photo], named={'noise': noise_picture}, cloths=15, surfaces=40)


def sample(bank: TextureBank, number: int, uv: torch.Tensor, tiles: float) -> torch.Tensor:
    return bank.sample(torch.full((len(uv),), number), uv, torch.full((len(uv),), tiles))


def test_sampling_is_bilinear_and_wraps_as_grid_sample_does(bank, noise_picture):
    uv = torch.rand(500, 2, generator=torch.Generator().manual_seed(1)) * 6 - 3
    linear = linear_from_srgb(noise_picture[..., :3] / 255)
    rgba = np.concatenate([linear, noise_picture[..., 3:] / 255], -1).astype(np.float32)
    image = pad(torch.from_numpy(rgba).permute(2, 0, 1)[None], (1, 1, 1, 1), mode='circular')
    place = ((uv - uv.floor()) * 32 + 1) / 34 * 2 - 1
    expected = grid_sample(image, place[None, None], align_corners=False)[0, :, 0].T
    found = sample(bank, bank.number('noise'), uv, 1e-4)
    assert found.shape == (500, 4)
    assert (found[:, :3].sqrt() - expected[:, :3].sqrt()).abs().max() < 1.5 * STEP
    assert (found[:, 3] - expected[:, 3]).abs().max() < STEP


def test_a_pixel_as_large_as_the_tile_sees_the_mean_colour(bank):
    number = int(bank.of('cloth')[2])
    uv = torch.rand(300, 2, generator=torch.Generator().manual_seed(2))
    centres = (torch.arange(SIZE) + 0.5) / SIZE
    every = torch.cartesian_prod(centres, centres)
    mean = sample(bank, number, every, 1e-4)[:, :3].mean(0)
    assert torch.allclose(sample(bank, number, uv, 2.0)[:, :3], mean.expand(300, -1), atol=0.01)
    half = sample(bank, number, uv, 4 / SIZE)[:, :3]
    assert 0 < half.std() < sample(bank, number, uv, 1e-4)[:, :3].std()


def test_photographs_keep_their_colour_in_linear_light(bank):
    uv = torch.rand(20, 2, generator=torch.Generator().manual_seed(4))
    found = sample(bank, int(bank.of('picture')[0]), uv, 0.01)
    expected = torch.from_numpy(linear_from_srgb(np.array([0.2, 0.5, 0.8, 1.0])))
    assert torch.allclose(found, expected.expand(20, -1), atol=0.004)


def test_relief_rises_with_brightness():
    ramp = np.zeros((64, 64, 4), np.uint8)
    ramp[..., :3] = np.abs(np.arange(64) - 32)[None, :, None] * 7
    ramp[..., 3] = 255
    bank = TextureBank(0, named={'ramp': ramp}, cloths=0, surfaces=0)
    uv = torch.tensor([[0.2, 0.8, 0.5], [0.3, 0.6, 0.5]])
    number = torch.full((3,), bank.number('ramp'))
    colour, slope = bank.relief(number, uv, torch.full((3,), 1e-3))
    assert torch.allclose(colour, bank.sample(number, uv.T, torch.full((3,), 1e-3))[:, :3].T)
    root = np.sqrt(linear_from_srgb(np.abs(np.arange(64) - 32) * 7 / 255))
    assert slope[0, 0] == pytest.approx(float(root[13] - root[12]) * 2, abs=0.02)
    assert slope[0, 1] == pytest.approx(float(root[51] - root[50]) * 2, abs=0.02)
    assert slope[1].abs().max() < 1e-6


def test_transparent_background_does_not_bleed_into_hair():
    rgba = np.zeros((64, 64, 4), np.float32)
    rgba[:, ::8] = (0.5, 0.25, 0.1, 1.0)  # strands on a black, transparent ground
    rgba[:, 1::8] = (0.5, 0.25, 0.1, 1.0)
    levels = mip_levels(rgba)
    assert [len(level) for level in levels] == [64, 32, 16, 8, 4, 2, 1]
    for level in levels:
        assert np.allclose(level[..., :3], (0.5, 0.25, 0.1), atol=1e-3)
    for level in levels[:4]:
        assert (level[..., 3] >= 0.5).mean() >= 0.25


@pytest.mark.parametrize('kind', MAKERS)
def test_procedural_textures_join_themselves_at_their_edges(kind):
    rng = np.random.default_rng(8)
    noise = Noise(rng, each=1)
    for maker in dict.fromkeys(MAKERS[kind]):
        if maker.__name__ in ('shelves', 'lettering'):
            continue
        tile = maker(rng, noise)
        assert tile.shape == (SIZE, SIZE, 3)
        assert np.isfinite(tile).all()
        for axis in (0, 1):
            steps = np.abs(np.diff(np.concatenate([tile, tile[:1]]), axis=0)).mean((1, 2))
            assert steps[-1] <= 1.5 * steps[:-1].max() + 0.02, (maker.__name__, axis)
            tile = tile.transpose(1, 0, 2)


def test_the_same_seed_makes_the_same_bank():
    one, two, other = (TextureBank(seed, cloths=15, surfaces=40) for seed in (1, 1, 2))
    assert torch.equal(one.texels, two.texels)
    assert not torch.equal(one.texels, other.texels)
    kinds = [one.of(kind) for kind in ('cloth', 'wall', 'floor', 'ground', 'furniture')]
    assert [len(kind) for kind in kinds] == [15, 10, 10, 10, 10]
    assert torch.cat(kinds).tolist() == list(range(55))
    assert len(one.of('picture')) == 0


def test_errors_name_what_is_wrong(bank):
    with pytest.raises(DataError, match="no picture 'coat'; it has 1 named"):
        bank.number('coat')
    with pytest.raises(DataError, match=r"'odd' is uint8 of shape \(48, 48, 4\); expected"):
        TextureBank(0, named={'odd': np.zeros((48, 48, 4), np.uint8)}, cloths=0, surfaces=0)


def test_unreadable_photographs_are_left_out_with_a_warning(tmp_path, caplog):
    (tmp_path / 'broken.jpg').write_bytes(b'no picture')
    (tmp_path / 'empty.hdr').write_bytes(b'')
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((80, 120, 3), 100, np.uint8))
    with caplog.at_level(logging.WARNING):
        found = [photo for split in ('train', 'val', 'test') for photo in
                 read_pictures(tmp_path, split, count=2)]  # fmt: skip
    assert len(caplog.records) == 2
    assert all('is left out' in record.getMessage() for record in caplog.records)
    assert [photo.shape for photo in found] == [(SIZE, SIZE, 3)] * 2
    assert np.allclose(found[0], 100 / 255, atol=1e-3)
    assert read_pictures(tmp_path / 'nowhere', 'train') == []


def test_panoramas_are_tone_mapped(tmp_path):
    panorama = np.ones((64, 128, 3), np.float32) * np.linspace(0.01, 50, 128)[None, :, None]
    cv2.imwrite(str(tmp_path / 'bright.hdr'), panorama.astype(np.float32))
    (photo,) = read_pictures(tmp_path, 'train', count=1)
    assert photo.min() >= 0
    assert photo.max() <= 1
    assert 0.3 < photo.mean() < 0.9
    assert photo.std() > 0.01


def test_srgb_round_trip():
    value = np.linspace(0, 1, 50)
    assert np.allclose(srgb_from_linear(linear_from_srgb(value)), value, atol=1e-5)
    assert linear_from_srgb(np.array([0.5]))[0] == pytest.approx(0.21404, abs=1e-4)
