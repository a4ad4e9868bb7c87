"""Turn validation errors into plain messages: the expected value, the given value, a probable correction."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ...algorithms.heads import HEADS
from ...datasets.errors import counted
from ..errors import suggest
from .experiment import CHOICES, SECTIONS, Experiment, section_model

OTHER = ("test", "dataset")  # the key of another dataset for the test
HEAD = ("test", "head")
EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "finite_number": "a finite number",
    "tuple_type": "a list",
    "list_type": "a list",
    "path_type": "a path",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
    "dict_type": "a section with keys of its own",
}
PATTERNS = {
    "time": "minutes, MM:SS, H:MM:SS, D-HH or D-HH:MM",
    "memory": "a size such as 8G",
    "signal": "INT, TERM, USR1 or USR2, and seconds before the end: USR2@90",
}
BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def mistakes(error: ValidationError, values: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield (key, message) for each mistake that pydantic found in `values`, at most one per key.

    A value that may be of several types has the mistakes of all of them, which become one.
    """
    found: dict[tuple[str | int, ...], list[str]] = {}
    for detail in error.errors(include_url=False):
        key = _key(detail["loc"], values) + (("name",) if detail["type"] == "union_tag_invalid" else ())
        found.setdefault(key, []).append(_message(detail, key, values))
    for key, (first, *others) in found.items():
        expected, _, given = first.partition(", got ")
        types = [each.removesuffix(f", got {given}").removeprefix("expected ") for each in others]
        same = given and all(each == f"expected {kind}, got {given}" for each, kind in zip(others, types, strict=True))
        yield key, f"{' or '.join(dict.fromkeys([expected, *types]))}, got {given}" if same else first


def _key(location: tuple[str | int, ...], values: Mapping[str, Any]) -> tuple[str | int, ...]:
    """Return pydantic's location without the names of union members and of alternative types."""
    if location[:2] == OTHER and len(location) > 2:
        return OTHER[:1] + _key(location[1:], values["test"])
    key: list[str | int] = list(location)
    if location[:2] == HEAD and len(key) > 2 and key[2] in HEADS:
        del key[2]
    if len(key) > 1 and key[0] in CHOICES and key[1] in CHOICES[str(key[0])]:
        del key[1]
    value: Any = values
    for depth, part in enumerate(key):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part] if part < len(value) else None
        else:
            return tuple(key[:depth])
    return tuple(key)


def _message(detail: Any, key: tuple[str | int, ...], values: Mapping[str, Any]) -> str:
    if key[:2] == OTHER:  # a section as `dataset` itself
        key, values = key[1:], values["test"]
    kind, context, given = detail["type"], detail.get("ctx", {}), show(detail["input"])
    if kind == "extra_forbidden":
        return _unknown(key, values)
    if kind == "missing":
        return "is missing" + _meaning(key, values)
    if kind == "union_tag_not_found" and key[:2] == HEAD:
        return f"has no name: expected `name:` with one of {', '.join(HEADS)}"
    if kind == "union_tag_invalid" and key[:2] == HEAD:
        return f"unknown head {show(context['tag'])}; {nearest(context['tag'], HEADS)}"
    if kind == "union_tag_not_found":
        return f"has no name: expected `name:` with one of {', '.join(CHOICES[str(key[0])])}"
    if kind == "union_tag_invalid":
        near = nearest(context["tag"], CHOICES[str(key[0])])
        return f"unknown {key[0]} {show(context['tag'])}; {near} (or the package that has it is not installed here)"
    if kind == "string_pattern_mismatch" and key[0] == "cluster":
        return f"expected {PATTERNS[str(key[-1])]}, got {given}"
    if kind == "string_pattern_mismatch":
        return f"expected letters, digits, '.', '_' and '-', at most 100, got {given}"
    return plain_message(detail)


def plain_message(detail: Any) -> str:
    """Return the message for a wrong value, whatever the file: what was expected, and what is given."""
    kind, context, given = detail["type"], detail.get("ctx", {}), show(detail["input"])
    if kind == "literal_error":
        return f"expected {context['expected'].replace(chr(39), '')}, got {given}"
    if kind in BOUNDS:
        bound, words = BOUNDS[kind]
        return f"expected a number {words} {context[bound]}, got {given}"
    if kind in EXPECTED:
        return f"expected {EXPECTED[kind]}, got {given}"
    if kind in ("too_short", "too_long", "missing_positional_only_argument"):
        length = context.get("actual_length")
        values = "the wrong number of values" if length is None else counted(length, "value")
        return f"has {values}: {detail['msg'].lower()}"
    if kind == "string_too_short":
        return f"expected at least {context['min_length']} letters, got {given}"
    if kind == "string_pattern_mismatch":
        return f"expected small letters, digits, '.' and '-', got {given}"
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {given}"


def _unknown(key: tuple[str | int, ...], values: Mapping[str, Any]) -> str:
    name, section = str(key[-1]), str(key[0])
    if len(key) == 1:
        return f"unknown key; {_probable(name, values[name])}"
    if len(key) > 2 and key[1] == "head":
        return f"unknown key of the head; {nearest(name, _head_model(section, values).model_fields)}"
    if section in CHOICES:
        chosen = str(values[section].get("name"))
        owners = [other for other, model in CHOICES[section].items() if name in model.model_fields]
        if owners:
            return f"has no effect: {chosen} has no option {name}; it belongs to {', '.join(owners)}"
        return f"unknown key of {chosen}; {nearest(name, CHOICES[section][chosen].model_fields)}"
    return f"unknown key; {nearest(name, SECTIONS[section].model_fields)}"


def _head_model(section: str, values: Mapping[str, Any]) -> Any:
    """Return the class of options of `test.head`, or of a classifier's own head."""
    if section == "test":
        return HEADS[values["test"]["head"]["name"]].options
    model: Any = section_model(section, values[section])
    return model.model_fields["head"].annotation


def _probable(name: str, value: Any) -> str:
    """Return the key that was probably meant by an unknown one of the whole spec, which may belong into a section."""
    known = {
        f"{section}.{key}": None
        for section, models in ({name: [model] for name, model in SECTIONS.items()} | _models_of_choices()).items()
        for model in models
        for key in model.model_fields
        if key != "name"
    }
    inner = next(iter(value), "") if isinstance(value, Mapping) else ""
    if not difflib.get_close_matches(name, Experiment.model_fields) and any(key.endswith(f".{inner}") for key in known):
        return suggest(str(inner), known, "")
    return suggest(name, [*Experiment.model_fields, *known], f"expected one of {', '.join(Experiment.model_fields)}")


def _models_of_choices() -> dict[str, list[type[BaseModel]]]:
    return {section: list(models.values()) for section, models in CHOICES.items()}


def nearest(name: Any, known: Mapping[str, Any]) -> str:
    """Return which of the known keys was probably meant; if none is near, all of them."""
    return suggest(str(name), known, f"expected one of {', '.join(known)}")


def _meaning(key: tuple[str | int, ...], values: Mapping[str, Any]) -> str:
    """Return ": " and the description of a missing key, or ""."""
    model = Experiment if len(key) == 1 else section_model(str(key[0]), values[str(key[0])])
    field = model.model_fields.get(str(key[-1])) if model else None
    return f": {field.description}" if field is not None and field.description else ""


def show(value: Any) -> str:
    """Return a value as a person would write it in YAML, cut to 60 characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a section"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def differences(before: Mapping[str, Any], after: Mapping[str, Any], most: int = 4) -> str:
    """Return the keys in which two specs differ with both values, `train.steps: 80 -> 120`; "" if there are none.

    Args:
        before: values of a spec as plain data.
        after: values of the other.
        most: number of keys that are listed; the others are counted.
    """
    found = []
    for section in dict.fromkeys([*before, *after]):
        old, new = before.get(section), after.get(section)
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            old, new = {section: old}, {section: new}
        elif old.get("name") != new.get("name"):  # the other keys of a section belong to its name
            old, new = ({f"{section}.name": each.get("name")} for each in (old, new))
        else:
            old, new = ({f"{section}.{key}": value for key, value in each.items()} for each in (old, new))
        values = {key: (old.get(key), new.get(key)) for key in [*old, *new]}
        found += [f"{key}: {show(one)} -> {show(other)}" for key, (one, other) in values.items() if one != other]
    more = [f"{len(found) - most} more"] if len(found) > most else []
    return ", ".join([*found[:most], *more])
