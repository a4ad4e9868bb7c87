"""`make tables`: what runs have written stands in the READMEs."""

import csv
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "experiments/results/tables.py"
CELL = """cell,column,method,metric,published,result,ci95,verdict,budget,seeds
5way,5-way,A,accuracy,99,98.5,0.25,{},0.5,2
"""


@pytest.fixture
def tables():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("tables", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(path, *values):
    """A results.csv with these experiments, seeds and means."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["experiment", "seed", "split", "way", "shot", "query", "protocol", "inner_steps",
                         "checkpoint", "precision", "mean"])  # fmt: skip
        writer.writerows(
            [name, seed, "test", 5, 1, 1, "inductive", "", "best", "float32", mean] for name, seed, mean in values
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
    line = "| snell2017-omniglot | 5-way | A | 99.00 | 98.50 ± 0.25 | within 1 point | 50% | 2 |"
    assert line in told and "old" not in told
    assert told.endswith("<!-- table snell2017-omniglot -->\n| a table |\n<!-- end -->\nafter\n")
    assert tables.filled(told) == told


@pytest.mark.parametrize(
    "path", [SCRIPT.parent / "README.md", SCRIPT.parents[2] / "README.md"], ids=["results", "main"]
)
def test_the_readmes_are_those_that_it_writes(tables, path):
    before = path.read_text()
    assert "<!-- table " in before and tables.filled(before) == before
