"""What the paper reports, to stand beside what we measure on other data.

Its MPJPE are means in mm, JDR in percent. MACs and parameters are in counting.PAPER.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """A row of Table I or II; JDR and SIM_cos are None of Volume-T, which has no 2D keypoints."""

    mpjpe_re_mm: float
    mpjpe_ab_mm: float
    jdr_percent: float | None
    sim_cos: float | None


# By the names of models.NETWORKS; tppt, epipolar-t and adafuse are not built here.
TABLE_1 = {
    'tppt': PaperRow(225.97, 209.03, 87.67, 0.91),
    'epipolar-t': PaperRow(91.25, 90.73, 91.75, 0.94),
    'hrnet-w32-t': PaperRow(78.10, 73.63, 96.27, 0.91),
    'rsb-pose-hrnet-w32': PaperRow(31.10, 35.17, 98.81, 0.99),
    'resnet50-t': PaperRow(62.70, 63.18, 96.03, 0.84),
    'rsb-pose-resnet50': PaperRow(26.93, 32.10, 96.62, 0.96),
    'adafuse': PaperRow(188.80, 189.16, 83.46, 0.93),
    'algebraic-t': PaperRow(52.28, 51.69, 95.95, 0.88),
    'volume-t': PaperRow(28.37, 34.67, None, None),
    'hrnet-w48-t': PaperRow(60.69, 64.12, 95.90, 0.93),
    'rsb-pose-hrnet-w48': PaperRow(28.14, 32.92, 98.09, 0.99),
    'resnet152-t': PaperRow(58.18, 59.49, 95.95, 0.88),
    'rsb-pose-resnet152': PaperRow(27.00, 29.33, 97.40, 0.98),
}
TABLE_2 = {
    'tppt': PaperRow(42.10, 40.72, 93.32, 0.87),
    'epipolar-t': PaperRow(37.97, 41.22, 96.40, 0.88),
    'hrnet-w32-t': PaperRow(38.61, 40.15, 94.30, 0.89),
    'rsb-pose-hrnet-w32-wide': PaperRow(33.16, 36.84, 96.18, 0.94),
    'resnet50-t': PaperRow(36.52, 37.04, 94.07, 0.82),
    'rsb-pose-resnet50-wide': PaperRow(32.80, 35.01, 94.82, 0.92),
    'adafuse': PaperRow(28.52, 30.27, 94.25, 0.89),
    'algebraic-t': PaperRow(29.44, 31.24, 95.81, 0.79),
    'volume-t': PaperRow(30.97, 32.63, None, None),
    'hrnet-w48-t': PaperRow(31.97, 33.28, 93.26, 0.89),
    'rsb-pose-hrnet-w48-wide': PaperRow(29.50, 30.73, 95.54, 0.95),
    'resnet152-t': PaperRow(29.61, 31.51, 95.81, 0.79),
    'rsb-pose-resnet152-wide': PaperRow(27.89, 30.07, 95.93, 0.94),
}

# Table III by backbone: the rows of ablation.ROWS, MPJPE_ab of all, not occluded and occluded
# joints, then MPJPE_re of the same, on MHAD.
TABLE_3 = {
    'resnet50': (
        (63.18, 62.99, 73.13, 62.70, 62.34, 75.38),
        (47.61, 47.42, 54.50, 46.16, 46.05, 50.19),
        (35.40, 35.25, 40.73, 31.10, 30.93, 37.23),
        (32.10, 31.94, 37.78, 26.93, 26.80, 31.42),
    ),
    'resnet152': (
        (59.00, 58.79, 69.99, 58.18, 49.93, 58.41),
        (30.40, 30.24, 36.13, 27.98, 27.80, 34.59),
        (29.78, 29.60, 36.19, 27.20, 27.02, 33.92),
        (29.33, 29.17, 35.06, 27.00, 26.93, 29.46),
    ),
}
