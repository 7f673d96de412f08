"""A parametric human body: shapes, skeleton and skin (CC0 MakeHuman data, see assets/README.md).

Frame of a body: y up, facing +z, x to the person's left, metres. The vertices are all 19,158 of
MakeHuman's base mesh hm08, of which only some are drawn; garments hang on all of them.
"""

import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations

ASSET = Path(__file__).parent / 'assets' / 'body.npz'

# joint of H36M-17 -> bone whose head it is; the rest are made from bones and vertices
JOINT_BONES = {
    'right_ankle': 'foot.R', 'right_knee': 'lowerleg01.R', 'right_hip': 'upperleg01.R',
    'left_hip': 'upperleg01.L', 'left_knee': 'lowerleg01.L', 'left_ankle': 'foot.L',
    'spine': 'spine03', 'neck': 'neck01',
    'right_wrist': 'wrist.R', 'right_elbow': 'lowerarm01.R', 'right_shoulder': 'upperarm01.R',
    'left_shoulder': 'upperarm01.L', 'left_elbow': 'lowerarm01.L', 'left_wrist': 'wrist.L',
}  # fmt: skip

# Pairs of bones in a line that share twist, against the candy wrapper of linear blending:
# (upper, lower, share of the upper's own twist that moves down, of the lower's that moves up)
TWISTS = (
    ('upperarm01', 'upperarm02', 0.5, 0.0), ('lowerarm01', 'lowerarm02', 0.5, 0.0),
    ('lowerarm02', 'wrist', 0.0, 0.6), ('upperleg01', 'upperleg02', 0.5, 0.0),
    ('lowerleg02', 'foot', 0.0, 0.5),
)  # fmt: skip


@dataclass(frozen=True)
class PosedBones:
    """Bones of B bodies in the world; the root's head is at the origin."""

    rotation: Tensor  # B N 3 3, world from rest
    head_m: Tensor  # B N 3
    affine: Tensor  # B N 3 4, rest point -> world

    def of(self, person: Tensor) -> 'PosedBones':
        """Some of the bodies (n,)."""
        return PosedBones(self.rotation[person], self.head_m[person], self.affine[person])

    def skin(self, weight: Tensor, rest_m: Tensor) -> Tensor:
        """Linear blend skinning of rest points (B, V, 3) with weights (V, N): (B, V, 3)."""
        blend = (weight @ self.affine.flatten(2)).unflatten(2, (3, 4))
        world: Tensor = (blend[..., :3] * rest_m[..., None, :]).sum(-1) + blend[..., 3]
        return world


class Body:
    """Shape, skeleton, surface and skin weights of the body, on one device.

    Of S sample people: shapes (S, K), gender (S,) 0 male .. 1 female, age (S,) years, ancestry
    (S, 3) shares of african, asian, caucasian features.
    Of the drawn surface (R vertices, doubled along texture seams): number (R,) in hm08, uv (R, 2)
    with v downward, faces (F, 3), face_eye (F,) bool.
    Helper surfaces of hm08, triangles of hm08 numbers: shell (all but head and hands, a finger's
    breadth off the skin), skirt, strands (long hair).
    """

    def __init__(self, path: Path = ASSET, device: str = 'cpu') -> None:
        """Raise RsbPoseError when the asset is missing or is no body."""
        values = read_asset(path, 'body', ('bones', 'vertex_basis', 'shell', 'coco_index'))

        def tensor(key: str, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(values[key].astype(np.float32), dtype=dtype, device=device)

        self.device = device
        self.bones = [str(name) for name in values['bones']]
        self.bone_index = {name: i for i, name in enumerate(self.bones)}
        self.parents = [int(parent) for parent in values['parents']]
        self.vertices, self.vertex_basis = tensor('vertices'), tensor('vertex_basis')
        self.bone_heads, self.bone_basis = tensor('bone_heads'), tensor('bone_basis')
        self.shapes, self.gender, self.age = tensor('shape'), tensor('gender'), tensor('age')
        self.ancestry = tensor('ancestry')
        index, weight = tensor('skin_index', torch.long), tensor('skin_weight')
        weights = torch.zeros(len(self.vertices), len(self.bones), device=device)
        self.skin = weights.scatter_add_(1, index, weight / weight.sum(1, keepdim=True))
        corners = np.concatenate(
            [values['faces'][..., None], values['face_uv']], 2, dtype=np.int64
        ).reshape(-1, 3)  # fmt: skip
        drawn, number = np.unique(corners, axis=0, return_inverse=True)
        self.number = torch.as_tensor(drawn[:, 0], device=device)
        self.uv = torch.as_tensor(drawn[:, 1:] / 65535, dtype=torch.float32, device=device)
        self.faces = torch.as_tensor(number.reshape(-1, 3), device=device)
        self.face_eye = tensor('face_eye', torch.bool)
        self.shell, self.skirt = tensor('shell', torch.long), tensor('skirt', torch.long)
        self.strands = tensor('strands', torch.long)
        self.coco_index, self.coco_weight = tensor('coco_index', torch.long), tensor('coco_weight')
        self.nose, self.head_top = int(values['nose']), int(values['head_top'])

    @cached_property
    def levels(self) -> list[tuple[list[int], list[int]]]:
        """Bones and their parents, level by level from the root."""
        depth = [0] * len(self.parents)
        for bone, parent in enumerate(self.parents):
            depth[bone] = 0 if parent < 0 else depth[parent] + 1
        return [
            (bones, [self.parents[bone] for bone in bones])
            for level in range(1, max(depth) + 1)
            if (bones := [i for i, d in enumerate(depth) if d == level])
        ]

    def bone_weight(self, *prefixes: str) -> Tensor:
        """Share of each vertex (V,) that follows the bones whose names begin so."""
        chosen = [name.startswith(prefixes) for name in self.bones]
        return self.skin[:, torch.tensor(chosen, device=self.device)].sum(1)

    def rest(self, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Rest vertices (B, V, 3) and bone heads (B, N, 3) of shapes (B, K)."""
        vertices = self.vertices + (shape @ self.vertex_basis.flatten(1)).unflatten(1, (-1, 3))
        heads = self.bone_heads + (shape @ self.bone_basis.flatten(1)).unflatten(1, (-1, 3))
        return vertices, heads

    def pose(self, heads: Tensor, rotation: Tensor, root_rotation: Tensor) -> PosedBones:
        """Pose skeletons whose rest heads are (B, N, 3).

        rotation (B, N, 3, 3) turns each bone relative to its parent, in axes that are parallel to
        the body frame at rest; root_rotation (B, 3, 3) turns the whole body about its root, which
        stays at the origin. Twist is shared between the bones of a limb (TWISTS); that moves
        skin, no joint.
        """
        offset = heads - heads[:, [max(parent, 0) for parent in self.parents]]
        rotation = self._with_shared_twist(rotation, offset)
        turn = torch.empty_like(rotation)
        head = torch.zeros_like(heads)
        turn[:, 0] = root_rotation @ rotation[:, 0]
        for bones, parents in self.levels:
            turn[:, bones] = turn[:, parents] @ rotation[:, bones]
            moved = (turn[:, parents] @ offset[:, bones, :, None])[..., 0]
            head[:, bones] = head[:, parents] + moved
        shift = head - (turn @ heads[..., None])[..., 0]
        return PosedBones(turn, head, torch.cat([turn, shift[..., None]], -1))

    def _with_shared_twist(self, rotation: Tensor, offset: Tensor) -> Tensor:
        rotation = rotation.clone()
        for upper_name, lower_name, down, up in TWISTS:
            upper = [self.bone_index[f'{upper_name}.{side}'] for side in 'LR']
            lower = [self.bone_index[f'{lower_name}.{side}'] for side in 'LR']
            axis = torch.nn.functional.normalize(offset[:, lower], dim=-1)
            angle = up * twist(rotation[:, lower], axis) - down * twist(rotation[:, upper], axis)
            rotation[:, upper] = rotation[:, upper] @ rotations.about_axis(axis, angle)
            rotation[:, lower] = rotations.about_axis(axis, -angle) @ rotation[:, lower]
        return rotation

    def joints(self, posed: PosedBones, rest_m: Tensor) -> Tensor:
        """Joints (B, 17, 3) of H36M_17 of bodies with rest vertices (B, V, 3).

        The regressor: hips, knees, ankles, shoulders, elbows and wrists are the heads of
        MakeHuman's bones (centres of rotation inside the body, as Human3.6M's marker-based
        skeleton has them); pelvis is the middle of the hips; spine is the head of spine03 (behind
        the navel); neck is the head of neck01 (between the collar bones, at C7); head is the
        topmost vertex of the skull and nose a vertex on the tip of the nose.
        """
        joints = rest_m.new_empty(len(rest_m), len(H36M_17), 3)
        for joint, bone in JOINT_BONES.items():
            joints[:, H36M_17.index(joint)] = posed.head_m[:, self.bone_index[bone]]
        hips = [H36M_17.index('left_hip'), H36M_17.index('right_hip')]
        joints[:, H36M_17.index('pelvis')] = joints[:, hips].mean(1)
        markers = [self.nose, self.head_top]
        ends = [H36M_17.index('nose'), H36M_17.index('head')]
        joints[:, ends] = posed.skin(self.skin[markers], rest_m[:, markers])
        return joints

    def coco(self, posed: PosedBones, rest_m: Tensor) -> Tensor:
        """Keypoints (B, 17, 3) of COCO_17 of bodies with rest vertices (B, V, 3).

        The regressor: each keypoint is a fixed weighted mean of the posed skin, from the `coco`
        keypoints of anny (the 64 heaviest of its weights): nose, eyes and ears lie on the face;
        shoulders, elbows, wrists, hips, knees and ankles lie inside, where COCO's annotators
        click; hips are nearer to each other and lower than H36M_17's.
        """
        weight = self.coco_weight[..., None]
        index = self.coco_index.flatten()
        points = posed.skin(self.skin[index], rest_m[:, index])
        keypoints: Tensor = (points.unflatten(1, self.coco_index.shape) * weight).sum(2)
        return keypoints


def twist(rotation: Tensor, axis: Tensor) -> Tensor:
    """Angle (...) of the part of rotations (..., 3, 3) about unit axes (..., 3).

    It fades to zero where the rotation nears half a turn about another axis: there a twist is
    not defined.
    """
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return 2 * torch.atan2((rotations.skew(rotation) * axis).sum(-1), (1 + trace).clamp_min(0.2))


def read_asset(path: Path, what: str, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of an npz; RsbPoseError where it cannot be read or lacks what is needed."""
    try:
        with np.load(path) as asset:
            values = {key: asset[key] for key in asset.files}
        missing = [key for key in needed if key not in values]
        if missing:
            raise KeyError(f'it has no {missing[0]}')
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RsbPoseError(
            f'cannot read the {what} asset {path} ({error}); expected the file that rsb-pose bake '
            'writes: reinstall rsb_pose_core or bake it again'
        ) from error
    return values
