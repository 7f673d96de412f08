"""`rsb-pose experiment restore`: masked joints restored by the PPT and by simpler means."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from rsb_pose_core.checkpoint import load_refiner
from rsb_pose_core.experiments.linear_inpainting import (
    PoseGaussian,
    facing_ahead,
    inpaint_along_bones,
    inpaint_facing,
    tilted,
)
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.models.pose_transformer import Mask
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.masking import iterative_recovery, random_mask
from rsb_pose_core.training.motion import (
    Poses,
    PoseSet,
    read_pose_set,
    seen_from_random_cameras,
)
from rsb_pose_core.training.pose_prior import as_taken

RIDGES_M2 = tuple(10.0**exponent for exponent in range(-12, -1))
VIEWS = 8  # random cameras on each training pose that the Gaussian is fitted to
BATCH = 512


@dataclass(frozen=True)
class HeldOut:
    """Absolute poses (N,17,3) as cameras see them, and which joints of each are masked."""

    poses: Poses
    masked: Mask
    names: tuple[str, ...]
    recording: Tensor

    @classmethod
    def of(cls, chosen: PoseSet, mask_ratio: float, seed: int) -> 'HeldOut':
        """Each pose from one random camera with one random mask."""
        generator = torch.Generator().manual_seed(seed)
        seen = seen_from_random_cameras(chosen.poses, generator, vary_body=False)
        masked = random_mask(len(seen), seen.shape[1], mask_ratio, generator)
        return cls(seen, masked, chosen.names, chosen.recording)

    def relative(self) -> Poses:
        """Poses relative to the pelvis."""
        return self.poses - self.poses[:, [H36M_17.root]]

    def counted(self) -> Mask:
        """Masked joints without the pelvis, whose relative position is known to be 0."""
        ours = self.masked.clone()
        ours[:, H36M_17.root] = False
        return ours

    def errors_mm(self, restored: Poses) -> Float[Tensor, ' counted']:
        """Errors of the counted joints of relative poses."""
        distance: Tensor = (restored.double() - self.relative().double()).norm(dim=-1)
        return 1000 * distance[self.counted()]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the motion and the pre-trained weights are."""
    parser.add_argument('--data', type=Path, required=True, help='data folder with motion/')
    parser.add_argument('--refiner', type=Path, required=True, help='weights of train ppt')
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument('--mask-ratio', type=float, default=0.4)
    parser.add_argument('--frames', type=int, default=200, help='of each held-out recording')
    parser.add_argument('--seed', type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Every method on the same poses, cameras and masks of the test clips."""
    transformer, metadata = load_refiner(args.refiner)
    train = read_pose_set(args.data, 'train').evenly(args.frames)
    val, test = (
        HeldOut.of(read_pose_set(args.data, split).evenly(args.frames), args.mask_ratio, args.seed)
        for split in ('val', 'test')
    )
    restored, ridges = without_network(train, val, test, args.seed)
    for times in (1, 2):
        restored[f'PPT, T = {times}'] = by_transformer(transformer, test, times)
    errors = {name: test.errors_mm(poses) for name, poses in restored.items()}
    ours = errors['PPT, T = 2']
    header = ['restored by', 'mean mm', 'median mm', "mean / PPT's", "median / PPT's"]
    rows: list[Sequence[str | float]] = [
        [
            name,
            float(e.mean()),
            float(e.median()),
            float(e.mean() / ours.mean()),
            float(e.median() / ours.median()),
        ]
        for name, e in errors.items()
    ]
    per_clip = _per_clip(test, errors)
    text = (
        f'{len(test.poses)} poses of {len(test.names)} test recordings, {args.mask_ratio:.0%} of '
        f'the joints masked, errors of the {len(ours)} masked joints\n\n'
        f'{markdown(header, rows)}\n{per_clip}'
    )
    results = {
        'weights': metadata,
        'ridges_m2': ridges,
        'errors': {str(r[0]): {'mean_mm': r[1], 'median_mm': r[2]} for r in rows},
    }
    write_results(args.out, results, text)
    return 0


def without_network(
    train: PoseSet, val: HeldOut, test: HeldOut, seed: int
) -> tuple[dict[str, Poses], dict[str, float]]:
    """Mean pose and linear guess, in the camera's axes and turned to face ahead; the ridge of each
    linear guess is the best on `val`."""
    generator = torch.Generator().manual_seed(seed)
    root, mirror = H36M_17.root, list(H36M_17.mirror)
    upright = train.poses - train.poses[:, [root]]
    upright = torch.cat([upright, upright[:, mirror] * torch.tensor([-1.0, 1.0, 1.0])])
    seen = torch.cat([seen_from_random_cameras(upright, generator) for _ in range(VIEWS)])
    in_camera = PoseGaussian.fit(seen - seen[:, [root]])
    ahead = facing_ahead(upright)
    facing = PoseGaussian.fit(torch.cat([tilted(ahead, generator) for _ in range(VIEWS)]))

    def by_camera(on: HeldOut, ridge: float) -> Poses:
        return in_camera.conditional_mean(on.relative(), on.masked, ridge)[0]

    def by_facing(on: HeldOut, ridge: float) -> Poses:
        return inpaint_facing(facing, on.relative(), on.masked, ridge)[0]

    ridges = {
        'best linear guess': _best_ridge(val, by_camera),
        'best linear guess, turned to face ahead': _best_ridge(val, by_facing),
    }
    linear, mean = inpaint_facing(
        facing, test.relative(), test.masked, ridges['best linear guess, turned to face ahead']
    )
    restored = {
        'mean pose': in_camera.mean.view(1, -1, 3).expand(len(test.poses), -1, -1),
        'mean pose, turned to face ahead': mean,
        'linear interpolation along the bones': inpaint_along_bones(test.relative(), test.masked),
        'best linear guess': by_camera(test, ridges['best linear guess']),
        'best linear guess, turned to face ahead': linear,
    }
    return restored, ridges


def _best_ridge(val: HeldOut, inpaint: Callable[[HeldOut, float], Poses]) -> float:
    means = [float(val.errors_mm(inpaint(val, ridge)).mean()) for ridge in RIDGES_M2]
    return RIDGES_M2[min(range(len(means)), key=means.__getitem__)]


@torch.inference_mode()
def by_transformer(
    transformer: PoseTransformer, held_out: HeldOut, times: int, kept: int = 2
) -> Poses:
    """Algorithm 1; the result relative to the true pelvis."""
    device = next(transformer.parameters()).device
    found = []
    for poses, masked in zip(
        held_out.poses.split(BATCH), held_out.masked.split(BATCH), strict=True
    ):
        taken, root = as_taken(transformer, poses.to(device))
        *_, last = iterative_recovery(transformer, taken, masked.to(device), times, kept, root)
        recovered = last.recovered
        relative = recovered if transformer.relative else recovered - root[:, None]
        found.append(relative.cpu())
    return torch.cat(found)


def _per_clip(test: HeldOut, errors: dict[str, Float[Tensor, ' counted']]) -> str:
    """Mean errors of each test recording."""
    recording = test.recording[:, None].expand(-1, len(H36M_17))[test.counted()]
    rows: list[Sequence[str | float]] = [
        [name, *(float(e[recording == number].mean()) for e in errors.values())]
        for number, name in enumerate(test.names)
    ]
    return markdown(['recording (mean mm)', *errors], rows)
