"""A command that works goes on without a reader, one that only prints ends quietly."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import Started, unheard
from slurm_jobs import SPEC

from metarun.experiments.system.streams import drop_what_cannot_be_written


@pytest.fixture(autouse=True)
def spec(tmp_path, monkeypatch):
    """Write the spec tiny.yaml into the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)


@pytest.mark.parametrize(
    "how", ["closed pipe", *(pytest.param(how, marks=pytest.mark.slow) for how in ("closed streams", "full disk"))]
)
def test_fault_18_training_goes_on_without_a_reader(tmp_path, how):
    """Reject the first line that cannot be written ends the run."""
    if how == "full disk" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = Started("train", "tiny.yaml", "-s", "validation.every=7", program=unheard, HOW=how).wait()
    run = tmp_path / "runs" / "tiny" / "seed-0"
    assert done.returncode == 0 and json.loads((run / "result.json").read_text())["train_steps"] == 40
    assert not (run / "failure.txt").exists()


@pytest.mark.slow
def test_fault_18_runs_that_wait_are_started_without_a_reader(tmp_path):
    """Reject the line about the first run that ends is the end of the others."""
    told = ("submit", "tiny.yaml", "--seeds", "0-2", "--executor", "local", "--max-parallel", "1")
    assert Started(*told, program=unheard, HOW="closed pipe").wait().returncode == 0
    assert len(list(tmp_path.glob("runs/tiny/seed-*/result.json"))) == 3


@pytest.mark.parametrize("arguments", [["list", "specs"], ["describe"], ["--help"]])
def test_fault_18_what_only_prints_ends_quietly(arguments):
    """Run `metarun list specs | head -n 1`. Rejected: a traceback, also one at the end of the interpreter."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "metarun.cli", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_a_table_that_cannot_be_written_is_an_error():
    """Reject the output of a command that only prints is dropped, with the exit code of success."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "metarun.cli", "list", "specs"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "no space left" in done.stderr and "Traceback" not in done.stderr


def test_streams_write_what_can_be_written(capfd, monkeypatch):
    """Reject streams that drop everything, and characters that raise."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    drop_what_cannot_be_written()
    print("out \udcff", flush=True)
    print("error", file=sys.stderr)
    assert capfd.readouterr() == ("out \\udcff\n", "error\n")
