"""metarun report"""

from __future__ import annotations

import os
from pathlib import Path

import click

from .options import examples


@click.command(name="report", epilog=examples("report runs", "report runs/omniglot-maml --out maml.html --episodes 0"))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="The page; default: report.html in the folder."
)
@click.option(
    "--episodes",
    type=click.IntRange(0),
    default=12,
    show_default=True,
    help="Number of experiments of which a test task is drawn, from the trained weights; 0: TensorFlow is not needed.",
)
@click.option("--episode", type=click.IntRange(0), default=0, show_default=True, help="The test task that is drawn.")
def command(folder: Path, out: Path | None, episodes: int, episode: int) -> None:
    """Write one HTML page of all runs below DIR, to look at, to print or to send.

    It has the table with published numbers and verdicts, the figures that the runs have the numbers for, a test task
    of each experiment, its spec, where it was run, and what failed or is not finished. The page is one file: it opens
    without a network and has no script. The same runs give the same bytes.

    Test tasks need the data, which are not downloaded for it. Where they are missing, the page says so.
    """
    from ..experiments.pages.page import find, render
    from ..experiments.system.atomic import write_text_atomic

    if episodes:
        os.environ["METARUN_OFFLINE"] = "1"
    path = out or folder / "report.html"
    write_text_atomic(path, render(find(folder), episodes, episode))
    click.echo(path)
