"""Counts of every network against the figures that reproduce the paper's tables."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rsb_pose_core.cli import counts, main
from rsb_pose_core.counting import (
    NOT_BUILT,
    PAPER,
    Count,
    Row,
    count,
    count_network,
    count_refiner,
    row_names,
)
from rsb_pose_core.models import NETWORKS

# GMAC and M parameters that layers described in the papers add up to, counted by thop 0.1.1 on
# prototypes that share no code with these networks.
PROTOTYPES = {
    'resnet50-t': (25.872, 33.9997),
    'resnet152-t': (102.118, 68.635),
    'hrnet-w32-t': (20.679, 28.546),
    'hrnet-w48-t': (94.779, 63.596),
    'algebraic-t': (104.922, 79.522),
    'volume-t': (257.148, 80.588),
    'rsb-pose-resnet50': (65.2995, 43.2435),
    'rsb-pose-hrnet-w32': (59.403, 37.704),
    'rsb-pose-resnet152': (190.830, 77.879),
    'rsb-pose-hrnet-w48': (182.196, 72.769),
    'rsb-pose-resnet50-wide': (181.437, 43.2435),
    'rsb-pose-hrnet-w32-wide': (175.541, 37.704),
    'rsb-pose-resnet152-wide': (539.242, 77.879),
    'rsb-pose-hrnet-w48-wide': (530.607, 72.769),
}
TRUE_GMAC = {'rsb-pose-resnet50': 52.2, 'rsb-pose-resnet50-wide': 163.3}


@pytest.mark.parametrize('name', PROTOTYPES)
def test_networks_have_the_counts_of_the_paper_s_layers(name: str) -> None:
    as_thop, true = count_network(name)
    gmac, parameters_m = PROTOTYPES[name]
    assert as_thop.gmac == pytest.approx(gmac, rel=0.005)
    assert as_thop.parameters_m == pytest.approx(parameters_m, rel=0.002)
    assert true.parameters_m == pytest.approx(as_thop.parameters_m, rel=1e-9)
    assert true.gmac == pytest.approx(TRUE_GMAC.get(name, true.gmac), rel=0.002)
    if not name.endswith('-wide'):  # whose printed MACs are doubtful
        assert as_thop.gmac == pytest.approx(PAPER[name].gmac, rel=0.005)
    assert as_thop.parameters_m == pytest.approx(PAPER[name].parameters_m, rel=0.002)


def test_pose_transformers_have_the_counts_of_the_authors_weights() -> None:
    as_thop, true = count_refiner('ppt')
    assert as_thop.gmac == pytest.approx(0.036, rel=0.005)
    assert true.parameters_m == pytest.approx(2.123, rel=0.002)
    assert count_refiner('ppt-concatenated')[1].parameters_m == pytest.approx(8.44, rel=0.002)


def test_attention_s_products_are_in_the_true_count_alone() -> None:
    """By hand: 16 encoders of width 128 with 17 tokens, an embedding, a head and the norms."""
    as_thop, true = count_refiner('ppt')
    linear = 17 * (3 * 128 + 16 * (128 * 384 + 128 * 128 + 2 * 128 * 256) + 128 * 3)
    products = 16 * 2 * 17 * 17 * 128
    norms = 4 * 17 * 128 * (3 * 16 + 1)
    assert as_thop.gmac * 1e9 == pytest.approx(linear + norms)
    assert true.gmac * 1e9 == pytest.approx(linear + products)


class Layers(nn.Module):
    """One layer of each kind that the counts treat differently."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 5, 4, 2, 1, bias=False)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, image: Tensor) -> Tensor:
        up = self.up(self.norm(self.conv(image))).flatten(2) * self.scale.mean()  # B 5 HW
        return up @ up.mT


def test_counts_are_those_made_by_hand() -> None:
    as_thop, true = count(Layers(), torch.zeros(1, 3, 12, 20))
    conv, norm = 6 * 10 * 8 * 3 * 9, 4 * 6 * 10 * 8
    up_pixels = 12 * 20 * 8 * 5
    # a kernel of 4x4 at stride 2 puts 4 of its 16 taps on each pixel; thop believes 16
    assert as_thop.gmac * 1e9 == pytest.approx(conv + norm + 16 * up_pixels)
    assert true.gmac * 1e9 == pytest.approx(conv + 4 * up_pixels + 5 * 5 * 12 * 20)
    parameters = 8 * 3 * 9 + 8 + 16 + 8 * 5 * 16
    assert as_thop.parameters_m * 1e6 == pytest.approx(parameters)
    assert true.parameters_m * 1e6 == pytest.approx(parameters + 4)


def test_every_network_has_a_row() -> None:
    names = row_names()
    assert len(set(names)) == len(names)
    assert set(NETWORKS) <= set(names)
    assert {name for name in PAPER if name not in NETWORKS} == set(NOT_BUILT)


ROWS = [
    Row('tppt', 256, None, None, Count(9.7, 7.75), note='not built here'),
    Row('resnet', 256, Count(26.0, 34.0), Count(14.0, 34.0), Count(25.0, 40.0)),
    Row('wide', 384, Count(181.437, 43.2), Count(163.3, 43.2), Count(111.45, 43.2), 181.45),
    Row('ppt', None, Count(0.036, 2.121), Count(0.037, 2.123), None),
]


def test_the_table_shows_both_figures_and_their_difference() -> None:
    lines = counts.table(ROWS)[2:]
    assert [line.split() for line in lines] == [
        ['tppt', '256', '-', '9.70', '-', '-', '7.75', '-', '-', 'not', 'built', 'here'],
        ['resnet', '256', '26.000', '25.00', '+4.00%', '34.000', '40.00', '-15.00%', '14.000'],
        ['wide', '384', '181.437', '111.45', '+62.80%', '43.200', '43.20', '+0.00%', '163.300']
        + ['181.45?', '(-0.01%)'],
        ['ppt', '0.036', '-', '-', '2.121', '-', '-', '0.037'],
    ]


def test_the_table_is_at_most_120_columns_wide() -> None:
    longest = max(row_names(), key=len)
    huge = Count(9999.999, 9999.999)
    row = Row(longest, 384, huge, huge, Count(4999.99, 4999.99), 9999.99)
    assert max(len(line) for line in counts.table([row])) <= 120
    assert longest + ' ' in counts.table([row])[-1]


def test_colour_tells_close_from_far() -> None:
    close = Row('close', 256, Count(100.4, 10.0), None, Count(100.0, 10.0))
    far = Row('far', 256, Count(100.6, 10.1), None, Count(100.0, 10.0))
    green, yellow = counts.GREEN, counts.YELLOW
    assert counts.table([close], colour=True)[-1].count(green) == 2
    assert counts.table([far], colour=True)[-1].count(yellow) == 2


def test_the_command_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counts, 'rows', lambda: iter(ROWS))
    path = tmp_path / 'counts.json'
    assert main(['counts', '--json', str(path)]) == 0
    printed = capsys.readouterr().out
    assert '\033' not in printed
    assert printed.startswith('\n'.join(counts.table(ROWS)))
    tppt, resnet, wide, _ = json.loads(path.read_text())
    assert tppt['thop'] is None
    assert tppt['paper'] == {'gmac': 9.7, 'parameters_m': 7.75}
    assert resnet['true'] == {'gmac': 14.0, 'parameters_m': 34.0}
    assert resnet['percent_above_paper']['parameters_m'] == pytest.approx(-15)
    assert wide['likely_gmac'] == 181.45


def test_a_folder_that_is_not_there_is_told_before_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counts, 'rows', lambda: pytest.fail('counted'))
    assert main(['counts', '--json', str(tmp_path / 'none' / 'counts.json')]) == 2
    assert 'its folder does not exist' in capsys.readouterr().err
