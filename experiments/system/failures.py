"""Explain errors to the user, and write in a run's folder why it failed."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...datasets.errors import KnownError
from ..errors import Interrupted, InUse
from .atomic import write_text_atomic

LOST = re.compile(r"Collective ops is aborted.*?/task:(\d+)", re.DOTALL)  # as TensorFlow's collectives say it
NO_SPACE = re.compile(r"([^\n{}]*); (?:No space left on device|Disk quota exceeded)")  # as TensorFlow says it


@contextmanager
def noted(path: Path) -> Iterator[None]:
    """Write why the block failed, in one line, to `path`. If it does not fail, there is no such file."""
    path.unlink(missing_ok=True)
    try:
        yield
    except (Interrupted, InUse):
        raise
    except Exception as error:
        line = explain(error)[0].removeprefix("error: ")
        write_text_atomic(path, line + "\n")
        raise


def explain(error: Exception) -> tuple[str, int]:
    """Return the message of an error for the user, and the exit code."""
    if isinstance(error, KnownError):
        return error.text, error.code
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_space(error.filename), 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror or error}", 1
    name = type(error).__name__
    exhausted = name in ("ResourceExhaustedError", "MemoryError")  # TensorFlow's is not imported for its class
    if exhausted and (full := NO_SPACE.search(str(error))):
        return _no_space(full[1].strip()), 1
    if "Could not start gRPC server" in str(error):
        return "error: this worker's port (see TF_CONFIG) is in use, or its address is not of this host", 1
    if lost := LOST.search(str(error)):
        return (
            f"error: worker {lost[1]} is lost (its own message, if there is one, says why); start all workers again: "
            "they resume from the last checkpoint",
            1,
        )
    if exhausted:
        return (
            "error: out of memory: the same command resumes where more memory is free; or lower train.meta_batch, "
            "train.query or the network's filters, and train again: with --fresh, or a name of its own (-s name=...)",
            1,
        )
    return (
        f"internal error, please report it: {name}: {' '.join(str(error).split())[:300]} (`metarun -v` shows where)",
        1,
    )


def _no_space(path: str | None) -> str:
    where = path or "while writing"
    return f"error: no space left on the disk, or in its quota ({where}): free some room, then run the same command"
