"""What run.sh asks: whether the modules are there, and how fast the training was."""

import importlib.util
import json
import sys
from pathlib import Path

MODULES = {
    'torch': 'torch', 'numpy': 'numpy', 'scipy': 'scipy', 'cv2': 'opencv-python-headless',
    'safetensors': 'safetensors', 'yaml': 'PyYAML', 'jaxtyping': 'jaxtyping', 'tqdm': 'tqdm',
    'tensorboard': 'tensorboard', 'matplotlib': 'matplotlib',
}  # fmt: skip


def modules() -> int:
    """1, with a sentence, where a module is missing."""
    missing = [name for module, name in MODULES.items() if not importlib.util.find_spec(module)]
    if missing:
        print(
            f'missing: {" ".join(missing)}; put their wheels, and those of what they need, into '
            f'wheels/ beside run.sh (README.md says how)',
            file=sys.stderr,
        )
    return 1 if missing else 0


def rate(before: Path, after: Path) -> int:
    """Print steps, pairs and pairs a second between two checkpoints."""
    first = {'step': 0, 'pairs_seen': 0, 'seconds': 0.0}
    if before.exists():
        first = json.loads(before.read_text())['facts']['counters']
    last = json.loads(after.read_text())['facts']['counters']
    steps, pairs, seconds = (
        last[name] - first[name] for name in ('step', 'pairs_seen', 'seconds')
    )
    print(
        f'{steps} steps, {pairs} pairs in {seconds / 60:.1f} minutes of training: '
        f'{pairs / max(seconds, 1e-9):.1f} pairs/s; step {last["step"]} in all'
    )
    return 0


if __name__ == '__main__':
    sys.exit(modules() if sys.argv[1] == 'modules' else rate(*map(Path, sys.argv[2:4])))
