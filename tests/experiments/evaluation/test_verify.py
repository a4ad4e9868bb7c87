"""A run verified: episodes that are tested again have the values of its files, and files that were edited are told."""

import json
import shutil

import pytest
from click.testing import CliRunner

from metarun.cli.main import metarun as group
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.evaluation import measure, verify
from metarun.experiments.evaluation.retest import evaluate
from metarun.experiments.reports.compare import measurements, refuse_other_episodes
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.archive import opened, pack, unpack
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run
from metarun.experiments.training.train import train

SPECS = {
    "few": """
algorithm: {name: protonet}
network: {name: mlp, hidden: [8], batch_norm: true}
dataset: {name: glyphs}
protocol: inductive
train: {way: 3, shot: 1, query: 2, steps: 2}
validation: {episodes: 4, every: 1}
test: {way: 3, episodes: 40}
jit: off
""",
    "greedy": """
algorithm: {name: epsilon_greedy}
dataset: {name: bandits}
validation: {episodes: 20}
test: {episodes: 30}
""",
    "rl": """
algorithm: {name: rl2, epochs: 1}
network: {name: gru, units: 4}
dataset: {name: bandits, pulls: 3}
train: {steps: 1, meta_batch: 4}
validation: null
test: {episodes: 30}
jit: off
""",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, session_cache):
    """Return a function that trains a run of each kind, once."""
    out, found = tmp_path_factory.mktemp("runs"), {}

    def once(name):
        if name not in found:
            (out / f"{name}.yaml").write_text(f"name: {name}{SPECS[name]}")
            found[name] = Run.at(out, load(out / f"{name}.yaml").experiment, 0)
            train(found[name])
        return found[name].directory

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(session_cache))
        yield once


@pytest.fixture
def few(trained, cache_folder):
    """Return the folder of a few-shot run, which no test changes."""
    return trained("few")


@pytest.fixture
def copied(trained, tmp_path, cache_folder):
    """Return a function that copies a run, to be edited."""

    def copy(name="few"):
        shutil.copytree(trained(name).path, tmp_path / name / "seed-0")
        return RunDirectory(tmp_path / name / "seed-0")

    return copy


def edited(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize("name", ["few", *(pytest.param(name, marks=pytest.mark.slow) for name in ("greedy", "rl"))])
def test_a_run_of_each_kind_is_equal_bit_for_bit(trained, cache_folder, name):
    """Check few-shot learners, trials and a tuned classical method; the same process is the same kind of machine."""
    done = verify.verify(trained(name), 20)
    assert (done.tested, done.how) == (20, "bit for bit, as on a machine of the same kind")


def _model(directory):
    row, spec = verify.checked(directory)
    return verify._model(directory, row, spec)


def test_first_episodes_are_those_of_the_whole_test(few, monkeypatch):
    """Reject a test of 4 episodes alone, whose batch is another: of 3 at a time they are in two batches."""
    monkeypatch.setattr("metarun.datasets.tasks.EPISODES_AT_ONCE", 3)
    evaluation = measure.test_of(_model(few))
    some, whole = (evaluation.measure("", first=first) for first in (4, None))
    assert evaluation.batch == 3
    assert {name: values.tolist() for name, values in some.values.items()} == {
        name: values[:4].tolist() for name, values in whole.values.items()
    }
    assert len(whole.values["accuracy"]) == 40


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        ("result.json", "mean", 0.9, "mean of the row is 0.9, and the mean of accuracy"),
        ("result.json", "ci95", 0.001, "ci95 of the row"),
        ("result.json", "negative_log_likelihood", 0.1, "negative_log_likelihood of the row"),
        ("result.json", "expected_calibration_error", 0.001, "expected_calibration_error of the row"),
        ("result.json", "diverged", 3, "diverged of the row is 3, and 0"),
        ("result.json", "weights_digest", "0" * 16, "best.npz has weights of digest"),
        ("result.json", "init", "0" * 16, "init of the row is 0000000000000000, and empty in the spec"),
        ("result.json", "seed", 1, "seed is 1, and 0 in its spec"),
        ("result.json", "protocol", "transductive", "protocol is transductive, and inductive"),
    ],
)
def test_an_edited_row_is_told(copied, file, key, value, words):
    directory = copied()
    row = json.loads((directory.path / file).read_text()) | {key: value}
    (directory.path / file).write_text(json.dumps(row))
    with pytest.raises(RunError, match=words):
        verify.verify(directory, 20)


def test_edited_files_are_told(copied):
    """Reject episodes.csv with another value, an edited spec, and weights that are not those of the test."""
    directory = copied()
    edited(directory.spec, "distance: squared_euclidean", "distance: cosine")
    with pytest.raises(RunError, match="is not the spec of its row"):
        verify.verify(directory, 20)
    edited(directory.spec, "distance: cosine", "distance: squared_euclidean")
    lines = directory.episodes.read_text()
    directory.episodes.write_text(lines.rsplit("\n", 2)[0] + "\n")
    with pytest.raises(RunError, match="not those of 40 episodes"):
        verify.verify(directory, 20)
    directory.episodes.write_text(lines)
    state, arrays = checkpoint.read(directory.best)
    checkpoint.save(directory.best, [arrays[0] + 1, *arrays[1:]], state)
    with pytest.raises(RunError, match="best.npz has weights of digest"):
        verify.verify(directory, 20)


def swapped(directory):
    """Change the order of the values of the first two episodes whose accuracies differ: all means stay."""
    head, *lines = directory.episodes.read_text().splitlines()
    values = [line.partition(",")[2] for line in lines]
    other = next(n for n, each in enumerate(values) if each.partition(",")[0] != values[0].partition(",")[0])
    values[0], values[other] = values[other], values[0]
    directory.episodes.write_text("\n".join([head, *(f"{n},{each}" for n, each in enumerate(values))]) + "\n")


def test_values_that_differ_are_told_with_exit_code_1(copied):
    """Reject a check of means alone: two exchanged episodes leave all of them."""
    directory = copied()
    swapped(directory)
    done = CliRunner().invoke(group, ["verify", str(directory.path)])
    told = str(done.exception)
    assert isinstance(done.exception, RunError) and done.exception.code == 1
    assert "bit for bit" in told and "  episode 0: accuracy is " in told


def elsewhere(directory):
    environments = json.loads(directory.environment.read_text())
    environments[-1]["processor"] = "another one"
    directory.environment.write_text(json.dumps(environments))


def test_elsewhere_values_are_within_a_tolerance(copied):
    """Reject bits of another processor, and a tolerance that lets exchanged episodes pass."""
    directory = copied()
    first = directory.episodes.read_text().splitlines()[1].split(",")
    near = first[:-1] + [f"{float(first[-1]) * (1 + 1e-6):.9g}"]
    edited(directory.episodes, ",".join(first), ",".join(near))
    with pytest.raises(RunError, match="episode 0: negative_log_likelihood is"):
        verify.verify(directory, 20)
    elsewhere(directory)
    done = verify.verify(directory, 20)
    assert done.how.startswith("within 0.001 of a value") and "processor: 'another one' ->" in done.how
    edited(directory.episodes, near[-1], first[-1])
    swapped(directory)
    with pytest.raises(RunError, match="compared within 0.001"):
        verify.verify(directory, 20)


@pytest.mark.slow
def test_elsewhere_few_trials_may_take_another_course(copied):
    directory = copied("rl")
    elsewhere(directory)
    assert "all but 5 % of the trials" in verify.verify(directory, 20).how
    directory.environment.unlink()
    assert "does not say where the run was tested" in verify.verify(directory, 20).how


@pytest.mark.slow
def test_a_run_that_travelled_is_a_run(few, tmp_path):
    """Verify, test, compare and train what was unpacked; a finished run is not trained again."""
    pack(few.path, tmp_path / "few.zip")
    with opened(tmp_path / "few.zip") as directory:
        assert verify.verify(directory, 40).tested == 40
    assert not directory.path.exists()
    there, _ = unpack(tmp_path / "few.zip", tmp_path / "there")
    own, other = (evaluate(each.path, "test", {"episodes": 8}).row for each in (few, there))
    assert own.model_dump(exclude={"seconds"}) == other.model_dump(exclude={"seconds"})
    refuse_other_episodes(measurements([few.path, there.path]))
    before = there.result.read_bytes()
    train(Run.at(tmp_path / "there", load(there.spec).experiment, 0))
    assert there.result.read_bytes() == before and not there.newest_checkpoints()
    for verb in (["table"], ["plot", "--out", str(tmp_path / "figures")]):
        done = CliRunner().invoke(group, [*verb, str(tmp_path / "there")])
        assert done.exit_code == 0, (done.output, done.exception)
