"""Requests of the loop: tasks of which split and seed, the checkpoint of which step, which learning rate."""

import csv
import os
import signal
from types import SimpleNamespace

import pytest
import tensorflow as tf
from finished import results

from metarun.datasets.sinusoid import SinusoidSource
from metarun.experiments.config.load import load
from metarun.experiments.errors import Interrupted
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.model import build
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.loop import Training
from metarun.experiments.training.train import train

SMALL = ("network.hidden=[8]", "train.steps=4", "test.episodes=20", "test.episode_seed=5")


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 20), ("mse", 10)])
def test_the_best_checkpoint_is_that_of_the_best_validation(tmp_path, metric, best):
    """Reject the last one, the first one, the lowest accuracy, the highest error."""
    experiment = load("finn2017/sinusoid", SMALL).experiment
    training = Training(build(experiment, 0), RunDirectory(tmp_path))
    training.source = SimpleNamespace(regression=metric == "mse", content_digest="")
    values = iter([0.3, 0.9, 0.5])
    training.evaluation = SimpleNamespace(
        measure=lambda _: SimpleNamespace(summary=lambda: {metric: next(values), "diverged": 0}), episodes=1
    )
    for step in (10, 20, 30):
        training.step = step
        training._validate(SimpleNamespace(write=lambda *_: None))
    assert checkpoint.read(training.directory.best)[0]["step"] == training.best_step == best


def test_tasks_are_of_their_split_and_seed(tmp_path, monkeypatch):
    """Reject training or validation on test tasks, training tasks that are the same for every seed."""
    asked, sample = set(), SinusoidSource.sample

    def watched(source, split, index, tasks, shape, seed):
        asked.add((split, seed))
        return sample(source, split, index, tasks, shape, seed)

    monkeypatch.setattr(SinusoidSource, "sample", watched)
    experiment = load("finn2017/sinusoid", [*SMALL, "validation={episodes: 10, every: 2}"]).experiment
    train(Run(experiment, 7, RunDirectory(tmp_path)))
    assert asked == {("train", 7), ("val", 5), ("test", 5)}
    asked.clear()
    evaluate(tmp_path, "val", {"episode_seed": 6})
    assert asked == {("val", 6)}


@pytest.mark.parametrize(
    "optimizer",
    [
        "{name: sgd, momentum: 0.9, dampening: 0.5, weight_decay: 0.1}",
        pytest.param("{name: adamw, weight_decay: 0.1, schedule: step, decay_steps: [3]}", marks=pytest.mark.slow),
    ],
)
def test_a_stop_forgets_no_moment_of_the_optimizer(tmp_path, monkeypatch, optimizer):
    """Reject velocities that start from zero again, and a second first update, which is not dampened."""
    told = (*SMALL, f"optimizer={optimizer}", "jit=off", "train.meta_batch=2", "validation=null")
    undisturbed, stopped = (Run.at(tmp_path / each, load("finn2017/sinusoid", told).experiment, 0) for each in "ab")
    train(undisturbed)
    count, left = Training._count, [2]

    def interrupted(self, metrics, seconds):
        count(self, metrics, seconds)
        if left and self.step == left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
            left.clear()

    monkeypatch.setattr(Training, "_count", interrupted)
    with pytest.raises(Interrupted):
        train(stopped)
    train(stopped)
    assert not left and results(stopped.directory.path) == results(undisturbed.directory.path)


@pytest.mark.parametrize(
    ("algorithm", "every"),
    [
        ("{name: maml, inner_lr: 0.01}", 1),
        pytest.param("{name: reptile, inner_lr: 0.01, inner_batch: 5, serial: true}", 3, marks=pytest.mark.slow),
    ],
)
def test_fault_09_a_row_has_the_learning_rate_of_its_step(tmp_path, monkeypatch, algorithm, every):
    """Read the rates after a stop, of steps of several updates, and in TensorBoard. Rejected: that of the next step."""
    told = ("optimizer={name: sgd, learning_rate: 0.8, schedule: step, decay_every: 2, decay_factor: 0.5}", "jit=off")
    more = (f"algorithm={algorithm}", f"train={{way: 1, shot: 5, steps: 7, meta_batch: 2, log_every: {every}}}")
    experiment = load("finn2017/sinusoid", [*SMALL, *told, *more, "validation=null"]).experiment
    count, applied = Training._count, []

    def stopped(self, metrics, seconds):
        count(self, metrics, seconds)
        if self.step == 5 and not applied:  # in the middle, one update after a boundary of the schedule
            applied.append(self.step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Training, "_count", stopped)
    with pytest.raises(Interrupted):
        train(Run(experiment, 0, RunDirectory(tmp_path)))
    train(Run(experiment, 0, RunDirectory(tmp_path)))
    used = [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rates = {int(line["step"]): float(line["learning_rate"]) for line in csv.DictReader(file)}
    assert rates == pytest.approx({step: used[step - 1] for step in range(1, 8) if step % every == 0 or step == 7})
    events = [
        (event.step, tf.make_ndarray(value.tensor).item())
        for path in sorted((tmp_path / "tensorboard" / "train").iterdir())
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
        if value.tag == "learning_rate"
    ]
    assert dict(events) == pytest.approx(rates)
