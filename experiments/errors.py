"""The errors of a run that a user can mend, what to say of any error, and where it is noted."""

from __future__ import annotations

from collections.abc import Sequence


class Interrupted(Exception):
    """A run that was asked to stop and has written its checkpoint."""


class SpecError(Exception):
    """A spec with mistakes; `problems` has one ready line for each."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class RunError(Exception):
    """A run that cannot go on; the message is one line that says what, where and the way out."""


class InUse(RunError):
    """Another process has the run: no failure of the run."""
