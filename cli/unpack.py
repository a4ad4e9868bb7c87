"""metarun unpack"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples, out_folder


@click.command(name="unpack", epilog=examples("unpack maml.zip", "unpack maml.zip --out colleagues"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@out_folder("Folder of the runs; the run is written to OUT/<experiment>/seed-<n>.")
def command(file: Path, out: Path) -> None:
    """Unpack FILE, which `metarun pack` wrote, into a new folder of a run. Overwrites nothing.

    The file may come from a stranger: names, sizes and digests of its members are checked, and nothing in it is run.
    `evaluate`, `table`, `compare`, `plot` and `verify` take the new folder like any other.
    """
    from ..experiments.runs.archive import unpack
    from ..experiments.runs.rows import merge

    directory, notes = unpack(file, out)
    if (out / "results.csv").exists():
        merge(out)
    for note in notes:
        click.echo(note, err=True)
    click.echo(directory.path)
