"""metarun status"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="status")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
def command(folder: Path) -> None:
    """A line for each run below DIR: waiting, running with step, rate and time left, finished with its number, failed
    with its reason. Known from the run folders and the scheduler alone."""
    from ..experiments.jobs.status import lines, statuses

    for line in lines(statuses(folder), folder):
        click.echo(line)
