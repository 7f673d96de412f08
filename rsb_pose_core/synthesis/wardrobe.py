"""MakeHuman's garments, shoes, hats, hair and skins (CC0, see assets/README.md)."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis.body import ASSET, Body, read_asset
from rsb_pose_core.synthesis.layers import Sheet, welds

WARDROBE = ASSET.with_name('wardrobe.npz')
KINDS = ('suit', 'shoes', 'hat', 'hair')
SEXES = ('both', 'female', 'male')
GREY_SRGB = 175  # mean of pictures in greys
GREY = ((GREY_SRGB / 255 + 0.055) / 1.055) ** 2.4  # the same in linear light
STRANDS = 'hair/strands'  # tileable hair
# the first two go with any skin
IRIS_TONES = {'black': (34, 22, 16), 'brown': (70, 42, 24), 'hazel': (110, 80, 42),
              'blue': (92, 128, 160), 'green': (92, 116, 80)}  # fmt: skip


@dataclass(frozen=True)
class Garment:
    """A garment of V vertices that fits any shape.

    vertex = sum_k weight_k base[anchor_k] + offset * scale, where along each axis
    scale = |base[ends_0] - base[ends_1]| / span (MakeHuman's rule).
    """

    name: str
    kind: str  # one of KINDS
    sex: str  # one of SEXES
    picture: tuple[str, ...]  # names of pictures that it may show
    sheet: Sheet  # material 0: upper or only, 1: lower piece
    anchor: Tensor  # V 3
    weight: Tensor  # V 3
    offset: Tensor  # V 3, decimetres of MakeHuman's standard body
    ends: Tensor  # 3 2
    span: Tensor  # 3
    hidden: Tensor  # 19158 bool, base vertices that it hides

    def fit(self, base_m: Tensor) -> Tensor:
        """Rest vertices (B, V, 3) on bodies whose rest vertices are (B, 19158, 3)."""
        ends = torch.stack([base_m[:, self.ends[axis], axis] for axis in range(3)], 1)  # B 3 2
        scale = (ends[..., 0] - ends[..., 1]).abs() / self.span
        anchored = (base_m[:, self.anchor] * self.weight[..., None]).sum(2)
        return anchored + self.offset * scale[:, None]


class Wardrobe:
    """All garments on one device, and the pictures that they and the skins show."""

    def __init__(self, body: Body, path: Path = WARDROBE) -> None:
        """Raise RsbPoseError when the asset is missing or is no wardrobe."""
        self._path = path
        self._values = read_asset(path, 'wardrobe', ('names', 'kinds', 'sexes', 'mask/brow'))
        self._body = body
        self.device = body.device
        self._shown = [key.removeprefix('picture/') for key in self._of('picture/')]
        try:
            self.garments = {str(name): self._garment(str(name)) for name in self._values['names']}
        except (KeyError, IndexError, RuntimeError) as error:
            raise self._broken(error) from error
        self.skins = sorted(name for name in self._shown if name.startswith('skin/'))
        self.bearded = {f'{name}/beard' for name in self.skins if 'female' not in name}
        self.eyes = [f'eye/{name}' for name in IRIS_TONES]

    def of_kind(self, kind: str) -> list[Garment]:
        """Garments of one of KINDS."""
        return [garment for garment in self.garments.values() if garment.kind == kind]

    def grey(self, picture: str) -> str:
        """Name of the same picture in greys."""
        return picture if self._is_hair(picture) else f'{picture}/grey'

    def skin_tone(self, name: str) -> Tensor:
        """Mean colour (3,) of a skin on the trunk, linear light."""
        colour = self._image(f'picture/{name}', cv2.IMREAD_COLOR_RGB)
        height, width = colour.shape[:2]
        trunk = colour[height // 8 : height // 2, width // 4 : width // 2] / 255.0
        linear = ((trunk + 0.055) / 1.055) ** 2.4
        return torch.as_tensor(linear.mean((0, 1)), dtype=torch.float32, device=self.device)

    def pictures(self) -> dict[str, np.ndarray]:
        """Square sRGB pictures, uint8 RGBA, by name.

        Skins with eyebrows (`skin/NAME`) and for men with a beard too (`skin/NAME/beard`), eyes
        (`eye/COLOUR`), tileable hair (STRANDS), garments (`NAME`), the same in greys that take
        any colour (`NAME/grey`), and hair, always in greys.
        """
        brow, beard = (
            self._image(f'mask/{name}', 0)[..., None] / 255.0 for name in ('brow', 'beard')
        )
        made = {}
        for name in self._shown:
            colour = self._image(f'picture/{name}', cv2.IMREAD_COLOR_RGB)
            alpha = np.full(colour.shape[:2], 255, np.uint8)
            if f'alpha/{name}' in self._values:
                alpha = self._image(f'alpha/{name}', 0)
            if name.startswith('skin/'):
                dark = 0.3 * colour
                hairy = colour * (1 - 0.8 * brow) + 0.8 * brow * dark
                made[name] = _rgba(hairy, alpha)
                if f'{name}/beard' in self.bearded:
                    made[f'{name}/beard'] = _rgba(
                        hairy * (1 - 0.75 * beard) + 0.75 * beard * dark, alpha
                    )
                continue
            grey = _greys(colour, float(self._values[f'light/{name}']))
            if self._is_hair(name):
                made[name] = _rgba(grey, _thick(alpha))
            else:
                made[name] = _rgba(colour, alpha)
                made[f'{name}/grey'] = _rgba(grey, alpha)
        made |= {f'eye/{name}': _eye(tone) for name, tone in IRIS_TONES.items()}
        return made | {STRANDS: _strands()}

    def _of(self, prefix: str) -> list[str]:
        return [key for key in self._values if key.startswith(prefix)]

    def _is_hair(self, name: str) -> bool:
        return name in self.garments and self.garments[name].kind == 'hair'

    def _broken(self, error: Exception | str) -> RsbPoseError:
        return RsbPoseError(
            f'cannot read the wardrobe asset {self._path} ({error}); expected the file that '
            'rsb-pose bake writes: reinstall rsb_pose_core or bake it again'
        )

    def _image(self, key: str, flag: int) -> np.ndarray:
        data = self._values[key]
        image = cv2.imdecode(data, flag) if data.size else None
        if image is None:
            raise self._broken(f'{key} is no picture')
        return np.asarray(image)

    def _garment(self, name: str) -> Garment:
        values, device = self._values, self._body.device
        number = list(values['names']).index(name)

        def tensor(key: str, dtype: torch.dtype = torch.float32) -> Tensor:
            array = values[f'{name}/{key}'].astype(np.float32)
            return torch.as_tensor(array, dtype=dtype, device=device)

        anchor, weight = tensor('anchor', torch.long), tensor('weight')
        # as MakeHuman does: a garment's vertex follows the bones of its anchors
        share = weight.abs() / weight.abs().sum(1, keepdim=True)
        skin = (self._body.skin[anchor] * share[..., None]).sum(1)
        hidden = np.unpackbits(values[f'{name}/hidden'])[: len(self._body.vertices)]
        family = name.partition('_')[0] if KINDS[values['kinds'][number]] == 'hat' else name
        return Garment(
            name, KINDS[values['kinds'][number]], SEXES[values['sexes'][number]],
            tuple(p for p in self._shown if p == name or p.startswith(family) and '/' in p),
            Sheet(
                skin, tensor('uv'), tensor('faces', torch.long), welds(tensor('weld', torch.long)),
                tensor('lower', torch.long),
            ),
            anchor, weight, tensor('offset_dm'), tensor('ends', torch.long), tensor('span_dm'),
            torch.as_tensor(hidden, dtype=torch.bool, device=device),
        )  # fmt: skip


def _rgba(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.concatenate([colour.clip(0, 255), alpha[..., None]], 2).astype(np.uint8)


def _greys(colour: np.ndarray, mean: float) -> np.ndarray:
    """Luminance (S, S, 3) about GREY_SRGB, its contrast softened; mean: brightness shown."""
    light = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY).astype(np.float32) + 8
    return np.repeat(((light / (mean + 8)) ** 0.7 * GREY_SRGB)[..., None], 3, 2)


def _strands(size: int = 256) -> np.ndarray:
    """Tileable hair, hanging down, in greys."""
    rng = np.random.default_rng(0)
    noise = sum(
        cv2.GaussianBlur(np.tile(rng.normal(size=(size, size)), (3, 3)), (0, 0), x, sigmaY=y)[
            size : 2 * size, size : 2 * size
        ] * (x * y) ** 0.5 * gain
        for x, y, gain in ((0.8, 30.0, 1.0), (3.0, 40.0, 0.8), (12.0, 25.0, 0.5))
    )  # fmt: skip
    grey = GREY_SRGB * (1 + 0.22 * noise / np.std(noise))
    return _rgba(np.repeat(grey[..., None], 3, 2), np.full((size, size), 255, np.uint8))


def _thick(alpha: np.ndarray) -> np.ndarray:
    """Alpha of hair made bolder, as filtering thins what is as fine as a pixel."""
    return (cv2.GaussianBlur(alpha, (0, 0), 1.2).astype(float) * 1.8).clip(0, 255).astype(np.uint8)


def _eye(tone: tuple[int, int, int], size: int = 64) -> np.ndarray:
    """An eye seen from the front: the ball's outline touches the picture's border."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, size),) * 2)
    radius = np.hypot(x, y)[..., None]
    ball = np.array([226, 220, 214]) * (1 - 0.25 * radius.clip(0, 1) ** 3)
    iris = np.array(tone) * (0.75 + 0.5 * (radius / 0.46).clip(0, 1) ** 2)
    iris = np.where(radius > 0.42, iris * 0.4, iris)
    picture = np.where(radius < 0.46, iris, ball)
    picture = np.where(radius < 0.19, 8.0, picture)
    return _rgba(picture, np.full((size, size), 255, np.uint8))
