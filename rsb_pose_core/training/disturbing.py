"""The random changes of augmentation.disturb for a whole batch at once, on the batch's device.

Processors then only cut crops out. Ranges and order are those of augmentation.disturb; its random
numbers are not: they come from a generator of the device.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.augmentation import Augmentation
from rsb_pose_core.training.batches import StereoBatch

BLUR_RADIUS = 4  # px: three and a half of the largest sigma

Images = Float[Tensor, 'batch 3 side side']
Bytes = UInt8[Tensor, 'batch 3 side side']


def windows_only(ranges: Augmentation) -> Augmentation:
    """What is left for the processors: windows of random size and place."""
    return replace(
        ranges, flip=0.0, occluder=0.0, black_edge=0.0, blur=0.0, noise=0.0,
        gain_std=0.0, colour_std=0.0, unequal_std=0.0, gamma_std=0.0,
    )  # fmt: skip


def disturb_batch(batch: StereoBatch, ranges: Augmentation, seed: tuple[int, ...]) -> StereoBatch:
    """Flip, cover, darken and colour crops at random: the same seed, the same device, the same."""
    draw = _Draw(batch.left.device, seed, len(batch))
    batch = flipped(batch, draw.chance(ranges.flip))
    batch = occluded(batch, draw, draw.chance(ranges.occluder))
    views = [
        blackened(view, draw, draw.chance(ranges.black_edge)) for view in (batch.left, batch.right)
    ]
    left, right = _coloured(views, draw, ranges)
    return replace(batch, left=left, right=right)


class _Draw:
    """Random numbers, one for each of `count` pairs."""

    def __init__(self, device: torch.device, seed: tuple[int, ...], count: int) -> None:
        number = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self.device, self.count = device, count
        self._generator = torch.Generator(device).manual_seed(number)

    def uniform(self, low: float, high: float) -> Float[Tensor, ' batch']:
        unit = torch.rand(self.count, generator=self._generator, device=self.device)
        return low + (high - low) * unit

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape)."""
        size = (self.count, *shape)
        return torch.randn(size, generator=self._generator, device=self.device)

    def chance(self, probability: float) -> Bool[Tensor, ' batch']:
        return self.uniform(0.0, 1.0) < probability

    def below(self, limit: Int[Tensor, ' batch']) -> Int[Tensor, ' batch']:
        """Whole numbers from 0, below limits of at least 1."""
        return (self.uniform(0.0, 1.0) * limit).long()  # the product rounds below the limit

    def others(self) -> Int[Tensor, ' batch']:
        """Another pair of the batch for each, where there is one."""
        all_limits = torch.full((self.count,), max(self.count - 1, 1), device=self.device)
        numbers = torch.arange(self.count, device=self.device)
        return (numbers + 1 + self.below(all_limits)) % self.count


def flipped(batch: StereoBatch, chosen: Bool[Tensor, ' batch']) -> StereoBatch:
    """Mirror the scene of the chosen pairs, as augmentation.flip_pair."""
    mirror = torch.tensor(H36M_17.mirror, device=chosen.device)
    last, c = batch.side - 1, batch.calibration

    def pick(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(chosen.view(-1, *[1] * (old.ndim - 1)), new, old)

    def mirrored(uv: Float[Tensor, 'batch joints 2']) -> Float[Tensor, 'batch joints 2']:
        u, v = uv[:, mirror].unbind(-1)
        return torch.stack([last - u, v], -1)

    x, y, z = batch.xyz_m[:, mirror].unbind(-1)
    baseline = c.baseline_m[:, None].to(x.dtype)
    return replace(
        batch,
        left=pick(batch.right.flip(-1), batch.left),
        right=pick(batch.left.flip(-1), batch.right),
        uv_left=pick(mirrored(batch.uv_right), batch.uv_left),
        uv_right=pick(mirrored(batch.uv_left), batch.uv_right),
        xyz_m=pick(torch.stack([baseline - x, y, z], -1), batch.xyz_m),
        visibility=pick(batch.visibility.flip(1)[..., mirror], batch.visibility),
        calibration=StereoCalibration(
            c.fx, c.fy, pick(last - c.cx_right, c.cx_left), pick(last - c.cx_left, c.cx_right),
            c.cy, c.baseline_m,
        ),
    )  # fmt: skip


def occluded(batch: StereoBatch, draw: _Draw, chosen: Bool[Tensor, ' batch']) -> StereoBatch:
    """A rectangle of another pair's left crop before both views, as augmentation.occlude."""
    side = batch.side
    height, width = ((side * draw.uniform(0.08, 0.35)).long() for _ in range(2))
    y, x = draw.below(side - height), draw.below(side - width)
    shift = (side * draw.uniform(-0.02, 0.15)).long()
    x_right = (x - shift).clamp_min(0).minimum(side - width)
    room = side - torch.maximum(height, width)
    top, first = draw.below(room), draw.below(room)
    other = batch.left[draw.others()]
    along = torch.arange(side, device=chosen.device)
    row = along - y[:, None]  # B side, of the rectangle
    inside_rows = (row >= 0) & (row < height[:, None]) & chosen[:, None]
    from_row = (row + top[:, None]).clamp(0, side - 1)[:, None, :, None]
    rows = other.gather(2, from_row.expand_as(other))
    views = []
    for view, start in ((batch.left, x), (batch.right, x_right)):
        column = along - start[:, None]
        inside = (column >= 0) & (column < width[:, None])
        from_column = (column + first[:, None]).clamp(0, side - 1)[:, None, None, :]
        patch = rows.gather(3, from_column.expand_as(rows))
        mask = inside_rows[:, None, :, None] & inside[:, None, None, :]
        views.append(torch.where(mask, patch, view))
    return replace(batch, left=views[0], right=views[1])


def blackened(view: Bytes, draw: _Draw, chosen: Bool[Tensor, ' batch']) -> Bytes:
    """A black strip along one side of the chosen views, as augmentation.blacken_edge."""
    side = view.shape[-1]
    depth = (side * draw.uniform(0.0, 0.15)).long() * chosen
    edge = draw.uniform(0.0, 4.0).long()
    along = torch.arange(side, device=view.device)
    from_edge = torch.stack([along, side - 1 - along])[edge % 2]  # B side
    strip = from_edge < depth[:, None]
    across = edge < 2  # rows, at the top or the bottom
    rows = (strip & across[:, None])[:, None, :, None]
    columns = (strip & ~across[:, None])[:, None, None, :]
    return view.masked_fill(rows | columns, 0)


def _coloured(views: list[Bytes], draw: _Draw, ranges: Augmentation) -> tuple[Bytes, Bytes]:
    """Exposure, colour, gamma, blur and noise, as augmentation.colour_pair."""
    common = ranges.gain_std * draw.normal(1) + ranges.colour_std * draw.normal(3)
    gamma = torch.exp(ranges.gamma_std * draw.normal())
    sigma_blur = draw.uniform(0.3, 1.2) * draw.chance(ranges.blur)
    sigma_noise = draw.uniform(1.0, 9.0) * draw.chance(ranges.noise)
    out = []
    for view in views:
        own = ranges.unequal_std * (draw.normal(1) + 0.5 * draw.normal(3))
        levels = (view.float() / 255) ** gamma[:, None, None, None]
        image = 255 * (levels * torch.exp(common + own)[..., None, None]).clamp(0, 1)
        image = blurred(image, sigma_blur)
        image = image + sigma_noise[:, None, None, None] * draw.normal(*image.shape[1:])
        out.append(image.round_().clamp_(0, 255).to(torch.uint8))
    return out[0], out[1]


def blurred(images: Images, sigma: Float[Tensor, ' batch']) -> Images:
    """Gaussian blur of a sigma in pixels for each image; one of 0 leaves it as it is."""
    offsets = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True))[:, :, None, None, None]  # B taps 1 1 1
    side = images.shape[-1]
    for axis, padding in ((2, (0, 0, BLUR_RADIUS, BLUR_RADIUS)), (3, (BLUR_RADIUS, BLUR_RADIUS))):
        padded = functional.pad(images, (*padding, *(0,) * (4 - len(padding))), mode='reflect')
        images = sum(
            (weights[:, tap] * padded.narrow(axis, tap, side) for tap in range(len(offsets))),
            torch.zeros_like(images),
        )
    return images
