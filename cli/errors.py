"""What a user is told of an error."""

from __future__ import annotations

import errno
import re
import sys
import traceback

import click

from ..datasets.errors import DataError
from ..experiments.errors import RunError

NO_SPACE = re.compile(r"([^\n{}]*); No space left on device")  # as TensorFlow's file system says it


def report(error: Exception, where: str = "") -> int:
    """Print the error, with -v where it came from, and return the exit code."""
    message, code = explain(error)
    click.echo(where + message, err=True)
    if sys.argv[1:2] in (["-v"], ["--verbose"]):
        traceback.print_exception(error)
    return code


def explain(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit code."""
    kind = type(error).__name__
    if kind == "SpecError":
        return str(error), 2
    if kind == "Interrupted":
        return str(error), 130
    if isinstance(error, DataError | RunError):
        return f"error: {error}", 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _no_space(error.filename), 1
    if isinstance(error, OSError):
        return f"error: {error.filename or ''}: {error.strerror or error}", 1
    if kind == "ResourceExhaustedError" and (full := NO_SPACE.search(str(error))):
        return _no_space(full[1].strip()), 1
    if kind == "ResourceExhaustedError":
        return "error: out of memory: lower train.meta_batch, the network's filters, or the number of queries", 1
    return (
        f"internal error, please report it: {kind}: {' '.join(str(error).split())[:300]} (`metarun -v` shows where)",
        1,
    )


def _no_space(path: str | None) -> str:
    return f"error: no space left on the disk ({path or 'while writing'}): free some room, then run the same command"
