"""What two processes of torchrun do for test_training_ranks.py, in a folder with shards."""

import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsb_pose_core.cli import main, train
from rsb_pose_core.errors import RsbPoseError
from rsb_pose_core.models import PoseTransformer
from rsb_pose_core.models.system import PoseSystem
from rsb_pose_core.training.batches import StereoBatch
from rsb_pose_core.training.config import TrainConfig, load_config
from rsb_pose_core.training.distributed import Ranks, torchrun_ranks
from rsb_pose_core.training.objective import build_model
from rsb_pose_core.training.sources import ShardSource
from rsb_pose_core.training.trainer import Trainer

NORMS = (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def make(
    config: TrainConfig,
    folder: Path,
    out: str,
    ranks: Ranks,
    pairs: str = 'train_*.npz',
    **options: Any,
) -> Trainer:
    """A trainer of a network and a small refiner, whose drop path draws random numbers."""
    torch.manual_seed(config.seed)
    system = PoseSystem(build_model(config.model), PoseTransformer(width=16, depth=2, heads=2))
    source = ShardSource(config, str(folder / pairs), ranks)
    return Trainer(
        config, source, None, folder / out,
        device=torch.device('cpu'), system=system, ranks=ranks, **options,
    )  # fmt: skip


def gradients(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Two steps without statistics of the batch: loss terms, gradients, names, weights."""
    run = make(load_config(folder / 'exact.yaml'), folder, f'exact_{ranks.count}', ranks)
    for module in run.model.modules():
        if isinstance(module, NORMS):
            module.eval()
    run.model.refiner.eval()  # no drop path
    found: dict[str, Any] = {'names': [], 'terms': [], 'gradients': []}
    for step in range(2):
        batch = run.source.take(4, 64, step)()
        terms = run.train_step(batch)
        found['names'].append(batch.names)
        found['terms'].append(ranks.mean(torch.stack(list(terms.values()))))
        found['gradients'].append(
            {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}
        )
    found['weights'] = run.model.state_dict()
    return found


def interrupted(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """A run of 4 steps, and one whose last process gets Ctrl-C in its second step, resumed."""
    config = load_config(folder / 'run.yaml')
    whole = make(config, folder, 'whole', ranks)
    whole.run()
    first = make(config, folder, 'parts', ranks)
    step = first.train_step

    def press(batch: StereoBatch) -> dict[str, torch.Tensor]:
        if first.step == 1 and ranks.rank == ranks.count - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return step(batch)

    first.train_step = press  # type: ignore[method-assign]
    first.run()
    resumed = make(config, folder, 'parts', ranks, resume=True)
    resumed.run()
    return {
        'stopped_at': first.step,
        'whole': whole.model.state_dict(),
        'resumed': resumed.model.state_dict(),
    }


def timed(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """A run of some time, of which only the first process knows."""
    run = make(load_config(folder / 'timed.yaml'), folder, 'timed', ranks)
    run.run()
    return {'steps': run.step, 'seconds': run.seconds}


def spoilt(folder: Path, ranks: Ranks) -> dict[str, Any]:
    """A pair that is no good comes to one process only; both stop."""
    run = make(load_config(folder / 'run.yaml'), folder, 'spoilt', ranks, 'spoilt.npz')
    try:
        run.run()
    except RsbPoseError as error:
        return {'end': str(error)}
    except SystemExit as end:
        return {'end': end.code}
    return {'end': None}


def work(folder: Path) -> None:
    """All of the above, and the command itself."""
    torch.set_num_threads(1)
    with torchrun_ranks('cpu') as (ranks, _):
        found = {
            'gradients': gradients(folder, ranks),
            'interrupted': interrupted(folder, ranks),
            'timed': timed(folder, ranks),
            'spoilt': spoilt(folder, ranks),
            'rank': np.array(ranks.rank),
        }
        torch.save(found, folder / f'found_{ranks.rank}.pt')
        # processes can join only once: the command meets those that did
        train.torchrun_ranks = lambda device: nullcontext((ranks, torch.device(device)))
        command = ['train', 'sce', '--config', str(folder / 'plain.yaml'), '--device', 'cpu']
        command += ['--data', str(folder / 'train_*.npz'), '--out', str(folder / 'command')]
        assert main([*command, '--model', 'lite-baseline', '--epochs', '0.0003']) == 0


if __name__ == '__main__':
    work(Path(sys.argv[1]))
