"""Explain every name that a spec may hold: type, range, default, meaning, and YAML that can be copied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from ..errors import SpecError, suggest
from .document import Dumper
from .experiment import CHOICES, SECTIONS, Experiment

SPEC = """name: my-experiment
algorithm: {name: maml, inner_lr: 0.4}
network: {name: conv4}
dataset: {name: glyphs}
protocol: transductive
train: {way: 5, shot: 1, steps: 1000}
test: {way: 5, shot: 1}
"""
MODELS = {name: model for group in CHOICES.values() for name, model in group.items()}  # algorithms, networks, datasets
OPTIONS = SECTIONS | MODELS
SECTION_OF = {name: section for section, group in CHOICES.items() for name in group}
NUMBERS = {"integer": "whole number", "number": "number"}
NOTHING = (None, "", (), [], {})
WORDS = {**NUMBERS, "boolean": "true | false", "string": "text", "null": "null", "object": "a section"}


class Option(NamedTuple):
    """Hold a key that a section of a spec may hold."""

    key: str
    type: str
    default: str  # for example `required`, or `default 5`
    description: str


class Page(NamedTuple):
    """Hold the explanation of one name."""

    name: str
    text: str
    options: list[Option]
    lists: dict[str, list[tuple[str, str]]]  # heading -> names, each with a line about it
    snippet: str  # YAML


def page(name: str = "") -> Page:
    """Return the page of a name: a section, a key such as train.shot, an algorithm, a network, a dataset, or `spec`.

    Without a name it lists them all. A key of a choice, such as algorithm.inner_lr, is explained for every algorithm
    that has it. Raises SpecError for an unknown name, with the nearest one.
    """
    section, _, key = name.partition(".")
    if not name:
        return Page("", "", [], _overview(), SPEC)
    if name == "spec":
        return Page(name, _about(Experiment), _options(Experiment), {}, SPEC)
    if name in CHOICES:
        snippet = _snippet(next(iter(CHOICES[name])))
        return Page(name, _described(Experiment, name), [], {f"{name}s": _list(CHOICES[name])}, snippet)
    if name in OPTIONS:
        own = [option for option in _options(OPTIONS[name]) if option.key != "name" or name in SECTIONS]
        return Page(name, _about(OPTIONS[name]), own, {}, _snippet(name))
    if name in Experiment.model_fields:
        return Page(
            name, "", _options(Experiment, name), {}, f"{name}: {_inline(_example(Experiment, name, wanted=True))}\n"
        )
    owners = [one for one, model in _owners(section).items() if key in model.model_fields]
    if not owners:
        raise SpecError([f"nothing is called {name!r}; {_nearest(name)}"])
    return Page(name, "", _merged(owners, key), {}, _snippet(owners[0], key))


def names() -> Iterator[str]:
    """Yield every name that has a page."""
    yield from ("spec", *Experiment.model_fields, *MODELS)
    for section in (*CHOICES, *OPTIONS):
        keys = {key: None for model in _owners(section).values() for key in model.model_fields}
        yield from (f"{section}.{key}" for key in keys)


def _owners(section: str) -> Mapping[str, type[BaseModel]]:
    """Return the options that may stand in a section, by name."""
    return CHOICES.get(section) or ({section: OPTIONS[section]} if section in OPTIONS else {})


def _nearest(name: str) -> str:
    """Return the known names that the user probably meant."""
    keys = [each for each in names() if each.endswith(f".{name}") and each.partition(".")[0] in Experiment.model_fields]
    return suggest(name, keys or names(), "`metarun describe` lists every name")


def _overview() -> dict[str, list[tuple[str, str]]]:
    keys = [(name, _described(Experiment, name)) for name in Experiment.model_fields]
    return {"keys of a spec": keys} | {f"{section}s": _list(group) for section, group in CHOICES.items()}


def _list(models: Mapping[str, type[BaseModel]]) -> list[tuple[str, str]]:
    return [(name, _about(model)) for name, model in models.items()]


def _about(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _described(model: type[BaseModel], key: str) -> str:
    """Return the description of a key, or that of its section."""
    section = SECTIONS.get(key) if model is Experiment else None
    return model.model_fields[key].description or (_about(section) if section else "")


def _options(model: type[BaseModel], only: str = "") -> list[Option]:
    schema = model.model_json_schema(by_alias=False)
    found = []
    for key, field in model.model_fields.items():
        if only in ("", key):
            own = schema["properties"][key]
            default = f"default {_shown(_default(field))}" if "default" in own else "default: see below"
            default = "required" if field.is_required() else default
            found.append(Option(key, _type(own), default, _described(model, key)))
    return found


def _merged(owners: list[str], key: str) -> list[Option]:
    """Return the option of each owner; owners whose option is the same share one."""
    found: dict[Option, list[str]] = {}
    for owner in owners:
        for option in _options(OPTIONS[owner], key):
            found.setdefault(option, []).append(f"{owner}.{key}")
    return [option._replace(key=", ".join(keys)) for option, keys in found.items()]


def _type(schema: Mapping[str, Any]) -> str:
    """Return a JSON Schema in plain words."""
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "oneOf" in schema:
        return "a section with a name: " + " | ".join(schema["discriminator"]["mapping"])
    if "$ref" in schema:
        return "a section"
    if "anyOf" in schema:
        return " | ".join(_type(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        count = f"{schema['maxItems']} " if schema.get("maxItems") else ""
        return f"list of {count}{_type(_item(schema))}"
    return WORDS.get(schema.get("type", ""), "any value") + _range(schema)


def _item(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return schema.get("items") or schema.get("prefixItems", [{}])[0]


def _range(schema: Mapping[str, Any]) -> str:
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_plain(schema[name])}" for name, sign in words.items() if name in schema]
    return f" ({', '.join(bounds)})" if bounds else ""


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _default(field: FieldInfo) -> Any:
    """Return the default as plain data."""
    return to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)


def _shown(default: Any) -> str:
    return "all defaults" if default and isinstance(default, dict) else _inline(default)


def _snippet(name: str, key: str = "") -> str:
    """Return a section with all values that are not null, or with one key and what is required beside it.

    Where all are null by default, each has its example.
    """
    model = OPTIONS[name]
    examples = not key and all(_default(field) in NOTHING for field in model.model_fields.values())
    lines = [f"{SECTION_OF.get(name, name)}:", *([f"  name: {name}"] if name in MODELS else [])]
    for each, field in model.model_fields.items():
        if each == "name" and name in MODELS or key and each != key and not field.is_required():
            continue
        value = _example(model, each, wanted=each == key or examples)
        if each == key or value not in NOTHING:
            lines.append(f"  {each}: {_inline(value)}{'  # required' if field.is_required() else ''}")
    return "\n".join(lines) + "\n"


def _example(model: type[BaseModel], key: str, wanted: bool = False) -> Any:
    """Return a valid value of a key: its default, or if that is empty and a value is `wanted`, an example."""
    field = model.model_fields[key]
    if field.is_required() or wanted and (field.examples or field.default in NOTHING):
        return _value(model.model_json_schema(by_alias=False)["properties"][key])
    return _default(field)


def _value(schema: Mapping[str, Any]) -> Any:
    """Return a value that a JSON Schema allows: its example, or one of a plain type or a list of them."""
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return _value(options[0])
    if schema.get("type") == "array":
        return [_value(_item(schema))] * schema.get("minItems", 1)
    if schema.get("type") == "boolean":
        return True
    return _number(schema) if schema.get("type") in NUMBERS else "folder"


def _number(schema: Mapping[str, Any]) -> float:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 2))
    if schema["type"] == "integer":
        return min(int(high), max(int(low), 1))
    return low + 0.01 if low + 0.01 < high else (low + high) / 2


def _inline(value: Any) -> str:
    """Return YAML on one line."""
    text = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=True)
    return text.removesuffix("...\n").strip()
