"""A paper's table, reproduced: the paper's number and ours, a verdict, and the best of each column in bold. No
TensorFlow.

Two cells of a column are compared on identical episodes by a paired t-test of the values of each episode, averaged
over seeds; the best one is bold, and so are those that the test does not separate from it. The test knows the spread
over episodes, not over trainings, which `seed std` shows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ..reports.compare import LEVEL
from ..reports.formats import Bold, render_cells
from ..reports.table import numbers, unit_of
from ..system.atomic import write_text_atomic
from .filled import FilledCell, collect
from .plan import Planned


def write(planned: Sequence[Planned], path: Path, form: str = "text") -> str:
    """Write the table to PATH.csv, .md and .tex, and return it in another form; "" where no cell is filled."""
    filled, notes = collect(planned)
    if not filled:
        return ""
    for ending, kind in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
        write_text_atomic(Path(f"{path}.{ending}"), render(filled, notes, kind) + "\n")
    return render(filled, notes, form)


def render(filled: Sequence[FilledCell], notes: Sequence[str], form: str) -> str:
    """The table as text, csv, markdown or latex (booktabs), without a final newline."""
    if form == "csv":
        return _csv(filled)
    cells = [_cells(one) for one in filled]
    names = [name for name in cells[0] if any(row[name] for row in cells)]
    table = [[row[name] for name in names] for row in cells]
    mark = {"text": "*", "markdown": "bold", "latex": "bold"}[form]
    below = list(notes)
    if any(one.best for one in filled):
        below.insert(
            0,
            f"{mark}: the best of its column, and those that a paired t-test on the identical episodes (mean over "
            f"seeds) does not separate from it (p > {LEVEL})",
        )
    comment = "% " if form == "latex" else ""
    return "\n".join([render_cells(names, table, form), *([""] if below else []), *(comment + line for line in below)])


def _cells(one: FilledCell) -> dict[str, str]:
    told = numbers(one.metric, one.result, one.ci95, one.seed_std, one.published, one.published_ci95)
    return {
        "column": one.column,
        "method": one.method,
        "published": told["published"],
        "result": Bold(told["result"]) if one.best else told["result"],
        "ci95": told["ci95"],
        "seed std": told["seed std"],
        "difference": told["difference"],
        "verdict": one.verdict,
        "metric": unit_of(one.metric),
        "episodes": str(one.episodes),
        "seeds": str(one.seeds),
        "budget": percent(one.budget),
        "protocol": one.protocol or "",
    }


def percent(budget: float | None) -> str:
    """As it is shown."""
    return "" if budget is None else f"{100 * budget:.3g} %"


def _csv(filled: Sequence[FilledCell]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(FilledCell.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(one.model_dump() | {"best": str(one.best).lower()} for one in filled)
    return text.getvalue().rstrip("\n")
