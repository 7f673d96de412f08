"""Soft shadows: what lights see of scenes, and how much of a light reaches a point."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, normalize, pad

from rsb_pose_core.synthesis.mesh import NOBODY, Mesh, Surfaces
from rsb_pose_core.synthesis.rasterizer import Fragments, rasterize
from rsb_pose_core.synthesis.shading import dot

SHADOW_SIZE = 256
SHADOW_BLOCK = 8  # texels of a coarse map that says where no shadow can be
SHADOW_REACH_M = 3.0  # half of the widest map
FARTHEST_BLOCKER_M = 2.0  # that a penumbra is searched for
MARGIN = 2 * SHADOW_BLOCK  # texels round a map, and the largest penumbra
OVERHEAD_SIZE = 0.6
TAPS, TAPS_AT_ONCE = 16, 4
NOTHING_M = -1e4
THIN_M = 0.005
STEEPEST = 4.0  # slope of a receiver against the light that shadows still follow
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


@dataclass(frozen=True)
class ShadowMap:
    """Heights towards a light of B scenes, seen along its rays."""

    axes: Tensor  # B 3 3: across, along, towards the light
    origin: Tensor  # B 3: corner of texel (0, 0), and the height 0
    texels_per_m: Tensor  # B
    light_size: Tensor  # B, radius of the penumbra in m per m of distance
    height_m: Tensor  # B S+2M S+2M, with a margin; NOTHING_M: nothing
    highest_m: Tensor  # B S/8 S/8, within reach of a penumbra
    mean_m: Tensor  # B S/8 S/8, of what is drawn within that reach

    def lit(self, point: Tensor, normal: Tensor, soft: Tensor, image_scene: Tensor) -> Tensor:
        """Share of the light (N, P) that reaches points (3, N, P) of images in scenes (N,).

        soft (N, P): how far light wraps round edges; such surfaces do not shade themselves there.
        """
        axes = self.axes[image_scene][..., None]  # N 3 3 1
        scale = self.texels_per_m[image_scene][:, None]
        origin = self.origin[image_scene][..., None]
        place = [dot(axes[:, k].transpose(0, 1), point) - origin[:, k] for k in range(3)]
        x, y, height = place[0] * scale, place[1] * scale, place[2]
        facing = dot(axes[:, 2].transpose(0, 1), normal)
        blocks = SHADOW_SIZE // SHADOW_BLOCK
        bx, by = ((c * (1 / SHADOW_BLOCK)).floor().int() for c in (x, y))
        within = (bx >= 0) & (by >= 0) & (bx < blocks) & (by < blocks) & (facing + soft > 0)
        cell = by.clamp(0, blocks - 1) * blocks + bx.clamp(0, blocks - 1)
        cell = cell + image_scene.int()[:, None] * (blocks * blocks)
        highest = self.highest_m.view(-1).index_select(0, cell.view(-1)).view(cell.shape)
        index = (within & (highest > height + THIN_M)).view(-1).nonzero()[:, 0]
        scene = image_scene[torch.div(index, x.shape[1], rounding_mode='floor')]
        x, y, height, facing, soft = (
            value.reshape(-1)[index] for value in (x, y, height, facing, soft)
        )
        part, scale = normal.reshape(3, -1)[:, index], self.texels_per_m[scene]
        rows = self.axes.flatten(1).t().contiguous()[:6, scene]
        steep = 1 / (facing.clamp_min(1 / STEEPEST) * scale)
        slope = [-dot(row, part) * steep for row in (rows[:3], rows[3:])]  # m per texel
        bias = THIN_M + 0.05 * soft + 0.6 * (slope[0].abs() + slope[1].abs())
        radius = (self._mean(x, y, scene) - height).clamp_min(0) * self.light_size[scene] * scale
        radius = radius.clamp(1.2, MARGIN - 1)
        # the disc of taps turns from place to place, fixed to the world
        angle = 2 * math.pi * (52.9829189 * (0.53716 * x + 0.046697 * y).frac()).frac()
        turn_x, turn_y = angle.cos() * radius, angle.sin() * radius
        side = SHADOW_SIZE + 2 * MARGIN
        first, x, y = scene.int() * side**2, x + MARGIN, y + MARGIN
        plane = height + bias - slope[0] * x - slope[1] * y  # at texel (0, 0)
        blocked = torch.zeros_like(first)
        for begin in range(0, TAPS, TAPS_AT_ONCE):
            number = torch.arange(begin, begin + TAPS_AT_ONCE, device=x.device)[:, None]
            away = ((number + 0.5) / TAPS).sqrt()
            ox, oy = (number * GOLDEN_ANGLE).cos() * away, (number * GOLDEN_ANGLE).sin() * away
            tx = torch.addcmul(x, ox, turn_x).addcmul_(-oy, turn_y)
            ty = torch.addcmul(y, ox, turn_y).addcmul_(oy, turn_x)
            tap = ty.int().mul_(side).add_(tx.int()).add_(first)
            found = self.height_m.view(-1).index_select(0, tap.view(-1)).view(tap.shape)
            limit = torch.addcmul(plane, slope[0], tx).addcmul_(slope[1], ty)
            blocked += (found > limit).sum(0, dtype=torch.int32)
        light = torch.ones(point.shape[1:], device=point.device)
        light.view(-1)[index] = 1 - blocked * (1 / TAPS)
        return light

    def _mean(self, x: Tensor, y: Tensor, scene: Tensor) -> Tensor:
        """Mean height (P,) round texels, interpolated: a smooth guess of what blocks the light."""
        blocks = SHADOW_SIZE // SHADOW_BLOCK
        bx = (x * (1 / SHADOW_BLOCK) - 0.5).clamp(0, blocks - 1.001)
        by = (y * (1 / SHADOW_BLOCK) - 0.5).clamp(0, blocks - 1.001)
        ix, iy = bx.int(), by.int()
        fx, fy = bx - ix, by - iy
        first = (scene.int() * blocks + iy) * blocks + ix
        table = self.mean_m.view(-1)
        upper = table.index_select(0, first).lerp(table.index_select(0, first + 1), fx)
        first = first + blocks
        return upper.lerp(
            table.index_select(0, first).lerp(table.index_select(0, first + 1), fx), fy
        )


def shadow_map(
    mesh: Mesh,
    surfaces: Surfaces,
    direction: Tensor,
    light_size: Tensor,
    *,
    owned: bool = True,
    solid: Callable[[Fragments], Tensor] | None = None,
) -> ShadowMap:
    """Draw B scenes as lights in directions (B, 3), unit, of sizes (B,) see them.

    A map covers the people of its scene and what lies near them, at most 2 SHADOW_REACH_M wide.
    owned: draw people too. solid: which fragments of cut-out faces are drawn, as for `rasterize`.
    """
    scenes = len(direction)
    level = direction.new_tensor([[0.0, 0.0, 1.0]])
    upright = direction.new_tensor([[0.0, 1.0, 0.0]])
    other = torch.where(direction[:, 1:2].abs() > 0.9, level, upright)
    across = normalize(torch.linalg.cross(other, direction), dim=1)
    axes = torch.stack([across, torch.linalg.cross(direction, across), direction], 1)
    rows = axes.flatten(1).t().contiguous()[:, mesh.scene]  # 9 V
    vertices = mesh.vertices_m.t().contiguous()
    local = torch.stack([dot(rows[3 * k : 3 * k + 3], vertices) for k in range(3)])
    face_owned = surfaces.owner[mesh.surface] != NOBODY
    people = torch.zeros_like(mesh.scene, dtype=torch.bool)
    people[mesh.faces[face_owned].view(-1)] = True
    low, high = _extent(local, mesh.scene, scenes)
    low_people, high_people = _extent(torch.where(people, local, torch.nan), mesh.scene, scenes)
    peopled = torch.isfinite(low_people).all(0)
    middle = torch.where(peopled, low_people + high_people, low + high) / 2
    half = torch.maximum(high - middle, middle - low)[:2].amax(0) + 0.05
    half = half.nan_to_num(1.0, 1.0, 1.0).clamp(0.2, SHADOW_REACH_M)
    middle, low = middle.nan_to_num(0.0, 0.0, 0.0), low.nan_to_num(0.0, 0.0, 0.0)
    origin = torch.stack([middle[0] - half, middle[1] - half, low[2] - 1], 1)
    scale = SHADOW_SIZE / (2 * half)
    x, y, height = local - origin[mesh.scene].t()
    # the middle of a texel is a half, the centre of a pixel is whole
    x, y = x * scale[mesh.scene] - 0.5, y * scale[mesh.scene] - 0.5
    faces, surface = mesh.faces.t().contiguous(), mesh.surface
    if not owned:
        things = (~face_owned).nonzero()[:, 0]
        faces, surface = faces[:, things], surface[things]
    drawn = rasterize(
        torch.stack([x, y, torch.ones_like(x)]), faces, mesh.scene[faces[0]],
        (scenes, SHADOW_SIZE, SHADOW_SIZE), value=height, opacity=mesh.opacity,
        cut_out=surfaces.cut_out[surface], solid=solid if owned else None,
    )  # fmt: skip
    heights = drawn.nearness()
    there = heights > 0
    wide = (light_size * scale * FARTHEST_BLOCKER_M > SHADOW_BLOCK)[:, None, None]

    def spread(values: Tensor, pool: Callable[..., Tensor]) -> Tensor:
        """Pooled in blocks, and over what a penumbra can reach from them."""
        small = pool(values[:, None], SHADOW_BLOCK)
        near, far = (pool(small, k, 1, k // 2)[:, 0] for k in (3, 5))
        return torch.where(wide, far, near).contiguous()

    share = spread(there.to(heights.dtype), avg_pool2d).clamp_min(1e-9)
    return ShadowMap(
        axes, origin, scale, light_size,
        pad(torch.where(there, heights, NOTHING_M), (MARGIN,) * 4, value=NOTHING_M),
        spread(heights, max_pool2d), spread(heights, avg_pool2d) / share,
    )  # fmt: skip


def overhead_map(mesh: Mesh, surfaces: Surfaces, scenes: int) -> ShadowMap:
    """What things hide of a wide light straight above: floors under furniture are darker."""
    up = mesh.vertices_m.new_tensor([0.0, 1.0, 0.0]).expand(scenes, -1)
    return shadow_map(mesh, surfaces, up, up.new_full((scenes,), OVERHEAD_SIZE), owned=False)


def _extent(values: Tensor, scene: Tensor, scenes: int) -> tuple[Tensor, Tensor]:
    """Least and largest (3, B) of finite values (3, V) of each scene; infinite without any."""
    index = scene.expand(3, -1)
    low = values.new_full((3, scenes), torch.inf)
    low = low.scatter_reduce(1, index, values.nan_to_num(torch.inf), 'amin')
    high = values.new_full((3, scenes), -torch.inf)
    return low, high.scatter_reduce(1, index, values.nan_to_num(-torch.inf), 'amax')
