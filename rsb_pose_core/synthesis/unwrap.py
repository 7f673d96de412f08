"""Where on a body a point is: along and round its limbs; cloth laid out in metres."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.synthesis.body import Body

TRUNK, ARM, LEG = range(3)
GIRTH_M = (0.90, 0.32, 0.46)  # of trunk, arm and leg: cloth round them spans that much
CROTCH_M = -0.05  # of the mean body: below it trousers are legs


@dataclass(frozen=True)
class Chart:
    """Coordinates of V points on the mean body, left and right alike."""

    x: Tensor  # V, metres to the left
    y: Tensor
    z: Tensor
    arm: Tensor  # V, 0 at the shoulder, 1 at the elbow, 2 at the wrist
    leg: Tensor  # V, 0 at the hip, 1 at the knee, 2 at the ankle
    is_arm: Tensor  # V, share of the skin that follows the arm
    is_leg: Tensor
    is_foot: Tensor
    is_head: Tensor

    @staticmethod
    def of(body: Body, number: Tensor) -> 'Chart':
        """The chart of vertices (V,) of the body."""
        points, skin = body.vertices[number], body.skin[number]

        def follows(*prefixes: str) -> Tensor:
            chosen = [name.startswith(prefixes) for name in body.bones]
            return skin[:, torch.tensor(chosen, device=body.device)].sum(1)

        x, y, z = points.unbind(1)
        return Chart(
            x,
            y,
            z,
            along(body, points, 'upperarm01', 'lowerarm01', 'wrist'),
            along(body, points, 'upperleg01', 'lowerleg01', 'foot'),
            follows('upperarm', 'lowerarm', 'wrist', 'finger', 'metacarpal'),
            follows('upperleg', 'lowerleg', 'foot', 'toe'),
            follows('foot', 'toe'),
            follows('head', 'neck03'),
        )

    def __getitem__(self, part: Tensor) -> 'Chart':
        return Chart(*(value[part] for value in vars(self).values()))

    @property
    def region(self) -> Tensor:
        """TRUNK, ARM or LEG of each point (V,)."""
        leg = (self.is_leg > 0.5) & (self.y < CROTCH_M)
        arm = self.is_arm > 0.45
        return torch.where(arm, ARM, torch.where(leg, LEG, TRUNK))


def along(body: Body, points: Tensor, *bones: str) -> Tensor:
    """0 at the first left bone's head, 1 at the second's, 2 at the third's, of points (V, 3)."""
    folded = torch.stack([points[:, 0].abs(), points[:, 1], points[:, 2]], 1)
    start, middle, end = (body.bone_heads[body.bone_index[f'{bone}.L']] for bone in bones)
    first, second = middle - start, end - middle
    upper = ((folded - start) @ first / first.square().sum()).clamp_max(1)
    return upper + ((folded - middle) @ second / second.square().sum()).clamp_min(0)


def unwrap(
    body: Body, faces: Tensor, *, trunk_only: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay cloth over triangles (F, 3) of body numbers.

    Returns numbers (R,), uv (R, 2) in metres round and along the trunk or limb, v downward, and
    faces (F, 3) over R. The seams run down the back of the trunk and the inside of limbs.
    """
    used, compact = torch.unique(faces, return_inverse=True)
    chart = Chart.of(body, used)
    region = torch.zeros_like(used) if trunk_only else chart.region
    of_face = region[compact].mode(1).values  # what most corners say
    u = torch.stack([_round(body, chart, kind) * GIRTH_M[kind] for kind in (TRUNK, ARM, LEG)], 1)
    v = torch.stack([-chart.y, chart.arm * 0.27, chart.leg * 0.41], 1)
    pick = of_face[:, None, None].expand(-1, 3, 1)
    corner_u, corner_v = (value[compact].gather(2, pick)[..., 0] for value in (u, v))
    girth = corner_u.new_tensor(GIRTH_M)[of_face][:, None]
    broken = corner_u.amax(1, keepdim=True) - corner_u > girth / 2
    corner_u = torch.where(broken, corner_u + girth, corner_u)
    millimetres = (torch.stack([corner_u, corner_v], -1) * 1000).round().long()
    keys = torch.cat([used[compact][..., None], millimetres], 2).reshape(-1, 3)
    unique, number = torch.unique(keys, dim=0, return_inverse=True)
    return unique[:, 0], unique[:, 1:] / 1000.0, number.reshape(-1, 3)


def _round(body: Body, chart: Chart, region: int) -> Tensor:
    """Turns (V,) about the axis of a region, 0 at the front or outside, +-1/2 at the seam."""
    if region == TRUNK:
        return torch.atan2(chart.x, chart.z) / (2 * math.pi)
    names, place = (
        (('upperarm01', 'lowerarm01', 'wrist'), chart.arm)
        if region == ARM
        else (('upperleg01', 'lowerleg01', 'foot'), chart.leg)
    )
    start, middle, end = (body.bone_heads[body.bone_index[f'{name}.L']] for name in names)
    share = place[:, None].clamp(0, 2)
    axis = torch.where(
        share < 1, start + share * (middle - start), middle + (share - 1) * (end - middle)
    )
    direction = torch.nn.functional.normalize(end - start, dim=0)
    outside = torch.nn.functional.normalize(
        torch.linalg.cross(direction, direction.new_tensor([0.0, 0.0, 1.0])), dim=0
    )
    outside = outside * outside[0].sign()
    front = torch.linalg.cross(outside, direction)
    front = front * front[2].sign()
    away = torch.stack([chart.x.abs(), chart.y, chart.z], 1) - axis
    turn = torch.atan2(away @ front, away @ outside) / (2 * math.pi)
    return turn * torch.where(chart.x < 0, -1, 1)  # prints read the same on both sides
