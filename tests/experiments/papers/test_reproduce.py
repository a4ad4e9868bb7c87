"""Papers' tables: what is planned, what runs, once, and what is said of it."""

import math
import os
import shutil
import signal
import time

import pytest
from click.testing import CliRunner
from command import reproduce
from rows import leave
from sines import SPEC, write_table

from metarun.cli.main import metarun
from metarun.experiments.config.load import load, resolved_yaml
from metarun.experiments.errors import Interrupted, RunError, SpecError
from metarun.experiments.jobs.prepare import prepared
from metarun.experiments.jobs.submission import new_submission
from metarun.experiments.papers import reproduce as acting
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.filled import collect
from metarun.experiments.papers.plan import choose, plan, trainings
from metarun.experiments.papers.render import render
from metarun.experiments.reports.formats import records
from metarun.experiments.runs.run import Run
from metarun.experiments.system import lock


@pytest.fixture
def table(tmp_path):
    """Write a table of three cells that one model fills; return its path."""
    return write_table(tmp_path)


@pytest.fixture
def calls(monkeypatch):
    """Count the trainings and evaluations of reproduce; they stay the real ones."""
    counted = {"train": 0, "evaluate": 0}

    def counting(name, real):
        def call(*arguments):
            counted[name] += 1
            return real(*arguments)

        return call

    for name in counted:
        monkeypatch.setattr(acting, name, counting(name, getattr(acting, name)))
    return counted


def states(table, out, **options):
    return [str(one.state) for one in plan(load_table(str(table)), out, **options)]


def test_one_model_is_trained_once_for_all_its_cells(table, tmp_path, calls):
    """Reject training for each cell, which would count three."""
    out = tmp_path / "runs"
    assert states(table, out) == ["missing"] * 3
    told = reproduce(table, "--out", out)
    assert calls == {"train": 1, "evaluate": 2}
    assert states(table, out) == ["finished"] * 3
    assert "MAML with more steps" in told.output and "p > 0.05" in told.output
    lines = (out / "paper.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["cell", "k5", "k10", "k5-more"]
    assert "| K = 5 " in (out / "paper.md").read_text() and r"\toprule" in (out / "paper.tex").read_text()
    again = reproduce(table, "--out", out)
    assert calls == {"train": 1, "evaluate": 2}  # finished: nothing is done again
    assert again.stdout == told.stdout
    (out / "sines/seed-0/result.json").unlink()
    assert states(table, out) == ["interrupted at step 40 of 40"] * 3


@pytest.mark.slow
def test_the_number_of_another_test_is_its_own(table, tmp_path, calls):
    """Check that the row of `evaluate` has no published number, that of the run has the spec's: neither is the
    cell's."""
    out = tmp_path / "runs"
    text = table.read_text().replace(
        "test: {inner_steps: 3}", "test: {inner_steps: 3}, published: {value: 7.0, source: another}"
    )
    table.write_text(text)
    reproduce(table, "--out", out, "--cells", "k5*")
    assert calls == {"train": 1, "evaluate": 1}
    filled, _ = collect(plan(load_table(str(table)), out))
    assert list(filled["cell"]) == ["k5", "k5-more"] and list(filled["published"]) == [3.0, 7.0]
    assert filled["result"].nunique() == 2


def test_cells_are_chosen_by_glob(table, tmp_path):
    planned = plan(load_table(str(table)), tmp_path, seeds=range(2))
    assert [one.cell.name for one in choose(planned, "*5*")] == ["k5", "k5", "k5-more", "k5-more"]
    assert "no cell has such a name; the cells are k5, k10, k5-more" in str(
        CliRunner().invoke(metarun, ["reproduce", str(table), "--cells", "q*"]).exception
    )


def test_a_budget_and_a_precision_are_told_and_collide_with_nothing(table, tmp_path, calls):
    out = tmp_path / "runs"
    reproduce(table, "--out", out, "--cells", "k5")
    told = reproduce(table, "--out", out, "--cells", "k5", "--budget", "0.1", "--precision", "float64")
    assert calls["train"] == 2 and {path.name for path in out.iterdir() if path.is_dir()} == {
        "sines",
        "sines-budget-0.1-float64",
    }
    assert "10 %" in told.output and "100 %" not in told.output
    whole, part = ((out / f"paper{ending}.md").read_text() for ending in ("", "-budget-0.1-float64"))
    assert "100 %" in whole and " 10 % |" in part and "| float64 " in part and "precision" not in whole
    (one, *_) = plan(load_table(str(table)), out, budget=0.1, precision="float64")
    assert one.experiment.train.steps == 4 and one.budget == 0.1 and one.row.train_steps == 4


@pytest.mark.slow
def test_overrides_of_a_cell_are_a_model_of_its_own(table, tmp_path, calls):
    text = table.read_text()
    less = "method: MAML with more steps, overrides: [name=sines-of-one, train.meta_batch=1]"
    table.write_text(text.replace("method: MAML with more steps", less))
    out = tmp_path / "runs"
    reproduce(table, "--out", out)
    assert calls == {"train": 2, "evaluate": 2}
    assert " 50 % |" in (out / "paper.md").read_text()
    (one,) = choose(plan(load_table(str(table)), out, budget=0.1), "k5-more")
    assert one.experiment.name == "sines-of-one-budget-0.1" and one.budget == 0.05
    table.write_text(table.read_text().replace("meta_batch=1", "meta_bach=1"))
    with pytest.raises(SpecError, match="k5-more: overrides: train.meta_bach: unknown key"):
        states(table, out)


def test_states_of_cells(table, tmp_path):
    planned = plan(load_table(str(table)), tmp_path, seeds=range(1))
    leave(planned[0])
    assert [str(one.state) for one in planned] == ["finished", "trained, not tested so", "trained, not tested so"]
    directory = planned[0].directory
    directory.result.unlink()
    assert str(planned[0].state) == "interrupted at step 0 of 40"
    directory.checkpoints.mkdir()
    directory.checkpoint(7).touch()
    directory.checkpoint(30).touch()
    assert str(planned[1].state) == "interrupted at step 30 of 40"
    leave(planned[0], spec_digest="f" * 16)  # of another spec: its row is no result of this table
    assert [str(one.state) for one in planned] == ["another spec in its folder"] * 3 and planned[0].row is None
    directory.result.unlink()
    other = load(table.parent / "sines.yaml", ["train.steps=41"]).experiment
    directory.spec.write_text(resolved_yaml(other))
    assert str(planned[0].state) == "another spec in its folder"


def test_the_job_that_writes_the_table_finds_it_where_it_is(table, tmp_path, monkeypatch):
    """Check that the job uses the name it was given: a link's target has another name, and other specs beside it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked.yaml").symlink_to(table.rename(tmp_path / "elsewhere/results.yaml"))
    told = []
    monkeypatch.setattr("metarun.cli.submitting.submit", lambda *_, paper, **__: told.append(paper[0]))
    monkeypatch.chdir(tmp_path)
    reproduce("linked.yaml", "--out", tmp_path / "runs", "--executor", "slurm")
    reproduce("finn2017-sinusoid", "--out", tmp_path / "runs", "--executor", "slurm")
    assert told == [str(tmp_path / "linked.yaml"), "finn2017-sinusoid"]


def test_a_cell_that_fails_is_told_and_the_others_go_on(table, tmp_path, monkeypatch):
    second = table.parent / "second.yaml"
    second.write_text(SPEC.replace("name: sines", "name: second"))
    more = f"  - {{name: later, column: K = 5, method: MAML, spec: {second}}}\n"
    table.write_text(table.read_text() + more)
    real = acting.train

    def train(run):
        if run.experiment.name == "sines":
            raise RunError("it is broken")
        return real(run)

    monkeypatch.setattr(acting, "train", train)
    told = reproduce(table, "--out", tmp_path / "runs", code=1)
    assert told.stderr.count("it is broken") == 1
    assert "k5, k10, k5-more, seed 0: error: it is broken" in told.stderr
    assert [str(one.state) for one in plan(load_table(str(table)), tmp_path / "runs")] == ["missing"] * 3 + ["finished"]
    assert (tmp_path / "runs/paper.csv").read_text().count("\n") == 2


def test_an_interruption_keeps_what_is_finished(table, tmp_path, monkeypatch):
    reproduce(table, "--out", tmp_path / "runs", "--cells", "k5")

    def train(*_):
        raise Interrupted("stopped after step 3 of 40")

    monkeypatch.setattr(acting, "train", train)
    done = CliRunner().invoke(metarun, ["reproduce", str(table), "--out", str(tmp_path / "runs"), "--seeds", "2"])
    assert isinstance(done.exception, Interrupted)  # exit code 130, see `explain`
    assert "K = 5" in done.stdout  # the table of what is finished


def test_bold_needs_identical_episodes(table, tmp_path):
    second = table.parent / "second.yaml"
    second.write_text(SPEC.replace("name: sines", "name: second"))
    table.write_text(table.read_text() + f"  - {{name: other, column: K = 5, method: X, spec: {second}}}\n")
    planned = plan(load_table(str(table)), tmp_path, seeds=range(2))
    one, two = (each for each in planned if each.cell.name in ("k5", "other") and each.seed == 0)
    leave(one, 0.9, (0.9, 0.8, 1.0))
    leave(two, 0.5)
    filled, notes = collect(planned)
    assert list(filled["cell"]) == ["k5", "other"] and list(filled["best"]) == [True, False]
    untested = "0 of 2 seeds, seed 0 not tested so; seed 1 not trained yet"
    assert notes == [f"{name}: {untested}" for name in ("k10", "k5-more")]
    assert list(filled["left_out"]) == ["seed 1 not trained yet"] * 2
    below = [f"{name}: 1 of 2 seeds, seed 1 not trained yet" for name in ("k5", "other")]
    told = [line for line in render(filled, notes, "text").splitlines() if "seeds," in line]
    assert sorted(told) == sorted(below + notes)
    assert "90.00*" in render(filled, notes, "text") and "**90.00 ± 1.00**" in render(filled, notes, "markdown")
    assert r"\textbf{$90.00 \pm 1.00$}" in render(filled, notes, "latex")
    leave(two, 0.5, episodes_digest="2" * 16)
    filled, notes = collect(planned)
    assert not filled["best"].any()
    assert "K = 5: none is bold, k5 and other were not tested on the same episodes" in render(filled, notes, "text")
    two.directory.episodes.unlink()
    assert any(note.startswith("other is compared with none") for note in collect(planned)[1])


def test_none_is_bold_beside_a_cell_that_cannot_be_compared(table, tmp_path):
    """Reject the best of those that are left. The other cell may be the best."""
    second = table.parent / "second.yaml"
    text = table.read_text()
    for name in ("second", "third"):
        (table.parent / f"{name}.yaml").write_text(SPEC.replace("name: sines", f"name: {name}"))
        text += f"  - {{name: {name}, column: K = 5, method: X, spec: {second.with_name(name)}.yaml}}\n"
    table.write_text(text)
    planned = [one for one in plan(load_table(str(table)), tmp_path) if one.cell.name in ("k5", "second", "third")]
    for one, mean, spread in zip(planned, (0.9, 0.5, 0.7), (0.01, 0.02, 0.03), strict=True):
        leave(one, mean, (mean - spread, mean, mean + spread))
    filled, _ = collect(planned)
    assert list(filled["cell"][filled["best"]]) == ["k5"]
    planned[0].directory.episodes.unlink()
    filled, notes = collect(planned)
    assert len(filled) == 3 and not filled["best"].any()
    assert notes[-1] == "K = 5: none is bold, k5 is compared with none"


def test_another_seed_is_not_taken_for_this_one(table, tmp_path):
    """Reject a spread of 0 over two copies of a folder."""
    planned = [one for one in plan(load_table(str(table)), tmp_path, seeds=range(2)) if one.cell.name == "k5"]
    leave(planned[0], 0.5)
    shutil.copytree(planned[0].directory.path, planned[1].directory.path)
    assert [str(one.state) for one in planned] == ["finished", "another seed in its folder"]
    assert list(collect(planned)[0]["seeds"]) == [1]
    with pytest.raises(RunError, match="holds the finished run of seed 0"):
        Run(planned[1].experiment, 1, planned[1].directory).refuse_another_spec()


def test_seeds_tested_on_other_tasks_are_not_averaged(table, tmp_path):
    """Reject a mean over both, and a spread, where data were replaced between two seeds."""
    planned = [one for one in plan(load_table(str(table)), tmp_path, seeds=range(3)) if one.cell.name == "k5"]
    leave(planned[0], 0.5, content_digest="a")
    leave(planned[1], 0.7, content_digest="b")
    leave(planned[2], 0.9, episodes_digest="2" * 16)
    filled, notes = collect(planned)
    (only,) = records(filled)
    assert (only["seeds"], only["result"], only["seed_std"]) == (1, pytest.approx(50), None)
    assert notes == ["k5: without seed 1, 2, tested on other images or tasks than seed 0"]
    assert "k5: 1 of 3 seeds, seeds 1-2 tested on other images or tasks" in render(filled, notes, "text")
    leave(planned[1], 0.7, content_digest="")  # of a version that did not note it
    assert list(collect(planned)[0]["seeds"]) == [2]
    for one, digest in zip(planned, ("", "a", "a"), strict=True):
        leave(one, 0.7, content_digest=digest)
    assert list(collect(planned)[0]["seeds"]) == [3]
    leave(planned[0], 0.1, content_digest="b")  # rejected: the first seed decides
    filled, notes = collect(planned)
    (most,) = records(filled)
    assert (most["seeds"], most["result"]) == (2, pytest.approx(70)) and "without seed 0" in notes[0]
    for one, digest in zip(planned, ("", "a", "b"), strict=True):  # nobody knows which the first was
        leave(one, 0.7, content_digest=digest)
    assert list(collect(planned)[0]["seeds"]) == [1]


def test_finished_seeds_that_were_not_asked_for_are_told(table, tmp_path):
    """Reject a table of one seed that takes the place of one of three without a word."""
    for one in plan(load_table(str(table)), tmp_path, seeds=range(3)):
        leave(one)
    filled, notes = collect(plan(load_table(str(table)), tmp_path))
    assert filled["seeds"].iloc[0] == 1 and "k5: seed 1, 2 finished too, see --seeds" in notes


def test_jobs_are_not_kept_by_a_cell_that_is_damaged(table, tmp_path, monkeypatch):
    """Reject "nothing to submit" and exit code 0, or no run. The other cells are submitted by --executor."""
    second = table.parent / "second.yaml"
    second.write_text(SPEC.replace("name: sines", "name: second"))
    table.write_text(table.read_text() + f"  - {{name: other, column: K = 5, method: X, spec: {second}}}\n")
    out = tmp_path / "runs"
    reproduce(table, "--out", out, "--cells", "k5*")
    (more,) = choose(plan(load_table(str(table)), out), "k5-more")
    more.row_path.write_text("{")
    submitted = []
    monkeypatch.setattr("metarun.cli.submitting.submit", lambda runs, *_, **__: submitted.extend(runs))
    told = reproduce(table, "--out", out, "--executor", "slurm", "--cells", "*e*", code=1)
    assert [run.experiment.name for run in submitted] == ["second"]
    assert f"k5-more, seed 0: error: {more.row_path}" in told.stderr and "move it away" in told.stderr
    told = reproduce(table, "--out", out, "--executor", "slurm", "--cells", "k5*", "--format", "csv", code=1)
    assert "k5,K = 5,MAML" in told.stdout  # all is there that can be: the table is printed


def test_a_signal_in_a_further_test_is_a_stop(table, tmp_path, monkeypatch):
    """Reject the process dies of it, and what was tested before is in no results.csv; or a cell that failed."""

    def stopped(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    monkeypatch.setattr(acting, "evaluate", stopped)
    with pytest.raises(Interrupted):
        acting.reproduce(plan(load_table(str(table)), tmp_path), tmp_path, lambda *_: pytest.fail("told as failed"))


def test_cells_in_the_queue_are_left_alone(table, tmp_path, monkeypatch):
    """Reject: "interrupted at step 0", and a second training of what waits for its turn."""
    monkeypatch.setattr(acting, "train", lambda *_: pytest.fail("trained beside its job"))
    out = tmp_path / "runs"
    runs = trainings(plan(load_table(str(table)), out))
    with prepared(runs):
        pass
    with lock.locked(new_submission(runs, out).lock):
        told = reproduce(table, "--out", out, "--dry-run").output
        assert told.count("queued or running") == 3 and "interrupted" not in told
        told = reproduce(table, "--out", out)
        assert "queued or running, so skipped here: k5, k10, k5-more; see `metarun status" in told.stderr
    with runs[0].directory.locked():
        assert all(state.startswith("in use by process ") for state in states(table, out))
    assert states(table, out) == ["interrupted at step 0 of 40"] * 3


def test_two_models_of_one_name_are_refused(table, tmp_path):
    second = table.parent / "second.yaml"
    second.write_text(SPEC.replace("steps: 40", "steps: 50"))
    table.write_text(table.read_text() + f"  - {{name: other, column: K = 5, method: X, spec: {second}}}\n")
    with pytest.raises(SpecError, match="k5 and other are two models of one name, sines"):
        plan(load_table(str(table)), tmp_path)


@pytest.mark.slow
def test_a_single_number_of_seeds_is_still_a_count(table, tmp_path):
    """Reject seed 3 in place of three seeds, or no warning. A number means what it did before --seeds took ranges, and
    a warning says so."""
    for text, seeds, warned in (("3", 3, "0-2"), ("3-3", 1, None), ("0,4", 2, None), ("0", 1, None)):
        told = reproduce(table, "--out", tmp_path, "--cells", "k5", "--seeds", text, "--dry-run")
        assert ("missing" if seeds == 1 else f"{seeds} missing") in told.stdout
        warning = f"warning: --seeds {text} is read as --seeds {warned}; write that\n"
        assert told.stderr == (warning if warned else "")
    assert "write 2026-2026" in reproduce(table, "--seeds", "2026", code=2).stderr


def test_names_and_budgets_that_are_none(table, tmp_path):
    assert "expected a number above 0" in reproduce(table, "--budget", "nan", code=2).stderr
    for name in ("results", "table", "finn2017-sinusoid"):
        taken = table.rename(table.with_name(f"{name}.yaml"))
        assert "is the name of another table" in reproduce(taken, "--out", tmp_path, code=2).stderr
        taken.rename(table)


def test_seeds_are_a_spread_and_their_mean_is_tested(table, tmp_path):
    planned = [one for one in plan(load_table(str(table)), tmp_path, seeds=range(2)) if one.cell.name == "k5"]
    for one, mean in zip(planned, (0.5, 0.7), strict=True):
        leave(one, mean)
    (only,) = records(collect(planned)[0])
    assert only["seeds"] == 2 and only["result"] == pytest.approx(60)
    assert only["seed_std"] == pytest.approx(100 * math.sqrt(0.02))
    assert not only["best"]  # alone in its column, it is the best of nothing


def test_a_cell_of_a_shipped_table_from_nothing_to_its_line(tmp_path):
    told = reproduce("duan2016-bandits", "--cells", "n10-k5-random", "--out", tmp_path)
    assert "n = 10, k = 5  Random" in told.stdout and " 5.00 " in told.stdout
    assert "duan2016/bandits-random,5.0,," in (tmp_path / "duan2016-bandits.csv").read_text()
