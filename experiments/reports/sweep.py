"""Read from a run's folder the keys of its spec in which a sweep differs, and its validations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from ..config.document import Dumper
from ..config.experiment import NOT_IN_DIGEST
from ..runs.directory import RunDirectory
from ..runs.rows import METRICS, Row, as_column

if TYPE_CHECKING:
    from pandas import DataFrame

SAFE_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
STRUCTURE = ["algorithm.name", "network.name", "dataset.name"]


class _Loader(SAFE_LOADER):
    """Read the output of `Dumper` with the C parser: a table of a thousand runs has a thousand specs."""


_Loader.yaml_implicit_resolvers = Dumper.yaml_implicit_resolvers


def swept(specs: Sequence[Path], contents: Sequence[str] = ()) -> DataFrame:
    """Return the keys in which the runs of a sweep differ, and their values in each of these resolved specs.

    A key belongs to a sweep if two of the specs differ in it and in nothing else. Columns are dotted keys, such as
    `algorithm.inner_lr`, with the dtypes Int64, Float64, boolean or string. Keys that cannot change a result do not
    count, nor does the section `test`, whose values are in the rows. A spec that cannot be read has no values.

    Args:
        specs: their files.
        contents: digest of the images of each, or "" if unknown: the same images in two places are one value.
    """
    from pandas import DataFrame

    options = [dict(_options(path)) for path in specs]
    places: dict[tuple[str, Any], Any] = {}
    for each, content in zip(options, contents, strict=False):
        if content and "dataset.path" in each:
            each["dataset.path"] = places.setdefault((content, each.get("dataset.name")), each["dataset.path"])
    values = DataFrame(options, dtype=object)
    values = values.where(values.notna(), None)
    keys: list[str] = []
    structure = [name for name in STRUCTURE if name in values]
    for _, group in values.drop_duplicates().groupby(structure, dropna=False, sort=False) if structure else ():
        varying = list(group.columns[group.nunique(dropna=False) > 1])
        for key in varying:
            others = [name for name in varying if name != key]
            if not others or any(group.duplicated(others)):
                keys.append(key)
    found = [key for key in dict.fromkeys(keys) if "." in key]  # the others are columns of every row
    return DataFrame({key: _typed(list(values[key])) for key in found}, index=values.index)


def _options(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the training: dotted keys and their values, lists as texts."""
    try:
        spec = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return
    for section, given in spec.items() if isinstance(spec, dict) else ():
        if section in NOT_IN_DIGEST | {"test"}:
            continue
        options = (
            {f"{section}.{key}": value for key, value in given.items()} if isinstance(given, dict) else {section: given}
        )
        for key, value in options.items():
            yield key, str(value) if isinstance(value, list | dict) else value


def _typed(values: Sequence[Any]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    for dtype, allowed in (("boolean", {bool}), ("Int64", {int}), ("Float64", {int, float})):
        if kinds <= allowed:
            return as_column(values, dtype)
    return as_column(values, "string")


class Validated(NamedTuple):
    """Hold a validation of a run, in the unit of its row."""

    step: int
    metric: str
    value: float
    ci95: float  # half-width over the validation tasks; NaN where there is none


def validations(run: RunDirectory, metric: str = "") -> list[Validated]:
    """Return the validations of a run, the first one first; none if its metrics.csv cannot be read.

    A last line without its end is not counted: it is being written, or was cut short.

    Args:
        run: the folder of the run.
        metric: the metric that is read; default: the main one, the first of METRICS that a validation has.
    """
    try:
        names, *lines = run.metrics.read_text(encoding="utf-8").split("\n")[:-1]
        columns, found = names.split(","), [line.split(",") for line in lines if ",val," in line]
        if not metric:
            metric = next(name for name in METRICS if name in columns and found[0][columns.index(name)])
        place, width = columns.index(metric), columns.index("ci95") if "ci95" in columns else -1
        return [
            Validated(
                int(cells[0]), metric, float(cells[place]), float(cells[width] or "nan") if width > 0 else math.nan
            )
            for cells in found
            if cells[place]
        ]
    except (OSError, ValueError, IndexError, StopIteration):
        return []


def deciding(found: Sequence[Validated], checkpoint: str) -> Validated | None:
    """Return the validation of the checkpoint that a test uses; None if there is none with a finite value.

    It is the best one, of equal ones the first, for the best checkpoint, and otherwise the last one.

    Args:
        found: the validations of a run, in their order.
        checkpoint: best or last.
    """
    finite = [one for one in (found[-1:] if checkpoint == "last" else found) if math.isfinite(one.value)]
    best = min if finite and is_lower_better(finite[0].metric) else max
    return best(finite, key=lambda one: one.value, default=None)


def is_lower_better(metric: str) -> bool:
    """Return whether the smaller of two values of a metric is the better one."""
    return metric == "mse"


def validation(run: RunDirectory, row: Row) -> tuple[float | None, int | None]:
    """Return the validation value of the checkpoint that a row tested, and its step; None if there is none."""
    found = deciding(validations(run, row.metric), row.checkpoint)
    return (found.value, found.step) if found else (None, None)
