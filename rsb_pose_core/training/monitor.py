"""What a run shows and writes down: a progress bar, log.jsonl and TensorBoard."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

# of the whole run in percent, whatever its length is counted in
BAR = '{l_bar}{bar}| {elapsed}<{remaining} {postfix}'


class Monitor:
    """Figures of one run in its directory; one that is not `enabled` keeps silent."""

    def __init__(self, out: Path, enabled: bool = True) -> None:
        self.out, self.enabled = out, enabled
        self._writer: SummaryWriter | None = None
        self._bar: tqdm[Any] | None = None

    @contextmanager
    def running(self, progress: float) -> Iterator[None]:
        """While the run goes on, with a progress bar; progress: 0..1, where it begins."""
        if not self.enabled:
            yield
            return
        self._writer = SummaryWriter(str(self.out))
        self._bar = tqdm(
            total=100, initial=round(100 * progress, 2), bar_format=BAR, mininterval=1.0
        )
        try:
            yield
        finally:
            self._bar.close()
            self._writer.close()
            self._bar = self._writer = None

    def advance(self, progress: float) -> None:
        """Move the bar to 0..1 of the run."""
        if self._bar is not None:
            self._bar.update(round(100 * progress, 2) - self._bar.n)

    def describe(self, text: str) -> None:
        """A few words behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def say(self, text: str) -> None:
        """Lines above the bar."""
        if self.enabled:
            tqdm.write(text)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Curves of TensorBoard."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f'{group}/{name}', value, step)

    def picture(self, name: str, rgb: NDArray[np.uint8], step: int) -> None:
        """A picture (H,W,3) of TensorBoard."""
        if self._writer is not None:
            self._writer.add_image(name, rgb, step, dataformats='HWC')

    def log(self, record: Mapping[str, Any]) -> None:
        """A line of log.jsonl."""
        if self.enabled:
            with (self.out / 'log.jsonl').open('a') as log:
                log.write(json.dumps(dict(record)) + '\n')


def first_volume_norm(model: nn.Module) -> str | None:
    """Name of the first BatchNorm of a model's volume; None where it has no volume.

    Its running variance says whether the attention mask leaves enough of the features: the raw
    mask of the paper leaves about 1e-6, which drowns in the norm's epsilon of 1e-5.
    """
    names = (n for n, module in model.named_modules() if isinstance(module, nn.BatchNorm3d))
    return next(names, None)
