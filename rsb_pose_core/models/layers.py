"""Small building blocks that the networks share."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def without_autocast(like: Tensor) -> AbstractContextManager[object]:
    """Where precision counts. Devices without autocast (meta, to count) need no switch."""
    device = like.device.type
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it; others imitate them, slower than float32."""
    if device.type == 'cuda':
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == 'cpu' and bool(torch.cpu._is_avx512_bf16_supported())


def bfloat16_where_fast(
    device: torch.device, *, wanted: bool = True
) -> AbstractContextManager[object]:
    """Autocast to bfloat16 where it is `wanted` and the device multiplies in it."""
    if wanted and multiplies_bfloat16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def channels_last(model: nn.Module) -> None:
    """Lay weights of convolutions out as the kernels of CPUs and of a GPU's matrix units read
    them; images and volumes follow."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        elif parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


class Conv3d(nn.Conv3d):
    """nn.Conv3d whose gradients can be trusted under autocast on a CPU.

    oneDNN 3's bfloat16 gradient of the weights is wrong, often inf, and writes past its memory
    where a volume has fewer planes than the kernel; there it is a float32 convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        shallow = x.device.type == 'cpu' and x.shape[2] < self.kernel_size[0]
        if shallow and torch.is_autocast_enabled('cpu') and torch.is_grad_enabled():
            with without_autocast(x):
                return super().forward(x.float())
        return super().forward(x)


def conv2d_unit(
    channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, *, relu: bool = True
) -> nn.Sequential:
    """Convolution, BatchNorm and (optionally) ReLU on images, padded to keep the size."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


def conv3d_unit(
    channels_in: int,
    channels_out: int,
    kernel: int = 3,
    stride: int | tuple[int, int, int] = 1,
    *,
    relu: bool = True,
    bias: bool = False,
) -> nn.Sequential:
    """Convolution, BatchNorm and (optionally) ReLU on volumes, padded to keep the size."""
    layers: list[nn.Module] = [
        Conv3d(channels_in, channels_out, kernel, stride, kernel // 2, bias=bias),
        nn.BatchNorm3d(channels_out),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if relu else nn.Sequential(*layers)


class BasicBlock2d(nn.Module):
    """Two 3x3 convolutions with a shortcut (ResNet-18's block)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv2d_unit(channels_in, channels_out, 3, stride),
            conv2d_unit(channels_out, channels_out, relu=False),
        )
        same = channels_in == channels_out and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else conv2d_unit(channels_in, channels_out, 1, stride, relu=False)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class BasicBlock3d(nn.Module):
    """Two 3x3x3 convolutions with a shortcut; `bias` as in V2V's published layers."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3d_unit(channels_in, channels_out, bias=bias),
            conv3d_unit(channels_out, channels_out, relu=False, bias=bias),
        )
        self.shortcut = (
            nn.Identity()
            if channels_in == channels_out
            else conv3d_unit(channels_in, channels_out, 1, relu=False, bias=bias)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out
