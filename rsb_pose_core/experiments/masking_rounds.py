"""`rsb-pose experiment table-4`: how often Algorithm 1 masks in pre-training (T = 1..5)."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from rsb_pose_core.checkpoint import load_refiner
from rsb_pose_core.errors import ConfigError
from rsb_pose_core.experiments.restoring import HeldOut, by_transformer
from rsb_pose_core.experiments.results import markdown, write_results
from rsb_pose_core.metrics import joint_errors_mm
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.skeleton import H36M_17
from rsb_pose_core.training.config import read_settings
from rsb_pose_core.training.motion import read_pose_set
from rsb_pose_core.training.pose_prior import PptConfig, run_ppt

PAPER = {
    1: (29.41, 28.81),
    2: (20.19, 20.12),
    3: (23.86, 24.01),
    4: (25.78, 24.89),
    5: (28.29, 29.49),
}  # T: MPJPE_ab, MPJPE_re in mm on MHAD
FIGURES = ('ab_all', 're_all', 'ab_masked', 're_masked', 'ab_all_once', 'ab_masked_once')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The pre-training that is repeated with every T, and where it is measured."""
    parser.add_argument('--data', type=Path, required=True, help='data folder with motion/')
    parser.add_argument('--out', type=Path, required=True, help='folder of runs and results')
    parser.add_argument(
        '--config', type=Path, required=True, metavar='FILE',
        help='as of rsb-pose train ppt, config/train/ppt.yaml; its times and seed are replaced',
    )  # fmt: skip
    parser.add_argument('--times', type=int, nargs='+', default=list(PAPER), metavar='T')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--frames', type=int, default=200, help='of each held-out recording')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, help='CPU threads of the computation')


def run(args: argparse.Namespace) -> int:
    """Train what is not in the folder yet, then measure all of it on the test clips."""
    if args.threads:
        torch.set_num_threads(args.threads)
    config = read_settings(PptConfig, args.config)
    chosen = read_pose_set(args.data, 'test').evenly(args.frames)
    test = HeldOut.of(chosen, config.mask_ratio, seed=0)
    found: dict[int, list[dict[str, float]]] = {}
    for seed in args.seeds:
        for times in args.times:
            one = replace(config, times=times, seed=seed)
            transformer = _trained(one, args.data, args.out / f't{times}_seed{seed}', args.device)
            found.setdefault(times, []).append(errors_mm(transformer, test, times, one.kept))
    header = ['T', *(f'{name} mm' for name in FIGURES), 'runs', 'paper MPJPE_ab', 'MPJPE_re']
    rows = [
        [
            str(times),
            *(sum(run[name] for run in runs) / len(runs) for name in FIGURES),
            str(len(runs)),
            *PAPER.get(times, (None, None)),
        ]
        for times, runs in sorted(found.items())
    ]
    text = (
        f'{len(test.poses)} poses of {len(test.names)} test recordings, {config.mask_ratio:.0%} '
        f'masked, means in mm after Algorithm 1 with the T of the training, and after one pass; '
        f'{config.steps} steps of {config.batch_size} poses, {config.depth} blocks\n\n'
        f'{markdown(header, rows)}'
    )
    results = {'steps': config.steps, 'batch_size': config.batch_size, 'depth': config.depth}
    write_results(args.out, {**results, 'runs': found}, text)
    return 0


def _trained(config: PptConfig, data: Path, out: Path, device: str) -> PoseTransformer:
    """The transformer of a run, which is begun, gone on with, or finished already."""
    weights = out / 'refiner.safetensors'
    if weights.is_file():
        transformer, metadata = load_refiner(weights, device)
        if int(metadata.get('steps', 0)) == config.steps:
            return transformer
    run_ppt(config, data, out, resume=(out / 'last.pt').is_file(), device=device)
    transformer, metadata = load_refiner(weights, device)
    if int(metadata['steps']) < config.steps:
        raise ConfigError(f'{out}: the training was stopped; run the command again to go on')
    return transformer


def errors_mm(
    transformer: PoseTransformer, test: HeldOut, times: int, kept: int
) -> dict[str, float]:
    """MPJPE of relative poses as they come (ab) and with their pelvises laid together (re), of all
    and of the masked joints; `once` after one pass, whatever `times` is."""
    truth, counted = test.relative().double(), test.counted()
    restored = by_transformer(transformer, test, times, kept).double()
    absolute = joint_errors_mm(restored, truth)
    relative = joint_errors_mm(restored, truth, root=H36M_17.root)
    once = joint_errors_mm(by_transformer(transformer, test, 1).double(), truth)
    means = (
        absolute.mean(), relative.mean(), absolute[counted].mean(), relative[counted].mean(),
        once.mean(), once[counted].mean(),
    )  # fmt: skip
    return dict(zip(FIGURES, map(float, means), strict=True))
