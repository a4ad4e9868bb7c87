"""A run killed at any moment and started again ends as one that was never disturbed, bit for bit."""

import contextlib
import csv
import errno
import json
import os
import shutil
import signal
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from finished import results
from processes import dying, metarun, stopping

from metarun.experiments.config.load import load
from metarun.experiments.errors import Interrupted, RunError
from metarun.experiments.runs import checkpoint
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.system import provenance

SINUSOID = """
name: tiny
algorithm: ALGORITHM
network: {name: mlp, hidden: [16]}
dataset: {name: sinusoid}
protocol: inductive
optimizer: {schedule: cosine}
train: {way: 1, shot: 5, QUERY meta_batch: 4, steps: STEPS, log_every: 40}
validation: {episodes: 20, every: 100}
test: {way: 1, shot: 5, query: 5, episodes: 30}
"""
SPECS = {
    "maml": SINUSOID.replace("ALGORITHM", "{name: maml, inner_lr: 0.01}").replace("QUERY", "query: 5,"),
    "reptile": SINUSOID.replace("ALGORITHM", "{name: reptile, inner_lr: 0.01, inner_batch: 5}").replace("QUERY", ""),
    "protonet": """
name: tiny
algorithm: {name: protonet}
network: {name: conv4, filters: 16}
dataset: {name: glyphs}
protocol: inductive
train: {way: 10, shot: 1, query: 5, steps: 200, log_every: 40}
validation: {episodes: 20, every: 50}
test: {way: 5, shot: 1, query: 5, episodes: 30}
""",
    "maml of images": """
name: tiny
algorithm: {name: maml, inner_lr: 1.0, tasks_per_chunk: 2}
network: {name: conv4, filters: 8, downsample: stride}
dataset: {name: glyphs}
protocol: transductive
train: {way: 5, shot: 1, query: 2, meta_batch: 4, steps: 150, log_every: 40}
validation: {episodes: 20, every: 50}
test: {way: 5, shot: 1, query: 5, episodes: 30}
jit: off
""",
    "rl2": """
name: tiny
algorithm: {name: rl2, minibatch: 32}
network: {name: gru, units: 16}
dataset: {name: bandits, arms: 3, pulls: 5}
optimizer: {clip_value: 40}
train: {meta_batch: 80, steps: 80, log_every: 20}
validation: {episodes: 20, every: 20}
test: {episodes: 30}
""",
}
SPECS["compiled maml of images"] = SPECS["maml of images"].replace("jit: off", "jit: on")


@pytest.fixture(autouse=True, scope="module")
def cached(session_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARUN_CACHE", str(session_cache))
        yield


def write_spec(folder: Path, algorithm: str = "maml", steps: int = 400) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(SPECS[algorithm].replace("STEPS", str(steps)))
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return a function that gives the finished run of an algorithm, by its name in SPECS."""

    @cache
    def train(algorithm):
        folder = tmp_path_factory.mktemp("undisturbed")
        done = metarun("train", write_spec(folder, algorithm), "--out", folder)
        assert done.returncode == 0, done.stderr
        return folder / "tiny" / "seed-0"

    return train


@pytest.mark.parametrize(
    ("algorithm", "how"),
    [
        pytest.param("maml", signal.SIGKILL, marks=pytest.mark.slow),
        ("maml", signal.SIGTERM),
        pytest.param("maml of images", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("compiled maml of images", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("reptile", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("protonet", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("rl2", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_killed_and_continued_is_undisturbed(tmp_path, undisturbed, algorithm, how):
    """Compare a run that was killed before its second checkpoint, or stopped before its first."""
    spec, run = write_spec(tmp_path, algorithm), tmp_path / "runs" / "tiny" / "seed-0"
    second = 2 * load(str(spec)).experiment.validation.every
    program = stopping if how == signal.SIGTERM else partial(dying, f"step-{second}.npz")
    killed = metarun("train", spec, "--out", tmp_path / "runs", program=program)
    if how == signal.SIGTERM:
        assert killed.returncode == 130 and "the same command resumes from there" in killed.stderr
    else:
        assert killed.returncode == -how and RunDirectory(run).newest_checkpoints()
    again = metarun("train", spec, "--out", tmp_path / "runs")
    assert again.returncode == 0, again.stderr
    assert results(run) == results(undisturbed(algorithm))


@pytest.mark.slow
def test_killed_again_and_again_is_undisturbed(tmp_path, undisturbed):
    """Check that kills come before a file gets its name: without any checkpoint, between two, tested, and with all but
    the row."""
    spec, run = write_spec(tmp_path), tmp_path / "runs" / "tiny" / "seed-0"
    for last in ("best.npz", "step-300.npz", "episodes.csv", "result.json"):
        killed = metarun("train", spec, "--out", tmp_path / "runs", program=partial(dying, last))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not list(run.rglob(last)), "the moment before the file is there"
        assert bool(RunDirectory(run).newest_checkpoints()) == (last != "best.npz")
    again = metarun("train", spec, "--out", tmp_path / "runs")
    assert again.returncode == 0, again.stderr
    assert results(run) == results(undisturbed("maml"))


def test_tensorboard_has_the_numbers_of_metrics_csv(undisturbed):
    """Read what was written without TensorBoard, which is not installed with metarun; one event file a split, none from
    before."""
    import tensorflow as tf

    run = undisturbed("maml")
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "val"):
        (path,) = (run / "tensorboard" / split).iterdir()
        written = {
            (event.step, value.tag): float(tf.make_ndarray(value.tensor))
            for event in tf.compat.v1.train.summary_iterator(str(path))
            for value in event.summary.value
            if value.metadata.plugin_data.plugin_name == "scalars"
        }
        expected = {
            (int(row["step"]), name): np.float32(value)
            for row in rows
            if row["split"] == split
            for name, value in row.items()
            if name not in ("step", "split") and value
        }
        assert written == expected and expected


def test_the_environment_has_what_the_last_bits_depend_on(tmp_path, undisturbed):
    (told,) = json.loads((undisturbed("maml") / "environment.json").read_text())
    assert {"packages", "processor", "onednn", "intra_op_threads"} <= told.keys() and told["step"] == 0
    assert told["processor"] == provenance.processor() and told["onednn"] == provenance.uses_onednn()
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: Some 9 @ 2:4\nflags\t\t: fpu avx avx2 avx512fp16\n\nprocessor\t: 1\n"
    )
    assert provenance.processor(tmp_path / "cpuinfo") == "Some 9 @ 2:4 avx2"  # no avx512f


def test_a_finished_run_is_skipped_and_fresh_sets_it_aside(tmp_path, undisturbed):
    spec, run = write_spec(tmp_path), tmp_path / "runs" / "tiny" / "seed-0"
    shutil.copytree(undisturbed("maml"), run)
    stamp = (run / "result.json").stat().st_mtime_ns
    with RunDirectory(run).locked():  # by an evaluation
        again = metarun("train", spec, "--out", tmp_path / "runs")
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stderr and (run / "result.json").stat().st_mtime_ns == stamp
    other = metarun("train", spec, "-s", "train.steps=120", "--out", tmp_path / "runs")
    assert other.returncode == 1 and "holds the finished run of another spec" in other.stderr
    fresh = metarun("train", spec, "-s", "train.steps=120", "--out", tmp_path / "runs", "--fresh")
    assert fresh.returncode == 0, fresh.stderr
    assert (run.with_name("seed-0~1") / "result.json").exists() and RunDirectory(run).afresh.exists()
    with open(tmp_path / "runs" / "results.csv", newline="") as file:
        assert [row["train_steps"] for row in csv.DictReader(file)] == ["120"]  # what is set aside does not count
    row = json.loads((run / "result.json").read_text())
    assert row["algorithm"] == "maml" and row["episodes"] == 30 and row["metric"] == "mse"
    resolved = load(run / "spec.yaml").experiment
    assert resolved.digest == row["spec_digest"]
    evaluated = [metarun("evaluate", run, "--episodes", 40, "--inner-steps", 3) for _ in range(2)]
    assert [done.returncode for done in evaluated] == [0, 0], evaluated[0].stderr
    assert "has this measurement already" in evaluated[1].stderr
    (path,) = (run / "evaluations").glob("*.json")
    assert json.loads(path.read_text())["inner_steps"] == 3
    assert (run / "result.json").read_text() == json.dumps(row, indent=2) + "\n"
    table = metarun("table", tmp_path / "runs")
    assert table.returncode == 0 and len(table.stdout.splitlines()) == 4
    with open(tmp_path / "runs" / "results.csv", newline="") as file:
        assert [row["inner_steps"] for row in csv.DictReader(file)] == ["3", "1"]
    same = metarun("evaluate", run, "--episodes", 30, "--inner-steps", 1)  # as the spec says
    assert f"{run / 'result.json'} has this measurement already" in same.stderr
    published = ("-s", "train.steps=120", "-s", "published={value: 0.5, source: later}")
    assert metarun("train", spec, *published, "--out", tmp_path / "runs").returncode == 0
    assert json.loads((run / "result.json").read_text()) == row | {"published": 0.5, "published_source": "later"}


def test_a_run_that_fails_stops_no_other_and_displaces_nothing(tmp_path):
    """Check that glyphs have no class with 100 images: that spec fails, before --fresh sets aside what is there."""
    good, bad = write_spec(tmp_path, steps=20), tmp_path / "bad.yaml"
    bad.write_text(SPECS["protonet"].replace("STEPS", "20").replace("tiny", "bad").replace("query: 5", "query: 100"))
    kept = tmp_path / "runs" / "bad" / "seed-0" / "result.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    done = metarun("train", bad, good, "--out", tmp_path / "runs", "--fresh")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "tiny" in done.stdout.splitlines()[2] and (tmp_path / "runs" / "tiny" / "seed-0" / "result.json").exists()
    assert f"{kept.parent}: error: glyphs: " in done.stderr.splitlines()[-1]
    assert kept.read_text() == "{}"


def test_two_processes_cannot_share_a_run(tmp_path):
    with RunDirectory(tmp_path / "runs" / "tiny" / "seed-0").locked():
        second = metarun("train", write_spec(tmp_path), "--out", tmp_path / "runs")
    assert second.returncode == 1
    assert f"is in use by process {os.getpid()}" in second.stderr and "Traceback" not in second.stderr


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    spec = write_spec(tmp_path)
    done = metarun("train", spec, "-s", "algorithm.inner_lr=1e30", "--out", tmp_path / "runs")
    assert done.returncode == 1
    assert "the loss is nan at step" in done.stderr or "the loss is inf at step" in done.stderr
    assert "checkpoint" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "tiny" / "seed-0" / "result.json").exists()


def test_a_damaged_checkpoint_is_passed_over(tmp_path, undisturbed):
    spec, run = write_spec(tmp_path), tmp_path / "runs" / "tiny" / "seed-0"
    shutil.copytree(undisturbed("maml"), run)
    for name in ("result.json", "episodes.csv"):
        (run / name).unlink()
    newest = RunDirectory(run).newest_checkpoints()[0]
    newest.write_bytes(newest.read_bytes()[:-200])
    for step in (5000, 6000):  # which would be the newest for ever, and good ones would go
        shutil.copy(newest, RunDirectory(run).checkpoint(step))
    again = metarun("train", spec, "--out", tmp_path / "runs")
    assert again.returncode == 0 and again.stderr.count("not a whole checkpoint") == 3
    assert results(run) == results(undisturbed("maml"))
    found = {path.name for path in RunDirectory(run).newest_checkpoints()}
    assert found == {"step-300.npz", "step-400.npz"} and (run / "checkpoints" / "step-6000.npz.unusable").exists()
    (run / "result.json").unlink()
    (run / "checkpoints" / "best.npz").unlink()
    stuck = metarun("train", spec, "--out", tmp_path / "runs")
    assert stuck.returncode == 1 and "best.npz is not a whole checkpoint (No such file" in stuck.stderr
    assert "use --fresh" in stuck.stderr


def raise_(error):
    raise error


def test_what_a_killed_process_left_of_a_checkpoint_is_cleared_away(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.checkpoints.mkdir(parents=True)
    for name in ("step-1.npz", "step-2.npz", "step-3.npz", "best.npz", "step-1.npz.unusable"):
        (directory.checkpoints / name).touch()
    for name in (".step-4.npz.abcd1234", ".best.npz.abcd1234", "../.progress.json.abcd123_", "../.gitignore"):
        (directory.checkpoints / name).touch()
    with directory.locked():
        directory.drop_old_checkpoints()
        left = {path.name for path in directory.checkpoints.iterdir()}
        assert left == {"step-2.npz", "step-3.npz", "best.npz", "step-1.npz.unusable"}
        assert {path.name for path in directory.path.iterdir()} == {"checkpoints", ".gitignore", directory.lock.name}


def test_checkpoints_come_back_exactly_and_foreign_ones_change_nothing(tmp_path, monkeypatch):
    import tensorflow as tf

    variables = [tf.Variable([1.0, 2.0]), tf.Variable(3, dtype=tf.int64)]
    path = tmp_path / "step-1.npz"
    checkpoint.save(path, variables, {"step": 1, "value": 0.1 + 0.2})
    variables[0].assign([9.0, 9.0])
    assert checkpoint.restore(path, variables)["value"] == 0.1 + 0.2
    np.testing.assert_array_equal(variables[0].numpy(), [1.0, 2.0])
    other = [tf.Variable([0.0, 0.0, 0.0]), tf.Variable(3, dtype=tf.int64)]
    with pytest.raises(RunError, match="another model"):
        checkpoint.restore(path, other)
    with pytest.raises(RunError, match="another model or version"):
        checkpoint.restore(path, variables, ["step", "seconds"])
    whole = path.read_bytes()
    for place in range(whole.rindex(b"PK\x01\x02"), len(whole)):  # the directory, which has no checksum
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with contextlib.suppress(RunError):
            checkpoint.read(path)
    path.write_bytes(whole)
    array = tmp_path / "array.npz"
    np.save(array.open("wb"), np.zeros(3))
    for broken in (array, tmp_path / "missing.npz"):
        with pytest.raises(RunError, match=f"{broken.name} is not a whole checkpoint .*: use --fresh"):
            checkpoint.restore(broken, variables)
    for no_damage in (Interrupted("stopped"), MemoryError()):  # the checkpoint is good: it must not be set aside
        with monkeypatch.context() as now, pytest.raises(type(no_damage)):
            now.setattr(np, "load", lambda *_, told=no_damage, **__: raise_(told))
            checkpoint.read(path)
    with monkeypatch.context() as now, pytest.raises(OSError, match="stale"):
        now.setattr(Path, "read_bytes", lambda _: raise_(OSError(errno.ESTALE, "stale")))
        checkpoint.read(path)
    evil = tmp_path / "evil.npz"
    np.savez(evil, state=np.array([{"format": 1}], dtype=object))  # would have to be unpickled
    with pytest.raises(RunError, match="not a whole checkpoint"):
        checkpoint.restore(evil, other)
    np.testing.assert_array_equal(other[0].numpy(), [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "line", ["nonsense", "x,train,1,2,3", "4,test,1,2,3", "4,train,1,2,three", "4,train,1,2,3,4", "\0", ""]
)
def test_a_line_that_is_no_row_of_metrics_is_named(tmp_path, line):
    from metarun.experiments.runs.metrics_log import MetricsLog

    directory = RunDirectory(tmp_path)
    for _ in range(2):  # the second one reads what the first one wrote
        log = MetricsLog(directory, ["loss"], 3)
        log.write(3, "train", {"loss": 0.5}, 1, 2)
    with open(directory.metrics, "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(RunError, match=r"metrics\.csv:4 is not a row of metrics: delete that line, or use --fresh"):
        MetricsLog(directory, ["loss"], 3)


def test_columns_of_an_earlier_version_stay_and_are_empty_from_then_on(tmp_path):
    from metarun.experiments.runs.metrics_log import MetricsLog

    directory = RunDirectory(tmp_path)
    MetricsLog(directory, ["loss", "accuracy_3"], 0).write(1, "train", {"loss": 0.5, "accuracy_3": 0.25}, 1, 2)
    MetricsLog(directory, ["loss"], 1).write(2, "train", {"loss": 0.125}, 1, 2)
    first, second = csv.DictReader(directory.metrics.open())
    assert (first["loss"], first["accuracy_3"]) == ("0.5", "0.25")
    assert (second["loss"], second["accuracy_3"]) == ("0.125", "")
    with pytest.raises(RunError, match="has other columns than this version writes: use --fresh to train again"):
        MetricsLog(directory, ["loss", "more"], 2)


def test_metrics_of_a_line_cut_short_are_written_again(tmp_path, undisturbed):
    spec, run = write_spec(tmp_path), tmp_path / "runs" / "tiny" / "seed-0"
    shutil.copytree(undisturbed("maml"), run)
    newest, older = RunDirectory(run).newest_checkpoints()
    newest.unlink()
    for name in ("result.json", "episodes.csv"):
        (run / name).unlink()
    (run / "metrics.csv").write_text((run / "metrics.csv").read_text()[:-30])
    assert metarun("train", spec, "--out", tmp_path / "runs").returncode == 0
    assert results(run) == results(undisturbed("maml"))
