"""What is kept of a run: last.pt, from which it goes on exactly, and carried/, which is small."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rsb_pose_core.errors import DataError
from rsb_pose_core.training.carried import carried_step, load_carried, write_carried
from rsb_pose_core.training.state import MovingAverage, load_state, match_layout, save_state

EXACT, CARRIED = 'last.pt', 'carried'


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on.

    facts: as save() took them; random: of each process, None where it was not kept; fresh: whether
    the optimizer knows nothing; words: what is not as it was, empty where all is.
    """

    facts: dict[str, Any]
    random: list[dict[str, torch.Tensor]] | None
    fresh: bool = False
    words: str = ''


@dataclass(frozen=True)
class RunState:
    """What changes while a run in the folder `out` goes on."""

    out: Path
    model: nn.Module
    average: MovingAverage
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device

    def save(self, facts: Mapping[str, Any], random: list[dict[str, torch.Tensor]]) -> None:
        """Write both; facts: plain values, among them config and counters."""
        state = {
            **facts,
            'model': self.model.state_dict(),
            'average': self.average.state(),
            'optimizer': self.optimizer.state_dict(),
            'scaler': self.scaler.state_dict(),
            'random': random,
        }
        save_state(self.out / EXACT, state)
        write_carried(self.out / CARRIED, self.model, self.average, self.optimizer, facts)

    def resume(self, model: str) -> Resumed:
        """Go on from last.pt, or from carried/ where that is further, as after a trip elsewhere.

        DataError where there is neither, or the run is not of `model` as it is built here.
        """
        exact, carried = self.out / EXACT, carried_step(self.out / CARRIED)
        if carried is not None and not exact.exists():
            return self._resume_carried(model)
        state = load_state(exact, self.device)
        if carried is not None and carried > state['counters']['step']:
            return self._resume_carried(model)
        self._check_model(state, model)
        if set(state['model']) != set(self.model.state_dict()):
            raise DataError(
                f'{self.out}: the run was begun with another refiner or by another version; '
                f'give the options of its first command, or another --out'
            )
        self.model.load_state_dict(state['model'])
        self.average.load_state(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        match_layout(self.optimizer)
        self.scaler.load_state_dict(state['scaler'])
        return Resumed(state, state['random'])

    def _resume_carried(self, model: str) -> Resumed:
        folder = self.out / CARRIED
        found = load_carried(folder, self.model, self.average, self.optimizer)
        self._check_model(found.facts, model)
        words = f'{folder}: going on from step {found.facts["counters"]["step"]}, {found.in_words}'
        return Resumed(found.facts, None, 'optimizer' in found.missing, words)

    def _check_model(self, facts: Mapping[str, Any], model: str) -> None:
        if facts['config']['model'] != model:
            raise DataError(
                f'{self.out}: the run is of model {facts["config"]["model"]}, the configuration '
                f'says {model}; give another --out'
            )


def same_source(kept: Any, here: Any) -> bool:
    """Whether a source's state, carried from elsewhere, means something to the source here.

    Files of pairs may not be here, so a source that reads them begins anew.
    """
    if not isinstance(kept, dict) or not isinstance(here, dict):
        return not isinstance(kept, dict) and not isinstance(here, dict)
    if 'shards' in kept or set(kept) != set(here):
        return False
    return all(same_source(kept[name], here[name]) for name in kept)
