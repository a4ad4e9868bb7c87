"""Errors whose message is for the user."""

from __future__ import annotations

from typing import ClassVar


class KnownError(Exception):
    """An error whose message says what is wrong, where, and what to do; it needs no traceback."""

    code: ClassVar[int] = 1  # exit code of the command
    title: ClassVar[str] = "error: "

    @property
    def text(self) -> str:
        """Return the text that the command prints."""
        return f"{self.title}{self}"


class DataError(KnownError):
    """Data that are missing, damaged or too few."""
