"""Rectified stereo images in, people in metres out: the same object for node, command line, tests.

Find people -> place the crops of both views -> network -> co-keypoints -> triangulate -> refine
-> judge -> follow.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.checkpoint import heatmap_network, load_model
from rsb_pose_core.cropping import BOX_MARGIN, NETWORK_SIDE, StereoCrop
from rsb_pose_core.detection import DETECTORS, PersonDetector, non_maximum_suppression
from rsb_pose_core.detection.boxes import Box, containment, intersection_over_union
from rsb_pose_core.disparity import coarse_disparity, disparity_limits
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.geometry import metric_disparity, position_covariance, project, triangulate
from rsb_pose_core.models.fast import KeypointNetwork, Keypoints, eager, fast
from rsb_pose_core.models.flip_test import FlipTest
from rsb_pose_core.models.layers import multiplies_bfloat16
from rsb_pose_core.models.rsb_pose import CoKeypoints
from rsb_pose_core.people import (
    FrameResult,
    PersonPose,
    TrackState,
    assemble_person,
    without_doubles,
)
from rsb_pose_core.tracking import PersonGate, Tracker, TrackerSettings

STAGES = ('detect', 'disparity', 'crop', 'network', 'triangulate', 'refine', 'track')
# A person's height where the disparity cannot be found: only the first guess of a crop's column.
TYPICAL_HEIGHT_M = 1.7

Image = NDArray[np.uint8]
AnyImage = NDArray[np.generic]


class ImageError(RsbPoseError, ValueError):
    """A pair of images that the pipeline cannot take."""


@runtime_checkable
class PoseRefiner(Protocol):
    """What the pipeline asks of a pose prior (PoseTransformer)."""

    def refine(
        self,
        xyz_m: Float[Tensor, 'people joints 3'],
        *,
        confidence: Float[Tensor, 'people joints'],
    ) -> Float[Tensor, 'people joints 3']:
        """Initial poses in metres, rectified left frame, to better ones; confidence: 0..1."""
        ...


@dataclass(frozen=True)
class PipelineSettings:
    """What may be changed between any two frames.

    detect_every: frames from one search for new people to the next while somebody is followed;
    joint_confidence: from which on (0..1) a joint counts as seen; least_agreement: of the body's
    patches on a coarse disparity, below which the person's size is trusted instead;
    tracked_depth_change: by which share the depth may change between frames.
    """

    detect_every: int = 10
    max_people: int = 5
    joint_confidence: float = 0.15
    least_agreement: float = 0.12
    tracked_depth_change: float = 0.25
    box_margin: float = BOX_MARGIN
    farthest_joint_m: float = 20.0
    gate: PersonGate = field(default_factory=PersonGate)


@dataclass(frozen=True)
class _Region:
    """Where a person is looked for in the left view; `followed` if a track says so."""

    box: Box
    followed: bool
    disparity_px: float | None


@dataclass(frozen=True, eq=False)
class _Measured:
    """Joints in full rectified pixels and metres, on the CPU in float64, people first."""

    uvd: Float[Tensor, 'people joints 3']
    xyz_m: Float[Tensor, 'people joints 3']
    covariance_m2: Float[Tensor, 'people joints 3 3']
    confidence: Float[Tensor, 'people joints']
    in_front: Tensor


class StereoPosePipeline:
    """Holds the network and who is followed. One pipeline per camera pair; not thread-safe."""

    def __init__(
        self,
        model: nn.Module,
        refiner: PoseRefiner | None,
        detector: PersonDetector,
        device: str | torch.device = 'cpu',
        *,
        input_size: int = NETWORK_SIDE,
        settings: PipelineSettings | None = None,
        tracking: TrackerSettings | None = None,
    ) -> None:
        """input_size: side of the crops that the network takes, in pixels."""
        self.device, self.input_size = torch.device(device), input_size
        self.model = model.to(self.device).eval()
        self.refiner = refiner
        prior: object = refiner
        if isinstance(prior, nn.Module):
            prior.to(self.device).eval()
        self.detector = detector
        self.bfloat16 = self.device.type == 'cpu' and multiplies_bfloat16(self.device)
        self._keypoints = self._prepared()
        self.settings = settings or PipelineSettings()
        self.tracker = Tracker(tracking)
        self._since_detection = 0

    def reset(self) -> None:
        """Forget who was followed."""
        self.tracker.reset()
        self._since_detection = 0

    @torch.inference_mode()
    def process(
        self,
        left_rgb: AnyImage,
        right_rgb: AnyImage,
        calibration: StereoCalibration,
        stamp_s: float,
    ) -> FrameResult:
        """Find the people of one rectified pair, uint8 (H, W, 3) RGB or (H, W) grey.

        `calibration` is that of the images, `stamp_s` the left image's time in seconds. Raises
        ImageError if the images differ in size or are not 8-bit; else there is always a result,
        with no people where there are none.
        """
        left, right = _as_rgb(left_rgb, 'left'), _as_rgb(right_rgb, 'right')
        if left.shape != right.shape:
            sizes = [f'{image.shape[1]}x{image.shape[0]}' for image in (left, right)]
            raise ImageError(
                f'the left image has {sizes[0]} pixels and the right {sizes[1]}, expected equal '
                f'sizes; rectify them as one pair'
            )
        clock = _StageClock(self.device)
        self.tracker.advance(stamp_s)
        with clock.stage('detect'):
            regions = self._regions(left, calibration)
        with clock.stage('disparity'):
            crops = self._place_crops(left, right, regions, calibration)
        with clock.stage('crop'):
            batch = self._cut(left, right, crops)
        poses: list[PersonPose] = []
        if batch is not None:
            with clock.stage('network'):
                keypoints = self._keypoints(*batch)
            with clock.stage('triangulate'):
                measured = self._measure(keypoints, crops, calibration)
            with clock.stage('refine'):
                refined_m = self._refine(measured)
            poses = self._judge(measured, refined_m, regions, calibration, left.shape[1::-1])
        with clock.stage('track'):
            people = self.tracker.update(poses, stamp_s)
        return FrameResult(people, clock.latency_ms)

    def _prepared(self) -> Keypoints:
        """The network as it runs fastest; as it stands on GPUs, and what we know no short cut for.

        Convolutions in bfloat16 where a CPU multiplies in it, which takes a third of the time and
        moves joints by some hundredths of a crop pixel, disparities less; logits and soft-argmax
        stay float32, as everything does on GPUs.
        """
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        if self.device.type == 'cpu' and isinstance(self.model, KeypointNetwork):
            return fast(self.model, self.device, dtype, input_size=self.input_size)
        return eager(self.model, self.device, dtype)

    def _regions(self, left: Image, calibration: StereoCalibration) -> list[_Region]:
        """Where people were in the previous frame; now and then, where a detector sees some."""
        height, width = left.shape[:2]
        regions, followed = [], []
        for track in self.tracker.tracks:
            root = torch.from_numpy(track.pose.root_m[None])
            disparity = float(project(root, calibration)[0, 2])
            box = _within_reach(track.pose.box_left, width, height)
            regions.append(_Region(box, followed=True, disparity_px=disparity))
            if track.state is not TrackState.LOST:
                followed.append(track.pose.box_left)
        self._since_detection += 1
        if not followed or self._since_detection >= self.settings.detect_every:
            self._since_detection = 0
            for box in non_maximum_suppression(self.detector.detect(left)):
                if not any(_same_place(box, other) for other in followed):
                    regions.append(_Region(box, followed=False, disparity_px=None))
        visible = [region for region in regions if region.box.clipped(width, height).area > 0]
        return visible[: self.settings.max_people]

    def _place_crops(
        self,
        left: Image,
        right: Image,
        regions: Sequence[_Region],
        calibration: StereoCalibration,
    ) -> list[StereoCrop]:
        """Crops of both views, the right one by the person's coarse disparity."""
        if not regions:
            return []
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (left, right)]
        views = [np.asarray(image, np.uint8) for image in grey]
        fx, fy, cx_left, cx_right, _, baseline = (v.item() for v in calibration.fields())
        infinity = cx_left - cx_right
        crops = []
        for region in regions:
            if region.disparity_px is not None and np.isfinite(region.disparity_px):
                expected = region.disparity_px
                change = self.settings.tracked_depth_change
                limits = (
                    (expected - infinity) / (1 + change) + infinity,
                    (expected - infinity) / (1 - change) + infinity,
                )
            else:
                depth = TYPICAL_HEIGHT_M * fy / max(region.box.height, 1.0)
                limits = disparity_limits(calibration)
                expected = float(np.clip(fx * baseline / depth + infinity, *limits))
            found = coarse_disparity(views[0], views[1], region.box, limits)
            if found is not None and found.agreement >= self.settings.least_agreement:
                expected = found.disparity_px
            margin = self.settings.box_margin
            crops.append(
                StereoCrop.around(region.box, expected, margin=margin, size=self.input_size)
            )
        return crops

    def _cut(
        self, left: Image, right: Image, crops: Sequence[StereoCrop]
    ) -> tuple[Tensor, Tensor] | None:
        """RGB 0..1 crops (people, 3, side, side) of each view on the device."""
        if not crops:
            return None
        pairs = [crop.cut(left, right) for crop in crops]
        batch = torch.from_numpy(np.stack([np.stack(pair) for pair in pairs]))
        batch = batch.to(self.device).permute(1, 0, 4, 2, 3).float() / 255
        return batch[0], batch[1]

    def _measure(
        self, keypoints: CoKeypoints, crops: Sequence[StereoCrop], calibration: StereoCalibration
    ) -> _Measured:
        """Crop pixels to metres. Joints without a disparity are put at the farthest depth."""
        uvd_crop = keypoints.uvd.double().cpu()
        in_crop = StereoCalibration.stack([crop.calibration(calibration) for crop in crops])
        nearest_to_infinity = in_crop.fx * in_crop.baseline_m / self.settings.farthest_joint_m
        disparity = metric_disparity(uvd_crop, in_crop)
        in_front = disparity > nearest_to_infinity[:, None]
        raised = (nearest_to_infinity[:, None] - disparity).clamp(min=0)
        uvd_crop = uvd_crop + torch.nn.functional.pad(raised[..., None], (2, 0))
        covariance = keypoints.covariance.double().cpu()
        return _Measured(
            uvd=torch.stack([crop.to_image(uvd_crop[i]) for i, crop in enumerate(crops)]),
            xyz_m=triangulate(uvd_crop, in_crop),
            covariance_m2=position_covariance(uvd_crop, covariance, in_crop),
            confidence=keypoints.confidence.double().cpu(),
            in_front=in_front,
        )

    def _refine(self, measured: _Measured) -> Tensor:
        if self.refiner is None:
            return measured.xyz_m
        believed = measured.confidence * measured.in_front
        refined = self.refiner.refine(
            measured.xyz_m.float().to(self.device), confidence=believed.float().to(self.device)
        )
        return refined.double().cpu()

    def _judge(
        self,
        measured: _Measured,
        refined_m: Tensor,
        regions: Sequence[_Region],
        calibration: StereoCalibration,
        image_size: tuple[int, int],
    ) -> list[PersonPose]:
        """States of the joints; only what passes for a person, and nobody twice."""
        certain = (measured.confidence >= self.settings.joint_confidence) & measured.in_front
        reprojected = project(refined_m, calibration)
        poses = []
        for i, region in enumerate(regions):
            pose = assemble_person(
                uvd=torch.where(certain[i, :, None], measured.uvd[i], reprojected[i]).numpy(),
                xyz_m=refined_m[i].numpy().copy(),
                covariance_m2=measured.covariance_m2[i].numpy().copy(),
                confidence=measured.confidence[i].numpy(),
                certain=certain[i].numpy(),
                image_size=image_size,
                has_prior=self.refiner is not None,
            )
            if pose is not None and self.settings.gate.accepts(pose, followed=region.followed):
                poses.append(pose)
        return without_doubles(poses)


def load_pipeline(
    weights_path: Path | str,
    device: str = 'cpu',
    detector: str | PersonDetector = 'hog',
    *,
    flip_test: bool = False,
    settings: PipelineSettings | None = None,
    tracking: TrackerSettings | None = None,
) -> StereoPosePipeline:
    """A pipeline from a weights file and a detector, or the name of one in DETECTORS.

    flip_test: see models.flip_test; smaller errors for twice the network's work.
    Raises CheckpointError for unusable weights and RsbPoseError for an unknown detector, or a
    method that the pipeline does not run.
    """
    if isinstance(detector, str):
        if detector not in DETECTORS:
            raise RsbPoseError(
                f'there is no person detector {detector!r}, expected one of '
                f'{", ".join(DETECTORS)}; choose one of these'
            )
        detector = DETECTORS[detector]()
    loaded, refiner, metadata = load_model(Path(weights_path), device)
    model = heatmap_network(loaded, metadata, weights_path)
    return StereoPosePipeline(
        FlipTest(model) if flip_test else model,
        refiner,
        detector,
        device,
        input_size=int(metadata.get('input_size', NETWORK_SIDE)),
        settings=settings,
        tracking=tracking,
    )


class _StageClock:
    """Wall time of each step in ms, the device's work included; 0 for steps not taken."""

    def __init__(self, device: torch.device) -> None:
        self.latency_ms = dict.fromkeys(STAGES, 0.0)
        self._device = device

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self.latency_ms[name] = 1000 * (self._now() - start)

    def _now(self) -> float:
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _as_rgb(image: AnyImage, name: str) -> Image:
    """The image as (H, W, 3): grey is repeated, a fourth channel left out."""
    shape, dtype = image.shape, image.dtype
    if dtype != np.uint8 or image.ndim not in (2, 3) or image.size == 0:
        raise ImageError(
            f'the {name} image is {dtype} of shape {shape}, expected uint8 (height, width, 3); '
            f'convert it to RGB'
        )
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] not in (1, 3, 4):
        raise ImageError(
            f'the {name} image has {image.shape[2]} channels, expected RGB or grey; convert it'
        )
    rgb = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    return np.ascontiguousarray(rgb, np.uint8)


def _within_reach(box: Box, width: int, height: int) -> Box:
    """The part of a person's box in an image of this size grown by half of it on every side.

    An inferred joint just in front of the camera is seen anywhere; crops are as large as boxes.
    """
    dx, dy = width / 2, height / 2
    return box.shifted(dx, dy).clipped(2 * width, 2 * height).shifted(-dx, -dy)


def _same_place(a: Box, b: Box) -> bool:
    return intersection_over_union(a, b) > 0.3 or containment(a, b) > 0.6


__all__ = [
    'NETWORK_SIDE',
    'FrameResult',
    'ImageError',
    'PersonPose',
    'PipelineSettings',
    'StereoPosePipeline',
    'load_pipeline',
]
