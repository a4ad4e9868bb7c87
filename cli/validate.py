"""metarun validate"""

from __future__ import annotations

import click

from .options import examples, overrides


@click.command(name="validate", epilog=examples("validate my.yaml", "validate omniglot/maml -s train.shot=5"))
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
def command(specs: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check each SPEC and print every mistake with its file, line and key. Runs nothing."""
    from ..experiments.config.load import labelled, load
    from ..experiments.errors import SpecError

    problems = []
    for spec in specs:
        try:
            click.echo(f"{spec}: ok, digest {load(spec, overrides).experiment.digest}")
        except SpecError as error:
            problems.extend(labelled(spec, error.problems, specs))
    if problems:
        raise SpecError(problems)
