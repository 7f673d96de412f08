"""The networks as they run where nobody trains: the same numbers, sooner.

`fast` copies a network, folds every BatchNorm into its convolution, takes the paper's first 3D
convolution apart into 2D ones (stereo_convolution), and on a CPU hands weights to oneDNN in the
layout its kernels read: PyTorch sends most 3D convolutions in float32 to a kernel seven times
slower. On CUDA `CudaGraphs` replays the hundreds of launches of a pass as one.
"""

import copy
from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor, nn

from rsb_pose_core.models.baseline import IndependentHeatmaps
from rsb_pose_core.models.estimate import Image
from rsb_pose_core.models.flip_test import FlipTest
from rsb_pose_core.models.layers import Conv3d
from rsb_pose_core.models.rsb_pose import CoKeypoints, RSBPose, co_keypoints
from rsb_pose_core.models.stereo_convolution import FirstConvolutionApart, takes_apart
from rsb_pose_core.models.volume_networks import LiteVolume, StereoV2V

KeypointNetwork = RSBPose | IndependentHeatmaps | FlipTest
Keypoints = Callable[[Image, Image], CoKeypoints]

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
_Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
_BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d


def eager(
    network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32
) -> Keypoints:
    """Two crops (B,3,H,W) to co-keypoints, the network as it stands on `device`.

    dtype: float32, or bfloat16 for the convolutions alone: logits, soft-argmax and everything
    that is in pixels stay in float32.
    """

    def keypoints(left: Image, right: Image) -> CoKeypoints:
        with torch.inference_mode(), _precision(device, dtype):
            return co_keypoints(network(left, right))

    return keypoints


def fast(
    network: KeypointNetwork,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    input_size: int = 256,
) -> Keypoints:
    """As eager, as fast as we know how; the network itself is left as it is.

    input_size: the crops' side in pixels that weights are laid out for; others work as well.
    A CUDA graph is captured when a size of batch is first seen (some 0.1 s each).
    """
    prepared = fused(network, device, dtype, input_size=input_size)
    keypoints = eager(prepared, device, dtype)
    return CudaGraphs(keypoints) if device.type == 'cuda' else keypoints


def fused(
    network: KeypointNetwork,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    input_size: int = 256,
) -> KeypointNetwork:
    """A copy in eval mode that gives the same heat maps under autocast to `dtype`.

    Each network of NETWORKS whose outputs are heat maps; of float64 as well, to check it.
    """
    network = copy.deepcopy(network).to(device).eval().requires_grad_(False)
    sees = network.network if isinstance(network, FlipTest) else network
    if isinstance(sees, RSBPose):
        if isinstance(sees.volume, StereoV2V) and takes_apart(sees.volume):
            sees.volume = FirstConvolutionApart(sees.volume)
        elif isinstance(sees.volume, LiteVolume):
            _fold_sum(sees.volume)
    recorded = _Recorder(network, device, dtype, input_size)
    for name, norm in recorded.norms.items():
        _replace(network, norm, nn.Identity())
        convolution = recorded.convolutions[name][0]
        folded = nn.utils.fuse_conv_bn_eval(
            convolution, recorded.modules[norm], transpose=isinstance(convolution, _TRANSPOSED)
        )
        convolution.weight, convolution.bias = folded.weight, folded.bias
    for name, (convolution, size, computed_in) in recorded.convolutions.items():
        convolution.requires_grad_(False).to(computed_in)
        # other subclasses pad in their own way
        if type(convolution) in _CONVOLUTIONS and _has_onednn(device, computed_in):
            _replace(network, name, OneDnnConvolution(convolution, size))
        elif device.type == 'cuda':
            two = isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d)
            layout = torch.channels_last if two else torch.channels_last_3d
            convolution.weight.data = convolution.weight.data.contiguous(memory_format=layout)
    return network


class _Recorder:
    """One pass with hooks: which convolutions there are, and which feed a BatchNorm.

    convolutions: by name the module, the size of its input and the dtype it computes in;
    norms: name of the convolution -> name of the BatchNorm behind it.
    """

    def __init__(
        self, network: KeypointNetwork, device: torch.device, dtype: torch.dtype, input_size: int
    ) -> None:
        self.modules = dict(network.named_modules())
        self.convolutions: dict[str, tuple[_Convolution, list[int], torch.dtype]] = {}
        self.norms: dict[str, str] = {}
        last: tuple[str, Tensor | None] = ('', None)

        def convolved(name: str) -> Callable[[_Convolution, tuple[Tensor], Tensor], None]:
            def note(module: _Convolution, inputs: tuple[Tensor], output: Tensor) -> None:
                nonlocal last
                self.convolutions[name] = (module, list(inputs[0].shape), output.dtype)
                last = name, output

            return note

        def normed(name: str) -> Callable[[_BatchNorm, tuple[Tensor], Tensor], None]:
            def note(module: _BatchNorm, inputs: tuple[Tensor], output: Tensor) -> None:
                if inputs[0] is last[1]:
                    self.norms[last[0]] = name

            return note

        handles = []
        for name, module in self.modules.items():
            if isinstance(module, _CONVOLUTIONS):
                handles.append(module.register_forward_hook(convolved(name)))
            elif isinstance(module, _BatchNorm):
                handles.append(module.register_forward_hook(normed(name)))
        like = next(network.parameters())
        view = torch.zeros(1, 3, input_size, input_size, device=device, dtype=like.dtype)
        with torch.no_grad(), _precision(device, dtype):
            network(view, view)
        for handle in handles:
            handle.remove()


class OneDnnConvolution(nn.Module):
    """A convolution, transposed or not, that always runs in oneDNN with weights laid out for it.

    input_size: of a typical input, for which the layout is chosen.
    """

    def __init__(self, convolution: _Convolution, input_size: list[int]) -> None:
        super().__init__()
        operators = torch.ops.mkldnn
        dimensions = convolution.weight.ndim - 2
        self.layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
        weight, padding = convolution.weight.data, list(convolution.padding)
        places = (list(convolution.stride), list(convolution.dilation), convolution.groups)
        if isinstance(convolution, _TRANSPOSED):
            self.run = operators._convolution_transpose_pointwise
            before = (padding, list(convolution.output_padding), *places)
            # oneDNN's own layout is for images; volumes keep PyTorch's
            pack = operators._reorder_convolution_transpose_weight if dimensions == 2 else None
        else:
            if dimensions == 3 and input_size[2] == 1:  # the outer planes of taps see padding
                weight, padding[0] = weight[:, :, weight.shape[2] // 2].unsqueeze(2), 0
            self.run = operators._convolution_pointwise
            before = (padding, *places)  # type: ignore[assignment]
            pack = operators._reorder_convolution_weight
        weight = weight.contiguous(memory_format=self.layout)
        self.weight = weight if pack is None else pack(weight, *before, input_size)
        self.bias = None if convolution.bias is None else convolution.bias.data
        self.places = before

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype).contiguous(memory_format=self.layout)
        out: Tensor = self.run(x, self.weight, self.bias, *self.places, 'none', [], '')
        return out


class CudaGraphs:
    """Replays a function of two views as one CUDA graph for each shape of its inputs."""

    def __init__(self, function: Keypoints) -> None:
        self._function = function
        self._captured: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, CoKeypoints]] = {}

    def __call__(self, left: Image, right: Image) -> CoKeypoints:
        if left.shape not in self._captured:
            self._captured[left.shape] = self._capture(left, right)
        graph, views, found = self._captured[left.shape]
        views[0].copy_(left)
        views[1].copy_(right)
        graph.replay()
        # the graph's own tensors are overwritten by its next replay
        return replace(found, **{f.name: getattr(found, f.name).clone() for f in fields(found)})

    def _capture(
        self, left: Image, right: Image
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, CoKeypoints]:
        views = torch.stack([left, right])
        stream = torch.cuda.Stream(left.device)  # warm up beside: kernels are chosen and loaded
        stream.wait_stream(torch.cuda.current_stream(left.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._function(views[0], views[1])
        torch.cuda.current_stream(left.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = self._function(views[0], views[1])
        return graph, views, found


def _precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def _has_onednn(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type != 'cpu' or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # AVX2 alone will not do
    return dtype == torch.float32


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where `name` (a.b.c) was."""
    parent, _, child = name.rpartition('.')
    setattr(network.get_submodule(parent), child, module)


def _fold_sum(volume: LiteVolume) -> None:
    """BatchNorm of left + right into both convolutions; the shift goes to the left's bias."""
    norm = volume.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert volume.left.bias is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    for convolution in (volume.left, volume.right):
        convolution.weight.mul_(scale[:, None, None, None])
    volume.left.bias.sub_(norm.running_mean).mul_(scale).add_(norm.bias)
    _replace(volume, 'norm', nn.Identity())
