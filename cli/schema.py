"""metarun schema"""

from __future__ import annotations

import json

import click


@click.command(name="schema")
def command() -> None:
    """Print the JSON Schema of specs.

    Save it, and begin a spec with `# yaml-language-server: $schema=metarun.json`: editors then complete and check it.
    """
    from ..experiments.config.schema import schema

    click.echo(json.dumps(schema(), indent=2))
