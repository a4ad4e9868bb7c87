"""Train the configurations of a search in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import Interrupted, InUse, RunError
from ..runs.run import Run
from ..system import signals
from ..system.failures import in_one_line
from ..training.train import train_until
from .results import diverged
from .table import failed, stopping


def train_here(runs: Sequence[Run], report: Callable[[str], object]) -> None:
    """Train the runs that are not finished up to `until`, without tests. One that diverges does not stop the others.

    Args:
        runs: the runs.
        report: is called with one line for each run that diverges.

    Raises:
        Interrupted: a run was stopped, after its checkpoint.
        InUse: another process trains a run.
        RunError: a run failed for another reason, such as a full disk, which would make it the worst wrongly.
    """
    for run in (run for run in runs if not run.finished):
        signals.check()
        try:
            train_until(run)
        except (Interrupted, InUse):
            raise
        except Exception as error:
            reason = in_one_line(error)
            if not diverged(reason):
                raise RunError(stopping(run, reason)) from error
            report(failed(run, reason))
