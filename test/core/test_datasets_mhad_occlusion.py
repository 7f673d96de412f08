"""MHAD_occ's rule on people whose hidden joints are plain to see."""

from pathlib import Path

import numpy as np
import pytest
from stereo_scene import STANDING_M, camera

from rsb_pose_core.datasets.mhad_occlusion import OcclusionRule, visibility_codes
from rsb_pose_core.datasets.prepared import pixels
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis.labels import OUTSIDE, SELF_OCCLUDED, VISIBLE


def person() -> np.ndarray:
    """Upright at 2.5 m, facing the cameras, arms at its sides."""
    return STANDING_M + (0.0, 0.1, 2.5)


def codes(xyz_m: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    shown = np.ones((480, 640), bool) if shown is None else shown
    return visibility_codes(xyz_m, camera(), (shown, shown), OcclusionRule())


def hidden_names(xyz_m: np.ndarray) -> list[str]:
    return [H36M_17.joint_names[j] for j in np.flatnonzero((codes(xyz_m) == 1).all(0))]


def test_a_person_who_faces_the_camera_hides_nothing() -> None:
    assert (codes(person()) == VISIBLE).all()


@pytest.mark.parametrize(('depth_m', 'hidden'), [(-0.3, False), (0.3, True)])
def test_a_wrist_is_hidden_behind_the_torso_and_not_before_it(
    depth_m: float, hidden: bool
) -> None:
    xyz = person()
    wrist = H36M_17.index('left_wrist')
    xyz[wrist] = xyz[H36M_17.index('spine')] + (0.05, 0.0, depth_m)
    assert ('left_wrist' in hidden_names(xyz)) is hidden
    assert ((codes(xyz) == SELF_OCCLUDED)[:, wrist] == hidden).all()


def test_a_forearm_hides_four_centimetres_to_its_sides_at_every_distance() -> None:
    for distance in (0.0, 2.0):
        for aside, hidden in ((0.035, True), (0.065, False)):
            xyz = person() + (0, 0, distance)
            elbow, wrist = (H36M_17.index(f'right_{name}') for name in ('elbow', 'wrist'))
            xyz[elbow], xyz[wrist] = xyz[elbow] - (0.1, 0, 0), xyz[wrist] - (0.1, 0, 0)
            knee = H36M_17.index('left_knee')
            middle = (xyz[elbow] + xyz[wrist]) / 2
            across = np.array((0, 0, 1.0))
            along = xyz[wrist] - xyz[elbow]
            side = np.cross(along, across) / np.linalg.norm(np.cross(along, across))
            behind = (middle[2] + 0.4) / middle[2]
            xyz[knee] = (middle + aside * side) * behind  # on the ray beside the forearm
            assert (codes(xyz)[0, knee] == SELF_OCCLUDED) == hidden


def test_from_the_side_the_near_arm_and_leg_hide_the_far_ones() -> None:
    xyz = person()
    middle = xyz[H36M_17.root]
    turned = (xyz - middle)[:, [2, 1, 0]] + middle  # looks along x, left is far
    hidden = hidden_names(turned)
    assert {'left_hip', 'left_shoulder'} <= set(hidden)
    assert not any(name.startswith('right') for name in hidden)


def test_joints_that_a_raw_picture_does_not_reach_are_outside() -> None:
    shown = np.ones((480, 640), bool)
    shown[:, :300] = False
    xyz = person()
    left, _ = pixels(xyz, camera())
    expected = left[:, 0].round() < 300
    assert 2 < expected.sum() < 15
    assert ((codes(xyz, shown)[0] == OUTSIDE) == expected).all()
    xyz[:, 2] *= -1
    assert (codes(xyz) == OUTSIDE).all()


def test_the_rule_is_read_from_yaml_and_foreign_names_are_refused(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / 'config' / 'datasets' / 'mhad_occ.yaml'
    assert OcclusionRule.read(shipped) == OcclusionRule()
    path = tmp_path / 'rule.yaml'
    path.write_text('torso_m: 0.2\n')
    assert OcclusionRule.read(path) == OcclusionRule(torso_m=0.2)
    for text, match in (
        ('belly_m: 0.2', 'no setting belly_m'),
        ('torso_m: 13', 'torso_m of the occlusion rule is 13'),
        ('torso_m: [', 'no occlusion rule'),
        ('- 3', 'no occlusion rule'),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=match):
            OcclusionRule.read(path)
