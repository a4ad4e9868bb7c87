"""Read from a run's folder the keys of its spec in which a sweep differs, and its validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..config.document import Dumper
from ..config.experiment import NOT_IN_DIGEST
from ..runs.directory import RunDirectory
from ..runs.rows import Row, as_column

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


def validation(run: RunDirectory, row: Row) -> tuple[float | None, int | None]:
    """Return the validation value of the checkpoint that a row tested, and its step; None if there is none.

    It is the best value if the best checkpoint was tested, otherwise the last one, in the unit of the row.
    """
    try:
        names, *lines = run.metrics.read_text(encoding="utf-8").splitlines()
        columns = names.split(",")
        place, found = columns.index(row.metric), [line.split(",") for line in lines if ",val," in line]
        values = [(float(cells[place]), int(cells[0])) for cells in found if cells[place]]
    except (OSError, ValueError, IndexError):
        return None, None
    if row.checkpoint == "last":
        values = values[-1:]
    finite = [(value, step) for value, step in values if math.isfinite(value)]
    best = min if row.metric == "mse" else max
    return best(finite, key=lambda each: each[0], default=(None, None))
