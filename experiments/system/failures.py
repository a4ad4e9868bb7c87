"""Explain errors to the user, and write in a run's folder why it failed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...datasets.errors import KnownError
from ...datasets.plugins import to_blame
from ..errors import Interrupted, InUse
from . import gpus
from .atomic import write_text_atomic

LOST = re.compile(r"Collective ops is aborted.*?/task:(\d+)", re.DOTALL)  # as TensorFlow's collectives say it
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE)
REASONS = {os.strerror(number): number for number in DISK}
# as TensorFlow says of an operation that has only kernels whose sums may come out differently each time
NOT_DETERMINISTIC = re.compile(r"^(?:.*\}\} *)?(.*\bdeterminis.*?)\.?(?: *\[Op:.*)?$", re.MULTILINE | re.IGNORECASE)
OF_THE_DISK = re.compile(rf"([^\n{{}}]*); ({'|'.join(map(re.escape, REASONS))})")  # as TensorFlow says it: path; reason


@contextmanager
def noted(path: Path) -> Iterator[None]:
    """Write why the block failed, in one line, to `path`. If it does not fail, there is no such file."""
    path.unlink(missing_ok=True)
    try:
        yield
    except (Interrupted, InUse):
        raise
    except Exception as error:
        write_text_atomic(path, in_one_line(error) + "\n")
        raise


def in_one_line(error: Exception) -> str:
    """Return the message of an error in one line, without `error:`."""
    return "; ".join(explain(error)[0].removeprefix("error: ").splitlines())


def explain(error: Exception) -> tuple[str, int]:
    """Return the message of an error for the user, and the exit code."""
    if isinstance(error, KnownError):
        return error.text, error.code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_space(error.filename), 1
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return _too_large(error.filename), 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror or error}", 1
    if type(error).__module__.startswith("tensorflow.") and (disk := OF_THE_DISK.search(str(error))):
        return explain(OSError(REASONS[disk[2]], disk[2], disk[1].strip()))
    name = type(error).__name__
    exhausted = name in ("ResourceExhaustedError", "MemoryError")  # TensorFlow's is not imported for its class
    if "Could not start gRPC server" in str(error):
        return "error: this worker's port (see TF_CONFIG) is in use, or its address is not of this host", 1
    if lost := LOST.search(str(error)):
        return (
            f"error: worker {lost[1]} is lost (its own message, if there is one, says why); start all workers again: "
            "they resume from the last checkpoint",
            1,
        )
    if name == "UnimplementedError" and (said := NOT_DETERMINISTIC.search(str(error))):
        return _not_deterministic(said[1], to_blame(error)), 1
    if exhausted:
        return _out_of_memory(gpus.occupants() if name == "ResourceExhaustedError" else ""), 1
    said = f"{name}: {' '.join(str(error).split())[:300]} (`metarun -v` shows where)"
    if package := to_blame(error):
        return f"error: in the code of {package}: {said}", 1
    return f"internal error, please report it: {said}", 1


def _out_of_memory(others: str) -> str:
    return (
        f"error: out of memory{others}: the same command resumes where more memory is free; or lower train.meta_batch, "
        "train.query or the network's filters, and train again: with --fresh, or a name of its own (-s name=...)"
    )


def _not_deterministic(said: str, package: str | None) -> str:
    """Return the message for an operation that has no deterministic kernel on a GPU."""
    of = f" in the code of {package}" if package else ""
    return (
        f"error: an operation{of} cannot give equal bits twice on a GPU, and metarun computes with none that cannot "
        f"({said}): try another layer, `jit: off` if XLA is named, or the CPU (CUDA_VISIBLE_DEVICES= metarun ...)"
    )


def _too_large(path: str | None) -> str:
    where = path or "a file"
    return (
        f"error: {where} would be larger than a file may be: raise the limit of this shell (`ulimit -f unlimited`), or "
        "choose a folder on a disk that holds such files; then run the same command"
    )


def _no_space(path: str | None) -> str:
    where = path or "while writing"
    return f"error: no space left on the disk, or in its quota ({where}): free some room, then run the same command"
