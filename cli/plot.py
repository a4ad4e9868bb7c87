"""metarun plot"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="plot")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder; default: plots/ in the first.")
@click.option("--format", "form", type=click.Choice(["png", "svg"]), default="png", show_default=True)
def command(runs: tuple[Path, ...], out: Path | None, form: str) -> None:
    """Draw learning curves and, of trials, regret and best actions step by step, of all finished runs below RUNS."""
    from ..experiments.plot import draw_all, runs_below

    for path in draw_all(runs_below(runs), out or runs[0] / "plots", form):
        click.echo(path)
