"""A film of one moving person, as a real stereo head records it: distorted, turned, unequal."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import project
from rsb_pose_core.rectification import CameraModel, StereoRectifier
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.motion import Clip, with_arms
from rsb_pose_core.synthesis.pairs import visibility
from rsb_pose_core.synthesis.people import Casting, People
from rsb_pose_core.synthesis.render import Pictures, Renderer
from rsb_pose_core.synthesis.scene import Scene, View, sample_scene

SUPERSAMPLING = 1.6
BLEND_S = 0.4  # between two takes


@dataclass(frozen=True)
class StereoHead:
    """Two real cameras on one bar, and where the bar is in the world (y up, m)."""

    left: CameraModel
    right: CameraModel
    left_turn: np.ndarray  # 3x3, left optical frame from the bar's (x right, y down, z forward)
    right_turn: np.ndarray
    baseline_m: float
    height_m: float = 1.15
    pitch_rad: float = -0.04  # nose down is negative


@dataclass(frozen=True)
class Frame:
    """One stereo pair of a film and what is true in it."""

    stamp_ns: int
    left: np.ndarray  # H W 3 uint8 RGB, raw
    right: np.ndarray
    xyz_m: np.ndarray  # 17 3, rectified left optical frame
    uvd: np.ndarray  # 17 3, rectified pixels
    visibility: np.ndarray  # 17, in the left view


@dataclass(frozen=True)
class Take:
    """A stretch of a clip, acted from `start_m` (x, z of the floor) towards `heading_rad`."""

    clip: Clip
    first_s: float
    length_s: float
    start_m: tuple[float, float]
    heading_rad: float
    arms: Clip | None = None  # take the arms from another clip


def mhad_like_head(width: int = 640, height: int = 480, baseline_m: float = 0.2) -> StereoHead:
    """A head as in Berkeley MHAD's quads: f about 530 px, barrel distortion, slightly turned."""

    def turn(rx: float, ry: float, rz: float) -> np.ndarray:
        return cv2.Rodrigues(np.radians([rx, ry, rz]))[0]

    centre = (width - 1) / 2, (height - 1) / 2
    k_left = np.array([[531.0, 0, centre[0] + 6], [0, 532.5, centre[1] - 4], [0, 0, 1]])
    k_right = np.array([[528.0, 0, centre[0] - 9], [0, 529.2, centre[1] + 5], [0, 0, 1]])
    d_left = np.array([-0.285, 0.098, 0.0006, -0.0004, 0.0])
    d_right = np.array([-0.279, 0.091, -0.0005, 0.0007, 0.0])
    left_turn, right_turn = turn(0.35, 0.5, -0.3), turn(-0.25, -0.6, 0.4)
    # what a calibration of this head gives: the right camera seen from the left
    between = right_turn @ left_turn.T
    shift = right_turn @ np.array([-baseline_m, 0.0, 0.0])
    r_left, r_right, p_left, p_right, *_ = cv2.stereoRectify(
        k_left, d_left, k_right, d_right, (width, height), between, shift, alpha=0.0,
        flags=cv2.CALIB_ZERO_DISPARITY,
    )  # fmt: skip
    models = (
        CameraModel(width, height, 'plumb_bob', d, k, np.asarray(r, float), np.asarray(p, float))
        for d, k, r, p in (
            (d_left, k_left, r_left, p_left),
            (d_right, k_right, r_right, p_right),
        )
    )
    left, right = models
    return StereoHead(left, right, left_turn, right_turn, baseline_m)


def act(takes: list[Take], rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Poses (N, 17, 3) with headings applied and floor positions (N, 2: x, z) of the takes."""
    poses, places = [], []
    for take in takes:
        count = round(take.length_s * rate_hz)
        time_s = take.first_s + np.arange(count) / rate_hz
        joints = _at(take.clip, time_s)
        if take.arms is not None:
            own, donor = (
                torch.as_tensor(pose, dtype=torch.float32)
                for pose in (joints, _at(take.arms, time_s))
            )
            joints = with_arms(own, donor).double().numpy()
        pelvis = joints[:, H36M_17.root]
        ahead = _facing(joints[0]) if take.arms is None else _facing(joints[: count // 2].mean(0))
        walked = pelvis[-1] - pelvis[0]
        if np.hypot(walked[0], walked[2]) > 0.5:  # a walk's heading is where it goes
            ahead = math.atan2(walked[0], walked[2])
        turn = cv2.Rodrigues(np.array([0.0, take.heading_rad - ahead, 0.0]))[0]
        joints = (joints - pelvis[:1]) @ turn.T
        places.append(joints[:, H36M_17.root, [0, 2]] + np.asarray(take.start_m))
        poses.append(joints)
    return _blend(poses, rate_hz, 3), _blend(places, rate_hz, 2)


def _at(clip: Clip, time_s: np.ndarray) -> np.ndarray:
    """Joints (N, 17, 3) at times, between frames; a clip too short runs back and forth."""
    last = len(clip.joints_m) - 1
    place = np.abs((time_s * clip.rate_hz + last) % (2 * last) - last) if last else 0 * time_s
    low = np.floor(place).astype(int)
    share = (place - low)[:, None, None]
    high = np.minimum(low + 1, last)
    return np.asarray(clip.joints_m[low] * (1 - share) + clip.joints_m[high] * share)


def _facing(joints: np.ndarray) -> float:
    """Heading of a pose (17, 3) about y: 0 looks along +z."""
    across = joints[H36M_17.index('left_hip')] - joints[H36M_17.index('right_hip')]
    return math.atan2(-across[2], across[0])


def _blend(parts: list[np.ndarray], rate_hz: float, dims: int) -> np.ndarray:
    """Join takes; the start of each grows out of the last frame before it."""
    whole = parts[0]
    steps = round(BLEND_S * rate_hz)
    for part in parts[1:]:
        share = np.clip(np.arange(1, len(part) + 1) / steps, 0, 1)
        share = (share * share * (3 - 2 * share)).reshape(-1, *([1] * (dims - 1)))
        whole = np.concatenate([whole, whole[-1:] * (1 - share) + part * share])
    return whole


class StereoFilm:
    """Frames of one person acting before a stereo head; the same for the same seed."""

    def __init__(
        self, casting: Casting, head: StereoHead, poses_m: np.ndarray, places_m: np.ndarray,
        rate_hz: float, seed: int,
    ) -> None:  # fmt: skip
        self.head, self.rate_hz = head, rate_hz
        self.draw = Draw(seed, casting.body.device)
        self.renderer = Renderer(casting)
        self.rectifier = StereoRectifier(head.left, head.right)
        poses = torch.as_tensor(poses_m, dtype=torch.float32)
        people = casting.people(poses, self.draw, turned=False, one_person=True)
        place = torch.as_tensor(places_m, dtype=torch.float32)
        self.people = people.moved(torch.stack([place[:, 0], 0 * place[:, 0], place[:, 1]], 1))
        self.scene = self._stage(casting, people)
        self.views = [
            self._view(model, side) for side, model in enumerate((head.left, head.right))
        ]

    def __len__(self) -> int:
        return len(self.people.joints)

    def _bar(self) -> tuple[Tensor, Tensor]:
        """Rotation (bar from world) and centre of the left camera: the head looks along +z."""
        level = torch.tensor([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
        pitch = rotations.about_x(torch.tensor(-self.head.pitch_rad))
        return pitch @ level, torch.tensor([0.0, self.head.height_m, 0.0])

    def _stage(self, casting: Casting, people: People) -> Scene:
        """A room round the whole action, without an occluder."""
        _, centre = self._bar()
        middle = torch.tensor([[0.0, 0.0, 2.8]])
        scene = sample_scene(
            1, casting.bank, self.draw, centre[None] - middle, people.joints[:1, 9]
        )
        low, high = torch.tensor([[-3.2, 0.0, -4.0]]), torch.tensor([[3.4, 2.9, 3.6]])
        present = scene.box_present.clone()
        present[:, -1] = False
        centres = scene.box_centre_m.clone()
        centres[..., 2] = centres[..., 2].abs().clamp_min(2.2)  # furniture behind the stage
        return replace(
            scene, room_turn=torch.eye(3)[None],
            room_low_m=low + middle, room_high_m=high + middle,
            box_present=present, box_centre_m=centres + middle[:, None],
            sky=torch.full_like(scene.sky, torch.nan),
        )  # fmt: skip

    def _view(self, model: CameraModel, side: int) -> View:
        """A pinhole view that holds all the lens sees, supersampled."""
        bar, centre = self._bar()
        turn = self.head.right_turn if side else self.head.left_turn
        rotation = torch.as_tensor(turn, dtype=torch.float32) @ bar
        centre = centre + bar[0] * self.head.baseline_m * side
        x, y = np.arange(-1, model.width + 1.0), np.arange(-1, model.height + 1.0)
        rows = [np.stack(np.broadcast_arrays(x, edge), -1) for edge in (y[0], y[-1])]
        columns = [np.stack(np.broadcast_arrays(edge, y), -1) for edge in (x[0], x[-1])]
        rim = np.concatenate(rows + columns)
        rays = cv2.undistortPoints(rim[:, None], model.k, model.d)[:, 0]
        focal = model.k[0, 0] * SUPERSAMPLING
        low, high = rays.min(0) * focal - 2, rays.max(0) * focal + 2
        width, height = np.ceil(high - low).astype(int)
        one = torch.ones(1)
        return View(one * focal, one * focal, one * float(-low[0]), one * float(-low[1]),
                    rotation[None], centre[None], int(height), int(width))  # fmt: skip

    def frames(self) -> Iterator[Frame]:
        """Render frame after frame."""
        lens = [
            self._lens_map(m, v)
            for m, v in zip((self.head.left, self.head.right), self.views, strict=True)
        ]
        noise = np.random.default_rng(int(self.draw.integer(2**31, 1)))
        exposure: float | None = None
        calibration = self.rectifier.calibration
        for number in range(len(self)):
            person = self.people[number : number + 1]
            zero = torch.zeros(1, dtype=torch.long)
            pictures = [
                self.renderer.render(person, zero, self.scene, view, zero) for view in self.views
            ]
            if exposure is None:
                exposure = 0.2 / float(pictures[0].linear.mean())
            raw = [
                self._shoot(picture, lens[side], exposure * (1.0, 0.84)[side], noise)
                for side, picture in enumerate(pictures)
            ]
            xyz, uvd, code = self._truth(person, pictures[0], calibration)
            yield Frame(round(number * 1e9 / self.rate_hz), raw[0], raw[1], xyz, uvd, code)

    def _lens_map(self, model: CameraModel, view: View) -> tuple[np.ndarray, np.ndarray]:
        """For each raw pixel, where the pinhole picture shows it."""
        grid = np.stack(np.meshgrid(np.arange(model.width), np.arange(model.height)), -1)
        rays = cv2.undistortPoints(grid.reshape(-1, 1, 2).astype(np.float64), model.k, model.d)
        rays = rays.reshape(model.height, model.width, 2)
        return (
            (rays[..., 0] * float(view.fx) + float(view.cx)).astype(np.float32),
            (rays[..., 1] * float(view.fy) + float(view.cy)).astype(np.float32),
        )

    def _shoot(
        self, picture: Pictures, lens: tuple[np.ndarray, np.ndarray], gain: float,
        noise: np.random.Generator,
    ) -> np.ndarray:  # fmt: skip
        """Lens, exposure, noise and tone curve: a raw RGB image."""
        linear = cv2.GaussianBlur(picture.linear[0].numpy(), (0, 0), 0.5 * SUPERSAMPLING * 0.8)
        light = cv2.remap(linear, *lens, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * gain
        light = light + noise.normal(0, 1, light.shape) * np.sqrt(0.0003 * light.clip(0) + 2e-6)
        light = light.clip(0)
        tone = (light / (1 + 0.25 * light)).clip(0, 1) ** (1 / 2.2)
        return (tone * 255).round().astype(np.uint8)

    def _truth(
        self, person: People, picture: Pictures, calibration: StereoCalibration
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        view = self.views[0]
        zero = torch.zeros(1, dtype=torch.long)
        seen = view.camera(person.joints, zero)
        uv = view.project(seen, zero)
        pixel = uv.round().long()
        limit = torch.tensor([view.width, view.height])
        outside = ((pixel < 0) | (pixel >= limit)).any(-1)
        own = picture.person == 0
        code = visibility(uv, seen[..., 2], outside, picture.depth_m, own)[0].numpy()
        xyz = seen[0].double() @ torch.as_tensor(self.head.left.r).T
        uvd = project(xyz, calibration).numpy()
        u, v = uvd[:, 0], uvd[:, 1]
        off = (u < 0) | (v < 0) | (u >= self.head.left.width) | (v >= self.head.left.height)
        return xyz.numpy(), uvd, np.where(off, 3, code).astype(np.uint8)
