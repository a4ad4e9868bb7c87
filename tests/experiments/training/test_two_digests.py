"""The training and the test have two digests: a trained run is tested in another way, and no step is repeated."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from metarun.experiments.config.load import load
from metarun.experiments.errors import Interrupted, RunError
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.jobs.prepare import prepared
from metarun.experiments.jobs.submit import todo
from metarun.experiments.reports.table import lines_of, read_results
from metarun.experiments.runs.rows import read_row
from metarun.experiments.runs.run import Run
from metarun.experiments.training import loop, memory
from metarun.experiments.training.steps import TrainingSteps
from metarun.experiments.training.train import train

SPEC = """
name: tiny
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: glyphs}
protocol: inductive
train: {way: 5, shot: 1, query: 5, steps: 8, log_every: 4}
validation: {episodes: 4, every: 4}
test: {way: 5, shot: 1, query: 5, episodes: 10}
jit: off
"""


@pytest.fixture
def tiny(tmp_path, cache_folder, eagerly):
    """Return a function that gives the run of the spec, changed, in one folder or in another one."""
    (tmp_path / "tiny.yaml").write_text(SPEC)

    def make(*changes, out="runs", seed=0):
        return Run.at(tmp_path / out, load(tmp_path / "tiny.yaml", changes).experiment, seed)

    return make


@pytest.fixture
def no_step(monkeypatch):
    """Make each further step of training an error."""

    def forbid():
        monkeypatch.setattr(TrainingSteps, "take", lambda *_: pytest.fail("a step was repeated"))

    return forbid


def without_training_digest(path):
    """Make a checkpoint as older versions wrote it."""
    with np.load(path) as file:
        arrays = dict(file)
    state = json.loads(str(arrays["state"]))
    del state["training_digest"], state["spec"]
    np.savez(path, **arrays | {"state": np.array(json.dumps(state))})


@pytest.mark.slow
def test_fault_16_a_stopped_test_is_changed_and_no_step_is_repeated(tiny, stop_in_the_test, no_step):
    """Reject a refusal, a second training, and the digest of the former test in the row."""
    stop_in_the_test(tiny())
    whole = train(tiny("test.episodes=6", out="whole"))
    no_step()
    changed = tiny("test.episodes=6")
    changed.refuse_another_spec()
    row = train(changed)
    times = {"seconds": 0.0, "tasks_per_second": None}
    assert row.model_copy(update=times) == whole.model_copy(update=times)
    assert row.spec_digest == changed.experiment.digest != tiny().experiment.digest
    assert train(tiny("test.episodes=6")) == row and load(changed.directory.spec).experiment.test.episodes == 6


@pytest.mark.slow
def test_fault_16_the_advice_after_too_little_memory_works(tiny, stop_in_the_test, no_step):
    """Keep the shape of the validation, which the spec takes from the test, as that of the training; the row says so.

    Rejected: the digest of a spec whose best checkpoint other validation tasks would have chosen.
    """
    told = stop_in_the_test(tiny(), tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"))
    advised = re.search(r"the same command with .* \(-s (test\.query=2)\)", told)
    assert advised and "out of memory in the test" in told
    no_step()
    run = tiny(advised[1])
    todo([run], run.directory.path.parents[1])
    with prepared([run]):  # for a job, which reads the spec of the folder
        pass
    assert load(run.directory.spec).experiment.validation.query == 5
    row = train(run)
    assert row.query == 2 and row.spec_digest == tiny(advised[1], "validation.query=5").experiment.digest
    assert row.spec_digest != run.experiment.digest and train(run) == row == read_row(run.directory.result)


@pytest.mark.slow
def test_fault_16_evaluate_needs_no_row_of_the_run(tiny, stop_in_the_test, no_step):
    run = tiny()
    with pytest.raises(RunError, match="has no result.json"):
        evaluate(run.directory.path, "test", {})
    stop_in_the_test(run)
    no_step()
    row, path, known = evaluate(run.directory.path, "test", {"query": 2, "episodes": 4})
    assert (row.query, row.spec_digest, known) == (2, run.experiment.digest, False) and not run.directory.finished
    assert path.parent == run.directory.evaluations and len(lines_of(read_results(run.directory.path.parent))) == 1
    own, path, _ = evaluate(run.directory.path, "test", {})
    assert path == run.directory.result and train(run) == own and own.episodes == 10


@pytest.mark.slow
def test_fault_16_a_row_of_another_test_is_never_returned(tiny, no_step):
    """Reject: "is finished" for a test that was not done, and a row that takes the place of another one."""
    row = train(tiny())
    no_step()
    for change, words in (
        ("test.episodes=6", "test.episodes: 10 -> 6"),
        ("test.query=2", "test.query: 5 -> 2"),
        ("test.episode_seed=1", "test.episode_seed: 0 -> 1"),
    ):
        other = tiny(change)
        with pytest.raises(RunError, match=f"the finished run of another spec, {words} .*`metarun evaluate .*-s name="):
            train(other)
        with pytest.raises(RunError, match=words):
            todo([other], other.directory.path.parents[1])
    assert read_row(tiny().directory.result) == row == train(tiny())


def test_fault_16_checkpoints_of_before_know_their_training(tiny, stop_in_the_test, no_step):
    """Reject a refusal once the changed test was stopped as well, when the folder has the changed spec."""
    run, changed = tiny(), tiny("test.episodes=6")
    stop_in_the_test(run)
    for path in run.directory.newest_checkpoints():
        without_training_digest(path)
    no_step()
    assert evaluate(run.directory.path, "test", {"episodes": 5}).row.episodes == 5
    stop_in_the_test(changed)
    assert train(changed).spec_digest == changed.experiment.digest


def test_a_run_that_is_queued_or_running_keeps_its_test(tiny, stop_in_the_test, tmp_path):
    """Reject: "queued or running", and the row of the former test when it is done."""
    stop_in_the_test(tiny())
    changed = tiny("test.episodes=6")
    with tiny().directory.locked():
        assert todo([tiny()], tmp_path / "runs")[1]
        with pytest.raises(RunError, match=r"queued or running with another spec, test\.episodes: 10 -> 6: .*-s name="):
            todo([changed], tmp_path / "runs")
    assert todo([changed], tmp_path / "runs")[0] == [changed]


def test_a_training_goes_on_with_another_test(tiny, monkeypatch):
    """Reject another seed of the test, which draws the tasks of the validation too."""
    taken = TrainingSteps.take

    def stopped(steps, count):
        if steps.number >= 4:
            raise Interrupted("stopped")
        return taken(steps, count)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(TrainingSteps, "take", stopped)
        train(tiny())
    assert tiny().directory.step == 4
    with pytest.raises(RunError, match=r"an unfinished run of another spec, test\.episode_seed: 0 -> 1 "):
        train(tiny("test.episode_seed=1"))
    with pytest.raises(RunError, match=r"validation\.every: 4 -> 2 .*-s name="):
        train(tiny("validation.every=2"))
    assert train(tiny("test.episodes=6")).episodes == 6


def test_advice_on_memory_before_the_first_step_works(tiny, monkeypatch, capsys):
    """Follow the advice of the error, which makes another spec; the failed attempt is set aside, never lost."""
    with monkeypatch.context() as patch, pytest.raises(RunError, match="lower train.way or train.query"):
        patch.setattr(memory, "available_bytes", lambda: 1)
        patch.setattr(loop, "foresee_tasks", lambda *_: None)  # they would be told first
        train(tiny())
    assert tiny().directory.failure.is_file()
    run = tiny("train.query=2")
    todo([run], run.directory.path.parents[1])
    assert train(run).train_steps == 8
    aside = run.directory.path.with_name("seed-0~1")
    assert (aside / "failure.txt").is_file() and f"{aside} is an attempt of another spec" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([], ["test.episodes=6"], True),
        ([], ["test.checkpoint=last"], True),
        ([], ["validation.query=5"], True),
        (["validation.query=5"], ["validation.query=5", "test.query=2"], True),
        ([], ["test.query=2"], False),
        ([], ["test.episode_seed=1"], False),
        (["validation=null"], ["validation=null", "test.episode_seed=1", "test.query=2"], True),
        ([], ["validation.episodes=5"], False),
        ([], ["train.steps=12"], False),
        ([], ["precision=float64"], False),
    ],
)
def test_what_decides_the_training(tiny, one, other, same):
    one, other = tiny(*one).experiment, tiny(*other).experiment
    assert (one.training_digest == other.training_digest) is same


@pytest.mark.parametrize("validation", ["null", "{episodes: 4}"])
def test_inner_steps_of_tests_decide_a_training_by_its_validation_alone(tiny, validation):
    maml = ["algorithm={name: maml, inner_lr: 0.1}", f"validation={validation}"]
    one = tiny(*maml).experiment
    for change in ("algorithm.test_inner_steps=3", "algorithm.test_inner_lr=0.2"):
        other = tiny(*maml, change).experiment
        assert (one.training_digest == other.training_digest) is (validation == "null")
        assert one.digest != other.digest


def test_fault_31_another_spec_is_told_by_its_keys(tiny, tmp_path):
    """Tell a few keys, the others counted: finished and unfinished, a foreign checkpoint, evaluate and submit."""
    run = tiny()
    train(run)
    many = ["train.way=4", "train.shot=2", "train.query=3", "train.steps=7", "train.log_every=5", "precision=float64"]
    words = r"train\.way: 5 -> 4, train\.shot: 1 -> 2, train\.query: 5 -> 3, train\.steps: 8 -> 7, 2 more \(digest"
    with pytest.raises(RunError, match=f"the finished run of another spec, {words}.*-s name="):
        train(tiny(*many))
    with pytest.raises(RunError, match=r"algorithm\.name: 'protonet' -> 'matchingnet' \(digest"):
        train(tiny("algorithm={name: matchingnet}"))
    spec = run.directory.spec.read_text()
    run.directory.spec.write_text(spec.replace("learning_rate: 0.001", "learning_rate: 0.5"))
    with pytest.raises(RunError, match=r"\(optimizer\.learning_rate: 0\.001 -> 0\.5, digest .*-s name="):
        evaluate(run.directory.path, "test", {"episodes": 4})
    run.directory.spec.write_text(spec.replace("episodes: 10", "episodes: 9"))
    with pytest.raises(RunError, match=r"\(test\.episodes: 10 -> 9, digest"):
        evaluate(run.directory.path, "test", {"episodes": 4})
    run.directory.spec.write_text(spec)
    run.directory.result.unlink()
    with pytest.raises(RunError, match=f"an unfinished run of another spec, {words}.*-s name="):
        todo([tiny(*many)], tmp_path / "runs")
    other = tiny("optimizer.learning_rate=0.5", out="other")
    other.directory.path.mkdir(parents=True)
    run.directory.checkpoints.rename(other.directory.checkpoints)
    with pytest.raises(RunError, match=r"another spec \(optimizer\.learning_rate: 0\.001 -> 0\.5\): .*-s name="):
        train(other)
