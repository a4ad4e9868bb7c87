"""Load an experiment from YAML and overrides, and report every mistake at once with file, line and key."""

from __future__ import annotations

import difflib
import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ...algorithms.optimizer_options import OptimizerOptions
from ...datasets.errors import DataError
from ..errors import SpecError, suggest
from .checks import problems
from .document import Document, Dumper, Key, override_value, read
from .epochs import steps_of_epochs
from .experiment import CHOICES, Experiment, effective, section_model, settled
from .kinds import USE, refuse_other, shipped_specs, shipped_tables
from .messages import mistakes, show

LONGEST = 10  # files of which each extends the next


@dataclass(frozen=True)
class Loaded:
    """Hold a valid spec, and where each value came from."""

    experiment: Experiment
    origins: Mapping[str, str]  # dotted key -> "spec.yaml:12", "command line", "train.shot"; a key left out: default
    path: Path
    left: tuple[str, ...] = ()  # options of the test that were training's, until training's alone was changed

    @property
    def warnings(self) -> list[str]:
        """Return a line for each option of the test that a change of the training, in a child or by -s, left.

        One more for a precision that is not shown to learn as well with the algorithm.
        """
        found = []
        algorithm, network = self.experiment.algorithm, self.experiment.network
        shown = algorithm.name == "maml" and getattr(network, "downsample", None) == "stride"
        if self.experiment.precision == "bfloat16" and hasattr(algorithm, "inner_steps") and not shown:
            found.append(
                f"precision bfloat16 ({self.origins.get('precision', 'default')}) is not shown to learn as well with "
                f"{algorithm.name} here: gradients through an inner loop lose more than others (cosine "
                "0.82 to 0.97 with those in float64); compare with float32 before you use it"
            )
        for option in self.left:
            train, test = (self.origins.get(f"{section}.{option}", "default") for section in ("train", "test"))
            found.append(
                f"train.{option} ({train}) changes the training alone: test.{option} is "
                f"{getattr(self.experiment.test, option)} ({test}); with test.{option}=null the test takes training's"
            )
        return found


def load(
    spec: str | Path, overrides: Sequence[str] = (), given: str = "command line", with_data: bool = False
) -> Loaded:
    """Load a spec.

    Args:
        spec: path of a file, or name of a spec that ships.
        overrides: `key=value` each.
        given: place of the overrides in messages.
        with_data: look at the dataset too, where it can be counted without reading images: are its splits large enough?

    Raises:
        SpecError: lists all mistakes. One that a file has only with the overrides begins with their place.
    """
    path = find(spec)
    document = _with_parents(path)
    alike = _alike(document)
    _override(document, overrides, given)
    try:
        experiment = _validate(document, with_data)
    except SpecError as error:
        raise SpecError(_blamed(error.problems, path, given, with_data) if overrides else error.problems) from None
    origins = {".".join(map(str, key)): place for key, place in document.places.items() if key}
    origins |= {f"test.{option}": f"train.{option}" for option in experiment.taken}
    if (document.values.get("train") or {}).get("epochs") is not None:
        origins["train.steps"] = origins.pop("train.epochs")
    left = [option for option in sorted(alike) if getattr(experiment.train, option) != getattr(experiment.test, option)]
    left = [option for option in left if origins.get(f"test.{option}") != given]
    return Loaded(_settled(experiment), origins, path, tuple(left))


def first_seed(spec: str | Path, overrides: Sequence[str]) -> int:
    """Return the first seed of a spec, of which nothing else is checked; 0 where the spec has no valid seeds.

    Args:
        spec: path of a file, or name of a spec that ships.
        overrides: `key=value` each.

    Raises:
        SpecError: the spec cannot be read, or an override is malformed or given twice.
    """
    document = _with_parents(find(spec))
    _override(document, overrides, "command line")
    if document.problems:
        raise SpecError(document.in_order)
    seeds = getattr(_right_part(document.values, _found(document.values).keys()), "seeds", ())
    return next(iter(seeds), 0)


def _override(document: Document, overrides: Sequence[str], given: str) -> None:
    """Set values of a document. Mistakes are added to it, also a key that the command line gives twice."""
    keys = Counter(override.partition("=")[0].strip() for override in overrides)
    if given == "command line":  # a table's overrides may override one another
        document.problems += [f"{given}: {key} is given twice: keep one" for key, count in keys.items() if count > 1]
    for override in overrides:
        override_value(document, override, given)


def _alike(document: Document) -> set[str]:
    """Return which of shot and query training and test have alike, here or in a file that it extends."""
    train, test = document.values.get("train"), document.values.get("test")
    if not isinstance(train, dict) or not isinstance(test, dict):
        return document.alike
    return document.alike | {each for each in ("shot", "query") if train.get(each) == test.get(each, ...)}


def _blamed(problems: Sequence[str], path: Path, given: str, with_data: bool) -> list[str]:
    """Return the problems of a spec with overrides; those that the file does not have by itself begin with `given`."""
    try:
        load(path, with_data=with_data)
        known: set[str] = set()
    except SpecError as error:
        known = set(error.problems)
    begins = (given, "-s ")
    return [each if each in known or each.startswith(begins) else f"{given}, {each}" for each in problems]


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
    if str(spec) in shipped_tables():
        raise SpecError([f"{spec} is {USE['table'].format(spec)}"])
    hint = suggest(str(spec), shipped, "`metarun list specs` shows those that ship", most=3)
    raise SpecError([f"{spec}: no such file, and no spec that ships has this name; {hint}"])


def _with_parents(path: Path) -> Document:
    """Read a spec and the files that it extends, merged. Its mistakes may be a missing file, a circle, a long chain."""
    child = read(path)
    refuse_other(child.values, "spec", path)
    chain = {path.resolve(): child}
    while (extended := child.values.pop("extends", None)) is not None:
        try:
            parent, name = _parent(extended, child.folder, path.parent)
            if parent.resolve() in chain:
                circle = " extends ".join(each.name for each in chain.values())
                raise SpecError([f"a circle: {circle} extends {chain[parent.resolve()].name}"])
            if len(chain) == LONGEST:
                raise SpecError([f"{LONGEST} files extend one another already: write the values into fewer"])
            document = read(parent, name=name)
            refuse_other(document.values, "spec", name)
            child = chain[parent.resolve()] = document
        except SpecError as error:
            for problem in error.problems:
                child.complain(("extends",), problem)
            child.is_incomplete = True
            break
    *children, document = chain.values()
    for child in reversed(children):
        document.values.pop("name", None)  # two specs of one name would share a folder
        own = child.values.get("test")
        child.alike |= {each for each in _alike(document) if not isinstance(own, dict) or each not in own}
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


def _validate(document: Document, with_data: bool) -> Experiment:
    values = document.values
    wrong = _found(values)
    values, misnamed = _with_known_names(values)
    if misnamed:
        wrong = _found(values) | wrong  # also the mistakes of the sections whose names were wrong
    if document.is_incomplete:
        wrong = {key: message for key, message in wrong.items() if not message.startswith("is missing")}
    for key, message in wrong.items():
        if key not in document.unreadable:
            document.complain(key, message)
    partial = bool(wrong) or document.is_incomplete
    experiment = _right_part(values, wrong.keys() - misnamed) if partial else Experiment.model_validate(values)
    experiment = _completed(experiment, document)
    for key, message in () if document.is_incomplete else problems(experiment, partial, with_data):
        document.complain(tuple(key.split(".")), message)
    if document.problems:
        raise SpecError(document.in_order)
    return experiment


def _found(values: Mapping[str, Any]) -> dict[Key, str]:
    """Return the mistakes in single values, by their keys."""
    try:
        Experiment.model_validate(values)
    except ValidationError as error:
        return dict(mistakes(error, values))
    return {}


def _with_known_names(values: Mapping[str, Any]) -> tuple[dict[str, Any], set[Key]]:
    """Return the values with the nearest name for each unknown algorithm, network and dataset, and these keys."""
    changed, misnamed = dict(values), set()
    for section, known in CHOICES.items():
        if not isinstance(options := values.get(section), dict):
            continue
        name = options.get("name")
        if isinstance(name, str) and name not in known and (near := difflib.get_close_matches(name, known, n=1)):
            changed[section] = {**options, "name": near[0]}
            misnamed.add((section, "name"))
    return changed, misnamed


def _right_part(values: Mapping[str, Any], wrong: Collection[Key]) -> Experiment:
    """Return the valid part of a spec with mistakes, for checks.

    Values that are wrong, missing or misspelt are no attributes of it.
    """

    def part(model: type[BaseModel], given: Mapping[str, Any], wrong: set[str | int]) -> Any:
        known = {name: value for name, value in given.items() if name in model.model_fields}
        made = model.model_construct(set(known), **known)
        misspelt = (difflib.get_close_matches(name, model.model_fields, n=1) for name in given if name not in known)
        for name in wrong.union(*misspelt):
            if name != "name" or model is Experiment:  # that of an algorithm, network or dataset has chosen the model
                vars(made).pop(str(name), None)
        return made

    sections = {}
    for section, given in values.items():
        if isinstance(given, dict) and (model := section_model(section, given)):
            inner = {key[1] for key in wrong if key[0] == section and len(key) > 1}
            said = {key: value for key, value in given.items() if value is not None}
            sections[section] = part(model, said, inner)
            if not inner:
                with suppress(ValidationError):  # a key that another file, which cannot be read, may have
                    sections[section] = model.model_validate(given)
    lost = {key[0] for key in wrong if len(key) == 1 or key[0] not in sections}
    return part(Experiment, {**values, **sections}, lost)


def _completed(experiment: Experiment, document: Document) -> Experiment:
    """Return the experiment with the values that a spec may leave open, as far as the valid part says them.

    A relative path of a dataset or of the network begins at the folder of the file that gives it; a network's on the
    command line, which names a run, at the current folder. Where the test says nothing, it takes what the training has.
    """
    there, changes = vars(experiment), {}
    with suppress(AttributeError, RuntimeError, ValueError, OSError):  # where its path is not valid, or is no path
        changes["dataset"] = experiment.dataset.resolved(document.folder_of(("dataset", "path")))
    with suppress(AttributeError, RuntimeError, ValueError, OSError):
        if (tested := experiment.test.dataset) is not None:
            tested = tested.resolved(document.folder_of(("test", "dataset", "path")))
            test = experiment.test.model_copy(update={"dataset": tested})
            experiment = experiment.model_copy(update={"test": test})
    with suppress(AttributeError, RuntimeError, ValueError, OSError):
        typed = document.place(("network", "init")) == "command line"
        changes["network"] = experiment.network and experiment.network.resolved(
            Path() if typed else document.folder_of(("network", "init"))
        )
    with suppress(AttributeError, DataError):  # of a folder that cannot be read: a check tells it
        if experiment.train.epochs and (steps := steps_of_epochs(experiment.model_copy(update=changes))):
            train = experiment.train.model_copy(update={"steps": steps, "epochs": None})
            train.model_fields_set.discard("epochs")
            changes["train"] = train
    if {"algorithm", "train", "test"} <= there.keys() and "name" in vars(experiment.algorithm):
        train, taken = vars(experiment.train), experiment.taken
        test = experiment.test.model_copy(update={option: train.get(option) for option in taken})
        test.model_fields_set.difference_update(taken)
        for option in set(taken) - train.keys():
            del vars(test)[option]
        changes["test"] = test
    return experiment.model_copy(update=changes)


def _settled(experiment: Experiment) -> Experiment:
    """Return the experiment with the last checkpoint as the tested one, if it has no validation; see also `settled`."""
    experiment = settled(experiment)
    if experiment.validation is None:
        return experiment.model_copy(update={"test": experiment.test.model_copy(update={"checkpoint": "last"})})
    return experiment
