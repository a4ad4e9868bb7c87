"""Train several runs, one after the other: one that fails does not stop those after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...algorithms.workers import ALONE, Workers
from ..errors import Interrupted
from ..runs.rows import Row, merge
from ..runs.run import Run
from ..system import signals
from .followers import follow
from .train import train


class Outcome(NamedTuple):
    """Hold the outcome of one run: its row, or the error that ended it."""

    run: Run
    row: Row | None
    error: Exception | None = None
    skipped: bool = False  # the run was finished before


def train_all(runs: Sequence[Run], out: Path, fresh: bool = False, workers: Workers = ALONE) -> Iterator[Outcome]:
    """Train and test each run, and yield its outcome as soon as it is known.

    OUT/results.csv is rebuilt after each run. With several workers the first failure ends the session, because the
    other workers cannot tell which run comes next.

    Args:
        runs: the runs, with their folders.
        out: the folder of all runs.
        fresh: start again; what a folder holds is renamed, never lost.
        workers: the processes that share each training.

    Raises:
        RunError: a folder holds a run of another spec. Nothing was trained.
        Interrupted: a run was stopped, after a checkpoint. The runs after it were not started.
    """
    if not fresh:
        for run in runs:
            run.refuse_another_spec()  # now, not after the hours of the runs before it
    for run in runs:
        signals.check()
        skipped = run.directory.finished and not fresh
        try:
            row = train(run, fresh, workers)
            merge(out)
        except Interrupted:
            raise
        except Exception as error:
            with contextlib.suppress(OSError):  # results.csv says of the other seeds that this one failed
                merge(out)
            yield Outcome(run, None, error)
            if workers.count > 1:
                return
        else:
            yield Outcome(run, row, skipped=skipped)


def follow_all(runs: Sequence[Run], workers: Workers, fresh: bool = False) -> None:
    """Take part in each run as a worker that is not the chief. Prints nothing: progress is the chief's.

    Args:
        runs: the runs of the chief.
        workers: the processes that share each training.
        fresh: whether the chief starts again.
    """
    runs = runs if fresh else [run.as_trained() for run in runs]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        for run in runs:
            follow(run, workers)
