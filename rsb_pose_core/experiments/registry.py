"""The paper's tables and figures by name.

An experiment is a module with add_arguments(parser) and run(args) -> exit status, as a command of
the command line is; `args.experiment` is its name, where one module holds several. It is imported
when it is called. Each writes the folder --out: results.json, results.md and, where the paper has
a figure, figure.png, the paper's own numbers beside ours.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType


@dataclass(frozen=True)
class Experiment:
    """What it shows, and the module of this package that runs it."""

    summary: str
    module: str

    def load(self) -> ModuleType:
        """Import the module."""
        return importlib.import_module(f'rsb_pose_core.experiments.{self.module}')


EXPERIMENTS: dict[str, Experiment] = {
    'figure-1a': Experiment(
        '3D error against baseline under 2D noise, measured and by theory', 'baseline_error'
    ),
    'table-1': Experiment('methods side by side, short baseline', 'tables'),
    'table-2': Experiment('methods side by side, wide baseline', 'tables'),
    'table-3': Experiment('what SCE, its attention mask and the PPT add', 'ablation'),
    'table-4': Experiment('pose prior: how often Algorithm 1 masks (T = 1..5)', 'masking_rounds'),
    'table-5': Experiment('pose prior: which joints to mask at inference', 'cascade'),
    'figure-6': Experiment('loss on held-out pairs, with and without the mask', 'convergence'),
    'figure-7': Experiment('the PPT behind any network, without training', 'plug_in'),
    'figure-8': Experiment('attention of the PPT, seen and occluded joints', 'attention_maps'),
    'restore': Experiment('masked joints restored by the PPT and by simpler means', 'restoring'),
}
