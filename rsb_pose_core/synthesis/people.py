"""Dressed, posed people: who plays, what they wear, and where their joints and hands are."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import accumulate

import torch
from torch import Tensor

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.appearance import Bank, Stylist
from rsb_pose_core.synthesis.body import Body, PosedBones
from rsb_pose_core.synthesis.clothing import MATERIALS
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.layers import Layer
from rsb_pose_core.synthesis.mesh import Mesh, Surfaces
from rsb_pose_core.synthesis.outfits import Outfitter
from rsb_pose_core.synthesis.poses import DT_S, SIT, BodyPoses
from rsb_pose_core.synthesis.splits import names_of
from rsb_pose_core.synthesis.volumes import Capsules, Volumes
from rsb_pose_core.synthesis.wardrobe import Wardrobe

SHAPE_JITTER = 0.15  # standard deviations


@dataclass(frozen=True)
class Cast:
    """P people at rest, dressed: all that does not change with the pose."""

    rest_m: Tensor  # P 19158 3
    heads_m: Tensor  # P N 3, rest bone heads
    female: Tensor  # P bool
    age: Tensor  # P, years
    layers: tuple[Layer, ...]
    surfaces: Surfaces  # P * M rows
    radius_m: Tensor  # P C, of volumes.Volumes

    def __len__(self) -> int:
        return len(self.heads_m)

    def repeated(self, count: int) -> 'Cast':
        """`count` times the one person: the frames of a film."""

        def rows(value: Tensor) -> Tensor:
            return value.expand(count, *value.shape[1:])

        table = Surfaces(
            *(
                getattr(self.surfaces, field.name).repeat(
                    count, *[1] * (getattr(self.surfaces, field.name).dim() - 1)
                )
                for field in fields(Surfaces)
            )
        )
        owner = torch.arange(count, device=self.rest_m.device).repeat_interleave(len(MATERIALS))
        return Cast(
            rows(self.rest_m), rows(self.heads_m), rows(self.female), rows(self.age),
            tuple(layer.repeated(count, len(MATERIALS)) for layer in self.layers),
            replace(table, owner=owner), rows(self.radius_m),
        )  # fmt: skip


@dataclass(frozen=True)
class People:
    """P people in the world frame: y up, floor at y = 0, metres.

    Frames are rigid maps (4, 4) from the part to the world. Palms: y along the fingers, z out of
    the palm, x = y cross z (to the little finger on the left, to the thumb on the right), origin
    on the skin of the palm's middle. Back: x left, y up, z
    forward, origin on the skin between the shoulder blades.
    """

    mesh: Mesh
    surfaces: Surfaces  # owner: number of the person
    vertex_person: Tensor  # V
    joints_m: Tensor  # P 17 3, H36M_17
    coco_m: Tensor  # P 17 3, COCO_17
    joint_velocity_m_s: Tensor  # P 17 3
    coco_velocity_m_s: Tensor  # P 17 3
    root_m: Tensor  # P 3, about which moved() turns
    scene: Tensor  # P
    support: Tensor  # P, poses.STAND...
    seat_m: Tensor  # P 3, the lowest of the buttocks; NaN for who does not sit
    hands_m: Tensor  # P 2 4 4, left and right
    back_m: Tensor  # P 4 4
    capsules: Capsules  # P C, see volumes.py
    spheres: Tensor  # P K 4, centre and radius
    height_m: Tensor  # P, of the body at rest

    def __len__(self) -> int:
        return len(self.joints_m)

    def moved(self, shift_m: Tensor, yaw: Tensor) -> 'People':
        """Turned by yaw (P,) about y about their own roots, then shifted by (P, 3)."""
        turn = rotations.about_y(yaw)

        def directions(values: Tensor, person: Tensor | None = None) -> Tensor:
            matrix = turn if person is None else turn[person]
            return (matrix.view(len(values), *[1] * (values.dim() - 2), 3, 3) @ values[..., None])[
                ..., 0
            ]

        def points(values: Tensor, person: Tensor | None = None) -> Tensor:
            root, shift = (
                (x if person is None else x[person]).view(
                    len(values), *[1] * (values.dim() - 2), 3
                )
                for x in (self.root_m * self.root_m.new_tensor([1.0, 0.0, 1.0]), shift_m)
            )
            return directions(values - root, person) + root + shift

        def frames(values: Tensor) -> Tensor:
            matrix = turn.view(len(values), *[1] * (values.dim() - 3), 3, 3)
            moved = values.clone()
            moved[..., :3, :3] = matrix @ values[..., :3, :3]
            moved[..., :3, 3] = points(values[..., :3, 3])
            return moved

        person = self.vertex_person
        mesh = replace(
            self.mesh,
            vertices_m=points(self.mesh.vertices_m, person),
            normals=directions(self.mesh.normals, person),
            velocity_m_s=directions(self.mesh.velocity_m_s, person),
        )
        return replace(
            self,
            mesh=mesh,
            joints_m=points(self.joints_m),
            coco_m=points(self.coco_m),
            joint_velocity_m_s=directions(self.joint_velocity_m_s),
            coco_velocity_m_s=directions(self.coco_velocity_m_s),
            root_m=points(self.root_m),
            seat_m=points(self.seat_m),
            hands_m=frames(self.hands_m),
            back_m=frames(self.back_m),
            capsules=Capsules(
                points(self.capsules.start_m), points(self.capsules.end_m), self.capsules.radius_m
            ),
            spheres=torch.cat([points(self.spheres[..., :3]), self.spheres[..., 3:]], -1),
        )


class Casting:
    """Makes people: shape, clothes, colours; and poses them."""

    def __init__(self, body: Body, wardrobe: Wardrobe, bank: Bank, split: str = 'train') -> None:
        """split: whose shapes, garments, hair and skins may appear ('train', 'val', 'test')."""
        self.body, self.volumes = body, Volumes(body)
        numbers = names_of(split, [str(i) for i in range(len(body.shapes))])
        self.shape_numbers = torch.tensor(sorted(map(int, numbers)), device=body.device)
        self.outfitter = Outfitter(body, wardrobe, bank, split)
        self.stylist = Stylist(wardrobe, bank, names_of(split, wardrobe.skins))
        self._marks = _Marks(body)

    def cast(self, count: int, draw: Draw) -> Cast:
        """`count` new people."""
        body = self.body
        number = draw.choose(self.shape_numbers, count)
        shape = body.shapes[number] + SHAPE_JITTER * draw.normal(count, body.shapes.shape[1])
        rest, heads = body.rest(shape)
        female, age = body.gender[number] > 0.5, body.age[number]
        choice = self.outfitter.choose(female, age, draw)
        look = self.stylist.look(
            female, age, body.ancestry[number], self.outfitter.worn(choice), draw
        )
        layers = self.outfitter.dress(choice, rest, look, draw)
        radius = self.volumes.radii(rest, heads)
        return Cast(rest, heads, female, age, tuple(layers), look.surfaces, radius)

    def pose(self, cast: Cast, poses: BodyPoses, scene: Tensor) -> People:
        """The cast in their poses, each at the origin with the lowest vertex on the floor."""
        body = self.body
        now = body.pose(cast.heads_m, poses.rotation, poses.root_rotation)
        later = body.pose(cast.heads_m, poses.later_rotation, poses.later_root_rotation)
        travel = poses.root_shift_m / DT_S
        rate = (later.affine - now.affine) / DT_S
        rate = torch.cat([rate[..., :3], rate[..., 3:] + travel[:, None, :, None]], -1)
        moving = PosedBones(now.rotation, now.head_m, rate)
        joints, coco = body.joints(now, cast.rest_m), body.coco(now, cast.rest_m)
        speed = (body.joints(later, cast.rest_m) - joints) / DT_S + travel[:, None]
        coco_speed = (body.coco(later, cast.rest_m) - coco) / DT_S + travel[:, None]
        parts = [layer.posed(now, moving) for layer in cast.layers]
        vertices, normals, velocity, person = (
            torch.cat([getattr(part, name) for part in parts])
            for name in ('vertices_m', 'normals', 'velocity_m_s', 'person')
        )
        lowest = torch.full_like(joints[:, 0, 0], torch.inf)
        lowest = lowest.scatter_reduce(0, person, vertices[:, 1], 'amin')
        pelvis = joints[:, H36M_17.index('pelvis')]
        shift = torch.stack([-pelvis[:, 0], -lowest, -pelvis[:, 2]], 1)
        start = [0, *accumulate(len(layer.kept) for layer in cast.layers)]
        mesh = Mesh(
            vertices + shift[person], normals,
            torch.cat([layer.uv.flatten(0, 1)[layer.kept] for layer in cast.layers]),
            torch.cat([layer.opacity.flatten()[layer.kept] for layer in cast.layers]),
            velocity, scene[person],
            torch.cat([part.faces + s for part, s in zip(cast.layers, start[:-1], strict=True)]),
            torch.cat([layer.surface for layer in cast.layers]),
        )  # fmt: skip
        capsules = self.volumes.capsules(now, cast.rest_m, cast.heads_m, cast.radius_m)
        capsules = Capsules(
            capsules.start_m + shift[:, None], capsules.end_m + shift[:, None], capsules.radius_m
        )
        seat = self._marks.seat(now, cast.rest_m, pelvis) + shift
        sits = (poses.support == SIT)[:, None]
        return People(
            mesh, cast.surfaces, person, joints + shift[:, None], coco + shift[:, None], speed,
            coco_speed, pelvis + shift, scene, poses.support,
            torch.where(sits, seat, torch.nan),
            _shifted(self._marks.hands(now, cast.rest_m, cast.heads_m), shift[:, None]),
            _shifted(self._marks.back(now, cast.rest_m), shift),
            capsules, self.volumes.spheres(capsules),
            cast.rest_m[:, body.number, 1].amax(1) - cast.rest_m[:, body.number, 1].amin(1),
        )  # fmt: skip

    def people(
        self, poses: BodyPoses | Callable[[Tensor], BodyPoses], scene: Tensor, draw: Draw, *,
        one_person: bool = False,
    ) -> People:  # fmt: skip
        """People of the scenes (P,), in given poses or in those that a function of their rest
        bone heads (P, N, 3) gives. one_person: all are the same person in the same clothes."""
        count = len(scene)
        cast = self.cast(1, draw).repeated(count) if one_person else self.cast(count, draw)
        return self.pose(cast, poses(cast.heads_m) if callable(poses) else poses, scene)

    def self_penetration_m(self, people: People) -> Tensor:
        """How deep (P,) limbs reach into trunk, head or other limbs, see volumes.py."""
        return self.volumes.penetration_m(people.capsules)


def _shifted(frames: Tensor, shift: Tensor) -> Tensor:
    moved = frames.clone()
    moved[..., :3, 3] += shift
    return moved


class _Marks:
    """Frames of palms and back, the point that sits."""

    def __init__(self, body: Body) -> None:
        self.body = body
        points, heads = body.vertices[body.number], body.bone_heads
        hip = heads[body.bone_index['upperleg01.L']]
        level = heads[body.bone_index['spine02'], 1]
        rear = (points[:, 1] - level).abs() + points[:, 0].abs() + points[:, 2] * 0.5
        self.back_number = body.number[rear.argmin()]
        buttock = (points[:, 1] - hip[1] + 0.04).abs() < 0.09
        buttock &= (points[:, 2] < hip[2]) & (points[:, 0].abs() < 0.15)
        self.seat_numbers = torch.unique(body.number[buttock])
        self.frame, self.wrist, self.palm_number = [], [], []
        for side in 'LR':
            names = ('wrist', 'finger3-1', 'finger3-3', 'finger2-1', 'finger5-1')
            wrist, knuckle, tip, index, small = (
                heads[body.bone_index[f'{name}.{side}']] for name in names
            )
            along = torch.nn.functional.normalize(knuckle - wrist, dim=0)
            out = torch.linalg.cross(along, index - small)
            curl = tip - knuckle - ((tip - knuckle) @ along) * along
            out = torch.nn.functional.normalize(out * (out @ curl).sign(), dim=0)
            self.frame.append(torch.stack([torch.linalg.cross(along, out), along, out], 1))
            self.wrist.append(body.bone_index[f'wrist.{side}'])
            middle = (wrist + knuckle) / 2 + 0.015 * out
            self.palm_number.append(body.number[(points - middle).norm(dim=1).argmin()])

    def seat(self, posed: PosedBones, rest_m: Tensor, pelvis: Tensor) -> Tensor:
        """Below the pelvis at the height of the lowest of the buttocks (P, 3)."""
        buttocks = posed.skin(self.body.skin[self.seat_numbers], rest_m[:, self.seat_numbers])
        lowest = buttocks[..., 1].argmin(1)
        under = buttocks.gather(1, lowest[:, None, None].expand(-1, 1, 3))[:, 0]
        return torch.stack([pelvis[:, 0], under[:, 1], (pelvis[:, 2] + under[:, 2]) / 2], 1)

    def hands(self, posed: PosedBones, rest_m: Tensor, heads_m: Tensor) -> Tensor:
        """Frames (P, 2, 4, 4)."""
        numbers = torch.stack(self.palm_number)
        origin = posed.skin(self.body.skin[numbers], rest_m[:, numbers])
        turn = posed.rotation[:, self.wrist] @ torch.stack(self.frame)
        return _frames(turn, origin)

    def back(self, posed: PosedBones, rest_m: Tensor) -> Tensor:
        """Frames (P, 4, 4)."""
        number = self.back_number[None]
        origin = posed.skin(self.body.skin[number], rest_m[:, number])[:, 0]
        return _frames(posed.rotation[:, self.body.bone_index['spine02']], origin)


def _frames(rotation: Tensor, origin: Tensor) -> Tensor:
    frames = torch.zeros(*origin.shape[:-1], 4, 4, device=origin.device, dtype=origin.dtype)
    frames[..., :3, :3], frames[..., :3, 3], frames[..., 3, 3] = rotation, origin, 1.0
    return frames
