"""Locks between processes: one holds a run, the others learn which."""

import fcntl
import os
import shutil
import socket
import stat
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from metarun.datasets.images import cache
from metarun.experiments.errors import RunError
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.metrics_log import MetricsLog
from metarun.experiments.system import lock
from metarun.experiments.system.failures import noted


def test_a_run_that_is_in_use_has_not_failed(tmp_path):
    run = RunDirectory(tmp_path / "seed-0")
    with run.locked(), pytest.raises(RunError, match="is in use by"), noted(run.failure), run.locked():
        pass
    assert not run.failure.exists()


def test_a_lock_is_that_of_the_folder_that_is_there(tmp_path, monkeypatch):
    """Let --fresh rename the folder between another's opening of the lock and its taking."""
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


@pytest.fixture
def shared():
    """Make a setgid folder of a group whose members all may write it; their umask is 022."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # above pytest's own folders nobody else may enter
    if os.geteuid() == 0:
        os.chown(folder, 4001, 4000)
    folder.chmod(0o2775)
    umask = os.umask(0o022)
    yield folder
    os.umask(umask)
    shutil.rmtree(folder)


@contextmanager
def member(number: int):
    """Let the block act as a member of the group."""
    os.setegid(4000)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def group_may_write(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IWGRP)


def test_fault_27_a_lock_in_a_shared_folder_is_for_the_group(shared, monkeypatch):
    """Reject lock files of mode 0644, and folders of runs that keep the others out; but what is private stays so."""
    monkeypatch.setenv("METARUN_CACHE", str(shared / "cache"))
    paths = [shared / ".results.lock", shared / ".jobs/.lock", shared / "tiny/seed-0/.lock"]
    with lock.waited(paths[0]), lock.locked(paths[1]), lock.locked(paths[2]):
        assert all(map(group_may_write, [*paths, shared / ".jobs", shared / "tiny/seed-0"]))
    (shared / "cache").mkdir()
    (shared / "cache").chmod(0o2775)
    with cache.locked("omniglot"):
        assert group_may_write(shared / "cache/.omniglot.lock")
    (shared / "own").mkdir()  # of mode 0755: this umask says so
    os.umask(0o077)
    for path in (shared / "own/.lock", shared / ".lock"):
        with lock.locked(path):
            assert not group_may_write(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as several users")
def test_fault_27_the_second_member_of_a_group_is_not_shut_out(shared, monkeypatch):
    """Reject: "Permission denied" at a lock that another member made, also by a version before this one."""
    monkeypatch.setenv("METARUN_CACHE", str(shared))
    path = shared / ".lock"
    with member(4001):
        path.write_text("process 1 on elsewhere")
        (shared / ".omniglot.lock").touch(mode=0o644)
        with lock.locked(shared / "other/.lock"):
            pass
    with member(4002):
        with open(path) as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            monkeypatch.setattr(lock, "PATIENCE", 0.0)
            with pytest.raises(lock.Held, match="process 1 on elsewhere"), lock.locked(path):
                pass
        with lock.locked(path):
            assert lock.holder(path) == f"process {os.getpid()} on {socket.gethostname()}"
        with lock.waited(path), lock.locked(shared / "other/.lock"), cache.locked("omniglot"):
            pass
    run = RunDirectory(shared / "tiny" / "seed-0")
    for number in (4001, 4002):
        with member(number), run.locked():
            MetricsLog(run, ["loss"], 0).write(1, "train", {"loss": 1.0}, 1.0, 1.0)
    shared.chmod(0o755)
    with member(4001):
        (shared / "third").touch(mode=0o644)
    with (
        member(4002),
        pytest.raises(RunError, match=r"third belongs to another user: let the group write its folder \(chmod g\+w\)"),
        lock.locked(shared / "third"),
    ):
        pass
