"""The JSON Schema of spec files, with which editors complete and check them."""

from __future__ import annotations

from typing import Any

from .experiment import Experiment


def schema() -> dict[str, Any]:
    """Return the schema: a file that extends another may leave out everything but its name."""
    whole = Experiment.model_json_schema()
    definitions = whole.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": whole["title"],
        "if": {"required": ["extends"], "properties": {"extends": {"type": "string"}}},
        "then": {**_partial(whole), "required": ["name"]},
        "else": whole,
        "$defs": {**definitions, **{f"{name}Part": _partial(each) for name, each in definitions.items()}},
    }


def _partial(schema: Any) -> Any:
    """Return a schema that requires no key. A section without a name may then be of any kind."""
    if isinstance(schema, list):
        return [_partial(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        return {**schema, "$ref": f"{reference}Part"}
    schema = {key: _partial(each) for key, each in schema.items() if key not in ("required", "discriminator")}
    return {("anyOf" if key == "oneOf" else key): each for key, each in schema.items()}
