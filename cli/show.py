"""metarun show"""

from __future__ import annotations

import re

import click

from .options import examples, overrides


@click.command(name="show", epilog=examples("show quickstart/maml > my.yaml", "show omniglot/maml -s train.steps=100"))
@click.argument("spec")
@overrides
def command(spec: str, overrides: tuple[str, ...]) -> None:
    """Print SPEC with every default filled in, and where each value came from.

    The output is itself a spec. To begin one of your own: `metarun show quickstart/maml > my.yaml`.
    """
    from ..experiments.config.load import load, resolved_yaml
    from ..experiments.errors import warn

    loaded = load(spec, overrides)
    for warning in loaded.warnings:
        warn(warning)
    lines = [
        (line, loaded.origins.get(key, "default") if key else "")
        for line, key in _with_keys(resolved_yaml(loaded.experiment))
    ]
    width = min(48, max(len(line) for line, _ in lines))
    for line, origin in lines:
        click.echo(f"{line:<{width}}  # {origin}" if origin else line)


def _with_keys(text: str) -> list[tuple[str, str]]:
    """Return each line of block-style YAML with the dotted key of its value, or with "" if it has no value."""
    lines: list[tuple[str, str]] = []
    path: list[str] = []
    for line in text.splitlines():
        match = re.match(r"( *)([a-z0-9_]+):( .*)?$", line)
        if not match or line.startswith("-"):
            lines.append((line, ""))
            continue
        indent, name, value = match.groups()
        path[len(indent) // 2 :] = [name]
        lines.append((line, "" if value is None else ".".join(path)))
    return lines
