"""Papers' tables as data: those that ship, and what is wrong with one that does not load."""

from pathlib import Path

import pytest
from sines import write_table

from metarun.experiments.errors import SpecError
from metarun.experiments.papers.definition import load_table, shipped_tables
from metarun.experiments.papers.plan import plan


@pytest.fixture
def table(tmp_path):
    """The file of a table of three cells that one model fills."""
    return write_table(tmp_path)


@pytest.mark.parametrize("name", shipped_tables())
def test_shipped_tables_are_right(name):
    """Every cell has a spec that ships and can be tested so; the spec's own test has the cell's number."""
    table = load_table(name)
    for one in plan(table, Path("nowhere")):
        published = one.full.published
        if one.row_path == one.directory.result and published:
            told = one.cell.published
            assert told and (told.value, told.ci95) == (published.value, published.ci95), one.cell.name
    assert [len(load_table(each).cells) for each in ("duan2016-bandits", "duan2016-mdps")] == [72, 40]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: k5,", "name: k5, colour: red,"), "paper.yaml:4: cells.0.colour: unknown key"),
        (("test: {inner_steps: 3}", "test: {inner_step: 3}"), "paper.yaml:6: cells.2.test.inner_step: unknown key"),
        (("method: MAML,", ""), "paper.yaml:4: cells.0.method: is missing"),
        (("shot: 10", "shot: ten"), "paper.yaml:5: cells.1.test.shot: expected a whole number, got 'ten'"),
        (("test: {inner_steps: 3}", ""), "paper.yaml:6: cells.2: k5-more is the same cell as k5"),
        (("name: k10", "name: k5"), "paper.yaml:5: cells.1: k5 is the same cell as k5"),
        (
            ("method: MAML,", "method: MAML, overrides: [train.steps=20],"),
            "paper.yaml:4: cells.0.overrides: name=... is missing",
        ),
    ],
)
def test_a_mistake_in_a_table_is_one_line(table, change, message):
    table.write_text(table.read_text().replace(*change, 1))
    with pytest.raises(SpecError) as told:
        load_table(str(table))
    assert message in "\n".join(told.value.problems)


PART = """
title: Sines of ten points
part_of: TABLE
columns: [K = 10]
overrides: {k10: [name=short, train.steps=20]}
"""


def test_a_part_of_a_table(table, tmp_path):
    part = tmp_path / "part.yaml"
    part.write_text(PART.replace("TABLE", str(table)))
    (cell,) = load_table(str(part)).cells
    assert cell.overrides == ("name=short", "train.steps=20")
    assert cell.model_copy(update={"overrides": ()}) == load_table(str(table)).cells[1]


def test_files_that_a_table_names_are_beside_it(table, tmp_path, monkeypatch):
    """Not in the folder where the command is given."""
    table.write_text(table.read_text().replace(str(tmp_path / "sines.yaml"), "sines.yaml"))
    (tmp_path / "part.yaml").write_text(PART.replace("TABLE", table.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "spec: sines.yaml" in table.read_text()
    for name in ("../paper.yaml", "../part.yaml"):
        assert plan(load_table(name), tmp_path)[0].experiment.dataset.name == "sinusoid"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("K = 10", "K = 11"), "part.yaml:4: columns.0: {table} has no such column"),
        (("{k10:", "{k5:"), "part.yaml:5: overrides.k5: these columns of {table} have no such cell"),
        (("name=short, ", ""), "part.yaml:5: overrides.k10: name=... is missing"),
        (("columns:", "column:"), "part.yaml:4: column: unknown key"),
        (("TABLE", "part.yaml"), "part.yaml:3: part_of: part.yaml is itself a part of another table"),
    ],
)
def test_a_mistake_in_a_part_is_one_line(table, tmp_path, monkeypatch, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "part.yaml").write_text(PART.replace(*change).replace("TABLE", str(table)))
    with pytest.raises(SpecError) as told:
        load_table("part.yaml")
    assert message.format(table=table) in "\n".join(told.value.problems)


def test_a_spec_that_is_missing_or_cannot_be_tested_so_is_named(table, tmp_path):
    text = table.read_text()
    table.write_text(text.replace("inner_steps: 3", "way: 3"))
    with pytest.raises(SpecError, match="k5-more: test.way: "):
        plan(load_table(str(table)), tmp_path)
    table.write_text(text.replace("sines.yaml", "nothing.yaml"))
    with pytest.raises(SpecError, match=r"k5: .*nothing\.yaml: no such file"):
        plan(load_table(str(table)), tmp_path)
    with pytest.raises(SpecError, match="did you mean duan2016-mdps"):
        load_table("duan2016-mdp")
