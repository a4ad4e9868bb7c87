"""metarun reproduce"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import report
from .options import Seeds, cluster_options, examples, formats, offline, out_folder, quoted

if TYPE_CHECKING:
    from ..experiments.config.experiment import Experiment
    from ..experiments.jobs.job import Paper
    from ..experiments.jobs.submission import Live
    from ..experiments.papers.plan import Planned


def finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Refuse nan, which passes every range."""
    if not math.isfinite(value):
        raise click.BadParameter("expected a number above 0, and at most 1")
    return value


def seeds_or_count(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """Return the seeds of the option. A single number N was a count once, and still stands for the seeds 0 to N-1."""
    from ..experiments.errors import warn
    from ..experiments.runs.sweep import format_seeds

    if value is None:
        return []
    seeds = Seeds().convert(value, parameter, context)
    if not value.strip().isdigit() or seeds == [0]:
        return seeds
    (count,) = seeds
    if count > 1000:
        raise click.BadParameter(f"{value} seeds are too many; for seed {value} alone write {value}-{value}")
    seeds = list(range(count))
    warn(f"--seeds {value} is read as --seeds {format_seeds(seeds)}; write that")
    return seeds


@click.command(
    name="reproduce",
    epilog=examples(
        "reproduce finn2017-sinusoid --budget 0.01 --dry-run",
        "reproduce duan2016-bandits --cells 'n10-k5-*' --seeds 0-2",
    ),
)
@click.argument("table")
@click.option("--cells", default="*", metavar="GLOB", help="Only the cells whose names match, for example '5way-*'.")
@click.option(
    "--seeds",
    callback=seeds_or_count,
    metavar="0-4",
    help="Train these seeds, not those of the specs: 0-4 or 0,2,5. For seed 3 alone write 3-3.",
)
@click.option(
    "--budget",
    type=click.FloatRange(0, 1, min_open=True),
    callback=finite,
    default=1.0,
    show_default=True,
    help="Share of each spec's training steps. Such runs have names of their own, and the table shows the share.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "tf32", "bfloat16", "float64"]),
    help="Precision of all trainings, in place of the specs'. A run in another one has a name of its own.",
)
@click.option("--dry-run", is_flag=True, help="List the cells: state, estimated hours, data; run nothing.")
@offline
@cluster_options(None)
@out_folder("Folder of the runs, and of TABLE.csv, TABLE.md and TABLE.tex.")
@formats("text", "csv", "markdown", "latex")
def command(
    table: str,
    cells: str,
    seeds: list[int],
    budget: float,
    precision: str | None,
    dry_run: bool,
    out: Path,
    form: str,
    executor: str | None,
    **settings: Any,
) -> None:
    """Reproduce a paper's TABLE, a name from `metarun list tables` or a file of your own.

    Runs what is missing, resumes what was interrupted and skips what is finished; then prints and writes the table. A
    cell that fails does not stop the others. The table has every finished cell, whether --cells chose it or not.

    With --executor the runs go to a cluster, or to parallel processes of this machine, as with `metarun submit`.
    """
    from ..experiments.papers.definition import load_table, shipped_tables
    from ..experiments.papers.plan import choose, plan_of

    planned = plan_of(table, out, seeds, budget, precision)
    path = _path_of(table, out, budget, precision)
    chosen = choose(planned, cells)
    if settings and not executor:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in settings)
        raise click.UsageError(f"{given}: only with --executor")
    alive = _alive(out) if dry_run or not executor and _unfinished(chosen) else {}
    show = partial(_show, planned, path, form, load_table(table).notes)
    failed = []
    if dry_run:
        _list(chosen, alive)
    if executor:
        paper = (table if table in shipped_tables() else os.path.abspath(table), seeds, budget, precision)
        failed = _submit(chosen, out, executor, settings, paper, dry_run, show)
    elif not dry_run:
        failed = _run(_without_queued(chosen, alive, out), out, show)
    if failed:
        sys.exit(1)


def _path_of(table: str, out: Path, budget: float, precision: str | None) -> Path:
    """Return the path of the table's files without their endings; BadParameter if another table has this name."""
    from ..experiments.config.variants import suffix
    from ..experiments.papers.definition import shipped_tables

    stem = Path(table).stem
    if stem in ("results", "table") or stem in shipped_tables() and stem != table:
        raise click.BadParameter(f"{out / stem}.csv is the name of another table: rename {table}", param_hint="TABLE")
    return out / f"{stem}{suffix(budget, precision)}"


def _unfinished(chosen: Sequence[Planned]) -> list[Planned]:
    return [one for one in chosen if not one.finished]


def _alive(out: Path) -> Mapping[Path, Live]:
    """Return the runs that are queued or running. If Slurm does not answer, warn and return none."""
    from ..experiments.errors import RunError, warn
    from ..experiments.jobs.submission import find_submissions, live

    try:
        return live(find_submissions(out))
    except RunError as error:
        warn(f"cannot read the queue: {error}")
        return {}


def _submit(
    chosen: Sequence[Planned],
    out: Path,
    executor: str,
    settings: Mapping[str, Any],
    paper: Paper,
    dry_run: bool,
    show: Callable[[], None],
) -> list[str]:
    """Submit the trainings of the cells that can be trained; return the names of the others."""
    from ..experiments.papers.plan import trainings, without_blocked
    from .submitting import submit

    good, blocked = without_blocked(chosen)
    for one, error in blocked:
        report(error, f"{one.cell.name}, seed {one.seed}: ")
    try:
        if good:
            submit(trainings(good), out, executor, settings, paper=paper, dry_run=dry_run)
    finally:
        if not dry_run and (executor == "local" or not _unfinished(good)):
            show()
    return [one.cell.name for one, _ in blocked]


def _without_queued(chosen: list[Planned], alive: Mapping[Path, Live], out: Path) -> list[Planned]:
    """Return the cells whose runs are neither queued nor running, and name the others."""
    queued = [one for one in chosen if one.directory.path.resolve() in alive]
    if queued:
        names = ", ".join(dict.fromkeys(one.cell.name for one in queued))
        click.echo(f"queued or running, so skipped here: {names}; see `metarun status {quoted(out)}`", err=True)
    return [one for one in chosen if one not in queued]


def _run(chosen: Sequence[Planned], out: Path, show: Callable[[], None]) -> list[str]:
    """Train and test the cells in this process; return the names of those that failed."""
    failed = []

    def tell(cells: str, error: Exception) -> None:
        failed.append(cells)
        report(error, f"{cells}: ")

    try:
        if _unfinished(chosen):
            from ..experiments.system.startup import import_tensorflow

            import_tensorflow()
            from ..experiments.papers.reproduce import reproduce

            reproduce(chosen, out, tell)
    finally:
        show()
    return failed


def _list(chosen: Sequence[Planned], alive: Collection[Path]) -> None:
    """Print one line per cell: its state, the hours that it needs, and its data."""
    from ..experiments.papers.dry_run import listing

    def hours(experiment: Experiment, trained: bool) -> tuple[float, float]:
        from ..experiments.system.startup import import_tensorflow

        import_tensorflow()
        from ..experiments.training.benchmark import estimate_hours

        return estimate_hours(experiment, trained)

    for line in listing(chosen, hours, alive):
        click.echo(line)


def _show(planned: Sequence[Planned], path: Path, form: str, below: Sequence[str]) -> None:
    """Write the table with the notes below it, and print it."""
    from ..experiments.papers.render import write

    if text := write(planned, path, form, below):
        click.echo(text)
        click.echo(f"table: {path}.csv, .md, .tex", err=True)
    else:
        click.echo("no cell is filled yet", err=True)
