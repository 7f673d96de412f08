"""Frames of motion capture as stances: what each shows, and how often it should be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.synthesis import rotations
from rsb_pose_core.synthesis.clips import Clip
from rsb_pose_core.synthesis.postures import GROUND, HANG, KNEEL, LIE, SIT, STAND
from rsb_pose_core.synthesis.retarget import Skeleton
from rsb_pose_core.synthesis.stance import Stance, joint, sided, stance_of

CATEGORIES = (
    'stand', 'walk', 'air', 'bend', 'crouch', 'kneel', 'crawl', 'sit', 'sit_floor',
    'cross_legged', 'lie', 'climb', 'free',
)  # fmt: skip
"""What a person does with legs and trunk; 'free': anything that joints allow."""
SUPPORTS = (STAND, STAND, STAND, STAND, STAND, KNEEL, KNEEL, SIT, GROUND, GROUND, LIE, HANG, STAND)
UPRIGHT = ('stand', 'walk')
UPRIGHT_SHARE = 0.5  # of the recorded frames drawn, at most
DT_S = 1.0 / 30.0
FRAMES_HZ = 30.0  # denser frames are alike
LOW_PELVIS = 0.55  # of those on their feet or in the air, over the lowest joint, in leg lengths
MOST_OF_CLIP, MOST_OF_FRAME = 0.04, 0.004  # share of the recorded poses drawn
LOOSE_CATEGORY = 0.25  # a rare category of recordings is at most so much more frequent than it was


@dataclass(frozen=True)
class Recorded:
    """F frames of clips, headings taken off: the pelvis faces +z."""

    now: Stance
    later: Stance  # DT_S after
    travel: Tensor  # F 3, of the pelvis in DT_S, in leg lengths
    category: Tensor  # F
    chance: Tensor  # F, cumulated: frame i is drawn between chance[i-1] and chance[i]
    rig_frame: Tensor  # F, row of the poses made on the body's own rig, -1: none
    rigs: tuple[dict[str, np.ndarray], ...]  # local turns (3, 3) by bone
    rig_root: Tensor  # R 3 3, turns of the whole body in those poses; one row if there is none

    def rig_turns(self, body: Skeleton) -> Tensor:
        """Bone rotations (R, N, 3, 3) of the poses made on the body's own rig."""
        turns = torch.eye(3).repeat(max(len(self.rigs), 1), len(body.bones), 1, 1)
        for row, rig in enumerate(self.rigs):
            for bone, turn in rig.items():
                number = body.bone_index.get(bone)
                if number:  # the root's turn is in rig_root
                    turns[row, number] = torch.as_tensor(turn, dtype=turns.dtype)
        return turns.to(self.chance.device)


def record(clips: Sequence[Clip], device: str, categories: Sequence[str] = ()) -> Recorded:
    """Stances of all frames at about FRAMES_HZ; only of some categories if any are named.

    Clips of one source share a chance in proportion to the square root of their number. Raises
    RsbPoseError when no frame shows any of the categories.
    """
    now, later, toes, toes_later, owner, rig_frame = [], [], [], [], [], []
    rigs: list[dict[str, np.ndarray]] = []
    for number, clip in enumerate(clips):
        last = len(clip.joints_m) - 1
        step = max(1, round(clip.rate_hz / FRAMES_HZ))
        frames = np.arange(0, last + 1, step)
        place = np.minimum(frames + DT_S * clip.rate_hz, last)
        low = np.floor(place).astype(int)
        share = (place - low)[:, None, None]
        high = np.minimum(low + 1, last)
        now.append(clip.joints_m[frames])
        later.append(clip.joints_m[low] * (1 - share) + clip.joints_m[high] * share)
        soles = np.zeros((last + 1, 2, 3)) if clip.toes is None else np.nan_to_num(clip.toes)
        toes.append(soles[frames])
        toes_later.append(soles[low] * (1 - share) + soles[high] * share)
        owner.append(np.full(len(frames), number))
        rig_frame.append(np.full(len(frames), -1))
        if clip.turns:
            rig_frame[-1][:] = len(rigs) + np.arange(len(frames))
            rigs += [{bone: turn[frame] for bone, turn in clip.turns.items()} for frame in frames]

    def tensor(parts: list[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.as_tensor(np.concatenate(parts), dtype=dtype, device=device)

    joints, joints_later = tensor(now), tensor(later)
    soles_now, soles_later = tensor(toes), tensor(toes_later)
    across = joint(joints, 'left_hip') - joint(joints, 'right_hip')
    level = rotations.about_y(torch.atan2(across[:, 2], across[:, 0]))
    joints, joints_later = joints @ level.mT, joints_later @ level.mT
    hip, knee, ankle = (sided(joints, name) for name in ('hip', 'knee', 'ankle'))
    leg_m = ((knee - hip).norm(dim=-1) + (ankle - knee).norm(dim=-1)).mean(1)
    moved = joint(joints_later, 'pelvis') - joint(joints, 'pelvis')
    travel = moved / leg_m[:, None]
    stance = stance_of(joints, soles_now @ level.mT)
    owners = np.concatenate(owner)
    climbing = np.array([clip.name.startswith('amc/01') for clip in clips])[owners]
    category = classify(joints, leg_m, travel, torch.as_tensor(climbing, device=device))
    weight = torch.as_tensor(_clip_weights(clips, owners), device=device)
    # a leap shot so low has lost the height that makes sense of it
    height = joint(joints, 'pelvis')[:, 1] - joints[..., 1].amin(1)
    upright = category <= CATEGORIES.index('air')
    weight = weight * ~(upright & (height < LOW_PELVIS * leg_m))
    weight = weight * _balance(category, weight)
    weight = weight * _cap(torch.as_tensor(owners, device=device), weight)
    if categories:
        named = torch.tensor([CATEGORIES.index(name) for name in categories], device=device)
        weight = weight * torch.isin(category, named)
        if not bool((weight > 0).any()):
            raise RsbPoseError(
                f'no frame of {len(clips)} motion clips shows any of {", ".join(categories)}; '
                'expected one at least; give other motion or other categories'
            )
    chance = weight.cumsum(0) / weight.sum()
    rows = tensor(rig_frame, torch.long)
    roots = torch.as_tensor(
        np.array([rig.get('root', np.eye(3)) for rig in rigs] or [np.eye(3)]),
        dtype=torch.float32, device=device,
    )  # fmt: skip
    roots = level[rows >= 0] @ roots if rigs else roots
    return Recorded(
        stance, stance_of(joints_later, soles_later @ level.mT), travel, category,
        chance.float(), rows, tuple(rigs), roots,
    )  # fmt: skip


def _clip_weights(clips: Sequence[Clip], owners: np.ndarray) -> np.ndarray:
    """Weight of each frame: clips of one source share alike, however long they are."""
    sources = [clip.name.split('/')[0].split('_')[0] for clip in clips]
    per_clip = np.array([1.0 / np.sqrt(sources.count(source)) for source in sources])
    return np.asarray((per_clip / np.bincount(owners, minlength=len(clips)))[owners])


def _cap(owner: Tensor, weight: Tensor) -> Tensor:
    """Factor of each frame (F,) that keeps a clip, and a frame of it, from being drawn often."""
    whole = torch.zeros(int(owner.max()) + 1, dtype=weight.dtype, device=weight.device)
    whole = whole.index_add(0, owner, weight)
    frames = torch.bincount(owner, minlength=len(whole))
    most = (MOST_OF_FRAME * frames).clamp_max(MOST_OF_CLIP) * whole.sum()
    return (most / whole.clamp_min(1e-12)).clamp_max(1.0)[owner]


def _balance(category: Tensor, weight: Tensor) -> Tensor:
    """Factor of each frame (F,) that makes rare categories more frequent."""
    total = torch.zeros(len(CATEGORIES), dtype=weight.dtype, device=weight.device)
    total = total.index_add(0, category, weight)
    share = total / total.sum()
    factor = (share + 1e-9) ** (LOOSE_CATEGORY - 1)
    upright = torch.tensor([name in UPRIGHT for name in CATEGORIES], device=weight.device)
    drawn = share * factor
    excess = drawn[upright].sum() / drawn.sum().clamp_min(1e-9) / UPRIGHT_SHARE
    factor = torch.where(upright, factor / excess.clamp_min(1.0), factor)
    return factor[category]


def classify(joints_m: Tensor, leg_m: Tensor, travel: Tensor, climbing: Tensor) -> Tensor:
    """Numbers (F,) of CATEGORIES of recorded poses (F, 17, 3).

    leg_m (F,): lengths of legs; travel (F, 3): leg lengths in DT_S; climbing (F,): whether the
    recording is of climbing, where hands above the head hold something.
    """
    height = (joints_m[..., 1] - joints_m[..., 1].amin(1, keepdim=True)) / leg_m[:, None]
    pelvis, neck = joint(joints_m, 'pelvis'), joint(joints_m, 'neck')
    trunk = torch.nn.functional.normalize(neck - pelvis, dim=-1)[:, 1]
    hip, knee, ankle = (sided(joints_m, name) for name in ('hip', 'knee', 'ankle'))
    thigh, shin = (torch.nn.functional.normalize(v, dim=-1) for v in (knee - hip, ankle - knee))
    bend = torch.acos((thigh * shin).sum(-1).clamp(-1, 1))

    pelvis_up, neck_up = (joint(height[..., None], name)[:, 0] for name in ('pelvis', 'neck'))
    knees, wrists = (sided(height[..., None], name)[..., 0] for name in ('knee', 'wrist'))
    stride = (ankle[:, 0] - ankle[:, 1]).norm(dim=-1) / leg_m
    speed = travel[:, [0, 2]].norm(dim=-1) / DT_S
    rules = {  # the last that holds
        'walk': (speed > 0.45) | (stride > 0.62),
        'bend': (trunk < 0.76) & (pelvis_up > 0.6),
        'crouch': (bend.amin(1) > 1.1) & (pelvis_up < 0.75) & (trunk > 0.25),
        'kneel': (knees.amin(1) < 0.08)
        & (shin[..., 1].abs().amin(1) < 0.4)
        & (pelvis_up > 0.2)
        & (trunk > 0.78),
        'sit_floor': (pelvis_up < 0.25) & (trunk > 0.45),
        'crawl': (trunk < 0.55) & (knees.amin(1) < 0.12) & (wrists.amin(1) < 0.3),
        'lie': (trunk.abs() < 0.5) & (pelvis_up < 0.3) & (neck_up < 0.5),
        'climb': climbing & (wrists.amax(1) > neck_up) & (pelvis_up > 0.5),
        'air': (trunk < -0.2) & (pelvis_up > 0.5),
    }
    found = torch.zeros(len(joints_m), dtype=torch.long, device=joints_m.device)
    for name, holds in rules.items():
        found = torch.where(holds, CATEGORIES.index(name), found)
    return found
