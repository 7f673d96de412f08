"""A z-buffer for triangles of a few pixels, in plain torch, for CPU and CUDA alike.

Every triangle is expanded to the pixel centres inside its bounding box; those inside the triangle
race for their pixel by inverse depth in one integer scatter-max.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NEAR_M = 0.1
DEPTH_BITS = 26  # fractional bits of the inverse depth in the race


@dataclass(frozen=True)
class Fragments:
    """What covers pixels: P covered pixels of a stack of images (N, H, W)."""

    pixel: Tensor  # P, index into the flattened stack
    face: Tensor  # P
    vertices: Tensor  # P 3
    weight: Tensor  # P 3, perspective-correct barycentric weights
    inverse_depth: Tensor  # P, 1/m

    def interpolate(self, attribute: Tensor) -> Tensor:
        """Attribute (V, C) of the vertices at the covered pixels (P, C)."""
        return (attribute[self.vertices] * self.weight[..., None]).sum(1)

    def select(self, keep: Tensor) -> 'Fragments':
        return Fragments(*(value[keep] for value in vars(self).values()))


def rasterize(
    uv: Tensor,
    inverse_depth: Tensor,
    faces: Tensor,
    image: Tensor,
    size: tuple[int, int, int],
    *,
    cull: Tensor | None = None,
    opacity: Tensor | None = None,
    max_fragments: int = 8_000_000,
) -> Tensor:
    """Nearest face at every pixel of a stack of images.

    uv (V, 2): pixels, centre of the top-left pixel (0, 0). inverse_depth (V,): 1/Z, not positive
    where a vertex must not be drawn. faces (F, 3), image (F,): in which image of the stack `size`
    (N, H, W) a face is drawn. cull (F,): leave out when seen from behind. opacity (V,): fragments
    where it interpolates to zero or less are left out. Returns face numbers (N, H, W), -1: none.
    """
    count, height, width = size
    device = uv.device
    race = torch.zeros(count * height * width, dtype=torch.int64, device=device)
    corner = uv[faces]  # F 3 2
    low = torch.ceil(corner.amin(1)).clamp_min(0)
    limit = corner.new_tensor([width - 1, height - 1])
    high = torch.minimum(torch.floor(corner.amax(1)), limit)
    a, b, c = corner.unbind(1)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    drawn = (high >= low).all(1) & (area.abs() > 1e-7) & (inverse_depth[faces] > 0).all(1)
    if cull is not None:
        drawn &= ~(cull & (area > 0))
    index = drawn.nonzero()[:, 0]
    if len(index) == 0:
        return torch.full(size, -1, dtype=torch.int64, device=device)
    faces, image, low, high, a, b, c = (
        value[index] for value in (faces, image, low, high, a, b, c)
    )
    columns = (high[:, 0] - low[:, 0] + 1).long()
    fragments = columns * (high[:, 1] - low[:, 1] + 1).long()
    first = (image * height + low[:, 1].long()) * width + low[:, 0].long()
    # barycentric weights are linear in the pixel: w = value at the first pixel + steps in x and y
    scale = 1 / area[index]
    dx, dy = low[:, 0] - a[:, 0], low[:, 1] - a[:, 1]
    step_b = torch.stack([c[:, 1] - a[:, 1], a[:, 0] - c[:, 0]], 1) * scale[:, None]
    step_c = torch.stack([a[:, 1] - b[:, 1], b[:, 0] - a[:, 0]], 1) * scale[:, None]
    start_b = dx * step_b[:, 0] + dy * step_b[:, 1]
    start_c = dx * step_c[:, 0] + dy * step_c[:, 1]

    def plane(values: Tensor) -> Tensor:
        """Value at the first pixel and its two steps (F, 3) of a linear vertex attribute."""
        v = values[faces]
        u, w = (v[:, 1] - v[:, 0])[:, None], (v[:, 2] - v[:, 0])[:, None]
        origin = v[:, :1] + u * start_b[:, None] + w * start_c[:, None]
        return torch.cat([origin, u * step_b + w * step_c], 1)

    planes = [torch.cat([start_b[:, None], step_b], 1), torch.cat([start_c[:, None], step_c], 1)]
    planes.append(plane(inverse_depth))
    if opacity is not None:
        planes.append(plane(opacity))
    table = torch.stack(planes, 1)  # F P 3
    ends = fragments.cumsum(0)
    total = int(ends[-1])
    steps = torch.arange(1, 1 + (total - 1) // max_fragments, device=device)
    cuts = torch.searchsorted(ends, steps * max_fragments)
    bounds = sorted({0, *cuts.tolist(), len(index)})
    for begin, end in zip(bounds[:-1], bounds[1:], strict=True):
        part = slice(begin, end)
        owner = torch.repeat_interleave(torch.arange(begin, end, device=device), fragments[part])
        number = torch.arange(len(owner), device=device)
        number -= (ends - fragments)[owner] - (ends[begin] - fragments[begin])
        y = torch.div(number, columns[owner], rounding_mode='floor')
        x = number - y * columns[owner]
        value = table[owner]  # fragments P 3
        value = value[..., 0] + value[..., 1] * x[:, None] + value[..., 2] * y[:, None]
        inside = (value[:, 0] >= 0) & (value[:, 1] >= 0) & (value[:, 0] + value[:, 1] <= 1)
        if opacity is not None:
            inside &= value[:, 3] > 0
        keep = inside.nonzero()[:, 0]
        owner = owner[keep]
        entry = ((value[keep, 2] * (1 << DEPTH_BITS)).long() << 32) | (index[owner] + 1)
        where = first[owner] + y[keep] * width + x[keep]
        race.scatter_reduce_(0, where, entry, 'amax', include_self=True)
    return ((race & 0xFFFFFFFF) - 1).view(size)


def fragments_of(
    face_image: Tensor, uv: Tensor, inverse_depth: Tensor, faces: Tensor
) -> Fragments:
    """Covered pixels of a face image (N, H, W) with perspective-correct weights."""
    _, height, width = face_image.shape
    flat = face_image.reshape(-1)
    pixel = (flat >= 0).nonzero()[:, 0]
    face = flat[pixel]
    within = pixel % (height * width)
    y = torch.div(within, width, rounding_mode='floor')
    vertices = faces[face]
    corner, depth = uv[vertices], inverse_depth[vertices]
    b, c = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    dx, dy = (within - y * width) - corner[:, 0, 0], y - corner[:, 0, 1]
    area = b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0]
    wb = (dx * c[:, 1] - dy * c[:, 0]) / area
    wc = (b[:, 0] * dy - b[:, 1] * dx) / area
    weight = torch.stack([1 - wb - wc, wb, wc], 1) * depth
    total = weight.sum(1, keepdim=True)
    return Fragments(pixel, face, vertices, weight / total, total[:, 0])
