"""Stereo pairs of rendered people with exact labels: scenes put together, drawn and measured."""

import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.skeleton import COCO_17, H36M_17, Skeleton
from rsb_pose_core.synthesis import props, world
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.cameras import CameraSpace, StereoShots, sample_shots
from rsb_pose_core.synthesis.clips import Clip, read_motion
from rsb_pose_core.synthesis.crops import Crops, squares_round, whole_images
from rsb_pose_core.synthesis.crowd import place_others
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.labels import (
    GROWN_M,
    PERSON_SLOTS,
    JointLabels,
    PersonLabels,
    SeenJoints,
    Sight,
    boxes_of,
    joint_labels,
    person_slots,
)
from rsb_pose_core.synthesis.lens import LensResidual, LensSpace, sample_lenses
from rsb_pose_core.synthesis.levels import LEVELS, Levels
from rsb_pose_core.synthesis.lighting import LightBank
from rsb_pose_core.synthesis.mesh import Mesh, Surfaces, join
from rsb_pose_core.synthesis.occluders import occluders
from rsb_pose_core.synthesis.people import Casting, People
from rsb_pose_core.synthesis.poses import Mixture, PosePool
from rsb_pose_core.synthesis.postures import HANG
from rsb_pose_core.synthesis.projector import projector_dots
from rsb_pose_core.synthesis.render import Pictures, Renderer
from rsb_pose_core.synthesis.rolling import RollingRows
from rsb_pose_core.synthesis.sensor import Shutter, expose
from rsb_pose_core.synthesis.textures import TextureBank, read_pictures
from rsb_pose_core.synthesis.timing import stage
from rsb_pose_core.synthesis.view import View
from rsb_pose_core.synthesis.wardrobe import Wardrobe

# folders of a data folder
MOTION = ('motion', 'wardrobe')  # MakeHuman's poses lie beside its wardrobe
PHOTOGRAPHS = ('hdri', 'pictures')


@dataclass(frozen=True)
class PairSpace:
    """From what pairs are drawn."""

    crop_size: int = 288  # px, of the square pictures; 0: the whole images of a rig of one mode
    margin: int = 16  # of crop_size: room for shifts in training
    others: tuple[float, ...] = (0.5, 0.25, 0.12, 0.08, 0.05)  # chances of 0, 1.. other people
    occluders: float = 0.7  # share of scenes with things before the subject
    carrying: float = 0.25  # share of people who hold or carry something
    outdoors: float = 0.3
    cameras: CameraSpace = field(default_factory=CameraSpace)
    poses: Mixture = field(default_factory=Mixture)
    sensor: Levels = LEVELS['train']
    smear: bool = True  # what moves is smeared by the exposure
    smooth: bool = True  # edges are sampled more finely than pixels
    lenses: LensSpace | None = None  # pictures were bent by lenses and unbent, not quite right
    rolling: bool = False  # rows of rolling shutters are exposed one after the other


@dataclass(frozen=True)
class StereoPairs:
    """B pairs of pictures of H x W pixels and what is true about them."""

    left: np.ndarray  # B H W 3 uint8 RGB
    right: np.ndarray
    labels: PersonLabels
    calibration: StereoCalibration  # of the pictures
    person_mask_left: Tensor  # B H W uint8, slot of the person + 1, 0: nobody
    person_mask_right: Tensor
    depth_m_left: Tensor  # B H W, optical depth, inf: sky
    disparity_left: Tensor  # B H W, u_left - u_right in px of the pictures

    @property
    def subject(self) -> JointLabels:
        """H36M-17 labels of the subjects, B 17: the one person each pair is about."""
        return JointLabels(*(value[:, 0] for value in vars(self.labels.h36m).values()))


@dataclass(frozen=True)
class Staged:
    """B scenes ready to be drawn, seen by B heads."""

    mesh: Mesh
    surfaces: Surfaces
    world: world.World
    people: People
    slot: Tensor  # P, of each person in its scene
    spheres: Tensor  # B K 4, that fill the people
    shots: StereoShots
    crops: Crops
    view: View  # 2B, left then right
    lenses: LensResidual | None  # of the pictures
    rows: RollingRows | None  # of the pictures


class PairRenderer:
    """Renders pairs: batch number i of a seed is the same whatever was rendered before."""

    def __init__(
        self, casting: Casting, pool: PosePool, lights: LightBank, bank: TextureBank,
        space: PairSpace | None = None,
    ) -> None:  # fmt: skip
        self.casting, self.pool, self.lights, self.bank = casting, pool, lights, bank
        self.space = space or PairSpace()
        self.renderer = Renderer(bank, lights)

    @torch.no_grad()
    def batch(self, count: int, seed: int, number: int) -> StereoPairs:
        """`count` pairs; different numbers of one seed are independent."""
        draw = self.draw(seed, number)
        staged = self.stage(count, draw)
        image_scene = torch.arange(count, device=draw.device).repeat(2)
        pictures = self.renderer.render(
            staged.mesh, staged.surfaces, staged.world.room, staged.world.light, staged.view,
            image_scene, staged.spheres, smooth=self.space.smooth, velocity=self.space.smear,
            readout_s=staged.rows.readout_s if staged.rows else None,
        )  # fmt: skip
        with stage('sensor'):
            taken = self._expose(staged, pictures, draw)
        with stage('labels'):
            return self._labelled(staged, pictures, taken)

    def draw(self, seed: int, number: int) -> Draw:
        """What batch `number` of a seed draws from."""
        return Draw(seed * 1_000_003 + number, self.casting.body.device)

    def stage(self, count: int, draw: Draw) -> Staged:
        """Scenes, people, cameras; the same draws whatever is drawn of them later."""
        space, device = self.space, draw.device
        chances = torch.tensor(space.others, device=device).cumsum(0)
        company = torch.searchsorted(chances / chances[-1], draw.uniform(0.0, 1.0, count))
        others = torch.arange(count, device=device).repeat_interleave(company)
        scene = torch.cat([torch.arange(count, device=device), others])
        slot = person_slots(scene, count)
        with stage('poses'):
            cast = self.casting.cast(len(scene), draw)
            poses = self.pool.sample(len(scene), draw, cast.heads_m, self.casting.body)
        with stage('people'):
            people = self.casting.pose(cast, poses, scene)
            shots = sample_shots(count, draw, space.cameras, people.joints_m[:count])
            shift = place_others(people.spheres, scene, slot, shots.centre_m, draw)
            people = people.moved(shift, torch.zeros_like(shift[:, 0]))
        with stage('world'):
            heads = torch.stack([shots.centre_m, shots.right_m], 1)
            around = world.sample(
                count, self.bank, self.lights, draw, heads, people.joints_m, scene,
                people.spheres, outdoors=space.outdoors,
            )  # fmt: skip
            carried = props.props(
                self.bank, draw, joints_m=people.joints_m, scene=scene, spheres=people.spheres,
                seat_m=people.seat_m, hands_m=people.hands_m, back_m=people.back_m,
                hanging=people.support == HANG, velocity_m_s=people.joint_velocity_m_s,
                share=space.carrying,
            )  # fmt: skip
            hiding = occluders(
                self.bank, draw, around.room, shots.centre_m, people.joints_m, scene,
                people.spheres, share=space.occluders,
            )  # fmt: skip
            mesh, surfaces = join(
                [(people.mesh, people.surfaces), (around.mesh, around.surfaces), carried, hiding]
            )
        crops = self._crops(shots, people, count, draw)
        view = shots.view(crops.calibration, crops.height, crops.width)
        spheres = torch.zeros(count, PERSON_SLOTS, *people.spheres.shape[1:], device=device)
        spheres[scene, slot] = people.spheres
        lens = rows = None
        if space.lenses is not None:
            lens = sample_lenses(draw, space.lenses, shots.calibration.fx, shots.size)
        if space.rolling:
            readout = shots.readout_of_crops_s(crops.scale, crops.height)
            rows = RollingRows.of_pictures(readout, crops.height)
        return Staged(
            mesh, surfaces, around, people, slot, spheres.flatten(1, 2), shots, crops, view, lens,
            rows,
        )  # fmt: skip

    def _crops(self, shots: StereoShots, people: People, count: int, draw: Draw) -> Crops:
        space = self.space
        if space.crop_size == 0:
            (mode,) = space.cameras.rigs[0].modes
            return whole_images(shots.calibration, shots.size, mode.height, mode.width)
        number = torch.arange(count, device=draw.device)
        subject = shots.rectified(people.joints_m[:count], number)
        return squares_round(
            subject, shots.calibration, shots.size, space.crop_size, space.margin, draw
        )

    def _expose(self, staged: Staged, pictures: Pictures, draw: Draw) -> np.ndarray:
        """Pictures (2B, H, W, 3) as the cameras deliver them."""
        shots, crops = staged.shots, staged.crops
        smear = None
        if pictures.velocity_px_s is not None:
            flow = shots.flow(staged.view, pictures.depth_m) + pictures.velocity_px_s
            smear = flow * shots.exposure_s.repeat(2)[:, None, None, None]
        light, inside = pictures.linear, crops.inside()
        dots = projector_dots(shots, staged.view, pictures.depth_m)
        if staged.lenses is not None:
            maps = [light, dots[..., None]] + ([smear] if smear is not None else [])
            raw, inside = staged.lenses.raw_pictures(
                torch.cat(maps, 3).permute(0, 3, 1, 2), staged.view
            )
            light, dots = raw[:, :3].permute(0, 2, 3, 1), raw[:, 3]
            smear = raw[:, 4:].permute(0, 2, 3, 1) if smear is not None else None
        shutter = Shutter(
            staged.view, crops.scale.repeat(2), shots.mono.repeat(2), inside, dots, smear
        )
        taken = expose(light, shutter, draw, self.space.sensor)
        if staged.lenses is not None:
            planes = staged.lenses.rectified(taken.permute(0, 3, 1, 2).float(), staged.view)
            planes = planes.round_().clamp_(0, 255) * crops.inside()[:, None]
            taken = planes.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return taken.cpu().numpy()

    def _labelled(self, staged: Staged, pictures: Pictures, taken: np.ndarray) -> StereoPairs:
        people, crops, count = staged.people, staged.crops, len(staged.shots)
        slots = torch.cat([staged.slot + 1, staged.slot.new_zeros(1)]).to(torch.uint8)
        mask = slots[pictures.owner]  # nobody is -1: the last entry
        box = boxes_of(pictures.owner, len(people.scene))
        boxes = torch.full((2 * count, PERSON_SLOTS, 4), torch.nan, device=box.device)
        for side in range(2):
            image = people.scene + side * count
            number = torch.arange(len(image), device=image.device)
            boxes[image, staged.slot] = box[image, number]
        present = torch.zeros(count, PERSON_SLOTS, dtype=torch.bool, device=box.device)
        present[people.scene, staged.slot] = True
        labels = PersonLabels(
            self._joints(staged, pictures, people.joints_m, people.joint_velocity_m_s, H36M_17),
            self._joints(staged, pictures, people.coco_m, people.coco_velocity_m_s, COCO_17),
            boxes[:count], boxes[count:], present,
        )  # fmt: skip
        c, depth = crops.calibration, pictures.depth_m[:count]
        disparity = (c.fx * c.baseline_m)[:, None, None] / depth
        disparity = disparity + (c.cx_left - c.cx_right)[:, None, None]
        return StereoPairs(
            taken[:count], taken[count:], labels, c, mask[:count], mask[count:], depth, disparity
        )

    def _joints(
        self, staged: Staged, pictures: Pictures, joints_m: Tensor, velocity_m_s: Tensor,
        skeleton: Skeleton,
    ) -> JointLabels:  # fmt: skip
        view, scene, count = staged.view, staged.people.scene, len(staged.shots)
        drawn, depth, shown = [], [], []
        for side in range(2):
            image = scene + side * count
            points = view.camera(joints_m, image)
            if staged.rows is not None:
                motion = velocity_m_s @ view.rotation[image].mT
                points = staged.rows.moved(points, motion, view, image)
            drawn.append(view.project(points, image))
            depth.append(points[..., 2])
            lenses = staged.lenses
            shown.append(
                drawn[-1] if lenses is None else lenses[image].shown(drawn[-1], view[image])
            )
        joints = SeenJoints(
            staged.shots.rectified(joints_m, scene), torch.stack(drawn), torch.stack(depth),
            torch.stack(shown),
        )  # fmt: skip
        sight = Sight(pictures.depth_m, pictures.owner, staged.crops.inside())
        scale = staged.people.height_m / GROWN_M
        return joint_labels(joints, skeleton, scale, sight, scene, staged.slot)


@functools.lru_cache(maxsize=1)
def _motion(data: Path) -> list[Clip]:
    """Seconds to read, and the same for every renderer that a process makes."""
    return read_motion(*(data / name for name in MOTION))


@functools.lru_cache(maxsize=2)
def _lights(data: Path, split: str, device: str) -> LightBank:
    maps = data / 'hdri'
    return LightBank(maps if maps.is_dir() else None, split, device)


def make_renderer(
    data: Path, split: str, seed: int, space: PairSpace, device: str = 'cpu'
) -> PairRenderer:
    """A renderer of what one split may show, with the textures of one seed.

    data: a folder with motion/ and, where they are there, wardrobe/ (for its .bvh poses), hdri/
    (environment maps, which serve as photographs on walls too) and pictures/ (more photographs).
    Raises RsbPoseError where there is no motion.
    """
    clips, lights = _motion(data), _lights(data, split, device)
    body = Body(device=device)
    wardrobe = Wardrobe(body)
    folders = [folder for name in PHOTOGRAPHS if (folder := data / name).is_dir()]
    photographs = [
        picture for folder in folders for picture in read_pictures(folder, split, seed=seed)
    ]
    bank = TextureBank(seed, pictures=photographs, named=wardrobe.pictures(), device=device)
    casting = Casting(body, wardrobe, bank, split)
    pool = PosePool(clips, split, mixture=space.poses, device=device)
    return PairRenderer(casting, pool, lights, bank, space)
