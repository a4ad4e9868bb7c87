"""metarun table"""

from __future__ import annotations

from pathlib import Path

import click

from .options import examples, formats


def names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Return the names between the commas of an option."""
    found = tuple(name.strip() for name in value.split(",")) if value is not None else ()
    if not all(found) or parameter.name == "pivot" and len(found) not in (0, 2):
        raise click.BadParameter(f"expected {parameter.metavar}, got {value!r}")
    return found


@click.command(
    name="table", epilog=examples("table runs", "table runs --pivot algorithm,shot --format latex --out results.tex")
)
@click.argument(
    "folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR..."
)
@formats("text", "csv", "markdown", "latex")
@click.option(
    "--columns",
    callback=names,
    metavar="A,B,C",
    help="Only these columns, by heading or by column of results.csv; the default are those that say something.",
)
@click.option(
    "--pivot",
    callback=names,
    metavar="ROWS,COLUMNS",
    help="The results by two columns, for example algorithm,shot: one down, one across, `98.58 ± 0.16` in each cell.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file instead of the terminal.")
def command(
    folders: tuple[Path, ...], form: str, columns: tuple[str, ...], pivot: tuple[str, ...], out: Path | None
) -> None:
    """Print one table of every run below the folders, the paper's number beside the reproduced one.

    Runs of one spec that differ in the seed are one line: `ci95` is the interval over test episodes, `seed std` the
    spread over seeds. The keys in which the runs of a sweep differ are columns, and so is the validation value of the
    tested checkpoint: choose by `validation`, and report `result`. Seeds that failed or are not finished are told below
    the table, `2 of 3` in its column `seeds`, and on standard error.
    """
    if columns and pivot:
        raise click.UsageError("--columns and --pivot exclude each other")
    from ..experiments.errors import warn
    from ..experiments.reports.notes import notes_to_warn_of
    from ..experiments.reports.pivot import render_pivot
    from ..experiments.reports.table import lines_of, render, results_and_notes
    from ..experiments.system.atomic import write_text_atomic

    rows, notes = results_and_notes(*folders)
    lines = lines_of(rows)
    text = render_pivot(lines, pivot[0], pivot[1], form, notes) if pivot else render(lines, form, columns, notes)
    for note in [*notes_to_warn_of(lines), *notes]:
        warn(note)
    if out:
        write_text_atomic(out, text + "\n")
    else:
        click.echo(text)
