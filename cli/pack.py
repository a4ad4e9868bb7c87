"""metarun pack"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples


@click.command(
    name="pack",
    epilog=examples(
        "pack runs/omniglot-maml/seed-0 maml.zip", "pack runs/omniglot-protonet/seed-0 /tmp/protonet-seed-0.zip"
    ),
)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def command(run: Path, file: Path) -> None:
    """Pack the finished RUN, a folder such as runs/NAME/seed-0, into the new FILE.

    The file has the spec, the environment, the learning curve, the tested checkpoint, the values of each test task and
    the row, each with its SHA-256. Equal runs give equal bytes. Images are not in it, and of the checkpoints only the
    tested one. `metarun unpack` makes a run of it, on any machine.
    """
    from ..experiments.runs.archive import pack

    notes = pack(run, file)
    for note in notes:
        click.echo(note, err=True)
    click.echo(f"{file}: {file.stat().st_size / 1e6:.2f} MB")
