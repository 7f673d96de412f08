"""Multiply-accumulates and parameters of every network, beside the paper's (Tables I and II).

Two counts of one pass of a pair of crops, batch 1. `thop` is what the paper measured (IV-A2):
thop 0.1.1 takes a transposed convolution as if its kernel met every output pixel, adds 4 for each
normalised value and sees neither products of matrices nor parameters outside layers. The true
count is of the convolutions and matrix products that are computed, and of all parameters. Both
leave out resampling, soft-argmax and triangulation; of the Pose Transformer each has its own row.

Networks are built on the meta device: shapes without numbers, so that it takes no memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import thop  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rsb_pose_core.calibration import StereoCalibration
from rsb_pose_core.models import NETWORKS, PoseTransformer
from rsb_pose_core.skeleton import H36M_17


@dataclass(frozen=True)
class Count:
    """Multiply-accumulates in G and parameters in M."""

    gmac: float
    parameters_m: float


@dataclass(frozen=True)
class Row:
    """A network and its counts; None where we build no such network, or the paper has none.

    likely_gmac: what the paper may have meant where its figure looks misprinted.
    """

    network: str
    input_size: int | None
    thop: Count | None
    true: Count | None
    paper: Count | None
    likely_gmac: float | None = None
    note: str = ''

    @property
    def percent_above_paper(self) -> Count | None:
        """How much more thop counts here than the paper says, in percent of the paper's."""
        if self.thop is None or self.paper is None:
            return None
        return Count(
            percent_above(self.thop.gmac, self.paper.gmac),
            percent_above(self.thop.parameters_m, self.paper.parameters_m),
        )


def percent_above(value: float, reference: float) -> float:
    """How much larger, in percent of the reference."""
    return 100 * (value / reference - 1)


# Tables I and II, whose rows differ only for RSB-Pose: -wide is Table II.
PAPER = {
    'tppt': Count(9.70, 7.75),
    'epipolar-t': Count(52.28, 34.07),
    'hrnet-w32-t': Count(20.68, 28.55),
    'rsb-pose-hrnet-w32': Count(59.40, 37.70),
    'resnet50-t': Count(25.87, 33.99),
    'rsb-pose-resnet50': Count(65.29, 43.24),
    'adafuse': Count(149.48, 69.66),
    'algebraic-t': Count(104.92, 79.52),
    'volume-t': Count(257.15, 80.59),
    'hrnet-w48-t': Count(94.46, 63.60),
    'rsb-pose-hrnet-w48': Count(181.80, 72.77),
    'resnet152-t': Count(102.12, 68.64),
    'rsb-pose-resnet152': Count(190.83, 77.88),
    'rsb-pose-hrnet-w32-wide': Count(105.26, 37.70),
    'rsb-pose-resnet50-wide': Count(111.45, 43.24),
    'rsb-pose-hrnet-w48-wide': Count(331.56, 72.77),
    'rsb-pose-resnet152-wide': Count(339.24, 77.87),
}
NOT_BUILT = {'tppt': 256, 'epipolar-t': 256, 'adafuse': 384}  # input sizes
# No depth of the volume gives Table II's figures; with one other digit each, D = 64 and 80 do.
MISPRINTS = {
    'rsb-pose-hrnet-w32-wide': 175.26,
    'rsb-pose-resnet50-wide': 181.45,
    'rsb-pose-hrnet-w48-wide': 531.56,
    'rsb-pose-resnet152-wide': 539.24,
}
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)  # whose own kinds thop does not know by itself
REFINERS: dict[str, Callable[[], nn.Module]] = {
    'ppt': PoseTransformer,
    'ppt-concatenated': lambda: PoseTransformer(concatenate=True),
}


def row_names() -> list[str]:
    """The paper's rows in its order, then our other networks, then the Pose Transformer."""
    return [*PAPER, *(name for name in NETWORKS if name not in PAPER), *REFINERS]


def rows() -> Iterator[Row]:
    """A row for each of `row_names`, counted when it is asked for."""
    for name in row_names():
        if name in NOT_BUILT:
            yield Row(name, NOT_BUILT[name], None, None, PAPER[name], note='not built here')
        elif name in REFINERS:
            as_thop, true = count_refiner(name)
            yield Row(name, None, as_thop, true, None, note='not in the paper')
        else:
            as_thop, true = count_network(name)
            yield Row(
                name, NETWORKS[name].input_size, as_thop, true, PAPER.get(name),
                MISPRINTS.get(name), 'one digit misprinted?' if name in MISPRINTS else '',
            )  # fmt: skip


def count_network(name: str, input_size: int | None = None) -> tuple[Count, Count]:
    """Of a network of NETWORKS with a pair of square crops: as thop counts, and truly."""
    side = input_size or NETWORKS[name].input_size
    with torch.device('meta'):
        network = NETWORKS[name].build()
        view = torch.empty(1, 3, side, side)
        calibration = StereoCalibration(*(torch.empty(1) for _ in range(6)))
    return count(network, view, view, calibration)


def count_refiner(name: str) -> tuple[Count, Count]:
    """Of a Pose Transformer with one pose: as thop counts, and truly."""
    with torch.device('meta'):
        refiner, pose = REFINERS[name](), torch.empty(1, len(H36M_17), 3)
    return count(refiner, pose)


def count(module: nn.Module, *inputs: Tensor | StereoCalibration) -> tuple[Count, Count]:
    """Of one pass through a module, best on the meta device: as thop counts, and truly.

    thop leaves its own tensors in the module: build another one to train.
    """
    parameters = sum(parameter.numel() for parameter in module.parameters())
    convolutions = {type(part) for part in module.modules() if isinstance(part, CONVOLUTIONS)}
    own = dict.fromkeys(convolutions - {*CONVOLUTIONS}, thop.vision.basic_hooks.count_convNd)
    with FlopCounterMode(display=False) as counter:
        macs, thop_parameters = thop.profile(module, inputs, custom_ops=own, verbose=False)
    return (
        Count(macs / 1e9, thop_parameters / 1e6),
        Count(counter.get_total_flops() / 2e9, parameters / 1e6),
    )
