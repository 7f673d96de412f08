"""From people, scene and cameras to pictures in linear light, with depth and who is where."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.synthesis.clothing import MATERIALS
from rsb_pose_core.synthesis.people import Casting, People
from rsb_pose_core.synthesis.rasterizer import NEAR_M, Fragments, fragments_of, rasterize
from rsb_pose_core.synthesis.scene import (
    BOX_FACES,
    OPEN_HEIGHT_M,
    Scene,
    View,
    box_mesh,
    cast_room,
)
from rsb_pose_core.synthesis.textures import SIZE as TEXTURE_SIZE

SHADOW_SIZE, SHADOW_REACH_M = 128, 2.0


@dataclass(frozen=True)
class Pictures:
    """N rendered images."""

    linear: Tensor  # N H W 3, linear light
    depth_m: Tensor  # N H W, optical depth
    person: Tensor  # N H W, number in `People`, -1: nobody


@dataclass(frozen=True)
class Shadow:
    """Orthographic depth of the scenes seen from their suns, (B, S, S), larger is nearer."""

    turn: Tensor  # B 3 3, light from world
    nearness: Tensor

    def lit(self, point_m: Tensor, scene: Tensor) -> Tensor:
        """Share of the sun (P,) that reaches points (P, 3) of scenes (P,)."""
        local = (self.turn[scene] @ point_m[..., None])[..., 0]
        place = (local[:, :2] / SHADOW_REACH_M + 1) * (SHADOW_SIZE / 2)
        nearness = 1 / (local[:, 2] + 6 - 0.05)
        light = torch.zeros_like(nearness)
        taps = ((-0.7, -0.3), (0.3, -0.7), (0.7, 0.3), (-0.3, 0.7))
        for dx, dy in taps:
            x, y = (place[:, 0] + dx).long(), (place[:, 1] + dy).long()
            outside = (x < 0) | (y < 0) | (x >= SHADOW_SIZE) | (y >= SHADOW_SIZE)
            x, y = x.clamp(0, SHADOW_SIZE - 1), y.clamp(0, SHADOW_SIZE - 1)
            light += (self.nearness[scene, y, x] <= nearness) | outside
        return light / len(taps)


class Renderer:
    """Draws people of one casting; stateless between calls."""

    def __init__(self, casting: Casting) -> None:
        self.casting = casting
        body = casting.body
        self.faces = body.faces
        self.single_sided = casting.tailor.face_layer['head'] | casting.tailor.face_layer['shell']
        self.eyes = casting.tailor.layer['eyes']

    def render(
        self, people: People, person_scene: Tensor, scene: Scene, view: View, image_scene: Tensor
    ) -> Pictures:
        """Draw image n of scene image_scene[n], with the people whose scene it is."""
        shadow = self._shadow(people, person_scene, scene)
        pair_image, pair_person = (image_scene[:, None] == person_scene[None]).nonzero(
            as_tuple=True
        )
        count, vertices = len(pair_person), people.vertices.shape[1]
        body_points = view.camera(people.vertices[pair_person], pair_image)
        box_points_m, box_normals, box_uv = box_mesh(scene)
        n_boxes = box_points_m.shape[1]
        images = torch.arange(len(image_scene), device=image_scene.device)
        box_points = view.camera(box_points_m[image_scene].flatten(1, 2), images)

        def pixels(points: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
            near = points[..., 2] < NEAR_M
            nearness = torch.where(near, -1.0, 1 / points[..., 2].clamp_min(NEAR_M))
            return view.project(points, image).reshape(-1, 2), nearness.reshape(-1)

        body_uv, body_near = pixels(body_points, pair_image)
        box_px, box_near = pixels(box_points, images)
        pair, face = people.outfit.drawn[pair_person].nonzero(as_tuple=True)
        body_faces = self.faces[face] + (pair * vertices)[:, None]
        present = scene.box_present[image_scene].reshape(-1).nonzero()[:, 0]
        box_faces = BOX_FACES.to(face.device)[None] + (present * 24)[:, None, None]
        box_faces = box_faces.reshape(-1, 3) + count * vertices
        uv, nearness = torch.cat([body_uv, box_px]), torch.cat([body_near, box_near])
        faces = torch.cat([body_faces, box_faces])
        box_image = torch.div(present, n_boxes, rounding_mode='floor').repeat_interleave(12)
        image = torch.cat([pair_image[pair], box_image])
        cull = torch.zeros(len(faces), dtype=torch.bool, device=face.device)
        cull[: len(face)] = self.single_sided[face]
        box_opacity = torch.ones(len(box_near), device=uv.device)
        opacity = torch.cat([people.outfit.opacity[pair_person].reshape(-1), box_opacity])
        size = (len(image_scene), view.height, view.width)
        drawn = rasterize(uv, nearness, faces, image, size, cull=cull, opacity=opacity)
        fragments = fragments_of(drawn, uv, nearness, faces)

        linear, depth = self._room(scene, image_scene, view, shadow)
        fragments = fragments.select(fragments.inverse_depth > 1 / depth.view(-1)[fragments.pixel])
        depth.view(-1)[fragments.pixel] = 1 / fragments.inverse_depth
        person = torch.full_like(depth, -1, dtype=torch.int64)
        is_body = fragments.face < len(face)
        body = fragments.select(is_body)
        who = pair_person[pair[body.face]]
        person.view(-1)[body.pixel] = who
        colour = self._body_colour(
            people, body, who, pair[body.face], scene, person_scene, view, shadow
        )
        linear.view(-1, 3)[body.pixel] = colour
        box = fragments.select(~is_body)
        linear.view(-1, 3)[box.pixel] = self._box_colour(
            scene, box, count * vertices, n_boxes, image_scene, box_normals, box_uv, view, shadow
        )
        return Pictures(linear, depth, person)

    def _shadow(self, people: People, person_scene: Tensor, scene: Scene) -> Shadow:
        sun = scene.sun_direction
        across = normalize(
            torch.linalg.cross(sun, sun.new_tensor([0.0, 0.0, 1.0]).expand_as(sun)), dim=1
        )
        turn = torch.stack([across, torch.linalg.cross(sun, across), -sun], 1)
        local = people.vertices @ turn[person_scene].mT
        place = (local[..., :2] / SHADOW_REACH_M + 1) * (SHADOW_SIZE / 2)
        nearness = 1 / (local[..., 2] + 6).clamp_min(0.1)
        count, vertices = nearness.shape
        pair, face = people.outfit.drawn.nonzero(as_tuple=True)
        faces = self.faces[face] + (pair * vertices)[:, None]
        size = (len(sun), SHADOW_SIZE, SHADOW_SIZE)
        place, nearness = place.reshape(-1, 2), nearness.reshape(-1)
        drawn = rasterize(place, nearness, faces, person_scene[pair], size)
        covered = fragments_of(drawn, place, nearness, faces)
        depth = torch.zeros(size, device=sun.device)
        depth.view(-1)[covered.pixel] = covered.inverse_depth
        return Shadow(turn, depth)

    def _light(
        self, scene: Scene, index: Tensor, normal: Tensor, lit: Tensor, wrap: Tensor | float = 0.0
    ) -> Tensor:
        """Irradiance (P, 3) on surfaces of scenes `index` (P,)."""
        towards = (normal * scene.sun_direction[index]).sum(-1, keepdim=True)
        direct = ((towards + wrap) / (1 + wrap)).clamp_min(0) * lit[:, None]
        up = 0.5 + 0.5 * normal[:, 1:2]
        fill = (normal * scene.fill_direction[index]).sum(-1, keepdim=True).clamp_min(0)
        return (
            scene.sun[index] * direct
            + scene.above[index] * up
            + scene.below[index] * (1 - up)
            + scene.fill[index] * fill
        )

    def _room(
        self, scene: Scene, image_scene: Tensor, view: View, shadow: Shadow
    ) -> tuple[Tensor, Tensor]:
        hit = cast_room(scene, image_scene, view)
        index = image_scene[:, None, None].expand_as(hit.depth_m)
        tiles = scene.wall_tiles_per_m[index, hit.wall]
        step = hit.depth_m / view.fx[:, None, None] * tiles * TEXTURE_SIZE
        texture = scene.wall_texture[index, hit.wall].reshape(-1)
        albedo = self.casting.bank.sample(
            texture, (hit.uv_m * tiles[..., None]).reshape(-1, 2), step.reshape(-1)
        )
        albedo = albedo * scene.wall_tint[index, hit.wall].reshape(-1, 3)
        flat = index.reshape(-1)
        point = hit.point_m.reshape(-1, 3)
        light = self._light(scene, flat, hit.normal.reshape(-1, 3), shadow.lit(point, flat))
        colour = albedo * light
        high = scene.room_high_m[image_scene, 1] >= OPEN_HEIGHT_M
        sky = (high[:, None, None] & (hit.wall == 3)).reshape(-1)
        colour = torch.where(sky[:, None], scene.sky[flat].nan_to_num(0.0), colour)
        return colour.view(*hit.depth_m.shape, 3), hit.depth_m.clone()

    def _body_colour(
        self, people: People, part: Fragments, who: Tensor, pair: Tensor, scene: Scene,
        person_scene: Tensor, view: View, shadow: Shadow,
    ) -> Tensor:  # fmt: skip
        vertices = people.vertices.shape[1]
        local = part.vertices - (pair * vertices)[:, None]
        at = Fragments(part.pixel, part.face, local + (who * vertices)[:, None], part.weight,
                       part.inverse_depth)  # fmt: skip
        point = at.interpolate(people.vertices.reshape(-1, 3))
        normal = normalize(at.interpolate(people.normals.reshape(-1, 3)), dim=1)
        cover = at.interpolate(people.outfit.coverage_m.reshape(-1, 5))
        rest_at = Fragments(part.pixel, part.face, local, part.weight, part.inverse_depth)
        rest = rest_at.interpolate(self.casting.body.vertices)
        material = torch.zeros_like(who)
        for garment, name in enumerate(('trousers', 'top', 'jacket', 'shoes', 'hair')):
            material = torch.where(cover[:, garment] > 0, MATERIALS.index(name), material)
        material = torch.where(self.eyes[local[:, 0]], MATERIALS.index('eyes'), material)
        look = people.look
        albedo = look.tone[who, material]
        printed = look.textured[who, material].nonzero()[:, 0]
        owner, cloth = who[printed], material[printed]
        tiles = look.tiles_per_m[owner, cloth]
        flat = torch.stack([rest[:, 0] + 0.8 * rest[:, 2], -rest[:, 1]], 1)[printed]
        footprint = tiles * TEXTURE_SIZE / (part.inverse_depth[printed] * view.fx[0])
        print_colour = self.casting.bank.sample(
            look.texture[owner, cloth], flat * tiles[:, None], footprint
        )
        albedo[printed] = print_colour
        albedo = self._face_paint(rest, material, albedo, look.tone[who, MATERIALS.index('hair')])
        index = person_scene[who]
        image = torch.div(part.pixel, view.height * view.width, rounding_mode='floor')
        to_eye = normalize(view.centre_m[image] - point, dim=1)
        normal = torch.where((normal * to_eye).sum(1, keepdim=True) < 0, -normal, normal)
        # folds and strands finer than the mesh
        ripple = torch.sin(
            rest @ rest.new_tensor([[61.0, -38.0, 17.0], [23.0, 47.0, -59.0], [-42, 19.0, 53]])
        )
        rough = torch.where(material == 0, 0.03, 0.22)[:, None]
        normal = normalize(normal + rough * ripple, dim=1)
        lit = shadow.lit(point + 0.02 * normal, index)
        wrap = torch.where(
            (material == 0)[:, None],
            rest.new_tensor([0.32, 0.16, 0.1]),
            rest.new_tensor([0.08] * 3),
        )
        colour = albedo * self._light(scene, index, normal, lit, wrap)
        half = normalize(to_eye + scene.sun_direction[index], dim=1)
        shine = look.gloss[who, material] * (normal * half).sum(1).clamp_min(0) ** 20 * lit
        near_floor = 1 - 0.35 * torch.exp(-point[:, 1:2].clamp_min(0) / 0.12)
        return colour * near_floor + shine[:, None] * scene.sun[index]

    def _face_paint(self, rest: Tensor, material: Tensor, albedo: Tensor, hair: Tensor) -> Tensor:
        """Lips, brows and eye sockets, where the rest pose has them."""
        x, y, z = rest.unbind(1)
        skin_of_face = (material == 0) & (z > 0.09)

        def oval(cx: float, cy: float, rx: float, ry: float) -> Tensor:
            inside = ((x.abs() - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
            return (skin_of_face & inside)[:, None]

        albedo = torch.where(
            oval(0.0, 0.684, 0.026, 0.009), albedo * albedo.new_tensor([0.95, 0.6, 0.6]), albedo
        )
        albedo = torch.where(oval(0.034, 0.779, 0.02, 0.0045), hair, albedo)
        return torch.where(oval(0.031, 0.756, 0.02, 0.008), albedo * 0.75, albedo)

    def _box_colour(
        self, scene: Scene, part: Fragments, first: int, n_boxes: int, image_scene: Tensor,
        normals: Tensor, uv_m: Tensor, view: View, shadow: Shadow,
    ) -> Tensor:  # fmt: skip
        vertex = part.vertices - first  # image, box, corner
        number = torch.div(vertex[:, 0], 24, rounding_mode='floor')
        image = torch.div(number, n_boxes, rounding_mode='floor')
        index, box = image_scene[image], number % n_boxes
        at = Fragments(part.pixel, part.face,
                       vertex % 24 + ((index * n_boxes + box) * 24)[:, None], part.weight,
                       part.inverse_depth)  # fmt: skip
        normal = at.interpolate(normals.reshape(-1, 3))
        tiles = scene.box_tiles_per_m[index, box]
        uv = at.interpolate(uv_m.reshape(-1, 2)) * tiles[:, None]
        footprint = tiles * TEXTURE_SIZE / (part.inverse_depth * view.fx[0])
        albedo = self.casting.bank.sample(scene.box_texture[index, box], uv, footprint)
        albedo = albedo * scene.box_tint[index, box]
        within = part.pixel - image * (view.height * view.width)
        v = torch.div(within, view.width, rounding_mode='floor')
        u = within - v * view.width
        x, y = (u - view.cx[image]) / view.fx[image], (v - view.cy[image]) / view.fy[image]
        ray = torch.stack([x, y, torch.ones_like(x)], 1)
        ray = (view.rotation[image].mT @ ray[..., None])[..., 0] / part.inverse_depth[:, None]
        point = view.centre_m[image] + ray
        normal = torch.where((normal * ray).sum(1, keepdim=True) > 0, -normal, normal)
        return albedo * self._light(scene, index, normal, shadow.lit(point, index))
