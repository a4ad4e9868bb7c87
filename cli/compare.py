"""metarun compare"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="RUN RUN...")
@click.option(
    "--against",
    type=click.Choice(["first", "best"]),
    default="first",
    show_default=True,
    help="The run to compare with.",
)
@click.option("--test", type=click.Choice(["t", "wilcoxon"]), default="t", show_default=True)
@click.option("--format", "form", type=click.Choice(["text", "markdown", "latex"]), default="text", show_default=True)
def command(runs: tuple[Path, ...], against: str, test: str, form: str) -> None:
    """Compare finished runs episode by episode: the mean difference, its 95% interval, and p.

    A RUN is a folder such as runs/NAME/seed-0, or another test of it, runs/NAME/seed-0/evaluations/TEST.json. All
    must have been tested on the same episodes. The test is paired: Student's t (the default; accuracies have many
    ties) or Wilcoxon's signed ranks.
    """
    if len(runs) < 2:
        raise click.UsageError("give two runs or more")
    from ..experiments.reports.compare import best_of, refuse_other_episodes, render, with_episodes
    from ..experiments.stats import TESTS

    measured = [with_episodes(run) for run in runs]
    refuse_other_episodes(measured)
    click.echo(render(measured, best_of(measured) if against == "best" else 0, TESTS[test == "wilcoxon"], form))
