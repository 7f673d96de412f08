import math
import warnings

import cv2
import numpy as np
import pytest
from image_geometry import PinholeCameraModel, StereoCameraModel
from numpy.testing import assert_allclose, assert_array_equal
from sensor_msgs.msg import CameraInfo, RegionOfInterest

WIDTH, HEIGHT = 640, 360
K = np.array([[430.0, 0, 311.5], [0, 432.0, 176.25], [0, 0, 1]])
D = [-0.36, 0.16, -8e-4, -4.5e-4, 0.02]
FX, FY, CX, CY, BASELINE_M = 300.0, 302.0, 285.5, 173.25, 0.12


def rotation(angle_rad):
    return cv2.Rodrigues(np.array([0.01, angle_rad, -0.02]))[0]


def camera_info(*, right=False, fy=FY, **fields):
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob', d=D, **fields)
    info.header.frame_id = 'right_optical' if right else 'left_optical'
    info.header.stamp.sec = 7
    info.k = K.ravel().tolist()
    info.r = rotation(-0.03 if right else 0.04).ravel().tolist()
    tx = -FX * BASELINE_M if right else 0.0
    info.p = [FX, 0.0, CX, tx, 0.0, fy, CY, 0.0, 0.0, 0.0, 1.0, 0.0]
    return info


@pytest.fixture
def camera():
    model = PinholeCameraModel()
    model.from_camera_info(camera_info())
    return model


@pytest.fixture
def pair():
    model = StereoCameraModel()
    model.from_camera_info(camera_info(fy=FX), camera_info(right=True, fy=FX))
    return model


def test_parameters_are_those_of_the_message(camera):
    assert_array_equal(camera.intrinsic_matrix(), K)
    assert_array_equal(camera.distortion_coeffs(), np.array(D)[:, np.newaxis])
    assert_array_equal(camera.rotation_matrix(), rotation(0.04))
    assert_array_equal(camera.projection_matrix(), [[FX, 0, CX, 0], [0, FY, CY, 0], [0, 0, 1, 0]])
    assert (camera.fx(), camera.fy(), camera.cx(), camera.cy()) == (FX, FY, CX, CY)
    assert (camera.tx(), camera.ty()) == (0.0, 0.0)
    assert camera.full_resolution() == (WIDTH, HEIGHT)
    assert camera.get_tf_frame() == 'left_optical'
    assert camera.fov_x() == pytest.approx(2 * math.atan(320 / 300))
    assert camera.fov_y() == pytest.approx(2 * math.atan(180 / 302))


def test_matrices_are_arrays_not_numpy_matrices(camera):
    for matrix in (camera.intrinsic_matrix(), camera.projection_matrix()):
        assert type(matrix) is np.ndarray
        assert matrix.dtype == np.float64


def test_no_distortion_is_none():
    info = camera_info()
    info.d = []
    model = PinholeCameraModel()
    model.from_camera_info(info)
    assert model.distortion_coeffs() is None
    assert model.rectify_point((12.0, 34.0)) == pytest.approx(
        cv2.undistortPoints(
            np.array([[[12.0, 34.0]]]), K, None, R=rotation(0.04), P=model.projection_matrix()
        ).ravel()
    )


def test_rectified_image_is_opencvs(camera):
    random = np.random.default_rng(3)
    raw = cv2.resize(random.integers(0, 255, (18, 32, 3), np.uint8), (WIDTH, HEIGHT))
    rectified = np.zeros_like(raw)
    assert camera.rectify_image(raw, rectified) is None
    maps = cv2.initUndistortRectifyMap(
        K, np.array(D), rotation(0.04), camera.projection_matrix(), (WIDTH, HEIGHT), cv2.CV_32FC1
    )
    assert_array_equal(rectified, cv2.remap(raw, *maps, cv2.INTER_CUBIC))
    assert rectified.any()


def test_rectified_point_lands_where_the_rectified_image_shows_it(camera):
    raw = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.circle(raw, (400, 100), 4, 1.0, -1)
    rectified = np.zeros_like(raw)
    camera.rectify_image(raw, rectified)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    centre = [(axis * rectified).sum() / rectified.sum() for axis in (columns, rows)]
    point = camera.rectify_point((400, 100))
    assert point.shape == (2,)
    assert_allclose(point, centre, atol=0.05)


def test_ray_and_projection_are_inverse(camera):
    for uv in ((0.0, 0.0), (CX, CY), (639.0, 12.5)):
        ray = camera.project_pixel_to_3d_ray(uv)
        assert math.hypot(*ray) == pytest.approx(1.0)
        assert camera.project_3d_to_pixel([4.2 * c for c in ray]) == pytest.approx(uv)
    assert camera.project_pixel_to_3d_ray((CX, CY)) == (0.0, 0.0, 1.0)


def test_point_in_the_plane_of_the_camera_has_no_pixel(camera):
    assert all(math.isnan(c) for c in camera.project_3d_to_pixel((1.0, 2.0, 0.0)))


def test_spans_of_pixels_and_metres_are_inverse(camera):
    assert camera.get_delta_u(0.5, 2.0) == FX * 0.5 / 2.0
    assert camera.get_delta_v(0.5, 2.0) == FY * 0.5 / 2.0
    assert camera.get_delta_x(75.0, 2.0) == pytest.approx(0.5)
    assert camera.get_delta_y(75.5, 2.0) == pytest.approx(0.5)
    assert camera.get_delta_u(0.5, 0) == math.inf
    assert camera.get_delta_v(0.5, 0) == math.inf


def test_binning_and_region_of_interest():
    info = camera_info(binning_x=2, binning_y=4)
    info.roi = RegionOfInterest(x_offset=100, y_offset=40, width=320, height=240)
    model = PinholeCameraModel()
    model.from_camera_info(info)
    assert (model.fx(), model.fy()) == (FX / 2, FY / 4)
    assert (model.cx(), model.cy()) == ((CX - 100) / 2, (CY - 40) / 4)
    assert_array_equal(
        model.intrinsic_matrix(),
        [[215.0, 0, (311.5 - 100) / 2], [0, 108.0, (176.25 - 40) / 4], [0, 0, 1]],
    )
    assert_array_equal(model.full_intrinsic_matrix(), K)
    assert model.full_projection_matrix()[0, 0] == FX
    point = (0.3, -0.2, 2.0)
    u, v = PinholeCameraModel.project_3d_to_pixel(model, point)
    assert (2 * u + 100, 4 * v + 40) == pytest.approx((FX * 0.15 + CX, FY * -0.1 + CY))


def test_binning_of_zero_and_empty_region_mean_the_whole_image(camera):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        assert (camera.binning_x, camera.binning_y) == (1, 1)
        assert (camera.raw_roi.width, camera.raw_roi.height) == (WIDTH, HEIGHT)
    info = camera_info()
    PinholeCameraModel().from_camera_info(info)
    assert info.roi == RegionOfInterest()  # the message stays as it was


@pytest.mark.parametrize('uv', [(16.0, 16.0), (320.0, 100.0), (600.0, 340.0)])
@pytest.mark.parametrize('disparity', [0.5, 9.0, 80.0])
def test_pixel_and_disparity_give_the_point_back(pair, uv, disparity):
    point = pair.project_pixel_to_3d(uv, disparity)
    left, right = pair.project_3d_to_pixel(point)
    assert left == pytest.approx(uv)
    assert right == pytest.approx((uv[0] - disparity, uv[1]))
    assert pair.get_z(disparity) == pytest.approx(FX * BASELINE_M / disparity)
    assert pair.get_disparity(pair.get_z(disparity)) == pytest.approx(disparity)


def test_point_of_a_pixel_beside_the_axis(pair):
    assert pair.project_pixel_to_3d((CX + 30.0, CY - 60.0), 36.0) == pytest.approx((0.1, -0.2, 1))


def test_pair_takes_fx_for_both_axes():
    model = StereoCameraModel()
    model.from_camera_info(camera_info(fy=400.0), camera_info(right=True, fy=400.0))
    assert model.project_pixel_to_3d((CX, CY - 60.0), 36.0) == pytest.approx((0.0, -0.2, 1.0))


def test_infinity(pair):
    assert pair.get_z(0) == math.inf
    assert pair.get_disparity(0) == math.inf
    assert pair.project_pixel_to_3d((10.0, 10.0), 0.0) == (0.0, 0.0, 0.0)


def test_points_are_in_the_left_frame(pair):
    assert pair.get_tf_frame() == 'left_optical'
    assert pair.get_left_camera().tx() == 0.0
    assert pair.get_right_camera().tx() == -FX * BASELINE_M


OLD_METHODS = {
    'rectifyPoint': ('rectify_point', ((5.0, 6.0),)),
    'project3dToPixel': ('project_3d_to_pixel', ((0.1, 0.2, 3.0),)),
    'projectPixelTo3dRay': ('project_pixel_to_3d_ray', ((5.0, 6.0),)),
    'getDeltaU': ('get_delta_u', (0.1, 2.0)),
    'getDeltaV': ('get_delta_v', (0.1, 2.0)),
    'getDeltaX': ('get_delta_x', (5.0, 2.0)),
    'getDeltaY': ('get_delta_y', (5.0, 2.0)),
    'fullResolution': ('full_resolution', ()),
    'intrinsicMatrix': ('intrinsic_matrix', ()),
    'distortionCoeffs': ('distortion_coeffs', ()),
    'rotationMatrix': ('rotation_matrix', ()),
    'projectionMatrix': ('projection_matrix', ()),
    'fullIntrinsicMatrix': ('full_intrinsic_matrix', ()),
    'fullProjectionMatrix': ('full_projection_matrix', ()),
    'Tx': ('tx', ()),
    'Ty': ('ty', ()),
    'fovX': ('fov_x', ()),
    'fovY': ('fov_y', ()),
    'tfFrame': ('get_tf_frame', ()),
}
OLD_ATTRIBUTES = {
    'K': 'intrinsic_matrix',
    'D': 'distortion_coeffs',
    'R': 'rotation_matrix',
    'P': 'projection_matrix',
    'full_K': 'full_intrinsic_matrix',
    'full_P': 'full_projection_matrix',
    'tf_frame': 'get_tf_frame',
}


@pytest.mark.parametrize('old', OLD_METHODS)
def test_old_method_warns_and_does_the_same(camera, old):
    new, arguments = OLD_METHODS[old]
    with pytest.warns(DeprecationWarning, match=old):
        result = getattr(camera, old)(*arguments)
    assert_array_equal(result, getattr(camera, new)(*arguments))
    assert isinstance(result, np.matrix) == old.endswith(('Matrix', 'Coeffs'))


@pytest.mark.parametrize('old', OLD_ATTRIBUTES)
def test_old_attribute_warns_and_cannot_be_set(camera, old):
    with pytest.warns(DeprecationWarning, match=old):
        value = getattr(camera, old)
    assert_array_equal(value, getattr(camera, OLD_ATTRIBUTES[old])())
    with pytest.raises(AttributeError):
        setattr(camera, old, value)


def test_old_names_of_the_image_and_the_pair(camera, pair):
    raw = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH), np.uint8)
    old, new = np.zeros_like(raw), np.zeros_like(raw)
    camera.rectify_image(raw, new)
    with pytest.warns(DeprecationWarning, match='rectify_image'):
        camera.rectifyImage(raw, old)
    assert_array_equal(old, new)
    with pytest.warns(DeprecationWarning, match='width'):
        assert camera.width == WIDTH
    with pytest.warns(DeprecationWarning, match='height'):
        assert camera.height == HEIGHT
    with pytest.warns(DeprecationWarning, match='stamp'):
        assert camera.stamp.sec == 7
    with pytest.warns(DeprecationWarning, match='from_camera_info'):
        camera.fromCameraInfo(camera_info(right=True))
    assert camera.tx() == -FX * BASELINE_M
    with pytest.warns(DeprecationWarning, match='get_left_camera'):
        assert pair.left is pair.get_left_camera()
    with pytest.warns(DeprecationWarning, match='get_right_camera'):
        assert pair.right is pair.get_right_camera()
    with pytest.warns(DeprecationWarning, match='Q'):
        assert pair.Q.shape == (4, 4)


OLD_METHODS_OF_THE_PAIR = {
    'getZ': ('get_z', (9.0,)),
    'getDisparity': ('get_disparity', (2.0,)),
    'projectPixelTo3d': ('project_pixel_to_3d', ((1.0, 2.0), 3.0)),
    'project3dToPixel': ('project_3d_to_pixel', ((0.1, 0.2, 3.0),)),
    'tfFrame': ('get_tf_frame', ()),
    'fromCameraInfo': ('from_camera_info', (camera_info(), camera_info(right=True))),
}


@pytest.mark.parametrize('old', OLD_METHODS_OF_THE_PAIR)
def test_old_method_of_the_pair_warns_and_does_the_same(pair, old):
    new, arguments = OLD_METHODS_OF_THE_PAIR[old]
    with pytest.warns(DeprecationWarning, match=old):
        result = getattr(pair, old)(*arguments)
    assert result == getattr(pair, new)(*arguments)
