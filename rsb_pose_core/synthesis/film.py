"""A film of one moving person, as a real stereo head records it: distorted, turned, unequal."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.geometry import project
from rsb_pose_core.rectification import CameraModel, StereoRectifier
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations, world
from rsb_pose_core.synthesis.clips import Clip
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.labels import GROWN_M, flesh_m, visibility
from rsb_pose_core.synthesis.lens import Lenses, raw_grid, resample
from rsb_pose_core.synthesis.lighting import LightBank
from rsb_pose_core.synthesis.mesh import join
from rsb_pose_core.synthesis.people import Casting, People
from rsb_pose_core.synthesis.poses import DT_S, NO_GESTURE, STAND, BodyPoses
from rsb_pose_core.synthesis.render import Pictures, Renderer
from rsb_pose_core.synthesis.retarget import retarget, with_arms
from rsb_pose_core.synthesis.sensor import smear
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.view import View

SUPERSAMPLING = 1.6
BLEND_S = 0.4  # between two takes
EXPOSURE_S = 0.008
GAINS = (1.0, 0.84)  # of the left and the right camera
SHOT_NOISE, READ_NOISE = 3e-4, 1.4e-3  # variance = shot * light + read^2, light 1 at saturation
GREY = 0.2  # linear light that the first picture's mean is exposed to


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
    """A head as in Berkeley MHAD's quads: f about 530 px at 640, barrel distortion, turned."""

    def turn(rx: float, ry: float, rz: float) -> np.ndarray:
        return cv2.Rodrigues(np.radians([rx, ry, rz]))[0]

    def intrinsics(fx: float, fy: float, x: float, y: float) -> np.ndarray:
        scale = width / 640
        cx, cy = (width - 1) / 2 + x * scale, (height - 1) / 2 + y * scale
        return np.array([[fx * scale, 0, cx], [0, fy * scale, cy], [0, 0, 1]])

    k_left, k_right = intrinsics(531.0, 532.5, 6.0, -4.0), intrinsics(528.0, 529.2, -9.0, 5.0)
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
    """Poses (N, 17, 3) with headings applied and floor positions (N, 2: x, z) of the takes.

    Raises RsbPoseError where a take, or the blend between two, is shorter than a frame.
    """
    shortest = min([BLEND_S, *(take.length_s / 2 for take in takes)])
    if rate_hz * shortest < 1:
        raise RsbPoseError(
            f'{rate_hz:g} pairs a second are too few for these takes; film at least '
            f'{1 / shortest:.1f}'
        )
    poses, places = [], []
    for take in takes:
        count = round(take.length_s * rate_hz)
        time_s = take.first_s + np.arange(count) / rate_hz
        joints = _at(take.clip, time_s)
        if take.arms is not None:
            donor = torch.from_numpy(_at(take.arms, time_s))
            joints = with_arms(torch.from_numpy(joints), donor).numpy()
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
        self, casting: Casting, bank: TextureBank, lights: LightBank, head: StereoHead,
        poses_m: np.ndarray, places_m: np.ndarray, rate_hz: float, seed: int,
    ) -> None:  # fmt: skip
        """poses_m (N, 17, 3), places_m (N, 2: x, z of the floor): as `act` gives them."""
        self.casting, self.head, self.rate_hz = casting, head, rate_hz
        self.draw = Draw(seed, casting.body.device)
        self.renderer = Renderer(bank, lights)
        self.rectifier = StereoRectifier(head.left, head.right)
        device = casting.body.device
        self._poses = torch.as_tensor(poses_m, dtype=torch.float32, device=device)
        self._places = torch.as_tensor(places_m, dtype=torch.float32, device=device)
        self._cast = casting.cast(1, self.draw)
        self._lenses = Lenses.of([head.left, head.right], device)
        self.view = self._view()
        self.world = self._stage(bank, lights)

    def __len__(self) -> int:
        return len(self._poses)

    def person(self, number: int) -> People:
        """The person of one frame, in the world."""
        last = len(self) - 1
        step = min(DT_S * self.rate_hz, 1.0)
        now = slice(number, number + 1)
        after = slice(min(number + 1, last), min(number + 1, last) + 1)
        later = torch.lerp(self._poses[now], self._poses[after], step)
        travel = (self._places[after] - self._places[now]) * step
        heads, body = self._cast.heads_m, self.casting.body
        none = torch.zeros(1, dtype=torch.long, device=heads.device)
        rotation, root = retarget(body, heads, self._poses[now])
        later_rotation, later_root = retarget(body, heads, later)
        poses = BodyPoses(
            rotation, root, later_rotation, later_root, _on_floor(travel), none + STAND, none,
            (none + NO_GESTURE).expand(1, 2),
        )  # fmt: skip
        people = self.casting.pose(self._cast, poses, none)
        return people.moved(_on_floor(self._places[now]), torch.zeros(1, device=heads.device))

    def frames(self) -> Iterator[Frame]:
        """Render frame after frame."""
        image_scene = torch.zeros(2, dtype=torch.long, device=self.view.fx.device)
        turn = torch.eye(3, device=self.view.fx.device).expand(2, 3, 3)
        grid = raw_grid(self.view, self._lenses, turn)
        grain = Draw(int(self.draw.integer(2**31, 1)), self.casting.body.device)
        gain: Tensor | None = None
        for number in range(len(self)):
            person = self.person(number)
            mesh, surfaces = join(
                [(person.mesh, person.surfaces), (self.world.mesh, self.world.surfaces)]
            )
            pictures = self.renderer.render(
                mesh, surfaces, self.world.room, self.world.light, self.view, image_scene,
                person.spheres, velocity=True,
            )  # fmt: skip
            if gain is None:
                gain = GREY / pictures.linear[0].mean()
            raw = self._shoot(pictures, grid, gain, grain)
            yield self._frame(number, raw, person, pictures)

    def _view(self) -> View:
        """Pinhole views that hold all the lenses see, supersampled."""
        device = self.casting.body.device
        level = torch.tensor([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]], device=device)
        pitch = rotations.about_x(torch.tensor(-self.head.pitch_rad, device=device))
        bar = pitch @ level  # the head looks along +z
        turns = np.stack([self.head.left_turn, self.head.right_turn])
        rotation = torch.as_tensor(turns, dtype=torch.float32, device=device) @ bar
        left = torch.tensor([0.0, self.head.height_m, 0.0], device=device)
        centre = torch.stack([left, left + bar[0] * self.head.baseline_m])
        width, height = self.head.left.width, self.head.left.height
        x, y = np.arange(-1, width + 1.0), np.arange(-1, height + 1.0)
        rows = [np.stack(np.broadcast_arrays(x, edge), -1) for edge in (y[0], y[-1])]
        columns = [np.stack(np.broadcast_arrays(edge, y), -1) for edge in (x[0], x[-1])]
        rim = torch.from_numpy(np.concatenate(rows + columns)).to(device).expand(2, -1, 2)
        focal = self._lenses.k[:, :1] * SUPERSAMPLING
        rays = self._lenses.rays_of_raw(rim) * focal[:, :, None]
        low, high = rays.amin(1) - 2, rays.amax(1) + 2
        extent = (high - low).amax(0).ceil().int()
        focal, first = focal[:, 0].float(), -low.float()
        return View(
            focal, focal, first[:, 0], first[:, 1], rotation, centre, int(extent[1]),
            int(extent[0]),
        )  # fmt: skip

    def _stage(self, bank: TextureBank, lights: LightBank) -> world.World:
        """A room round the whole action."""
        acted = [self.person(number) for number in range(0, len(self), 3)]
        scene = torch.zeros(len(acted), dtype=torch.long, device=self.view.fx.device)
        return world.sample(
            1, bank, lights, self.draw, self.view.centre_m[None],
            torch.cat([person.joints_m for person in acted]), scene,
            torch.cat([person.spheres for person in acted]), outdoors=0.0,
        )  # fmt: skip

    def _shoot(self, pictures: Pictures, grid: Tensor, gain: Tensor, grain: Draw) -> np.ndarray:
        """Smear, lens, exposure, noise and tone curve: raw images (2, H, W, 3)."""
        assert pictures.velocity_px_s is not None
        light = pictures.linear.permute(0, 3, 1, 2).contiguous()
        light = smear(light, pictures.velocity_px_s * EXPOSURE_S)
        # the width of a pixel of the sensor
        light = avg_pool2d(light, 3, 1, 1, count_include_pad=False)
        light = resample(light, grid, self.head.left.height, self.head.left.width, border='border')
        light = light * (gain * light.new_tensor(GAINS).view(2, 1, 1, 1))
        deviation = (SHOT_NOISE * light.clamp_min(0) + READ_NOISE**2).sqrt()
        light = (light + deviation * grain.normal(*light.shape)).clamp_min(0)
        tone = (light / (1 + 0.25 * light)).clamp(0, 1) ** (1 / 2.2)
        return (tone * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def _frame(
        self, number: int, raw: np.ndarray, person: People, pictures: Pictures
    ) -> Frame:  # fmt: skip
        left = torch.zeros(1, dtype=torch.long, device=person.joints_m.device)
        seen = self.view.camera(person.joints_m, left)
        uv = self.view.project(seen, left)[0]
        limit = uv.new_tensor([self.view.width - 1, self.view.height - 1])
        u, v = uv.round().clamp(torch.zeros_like(limit), limit).long().unbind(-1)
        scale = person.height_m / GROWN_M
        xyz = seen[0].double() @ self._lenses.r[0].T
        uvd = project(xyz, self.rectifier.calibration.to(xyz))
        size = uvd.new_tensor([self.head.left.width, self.head.left.height])
        code = visibility(
            seen[0, :, 2], pictures.depth_m[0, v, u], pictures.owner[0, v, u] == 0,
            ~((uvd[:, :2] >= 0) & (uvd[:, :2] < size)).all(-1),
            flesh_m(H36M_17, uv.device) * scale,
        )  # fmt: skip
        return Frame(
            round(number * 1e9 / self.rate_hz), raw[0], raw[1], xyz.cpu().numpy(),
            uvd.cpu().numpy(), code.cpu().numpy().astype(np.uint8),
        )  # fmt: skip


def _on_floor(place: Tensor) -> Tensor:
    """x, 0, z of (P, 2)."""
    return torch.stack([place[:, 0], torch.zeros_like(place[:, 0]), place[:, 1]], 1)
