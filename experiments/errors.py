"""The errors of an experiment that a user can mend, each with its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..datasets.errors import KnownError


class Interrupted(KnownError):
    """A run that was asked to stop and has written its checkpoint."""

    code: ClassVar = 130
    title: ClassVar = ""


class SpecError(KnownError):
    """A spec with mistakes; `problems` has one line for each, with its place."""

    code: ClassVar = 2
    title: ClassVar = ""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class RunError(KnownError):
    """A run that cannot start or continue; the message is one line."""


class InUse(RunError):
    """A run that another process has: not a failure of the run."""
