"""Rows to a table: one line a measurement, published beside reproduced.

The interval over episodes and the spread over seeds are two columns, never mixed. Rows are averaged over seeds
only when everything else agrees, the spec's digest included. All seeds see the same test tasks, so `ci95` is the
mean of their intervals over those tasks; `seed std` is the sample standard deviation of their means.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..runs.rows import Row
from ..stats import exact_sum
from .formats import number, render_cells

GROUPED = (
    "experiment", "algorithm", "dataset", "split", "way", "shot", "query", "trial", "protocol", "metric", "checkpoint",
    "train_steps", "inner_steps", "tuned", "episodes", "episodes_digest", "spec_digest",
    "content_digest",
)  # fmt: skip
MEASURED = frozenset(
    {"seeds", "result", "ci95", "seed std", "published", "difference", "ece", "nll", "minutes"}
)  # all else says what was measured
HIDDEN = {  # unless lines would look alike without
    "spec": "spec_digest",
    "query": "query",
    "checkpoint": "checkpoint",
    "tasks": "episodes_digest",
    "images": "content_digest",
}


class Line(NamedTuple):
    """One line of a table: rows that differ in nothing but the seed. Accuracies are in percent."""

    row: Row  # the first of them
    seeds: int
    result: float | None
    ci95: float | None
    seed_std: float | None
    expected_calibration_error: float | None
    negative_log_likelihood: float | None
    minutes: float  # of training, a seed

    @property
    def difference(self) -> float | None:
        """Reproduced minus published."""
        if self.result is None or self.row.published is None:
            return None
        return self.result - self.row.published


def tabulate(rows: Sequence[Row]) -> list[Line]:
    """Group by everything but the seed, in the order of the experiments' names; of equal measurements one counts."""
    groups: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in sorted(rows, key=_order):
        group = groups.setdefault(tuple(getattr(row, name) for name in GROUPED), {})
        kept = group.setdefault(row.seed, row)
        if kept.mean != row.mean:
            told = (
                f"{row.experiment} seed {row.seed} was measured twice on the same tasks, as {kept.mean} and {row.mean}"
            )
            print(f"warning: {told}: the table has the first", file=sys.stderr)
    return [average(list(group.values())) for group in groups.values()]


def render(lines: Sequence[Line], form: str) -> str:
    """The table as text, csv, markdown or latex (booktabs), without a final newline."""
    if form == "csv":
        return _csv(lines)
    cells = [_cells(line) for line in lines]
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, cell in enumerate(cells):
        alike.setdefault(tuple(cell[name] for name in cell if name not in MEASURED), []).append(place)
    for places in alike.values():  # lines that only what follows tells apart
        rows = [lines[place].row for place in places]
        for shown, name in HIDDEN.items():
            if len({getattr(row, name) for row in rows}) > 1:
                for place, row in zip(places, rows, strict=True):
                    cells[place][shown] = str(getattr(row, name) or "")[:8]
    names = [name for name in cells[0] if any(row[name] for row in cells)]
    return render_cells(names, [[row[name] for name in names] for row in cells], form)


def _order(row: Row) -> tuple[Any, ...]:
    return row.experiment, row.split, row.way or 0, row.shot or 0, row.protocol or "", row.seed, row.published is None


def average(group: Sequence[Row]) -> Line:
    """The line of rows that differ in nothing but the seed."""
    scale = 100.0 if group[0].metric == "accuracy" else 1.0
    means = [row.mean for row in group]
    finite = [mean * scale for mean in means if mean is not None]
    result = _mean([row.mean for row in group], scale)
    spread = None
    if len(finite) == len(group) > 1 and result is not None:
        spread = math.sqrt(exact_sum((mean - result) * (mean - result) for mean in finite) / (len(finite) - 1))
    return Line(
        group[0],
        len(group),
        result,
        _mean([row.ci95 for row in group], scale),
        spread,
        _mean([row.expected_calibration_error for row in group], scale),
        _mean([row.negative_log_likelihood for row in group]),
        math.fsum(row.seconds for row in group) / len(group) / 60,
    )


def _mean(values: Sequence[float | None], scale: float = 1.0) -> float | None:
    known = [value for value in values if value is not None]
    return scale * exact_sum(known) / len(known) if len(known) == len(values) else None


def _cells(line: Line) -> dict[str, str]:
    row = line.row
    return {
        "experiment": row.experiment,
        **dict.fromkeys(HIDDEN, ""),
        "algorithm": row.algorithm,
        "dataset": row.dataset if row.split == "test" else f"{row.dataset} ({row.split})",
        "way": str(row.way or ""),
        "shot": str(row.shot or ""),
        "trial": row.trial or "",
        "protocol": row.protocol or "",
        "steps": str(row.train_steps or ""),
        "inner": str(row.inner_steps) if row.inner_steps else "",
        "tuned": row.tuned or "",
        "episodes": str(row.episodes),
        "seeds": str(line.seeds),
        "metric": unit_of(row.metric),
        **result_cells(line),
        "ece": number(line.expected_calibration_error, 2),
        "nll": number(line.negative_log_likelihood, 3),
        "minutes": f"{line.minutes:.1f}",
    }


def result_cells(line: Line) -> dict[str, str]:
    """What was measured, its two spreads, and the paper's number beside it."""
    row = line.row
    return numbers(row.metric, line.result, line.ci95, line.seed_std, row.published, row.published_ci95)


def numbers(
    metric: str,
    result: float | None,
    ci95: float | None,
    seed_std: float | None,
    published: float | None,
    published_ci95: float | None,
) -> dict[str, str]:
    """Of `result_cells`, as they are shown."""
    digits = digits_of(metric)
    paper = number(published, digits)
    if paper and published_ci95 is not None:
        paper += f" ± {number(published_ci95, digits)}"
    return {
        "result": number(result, digits) or "not finite",
        "ci95": number(ci95, digits),
        "seed std": number(seed_std, digits),
        "published": paper,
        "difference": "" if result is None or published is None else f"{result - published:+.{digits}f}",
    }


def unit_of(metric: str) -> str:
    """The metric, and percent where it is shown in percent."""
    return "accuracy %" if metric == "accuracy" else metric


def digits_of(metric: str) -> int:
    """Decimals that a metric is shown with."""
    return 3 if metric == "mse" else 2


def _csv(lines: Sequence[Line]) -> str:
    """Full precision, in percent where the metric is accuracy."""
    text = io.StringIO()
    own = ("seeds", "result", "ci95", "seed_std", "difference", "expected_calibration_error", "negative_log_likelihood",
           "minutes")  # fmt: skip
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*GROUPED, *own, "published", "published_ci95", "published_source"])
    for line in lines:
        row = line.row
        values = [getattr(row, name) for name in GROUPED] + [getattr(line, name) for name in own]
        writer.writerow([*values, row.published, row.published_ci95, row.published_source])
    return text.getvalue().rstrip("\n")
