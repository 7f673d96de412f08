"""Stereo heads before a person: real ones from their data sheets and free ones, where robots
carry them, and what time has done to their calibration."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.rigs import FREE_SIZES, RIGS, SHORT_RIGS, Mode, StereoRig
from rsb_pose_core.synthesis.view import View

__all__ = [
    'FREE', 'MOUNTINGS', 'RIGS', 'SHORT_RIGS', 'CameraSpace', 'Drift', 'Mode', 'Mounting',
    'StereoRig', 'StereoShots', 'sample_shots',
]  # fmt: skip

FREE = -1  # number of the rig of a shot that is no preset
LENS_CLEARANCE_M = 0.4  # between a joint and the left camera
NEAREST_DEPTH_M = 0.1  # of any joint, wherever one of several aims does that
WIDEST_DISPARITY = 0.55  # of the image's width, at the middle of the person
AIMS = 8  # orientations tried for each shot
STEPS_BACK = (1.0, 1.25, 1.6, 2.0, 2.6, 3.5)  # distances tried, as multiples of the one drawn
SEEN_JOINTS = 6  # that both images hold of the subject, wherever that can be


@dataclass(frozen=True)
class Mounting:
    """Where a camera is carried: heights above the floor, m, and elevations of its axis."""

    height_m: tuple[float, float]
    weight: float
    tilt_deg: tuple[float, float] = (-35.0, 35.0)  # negative looks down


MOUNTINGS = (
    Mounting((0.07, 0.15), 0.08, (-5.0, 45.0)),  # vacuum cleaners
    Mounting((0.2, 0.65), 0.2, (-15.0, 45.0)),  # dogs, carts, couriers
    Mounting((0.7, 1.25), 0.34, (-35.0, 35.0)),  # tables, tripods, wheelchairs' arms
    Mounting((1.3, 1.75), 0.24, (-55.0, 25.0)),  # humanoids
    Mounting((1.9, 2.7), 0.14, (-75.0, 5.0)),  # shelves and ceilings
)


@dataclass(frozen=True)
class Drift:
    """What rectification leaves: angles, focal lengths and principal points that are not so.

    Factories accept a row error of 0.5 px, calibrations by users of 1.0 px, at f of about 790 px
    (the makers of the OAK-D in luxonis/depthai, issue 646): 0.036 and 0.073 degrees; home-made
    heads report 0.7 px (srv/viso2, issue 37), and heat and knocks add to it. So each pair draws
    the deviation of its errors from `severity_deg`: rows are then off by 0.1 to 1.5 px. Vergence
    is held better: it alone moves all depths, and a depth error of 2 % at 2 m, where the D435's
    data sheet ends, is 0.03 degrees.
    """

    aligned_share: float = 0.25  # of pairs without any error
    severity_deg: tuple[float, float] = (0.008, 0.1)  # log-uniform
    vergence: float = 0.25  # the angle about y, as a share of the others
    focal: float = 0.5  # relative error of a focal length per rad of severity
    principal: float = 0.3  # error of a principal point, in focal lengths per rad


@dataclass(frozen=True)
class CameraSpace:
    """From what shots are drawn."""

    rigs: tuple[StereoRig, ...] = SHORT_RIGS
    preset_share: float = 0.45  # of shots by one of the rigs; others are free
    unit_spread: float = 1.0  # how much units of one rig differ: 1 as real ones, 0 not at all
    baseline_m: tuple[float, float] = (0.05, 0.30)  # of free rigs, log-uniform
    view_angle_deg: tuple[float, float] = (48.0, 110.0)  # of free rigs
    mono_share: float = 0.1  # of free rigs
    rolling_share: float = 0.5  # of free rigs
    projector_share: float = 0.5  # of shots by rigs that have one
    distance_m: tuple[float, float] = (0.6, 10.0)  # log-uniform, to the middle of the person
    smallest_px: float = 56.0  # extent of a person: farther ones are brought nearer
    mountings: tuple[Mounting, ...] = MOUNTINGS
    whole_share: float = 0.7  # of shots that hold the whole person where it fits
    roll_deg: float = 2.0  # deviation
    drift: Drift = field(default_factory=Drift)
    moving_share: float = 0.3  # of shots from a head that moves
    speed_m_s: tuple[float, float] = (0.05, 1.2)  # log-uniform
    spin_rad_s: float = 0.3  # deviation of turns about the vertical; half of it of others
    exposure_s: tuple[float, float] = (0.001, 0.02)  # log-uniform


@dataclass(frozen=True)
class StereoShots:
    """B stereo heads in the world. The rectified frame is that of the left camera."""

    calibration: StereoCalibration  # of the whole rectified images, as the driver gives it
    rotation: Tensor  # B 3 3, rows: axes of the rectified frame in the world
    centre_m: Tensor  # B 3, left camera in the world
    size: Tensor  # B 2, width and height of the images, px
    rig: Tensor  # B, number in CameraSpace.rigs, FREE: none
    mono: Tensor  # B bool
    projector: Tensor  # B bool: infrared dots are on
    turn: Tensor  # 2B 3 3, axes of the true cameras in the rectified frame
    focal_gain: Tensor  # 2B, true focal length / calibrated one
    principal_px: Tensor  # 2B 2, true principal point - calibrated one, px of the whole image
    velocity_m_s: Tensor  # B 3, of the head, in the world
    spin_rad_s: Tensor  # B 3, in the rectified frame
    exposure_s: Tensor  # B
    readout_s: Tensor  # B, from the first row to the last; 0: global shutter

    def __len__(self) -> int:
        return len(self.centre_m)

    @property
    def right_m(self) -> Tensor:
        """Right cameras (B, 3) in the world."""
        return self.centre_m + self.rotation[:, 0] * self.calibration.baseline_m[:, None]

    def rectified(self, points_m: Tensor, scene: Tensor) -> Tensor:
        """World points (P, V, 3) of scenes (P,) in the nominal rectified left frames."""
        return (points_m - self.centre_m[scene][:, None]) @ self.rotation[scene].mT

    def view(self, calibration: StereoCalibration, height: int, width: int) -> View:
        """What the true cameras see (left, then right: 2B images) in crops of height x width.

        calibration: of the crops, made from self.calibration by crop() and resize(); or itself.
        """
        scale = torch.cat([calibration.fx / self.calibration.fx] * 2)
        cx = torch.cat([calibration.cx_left, calibration.cx_right])
        return View(
            torch.cat([calibration.fx] * 2) * self.focal_gain,
            torch.cat([calibration.fy] * 2) * self.focal_gain,
            cx + self.principal_px[:, 0] * scale,
            torch.cat([calibration.cy] * 2) + self.principal_px[:, 1] * scale,
            self.turn @ torch.cat([self.rotation] * 2), torch.cat([self.centre_m, self.right_m]),
            height, width,
        )  # fmt: skip

    def readout_of_crops_s(self, scale: Tensor, height: int) -> Tensor:
        """Time (2B,) from the first to the last of `height` rows of crops that show their images
        at scales (B,), crop pixels per image pixel."""
        share = (height - 1) / (scale * (self.size[:, 1] - 1))
        return (self.readout_s * share).repeat(2)

    def flow(self, view: View, depth_m: Tensor) -> Tensor:
        """Pixels per second (2B, H, W, 2) by which still things move in the images of `view`,
        because the head moves. depth_m (2B, H, W); infinitely far things move as well."""
        velocity = torch.cat([self.velocity_m_s] * 2)
        spin = torch.cat([self.spin_rad_s] * 2)
        x = (torch.arange(view.width, device=depth_m.device) - view.cx[:, None]) / view.fx[:, None]
        y = torch.arange(view.height, device=depth_m.device) - view.cy[:, None]
        x, y = x[:, None], (y / view.fy[:, None])[:, :, None]
        vx, vy, vz = ((view.rotation @ velocity[:, :, None])[..., None]).unbind(1)
        wx, wy, wz = (self.turn @ spin[:, :, None])[..., None].unbind(1)
        near = 1 / depth_m
        # derivative of X/Z and Y/Z with dX/dt = -v - w x X
        u = (vz * x - vx) * near + x * y * wx - (1 + x * x) * wy + y * wz
        v = (vz * y - vy) * near + (1 + y * y) * wx - x * y * wy - x * wz
        return torch.stack([u * view.fx[:, None, None], v * view.fy[:, None, None]], -1)


@torch.no_grad()
def sample_shots(count: int, draw: Draw, space: CameraSpace, joints_m: Tensor) -> StereoShots:
    """Heads before the subjects whose joints (B, J, 3) stand in the world: y up, floor at 0.

    The subject stands anywhere in the left image. Both images hold at least SEEN_JOINTS joints
    wherever one of several aims does that; at close range the border cuts through the person.
    """
    calibration, size, rig, mono, projector, readout = _heads(count, draw, space)
    low, high = joints_m.amin(1), joints_m.amax(1)
    extent = (high - low).amax(1) + 0.2
    mounting = _mounting(count, draw, space)
    centre = _places(draw, space, joints_m, extent, calibration, size, mounting)
    rotation = _aims(draw, space, joints_m, extent, centre, calibration, size, mounting)
    turn, focal_gain, principal = _drifted(draw, space.drift, calibration.fx)
    moving = draw.chance(space.moving_share, count)[:, None]
    bearing = draw.uniform(-torch.pi, torch.pi, count)
    course = torch.stack([bearing.sin(), 0.15 * draw.normal(count), bearing.cos()], 1)
    velocity = course * draw.log_uniform(*space.speed_m_s, count)[:, None] * moving
    spin = draw.normal(count, 3) * centre.new_tensor([0.5, 1.0, 0.5]) * space.spin_rad_s * moving
    exposure = draw.log_uniform(*space.exposure_s, count)
    return StereoShots(
        calibration, rotation, centre, size, rig, mono, projector, turn, focal_gain, principal,
        velocity, spin, exposure, readout,
    )  # fmt: skip


Head = tuple[StereoCalibration, Tensor, Tensor, Tensor, Tensor, Tensor]


def _heads(count: int, draw: Draw, space: CameraSpace) -> Head:
    """Calibration, size (B, 2), rig, mono, projector and readout_s of heads, presets or free."""
    like = draw.uniform(0.0, 1.0, count)
    table = like.new_tensor(
        [
            [mode.width, mode.height, mode.focal_px, mode.readout_s, rig.baseline_m, rig.mono,
             rig.projector, 1 / rig.convergence_m, number]
            for number, rig in enumerate(space.rigs) for mode in rig.modes
        ] or [[1.0, 1, 1, 0, 1, 0, 0, 0, FREE]]
    )  # fmt: skip
    # every rig is as likely as any other, whatever the number of its modes
    modes = torch.bincount((table[:, -1] - table[0, -1]).long())
    which = draw.integer(len(modes), count)
    first = modes.cumsum(0) - modes
    mode = (like * modes[which]).long().clamp_max(modes[which] - 1)
    preset = table[first[which] + mode]
    spread = space.unit_spread
    unit = torch.stack([0.006 * spread * draw.normal(count), 0.003 * spread * draw.normal(count)])
    gain = unit.clamp(-0.02, 0.02).exp()
    free_size = draw.choose(like.new_tensor(FREE_SIZES), count)
    angle = draw.uniform(*space.view_angle_deg, count) * (torch.pi / 180)
    free = torch.stack(
        [
            *free_size.unbind(1), free_size[:, 0] / 2 / torch.tan(angle / 2),
            draw.chance(space.rolling_share, count) * draw.uniform(0.008, 0.03, count),
            draw.log_uniform(*space.baseline_m, count), draw.chance(space.mono_share, count),
            0 * like, 0 * like, 0 * like + FREE,
        ], 1,
    )  # fmt: skip
    chosen = draw.chance(space.preset_share, count) & (preset[:, -1] != FREE)
    preset[:, 2] *= gain[0]
    preset[:, 4] *= gain[1]
    width, height, focal, readout, baseline, mono, projector, nearness, rig = torch.where(
        chosen[:, None], preset, free
    ).unbind(1)
    offset = 0.012 * torch.where(chosen, spread, 1.0)[:, None] * draw.normal(count, 2)
    cx, cy = (width - 1) / 2 + width * offset[:, 0], (height - 1) / 2 + width * offset[:, 1]
    # rectified images of axes that meet are shifted against each other
    shift = focal * baseline * nearness / 2
    calibration = StereoCalibration(focal, focal, cx - shift, cx + shift, cy, baseline)
    lit = (projector > 0) & draw.chance(space.projector_share, count)
    size = torch.stack([width, height], 1)
    return calibration, size, rig.long(), mono > 0, lit, readout


def _places(
    draw: Draw, space: CameraSpace, joints_m: Tensor, extent: Tensor,
    calibration: StereoCalibration, size: Tensor, mounting: Tensor,
) -> Tensor:  # fmt: skip
    """Left cameras (B, 3): at the heights of their mountings, at log-uniform distances."""
    count = len(size)
    middle = (joints_m.amin(1) + joints_m.amax(1)) / 2
    low, high = mounting[:, 0], mounting[:, 1]
    height = low * (high / low) ** draw.uniform(0.0, 1.0, count)
    # no distance makes the person a dot, or brings it out of the overlap of both images
    widest = WIDEST_DISPARITY * size[:, 0] - (calibration.cx_left - calibration.cx_right)
    overlap = calibration.fx * calibration.baseline_m / widest
    nearest = overlap.clamp_min(space.distance_m[0])
    farthest = (calibration.fx * extent / space.smallest_px).clamp_max(space.distance_m[1])
    farthest = torch.maximum(farthest, nearest)
    distance = nearest * (farthest / nearest) ** draw.uniform(0.0, 1.0, count)
    rise = height - middle[:, 1]
    steepest = torch.deg2rad(mounting[:, 2:].abs().amax(1) + 15).sin().clamp_max(0.97)
    distance = torch.maximum(distance, rise.abs() / steepest)
    steps = distance[:, None] * distance.new_tensor(STEPS_BACK)
    level = (steps**2 - rise[:, None] ** 2).clamp_min(0).sqrt()
    bearing = draw.uniform(-torch.pi, torch.pi, count)
    away = torch.stack([bearing.sin(), 0 * bearing, bearing.cos()], 1)
    place = middle[:, None] + away[:, None] * level[..., None]
    place[..., 1] = height[:, None]
    fits = torch.cdist(place, joints_m).amin(2) > LENS_CLEARANCE_M
    # all of the subject before the camera, whatever part of it is looked at
    ahead = torch.nn.functional.normalize(middle[:, None] - place, dim=-1)
    reach = joints_m @ ahead.mT - (place * ahead).sum(-1)[:, None]  # B J steps
    fits &= reach.amin(1) > LENS_CLEARANCE_M / 2
    fits[:, -1] = True
    return place[torch.arange(count, device=place.device), fits.int().argmax(1)]


def _mounting(count: int, draw: Draw, space: CameraSpace) -> Tensor:
    """Lowest and highest height, m, and lowest and highest elevation, degrees (B, 4)."""
    share = draw.uniform(0.0, 1.0, count)
    weights = share.new_tensor([mounting.weight for mounting in space.mountings])
    which = torch.searchsorted(weights.cumsum(0) / weights.sum(), share)
    table = share.new_tensor([[*m.height_m, *m.tilt_deg] for m in space.mountings])
    return table[which.clamp_max(len(weights) - 1)]


def _aims(
    draw: Draw, space: CameraSpace, joints_m: Tensor, extent: Tensor, centre: Tensor,
    calibration: StereoCalibration, size: Tensor, mounting: Tensor,
) -> Tensor:  # fmt: skip
    """Rotations (B, 3, 3) that show the subject anywhere in both images, horizons nearly level.

    Each aim brings a point of the subject to a pixel, as far as the mounting tilts; the first of
    AIMS is taken that shows SEEN_JOINTS in both images, or the one that shows most.
    """
    count, joints = joints_m.shape[:2]
    shape = (count, AIMS)
    row = torch.arange(count, device=size.device)[:, None]
    c = calibration
    fx, fy, cx, cy, baseline = (v[:, None] for v in (c.fx, c.fy, c.cx_left, c.cy, c.baseline_m))
    offset = cx - c.cx_right[:, None]
    width, height = size[:, :1], size[:, 1:]
    middle = ((joints_m.amin(1) + joints_m.amax(1)) / 2)[:, None].expand(-1, AIMS, -1)
    some = draw.chance(0.6, *shape)
    some[:, -1] = False
    whole = draw.chance(space.whole_share, *shape)
    some = (some & ~whole)[..., None]
    point = torch.where(some, joints_m[row, draw.integer(joints, *shape)], middle)
    to = point - centre[:, None]
    distance = to.norm(dim=-1)
    disparity = fx * baseline / distance + offset
    reach = whole * 0.5 * fx * extent[:, None] / distance
    low = reach + disparity.clamp_min(0)
    high = width - 1 - reach + disparity.clamp_max(0)
    u = _between(low, high, draw.uniform(0.0, 1.0, *shape))
    v = _between(reach, height - 1 - reach, draw.uniform(0.0, 1.0, *shape))
    roll = draw.normal(*shape) * math.radians(space.roll_deg)
    x, y = (u - cx) / fx, (v - cy) / fy
    x, y = x * roll.cos() + y * roll.sin(), y * roll.cos() - x * roll.sin()
    # elevation and heading of the axis that bring the ray (x, y, 1) of a level camera to `to`
    steep = to[..., 1] / distance * (1 + x * x + y * y).sqrt() / (1 + y * y).sqrt()
    elevation = y.atan() + steep.clamp(-1, 1).asin()
    tilt = torch.deg2rad(mounting[:, 2:])
    elevation = elevation.clamp(tilt[:, :1], tilt[:, 1:])
    heading = torch.atan2(to[..., 0], to[..., 2])
    heading = heading + torch.atan2(x, elevation.cos() + y * elevation.sin())
    rise, level = elevation.sin(), elevation.cos()
    ahead = torch.stack([level * heading.sin(), rise, level * heading.cos()], -1)
    right = torch.stack([-heading.cos(), 0 * heading, heading.sin()], -1)
    axes = torch.stack([right, torch.linalg.cross(ahead, right), ahead], -2)
    axes = rotations.about_z(roll) @ axes  # B AIMS 3 3
    seen = (joints_m - centre[:, None])[:, None] @ axes.mT
    z = seen[..., 2].clamp_min(1e-3)
    left = fx[..., None] * seen[..., 0] / z + cx[..., None]
    down = fy[..., None] * seen[..., 1] / z + cy[..., None]
    other = left - (fx * baseline)[..., None] / z - offset[..., None]
    inside = (seen[..., 2] > NEAREST_DEPTH_M) & (left.minimum(other) >= 0) & (down >= 0)
    inside &= (left.maximum(other) < width[..., None]) & (down < height[..., None])
    before = (seen[..., 2] > NEAREST_DEPTH_M).all(-1)
    best = (inside.sum(-1).clamp_max(SEEN_JOINTS) + 2 * SEEN_JOINTS * before).argmax(1)
    return axes[row[:, 0], best]


def _between(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
    """A point from `low` to `high`, or their middle where low > high."""
    middle = (low + high) / 2
    return middle + (high - low).clamp_min(0) * (share - 0.5)


def _drifted(draw: Draw, drift: Drift, focal_px: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turns (2B, 3, 3), focal gains (2B) and shifts of principal points (2B, 2) of true cameras.

    The left camera is not turned: it is what the rectified frame hangs on.
    """
    count = len(focal_px)
    severity = torch.deg2rad(draw.log_uniform(*drift.severity_deg, count))
    severity = severity * ~draw.chance(drift.aligned_share, count)
    angle = draw.normal(count, 3) * severity[:, None]
    wobble = rotations.about_x(angle[:, 0]) @ rotations.about_y(drift.vergence * angle[:, 1])
    wobble = wobble @ rotations.about_z(angle[:, 2])
    still = torch.eye(3, device=focal_px.device).expand(count, 3, 3)
    both = severity.repeat(2)
    gain = 1 + drift.focal * draw.normal(2 * count) * both
    shift = drift.principal * draw.normal(2 * count, 2) * (both * focal_px.repeat(2))[:, None]
    # what moves columns alone moves depths: as little as vergence
    shift[:, 0] *= drift.vergence
    return torch.cat([still, wobble]), gain, shift
