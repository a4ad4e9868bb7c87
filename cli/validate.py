"""metarun validate"""

from __future__ import annotations

import click

from .options import overrides


@click.command(name="validate")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
def command(specs: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check each SPEC and print every mistake with its file, line and key; nothing is run."""
    from ..experiments.config.load import load, told_apart
    from ..experiments.errors import SpecError

    problems = []
    for spec in specs:
        try:
            click.echo(f"{spec}: ok, digest {load(spec, overrides).experiment.digest}")
        except SpecError as error:
            problems.extend(told_apart(spec, error.problems, specs))
    if problems:
        raise SpecError(problems)
