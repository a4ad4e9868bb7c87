"""`make tables`: what runs have written stands in the READMEs."""

import csv
from pathlib import Path

import pytest

from metarun.experiments.papers.definition import shipped_tables
from metarun.experiments.papers.filled import CELLS, read_table, table_as_csv
from metarun.experiments.reports.formats import records
from metarun.experiments.runs.rows import COLUMNS, DTYPES, read_frame


def write_cells(path, *cells, precision=""):
    """Write a TABLE.csv: name, budget and result of each cell, and whether it is the best."""
    told = {"method": "A", "spec": "s", "metric": "accuracy", "published": 99, "ci95": 0.25, "verdict": "a verdict"}
    told |= {"episodes": 600, "seeds": 2, "train_steps": 10, "inner_steps": 0, "checkpoint": "last"}
    told |= {"spec_digest": "0", "episodes_digest": "1", "precision": precision}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(CELLS), lineterminator="\n")
        writer.writeheader()
        for name, budget, result, best in cells:
            own = {"cell": name, "column": name.split("-")[0], "budget": budget, "result": result}
            own["difference"] = result - 99
            writer.writerow(told | own | {"best": str(best).lower()})


def told_of(cells, *columns):
    """Return some columns of cells, line by line."""
    return [tuple(line[name] for name in columns) for line in records(cells)]


@pytest.fixture
def tables(script):
    return script("experiments/results/tables.py")


def rows(path, *values, episodes=600, digest="0"):
    """Write a results.csv with these experiments, seeds and means, all of so many episodes, or of the same."""
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
    """Make a folder of tables, in place of the repository's, and a folder of runs."""
    monkeypatch.setattr(tables, "HERE", tmp_path / "results")
    monkeypatch.setattr(tables, "ROWS", tmp_path / "results/results.csv")
    for folder in ("results", "runs"):
        (tmp_path / folder).mkdir()
    rows(tmp_path / "results/results.csv", ("one", 0, 1), ("other", 0, 2))
    rows(tmp_path / "runs/results.csv", ("one", 0, 3), ("one", 1, 4))
    return tmp_path / "results", tmp_path / "runs"


def test_of_one_budget_the_cell_in_float32_stays_and_another_precision_is_told(tables, folders):
    """Reject a number in bfloat16 in place of one in float32, and one that looks as if it were."""
    results, runs = folders
    half = ("5way-1shot", 0.5, 98.5, False)
    write_cells(results / "snell2017-omniglot.csv", half)
    write_cells(
        runs / "snell2017-omniglot-budget-0.5-bfloat16.csv", ("5way-1shot", 0.5, 97, False), precision="bfloat16"
    )
    tables.take_over(runs)
    assert told_of(read_table(results / "snell2017-omniglot.csv"), "result", "precision") == [(98.5, None)]
    assert "precision" not in tables.written("all")
    write_cells(runs / "snell2017-omniglot-bfloat16.csv", ("5way-1shot", 1, 97, False), precision="bfloat16")
    tables.take_over(runs)
    assert told_of(read_table(results / "snell2017-omniglot.csv"), "result", "precision") == [(97, "bfloat16")]
    assert tables.written("all").splitlines()[-1].endswith("| bfloat16  |")


def test_a_table_and_its_line(tables, folders):
    results, runs = folders
    write_cells(runs / "snell2017-omniglot.csv", ("5way-1shot", 0.5, 98.5, False), ("20way-1shot", None, 20, False))
    (runs / "no-table-of-ours.csv").write_text("")
    tables.take_over(runs)
    told = told_of(tables.read(results / "results.csv"), "experiment", "seed", "mean")
    assert told == [("one", "0", "3"), ("one", "1", "4"), ("other", "0", "2")]
    assert not (results / "no-table-of-ours.csv").exists()

    told = tables.filled(
        "before\n<!-- table all -->\nold\n<!-- end -->\n<!-- table snell2017-omniglot -->\n<!-- end -->\nafter\n"
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines()]
    line = ["snell2017-omniglot", "5way", "A", "99.00", "98.50 ± 0.25", "a verdict", "50 %", "2"]
    assert (
        line in lines and "old" not in told and [cells[:2] for cells in lines if "20way" in cells] == [["20way", "A"]]
    )
    assert lines[-3] == ["20way", "A", "99.00", "20.00 ± 0.25", "-79.00", "a verdict", "accuracy %", "600", "2", ""]
    assert told.endswith("\n<!-- end -->\nafter\n")
    assert tables.filled(told) == told


def test_a_table_has_its_text_and_the_numbers_of_others(tables, folders):
    """Reject a table of small networks without people beside it, and notes that grow when they are written again."""
    write_cells(folders[0] / "lake2015-one-shot.csv", ("lake-protonet", 1.0, 80.0, False))
    told = tables.filled("<!-- table lake2015-one-shot -->\n<!-- end -->\n")
    assert "\nAccuracies; the papers print errors, 100 minus these." in told
    assert "\nLake's test: people 95.5, BPL 96.7, deep convnet 86.5 (Lake et al. 2015, second hand)\n" in told
    assert tables.filled(told) == told


def test_the_main_numbers_are_some_lines_of_all(tables):
    """Check that main lines keep the order of all. Every chosen cell is there: a misspelt name would silently leave one
    out."""
    chosen, everything = (
        [
            [cell.strip() for cell in line.split("|")[1:9]]
            for line in tables.written(name).splitlines()
            if "---" not in line
        ]
        for name in ("main", "all")  # columns have another width, and only one of both may have a precision
    )
    assert [line for line in everything if line in chosen] == chosen
    assert len(chosen) == 1 + sum(map(len, tables.MAIN.values())) < len(everything)


def test_a_table_of_runs_of_several_machines(tables, folders):
    """Check that a cell that is there stays, unless the new one had as much of the budget; the order is the paper's."""
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
    assert told_of(read_table(results / f"{name}.csv"), "cell", "budget", "result", "best") == [
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
    """Check that cells have an interval of 0.25: those 0.5 apart are told apart by any test of the same tasks."""
    for name, cells in (("old", old), ("new", new)):
        write_cells(tmp_path / name, *((f"c-{cell}", 1.0, *told) for cell, *told in cells))
    cells = tables.merged(read_table(tmp_path / "old"), read_table(tmp_path / "new"))
    assert "".join(sorted(name[-1] for name in cells["cell"][cells["best"]])) == best


def test_fewer_seeds_do_not_take_the_place_of_more(tables, tmp_path):
    for name, result in (("old", 98.0), ("new", 97.0)):
        write_cells(tmp_path / name, ("5way-1shot", 0.5, result, True))
    old, new = read_table(tmp_path / "old"), read_table(tmp_path / "new")
    fewer = new.assign(seeds=new["seeds"] - 1)
    assert list(tables.merged(old, fewer)["result"]) == [98.0]
    assert list(tables.merged(old, new)["result"]) == [97.0]
    assert list(tables.merged(old, fewer.assign(budget=1.0))["result"]) == [97.0]


def test_taking_over_again_changes_nothing(tables, folders):
    """Check that a trial with a part of the budget changes nothing either: none of its cells is taken."""
    results, runs = folders
    write_cells(runs / "snell2017-omniglot.csv", ("5way-1shot", 1.0, 98.5, True), ("5way-5shot", 1.0, 98.4, True))
    budget = ("5way-1shot", 0.1, 90.0, True), ("5way-5shot", 0.1, 80.0, False)
    write_cells(runs / "snell2017-omniglot-budget-0.1.csv", *budget)
    for _ in range(2):
        tables.take_over(runs)
        assert list(read_table(results / "snell2017-omniglot.csv")["best"]) == [True, True]


def test_a_row_of_more_episodes_is_another_one(tables, folders):
    results, runs = folders
    rows(runs / "results.csv", ("one", 0, 5), episodes=10000)
    tables.take_over(runs)
    told = told_of(tables.read(results / "results.csv"), "experiment", "episodes", "mean")
    assert told == [("one", "10000", "5"), ("one", "600", "1"), ("other", "600", "2")]
    rows(runs / "results.csv", ("other", 0, 7), digest="1")  # as many others
    tables.take_over(runs)
    assert list(tables.read(results / "results.csv")["mean"]) == ["5", "1", "2", "7"]


def test_rows_of_two_heads_are_two_rows(tables, folders):
    """Reject a row that takes the place of another head's on the features of the same run."""
    results, runs = folders
    text = (runs / "results.csv").read_text().splitlines()
    place = text[0].split(",").index("head")
    other = text[1].split(",")
    other[place] = '"{""name"": ""ridge""}"'
    (runs / "results.csv").write_text("\n".join([*text, ",".join(other)]) + "\n")
    tables.take_over(runs)
    heads = tables.read(results / "results.csv").query("experiment == 'one' and seed == '0'")["head"]
    assert sorted(heads.fillna("")) == ["", '{"name": "ridge"}']


def test_csvs_that_are_read_and_written_again_are_the_same_bytes(tables):
    """Check that the files are those in the repository, which older versions have written."""
    folder = Path(__file__).parents[3] / "experiments/results"
    read = [path for path in folder.glob("*.csv") if path.stem in shipped_tables()]
    assert len(read) > 7
    for path in read:
        assert table_as_csv(read_table(path)) == path.read_text()
    rows = read_frame(folder / "results.csv", DTYPES)
    text = (folder / "results.csv").read_text()
    known = text.partition("\n")[0].split(",")  # columns that are newer are empty
    assert rows.loc[:, known].to_csv(index=False, lineterminator="\n") == text
    assert rows.drop(columns=known).isna().all(axis=None)


@pytest.mark.parametrize("name", ["README.md", "experiments/results/README.md"])
def test_the_readmes_are_those_that_it_writes(tables, name):
    before = (Path(__file__).parents[3] / name).read_text()
    assert "<!-- table " in before and tables.filled(before) == before


def test_a_folder_of_no_runs_is_told(tables, tmp_path):
    with pytest.raises(SystemExit, match="is no folder of finished runs"):
        tables.take_over(tmp_path)
