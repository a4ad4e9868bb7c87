"""metarun plot"""

from __future__ import annotations

from pathlib import Path

import click

from ..experiments.figures.draw import FROM_FILES, FROM_WEIGHTS


@click.command(name="plot")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([*FROM_FILES, *FROM_WEIGHTS]),
    help=f"Which figures; repeatable. Default: those of {', '.join(FROM_FILES)} that the runs have the numbers for.",
)
@click.option(
    "--episode", type=click.IntRange(0), default=0, show_default=True, help="The test task that is shown, or the first."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder; default: plots/ in the first.")
@click.option("--format", "form", type=click.Choice(["png", "svg"]), default="png", show_default=True)
def command(runs: tuple[Path, ...], kinds: tuple[str, ...], episode: int, out: Path | None, form: str) -> None:
    """Draw figures of all finished runs below RUNS.

    \b
    learning     validation over training; the test of what is not trained
    adaptation   the test after 0, 1, 2, 3, ... inner steps (maml, reptile)
    reliability  accuracy over confidence, in bins
    regret       of trials: what the actions cost, step by step
    optimal      of trials: the share of best actions, step by step

    Of single test tasks, with the trained weights, for each run:

    \b
    fits         sinusoids before and after adaptation
    episode      every image of a task, and what each query was taken for
    embedding    support, queries and prototypes in the plane (protonet)
    attention    of the queries over the support (matchingnet)
    """
    from ..experiments.figures.draw import draw_all
    from ..experiments.figures.finished import runs_below

    found = runs_below(runs)
    if any(kind in FROM_WEIGHTS for kind in kinds):
        from ..experiments.system.startup import import_tensorflow

        import_tensorflow()
    elif episode:
        raise click.UsageError(f"--episode has no effect without --kind {' or '.join(FROM_WEIGHTS)}")
    for path in draw_all(found, out or runs[0] / "plots", form, list(dict.fromkeys(kinds)), episode):
        click.echo(path)
