"""Algorithm 1 of the paper: masked joints are recovered again and again (III-C1)."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from rsb_pose_core.models.pose_transformer import (
    Attention,
    Confidence,
    Mask,
    Pose,
    PoseTransformer,
    pad_joints,
)


class Pass(NamedTuple):
    """One recovery: what the transformer was given (Y^m), which joints of it were masked (M), and
    what it made of it (Y^r)."""

    given: Pose
    masked: Mask
    recovered: Pose


def random_mask(count: int, joints: int, ratio: float, generator: torch.Generator) -> Mask:
    """round(ratio * joints) joints of each pose, chosen at random."""
    order = torch.rand(count, joints, generator=generator).argsort(1)
    return order < round(ratio * joints)


def attention_confidence(attention: Attention) -> Confidence:
    """How much all joints look at each one: Eq. (5), summed over heads and queries."""
    return attention.sum((1, 2))


def most_confident(confidence: Confidence, masked: Mask, kept: int) -> Mask:
    """The `kept` most confident of the masked joints; all of them where there are no more."""
    among = confidence.float().masked_fill(~masked, -torch.inf)
    order = among.argsort(dim=1, descending=True).argsort(1)
    return (order < kept) & masked


def iterative_recovery(
    transformer: PoseTransformer,
    pose_m: Pose,
    masked: Mask,
    times: int = 2,
    kept: int = 2,
    root_m: Float[Tensor, 'batch 3'] | None = None,
) -> Iterator[Pass]:
    """Algorithm 1, pass by pass: T = times, K = kept; the last pass holds the result.

    pose_m: true poses as the transformer takes them. After a pass every joint that is not masked
    any more is the recovered one, y^r, also where the truth was given at first: so the input of
    the next pass errs as estimates do. It counts as data: no gradient flows back through it.
    """
    for number in range(times):
        given = pad_joints(pose_m, masked)
        recovered = transformer(given, root_m)
        yield Pass(given, masked, recovered.pose)
        if number + 1 < times:
            confidence = attention_confidence(recovered.attention[-1])
            masked = masked & ~most_confident(confidence, masked, kept)
            pose_m = recovered.pose.detach().to(pose_m.dtype)
