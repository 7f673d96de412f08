"""How much ambient light reaches points: bodies, things above and corners hide the rest."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from rsb_pose_core.synthesis.lighting import Light
from rsb_pose_core.synthesis.mesh import Mesh
from rsb_pose_core.synthesis.rasterizer import Fragments
from rsb_pose_core.synthesis.room import Room, RoomHit
from rsb_pose_core.synthesis.shading import dot
from rsb_pose_core.synthesis.shadows import ShadowMap

SPHERES_AT_ONCE = 10
COARSE = 4  # pixels per sample of the occlusion of rooms by bodies
CORNER_M = 0.25  # reach of the darkening where two walls meet
CORNER_DARKNESS = 0.3
OVERHEAD_DARKNESS = 0.75
DAYLIGHT = 0.5  # how much brighter rooms are near where light comes from


def sphere_openness(point: Tensor, normal: Tensor, spheres: Tensor) -> Tensor:
    """Share (...) of a cosine-weighted sky that spheres leave open, at points (3, ...).

    spheres (4, K, ...): centre and radius in m, radius 0: none. Spheres that hold the point are
    left out. After Quilez, "Sphere ambient occlusion"; where the horizon cuts a sphere, his
    approximation. Several spheres multiply as if they did not overlap.
    """
    towards = spheres[:3] - point[:, None]
    square = dot(towards, towards).clamp_min(1e-9)
    inverse = square.rsqrt()
    cosine = dot(towards, normal[:, None]) * inverse
    ratio = spheres[3] * inverse  # sine of the sphere's angular radius
    squared = ratio * ratio
    above = cosine.clamp_min(0) * squared
    cut = (0.5 * (cosine * ratio + squared)).clamp_min(0)
    cut = cut * cut.sqrt()
    hidden = torch.where(cosine.abs() < ratio, cut, above)
    hidden = torch.where(ratio < 1, hidden, 0.0)
    return hidden.clamp_max(1).neg_().add_(1).prod(0)


def mesh_openness(mesh: Mesh, part: Fragments, spheres: Tensor) -> Tensor:
    """How open to the sky (1, V) the vertices of what is seen are; the others 1."""
    used = torch.zeros(len(mesh.vertices_m), dtype=torch.bool, device=spheres.device)
    used[mesh.faces[part.face].view(-1)] = True
    openness = torch.ones(1, len(used), device=spheres.device)
    for some, scenes in _sphere_groups(spheres):
        index = (used & scenes[mesh.scene]).nonzero()[:, 0]
        near = some[..., mesh.scene[index]]
        point, normal = mesh.vertices_m[index].t(), mesh.normals[index].t()
        openness[0, index] *= sphere_openness(point, normal, near)
    return openness


def _sphere_groups(spheres: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Parts (4, k, B) of spheres (B, K, 4), and which scenes (B,) have spheres in them."""
    groups = spheres.permute(2, 1, 0).contiguous().split(SPHERES_AT_ONCE, 1)
    return [(group, (group[3] > 0).any(0)) for group in groups]


def room_openness(
    room: Room, hit: RoomHit, image_scene: Tensor, spheres: Tensor, overhead: ShadowMap
) -> Tensor:
    """How open to the sky (N, H, W) the rooms are among bodies, under things, near corners.

    Sampled at every COARSE-th pixel, it is smooth but for the corners.
    """
    half, images = COARSE // 2, len(image_scene)
    _, height, width = hit.depth_m.shape
    coarse = hit.depth_m[:, half::COARSE, half::COARSE]
    point, normal = (
        value[:, half::COARSE, half::COARSE].permute(3, 0, 1, 2).reshape(3, images, -1)
        for value in (hit.point_m, hit.normal)
    )
    total = torch.ones_like(point[0])
    for some, scenes in _sphere_groups(spheres):
        index = scenes[image_scene].nonzero()[:, 0]
        near = some[..., image_scene[index], None]
        total[index] *= sphere_openness(point[:, index], normal[:, index], near)
    inside = (~room.outdoors[image_scene])[:, None]
    turn = room.turn[image_scene].permute(1, 2, 0)[..., None]  # 3 3 N 1
    for axis in range(3):
        place, off = dot(turn[axis], point), 1 - dot(turn[axis], normal).abs()
        low, high = (bound[image_scene, axis, None] for bound in (room.low_m, room.high_m))
        gap = torch.minimum(place - low, high - place).clamp_min(0)
        total *= 1 - CORNER_DARKNESS * off * inside * torch.exp(gap * (-1 / CORNER_M))
    lit = overhead.lit(point, normal, torch.zeros_like(total), image_scene)
    total *= 1 - OVERHEAD_DARKNESS * (1 - lit)
    total = total.view(images, 1, *coarse.shape[1:])
    return interpolate(total, (height, width), mode='bilinear', align_corners=False)[:, 0]


def daylight(room: Room, light: Light, image_scene: Tensor, point: Tensor) -> Tensor:
    """Gain of the ambient light (N, P): rooms are brighter on the side that it comes from."""
    low, high = room.low_m[image_scene], room.high_m[image_scene]
    ambient = light.ambient[image_scene].mean(2)
    towards = ambient[:, 1:4] / ambient[:, :1].clamp_min(1e-6)
    towards = towards * (DAYLIGHT * ~room.outdoors[image_scene, None])
    turned = (room.turn[image_scene] @ towards[..., None])[..., 0] * (2 / (high - low))
    slope = (turned[:, None] @ room.turn[image_scene])[:, 0]  # per m of the world
    level = 1 - (turned * (low + high)).sum(1) / 2
    return (dot(slope.t()[..., None], point) + level[:, None]).clamp_(0.4, 1.8)
