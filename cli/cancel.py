"""metarun cancel"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="cancel")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
def command(folder: Path) -> None:
    """End every job and process of the runs below DIR; they write a checkpoint and go on when submitted again."""
    from ..experiments.jobs.submission import cancel

    count = cancel(folder)
    click.echo(f"cancelled {count} runs" if count else f"no run below {folder} is queued or running")
