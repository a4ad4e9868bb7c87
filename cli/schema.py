"""metarun schema"""

from __future__ import annotations

import json

import click

from .options import examples


@click.command(name="schema", epilog=examples("schema > metarun.json", "schema | head"))
def command() -> None:
    """Print the JSON Schema of specs.

    Save it as metarun.json, and begin a spec with the line `# yaml-language-server: $schema=metarun.json`. Editors
    then complete and check the spec.
    """
    from ..experiments.config.schema import schema

    click.echo(json.dumps(schema(), indent=2))
