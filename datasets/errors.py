"""Errors whose message is for the user."""

from __future__ import annotations

from typing import ClassVar


class KnownError(Exception):
    """An error that says in its message what is wrong, where, and how to mend it: no traceback is needed."""

    code: ClassVar[int] = 1  # exit code of the command
    title: ClassVar[str] = "error: "

    @property
    def text(self) -> str:
        """What the command prints of it."""
        return f"{self.title}{self}"


class DataError(KnownError):
    """Data that are missing, damaged or too few."""
