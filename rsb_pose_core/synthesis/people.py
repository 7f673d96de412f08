"""Dressed, posed people: vertices, normals, joints and looks of every person in a batch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.body import Body, transform
from rsb_pose_core.synthesis.clothing import MATERIALS, Outfit, Tailor
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.motion import retarget, with_arms
from rsb_pose_core.synthesis.textures import TextureBank

SKIN_TONES = ((0.80, 0.56, 0.45), (0.70, 0.44, 0.32), (0.52, 0.30, 0.19), (0.33, 0.17, 0.095),
              (0.16, 0.075, 0.042), (0.07, 0.034, 0.022))  # fmt: skip
HAIR_TONES = ((0.012, 0.010, 0.009), (0.03, 0.018, 0.011), (0.012, 0.010, 0.009),
              (0.09, 0.045, 0.02), (0.25, 0.14, 0.06), (0.45, 0.33, 0.17), (0.20, 0.07, 0.03),
              (0.35, 0.35, 0.35))  # fmt: skip
CLOTH_TONES = ((0.012, 0.012, 0.013), (0.03, 0.03, 0.033), (0.09, 0.09, 0.095), (0.3, 0.3, 0.3),
               (0.72, 0.72, 0.7), (0.5, 0.47, 0.4), (0.02, 0.03, 0.07), (0.03, 0.06, 0.17),
               (0.10, 0.16, 0.28), (0.22, 0.13, 0.07), (0.36, 0.28, 0.18), (0.07, 0.08, 0.04),
               (0.25, 0.03, 0.03), (0.10, 0.02, 0.03), (0.03, 0.09, 0.06))  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Colours of B people; linear light."""

    tone: Tensor  # B M 3, plain colour of each material
    texture: Tensor  # B M, number in the bank
    textured: Tensor  # B M, bool
    tiles_per_m: Tensor  # B M
    gloss: Tensor  # B M


@dataclass(frozen=True)
class People:
    """B people in the world frame: y up, floor at y = 0, metres."""

    vertices: Tensor  # B V 3
    normals: Tensor  # B V 3
    joints: Tensor  # B 17 3
    outfit: Outfit
    look: Look

    def moved(self, shift: Tensor) -> 'People':
        """Shifted by (B, 3)."""
        return People(
            self.vertices + shift[:, None], self.normals, self.joints + shift[:, None],
            self.outfit, self.look,
        )  # fmt: skip

    def __getitem__(self, part: slice) -> 'People':
        """Some of the people."""
        return People(
            self.vertices[part], self.normals[part], self.joints[part],
            Outfit(*(value[part] for value in vars(self.outfit).values())),
            Look(*(value[part] for value in vars(self.look).values())),
        )  # fmt: skip


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals (B, V, 3)."""
    a, b, c = (vertices[:, faces[:, i]] for i in range(3))
    face_normal = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for i in range(3):
        total.index_add_(1, faces[:, i], face_normal)
    return torch.nn.functional.normalize(total, dim=-1)


def sample_poses(poses_m: np.ndarray, count: int, draw: Draw) -> Tensor:
    """Poses (count, 17, 3) from a motion library (N, 17, 3), varied.

    A third take their arms from another frame, most are jittered a little; right and left are
    swapped in half.
    """
    index = draw.integer(len(poses_m), count).tolist()
    other = draw.integer(len(poses_m), count).tolist()
    pose = torch.as_tensor(poses_m[index], dtype=torch.float32, device=draw.device)
    donor = torch.as_tensor(poses_m[other], dtype=torch.float32, device=draw.device)

    swap = draw.chance(0.35, count)[:, None, None]
    mixed = torch.where(swap, with_arms(pose, donor), pose)
    mixed = mixed + 0.025 * draw.uniform(0.0, 1.0, count, 1, 1) * draw.normal(count, 17, 3)
    mirrored = mixed[:, list(H36M_17.mirror)] * mixed.new_tensor([-1.0, 1.0, 1.0])
    return torch.where(draw.chance(0.5, count)[:, None, None], mirrored, mixed)


class Casting:
    """Makes people: shape, clothes, colours, pose."""

    def __init__(self, body: Body, bank: TextureBank, shapes: slice = slice(None)) -> None:
        """`shapes`: which of the body's sample shapes may appear (train and test differ)."""
        self.body, self.bank = body, bank
        self.tailor = Tailor(body)
        self.shape_numbers = torch.arange(len(body.shapes), device=body.device)[shapes]

    def people(
        self, poses_m: Tensor, draw: Draw, *, turned: bool = True, one_person: bool = False
    ) -> People:
        """People in the given poses (B, 17, 3), each standing at the origin on the floor.

        turned: give each a random heading. one_person: all are the same person in the same
        clothes (the frames of a film).
        """
        count = len(poses_m)
        cast = 1 if one_person else count
        number = draw.choose(self.shape_numbers, cast)
        shape = self.body.shapes[number] + 0.15 * draw.normal(cast, self.body.shapes.shape[1])
        outfit = self.tailor.cut(cast, self.body.gender[number], draw)
        look = self._look(cast, draw)
        yaw = draw.uniform(-torch.pi, torch.pi, count) * turned
        if one_person:
            shape = shape.expand(count, -1)
            outfit = Outfit(
                *(value.expand(count, *value.shape[1:]) for value in vars(outfit).values())
            )
            look = Look(*(value.expand(count, *value.shape[1:]) for value in vars(look).values()))
        vertices, heads = self.body.rest(shape)
        dressed = vertices + outfit.offset_m[..., None] * vertex_normals(vertices, self.body.faces)
        rotation, root = retarget(self.body, heads, poses_m)
        if not one_person:
            rotation = self._posture(rotation, draw)
        posed = self.body.pose(vertices, heads, rotation, rotations.about_y(yaw) @ root)
        world = transform(posed.blend, dressed)
        feet = world[:, self.tailor.layer['shell'], 1].amin(1)
        pelvis = posed.joints_m[:, 6]
        shift = torch.stack([-pelvis[:, 0], -feet, -pelvis[:, 2]], 1)
        normals = vertex_normals(world, self.body.faces)
        return People(world, normals, posed.joints_m, outfit, look).moved(shift)

    def _posture(self, rotation: Tensor, draw: Draw) -> Tensor:
        """Turn the head and curl the fingers, which 17 joints do not tell."""
        rotation = rotation.clone()
        count = len(rotation)
        yaw, pitch = 0.45 * draw.normal(count), 0.2 * draw.normal(count)
        turn = rotations.about_x(pitch / 3) @ rotations.about_y(yaw.clamp(-1, 1) / 3)
        for name in ('neck02', 'neck03', 'head'):
            rotation[:, self.body.bone_index[name]] = turn
        curl = draw.uniform(0.0, 1.0, count) ** 1.5 * 1.2
        for side, sign in (('L', -1.0), ('R', 1.0)):
            bend = rotations.about_z(sign * curl)
            for finger in range(2, 6):
                for joint in range(1, 4):
                    name = f'finger{finger}-{joint}.{side}'
                    if name in self.body.bone_index:
                        rotation[:, self.body.bone_index[name]] = bend
        for side in ('L', 'R'):
            point = rotations.about_x(0.15 + 0.25 * draw.normal(count).clamp(-1.5, 1.5))
            rotation[:, self.body.bone_index[f'foot.{side}']] = point
        return rotation

    def _look(self, count: int, draw: Draw) -> Look:
        materials = len(MATERIALS)
        device = self.body.device

        def tones(options: tuple[tuple[float, ...], ...]) -> Tensor:
            return draw.choose(torch.tensor(options, device=device), count)

        strong = draw.uniform(0.0, 1.0, count, materials, 1) ** 1.2 * (
            1
            - draw.uniform(0.0, 1.0, count, materials, 3)
            * draw.uniform(0.0, 1.0, count, materials, 1)
        )
        dull = draw.choose(torch.tensor(CLOTH_TONES, device=device), count, materials)
        tone = torch.where(draw.chance(0.6, count, materials, 1), dull, strong)
        tone = tone * draw.uniform(0.7, 1.3, count, materials, 1)
        skin, hair = MATERIALS.index('skin'), MATERIALS.index('hair')
        tone[:, skin] = tones(SKIN_TONES) * draw.uniform(0.8, 1.15, count, 1)
        tone[:, hair] = tones(HAIR_TONES) * draw.uniform(0.6, 1.4, count, 1)
        tone[:, MATERIALS.index('eyes')] = torch.tensor([0.4, 0.38, 0.36], device=device)
        textured = draw.chance(0.6, count, materials)
        textured[:, [skin, hair, MATERIALS.index('eyes')]] = False
        gloss = draw.uniform(0.0, 0.04, count, materials)
        gloss[:, [skin, hair]] = draw.uniform(0.04, 0.12, count, 1)
        return Look(
            tone.clamp(0.004, 0.9),
            draw.integer(self.bank.cloths, count, materials),
            textured,
            1 / draw.log_uniform(0.15, 0.9, count, materials),
            gloss,
        )
