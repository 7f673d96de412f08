"""MPJPE and joint detection rate on hand-made errors."""

import json
import math

import pytest
import torch

from rsb_pose_core.metrics import (
    joint_detection_rates,
    joint_errors_mm,
    pose_errors,
    summarize,
)


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
