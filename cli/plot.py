"""metarun plot"""

from __future__ import annotations

from pathlib import Path

import click

from ..experiments.figures.draw import FROM_FILES, FROM_WEIGHTS
from .options import examples, formats


@click.command(
    name="plot", epilog=examples("plot runs --out figures", "plot runs/omniglot-maml/seed-0 --kind episode --episode 3")
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([*FROM_FILES, *FROM_WEIGHTS]),
    help=f"Which figures; repeatable. Default: those of {', '.join(FROM_FILES)} that the runs have the numbers for.",
)
@click.option(
    "--episode", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="The task, or the first one."
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder; default: plots/ in the first.")
@formats("png", "svg")
def command(runs: tuple[Path, ...], kinds: tuple[str, ...], episode: int, out: Path | None, form: str) -> None:
    """Draw figures of all finished runs below RUNS.

    Each experiment is one line. Its band reaches from the lowest to the highest seed; of one seed it is the 95%
    interval over tasks.

    \b
    learning     validation score during training (methods without training: their test score as a line)
    adaptation   test score after 0, 1, 2, 3, ... inner steps (maml, reptile)
    reliability  accuracy over confidence, in bins
    regret       trials: what the actions lost against the best ones, step by step
    optimal      trials: the share of best actions, step by step

    Figures of single tasks, with the trained weights, for each run:

    \b
    fits         sinusoids before and after adaptation
    episode      every image of a task, and the predicted class of each query
    training     every image of a training task, after the random changes of `augment`
    embedding    support, queries and prototypes in the plane (protonet)
    attention    attention of the queries to the support (matchingnet)
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
