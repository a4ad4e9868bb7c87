"""metarun validate"""

from __future__ import annotations

import click

from .options import examples, overrides


@click.command(name="validate", epilog=examples("validate my.yaml", "validate omniglot/maml -s train.shot=5"))
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
def command(specs: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check each SPEC and print every mistake with its file, line and key; so for a folder of images. Runs nothing."""
    from ..datasets.availability import unusable
    from ..experiments.config.load import labelled, load
    from ..experiments.errors import SpecError

    problems = []
    for spec in specs:
        try:
            loaded = load(spec, overrides)
            if unread := unusable(loaded.experiment.dataset):
                raise SpecError([f"{loaded.origins.get('dataset.path', spec)}: dataset.path: {unread}"])
            click.echo(f"{spec}: ok, digest {loaded.experiment.digest}")
        except SpecError as error:
            problems.extend(labelled(spec, error.problems, specs))
    if problems:
        raise SpecError(problems)
