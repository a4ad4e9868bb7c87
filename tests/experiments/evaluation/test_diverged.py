"""Tasks that diverge in a validation or test: wrong answers, counted and told wherever the number is."""

import csv
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from rows import ROW

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.figures import single_tasks
from metarun.experiments.figures.draw import draw_all
from metarun.experiments.figures.finished import FinishedRun
from metarun.experiments.model import build
from metarun.experiments.reports.compare import with_episodes
from metarun.experiments.reports.pivot import render_pivot
from metarun.experiments.reports.table import lines_of, read_results, render
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.metrics_log import MetricsLog
from metarun.experiments.runs.rows import read_row
from metarun.experiments.runs.run import Run
from metarun.experiments.training.loop import Training
from metarun.experiments.training.train import train

WILD = ("algorithm.test_inner_lr=1e38", "algorithm.test_inner_steps=5", "jit=off")
GLYPHS = (
    *WILD, "protocol=inductive", "network={name: mlp, hidden: [16]}", "train.steps=2",
    "validation={episodes: 10, every: 1}", "test.episodes=10", "name=wild",
)  # fmt: skip
SINES = (*WILD, "network.hidden=[8]", "train.steps=2", "validation={episodes: 10, every: 1}", "test.episodes=10")


def trained(folder, spec, overrides, seed=0):
    directory = RunDirectory(folder / f"seed-{seed}")
    return directory, train(Run(load(spec, overrides).experiment, seed, directory))


def validations(directory):
    with directory.metrics.open(newline="") as file:
        return [line for line in csv.DictReader(file) if line["split"] == "val"]


def test_fault_02_a_test_that_diverges_scores_nothing(tmp_path, capsys, cache_folder):
    """Reject: 20 % +- 0 at 5 ways, the share of class 0, and a likelihood that is just blank."""
    directory, row = trained(tmp_path, "quickstart/maml", GLYPHS)
    assert (row.mean, row.ci95, row.diverged, row.negative_log_likelihood) == (0.0, None, 10, None)
    assert row.expected_calibration_error == 1.0
    told = capsys.readouterr().err
    assert told.count("wild seed 0: 10 of 10 test tasks diverged: their outputs are not finite") == 1
    assert told.count("wild seed 0: 10 of 10 validation tasks diverged at step 1") == 1  # once a run
    assert "at step 2" not in told
    counted = ("accuracy", "diverged", "negative_log_likelihood")
    assert [[line[name] for name in counted] for line in validations(directory)] == [["0", "10", "inf"]] * 2
    whole = row.model_copy(update={"seed": 1, "diverged": 0, "inner_steps": 1, "mean": 0.5, "spec_digest": "0" * 16})
    (tmp_path / "seed-1").mkdir()
    (tmp_path / "seed-1" / "result.json").write_text(json.dumps(whole.as_json()))
    lines = lines_of(read_results(tmp_path))
    for form in ("text", "markdown", "latex"):
        assert "wild: 10 of 10 test tasks diverged: their" in render(lines, form)
    assert "tasks diverged" in render_pivot(lines, "spec", "shot", "text")
    assert "diverged" in render(lines, "csv").splitlines()[0] and "tasks" not in render(lines, "csv")
    several = lines_of(read_results(tmp_path).assign(spec_digest="0" * 16, inner_steps=5))
    assert "wild: 10 of 20 test tasks diverged" in render(several, "text")  # the sum over both seeds


def test_fault_02_a_figure_shows_no_class_where_there_is_no_answer():
    """Reject class A with the probability nan, and a count of right answers that has it."""
    logits = tf.constant([[[[0.0, 1.0], [np.nan, 0.0], [5.0, np.inf]]]])
    model: Any = SimpleNamespace(learner=SimpleNamespace(predict=lambda batch: logits))
    chosen, confidence = single_tasks._answers(model, None)
    assert chosen.tolist() == [1, -1, -1] and single_tasks._letter(chosen[1]) == "?"
    np.testing.assert_allclose(confidence, [1 / (1 + np.exp(-1)), 1, 1], rtol=1e-6)


def test_fault_02_an_error_over_all_tasks_leaves_none_out(tmp_path, capsys):
    """Reject the mean squared error of the tasks that are finite; `result.json was changed`."""
    directory, row = trained(tmp_path, "finn2017/sinusoid", SINES)
    assert row.mean is None and row.ci95 is None and row.diverged == 10
    assert "10 of 10 test tasks diverged" in capsys.readouterr().err
    assert "not finite" in (table := render(lines_of(read_results(tmp_path)), "text")) and "tasks diverged" in table
    with pytest.raises(RunError, match="10 of 10 tasks diverged: nothing can be compared"):
        with_episodes(directory.path)
    figures = list(draw_all([FinishedRun(directory, row, "sines")], tmp_path, "png"))
    assert {"learning.png", "adaptation.png"} == {path.name for path in figures}


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("mse", [np.inf, 5.0, np.nan, np.inf], 20),  # rejected: the first, which no error is smaller than; NaN
        ("mse", [np.inf, np.inf, np.inf, np.inf], 40),  # nothing to choose by: the longest training
        ("total_reward", [-np.inf, -5.0, -9.0, -np.inf], 20),
    ],
)
def test_fault_02_a_checkpoint_that_diverges_is_not_the_best(tmp_path, metric, values, best):
    training = Training(build(load("finn2017/sinusoid", SINES).experiment, 0), RunDirectory(tmp_path))
    training.source = SimpleNamespace(regression=metric == "mse", content_digest="")
    measured = iter(values)
    training.evaluation = SimpleNamespace(
        measure=lambda _: SimpleNamespace(summary=lambda: {metric: next(measured), "diverged": 1}), episodes=6
    )
    for step in (10, 20, 30, 40):
        training.step = step
        training._validate(SimpleNamespace(write=lambda *_: None))
    assert checkpoint.read(training.directory.best)[0]["step"] == training.best_step == best


def test_a_run_of_a_version_that_did_not_count_them_goes_on(tmp_path):
    """Read a metrics.csv without the column. Rejected: `has other columns`, which would end the run."""
    directory = RunDirectory(tmp_path)
    directory.metrics.write_text("step,split,loss,mse,seconds,tasks_per_second\n1,train,2.5,,1,1\n2,val,,3.5,1,1\n")
    log = MetricsLog(directory, ["loss", "mse", "diverged"], 2)
    log.write(3, "val", {"mse": 4.5, "diverged": 2}, 1, 1)
    with directory.metrics.open(newline="") as file:
        assert [(line["mse"], line["diverged"]) for line in csv.DictReader(file)] == [
            ("", ""),
            ("3.5", ""),
            ("4.5", "2"),
        ]
    again = MetricsLog(directory, ["loss", "mse", "diverged"], 2)
    assert again.columns == log.columns and len(directory.metrics.read_text().splitlines()) == 3
    with pytest.raises(RunError, match="other columns"):
        MetricsLog(directory, ["loss", "mse", "diverged", "more"], 2)


def test_a_row_of_a_version_that_did_not_count_them_is_read(tmp_path):

    (tmp_path / "result.json").write_text(json.dumps(ROW))
    assert read_row(tmp_path / "result.json").diverged is None
