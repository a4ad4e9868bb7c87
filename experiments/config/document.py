"""Read a YAML file with the line of every key, merge it with a parent, and apply overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ..errors import SpecError
from .messages import show

MAXIMUM_BYTES = 1 << 17  # which PyYAML reads in seconds; a spec has a hundredth of it
DEEPEST = 50  # levels of nesting; a spec has three
OPENING = (yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken)
OPENING += (yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken)
CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
Key = tuple[str | int, ...]


@dataclass
class Document:
    """Hold the values of a YAML file, the line of each key, and the mistakes found so far."""

    name: str
    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unreadable: set[Key] = field(default_factory=set)  # reported as mistakes, and None in `values`
    parents: dict[str, Path] = field(default_factory=dict)  # names of the files that this one extends -> their folders
    is_incomplete: bool = False  # a file that it extends cannot be read
    alike: set[str] = field(default_factory=set)  # options that a file that it extends has alike in train and test

    def complain(self, key: Key, message: str, place: str | None = None) -> None:
        """Add a mistake, with its file and line."""
        where = place or self.place(key)
        self.problems.append(f"{where}: {'.'.join(map(str, key))}{': ' if key else ''}{message}")

    @property
    def in_order(self) -> list[str]:
        """Return the problems by line: those of this file first, then those of its parents, then those of no file."""

        def position(line: str) -> tuple[bool, str, int]:
            match = re.match(r"([^:]*):(\d+): ", line)
            file = "" if match and match[1] == self.name else match[1] if match else ""
            return (not match, file, int(match[2]) if match else 0)

        return sorted(dict.fromkeys(self.problems), key=position)

    def place(self, key: Key) -> str:
        """Return the place, FILE:LINE, of `key`, or of the innermost enclosing key that the file contains."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, self.name)

    def folder_of(self, key: Key) -> Path:
        """Return the folder of the file that gives `key`, to which a relative path in its value belongs."""
        return self.parents.get(self.place(key).rpartition(":")[0], self.folder)

    def inherit(self, parent: Document, default_names: Mapping[str, str]) -> None:
        """Copy the values of the parent that this document does not have.

        Sections are merged key by key. A section with another `name` than the parent's is kept as it is.
        `default_names` has the names of sections that need not give one.
        """
        self.problems += parent.problems
        self.is_incomplete |= parent.is_incomplete
        self.parents |= {parent.name: parent.folder, **parent.parents}
        for key, theirs in parent.values.items():
            own = self.values.get(key)
            if key not in self.values:
                self.values[key] = theirs
                self._adopt(parent, (key,))
            elif isinstance(own, dict) and isinstance(theirs, dict):
                name = theirs.get("name", default_names.get(key))
                if name is None or own.get("name", name) == name:
                    for option in [
                        option for option in theirs if option not in own and own.get(_other((key, option))) is None
                    ]:
                        own[option] = theirs[option]
                        self._adopt(parent, (key, option))

    def _adopt(self, parent: Document, key: Key) -> None:
        """Copy the places of `key`, and of all keys in it, from the parent."""
        self.places |= {known: place for known, place in parent.places.items() if known[: len(key)] == key}
        self.unreadable |= {known for known in parent.unreadable if known[: len(key)] == key}


INSTEAD: dict[Key, str] = {("train", "steps"): "epochs", ("train", "epochs"): "steps"}  # one replaces the other


class _Loader(yaml.SafeLoader):
    """Load YAML's safe subset, with the numbers and booleans of YAML 1.2: 1e-3 is a number, `no` is a word."""


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


class Dumper(yaml.SafeDumper):
    """Write each value on one line, so that a comment may follow, and quote texts that `_Loader` would misread."""


Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text == "".join(text.splitlines()) else '"'
    ),
)


def read(path: Path, may_be_empty: bool = False, name: str = "") -> Document:
    """Read a YAML file.

    Args:
        path: the file.
        may_be_empty: accept an empty file.
        name: name of the file in messages.

    Raises:
        SpecError: the file cannot be read, or it is no YAML mapping.
    """
    document = Document(name or path.name, path.parent)
    node = _compose(path, document.name)
    document.places[()] = f"{document.name}:1"
    if node is None and may_be_empty:
        return document
    if not isinstance(node, yaml.MappingNode):
        raise SpecError([f"{path}: expected `key: value` lines; this file is {_kind(node)}"])
    document.values = _construct(document, node, ())
    return document


def plain(text: str, name: str) -> Any:
    """Return the plain data of a YAML text, as it would be in a spec.

    Args:
        text: the text.
        name: its name in messages.

    Raises:
        SpecError: it is no YAML, or empty, or has a key twice or a value that cannot be read.
    """
    document, node = Document(name, Path()), _parse(text, name)
    if node is None:
        raise SpecError([f"{name}: is empty"])
    values = _construct(document, node, (), name)
    if document.problems:
        raise SpecError(document.in_order)
    return values


def _compose(path: Path, name: str) -> yaml.Node | None:
    try:
        if path.stat().st_size > MAXIMUM_BYTES:
            raise SpecError([f"{path} is larger than {MAXIMUM_BYTES} bytes: not a spec"])
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SpecError([f"{path} cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from None
    return _parse(text, name)


@lru_cache(maxsize=256)  # a table loads its specs many times
def _parse(text: str, name: str) -> yaml.Node | None:
    depth = 0
    try:
        for token in yaml.scan(text, Loader=_Loader):
            if isinstance(token, yaml.AliasToken):
                raise SpecError([f"{name}: YAML aliases (*name) are not understood here: write the values out"])
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            if depth > DEEPEST:  # the next levels cost PyYAML seconds, and then minutes
                raise SpecError([f"{name}:{token.start_mark.line + 1}: nested too deeply"])
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError([f"{name}:{line}: not YAML: {error.problem or error.context}"]) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: an escape that is no character
        raise SpecError([f"{name}: not YAML: {' '.join(str(error).split())}"]) from None


def _construct(document: Document, node: yaml.Node, key: Key, place: str | None = None) -> Any:
    """Return the plain data of a node, and add the place of each key, and mistakes in keys, to the document."""
    if isinstance(node, yaml.SequenceNode):
        for number, each in enumerate(node.value):
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


def _other(key: Key) -> str:
    """Return the option that a key stands in place of, in the same section; "" for most."""
    return INSTEAD.get(key, "")


def override_value(document: Document, override: str, given: str) -> None:
    """Set one value of a document from `key=value`; the key and its sections may be new.

    Mistakes are added to the document. `given` is the place of the override in messages.
    """
    place = f"-s {override}" if given == "command line" else f"{given}: {override}"
    dotted, equals, text = override.partition("=")
    key = tuple(dotted.strip().split("."))
    if not equals or not all(key):
        document.problems.append(f"{place}: expected key=value, for example -s train.steps=100")
        return
    if key[0] == "extends":
        document.problems.append(f"{place}: only a file can extend another: give the other spec in its place")
        return
    section = document.values
    for depth, part in enumerate(key[:-1], 1):
        if section.get(part) is None:
            section[part] = {}
            document.places[key[:depth]] = given
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
    other = (*key[:-1], _other(key))
    both = given == "command line" and document.places.get(other) == given  # a mistake; a table's may replace another
    if section[key[-1]] is not None and not both:
        section.pop(_other(key), None)
        document.places.pop(other, None)


def _kind(node: yaml.Node | None) -> str:
    return {None: "empty", yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value"}[node and type(node)]
