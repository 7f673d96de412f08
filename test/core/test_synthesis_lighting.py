"""Environment maps against brute force: irradiance, suns, turns, lookups, broken files."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis import lighting, rotations, skies
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.lighting import LightBank, measure

HDRI = Path(__file__).parents[3] / 'shared' / 'data' / 'hdri'
ROWS = 32


def normals(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(Draw(3).normal(count, 3), dim=1)


def brute_irradiance(radiance: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Irradiance / pi (N, 3) of a map on normals (N, 3), pixel by pixel in float64."""
    rows, columns = radiance.shape[:2]
    towards = lighting.directions(rows, columns)
    weight = np.clip(np.einsum('yxc,nc->nyx', towards, normal), 0, None)
    weight = weight * lighting.solid_angles(rows, columns)
    return np.einsum('nyx,yxc->nc', weight, radiance.astype(np.float64)) / np.pi


def with_sun(direction: np.ndarray, radius_deg: float = 2.0, rows: int = 128) -> np.ndarray:
    """A plain sky with a disc of light."""
    cosine = lighting.directions(rows, 2 * rows) @ (direction / np.linalg.norm(direction))
    sun = cosine > np.cos(np.radians(radius_deg))
    return (np.full((rows, 2 * rows, 3), 0.5) + 2000.0 * sun[..., None]).astype(np.float32)


def save(path: Path, radiance: np.ndarray) -> None:
    assert cv2.imwrite(str(path), np.ascontiguousarray(radiance[..., ::-1]))


def test_even_light_falls_evenly_on_every_normal() -> None:
    measured = measure(np.full((ROWS, 2 * ROWS, 3), 7.0, np.float32))
    light = lighting.harmonics(normals(50)).double().numpy() @ measured.ambient
    np.testing.assert_allclose(light, 1.0, atol=2e-3)  # scaled to a mean of one
    np.testing.assert_allclose(measured.sun, 0.0)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_harmonics_agree_with_brute_force_irradiance(seed: int) -> None:
    sky = skies.outdoors(np.random.default_rng(seed), ROWS).clip(0, 5)
    measured = measure(sky)
    sky = sky * (measured.panorama.max() / sky.max())
    normal = normals(60).double()
    light = lighting.harmonics(normal).numpy() @ measured.ambient
    facing = np.clip(normal.numpy() @ measured.sun_direction, 0, None)
    light = light + measured.sun * facing[:, None]
    # Ramamoorthi and Hanrahan: on average within some percent for nine coefficients
    expected = brute_irradiance(sky, normal.numpy())
    assert np.abs(light - expected).mean() < 0.02
    assert np.abs(light - expected).max() < 0.1


@pytest.mark.parametrize('direction', [(0.3, 0.8, 0.5), (-0.9, 0.2, -0.1), (0.01, 0.4, -1.0)])
def test_sun_is_found_within_a_degree(direction: tuple[float, float, float]) -> None:
    wanted = np.array(direction) / np.linalg.norm(direction)
    measured = measure(with_sun(wanted))
    angle = np.degrees(np.arccos(np.clip(measured.sun_direction @ wanted, -1, 1)))
    assert angle < 1.0
    assert measured.sun_size == pytest.approx(np.tan(np.radians(2.0)), rel=0.25)


def test_sun_and_rest_add_up_to_the_map() -> None:
    measured = measure(with_sun(np.array([0.2, 0.7, -0.4])))
    assert np.all(measured.sun > 1.0)
    # a lamp lights a quarter of all normals, on average over them
    mean = measured.ambient[0] + measured.sun / 4
    np.testing.assert_allclose(mean, 1.0, rtol=0.01)


def test_lamps_below_the_horizon_are_no_sun() -> None:
    measured = measure(with_sun(np.array([0.2, -0.7, -0.4])))
    np.testing.assert_allclose(measured.sun, 0.0)


def test_turned_light_is_light_on_turned_normals() -> None:
    draw = Draw(0)
    coefficients, angle = draw.normal(5, 9, 3), draw.uniform(-3.0, 3.0, 5)
    normal = normals(5)
    before = (lighting.harmonics(normal)[..., None] * coefficients).sum(1)
    moved = (rotations.about_y(angle) @ normal[..., None])[..., 0]
    after = (lighting.harmonics(moved)[..., None] * lighting.turned(coefficients, angle)).sum(1)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_ambient_agrees_with_the_sum_over_coefficients() -> None:
    light = LightBank(made_up=4).sample(3, Draw(0), torch.tensor([True, False, True]))
    normal, scene = normals(40), torch.arange(40) % 3
    expected = (lighting.harmonics(normal)[..., None] * light.ambient[scene]).sum(1).clamp_min(0)
    torch.testing.assert_close(lighting.ambient(light, scene, normal), expected)


def test_sampled_sun_stands_where_the_panorama_shows_it(tmp_path: Path) -> None:
    wanted = np.array([0.5, 0.5, 0.7]) / np.linalg.norm([0.5, 0.5, 0.7])
    save(tmp_path / 'sunny.hdr', with_sun(wanted))
    bank = LightBank(tmp_path, made_up=0)
    light = bank.sample(6, Draw(1), torch.ones(6, dtype=torch.bool))
    in_map = (light.panorama_turn @ light.sun_direction[..., None])[..., 0]
    torch.testing.assert_close(
        in_map, torch.from_numpy(wanted).float().expand(6, 3), atol=0.01, rtol=0
    )
    at_sun = bank.radiance(light.panorama, in_map)
    aside = bank.radiance(light.panorama, in_map @ rotations.about_y(torch.tensor(0.5)))
    assert (at_sun > 10 * aside).all()


def test_panorama_is_looked_up_at_pixels_and_across_the_seam(tmp_path: Path) -> None:
    radiance = 0.5 + np.random.default_rng(0).random((ROWS, 2 * ROWS, 3)).astype(np.float32)
    save(tmp_path / 'noise.hdr', radiance)
    bank = LightBank(tmp_path, made_up=0)
    rows = torch.tensor([5, 9, 20])
    columns = torch.tensor([0, 31, 63])
    towards = torch.from_numpy(lighting.directions(ROWS, 2 * ROWS)).float()
    texels = bank.texels.view(ROWS, 2 * ROWS, 3).float()
    found = bank.radiance(torch.zeros(3).long(), 3 * towards[rows, columns])
    torch.testing.assert_close(found, texels[rows, columns], atol=2e-3, rtol=0)
    behind = torch.tensor([[0.0, 0.0, -1.0]])  # the seam
    expected = texels[[15, 16]][:, [0, -1]].mean((0, 1))
    torch.testing.assert_close(bank.radiance(torch.zeros(1).long(), behind)[0], expected,
                               atol=2e-3, rtol=0)  # fmt: skip


def test_map_is_not_mirrored() -> None:
    towards = lighting.directions(16, 32)
    assert towards[8, 16, 2] > 0.97  # the middle is +z
    assert towards[8, 20, 0] < -0.5  # who looks to +z with y up has -x on the right
    assert towards[0, 0, 1] > 0.97


def test_unreadable_maps_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        save(tmp_path / f'good_{number}.hdr', np.ones((ROWS, 2 * ROWS, 3), np.float32))
    for name, content in (('cut', b'#?RADIANCE\nFORMAT=32'), ('empty', b'')):
        (tmp_path / f'{name}.hdr').write_bytes(content)
    save(tmp_path / 'square.hdr', np.ones((ROWS, ROWS, 3), np.float32))
    with caplog.at_level(logging.WARNING):
        maps = lighting.read_maps(sorted(tmp_path.glob('*.hdr')))
    assert len(maps) == 2
    assert len(caplog.records) == 3
    assert {'cut', 'empty', 'square'} == {
        Path(record.getMessage().split()[0]).stem for record in caplog.records
    }


def test_folder_without_a_readable_map_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RsbPoseError, match=r'holds no environment map'):
        LightBank(tmp_path)
    (tmp_path / 'broken.hdr').write_bytes(b'nothing')
    with pytest.raises(RsbPoseError, match=r'None of the 1 environment maps .* can be read'):
        LightBank(tmp_path)


def test_without_a_folder_there_are_skies_and_rooms() -> None:
    bank = LightBank()
    assert bank.outdoors.any()
    assert not bank.outdoors.all()
    assert torch.isfinite(bank.ambient).all()
    # other splits see other light
    assert not torch.equal(bank.ambient, LightBank(split='test').ambient)


def test_same_seed_gives_the_same_light() -> None:
    bank, outdoors = LightBank(made_up=6), torch.tensor([True, False, False])
    first, second = (vars(bank.sample(3, Draw(5), outdoors)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.skipif(not HDRI.is_dir(), reason='needs the environment maps')
@pytest.mark.parametrize('name', ['noon_grass_512', 'kloppenheim_05_512', 'chinese_garden_1k'])
def test_photographed_suns_are_sharp_and_where_the_brightest_pixel_is(name: str) -> None:
    (radiance,) = lighting.read_maps([HDRI / f'{name}.hdr'])
    brightest = np.unravel_index(int(radiance.mean(-1).argmax()), radiance.shape[:2])
    expected = lighting.directions(*radiance.shape[:2])[brightest]
    measured = measure(radiance)
    assert measured.sun_direction @ expected > np.cos(np.radians(2.0))
    assert measured.sun_size < 0.02
    assert measured.sun.mean() > 2 * measured.ambient[0].mean()
