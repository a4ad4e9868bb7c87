"""`make tables`: what runs have written stands in the READMEs."""

import csv
from pathlib import Path

import pytest

from metarun.experiments.papers.filled import FilledCell, read_table
from metarun.experiments.papers.render import render
from metarun.experiments.runs.rows import COLUMNS


def write_cells(path, *cells):
    """A TABLE.csv: name, budget and result of each cell, and whether it is the best."""
    told = {"method": "A", "spec": "s", "metric": "accuracy", "published": 99, "ci95": 0.25, "verdict": "a verdict"}
    told |= {"episodes": 600, "seeds": 2, "train_steps": 10, "inner_steps": 0, "checkpoint": "last"}
    told |= {"spec_digest": "0", "episodes_digest": "1"}
    lines = [
        FilledCell(cell=name, column=name.split("-")[0], budget=budget, result=result, best=best, **told)
        for name, budget, result, best in cells
    ]
    path.write_text(render(lines, [], "csv") + "\n")


@pytest.fixture
def tables(script):
    return script("experiments/results/tables.py")


def rows(path, *values, episodes=600, digest="0"):
    """A results.csv with these experiments, seeds and means, all of so many episodes, or of the same."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(
            {"experiment": name, "seed": seed, "split": "test", "mean": mean, "episodes": episodes}
            | {"episodes_digest": digest}
            for name, seed, mean in values
        )


@pytest.fixture
def folders(tables, tmp_path, monkeypatch):
    """Where the tables are, in place of the repository's, and a folder of runs."""
    monkeypatch.setattr(tables, "HERE", tmp_path / "results")
    monkeypatch.setattr(tables, "ROWS", tmp_path / "results/results.csv")
    for folder in ("results", "runs"):
        (tmp_path / folder).mkdir()
    rows(tmp_path / "results/results.csv", ("one", 0, 1), ("other", 0, 2))
    rows(tmp_path / "runs/results.csv", ("one", 0, 3), ("one", 1, 4))
    return tmp_path / "results", tmp_path / "runs"


def test_a_table_and_its_line(tables, folders):
    results, runs = folders
    write_cells(runs / "snell2017-omniglot.csv", ("5way-1shot", 0.5, 98.5, False), ("20way-1shot", None, 20, False))
    (runs / "no-table-of-ours.csv").write_text("")
    tables.take_over(runs)
    told = [(row["experiment"], row["seed"], row["mean"]) for row in tables.read(results / "results.csv")]
    assert told == [("one", "0", "3"), ("one", "1", "4"), ("other", "0", "2")]
    assert not (results / "no-table-of-ours.csv").exists()

    told = tables.filled(
        "before\n<!-- table all -->\nold\n<!-- end -->\n<!-- table snell2017-omniglot -->\n<!-- end -->\nafter\n"
    )
    line = "| snell2017-omniglot | 5way | A | 99.00 | 98.50 | 0.25 | a verdict | 50 % | 2 |"
    assert line in told and "old" not in told and told.count("| 20way |") == 1  # which nothing was trained for
    assert told.endswith("| 20way | A | 99.00 | 20.00 | 0.25 | -79.00 | a verdict | accuracy % | 600 | 2 |  |\n"
                         "<!-- end -->\nafter\n")  # fmt: skip
    assert tables.filled(told) == told


def test_the_main_numbers_are_some_lines_of_all(tables):
    """In its order. Every cell that is chosen is there: a misspelt name would silently leave one out."""
    chosen, everything = tables.written("main").split("\n"), tables.written("all").split("\n")
    assert [line for line in everything if line in chosen] == chosen
    assert len(chosen) == 2 + sum(map(len, tables.MAIN.values())) < len(everything)


def test_a_table_of_runs_of_several_machines(tables, folders):
    """What is there stays, unless the new cell had as much of the budget; the order is the paper's."""
    results, runs = folders
    name = "snell2017-omniglot"
    write_cells(results / f"{name}.csv", ("5way-1shot", 1.0, 98.0, True), ("20way-1shot", 0.5, 95.0, False))
    write_cells(
        runs / f"{name}-budget-0.5.csv",
        ("5way-5shot", 0.5, 99.0, True),
        ("5way-1shot", 0.5, 97.0, True),
        ("20way-1shot", 0.5, 96.0, False),
    )
    write_cells(runs / f"{name}.csv", ("20way-5shot", 1.0, 98.5, True))
    tables.take_over(runs)
    assert [(cell.cell, cell.budget, cell.result, cell.best) for cell in read_table(results / f"{name}.csv")] == [
        ("5way-1shot", 1.0, 98.0, False),  # it was compared with others, and is sure to be below the next one
        ("5way-5shot", 0.5, 99.0, True),
        ("20way-1shot", 0.5, 96.0, False),
        ("20way-5shot", 1.0, 98.5, True),
    ]


@pytest.mark.parametrize(
    ("old", "new", "best"),
    [
        ([("a", 98.0, True), ("b", 97.8, True)], [("c", 97.4, False)], "ab"),
        ([("a", 98.0, True), ("b", 97.8, True)], [("c", 97.51, False)], ""),  # a paired test may not tell it from a
        ([("a", 97.0, True), ("b", 96.9, True)], [("c", 98.0, False)], "c"),
        ([("a", 98.0, False), ("b", 97.8, False)], [("c", 97.0, False)], ""),  # these two were not compared
        ([("a", 98.0, True), ("b", 97.0, False)], [("c", 90.0, True), ("d", 80.0, False)], "a"),
        ([("a", 98.0, True), ("b", 97.9, True), ("c", 90.0, False)], [("c", 90.0, False)], "ab"),
        ([("a", 98.0, False), ("b", 97.9, False)], [("a", 98.0, True), ("b", 97.9, True)], "ab"),
        ([("a", 98.0, True), ("b", 97.0, False), ("c", 96.9, False)], [("a", 96.0, False)], ""),  # b: not against a
    ],
)
def test_the_best_of_two_folders(tables, tmp_path, old, new, best):
    """Each cell with an interval of 0.25: those 0.5 apart are told apart by any test of the same tasks."""
    for name, cells in (("old", old), ("new", new)):
        write_cells(tmp_path / name, *((f"c-{cell}", 1.0, *told) for cell, *told in cells))
    cells = tables.merged(read_table(tmp_path / "old"), read_table(tmp_path / "new"))
    assert "".join(sorted(cell.cell[-1] for cell in cells if cell.best)) == best


def test_fewer_seeds_do_not_take_the_place_of_more(tables, tmp_path):
    for name, result in (("old", 98.0), ("new", 97.0)):
        write_cells(tmp_path / name, ("5way-1shot", 0.5, result, True))
    old, new = read_table(tmp_path / "old"), read_table(tmp_path / "new")
    fewer = [cell.model_copy(update={"seeds": cell.seeds - 1}) for cell in new]
    assert [cell.result for cell in tables.merged(old, fewer)] == [98.0]
    assert [cell.result for cell in tables.merged(old, new)] == [97.0]
    longer = [cell.model_copy(update={"budget": 1.0}) for cell in fewer]
    assert [cell.result for cell in tables.merged(old, longer)] == [97.0]


def test_taking_over_again_changes_nothing(tables, folders):
    """Nor does a trial with a part of the budget, none of whose cells is taken."""
    results, runs = folders
    write_cells(runs / "snell2017-omniglot.csv", ("5way-1shot", 1.0, 98.5, True), ("5way-5shot", 1.0, 98.4, True))
    budget = ("5way-1shot", 0.1, 90.0, True), ("5way-5shot", 0.1, 80.0, False)
    write_cells(runs / "snell2017-omniglot-budget-0.1.csv", *budget)
    for _ in range(2):
        tables.take_over(runs)
        assert [cell.best for cell in read_table(results / "snell2017-omniglot.csv")] == [True, True]


def test_a_row_of_more_episodes_is_another_one(tables, folders):
    results, runs = folders
    rows(runs / "results.csv", ("one", 0, 5), episodes=10000)
    tables.take_over(runs)
    told = [(row["experiment"], row["episodes"], row["mean"]) for row in tables.read(results / "results.csv")]
    assert told == [("one", "10000", "5"), ("one", "600", "1"), ("other", "600", "2")]
    rows(runs / "results.csv", ("other", 0, 7), digest="1")  # as many others
    tables.take_over(runs)
    assert [row["mean"] for row in tables.read(results / "results.csv")] == ["5", "1", "2", "7"]


@pytest.mark.parametrize("name", ["README.md", "experiments/results/README.md"])
def test_the_readmes_are_those_that_it_writes(tables, name):
    before = (Path(__file__).parents[3] / name).read_text()
    assert "<!-- table " in before and tables.filled(before) == before


def test_a_folder_of_no_runs_is_told(tables, tmp_path):
    with pytest.raises(SystemExit, match="is no folder of finished runs"):
        tables.take_over(tmp_path)
