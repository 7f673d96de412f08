"""The Pose Transformer: its size, its attention, its switches, and the file it is kept in."""

from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

from rsb_pose_core.checkpoint import (
    CheckpointError,
    load_model,
    load_refiner,
    save_checkpoint,
    save_refiner,
)
from rsb_pose_core.models import NETWORKS, PoseTransformer
from rsb_pose_core.models.pose_transformer import EXTREMITIES, Encoder, pad_joints
from rsb_pose_core.skeleton import H36M_17

WEIGHTS = Path(__file__).parents[2] / 'weights' / 'rsb_pose_lite.safetensors'
ROOT = H36M_17.root


def poses(count: int, seed: int = 0) -> torch.Tensor:
    """Anything about 3 m away."""
    generator = torch.Generator().manual_seed(seed)
    spread = 0.4 * torch.randn(count, 17, 3, generator=generator)
    return spread + torch.tensor([0.1, -0.2, 3.0])


def slim(seed: int = 0, **switches: bool) -> PoseTransformer:
    torch.manual_seed(seed)
    return PoseTransformer(width=16, depth=3, heads=2, **switches).eval()


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def expected_parameters(width: int) -> int:
    """16 blocks of `width`, of which the position is half where it is concatenated."""
    norms, attention, mlp = 2 * 2 * width, 4 * width * (width + 1), 2 * 2 * width**2 + 3 * width
    embedding, norm, head = 4 * 128 + 17 * 128, 2 * width, 2 * width + 3 * (width + 1)
    return 16 * (norms + attention + mlp) + embedding + norm + head


def test_positions_added_make_2_123_million_parameters() -> None:
    assert parameters(PoseTransformer()) == expected_parameters(128) == 2123267


def test_positions_concatenated_make_8_44_million_parameters() -> None:
    assert parameters(PoseTransformer(concatenate=True)) == expected_parameters(256) == 8438147


def test_an_encoder_is_what_plain_loops_make_of_it() -> None:
    torch.manual_seed(0)
    encoder = Encoder(width=6, heads=2, mlp_ratio=2, drop_path=0.0).double()
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    trust = torch.rand(1, 5, dtype=torch.float64)
    with torch.inference_mode():
        out, attention = encoder(x, trust.log())
        q, k, v = encoder.qkv(encoder.norm_attention(x[0])).chunk(3, -1)
        mixed = torch.zeros(5, 6, dtype=torch.float64)
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            for a in range(5):
                weight = torch.stack([(q[a, part] @ k[b, part] / 3**0.5).exp() for b in range(5)])
                weight = weight * trust[0]
                weight = weight / weight.sum()
                assert torch.allclose(attention[0, head, a], weight, atol=1e-12)
                mixed[a, part] = sum(weight[b] * v[b, part] for b in range(5))
        expected = x[0] + encoder.projection(mixed)
        expected = expected + encoder.mlp(encoder.norm_mlp(expected))
    assert torch.allclose(out[0], expected, atol=1e-12)


def test_the_attention_of_every_layer_comes_out_and_its_rows_sum_to_one() -> None:
    recovered = PoseTransformer().eval()(poses(3))
    assert [layer.shape for layer in recovered.attention] == [(3, 8, 17, 17)] * 16
    for layer in recovered.attention:
        assert torch.allclose(layer.sum(-1), torch.ones(3, 8, 17), atol=1e-5)
    assert not torch.equal(recovered.attention[0], recovered.attention[-1])


@pytest.mark.parametrize('switch', [None, 'concatenate', 'use_root', 'use_confidence', 'gated'])
def test_gradients_reach_every_parameter_and_batched_equals_single(switch: str | None) -> None:
    model = slim(**({switch: True} if switch else {}))
    pose, confidence = poses(3), torch.rand(3, 17)
    out = model(pose, pose[:, ROOT], confidence).pose
    single = [model(pose[[i]], pose[[i], ROOT], confidence[[i]]).pose for i in range(3)]
    assert torch.allclose(out, torch.cat(single), atol=1e-6)
    (out * torch.randn(out.shape)).sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize(
    ('concatenate', 'use_root'), [(False, False), (True, False), (False, True)]
)
def test_refining_moves_with_the_person_unless_it_sees_the_root(
    concatenate: bool, use_root: bool
) -> None:
    model = slim(concatenate=concatenate, use_root=use_root)
    shift = torch.tensor([0.5, -0.2, 1.0])
    with torch.inference_mode():
        difference = model.refine(poses(2) + shift) - model.refine(poses(2)) - shift
    assert (difference.abs().max() < 1e-5) == (not use_root)


def test_an_absolute_refiner_takes_the_pose_as_the_camera_sees_it() -> None:
    model = slim(relative=False)
    with torch.inference_mode():
        assert torch.equal(model.refine(poses(2)), model(poses(2)).pose)
        moved = model.refine(poses(2) + 0.5) - model.refine(poses(2))
    assert (moved - 0.5).abs().max() > 1e-3


def test_occ_mask_hides_masked_joints_altogether() -> None:
    model = slim()
    masked = torch.zeros(2, 17, dtype=torch.bool)
    masked[:, [0, 11]] = True
    other = poses(2)
    other[:, [0, 11]] += 5.0
    with torch.inference_mode():
        refined = model.refine(poses(2), masked=masked)
        assert torch.equal(refined, model.refine(other, masked=masked))
        relative = poses(2) - poses(2)[:, [ROOT]]
        relative[:, [0, 11]] = 0.0
        assert torch.allclose(refined - poses(2)[:, [ROOT]], model(relative).pose, atol=1e-6)
        assert not torch.allclose(refined, model.refine(poses(2)), atol=1e-3)


def test_padding_changes_masked_joints_only() -> None:
    masked = torch.zeros(1, 17, dtype=torch.bool)
    masked[0, 4] = True
    padded = pad_joints(poses(1), masked)
    assert padded[0, 4].tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(padded[~masked], poses(1)[~masked])


def test_conf_mask_scales_the_first_layer_s_attention_by_trust() -> None:
    model = slim(use_confidence=True)
    confidence = torch.full((2, 17), 0.5)
    confidence[:, 3] = 0.1
    with torch.inference_mode():
        plain, weighed = model(poses(2)), model(poses(2), confidence=confidence)
    expected = plain.attention[0] * confidence[:, None, None]  # its head starts as the identity
    expected = expected / expected.sum(-1, keepdim=True)
    assert torch.allclose(weighed.attention[0], expected, atol=1e-6)
    share = weighed.attention[1][..., 3] / plain.attention[1][..., 3]
    assert (share > 0.5).all()  # later layers are not scaled
    with torch.inference_mode():
        nobody = model(poses(2), confidence=torch.zeros(2, 17))
        assert torch.allclose(nobody.pose, plain.pose, atol=1e-5)  # all alike changes nothing


def test_a_gate_begins_with_half_of_the_correction_and_opens_and_closes() -> None:
    model = slim(gated=True)
    assert model.gate is not None
    given = poses(2)
    with torch.inference_mode():
        half = model.refine(given)
        assert torch.equal(model.refine(given, confidence=torch.rand(2, 17)), half)
        model.gate.bias.fill_(-30.0)
        assert torch.allclose(model.refine(given), given, atol=1e-6)
        model.gate.bias.fill_(30.0)
        whole = model.refine(given)
    assert torch.allclose(half, (given + whole) / 2, atol=1e-6)
    assert torch.allclose(half, (given + slim().refine(given)) / 2, atol=1e-6)


def test_a_gated_refiner_hears_how_sure_each_joint_is() -> None:
    model = slim(gated=True)
    assert model.gate is not None
    assert model.confidence_embed is not None
    confidence = torch.full((1, 17), 0.9)
    other = confidence.clone()
    other[0, 3] = 0.1
    with torch.inference_mode():
        model.confidence_embed.weight.normal_(generator=torch.Generator().manual_seed(0))
        moved = model.refine(poses(1), confidence=confidence)
        moved = (moved - model.refine(poses(1), confidence=other)).norm(dim=-1)[0]
    assert moved[3] == moved.max() > 1e-3


def test_confidences_are_not_read_without_the_switch() -> None:
    with torch.inference_mode():
        refined = slim().refine(poses(2), confidence=torch.rand(2, 17))
        assert torch.equal(refined, slim().refine(poses(2)))


def test_the_authors_switch_puts_ankles_head_and_wrists_back() -> None:
    with torch.inference_mode():
        kept, free = slim(keep_extremities=True).refine(poses(2)), slim().refine(poses(2))
    ends = [H36M_17.index(name) for name in EXTREMITIES]
    assert sorted(ends) == [0, 5, 9, 10, 15]
    assert torch.equal(kept[:, ends], poses(2)[:, ends])
    rest = [j for j in range(17) if j not in ends]
    assert torch.equal(kept[:, rest], free[:, rest])
    assert (free[:, ends] - poses(2)[:, ends]).abs().max() > 1e-3


def test_drop_path_leaves_whole_branches_out_and_only_in_training() -> None:
    torch.manual_seed(0)
    encoder = Encoder(width=4, heads=1, mlp_ratio=2, drop_path=0.25)
    branch = torch.ones(4000, 2, 4)
    dropped = encoder._drop(branch)
    assert sorted(set(dropped.flatten().tolist())) == [0.0, pytest.approx(1 / 0.75)]
    assert (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert encoder.eval()._drop(branch) is branch


@pytest.mark.parametrize('shape', [(2, 16, 3), (2, 17, 2), (17, 3)])
def test_a_pose_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises((TypeCheckError, RuntimeError)):
        slim()(torch.zeros(shape))


def test_the_shipped_refiner_loads_with_its_gate_and_is_relative() -> None:
    refiner, metadata = load_refiner(WEIGHTS)
    _, beside, _ = load_model(WEIGHTS)
    assert metadata['model'] == 'lite-efficientnet'
    assert refiner.gate is not None
    assert refiner.root_embed is None
    assert (refiner.relative, refiner.keep_extremities) == (True, False)
    assert beside is not None
    with torch.inference_mode():
        assert torch.equal(refiner.refine(poses(2)), beside.refine(poses(2)))


@pytest.mark.parametrize(
    'switch',
    ['concatenate', 'use_root', 'use_confidence', 'gated', 'keep_extremities', 'absolute'],
)
def test_a_saved_refiner_comes_back_with_its_switches(tmp_path: Path, switch: str) -> None:
    torch.manual_seed(0)
    switches = {'relative': False} if switch == 'absolute' else {switch: True}
    refiner = PoseTransformer(depth=2, **switches).eval()
    confidence = torch.rand(2, 17)
    save_refiner(tmp_path / 'r.safetensors', refiner, {'steps': 7})
    loaded, metadata = load_refiner(tmp_path / 'r.safetensors')
    assert metadata['steps'] == '7'
    network = NETWORKS['lite'].build()
    save_checkpoint(tmp_path / 'both.safetensors', network, {'model': 'lite'}, refiner)
    _, beside, _ = load_model(tmp_path / 'both.safetensors')
    assert beside is not None
    with torch.inference_mode():
        expected = refiner.refine(poses(2), confidence=confidence)
        for other in (loaded, beside):
            found = other.refine(poses(2), confidence=confidence)
            assert torch.allclose(found, expected, atol=0.01)


def test_weights_without_a_refiner_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / 'n.safetensors'
    save_checkpoint(path, NETWORKS['lite'].build(), {'model': 'lite'})
    with pytest.raises(CheckpointError, match='holds no pose transformer; give a file of'):
        load_refiner(path)
