"""Load an experiment from YAML and overrides, and report every mistake at once with file, line and key."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ...algorithms.options import OptimizerOptions
from ..errors import SpecError, suggest
from .checks import problems
from .document import Document, Dumper, Key, override_value, read
from .experiment import Experiment, effective, section_model
from .messages import mistakes, show

LONGEST = 10  # files of which each extends the next


@dataclass(frozen=True)
class Loaded:
    """A valid spec, and where each value came from."""

    experiment: Experiment
    origins: Mapping[str, str]  # dotted key -> "spec.yaml:12", "command line"; a key that is left out has its default
    path: Path


def load(spec: str | Path, overrides: Sequence[str] = (), given: str = "command line") -> Loaded:
    """Load a spec.

    Args:
        spec: path of a file, or name of a spec that ships.
        overrides: `key=value` each.
        given: place of the overrides in messages.

    Raises:
        SpecError: lists all mistakes.
    """
    path = find(spec)
    document = _with_parents(path)
    for override in overrides:
        override_value(document, override, given)
    experiment = _settled(_validate(document), document.folder_of(("dataset", "path")))
    origins = {".".join(map(str, key)): place for key, place in document.places.items() if key}
    return Loaded(experiment, origins, path)


def labelled(spec: str | Path, problems: Sequence[str], specs: Sequence[str | Path]) -> list[str]:
    """Return the problems of one of several specs, each line with the spec's name in front if it lacks it."""
    return [each if len(specs) == 1 or each.startswith(str(spec)) else f"{spec}: {each}" for each in problems]


def find(spec: str | Path, folder: Path = Path()) -> Path:
    """Return the file of a spec: a path from `folder`, or the name of one that ships.

    Raises:
        SpecError: there is none; the message has the nearest names.
    """
    path, shipped = folder / spec, shipped_specs()
    try:
        if path.exists() and not path.is_dir():
            return path
        if str(spec) in shipped:
            return shipped[str(spec)]
        if path.is_dir():
            raise SpecError([f"{spec} is a folder: give a spec file, or the name of a spec that ships"])
    except OSError as error:
        raise SpecError([f"{spec}: {error.strerror}"]) from None
    hint = suggest(str(spec), shipped, "`metarun list specs` shows those that ship", most=3)
    raise SpecError([f"{spec}: no such file, and no spec that ships has this name; {hint}"])


@cache
def shipped_specs() -> Mapping[str, Path]:
    """Return the files of the specs in the package by their names."""
    root = Path(str(files("metarun.experiments") / "specs"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def _with_parents(path: Path) -> Document:
    """Read a spec and the files that it extends, merged; SpecError for a missing file, a circle or a long chain."""
    child = read(path)
    chain = {path.resolve(): child}
    while (extended := child.values.pop("extends", None)) is not None:
        try:
            parent, name = _parent(extended, child.folder, path.parent)
            if parent.resolve() in chain:
                circle = " extends ".join(each.name for each in chain.values())
                raise SpecError([f"a circle: {circle} extends {chain[parent.resolve()].name}"])
            if len(chain) == LONGEST:
                raise SpecError([f"{LONGEST} files extend one another already: write the values into fewer"])
            child = chain[parent.resolve()] = read(parent, name=name)
        except SpecError as error:
            place = child.place(("extends",))
            raise SpecError([f"{place}: extends: {problem}" for problem in error.problems]) from None
    *children, document = chain.values()
    for child in reversed(children):
        document.values.pop("name", None)  # two specs of one name would share a folder
        child.inherit(document, {"optimizer": OptimizerOptions.model_fields["name"].default})
        document = child
    document.places.pop(("extends",), None)
    return document


def _parent(given: Any, folder: Path, root: Path) -> tuple[Path, str]:
    """Return the file that a spec in `folder` extends, and its name in messages: shipped, or its path from `root`."""
    if not isinstance(given, str) or not 0 < len(given) < 1000 or not given.isprintable():
        raise SpecError([f"expected a path, or the name of a spec that ships, got {show(given)}"])
    path = find(given, folder)
    if not path.is_file():
        raise SpecError([f"{given} is no file"])
    return path, given if path == shipped_specs().get(given) else os.path.relpath(path, root)


def resolved_yaml(experiment: Experiment) -> str:
    """Return the spec as YAML with every default filled in: a valid spec with the same digest."""
    return yaml.dump(effective(experiment), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


def former_digest(path: Path, experiment: Experiment) -> str:
    """Return the digest that older versions gave to the spec of a run.

    Args:
        path: its spec.yaml. The place of the data counts as it is written there.
        experiment: the experiment of that file.
    """
    return experiment.model_copy(update={"dataset": _as_written(path, experiment)}).former_digest


def is_moved(path: Path, experiment: Experiment) -> bool:
    """Return whether the data of an experiment are in another place than the spec of a run says.

    Args:
        path: the run's spec.yaml.
        experiment: the experiment as it is now.
    """
    return any(
        getattr(experiment.dataset, key) != getattr(_as_written(path, experiment), key)
        for key in experiment.dataset.located
    )


def _as_written(path: Path, experiment: Experiment) -> Any:
    """Return the dataset of an experiment with the places that a file names: links in them are not resolved."""
    dataset = experiment.dataset
    given = read(path).values["dataset"] if dataset.located else {}
    return dataset.model_copy(update={key: type(getattr(dataset, key))(given[key]) for key in dataset.located})


def _validate(document: Document) -> Experiment:
    try:
        experiment, wrong = Experiment.model_validate(document.values), {}
    except ValidationError as error:
        wrong = dict(mistakes(error, document.values))
        experiment = _right_part(document.values, wrong)
    for key, message in wrong.items():
        if key not in document.unreadable:
            document.complain(key, message)
    for key, message in problems(experiment, partial=bool(wrong)):
        document.complain(tuple(key.split(".")), message)
    if document.problems:
        raise SpecError(_in_order(document.problems, document.name))
    return experiment


def _right_part(values: Mapping[str, Any], wrong: Collection[Key]) -> Experiment:
    """Return the valid part of a spec with mistakes, for checks.

    Values that are wrong, missing or misspelt are no attributes of it.
    """

    def part(model: type[BaseModel], given: Mapping[str, Any], wrong: set[str | int]) -> Any:
        known = {name: value for name, value in given.items() if name in model.model_fields}
        made = model.model_construct(set(known), **known)
        misspelt = (difflib.get_close_matches(name, model.model_fields, n=1) for name in given if name not in known)
        for name in wrong.union(*misspelt):
            vars(made).pop(str(name), None)
        return made

    sections = {}
    for section, given in values.items():
        if isinstance(given, dict) and (model := section_model(section, given)):
            sections[section] = part(model, given, {key[1] for key in wrong if key[0] == section and len(key) > 1})
    lost = {key[0] for key in wrong if len(key) == 1 or key[0] not in sections}
    return part(Experiment, {**values, **sections}, lost)


def _settled(experiment: Experiment, folder: Path) -> Experiment:
    """Return the experiment with the values that a spec may leave open.

    A relative path of the dataset begins at `folder`. Without validation the last checkpoint is tested.
    """
    changes: dict[str, Any] = {"dataset": experiment.dataset.resolved(folder)}
    if experiment.validation is None:
        changes["test"] = experiment.test.model_copy(update={"checkpoint": "last"})
    return experiment.model_copy(update=changes)


def _in_order(lines: Sequence[str], name: str) -> list[str]:
    """Sort problems by line: those of the file `name` first, then those of its parents, then those of no file."""

    def position(line: str) -> tuple[bool, str, int]:
        match = re.match(r"([^:]*):(\d+): ", line)
        file = "" if match and match[1] == name else match[1] if match else ""
        return (not match, file, int(match[2]) if match else 0)

    return sorted(dict.fromkeys(lines), key=position)
