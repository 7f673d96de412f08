"""The roofline that the latency benchmark prints, and every way of running on a GPU."""

import pytest
import torch

from benchmarks.latency import H200_PART, Machine, layers, measure, roofline_us, ways
from rsb_pose_core.models import NETWORKS, IndependentHeatmaps, PoseTransformer, RSBPose


@pytest.mark.parametrize(
    ('name', 'expected_us'),
    [('rsb-pose-resnet50', 160), ('rsb-pose-hrnet-w32', 176), ('rsb-pose-resnet152', 464)],
)
def test_rooflines_of_an_h200_are_those_of_the_prototypes(name: str, expected_us: int) -> None:
    counted = layers(name, NETWORKS[name].input_size)
    assert roofline_us(counted, H200_PART, 2) == pytest.approx(expected_us, abs=0.55)


def test_a_layer_takes_as_long_as_the_slower_of_products_and_memory() -> None:
    machine = Machine('slow', tflops=2e-12, tb_s=1e-12)  # 2 FLOP and a byte a second
    assert roofline_us([(8.0, 1.0), (2.0, 3.0)], machine, 2) == pytest.approx(1e6 * (4 + 6))


@pytest.mark.parametrize('name', ['lite-efficientnet', 'lite'])
def test_no_stage_hides_in_another(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name].build().eval()
    assert isinstance(network, RSBPose)
    refiner = PoseTransformer().eval()
    for way in measure(network, refiner, torch.device('cpu'), 128, rounds=3):
        shares = way.shares.values()
        assert sum(shares) == pytest.approx(1.0)
        assert 0.005 < min(shares) < max(shares) < 0.9, (way.name, way.dtype, way.shares)


@pytest.mark.gpu
@pytest.mark.parametrize('name', ['lite', 'rsb-pose-resnet50'])
def test_every_way_on_the_gpu_agrees_and_says_its_time(name: str) -> None:
    device = torch.device('cuda')
    torch.manual_seed(0)
    network = NETWORKS[name].build().to(device).eval()
    assert isinstance(network, RSBPose | IndependentHeatmaps)
    views = torch.rand(2, 1, 3, 256, 256, device=device)
    found = {(way, word): run(*views).uvd for way, word, run, _ in ways(network, device, 256)}
    exact = found['eager', 'float32']
    for (way, word), uvd in found.items():
        near = 0.1 if word == 'float32' else 8.0  # fresh weights: flat heat maps move far
        assert (uvd - exact).abs().max() < near, (way, word)
    for way in measure(network, PoseTransformer().to(device).eval(), device, 256, rounds=20):
        print(name, way.name, way.dtype, [round(ms, 3) for ms in way.quartiles()], way.shares)
