"""metarun cancel"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples


@click.command(name="cancel", epilog=examples("cancel runs", "cancel runs/omniglot-maml/seed-3"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
def command(folder: Path) -> None:
    """Stop every job and process of the runs below DIR.

    Each run writes a checkpoint first, and is resumed when it is submitted again.
    """
    from ..datasets.errors import counted
    from ..experiments.jobs.submission import cancel

    count = cancel(folder)
    click.echo(f"cancelled {counted(count, 'run')}" if count else f"no run below {folder} is queued or running")
