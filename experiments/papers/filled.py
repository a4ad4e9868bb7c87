"""The filled cells of a paper's table: means over seeds, verdicts, and the best of each column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from ..reports.compare import Compared, best, difference_of_tasks, seed_mean, with_episodes
from ..reports.formats import digits_of, records
from ..reports.mixed import notes_on_origins
from ..reports.notes import seeds_note
from ..reports.table import averaged
from ..runs.directory import RunDirectory
from ..runs.rows import Row, as_column, as_csv, as_frame, published_columns, read_frame, read_row
from ..runs.run import digest_of
from ..runs.unfinished import as_text, reason_of, reason_untested
from .plan import Planned, Stage, by_cell

if TYPE_CHECKING:
    from pandas import DataFrame

NOT_BEGUN = "not trained yet"
SLACK = 1e-9  # of what is printed with two digits: 98.3 is 0.4 from 98.7

CELLS = {  # columns and dtypes of TABLE.csv: full precision, accuracies in percent, the budget as a share
    "cell": "string", "column": "string", "method": "string", "spec": "string", "published": "Float64",
    "published_ci95": "Float64", "published_source": "string", "metric": "string", "result": "Float64",
    "ci95": "Float64", "seed_std": "Float64", "difference": "Float64", "verdict": "string", "best": "boolean",
    "episodes": "Int64", "seeds": "Int64", "train_steps": "Int64", "budget": "Float64", "protocol": "string",
    "inner_steps": "Int64", "checkpoint": "string", "spec_digest": "string", "episodes_digest": "string",
    "left_out": "string", "stopped_early": "Int64", "steps": "string", "precision": "string",
}  # fmt: skip
SOMETIMES = ("left_out", "stopped_early", "steps", "precision")  # not in a table without such cells


def collect(planned: Sequence[Planned]) -> tuple[DataFrame, list[str]]:
    """Return the cells with a row of at least one seed, and notes.

    The cells have the columns and dtypes of `CELLS`, the best of each column marked. The notes name cells whose seeds
    all failed and seeds that were tested on other tasks, and say why a cell or a column is not compared.
    """
    rows: list[Row] = []
    names: list[str] = []  # the cell of each row
    beside: list[str] = []  # the seeds of its cell that have none
    filled, notes = {}, []
    tested: dict[str, list[Compared]] = {}
    unknown: dict[str, str] = {}  # columns with a cell that cannot be compared
    for name, seeds in by_cell(planned).items():
        measured = _measured(seeds, notes)
        left_out = _left_out(seeds, {one.seed for one, _ in measured})
        if not measured:
            if any(reason != NOT_BEGUN for reason in left_out.values()):
                notes.append(seeds_note(name, 0, as_text(left_out)))
            continue
        cell = seeds[0].cell
        filled[name] = measured[0][0]
        published = published_columns(cell.published)  # the cell's, which need not be the spec's
        rows += [row.model_copy(update=published) for _, row in measured]
        names += [name] * len(measured)
        beside += [as_text(left_out)] * len(measured)
        if gone := sum(row.diverged or 0 for _, row in measured):
            notes.append(f"{name}: {gone} of {sum(row.episodes for _, row in measured)} test tasks diverged")
        try:
            tested[name] = [with_episodes(one.row_path) for one, _ in measured]
        except RunError as error:
            notes.append(f"{name} is compared with none: {error}")
            if all(row.mean is not None for _, row in measured):  # it may be the best
                unknown.setdefault(cell.column, name)
        if more := _further_seeds(seeds):
            notes.append(f"{name}: seed {', '.join(map(str, more))} finished too, see --seeds")
    marks = _best_of_columns({name: filled[name].cell.column for name in tested}, tested, unknown, notes)
    lines = averaged(as_frame(rows, beside).assign(cell=names), ["cell"])
    return _filled(lines, filled, marks), [*notes, *notes_on_origins(lines, "cell")]


def _measured(seeds: Sequence[Planned], notes: list[str]) -> list[tuple[Planned, Row]]:
    """Return the seeds of a cell that have a row, without those that were tested on other tasks than most."""
    measured = [(one, row) for one in seeds if (row := one.row) is not None]
    alike = _most_tested([row for _, row in measured])
    kept = [each for each, same in zip(measured, alike, strict=True) if same]
    if others := [str(one.seed) for (one, _), same in zip(measured, alike, strict=True) if not same]:
        cell, first = kept[0][0].cell.name, kept[0][0].seed
        notes.append(f"{cell}: without seed {', '.join(others)}, tested on other images or tasks than seed {first}")
    return kept


def _left_out(seeds: Sequence[Planned], measured: Collection[int]) -> dict[int, str]:
    """Return the seeds of a cell that are not measured, and why."""
    return {one.seed: _why_absent(one) for one in seeds if one.seed not in measured}


def _why_absent(one: Planned) -> str:
    stage, reason = one.state.stage, reason_of(one.directory)
    if stage is Stage.FINISHED:
        return "tested on other images or tasks"
    if stage is Stage.UNTESTED:
        return reason_untested(one.directory)
    if stage is Stage.MISSING and not (reason or "").startswith("failed"):
        return NOT_BEGUN
    if stage is Stage.INTERRUPTED or stage is Stage.MISSING or (reason or "").startswith("not readable"):
        return reason or "not finished"
    return f"({stage.value})"


def _best_of_columns(
    columns: Mapping[str, str], tested: Mapping[str, list[Compared]], unknown: Mapping[str, str], notes: list[str]
) -> set[str]:
    """Return the names of the best cells of each column; `columns` has the column of each cell that was tested."""
    marks = set()
    for column in dict.fromkeys(columns.values()):
        tests = {name: each for name, each in tested.items() if columns[name] == column}
        if len(tests) > 1:
            reason = _not_comparable(tests)
            if not reason and column in unknown:
                reason = f"{unknown[column]} is compared with none"
            if reason:
                notes.append(f"{column}: none is bold, {reason}")
            else:
                names = list(tests)
                marks |= {names[place] for place in best([seed_mean(each) for each in tests.values()])}
    return marks


def _further_seeds(seeds: Sequence[Planned]) -> list[int]:
    """Return the seeds of a cell that have a row, but were not asked for."""
    first, asked = seeds[0], {one.seed for one in seeds}
    found = []
    relative = first.row_path.relative_to(first.directory.path)
    for path in first.directory.path.parent.glob(f"seed-*/{relative}"):
        try:
            row = read_row(path)
        except RunError:
            continue
        directory = RunDirectory(path.parents[len(relative.parts) - 1])
        if row.seed not in asked and digest_of(directory, row) == first.experiment.digest:
            found.append(row.seed)
    return sorted(found)


def _most_tested(rows: Sequence[Row]) -> list[bool]:
    """Return for each row whether it was measured on the same tasks as most.

    Rows of older versions do not name their images. They count as those of the others if all others agree.
    """
    images = {row.content_digest for row in rows} - {""}
    only = images.pop() if len(images) == 1 else ""
    tasks = [(row.episodes_digest, row.content_digest or only, row.test_content_digest) for row in rows]
    chosen = Counter(tasks).most_common(1)[0][0] if tasks else None
    return [each == chosen for each in tasks]


def _not_comparable(tests: Mapping[str, Sequence[Compared]]) -> str | None:
    """Return why the tests of some cells, given by name, cannot be compared; None if they can."""
    everything = [(name, test) for name, each in tests.items() for test in each]
    for (one, test), (other, another) in combinations(everything, 2):
        if reason := difference_of_tasks(test, another):
            return f"{one} and {other} were not tested on the same episodes: {reason}"
    return None


def _filled(lines: DataFrame, filled: Mapping[str, Planned], marks: Collection[str]) -> DataFrame:
    """Return the columns of `CELLS`: the paper's data of each cell, the common data of its rows, and their means.

    Args:
        lines: one line per cell, the means over its rows.
        filled: a planned seed of each cell, in the order of the lines.
        marks: the names of the best cells.
    """
    planned = list(filled.values())
    columns = {
        "column": [one.cell.column for one in planned],
        "method": [one.cell.method for one in planned],
        "spec": [one.cell.spec for one in planned],
        "verdict": [verdict(line) for line in records(lines)],
        "best": [name in marks for name in filled],
        "budget": [one.budget for one in planned],
    }
    lines = lines.assign(**{name: as_column(values, CELLS[name]) for name, values in columns.items()})
    early = lines["stopped_early"].gt(0).fillna(False)
    lines = lines.assign(
        stopped_early=lines["stopped_early"].where(early),
        steps=lines["steps"].where(early),
        precision=lines["precision"].where(lines["precision"] != "float32"),
    )
    return lines.loc[:, list(CELLS)]


def verdict(line: Mapping[str, Any]) -> str:
    """Return the verdict on a line of `averaged` beside the published number; "" without one.

    It is "within the published interval", "within 1 point" (1 % if the metric is no percentage), or "short by" or
    "better by" a difference. Better is a lower mse, or a higher accuracy or reward. "inside ci95" marks a difference
    that the test episodes cannot distinguish from none.
    """
    if line["published"] is None:
        return ""
    if line["difference"] is None:
        return "not finite"
    size = abs(line["difference"])
    if line["published_ci95"] is not None and size <= line["published_ci95"] + SLACK:
        return "within the published interval"
    accuracy = line["metric"] == "accuracy"
    if size <= (1 if accuracy else abs(line["published"]) / 100) + SLACK:
        return "within 1 point" if accuracy else "within 1 %"
    worse = (line["difference"] > 0) == (line["metric"] == "mse")
    known = line["ci95"] is not None and size <= line["ci95"]
    words = f"{'short' if worse else 'better'} by {size:.{digits_of(line['metric'])}f}"
    return words + (", inside ci95" if known else "")


def read_table(path: Path) -> DataFrame:
    """Return the cells of a TABLE.csv, with the columns and dtypes of `CELLS`."""
    return read_frame(path, CELLS)


def table_as_csv(cells: DataFrame) -> str:
    """Return the text of TABLE.csv. It has `left_out` only where seeds are, `stopped_early` and `steps` only where
    trainings ended early, `precision` only where it is not float32, like tables of older versions.
    """
    words = as_column([str(best).lower() for best in cells["best"]], "string")
    cells = cells.assign(best=words)
    return as_csv(cells.drop(columns=[name for name in SOMETIMES if not list(cells[name].dropna())]))
