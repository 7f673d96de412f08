"""What the documents point to exists."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
METHOD = (ROOT / 'docs' / 'method.md').read_text()
NAME = re.compile(r'`((?:[a-z_0-9]+\.)+[A-Za-z_0-9]+)(?:\([^`]*\))?`')
LINK = re.compile(r'\]\(([^)#]+)(?:#[^)]*)?\)')


def resolve(name: str) -> object:
    """A dotted name below rsb_pose_core: packages, then attributes."""
    parts = name.split('.')
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module('.'.join(['rsb_pose_core', *parts[:length]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise AttributeError(name)


@pytest.mark.parametrize(
    'name', sorted({n for n in NAME.findall(METHOD) if not n.startswith(('cv2.', 'config.'))})
)
def test_what_method_md_names_is_in_the_code(name: str) -> None:
    assert resolve(name) is not None


def test_a_name_that_is_not_in_the_code_is_noticed() -> None:
    with pytest.raises(AttributeError):
        resolve('models.rsb_pose.no_such_function')


@pytest.mark.parametrize('number', range(1, 7))
def test_every_equation_of_the_paper_has_its_place(number: int) -> None:
    (row,) = [line for line in METHOD.splitlines() if f'Eq. ({number})' in line]
    assert NAME.search(row)


@pytest.mark.parametrize(
    'document',
    [
        'README.md',
        'docs/method.md',
        'docs/experiments.md',
        'docs/synthesis.md',
        'docs/evaluation.md',
    ],
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = [link for link in LINK.findall(path.read_text()) if '://' not in link]
    assert links
    missing = [link for link in links if not (path.parent / link).exists()]
    assert missing == []
