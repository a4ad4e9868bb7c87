"""metarun status"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples


@click.command(name="status", epilog=examples("status runs", "status runs/omniglot-maml"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
def command(folder: Path) -> None:
    """Print one line per run below DIR, read from the folders of the runs and from Slurm.

    A run is waiting, running (with step, rate and time left), finished (with its result), validated (a search withholds
    its test), failed (with the reason), interrupted, unreadable (a folder of another user) or missing. The last line is
    about the job that writes the table, or finishes a search.
    """
    from ..experiments.jobs.status import lines, statuses, tables

    for line in (*lines(statuses(folder), folder), *tables(folder)):
        click.echo(line)
