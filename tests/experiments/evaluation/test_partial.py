"""A test that is stopped goes on with the tasks that are left, to the same numbers."""

import os
import signal

import numpy as np
import pytest
from finished import results

from metarun.algorithms.build import Setup, build
from metarun.algorithms.networks.options import Conv4Options
from metarun.algorithms.options import PrototypicalNetworkOptions
from metarun.datasets import tasks, trials
from metarun.datasets.tasks import Shape
from metarun.experiments.config.load import load
from metarun.experiments.errors import Interrupted
from metarun.experiments.evaluation import measure
from metarun.experiments.evaluation.measure import Evaluation
from metarun.experiments.evaluation.partial import PartialTest
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.system.progress import Progress
from metarun.experiments.training.train import train

SHAPE = Shape(way=3, shot=1, query=2)
SINES = ("network.hidden=[8]", "train.steps=5", "validation=null", "test.episodes=30")


@pytest.fixture(autouse=True)
def calls_of_four(monkeypatch):
    """Measure four tasks per call and keep them after each."""
    monkeypatch.setattr(tasks, "EPISODES_AT_ONCE", 4)
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0)


@pytest.fixture
def stop_after(monkeypatch):
    """Return a function after which a test gets the signal of a batch system once it has kept so many calls."""
    keep = PartialTest.keep

    def stop_after(calls):
        kept = []

        def counted(self, arrays, number):
            keep(self, arrays, number)
            kept.append(number)
            if number == calls:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(PartialTest, "keep", counted)
        return kept

    return stop_after


@pytest.mark.slow
def test_a_run_that_is_stopped_in_its_test(tmp_path, stop_after):
    experiment = load("finn2017/sinusoid", SINES).experiment
    whole, stopped = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "stopped")
    train(Run(experiment, 0, whole))
    stop_after(3)
    with pytest.raises(Interrupted):
        train(Run(experiment, 0, stopped))
    assert stopped.partial_test.exists() and stopped.tested and not stopped.finished
    kept = stop_after(None)
    train(Run(experiment, 0, stopped))
    assert kept == [4, 5, 6, 7, 8]  # wrong: all eight
    assert results(stopped.path) == results(whole.path) and not stopped.partial_test.exists()

    stop_after(2)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        evaluate(stopped.path, "val", {"episodes": 20})
    signal.signal(signal.SIGTERM, before)
    kept = stop_after(None)
    _, path, _ = evaluate(stopped.path, "val", {"episodes": 20})
    assert kept == [3, 4, 5]
    _, other, _ = evaluate(whole.path, "val", {"episodes": 20})
    assert path.with_suffix(".csv").read_text() == other.with_suffix(".csv").read_text()
    assert {each.suffix for each in stopped.evaluations.iterdir()} == {".json", ".csv"}


def test_the_signal_itself_keeps_what_is_done(tmp_path, monkeypatch, stop_after):
    """Reject what was done since the file was last written, here all, is done again."""
    experiment = load("finn2017/sinusoid", SINES).experiment
    whole, stopped = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "stopped")
    train(Run(experiment, 0, whole))

    class StoppedAfterThreeCalls(Progress):
        def advance(self, *arguments):
            super().advance(*arguments)
            if self.done == 12:
                os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as now:
        now.setattr(checkpoint, "SECONDS_BETWEEN", 1e9)
        now.setattr(measure, "Progress", StoppedAfterThreeCalls)
        with pytest.raises(Interrupted):
            train(Run(experiment, 0, stopped))
    kept = stop_after(None)
    train(Run(experiment, 0, stopped))
    assert kept == [4, 5, 6, 7, 8]
    assert results(stopped.path) == results(whole.path) and not stopped.partial_test.exists()


@pytest.mark.slow
def test_tuning_goes_on_with_the_values_that_are_left(tmp_path, monkeypatch, stop_after):
    """Reject work that is done again after a stop in the tuning or in the test that follows it. Four batches of
    eleven values."""
    monkeypatch.setattr(trials, "TRIALS_AT_ONCE", 10)
    told = ["validation.episodes=35", "test.episodes=30", "algorithm.tuned_on=validation"]
    experiment = load("duan2016/bandits-ucb1", told).experiment
    whole, stopped = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "stopped")
    train(Run(experiment, 0, whole))
    kept = stop_after(13)
    with pytest.raises(Interrupted):
        train(Run(experiment, 0, stopped))
    calls = 4 * 11  # values of the grid
    assert kept == list(range(1, 14)) and stopped.tested
    kept = stop_after(2)  # of the test: the tuning is beyond
    with pytest.raises(Interrupted):
        train(Run(experiment, 0, stopped))
    assert kept == [*range(14, calls + 1), 1, 2]
    kept = stop_after(None)
    train(Run(experiment, 0, stopped))
    assert kept == [3] and not stopped.partial_tuning.exists()
    for name in ("tuning.csv", "episodes.csv", "curves.csv"):
        assert (stopped.path / name).read_text() == (whole.path / name).read_text()


@pytest.mark.parametrize("in_memory", [True, False])
def test_only_what_was_measured_on_the_same_is_taken_up(make_source, tmp_path, stop_after, in_memory):
    """Reject values of other weights, of another test or of other images, and a damaged file."""
    experiment = load("finn2017/sinusoid", SINES).experiment
    source = make_source(in_memory=in_memory)
    model = build(Setup(PrototypicalNetworkOptions(), Conv4Options(filters=4), protocol="inductive", way=3), source)
    evaluation = Evaluation(model, source.stream("test", SHAPE, 0), 18)

    def begun(experiment=experiment, images="images"):
        return PartialTest(tmp_path / "test.npz", experiment, model.variables, images)

    expected = evaluation.measure("test")
    evaluation.measure("test", begun())
    kept = stop_after(None)
    found = evaluation.measure("test", begun())
    assert kept == [] and found.episodes_digest == expected.episodes_digest  # the file has all
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found.values[name], values)
    np.testing.assert_array_equal(found.calibration, expected.calibration)

    more = load("finn2017/sinusoid", [*SINES, "test.episode_seed=1"]).experiment
    path = tmp_path / "test.npz"
    whole = path.read_bytes()
    for other in (begun(more), begun(images="others"), begun()):
        path.write_bytes(whole if other.digest != begun().digest else whole[:-100])
        kept.clear()
        evaluation.measure("test", other)
        assert kept == [1, 2, 3, 4, 5]
    path.write_bytes(whole)
    model.variables[0].assign(model.variables[0] + 1)
    changed = evaluation.measure("test", begun())
    assert kept == [1, 2, 3, 4, 5] * 2
    assert (changed.values["negative_log_likelihood"] != expected.values["negative_log_likelihood"]).any()
