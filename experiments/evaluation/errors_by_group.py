"""Wrong answers in tasks that are given, such as the 20 runs of Lake's one-shot test: per task, and per group of tasks.

The row has the interval over tasks, by Student's t. Queries of one task are not independent of each other, so that over
queries as if they were, Wilson's of a binomial share, is told beside it and not in its place.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

from ..errors import RunError
from ..stats import mean_and_ci95, wilson_ci95
from ..system.atomic import write_text_atomic
from .measure import Evaluation, Measurement

COLUMNS = ("run", "alphabet", "trials", "wrong", "trials_in_alphabet", "wrong_in_alphabet")


def errors_path(row: Path) -> Path:
    """Return the path of the errors beside the row of a test."""
    return row.with_name(f"{row.stem}-errors.csv")


def write_errors(path: Path, evaluation: Evaluation, measurement: Measurement) -> None:
    """Write a CSV file with the wrong answers in each task, numbered from 1, if the source names their groups."""
    groups = getattr(evaluation.stream.source, "groups", ())
    if not groups or "accuracy" not in measurement.values:
        return
    queries = evaluation.stream.columns["way"] * evaluation.stream.columns["query"]
    right = [round(accuracy * queries) for accuracy in measurement.values["accuracy"].tolist()]
    wrong = Counter()
    for group, each in zip(groups, right, strict=True):
        wrong[group] += queries - each
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, (group, each) in enumerate(zip(groups, right, strict=True), start=1):
        writer.writerow([number, group, queries, queries - each, queries * groups.count(group), wrong[group]])
    write_text_atomic(path, text.getvalue())


def told(path: Path) -> str:
    """Return the error over all trials in words, with its 95% intervals over tasks and over trials.

    Raises:
        RunError: The file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [(int(line["wrong"]), int(line["trials"])) for line in csv.DictReader(file)]
        wrong, trials = map(sum, zip(*lines, strict=True))
        error, over_runs = mean_and_ci95([100 * one / of for one, of in lines])
        low, high = wilson_ci95(wrong, trials)
    except (OSError, KeyError, TypeError, ValueError, csv.Error, ZeroDivisionError) as reason:
        raise RunError(f"{path} has no whole columns of trials and wrong answers ({reason})") from None
    return (
        f"{wrong} of {trials} trials wrong: error {error:.2f} %, ci95 {over_runs:.2f} over {len(lines)} runs; over "
        f"trials, as if they were independent, {100 * low:.1f} to {100 * high:.1f} %"
    )
