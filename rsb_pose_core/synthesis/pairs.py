"""Training pairs: square crops of a person in two rectified views, with exact labels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.geometry import project
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.people import Casting, People, sample_poses
from rsb_pose_core.synthesis.render import Renderer
from rsb_pose_core.synthesis.scene import View, sample_scene
from rsb_pose_core.synthesis.sensor import expose, jpeg

VISIBLE, SELF_OCCLUDED, OCCLUDED, OUTSIDE = range(4)
SENSORS = ((1280, 720), (1280, 800), (640, 480), (1920, 1080), (848, 480))  # width, height
# half the thickness of the body at each joint, m: how far the surface may lie before the joint
FLESH_M = {'pelvis': 0.26, 'spine': 0.24, 'neck': 0.17, 'nose': 0.06, 'head': 0.14}
FLESH_M |= dict.fromkeys(('left_hip', 'right_hip'), 0.22)
FLESH_M |= dict.fromkeys(('left_shoulder', 'right_shoulder'), 0.15)


@dataclass(frozen=True)
class StereoPairs:
    """B pairs of crops of S x S pixels and what is true about them."""

    left: np.ndarray  # B S S 3 uint8 RGB
    right: np.ndarray
    xyz_m: Tensor  # B 17 3, rectified left optical frame
    uv_left: Tensor  # B 17 2, crop pixels where the image shows the joint
    uv_right: Tensor
    visibility: Tensor  # B 2 17
    calibration: StereoCalibration  # of the crops
    disparity_map: Tensor  # B S S, crop pixels, of the left crop


@dataclass(frozen=True)
class PairSpace:
    """From what pairs are drawn."""

    crop_size: int = 288
    margin: int = 16  # of crop_size: room for shifts in training
    baseline_m: tuple[float, float] = (0.065, 0.25)
    view_angle_deg: tuple[float, float] = (48.0, 98.0)
    height_share: tuple[float, float] = (0.28, 1.3)  # the person's extent / image height
    misalignment_deg: float = 0.05  # deviation of what rectification leaves
    others: float = 0.25  # share of scenes with a second person


class PairRenderer:
    """Renders pairs: batch number i of a seed is the same whatever was rendered before."""

    def __init__(
        self, casting: Casting, poses_m: np.ndarray, space: PairSpace | None = None
    ) -> None:
        """poses_m (N, 17, 3): the motion library, metres, y up."""
        self.casting, self.poses_m = casting, poses_m
        self.space = space or PairSpace()
        self.renderer = Renderer(casting)

    @torch.no_grad()
    def batch(self, count: int, seed: int, number: int) -> StereoPairs:
        space = self.space
        draw = Draw(seed * 1_000_003 + number, self.casting.body.device)
        people, person_scene = self._people(count, draw)
        joints = people.joints[:count]
        head_m = joints[..., 1].amax(1)
        full, rotation, centre, size = self._cameras(joints, draw)
        scene = sample_scene(
            count,
            self.casting.bank,
            draw,
            centre,
            torch.stack([0 * head_m, head_m, 0 * head_m], 1),
        )
        # the right camera stands beside the left and is turned a little by what rectification left
        aligned = draw.chance(0.3, count)[:, None]
        error = draw.normal(count, 3) * np.radians(space.misalignment_deg) * ~aligned
        wobble = rotations.about_x(error[:, 0]) @ rotations.about_y(error[:, 1])
        wobble = wobble @ rotations.about_z(error[:, 2])
        right_centre = centre + rotation[:, 0] * full.baseline_m[:, None]
        right_rotation = wobble @ rotation

        xyz = (joints - centre[:, None]) @ rotation.mT
        seen_right = (joints - right_centre[:, None]) @ right_rotation.mT
        calibration, origin, side = self._crop(full, xyz, size, draw)
        scale = space.crop_size / side
        view = View(
            torch.cat([calibration.fx] * 2), torch.cat([calibration.fy] * 2),
            torch.cat([calibration.cx_left, calibration.cx_right]),
            torch.cat([calibration.cy] * 2),
            torch.cat([rotation, right_rotation]), torch.cat([centre, right_centre]),
            space.crop_size, space.crop_size,
        )  # fmt: skip
        image_scene = torch.arange(count, device=draw.device).repeat(2)
        pictures = self.renderer.render(people, person_scene, scene, view, image_scene)
        inside = self._inside(origin, scale, size)
        # cameras meter the scene, not the black border
        linear = pictures.linear.permute(0, 3, 1, 2)
        exposed = expose(linear, 1 / scale, draw) * inside[:, None]
        bytes_ = (exposed.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
        quality = draw.uniform(35.0, 98.0, count).tolist()
        packed = draw.chance(0.7, count).tolist()
        for i in range(count):
            if packed[i]:
                bytes_[i] = jpeg(bytes_[i], int(quality[i]))
                bytes_[i + count] = jpeg(bytes_[i + count], int(quality[i]))
        uv_left = project(xyz, calibration)[..., :2]
        uv_right = view.project(seen_right, image_scene[:count] + count)
        owned = pictures.person == image_scene[:, None, None]
        uv, depth = torch.cat([uv_left, uv_right]), torch.cat([xyz, seen_right])[..., 2]
        codes = visibility(uv, depth, self._outside(uv, inside), pictures.depth_m, owned)
        disparity = (calibration.fx * calibration.baseline_m)[:, None, None] / pictures.depth_m[
            :count
        ]
        disparity = disparity + (calibration.cx_left - calibration.cx_right)[:, None, None]
        return StereoPairs(
            bytes_[:count],
            bytes_[count:],
            xyz,
            uv_left,
            uv_right,
            torch.stack([codes[:count], codes[count:]], 1),
            calibration,
            disparity,
        )

    def _people(self, count: int, draw: Draw) -> tuple[People, Tensor]:
        """One person per scene, then second persons; and the scene each stands in."""
        second = draw.chance(self.space.others, count).nonzero()[:, 0]
        total = count + len(second)
        people = self.casting.people(sample_poses(self.poses_m, total, draw), draw)
        bearing = draw.uniform(-torch.pi, torch.pi, total)
        away = draw.log_uniform(0.6, 3.0, total)
        shift = torch.stack([away * bearing.sin(), 0 * away, away * bearing.cos()], 1)
        shift[:count] = 0
        scenes = torch.cat([torch.arange(count, device=draw.device), second])
        return people.moved(shift), scenes

    def _cameras(
        self, joints: Tensor, draw: Draw
    ) -> tuple[StereoCalibration, Tensor, Tensor, Tensor]:
        """Full-image calibration, camera rotation and centre in the world, image size (B, 2)."""
        space, count = self.space, len(joints)
        size = draw.choose(torch.tensor(SENSORS, dtype=torch.float32, device=draw.device), count)
        width, height = size.unbind(1)
        angle = draw.uniform(*space.view_angle_deg, count) * (torch.pi / 180)
        focal = width / 2 / torch.tan(angle / 2)
        cx, cy = width * draw.uniform(0.47, 0.53, count), height * draw.uniform(0.47, 0.53, count)
        full = StereoCalibration(focal, focal, cx, cx, cy, draw.uniform(*space.baseline_m, count))
        extent = (joints.amax(1) - joints.amin(1)).amax(1) + 0.15
        share = draw.log_uniform(*space.height_share, count)
        distance = (focal * extent / (height * share)).clamp(0.9, 8.0)
        bearing = draw.uniform(-torch.pi, torch.pi, count)
        pitch = (draw.normal(count) * 10 + 5).clamp(-20, 45) * (torch.pi / 180)
        target = (joints.amax(1) + joints.amin(1)) / 2
        away = torch.stack(
            [pitch.cos() * bearing.sin(), pitch.sin(), pitch.cos() * bearing.cos()], 1
        )
        centre = target + away * distance[:, None]
        centre[:, 1] = centre[:, 1].clamp(0.2, 4.0)
        forward = torch.nn.functional.normalize(target - centre, dim=1)
        right = torch.nn.functional.normalize(
            torch.linalg.cross(forward, forward.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)),
            dim=1,
        )
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], 1)
        # aim aside, so that the person stands anywhere in the image
        room_x = ((width / 2 - 0.3 * extent * focal / distance).clamp_min(0) / focal).atan()
        room_y = ((height / 2 - 0.35 * extent * focal / distance).clamp_min(0) / focal).atan()
        aside = rotations.about_y(draw.uniform(-0.8, 0.8, count) * room_x)
        aside = aside @ rotations.about_x(draw.uniform(-0.5, 0.5, count) * room_y)
        aside = aside @ rotations.about_z(draw.normal(count) * 0.05)
        return full, aside @ rotation, centre, size

    def _crop(
        self, full: StereoCalibration, xyz: Tensor, size: Tensor, draw: Draw
    ) -> tuple[StereoCalibration, Tensor, Tensor]:
        """Calibration of the crops, their origin (B, 3: left x, right x, y) and side in pixels."""
        space = self.space
        uvd = project(xyz, full)
        u, v = uvd[..., 0], uvd[..., 1]
        # half of the boxes know only what the image shows, as a detector's do
        low, high = torch.stack([u.amin(1), v.amin(1)], 1), torch.stack([u.amax(1), v.amax(1)], 1)
        seen_low, seen_high = low.clamp_min(0), torch.minimum(high, size)
        enough = ((seen_high - seen_low) > 0.4 * (high - low)).all(1)
        clip = (draw.chance(0.5, len(u)) & enough)[:, None]
        low, high = torch.where(clip, seen_low, low), torch.where(clip, seen_high, high)
        longest = (high - low).amax(1)
        inner = space.crop_size - 2 * space.margin
        side = longest * draw.uniform(1.1, 1.5, len(u)) * (space.crop_size / inner)
        middle = (low + high) / 2 + 0.03 * side[:, None] * draw.normal(len(u), 2)
        disparity = uvd[..., 2].median(1).values + draw.uniform(-0.015, 0.015, len(u)) * side
        x0, y0 = middle[:, 0] - side / 2, middle[:, 1] - side / 2
        origin = torch.stack([x0, x0 - disparity, y0], 1)
        calibration = full.crop(x0, x0 - disparity, y0).resize(space.crop_size / side)
        return calibration, origin, side

    def _inside(self, origin: Tensor, scale: Tensor, size: Tensor) -> Tensor:
        """Crop pixels (2B, S, S) that lie on the sensor."""
        step = torch.arange(self.space.crop_size, device=origin.device) + 0.5
        step = step / torch.cat([scale, scale])[:, None] - 0.5
        x = torch.cat([origin[:, 0], origin[:, 1]])[:, None] + step
        y = origin[:, 2].repeat(2)[:, None] + step
        limit = size.repeat(2, 1) - 0.5
        in_x, in_y = (x >= -0.5) & (x < limit[:, :1]), (y >= -0.5) & (y < limit[:, 1:])
        return in_y[:, :, None] & in_x[:, None]

    def _outside(self, uv: Tensor, inside: Tensor) -> Tensor:
        """Joints (B, 17) off the crop or off the sensor (inside: B, S, S)."""
        size = self.space.crop_size
        pixel = uv.round().long()
        u, v = pixel.clamp(0, size - 1).unbind(-1)
        image = torch.arange(len(uv), device=uv.device)[:, None]
        return (pixel < 0).any(-1) | (pixel >= size).any(-1) | ~inside[image, v, u]


def visibility(
    uv: Tensor, depth_m: Tensor, outside: Tensor, picture_depth_m: Tensor, owned: Tensor
) -> Tensor:
    """Visibility codes (B, 17) from what the depth buffer shows at each joint's pixel.

    uv (B, 17, 2) and depth_m (B, 17) of the joints; picture_depth_m (B, H, W) and owned (B, H, W),
    where the pixel shows the person itself. A joint lies inside the body, so the surface before it
    may be nearer by the thickness of flesh.
    """
    height, width = picture_depth_m.shape[1:]
    u = uv[..., 0].round().long().clamp(0, width - 1)
    v = uv[..., 1].round().long().clamp(0, height - 1)
    image = torch.arange(len(uv), device=uv.device)[:, None]
    surface, own = picture_depth_m[image, v, u], owned[image, v, u]
    flesh = torch.tensor(
        [FLESH_M.get(name, 0.11) for name in H36M_17.joint_names], device=uv.device
    )
    behind_self = torch.where(surface < depth_m - flesh, SELF_OCCLUDED, VISIBLE)
    behind_other = torch.where(surface < depth_m, OCCLUDED, VISIBLE)
    return torch.where(outside, OUTSIDE, torch.where(own, behind_self, behind_other))
