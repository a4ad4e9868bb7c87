"""Datasets and algorithms of other packages, found by their entry points.

A package that has, in its pyproject.toml,

    [project.entry-points."metarun.datasets"]
    cartpoles = "their_package:CartPoles"

makes `dataset: {name: cartpoles}` a valid section. `CartPoles` is a subclass of `Options` with `name:
Literal["cartpoles"]` and a method `build(dtype)` that returns a `TaskSource` or a `TrialSource`. A spec only names what
is installed; it never names code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args

from .errors import DataError, KnownError
from .options import Options


def plugins(group: str, taken: Collection[str], problem: Callable[[str, Any], str | None]) -> dict[str, Any]:
    """Return the objects that the entry points of a group load, by name.

    An invalid one is left out with a warning on standard error, so that it does not affect other experiments.

    Args:
        group: The group of entry points, such as "metarun.datasets".
        taken: The names that are already in use.
        problem: Maps a name and a loaded object to what is wrong with it, or to None.
    """
    found: dict[str, Any] = {}
    for point in entry_points(group=group):
        wrong, loaded = _load(point)
        if wrong is None and (point.name in taken or point.name in found):
            wrong = "the name is taken"
        if wrong := wrong or problem(point.name, loaded):
            package = point.dist.name if point.dist else "a package"
            print(f"warning: {group} {point.name} of {package} ({point.value}) is left out: {wrong}", file=sys.stderr)
        else:
            found[point.name] = loaded
    return found


def _load(point: EntryPoint) -> tuple[str | None, Any]:
    try:
        return None, point.load()
    except Exception as error:  # of any kind: it is someone else's code
        if isinstance(error, KnownError) and not isinstance(error, DataError):
            raise  # such as a request to stop
        return f"{type(error).__name__}: {error}", None


def misnamed(name: str, options: type[Options]) -> str | None:
    """Return what is wrong with the options behind the entry point `name`, or with their `name`; None if nothing is."""
    if not (isinstance(options, type) and issubclass(options, Options)):
        return "its options are not a subclass of metarun.datasets.options.Options"
    field = options.model_fields.get("name")
    if field is None or field.default != name or get_args(field.annotation) != (name,):
        return f'its options lack `name: Literal["{name}"] = "{name}"`'
    return None
