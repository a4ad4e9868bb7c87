"""The cost of filling a table, printed before anything runs."""

import pytest
from command import reproduce
from rows import leave
from sines import write_table

from metarun.experiments.config.load import load
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.dry_run import listing
from metarun.experiments.papers.plan import plan
from metarun.experiments.runs.run import Run


@pytest.fixture
def table(tmp_path):
    """Write a table of three cells that one model fills; return its path."""
    return write_table(tmp_path)


def test_dry_run_tells_state_hours_and_data(table, tmp_path):
    asked = []

    def hours(experiment, trained):
        asked.append((experiment.name, experiment.test.shot, trained))
        return (0.0 if trained else 2.0), 0.5

    planned = plan(load_table(str(table)), tmp_path, seeds=range(2))
    leave(planned[0])
    planned[1].directory.checkpoints.mkdir(parents=True)
    Run(planned[1].experiment, 1, planned[1].directory).write_spec()
    planned[1].directory.checkpoint(30).touch()
    lines = list(listing(planned, hours))
    assert asked == [("sines", 5, False), ("sines", 10, True), ("sines", 5, True)]  # one model, measured once
    told = "k5 1.00 1 finished, 1 interrupted at step 30 of 40; sinusoid, nothing to fetch"
    assert " ".join(lines[1].split()) == told  # a quarter of one training and its test; two whole ones would be 5 hours
    assert lines[2].split()[:3] == ["k10", "1.00", "1"] and "(the model of k5)" in lines[2]  # two further tests
    assert lines[-1].startswith("about 3.00 hours")

    planned[1].directory.checkpoint(40).touch()
    asked.clear()
    lines = list(listing(planned, hours))
    assert lines[1].split()[1] == "0.50" and asked[0] == ("sines", 5, True)  # stopped in its test: that is left

    longer = load(table.parent / "sines.yaml", ["train.steps=400"]).experiment
    Run(longer, 1, planned[1].directory).write_spec()
    planned[1].directory.checkpoint(390).touch()
    lines = list(listing(planned, hours))
    assert "1 another spec in its folder" in lines[1]
    assert lines[-1].startswith("about 1.00 hours")  # the other's further tests, not 1 - 390 / 40 trainings


def test_dry_run_says_what_data_are_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path))
    path = tmp_path / "omniglot.yaml"
    path.write_text("title: One\ncells:\n- {name: a, column: c, method: m, spec: omniglot/maml}\n")
    lines = list(listing(plan(load_table(str(path)), tmp_path), lambda *_: pytest.fail("measured without data")))
    assert "omniglot, not here: `metarun data fetch` or `import` omniglot" in lines[1] and " ? " in lines[1]
    assert "without a" in lines[-1]


def test_dry_run_measures(table, tmp_path):
    told = reproduce(table, "--out", tmp_path / "runs", "--dry-run").output
    assert "<0.01  missing; sinusoid" in told and not (tmp_path / "runs").exists()
