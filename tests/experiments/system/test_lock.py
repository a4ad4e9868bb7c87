"""Locks between processes: one holds a run, the others learn which."""

import fcntl
import os
import socket
import threading

import pytest

from metarun.experiments.errors import RunError
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.system import lock
from metarun.experiments.system.failures import noted


def test_a_run_that_is_in_use_has_not_failed(tmp_path):
    run = RunDirectory(tmp_path / "seed-0")
    with run.locked(), pytest.raises(RunError, match="is in use by"), noted(run.failure), run.locked():
        pass
    assert not run.failure.exists()


def test_a_lock_is_that_of_the_folder_that_is_there(tmp_path, monkeypatch):
    """--fresh renames the folder between another's opening of the lock and its taking."""
    path, taken, calls = tmp_path / "seed-0" / ".lock", lock._taken, []

    def rename_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            path.parent.rename(tmp_path / "seed-0~1")
        return taken(*arguments)

    monkeypatch.setattr(lock, "_taken", rename_first)
    with lock.locked(path):
        assert lock.holder(path) and not lock.holder(tmp_path / "seed-0~1" / ".lock")


def test_asking_for_the_holder_keeps_nobody_out(tmp_path):
    path = tmp_path / "lock"
    assert lock.holder(path) is None and not path.exists()
    path.write_text("")
    with open(path) as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (asking, fcntl.LOCK_UN)).start()
        with lock.locked(path):  # it waits
            assert lock.holder(path) == f"process {os.getpid()} on {socket.gethostname()}"
            with pytest.raises(lock.Held, match=f"process {os.getpid()} on "), lock.locked(path):
                pass
    assert lock.holder(path) is None
