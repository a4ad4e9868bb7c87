"""metarun table"""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="table")
@click.argument(
    "folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR..."
)
@click.option(
    "--format", "form", type=click.Choice(["text", "csv", "markdown", "latex"]), default="text", show_default=True
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead of the terminal.")
def command(folders: tuple[Path, ...], form: str, out: Path | None) -> None:
    """One table of every run below the folders, the paper's number beside the reproduced one.

    Runs of one spec that differ in the seed are one line: `ci95` is the interval over test episodes, `seed std` the
    spread over seeds.
    """
    from ..experiments.errors import RunError
    from ..experiments.reports.table import render, tabulate
    from ..experiments.runs.rows import read_rows
    from ..experiments.system.atomic import write_text_atomic

    rows = read_rows(folders)
    if not rows:
        raise RunError(
            f"no finished run below {', '.join(map(str, folders))}: run `metarun train SPEC --out {folders[0]}`"
        )
    text = render(tabulate(rows), form)
    if out:
        write_text_atomic(out, text + "\n")
    else:
        click.echo(text)
