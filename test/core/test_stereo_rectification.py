"""Rectification of calibrated cameras against plain projection formulas and brute-force search."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.spatial.transform import Rotation

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.geometry import project, triangulate
from rsb_pose_core.loop_zhang import (
    loop_zhang_homographies,
    projective_components,
    projective_distortion,
)
from rsb_pose_core.stereo_rectification import (
    ROTATIONS,
    Camera,
    fundamental_matrix,
    left_camera_first,
    rectify_pair,
)

METHODS = ('bouguet', 'loop-zhang')
TARGET = np.array([0.2, 0.1, 4.0])


def camera(
    at=(0.0, 0.0, 0.0), turn=(0.0, 0.0, 0.0), size=(640, 470), focal=520.0, d=(), name='camera'
) -> Camera:
    """A camera at a place, turned by degrees about its x, y and z axes; y of the world is down."""
    rotation = Rotation.from_euler('xyz', turn, degrees=True).as_matrix()
    width, height = size
    k = np.array([(focal, 0, width / 2 + 9), (0, 1.02 * focal, height / 2 - 7), (0, 0, 1.0)])
    return Camera(width, height, k, np.array(d), rotation, -rotation @ np.array(at), name)


def short_pair() -> tuple[Camera, Camera]:
    """Like MHAD's: 0.24 m apart, badly aligned, lenses that bend by dozens of pixels."""
    return (
        camera((0.1, 0.2, -0.1), (1.5, -2.0, 1.0), d=(-0.31, 0.13, 0.001, -0.002), name='one'),
        camera(
            (0.34, 0.23, -0.05),
            (-1.0, -5.0, -1.5),
            size=(700, 500),
            focal=560.0,
            d=(-0.28, 0.1, -0.001, 0.001, -0.01),
            name='other',
        ),
    )


def wide_pair() -> tuple[Camera, Camera]:
    """Like Human3.6M's: 3.8 m apart, converging by about 50 degrees, one before the other."""
    lens = (-0.2, 0.24, -0.0007, -0.0005, -0.003, 0, 0, 0, -0.0005, 0, -0.0007, 0)
    return (
        camera((-1.7, 0.0, 0.0), (-4.0, -19.0, 2.0), (1000, 1002), 1145.0, lens, name='one'),
        camera((2.0, -0.1, -0.7), (-5.0, 30.0, -1.0), (1000, 1000), 1150.0, lens, name='other'),
    )


PAIRS = {'short': short_pair, 'wide': wide_pair}


def scene(count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(5)
    return TARGET + rng.uniform((-0.5, -0.8, -0.5), (0.5, 0.8, 0.5), (count, 3))


def plain_pixels(view: Camera, xyz_world: np.ndarray) -> np.ndarray:
    """The lens model of OpenCV's documentation, term by term."""
    k1, k2, p1, p2, k3, *more = (*view.d, *np.zeros(12 - view.d.size))
    s1, s2, s3, s4 = more[3:7]
    assert not any(more[:3])
    pixels = []
    for point in xyz_world:
        x, y, z = view.rotation @ point + view.translation_m
        x, y = x / z, y / z
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2 + s2 * r2**2
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + s3 * r2 + s4 * r2**2
        pixels.append((view.k[0, 0] * u + view.k[0, 2], view.k[1, 1] * v + view.k[1, 2]))
    return np.array(pixels)


def moved(h: np.ndarray, points: np.ndarray) -> np.ndarray:
    homogeneous = np.column_stack((points, np.ones(len(points)))) @ h.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


@pytest.mark.parametrize('pair', PAIRS)
@pytest.mark.parametrize('method', METHODS)
class TestPoints:
    def test_raw_pixels_meet_in_rows_and_triangulate_to_the_world(self, pair, method):
        left, right = PAIRS[pair]()
        xyz = scene()
        rectified = rectify_pair(left, right, method)
        uv_left = rectified.rectify_points(plain_pixels(left, xyz), 0)
        uv_right = rectified.rectify_points(plain_pixels(right, xyz), 1)
        assert np.abs(uv_left - uv_right)[:, 1].max() < 1e-8
        uvd = np.column_stack((uv_left, (uv_left - uv_right)[:, 0]))
        found = triangulate(torch.from_numpy(uvd), rectified.calibration).numpy()
        assert np.abs(found - rectified.to_rectified(xyz)).max() < 1e-9
        # a rigid motion: distances are those of the world
        gaps = [np.linalg.norm(b - a) for a, b in pairwise(xyz)]
        assert np.allclose([np.linalg.norm(b - a) for a, b in pairwise(found)], gaps, atol=1e-9)

    def test_project_of_a_camera_is_the_plain_formula(self, pair, method):
        for view in PAIRS[pair]():
            assert np.abs(view.project(scene()) - plain_pixels(view, scene())).max() < 1e-9

    def test_the_rectified_left_camera_is_the_origin_and_the_right_lies_on_x(self, pair, method):
        left, right = PAIRS[pair]()
        rectified = rectify_pair(left, right, method)
        centres = rectified.to_rectified(np.stack((left.centre_m, right.centre_m)))
        baseline = np.linalg.norm(right.centre_m - left.centre_m)
        assert np.allclose(centres, [(0, 0, 0), (baseline, 0, 0)], atol=1e-12)
        assert rectified.calibration.baseline_m.item() == pytest.approx(baseline, abs=1e-12)

    def test_the_middle_of_a_picture_keeps_its_area(self, pair, method):
        left, right = PAIRS[pair]()
        rectified = rectify_pair(left, right, method)
        areas = []
        for view, h in zip((left, right), map(rectified.homography, (0, 1)), strict=True):
            x, y = (view.width - 1) / 2, (view.height - 1) / 2
            ray = view.rays(np.array([(x, y)]))[0]
            u, v, _ = view.k @ ray
            step = 1e-3
            square = np.array([(u, v), (u + step, v), (u, v + step)])
            a, b, c = moved(h, square)
            areas.append(((b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]) / step**2)
        assert np.prod(areas) == pytest.approx(1, abs=1e-5)

    def test_views_hold_the_common_rows_and_all_their_columns(self, pair, method):
        left, right = PAIRS[pair]()
        rectified = rectify_pair(left, right, method)
        borders = [rectified.rectify_points(view.border(), n) for n, view in
                   enumerate((left, right))]  # fmt: skip
        top = max(border[:, 1].min() for border in borders)
        bottom = min(border[:, 1].max() for border in borders)
        assert abs(top + 0.5) < 1
        assert abs(bottom - (rectified.height - 0.5)) < 1
        for border in borders:
            assert border[:, 0].min() > -0.51
            assert border[:, 0].max() < rectified.width - 0.49
        assert any(np.ptp(border[:, 0]) > rectified.width - 1 for border in borders)


@pytest.mark.parametrize('pair', PAIRS)
@pytest.mark.parametrize('method', METHODS)
class TestPictures:
    def test_dots_of_raw_pictures_are_where_points_are_predicted(self, pair, method):
        left, right = PAIRS[pair]()
        xyz = TARGET + np.array([(-0.4, -0.6, 0.2), (0.45, 0.5, -0.3), (0.1, 0.0, 0.4)])
        rectified = rectify_pair(left, right, method)
        raw = [dots(view, plain_pixels(view, xyz)) for view in (left, right)]
        for n, picture in enumerate(rectified.rectify(*raw)):
            assert picture.shape == (rectified.height, rectified.width, 3)
            uvd = project(torch.from_numpy(rectified.to_rectified(xyz)), rectified.calibration)
            for channel, (u, v, disparity) in enumerate(uvd.tolist()):
                found = centroid(picture[..., channel], u - n * disparity, v)
                assert np.abs(found - (u - n * disparity, v)).max() < 0.1

    def test_valid_is_where_a_white_picture_stays_white(self, pair, method):
        """Beyond it all is black, also where the wide pair's lens polynomial folds back."""
        left, right = PAIRS[pair]()
        rectified = rectify_pair(left, right, method)
        white = [np.full((view.height, view.width), 255, np.uint8) for view in (left, right)]
        for picture, valid in zip(rectified.rectify(*white), rectified.valid, strict=True):
            assert valid.shape == picture.shape
            assert 0.3 < valid.mean() <= 1
            assert picture[valid].min() >= 250  # steps of 1/32 pixel at the very edge
            edge = cv2.dilate(valid.astype(np.uint8), np.ones((7, 7))) == 0
            assert not picture[edge].any()


def dots(view: Camera, uv: np.ndarray) -> np.ndarray:
    """A picture with one smooth dot in each colour."""
    v, u = np.mgrid[: view.height, : view.width]
    layers = [np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 3.0**2)) for x, y in uv]
    return (255 * np.stack(layers, -1)).round().astype(np.uint8)


def centroid(layer: np.ndarray, u: float, v: float, reach: int = 14) -> np.ndarray:
    x, y = round(u), round(v)
    window = layer[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(float)
    rows, columns = np.mgrid[y - reach : y + reach + 1, x - reach : x + reach + 1]
    return np.array([(columns * window).sum(), (rows * window).sum()]) / window.sum()


def test_a_view_that_stretches_is_cut_round_what_its_camera_looks_at():
    left, right = camera((0, 0, 0), (0, 5, 0), focal=400.0), camera((2, 0, -0.4), (0, 34, 0))
    rectified = rectify_pair(*left_camera_first(left, right))
    assert rectified.width == 2 * 640
    borders = [rectified.rectify_points(view.border(), n) for n, view in enumerate((left, right))]
    assert max(np.ptp(border[:, 0]) for border in borders) > 2 * 640
    for n, view in enumerate((left, right)):
        middle = np.array([(view.width - 1, view.height - 1)]) / 2
        column = rectified.rectify_points(middle, n)[0, 0]
        assert 100 < column < 2 * 640 - 100


# ---- Loop and Zhang ----


def matrices() -> list[tuple[np.ndarray, tuple[int, int], tuple[int, int]]]:
    """Fundamental matrices of quite different pairs and their picture sizes."""
    found = []
    for left, right in (make() for make in PAIRS.values()):
        sizes = ((left.width, left.height), (right.width, right.height))
        found.append((fundamental_matrix(left, right), *sizes))
    steep = (camera((0, 0, 0), (2, -10, 4)), camera((0.5, 0.2, 0.3), (-3, 12, -9), (700, 500)))
    return [*found, (fundamental_matrix(*steep), (640, 470), (700, 500))]


MATRICES = pytest.mark.parametrize(('f', 'size_left', 'size_right'), matrices())


@pytest.mark.parametrize('pair', PAIRS)
def test_the_fundamental_matrix_holds_for_undistorted_pixels(pair):
    left, right = PAIRS[pair]()
    rays = [scene() @ view.rotation.T + view.translation_m for view in (left, right)]
    pixels = [
        (points / points[:, 2:]) @ view.k.T
        for points, view in zip(rays, (left, right), strict=True)
    ]
    f = fundamental_matrix(left, right)
    residual = np.einsum('ni,ij,nj->n', pixels[1], f, pixels[0])
    assert np.abs(residual).max() < 1e-9
    assert np.linalg.norm(f) == pytest.approx(1)


@MATRICES
def test_loop_zhang_turns_f_into_that_of_equal_rows(f, size_left, size_right):
    h_left, h_right = loop_zhang_homographies(f, size_left, size_right)
    after = np.linalg.inv(h_right).T @ f @ np.linalg.inv(h_left)
    after /= after[2, 1]
    assert np.abs(after - [(0, 0, 0), (0, 0, -1), (0, 1, 0)]).max() < 1e-9


@pytest.mark.parametrize('pair', PAIRS)
def test_loop_zhang_gives_one_row_to_both_pictures_of_a_point(pair):
    left, right = PAIRS[pair]()
    sizes = [(view.width, view.height) for view in (left, right)]
    rows = []
    for h, view in zip(
        loop_zhang_homographies(fundamental_matrix(left, right), *sizes),
        (left, right),
        strict=True,
    ):
        points = scene() @ view.rotation.T + view.translation_m
        rows.append(moved(h, ((points / points[:, 2:]) @ view.k.T)[:, :2])[:, 1])
    assert np.abs(rows[0] - rows[1]).max() < 1e-9 * 1000  # of rows up to 1000
    assert np.ptp(rows[0]) > 100


@MATRICES
def test_the_projective_part_is_the_least_distorting_of_all(f, size_left, size_right):
    parts = projective_components(f, size_left, size_right)
    sizes = (size_left, size_right)
    least = sum(projective_distortion(w, s) for w, s in zip(parts, sizes, strict=True))
    epipole = np.linalg.svd(f)[2][2]
    angles = np.linspace(0, np.pi, 4001)
    every = []
    for angle in angles:
        # lines of one pencil: through the epipole and a point at infinity, any choice will do
        z = np.array([np.cos(angle), np.sin(angle), 0.0])
        pencil = (np.cross(epipole, z), f @ z)
        every.append(sum(projective_distortion(w, s) for w, s in zip(pencil, sizes, strict=True)))
    assert least <= min(every) * (1 + 1e-9)
    assert least == pytest.approx(min(every), rel=1e-3)
    assert max(every) > 10 * least


def test_the_projective_distortion_sums_over_all_pixels():
    w, (width, height) = np.array([3e-4, -2e-4, 0.9]), (31, 18)
    middle = w @ ((width - 1) / 2, (height - 1) / 2, 1)
    total = sum(
        (w[0] * (u - (width - 1) / 2) + w[1] * (v - (height - 1) / 2)) ** 2 / middle**2
        for u in range(width)
        for v in range(height)
    )
    assert projective_distortion(w, (width, height)) == pytest.approx(total, rel=1e-12)


@MATRICES
def test_shear_keeps_mid_lines_orthogonal_and_their_ratio(f, size_left, size_right):
    sizes = (size_left, size_right)
    homographies = loop_zhang_homographies(f, *sizes)
    for h, (width, height) in zip(homographies, sizes, strict=True):
        ends = np.array([(1, 0.5), (0, 0.5), (0.5, 1), (0.5, 0)]) * (width - 1, height - 1)
        right, left, bottom, top = moved(h, ends)
        x, y = right - left, bottom - top
        assert abs(x @ y) < 1e-8 * np.linalg.norm(x) * np.linalg.norm(y)
        ratio = np.linalg.norm(x) / np.linalg.norm(y)
        assert ratio == pytest.approx((width - 1) / (height - 1), rel=1e-9)
        assert min(x[0], y[1]) > 0  # neither mirrored nor upside down


@MATRICES
def test_loop_zhang_keeps_the_area_and_starts_at_the_first_row(f, size_left, size_right):
    sizes = (size_left, size_right)
    areas, tops = [], []
    for h, (width, height) in zip(loop_zhang_homographies(f, *sizes), sizes, strict=True):
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (width - 1, height - 1.0)
        outline = moved(h, corners)
        areas.append(cv2.contourArea(outline.astype(np.float32)))
        tops.append(outline[:, 1].min())
        assert abs(outline[:, 0].min()) < 1e-8
    assert min(tops) == pytest.approx(0, abs=1e-8)
    expected = sum((width - 1) * (height - 1) for width, height in sizes)
    assert sum(areas) == pytest.approx(expected, rel=1e-5)


def test_loop_zhang_leaves_a_rectified_pair_as_it_is():
    f = np.array([(0, 0, 0), (0, 0, -1.0), (0, 1.0, 0)])
    for h in loop_zhang_homographies(f, (640, 470), (640, 470)):
        assert np.abs(h - np.eye(3)).max() < 1e-9


def test_the_sign_and_scale_of_f_change_nothing():
    f, *sizes = matrices()[1]
    for one, other in zip(
        loop_zhang_homographies(f, *sizes), loop_zhang_homographies(-7e4 * f, *sizes), strict=True
    ):
        assert np.allclose(one, other, rtol=1e-9, atol=1e-7)


def test_an_epipole_in_its_picture_is_refused():
    left, right = camera((0, 0, 0)), camera((0.05, 0, 1.0))
    with pytest.raises(CalibrationError, match='an epipole lies in its picture'):
        loop_zhang_homographies(fundamental_matrix(left, right), (640, 470), (640, 470))


@pytest.mark.parametrize('pair', PAIRS)
@pytest.mark.parametrize('method', METHODS)
def test_both_methods_are_loop_zhang_up_to_the_angle_and_shifts_along_rows(pair, method):
    """The relation that the module states: H = A H_LZ, rows of A shared by both views.

    For 'bouguet' the angle differs, so that A has a projective third row; it is shared as well.
    """
    left, right = PAIRS[pair]()
    rectified = rectify_pair(left, right, method)
    sizes = ((left.width, left.height), (right.width, right.height))
    affinities = []
    for n, h in enumerate(loop_zhang_homographies(fundamental_matrix(left, right), *sizes)):
        a = rectified.homography(n) @ np.linalg.inv(h)
        affinities.append(a / a[2, 2])
    assert np.abs(affinities[0][1:, 0]).max() < 1e-9  # rows stay rows
    assert np.allclose(affinities[0][1:], affinities[1][1:], rtol=1e-9, atol=1e-9)
    if method == 'loop-zhang':
        assert np.allclose(affinities[0][2], (0, 0, 1), atol=1e-12)
    else:
        assert abs(affinities[0][2, 1]) > 1e-8


@pytest.mark.parametrize('pair', PAIRS)
def test_loop_zhang_takes_the_least_distorting_turn_about_the_baseline(pair):
    left, right = PAIRS[pair]()
    sizes = ((left.width, left.height), (right.width, right.height))

    def distortion(degrees: float) -> float:
        turn = Rotation.from_euler('x', degrees, degrees=True).as_matrix()
        rotations = ROTATIONS['loop-zhang'](left, right)
        return sum(
            projective_distortion((turn @ r)[2] @ np.linalg.inv(view.k), size)
            for r, view, size in zip(rotations, (left, right), sizes, strict=True)
        )

    chosen = distortion(0.0)
    assert all(distortion(degrees) > chosen for degrees in (-20, -3, -0.3, 0.3, 3, 20))


def test_bouguet_turns_both_cameras_equally():
    """From the cameras to halfway between, and from there both by the same rotation."""
    left, right = wide_pair()
    r_left, r_right = ROTATIONS['bouguet'](left, right)
    half = Rotation.from_matrix(right.rotation @ left.rotation.T).as_rotvec() / 2
    to_half = [Rotation.from_rotvec(sign * half).as_matrix() for sign in (1, -1)]
    assert np.allclose(r_left @ to_half[0].T, r_right @ to_half[1].T, atol=1e-9)


# ---- refusals ----


def test_left_is_told_by_geometry():
    left, right = wide_pair()
    assert left_camera_first(left, right) == (left, right)
    assert left_camera_first(right, left) == (left, right)
    # both turned by half a circle about their view: what was left is right
    upside = [turned(view, (0, 0, 180)) for view in (left, right)]
    assert left_camera_first(*upside) == (upside[1], upside[0])
    with pytest.raises(CalibrationError, match='the other and the one are swapped'):
        rectify_pair(right, left)


def turned(view: Camera, degrees) -> Camera:
    turn = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
    return replace(view, rotation=turn @ view.rotation, translation_m=turn @ view.translation_m)


@pytest.mark.parametrize(
    ('right', 'message'),
    [
        (camera((0, 0, 0), name='twin'), 'the left and the twin stand at one place'),
        (camera((0.1, 0.4, 0), name='upper'), 'a baseline 76 degrees off their x axes'),
        (camera((0.1, 0, 0.4), name='front'), 'a baseline 76 degrees off their x axes'),
        (camera((1, 0, 0), (0, 75, 0), name='side'), 'degrees off the rectified axis'),
        (camera((1, 0, 0), (70, 0, 0), name='down'), 'no row in common|rectified axis'),
    ],
)
@pytest.mark.parametrize('method', METHODS)
def test_cameras_that_are_no_left_and_right_view_are_refused(right, message, method):
    with pytest.raises(CalibrationError, match=message):
        rectify_pair(camera(name='left'), right, method)


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(CalibrationError, match="'fusiello' is not known.*bouguet, loop-zhang"):
        rectify_pair(*short_pair(), 'fusiello')


def test_pictures_of_another_size_are_refused():
    rectified = rectify_pair(*short_pair())
    small = np.zeros((470, 640, 3), np.uint8)
    with pytest.raises(CalibrationError, match='the other has 640x470 pixels, expected 700x500'):
        rectified.rectify(small, small)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'width': 0}, 'a picture of 0x470'),
        ({'k': np.eye(4)}, 'k of 16 numbers, expected 9'),
        ({'k': np.array([(500, 2, 320), (0, 500, 240), (0, 0, 1.0)])}, r'matrix K \[\[500'),
        ({'k': np.diag((-500.0, 500.0, 1.0))}, 'matrix K'),
        ({'d': np.zeros(6)}, '6 distortion coefficients, expected one of 0, 4, 5'),
        ({'d': np.full(5, np.nan)}, 'd that is not finite'),
        ({'rotation': np.diag((1.0, 1.0, -1.0))}, 'a rotation that does not rotate'),
        ({'rotation': 1.1 * np.eye(3)}, 'a rotation that does not rotate'),
        ({'translation_m': np.zeros(4)}, 'translation_m of 4 numbers'),
    ],
)
def test_values_that_are_no_camera_are_refused(change, message):
    with pytest.raises(CalibrationError, match=f'^the kitchen has .*{message}'):
        replace(camera(name='kitchen'), **change)


def test_a_lens_that_folds_within_its_picture_is_refused():
    bad = camera((0, 0, 0), d=(-0.9, 0.0, 0, 0), name='cheap one')
    with pytest.raises(CalibrationError, match='distortion of the cheap one cannot be undone'):
        rectify_pair(bad, camera((0.2, 0, 0)))


def test_a_wrong_shape_is_refused():
    with pytest.raises(TypeCheckError):
        rectify_pair(*short_pair()).to_rectified(np.zeros((4, 2)))
