"""metarun validate"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples, overrides


@click.command(
    name="validate",
    epilog=examples("validate my.yaml", "validate omniglot/maml -s train.steps=100"),
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
def command(specs: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Check each SPEC and print every mistake with its file, line and key. Runs nothing.

    A table for `reproduce`, and a file of cluster settings, are checked as what they are.
    """
    from ..experiments.config.load import labelled
    from ..experiments.errors import SpecError

    problems = []
    for spec in specs:
        try:
            click.echo(f"{spec}: ok, {check(spec, overrides)}")
        except SpecError as error:
            problems.extend(labelled(spec, error.problems, specs))
    if problems:
        raise SpecError(problems)


def check(name: str, overrides: tuple[str, ...]) -> str:
    """Return what is in a spec, a table or a cluster file without mistakes. Raises SpecError with all of them."""
    from ..experiments.config.document import read
    from ..experiments.config.kinds import kind_of, shipped_tables
    from ..experiments.config.load import find, load
    from ..experiments.errors import SpecError, warn
    from ..experiments.runs.run import Run

    kind = "table" if name in shipped_tables() else kind_of(read(find(name)).values)
    if overrides and kind != "spec":
        raise SpecError([f"{name} is no spec, so -s has nothing to override in it"])
    if kind == "cluster":
        from ..experiments.jobs.settings import read_settings

        read_settings(find(name))
        return "cluster settings"
    if kind == "table":
        from ..experiments.papers.plan import check

        cells, models = check(name)
        return f"a table of {cells} cells, {models} models"
    loaded = load(name, overrides, with_data=True)
    run = Run.at(Path("runs"), loaded.experiment, loaded.experiment.seeds[0])  # with the weights that it starts from
    for warning in loaded.warnings:
        warn(warning)
    return f"digest {run.experiment.digest}"
