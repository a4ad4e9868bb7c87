"""From YAML and overrides to an Experiment: every mistake found, all at once, with file, line and key."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..datasets.options import ImageFolderOptions
from .checks import problems
from .spec import Experiment
from .wording import explain, section_model, show

MAXIMUM_BYTES = 1 << 17  # which PyYAML reads in seconds; a spec has a hundredth of it
DEEPEST = 50  # levels of nesting; a spec has three
OPENING = (yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken)
OPENING += (yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken)
CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
Key = tuple[str | int, ...]


class SpecError(Exception):
    """A spec with mistakes; `problems` has one ready line for each."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Loaded:
    """A spec that is right, and where each value came from."""

    experiment: Experiment
    origins: Mapping[str, str]  # dotted key -> "spec.yaml:12", "command line"; keys not there are defaults
    path: Path


@dataclass
class Document:
    """What a YAML file says, where it says it, and what is wrong with it already."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unreadable: set[Key] = field(default_factory=set)  # complained of, and None in `values`

    def complain(self, key: Key, message: str, place: str | None = None) -> None:
        """Note a mistake, with where it stands."""
        where = place or self.place(key)
        self.problems.append(f"{where}: {'.'.join(map(str, key))}{': ' if key else ''}{message}")

    def place(self, key: Key) -> str:
        """Of the key, or of the nearest one around it that the file has."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, self.name)


def load(spec: str | Path, overrides: Sequence[str] = (), given: str = "command line") -> Loaded:
    """Read a spec (a path, or the name of one that ships) with `key=value` overrides; SpecError lists all mistakes,
    those of the overrides with where they were `given`."""
    path = find(spec)
    document = read(path)
    for override in overrides:
        _override(document, override, given)
    experiment = _settled(_validate(document), path.parent)
    origins = {".".join(map(str, key)): place for key, place in document.places.items() if key}
    return Loaded(experiment, origins, path)


def told_apart(spec: str | Path, problems: Sequence[str], specs: Sequence[str | Path]) -> list[str]:
    """The problems of one of several specs, each with the name that it was given by."""
    return [each if len(specs) == 1 or each.startswith(str(spec)) else f"{spec}: {each}" for each in problems]


def find(spec: str | Path) -> Path:
    """The file of a spec; SpecError with the nearest names where there is none."""
    path = Path(spec)
    try:
        if path.is_dir():
            raise SpecError([f"{spec} is a folder: give a spec file, or the name of a spec that ships"])
        if path.exists():
            return path
    except OSError as error:
        raise SpecError([f"{spec}: {error.strerror}"]) from None
    shipped = shipped_specs()
    if str(spec) in shipped:
        return shipped[str(spec)]
    near = difflib.get_close_matches(str(spec), shipped, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`metarun list specs` shows those that ship"
    raise SpecError([f"{spec}: no such file, and no spec that ships has this name; {hint}"])


def shipped_specs() -> dict[str, Path]:
    """Name -> file of the specs in the package."""
    root = Path(str(files(__package__ or "") / "specs"))
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def resolved_yaml(experiment: Experiment) -> str:
    """The spec with every default filled in; itself a valid spec with the same digest."""
    return yaml.dump(effective(experiment), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


def effective(experiment: Experiment) -> dict[str, Any]:
    """Every value as plain data; options that are unset and mean "not there" are left away: those that are null where
    that is their default."""

    def pruned(value: Any, told_by: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = type(told_by).model_fields if isinstance(told_by, BaseModel) else {}
        kept = {key for key, field in fields.items() if field.default is not None} | {"validation"}
        return {
            key: pruned(each, getattr(told_by, key, None))
            for key, each in value.items()
            if each is not None or key in kept
        }

    told = experiment.model_dump(mode="json")
    for section in ("train", "validation", "test") if experiment.kind != "few-shot" else ():
        told[section] = told[section] and {k: v for k, v in told[section].items() if k not in ("way", "shot", "query")}
    for section in ("train", "optimizer") if experiment.kind == "classical" else ():
        del told[section]
    return pruned(told, experiment)


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, with the numbers and booleans of YAML 1.2: 1e-3 is a number, `no` is a word."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+.0123456789"),
)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not read as text; every value is on one line, so that a comment may follow it."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text == "".join(text.splitlines()) else '"'
    ),
)


def read(path: Path, may_be_empty: bool = False) -> Document:
    """What a YAML file says; SpecError where it is none, or no mapping."""
    document = Document(path.name)
    node = _compose(path)
    document.places[()] = f"{document.name}:1"
    if node is None and may_be_empty:
        return document
    if not isinstance(node, yaml.MappingNode):
        raise SpecError([f"{path}: a spec is a mapping, `key: value`; this file is {_kind(node)}"])
    document.values = _construct(document, node, ())
    return document


def _compose(path: Path) -> yaml.Node | None:
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise SpecError([f"{path} is larger than {MAXIMUM_BYTES} bytes: not a spec"])
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SpecError([f"{path} cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from None
    return _parse(text, path.name)


def _parse(text: str, name: str) -> yaml.Node | None:
    depth = 0
    try:
        for token in yaml.scan(text, Loader=_Loader):
            if isinstance(token, yaml.AliasToken):
                raise SpecError([f"{name}: YAML aliases (*name) are not understood in specs: write the values out"])
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            if depth > DEEPEST:  # the next levels cost PyYAML seconds, and then minutes
                raise SpecError([f"{name}:{token.start_mark.line + 1}: nested too deeply for a spec"])
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError([f"{name}:{line}: not YAML: {error.problem or error.context}"]) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last ones of escapes that are no character
        raise SpecError([f"{name}: not YAML: {' '.join(str(error).split())}"]) from None


def _construct(document: Document, node: yaml.Node, key: Key, place: str | None = None) -> Any:
    """Plain data of a node; notes where each key stands; duplicate and odd keys are complaints."""
    if isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
            if isinstance(each, yaml.MappingNode):
                document.places[(*key, number)] = place or f"{document.name}:{each.start_mark.line + 1}"
        return [_construct(document, each, (*key, number), place) for number, each in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        try:
            return _Loader("").construct_object(node)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # what PyYAML raises for a bad value
            reason = getattr(error, "problem", None) or f"{show(node.value)} is no {node.tag.rpartition(':')[2]}"
            document.complain(key, f"cannot be read: {reason}", place or f"{document.name}:{node.start_mark.line + 1}")
            document.unreadable.add(key)
            return None
    values: dict[str, Any] = {}
    for name, value in node.value:
        where = place or f"{document.name}:{name.start_mark.line + 1}"
        if not isinstance(name, yaml.ScalarNode) or name.value == "<<":
            document.complain(key, "keys are plain words; merge keys and others are not understood", where)
        elif name.value in values:
            first = document.places[(*key, name.value)]
            document.complain((*key, name.value), f"is given twice, first at {first}", where)
        else:
            document.places[(*key, name.value)] = where
            values[name.value] = _construct(document, value, (*key, name.value), place)
    return values


def _override(document: Document, override: str, given: str) -> None:
    """Replace one value; the key may be new, its sections too."""
    place = f"-s {override}" if given == "command line" else f"{given}: {override}"
    dotted, equals, text = override.partition("=")
    key = tuple(dotted.strip().split("."))
    if not equals or not all(key):
        document.problems.append(f"{place}: expected key=value, for example -s train.steps=100")
        return
    section = document.values
    for part in key[:-1]:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            document.problems.append(f"{place}: {part} is a value, it has no keys in it")
            return
    for known in [known for known in document.places if known[: len(key)] == key]:
        del document.places[known]
    try:
        node = _parse(text, place)
    except SpecError as error:
        document.problems.extend(error.problems)
        return
    document.places[key] = given
    section[key[-1]] = None if node is None else _construct(document, node, key, given)


def _validate(document: Document) -> Experiment:
    try:
        experiment, wrong = Experiment.model_validate(document.values), {}
    except ValidationError as error:
        wrong = dict(explain(error, document.values))
        experiment = _right_part(document.values, wrong)
    for key, message in wrong.items():
        if key not in document.unreadable:
            document.complain(key, message)
    for key, message in problems(experiment, partial=bool(wrong)):
        document.complain(tuple(key.split(".")), message)
    if document.problems:
        raise SpecError(_in_order(document.problems))
    return experiment


def _right_part(values: Mapping[str, Any], wrong: Collection[Key]) -> Experiment:
    """A spec with mistakes, for checks only: what is wrong, missing or misspelt is no attribute of it."""

    def part(model: type[BaseModel], told: Mapping[str, Any], wrong: set[str | int]) -> Any:
        known = {name: value for name, value in told.items() if name in model.model_fields}
        made = model.model_construct(set(known), **known)
        misspelt = (difflib.get_close_matches(name, model.model_fields, n=1) for name in told if name not in known)
        for name in wrong.union(*misspelt):
            vars(made).pop(str(name), None)
        return made

    sections = {}
    for section, told in values.items():
        if isinstance(told, dict) and (model := section_model(section, told)):
            sections[section] = part(model, told, {key[1] for key in wrong if key[0] == section and len(key) > 1})
    lost = {key[0] for key in wrong if len(key) == 1 or key[0] not in sections}
    return part(Experiment, {**values, **sections}, lost)


def _settled(experiment: Experiment, folder: Path) -> Experiment:
    """What a spec may leave open: a relative dataset path starts at its folder; without validation the last
    checkpoint is tested."""
    changes: dict[str, Any] = {}
    if isinstance(experiment.dataset, ImageFolderOptions):
        path = (folder / experiment.dataset.path.expanduser()).resolve()
        changes["dataset"] = experiment.dataset.model_copy(update={"path": path})
    if experiment.validation is None:
        changes["test"] = experiment.test.model_copy(update={"checkpoint": "last"})
    return experiment.model_copy(update=changes)


def _in_order(lines: Sequence[str]) -> list[str]:
    def position(line: str) -> tuple[int, str]:
        match = re.match(r"[^:]*:(\d+): ", line)
        return (int(match[1]) if match else 1 << 30, "")

    return sorted(dict.fromkeys(lines), key=position)


def _kind(node: yaml.Node | None) -> str:
    return {None: "empty", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}[node and type(node)]


def walk(values: Mapping[str, Any], key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Every leaf of nested mappings with its key."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from walk(value, (*key, name))
        else:
            yield (*key, name), value
