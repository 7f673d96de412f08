"""Weights survive the disk, and what is no weights file is refused in one sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rsb_pose_core.checkpoint import CheckpointError, load_model, save_checkpoint, save_refiner
from rsb_pose_core.cli import main
from rsb_pose_core.models import NETWORKS, PoseTransformer
from rsb_pose_core.models.rsb_pose import co_keypoints


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'lite.safetensors'
    torch.manual_seed(0)
    save_checkpoint(path, NETWORKS['lite'].build(), {'model': 'lite', 'input_size': 256})
    return path


def test_a_network_comes_back_within_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = NETWORKS['lite'].build().eval()
    save_checkpoint(tmp_path / 'w.safetensors', model, {'model': 'lite', 'pairs': 7})
    loaded, refiner, metadata = load_model(tmp_path / 'w.safetensors')
    images = torch.rand(2, 1, 3, 64, 64)
    with torch.inference_mode():
        before, after = co_keypoints(model(*images)), co_keypoints(loaded(*images))
    assert (before.uvd - after.uvd).abs().max() < 0.05
    assert not torch.equal(before.uvd, after.uvd)  # the file does hold half precision
    assert refiner is None
    assert metadata['pairs'] == '7'
    assert (metadata['joints'], metadata['disparity_first'], metadata['disparity_last']) == (
        '17',
        '-7',
        '8',
    )


def test_network_and_refiner_share_one_file(tmp_path: Path) -> None:
    refiner = PoseTransformer().eval()
    save_checkpoint(
        tmp_path / 'w.safetensors', NETWORKS['lite'].build(), {'model': 'lite'}, refiner
    )
    _, loaded, _ = load_model(tmp_path / 'w.safetensors')
    assert loaded is not None
    pose = torch.randn(2, 17, 3)
    with torch.inference_mode():
        assert torch.allclose(loaded.refine(pose), refiner.refine(pose), atol=0.01)


def test_the_baseline_comes_back_as_a_baseline(tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / 'b.safetensors', NETWORKS['lite-baseline'].build(), {'model': 'lite-baseline'}
    )
    model, _, _ = load_model(tmp_path / 'b.safetensors')
    assert type(model) is type(NETWORKS['lite-baseline'].build())


def test_the_file_is_small_enough_to_ship(weights: Path) -> None:
    assert weights.stat().st_size < 10e6


def one_sentence(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    message = str(caught.value)
    assert '\n' not in message
    assert isinstance(caught.value, ValueError)
    return message


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    assert 'no such weights file' in one_sentence(tmp_path / 'absent.safetensors')


@pytest.mark.parametrize('share', [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_one_sentence(weights: Path, tmp_path: Path, share: float) -> None:
    content = weights.read_bytes()
    (tmp_path / 'cut.safetensors').write_bytes(content[: int(share * len(content))])
    assert 'cut short or not a safetensors file' in one_sentence(tmp_path / 'cut.safetensors')


def test_a_file_of_another_kind_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / 'w.safetensors').write_bytes(b'PK\x03\x04 this is no safetensors file' * 100)
    assert 'cut short or not a safetensors' in one_sentence(tmp_path / 'w.safetensors')


def test_weights_of_another_program_are_one_sentence(tmp_path: Path) -> None:
    save_file({'a': torch.zeros(2)}, str(tmp_path / 'w.safetensors'))
    assert 'of another program' in one_sentence(tmp_path / 'w.safetensors')


def test_an_unknown_model_is_one_sentence(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / 'w.safetensors', NETWORKS['lite'].build(), {'model': 'giant'})
    assert 'unknown model giant, perhaps of a newer version' in one_sentence(
        tmp_path / 'w.safetensors'
    )


def test_a_pose_transformer_alone_is_one_sentence(tmp_path: Path) -> None:
    save_refiner(tmp_path / 'w.safetensors', PoseTransformer(), {})
    assert 'a Pose Transformer alone and no network' in one_sentence(tmp_path / 'w.safetensors')


def test_weights_of_another_network_are_one_sentence(tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / 'w.safetensors', NETWORKS['lite'].build(), {'model': 'rsb-pose-resnet50'}
    )
    assert 'does not fit model rsb-pose-resnet50' in one_sentence(tmp_path / 'w.safetensors')


def test_weights_of_another_width_are_one_sentence(weights: Path, tmp_path: Path) -> None:
    size = int.from_bytes(weights.read_bytes()[:8], 'little')
    header = json.loads(weights.read_bytes()[8 : 8 + size])
    tensors = {
        name: torch.zeros([n + 1 for n in entry['shape']])
        for name, entry in header.items()
        if name != '__metadata__'
    }
    save_file(tensors, str(tmp_path / 'w.safetensors'), header['__metadata__'])
    assert 'tensors differ' in one_sentence(tmp_path / 'w.safetensors')


def test_a_command_ends_with_status_2_and_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['--weights', str(tmp_path / 'absent.safetensors'), '--data', 'none']
    assert main(['evaluate', *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count('\n') == 1
    assert 'no such weights file' in captured.err


def test_weights_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f'{seed}.safetensors' for seed in range(3)]
    for seed, path in enumerate(files):
        torch.manual_seed(seed)
        model = NETWORKS['lite'].build()
        for norm in (module for module in model.modules() if hasattr(module, 'running_var')):
            norm.running_var.fill_(1.0 + seed)
            norm.num_batches_tracked.fill_(10 + seed)
        facts = {'model': 'lite', 'input_size': 256, 'pairs_seen': 100 * seed}
        refiner = PoseTransformer(depth=1)
        refiner.head[1].bias.data.fill_(seed)
        save_checkpoint(path, model, facts, refiner)
    out = tmp_path / 'mean.safetensors'
    assert main(['average', *map(str, files), '--out', str(out)]) == 0
    assert capsys.readouterr().out == f'{out}: lite, the mean of 3 weights\n'
    mean, refiner, metadata = load_model(out)
    states = [load_model(path)[0].state_dict() for path in files]
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            expected = sum(state[name] for state in states) / 3
            assert torch.allclose(value, expected, rtol=1e-3, atol=1e-6), name
        else:
            assert int(value) == 10
    assert refiner is not None
    assert torch.equal(refiner.head[1].bias, torch.ones_like(refiner.head[1].bias))
    assert (metadata['pairs_seen'], metadata['mean_of']) == ('200', '3')
    assert metadata['input_size'] == '256'
    save_checkpoint(files[0], mean, {'model': 'lite', 'input_size': 192})
    assert main(['average', *map(str, files), '--out', str(out)]) == 0
    assert load_model(out)[1] is None  # one has no Pose Transformer
    assert load_model(out)[2]['input_size'] == '256'  # the largest
    save_checkpoint(files[0], mean, {'model': 'lite'}, PoseTransformer(depth=2))
    assert main(['average', *map(str, files), '--out', str(out)]) == 2
    assert 'differ in their layers' in capsys.readouterr().err
    other = PoseTransformer(depth=1)
    other.keep_extremities = not other.keep_extremities  # which no tensor shows
    save_checkpoint(files[0], mean, {'model': 'lite'}, other)
    assert main(['average', *map(str, files), '--out', str(out)]) == 2
    assert 'or in what they do' in capsys.readouterr().err


def test_what_cannot_be_averaged_is_one_sentence(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / 'b.safetensors'
    save_checkpoint(other, NETWORKS['lite-baseline'].build(), {'model': 'lite-baseline'})
    for files, words in (
        ([weights, other], 'weights of model lite-baseline'),
        ([weights], 'give two or more weights'),
        ([weights, tmp_path / 'none'], 'no such weights file'),
    ):
        out = tmp_path / 'mean.safetensors'
        assert main(['average', *map(str, files), '--out', str(out)]) == 2
        captured = capsys.readouterr()
        assert captured.err.count('\n') == 1
        assert words in captured.err
        assert not out.exists()
