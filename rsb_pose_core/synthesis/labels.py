"""What is true in a rendered pair: joints, pixels, visibility and boxes of every person."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rsb_pose_core.skeleton import Skeleton

VISIBLE, SELF_OCCLUDED, OCCLUDED, OUTSIDE = range(4)
PERSON_SLOTS = 5  # the subject and up to four others

# How far a joint may lie behind the surface that shows it, m, for a person of GROWN_M. Joints
# lie inside the body (hips deepest) and clothes add to it; joints of the face lie on the skin.
FLESH_M = {'pelvis': 0.26, 'spine': 0.24, 'neck': 0.17, 'nose': 0.06, 'head': 0.14}
FLESH_M |= dict.fromkeys(('left_hip', 'right_hip'), 0.22)
FLESH_M |= dict.fromkeys(('left_shoulder', 'right_shoulder'), 0.15)
FLESH_M |= dict.fromkeys(('left_eye', 'right_eye', 'left_ear', 'right_ear'), 0.06)
FLESH_ELSEWHERE_M = 0.11
GROWN_M = 1.7


@dataclass(frozen=True)
class JointLabels:
    """Joints of one skeleton for B scenes and P person slots; NaN where a slot is empty."""

    xyz_m: Tensor  # B P J 3, rectified left optical frame
    uv_left: Tensor  # B P J 2, where the left picture shows the joint
    uv_right: Tensor  # B P J 2
    visibility: Tensor  # B P 2 J uint8: left, right; OUTSIDE where a slot is empty


@dataclass(frozen=True)
class PersonLabels:
    """All people of B scenes in P slots; slot 0 is the subject, slots 1.. are others."""

    h36m: JointLabels
    coco: JointLabels
    box_left: Tensor  # B P 4, x y width height of what the picture shows of a person, NaN: nothing
    box_right: Tensor
    present: Tensor  # B P bool


def flesh_m(skeleton: Skeleton, device: torch.device | str = 'cpu') -> Tensor:
    """Depth (J,) up to which the surface before a joint still shows it, for a grown person."""
    values = [FLESH_M.get(name, FLESH_ELSEWHERE_M) for name in skeleton.joint_names]
    return torch.tensor(values, device=device)


def visibility(
    depth_m: Tensor, surface_m: Tensor, own: Tensor, outside: Tensor, flesh: Tensor
) -> Tensor:
    """Visibility codes of joints (...) from what the depth buffer shows at each joint's pixel.

    depth_m: optical depth of the joint; surface_m: of the surface that its pixel shows; own: that
    surface is the person's; outside: the pixel is not in the picture; flesh: m of the person that
    may lie before the joint. A joint is self-occluded where its own surface lies nearer than the
    flesh round it, occluded where a surface that is not the person's lies before the joint.
    """
    behind_self = torch.where(surface_m < depth_m - flesh, SELF_OCCLUDED, VISIBLE)
    behind_other = torch.where(surface_m < depth_m, OCCLUDED, VISIBLE)
    return torch.where(outside, OUTSIDE, torch.where(own, behind_self, behind_other))


def boxes_of(owner: Tensor, count: int) -> Tensor:
    """Boxes (N, count, 4: x, y, width, height) of each person's pixels in pictures (N, H, W).

    owner: number of the person each pixel shows, -1 none; NaN where a picture shows nothing of a
    person. A box reaches from the first to the last pixel, both included.
    """
    images, height, width = owner.shape
    image, v, u = (owner >= 0).nonzero(as_tuple=True)
    row = image * count + owner[image, v, u]
    far = float(max(height, width))
    low = torch.full((images * count, 2), far, device=owner.device)
    high = torch.full((images * count, 2), -1.0, device=owner.device)
    place = torch.stack([u, v], 1).float()
    index = row[:, None].expand(-1, 2)
    low.scatter_reduce_(0, index, place, 'amin')
    high.scatter_reduce_(0, index, place, 'amax')
    box = torch.cat([low, high - low + 1], 1)
    box = torch.where((high < 0).any(1, keepdim=True), torch.nan, box)
    return box.view(images, count, 4)


@dataclass(frozen=True)
class Sight:
    """Both pictures of B scenes, as labels see them: images 0..B-1 left, then right."""

    depth_m: Tensor  # 2B H W
    owner: Tensor  # 2B H W, number of the person, -1: nobody
    inside: Tensor  # 2B H W, pixels that lie on the sensor


@dataclass(frozen=True)
class SeenJoints:
    """Joints of P people in the true cameras of their scene: left, right."""

    xyz_m: Tensor  # P J 3, nominal rectified left optical frame
    uv: Tensor  # 2 P J 2, where they were drawn
    depth_m: Tensor  # 2 P J, in the cameras that took the pictures
    shown: Tensor  # 2 P J 2, where the delivered pictures show them: elsewhere behind a bad lens


def joint_labels(
    seen: SeenJoints, skeleton: Skeleton, scale: Tensor, sight: Sight, scene: Tensor,
    slot: Tensor,
) -> JointLabels:  # fmt: skip
    """Labels of P people: their size against a grown person's, scene and slot (P,)."""
    scenes = len(sight.depth_m) // 2
    height, width = sight.depth_m.shape[1:]
    flesh = flesh_m(skeleton, scale.device) * scale[:, None]
    number = torch.arange(len(scene), device=scale.device)[:, None]
    codes = []
    for side in range(2):
        depth, limit = seen.depth_m[side], seen.uv.new_tensor([width - 0.5, height - 0.5])
        u, v = seen.uv[side].round().clamp(torch.zeros_like(limit), limit - 0.5).long().unbind(-1)
        at = (scene[:, None] + side * scenes, v, u)
        within = [
            ((uv[side] >= -0.5) & (uv[side] < limit)).all(-1) for uv in (seen.uv, seen.shown)
        ]
        outside = ~within[0] | ~within[1] | (depth <= 0) | ~sight.inside[at]
        codes.append(
            visibility(depth, sight.depth_m[at], sight.owner[at] == number, outside, flesh)
        )

    def slots(value: Tensor, empty: float) -> Tensor:
        shape = (scenes, PERSON_SLOTS, *value.shape[1:])
        table = torch.full(shape, empty, dtype=value.dtype, device=value.device)
        table[scene, slot] = value
        return table

    code = slots(torch.stack(codes, 1).float(), float(OUTSIDE)).to(torch.uint8)
    left, right = (slots(uv, torch.nan) for uv in seen.shown)
    return JointLabels(slots(seen.xyz_m, torch.nan), left, right, code)


def person_slots(scene: Tensor, scenes: int) -> Tensor:
    """Slot (P,) of each person in its scene, in the order in which they stand in `scene` (P,)."""
    member = torch.nn.functional.one_hot(scene, scenes)
    return (member.cumsum(0) - 1).gather(1, scene[:, None])[:, 0]
