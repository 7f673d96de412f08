"""MakeHuman's garments, hair and skins made small: geometry fits, pictures, masks of the face."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis.mhclo import BASE_VERTICES, Garment, read_garment
from rsb_pose_core.synthesis.simplify import simplify

SIZE_PX = 512
QUALITY = 88
GARMENT_FACES, SHOE_FACES, HAIR_FACES = 4200, 1500, 4000
TOLERANCE_M = 0.002
DECIMETRE_M = 0.1
MISFITS = ('male_worksuit01',)  # their pictures are of a revision with another uv
PLAIN_GREY = 190
KINDS = ('suit', 'shoes', 'hat', 'hair')
SEXES = ('both', 'female', 'male')


def bake_wardrobe(folder: Path, body: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of wardrobe.npz (see assets/README.md) from clothes/, hair/ and skins/ in `folder`.

    body: the arrays of body.npz. Raise RsbPoseError where a file is missing or broken.
    """
    made: dict[str, np.ndarray] = {}
    names, kinds, sexes = [], [], []
    for path in _fits(folder):
        garment = read_garment(path)
        name, kind = path.stem, _kind(path, garment)
        names.append(name)
        kinds.append(KINDS.index(kind))
        sexes.append(SEXES.index(_sex(name, garment)))
        made |= {f'{name}/{key}': value for key, value in _fit(garment, kind, body).items()}
    for name, file in _pictures(folder):
        made |= _encode(name, file, _used(made, names, name))
    masks = _face_masks(body)
    return made | {
        'names': np.array(names), 'kinds': np.array(kinds, np.uint8),
        'sexes': np.array(sexes, np.uint8),
        **{f'mask/{name}': _png(mask) for name, mask in masks.items()},
    }  # fmt: skip


def _fits(folder: Path) -> list[Path]:
    found = [*folder.glob('clothes/*/*.mhclo'), *folder.glob('hair/*/*.mhclo')]
    if not found or not (folder / 'skins').is_dir():
        raise RsbPoseError(
            f'no wardrobe in {folder}; expected MakeHuman assets in clothes/*/*.mhclo, '
            'hair/*/*.mhclo and skins/*.png'
        )
    return sorted(found)


def _kind(path: Path, garment: Garment) -> str:
    if path.parent.parent.name == 'hair':
        return 'hair'
    return 'shoes' if 'shoes' in garment.tags else 'hat' if 'hats' in garment.tags else 'suit'


def _sex(name: str, garment: Garment) -> str:
    for sex in ('female', 'male'):
        if sex in garment.tags or name.startswith(sex):
            return sex
    return 'both'


def _fit(garment: Garment, kind: str, body: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays of one garment; vertices are doubled along seams."""
    pairs = np.stack([garment.faces.ravel(), garment.face_uv.ravel()], 1)
    render, number = np.unique(pairs, axis=0, return_inverse=True)
    source = render[:, 0]
    base = body['vertices'].astype(float)
    scale = np.abs(
        base[garment.ends[:, 0], range(3)] - base[garment.ends[:, 1], range(3)]
    ) / garment.span  # fmt: skip
    anchored = (base[garment.anchor] * garment.weight[..., None]).sum(1)
    vertices = (anchored + garment.offset * scale)[source]
    wanted = {'shoes': SHOE_FACES, 'hair': HAIR_FACES}.get(kind, GARMENT_FACES)
    faces = simplify(vertices, number.reshape(-1, 3), wanted, TOLERANCE_M)
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    source, uv = source[used], garment.uv[render[used, 1]]
    hidden = np.zeros(BASE_VERTICES, bool)
    hidden[garment.hidden] = True
    return {
        'anchor': garment.anchor[source].astype(np.uint16),
        'weight': garment.weight[source].astype(np.float32),
        'offset_dm': garment.offset[source].astype(np.float32),
        'ends': garment.ends.astype(np.uint16), 'span_dm': garment.span.astype(np.float32),
        'uv': (uv * [1, -1] + [0, 1]).astype(np.float32),
        'weld': np.unique(source, return_inverse=True)[1].astype(np.uint16),
        'faces': faces.astype(np.uint16),
        'lower': _lower(source, vertices[used], faces, base),
        'hidden': np.packbits(hidden),
    }  # fmt: skip


def _lower(
    source: np.ndarray, vertices: np.ndarray, faces: np.ndarray, base: np.ndarray
) -> np.ndarray:
    """Faces (F,) of the pieces of cloth that hang below the waist: these are dyed apart."""
    piece = np.arange(source.max() + 1)
    while True:
        before = piece.copy()
        least = piece[source[faces]].min(1)
        for k in range(3):
            np.minimum.at(piece, source[faces[:, k]], least)
        if (piece == before).all():
            break
    owner = piece[source[faces[:, 0]]]
    height = vertices[faces].mean(1)[:, 1]
    waist = base[:, 1].min() + 0.55 * np.ptp(base[:, 1])
    lower = np.zeros(len(faces), np.uint8)
    for number in np.unique(owner):
        lower[owner == number] = height[owner == number].mean() < waist
    return lower


def _pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and files of the pictures: garments by folder, hats by file, skins as skin/*."""
    for path in sorted(folder.glob('skins/*.png')):
        yield f'skin/{path.stem.replace("_diffuse", "")}', path
    for part in ('clothes', 'hair'):
        for path in sorted(folder.glob(f'{part}/*/*.png')):
            if path.stem.endswith('_diffuse'):
                yield path.parent.name, path
            elif '_texture' in path.stem:
                yield f'{path.parent.name}/{path.stem.partition("_")[2]}', path


def _used(made: dict[str, np.ndarray], names: list[str], picture: str) -> np.ndarray:
    """Texels (S, S) bool that the triangles of a garment show; all of them for skins."""
    garments = [name for name in names if picture.partition('/')[0].startswith(name)]
    mask = np.full((SIZE_PX, SIZE_PX), 0 if garments else 255, np.uint8)
    for name in garments:
        corners = made[f'{name}/uv'][made[f'{name}/faces']] * SIZE_PX
        cv2.fillPoly(mask, list(np.round(corners % SIZE_PX).astype(np.int32)), 255)
    return mask > 0


def _encode(name: str, file: Path, used: np.ndarray) -> dict[str, np.ndarray]:
    """A picture as JPEG, with a PNG of its alpha where it has holes; occlusion multiplied in.

    Texels that nothing shows take colours of those beside them, so that filtered edges take no
    stray colour. `light` is the mean brightness of what is shown.
    """
    image = _read(file)
    if name in MISFITS:
        image = np.full_like(image[..., :3], PLAIN_GREY)
    colour, alpha = image[..., :3], np.full(image.shape[:2], 255, np.uint8)
    if image.shape[2] == 4:
        alpha = image[..., 3].round().astype(np.uint8)
    shade = file.with_name(file.name.replace('_diffuse', '_ao'))
    if shade != file and shade.exists() and name not in MISFITS:
        occlusion = _read(shade) / 255
        dark = 1 - occlusion[..., :3].mean(2)
        colour *= (1 - dark * (occlusion[..., 3] if occlusion.shape[2] == 4 else 1))[..., None]
    made = {}
    shown = used & (alpha > 200)
    if alpha.min() < 128:
        made[f'alpha/{name}'] = _png(alpha)
    made[f'light/{name}'] = np.array(colour[shown].mean(), np.float32)
    colour = _bleed(colour, shown)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, data = cv2.imencode('.jpg', colour.clip(0, 255).astype(np.uint8), options)
    return made | {f'picture/{name}': data.ravel()}


def _read(file: Path) -> np.ndarray:
    """A picture (S, S, 3 or 4), 0..255, blue first."""
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3:
        raise RsbPoseError(f'cannot read the picture {file}; expected a PNG in RGB or RGBA')
    size = (SIZE_PX, SIZE_PX)
    return cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def _bleed(colour: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Carry the colours of shown texels into the others."""
    weight = shown.astype(np.float32)
    filled = colour * weight[..., None]
    for _ in range(6):
        wide, share = cv2.GaussianBlur(filled, (0, 0), 4), cv2.GaussianBlur(weight, (0, 0), 4)
        reached = share > 1e-3
        grown = np.where(reached[..., None], wide / np.maximum(share, 1e-3)[..., None], 0)
        filled = np.where(weight[..., None] > 0, filled, grown)
        weight = np.maximum(weight, reached)
    return filled


def _png(image: np.ndarray) -> np.ndarray:
    data: np.ndarray = cv2.imencode('.png', image)[1].ravel()
    return data


def _face_masks(body: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Where eyebrows and beards grow, 0..255 on the skin's texture."""
    place = _texel_positions(body)
    skin = body['face_eye'] == 0
    base = body['vertices'].astype(float)
    eyes = base[body['faces'][~skin]].reshape(-1, 3)
    nose = base[body['nose']]
    masks = {'brow': np.zeros((SIZE_PX, SIZE_PX)), 'beard': np.zeros((SIZE_PX, SIZE_PX))}
    x, y, z = np.moveaxis(place, -1, 0)
    eye = eyes[eyes[:, 0] > 0].mean(0)
    along = (np.abs(x) - 0.014) / 0.04  # 0 at the inner end, 1 at the outer
    middle = eye[1] + 0.0185 + 0.006 * np.sin(along.clip(0, 1) * 2.4) - 0.004 * along
    thick = 0.005 * (1 - 0.65 * along.clip(0, 1))
    ends = (along / 0.25).clip(0, 1) * ((1 - along) / 0.35).clip(0, 1)
    brow = (1 - ((y - middle) / thick) ** 2).clip(0, 1) * ends
    masks['brow'] = np.where(z > nose[2] - 0.09, brow, 0)
    mouth_y = nose[1] - 0.048
    lip = np.hypot(x / 0.030, (y - mouth_y) / 0.0125)
    jaw = ((nose[1] - 0.012 - 0.028 * (np.abs(x) / 0.05).clip(0, 1) ** 0.5 + 0.045 * (
        np.abs(x) / 0.06).clip(0, 1) ** 3 - y) / 0.02).clip(0, 1)  # fmt: skip
    below = ((y - (nose[1] - 0.125)) / 0.02).clip(0, 1)
    cheek = ((z - (nose[2] - 0.125)) / 0.05).clip(0, 1)
    masks['beard'] = jaw * below * cheek * ((lip - 1) / 0.15).clip(0, 1)
    return {
        name: cv2.GaussianBlur((mask.clip(0, 1) * 255).astype(np.uint8), (0, 0), 0.7)
        for name, mask in masks.items()
    }


def _texel_positions(body: dict[str, np.ndarray]) -> np.ndarray:
    """Point (S, S, 3) of the mean body at every texel of the skin, far away beside it."""
    place = np.full((SIZE_PX, SIZE_PX, 3), 9.0)
    skin = body['face_eye'] == 0
    points = body['vertices'].astype(float)[body['faces'][skin]]
    corners = body['face_uv'][skin] / 65535 * SIZE_PX - 0.5
    for point, corner in zip(points, corners, strict=True):
        low = np.floor(corner.min(0)).clip(0).astype(int)
        high = np.ceil(corner.max(0)).clip(None, SIZE_PX - 1).astype(int)
        u, v = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        edges = np.array([corner[1] - corner[0], corner[2] - corner[0]]).T
        if u.size == 0 or abs(np.linalg.det(edges)) < 1e-9:
            continue
        share = np.linalg.solve(edges, np.stack([u.ravel(), v.ravel()]) - corner[0][:, None])
        weight = np.stack([1 - share.sum(0), *share], 1)
        within = weight.min(1) > -0.3
        place[v.ravel()[within], u.ravel()[within]] = weight[within] @ point
    return place
