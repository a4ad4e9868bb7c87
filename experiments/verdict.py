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
from typing import NamedTuple

import numpy as np

from .atomic import write_text_atomic
from .compare import Compared, best_of, difference_of_tasks, with_episodes
from .errors import RunError
from .paired import compare
from .papers import Cell
from .plan import Planned, by_cell
from .results import published_columns
from .table import Bold, Line, average, digits_of, render_cells, result_cells, unit_of

LEVEL = 0.05  # of the paired test
SLACK = 1e-9  # of what is printed with two digits: 98.3 is 0.4 from 98.7


class Reproduced(NamedTuple):
    """A cell that is filled."""

    cell: Cell
    line: Line
    budget: float | None
    tests: list[Compared]  # one a seed
    bold: bool = False


def collect(planned: Sequence[Planned]) -> tuple[list[Reproduced], list[str]]:
    """The cells with a row of at least one seed, the best of each column marked; and notes: seeds that are
    missing, and why a cell or a column is not compared."""
    filled, notes = [], []
    for seeds in by_cell(planned).values():
        rows = [(one, row) for one in seeds if (row := one.row) is not None]
        if rows:
            first = rows[0][0]
            published = published_columns(first.cell.published)  # the cell's, which need not be the spec's
            line = average([row.model_copy(update=published) for _, row in rows])
            try:
                tests = [with_episodes(one.row_path) for one, _ in rows]
            except RunError as error:
                tests = []
                notes.append(f"{first.cell.name} is compared with none: {error}")
            if len(rows) < len(seeds):
                notes.append(f"{first.cell.name}: {len(rows)} of {len(seeds)} seeds")
            filled.append(Reproduced(first.cell, line, first.budget, tests))
    marks = set()
    for column in dict.fromkeys(one.cell.column for one in filled):
        cells = [one for one in filled if one.cell.column == column and one.tests]
        if len(cells) > 1:
            reason = _not_comparable(cells)
            if reason:
                notes.append(f"{column}: none is bold, {reason}")
            else:
                marks |= {cells[place].cell.name for place in best([seed_mean(one.tests) for one in cells])}
    return [one._replace(bold=one.cell.name in marks) for one in filled], notes


def write(planned: Sequence[Planned], path: Path, form: str = "text") -> str:
    """Write the table to PATH.csv, .md and .tex, and return it in another form; "" where no cell is filled."""
    filled, notes = collect(planned)
    if not filled:
        return ""
    for ending, kind in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
        write_text_atomic(Path(f"{path}.{ending}"), render(filled, notes, kind) + "\n")
    return render(filled, notes, form)


def seed_mean(tests: Sequence[Compared]) -> Compared:
    """Episode by episode the mean over seeds."""
    return tests[0]._replace(values=np.mean([test.values for test in tests], axis=0))


def best(tests: Sequence[Compared], level: float = LEVEL) -> list[int]:
    """Places of the best measurement and of those that a paired t-test does not separate from it."""
    top = best_of(tests)
    return [
        place for place, test in enumerate(tests) if place == top or compare(test.values, tests[top].values).p > level
    ]


def _not_comparable(cells: Sequence[Reproduced]) -> str | None:
    everything = [(one.cell.name, test) for one in cells for test in one.tests]
    first = everything[0]
    for name, test in everything[1:]:
        if reason := difference_of_tasks(first[1], test):
            return f"{first[0]} and {name} were not tested on the same episodes: {reason}"
    return None


def verdict(line: Line) -> str:
    """within the published interval; within 1 point (1 % of what is no percentage); short by or above by so much.

    Above is better: a lower mse, a higher accuracy or reward. `inside ci95` is said of a difference that the test
    episodes cannot tell from none.
    """
    row, difference = line.row, line.difference
    if row.published is None:
        return ""
    if difference is None:
        return "not finite"
    size = abs(difference)
    if row.published_ci95 is not None and size <= row.published_ci95 + SLACK:
        return "within the published interval"
    accuracy = row.metric == "accuracy"
    if size <= (1 if accuracy else abs(row.published) / 100) + SLACK:
        return "within 1 point" if accuracy else "within 1 %"
    worse = (difference > 0) == (row.metric == "mse")
    known = line.ci95 is not None and size <= line.ci95
    return f"{'short' if worse else 'above'} by {size:.{digits_of(row)}f}" + (", inside ci95" if known else "")


def render(filled: Sequence[Reproduced], notes: Sequence[str], form: str) -> str:
    """The table as text, csv, markdown or latex (booktabs), without a final newline."""
    if form == "csv":
        return _csv(filled)
    cells = [_cells(one) for one in filled]
    names = [name for name in cells[0] if any(row[name] for row in cells)]
    table = [[row[name] for name in names] for row in cells]
    mark = {"text": "*", "markdown": "bold", "latex": "bold"}[form]
    below = list(notes)
    if any(one.bold for one in filled):
        below.insert(
            0,
            f"{mark}: the best of its column, and those that a paired t-test on the identical episodes (mean over "
            f"seeds) does not separate from it (p > {LEVEL})",
        )
    comment = "% " if form == "latex" else ""
    return "\n".join([render_cells(names, table, form), *([""] if below else []), *(comment + line for line in below)])


def _cells(one: Reproduced) -> dict[str, str]:
    row, told = one.line.row, result_cells(one.line)
    return {
        "column": one.cell.column,
        "method": one.cell.method,
        "published": told["published"],
        "result": Bold(told["result"]) if one.bold else told["result"],
        "ci95": told["ci95"],
        "seed std": told["seed std"],
        "difference": told["difference"],
        "verdict": verdict(one.line),
        "metric": unit_of(row),
        "episodes": str(row.episodes),
        "seeds": str(one.line.seeds),
        "budget": "" if one.budget is None else f"{100 * one.budget:.3g} %",
        "protocol": row.protocol or "",
    }


def _csv(filled: Sequence[Reproduced]) -> str:
    """Full precision; accuracies in percent, the budget as a share."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["cell", "column", "method", "spec", "published", "published_ci95", "published_source", "metric", "result",
         "ci95", "seed_std", "difference", "verdict", "best", "episodes", "seeds", "train_steps", "budget", "protocol",
         "inner_steps", "checkpoint", "spec_digest", "episodes_digest"]
    )  # fmt: skip
    for one in filled:
        cell, line, row = one.cell, one.line, one.line.row
        writer.writerow(
            [cell.name, cell.column, cell.method, cell.spec, row.published, row.published_ci95, row.published_source,
             row.metric, line.result, line.ci95, line.seed_std, line.difference, verdict(line),
             str(one.bold).lower(), row.episodes, line.seeds, row.train_steps, one.budget, row.protocol,
             row.inner_steps, row.checkpoint, row.spec_digest, row.episodes_digest]
        )  # fmt: skip
    return text.getvalue().rstrip("\n")
