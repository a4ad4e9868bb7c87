"""Rows: one measurement each, and results.csv, rebuilt from the rows of all runs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ..config.sections import Published
from ..errors import RunError, warn
from ..system.atomic import write_text_atomic
from ..system.lock import waited
from .directory import folders_below
from .unfinished import LeftOut, left_out

if TYPE_CHECKING:  # pandas takes most of a second to import, which the quick verbs do not have
    from pandas import DataFrame
    from pandas.api.extensions import ExtensionArray


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


ARROW = " -> "  # between the datasets of training and test, where they differ
Metric = Literal["accuracy", "mse", "auroc_unknown", "total_reward"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Judged = Literal["", "unknown", "calibrated"]
Measured = Annotated[float | None, BeforeValidator(_finite)]  # None where it is not finite


class Row(BaseModel):
    """Hold a measurement of a trained model. Accuracies are fractions; `published` is in percent, as printed.

    Fields with a default may be missing in rows of other versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    algorithm: str
    dataset: str  # of the training and the test, or TRAINING -> TEST where the test is on another dataset
    split: str
    way: int | None = None  # of trials: None
    shot: int | None = None
    query: int | None = None
    trial: str | None = None  # what a trial is, in the words of its source
    protocol: Literal["inductive", "transductive"] | None = None
    metric: Metric
    judged: Judged = ""  # unknown: whether classes outside the task are told; calibrated: with a fitted temperature
    mean: Measured  # over episodes
    ci95: Measured  # half-width over episodes; the spread over seeds is the table's
    episodes: int
    seed: int
    checkpoint: Literal["best", "last"]
    train_steps: int
    stopped_early: bool | None = None  # whether train.patience ended the training; None without it
    inner_steps: int = 0  # at test; 0 for learners without an inner loop
    head: str = ""  # the head of the test on the features of the run, JSON; "": the method's own
    tuned: str | None = None  # the parameter of a classical method that was chosen, and on which trials
    selected_of: int | None = None  # the configurations among which validation chose it, tests withheld
    parameters: int
    expected_calibration_error: Measured = None
    expected_calibration_error_uncalibrated: Measured = None  # before the logits were divided by the temperature
    temperature: Measured = None  # of a calibrated test
    negative_log_likelihood: Measured = None
    regret: Measured = None  # of trials
    optimal_actions: Measured = None  # their share
    diverged: int | None = None  # tasks with an output that is not finite; None in rows of versions that did not count
    precision: str = "float32"
    device: str = ""
    seconds: float  # of training and validation
    tasks_per_second: float | None = None
    version: str = ""
    git_commit: str = ""
    spec_digest: str
    episodes_digest: str
    content_digest: str = ""  # of images that the spec does not pin: a folder, a copy of miniImageNet
    weights_digest: str = ""  # of the tested checkpoint; "" where there is none, and in rows of older versions
    init: str = ""  # weights_digest of the run whose weights the training started from
    test_options: str = ""  # of a test on another dataset: its options, JSON; `dataset` is then "glyphs -> omniglot"
    test_content_digest: str = ""  # of the images of that dataset, as content_digest
    plugins: str = ""  # other packages whose code was run: section, name, version, digest of the source
    published: float | None = None
    published_ci95: float | None = None
    published_source: str | None = None

    @property
    def trained_on(self) -> str:
        """Return the name of the dataset of the training."""
        return self.dataset.partition(ARROW)[0]

    @property
    def tested_content(self) -> str:
        """Return the digest of the images that were tested."""
        return self.test_content_digest if self.test_options else self.content_digest

    def as_json(self) -> dict[str, Any]:
        """Return the content of result.json."""
        return self.model_dump(mode="json")


def _dtype(annotation: Any) -> str:
    kinds = get_args(annotation) or (annotation,)
    found = (dtype for kind, dtype in ((bool, "boolean"), (float, "Float64"), (int, "Int64")) if kind in kinds)
    return next(found, "string")


DTYPES = {name: _dtype(field.annotation) for name, field in Row.model_fields.items()}  # in a DataFrame
DTYPES |= {"left_out": "string"}  # of results.csv alone: what it says of other seeds is no part of a row
COLUMNS = list(DTYPES)


def published_columns(published: Published | None) -> dict[str, Any]:
    """Return the paper's number as columns of a row."""
    return {
        "published": published.value if published else None,
        "published_ci95": published.ci95 if published else None,
        "published_source": published.source if published else None,
    }


def read_row(path: Path) -> Row:
    """Read the row of a result file; raises RunError if it is damaged or no row."""
    try:
        return Row.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        reason = error
        if isinstance(error, PermissionError):
            raise RunError(f"{path} cannot be read: {error.strerror}") from None
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise RunError(
            f"{path} is not a row that this version wrote ({reason}): move it away, or train again"
        ) from None


def find_rows(folders: Sequence[Path]) -> list[Path]:
    """Return the result files below the folders, sorted, without those of runs that `--fresh` set aside (seed-0~1)."""
    found = set()
    for folder in folders:
        for path, _, files in folders_below(folder):
            tests = path.name == "evaluations"
            found |= {path / name for name in files if name == "result.json" or tests and name.endswith(".json")}
    return sorted(found)


def read_rows(folders: Sequence[Path]) -> dict[Path, Row]:
    """Return every row below the folders by its file. A damaged file is left out with a warning."""
    rows = {}
    for path in find_rows(folders):
        try:
            rows[path] = read_row(path)
        except RunError as error:
            warn(f"left out: {error}")
    return rows


def merge(root: Path) -> None:
    """Write root/results.csv from every row below `root`. Safe when many runs finish at once."""
    with waited(root / ".results.lock"):
        rows = read_rows([root])
        beside = left_out_of(rows, [root]).beside
        write_text_atomic(root / "results.csv", rows_as_csv(rows.values(), [beside[path] for path in rows]))


def left_out_of(rows: Mapping[Path, Row], folders: Sequence[Path]) -> LeftOut:
    """Return the runs below the folders that have no row; `rows` has those that can be read, by their files."""
    return left_out({path: (row.seed, row.spec_digest) for path, row in rows.items()}, folders)


def as_csv(frame: DataFrame) -> str:
    """Return a DataFrame as CSV, in full precision whatever NumPy's print options are."""
    from numpy import printoptions

    with printoptions(legacy=False):
        return frame.to_csv(index=False, lineterminator="\n")


def rows_as_csv(rows: Collection[Row], beside: Sequence[str] = ()) -> str:
    """Return the text of results.csv: all columns, full precision; `left_out` has the seeds beside each row."""
    return as_csv(as_frame(rows, beside))


def as_frame(rows: Collection[Row], beside: Sequence[str] = ()) -> DataFrame:
    """Return rows as a DataFrame with the columns and dtypes of `DTYPES`. An empty text is a missing one.

    Args:
        rows: the rows.
        beside: the column `left_out`, see `unfinished.LeftOut`; none is left out by default.
    """
    from pandas import DataFrame

    values = {name: [getattr(row, name) for row in rows] for name in Row.model_fields}
    values["left_out"] = list(beside) or [None] * len(rows)
    return DataFrame({name: as_column(values[name], dtype) for name, dtype in DTYPES.items()})


def read_frame(path: Path, dtypes: Mapping[str, str]) -> DataFrame:
    """Read a CSV as a DataFrame with the columns and dtypes of `dtypes`.

    Numbers keep every bit and texts every letter: `0123`, `1e5`, `NA` and `nan` stay texts in a column of texts. Only
    an empty cell is missing, and so is a column that the file lacks. Raises RunError for a file that cannot be read so.
    """
    import pandas

    try:
        cells = pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8").fillna("")
        cells = cells.reindex(columns=list(dtypes), fill_value="")
        return pandas.DataFrame({name: as_column(cells[name], dtype) for name, dtype in dtypes.items()})
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as a table ({error}): restore it, or move it away") from None


def as_column(values: Iterable[Any], dtype: str) -> ExtensionArray:
    """Return values, or their texts in a CSV, as a column of a DataFrame; None and "" are missing."""
    from pandas import array

    convert = {"Float64": float, "Int64": int, "boolean": lambda value: str(value) in ("True", "true")}.get(dtype, str)
    return array([None if value is None or value == "" else convert(value) for value in values], dtype=dtype)
