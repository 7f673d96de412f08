"""Muon: the steps of weight matrices, and of filters laid flat, are made orthogonal.

A gradient's few large singular values drown the rest, which the network then learns late. Muon
(K. Jordan and others, 2024) takes the momentum's singular vectors with singular values near one.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315  # Jordan's: steep at zero, values end up in 0.7..1.2
RMS = 0.2  # of AdamW's steps in units of the rate, so that one rate suits both
SMALLEST_SIDE = 16  # of a matrix; heads of few channels are none


def orthogonal(matrix: Tensor) -> Tensor:
    """U V^T of a float matrix (m, n) = U S V^T, but for singular values of about 0.7 to 1.2.

    Those below a thousandth of the Frobenius norm stay smaller. By five Newton-Schulz iterations.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon applies: (outputs, all that an output is made of) has two large sides.

    Depthwise filters mix no channels, so they are none however large they are.
    """
    if parameter.ndim < 2 or parameter.shape[1] == 1:
        return False
    return min(parameter.shape[0], parameter[0].numel()) >= SMALLEST_SIDE


class Muon(torch.optim.AdamW):
    """Muon for groups whose 'orthogonal' is True, fused AdamW for the others; the same rates.

    A `found_inf` of 1, as a GradScaler sets it, makes a step that changes no parameter.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]):
        super().__init__(groups, lr=lr, betas=betas, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; gradients have been computed, `closure` must be None."""
        if closure is not None:
            raise ValueError('compute the gradients before the step, without a closure')
        groups = self.param_groups
        for group in groups:
            if group['orthogonal']:
                for parameter in group['params']:
                    if parameter.grad is not None:
                        self._step_matrix(parameter, group['lr'], group['weight_decay'])
        self.param_groups = [group for group in groups if not group['orthogonal']]
        try:
            super().step()
        finally:
            self.param_groups = groups

    def _step_matrix(self, parameter: Tensor, rate: float, weight_decay: float) -> None:
        gradient, keep = parameter.grad, 1.0
        assert gradient is not None
        found_inf = getattr(self, 'found_inf', None)
        if found_inf is not None:  # nothing is copied from a GPU to look at it
            keep = (1 - found_inf).to(parameter.device)
            gradient = gradient.nan_to_num(0, 0, 0)
        state = self.state[parameter]
        if not state:
            state['step'] = torch.zeros((), device=parameter.device)  # AdamW expects one
            state['momentum'] = torch.zeros_like(parameter)
        state['step'] += keep
        momentum = state['momentum']
        momentum += (1 - MOMENTUM) * keep * (gradient - momentum)
        step = orthogonal(gradient.lerp(momentum, MOMENTUM).flatten(1).float())
        step *= RMS * max(step.shape) ** 0.5 * rate * keep
        parameter.mul_(1 - rate * weight_decay * keep).sub_(step.view_as(parameter))
