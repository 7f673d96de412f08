"""Bodies in poses: what joints allow, what never meets, how often what is drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.anatomy import HANDS, LIMITS, hand_bones, random_hands
from rsb_pose_core.synthesis.body import Body
from rsb_pose_core.synthesis.clips import Clip, read_motion, split_of
from rsb_pose_core.synthesis.contact import PAIRS, PARTS, Capsules
from rsb_pose_core.synthesis.draw import Draw
from rsb_pose_core.synthesis.poses import (
    CATEGORIES,
    GESTURE_NAMES,
    GROUND,
    KNEEL,
    LIE,
    SIT,
    STAND,
    BodyPoses,
    Mixture,
    PosePool,
)
from rsb_pose_core.synthesis.postures import reach
from rsb_pose_core.synthesis.retarget import (
    Retarget,
    figure_scale,
    place_bones,
    posed_joints,
    retarget,
)
from rsb_pose_core.synthesis.stance import (
    Stance,
    chest_frame,
    joint,
    sided,
    stance_of,
    with_arms,
)

DATA = Path(__file__).parents[3] / 'shared' / 'data'
LIMBS = ('knee', 'ankle', 'elbow', 'wrist')
DRAWN = 5000


@pytest.fixture(scope='module')
def body() -> Body:
    return Body()


@pytest.fixture(scope='module')
def clips() -> list[Clip]:
    if not (DATA / 'motion').exists():
        pytest.skip('no motion data')
    poses = DATA / 'wardrobe' / 'base' / 'poses'
    return read_motion(DATA / 'motion', poses)


@pytest.fixture(scope='module')
def pool(clips: list[Clip]) -> PosePool:
    return PosePool(clips, 'train')


@pytest.fixture(scope='module')
def drawn(pool: PosePool, body: Body) -> tuple[Tensor, BodyPoses, Tensor]:
    """Rest heads, poses and joints (B, 17, 3) of many people of all shapes, facing +z."""
    draw = Draw(5)
    heads = heads_of(body, body.shapes[draw.integer(len(body.shapes), DRAWN)])
    poses = pool.sample(DRAWN, draw, heads, body, turned=False)
    return heads, poses, posed_joints(body, heads, poses.rotation, poses.root_rotation)


def heads_of(body: Body, shape: Tensor) -> Tensor:
    return body.bone_heads + torch.einsum('bk,kvd->bvd', shape, body.bone_basis)


def neutral(body: Body, count: int) -> Tensor:
    return heads_of(body, torch.zeros(count, body.shapes.shape[1]))


def still_clip(body: Body, name: str = 'walking_1') -> Clip:
    """The resting body, its left arm rising over 40 frames."""
    heads = neutral(body, 40)
    rotation = torch.eye(3).repeat(40, len(body.bones), 1, 1)
    turn = rotations.about_z(torch.linspace(0, 1.5, 40))
    rotation[:, body.bone_index['upperarm01.L']] = turn
    joints = posed_joints(body, heads, rotation, torch.eye(3).repeat(40, 1, 1))
    return Clip(name, joints.double().numpy() + [3.0, 1.0, 2.0], 30.0)


def ways(joints: Tensor, end: str) -> Tensor:
    """Unit directions (B, 2, 3) of the bones that end in a joint."""
    starts = {'knee': 'hip', 'ankle': 'knee', 'elbow': 'shoulder', 'wrist': 'elbow'}
    return normalize(sided(joints, end) - sided(joints, starts[end]), dim=-1)


def bent(first: Tensor, second: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos((first * second).sum(-1).clamp(-1, 1)))


# ---- retargeting


def test_limbs_point_where_the_pose_says(body):
    heads = neutral(body, 6)
    rotation = torch.eye(3).repeat(6, len(body.bones), 1, 1)
    # within limits: arms and legs swung about, knees and elbows bent about their own hinges
    for s, side in (('L', 1.0), ('R', -1.0)):
        angles = torch.tensor([0.0, 0.3, 0.7, 1.0, 1.3, 1.5])
        about = rotations.about_x(-angles) @ rotations.about_z(side * 0.3 * angles)
        rotation[:, body.bone_index[f'upperleg01.{s}']] = about
        rotation[:, body.bone_index[f'lowerleg01.{s}']] = rotations.about_x(1.2 * angles)
        rotation[:, body.bone_index[f'upperarm01.{s}']] = about.mT
    turn = rotations.about_y(torch.arange(6.0))
    pose = posed_joints(body, heads, rotation, turn)
    found, root = retarget(body, heads, pose)
    posed = posed_joints(body, heads, found, root)
    for end in LIMBS:
        torch.testing.assert_close(ways(posed, end), ways(pose, end), atol=1e-3, rtol=0)
    # the trunk follows within a few degrees: its bones are not those of the 17 joints
    trunk, wanted = (joint(j, 'neck') - joint(j, 'pelvis') for j in (posed, pose))
    assert bent(normalize(trunk, dim=-1), normalize(wanted, dim=-1)).max() < 3.0


def test_the_resting_body_comes_back_as_itself(body):
    heads = heads_of(body, body.shapes[:50])
    still = torch.eye(3).repeat(50, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3).repeat(50, 1, 1))
    rotation, root = retarget(body, heads, pose)
    _, angle = rotations.log(rotation)
    names = [f'{n}.{s}' for n in ('upperleg01', 'lowerleg01', 'upperarm01', 'lowerarm01')
             for s in 'LR']  # fmt: skip
    for name in names:
        assert torch.rad2deg(angle[:, body.bone_index[name]]).max() < 14.0, name
    feet = [body.bone_index[f'foot.{s}'] for s in 'LR']
    assert torch.rad2deg(angle[:, feet]).max() < 14.0


def test_knees_bend_forward_only_and_elbows_stay_within_their_range(body):
    draw = Draw(1)
    count = 400
    heads = neutral(body, count)
    pose = 0.3 * draw.normal(count, 17, 3) + torch.tensor([0.0, 1.0, 0.0])
    rotation, root = retarget(body, heads, pose)  # any 17 points at all
    turn, head = place_bones(body, heads, rotation, root)
    joints = posed_joints(body, heads, rotation, root)
    rest = {name: heads[:, body.bone_index[name]] for name in body.bones}
    for number, s in enumerate('LR'):
        thigh = ways(joints, 'knee')[:, number]
        shin = ways(joints, 'ankle')[:, number]
        back = turn[:, body.bone_index[f'upperleg02.{s}']] @ torch.tensor([0.0, 0.0, -1.0])
        back = normalize(back - (back * thigh).sum(-1, keepdim=True) * thigh, dim=-1)
        assert (shin * back).sum(-1).min() > -1e-3
        assert bent(thigh, shin).max() < LIMITS['knee_flexion'].high_deg + 1
        upper, fore = (ways(joints, end)[:, number] for end in ('elbow', 'wrist'))
        assert bent(upper, fore).max() < LIMITS['elbow_flexion'].high_deg + 1
        # where the elbow bends to at rest, turned with the upper arm
        plane = rest[f'wrist.{s}'] - rest[f'lowerarm01.{s}']
        plane = (turn[:, body.bone_index[f'upperarm02.{s}']] @ plane[..., None])[..., 0]
        plane = normalize(plane - (plane * upper).sum(-1, keepdim=True) * upper, dim=-1)
        least = -np.sin(np.radians(LIMITS['elbow_sideways'].high_deg)) - 1e-3
        assert (fore * plane).sum(-1).min() > least


def test_a_bent_knee_turns_the_thigh_into_its_plane(body):
    heads = neutral(body, 2)
    still = torch.eye(3).repeat(2, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3).repeat(2, 1, 1))
    hip, knee = sided(pose, 'hip'), sided(pose, 'knee').clone()
    # thighs ahead, left shin hanging and right shin 30 degrees out
    knee = hip + torch.tensor([0.0, 0.0, 0.4])
    shin = torch.tensor([[0.0, -0.4, 0.0], [-0.2, -0.3464, 0.0]])
    for number, side in enumerate(('left', 'right')):
        pose[:, H36M_17.index(f'{side}_knee')] = knee[:, number]
        pose[:, H36M_17.index(f'{side}_ankle')] = knee[:, number] + shin[number]
    rotation, root = retarget(body, heads, pose)
    turn, _ = place_bones(body, heads, rotation, root)
    hinge = turn[0, [body.bone_index[f'upperleg02.{s}'] for s in 'LR'], :, 0]
    # the knee's own axis is normal to the shin: the right thigh is turned inward by 30 degrees
    assert torch.rad2deg(torch.atan2(hinge[0, 1], hinge[0, 0])).abs() < 6
    assert abs(float(torch.rad2deg(torch.atan2(hinge[1, 1], hinge[1, 0]))) + 30) < 6


def swing_twist_deg(turn: Tensor, axis: Tensor) -> Tensor:
    """Twist (B,) of turns (B, 3, 3) about unit axes (B, 3), in degrees."""
    swing = rotations.between(axis, (turn @ axis[..., None])[..., 0])
    about, angle = rotations.log(swing.mT @ turn)
    return torch.rad2deg(angle) * (about * axis).sum(-1)


def test_no_forearm_is_twisted_beyond_its_limits_and_its_bones_share_the_twist(body):
    draw = Draw(2)
    count = 200
    heads = neutral(body, count)
    still = torch.eye(3).repeat(count, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3).repeat(count, 1, 1))
    stance = stance_of(pose)
    wild = Stance(*(getattr(stance, n) for n in ('pelvis', 'chest', 'head', 'arms', 'legs',
                    'feet')), 4 * draw.normal(count, 2, 3))  # fmt: skip
    rotation, _ = Retarget(body, heads).rotations(wild)
    limit = LIMITS['forearm_twist']
    for s, sign in (('L', 1.0), ('R', -1.0)):
        index = body.bone_index
        axis = normalize(
            heads[:, index[f'wrist.{s}']] - heads[:, index[f'lowerarm02.{s}']], dim=-1
        )
        inner = sign * swing_twist_deg(rotation[:, index[f'lowerarm02.{s}']], axis)
        outer = sign * swing_twist_deg(rotation[:, index[f'lowerarm01.{s}']], axis)
        whole = inner + outer
        assert whole.min() > limit.low_deg - 12
        assert whole.max() < limit.high_deg + 12
        assert (inner.abs() <= 0.6 * max(-limit.low_deg, limit.high_deg) + 0.1).all()
        _, bend = rotations.log(rotation[:, index[f'wrist.{s}']])
        assert torch.rad2deg(bend).max() < 82


def test_spine_and_neck_stay_within_their_limits(body):
    draw = Draw(3)
    heads = neutral(body, 300)
    pose = 0.3 * draw.normal(300, 17, 3)
    rotation, _ = retarget(body, heads, pose)
    for names, part in (
        (('spine04', 'spine03', 'spine02', 'spine01'), 'spine'),
        (('neck01', 'neck02', 'neck03', 'head'), 'neck'),
    ):
        whole = torch.zeros(300, 3)
        for name in names:
            axis, angle = rotations.log(rotation[:, body.bone_index[name]])
            whole += axis * angle[:, None]
        for k, kind in enumerate(('flexion', 'rotation', 'sideways')):
            limit = LIMITS[f'{part}_{kind}']
            assert whole[:, k].min() > limit.low - 1e-3
            assert whole[:, k].max() < limit.high + 1e-3


def test_raised_arms_lift_the_shoulders(body):
    heads = neutral(body, 2)
    still = torch.eye(3).repeat(2, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3).repeat(2, 1, 1))
    for side in ('left', 'right'):
        shoulder = pose[1, H36M_17.index(f'{side}_shoulder')]
        for reach_m, name in ((0.3, 'elbow'), (0.55, 'wrist')):
            pose[1, H36M_17.index(f'{side}_{name}')] = shoulder + torch.tensor([0, reach_m, 0.0])
    rotation, root = retarget(body, heads, pose)
    posed = posed_joints(body, heads, rotation, root)
    risen = sided(posed, 'shoulder')[1, :, 1] - sided(posed, 'shoulder')[0, :, 1]
    assert (risen > 0.05).all()
    assert (risen < 0.15).all()


def test_standing_feet_are_flat_and_hanging_feet_point_down(body):
    heads = neutral(body, 1)
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3)[None])
    lifted = pose.clone()  # the left foot half a metre up, shin hanging
    hip = joint(pose, 'left_hip')
    lifted[:, H36M_17.index('left_knee')] = hip + torch.tensor([0.0, 0.0, 0.4])
    lifted[:, H36M_17.index('left_ankle')] = hip + torch.tensor([0.0, -0.4, 0.4])
    rotation, root = retarget(body, heads, lifted)
    turn, _ = place_bones(body, heads, rotation, root)
    left, right = (turn[0, body.bone_index[f'foot.{s}'], 1, 2] for s in 'LR')
    assert abs(float(right)) < 0.1  # the sole's way is level
    assert float(left) < -0.2


def test_a_recorded_foot_keeps_its_own_direction(body):
    heads = neutral(body, 1)
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3)[None])
    toes = normalize(torch.tensor([[[0.3, -0.5, 1.0], [-0.1, 0.3, 1.0]]]), dim=-1)
    rotation, root = Retarget(body, heads).rotations(stance_of(pose, toes))
    turn, _ = place_bones(body, heads, rotation, root)
    found = turn[:, [body.bone_index[f'foot.{s}'] for s in 'LR'], :, 2]
    assert bent(found, toes).max() < 3.0


def test_arms_of_another_pose_keep_their_place_relative_to_the_chest(body):
    clip = still_clip(body)
    pose, donor = (torch.as_tensor(clip.joints_m[k : k + 1], dtype=torch.float32) for k in (0, 39))
    turned = pose @ rotations.about_y(torch.tensor([1.2])).mT
    mixed = with_arms(turned, donor)
    arm, wanted = (
        (joint(p, 'left_wrist') - joint(p, 'left_shoulder'))[:, None] @ chest_frame(p)
        for p in (mixed, donor)
    )
    torch.testing.assert_close(arm, wanted, atol=1e-5, rtol=0)
    assert torch.equal(joint(mixed, 'left_knee'), joint(turned, 'left_knee'))


# ---- limbs that may not meet


def dense_depth_m(joints: np.ndarray, scale: np.ndarray, count: int = 21) -> np.ndarray:
    """Deepest overlap (B,) of the parts, by points along each: an oracle for Capsules."""
    share = np.linspace(0, 1, count)[:, None]
    points = {}
    for name, (start, end, radius) in PARTS.items():
        a, b = (
            sum(weight * joints[:, H36M_17.index(k)] for k, weight in mix.items())
            for mix in (start, end)
        )
        points[name] = a[:, None] * (1 - share) + b[:, None] * share, radius
    deepest = np.full(len(joints), -np.inf)
    for one, other in PAIRS:
        (p, r), (q, s) = points[one], points[other]
        gap = np.linalg.norm(p[:, :, None] - q[:, None], axis=-1).min((1, 2))
        deepest = np.maximum(deepest, (r + s) * scale - gap)
    return deepest


def test_overlap_of_capsules_matches_points_along_them():
    joints = 0.3 * Draw(4).normal(40, 17, 3)
    scale = torch.linspace(0.7, 1.2, 40)
    found = Capsules().depth_m(joints, scale).numpy()
    wanted = dense_depth_m(joints.numpy(), scale.numpy(), 121)
    np.testing.assert_allclose(found, wanted, atol=0.004)
    assert (found >= wanted - 1e-5).all()


def test_a_forearm_through_the_trunk_is_pushed_out_at_its_own_length(body):
    heads = neutral(body, 1)
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3)[None])
    chest = (joint(pose, 'neck') + joint(pose, 'pelvis')) / 2
    shoulder = joint(pose, 'left_shoulder')
    pose[:, H36M_17.index('left_elbow')] = shoulder + torch.tensor([0.1, -0.25, 0.05])
    elbow = joint(pose, 'left_elbow')
    pose[:, H36M_17.index('left_wrist')] = elbow + 0.25 * normalize(chest - elbow, dim=-1)
    capsules, scale = Capsules(), figure_scale(body, heads)
    assert capsules.depth_m(pose, scale) > 0.08
    parted = capsules.part(pose, scale, torch.tensor([-10.0]), torch.zeros(1, 2) > 0)
    assert capsules.depth_m(parted, scale) < 0.015
    length = (joint(parted, 'left_wrist') - joint(parted, 'left_elbow')).norm()
    assert float(length) == pytest.approx(0.25, abs=1e-5)
    assert torch.equal(joint(parted, 'right_knee'), joint(pose, 'right_knee'))


def test_a_hand_below_the_floor_is_lifted_onto_it(body):
    heads = neutral(body, 1)
    still = torch.eye(3).repeat(1, len(body.bones), 1, 1)
    pose = posed_joints(body, heads, still, torch.eye(3)[None])
    floor = joint(pose, 'left_wrist')[:, 1] + 0.1
    flat = torch.tensor([[True, False]])
    parted = Capsules().part(pose, figure_scale(body, heads), floor, flat)
    left, right = (float(sided(parted, 'wrist')[0, k, 1] - floor) for k in (0, 1))
    assert 0.02 < left < 0.06
    elbow, wrist = sided(parted, 'elbow')[0, 1, 1], sided(parted, 'wrist')[0, 1, 1]
    assert float(wrist - 0.62 * (elbow - wrist)) > float(floor)  # the fingertips of the other
    assert right > left


def test_a_limb_reaches_what_is_in_reach_and_points_at_the_rest():
    start = torch.zeros(2, 3)
    goal = torch.tensor([[0.0, -0.5, 0.1], [0.0, 0.0, 3.0]])
    lengths = torch.full((2,), 0.3), torch.full((2,), 0.25)
    pole = torch.tensor([[0.0, 0.0, -1.0]]).expand(2, 3)
    first, second = reach(start, goal, lengths, pole)
    end = lengths[0][:, None] * first + lengths[1][:, None] * second
    torch.testing.assert_close(end[0], goal[0], atol=1e-5, rtol=0)
    assert first[0, 2] < 0  # the elbow is behind
    assert bent(end[1] / end[1].norm(), torch.tensor([0.0, 0.0, 1.0])) < 0.1


# ---- hands


def test_fists_are_closed_and_flat_hands_open(body):
    heads = neutral(body, 1)
    index = body.bone_index
    numbers = [index[name] for name in hand_bones()]
    spans = {}
    for kind in ('flat', 'fist', 'pointing', 'thumb'):
        flexion = torch.deg2rad(torch.tensor(HANDS[kind], dtype=torch.float32))
        turns = Retarget(body, heads).hands(flexion[None, :, None, None].expand(1, 5, 3, 2))
        rotation = torch.eye(3).repeat(1, len(body.bones), 1, 1)
        rotation[:, numbers] = turns
        _, head = place_bones(body, heads, rotation, torch.eye(3)[None])
        for s in 'LR':
            for finger in (1, 2, 4):
                tip, wrist = (head[0, index[n]] for n in (f'finger{finger}-3.{s}', f'wrist.{s}'))
                spans[kind, finger, s] = float((tip - wrist).norm())
    for s in 'LR':
        assert spans['fist', 2, s] < spans['flat', 2, s] - 0.015
        assert spans['pointing', 2, s] > spans['flat', 2, s] - 0.003
        assert spans['pointing', 4, s] < spans['flat', 4, s] - 0.015
        assert spans['thumb', 1, s] > spans['fist', 1, s]
    assert np.allclose([spans[k, f, 'L'] for k, f, s in spans if s == 'L'],
                       [spans[k, f, 'R'] for k, f, s in spans if s == 'R'], atol=2e-3)  # fmt: skip


def test_hands_of_many_people_are_of_every_kind():
    flexion = torch.rad2deg(random_hands(2000, Draw(0)))
    index, middle = flexion[:, 1].mean(1), flexion[:, 2].mean(1)
    assert ((index > 60) & (middle > 60)).float().mean() > 0.05  # fists and thumbs
    assert ((index < 12) & (middle < 12)).float().mean() > 0.05  # flat
    assert ((index < 20) & (middle > 60)).float().mean() > 0.02  # pointing


# ---- the pool


def test_the_same_seed_gives_the_same_poses(body):
    pool = PosePool([still_clip(body)], 'train')
    heads = neutral(body, 7)
    one, two, other = (pool.sample(7, Draw(seed), heads, body) for seed in (3, 3, 4))
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(two, name)), name
    assert not torch.equal(one.rotation, other.rotation)


def test_a_recording_plays_on_and_stays_as_it_is(body):
    clip = still_clip(body)
    pool = PosePool([clip], 'train', recorded_only=True)
    heads = neutral(body, 64)
    poses = pool.sample(64, Draw(1), heads, body, turned=False)
    now = posed_joints(body, heads, poses.rotation, poses.root_rotation)
    later = posed_joints(body, heads, poses.later_rotation, poses.later_root_rotation)
    recorded = torch.as_tensor(clip.joints_m, dtype=torch.float32)
    arms = ways(recorded, 'elbow')[:, 0]
    nearest = (ways(now, 'elbow')[:, 0] @ arms.T).argmax(1)
    torch.testing.assert_close(ways(now, 'elbow')[:, 0], arms[nearest], atol=0.02, rtol=0)
    # the arm rises by 1.5 rad in 39 frames of DT_S
    moved = torch.deg2rad(bent(ways(now, 'elbow')[:, 0], ways(later, 'elbow')[:, 0]))
    running = nearest < 38
    torch.testing.assert_close(
        moved[running], torch.full_like(moved[running], 1.5 / 39), atol=0.006, rtol=0
    )
    assert float((ways(now, 'ankle') - ways(later, 'ankle')).abs().max()) < 1e-3
    assert float(poses.root_shift_m.abs().max()) < 1e-4
    assert (poses.support == STAND).all()


def test_travel_of_a_walker_follows_its_heading_and_size(body):
    clip = still_clip(body)
    walk = np.arange(40)[:, None, None] / 30.0 * np.array([0.0, 0.0, 1.2])  # 1.2 m/s ahead
    pool = PosePool([Clip('walking_1', clip.joints_m + walk, 30.0)], 'train', recorded_only=True)
    heads = neutral(body, 32) * torch.linspace(0.6, 1.1, 32)[:, None, None]
    poses = pool.sample(32, Draw(1), heads, body)
    speed = 30 * poses.root_shift_m.norm(dim=-1)
    moving = speed > 0.01  # the last frame stands
    wanted = 1.2 * torch.linspace(0.6, 1.1, 32)
    torch.testing.assert_close(speed[moving], wanted[moving], atol=0.05, rtol=0)
    ahead = poses.root_rotation[..., 2]
    assert bent(normalize(poses.root_shift_m, dim=-1), ahead)[moving].max() < 8


def test_headings_cover_the_circle_and_can_be_switched_off(body):
    pool = PosePool([still_clip(body)], 'train', recorded_only=True)
    heads = neutral(body, 400)
    ahead = pool.sample(400, Draw(1), heads, body).root_rotation[..., 2]
    heading = torch.rad2deg(torch.atan2(ahead[:, 0], ahead[:, 2]))
    counts = torch.histc(heading, 12, -180, 180)
    assert counts.min() > 400 / 12 / 2
    still = pool.sample(400, Draw(1), heads, body, turned=False).root_rotation[..., 2]
    assert still[:, 2].min() > 0.98


def test_the_mixture_says_which_recordings_and_what_else(body):
    heads = neutral(body, 200)
    clips = [still_clip(body)]
    lying = Mixture(recorded=0, rearmed=0, perturbed=0, free=0, posture=1)
    poses = PosePool(clips, 'train', mixture=lying).sample(200, Draw(1), heads, body)
    assert len(poses.category.unique()) > 7
    free = PosePool(clips, 'train', mixture=Mixture(0, 0, 0, 1, 0))
    assert set(free.sample(50, Draw(1), heads[:50], body).category.tolist()) == {
        CATEGORIES.index('free')
    }
    with pytest.raises(RsbPoseError, match='no frame of 1 motion clips shows any of crawl'):
        PosePool(clips, 'train', mixture=Mixture(categories=('crawl',)))
    with pytest.raises(RsbPoseError, match='none of 1 motion clips belongs to the test split'):
        PosePool(clips, 'test')


def test_makehumans_own_poses_are_taken_bone_by_bone(body):
    turn = rotations.about_z(torch.tensor([0.4])).double().numpy()
    root = rotations.about_y(torch.tensor([2.0])).double().numpy()
    clip = still_clip(body)
    own = Clip('bvh/mine', clip.joints_m[:1] @ root[0].T, 24.0, None,
               {'root': root, 'finger3-1.L': turn, 'jaw': turn})  # fmt: skip
    pool = PosePool([own], split_of(own), recorded_only=True)
    poses = pool.sample(2, Draw(0), neutral(body, 2), body, turned=False)
    finger = poses.rotation[0, body.bone_index['finger3-1.L']]
    torch.testing.assert_close(finger, torch.as_tensor(turn[0]).float(), atol=1e-5, rtol=0)
    others = [i for i, name in enumerate(body.bones) if name not in ('finger3-1.L',)]
    torch.testing.assert_close(
        poses.rotation[:, others], torch.eye(3).expand(2, len(others), 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        poses.root_rotation, torch.eye(3).expand(2, 3, 3), atol=0.03, rtol=0
    )


# ---- what is drawn, on real motion


def test_everything_people_do_is_common(drawn):
    _, poses, _ = drawn
    share = torch.bincount(poses.category, minlength=len(CATEGORIES)).double() / DRAWN
    shown = dict(zip(CATEGORIES, share.tolist(), strict=True))
    shown['sitting'] = shown['sit'] + shown['sit_floor'] + shown['cross_legged']
    for name in ('lie', 'sitting', 'crouch', 'kneel', 'climb', 'bend'):
        assert shown[name] >= 0.03, name
    assert shown['stand'] + shown['walk'] <= 0.45
    for name in ('up', 'crossed', 'hips', 'head', 'behind'):
        made = (poses.gesture == GESTURE_NAMES.index(name)).any(1)
        assert made.double().mean() >= 0.03, name


def test_labels_say_what_is_seen(drawn, body):
    """Geometry of the posed joints bears out each label: at least nine in ten."""
    heads, poses, joints = drawn
    scale = figure_scale(body, heads)
    trunk = normalize(joint(joints, 'neck') - joint(joints, 'pelvis'), dim=-1)[:, 1]
    hips, knees, ankles = (sided(joints, n)[..., 1] for n in ('hip', 'knee', 'ankle'))
    wrists = sided(joints, 'wrist')

    def holds(mask: Tensor, seen: Tensor) -> float:
        return float(seen[mask].double().mean())

    lying = poses.support == LIE
    assert holds(lying, trunk.abs() < 0.5) > 0.97
    lowest = joints[..., 1].amin(1)
    assert holds(lying, hips.mean(1) - lowest < 0.28 * scale) > 0.9  # nobody floats
    sitting = poses.support == SIT
    leg = joint(joints, 'left_hip')[:, 1] - ankles.amin(1)
    assert holds(sitting, leg < 0.78 * scale) > 0.9
    assert holds(sitting, trunk > 0.75) > 0.95
    kneeling = poses.support == KNEEL
    assert holds(kneeling, knees.amin(1) - ankles.amin(1) < 0.1 * scale) > 0.9
    assert holds(kneeling, knees.amin(1) - lowest < 0.14 * scale) > 0.9

    def gesture(name: str) -> Tensor:
        return poses.gesture == GESTURE_NAMES.index(name)

    neck = joint(joints, 'neck')
    skull = neck.lerp(joint(joints, 'head'), 0.62)
    near = (wrists - skull[:, None]).norm(dim=-1) < 0.28 * scale[:, None]
    assert holds(gesture('head'), near) > 0.9
    at_hip = (wrists - sided(joints, 'hip')).norm(dim=-1) < 0.27 * scale[:, None]
    assert holds(gesture('hips'), at_hip) > 0.9
    upright = trunk > 0.8
    front = chest_frame(joints)
    ahead = ((wrists - neck[:, None]) @ front)[..., 2]
    assert holds(gesture('behind') & upright[:, None], ahead < 0) > 0.9
    above = wrists[..., 1] > neck[:, None, 1]
    assert holds(gesture('up') & upright[:, None], above) > 0.9
    across = ((wrists - sided(joints, 'shoulder')) @ front)[..., 0] * torch.tensor([1.0, -1.0])
    crossed = gesture('crossed') & (ahead > 0)
    assert holds(crossed, across < -0.1 * scale[:, None]) > 0.9


def test_what_bears_a_person_is_the_lowest_part_of_its_skin(drawn, body):
    """A hand's breadth at most between the floor under the body and what lies or kneels on it."""
    heads, poses, _ = drawn
    shapes = body.shapes[Draw(5).integer(len(body.shapes), DRAWN)]
    skin = body.number[::3]
    parts = {
        LIE: body.bone_weight('spine', 'pelvis', 'clavicle', 'upperleg01')[skin],
        KNEEL: body.bone_weight('upperleg', 'lowerleg', 'foot', 'toe')[skin],
        GROUND: body.bone_weight('pelvis', 'spine05', 'upperleg01')[skin],
    }
    for support, weight in parts.items():
        people = (poses.support == support).nonzero()[:60, 0]
        bones = body.pose(heads[people], poses.rotation[people], poses.root_rotation[people])
        vertices = body.vertices[skin] + torch.einsum(
            'bk,kvd->bvd', shapes[people], body.vertex_basis[:, skin]
        )
        height = bones.skin(body.skin[skin], vertices)[..., 1]
        over = height[:, weight > 0.6].amin(1) - height.amin(1)
        assert torch.quantile(over, 0.5) < 0.06, support
        assert torch.quantile(over, 0.9) < 0.11, support


def test_bodies_do_not_pass_through_themselves(drawn, body):
    heads, _, joints = drawn
    deepest = dense_depth_m(
        joints[:2000].double().numpy(), figure_scale(body, heads)[:2000].double().numpy()
    )
    assert (deepest > 0.03).mean() < 0.01


def features(stance: Stance) -> dict[str, Tensor]:
    """Points (B, K, 3) of each limb of the mean body, relative to what the limb hangs on."""
    bones = {'arms': (0.30, 0.26), 'legs': (0.42, 0.42)}
    found = {}
    for name, lengths in bones.items():
        ends = getattr(stance, name) * torch.tensor(lengths)[:, None]
        for number, side in enumerate(('left', 'right')):
            found[f'{side} {name[:-1]}'] = ends[:, number].cumsum(1)
    found['trunk'] = torch.stack(
        [0.5 * stance.chest[..., 1], 0.2 * stance.chest[..., 0], 0.5 * stance.pelvis[:, 1]], 1
    )
    found['head'] = torch.stack([0.25 * stance.head[..., 1], 0.15 * stance.head[..., 2]], 1)
    return found


def test_held_out_motion_is_covered(clips, drawn):
    """Nearest drawn limb to each held-out one, metres between their joints (rms)."""
    frames = [
        clip.joints_m[np.unique(np.linspace(0, len(clip.joints_m) - 1, 25).round().astype(int))]
        for clip in clips
        if split_of(clip) != 'train'
    ]
    held = stance_of(torch.as_tensor(np.concatenate(frames), dtype=torch.float32))
    _, _, joints = drawn
    wanted, found = features(held), features(stance_of(joints))
    print(f'\n{len(held)} held-out frames, {DRAWN} drawn: cm to the nearest')
    for limb, points in wanted.items():
        apart = torch.cdist(points.flatten(1), found[limb].flatten(1)).amin(1)
        apart = apart / points.shape[1] ** 0.5
        median, tail = (float(torch.quantile(apart, q)) for q in (0.5, 0.95))
        print(f'{limb:>10}: median {100 * median:4.1f}, 95 % {100 * tail:4.1f}')
        assert median < 0.04, limb
        assert tail < 0.09, limb
