"""Bfloat16 where it is fast; gradients of 3D convolutions in it, against float32."""

import pytest
import torch
from torch import Tensor

from rsb_pose_core.models.layers import Conv3d, bfloat16_where_fast


@pytest.mark.parametrize('fast', [True, False])
@pytest.mark.parametrize('wanted', [True, False])
def test_only_a_cpu_with_the_instructions_computes_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, fast: bool, wanted: bool
) -> None:
    monkeypatch.setattr('torch.cpu._is_avx512_bf16_supported', lambda: fast)
    with bfloat16_where_fast(torch.device('cpu'), wanted=wanted):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if fast and wanted else torch.float32)


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
        # 1 % where a CPU multiplies in bfloat16; one that imitates it sums in it as well
        assert (half - whole).abs().max() < 0.05 * whole.abs().max()
