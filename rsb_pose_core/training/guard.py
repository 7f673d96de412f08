"""What to say when a loss is not a number, and when gradients never are."""

import torch

from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import Stage
from rsb_pose_core.training.objective import Objective
from rsb_pose_core.training.state import not_finite

PATIENCE = 20  # steps in a row that may be skipped
KEPT = 'the last checkpoint is kept'


def unusable_batch(batch: StereoBatch) -> str | None:
    """A sentence about pairs whose labels or calibration are not numbers."""
    names = batch.unusable()
    if not names:
        return None
    return (
        f'{_listed(names)}: labels or calibration are infinite or not numbers, expected NaN only '
        f'for joints without a label; correct or remove the pair ({KEPT})'
    )


def why_not_finite(
    objective: Objective, batch: StereoBatch, stage: Stage, step: int, precision: str
) -> str:
    """A sentence about a batch whose loss is not a number: the pairs that cause it by themselves.

    Each is tried alone, in evaluation mode, so that nothing learns from it.
    """
    broken = not_finite(objective.system.named_parameters())
    if broken is not None:
        return diverged(step, broken)
    mode = objective.training
    objective.eval()
    guilty = []
    with torch.no_grad():
        for row in range(len(batch)):
            terms = objective(batch.take([row]), stage)
            if not bool(torch.stack(list(terms.values())).isfinite().all()):
                guilty.append(batch.name(row))
    objective.train(mode)
    if guilty and (len(guilty) < len(batch) or len(batch) == 1):
        return (
            f'step {step}: the loss of {_listed(guilty)} is not a number; correct or remove the '
            f'pair and go on with --resume ({KEPT})'
        )
    names = _listed([batch.name(row) for row in range(len(batch))])
    return (
        f'step {step}: the loss of a batch is not a number, and that of '
        f'{"every" if guilty else "no"} pair by itself ({names}); go on with --resume and a lower '
        f'learning_rate, or another precision than {precision} ({KEPT})'
    )


def diverged(step: int, tensor: str) -> str:
    """A sentence about weights that are NaN or infinite."""
    return (
        f'step {step}: the weights are not finite any more ({tensor}), training diverged; go on '
        f'with --resume and a lower learning_rate ({KEPT})'
    )


def no_gradients(step: int, precision: str) -> str:
    """A sentence about PATIENCE skipped steps."""
    return (
        f'step {step}: the gradients of {PATIENCE} steps in a row were not finite; go on with '
        f'--resume and a lower learning_rate, or another precision than {precision} ({KEPT})'
    )


def _listed(names: list[str]) -> str:
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return ', '.join(names[:3]) + more
