"""Reader of MakeHuman's garments: .mhclo fits and .obj meshes on the base mesh hm08.

Format: MakeHuman's `shared/proxy.py` and `wavefront.py` (makehumancommunity/makehuman).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsb_pose_core.errors import RsbPoseError

BASE_VERTICES = 19158  # of hm08


@dataclass(frozen=True)
class Garment:
    """V vertices that hang on hm08, T texture coordinates and F quads cut into triangles.

    vertex = sum_k weight_k base[anchor_k] + offset * scale, where along each axis
    scale = |base[ends_0] - base[ends_1]| / span, everything in the same unit.
    """

    name: str
    tags: frozenset[str]  # lower case
    anchor: np.ndarray  # V 3
    weight: np.ndarray  # V 3
    offset: np.ndarray  # V 3
    ends: np.ndarray  # 3 2, base vertices, per axis
    span: np.ndarray  # 3, decimetres
    hidden: np.ndarray  # base vertices that the garment hides
    uv: np.ndarray  # T 2, v upward
    faces: np.ndarray  # F 3
    face_uv: np.ndarray  # F 3


def read_garment(path: Path) -> Garment:
    """Read an .mhclo file and the .obj it names; RsbPoseError where either is broken."""
    try:
        fit = _read_fit(path.read_text(encoding='utf-8').splitlines())
        uv, faces, face_uv = _read_mesh(path.parent / fit['obj_file'])
        lines = np.array(fit['lines'], float)
        single = lines.shape[1] == 1
        if single or lines.shape[1] != 9:
            raise ValueError(f'lines of {lines.shape[1]} numbers')
        anchor = lines[:, :3].astype(int)
        if faces.max() >= len(lines) or anchor.max() >= BASE_VERTICES:
            raise ValueError('a vertex number is too large')
        return Garment(
            fit['name'], frozenset(fit['tags']), anchor, lines[:, 3:6], lines[:, 6:],
            np.array([fit['scale'][axis][:2] for axis in 'xyz'], int),
            np.array([fit['scale'][axis][2] for axis in 'xyz'], float),
            np.array(fit['hidden'], int), uv, faces, face_uv,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise RsbPoseError(
            f'cannot read the garment {path} ({error}); expected a MakeHuman .mhclo for hm08 '
            'with 9 numbers per vertex beside its .obj'
        ) from error


def _read_fit(lines: list[str]) -> dict:  # type: ignore[type-arg]
    fit: dict = {'tags': set(), 'scale': {}, 'lines': [], 'hidden': []}  # type: ignore[type-arg]
    section = 'head'
    for line in lines:
        words = line.split()
        if not words or words[0].startswith('#'):
            continue
        key = words[0]
        if key in ('verts', 'delete_verts'):
            section = key
        elif section == 'verts' and _is_number(key):
            fit['lines'].append([float(word) for word in words])
        elif section == 'delete_verts' and key.isdigit():
            fit['hidden'] += _numbers(words)
        elif key == 'tag':
            fit['tags'].add(' '.join(words[1:]).lower())
        elif key in ('x_scale', 'y_scale', 'z_scale'):
            fit['scale'][key[0]] = [float(word) for word in words[1:4]]
        elif key in ('name', 'obj_file'):
            fit[key] = words[1]
    return fit


def _is_number(word: str) -> bool:
    return word.lstrip('-').replace('.', '', 1).isdigit()


def _numbers(words: list[str]) -> list[int]:
    """Numbers and ranges: '3 5 - 7' is 3, 5, 6, 7."""
    numbers: list[int] = []
    for i, word in enumerate(words):
        if word == '-':
            numbers += range(numbers[-1] + 1, int(words[i + 1]))
        else:
            numbers.append(int(word))
    return numbers


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture coordinates (T, 2), triangles (F, 3) and their texture vertices (F, 3)."""
    uv: list[list[float]] = []
    corners: list[list[list[int]]] = []
    for line in path.read_text(encoding='utf-8').splitlines():
        words = line.split()
        if words[:1] == ['vt']:
            uv.append([float(word) for word in words[1:3]])
        elif words[:1] == ['f']:
            polygon = [[int(number) - 1 for number in word.split('/')[:2]] for word in words[1:]]
            corners += [
                [polygon[0], polygon[k], polygon[k + 1]] for k in range(1, len(polygon) - 1)
            ]
    triangles = np.array(corners, int)
    return np.array(uv), triangles[:, :, 0], triangles[:, :, 1]
