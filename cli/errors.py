"""Print errors for the user."""

from __future__ import annotations

import sys
import traceback

import click

from ..experiments.system.failures import explain


def resuming(message: str) -> str:
    """Return the message. Where it names the command that resumes, it says to leave out --fresh."""
    if "--fresh" not in sys.argv:
        return message
    for words in ("the same command", "start all workers again"):
        message = message.replace(words, f"{words} without --fresh")
    return message


def report(error: Exception, where: str = "") -> int:
    """Print the error after `where`, with -v also its traceback, and return the exit code."""
    message, code = explain(error)
    click.echo(where + resuming(message), err=True)
    if sys.argv[1:2] in (["-v"], ["--verbose"]):
        traceback.print_exception(error)
    return code
