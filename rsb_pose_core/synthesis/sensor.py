"""From linear light to what two cameras of one head deliver: bytes with all their faults.

The order is that of a camera: lens (veil, shading, dirt, blur, smear), exposure and white balance,
colour filters and noise on the sensor, demosaicing, tone curve, denoising and sharpening, JPEG.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, grid_sample, interpolate, max_pool2d, pad

from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.levels import LEVELS, Levels
from rsb_pose_core.synthesis.view import View

Bytes = NDArray[np.uint8]

GREY = 0.18  # linear light that auto exposure brings the picture's mean to
LUMA = (0.299, 0.587, 0.114)
BLUR_RADIUS = 4  # of the lens's kernel, px
LARGEST_BLUR_PX = 2.0  # that this kernel holds
SMEAR_TAPS = 7
ENLARGED = 1.25  # crops enlarged beyond this are made at their native size and enlarged as bytes


@dataclass(frozen=True)
class Shutter:
    """What the sensor is told about N = 2B pictures of H x W pixels; left ones first."""

    view: View  # N, where the lens's axis is and how wide it sees
    scale: Tensor  # N, crop pixels per image pixel: above 1 the crop is an enlargement
    mono: Tensor  # N bool
    inside: Tensor | None = None  # N H W bool: others are black borders
    dots: Tensor | None = None  # N H W, light of an infrared projector, about 0..1
    smear_px: Tensor | None = None  # N H W 2, way of each pixel during the exposure, crop pixels


class _Pair:
    """Draws (N, 1, 1, 1) for N = 2B pictures: shared by a pair, or of each camera for itself."""

    def __init__(self, draw: Draw, pictures: int) -> None:
        self.draw, self.pictures = draw, pictures

    def both(self, value: Tensor) -> Tensor:
        return torch.cat([value, value]).view(-1, 1, 1, 1)

    def uniform(self, limits: tuple[float, float], logarithmic: bool = False) -> Tensor:
        draw = self.draw.log_uniform if logarithmic else self.draw.uniform
        return self.both(draw(*limits, self.pictures // 2))

    def chance(self, share: float) -> Tensor:
        return self.both(self.draw.chance(share, self.pictures // 2))

    def gains(self, deviation: float, unequal: float, channels: int = 1) -> Tensor:
        """exp of normal values: N channels 1 1."""
        shared = deviation * self.draw.normal(self.pictures // 2, channels)
        own = unequal * self.draw.normal(self.pictures, channels)
        return (torch.cat([shared, shared]) + own).exp()[:, :, None, None]

    def own_chance(self, share: float) -> Tensor:
        return self.draw.chance(share, self.pictures).view(-1, 1, 1, 1)

    def own_uniform(self, limits: tuple[float, float]) -> Tensor:
        return self.draw.uniform(*limits, self.pictures).view(-1, 1, 1, 1)


@torch.no_grad()
def expose(linear: Tensor, shutter: Shutter, draw: Draw, levels: Levels | None = None) -> Tensor:
    """Pictures (2B, H, W, 3) uint8 RGB of linear light (2B, H, W, 3); left ones first.

    The cameras of a pair share their settings but differ a little in each, as real heads do. All
    is batched on the device of `linear` except the JPEG codec.
    """
    levels = levels or LEVELS['train']
    pair = _Pair(draw, len(linear))
    light = linear.permute(0, 3, 1, 2).contiguous()
    light = _infrared(light, shutter, pair)
    if shutter.smear_px is not None:
        light = smear(light, shutter.smear_px)
    light = _optics(light, shutter, pair, levels)
    raw = _sensor(light, shutter, pair, levels)
    picture = _process(raw, shutter, pair, levels)
    if shutter.inside is not None:
        picture = picture * shutter.inside[:, None]
    bytes_ = (picture * 255).round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    quality = draw.uniform(*levels.quality, len(linear) // 2).repeat(2)
    packed = draw.chance(levels.jpeg_share, len(linear) // 2).repeat(2)
    return _transport(bytes_, shutter.scale, torch.where(packed, quality, 0.0))


def smear(light: Tensor, way_px: Tensor) -> Tensor:
    """Light (N, 3, H, W) gathered while each pixel goes its way (N, H, W, 2), px, half before and
    half after the moment that the picture shows. What moves smears over what stands beside it."""
    moved = (way_px.norm(dim=3).amax((1, 2)) > 0.7).nonzero()[:, 0]
    if len(moved) == 0:
        return light
    still, way = light[moved], way_px[moved].permute(0, 3, 1, 2)
    height, width = light.shape[2:]
    # the fastest way in the neighbourhood, in blocks of 8 px
    speed = way.norm(dim=1, keepdim=True)
    fastest, index = max_pool2d(speed, 8, ceil_mode=True, return_indices=True)
    coarse = _picked(way, index)
    coarse = _picked(coarse, max_pool2d(fastest, 3, 1, 1, return_indices=True)[1])
    lead = interpolate(coarse, (height, width), mode='bilinear', align_corners=False)
    share = (way * lead).sum(1, keepdim=True) / (lead * lead).sum(1, keepdim=True).clamp_min(1e-6)
    both = torch.cat([still, share.clamp(0, 1)], 1)
    x = torch.arange(width, device=light.device) * (2 / width) + (1 / width - 1)
    y = torch.arange(height, device=light.device) * (2 / height) + (1 / height - 1)
    here = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1)
    step = lead.permute(0, 2, 3, 1) * lead.new_tensor([2 / width, 2 / height])
    total = torch.zeros_like(still)
    for tap in range(SMEAR_TAPS):
        at = here + step * ((tap + 0.5) / SMEAR_TAPS - 0.5)
        seen = grid_sample(both, at, padding_mode='border', align_corners=False)
        # a still pixel takes what moves over it, but not its still neighbours
        weight = torch.maximum(seen[:, 3:], both[:, 3:])
        total += still + weight * (seen[:, :3] - still)
    smeared: Tensor = total / SMEAR_TAPS
    return light.index_copy(0, moved, smeared)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Values (N, C, H, W) at flat positions (N, 1, h, w): N C h w."""
    flat = index.flatten(2).expand(-1, values.shape[1], -1)
    return values.flatten(2).gather(2, flat).view(*values.shape[:2], *index.shape[2:])


def _infrared(light: Tensor, shutter: Shutter, pair: _Pair) -> Tensor:
    """Mono sensors see no colour, but near infrared, in which cloth is bright, and its dots."""
    weight = pair.draw.uniform(0.3, 1.0, pair.pictures // 2, 3).repeat(2, 1)
    flat = pair.uniform((0.65, 1.0))
    strength = pair.uniform((0.3, 4.0), True)
    which = shutter.mono.nonzero()[:, 0]
    if len(which) == 0:
        return light
    weight = (weight / weight.sum(1, keepdim=True))[which, :, None, None]
    grey = (light[which] * weight).sum(1, keepdim=True).clamp_min(0)
    mean = grey.mean((1, 2, 3), keepdim=True) + 1e-6
    grey = (grey / mean) ** flat[which]
    if shutter.dots is not None:
        grey = grey + strength[which] * shutter.dots[which][:, None] * (grey + 0.4)
    return light.index_copy(0, which, (grey * mean).expand(-1, 3, -1, -1))


def _optics(light: Tensor, shutter: Shutter, pair: _Pair, levels: Levels) -> Tensor:
    """Exposure, white balance, veil, bloom, shading, dirt and blur."""
    count, height, width = len(light), *light.shape[2:]
    draw, view = pair.draw, shutter.view
    mean = light.mean((1, 2, 3)).view(-1, 1, 1, 1)
    shared = pair.both((mean[: count // 2] + mean[count // 2 :])[:, 0, 0, 0] / 2)
    mean = torch.where(pair.chance(levels.separate_share), mean, shared)
    stops = pair.gains(levels.exposure_ev, levels.unequal_ev).log() + pair.chance(
        levels.saturated_share
    ) * pair.uniform((1.0, 2.0))
    balance = pair.gains(levels.white_balance, levels.unequal_balance, 3)
    gain = GREY / (mean + 1e-5) * 2**stops * balance
    light = light * gain
    veil = pair.uniform(levels.veil) * pair.gains(0.0, 0.2)
    glow = (light - 1).clamp_(0, 8)
    glow = interpolate(_shrunk(glow, 16), (height, width), mode='bilinear', align_corners=False)
    light = light.mul_(1 - veil).add_(glow.mul_(pair.uniform(levels.bloom)))
    light.add_(veil * light.mean((2, 3), keepdim=True))
    u = torch.arange(width, device=light.device) - view.cx[:, None]
    v = torch.arange(height, device=light.device) - view.cy[:, None]
    square = ((v / view.fy[:, None]) ** 2)[:, :, None] + ((u / view.fx[:, None]) ** 2)[:, None]
    shading = pair.uniform(levels.shading) * pair.gains(0.0, levels.unequal_shading)
    passed = (1 + shading * square[:, None]).pow(-2)
    dirty = pair.own_chance(levels.dirt_share) * pair.own_uniform((0.1, 1.0)) * levels.dirt
    spots = draw.normal(count, 1, 7, 7).sub_(0.8).clamp_(0, 1)
    passed = passed * (1 - dirty * interpolate(spots, (height, width), mode='bicubic').clamp(0, 1))
    flicker = pair.chance(levels.flicker_share) * pair.uniform(levels.flicker)
    row = torch.arange(height, device=light.device).view(1, 1, -1, 1)
    period = pair.uniform((60.0, 600.0), True) * shutter.scale.view(-1, 1, 1, 1)
    wave = (2 * torch.pi * (row / period + pair.uniform((0.0, 1.0)))).sin()
    light.mul_(passed * (1 + flicker * wave))
    return _blurred(light, _lens_kernel(shutter, pair, levels))


def _shrunk(picture: Tensor, factor: int) -> Tensor:
    """Mean over areas of about `factor` px square."""
    height, width = picture.shape[2:]
    size = (max(height // factor, 1), max(width // factor, 1))
    if (size[0] * factor, size[1] * factor) == (height, width):
        return avg_pool2d(picture, factor)
    return interpolate(picture, size, mode='area')


def _lens_kernel(shutter: Shutter, pair: _Pair, levels: Levels) -> Tensor:
    """Elliptical Gaussians (N, 3, K, K) for red, green and blue, which are apart a little."""
    count, draw = pair.pictures, pair.draw
    scale = shutter.scale.view(-1, 1, 1, 1)
    blur = pair.uniform(levels.blur_px, True) * pair.gains(0.0, 0.1)
    defocus = pair.own_chance(levels.defocus_share) * pair.own_uniform(levels.defocus_px)
    smear_px = pair.chance(levels.smear_share) * pair.uniform(levels.smear_px) / 12**0.5
    across = ((blur**2 + defocus**2).sqrt() * scale).clamp(0.3, LARGEST_BLUR_PX)
    along = (across**2 + (smear_px * scale) ** 2).sqrt().clamp_max(LARGEST_BLUR_PX)
    angle = pair.uniform((0.0, torch.pi))
    aside = draw.normal(count, 3, 2) * levels.aberration_px * shutter.scale[:, None, None]
    aside[:, 1] = 0
    step = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=blur.device)
    x = step.view(1, 1, 1, -1) - aside[..., :1, None].clamp(-1.5, 1.5)
    y = step.view(1, 1, -1, 1) - aside[..., 1:, None].clamp(-1.5, 1.5)
    far = (x * angle.cos() + y * angle.sin()) / along
    wide = (y * angle.cos() - x * angle.sin()) / across
    kernel = (-0.5 * (far * far + wide * wide)).exp()
    return kernel / kernel.sum((2, 3), keepdim=True)


def _blurred(picture: Tensor, kernel: Tensor, border: str = 'replicate') -> Tensor:
    """Each channel of each picture (N, C, H, W) convolved with its own kernel (N, C, K, K)."""
    count, channels, height, width = picture.shape
    radius = kernel.shape[-1] // 2
    flat = pad(picture.reshape(1, -1, height, width), (radius,) * 4, mode=border)
    return conv2d(flat, kernel.flatten(0, 1)[:, None], groups=count * channels).view_as(picture)


def _sensor(light: Tensor, shutter: Shutter, pair: _Pair, levels: Levels) -> Tensor:
    """Colour filters, noise, saturation, quantisation and demosaicing: linear RGB in 0..1."""
    count, height, width = len(light), *light.shape[2:]
    draw = pair.draw
    scale = shutter.scale.view(-1, 1, 1, 1)
    mono = shutter.mono.view(-1, 1, 1, 1)
    mixing, filters = _colour_filters(pair, levels)
    raw = torch.bmm(mixing, light.flatten(2)).view_as(light).clamp_min_(0)
    grain = draw.normal(count, 1, height, width)
    hot = (grain - 3.7).clamp_min(0) * 4 * pair.own_chance(levels.hot_share)
    # independent enough for the three channels, at a third of the cost; mono has only one
    grains = torch.cat([grain, grain.roll((7, 3), (2, 3)), grain.roll((-5, 11), (2, 3))], 1)
    # what a crop pixel averages of the image's pixels has less noise
    shot = pair.uniform(levels.shot_noise, True) * pair.gains(0.0, 0.1)
    read = pair.uniform(levels.read_noise, True) * pair.gains(0.0, 0.1)
    spread = scale.clamp(0.25, 4.0) ** 2
    deviation = (raw * (shot * spread)).add_(read**2 * spread).sqrt_()
    rows = draw.normal(count, 1, height, 1) * pair.uniform(levels.row_noise)
    columns = draw.normal(count, 1, 1, width) * pair.uniform(levels.pattern_noise) * mono
    raw.addcmul_(grains, deviation).add_(hot + rows + columns).clamp_(0, 1.5)
    steps = 2.0 ** (draw.integer(levels.bits[1] - levels.bits[0] + 1, count // 2) + levels.bits[0])
    steps = pair.both(steps)
    raw.mul_(steps).round_().div_(steps)
    bayer = pair.chance(levels.bayer_share) & ~mono & (scale > 0.6)
    raw = _demosaiced(raw, bayer.view(-1), draw)
    raw = torch.bmm(filters, raw.flatten(2)).view_as(raw)
    which = shutter.mono.nonzero()[:, 0]
    return raw.index_copy_(0, which, raw[which, :1].expand(-1, 3, -1, -1)).clamp_(0, 1)


def _colour_filters(pair: _Pair, levels: Levels) -> tuple[Tensor, Tensor]:
    """What filters make of colours, and what the camera believes undoes it (N, 3, 3); grey stays.

    The more filters overlap, the more noise the undoing brings.
    """
    count, draw = pair.pictures, pair.draw
    overlap = pair.uniform(levels.filter_overlap)[:, 0]
    own = torch.eye(3, device=overlap.device)
    filters = (1 - overlap) * own + overlap / 3
    # the inverse of (1 - a) I + a/3
    undone = (own - overlap / 3) / (1 - overlap)
    error = levels.colour_mix * draw.normal(count // 2, 3, 3).repeat(2, 1, 1)
    error = own + error + levels.unequal_mix * draw.normal(count, 3, 3)
    return filters @ (error / error.sum(2, keepdim=True)), undone


def _demosaiced(raw: Tensor, bayer: Tensor, draw: Draw) -> Tensor:
    """Bilinear demosaicing of pictures (N, 3, H, W) where bayer (N,), in any of four phases."""
    count, _, height, width = raw.shape
    odd_row = torch.arange(height, device=raw.device)[:, None] % 2
    odd_column = torch.arange(width, device=raw.device)[None] % 2
    phases = []
    for first in range(4):
        row, column = odd_row ^ (first // 2), odd_column ^ (first % 2)
        phases.append(torch.stack([(1 - row) * (1 - column), row ^ column, row * column]))
    phases.append(torch.ones_like(phases[0]))
    phase = torch.where(bayer, draw.integer(4, count // 2).repeat(2), 4)
    masked = raw.mul_(torch.stack(phases).to(raw.dtype)[phase])
    cross = raw.new_tensor([[0.0, 0.25, 0.0], [0.25, 1.0, 0.25], [0.0, 0.25, 0.0]])
    square = raw.new_tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])
    point = raw.new_tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]).expand(3, 3, 3)
    kernels = torch.stack([point, torch.stack([square, cross, square])])
    return _blurred(masked, kernels[bayer.long()], 'reflect')


def _process(raw: Tensor, shutter: Shutter, pair: _Pair, levels: Levels) -> Tensor:
    """Tone curve, local contrast, denoising, sharpening and colour: pictures (N, 3, H, W) 0..1."""
    height, width = raw.shape[2:]
    knee = pair.uniform(levels.knee)
    raw = raw * (1 + knee) / (1 + knee * raw)
    tone = raw.clamp_min_(1e-5).pow_(pair.gains(levels.gamma, levels.unequal_tone) / 2.2)
    bend = pair.uniform(levels.s_curve)
    tone = torch.lerp(tone, tone * tone * (3 - 2 * tone), bend)
    luma = (tone * tone.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    colour = tone.sub_(luma)
    # the camera's processor works at the image's own size
    radius = (0.8 * shutter.scale.clamp(1.0, 2.2)).view(-1, 1, 1, 1)
    step = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=raw.device)
    line = (-0.5 * (step / radius) ** 2).exp()
    kernel = line * line.transpose(2, 3)
    smooth = _blurred(luma, kernel / kernel.sum((2, 3), keepdim=True))
    core = pair.uniform(levels.coring)
    detail = luma - smooth
    detail = detail - detail.clamp(-core, core)
    wide = interpolate(_shrunk(luma, 16), (height, width), mode='bilinear', align_corners=False)
    local = pair.uniform(levels.local_contrast)
    luma = smooth + detail * (1 + pair.uniform(levels.sharpening)) + local * (luma - wide)
    contrast = pair.gains(levels.contrast, levels.unequal_tone)
    lift = levels.lift * pair.both(pair.draw.normal(pair.pictures // 2))
    luma = (luma - 0.5) * contrast + 0.5 + lift
    blotchy = interpolate(_shrunk(colour, 4), (height, width), mode='bilinear')
    colour = torch.lerp(colour, blotchy, pair.uniform(levels.chroma_denoising))
    saturation = 1 + levels.saturation * pair.both(pair.draw.normal(pair.pictures // 2))
    saturation = saturation.clamp(0.5, 1.5) * ~pair.chance(levels.grey_share)
    return colour.mul_(saturation).add_(luma).clamp_(0, 1)


def _transport(pictures: Tensor, scale: Tensor, quality: Tensor) -> Tensor:
    """What JPEG (quality 0: none) and the enlargement of small crops leave of (N, H, W, 3) bytes.

    A crop that shows its image enlarged is brought to the image's own size, compressed there and
    enlarged as users' crops are; one that shows it reduced keeps less of the codec's traces.
    """
    array = pictures.cpu().numpy()
    height, width = array.shape[1:3]

    def delivered(job: tuple[int, float, float]) -> None:
        number, factor, grade = job
        picture = array[number]
        if factor > ENLARGED:
            size = (max(round(width / factor), 8), max(round(height / factor), 8))
            picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
        if grade > 0:
            picture = jpeg(picture, round(100 - (100 - grade) * min(max(factor, 0.3), 1.0)))
        if picture.shape != array[number].shape:
            enlarged = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
            picture = np.asarray(enlarged, np.uint8)
        array[number] = picture

    jobs = list(zip(range(len(array)), scale.tolist(), quality.tolist(), strict=True))
    # the codec lets other threads run; on a CPU, other processes have the other cores
    with ThreadPoolExecutor(None if pictures.is_cuda else 1) as pool:
        list(pool.map(delivered, jobs))
    return torch.from_numpy(array).to(pictures.device)


def jpeg(picture: Bytes, quality: int) -> Bytes:
    """Compress and decompress an RGB picture (H, W, 3)."""
    code = cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[..., ::-1])
