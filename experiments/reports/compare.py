"""Measurements on identical episodes, compared episode by episode. No TensorFlow."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import RunError, warn
from ..runs.directory import RunDirectory
from ..runs.rows import Row, find_rows, read_row
from ..runs.run import code_of, spec_of
from ..runs.unfinished import unfinished
from ..stats import FEW, Paired, PairedTest, compare
from .formats import digits_of, number, render_cells, unit_of, with_notes
from .notes import note_on_few

LEVEL = 0.05  # of the paired test

# of a dataset: they change no task, only its images
APPEARANCE_OPTIONS = {"in_memory", "ink", "normalisation", "convert"}
TASKS = ("split", "trial", "way", "shot", "query", "episodes")


class Compared(NamedTuple):
    """Hold a measurement with its episodes."""

    path: Path  # of the row
    row: Row
    dataset: dict[str, Any]  # the section of the spec, of the dataset that was tested
    values: np.ndarray  # [E] the main metric; accuracies in percent


def measurements(paths: Sequence[Path]) -> list[Compared]:
    """Return the measurements at some paths, with their episodes.

    Args:
        paths: runs or rows, see `with_episodes`, or folders that stand for all finished runs below them, sorted by
            path.

    Raises:
        RunError: there is no finished run, or the episodes of one are damaged.

    A run below a folder that has no row is left out with a warning.
    """
    found: list[Path] = []
    for run, reason in unfinished([path for path in paths if path.is_dir()]).items():
        if run not in paths:
            warn(f"{run} is left out: {reason}")
    for path in paths:
        below = [row.parent for row in find_rows([path]) if row.name == "result.json"] if path.is_dir() else []
        found += below or [path]
    return [with_episodes(path) for path in dict.fromkeys(found)]


def with_episodes(path: Path) -> Compared:
    """Read a measurement and its episodes.

    Args:
        path: the folder of a finished run, its result.json, or a row of another test in its evaluations/.

    Raises:
        RunError: there is no such row, or its episodes are damaged.
    """
    result = RunDirectory(path).result if path.is_dir() else path
    if not result.is_file():
        raise RunError(f"{path} has no result.json: give the folder of a finished run, such as runs/NAME/seed-0")
    if result.suffix != ".json":
        raise RunError(f"{path} is no row: give the folder of a run, or a .json file in its evaluations")
    row, own = read_row(result), result.name == "result.json"
    directory = RunDirectory(result.parent if own else result.parent.parent)
    episodes = directory.episodes if own else result.with_suffix(".csv")
    values = read_episodes(episodes, row.metric)
    if row.diverged and row.metric != "accuracy":
        raise RunError(f"{episodes}: {row.diverged} of {row.episodes} tasks diverged: nothing can be compared")
    if len(values) != row.episodes or not np.isfinite(values).all():
        raise RunError(f"{episodes} has not {row.episodes} finite values of {row.metric}: nothing can be compared")
    if row.mean is None or not np.isclose(values.mean(), row.mean, rtol=1e-6, atol=1e-9):
        raise RunError(f"{episodes} was changed: its mean is {values.mean():.9g}, that of its row {row.mean}")
    if row.metric == "accuracy":
        values = 100 * _as_counted(values, row)
    dataset = spec_of(directory).dataset
    if row.test_options:
        options = {key: value for key, value in json.loads(row.test_options).items() if key not in APPEARANCE_OPTIONS}
    else:  # of a further test the tasks are the same whatever the options
        fixed = {"name"} if dataset.further_tests.get(row.split) else None
        options = dataset.model_dump(mode="json", include=fixed, exclude=APPEARANCE_OPTIONS, exclude_none=True)
    return Compared(result, row, options, values)


def _as_counted(accuracies: np.ndarray, row: Row) -> np.ndarray:
    """Return accuracies as exact fractions: right answers by the number of queries.

    In the file they are rounded to single precision and nine digits. Wilcoxon's ranks need equal differences to be
    equal.
    """
    queries = (row.way or 1) * (row.query or 1)
    right = np.round(accuracies * queries)
    return right / queries if np.allclose(right, accuracies * queries, rtol=0, atol=1e-3) else accuracies


def read_episodes(path: Path, metric: str) -> np.ndarray:
    """Read a column of an episodes.csv. Raises RunError if it is damaged, or its lines are not in order."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        if any(line["episode"] != str(number) for number, line in enumerate(lines)):
            raise ValueError("its lines are not in the order of the episodes")
        return np.array([float(line[metric]) for line in lines])
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise RunError(
            f"{path} has no whole column of {metric} ({error}): move the row of this test away (result.json, or the "
            ".json beside it), and the command that made it tests again"
        ) from None


def difference_of_tasks(one: Compared, other: Compared) -> str | None:
    """Return why two measurements are not of the same episodes; None if they are.

    The digest alone is not enough: it covers the numbers of classes and images, so splits of equal size share it.
    """
    if one.row.metric != other.row.metric:
        return f"one is measured by {one.row.metric}, the other by {other.row.metric}"
    for name in sorted(one.dataset.keys() | other.dataset.keys()):
        mine, theirs = one.dataset.get(name), other.dataset.get(name)
        moved = name == "path" and one.row.tested_content and other.row.tested_content  # these tell images apart
        if mine != theirs and not moved:
            return f"dataset.{name} is {mine} and {theirs}"
    for name in TASKS:
        mine, theirs = getattr(one.row, name), getattr(other.row, name)
        if mine != theirs:
            return f"{name} is {mine} and {theirs}"
    if one.row.episodes_digest != other.row.episodes_digest:
        return f"the episodes differ (digests {one.row.episodes_digest} and {other.row.episodes_digest})"
    images = {one.row.tested_content, other.row.tested_content} - {""}  # of older versions, which did not note it
    if len(images) > 1:
        return f"the images differ (digests {one.row.tested_content} and {other.row.tested_content})"
    mine, theirs = (
        code_of(each.row.plugins).get("test-dataset" if each.row.test_options else "dataset") for each in (one, other)
    )
    if mine and theirs and mine[-1] != theirs[-1]:
        return f"the code of the dataset differs ({' '.join(mine)} and {' '.join(theirs)})"
    return None


def refuse_other_episodes(runs: Sequence[Compared]) -> None:
    """Raise RunError unless all runs were measured on the same episodes."""
    for one, other in combinations(runs, 2):
        if reason := difference_of_tasks(one, other):
            raise RunError(
                f"{one.path} and {other.path} cannot be compared: {reason}. `metarun evaluate` tests one of them "
                "as the other was"
            )


def best_of(runs: Sequence[Compared]) -> int:
    """Return the index of the best mean: the lowest mse, otherwise the highest."""
    means = [float(run.values.mean()) for run in runs]
    return int(np.argmin(means) if runs[0].row.metric == "mse" else np.argmax(means))


def against(runs: Sequence[Compared], reference: int, test: PairedTest) -> list[Paired | None]:
    """Compare each run with the one at index `reference`, whose own entry is None."""
    return [
        None if place == reference else compare(run.values, runs[reference].values, test)
        for place, run in enumerate(runs)
    ]


def render(runs: Sequence[Compared], reference: int, test: PairedTest, form: str) -> str:
    """Return a table with one line per run as text, markdown or latex, and a note about the test."""
    from pandas import DataFrame

    row = runs[reference].row
    digits = digits_of(row.metric) + 1
    table = []
    for run, paired in zip(runs, against(runs, reference, test), strict=True):
        label = run.path.parent if run.path.name == "result.json" else run.path
        table.append(
            {
                "run": str(label),
                "algorithm": run.row.algorithm,
                "protocol": run.row.protocol or "",
                "result": number(run.values.mean(), digits),
                "difference": number(paired and paired.difference, digits, "+"),
                "ci95": number(paired and (None if math.isnan(paired.ci95) else paired.ci95), digits),
                "p": probability(paired.p) if paired else "",
            }
        )
    cells = DataFrame(table)
    shown = render_cells(cells.loc[:, (cells != "").any()], form)
    note = f"difference to {table[reference]['run']} on {row.episodes} identical episodes; {test} test"
    few = note_on_few([row.experiment] if row.episodes < FEW else [], True)
    return with_notes(shown, [*few, f"{unit_of(row.metric)}; {note}"], form)


def probability(p: float) -> str:
    """Return p with four digits, or <0.0001."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}"


def seed_mean(tests: Sequence[Compared]) -> Compared:
    """Return a measurement with the mean over seeds of each episode."""
    return tests[0]._replace(values=np.mean([test.values for test in tests], axis=0))


def best(tests: Sequence[Compared], level: float = LEVEL) -> list[int]:
    """Return the indices of the best measurement and of those that a paired t-test does not separate from it."""
    top = best_of(tests)
    return [
        place for place, test in enumerate(tests) if place == top or compare(test.values, tests[top].values).p > level
    ]
