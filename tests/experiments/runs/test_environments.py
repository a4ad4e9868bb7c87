"""Settings that decide the bits of a result are recorded as they are in effect, and a change of them is told."""

import json
import os
import subprocess
import sys

import pytest
from rows import ROW

from metarun.experiments.config.load import load
from metarun.experiments.errors import Interrupted
from metarun.experiments.reports.pivot import render_pivot
from metarun.experiments.reports.table import lines_of, render
from metarun.experiments.runs import environments
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import Row, as_frame
from metarun.experiments.runs.run import Run
from metarun.experiments.system import provenance
from metarun.experiments.training.steps import TrainingSteps
from metarun.experiments.training.train import train

SPEC = """
name: sines
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [4]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, steps: 8, log_every: 4}
validation: {episodes: 4, every: 4}
test: {way: 1, shot: 5, query: 5, episodes: 4}
jit: off
"""


@pytest.fixture
def sines(tmp_path):
    """Return a function that gives the run of the spec, changed."""
    (tmp_path / "sines.yaml").write_text(SPEC)
    return lambda *changes: Run.at(tmp_path, load(tmp_path / "sines.yaml", changes).experiment, 0)


@pytest.fixture
def told(monkeypatch):
    """Return the environment that this process seems to have, to be changed."""
    now = {"packages": {"tensorflow": "2.20"}, "git_commit": "a", "onednn": True, "host": "one", "intra_op_threads": 2}
    monkeypatch.setattr(provenance, "describe", lambda: dict(now))
    return now


def steps(directory):
    return [each["step"] for each in json.loads(directory.environment.read_text())]


def test_fault_11_threads_and_variables_are_recorded_as_they_are_in_effect(monkeypatch):
    """Reject: 0 for threads that a variable or TensorFlow itself has chosen, XLA's flags left out, a secret."""
    for name in ("INTRA", "INTER"):
        monkeypatch.setenv(f"TF_NUM_{name}OP_THREADS", "1")
    own = "--xla_cpu_enable_concurrency_optimized_scheduler=false"  # metarun's, which changes no bit
    monkeypatch.setenv("XLA_FLAGS", f"--xla_cpu_enable_fast_math=true {own}")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("TF_VAR_password", "secret")
    found = provenance.describe()
    assert (found["intra_op_threads"], found["inter_op_threads"]) == (1, 1)
    assert found["variables"]["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=true"
    assert found["variables"]["ONEDNN_MAX_CPU_ISA"] == "AVX2" and "TF_VAR_password" not in found["variables"]
    for name in ("INTRA", "INTER"):
        monkeypatch.delenv(f"TF_NUM_{name}OP_THREADS")
    found = provenance.describe()
    cores = len(os.sched_getaffinity(0))
    assert found["intra_op_threads"] == found["inter_op_threads"] == cores and found["device"] == "CPU"
    assert found["deterministic"] is True and len(found["code"]) == 16
    json.dumps(found, allow_nan=False)


def test_fault_11_onednn_is_recorded_as_it_is_in_effect():
    """Reject the variable, which says nothing where TensorFlow decides by itself."""
    program = "from metarun.experiments.system import provenance; print(provenance.uses_onednn())"
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_fault_11_a_resume_in_another_environment_is_told_once(sines, monkeypatch, capsys):
    """Reject no word, and a file that forgets in what the first half was trained."""
    taken, run = TrainingSteps.take, sines()

    def stopped(steps, count):
        if steps.number >= 4:
            raise Interrupted("stopped")
        return taken(steps, count)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(TrainingSteps, "take", stopped)
        train(run)
    (first,) = environments.read(run.directory.environment)
    monkeypatch.setattr(provenance, "uses_onednn", lambda: not first["onednn"])
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    assert "environment" not in capsys.readouterr().err
    train(run)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "environment" in line]
    assert line.startswith(f"warning: {run.directory.path} continues at step 4 in another environment, onednn: ")
    assert f"intra_op_threads: {first['intra_op_threads']} -> 7" in line and "packages" not in line
    second = environments.read(run.directory.environment)[1]
    assert steps(run.directory) == [0, 4] and second["onednn"] != first["onednn"]
    assert train(sines("name=longer", "train.steps=12")).train_steps == 12
    assert steps(sines("name=longer").directory) == [0, 4] and "another environment" not in capsys.readouterr().err


def test_environments_are_a_list_of_those_that_trained(told, tmp_path, capsys):
    """Reject an entry for one in which no checkpoint was written, unless the run was tested in it."""
    directory = RunDirectory(tmp_path)
    environments.begin(directory, 0, 100)
    told |= {"host": "another", "git_commit": "b"}
    environments.begin(directory, 0, 100)
    assert steps(directory) == [0] and capsys.readouterr().err == ""
    told["host"] = "a third"
    environments.begin(directory, 50, 100)
    assert steps(directory) == [0] and capsys.readouterr().err == ""  # a host decides no bit
    told["git_commit"] = "c"
    environments.begin(directory, 50, 100)
    assert "git_commit: 'b' -> 'c':" in capsys.readouterr().err
    told["packages"] = {"tensorflow": "2.21"}
    environments.begin(directory, 50, 100)
    assert steps(directory) == [0, 50] and "packages" in capsys.readouterr().err
    told["onednn"] = False
    environments.begin(directory, 100, 100)
    told["onednn"] = True
    environments.begin(directory, 100, 100)
    assert steps(directory) == [0, 50, 100, 100] and environments.read(directory.environment)[0]["git_commit"] == "b"


@pytest.mark.parametrize(("onednn", "differs"), [("1", False), ("0", True), ("", False)])
def test_an_environment_of_before_is_still_read(told, tmp_path, capsys, onednn, differs):
    """Read what was asked for, not what was in effect: what was not set is not compared."""
    directory = RunDirectory(tmp_path)
    before = {"packages": {"tensorflow": "2.20"}, "git_commit": "a", "onednn": onednn, "intra_op_threads": 0}
    directory.environment.write_text(json.dumps(before))
    environments.begin(directory, 10, 20)
    assert steps(directory) == ([0, 10] if differs else [0])
    assert ("onednn: false -> true" in capsys.readouterr().err) is differs
    directory.environment.write_text("cut off {")
    environments.begin(directory, 10, 20)
    assert steps(directory) == [10]


def test_fault_11_a_mean_over_versions_commits_or_devices_is_told():
    """Reject no word, and one where rows of older versions do not know their commit."""

    def lines(**changes):
        return lines_of(as_frame([Row(**ROW), Row(**ROW | {"seed": 1} | changes)]))

    for changes, words in (
        ({"version": "1"}, "versions 0 and 1"),
        ({"device": "NVIDIA H200", "version": "1"}, "versions 0 and 1; devices CPU and NVIDIA H200"),
    ):
        note = f"e: its seeds are of {words}"
        for form in ("text", "markdown", "latex"):
            shown = render(lines(**changes), form)
            assert shown.splitlines()[-1] == ("% " if form == "latex" else "") + note
        assert note in render_pivot(lines(**changes), "algorithm", "shot", "text")
        assert note not in render(lines(**changes), "csv")
    commits = as_frame([Row(**ROW | {"git_commit": "a"}), Row(**ROW | {"git_commit": "b", "seed": 1})])
    assert "e: its seeds are of commits a and b" in render(lines_of(commits), "text")
    for same in ({}, {"git_commit": "a"}):
        assert "seeds are of" not in render(lines(**same), "text")
