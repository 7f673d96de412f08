"""Gradients of 3D convolutions in bfloat16, against float32."""

import pytest
import torch
from torch import Tensor

from rsb_pose_core.models.layers import Conv3d


@pytest.mark.parametrize(('kernel', 'depth'), [(3, 1), (3, 2), (3, 4), (7, 4), (7, 8)])
def test_gradients_in_bfloat16_are_those_in_float32(kernel: int, depth: int) -> None:
    torch.manual_seed(0)
    convolution = Conv3d(16, 16, kernel, padding=kernel // 2)
    volume, towards = torch.randn(4, 16, depth, 8, 8), torch.randn(4, 16, depth, 8, 8)

    def gradients(*, half: bool) -> tuple[Tensor, Tensor]:
        given = volume.clone().requires_grad_()
        with torch.autocast('cpu', torch.bfloat16, enabled=half):
            out = convolution(given)
        (out.float() * towards).sum().backward()
        found, convolution.weight.grad = convolution.weight.grad, None
        assert found is not None
        assert given.grad is not None
        return found, given.grad

    for half, whole in zip(gradients(half=True), gradients(half=False), strict=True):
        assert (half - whole).abs().max() < 0.02 * whole.abs().max()
