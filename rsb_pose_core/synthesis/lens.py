"""Lenses that bend: raw images from pinhole pictures, and back to rectified ones.

Batched on one device. The models are OpenCV's, with the coefficients of sensor_msgs/CameraInfo.
Pictures and labels go through the same functions, so that labels stay exact.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from rsb_pose_core.calibration import CalibrationError
from rsb_pose_core.rectification import CameraModel
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.view import View

COEFFICIENTS = 12  # k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4; a fisheye has k1 k2 k3 k4
NEWTON_STEPS = 12
NODES_PX = 4  # apart: maps of training pictures are exact there and linear between, to 0.02 px
# of the slope of the distorted radius: below it a lens folds its image back
FOLD = 1e-3


@dataclass(frozen=True)
class Lenses:
    """N lenses with their sensors, and the rectification that belongs to them."""

    k: Tensor  # N 4: fx fy cx cy of the raw image, px
    d: Tensor  # N COEFFICIENTS
    fisheye: Tensor  # N bool: 'equidistant'
    r: Tensor  # N 3 3, rectified axes from the camera's
    p: Tensor  # N 4: fx fy cx cy of the rectified image, px
    size: Tensor  # N 2, width and height of the raw image, px

    def __len__(self) -> int:
        return len(self.k)

    def __getitem__(self, numbers: Tensor) -> 'Lenses':
        """Some of the lenses, in any order."""
        return Lenses(*(value[numbers] for value in vars(self).values()))

    @staticmethod
    def of(models: Sequence[CameraModel], device: torch.device | str = 'cpu') -> 'Lenses':
        """Calibrated cameras, in float64.

        Raises CalibrationError, one sentence, for coefficients of a tilted sensor.
        """
        d = torch.zeros(len(models), COEFFICIENTS, dtype=torch.float64)
        for row, model in zip(d, models, strict=True):
            if model.d[COEFFICIENTS:].any():
                raise CalibrationError(
                    f'the {model.name} has coefficients of a tilted sensor, expected at most '
                    f'{COEFFICIENTS} that are not zero; calibrate it without a tilt'
                )
            used = torch.from_numpy(model.d[:COEFFICIENTS])
            row[: len(used)] = used
        pick = ([0, 1, 0, 1], [0, 1, 2, 2])

        def table(name: str) -> Tensor:
            return torch.stack([torch.from_numpy(getattr(model, name)) for model in models])

        fisheye = torch.tensor([m.distortion_model == 'equidistant' for m in models])
        size = torch.tensor([[m.width, m.height] for m in models], dtype=torch.float64)
        parts = (table('k')[:, *pick], d, fisheye, table('r'), table('p')[:, *pick], size)
        return Lenses(*(part.to(device) for part in parts))

    def distort(self, xy: Tensor) -> Tensor:
        """Rays (N, P, 2: x/z, y/z) of the camera as the lens bends them; NaN where it folds."""
        bent, slope = self._bent(xy)
        return torch.where((slope > FOLD)[..., None], bent, torch.nan)

    def undistort(self, bent: Tensor) -> Tensor:
        """The rays (N, P, 2) that the lens bends to `bent`, by Newton's method; NaN: none."""
        xy = bent
        for _ in range(NEWTON_STEPS):
            found, jacobian = self._bent(xy)[0], self._jacobian(xy)
            (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(-2))
            error = found - bent
            across = d * error[..., 0] - b * error[..., 1]
            along = a * error[..., 1] - c * error[..., 0]
            step = torch.stack([across, along], -1) / (a * d - b * c)[..., None]
            # far steps leave the range in which the polynomial is a lens
            xy = xy - step.clamp(-0.5, 0.5)
        found, slope = self._bent(xy)
        solved = ((found - bent).abs().amax(-1) < 1e-4) & (slope > FOLD)
        return torch.where(solved[..., None], xy, torch.nan)

    def raw_of_rays(self, xy: Tensor) -> Tensor:
        """Raw pixels (N, P, 2) of rays (N, P, 2) of the camera."""
        return _pixels(self.distort(xy), self.k)

    def rays_of_raw(self, uv: Tensor) -> Tensor:
        """Rays (N, P, 2) of the camera that raw pixels (N, P, 2) show."""
        return self.undistort(_rays(uv, self.k))

    def raw_of_rectified(self, uv: Tensor) -> Tensor:
        """Raw pixels (N, P, 2) that the pixels (N, P, 2) of the rectified image show."""
        return self.raw_of_rays(turned(_rays(uv, self.p), self.r.mT))

    def rectified_of_raw(self, uv: Tensor) -> Tensor:
        """Where rectification shows raw pixels (N, P, 2)."""
        return _pixels(turned(self.rays_of_raw(uv), self.r), self.p)

    def _radial(self, square: Tensor) -> tuple[Tensor, Tensor]:
        """Factor by which rays of squared radius (N, P) are stretched; its derivative by it."""
        k1, k2, _, _, k3, k4, k5, k6 = self.d[:, :8, None].unbind(1)
        above = 1 + square * (k1 + square * (k2 + square * k3))
        below = 1 + square * (k4 + square * (k5 + square * k6))
        above_slope = k1 + square * (2 * k2 + 3 * square * k3)
        below_slope = k4 + square * (2 * k5 + 3 * square * k6)
        factor = above / below
        slope = (above_slope - factor * below_slope) / below
        # equidistant: angle (1 + k1 angle^2 + ...) / radius
        radius = square.clamp_min(1e-12).sqrt()
        angle = radius.atan()
        wide = angle * angle
        k = self.d[:, :4, None].unbind(1)
        bent = angle * (1 + wide * (k[0] + wide * (k[1] + wide * (k[2] + wide * k[3]))))
        rate = 1 + wide * (3 * k[0] + wide * (5 * k[1] + wide * (7 * k[2] + 9 * wide * k[3])))
        fish = bent / radius
        fish_slope = (rate / (1 + square) - fish) / (2 * square.clamp_min(1e-12))
        fish_slope = torch.where(square > 1e-6, fish_slope, k[0] - 1 / 3)
        own = self.fisheye[:, None]
        return torch.where(own, fish, factor), torch.where(own, fish_slope, slope)

    def _aside(self) -> tuple[Tensor, ...]:
        """p1, p2, s1 to s4 (N, 1); a fisheye has none."""
        values = self.d * ~self.fisheye[:, None]
        return tuple(values[:, k, None] for k in (2, 3, 8, 9, 10, 11))

    def _bent(self, xy: Tensor) -> tuple[Tensor, Tensor]:
        """Bent rays (N, P, 2), and the slope (N, P) of their radius by the ray's."""
        x, y = xy.unbind(-1)
        square = x * x + y * y
        factor, slope = self._radial(square)
        p1, p2, s1, s2, s3, s4 = self._aside()
        u = x * factor + 2 * p1 * x * y + p2 * (square + 2 * x * x) + square * (s1 + s2 * square)
        v = y * factor + p1 * (square + 2 * y * y) + 2 * p2 * x * y + square * (s3 + s4 * square)
        return torch.stack([u, v], -1), factor + 2 * square * slope

    def _jacobian(self, xy: Tensor) -> Tensor:
        """Derivative (N, P, 2, 2) of bent rays by rays."""
        x, y = xy.unbind(-1)
        square = x * x + y * y
        factor, slope = self._radial(square)
        p1, p2, s1, s2, s3, s4 = self._aside()
        first, second = s1 + 2 * s2 * square, s3 + 2 * s4 * square
        mixed = 2 * x * y * slope
        rows = (
            factor + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x + 2 * x * first,
            mixed + 2 * p1 * x + 2 * p2 * y + 2 * y * first,
            mixed + 2 * p1 * x + 2 * p2 * y + 2 * x * second,
            factor + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x + 2 * y * second,
        )
        return torch.stack(rows, -1).view(*xy.shape, 2)


def turned(xy: Tensor, turn: Tensor) -> Tensor:
    """Rays (N, P, 2) in axes turned by (N, 3, 3); NaN where they no longer point forward."""
    seen = torch.cat([xy, torch.ones_like(xy[..., :1])], -1) @ turn.mT.to(xy)
    ahead = seen[..., 2:] > 1e-6
    return torch.where(ahead, seen[..., :2] / seen[..., 2:], torch.nan)


def _pixels(xy: Tensor, k: Tensor) -> Tensor:
    return xy * k[:, None, :2] + k[:, None, 2:]


def _rays(uv: Tensor, k: Tensor) -> Tensor:
    return (uv - k[:, None, 2:]) / k[:, None, :2]


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixels (1, H * W, 2) row by row."""
    u = torch.arange(width, device=like.device, dtype=like.dtype)
    v = torch.arange(height, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(u, v, indexing='xy'), -1).view(1, -1, 2)


def resample(
    pictures: Tensor, uv: Tensor, height: int, width: int, *, border: str = 'zeros',
    mode: str = 'bilinear',
) -> Tensor:  # fmt: skip
    """Pictures (N, C, H, W) at pixels (N, height * width, 2): N C height width; NaN is black."""
    size = uv.new_tensor([pictures.shape[3], pictures.shape[2]])
    at = ((uv + 0.5) * (2 / size) - 1).nan_to_num(nan=-9.0).to(pictures.dtype)
    grid = at.view(len(pictures), height, width, 2)
    return grid_sample(pictures, grid, mode=mode, padding_mode=border, align_corners=False)


def raw_grid(view: View, lenses: Lenses, turn: Tensor) -> Tensor:
    """Where the pinhole pictures of `view` show each raw pixel: N, height * width, 2.

    turn (N, 3, 3): the view's axes from the lenses'. All sensors have the size of the first.
    """
    width, height = (int(side) for side in lenses.size[0])
    rays = lenses.rays_of_raw(pixel_grid(height, width, lenses.k).expand(len(lenses), -1, -1))
    intrinsics = torch.stack([view.fx, view.fy, view.cx, view.cy], 1).to(rays)
    return _pixels(turned(rays, turn.to(rays)), intrinsics)


def rectification_grid(lenses: Lenses) -> Tensor:
    """Where the raw images show each pixel of the rectified ones: N, height * width, 2."""
    width, height = (int(side) for side in lenses.size[0])
    return lenses.raw_of_rectified(pixel_grid(height, width, lenses.k).expand(len(lenses), -1, -1))


@dataclass(frozen=True)
class LensSpace:
    """Lenses that training pairs went through before they were rectified."""

    share: float = 0.6  # of pairs; the others come from pinholes
    rational_share: float = 0.25  # of lenses
    fisheye_share: float = 0.15
    k1: tuple[float, float] = (-0.34, 0.02)  # of 'plumb_bob'; the heads' own are -0.31 to -0.17
    turn_deg: float = 0.5  # deviation of the angles that rectification turns by
    zoom: tuple[float, float] = (
        0.98,
        1.12,
    )  # raw focal length / rectified: above 1, black corners
    residual_px: tuple[float, float] = (0.03, 0.6)  # log-uniform, at the image's edge


@dataclass(frozen=True)
class LensResidual:
    """N rectified pictures whose calibration is not quite their lens's.

    A picture that `view` draws is the ideal one; `true` lenses bend it, `assumed` ones unbend it.
    """

    true: Lenses
    assumed: Lenses

    def __getitem__(self, numbers: Tensor) -> 'LensResidual':
        """Those of some pictures, in any order."""
        return LensResidual(self.true[numbers], self.assumed[numbers])

    def shown(self, uv: Tensor, view: View) -> Tensor:
        """Where the rectified pictures show what the ideal ones show at pixels uv (N, P, 2)."""
        return self._through(uv, view, self.true, self.assumed)

    def source(self, uv: Tensor, view: View) -> Tensor:
        """Where the ideal pictures show what the rectified ones show at pixels uv (N, P, 2)."""
        return self._through(uv, view, self.assumed, self.true)

    def raw_pictures(self, pictures: Tensor, view: View) -> tuple[Tensor, Tensor]:
        """What the sensors see of pictures (N, C, H, W): as large a part of the raw images, at the
        same scale; and which of its pixels (N, H, W) lie on the sensor."""
        height, width = pictures.shape[2:]
        intrinsics, window = _intrinsics(view), self._window(view)

        def ideal(place: Tensor) -> Tensor:
            rays = self.true.undistort(_rays(place + window, intrinsics))
            return _pixels(turned(rays, self.true.r), intrinsics)

        uv = _between_nodes(ideal, view)
        raw = _rays(pixel_grid(height, width, view.fx) + window, intrinsics)
        raw = _pixels(raw, self.true.k)
        inside = ((raw >= -0.5) & (raw < self.true.size[:, None] - 0.5)).all(-1)
        inside = inside & ~uv[..., 0].isnan()
        seen = resample(pictures, uv, height, width, border='border')
        return seen, inside.view(-1, height, width)

    def rectified(self, raw: Tensor, view: View) -> Tensor:
        """Rectify what raw_pictures() gave, after the sensor's faults: N C H W."""
        intrinsics, window = _intrinsics(view), self._window(view)

        def there(place: Tensor) -> Tensor:
            rays = turned(_rays(place, intrinsics), self.assumed.r.mT)
            seen = self.assumed.raw_of_rays(rays)
            return _pixels(_rays(seen, self.true.k), intrinsics) - window

        return resample(raw, _between_nodes(there, view), *raw.shape[2:])

    def _window(self, view: View) -> Tensor:
        """Shift (N, 1, 2) of the raw part against the picture, so that their middles agree."""
        middle = view.fx.new_tensor([(view.width - 1) / 2, (view.height - 1) / 2])
        middle = middle.expand(len(view), 1, 2)
        rays = turned(_rays(middle, _intrinsics(view)), self.true.r.mT)
        return (_pixels(self.true.distort(rays), _intrinsics(view)) - middle).nan_to_num(nan=0.0)

    def _through(self, uv: Tensor, view: View, first: Lenses, second: Lenses) -> Tensor:
        rays = turned(_rays(uv, _intrinsics(view)), first.r.mT)
        rays = second.rays_of_raw(first.raw_of_rays(rays))
        return _pixels(turned(rays, second.r), _intrinsics(view))


def _between_nodes(place: Callable[[Tensor], Tensor], view: View) -> Tensor:
    """A smooth map of pixels (1, P, 2) to (N, P, 2), for all pixels of `view` row by row."""
    rows, columns = (math.ceil((side - 1) / NODES_PX) + 1 for side in (view.height, view.width))
    x = torch.linspace(0, view.width - 1, columns, device=view.fx.device)
    y = torch.linspace(0, view.height - 1, rows, device=view.fx.device)
    nodes = torch.stack(torch.meshgrid(x, y, indexing='xy'), -1).view(1, -1, 2)
    coarse = place(nodes).mT.unflatten(2, (rows, columns))
    size = (view.height, view.width)
    return interpolate(coarse, size, mode='bilinear', align_corners=True).flatten(2).mT


def _intrinsics(view: View) -> Tensor:
    return torch.stack([view.fx, view.fy, view.cx, view.cy], 1)


def sample_lenses(
    draw: Draw, space: LensSpace, focal_px: Tensor, size: Tensor
) -> LensResidual:  # fmt: skip
    """Lenses of B pairs, 2B in all (left, then right), for rectified images of focal lengths (B,)
    and sizes (B, 2). The two of a pair are of one make and differ a little."""
    pairs = len(focal_px)
    both = torch.cat([focal_px, focal_px])

    def make(low: float, high: float, unequal: float) -> Tensor:
        value = draw.uniform(low, high, pairs).repeat(2)
        return value * (1 + unequal * draw.normal(2 * pairs))

    kind = draw.uniform(0.0, 1.0, pairs).repeat(2)
    rational = kind < space.rational_share
    fisheye = ~rational & (kind < space.rational_share + space.fisheye_share)
    real = draw.chance(space.share, pairs).repeat(2)
    k1 = make(*space.k1, 0.02)
    # these k2 keep the radius growing with the angle: k2 > 9/20 k1^2
    k2 = k1 * k1 * make(0.6, 1.2, 0.05)
    k4 = make(0.05, 0.6, 0.02)
    d = torch.zeros(2 * pairs, COEFFICIENTS, device=focal_px.device)
    d[:, 0] = torch.where(rational, k4 * make(0.4, 0.9, 0.01), k1)
    d[:, 1] = torch.where(rational, 0.0, k2)
    d[:, 2:4] = 5e-4 * draw.normal(2 * pairs, 2)
    d[:, 5] = torch.where(rational, k4, 0.0)
    fish = draw.normal(2 * pairs, 4) * d.new_tensor([0.03, 0.01, 0.0, 0.0])
    d[:, :4] = torch.where(fisheye[:, None], fish, d[:, :4])
    d = d * real[:, None]
    zoom = torch.where(real, make(*space.zoom, 0.003), 1.0)
    angle = torch.deg2rad(space.turn_deg * draw.normal(2 * pairs, 3)) * real[:, None]
    r = rotations.about_x(angle[:, 0]) @ rotations.about_y(angle[:, 1])
    r = r @ rotations.about_z(angle[:, 2])
    middle = (size.repeat(2, 1) - 1) / 2
    middle = middle + 0.01 * size.repeat(2, 1) * draw.normal(2 * pairs, 2) * real[:, None]
    k = torch.cat([(both * zoom)[:, None].expand(-1, 2), middle], 1)
    p = torch.cat([both[:, None].expand(-1, 2), (size.repeat(2, 1) - 1) / 2], 1)
    true = Lenses(k, d, fisheye & real, r, p, size.repeat(2, 1))
    # calibration errs where its board was not: the errors of k1 and of the focal length cancel
    # at three quarters of the way to the edge
    edge = (size[:, 0] / 2 / focal_px).repeat(2).clamp_max(1.0)
    error = draw.log_uniform(*space.residual_px, pairs).repeat(2) * draw.normal(2 * pairs) * real
    slip = error / (both * edge**3 * 0.44)
    wrong_k, wrong_d = k.clone(), d.clone()
    wrong_d[:, 0] += slip
    wrong_k[:, :2] *= (1 - 0.56 * slip * edge**2)[:, None]
    return LensResidual(true, Lenses(wrong_k, wrong_d, true.fisheye, r, p, true.size))
