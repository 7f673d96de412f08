"""A parametric human body: shapes, skeleton and skin (CC0 MakeHuman data, see assets/README.md).

Frame of a body: y up, facing +z, x to the person's left, metres.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17

ASSET = Path(__file__).parent / 'assets' / 'body.npz'

# joint of the skeleton -> bone whose head it is; the rest are made from bones and vertices
JOINT_BONES = {
    'right_ankle': 'foot.R', 'right_knee': 'lowerleg01.R', 'right_hip': 'upperleg01.R',
    'left_hip': 'upperleg01.L', 'left_knee': 'lowerleg01.L', 'left_ankle': 'foot.L',
    'spine': 'spine03', 'neck': 'neck01',
    'right_wrist': 'wrist.R', 'right_elbow': 'lowerarm01.R', 'right_shoulder': 'upperarm01.R',
    'left_shoulder': 'upperarm01.L', 'left_elbow': 'lowerarm01.L', 'left_wrist': 'wrist.L',
}  # fmt: skip


@dataclass(frozen=True)
class PosedBody:
    """Bodies in the world: bone rotations and heads, blend transforms, joints."""

    bone_rotation: Tensor  # B N 3 3, world from rest
    bone_head_m: Tensor  # B N 3
    blend: Tensor  # B V 3 4, rest vertex -> world
    joints_m: Tensor  # B 17 3


class Body:
    """Shape, skeleton and skin weights of the body, on one device."""

    def __init__(self, path: Path = ASSET, device: str = 'cpu') -> None:
        """Raise RsbPoseError when the asset is missing or is no body."""
        try:
            asset = np.load(path)
            values = {key: asset[key] for key in asset.files}
            self.bones = [str(name) for name in values['bones']]
        except (OSError, ValueError, KeyError) as error:
            raise RsbPoseError(
                f'cannot read the body asset {path} ({error}); reinstall rsb_pose_core'
            ) from error

        def tensor(key: str, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(values[key].astype(np.float32), dtype=dtype, device=device)

        self.device = device
        self.vertices, self.vertex_basis = tensor('vertices'), tensor('vertex_basis')
        self.bone_heads, self.bone_basis = tensor('bone_heads'), tensor('bone_basis')
        self.shapes, self.gender, self.age = tensor('shape'), tensor('gender'), tensor('age')
        self.layers = [str(name) for name in values['layers']]
        self.vertex_layer = tensor('vertex_layer', torch.long)
        self.faces = tensor('faces', torch.long)
        self.face_layer = tensor('face_layer', torch.long)
        self.scalp_m = tensor('scalp')
        self.nose, self.head_top = int(values['nose']), int(values['head_top'])
        self.parents = [int(parent) for parent in values['parents']]
        index, weight = tensor('skin_index', torch.long), tensor('skin_weight')
        weights = torch.zeros(len(self.vertices), len(self.bones), device=device)
        self.skin = weights.scatter_add_(1, index, weight / weight.sum(1, keepdim=True))
        self.bone_index = {name: i for i, name in enumerate(self.bones)}

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
        vertices = self.vertices + torch.einsum('bk,kvd->bvd', shape, self.vertex_basis)
        return vertices, self.bone_heads + torch.einsum('bk,kvd->bvd', shape, self.bone_basis)

    def pose(
        self, vertices: Tensor, heads: Tensor, rotation: Tensor, root_rotation: Tensor
    ) -> PosedBody:
        """Pose rest bodies.

        rotation (B, N, 3, 3) turns each bone relative to its parent, in axes that are parallel to
        the body frame at rest; root_rotation (B, 3, 3) turns the whole body about its root, which
        stays at the origin.
        """
        batch = len(heads)
        offset = heads - heads[:, [max(parent, 0) for parent in self.parents]]
        turn = torch.empty_like(rotation)
        head = torch.zeros_like(heads)
        turn[:, 0] = root_rotation @ rotation[:, 0]
        for bones, parents in self.levels:
            turn[:, bones] = turn[:, parents] @ rotation[:, bones]
            head[:, bones] = (
                head[:, parents] + (turn[:, parents] @ offset[:, bones, :, None])[..., 0]
            )
        shift = head - (turn @ heads[..., None])[..., 0]
        affine = torch.cat([turn, shift[..., None]], -1).flatten(2)  # B N 12
        blend = (self.skin @ affine).view(batch, -1, 3, 4)
        markers = transform(
            blend[:, [self.nose, self.head_top]], vertices[:, [self.nose, self.head_top]]
        )
        joints = torch.empty(batch, len(H36M_17), 3, device=heads.device, dtype=heads.dtype)
        for joint, bone in JOINT_BONES.items():
            joints[:, H36M_17.index(joint)] = head[:, self.bone_index[bone]]
        hips = joints[:, [H36M_17.index('left_hip'), H36M_17.index('right_hip')]]
        joints[:, H36M_17.index('pelvis')] = hips.mean(1)
        joints[:, H36M_17.index('nose')] = markers[:, 0]
        joints[:, H36M_17.index('head')] = markers[:, 1]
        return PosedBody(turn, head, blend, joints)


def transform(blend: Tensor, points: Tensor) -> Tensor:
    """Apply affine maps (..., 3, 4) to points (..., 3)."""
    return (blend[..., :3] @ points[..., None])[..., 0] + blend[..., 3]
