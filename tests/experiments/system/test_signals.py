"""Signals stop a command between two steps, or at once where nothing is lost, and are never forgotten."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupted import began, imports_tensorflow, interrupted, stopped

from metarun.experiments.errors import Interrupted
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.system.signals import STOPPING, StopSignal, at_once, check, postponed


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_waits_for_the_step_and_for_nothing_else(number, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # these tests may run under nohup
    with StopSignal() as stop, stop.held():
        os.kill(os.getpid(), number)
        assert stop.requested  # and nothing was raised
        check()
        with pytest.raises(Interrupted), stop.held(False):
            raise AssertionError("a validation begins that will be thrown away")
    with pytest.raises(Interrupted, match=signal.Signals(number).name), StopSignal(), at_once():
        os.kill(os.getpid(), number)
        time.sleep(1)


def test_fault_28_a_stop_is_looked_at_after_the_block_that_held_it():
    """Reject a block that forgets, and one that raises while TensorFlow traces a program."""
    with pytest.raises(Interrupted, match="stopped by SIGINT; the same command resumes with it"), StopSignal("with it"):
        with StopSignal() as inner, inner.held():
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # nothing raises here
        check()
        raise AssertionError("not stopped")
    check()  # outside nothing is known of it


@pytest.mark.filterwarnings("error")  # pytest warns of exceptions that a finalizer drops
def test_fault_28_a_signal_in_a_finalizer_or_an_import_is_not_lost(tmp_path, monkeypatch):
    """Reject an exception where Python drops it and prints a traceback, and one that breaks an import."""

    class Finalized:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            done.append("finalizer")

    (tmp_path / "imported_when_stopped.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    done = []
    with pytest.raises(Interrupted), StopSignal(), at_once():
        one = Finalized()
        del one
        time.sleep(2)
        done.append("slept")
    assert done == ["finalizer"]
    with pytest.raises(Interrupted), StopSignal(), at_once():
        import imported_when_stopped  # noqa: F401  # pyright: ignore[reportMissingImports]

        done.append("imported")
        time.sleep(2)
        done.append("slept")
    assert done == ["finalizer", "imported"]


def test_fault_28_swallowed_is_not_forgotten():
    """Reject code that drops every exception takes a stop with it."""
    with pytest.raises(Interrupted), StopSignal(), at_once():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException:  # as libraries do
            pass


def test_fault_28_a_second_interrupt_ends_a_command_in_a_long_call():
    """Interrupt the call of a library, for whose end Python's own handlers wait."""
    program = (
        "from metarun.experiments.system.signals import begin; import hashlib; begin(); print('begun', flush=True);"
        "hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)  # batch systems send several
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("interrupted\n", 130)


def test_fault_28_a_new_process_gets_what_came_while_it_started():
    """Reject a job that dies of it while Python and its modules are loaded, with a traceback or without a word."""
    with postponed():
        process = multiprocessing.get_context("spawn").Process(target=stopped)
        process.start()
    assert process.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 130


def test_fault_18_a_hangup_is_ignored_where_it_was():
    """Leave a hangup ignored, as `nohup` asks. Rejected: a handler that is installed whatever was before."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


SPEC = """
name: tiny
algorithm: {name: protonet}
network: {name: mlp, hidden: [16]}
dataset: {name: glyphs}
protocol: inductive
train: {way: 5, shot: 1, query: 5, steps: 100000000}
validation: {episodes: 10, every: 1000000}
test: {way: 5, shot: 1, query: 5, episodes: 20}
"""
linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")


@linux
@pytest.mark.parametrize("verb", ["train", pytest.param("benchmark", marks=pytest.mark.slow)])
def test_fault_28_stopped_where_tensorflow_is_imported(tmp_path, cache_folder, monkeypatch, verb):
    """Reject an import that swallows the signal, and a traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    done = interrupted(imports_tensorflow, 0, verb, "tiny.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped by SIGINT\n"), done.stderr
    assert not (tmp_path / "runs").exists()


@linux
@pytest.mark.parametrize("verb", ["list", "train"])
def test_fault_28_stopped_in_the_first_lines(tmp_path, monkeypatch, verb):
    """Reject a traceback of an import."""
    monkeypatch.chdir(tmp_path)
    done = interrupted(began, 0, verb, "specs" if verb == "list" else "quickstart/maml")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped by SIGINT\n"), done.stderr


@linux
@pytest.mark.slow
def test_fault_28_stopped_at_any_of_thirty_moments(tmp_path, cache_folder, monkeypatch):
    """Reject a moment at which the signal is lost, more than one line, or a step that is done twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    run, step = RunDirectory(tmp_path / "runs" / "tiny" / "seed-0"), 0
    for moment in range(30):
        done = interrupted(began, 0.2 + 0.25 * moment, "train", "tiny.yaml")
        assert done.returncode == 130 and not done.stdout, (moment, done.stderr)
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("stopped "), (moment, done.stderr)
        assert run.step >= step and (run.step == step or f"after step {run.step} of" in done.stderr)
        step = run.step
    assert step
