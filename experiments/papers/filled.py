"""The filled cells of a paper's table: means over seeds, verdicts, and the best of each column."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..errors import RunError
from ..reports.compare import Compared, best, difference_of_tasks, seed_mean, with_episodes
from ..reports.table import Line, average, digits_of
from ..runs.rows import Row, published_columns, read_row
from .plan import Planned, by_cell

SLACK = 1e-9  # of what is printed with two digits: 98.3 is 0.4 from 98.7


class FilledCell(BaseModel):
    """A cell that is filled, as TABLE.csv has it: full precision, accuracies in percent, the budget as a share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cell: str
    column: str
    method: str
    spec: str
    published: float | None = None
    published_ci95: float | None = None
    published_source: str | None = None
    metric: str
    result: float | None = None
    ci95: float | None = None
    seed_std: float | None = None
    difference: float | None = None
    verdict: str = ""
    best: bool
    episodes: int
    seeds: int
    train_steps: int
    budget: float | None = None
    protocol: str | None = None
    inner_steps: int
    checkpoint: str
    spec_digest: str
    episodes_digest: str


def collect(planned: Sequence[Planned]) -> tuple[list[FilledCell], list[str]]:
    """The cells with a row of at least one seed, the best of each column marked; and notes: seeds that are missing or
    were tested on other tasks, and why a cell or a column is not compared."""
    filled, notes, tested = [], [], []
    unknown: dict[str, str] = {}  # columns with a cell that cannot be compared
    for seeds in by_cell(planned).values():
        measured = [(one, row) for one in seeds if (row := one.row) is not None]
        alike = _most_tested([row for _, row in measured])
        rows = [each for each, kept in zip(measured, alike, strict=True) if kept]
        if others := [str(one.seed) for (one, _), kept in zip(measured, alike, strict=True) if not kept]:
            cell, first = rows[0][0].cell.name, rows[0][0].seed
            notes.append(f"{cell}: without seed {', '.join(others)}, tested on other images or tasks than seed {first}")
        if rows:
            first = rows[0][0]
            published = published_columns(first.cell.published)  # the cell's, which need not be the spec's
            filled.append((first, average([row.model_copy(update=published) for _, row in rows])))
            try:
                tested.append((first.cell, [with_episodes(one.row_path) for one, _ in rows]))
            except RunError as error:
                notes.append(f"{first.cell.name} is compared with none: {error}")
                if all(row.mean is not None for _, row in rows):  # it may be the best
                    unknown.setdefault(first.cell.column, first.cell.name)
            if len(rows) < len(seeds):
                notes.append(f"{first.cell.name}: {len(rows)} of {len(seeds)} seeds")
            if more := _further_seeds(seeds):
                notes.append(f"{first.cell.name}: seed {', '.join(map(str, more))} finished too, see --seeds")
    marks = set()
    for column in dict.fromkeys(cell.column for cell, _ in tested):
        tests = {cell.name: each for cell, each in tested if cell.column == column}
        if len(tests) > 1:
            reason = _not_comparable(tests)
            if not reason and column in unknown:
                reason = f"{unknown[column]} is compared with none"
            if reason:
                notes.append(f"{column}: none is bold, {reason}")
            else:
                names = list(tests)
                marks |= {names[place] for place in best([seed_mean(each) for each in tests.values()])}
    return [_filled(one, line, one.cell.name in marks) for one, line in filled], notes


def _further_seeds(seeds: Sequence[Planned]) -> list[int]:
    """Of a cell, whose row is there although the table was not asked for them."""
    first, asked = seeds[0], {one.seed for one in seeds}
    found = []
    for path in first.directory.path.parent.glob(f"seed-*/{first.row_path.relative_to(first.directory.path)}"):
        try:
            row = read_row(path)
        except RunError:
            continue
        if row.spec_digest == first.experiment.digest and row.seed not in asked:
            found.append(row.seed)
    return sorted(found)


def _most_tested(rows: Sequence[Row]) -> list[bool]:
    """Which seeds were tested on the same tasks as most; older versions did not note the images, "": these count as
    those of the others where all others agree."""
    images = {row.content_digest for row in rows} - {""}
    only = images.pop() if len(images) == 1 else ""
    tasks = [(row.episodes_digest, row.content_digest or only) for row in rows]
    chosen = Counter(tasks).most_common(1)[0][0] if tasks else None
    return [each == chosen for each in tasks]


def _not_comparable(tests: Mapping[str, Sequence[Compared]]) -> str | None:
    """By the names of their cells."""
    everything = [(name, test) for name, each in tests.items() for test in each]
    for (one, test), (other, another) in combinations(everything, 2):
        if reason := difference_of_tasks(test, another):
            return f"{one} and {other} were not tested on the same episodes: {reason}"
    return None


def _filled(one: Planned, line: Line, is_best: bool) -> FilledCell:
    """What the paper says of the cell, what the rows have in common, and their means."""
    cell, row = one.cell, line.row
    paper = {"cell": cell.name, "column": cell.column, "method": cell.method, "spec": cell.spec}
    common = {name: getattr(row, name) for name in FilledCell.model_fields.keys() & Row.model_fields.keys()}
    means = {name: getattr(line, name) for name in ("seeds", "result", "ci95", "seed_std", "difference")}
    told = {"verdict": verdict(line), "best": is_best, "budget": one.budget}
    return FilledCell.model_validate(paper | common | means | told)


def verdict(line: Line) -> str:
    """within the published interval; within 1 point (1 % of what is no percentage); short by or better by so much.

    Better is a lower mse, a higher accuracy or reward. `inside ci95` is said of a difference that the test
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
    return f"{'short' if worse else 'better'} by {size:.{digits_of(row.metric)}f}" + (", inside ci95" if known else "")


def read_table(path: Path) -> list[FilledCell]:
    """The cells of a TABLE.csv."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            FilledCell.model_validate({name: value for name, value in line.items() if value})
            for line in csv.DictReader(file)
        ]
