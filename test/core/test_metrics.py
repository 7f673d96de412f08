"""MPJPE, JDR, SIM_cos and PCK on hand-made errors, and against plain loops."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from rsb_pose_core.metrics import (
    JointErrors,
    box_widths,
    feature_similarity,
    joint_detection_rates,
    joint_errors_mm,
    joint_scores,
    pose_errors,
    scores,
    summarize,
    torso_lengths,
)
from rsb_pose_core.skeleton import H36M_17


def poses(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 17, 3, generator=torch.Generator().manual_seed(1)) + 2


def test_a_common_shift_is_an_absolute_error_and_no_relative_one() -> None:
    truth = poses()
    errors = pose_errors(truth + torch.tensor([0.03, 0.0, 0.04]), truth)
    assert errors.absolute.mean_mm == pytest.approx(50.0, abs=1e-3)
    assert errors.absolute.median_mm == pytest.approx(50.0, abs=1e-3)
    assert errors.relative.mean_mm == pytest.approx(0.0, abs=1e-3)
    assert errors.absolute.found == 1.0
    assert errors.absolute.count == 34


def test_relative_is_relative_to_the_pelvis() -> None:
    truth = poses(1)
    predicted = truth.clone()
    predicted[0, 6, 2] += 0.1
    relative = joint_errors_mm(predicted, truth, root=6)[0]
    assert relative[6].item() == 0.0
    others = torch.cat([relative[:6], relative[7:]])
    assert torch.allclose(others, torch.full((16,), 100.0), atol=1e-2)
    assert pose_errors(predicted, truth).absolute.mean_mm == pytest.approx(100 / 17, abs=1e-3)


def test_mean_and_median_differ_with_a_tail() -> None:
    errors = torch.tensor([[1.0, 2.0, 3.0, 94.0]])
    summary = summarize(errors)
    assert (summary.mean_mm, summary.median_mm) == (25.0, 2.5)


def test_visible_joints_are_summed_up_apart() -> None:
    truth = poses(1)
    predicted = truth.clone()
    predicted[0, :3, 0] += 0.2
    visible = torch.ones(1, 17, dtype=torch.bool)
    visible[0, :3] = False
    errors = pose_errors(predicted, truth, visible)
    assert errors.absolute_visible.mean_mm == pytest.approx(0.0, abs=1e-4)
    assert errors.absolute_visible.count == 14
    assert errors.absolute.mean_mm == pytest.approx(600 / 17, abs=1e-2)


def test_missing_joints_are_reported_not_averaged() -> None:
    truth = poses(2)
    predicted = truth + torch.tensor([0.01, 0.0, 0.0])
    predicted[0, :5] = torch.nan
    errors = pose_errors(predicted, truth)
    assert errors.absolute.found == pytest.approx(29 / 34)
    assert errors.absolute.mean_mm == pytest.approx(10.0, abs=1e-3)
    predicted[1, 6] = torch.nan
    assert pose_errors(predicted, truth).relative.found == pytest.approx(12 / 34)


def test_nothing_found_and_nobody_expected_are_nan() -> None:
    nothing = summarize(torch.full((1, 17), torch.nan))
    assert math.isnan(nothing.mean_mm)
    assert (nothing.found, nothing.count) == (0.0, 0)
    nobody = summarize(torch.zeros(0, 17))
    assert math.isnan(nobody.found)


def test_errors_become_json() -> None:
    truth = poses()
    text = json.dumps(pose_errors(truth, truth).as_dict())
    assert json.loads(text)['absolute']['found'] == 1.0


def test_detection_rates_by_both_thresholds() -> None:
    truth = torch.zeros(1, 4, 2)
    predicted = truth.clone()
    predicted[0, :, 0] = torch.tensor([1.4, 1.6, 9.9, 10.1])  # px
    predicted[0, 0, 0] = 1.4
    rates = joint_detection_rates(
        predicted, truth, crop_side_px=torch.tensor([200.0]), box_width_px=torch.tensor([120.0])
    )
    assert rates.crop_side == 0.75  # within 10 px
    assert rates.box_width == 0.25  # within 1.5 px
    assert rates.found == 1.0


def test_a_joint_not_found_is_not_detected() -> None:
    truth = torch.zeros(2, 2, 2)
    predicted = truth.clone()
    predicted[1, 0] = torch.nan
    side = torch.tensor([100.0, 100.0])
    rates = joint_detection_rates(predicted, truth, side, side)
    assert (rates.crop_side, rates.found) == (0.75, 0.75)
    seen = torch.tensor([[True, True], [False, True]])
    assert joint_detection_rates(predicted, truth, side, side, seen).crop_side == 1.0
    assert math.isnan(joint_detection_rates(predicted, truth, side, side, seen & False).found)


# ---- any group of joints: plain loops in float64 ----


def some_errors(pairs: int = 7, seed: int = 3) -> JointErrors:
    """Random errors with joints not found, not counted and without a pelvis."""
    g = torch.Generator().manual_seed(seed)
    absolute, relative, disparity, similarity = (
        torch.rand(pairs, 17, generator=g, dtype=torch.float64) * scale
        for scale in (400.0, 400.0, 9.0, 1.0)
    )
    uv = torch.rand(pairs, 2, 17, generator=g, dtype=torch.float64) * 30
    lost = torch.rand(pairs, 17, generator=g) < 0.15
    for values in (absolute, relative, disparity, similarity):
        values[lost] = torch.nan
    uv[lost[:, None].expand(-1, 2, -1)] = torch.nan
    rooted = torch.arange(pairs) != 2
    relative[~rooted] = torch.nan
    torso = torch.rand(pairs, 2, generator=g, dtype=torch.float64) * 60 + 20
    torso[4, 1] = torch.nan
    return JointErrors(
        absolute_mm=absolute,
        relative_mm=relative,
        uv_px=uv,
        disparity_px=disparity,
        similarity=similarity,
        depth_m=torch.rand(pairs, 17, generator=g, dtype=torch.float64) + 2,
        visibility=torch.randint(0, 3, (pairs, 2, 17), generator=g).to(torch.uint8),
        counted=torch.rand(pairs, 17, generator=g) < 0.8,
        rooted=rooted,
        crop_side_px=torch.full((pairs,), 256.0, dtype=torch.float64),
        box_width_px=torch.rand(pairs, 2, generator=g, dtype=torch.float64) * 900 + 200,
        torso_px=torso,
    )


def rate(hits: list[bool]) -> float:
    return sum(hits) / len(hits) if hits else math.nan


@pytest.mark.parametrize('group', ['all', 'visible', 'occluded', 'wrist'])
def test_scores_of_a_group_are_those_of_plain_loops(group: str) -> None:
    errors = some_errors()
    chosen = {
        'all': None,
        'visible': errors.visible,
        'occluded': errors.occluded,
        'wrist': torch.arange(17).expand(7, -1) == 10,
    }[group]
    absolute, relative, similarity, found = [], [], [], []
    crop, box, torso, near, area = [], [], [], [], []
    for pair in range(7):
        for joint in range(17):
            visible = int(errors.visibility[pair, 0, joint]) == 0
            inside = {
                'all': True, 'visible': visible, 'occluded': not visible, 'wrist': joint == 10,
            }[group]  # fmt: skip
            if not inside or not bool(errors.counted[pair, joint]):
                continue
            a, r = (
                float(values[pair, joint]) for values in (errors.absolute_mm, errors.relative_mm)
            )
            found.append(not math.isnan(a))
            if found[-1]:
                absolute.append(a)
                similarity.append(float(errors.similarity[pair, joint]))
            if pair != 2:
                near.append(r < 150)
                area += [r < 5 * step for step in range(31)]
                if not math.isnan(r):
                    relative.append(r)
            for view in range(2):
                assert errors.uv_px is not None
                off = float(errors.uv_px[pair, view, joint])
                crop.append(off < 12.8)
                box.append(off < 0.0125 * float(errors.box_width_px[pair, view]))
                if (pair, view) != (4, 1):
                    torso.append(off < 0.2 * float(errors.torso_px[pair, view]))
    result = scores(errors, chosen)
    assert result.expected == len(found)
    assert result.found == pytest.approx(rate(found), abs=1e-12)
    assert 0 < result.found < 1 or group == 'wrist'
    for name, values in (
        ('mpjpe_ab_mm', absolute), ('mpjpe_re_mm', relative), ('sim_cos', similarity),
    ):  # fmt: skip
        measured = getattr(result, name)
        assert measured.count == len(values)
        assert measured.mean == pytest.approx(sum(values) / len(values), abs=1e-9)
        for level in (5, 25, 75, 95):
            expected = float(np.percentile(values, level))
            assert getattr(measured, f'p{level}') == pytest.approx(expected, abs=1e-9)
        assert measured.median == pytest.approx(float(np.median(values)), abs=1e-9)
    for name, hits in (
        ('jdr_crop_side', crop), ('jdr_box_width', box), ('pck_2d', torso), ('pck_3d', near),
        ('auc_3d', area),
    ):  # fmt: skip
        assert getattr(result, name) == pytest.approx(rate(hits), abs=1e-12), name


def test_each_joint_by_itself_is_the_group_of_that_joint() -> None:
    errors = some_errors()
    each = joint_scores(errors)
    assert len(each) == 17
    assert sum(joint.expected for joint in each) == int(errors.counted.sum())
    only = torch.zeros(7, 17, dtype=torch.bool)
    only[:, 3] = True
    assert each[3] == scores(errors, only)
    assert each[3] != each[4]


def test_batches_joined_are_one_evaluation() -> None:
    whole = some_errors()
    parts = [
        replace(whole, **{f.name: getattr(whole, f.name)[rows] for f in fields(whole)})
        for rows in (slice(0, 3), slice(3, 4), slice(4, 7))
    ]
    joined = JointErrors.join(parts)
    assert len(joined) == 7
    assert scores(joined) == scores(whole)
    without = [replace(part, uv_px=None) for part in parts]
    assert JointErrors.join(without).uv_px is None


def test_a_group_without_joints_has_no_figures() -> None:
    nothing = scores(some_errors(), torch.zeros(7, 17, dtype=torch.bool))
    assert nothing.expected == 0
    assert nothing.mpjpe_ab_mm.count == 0
    for value in (
        nothing.found, nothing.mpjpe_ab_mm.mean, nothing.mpjpe_re_mm.p95, nothing.sim_cos.median,
        nothing.jdr_crop_side, nothing.pck_2d, nothing.pck_3d, nothing.auc_3d,
    ):  # fmt: skip
        assert math.isnan(value)


def test_joints_that_are_never_found_are_misses_and_no_errors() -> None:
    errors = some_errors()
    nan = torch.full_like(errors.absolute_mm, torch.nan)
    assert errors.uv_px is not None
    lost = scores(
        replace(errors, absolute_mm=nan, relative_mm=nan, uv_px=errors.uv_px * torch.nan)
    )
    assert (lost.found, lost.pck_3d, lost.auc_3d, lost.jdr_crop_side) == (0, 0, 0, 0)
    assert math.isnan(lost.mpjpe_ab_mm.mean)


def test_a_method_without_2d_keypoints_has_no_2d_figures() -> None:
    result = scores(replace(some_errors(), uv_px=None))
    for value in (result.jdr_crop_side, result.jdr_box_width, result.pck_2d, result.uv_px.mean):
        assert math.isnan(value)
    assert 0 < result.pck_3d < 1


def test_the_error_of_a_pose_is_the_mean_of_its_counted_joints() -> None:
    errors = some_errors()
    for pair in range(7):
        values = [
            float(errors.absolute_mm[pair, joint])
            for joint in range(17)
            if errors.counted[pair, joint] and not math.isnan(errors.absolute_mm[pair, joint])
        ]
        assert float(errors.pose_mm()[pair]) == pytest.approx(sum(values) / len(values))


# ---- SIM_cos ----


def bilinear(features: np.ndarray, column: float, row: float) -> np.ndarray:
    """(C,H,W) at a place; beyond the centres of the outermost cells it stays constant."""
    height, width = features.shape[1:]
    column, row = min(max(column, 0.0), width - 1.0), min(max(row, 0.0), height - 1.0)
    x, y = min(int(column), width - 2), min(int(row), height - 2)
    fx, fy = column - x, row - y
    upper = (1 - fx) * features[:, y, x] + fx * features[:, y, x + 1]
    lower = (1 - fx) * features[:, y + 1, x] + fx * features[:, y + 1, x + 1]
    return (1 - fy) * upper + fy * lower


def test_similarity_is_the_cosine_of_features_read_bilinearly() -> None:
    g = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, 6, 8, 5, generator=g) for _ in range(2))  # 8 rows, 5 columns
    uv_left, uv_right = (torch.rand(2, 17, 2, generator=g) * 40 - 0.5 for _ in range(2))
    found = feature_similarity(left, right, uv_left, uv_right, 40)
    for pair in range(2):
        for joint in range(17):
            vectors = []
            for features, uv in ((left, uv_left), (right, uv_right)):
                u, v = (float(x) for x in uv[pair, joint])
                cell = ((u + 0.5) * 5 / 40 - 0.5, (v + 0.5) * 8 / 40 - 0.5)
                vectors.append(bilinear(features[pair].double().numpy(), *cell))
            a, b = vectors
            expected = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            assert float(found[pair, joint]) == pytest.approx(expected, abs=1e-5)


def test_equal_features_are_alike_and_opposite_ones_opposite() -> None:
    features = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    uv = torch.full((1, 17, 2), 5.3)
    assert torch.allclose(feature_similarity(features, features, uv, uv, 16), torch.ones(1, 17))
    assert torch.allclose(feature_similarity(features, -features, uv, uv, 16), -torch.ones(1, 17))


def test_a_keypoint_outside_its_crop_has_no_similarity() -> None:
    features = torch.ones(1, 3, 4, 4)
    uv = torch.full((1, 4, 2), 8.0)
    moved = uv.clone()
    moved[0, :, 0] = torch.tensor([-0.4, -0.6, 15.6, torch.nan])
    found = feature_similarity(features, features, uv, moved, 16)[0]
    assert found.isnan().tolist() == [False, True, True, True]


# ---- sizes that thresholds refer to ----


def test_boxes_and_torsos_are_measured_on_joints_with_a_label() -> None:
    uv = torch.full((3, 17, 2), torch.nan)
    shoulder, hip = H36M_17.index('left_shoulder'), H36M_17.index('right_hip')
    uv[0, shoulder], uv[0, hip] = torch.tensor([100.0, 20.0]), torch.tensor([70.0, 60.0])
    uv[0, 0] = torch.tensor([-15.0, 300.0])
    uv[1, hip] = torch.tensor([7.0, 7.0])
    assert box_widths(uv)[0].item() == 115.0
    assert torso_lengths(uv)[0].item() == 50.0
    assert box_widths(uv)[1:].isnan().all()
    assert torso_lengths(uv)[1:].isnan().all()
