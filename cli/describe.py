"""metarun describe"""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

import click


@click.command(name="describe")
@click.argument("name")
def command(name: str) -> None:
    """Explain every option of NAME: an algorithm, a network, a dataset, a section of the spec, or `spec` itself.

    `algorithm`, `network` and `dataset` list those that there are.
    """
    import difflib

    from ..experiments.config.experiment import CHOICES, SECTIONS, Experiment

    models = {
        "spec": Experiment,
        **{each: model for group in CHOICES.values() for each, model in group.items()},
        **SECTIONS,
    }
    if name in CHOICES:
        _list(CHOICES[name])
        return
    if name not in models:
        near = difflib.get_close_matches(name, [*models, *CHOICES], n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join([*models, *CHOICES])}"
        raise click.UsageError(f"nothing is called {name!r}; {hint}")
    model = models[name]
    width = min(shutil.get_terminal_size().columns, 110)
    click.echo(textwrap.fill(f"{name}: {' '.join((model.__doc__ or '').split())}", width))
    properties = model.model_json_schema(by_alias=False)
    for option, field in model.model_fields.items():
        if option == "name" and any(name in group for group in CHOICES.values()):
            continue  # it is the one asked for
        told = _type(properties["properties"][option], properties.get("$defs", {}))
        default = "required" if field.is_required() else f"default {_default(field)}"
        click.echo(f"\n  {option}: {told}, {default}")
        if field.description:
            indent = " " * 6
            click.echo(textwrap.fill(field.description, width, initial_indent=indent, subsequent_indent=indent))


def _list(models: dict[str, Any]) -> None:
    """Each with what it is; the options of each are a call of their own."""
    width = max(map(len, models))
    for name, model in models.items():
        click.echo(f"{name:<{width}}  {' '.join((model.__doc__ or '').split())}")
    click.echo("\n`metarun describe NAME` explains the options of one.")


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """A JSON Schema in plain words."""
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "oneOf" in schema:
        return "a section with a name: " + " | ".join(schema["discriminator"]["mapping"])
    if "$ref" in schema:
        return "a section"
    if "anyOf" in schema:
        return " | ".join(_type(each, definitions) for each in schema["anyOf"])
    if schema.get("type") == "array":
        items = schema.get("items") or schema.get("prefixItems", [{}])[0]
        count = f"{schema['maxItems']} " if schema.get("maxItems") else ""
        return f"list of {count}{_type(items, definitions)}"
    words = {"integer": "whole number", "number": "number", "boolean": "true | false", "string": "text", "null": "null"}
    return words.get(schema.get("type", ""), "any value") + _range(schema)


def _range(schema: dict[str, Any]) -> str:
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[name]:g}" for name, sign in words.items() if name in schema]
    return f" ({', '.join(bounds)})" if bounds else ""


def _default(field: Any) -> str:
    from pydantic import BaseModel

    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "all defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else repr(value) if value == "" else str(value)
