"""`rsb-pose experiment figure-8`: the first layer's attention, with and without occluded joints.

Paper IV-D2: neighbours attend to each other, and occluded joints receive less attention. A limb of
each held-out pose is occluded here, once by noise on its joints, as an estimate would err there,
once by masking them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rsb_pose_core.checkpoint import load_refiner
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.models.pose_transformer import Mask, pad_joints
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.motion import Poses, read_pose_set, seen_from_random_cameras
from rsb_pose_core.training.pose_prior import as_taken

LIMBS = (
    ('right_shoulder', 'right_elbow', 'right_wrist'),
    ('left_shoulder', 'left_elbow', 'left_wrist'),
    ('right_knee', 'right_ankle'),
    ('left_knee', 'left_ankle'),
)
SITUATIONS = ('visible', 'noisy', 'masked')
BATCH = 512

Map = Float[Tensor, 'poses joints joints']


@dataclass(frozen=True)
class Attention:
    """Mean attention, 0..1, of the first layer's heads; every joint would get 1/17 of a uniform
    one.

    occluded: what each occluded joint receives from each of the other limbs' joints, by situation;
    occluded_self: from itself. neighbours, others: between joints with a bone and without, all
    visible.
    """

    occluded: dict[str, float]
    occluded_self: dict[str, float]
    neighbours: float
    others: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Motion, weights and how an occluded joint errs."""
    parser.add_argument('--data', type=Path, required=True, help='data folder with motion/')
    parser.add_argument('--refiner', type=Path, required=True, help='weights of train ppt')
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument(
        '--noise-m', type=float, default=0.15, help='deviation of each coordinate (0.15)'
    )
    parser.add_argument('--frames', type=int, default=200, help='of each held-out recording')
    parser.add_argument('--seed', type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Attention on the test clips; the figure shows two of their poses."""
    if args.noise_m <= 0:
        raise ConfigError(f'--noise-m {args.noise_m}: expected more than 0')
    transformer, metadata = load_refiner(args.refiner)
    chosen = read_pose_set(args.data, 'test').evenly(args.frames)
    generator = torch.Generator().manual_seed(args.seed)
    seen = seen_from_random_cameras(chosen.poses, generator, vary_body=False)
    limbs = torch.randint(len(LIMBS), (len(seen),), generator=generator)
    hidden = limb_masks()[limbs]
    taken, root = as_taken(transformer, seen)
    situations = {
        'visible': taken,
        'noisy': taken
        + hidden[..., None] * args.noise_m * torch.randn(taken.shape, generator=generator),
        'masked': pad_joints(taken, hidden),
    }
    maps = {name: first_layer(transformer, poses, root) for name, poses in situations.items()}
    found = attention_figures(maps, hidden)
    rows: list[Sequence[str | float]] = [
        [name, 100 * found.occluded[name], 100 * found.occluded_self[name]] for name in SITUATIONS
    ]
    table = markdown(['limb', 'from other joints %', 'from itself %'], rows)
    text = (
        f'Attention of the first layer that a joint of the limb receives, mean over heads, '
        f'{len(seen)} poses of {len(chosen.names)} test recordings (uniform: '
        f'{100 / len(H36M_17):.2f} %)\n\n{table}\n'
        f'Between neighbours {100 * found.neighbours:.2f} %, between other joints '
        f'{100 * found.others:.2f} %.\n'
    )
    shown = [int((limbs == limb).nonzero()[0, 0]) for limb in (0, 3)]
    some = {name: m[shown] for name, m in maps.items()}
    figure = draw(some, seen[shown], hidden[shown])
    write_results(args.out, {'weights': metadata, 'attention': asdict(found)}, text, figure)
    return 0


def limb_masks() -> Mask:
    """The joints of each of LIMBS, (4,17)."""
    masks = torch.zeros(len(LIMBS), len(H36M_17), dtype=torch.bool)
    for number, limb in enumerate(LIMBS):
        masks[number, [H36M_17.index(name) for name in limb]] = True
    return masks


@torch.inference_mode()
def first_layer(
    transformer: PoseTransformer, poses: Poses, root_m: Float[Tensor, 'poses 3']
) -> Map:
    """Attention maps of the first layer, mean over heads: rows look, columns are looked at."""
    parts = [
        transformer(some, at).attention[0].mean(1)
        for some, at in zip(poses.split(BATCH), root_m.split(BATCH), strict=True)
    ]
    return torch.cat(parts)


def attention_figures(maps: dict[str, Map], hidden: Mask) -> Attention:
    """Means over poses; `maps` by SITUATIONS."""
    joints = len(H36M_17)
    bones = torch.zeros(joints, joints, dtype=torch.bool)
    for parent, child in H36M_17.bones:
        bones[parent, child] = bones[child, parent] = True
    apart = ~bones & ~torch.eye(joints, dtype=torch.bool)
    to_hidden = ~hidden[:, :, None] & hidden[:, None]  # poses, who looks, at whom
    itself = hidden[:, :, None] & torch.eye(joints, dtype=torch.bool)
    return Attention(
        occluded={name: float(m[to_hidden].mean()) for name, m in maps.items()},
        occluded_self={name: float(m[itself].mean()) for name, m in maps.items()},
        neighbours=float(maps['visible'][:, bones].mean()),
        others=float(maps['visible'][:, apart].mean()),
    )


def draw(maps: dict[str, Map], poses: Poses, hidden: Mask) -> Figure:
    """A row for each pose: the pose, and its maps of the three situations on one scale."""
    figure = Figure(figsize=(11.5, 3.9 * len(poses)), layout='constrained')
    axes = figure.subplots(len(poses), 4, squeeze=False, width_ratios=(0.8, 1, 1, 1))
    labels = [name.replace('_', ' ') for name in H36M_17.joint_names]
    brightest = max(float(m.max()) for m in maps.values())
    for row, line in enumerate(axes):
        _draw_pose(line[0], poses[row], hidden[row])
        occluded = hidden[row].nonzero()[:, 0].tolist()
        for place, (axis, name) in enumerate(zip(line[1:], SITUATIONS, strict=True)):
            image = axis.imshow(maps[name][row].numpy(), cmap='magma', vmin=0, vmax=brightest)
            axis.set_title(f'limb {name}')
            axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=7)
            axis.set_yticks(range(len(labels)), labels if place == 0 else [], fontsize=7)
            for joint in occluded:
                axis.axvline(joint - 0.5, color='deepskyblue', lw=0.8, ls='--')
                axis.axvline(joint + 0.5, color='deepskyblue', lw=0.8, ls='--')
        figure.colorbar(image, ax=line[-1], shrink=0.8, label='attention (row looks at column)')
    return figure


def _draw_pose(axis: Axes, pose: Float[Tensor, 'joints 3'], hidden: Tensor) -> None:
    """The pose as the camera sees it, the occluded limb in blue."""
    x, y = pose[:, 0].tolist(), pose[:, 1].tolist()
    colours = ['deepskyblue' if h else '0.3' for h in hidden.tolist()]
    for parent, child in H36M_17.bones:
        ends = [x[parent], x[child]], [y[parent], y[child]]
        axis.plot(*ends, color=colours[child], lw=2.5)
    axis.scatter(x, y, c=colours, s=14)
    axis.set_aspect('equal')
    axis.invert_yaxis()
    axis.set_axis_off()
    axis.set_title('pose (blue: the limb)')
