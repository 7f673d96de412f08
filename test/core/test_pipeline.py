"""Images to people, with networks that know the answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from stereo_scene import STANDING_M, Scene, camera, render
from torch import Tensor, nn

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.checkpoint import save_checkpoint
from rsb_pose_core.cropping import StereoCrop
from rsb_pose_core.detection import Box
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.geometry import project
from rsb_pose_core.models import NETWORKS
from rsb_pose_core.models.rsb_pose import StereoHeatmaps, co_keypoints, crop_to_heatmap
from rsb_pose_core.models.stereo_volume import DisparityRange
from rsb_pose_core.people import JointState, PersonPose, TrackState
from rsb_pose_core.pipeline import (
    ImageError,
    PipelineSettings,
    StereoPosePipeline,
    load_pipeline,
)
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.tracking import PersonGate, TrackerSettings

RANGE = DisparityRange(-7, 8)
SHARPNESS = 0.9  # heat-map pixels


def heatmaps(uvd_crop: Tensor, sure: Tensor | None = None, side: int = 64) -> StereoHeatmaps:
    """Logits whose soft-argmax is uvd_crop (B, J, 3); flat where not `sure` (B, J)."""
    u, v = (crop_to_heatmap(uvd_crop[..., i]) for i in (0, 1))
    disparity = uvd_crop[..., 2] / 4
    cells = torch.arange(float(side))
    planes = torch.arange(-7.0, 9.0)
    in_u = (cells - u[..., None]) ** 2
    in_v = (cells - v[..., None]) ** 2
    in_d = (planes - disparity[..., None]) ** 2
    total = in_d[..., :, None, None] + in_v[..., None, :, None] + in_u[..., None, None, :]
    logits = -total / (2 * SHARPNESS**2)
    if sure is not None:
        logits = logits * sure[..., None, None, None]
    flat = torch.zeros(*uvd_crop.shape[:2], side, side)
    return StereoHeatmaps(flat, flat, logits, RANGE)


class Oracle(nn.Module):
    """Knows where the people are in the world; is told where the crops are."""

    def __init__(self, calibration: StereoCalibration, size: int = 256) -> None:
        super().__init__()
        self.calibration, self.size = calibration, size
        self.people: list[np.ndarray] = []
        self.crops: list[StereoCrop] = []
        self.sure = torch.ones(17)
        self.batches: list[int] = []

    def forward(self, left: Tensor, right: Tensor) -> StereoHeatmaps:
        assert left.shape == right.shape == (len(self.crops), 3, self.size, self.size)
        assert 0 <= left.min() <= left.max() <= 1
        self.batches.append(len(left))
        answers, sure = [], []
        for crop in self.crops:
            inside = [
                crop.from_image(project(torch.from_numpy(p), self.calibration))
                for p in self.people
            ]
            middle = self.size / 2
            near = [uvd for uvd in inside if (uvd[6, :2] - middle).abs().max() < 0.7 * middle]
            answers.append(near[0] if near else torch.full((17, 3), middle))
            sure.append(self.sure if near else torch.zeros(17))
        return heatmaps(torch.stack(answers).float(), torch.stack(sure), self.size // 4)


class Told(StereoPosePipeline):
    """Lets the oracle know where its crops were taken."""

    def _place_crops(self, *args: object) -> list[StereoCrop]:
        self.model.crops = super()._place_crops(*args)  # type: ignore[arg-type]
        return self.model.crops


class Boxes:
    """A detector that is told what to see."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes, self.calls = list(boxes), 0

    def detect(self, rgb: np.ndarray) -> list[Box]:
        assert rgb.ndim == 3
        self.calls += 1
        return self.boxes


def box_of(uvd: np.ndarray) -> Box:
    box = Box.around(uvd[:, :2], margin=0.05)
    assert box is not None
    return box


def make(scene: Scene, refiner: object = None, **settings: object) -> tuple[Told, Oracle, Boxes]:
    oracle = Oracle(scene.calibration)
    oracle.people = [scene.xyz_m]
    detector = Boxes(box_of(scene.uvd))
    pipeline = Told(
        oracle,
        refiner,  # type: ignore[arg-type]
        detector,
        settings=PipelineSettings(**settings),  # type: ignore[arg-type]
    )
    return pipeline, oracle, detector


@pytest.mark.parametrize(
    ('size', 'depth_m', 'cx_offset'),
    [((480, 640), 2.5, 0.0), ((480, 640), 1.6, 9.5), ((720, 1280), 3.5, -12.0)],
)
def test_metric_pose_comes_out_of_crops_disparity_and_triangulation(
    size: tuple[int, int], depth_m: float, cx_offset: float
) -> None:
    scene = render(
        np.random.default_rng(0),
        depth_m=depth_m,
        size=size,
        calibration=camera(size[1], size[0], cx_offset=cx_offset),
        background_m=depth_m + 2,
    )
    pipeline, _, _ = make(scene)
    (person,) = pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people
    inside = ((scene.uvd[:, :2] > 0) & (scene.uvd[:, :2] < np.array(size[::-1]) - 1)).all(1)
    assert (person.state[inside] == JointState.MEASURED).all()
    assert (person.state[~inside] == JointState.MISSING).all()
    assert inside.sum() >= 15
    assert np.abs(person.xyz_m - scene.xyz_m)[inside].max() < 1e-3
    assert np.abs(person.uv_left - scene.uvd[:, :2])[inside].max() < 0.02
    disparity = (person.uv_left - person.uv_right)[inside]
    assert np.abs(disparity - scene.uvd[inside, 2:] * [1, 0]).max() < 0.02
    assert (person.confidence[inside] > 0.9).all()
    assert np.linalg.eigvalsh(person.covariance_m2[inside]).min() > 0
    assert person.track_id == 1
    assert person.track_state == TrackState.NEW
    assert np.isnan(person.velocity_mps).all()


def ladder() -> np.ndarray:
    """17 points with rows of their own, to be told apart in a picture."""
    rows = np.linspace(-0.75, 0.75, 17)
    return np.stack([0.2 * np.cos(5 * rows), rows, 2.0 + 0.1 * np.sin(9 * rows)], axis=1)


class DotReader(nn.Module):
    """Finds white dots in both crops; joints are numbered from the top."""

    def forward(self, left: Tensor, right: Tensor) -> StereoHeatmaps:
        views = [np.array([self._dots(crop) for crop in view]) for view in (left, right)]
        assert np.abs(views[0][..., 1] - views[1][..., 1]).max() < 0.05
        disparity = views[0][..., :1] - views[1][..., :1]
        uvd = np.concatenate([views[0], disparity], axis=-1)
        return heatmaps(torch.from_numpy(uvd))

    def _dots(self, crop: Tensor) -> np.ndarray:
        grey = crop[0].double().numpy()
        above = np.clip(grey - 0.03, 0, None)  # no steps at the rims
        labels, count = ndimage.label(above > 0)
        assert count == 17
        centres = ndimage.center_of_mass(above, labels, range(1, 18))
        return np.array(sorted(centres))[:, ::-1]


@pytest.mark.parametrize('cx_offset', [0.0, -7.25])
def test_pixels_that_the_network_sees_give_the_metric_pose(cx_offset: float) -> None:
    calibration = camera(900, 700, cx_offset=cx_offset)
    xyz = ladder()
    uvd = project(torch.from_numpy(xyz), calibration).numpy()
    y, x = np.mgrid[:700, :900]
    images = []
    for view in (0, 1):
        image = np.zeros((700, 900))
        for u, v, d in uvd:
            image += 255 * np.exp(-((x - u + view * d) ** 2 + (y - v) ** 2) / (2 * 4.0**2))
        images.append(np.repeat(image.round().clip(0, 255).astype(np.uint8)[..., None], 3, 2))
    lenient = PersonGate(longest_bone_m=3.0)
    pipeline = StereoPosePipeline(
        DotReader(), None, Boxes(box_of(uvd)), settings=PipelineSettings(gate=lenient)
    )
    (person,) = pipeline.process(*images, calibration, 0.0).people
    error = np.abs(person.xyz_m - xyz)
    assert error[:, :2].max() < 1e-3
    # 1e-3 m of depth is 0.02 px here; the dots of an 8-bit image are found to about that.
    assert error[:, 2].max() < 2e-3
    assert np.median(error[:, 2]) < 1e-3


def test_two_people_are_one_batch_and_equal_to_each_alone() -> None:
    scene = render(np.random.default_rng(1), depth_m=3.0)
    pipeline, oracle, detector = make(scene)
    other = STANDING_M + np.array([1.1, 0.0, 3.4])
    oracle.people.append(other)
    other_uvd = project(torch.from_numpy(other), scene.calibration).numpy()
    detector.boxes.append(box_of(other_uvd))
    people = pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people
    assert oracle.batches == [2]
    assert sorted(person.track_id for person in people) == [1, 2]
    errors = [
        min(np.abs(person.xyz_m - truth).max() for person in people)
        for truth in (scene.xyz_m, other)
    ]
    assert errors[0] < 1e-3
    # Nobody is drawn there: the crop's column is a guess from the box's size.
    assert errors[1] < 0.05


def test_a_followed_person_needs_no_detector_until_it_is_due() -> None:
    scene = render(np.random.default_rng(2))
    pipeline, _, detector = make(scene, detect_every=4)
    ids = []
    for frame in range(7):
        result = pipeline.process(scene.left, scene.right, scene.calibration, frame / 15)
        ids += [person.track_id for person in result.people]
    assert ids == [1] * 7
    assert detector.calls == 2  # the first frame, and the fifth
    assert result.people[0].track_state == TrackState.ACTIVE
    assert np.abs(result.people[0].velocity_mps).max() < 1e-3


def test_a_walking_person_keeps_the_id_and_gets_a_velocity() -> None:
    rng = np.random.default_rng(3)
    first = render(rng, depth_m=3.0)
    pipeline, oracle, _ = make(first, detect_every=100)
    for frame in range(12):
        scene = render(rng, depth_m=3.0 - 0.08 * frame, offset_x=0.03 * frame)
        oracle.people = [scene.xyz_m]
        (person,) = pipeline.process(scene.left, scene.right, scene.calibration, frame / 15).people
        assert np.abs(person.xyz_m - scene.xyz_m).max() < 2e-3
    assert person.track_id == 1
    assert person.velocity_mps == pytest.approx([0.45, 0.0, -1.2], abs=0.02)


def test_somebody_who_leaves_is_lost_and_then_gone() -> None:
    scene = render(np.random.default_rng(4))
    pipeline, oracle, detector = make(scene)
    for frame in range(3):
        pipeline.process(scene.left, scene.right, scene.calibration, frame / 10)
    oracle.people, detector.boxes = [], []
    (lost,) = pipeline.process(scene.left, scene.right, scene.calibration, 0.3).people
    assert lost.track_state == TrackState.LOST
    assert lost.track_id == 1
    assert np.isnan(lost.xyz_m).all()
    assert (lost.state == JointState.MISSING).all()
    assert pipeline.process(scene.left, scene.right, scene.calibration, 1.5).people == ()


def test_a_detectors_ghost_is_not_a_person() -> None:
    scene = render(np.random.default_rng(5), person=False)
    pipeline, oracle, _ = make(scene)
    oracle.people = []
    result = pipeline.process(scene.left, scene.right, scene.calibration, 0.0)
    assert result.people == ()
    assert oracle.batches == [1]


class Prior:
    """A refiner that moves everything and keeps what it was given."""

    def refine(self, xyz_m: Tensor, *, confidence: Tensor) -> Tensor:
        self.given, self.confidence = xyz_m, confidence
        return xyz_m + torch.tensor([0.0, 0.0, 0.05])


def test_the_prior_places_uncertain_joints_and_its_absence_leaves_them_missing() -> None:
    scene = render(np.random.default_rng(6))
    for prior in (Prior(), None):
        pipeline, oracle, _ = make(scene, refiner=prior)
        oracle.sure[15] = 0.0
        (person,) = pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people
        if prior is None:
            assert person.state[15] == JointState.MISSING
            assert np.isnan(person.xyz_m[15]).all()
            assert np.isnan(person.uv_left[15]).all()
            assert person.confidence[15] == 0.0
        else:
            assert prior.given.isfinite().all()
            assert prior.confidence[0, 15] < 0.05 < prior.confidence[0, :15].min()
            assert person.state[15] == JointState.INFERRED
            uv = project(torch.from_numpy(person.xyz_m), scene.calibration).numpy()[15, :2]
            assert person.uv_left[15] == pytest.approx(uv)
            moved = scene.xyz_m + np.array([0, 0, 0.05])
            assert np.abs(person.xyz_m[:15] - moved[:15]).max() < 1e-3
            # Pixels stay where the joints were seen.
            assert np.abs(person.uv_left[:15] - scene.uvd[:15, :2]).max() < 0.02
        assert (person.state[:15] == JointState.MEASURED).all()


def test_a_joint_beyond_infinity_never_reaches_the_prior_as_nan() -> None:
    scene = render(np.random.default_rng(6), depth_m=4.0)
    prior = Prior()
    pipeline, oracle, _ = make(scene, refiner=prior)
    forward = oracle.forward

    def with_impossible_wrist(left: Tensor, right: Tensor) -> StereoHeatmaps:
        answer = forward(left, right)
        answer.co_heatmap[:, 10] = -1e4
        answer.co_heatmap[:, 10, 0, 30, 30] = 0.0  # disparity -28 crop pixels
        return answer

    oracle.forward = with_impossible_wrist  # type: ignore[method-assign]
    (person,) = pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people
    assert prior.given.isfinite().all()
    assert prior.given[0, 10, 2] <= 20.01
    assert person.state[10] == JointState.INFERRED


def test_a_joint_inferred_just_before_the_camera_does_not_make_the_crop_huge() -> None:
    scene = render(np.random.default_rng(6))
    pipeline, oracle, _ = make(scene, refiner=Prior())
    oracle.sure[14] = 0.0
    (person,) = pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people
    track = pipeline.tracker.tracks[0]
    xyz = person.xyz_m.copy()
    xyz[14] = 0.3, 0.2, 0.003  # seen tens of thousands of pixels away
    uv = project(torch.from_numpy(xyz), scene.calibration).numpy()[:, :2]
    box = Box.around(uv)
    assert box is not None
    assert box.width > 20_000
    track.pose = replace(person, xyz_m=xyz, uv_left=uv, box_left=box)
    pipeline.process(scene.left, scene.right, scene.calibration, 0.1)
    (crop,) = oracle.crops
    assert crop.side <= 1.25 * 2 * max(scene.left.shape)


def test_a_joint_outside_one_image_is_seen_in_one_view() -> None:
    # At the left border, the right view no longer shows what the left one does.
    scene = render(np.random.default_rng(8), depth_m=2.0, offset_x=-0.95)
    pipeline, _, _ = make(scene)
    (person,) = pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people
    u_left, u_right = scene.uvd[:, 0], scene.uvd[:, 0] - scene.uvd[:, 2]
    only_left = (u_left > 0) & (u_right < -1)
    assert 1 <= only_left.sum() < 17
    assert (person.state[only_left] == JointState.ONE_VIEW).all()
    assert (person.state[u_right > 0] == JointState.MEASURED).all()
    assert (person.state[u_left < -1] == JointState.MISSING).all()


@pytest.mark.parametrize('shape', [(480, 640, 3), (480, 640), (480, 640, 1), (480, 640, 4)])
@pytest.mark.parametrize('level', [0, 128, 255])
def test_uniform_images_hold_nobody(shape: tuple[int, ...], level: int) -> None:
    calibration = camera()
    image = np.full(shape, level, np.uint8)
    for boxes in ((), (Box(200, 100, 100, 300), Box(-50, 400, 90, 200), Box(900, 900, 5, 5))):
        pipeline = Told(Oracle(calibration), None, Boxes(*boxes))
        result = pipeline.process(image, image, calibration, 0.0)
        assert result.people == ()


@pytest.mark.parametrize('shape', [(1, 1, 3), (3, 700, 3), (700, 3, 3), (97, 131, 3)])
def test_odd_images_are_taken(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    pipeline = Told(Oracle(camera()), None, Boxes(Box(0, 0, shape[1], shape[0])))
    assert pipeline.process(image, image, camera(), 0.0).people == ()


def test_unusable_images_are_one_sentence() -> None:
    pipeline, _, _ = make(render(np.random.default_rng(0)))
    good = np.zeros((480, 640, 3), np.uint8)
    for left, right, words in (
        (good, good[:, :320], '640x480 pixels and the right 320x480'),
        (good.astype(np.float32), good, 'left image is float32'),
        (good, np.zeros((480, 640, 2), np.uint8), '2 channels'),
        (good, good[:0], 'right image is uint8 of shape'),
    ):
        with pytest.raises(ImageError, match=words):
            pipeline.process(left, right, camera(), 0.0)


def test_time_that_jumps_back_starts_anew() -> None:
    scene = render(np.random.default_rng(9))
    pipeline, _, detector = make(scene)
    for stamp in (10.0, 10.1, 10.2, 3.0):
        (person,) = pipeline.process(scene.left, scene.right, scene.calibration, stamp).people
    assert person.track_state == TrackState.NEW
    assert person.track_id == 2
    assert detector.calls == 2
    pipeline.reset()
    (person,) = pipeline.process(scene.left, scene.right, scene.calibration, 3.1).people
    assert person.track_id == 3


def test_every_stage_is_timed_in_order() -> None:
    scene = render(np.random.default_rng(10))
    pipeline, _, detector = make(scene)
    result = pipeline.process(scene.left, scene.right, scene.calibration, 0.0)
    stages = ['detect', 'disparity', 'crop', 'network', 'triangulate', 'refine', 'track']
    assert list(result.stage_latency_ms) == stages
    assert all(0 <= latency < 5000 for latency in result.stage_latency_ms.values())
    pipeline.reset()
    detector.boxes = []
    empty = pipeline.process(scene.left, scene.right, scene.calibration, 0.0)
    assert list(empty.stage_latency_ms) == stages
    assert empty.stage_latency_ms['network'] == 0.0


def test_the_images_are_left_as_they_are() -> None:
    scene = render(np.random.default_rng(11))
    pipeline, _, _ = make(scene)
    before = scene.left.copy(), scene.right.copy()
    pipeline.process(scene.left, scene.right, scene.calibration, 0.0)
    assert np.array_equal(scene.left, before[0])
    assert np.array_equal(scene.right, before[1])


def test_settings_change_between_frames() -> None:
    scene = render(np.random.default_rng(12))
    pipeline, _, _ = make(scene)
    strict = PersonGate(new_confidence=1.1, kept_confidence=1.1)
    pipeline.settings = replace(pipeline.settings, gate=strict)
    assert pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people == ()
    pipeline.settings = replace(pipeline.settings, gate=PersonGate())
    people: tuple[PersonPose, ...] = pipeline.process(
        scene.left, scene.right, scene.calibration, 0.1
    ).people
    assert len(people) == 1


def test_crops_have_the_size_that_the_network_takes() -> None:
    scene = render(np.random.default_rng(12))
    oracle = Oracle(scene.calibration, size=384)
    oracle.people = [scene.xyz_m]
    pipeline = Told(oracle, None, Boxes(box_of(scene.uvd)), input_size=384)
    (person,) = pipeline.process(scene.left, scene.right, scene.calibration, 0.0).people
    assert oracle.crops[0].size == 384
    assert np.abs(person.xyz_m - scene.xyz_m).max() < 0.02


def test_weights_of_a_method_that_the_node_does_not_run_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / 'rival.safetensors'
    model = NETWORKS['algebraic-t-resnet50'].build()
    save_checkpoint(weights, model, {'model': 'algebraic-t-resnet50'})
    with pytest.raises(RsbPoseError, match='holds weights of algebraic-t-resnet50, expected RSB'):
        load_pipeline(weights, detector=Boxes())


def test_the_flip_test_is_fair_to_left_and_right(tmp_path: Path) -> None:
    torch.manual_seed(4)
    save_checkpoint(tmp_path / 'w.safetensors', NETWORKS['lite'].build(), {'model': 'lite'})
    left, right = torch.rand(2, 1, 3, 256, 256)
    unfair = []
    for flip_test in (False, True):
        pipeline = load_pipeline(tmp_path / 'w.safetensors', detector=Boxes(), flip_test=flip_test)
        pipeline.bfloat16 = False
        keypoints = pipeline._prepared()
        found, other = keypoints(left, right), keypoints(right.flip(-1), left.flip(-1))
        u, v, d = other.uvd[:, list(H36M_17.mirror)].unbind(-1)
        back = torch.stack([255 - u + d, v, d], -1)
        unfair.append((found.uvd - back)[..., 1].abs().max())
    assert unfair[0] > 1
    assert unfair[1] < 0.1 * unfair[0]


def test_smoothing_is_off_by_default() -> None:
    assert TrackerSettings().smoothing is None


def test_missing_weights_and_unknown_detectors_are_told(tmp_path: object) -> None:
    with pytest.raises(RsbPoseError, match='no such weights file'):
        load_pipeline(f'{tmp_path}/absent.safetensors', detector=Boxes())
    with pytest.raises(RsbPoseError, match="no person detector 'yolo', expected one of hog"):
        load_pipeline(f'{tmp_path}/absent.safetensors', detector='yolo')


def test_bfloat16_moves_joints_by_less_than_half_a_crop_pixel():
    torch.manual_seed(0)
    model = NETWORKS['lite'].build().eval()
    left, right = torch.rand(2, 1, 3, 256, 256)
    keypoints = []
    for enabled in (False, True):
        with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            keypoints.append(co_keypoints(model(left, right)).uvd)
    assert keypoints[1].dtype == torch.float32
    assert (keypoints[1] - keypoints[0]).abs().max() < 0.5
    assert (keypoints[1] - keypoints[0]).abs().max() > 0
