"""metarun reproduce"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import report
from .options import cluster_options, offline

if TYPE_CHECKING:
    from ..experiments.papers.plan import Planned


def finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """nan passes every range."""
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no share")
    return value


@click.command(name="reproduce")
@click.argument("table")
@click.option("--cells", default="*", metavar="GLOB", help="Only the cells with such names, for example '5way-*'.")
@click.option("--seeds", type=click.IntRange(1, 1000), metavar="N", help="Seeds 0 to N-1 instead of the specs' own.")
@click.option(
    "--budget",
    type=click.FloatRange(0, 1, min_open=True),
    callback=finite,
    default=1.0,
    show_default=True,
    help="Share of each spec's training steps; such runs have a name of their own, and the table says it.",
)
@click.option("--dry-run", is_flag=True, help="List the cells: state, estimated hours, data; run nothing.")
@offline
@cluster_options(None)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of the runs, and of TABLE.csv, TABLE.md and TABLE.tex.",
)
@click.option(
    "--format", "form", type=click.Choice(["text", "csv", "markdown", "latex"]), default="text", show_default=True
)
def command(
    table: str,
    cells: str,
    seeds: int | None,
    budget: float,
    dry_run: bool,
    out: Path,
    form: str,
    executor: str | None,
    **told: Any,
) -> None:
    """Reproduce a paper's TABLE (a name from `metarun list tables`): run what is missing, go on with what was
    interrupted, skip what is finished; then print and write the table.

    A cell that fails does not stop the others. The table has every finished cell, chosen by --cells or not. With
    --executor the runs go to a cluster, or to parallel processes of this machine, as with `metarun submit`.
    """
    from ..experiments.config.variants import suffix
    from ..experiments.errors import RunError
    from ..experiments.jobs.submission import find_submissions, live
    from ..experiments.papers.definition import load_table, shipped_tables
    from ..experiments.papers.plan import choose, plan, trainings

    planned = plan(load_table(table), out, seeds, budget)
    stem = Path(table).stem
    if stem in ("results", "table") or stem in shipped_tables() and stem != table:
        raise click.BadParameter(f"{out / stem}.csv is the name of another table: rename {table}", param_hint="TABLE")
    chosen = choose(planned, cells)
    if told and not executor:
        raise click.UsageError(f"--{', --'.join(told)}: only with --executor")
    alive = {}
    if dry_run or not executor and not all(one.finished for one in chosen):
        try:
            alive = live(find_submissions(out))
        except RunError as error:
            click.echo(f"warning: nobody knows what is in the queue: {error}", err=True)
    if dry_run:
        _list(chosen, alive)
    path, failed = out / f"{stem}{suffix(budget)}", []
    if executor:
        from .submitting import submit

        paper = (table if table in shipped_tables() else os.path.abspath(table), seeds, budget)
        good = _without_blocked(chosen, failed)
        try:
            if good:
                submit(trainings(good), out, executor, told, paper=paper, dry_run=dry_run)
        finally:
            if not dry_run and (executor == "local" or all(one.finished for one in good)):
                _show(planned, path, form)
    if dry_run or executor:
        if failed:
            sys.exit(1)
        return
    if queued := [one for one in chosen if one.directory.path.resolve() in alive]:
        names = ", ".join(dict.fromkeys(one.cell.name for one in queued))
        click.echo(f"queued or running, and left alone: {names}; see `metarun status {out}`", err=True)
        chosen = [one for one in chosen if one not in queued]
    try:
        if not all(one.finished for one in chosen):
            _run(chosen, out, failed)
    finally:
        _show(planned, path, form)
    if failed:
        sys.exit(1)


def _without_blocked(chosen: list[Planned], failed: list[str]) -> list[Planned]:
    """The cells that can be trained or are; the others are told, and noted in `failed`."""
    from ..experiments.errors import RunError
    from ..experiments.runs.rows import read_row

    good = []
    for one in chosen:
        try:
            one.run.refuse_another_spec()
            if one.row_path.is_file():
                read_row(one.row_path)
            good.append(one)
        except RunError as error:
            failed.append(one.cell.name)
            report(error, f"{one.cell.name}, seed {one.seed}: ")
    return good


def _list(chosen: list[Planned], alive: Collection[Path]) -> None:
    from ..experiments.config.experiment import Experiment
    from ..experiments.papers.dry_run import listing

    def hours(experiment: Experiment, trained: bool) -> tuple[float, float]:
        from ..experiments.system.startup import import_tensorflow

        import_tensorflow()
        from ..experiments.training.benchmark import estimate_hours

        return estimate_hours(experiment, trained)

    for line in listing(chosen, hours, alive):
        click.echo(line)


def _run(chosen: list[Planned], out: Path, failed: list[str]) -> None:
    from ..experiments.system.startup import import_tensorflow

    import_tensorflow()
    from ..experiments.papers.reproduce import reproduce

    def tell(cells: str, error: Exception) -> None:
        failed.append(cells)
        report(error, f"{cells}: ")

    reproduce(chosen, out, tell)


def _show(planned: list[Planned], path: Path, form: str) -> None:
    from ..experiments.papers.render import write

    if text := write(planned, path, form):
        click.echo(text)
        click.echo(f"table: {path}.csv, .md, .tex", err=True)
    else:
        click.echo("no cell is filled yet", err=True)
