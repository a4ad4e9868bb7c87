"""The errors that a user can mend, each with its exit code; warnings, and names that were probably meant."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import ClassVar

from ..datasets.errors import KnownError

LONGEST = 3000  # characters of a line of a message


class Interrupted(KnownError):
    """Report a run that was asked to stop and has written its checkpoint."""

    code: ClassVar = 130
    title: ClassVar = ""


class SpecError(KnownError):
    """Report a spec with mistakes; `problems` has one line for each, with its place."""

    code: ClassVar = 2
    title: ClassVar = ""

    def __init__(self, problems: Sequence[str]):
        self.problems = [_on_one_line(each) for each in problems]
        super().__init__("\n".join(self.problems))


def _on_one_line(text: str) -> str:
    """Return the text with escapes for line ends and for what cannot be printed; a very long one is cut."""
    shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."


class RunError(KnownError):
    """Report a run that cannot start or continue; the message is one line."""


class Diverged(RunError):
    """Report a training whose loss is not finite: the fault of its settings, and of nothing else."""

    told: ClassVar = re.compile(r"\bthe loss is (nan|-?inf)\b")  # in the one line that a run keeps of its failure

    def __init__(self, where: object, loss: float, step: int, what_is_kept: str):
        super().__init__(f"{where}: the loss is {loss} at step {step}; {what_is_kept}")


class InUse(RunError):
    """Report a run that another process has: not a failure of the run."""


def warn(text: str) -> None:
    """Print a warning to the standard error stream."""
    print(f"warning: {text}", file=sys.stderr)


@cache
def warn_once(text: str) -> None:
    """Print a warning to the standard error stream, unless this process has printed it before."""
    warn(text)


def suggest(name: str, known: Iterable[str], otherwise: str, most: int = 1) -> str:
    """Return a suggestion for a name that is not known.

    Args:
        name: the unknown name.
        known: the known names. Those whose last word is the name, such as train.shot for shot, come first.
        otherwise: the suggestion if no known name is near.
        most: number of names that are near, without those of which it is the last word.

    Returns:
        "did you mean A or B?", or `otherwise`.
    """
    known = list(known)
    near = [each for each in known if each.endswith(f".{name}")] or difflib.get_close_matches(name, known, n=most)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
