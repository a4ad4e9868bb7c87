"""Finished runs, as figures need them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import RunError, warn
from ..runs.directory import ROW, RunDirectory
from ..runs.rows import Row, find_rows, read_row
from ..runs.unfinished import unfinished


class FinishedRun(NamedTuple):
    """Hold a finished run with its row."""

    directory: RunDirectory
    row: Row
    name: str  # for the file of a figure of this run alone
    beside: int = 0  # other seeds of the experiment that have no row


def runs_below(folders: Sequence[Path]) -> list[FinishedRun]:
    """Return all finished runs in and below the folders; warn of the others.

    Raises RunError where there is none, or if the row of one is damaged.
    """
    without_row = unfinished(folders)
    for run, reason in without_row.items():
        warn(f"{run} is left out: {reason}")
    found = {path: read_row(path) for path in find_rows(folders) if path.name == ROW}
    if not found:
        raise RunError(f"no finished run in {', '.join(map(str, folders))}: give folders such as runs/NAME/seed-0")
    return finished_runs(found, without_row)


def finished_runs(found: Mapping[Path, Row], without_row: Collection[Path]) -> list[FinishedRun]:
    """Return the runs of these rows, with the number of other seeds beside each.

    Args:
        found: the rows of their own tests, by the files `result.json`.
        without_row: the folders of the runs that have no row.
    """
    beside = Counter(run.parent for run in without_row)
    same = Counter((row.experiment, row.seed) for row in found.values())
    runs, names = [], Counter[str]()
    for path, row in found.items():
        name = f"{row.experiment}-seed-{row.seed}"
        if same[row.experiment, row.seed] > 1:  # of several folders
            name = re.sub(r"[^\w.~]+", "-", str(path.parent)).strip("-")
        names[name] += 1
        name += f"~{names[name]}" * (names[name] > 1)
        runs.append(FinishedRun(RunDirectory(path.parent), row, name, beside[path.parent.parent]))
    return runs
