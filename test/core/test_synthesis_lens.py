"""Lenses and rolling shutters against OpenCV and against time itself."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.rectification import CameraModel
from rsb_pose_core.synthesis.cameras import RIGS, CameraSpace, sample_shots
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.lens import (
    Lenses,
    LensSpace,
    pixel_grid,
    raw_grid,
    rectification_grid,
    resample,
    sample_lenses,
)
from rsb_pose_core.synthesis.rolling import RollingRows
from rsb_pose_core.synthesis.view import View

WIDTH, HEIGHT = 320, 240
K = np.array([[265.0, 0, 161], [0, 266, 118], [0, 0, 1]])
P = np.array([[250.0, 0, 155, 0], [0, 250, 120, 0], [0, 0, 1, 0]])
R = cv2.Rodrigues(np.radians([0.5, -0.8, 0.4]))[0]
LENSES = {
    'plumb_bob': [-0.285, 0.098, 6e-4, -4e-4, 0.0],
    'rational_polynomial': [
        0.3,
        0.02,
        5e-4,
        -3e-4,
        1e-3,
        0.6,
        0.05,
        2e-3,
        1e-3,
        2e-4,
        -1e-3,
        1e-4,
    ],
    'equidistant': [-0.02, 0.01, -3e-3, 5e-4],
}


def camera(kind: str, d: list[float], name: str = 'camera') -> CameraModel:
    return CameraModel(WIDTH, HEIGHT, kind, np.array(d), K, R, P, name)


@pytest.fixture(params=LENSES)
def model(request) -> CameraModel:
    return camera(request.param, LENSES[request.param])


def test_rectified_pixels_agree_with_opencv(model):
    raw = pixel_grid(HEIGHT, WIDTH, torch.zeros(1, dtype=torch.float64))[:, ::7].contiguous()
    found = Lenses.of([model]).rectified_of_raw(raw)[0]
    np.testing.assert_allclose(found, model.rectify_points(raw[0].numpy()), atol=1e-8)


def test_rectification_maps_agree_with_opencv(model):
    fisheye = model.distortion_model == 'equidistant'
    build = cv2.fisheye.initUndistortRectifyMap if fisheye else cv2.initUndistortRectifyMap
    size = (WIDTH, HEIGHT)
    x, y = build(model.k, model.d, model.r, model.p[:, :3], size, cv2.CV_32FC1)
    grid = rectification_grid(Lenses.of([model]))[0].numpy()
    np.testing.assert_allclose(grid, np.stack([x.ravel(), y.ravel()], 1), atol=1e-4)


def test_bending_and_unbending_cancel(model):
    lens = Lenses.of([model, model])
    rays = Draw(1).uniform(-0.6, 0.6, 2, 50, 2).double()
    assert (lens.undistort(lens.distort(rays)) - rays).abs().max() < 1e-12


def test_rays_that_a_lens_folds_back_are_nan():
    """r - 0.3 r^3 grows up to r = 1.05 only."""
    lens = Lenses.of([camera('plumb_bob', [-0.3, 0.0, 0.0, 0.0])])
    bent = lens.distort(torch.tensor([[[1.0, 0.0], [1.1, 0.0]]], dtype=torch.float64))
    assert bent[0, 0, 0] == pytest.approx(0.7)
    assert bent[0, 1].isnan().all()
    assert lens.undistort(torch.tensor([[[0.75, 0.0]]], dtype=torch.float64)).isnan().all()


def test_a_tilted_sensor_is_refused():
    d = [0.1, 0, 0, 0, 0, 0.1, 0, 0, 0, 0, 0, 0, 0.01, 0]
    model = camera('rational_polynomial', d, 'left camera')
    with pytest.raises(CalibrationError, match='left camera has coefficients of a tilted sensor'):
        Lenses.of([model])


def test_a_raw_image_rectified_by_opencv_shows_what_the_pinhole_shows(model):
    """Pinhole picture -> our raw image -> OpenCV's rectification: smooth pictures agree."""
    view = pinholes(1, HEIGHT + 80, WIDTH + 80, 250.0)
    v, u = torch.meshgrid(torch.arange(view.height), torch.arange(view.width), indexing='ij')
    picture = 120 + 50 * (u / 17.0).sin() + 50 * (v / 13.0).cos()
    lens = Lenses.of([model])
    grid = raw_grid(view, lens, torch.eye(3, dtype=torch.float64)[None])
    raw = resample(picture[None, None], grid, HEIGHT, WIDTH)[0, 0].round().byte().numpy()
    maps = model.rectification_maps()
    rectified = cv2.remap(raw, *maps, cv2.INTER_LINEAR)
    # the same rays by hand: rectified pixel -> camera axes -> pinhole
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    rays = np.stack([(x - 155) / 250, (y - 120) / 250, np.ones_like(x)], -1) @ R
    at = rays[..., :2] / rays[..., 2:] * 250 + [(view.width - 1) / 2, (view.height - 1) / 2]
    expected = 120 + 50 * np.sin(at[..., 0] / 17) + 50 * np.cos(at[..., 1] / 13)
    error = np.abs(rectified - expected)[20:-20, 20:-20]
    assert np.median(error) < 0.6
    assert error.max() < 4


def pinholes(count: int, height: int, width: int, focal: float) -> View:
    one = torch.ones(count)
    return View(
        one * focal, one * focal, one * (width - 1) / 2, one * (height - 1) / 2,
        torch.eye(3).repeat(count, 1, 1), torch.zeros(count, 3), height, width,
    )  # fmt: skip


def spots(uv: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pictures (N, 1, H, W) of a soft spot at uv (N, 2)."""
    place = pixel_grid(height, width, uv)
    square = (place - uv[:, None]).square().sum(-1)
    return (-square / 6).exp().view(-1, 1, height, width)


def middles(pictures: torch.Tensor) -> torch.Tensor:
    """Centres of gravity (N, 2) of pictures (N, 1, H, W)."""
    weight = pictures.flatten(1)[..., None]
    place = pixel_grid(*pictures.shape[2:], pictures)
    return (weight * place).sum(1) / weight.sum(1)


@pytest.fixture(scope='module')
def residual():
    """Calibrations of twelve pairs of heads of 640 x 480, seen in crops of half the size."""
    size = torch.tensor([[640.0, 480.0]]).repeat(12, 1)
    space = LensSpace(share=1.0, residual_px=(0.5, 1.5))
    return sample_lenses(Draw(5), space, torch.full((12,), 450.0), size), pinholes(
        24, 240, 320, 225.0
    )


def test_labels_are_where_wrongly_rectified_pictures_show_them(residual):
    """Pictures of their own coordinates: at its label, a picture shows the joint's own place."""
    lenses, view = residual
    uv = Draw(1).uniform(0.25, 0.75, 24, 9, 2) * torch.tensor([320.0, 240.0])
    place = pixel_grid(240, 320, uv).mT.unflatten(2, (240, 320)).expand(24, -1, -1, -1)
    raw, _ = lenses.raw_pictures(place, view)
    label = lenses.shown(uv, view)
    there = resample(lenses.rectified(raw, view), label, 3, 3).flatten(2).mT
    assert (there - uv).norm(dim=2).max() < 0.02
    assert (label - uv).norm(dim=2).max() > 0.2


def test_residuals_have_the_size_asked_for(residual):
    lenses, view = residual
    edge = torch.tensor([[318.0, 120.0]]).repeat(24, 1)[:, None]
    moved = (lenses.shown(edge, view) - edge).norm(dim=2) * 2  # px of the whole image
    assert 0.2 < moved.nanmedian() < 1.5
    assert (lenses.source(lenses.shown(edge, view), view) - edge).nan_to_num().abs().max() < 1e-2


def test_raw_pictures_are_bent_and_end_at_the_sensor(residual):
    lenses, view = residual
    picture = torch.ones(24, 1, 240, 320)
    raw, inside = lenses.raw_pictures(picture, view)
    rectified = lenses.rectified(raw * inside[:, None], view)
    black = (rectified < 0.5).flatten(1).float().mean(1)
    assert (black > 0).any()  # some corners lie outside their raw image
    assert (rectified[:, :, 60:-60, 60:-60] > 0.99).all()


def test_no_lens_leaves_pictures_alone():
    size = torch.tensor([[640.0, 480.0]])
    lenses = sample_lenses(Draw(5), LensSpace(share=0.0), torch.tensor([450.0]), size)
    view = pinholes(2, 120, 160, 112.5)
    picture = Draw(2).uniform(0.0, 1.0, 2, 3, 120, 160)
    raw, inside = lenses.raw_pictures(picture, view)
    assert inside.all()
    assert (lenses.rectified(raw, view) - picture).abs().max() < 1e-3
    uv = torch.tensor([[[10.0, 20.0]]]).repeat(2, 1, 1)
    assert (lenses.shown(uv, view) - uv).abs().max() < 1e-4


ROWS = RollingRows(
    torch.tensor([100.0]), torch.tensor([0.5]), torch.tensor([480.0]), torch.tensor([0.024])
)


def test_row_times_run_from_the_first_row_to_the_last():
    whole = RollingRows(
        torch.zeros(1), torch.ones(1), torch.tensor([480.0]), torch.tensor([0.024])
    )
    assert whole.time_s(torch.tensor([[0.0, 239.5, 479.0]]))[0].tolist() == pytest.approx(
        [-0.012, 0.0, 0.012], abs=1e-9
    )
    # row 69.5 of a crop of half the size that begins at row 100 is the middle of the image
    assert float(ROWS.time_s(torch.tensor([[69.5]]))) == pytest.approx(0.0, abs=1e-9)


def test_rows_of_a_crop_take_the_time_of_the_rows_they_show():
    """240 rows that show every second row of 480: as long as the whole image, to a row."""
    joints = Draw(1).normal(1, 17, 3) + torch.tensor([0.0, 1.0, 0.0])
    mode = replace(RIGS['zed2'].modes[2], height=480, readout_s=0.0479)
    rig = replace(RIGS['zed2'], modes=(mode,))
    shots = sample_shots(1, Draw(1), CameraSpace((rig,), 1.0), joints)
    readout = shots.readout_of_crops_s(torch.tensor([0.5]), 240)
    assert readout.tolist() == pytest.approx([0.0478, 0.0478])
    rows = RollingRows.of_pictures(readout, 240)
    assert rows.time_s(torch.tensor([[0.0, 239.0]]).expand(2, -1))[1].tolist() == pytest.approx(
        [-0.0239, 0.0239]
    )


def test_a_moving_joint_is_shown_where_it_is_at_the_time_of_its_row():
    view = pinholes(1, 240, 320, 225.0)
    point = torch.tensor([[[0.2, -0.6, 3.0], [0.1, 0.7, 2.5]]])
    velocity = torch.tensor([[[4.0, 3.0, -2.0], [-5.0, 2.0, 1.0]]])
    image = torch.zeros(1, dtype=torch.long)
    there = ROWS.moved(point, velocity, view, image)
    time = ROWS.time_s(view.project(there, image)[..., 1])
    assert (there - (point + velocity * time[..., None])).abs().max() < 1e-6
    assert time.abs().max() > 5e-3


def test_a_rolled_picture_shows_what_moves_at_its_labels():
    uv = torch.tensor([[160.0, 60.0]])
    flow = torch.tensor([[700.0, -300.0]])  # px / s
    picture = spots(uv, 240, 320)
    rolled = ROWS.rolled(picture, flow.expand(240, 320, 2)[None])
    label = ROWS.shown(uv[:, None], flow[:, None])[:, 0]
    assert (middles(rolled) - label).abs().max() < 0.02
    assert (label - uv).norm() > 0.3
    time = ROWS.time_s(label[:, 1:])
    assert torch.allclose(label, uv + flow * time, atol=1e-4)
