"""Finished runs, as figures need them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import RunError, warn
from ..runs.directory import RunDirectory
from ..runs.rows import Row, find_rows, read_row
from ..runs.unfinished import unfinished


class FinishedRun(NamedTuple):
    """A finished run with its row."""

    directory: RunDirectory
    row: Row
    name: str  # for the file of a figure of this run alone
    beside: int = 0  # other seeds of the experiment that have no row


def runs_below(folders: Sequence[Path]) -> list[FinishedRun]:
    """Return all finished runs in and below the folders; warn of the others. Raise RunError where there is none."""
    without_row = unfinished(folders)
    for run, reason in without_row.items():
        warn(f"{run} is left out: {reason}")
    found = [path for path in find_rows(folders) if path.name == "result.json"]
    if not found:
        raise RunError(f"no finished run in {', '.join(map(str, folders))}: give folders such as runs/NAME/seed-0")
    return finished_runs(found, without_row)


def finished_runs(found: Sequence[Path], without_row: Collection[Path]) -> list[FinishedRun]:
    """Return the runs of these result files, with the number of other seeds beside each.

    Args:
        found: the files `result.json`. Raises RunError if one is damaged.
        without_row: the folders of the runs that have no row.
    """
    beside = Counter(run.parent for run in without_row)
    rows = [read_row(path) for path in found]
    same = Counter((row.experiment, row.seed) for row in rows)
    runs, names = [], Counter[str]()
    for path, row in zip(found, rows, strict=True):
        name = f"{row.experiment}-seed-{row.seed}"
        if same[row.experiment, row.seed] > 1:  # of several folders
            name = re.sub(r"[^\w.~]+", "-", str(path.parent)).strip("-")
        names[name] += 1
        name += f"~{names[name]}" * (names[name] > 1)
        runs.append(FinishedRun(RunDirectory(path.parent), row, name, beside[path.parent.parent]))
    return runs
