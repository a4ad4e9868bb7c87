"""Papers' tables as data: those that ship, and what is wrong with one that does not load."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from sines import write_table

from metarun.cli.main import metarun as group
from metarun.experiments.config.load import load
from metarun.experiments.errors import SpecError
from metarun.experiments.jobs.settings import read_settings
from metarun.experiments.papers.definition import load_table, shipped_tables
from metarun.experiments.papers.plan import plan, plan_of


@pytest.fixture
def table(tmp_path):
    """Write a table of three cells that one model fills; return its path."""
    return write_table(tmp_path)


@pytest.mark.parametrize("name", shipped_tables())
def test_shipped_tables_are_right(name):
    """Check that every cell has a spec that ships and can be tested so; the spec's own test has the cell's number."""
    table = load_table(name)
    for one in plan(table, Path("nowhere")):
        published = one.full.published
        if one.row_path == one.directory.result and published:
            told = one.cell.published
            assert told and (told.value, told.ci95) == (published.value, published.ci95), one.cell.name
    assert [len(load_table(each).cells) for each in ("duan2016-bandits", "duan2016-mdps")] == [72, 40]


def test_numbers_of_others_stand_below_the_table():
    table = load_table("lake2015-one-shot")
    text, *others = table.notes
    assert "expected to make more mistakes than people" in text and len(others) == 5
    assert others[0] == "Lake's test: people 95.5, BPL 96.7, deep convnet 86.5 (Lake et al. 2015, second hand)"
    planned = plan(table, Path("nowhere"))
    lake = {one.cell.name: one.row_path for one in planned if one.cell.split == "lake-one-shot"}
    assert len(lake) == 5 and len({one.directory.path for one in planned}) == 5
    assert {path.name[:28] for path in lake.values()} == {"lake-one-shot-20way-1shot-1q"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{column: five shots, method: people, value: 1, source: somewhere}",
            "others.0.column: no cell has the column 'five shots'; ",
        ),
        ("{column: K = 5, method: people, value: many, source: somewhere}", "others.0.value: expected a number"),
        ("{column: K = 5, method: people, value: 1}", "others.0.source: is missing"),
    ],
)
def test_a_mistake_in_a_number_of_others(table, line, message):
    table.write_text(f"{table.read_text()}others:\n  - {line}\n")
    with pytest.raises(SpecError, match=re.escape(message)):
        load_table(str(table))


def test_a_split_that_the_dataset_does_not_have(table):
    table.write_text(table.read_text().replace("test: {inner_steps: 3}", "test: {split: lake-one-shot}"))
    with pytest.raises(SpecError, match="k5-more: --split lake-one-shot is a test of runs trained on omniglot"):
        plan(load_table(str(table)), Path("nowhere"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("name: k5,", "name: k5, colour: red,"),
            "paper.yaml:4: cells.k5.colour: unknown key; did you mean column?",
        ),
        (
            ("test: {inner_steps: 3}", "test: {inner_step: 3}"),
            "paper.yaml:6: cells.k5-more.test.inner_step: unknown key; did you mean inner_steps?",
        ),
        (
            ("test: {inner_steps: 3}", "test: {head: {name: ridge, scal: 3.0}}"),
            "paper.yaml:6: cells.k5-more.test.head.ridge.scal: unknown key; did you mean scale?",
        ),
        (("method: MAML,", ""), "paper.yaml:4: cells.k5.method: is missing"),
        (("shot: 10", "shot: ten"), "paper.yaml:5: cells.k10.test.shot: expected a whole number, got 'ten'"),
        (("test: {inner_steps: 3}", ""), "paper.yaml:6: cells.k5-more: is the same cell as k5"),
        (("name: k10", "name: k5"), "paper.yaml:5: cells.k5: is the same cell as k5"),
        (
            ("method: MAML,", "method: MAML, overrides: [train.steps=20],"),
            "paper.yaml:4: cells.k5.overrides: name=... is missing",
        ),
    ],
)
def test_a_mistake_in_a_table_is_one_line(table, change, message):
    table.write_text(table.read_text().replace(*change, 1))
    with pytest.raises(SpecError) as told:
        load_table(str(table))
    assert message in "\n".join(told.value.problems)


def test_fault_31_all_mistakes_of_a_table_and_its_specs_at_once(table, tmp_path):
    """Tell lines and names of cells. Rejected: `cells.0`; the specs only once the table has no mistake."""
    text = table.read_text().replace("name: k5,", "name: k5, colour: red,", 1).replace("title", "titel")
    text = text.replace("{shot: 10, query: 10}", "{way: 3}").replace("{inner_steps: 3}", "{inner_step: 3}")
    text += "  - {column: x, method: y, spec: z}\n"
    table.write_text(text)
    with pytest.raises(SpecError) as told:
        plan_of(str(table), tmp_path)
    shown = [
        "paper.yaml:1: title: is missing",
        "paper.yaml:2: titel: unknown key; did you mean title?",
        "paper.yaml:4: cells.k5.colour: unknown key; did you mean column?",
        "paper.yaml:6: cells.k5-more.test.inner_step: unknown key; did you mean inner_steps?",
        "paper.yaml:7: cells.#4.name: is missing",
        "paper.yaml:5: k10: test.way: is 3; a regression task has way: 1",
        "paper.yaml:5: k10: test.way: is 3: the last layer of maml has train.way = 1 outputs, so train and test have "
        "the same way",
    ]
    assert told.value.problems == shown


def test_fault_31_files_of_another_kind_are_called_what_they_are(table, tmp_path, monkeypatch):
    """Say so where a verb does not take a file, or what ships; `validate` checks each as what it is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("partition: gpu\ntime: 60\n")
    (tmp_path / "part.yaml").write_text(PART.replace("TABLE", "sines.yaml"))
    (tmp_path / "child.yaml").write_text("extends: paper.yaml\nname: child\n")
    for name in ("sines.yaml", "quickstart/maml"):
        with pytest.raises(SpecError, match=f"^{name} is a spec: `metarun train {name}`"):
            load_table(name)
    for name in ("paper.yaml", "finn2017-omniglot"):
        with pytest.raises(SpecError, match=f"^{name} is a table: `metarun reproduce {name}`"):
            load(name)
    for read in (load, load_table):
        with pytest.raises(SpecError, match=r"^cluster.yaml is a file of cluster settings: METARUN_CLUSTER"):
            read("cluster.yaml")
    with pytest.raises(SpecError, match=r"^paper.yaml is a table"):
        read_settings(Path("paper.yaml"))
    with pytest.raises(SpecError, match=r"^child.yaml:1: extends: paper.yaml is a table"):
        load("child.yaml")
    with pytest.raises(SpecError, match=r"^part.yaml:3: part_of: sines.yaml is a spec"):
        load_table("part.yaml")
    names = ["sines.yaml", "paper.yaml", "cluster.yaml", "finn2017-omniglot", "quickstart/maml"]
    told = CliRunner().invoke(group, ["validate", *names]).output.splitlines()
    assert [line.partition(" ok, ")[2].rstrip("0123456789abcdef") for line in told] == [
        "digest ",
        "a table of 3 cells, 1 models",
        "cluster settings",
        "a table of 5 cells, 5 models",
        "digest ",
    ]


def test_fault_31_mistakes_in_cluster_files_have_lines_and_suggestions(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("partition: gpu\nslurm:\n  qos: [1]\ntme: 60\n")
    with pytest.raises(SpecError) as told:
        read_settings(path)
    assert told.value.problems == [
        "cluster.yaml:3: slurm.qos: expected text or a whole number or true or false, got [1]",
        "cluster.yaml:4: tme: unknown key; did you mean time?",
    ]


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
    """Find them there, not in the folder where the command is given."""
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
        (("K = 10", "K = 11"), "part.yaml:4: columns: {table} has no column 'K = 11'; did you mean K = 10?"),
        (("{k10:", "{k5:"), "part.yaml:5: overrides.k5: these columns of {table} have no such cell; they have k10"),
        (("name=short, ", ""), "part.yaml:5: overrides.k10: name=... is missing"),
        (("columns:", "column:"), "part.yaml:4: column: unknown key; did you mean columns?"),
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


CROSSED = """
title: Sines of two sizes
source: a paper
specs: SPEC
runs: sines-{cell}
columns: {k5: K = 5, k10: K = 10}
methods: {maml: MAML, more: More steps}
overrides:
  "k10-*": [train.shot=10]
  "*-more": [train.steps=80]
published: {maml: [0.4, 0.3]}
"""


@pytest.fixture
def crossed(table):
    """Write a table of two methods in two columns; `sines.yaml` is beside it."""
    path = table.with_name("crossed.yaml")
    path.write_text(CROSSED.replace("SPEC", "sines.yaml"))
    return path


def test_methods_in_columns_are_cells(crossed, tmp_path):
    """List them column after column; each is trained by its own recipe, the whole of which is its budget."""
    planned = plan(load_table(str(crossed)), tmp_path, seeds=[0])
    told = [(one.cell.name, one.experiment.name, one.full.train.shot, one.full.train.steps) for one in planned]
    assert told == [
        ("k5-maml", "sines-k5-maml", 5, 40),
        ("k5-more", "sines-k5-more", 5, 80),
        ("k10-maml", "sines-k10-maml", 10, 40),
        ("k10-more", "sines-k10-more", 10, 80),
    ]
    assert [one.cell.published and one.cell.published.value for one in planned] == [0.4, None, 0.3, None]
    assert [one.experiment.published.value for one in planned] == [0.4, 3.0, 0.3, 3.0]  # 3.0 is the spec's own
    assert all(one.budget == 1 for one in planned)
    assert (planned[2].cell.column, planned[3].cell.method) == ("K = 10", "More steps")


def test_overrides_of_a_part_are_added_to_a_cell_of_methods_and_columns(crossed, tmp_path):
    """Check that overrides of the part do not replace what makes the cell."""
    part = tmp_path / "part.yaml"
    part.write_text(PART.replace("TABLE", str(crossed)).replace("k10:", "k10-maml:"))
    (first, _) = plan(load_table(str(part)), tmp_path, seeds=[0])
    assert (first.experiment.name, first.experiment.train.shot, first.budget) == ("short", 10, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"k10-*"', '"k11-*"'), "crossed.yaml:9: overrides.k11-*: no cell has such a name; the first is k5-maml"),
        (("[0.4, 0.3]", "[0.4]"), "crossed.yaml:11: published.maml: has 1 number for 2 columns"),
        (("{maml: [", "{mamel: ["), "crossed.yaml:11: published.mamel: is no method of this table; did you mean maml?"),
        (("[0.4, 0.3]", "[0.4, high]"), "crossed.yaml:11: published.maml.1: "),
        (("k5: K", "K5: K"), "crossed.yaml:6: columns.K5"),
        (("source: a paper\n", ""), "crossed.yaml:1: source: is missing"),
        (("specs:", "spec:"), "crossed.yaml:4: spec: unknown key; did you mean specs?"),
        (("k10: K = 10}", "k5-maml: K, k5: L}"), "crossed.yaml:6: columns.k5: is given twice"),
    ],
)
def test_a_mistake_among_methods_and_columns_is_one_line(crossed, change, message):
    assert change[0] in crossed.read_text()
    crossed.write_text(crossed.read_text().replace(*change))
    with pytest.raises(SpecError) as told:
        load_table(str(crossed))
    assert message in "\n".join(told.value.problems)


def test_cells_of_one_run_name_are_refused(crossed, tmp_path):
    crossed.write_text(crossed.read_text().replace("sines-{cell}", "sines"))
    with pytest.raises(SpecError, match="two models of one name, sines: rename one"):
        plan(load_table(str(crossed)), tmp_path)


PUBLISHED_CROSSED = """title: A table
source: a paper
specs: quickstart/{method}
runs: crossed-{cell}
columns: {five: 5-way}
methods: {protonet: ProtoNet}
published: {protonet: [NUMBER]}
"""
PUBLISHED_CELLS = """title: A table
cells: [{name: five, column: a, method: m, spec: quickstart/protonet, published: {value: NUMBER, source: a paper}}]
"""


@pytest.mark.parametrize("text", [PUBLISHED_CELLS, PUBLISHED_CROSSED])
def test_fault_07_published_fractions_of_a_tables_cells_are_refused(tmp_path, text):
    """Reject a table whose verdict is "better by 56" on a fraction."""
    path = tmp_path / "t.yaml"
    for number, words in (("0.987", "in percent: 98.7?"), ("987", "an accuracy is between 0 and 100 percent")):
        path.write_text(text.replace("NUMBER", number))
        with pytest.raises(SpecError, match=f"five.*: published.value: is {number}.*{re.escape(words)}"):
            plan(load_table(str(path)), tmp_path)
    path.write_text(text.replace("NUMBER", "98.7"))
    (one,) = plan(load_table(str(path)), tmp_path)
    assert one.cell.published and one.cell.published.value == 98.7
