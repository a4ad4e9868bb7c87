"""The result of a cell: its verdict, and which methods are the best of a column."""

import math

import numpy as np
import pytest
from rows import ROW, leave
from sines import write_table

from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.filled import collect, read_table, verdict
from metarun.experiments.papers.plan import plan
from metarun.experiments.papers.render import render
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


def test_a_cell_says_that_trainings_ended_early(tmp_path):
    """Reject a table that shows the steps of the plan alone, and columns that say nothing in other tables."""
    write_table(tmp_path)
    every = plan(load_table(str(tmp_path / "paper.yaml")), tmp_path / "runs", seeds=range(2))
    planned = [one for one in every if one.cell.name == "k5"]
    for one, steps in zip(planned, (24, 32), strict=True):
        leave(one, 0.9, train_steps=steps, stopped_early=steps == 24)
    filled, notes = collect(planned)
    (tmp_path / "paper.csv").write_text(render(filled, notes, "csv") + "\n")
    (line,) = records(read_table(tmp_path / "paper.csv"))
    assert (line["stopped_early"], line["steps"], line["train_steps"]) == (1, "24 to 32", None)
    for cells in (filled, read_table(tmp_path / "paper.csv")):
        told = render(cells, notes, "text")
        assert "k5: 1 of 2 trainings ended early, by train.patience" in told and "24 to 32" in told
    for stopped in (None, False):
        for one in planned:
            leave(one, 0.9, train_steps=40, stopped_early=stopped)
        filled, notes = collect(planned)
        assert "stopped_early" not in render(filled, notes, "csv") and "steps" not in render(filled, notes, "text")
