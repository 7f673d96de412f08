"""From triangles, rooms, light and views to pictures in linear light, with depth and owners.

Every image is a stack of pixel tables: the room is cast, the triangles race against it, and what
each pixel shows in the end is textured and lit once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from rsb_pose_core.synthesis import edges, shading, shadows
from rsb_pose_core.synthesis import room as rooms
from rsb_pose_core.synthesis.lighting import Light
from rsb_pose_core.synthesis.mesh import NOBODY, PLAIN, Mesh, Surfaces
from rsb_pose_core.synthesis.occlusion import daylight, mesh_openness, room_openness
from rsb_pose_core.synthesis.rasterizer import Drawn, Fragments, rasterize
from rsb_pose_core.synthesis.room import Room, RoomHit
from rsb_pose_core.synthesis.shading import Surfels, dot, unit
from rsb_pose_core.synthesis.shadows import ShadowMap
from rsb_pose_core.synthesis.textures import TextureBank
from rsb_pose_core.synthesis.timing import stage
from rsb_pose_core.synthesis.view import View

ROOM_BUMP = 0.07
SKY_M = 1e4
PIXELS_AT_ONCE = 1 << 17  # of CPUs: their caches hold the tensors of so many
GROUND_FADES_M = (7.0, 28.0)  # distance from the subject where the ground begins and ends to fade
EYE_M = 1.6  # height of the tripods that panoramas are taken from


@runtime_checkable
class Panoramas(Protocol):
    """What the renderer needs of a LightBank."""

    def radiance(self, panorama: Tensor, direction: Tensor) -> Tensor:
        """Linear-light radiance (P, 3) of maps (P,) in map-axes directions (P, 3)."""


@dataclass(frozen=True)
class Pictures:
    """N rendered images."""

    linear: Tensor  # N H W 3, linear light
    depth_m: Tensor  # N H W, optical depth; inf: sky
    owner: Tensor  # N H W, number of the person, NOBODY: no person
    thing: Tensor  # N H W bool, a triangle that nobody owns
    velocity_px_s: Tensor | None  # N H W 2, motion of what is seen


@dataclass(frozen=True)
class Seen:
    """The triangles of a batch as N images see them, each in at most R images."""

    points: Tensor  # 3 R*V, homogeneous pixels
    faces: Tensor  # 3 R*F, columns of points
    image: Tensor  # R*F
    mesh_face: Tensor  # R*F, which face of the mesh it is


@dataclass(frozen=True)
class Shown:
    """What the N*P pixels of N images show."""

    depth_m: Tensor  # N*P, inf: sky
    material: Tensor  # N*P, row of the surfaces of triangles, then of the walls of rooms
    uv: Tensor  # 2 N*P, tiles
    tiles_per_pixel: Tensor  # N*P
    normal: Tensor  # 3 N*P
    openness: Tensor  # N*P, share of the ambient light


class Renderer:
    """Draws scenes with the textures and panoramas of two banks; stateless between calls."""

    def __init__(self, bank: TextureBank, lights: Panoramas) -> None:
        self.bank, self.lights = bank, lights

    @torch.no_grad()
    def render(
        self,
        mesh: Mesh,
        surfaces: Surfaces,
        room: Room,
        light: Light,
        view: View,
        image_scene: Tensor,
        spheres: Tensor,
        *,
        smooth: bool = True,
        supersample: int = 1,
        velocity: bool = False,
        readout_s: Tensor | None = None,
    ) -> Pictures:
        """Draw image n of scene image_scene[n] (N,).

        spheres (B, K, 4): centre and radius in m of spheres that fill the people of each scene,
        radius 0: none. smooth: pixels at edges show their share of each side. supersample: samples
        per pixel and axis. velocity: also the motion of what is seen. readout_s (N,): time from
        the first to the last row of a rolling shutter; pictures are exact for the middle row, only
        what moves in the world is bent. Depth, owners and motion are those of the pixels' middles.
        """
        if supersample > 1:
            fine = self.render(
                mesh, surfaces, room, light, _refined(view, supersample), image_scene, spheres,
                smooth=smooth, velocity=velocity, readout_s=readout_s,
            )  # fmt: skip
            return _reduced(fine, supersample)
        size = (len(view), view.height, view.width)
        with stage('room'):
            hit = rooms.cast(room, image_scene, view)
        with stage('triangles'):
            seen = see(mesh, view, image_scene, len(light.sun), readout_s)
            drawn = self._race(mesh, surfaces, seen, 1 / hit.depth_m)
            part = drawn.fragments()
            part = replace(part, face=seen.mesh_face[part.face])
        with stage('shadows'):
            overhead = shadows.overhead_map(mesh, surfaces, len(light.sun))
            shadow = shadows.shadow_map(
                mesh, surfaces, light.sun_direction, light.sun_size,
                solid=self._solid(mesh, surfaces),
            )  # fmt: skip
        with stage('shading'):
            openness = room_openness(room, hit, image_scene, spheres, overhead)
            shown = self._shown(
                mesh, surfaces, room, hit, view, image_scene, openness, part, spheres
            )
            linear = self._lit_in_parts(surfaces, room, light, view, image_scene, shown, shadow)
        if smooth:
            with stage('edges'):
                linear = self._smoothed(linear, mesh, surfaces, seen, hit, image_scene, shown)
        surface_owner = surfaces.owner[mesh.surface[part.face]]
        owner = torch.full_like(shown.material, NOBODY)
        owner[part.pixel] = surface_owner
        thing = torch.zeros_like(owner, dtype=torch.bool)
        thing[part.pixel] = surface_owner == NOBODY
        motion = None
        if velocity:
            motion = torch.zeros(len(owner), 2, device=owner.device)
            motion[part.pixel] = _pixel_velocity(mesh, part, view)
            motion = motion.view(*size, 2)
        return Pictures(
            linear.t().reshape(*size, 3), shown.depth_m.view(size), owner.view(size),
            thing.view(size), motion,
        )  # fmt: skip

    def _race(
        self, mesh: Mesh, surfaces: Surfaces, seen: Seen, behind: Tensor,
        only: Tensor | None = None,
    ) -> Drawn:  # fmt: skip
        """Triangles against what is behind them, 1/m (N, H, W)."""
        surface = mesh.surface[seen.mesh_face]
        count, height, width = behind.shape
        return rasterize(
            seen.points, seen.faces, seen.image, (count, height, width), behind=behind,
            only=only,
            cull=~surfaces.double_sided[surface],
            opacity=mesh.opacity.repeat(seen.points.shape[1] // max(len(mesh.opacity), 1)),
            lift=surfaces.lift[surface], cut_out=surfaces.cut_out[surface],
            solid=self._solid(mesh, surfaces, seen.mesh_face),
        )  # fmt: skip

    def _smoothed(
        self, linear: Tensor, mesh: Mesh, surfaces: Surfaces, seen: Seen, hit: RoomHit,
        image_scene: Tensor, shown: Shown,
    ) -> Tensor:  # fmt: skip
        """The pictures (3, N*P) with smooth edges."""
        nearness = 1 / shown.depth_m.view_as(hit.depth_m)
        material = shown.material.view_as(hit.wall)
        edge = edges.edge_pixels(nearness, material)
        near = edges.near_edges(seen.points, seen.faces, seen.image, edge)
        mesh_face = seen.mesh_face[near]
        fine = Seen(edges.quarters(seen.points), seen.faces[:, near], seen.image[near], mesh_face)
        behind, only = (
            value.repeat_interleave(2, 1).repeat_interleave(2, 2)
            for value in (1 / hit.depth_m, edge)
        )
        drawn = self._race(mesh, surfaces, fine, behind, only)
        walls = hit.wall + rooms.WALLS * image_scene[:, None, None] + len(surfaces)
        return edges.smoothed(
            linear, nearness, material, walls, edge, drawn,
            lambda face: mesh.surface[mesh_face[face]],
        )  # fmt: skip

    def _solid(
        self, mesh: Mesh, surfaces: Surfaces, mesh_face: Tensor | None = None
    ) -> Callable[[Fragments], Tensor]:
        """Where cut-out faces are drawn; mesh_face: face of the mesh of each face, if not it."""
        uv, faces = mesh.uv.t().contiguous(), mesh.faces.t().contiguous()
        area = _texture_area(mesh)

        def solid(part: Fragments) -> Tensor:
            if mesh_face is not None:
                part = replace(part, face=mesh_face[part.face])
            texture = surfaces.texture[mesh.surface[part.face]]
            texture = torch.where(texture == PLAIN, self.bank.white, texture)
            tiles_per_pixel = (area[part.face] * part.spread).sqrt()
            return self.bank.alpha(texture, part.interpolate(uv, faces), tiles_per_pixel) >= 0.5

        return solid

    def _shown(
        self, mesh: Mesh, surfaces: Surfaces, room: Room, hit: RoomHit, view: View,
        image_scene: Tensor, room_openness: Tensor, part: Fragments, spheres: Tensor,
    ) -> Shown:  # fmt: skip
        """The room, and over it the triangles."""
        wall = hit.wall + rooms.WALLS * image_scene[:, None, None]
        tiles = room.tiles_per_m.reshape(-1)[wall.reshape(-1)]
        uv = hit.uv_m.permute(3, 0, 1, 2).reshape(2, -1) * tiles
        normal = hit.normal.permute(3, 0, 1, 2).contiguous()
        slant = dot(normal, -unit(_rays(view)).view_as(normal)).abs().clamp_min(0.02).rsqrt()
        reach = hit.depth_m.clamp_max(SKY_M) / view.fx[:, None, None]
        footprint = (slant * reach).view(-1) * tiles
        depth, material = hit.depth_m.reshape(-1).clone(), wall.view(-1) + len(surfaces)
        normal, openness = normal.view(3, -1), room_openness.reshape(-1)
        faces = mesh.faces.t().contiguous()
        table = torch.cat([mesh.normals.t(), mesh.uv.t(), mesh_openness(mesh, part, spheres)])
        value = part.interpolate(table, faces)
        depth[part.pixel] = 1 / part.inverse_depth
        material[part.pixel] = mesh.surface[part.face]
        normal[:, part.pixel] = value[:3]
        uv[:, part.pixel] = value[3:5]
        openness[part.pixel] = value[5]
        footprint[part.pixel] = (_texture_area(mesh)[part.face] * part.spread).sqrt()
        return Shown(depth, material, uv, footprint, normal, openness)

    def _lit_in_parts(
        self, surfaces: Surfaces, room: Room, light: Light, view: View, image_scene: Tensor,
        shown: Shown, shadow: ShadowMap,
    ) -> Tensor:  # fmt: skip
        """Radiance (3, N*P); a CPU does few images at a time, so that its caches hold them."""
        count, pixels = len(view), view.height * view.width
        step = count if view.fx.is_cuda else max(1, PIXELS_AT_ONCE // pixels)
        parts = []
        for first in range(0, count, step):
            some = slice(first, first + step)
            rows = slice(first * pixels, (first + step) * pixels)
            of_part = Shown(*(value[..., rows] for value in vars(shown).values()))
            parts.append(
                self._lit(surfaces, room, light, view[some], image_scene[some], of_part, shadow)
            )
        return torch.cat(parts, 1)

    def _lit(
        self, surfaces: Surfaces, room: Room, light: Light, view: View, image_scene: Tensor,
        shown: Shown, shadow: ShadowMap,
    ) -> Tensor:  # fmt: skip
        """Radiance (3, N*P) of what the pixels show."""
        flat = (len(view), view.height * view.width)
        rays = _rays(view)
        point = rays * shown.depth_m.clamp_max(SKY_M).view(flat) + view.centre_m.t()[..., None]
        to_eye = -unit(rays)
        texture, table = self._materials(surfaces, room)
        colour, slope = self.bank.relief(texture[shown.material], shown.uv, shown.tiles_per_pixel)
        values = table[:, shown.material].view(-1, *flat)
        tint, gloss, bump, scatter = values[:3], values[3], values[4], values[5:]
        normal = unit(shown.normal.view(3, *flat))
        normal = torch.where(dot(normal, to_eye) < 0, -normal, normal)
        surfels = Surfels(
            colour.view(3, *flat).mul_(tint),
            shading.relieved(normal, slope.view(2, *flat).mul_(bump).clamp_(-1, 1)),
            to_eye, shadow.lit(point, normal, scatter[0], image_scene),
            shown.openness.view(flat), daylight(room, light, image_scene, point), gloss, scatter,
        )  # fmt: skip
        linear = shading.shade(surfels, light, image_scene).view(3, -1)
        sky = torch.isinf(shown.depth_m).nonzero()[:, 0]
        scene = image_scene[torch.div(sky, flat[1], rounding_mode='floor')]
        linear[:, sky] = self._sky(light, scene, rays.reshape(3, -1)[:, sky])
        self._fade_ground(linear.view(3, *flat), surfaces, room, light, image_scene, shown, point)
        return linear

    def _fade_ground(
        self, linear: Tensor, surfaces: Surfaces, room: Room, light: Light, image_scene: Tensor,
        shown: Shown, point: Tensor,
    ) -> None:  # fmt: skip
        """Open ground far from the subject turns into what the panorama shows of it, for both
        views of a pair as seen from one place of the world."""
        ground = len(surfaces) + rooms.WALLS * image_scene + rooms.FLOOR
        is_ground = shown.material.view(linear.shape[1:]) == ground[:, None]
        image, pixel = (is_ground & room.outdoors[image_scene][:, None]).nonzero(as_tuple=True)
        place = point[:, image, pixel]
        near, far = GROUND_FADES_M
        share = ((torch.hypot(place[0], place[2]) - near) / (far - near)).clamp(0, 1)
        share = share * share * (3 - 2 * share)
        direction = place - place.new_tensor([[0.0], [EYE_M], [0.0]])
        beyond = self._sky(light, image_scene[image], direction)
        linear[:, image, pixel] = linear[:, image, pixel].lerp(beyond, share)

    def _materials(self, surfaces: Surfaces, room: Room) -> tuple[Tensor, Tensor]:
        """Texture (M,), and colour, gloss, bump, scatter (8, M) of triangles, then of walls."""
        walls = room.texture.numel()
        rough = torch.zeros(walls, 4, device=room.tint.device)
        rough[:, 0] = ROOM_BUMP
        wall = torch.cat([room.tint.reshape(-1, 3), room.gloss.reshape(-1, 1), rough], 1)
        mesh = torch.cat(
            [surfaces.colour, surfaces.gloss[:, None], surfaces.bump[:, None], surfaces.scatter], 1
        )
        texture = torch.cat([surfaces.texture, room.texture.reshape(-1)])
        texture = torch.where(texture == PLAIN, self.bank.white, texture)
        return texture, torch.cat([mesh, wall]).t().contiguous()

    def _sky(self, light: Light, scene: Tensor, direction: Tensor) -> Tensor:
        """Radiance (3, P) of the panoramas of scenes (P,) in world directions (3, P)."""
        turn = light.panorama_turn[scene]
        towards = torch.stack([dot(turn[:, k].t(), direction) for k in range(3)], 1)
        found = self.lights.radiance(light.panorama[scene].clamp_min(0), towards)
        found = found * light.panorama_gain[scene]
        return torch.where(light.panorama[scene, None] < 0, light.ambient[scene, 0], found).t()


def see(
    mesh: Mesh, view: View, image_scene: Tensor, scenes: int, readout_s: Tensor | None = None
) -> Seen:
    """Every face of so many scenes in every image of its scene, R images at most."""
    images = torch.arange(len(view), device=image_scene.device)
    rank = (image_scene[:, None] == image_scene[None]).tril(-1).sum(1)
    most = int(rank.max()) + 1
    table = torch.full((most, scenes), -1, device=image_scene.device)
    table[rank, image_scene] = images
    vertex_image = table[:, mesh.scene].reshape(-1)  # R*V
    points = mesh.vertices_m.t().repeat(1, most)
    lens = torch.zeros(len(view), 3, 3, device=view.fx.device)
    lens[:, 0, 0], lens[:, 0, 2], lens[:, 1, 1] = view.fx, view.cx, view.fy
    lens[:, 1, 2], lens[:, 2, 2] = view.cy, 1
    cameras = torch.cat([(lens @ view.rotation).flatten(1), view.centre_m], 1).t().contiguous()
    camera = cameras[:, vertex_image]

    def project(world: Tensor) -> Tensor:
        moved = world - camera[9:]
        return torch.stack([dot(camera[3 * k : 3 * k + 3], moved) for k in range(3)])

    pixel = project(points)
    if readout_s is not None:
        motion = mesh.velocity_m_s.t().repeat(1, most)
        row_s = (readout_s / max(view.height - 1, 1))[vertex_image]
        middle = (view.height - 1) / 2
        for _ in range(2):  # a fixed point: the row that a moving point is read in
            row = (pixel[1] / pixel[2].clamp_min(1e-3)).clamp(-view.height, 2 * view.height)
            pixel = project(points + motion * ((row - middle) * row_s))
    count = len(mesh.faces)
    shift = torch.arange(most, device=images.device) * len(mesh.vertices_m)
    faces = (mesh.faces.t().contiguous()[:, None] + shift[:, None]).view(3, -1)
    mesh_face = torch.arange(count, device=images.device).repeat(most)
    image = table[:, mesh.scene[mesh.faces[:, 0]]].reshape(-1)
    if most * scenes != len(view):
        there = (image >= 0).nonzero()[:, 0]
        faces, image, mesh_face = faces[:, there], image[there], mesh_face[there]
    return Seen(pixel, faces, image, mesh_face)


def _texture_area(mesh: Mesh) -> Tensor:
    """Twice the area (F,) of the faces in texture tiles."""
    u, v = mesh.uv.t().contiguous()
    a, b, c = mesh.faces.t().contiguous()
    area = (u[b] - u[a]) * (v[c] - v[a]) - (u[c] - u[a]) * (v[b] - v[a])
    return torch.abs(area)


def _rays(view: View) -> Tensor:
    """World directions (3, N, H*W) with optical depth 1."""
    device = view.fx.device
    x = (torch.arange(view.width, device=device) - view.cx[:, None]) / view.fx[:, None]
    y = (torch.arange(view.height, device=device) - view.cy[:, None]) / view.fy[:, None]
    axes = view.rotation.permute(2, 0, 1)[..., None]  # 3 N 3 1
    rows = axes[:, :, 1] * y + axes[:, :, 2]  # 3 N H
    columns = axes[:, :, 0] * x  # 3 N W
    return (rows[..., None] + columns[:, :, None]).flatten(2)


def _pixel_velocity(mesh: Mesh, part: Fragments, view: View) -> Tensor:
    """How fast the fragments of an image move in it, pixels per second (P, 2)."""
    velocity = part.interpolate(mesh.velocity_m_s.t().contiguous(), mesh.faces.t().contiguous())
    image = torch.div(part.pixel, view.height * view.width, rounding_mode='floor')
    row = torch.div(part.pixel, view.width, rounding_mode='floor')
    x, y = part.pixel - row * view.width, row - image * view.height
    lens = torch.stack([view.fx, view.fy, view.cx, view.cy])
    camera = torch.cat([view.rotation.flatten(1).t(), lens])[:, image]
    vx, vy, vz = (dot(camera[k : k + 3], velocity) for k in (0, 3, 6))
    fx, fy, cx, cy = camera[9:]
    u, v = fx * vx - (x - cx) * vz, fy * vy - (y - cy) * vz
    return torch.stack([u, v], 1) * part.inverse_depth[:, None]


def _refined(view: View, factor: int) -> View:
    """The same view in pixels `factor` times as small."""
    shift = (factor - 1) / 2
    return View(
        view.fx * factor, view.fy * factor, view.cx * factor + shift, view.cy * factor + shift,
        view.rotation, view.centre_m, view.height * factor, view.width * factor,
    )  # fmt: skip


def _reduced(drawn: Pictures, factor: int) -> Pictures:
    """Average light; of the rest what the middle of a pixel shows.

    At even factors four samples lie round the middle: one of them says who it is, and where all
    show about the same depth, the depth is that of the plane through them, else of that one.
    """
    linear = avg_pool2d(drawn.linear.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1)
    middle = factor // 2
    pick = (slice(None), slice(middle, None, factor), slice(middle, None, factor))
    depth = drawn.depth_m[pick]
    if factor % 2 == 0:
        inverse = 1 / drawn.depth_m
        starts = [(middle - dy, middle - dx) for dy in (0, 1) for dx in (0, 1)]
        corners = torch.stack([inverse[:, y::factor, x::factor] for y, x in starts])
        smooth = corners.amax(0) < 1.03 * corners.amin(0)
        depth = torch.where(smooth, 1 / corners.mean(0), depth)
    velocity = drawn.velocity_px_s
    if velocity is not None:
        velocity = velocity[pick] / factor
    return Pictures(
        linear.contiguous(), depth.contiguous(), drawn.owner[pick].contiguous(),
        drawn.thing[pick].contiguous(), velocity,
    )  # fmt: skip
