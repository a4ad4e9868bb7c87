"""Rows: one measurement each, and results.csv, rebuilt from the rows of all runs."""

from __future__ import annotations

import csv
import fcntl
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ..config.experiment import Published
from ..errors import RunError
from ..system.atomic import write_text_atomic
from ..system.lock import cannot_lock
from .directory import folders_below


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Measured = Annotated[float | None, BeforeValidator(_finite)]  # None where it is not finite


class Row(BaseModel):
    """One measurement of one trained model. Accuracies are fractions; `published` is in percent, as printed.

    What has a default may be missing in the row of another version.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    algorithm: str
    dataset: str
    split: str
    way: int | None = None  # of trials: None
    shot: int | None = None
    query: int | None = None
    trial: str | None = None  # what a trial is, in the words of its source
    protocol: Literal["inductive", "transductive"] | None = None
    metric: Literal["accuracy", "mse", "total_reward"]
    mean: Measured  # over episodes
    ci95: Measured  # half-width over episodes; the spread over seeds is the table's
    episodes: int
    seed: int
    checkpoint: Literal["best", "last"]
    train_steps: int
    inner_steps: int = 0  # at test; 0 for learners without an inner loop
    tuned: str | None = None  # the parameter of a classical method that was chosen, and on which trials
    parameters: int
    expected_calibration_error: Measured = None
    negative_log_likelihood: Measured = None
    regret: Measured = None  # of trials
    optimal_actions: Measured = None  # their share
    precision: str = "float32"
    device: str = ""
    seconds: float  # of training and validation
    tasks_per_second: float | None = None
    version: str = ""
    git_commit: str = ""
    spec_digest: str
    episodes_digest: str
    content_digest: str = ""  # of images that the spec does not pin: a folder, a copy of miniImageNet
    published: float | None = None
    published_ci95: float | None = None
    published_source: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For result.json."""
        return self.model_dump(mode="json")


COLUMNS = list(Row.model_fields)


def published_columns(published: Published | None) -> dict[str, Any]:
    """The paper's number, as a row has it."""
    return {
        "published": published.value if published else None,
        "published_ci95": published.ci95 if published else None,
        "published_source": published.source if published else None,
    }


def read_row(path: Path) -> Row:
    """The row in a result file; RunError for a damaged or foreign one."""
    try:
        return Row.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = error
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise RunError(
            f"{path} is not a row that this version wrote ({reason}): move it away, or train again"
        ) from None


def find_rows(folders: Sequence[Path]) -> list[Path]:
    """Result files below the folders, sorted; runs below them that `--fresh` set aside (seed-0~1) do not count."""
    found = set()
    for folder in folders:
        for path, _, files in folders_below(folder):
            tests = path.name == "evaluations"
            found |= {path / name for name in files if name == "result.json" or tests and name.endswith(".json")}
    return sorted(found)


def read_rows(folders: Sequence[Path]) -> list[Row]:
    """Every row below the folders; a damaged or foreign file is named on standard error and left out."""
    rows = []
    for path in find_rows(folders):
        try:
            rows.append(read_row(path))
        except RunError as error:
            print(f"warning: left out: {error}", file=sys.stderr)
    return rows


def merge(root: Path) -> Path:
    """Rebuild root/results.csv from every row below `root`; safe when many runs finish at once."""
    target = root / "results.csv"
    with open(root / ".results.lock", "a", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise cannot_lock(lock.name, error) from None
        write_text_atomic(target, rows_as_csv(read_rows([root])))
    return target


def rows_as_csv(rows: Sequence[Row]) -> str:
    """All columns, full precision."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.as_json() for row in rows)
    return text.getvalue()
