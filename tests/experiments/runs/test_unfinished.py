"""Runs without a row, and folders that cannot be read, are told wherever other seeds are averaged or compared."""

import csv
import errno
import io
import json
import os

import pytest
from click.testing import CliRunner
from rows import ROW, leave

from metarun.cli.main import metarun as group
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import RunError, warn_once
from metarun.experiments.figures.finished import runs_below
from metarun.experiments.figures.seeds import seed_groups
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.plan import Stage, plan
from metarun.experiments.papers.render import write
from metarun.experiments.reports.compare import measurements
from metarun.experiments.reports.table import lines_of, read_results, render
from metarun.experiments.runs.rows import Row, merge
from metarun.experiments.runs.run import Run
from metarun.experiments.runs.unfinished import as_text, reasons_in

WRITTEN = "the loss is nan; seed 7 would do"  # which must not be taken for another seed
REASON = WRITTEN.replace(";", ",")


def written(folder, name="tiny", seeds=range(3), mean=(0.51, 0.5, 0.55), **changes):
    """Write finished runs of 600 test tasks."""
    experiment = load("quickstart/protonet", [f"name={name}"]).experiment
    for seed in seeds:
        run = Run.at(folder, experiment, seed)
        run.directory.path.mkdir(parents=True)
        run.write_spec()
        told = {"experiment": name, "seed": seed, "spec_digest": experiment.digest, "published": None}
        row = Row(**ROW | told | {"mean": mean[seed]} | changes)
        run.directory.result.write_text(json.dumps(row.as_json()))
        run.directory.episodes.write_text("episode,accuracy\n" + f"0,{mean[seed]}\n1,{mean[seed]}\n")
    return folder / name


@pytest.fixture
def runs(tmp_path):
    """Write an experiment whose seed 1 has failed, and one of which only a single seed was begun."""
    tiny = written(tmp_path / "runs")
    (tiny / "seed-1" / "result.json").unlink()
    (tiny / "seed-1" / "failure.txt").write_text(f"{WRITTEN}\n")
    other = written(tmp_path / "runs", "other", [0])
    (other / "seed-0" / "result.json").unlink()
    return tmp_path / "runs"


def table(*arguments):
    done = CliRunner().invoke(group, ["table", *map(str, arguments)])
    assert done.exit_code == 0, (done.output, done.exception)
    return done


NOTES = (f"tiny: 2 of 3 seeds, seed 1 failed: {REASON}", "other: 0 of 1 seed, seed 0 not finished")


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "csv", "pivot", "pivot csv", "columns"])
def test_fault_01_seeds_without_a_row_are_told_in_every_format(runs, form):
    """Reject a mean over two seeds that looks like one over all, and an experiment that is not there at all."""
    options = {"pivot": ("--pivot", "algorithm,shot"), "columns": ("--columns", "experiment,result,seeds")}
    chosen = [*options.get(form.split()[0], ()), "--format", form.split()[-1]]
    done = table(runs, *(chosen if form not in options else chosen[:2]))
    for note in NOTES:
        assert f"{note}\n" in done.stderr and (f"{note}\n" in done.stdout or "csv" in form)
    if form in ("text", "markdown", "columns"):
        assert "2 of 3" in done.stdout.splitlines()[2]
    if form == "csv":
        (line,) = csv.DictReader(io.StringIO(done.stdout))
        assert line["left_out"] == f"seed 1 failed: {REASON}" and line["seeds"] == "2"
    complete = table(written(runs.parent / "others")).output
    assert "of 3" not in complete and "seed 1" not in complete


def test_fault_01_results_csv_says_which_seeds_it_lacks(runs, capsys):
    merge(runs)
    with (runs / "results.csv").open(newline="") as file:
        assert [line["left_out"] for line in csv.DictReader(file)] == [f"seed 1 failed: {REASON}"] * 2
    lines = lines_of(read_results(runs / "results.csv"))
    assert "2 of 3" in render(lines, "text") and NOTES[0] in render(lines, "text")
    assert f"tiny: without seed 1 failed: {REASON}" in capsys.readouterr().err
    read_results(runs)
    assert NOTES[1] in capsys.readouterr().err


def test_fault_01_a_seed_that_is_trained_tested_or_damaged_is_told_as_such(tmp_path, capsys):
    """Reject the mean of a further test that looks like one over all seeds, and a spec that was changed since."""
    tiny = written(tmp_path, seeds=range(5), mean=[0.5] * 5)
    (tiny / "seed-1" / "result.json").unlink()
    (tiny / "seed-2" / "result.json").write_text("{")
    row = json.loads((tiny / "seed-0" / "result.json").read_text()) | {"shot": 5}
    (tiny / "seed-0" / "evaluations").mkdir()
    (tiny / "seed-0" / "evaluations" / "five.json").write_text(json.dumps(row))
    (tiny / "seed-4" / "result.json").unlink()
    changed = load("quickstart/protonet", ["name=tiny", "train.steps=7"]).experiment
    (tiny / "seed-4" / "spec.yaml").write_text(resolved_yaml(changed))
    own, further = table(tmp_path).stderr.splitlines()[-3:-1]
    assert "2 of 4 seeds, seed 1 not finished; seed 2 with a result.json that is damaged" in own
    assert "1 of 4 seeds" in further and "seed 3 not tested so" in further
    (tiny / "seed-3" / "failure.txt").write_text("the images are gone\n")
    assert "seed 3 failed: the images are gone" in table(tmp_path).stdout
    assert f"{tiny}: 0 of 1 seed, seed 4 not finished" in table(tmp_path).stderr


def test_fault_01_experiments_without_any_row_are_told_with_the_error(tmp_path):
    (written(tmp_path, seeds=[0]) / "seed-0" / "result.json").unlink()
    with pytest.raises(RunError, match=r"no finished run below .*\n.*tiny: 0 of 1 seed, seed 0 not finished"):
        read_results(tmp_path)


def test_fault_01_figures_and_comparisons_tell_them(runs, capsys):
    (only,) = seed_groups(runs_below([runs]))
    assert only.label.endswith("(2 of 3 seeds)")
    assert f"{runs / 'tiny' / 'seed-1'} is left out: failed: {WRITTEN}" in capsys.readouterr().err
    with pytest.raises(RunError, match="has not 600 finite values"):  # of the rows made here
        measurements([runs / "tiny"])
    assert "seed-1 is left out: failed: " in capsys.readouterr().err


def test_fault_01_a_papers_table_tells_them(tmp_path, capsys):
    """Reject: `2 of 3 seeds` without the reason, and a cell whose seeds all failed that is just not there."""
    (tmp_path / "t.yaml").write_text(
        "title: A table\ncells:\n"
        "- {name: one, column: a, method: m, spec: quickstart/protonet}\n"
        "- {name: two, column: a, method: n, spec: quickstart/maml}\n"
        "- {name: three, column: a, method: o, spec: quickstart/reptile}\n"
    )
    planned = plan(load_table(str(tmp_path / "t.yaml")), tmp_path / "runs", [0, 1, 2])
    failed = [planned[1], planned[3]]
    for one in (planned[0], planned[2]):
        leave(one, 0.5, (0.4, 0.5, 0.6) * 10)
    for one in failed:
        one.directory.path.mkdir(parents=True)
        one.directory.failure.write_text("out of memory\n")
    text = write(planned, tmp_path / "t")
    note = "one: 2 of 3 seeds, seed 1 failed: out of memory"
    assert "2 of 3" in text.splitlines()[2] and note in text and note in capsys.readouterr().err
    assert "two: 0 of 3 seeds, seed 0 failed: out of memory; seeds 1-2 not trained yet" in text
    assert "three" not in text  # nothing of it was tried
    assert note in (tmp_path / "t.md").read_text() and f"% {note}" in (tmp_path / "t.tex").read_text()
    (line,) = csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text()))
    assert line["left_out"] == "seed 1 failed: out of memory"


def test_the_text_of_seeds_is_read_back():
    text = as_text({12: WRITTEN, 3: "not finished"})
    assert text == f"seed 3 not finished; seed 12 {REASON}"
    assert reasons_in(text) == {12: REASON, 3: "not finished"} and reasons_in("") == {}


@pytest.fixture
def closed(monkeypatch):
    """Return a set of folders that cannot be read, as chmod 000 makes them for all but root."""
    folders, scandir = set(), os.scandir

    def refusing(path="."):
        if str(path) in folders:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    warn_once.cache_clear()
    return folders


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch):
    """Hide the scheduler."""
    monkeypatch.setenv("PATH", "")


def test_fault_26_a_run_that_cannot_be_read_is_told(tmp_path, closed):
    """Reject a table, a state, a figure and a results.csv without it and without a word."""
    tiny = written(tmp_path)
    closed.add(str(tiny / "seed-2"))
    told = table(tmp_path)
    assert f"{tiny / 'seed-2'} cannot be read (Permission denied)" in told.stderr
    assert "tiny: 2 of 3 seeds, seed 2 not readable: Permission denied" in told.stdout
    merge(tmp_path)
    assert "seed 2 not readable: Permission denied" in (tmp_path / "results.csv").read_text()
    status = CliRunner().invoke(group, ["status", str(tmp_path)]).stdout.splitlines()
    assert [line.split()[1] for line in status[:3]] == ["finished", "finished", "unreadable"]
    assert status[2].endswith("Permission denied") and status[3] == "3 runs: 2 finished, 1 unreadable"
    assert "2 of 3 seeds" in seed_groups(runs_below([tmp_path]))[0].label


@pytest.mark.parametrize("verb", ["table", "status", "plot", "compare"])
def test_fault_26_a_folder_of_runs_that_cannot_be_read_is_told(tmp_path, closed, verb):
    written(tmp_path)
    closed.add(str(written(tmp_path, "secret")))
    done = CliRunner().invoke(group, [verb, str(tmp_path)])
    told = f"{tmp_path / 'secret'} cannot be read (Permission denied): "
    assert f"{told}what is in it is left out" in done.stderr
    assert (f"{told}its runs are left out" in done.stdout) == (verb == "table")


def test_fault_26_a_cell_whose_folder_cannot_be_read_does_not_end_the_table(tmp_path, monkeypatch):
    """Check that files which may not be looked at are a state of the cell. Rejected: PermissionError for the table."""
    (tmp_path / "t.yaml").write_text(
        "title: A table\ncells: [{name: one, column: a, method: m, spec: quickstart/protonet}]"
    )
    first, second = plan(load_table(str(tmp_path / "t.yaml")), tmp_path / "runs", [0, 1])
    leave(first, 0.5, (0.4, 0.5, 0.6) * 10)
    second.directory.path.mkdir(parents=True)
    is_file = type(tmp_path).is_file

    def refused(path, **options):
        if path.parent == second.directory.path:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_file(path, **options)

    monkeypatch.setattr(type(tmp_path), "is_file", refused)
    assert second.state.stage is Stage.DAMAGED
    assert "one: 1 of 2 seeds, seed 1 not readable: Permission denied" in write([first, second], tmp_path / "t")


def test_fault_01_the_table_of_a_training_and_its_results_csv_tell_a_seed_that_failed(tmp_path, monkeypatch, capsys):
    """Train with three seeds, of which the second fails and the third is not started."""
    from metarun.cli import train as verb
    from metarun.experiments.training import session

    experiment = load("quickstart/protonet", ["name=tiny"]).experiment
    runs = [Run.at(tmp_path, experiment, seed) for seed in range(3)]

    def training(run, *_):
        if run.seed:
            run.write_spec()
            run.directory.failure.write_text("out of memory\n")
            raise RunError("out of memory")
        written(tmp_path, seeds=[0])
        return Row.model_validate_json(run.directory.result.read_text())

    monkeypatch.setattr(session, "train", training)
    outcomes = list(session.train_all(runs[:2], tmp_path))
    assert "seed 1 failed: out of memory" in (tmp_path / "results.csv").read_text()
    verb._show(runs, outcomes, tmp_path)
    told = capsys.readouterr()
    assert "1 of 3" in told.out and "tiny: 1 of 3 seeds, seed 1 failed: out of memory; seed 2 not finished" in told.out
    assert "out of memory" in told.err
