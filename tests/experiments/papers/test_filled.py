"""The result of a cell: its verdict, and which methods are the best of a column."""

import math

import numpy as np
import pytest
from rows import ROW

from metarun.experiments.papers.filled import verdict
from metarun.experiments.reports.compare import Compared, best
from metarun.experiments.reports.formats import records
from metarun.experiments.reports.table import averaged
from metarun.experiments.runs.rows import Row, as_frame

LINE = {"metric": "accuracy", "published": 98.7, "published_ci95": 0.4}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"mean": 0.983}, "within the published interval"),  # the edge: 98.3 - 98.7 is not quite -0.4
        ({"mean": 0.991}, "within the published interval"),
        ({"mean": 0.9829}, "within 1 point"),
        ({"mean": 0.977}, "within 1 point"),  # the edge
        ({"mean": 0.9769}, "short by 1.01"),
        ({"mean": 0.9981}, "better by 1.11"),
        ({"mean": 0.9, "ci95": 0.1}, "short by 8.70, inside ci95"),
        ({"mean": None}, "not finite"),
        ({"mean": 0.5, "published": None, "published_ci95": None}, ""),
        ({"mean": 0.977, "published_ci95": None}, "within 1 point"),
        ({"metric": "mse", "mean": 0.36, "published": 0.35, "published_ci95": None, "ci95": 0.001}, "short by 0.010"),
        ({"metric": "mse", "mean": 0.34, "published": 0.35, "published_ci95": None, "ci95": 0.001}, "better by 0.010"),
        ({"metric": "mse", "mean": 0.3535, "published": 0.35, "published_ci95": None}, "within 1 %"),
        ({"metric": "total_reward", "mean": 400.0, "published": 404.0, "published_ci95": None}, "within 1 %"),
        ({"metric": "total_reward", "mean": 5.0, "published": 5.9, "published_ci95": None}, "short by 0.90"),
    ],
)
def test_verdicts(told, words):
    """Check that a point is for percentages: 5.0 is not "within 1 point" of a reward of 5.9."""
    (line,) = records(averaged(as_frame([Row(**ROW | LINE | {"ci95": 0.0001} | told)]), ["experiment"]))
    assert verdict(line) == words


def compared(values, metric="accuracy"):
    return Compared(None, Row(**ROW | {"metric": metric}), {}, np.array(values))


def test_bold_are_the_best_and_what_a_paired_test_does_not_separate():
    generator = np.random.default_rng(1)
    hardness = generator.normal(70, 15, 200)
    top, near, worse = (hardness + generator.normal(shift, 1, 200) for shift in (1.0, 0.99, 0.0))
    assert best([compared(worse), compared(top), compared(near)]) == [1, 2]
    unpaired = (top.mean() - worse.mean()) / math.sqrt((top.var(ddof=1) + worse.var(ddof=1)) / 200)
    assert abs(unpaired) < 1.96  # an unpaired test, the wrong variant, would have all three in bold
    assert best([compared(worse, "mse"), compared(top, "mse")]) == [0]  # the lowest error
