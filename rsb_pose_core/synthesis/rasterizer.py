"""A z-buffer for triangles in plain torch, for CPU and CUDA alike.

A triangle with homogeneous pixels p = (u w, v w, w) has over the image three linear functions
q_i(x, y), dual to its corners: q_i >= 0 inside, sum(q) = 1 / w, and an attribute is
sum(q_i a_i) / sum(q_i) (Olano and Greer, Triangle scan conversion using 2D homogeneous
coordinates, 1997). Corners behind the camera need no special care. The near plane and a vertex
opacity are linear as well, so that every row of pixels of a triangle is one span between
half-planes. The spans race for their pixels by nearness in one integer scatter-max.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NEAR_M = 0.05
EDGE_PX = 1e-4  # triangles are this much wider, so that rounding leaves no gaps between them
THINNEST_PX2 = 1e-9  # twice the area below which a triangle is left out


@dataclass(frozen=True)
class Fragments:
    """What P pixels of a stack of images (N, H, W) show of triangles."""

    pixel: Tensor  # P, index into the flattened stack
    face: Tensor  # P
    weight: Tensor  # 3 P, perspective-correct
    inverse_depth: Tensor  # P, 1 / w
    spread: Tensor  # P, twice an attribute's area over the face, times this: its area per pixel

    def interpolate(self, attribute: Tensor, faces: Tensor) -> Tensor:
        """Attribute (C, V) of the vertices, at the fragments (C, P). faces (3, F)."""
        corner = faces[:, self.face]
        total = attribute[:, corner[0]] * self.weight[0]
        for k in (1, 2):
            total.addcmul_(attribute[:, corner[k]], self.weight[k])
        return total


@dataclass(frozen=True)
class Planes:
    """K triangles as linear functions of the pixel."""

    face: Tensor  # K, number of the face
    table: Tensor  # 14 K: c, d/dx, d/dy of q_0..2; first pixel x, y; least, largest 1/w; 1 / det

    def at(self, pixel: Tensor, row: Tensor, size: tuple[int, int, int]) -> Fragments:
        """Fragments of triangles `row` (P,) at pixels (P,) of a stack of images."""
        _, height, width = size
        y = torch.div(pixel, width, rounding_mode='floor')
        x = pixel - y * width
        value = self.table[:, row]
        q = value[0:3] + value[3:6] * (x - value[9]) + value[6:9] * (y % height - value[10])
        q = q.clamp_min(0)
        total = q.sum(0).clamp_min(1e-12)
        inverse_depth = torch.minimum(torch.maximum(total, value[11]), value[12])
        spread = value[13].abs() / inverse_depth**3
        return Fragments(pixel, self.face[row], q / total, inverse_depth, spread)


@dataclass(frozen=True)
class Drawn:
    """Who won the pixels of a stack of images (N, H, W)."""

    race: Tensor  # N*H*W: bits of the nearness, then row of `planes` + 1
    planes: Planes
    size: tuple[int, int, int]

    def fragments(self) -> Fragments:
        """Of every covered pixel."""
        row = self.race & 0xFFFFFFFF
        pixel = row.nonzero()[:, 0]
        return self.planes.at(pixel, row[pixel] - 1, self.size)

    def nearness(self) -> Tensor:
        """What won the race (N, H, W); 0: nothing."""
        return (self.race >> 32).int().view(torch.float32).view(self.size)


def rasterize(
    points: Tensor,
    faces: Tensor,
    image: Tensor,
    size: tuple[int, int, int],
    *,
    value: Tensor | None = None,
    behind: Tensor | None = None,
    only: Tensor | None = None,
    cull: Tensor | None = None,
    opacity: Tensor | None = None,
    lift: Tensor | None = None,
    cut_out: Tensor | None = None,
    solid: Callable[[Fragments], Tensor] | None = None,
    max_fragments: int = 8_000_000,
) -> Drawn:
    """Race of triangles for the pixels of a stack of images `size` (N, H, W).

    points (3, V): homogeneous pixels u w, v w, w; centre of the top-left pixel (0, 0). For a
    perspective w is the depth; for an orthographic image it is 1. faces (3, F) and image (F,): in
    which image a face is drawn. value (V,): positive, larger wins the race; without it 1 / w.
    behind (N, H, W): nearness of what is there already. only (N, H, W): the pixels that matter, if
    not all. cull (F,): leave out when seen from behind. opacity (V,): not drawn where it
    interpolates to zero or less. lift (F,): gain of the nearness in the race. cut_out (F,): faces
    of which only fragments are drawn that `solid` says.
    """
    count, height, width = size
    device = points.device
    race = torch.zeros(count * height * width, dtype=torch.int64, device=device)
    if behind is not None:
        race = behind.reshape(-1).view(torch.int32).long() << 32
    low, high, front, crossing, turned = _bounds(points, faces, height, width)
    keep = (high >= low).all(0) & front.any(0)
    partial = crossing  # bounded by more than their edges
    if cull is not None:
        keep &= ~(cull & turned)
    if opacity is not None:
        there = (opacity > 0)[faces]
        keep &= there.any(0)
        partial = partial | ~there.all(0)
    whole = (keep & ~partial).nonzero()[:, 0]
    kept = torch.cat([whole, (keep & partial).nonzero()[:, 0]])
    corner = faces[:, kept]
    low, high = low[:, kept], high[:, kept]
    q, inverse = _dual(points[:, corner], low)
    bounds = _nearness_bounds(points[2, corner], crossing[kept])
    planes = Planes(kept, torch.cat([q.flatten(0, 1), low, bounds, inverse[None]]))
    limit = q.clone()  # 3 3 K: constant and steps; function; face
    limit[0] += EDGE_PX * torch.hypot(q[1], q[2])
    depth = q.sum(1) if value is None else (q * value[corner]).sum(1)  # 3 K
    if value is not None:
        bounds = torch.stack([value[corner].amin(0), value[corner].amax(0)])
    if lift is not None:
        gain = 1 + lift[kept]
        depth, bounds = depth * gain, bounds * gain
    first = (image[kept] * height + low[1].long()) * width + low[0].long()
    extent = (high - low + 1).long()
    tested = cut_out[kept] if cut_out is not None else None
    rest = q[..., len(whole) :]
    near = -rest.sum(1, keepdim=True)
    near[0] += 1 / NEAR_M
    more = [limit[..., len(whole) :], near]
    if opacity is not None:
        more.append((rest * opacity[corner[:, len(whole) :]]).sum(1, keepdim=True))
    for start, limits in ((0, limit[..., : len(whole)]), (len(whole), torch.cat(more, 1))):
        area = (extent[0] * extent[1])[start : start + limits.shape[2]]
        for begin, end in _portions(area, max_fragments):
            part = slice(start + begin, start + end)
            row, pixel, nearness = _spans(
                limits[..., begin:end], depth[:, part], bounds[:, part], extent[:, part],
                first[part], width, only,
            )  # fmt: skip
            row = row + part.start
            entry = (nearness.view(torch.int32).long() << 32) | (row + 1)
            if tested is not None and solid is not None:
                open_ = tested[row].nonzero()[:, 0]
                seen = solid(planes.at(pixel[open_], row[open_], size))
                entry[open_] = entry[open_] * seen
            race.scatter_reduce_(0, pixel, entry, 'amax', include_self=True)
    return Drawn(race, planes, size)


def _bounds(
    points: Tensor, faces: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """First and last pixel (2, F) of faces, which corners (3, F) lie in front of the near plane,
    which faces (F,) cross it, and which are seen from behind."""
    x, y, w = points
    flat = points[:2] / w.clamp_min(NEAR_M)  # 2 V
    place = flat[:, faces]
    depth = w[faces]
    front = depth >= NEAR_M
    crossing = front.any(0) & ~front.all(0)
    low, high = place.amin(1), place.amax(1)
    a, b, c = place.unbind(1)
    area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
    cut = crossing.nonzero()[:, 0]
    low[:, cut], high[:, cut], area[cut] = _clipped_bounds(points[:, faces[:, cut]])
    limit = torch.tensor([[width - 1.0], [height - 1.0]], device=points.device)
    low = torch.ceil(low - EDGE_PX).clamp_min(0)
    high = torch.minimum(torch.floor(high + EDGE_PX), limit)
    high[0] -= 2 * width * (area.abs() < THINNEST_PX2)
    return low, high, front, crossing, area > 0


def _clipped_bounds(corner: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel bounds (2, C) of faces (3, 3 corners, C) cut at the near plane, and turn (C,)."""
    following = corner.roll(-1, 1)
    share = (NEAR_M - corner[2]) / (following[2] - corner[2])
    met = (share >= 0) & (share <= 1)
    cut = (corner[:2] + share * (following[:2] - corner[:2])) / NEAR_M
    place = torch.cat([corner[:2] / corner[2].clamp_min(NEAR_M), cut], 1)  # 2 6 C
    there = torch.cat([corner[2] >= NEAR_M, met])
    low = torch.where(there, place, torch.inf).amin(1)
    high = torch.where(there, place, -torch.inf).amax(1)
    a, b, c = corner.double().unbind(1)
    turn = (a * torch.linalg.cross(b, c, dim=0)).sum(0)
    return low, high, turn.float()


def _dual(corner: Tensor, origin: Tensor) -> tuple[Tensor, Tensor]:
    """Functions q (3 constant and steps, 3, K) of faces (3, 3 corners, K) about pixels (2, K), and
    the inverse determinant (K,) of their corners."""
    w = corner[2]
    x, y = corner[0] - origin[0] * w, corner[1] - origin[1] * w
    x1, y1, w1 = x.roll(-1, 0), y.roll(-1, 0), w.roll(-1, 0)
    x2, y2, w2 = x.roll(-2, 0), y.roll(-2, 0), w.roll(-2, 0)
    q = torch.stack([x1 * y2 - y1 * x2, y1 * w2 - w1 * y2, w1 * x2 - x1 * w2])
    determinant = (q[0] * w + q[1] * x + q[2] * y)[0]
    inverse = 1 / torch.where(determinant.abs() < 1e-20, 1e-20, determinant)
    return q * inverse, inverse


def _nearness_bounds(depth: Tensor, crossing: Tensor) -> Tensor:
    """Least and largest 1 / w (2, K) of faces with corners at w (3, K)."""
    nearness = 1 / depth.clamp_min(NEAR_M)
    low = torch.where(crossing, 1e-6, nearness.amin(0))
    return torch.stack([low, torch.where(crossing, 1 / NEAR_M, nearness.amax(0))])


def _portions(pixels: Tensor, most: int) -> list[tuple[int, int]]:
    """Ranges of faces whose rectangles hold at most about `most` pixels together."""
    if len(pixels) == 0:
        return []
    ends = pixels.cumsum(0)
    steps = torch.arange(1, 1 + int(ends[-1]) // most, device=pixels.device) * most
    cuts = torch.searchsorted(ends, steps).tolist()
    bounds = sorted({0, *cuts, len(pixels)})
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def _spans(
    limit: Tensor, depth: Tensor, bounds: Tensor, extent: Tensor, first: Tensor, width: int,
    only: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Face, pixel and nearness (T,) of every pixel where all functions of a face are positive.

    limit (3, E, K): constant and steps of E functions; depth (3, K) of the nearness, bounds
    (2, K) of it; extent (2, K): columns and rows of the face's rectangle; first (K,): its first
    pixel. only: of which pixels, if not of all.
    """
    device = first.device
    faces = torch.arange(extent.shape[1], device=device)
    face = torch.repeat_interleave(faces, extent[1])
    ends = extent[1].cumsum(0)
    line = torch.arange(len(face), device=device) - (ends - extent[1])[face]
    down = line.to(depth.dtype)
    constant, across, along = limit[:, :, face]
    constant = constant + along * down
    meets = -constant / across
    start = torch.where(across > 0, meets, 0.0).amax(0).ceil_()
    last = (extent[0] - 1)[face].to(depth.dtype)
    stop = torch.minimum(torch.where(across < 0, meets, torch.inf).amin(0).floor_(), last)
    level = ((across == 0) & (constant < 0)).any(0)
    length = torch.where(level, 0.0, stop - start + 1).clamp_min_(0).long()
    value, step, fall = depth[:, face]
    low, high = bounds[:, face]
    value = value + fall * down
    begin = torch.minimum(torch.maximum(value + step * start, low), high)
    end = torch.minimum(torch.maximum(value + step * stop, low), high)
    step = (end - begin) / (stop - start).clamp_min(1)
    span = torch.repeat_interleave(torch.arange(len(face), device=device), length)
    offset = torch.arange(len(span), device=device)
    offset -= (length.cumsum(0) - length)[span]
    pixel = (first[face] + line * width + start.nan_to_num_(0, 0, 0).long())[span] + offset
    if only is not None:
        marked = only.view(-1)[pixel].nonzero()[:, 0]
        span, offset, pixel = span[marked], offset[marked], pixel[marked]
    return face[span], pixel, begin[span] + step[span] * offset
