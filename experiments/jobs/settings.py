"""Combine the settings of a cluster: the command line overrides the spec, and the spec overrides the user's file.

No TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config.cluster import Cluster
from ..config.document import read
from ..config.experiment import Section
from ..config.kinds import refuse_other
from ..config.messages import mistakes
from ..errors import SpecError


def user_file() -> Path | None:
    """Return the path of the user's settings, or None for a user without a home folder.

    It is METARUN_CLUSTER if that is set, else metarun/cluster.yaml in the user's configuration folder.
    """
    if name := os.environ.get("METARUN_CLUSTER"):
        return Path(os.path.expanduser(name))
    home = Path(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config"))
    return home / "metarun" / "cluster.yaml" if home.is_absolute() else None


def settled(spec: Cluster | None, given: Mapping[str, Any]) -> Cluster:
    """Return the settings of a run.

    Args:
        spec: the section `cluster` of its spec.
        given: options of the command line.

    Raises:
        SpecError: the settings have mistakes. It lists them with file and line.
    """
    path = user_file()
    values = {}
    if path and path.is_file():
        values = read_settings(path)
    elif os.environ.get("METARUN_CLUSTER"):
        raise SpecError([f"METARUN_CLUSTER: there is no file {path}"])
    inner = spec.model_dump(mode="json", exclude_unset=True) if spec else {}
    slurm = {**values.get("slurm", {}), **inner.get("slurm", {}), **given.get("slurm", {})}
    merged = {**values, **inner, **given} | ({"slurm": slurm} if slurm else {})
    if wrong := _mistakes(merged):
        raise SpecError([f"--{'.'.join(map(str, key))}: {message}" for key, message in wrong])
    return Cluster.model_validate(merged)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the values of a file of cluster settings. Raises SpecError, which lists all mistakes."""
    document = read(path, may_be_empty=True)  # empty: all its lines are commented out
    refuse_other(document.values, "cluster", path)
    for key, message in _mistakes(document.values):
        if key not in document.unreadable:
            document.complain(key, message)
    if document.problems:
        raise SpecError(document.in_order)
    return document.values


def _mistakes(values: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return (key in the section, message) for each mistake."""
    try:
        Section.model_validate({"cluster": values})
    except ValidationError as error:
        return [(key[1:], message) for key, message in mistakes(error, {"cluster": values})]
    return []
