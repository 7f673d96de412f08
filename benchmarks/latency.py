"""How long one pair takes, crops to refined joints, and where the time goes.

Every way of running a network is timed in turn, round after round, so that a busy moment of the
machine meets all of them alike. Beside them the roofline: the sum over convolutions and matrix
products of max(FLOP / rate, bytes / bandwidth), each reading its inputs and writing its output
once and everything else fused into them.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm

from rsb_pose_core.checkpoint import load_model
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.models import NETWORKS, IndependentHeatmaps, PoseTransformer, RSBPose
from rsb_pose_core.models.fast import CudaGraphs, KeypointNetwork, Keypoints, eager, fast, fused
from rsb_pose_core.models.layers import multiplies_bfloat16
from rsb_pose_core.models.stereo_convolution import FirstConvolutionApart
from rsb_pose_core.models.volume_networks import LiteVolume, StereoV2V

STAGES = ('trunk', '2D heads', 'volume', 'V2V', 'soft-argmax', 'PPT')
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {'wall': time.perf_counter, 'cpu': time.process_time}
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """What a device can do: TFLOP/s of matrix products and TB/s of memory."""

    name: str
    tflops: float
    tb_s: float


# Data sheet without sparsity, and 80 % and 90 % of it.
H200 = Machine('H200, data sheet, bfloat16', 989.0, 4.8)
H200_PART = Machine('H200 at 80 % of its TFLOP/s and 90 % of its TB/s', 790.0, 4.3)


@dataclass(frozen=True)
class Way:
    """A way to run: times in ms of every round, crops to refined joints."""

    name: str
    dtype: str
    times_ms: list[float]
    shares: dict[str, float] | None  # of the stages, where they can be told apart

    def quartiles(self) -> tuple[float, float, float]:
        low, middle, high = np.percentile(self.times_ms, (25, 50, 75))
        return float(low), float(middle), float(high)


@dataclass(frozen=True)
class Report:
    """A network's rows; roofline_us by machine."""

    network: str
    input_size: int
    gmac: float
    roofline_us: dict[str, float]
    ways: list[Way] = field(default_factory=list)


class Products(TorchDispatchMode):
    """Notes FLOP and numbers moved of each convolution and matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            numbers = sum(x.numel() for x in args if isinstance(x, Tensor)) + out.numel()
            self.layers.append((count(*args, **(kwargs or {}), out_val=out), numbers))
        return out


def layers(name: str, side: int) -> list[tuple[float, float]]:
    """(FLOP, numbers read and written) of each product of a network of NETWORKS, one pair."""
    with torch.device('meta'):
        network, view = NETWORKS[name].build().eval(), torch.empty(1, 3, side, side)
    with torch.no_grad(), Products() as products:
        network(view, view)
    return products.layers


def roofline_us(counted: list[tuple[float, float]], machine: Machine, width: int) -> float:
    """Microseconds; width: bytes of a number."""
    flops, bandwidth = machine.tflops * 1e12, machine.tb_s * 1e12
    return 1e6 * sum(max(flop / flops, width * moved / bandwidth) for flop, moved in counted)


def measured_cpu(dtype: torch.dtype, clock: Clock) -> Machine:
    """Best of some 3x3 convolutions of 256 channels, and of copies of 64 MB.

    Not of matrix products: those of some processors' libraries are slower than oneDNN.
    """
    image, weight = torch.rand(1, 256, 32, 32).to(dtype), torch.rand(256, 256, 3, 3).to(dtype)
    image = image.contiguous(memory_format=torch.channels_last)
    source, target = torch.rand(2, 16_000_000).unbind(0)

    def best(run: Callable[[], object], rounds: int) -> float:
        seconds = []
        for _ in range(rounds):
            start = clock()
            run()
            seconds.append(clock() - start)
        return min(seconds)

    with torch.inference_mode():
        seconds = best(lambda: nn.functional.conv2d(image, weight, padding=1), 20)
    tflops = 2 * 32 * 32 * 256 * 256 * 9 / seconds / 1e12
    tb_s = 2 * 4 * len(source) / best(lambda: target.copy_(source), 10) / 1e12
    return Machine(f'this CPU, {str(dtype).removeprefix("torch.")}', tflops, tb_s)


def dtypes(device: torch.device) -> dict[str, torch.dtype]:
    """Of DTYPES, those that the device has instructions for."""
    fast = multiplies_bfloat16(device)
    return {word: dtype for word, dtype in DTYPES.items() if fast or dtype != torch.bfloat16}


class Marks:
    """Seconds at the ends of the stages of one pass."""

    def __init__(self, network: nn.Module, device: torch.device, clock: Clock) -> None:
        self.clock = clock
        self.device, self.at = device, dict.fromkeys(STAGES, 0.0)
        if isinstance(network, IndependentHeatmaps):
            network.trunk.register_forward_hook(lambda *_: self.mark('trunk'))
        if isinstance(network, RSBPose):
            network.attention.register_forward_pre_hook(lambda *_: self.mark('trunk'))
            volume = network.volume
            network.volume.register_forward_pre_hook(lambda *_: self.mark('2D heads'))
            network.volume.register_forward_hook(lambda *_: self.mark('V2V'))
            first: nn.Module = volume
            if isinstance(volume, StereoV2V | FirstConvolutionApart):
                first = volume.network
            elif isinstance(volume, LiteVolume):
                first = volume.fine
            first.register_forward_pre_hook(lambda *_: self.mark('volume'))

    def mark(self, stage: str) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        self.at[stage] = self.clock()

    def lengths(self, start: float) -> list[float]:
        """Seconds of each stage; 0 of those that the network lacks."""
        found, before = [], start
        for stage in STAGES:
            now = max(self.at[stage], before)
            found.append(now - before)
            before = now
        return found


@contextmanager
def quiet_threads(count: int) -> Iterator[None]:
    """PyTorch with `count` threads, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def ways(
    network: KeypointNetwork, device: torch.device, side: int
) -> Iterator[tuple[str, str, Keypoints, KeypointNetwork | None]]:
    """Name, dtype, function and, where stages can be told apart, the network that it runs."""
    for word, dtype in dtypes(device).items():
        yield 'eager', word, eager(network, device, dtype), network
        if device.type == 'cpu':
            made = fused(network, device, dtype, input_size=side)
            yield 'fast', word, eager(made, device, dtype), made
        else:
            made = fused(network, device, dtype, input_size=side)
            yield 'folded', word, eager(made, device, dtype), made
            compiled = torch.compile(fused(network, device, dtype, input_size=side))
            yield 'compiled', word, eager(compiled, device, dtype), None
            yield 'graphs', word, fast(network, device, dtype, input_size=side), None
            yield 'compiled, graphs', word, CudaGraphs(eager(compiled, device, dtype)), None


def measure(
    network: KeypointNetwork,
    refiner: PoseTransformer | None,
    device: torch.device,
    side: int,
    rounds: int,
    clock: Clock = time.perf_counter,
) -> list[Way]:
    """All ways of a network, in turn."""
    network = network.to(device).eval()
    refiner = None if refiner is None else refiner.to(device).eval()
    views = torch.rand(2, 1, 3, side, side, device=device)
    marks: dict[int, Marks] = {}
    runs = list(ways(network, device, side))
    times: list[list[float]] = [[] for _ in runs]
    stages: list[list[list[float]]] = [[] for _ in runs]
    for module in (run[3] for run in runs):
        if module is not None and id(module) not in marks:
            marks[id(module)] = Marks(module, device, clock)
    whole = Marks(nn.Module(), device, clock)
    for number in tqdm(range(rounds + 2), 'rounds', leave=False):
        for i, (_, _, keypoints, module) in enumerate(runs):
            after = whole if module is None else marks[id(module)]
            start = clock()
            found = keypoints(views[0], views[1])
            after.mark('soft-argmax')
            if refiner is not None:
                with torch.inference_mode():
                    refiner.refine(found.uvd / 100, confidence=found.confidence)
            after.mark('PPT')
            if number >= 2:  # the first rounds warm up
                times[i].append(1000 * (after.at['PPT'] - start))
                stages[i].append(after.lengths(start))
    result = []
    for (name, word, _, module), spent, parts in zip(runs, times, stages, strict=True):
        middle = np.median(parts, 0)
        shares = dict(zip(STAGES, (middle / middle.sum()).tolist(), strict=True))
        result.append(Way(name, word, spent, None if module is None else shares))
    return result


def lines(report: Report) -> Iterator[str]:
    """The network's table in Markdown."""
    limits = ', '.join(
        f'{name} {us / 1000:.1f} ms' if us >= 1000 else f'{name} {us:.0f} us'
        for name, us in report.roofline_us.items()
    )
    yield f'**{report.network}**, {report.input_size} px, {report.gmac:.1f} GMAC'
    yield ''
    yield f'Roofline: {limits}'
    yield ''
    yield f'| way | dtype | median ms (quartiles) | of eager | {" | ".join(STAGES)} |'
    yield '|---' * (4 + len(STAGES)) + '|'
    first = report.ways[0].quartiles()[1]
    for way in report.ways:
        low, middle, high = way.quartiles()
        shares = ['' if way.shares is None else f'{way.shares[stage]:.0%}' for stage in STAGES]
        yield (
            f'| {way.name} | {way.dtype} | {middle:.1f} ({low:.1f}..{high:.1f}) '
            f'| {middle / first:.2f} | {" | ".join(shares)} |'
        )
    yield ''


def networks(
    paths: list[Path], names: list[str]
) -> Iterator[tuple[str, str, KeypointNetwork, PoseTransformer | None]]:
    """Title, name in NETWORKS, network and refiner."""
    for path in paths:
        model, refiner, metadata = load_model(path)
        if isinstance(model, RSBPose | IndependentHeatmaps):
            yield path.stem, metadata['model'], model, refiner
    for name in names:
        fresh = NETWORKS[name].build()
        if not isinstance(fresh, RSBPose | IndependentHeatmaps):
            raise RsbPoseError(f'{name} gives no heat maps; choose RSB-Pose or heat maps')
        yield name, name, fresh, PoseTransformer().eval()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('weights', nargs='*', type=Path, help='default: all of weights/')
    parser.add_argument('--model', nargs='*', default=[], choices=list(NETWORKS), metavar='NAME',
                        help='networks of NETWORKS with fresh weights')  # fmt: skip
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--rounds', type=int, default=20, help='default: %(default)s')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU (%(default)s)')
    parser.add_argument('--clock', default='wall', choices=list(CLOCKS),
                        help='cpu: time on the processor, for one thread on a busy machine '
                        '(default: %(default)s)')  # fmt: skip
    parser.add_argument('--json', type=Path, help='also write all times to this file')
    args = parser.parse_args()
    paths = args.weights
    if not paths and not args.model:
        kept = sorted((Path(__file__).parents[1] / 'weights').glob('*.safetensors'))
        paths = [path for path in kept if path.stem != 'pose_transformer']
    device, clock = torch.device(args.device), CLOCKS[args.clock]
    reports = []
    with quiet_threads(args.threads):
        cpu = [
            (measured_cpu(dtype, clock), dtype.itemsize)
            for dtype in dtypes(torch.device('cpu')).values()
        ]
        machines = [(H200, 2), (H200_PART, 2)]
        for machine, _ in cpu:
            print(f'{machine.name}: {machine.tflops:.3f} TFLOP/s, {machine.tb_s * 1e3:.1f} GB/s')
        for title, name, network, refiner in networks(paths, args.model):
            side = NETWORKS[name].input_size
            counted = layers(name, side)
            limits = {m.name: roofline_us(counted, m, width) for m, width in cpu + machines}
            gmac = sum(flop for flop, _ in counted) / 2e9
            found = measure(network, refiner, device, side, args.rounds, clock)
            reports.append(Report(title, side, gmac, limits, found))
            print('\n'.join(lines(reports[-1])), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(report) for report in reports], indent=1) + '\n')


if __name__ == '__main__':
    main()
