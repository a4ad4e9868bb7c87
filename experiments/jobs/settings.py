"""What a cluster is asked for: by the command line, else by the spec, else by the user's file. No TensorFlow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config.document import read
from ..config.experiment import Cluster, Section
from ..config.messages import explain
from ..errors import SpecError


def user_file() -> Path | None:
    """METARUN_CLUSTER, or the one in the user's configuration folder; None for a user without a home."""
    if told := os.environ.get("METARUN_CLUSTER"):
        return Path(os.path.expanduser(told))
    home = Path(os.path.expanduser(os.environ.get("XDG_CONFIG_HOME") or "~/.config"))
    return home / "metarun" / "cluster.yaml" if home.is_absolute() else None


def settled(spec: Cluster | None, told: Mapping[str, Any]) -> Cluster:
    """The settings of a run whose spec has such a section, with those of the command line; SpecError lists mistakes."""
    path = user_file()
    values: dict[str, Any] = {}
    if path and path.is_file():
        document = read(path, may_be_empty=True)  # all lines commented out
        values = document.values
        for key, message in _mistakes(values):
            document.complain(key, message)
        if document.problems:
            raise SpecError(document.problems)
    elif os.environ.get("METARUN_CLUSTER"):
        raise SpecError([f"METARUN_CLUSTER names no file: {path}"])
    inner = spec.model_dump(mode="json", exclude_unset=True) if spec else {}
    slurm = {**values.get("slurm", {}), **inner.get("slurm", {}), **told.get("slurm", {})}
    merged = {**values, **inner, **told} | ({"slurm": slurm} if slurm else {})
    if mistakes := _mistakes(merged):
        raise SpecError([f"--{'.'.join(map(str, key))}: {message}" for key, message in mistakes])
    return Cluster.model_validate(merged)


def _mistakes(values: Mapping[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """(key in the section, message)."""
    try:
        Section.model_validate({"cluster": values})
    except ValidationError as error:
        return [(key[1:], message) for key, message in explain(error, {"cluster": values})]
    return []
