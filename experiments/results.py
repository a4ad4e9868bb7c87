"""Rows: one measurement each, and results.csv, rebuilt from the rows of all runs."""

from __future__ import annotations

import csv
import fcntl
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from .atomic import write_text_atomic
from .errors import RunError


class Row(BaseModel):
    """One measurement of one trained model. Accuracies are fractions; `published` is in percent, as printed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    algorithm: str
    dataset: str
    split: str
    way: int
    shot: int
    query: int
    protocol: Literal["inductive", "transductive"]
    metric: Literal["accuracy", "mse"]
    mean: float | None  # over episodes; None where it is not finite
    ci95: float | None  # half-width over episodes; the spread over seeds is the table's
    episodes: int
    seed: int
    checkpoint: Literal["best", "last"]
    train_steps: int
    inner_steps: int  # at test; 0 for learners without an inner loop
    parameters: int
    expected_calibration_error: float | None
    negative_log_likelihood: float | None
    precision: str
    device: str
    seconds: float  # of training and validation
    tasks_per_second: float | None
    version: str
    git_commit: str
    spec_digest: str
    episodes_digest: str
    published: float | None
    published_ci95: float | None
    published_source: str | None

    def as_json(self) -> dict[str, Any]:
        """For result.json."""
        return self.model_dump(mode="json")


COLUMNS = list(Row.model_fields)


class Found(NamedTuple):
    """A row and the file it came from."""

    row: Row
    path: Path


def mean_and_ci95(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of the 95% interval, 1.96 * s / sqrt(n), s with n - 1; exactly summed, at least 2 values."""
    count = len(values)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, 1.96 * math.sqrt(variance / count)


def expected_calibration_error(counts: Sequence[float], confidences: Sequence[float], right: Sequence[float]) -> float:
    """sum over bins of (n_b / n) * |right answers / n_b - mean confidence| (Guo et al. 2017, equation 3).

    Each sequence has one entry a bin: queries, the sum of their confidences, and how many were right.
    """
    total = math.fsum(counts)
    return math.fsum(abs(good - sure) for sure, good in zip(confidences, right, strict=True)) / total


def read_row(path: Path) -> Row:
    """The row in a result file; RunError for a damaged or foreign one."""
    try:
        return Row.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise RunError(
            f"{path} is not a row that this version wrote ({reason}): move it away, or train again"
        ) from None


def find_rows(folders: Sequence[Path]) -> Iterator[Path]:
    """Result files below the folders, sorted; runs that `--fresh` set aside (NAME~1) do not count."""
    found: set[Path] = set()
    for folder in folders:
        for pattern in ("result.json", "evaluations/*.json"):
            found.update(folder.rglob(pattern))
    return iter(sorted(path for path in found if not any("~" in part for part in path.parts)))


def merge(root: Path) -> Path:
    """Rebuild root/results.csv from every row below `root`; safe when many runs finish at once."""
    target = root / "results.csv"
    with open(root / ".results.lock", "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = [read_row(path) for path in find_rows([root])]
        write_text_atomic(target, rows_as_csv(rows))
    return target


def rows_as_csv(rows: Sequence[Row]) -> str:
    """All columns, full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_json() for row in rows)
    return text.getvalue()
