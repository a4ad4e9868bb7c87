"""A training with patience ends where the validations of one without say, whatever happened in between."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from finished import results

from metarun.experiments.config.load import load
from metarun.experiments.config.variants import is_beginning
from metarun.experiments.errors import Interrupted, RunError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.evaluation.verify import verify
from metarun.experiments.jobs.status import statuses
from metarun.experiments.papers.definition import load_table
from metarun.experiments.papers.plan import plan
from metarun.experiments.reports.table import lines_of, read_results, render
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.archive import pack, unpack
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import merge
from metarun.experiments.runs.run import Run, is_out_of_patience
from metarun.experiments.training.loop import Training
from metarun.experiments.training.train import train

SPEC = """
name: sines
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [8]}
dataset: {name: sinusoid}
protocol: inductive
optimizer: {name: sgd, learning_rate: 0.01, momentum: 0.9, schedule: step, decay_steps: [STEP], decay_factor: 1e-12}
train: {way: 1, shot: 5, query: 5, steps: 40, meta_batch: 2, log_every: 3}
validation: {episodes: 4, every: 2}
test: {way: 1, shot: 5, query: 5, episodes: 4}
jit: off
"""


@pytest.fixture
def sines(tmp_path):
    """Return a function that gives a run of the spec, changed; from step 6 on the weights stay as they are."""

    def make(*changes, seed=0, out="runs", step=6):
        spec = tmp_path / "sines.yaml"
        spec.write_text(SPEC.replace("STEP", str(step)))
        return Run.at(tmp_path / out, load(spec, changes).experiment, seed)

    return make


def validations(run):
    with run.directory.metrics.open(newline="") as file:
        return [(int(row["step"]), float(row["mse"])) for row in csv.DictReader(file) if row["split"] == "val"]


def end_of(values, patience):
    """Return the step at which a training with so much patience ends, from all validations: a plain loop."""
    best, worse = float("inf"), 0
    for step, value in values:
        best, worse = (value, 0) if value < best else (best, worse + 1)
        if worse == patience:
            return step
    return values[-1][0]


def test_it_ends_where_the_validations_say(sines, tmp_path, capsys):
    """Reject an end one validation early or late, and a count of those that are worse than the one before."""
    whole, patient = sines("name=whole"), sines("train.patience=3")
    train(whole)
    row, values = train(patient), validations(whole)
    end = end_of(values, 3)
    assert 8 < end < 40 and values[1][1] < values[0][1]  # it learns, and stops to
    assert (row.train_steps, row.stopped_early) == (end, True) and validations(patient) == values[: end // 2]
    told = capsys.readouterr().err
    assert told.count(f"sines seed 0: ends after step {end} of 40, 3 validations after the best one, of step ") == 1
    best = checkpoint.read(patient.directory.best)[0]["step"]
    assert best == end - 6 and row.checkpoint == "best"
    assert train(patient) == row and not capsys.readouterr().err  # finished
    ((_, state, words),) = statuses(patient.directory.path)
    assert state == "finished" and words.startswith("mse")
    again, _, _ = evaluate(patient.directory.path, "test", {"checkpoint": "last", "episodes": 3})
    assert again.train_steps == end and again.stopped_early and again.checkpoint == "last"
    assert verify(patient.directory, 4).tested == 4
    pack(patient.directory.path, tmp_path / "sines.zip")
    assert unpack(tmp_path / "sines.zip", tmp_path / "elsewhere")[0].finished


@pytest.mark.slow
def test_a_training_to_its_end_says_so(sines):
    enough, without = train(sines("train.patience=30")), train(sines("name=without"))
    assert (enough.train_steps, enough.stopped_early) == (40, False)
    assert (without.train_steps, without.stopped_early) == (40, None)


@pytest.mark.parametrize("steps", [(3, 9), pytest.param((2, 7, 11), marks=pytest.mark.slow)])
def test_stops_change_nothing(sines, monkeypatch, steps):
    """Stop in the middle, also while validations are counted. Rejected: a count from 0 after each start."""
    undisturbed, stopped = sines("train.patience=3", out="alone"), sines("train.patience=3")
    train(undisturbed)
    left, count = list(steps), Training._count

    def interrupted(self, metrics, seconds):
        count(self, metrics, seconds)
        if left and self.step == left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
            left.pop(0)

    monkeypatch.setattr(Training, "_count", interrupted)
    for _ in steps:
        with pytest.raises(Interrupted):
            train(stopped)
    train(stopped)
    assert not left and results(stopped.directory.path) == results(undisturbed.directory.path)


@pytest.mark.slow
def test_a_stop_before_the_test_repeats_no_step(sines, monkeypatch):
    """Resume a training that has ended early and has no row. Rejected: further steps, and `is trained up to step`."""
    run, undisturbed = sines("train.patience=1"), sines("train.patience=1", out="alone")
    train(undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr(Training, "test", lambda _: (_ for _ in ()).throw(Interrupted("stopped")))
        with pytest.raises(Interrupted):
            train(run)
    end = run.directory.step
    assert end < 40 and statuses(run.directory.path)[0][1:] == ("interrupted", f"after step {end}")
    row, path, _ = evaluate(run.directory.path, "test", {"episodes": 3, "checkpoint": "last"})
    assert row.train_steps == end and row.stopped_early and path.parent.name == "evaluations"
    monkeypatch.setattr("metarun.experiments.training.steps.TrainingSteps.take", None)
    train(run)
    assert results(run.directory.path) == results(undisturbed.directory.path)


def test_progress_ends_with_the_training(sines):
    """Reject `step 8 of 40, 4/s, 8 s left` while the run is tested."""
    run = sines("train.patience=1")
    row = train(run)
    progress = json.loads(run.directory.progress.read_text())
    assert progress["done"] == progress["total"] == row.train_steps < 40


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        (["train.patience=4"], 4),
        pytest.param([], None, marks=pytest.mark.slow),
        pytest.param(["train.patience=2", "train.steps=60"], 0, marks=pytest.mark.slow),
    ],
)
def test_more_patience_continues_it(sines, capsys, changes, more):
    """Compare with a training that had it from the start, and test the continued one again."""
    every = f"train.log_every={3 if more else 4}"  # the rows of more steps begin as those of fewer
    longer, shorter = ["name=longer", every, *changes], ["train.patience=2", every]
    undisturbed, short, whole = sines(*longer, out="alone"), sines(*shorter), sines(*longer)
    train(undisturbed)
    end = train(short).train_steps
    row = train(whole)
    assert f"continues {short.directory.path}, the same training up to step {end}" in capsys.readouterr().err
    assert results(whole.directory.path) == results(undisturbed.directory.path)
    assert row.train_steps == (40 if more is None else end + more)
    assert evaluate(whole.directory.path, "val", {"episodes": 3})[0].checkpoint == "best"


@pytest.mark.parametrize(
    ("shorter", "longer", "is_one"),
    [
        (["train.patience=2"], ["train.patience=3"], True),
        (["train.patience=2"], ["train.patience=3", "train.steps=48"], True),
        (["train.patience=2"], ["train.patience=2", "train.steps=48"], True),
        (["train.patience=2"], [], True),
        (["train.patience=2"], ["train.patience=2"], False),
        (["train.patience=3"], ["train.patience=2"], False),
        ([], ["train.patience=2"], False),
        ([], ["train.patience=2", "train.steps=48"], False),  # the shorter one may have gone on where this one ends
        (["train.patience=2"], ["train.patience=3", "train.steps=30"], False),
        (["train.patience=2"], ["train.patience=3", "train.meta_batch=3"], False),
    ],
)
def test_which_training_is_the_beginning_of_another(sines, shorter, longer, is_one):
    one, other = sines("train.log_every=2", *shorter), sines("train.log_every=2", *longer)
    assert is_beginning(one.experiment, other.experiment) is is_one


def test_another_patience_in_the_same_folder_is_another_spec(sines):
    train(sines("train.patience=1"))
    with pytest.raises(RunError, match="train.patience: 1 -> 2.* name of its own .* continues the shorter one"):
        train(sines("train.patience=2"))
    with pytest.raises(RunError, match="train.patience: 1 -> nothing"):
        train(sines())


def test_the_count_follows_from_two_steps(sines):
    """Count the validations after the best one, also of a checkpoint between two."""
    experiment = sines("train.patience=3", "validation.every=5").experiment
    assert not is_out_of_patience(experiment, 24, 10) and is_out_of_patience(experiment, 25, 10)
    assert not is_out_of_patience(experiment, 14, 0) and not is_out_of_patience(sines().experiment, 40, 2)


def test_seeds_that_end_at_different_steps_are_one_line(sines, tmp_path):
    """Reject a line for each number of steps, whose `seed std` says nothing."""
    first, second = train(sines("train.patience=1")), train(sines("train.patience=1", seed=1))
    path = RunDirectory(tmp_path / "runs" / "sines" / "seed-1").result
    path.write_text(path.read_text().replace(f'"train_steps": {second.train_steps}', '"train_steps": 32'))
    rows = read_results(tmp_path / "runs")
    assert list(rows["stopped_early"]) == [True, True] and rows["stopped_early"].dtype == "boolean"
    lines = lines_of(rows)
    text = render(lines, "text")
    assert len(lines) == 1 and f"{first.train_steps} to 32" in text
    assert "sines: 2 of 2 trainings ended early, by train.patience" in text
    merge(tmp_path / "runs")
    again = lines_of(read_results(tmp_path / "runs" / "results.csv"))
    assert list(again["stopped_early"]) == [2]


def test_a_paper_plans_no_step_of_a_training_that_has_ended(sines, tmp_path):
    run = sines("name=sines-patient", "train.patience=1")
    train(run)
    run.directory.result.unlink()
    (tmp_path / "paper.yaml").write_text(
        f"title: Sines\ncells:\n- {{name: k5, column: K, method: MAML, spec: {tmp_path / 'sines.yaml'}, "
        "overrides: [name=sines-patient, train.patience=1]}\n"
    )
    (one,) = plan(load_table(str(tmp_path / "paper.yaml")), Path(tmp_path / "runs"))
    assert one.left == 0 and 0 < one.step < 40
    run.directory.checkpoint(one.step).write_bytes(b"cut off")
    assert one.left == 1 - one.step / 40
