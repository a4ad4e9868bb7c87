"""Errors of the disk name the file, and say what to do."""

import errno
import os

import pytest
import tensorflow

from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.system import atomic, lock
from metarun.experiments.system.atomic import naming, replacing, write_bytes_atomic
from metarun.experiments.system.failures import explain, noted


@pytest.mark.parametrize(
    ("number", "part"),
    [
        (
            errno.EFBIG,
            " would be larger than a file may be: raise the limit of this shell (`ulimit -f unlimited`), or ",
        ),
        (errno.ENOSPC, "): free some room, then run the same command"),
        (errno.EDQUOT, "): free some room, then run the same command"),
        (errno.EIO, ": Input/output error"),
    ],
)
def test_fault_31_an_error_of_writing_names_the_file(tmp_path, monkeypatch, number, part):
    """Reject: "File too large", of which nobody learns the file. What was there stays."""
    path = tmp_path / "step-20.npz"
    path.write_text("before")

    def fsync(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    with pytest.raises(OSError) as refused:
        write_bytes_atomic(path, b"after")
    message, code = explain(refused.value)
    assert message.startswith("error: ") and f"{path}{part}" in message and "\n" not in message and code == 1
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["step-20.npz"]


def test_fault_31_the_reason_of_a_failure_names_the_file(tmp_path):
    run = RunDirectory(tmp_path)
    with pytest.raises(OSError), noted(run.failure), naming(run.metrics):
        raise OSError(errno.EFBIG, "File too large")
    assert run.failure.read_text().startswith(f"{run.metrics} would be larger than a file may be: ")
    with pytest.raises(FileNotFoundError) as missing, naming(run.metrics):
        (tmp_path / "other").read_text()
    assert missing.value.filename == str(tmp_path / "other")  # it has a name already
    with pytest.raises(OSError) as full, lock.locked(run.lock):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename is None  # it is not the lock's


def test_fault_31_an_error_of_tensorflows_writers_names_the_file():
    """Reject an "internal error" for a limit, or for a folder of another user."""
    for kind, number in (("OutOfRange", errno.EFBIG), ("PermissionDenied", errno.EACCES), ("Unknown", errno.EIO)):
        raised = getattr(tensorflow.errors, f"{kind}Error")
        error = raised(
            None, None, f"{{{{function_node f}}}} runs/a b/events.out; {os.strerror(number)}\n\tFailed to flush"
        )
        assert explain(error) == explain(OSError(number, os.strerror(number), "runs/a b/events.out"))
    told = explain(tensorflow.errors.OutOfRangeError(None, None, "End of sequence"))[0]
    assert told.startswith("internal error, ")


def test_a_file_that_is_written_part_by_part_is_whole_or_as_it_was(tmp_path):
    """Reject parts of a file whose writing ended in an error, and temporary files that stay."""
    path = tmp_path / "deep" / "labels.csv"
    with replacing(path) as file:
        file.write(b"one\n")
        assert not path.exists()
        file.write(b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"three\n")
        raise KeyError
    assert path.read_bytes() == b"one\ntwo\n" and os.listdir(path.parent) == ["labels.csv"]
