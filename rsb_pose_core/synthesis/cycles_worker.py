"""Path-traces stereo pairs with Blender's bpy; runs in any Python that has bpy and numpy.

    python cycles_worker.py --samples 32 --threads 2

It reads one job a line from its standard input, JSON with the names of the files: `scene` (what
`cycles.scene_arrays` made, an .npz), `left` and `right` (8-bit PNG to write), and answers each
with one line of JSON on its standard output: `seconds`, or `error`.

A scene is in the world of the engine (y up, metres); Blender's z is up.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BLENDER_FROM_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
SENSOR_MM = 36.0
SKIN_RADIUS_M = (0.010, 0.0035, 0.002)  # mean free paths of light in skin, red to blue
KEY = 0.16  # log-mean of the luminance that the exposure aims at


def main() -> None:
    """Answer jobs until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--samples', type=int, default=32, help='per pixel (%(default)s)')
    parser.add_argument('--threads', type=int, default=2, help='default: %(default)s')
    args = parser.parse_args()
    # Blender imports its add-on `cycles` by that name: cycles.py beside this file is another
    here = Path(__file__).resolve().parent
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != here]
    with _own_stdout() as answers:
        for line in sys.stdin:
            start = time.perf_counter()
            job = json.loads(line)
            try:
                with np.load(job['scene'], allow_pickle=False) as file:
                    scene = {name: file[name] for name in file.files}
                render_pair(scene, (job['left'], job['right']), args.samples, args.threads)
                answer: dict[str, object] = {'seconds': round(time.perf_counter() - start, 3)}
            except (OSError, KeyError, ValueError, RuntimeError) as error:
                answer = {'error': f'{type(error).__name__}: {error}'}
            print(json.dumps(answer), file=answers, flush=True)


def _own_stdout() -> TextIO:
    """The standard output for answers alone: what Blender prints goes nowhere."""
    answers = os.fdopen(os.dup(1), 'w')
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.close(quiet)
    return answers


def render_pair(
    scene: Mapping[str, Array], files: tuple[str, str], samples: int, threads: int
) -> None:
    """Build a scene, render its two views into PNG files, and free it again."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender = bpy.context.scene
    _settings(blender, scene, samples, threads)
    _geometry(blender, scene)
    _world(blender, scene)
    _lamps(blender, scene)
    with tempfile.TemporaryDirectory() as folder:
        for side, file in enumerate(files):
            blender.camera = _camera(blender, scene, side)
            bpy.ops.render.render()
            result = bpy.data.images['Render Result']
            if side == 0:
                blender.view_settings.exposure = _exposure(blender, result, Path(folder))
            blender.render.image_settings.file_format = 'PNG'
            result.save_render(file, scene=blender)
    bpy.ops.wm.read_factory_settings(use_empty=True)  # frees meshes, pictures and the BVH


def _settings(blender: Any, scene: Mapping[str, Array], samples: int, threads: int) -> None:
    render, cycles = blender.render, blender.cycles
    render.engine = 'CYCLES'
    render.resolution_x, render.resolution_y = map(int, scene['size'])
    render.resolution_percentage = 100
    render.threads_mode, render.threads = 'FIXED', threads
    render.use_persistent_data = True  # the second view reuses the scene of the first
    render.image_settings.color_mode = 'RGB'
    render.dither_intensity = 0.0
    cycles.device = 'CPU'
    cycles.seed = 0
    cycles.samples = samples
    cycles.use_adaptive_sampling, cycles.adaptive_threshold = True, 0.03
    cycles.use_denoising, cycles.denoiser = True, 'OPENIMAGEDENOISE'
    cycles.denoising_prefilter = cycles.denoising_quality = 'FAST'
    cycles.use_light_tree = False  # few lamps: choosing among them cleverly costs a third more
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 5, 4, 3
    cycles.transparent_max_bounces = 12
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect = 8.0
    blender.view_settings.view_transform = 'AgX'


def _camera(blender: Any, scene: Mapping[str, Array], side: int) -> Any:
    """A camera with exactly the intrinsics and pose of view `side`.

    Blender's lens and shifts count in widths of the image. Its pixels span [i, i + 1], the
    engine's [i - 1/2, i + 1/2]; unequal focal lengths are unequal pixel sides.
    """
    import bpy
    import mathutils

    (fx, fy), (cx, cy) = scene['focal_px'][side], scene['centre_px'][side]
    width, height = scene['size']
    data = bpy.data.cameras.new('camera')
    data.sensor_fit, data.sensor_width = 'HORIZONTAL', SENSOR_MM
    data.lens = float(fx * SENSOR_MM / width)
    data.clip_start, data.clip_end = 0.02, 2000.0
    blender.render.pixel_aspect_x = float(max(1.0, fy / fx))
    blender.render.pixel_aspect_y = float(max(1.0, fx / fy))
    data.shift_x = float(((width - 1) / 2 - cx) / width)
    data.shift_y = float((cy - (height - 1) / 2) * fx / fy / width)
    axes = scene['rotation'][side].T * (1, -1, -1)  # Blender's cameras look along -z, y up
    matrix = np.eye(4)
    matrix[:3, :3] = BLENDER_FROM_WORLD @ axes
    matrix[:3, 3] = BLENDER_FROM_WORLD @ scene['position_m'][side]
    camera = bpy.data.objects.new('camera', data)
    camera.matrix_world = mathutils.Matrix(matrix.tolist())
    blender.collection.objects.link(camera)
    return camera


def _geometry(blender: Any, scene: Mapping[str, Array]) -> None:
    """One mesh with a material for each surface."""
    import bpy

    vertices = scene['vertices_m'] @ BLENDER_FROM_WORLD.T
    faces = scene['faces'].astype(np.int32)
    mesh = bpy.data.meshes.new('scene')
    mesh.vertices.add(len(vertices))
    mesh.vertices.foreach_set('co', vertices.astype(np.float32).ravel())
    mesh.loops.add(faces.size)
    mesh.loops.foreach_set('vertex_index', faces.ravel())
    mesh.polygons.add(len(faces))
    mesh.polygons.foreach_set('loop_start', np.arange(0, faces.size, 3, dtype=np.int32))
    uv = scene['uv'][faces.ravel()] * (1, -1) + (0, 1)  # Blender's v is upward
    mesh.uv_layers.new(name='uv').data.foreach_set('uv', uv.astype(np.float32).ravel())
    for material in _materials(scene):
        mesh.materials.append(material)
    mesh.polygons.foreach_set('material_index', scene['surface'].astype(np.int32))
    mesh.polygons.foreach_set('use_smooth', np.ones(len(faces), bool))
    mesh.update(calc_edges=True)
    normals = scene['normals'] @ BLENDER_FROM_WORLD.T
    mesh.normals_split_custom_set_from_vertices(normals.astype(np.float32))
    blender.collection.objects.link(bpy.data.objects.new('scene', mesh))


def _materials(scene: Mapping[str, Array]) -> list[Any]:
    pictures = [
        _picture(scene[f'picture_{number}']) for number in range(int(scene['texture'].max()) + 1)
    ]
    return [_material(scene, row, pictures) for row in range(len(scene['texture']))]


def _picture(rgba: Array) -> Any:
    """An sRGB picture (H, W, 4) uint8."""
    import bpy

    height, width = rgba.shape[:2]
    picture = bpy.data.images.new('texture', width, height, alpha=True)
    picture.alpha_mode = 'CHANNEL_PACKED'
    picture.pixels.foreach_set((rgba[::-1].astype(np.float32) / 255).ravel())
    picture.update()
    return picture


def _material(scene: Mapping[str, Array], row: int, pictures: list[Any]) -> Any:
    import bpy

    material = bpy.data.materials.new(f'surface {row}')
    material.use_nodes = True
    nodes, link = material.node_tree.nodes, material.node_tree.links.new
    shader, end = nodes['Principled BSDF'], nodes['Material Output']
    gloss, bump = float(scene['gloss'][row]), float(scene['bump'][row])
    colour = (*map(float, scene['colour'][row]), 1.0)
    shader.inputs['Roughness'].default_value = 0.85 - 0.6 * gloss
    shader.inputs['Specular IOR Level'].default_value = 0.15 + 0.5 * gloss
    shader.inputs['Base Color'].default_value = colour
    under_skin = float(scene['scatter'][row, 0] - scene['scatter'][row, 2])
    if under_skin > 0.05:  # light wraps redder than bluer: skin
        shader.inputs['Subsurface Weight'].default_value = 0.2
        shader.inputs['Subsurface Radius'].default_value = SKIN_RADIUS_M
        shader.inputs['Subsurface Scale'].default_value = 1.0
    if bump > 0:
        place, noise = nodes.new('ShaderNodeTexCoord'), nodes.new('ShaderNodeTexNoise')
        noise.inputs['Scale'].default_value, noise.inputs['Detail'].default_value = 25.0, 4.0
        relief = nodes.new('ShaderNodeBump')
        relief.inputs['Strength'].default_value = min(1.0, 2 * bump)
        relief.inputs['Distance'].default_value = 0.02
        link(place.outputs['Object'], noise.inputs['Vector'])
        link(noise.outputs[0], relief.inputs['Height'])
        link(relief.outputs['Normal'], shader.inputs['Normal'])
    if scene['texture'][row] >= 0:
        picture, tint = nodes.new('ShaderNodeTexImage'), nodes.new('ShaderNodeVectorMath')
        picture.image = pictures[int(scene['texture'][row])]
        tint.operation = 'MULTIPLY'
        tint.inputs[1].default_value = colour[:3]
        link(picture.outputs['Color'], tint.inputs[0])
        link(tint.outputs['Vector'], shader.inputs['Base Color'])
        if scene['cut_out'][row]:
            solid = nodes.new('ShaderNodeMath')
            solid.operation = 'GREATER_THAN'
            solid.inputs[1].default_value = 0.5
            link(picture.outputs['Alpha'], solid.inputs[0])
            link(solid.outputs[0], shader.inputs['Alpha'])
    if not scene['double_sided'][row]:
        # the camera looks through backs, but they cast shadows
        side, path = nodes.new('ShaderNodeNewGeometry'), nodes.new('ShaderNodeLightPath')
        through, clear = nodes.new('ShaderNodeMath'), nodes.new('ShaderNodeBsdfTransparent')
        mix = nodes.new('ShaderNodeMixShader')
        through.operation = 'MULTIPLY'
        link(side.outputs['Backfacing'], through.inputs[0])
        link(path.outputs['Is Camera Ray'], through.inputs[1])
        link(through.outputs[0], mix.inputs[0])
        link(shader.outputs[0], mix.inputs[1])
        link(clear.outputs[0], mix.inputs[2])
        link(mix.outputs[0], end.inputs['Surface'])
    return material


def _world(blender: Any, scene: Mapping[str, Array]) -> None:
    """The environment map as light and background.

    Column x of the map (H, W, 3) looks at azimuth 2 pi (x + 1/2) / W - pi from z towards x. The
    maps of Cycles have x in their middle and z to the right of it: they are mirrored and turned.
    """
    import bpy

    radiance = scene['environment']
    height, width = radiance.shape[:2]
    picture = bpy.data.images.new('environment', width, height, float_buffer=True)
    pixels = np.ones((height, width, 4), np.float32)
    pixels[..., :3] = np.roll(radiance[::-1, ::-1], width // 4, axis=1)
    picture.colorspace_settings.name = 'Linear Rec.709'
    picture.pixels.foreach_set(pixels.ravel())
    picture.update()
    world = bpy.data.worlds.new('world')
    world.use_nodes = True
    nodes = world.node_tree.nodes
    environment = nodes.new('ShaderNodeTexEnvironment')
    environment.image = picture
    world.node_tree.links.new(environment.outputs[0], nodes['Background'].inputs['Color'])
    blender.world = world


def _lamps(blender: Any, scene: Mapping[str, Array]) -> None:
    """Rectangular lamps, and the sun where the environment map does not hold it."""
    import bpy
    import mathutils

    def place(name: str, data: Any, centre_m: Array, towards: Array) -> None:
        lamp = bpy.data.objects.new(name, data)
        lamp.location = (BLENDER_FROM_WORLD @ centre_m).tolist()
        direction = mathutils.Vector((BLENDER_FROM_WORLD @ towards).tolist())
        lamp.rotation_euler = direction.to_track_quat('-Z', 'Y').to_euler()
        blender.collection.objects.link(lamp)

    for i, radiance in enumerate(scene['lamp_radiance']):
        data = bpy.data.lights.new('lamp', 'AREA')
        data.shape = 'SQUARE'
        data.size = side = float(scene['lamp_side_m'][i])
        data.energy = float(radiance.max() * np.pi * side * side)
        data.color = (radiance / max(float(radiance.max()), 1e-9)).tolist()
        place('lamp', data, scene['lamp_m'][i], scene['lamp_direction'][i])
    strength = float(scene['sun'].max())
    if strength > 0:
        data = bpy.data.lights.new('sun', 'SUN')
        data.energy = strength * np.pi
        data.color = (scene['sun'] / strength).tolist()
        data.angle = float(2 * np.arctan(scene['sun_size']))
        place('sun', data, np.zeros(3), -scene['sun_direction'])


def _exposure(blender: Any, result: Any, folder: Path) -> float:
    """Stops that bring the log-mean luminance of what was rendered to KEY."""
    import bpy

    file = str(folder / 'linear.exr')
    blender.render.image_settings.file_format = 'OPEN_EXR'
    result.save_render(file, scene=blender)
    linear = bpy.data.images.load(file)
    pixels = np.empty(linear.size[0] * linear.size[1] * linear.channels, np.float32)
    linear.pixels.foreach_get(pixels)
    rgb = pixels.reshape(-1, linear.channels)[:, :3]
    luminance = rgb @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    mean = float(np.exp(np.log(np.clip(luminance, 1e-4, 1e4)).mean()))
    return float(np.clip(np.log2(KEY / mean), -10, 10))


if __name__ == '__main__':
    main()
