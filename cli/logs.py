"""metarun logs"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from .options import examples


@click.command(name="logs", epilog=examples("logs runs/omniglot-maml/seed-0", "logs runs/omniglot-maml/seed-0 | tail"))
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="RUN")
def command(run: Path) -> None:
    """Print the output of the last job of RUN, the folder of a run."""
    from ..experiments.errors import RunError
    from ..experiments.runs.directory import RunDirectory

    log = RunDirectory(run).log
    if not log.is_file():
        waits = "its job has not started yet" if log.is_symlink() else "no job has run it; `metarun status` says more"
        raise RunError(f"{run} has no log: {waits}")
    with open(log, encoding="utf-8", errors="replace") as file:
        shutil.copyfileobj(file, sys.stdout)
