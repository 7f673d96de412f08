"""The sensor: faults of the size asked for, unequal left and right, the same for the same seed."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.levels import LEVELS, Levels
from rsb_pose_core.synthesis.sensor import GREY, Shutter, expose, jpeg, smear
from rsb_pose_core.synthesis.view import View

CLEAN = LEVELS['clean']
SIZE = 96


def shutter(count: int, scale: float = 1.0, mono: bool = False, **values) -> Shutter:
    one = torch.ones(count)
    view = View(
        one * 100, one * 100, one * SIZE / 2, one * SIZE / 2, torch.eye(3).repeat(count, 1, 1),
        torch.zeros(count, 3), SIZE, SIZE,
    )  # fmt: skip
    return Shutter(view, one * scale, torch.full((count,), mono), **values)


def scene(count: int) -> torch.Tensor:
    """Linear light with soft colours and an edge, the same in all pictures."""
    v, u = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing='ij')
    waves = [0.3 + 0.2 * (u / 9 + k).sin() * (v / 13.0).cos() for k in range(3)]
    light = torch.stack(waves, -1) * torch.where(u > SIZE / 2, 1.0, 0.4)[..., None]
    return light.expand(count, -1, -1, -1).contiguous()


def flat(count: int, level: float = 0.2) -> torch.Tensor:
    return torch.full((count, SIZE, SIZE, 3), level)


def linear_of(bytes_: torch.Tensor) -> torch.Tensor:
    """Undo the tone curve of 'clean': knee 0.3, exponent 1 / 2.2."""
    tone = (bytes_.float() / 255) ** 2.2
    return tone / (1.3 - 0.3 * tone)


def test_clean_pictures_are_the_scene_at_auto_exposure():
    light = scene(2)
    picture = expose(light, shutter(2), Draw(1), CLEAN)
    assert picture.dtype == torch.uint8
    assert picture.shape == light.shape
    expected = light * GREY / light.mean()
    soft = cv2.GaussianBlur(expected[0].numpy(), (9, 9), 0.35)
    found = linear_of(picture)[0]
    assert (found - torch.from_numpy(soft)).abs().max() < 0.01


def test_the_seed_decides_every_byte():
    def shot(seed: int) -> torch.Tensor:
        return expose(scene(8), shutter(8), Draw(seed))

    assert torch.equal(shot(1), shot(1))
    assert not torch.equal(shot(1), shot(2))


def test_left_and_right_are_exposed_unequally_but_alike():
    count = 40
    mean = expose(scene(2 * count), shutter(2 * count), Draw(3)).float().mean((1, 2, 3))
    left, right = mean[:count], mean[count:]
    within, between = (left - right).abs().mean(), (left - left.roll(1)).abs().mean()
    assert 1 < within < 12
    assert between > 2.5 * within


def test_noise_has_the_variance_of_the_model():
    """variance = shot * light + read^2, of mono pixels that nothing averages."""
    levels = replace(CLEAN, shot_noise=(1e-3, 1e-3), read_noise=(5e-3, 5e-3), blur_px=(0.3, 0.3))
    picture = expose(flat(40), shutter(40, mono=True), Draw(1), levels)
    # each camera's gains of noise differ by 10 %
    variance = linear_of(picture[..., 0]).var((1, 2)).mean()
    quantised = (2.2 * GREY ** (1 - 1 / 2.2) / 255) ** 2 / 12
    expected = 1e-3 * GREY + 25e-6 + quantised
    assert float(variance) == pytest.approx(float(expected), rel=0.08)


def test_noise_is_correlated_between_pixels_by_demosaicing():
    levels = replace(CLEAN, shot_noise=(1e-3, 1e-3), bayer_share=1.0)
    picture = linear_of(expose(flat(16), shutter(16), Draw(1), levels))
    red = picture[..., 0] - picture[..., 0].mean((1, 2), keepdim=True)
    along = (red[:, :, 1:] * red[:, :, :-1]).mean() / red.square().mean()
    assert 0.4 < along < 0.8
    plain = replace(levels, bayer_share=0.0)
    red = linear_of(expose(flat(16), shutter(16), Draw(1), plain))[..., 0]
    red = red - red.mean((1, 2), keepdim=True)
    assert ((red[:, :, 1:] * red[:, :, :-1]).mean() / red.square().mean()).abs() < 0.05


def test_a_bayer_sensor_sees_flat_colours_truly():
    light = flat(8) * torch.tensor([1.4, 1.0, 0.6])
    levels = replace(CLEAN, bayer_share=1.0, filter_overlap=(0.2, 0.2))
    found = linear_of(expose(light, shutter(8), Draw(1), levels))[:, 4:-4, 4:-4].mean((1, 2))
    expected = light[0, 0, 0] * GREY / light.mean()
    assert (found - expected).abs().max() < 0.004


def test_reduced_crops_have_less_noise():
    levels = replace(CLEAN, shot_noise=(2e-3, 2e-3))
    whole, half = (
        linear_of(expose(flat(8), shutter(8, scale), Draw(1), levels)).std()
        for scale in (1.0, 0.5)
    )
    assert float(half / whole) == pytest.approx(0.5, abs=0.08)


def test_enlarged_crops_are_soft():
    """At a scale of 3 no detail finer than three pixels is left."""
    light = flat(2)
    light[:, :, ::2] = 0.05
    sharp, soft = (
        expose(light, shutter(2, scale), Draw(1), CLEAN)[0, :, :, 0]
        .float()
        .diff(dim=1)
        .abs()
        .mean()
        for scale in (1.0, 3.0)
    )
    assert soft < 0.2 * sharp


def test_mono_cameras_deliver_grey_without_colour_faults():
    picture = expose(scene(12), shutter(12, mono=True), Draw(1), replace(Levels(), jpeg_share=0.0))
    spread = picture.int().amax(-1) - picture.int().amin(-1)
    assert spread.max() <= 1


def test_colours_keep_their_hue_in_training_pictures():
    """Red stays red whatever the white balance: variety, not destruction."""
    light = flat(64) * torch.tensor([2.0, 0.5, 0.5])
    picture = expose(light, shutter(64), Draw(1)).float().mean((1, 2))
    coloured = picture[(picture.amax(1) - picture.amin(1)) > 8]
    assert len(coloured) > 50
    assert (coloured.argmax(1) == 0).float().mean() > 0.97


def test_what_is_outside_the_image_is_black():
    inside = torch.ones(4, SIZE, SIZE, dtype=torch.bool)
    inside[:, :, :20] = False
    levels = replace(Levels(), jpeg_share=0.0)
    picture = expose(scene(4), shutter(4, inside=inside), Draw(1), levels)
    assert (picture[:, :, :20] == 0).all()
    assert picture[:, :, 21:].float().mean() > 20


def test_dots_brighten_mono_pictures_only():
    dots = torch.zeros(4, SIZE, SIZE)
    dots[:, 40:44, 40:44] = 1.0

    def gain(mono: bool) -> float:
        lit = expose(flat(4), shutter(4, mono=mono, dots=dots), Draw(1), CLEAN).float()
        return float(lit[:, 41:43, 41:43].mean() - lit[:, 60:, 60:].mean())

    assert gain(True) > 10
    assert abs(gain(False)) < 1


def test_a_moving_bar_smears_along_its_way_and_still_ground_stays():
    light = torch.zeros(1, 3, 64, 64)
    light[:, :, :, 30:34] = 1.0
    light[:, :, 5:8, :20] = 0.5  # a still mark far from the bar
    way = torch.zeros(1, 64, 64, 2)
    way[:, :, 30:34, 0] = 12.0
    smeared = smear(light, way)
    row = smeared[0, 0, 40]
    assert row[32] < 0.6
    assert row[27] > 0.1
    assert row[37] > 0.1
    assert row[:22].max() < 0.05
    assert torch.equal(smeared[..., 5:8, :20], light[..., 5:8, :20])


def test_still_pictures_are_not_touched_by_smear():
    light = Draw(1).uniform(0.0, 1.0, 2, 3, 32, 32)
    assert torch.equal(smear(light, torch.zeros(2, 32, 32, 2)), light)


def test_smear_of_everything_is_a_blur_along_the_way():
    light = torch.zeros(1, 3, 48, 48)
    light[..., 24, 24] = 1.0
    way = torch.zeros(1, 48, 48, 2)
    way[..., 0] = 7.0
    row = smear(light, way)[0, 0, 24]
    assert row.sum() == pytest.approx(1.0, abs=0.02)
    place = (row * torch.arange(48)).sum() / row.sum()
    assert float(place) == pytest.approx(24.0, abs=0.05)
    assert row[21:28].min() > 0.1


def test_jpeg_is_the_real_codec():
    picture = scene(1)[0].mul(255).byte().numpy()
    code = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    assert np.array_equal(jpeg(picture, 60), cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    levels = replace(CLEAN, jpeg_share=1.0, quality=(30, 30))
    packed = expose(scene(2), shutter(2), Draw(1), levels).int()
    error = (packed - expose(scene(2), shutter(2), Draw(1), CLEAN).int()).abs()
    assert 0.5 < error.float().mean() < 10


@pytest.mark.parametrize('name', LEVELS)
def test_pictures_of_each_level_still_show_the_scene(name):
    """Correlation with the clean picture: high for mild levels, never lost."""
    clean = expose(scene(24), shutter(24), Draw(5), CLEAN).float().mean(-1).flatten(1)
    taken = expose(scene(24), shutter(24), Draw(5), LEVELS[name]).float().mean(-1).flatten(1)
    match = [
        float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(clean, taken, strict=True)
    ]
    assert min(match) > {'clean': 0.999, 'mild': 0.97, 'train': 0.75}[name]
