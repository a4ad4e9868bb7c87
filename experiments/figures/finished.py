"""Finished runs, as figures need them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import RunError
from ..runs.directory import RunDirectory
from ..runs.rows import Row, find_rows, read_row
from .style import plain


class Run(NamedTuple):
    """A finished run with its row."""

    directory: RunDirectory
    row: Row
    label: str  # for the legend
    name: str  # for the file of a figure of this run alone


def runs_below(folders: Sequence[Path]) -> list[Run]:
    """All finished runs in and below the folders; RunError where there is none."""
    found = [path for path in find_rows(folders) if path.name == "result.json"]
    if not found:
        raise RunError(f"no finished run in {', '.join(map(str, folders))}: give folders such as runs/NAME/seed-0")
    rows = [read_row(path) for path in found]
    alone = len({row.algorithm for row in rows}) == len({row.experiment for row in rows})
    same = Counter((row.experiment, row.seed) for row in rows)
    runs, names = [], Counter[str]()
    for path, row in zip(found, rows, strict=True):
        label = row.algorithm if alone else row.experiment  # where the algorithm says which experiment is meant
        name = f"{row.experiment}-seed-{row.seed}"
        if same[row.experiment, row.seed] > 1:  # of several folders
            label = str(path.parent)
            name = re.sub(r"[^\w.~]+", "-", label).strip("-")
        elif row.seed:
            label += f" seed {row.seed}"
        names[name] += 1
        name += f"~{names[name]}" * (names[name] > 1)
        runs.append(Run(RunDirectory(path.parent), row, plain(label), name))
    return runs
