"""What every experiment leaves in its folder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def markdown(header: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> str:
    """A Markdown table. Numbers get two decimals, what is missing (None, NaN) a dash."""
    lines = ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header)]
    lines += ['| ' + ' | '.join(_cell(value) for value in row) + ' |' for row in rows]
    return '\n'.join(lines) + '\n'


def write_results(
    out: Path, results: dict[str, Any], text: str, figure: Figure | None = None
) -> None:
    """results.json, results.md and figure.png in `out`; the text is printed as well."""
    out.mkdir(parents=True, exist_ok=True)
    plain = json.dumps(_without_nan(results), indent=1)
    (out / 'results.json').write_text(plain + '\n', encoding='utf-8')
    (out / 'results.md').write_text(text, encoding='utf-8')
    if figure is not None:
        figure.savefig(out / 'figure.png', dpi=100, bbox_inches='tight')
    print(text)
    print(f'written to {out}')


def _cell(value: str | float | None) -> str:
    if isinstance(value, str):
        return value
    if value is None or math.isnan(value):
        return '-'
    return str(value) if isinstance(value, int) else f'{value:.2f}'


def _without_nan(value: Any) -> Any:
    """The same with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
