"""metarun compare"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples, formats


@click.command(
    name="compare",
    epilog=examples(
        "compare runs/omniglot-maml/seed-0 runs/omniglot-protonet/seed-0", "compare runs/omniglot-maml --against best"
    ),
)
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="RUN...")
@click.option(
    "--against",
    type=click.Choice(["first", "best"]),
    default="first",
    show_default=True,
    help="The run to compare with.",
)
@click.option(
    "--test",
    type=click.Choice(["t", "wilcoxon"]),
    default="t",
    show_default=True,
    help="The paired test: Student's t, or Wilcoxon's signed ranks.",
)
@formats("text", "markdown", "latex")
def command(runs: tuple[Path, ...], against: str, test: str, form: str) -> None:
    """Compare finished runs episode by episode: the mean difference, its 95% interval, and p.

    A RUN is the folder of a run such as runs/NAME/seed-0, or another test of it,
    runs/NAME/seed-0/evaluations/TEST.json. A folder above them, such as runs/NAME, stands for every finished run below
    it, each by itself. All must have been tested on the same episodes. The test is paired. Accuracies have many
    ties, for which Student's t is the better choice.
    """
    from ..experiments.reports.compare import best_of, measurements, refuse_other_episodes, render
    from ..experiments.stats import TESTS

    measured = measurements(runs)
    if len(measured) < 2:
        raise click.UsageError(f"give two runs or more: {measured[0].path} is the only one")
    refuse_other_episodes(measured)
    click.echo(render(measured, best_of(measured) if against == "best" else 0, TESTS[test == "wilcoxon"], form))
