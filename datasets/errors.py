"""Errors whose message is for the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class KnownError(Exception):
    """Report an error whose message says what is wrong, where, and what to do; it needs no traceback."""

    code: ClassVar[int] = 1  # exit code of the command
    title: ClassVar[str] = "error: "

    @property
    def text(self) -> str:
        """Return the text that the command prints."""
        return f"{self.title}{self}"


def counted(number: int, noun: str, several: str = "") -> str:
    """Return a number with its noun, `1 run` or `2 runs`; `several` is the plural if it does not end in s alone."""
    return f"{number} {noun if number == 1 else several or noun + 's'}"


class DataError(KnownError):
    """Report data that are missing, damaged or too few."""


def first_of(some: Sequence[str], most: int) -> str:
    """Return the first `most` of some words, and how many more there are: `a, b and 3 more`."""
    return ", ".join(some[:most]) + (f" and {len(some) - most} more" if len(some) > most else "")


def listed(heading: str, problems: Sequence[str], most: int = 100) -> str:
    """Return a message with a line for each problem, at most `most`; one problem alone needs no heading."""
    if len(problems) == 1:
        return problems[0]
    more = [f"  and {len(problems) - most} more"] if len(problems) > most else []
    return "\n".join([f"{heading}:", *(f"  {each}" for each in problems[:most]), *more])
