"""`make tables`: what runs have written stands in the READMEs."""

import csv
from pathlib import Path

import pytest

from metarun.experiments.results import COLUMNS

CELL = """cell,column,method,metric,published,result,ci95,verdict,budget,seeds
5way,5-way,A,accuracy,99,98.5,0.25,{},0.5,2
chance,5-way,B,accuracy,20,20,0.25,,,1
"""


@pytest.fixture
def tables(script):
    return script("experiments/results/tables.py")


def rows(path, *values):
    """A results.csv with these experiments, seeds and means."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(
            {"experiment": name, "seed": seed, "split": "test", "mean": mean} for name, seed, mean in values
        )


def test_a_table_and_its_line(tables, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "HERE", tmp_path / "results")
    monkeypatch.setattr(tables, "ROWS", tmp_path / "results/results.csv")
    for folder in ("results", "runs"):
        (tmp_path / folder).mkdir()
    rows(tmp_path / "results/results.csv", ("one", 0, 1), ("other", 0, 2))
    rows(tmp_path / "runs/results.csv", ("one", 0, 3), ("one", 1, 4))
    (tmp_path / "runs/snell2017-omniglot.csv").write_text(CELL.format("within 1 point"))
    (tmp_path / "runs/snell2017-omniglot.md").write_text("| a table |\n")
    (tmp_path / "runs/no-table-of-ours.csv").write_text("")
    tables.take_over(tmp_path / "runs")
    told = [(row["experiment"], row["seed"], row["mean"]) for row in tables.read(tmp_path / "results/results.csv")]
    assert told == [("one", "0", "3"), ("one", "1", "4"), ("other", "0", "2")]
    assert not (tmp_path / "results/no-table-of-ours.csv").exists()

    told = tables.filled(
        "before\n<!-- table all -->\nold\n<!-- end -->\n<!-- table snell2017-omniglot -->\n<!-- end -->\nafter\n"
    )
    line = "| snell2017-omniglot | 5-way | A | 99.00 | 98.50 | 0.25 | within 1 point | 50 % | 2 |"
    assert line in told and "old" not in told and "| B |" not in told  # which nothing was trained for
    assert told.endswith("<!-- table snell2017-omniglot -->\n| a table |\n<!-- end -->\nafter\n")
    assert tables.filled(told) == told


@pytest.mark.parametrize("name", ["README.md", "experiments/results/README.md"])
def test_the_readmes_are_those_that_it_writes(tables, name):
    before = (Path(__file__).parents[1] / name).read_text()
    assert "<!-- table " in before and tables.filled(before) == before


def test_a_folder_of_no_runs_is_told(tables, tmp_path):
    with pytest.raises(SystemExit, match="is no folder of finished runs"):
        tables.take_over(tmp_path)
