"""Tell a spec, a paper's table and a file of cluster settings apart, so that each is read by the verbs that take it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from ..errors import SpecError
from .cluster import Cluster
from .experiment import Experiment

Kind = Literal["spec", "table", "cluster"]
TABLE = (
    "title", "text", "cells", "others", "part_of", "columns", "methods", "specs", "runs", "source", "overrides",
    "published",
)  # fmt: skip
KEYS: dict[Kind, Iterable[str]] = {
    "spec": Experiment.model_fields,
    "table": TABLE,
    "cluster": Cluster.model_fields,
}
USE: dict[Kind, str] = {
    "spec": "a spec: `metarun train {0}` trains it, `metarun validate {0}` checks it",
    "table": "a table: `metarun reproduce {0}` fills it, `metarun validate {0}` checks it",
    "cluster": "a file of cluster settings: METARUN_CLUSTER names one, `metarun validate {0}` checks it",
}


def kind_of(values: Mapping[str, Any]) -> Kind:
    """Return which kind of file has most of these top-level keys; in doubt it is a spec."""
    return max(KEYS, key=lambda kind: len(set(KEYS[kind]) & values.keys()))


def refuse_other(values: Mapping[str, Any], wanted: Kind, name: str | Path) -> None:
    """Raise SpecError if a file with these top-level keys is of another kind than `wanted`."""
    if (found := kind_of(values)) != wanted and set(KEYS[found]) & values.keys():
        raise SpecError([f"{name} is {USE[found].format(name)}"])


@cache
def shipped_specs() -> Mapping[str, Path]:
    """Return the files of the specs in the package by their names."""
    return _shipped("specs")


@cache
def shipped_tables() -> Mapping[str, Path]:
    """Return the files of the tables in the package by their names."""
    return _shipped("tables")


def _shipped(folder: str) -> Mapping[str, Path]:
    root = Path(str(files("metarun.experiments") / folder))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}
