"""Choose among the configurations of a spec by validation, for `metarun train` and `metarun submit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from ..datasets.errors import counted
from .options import quoted
from .submitting import listed, on_slurm, refuse_foreign, submit

if TYPE_CHECKING:
    from ..experiments.jobs.search import SubmittedSearch
    from ..experiments.runs.run import Run
    from ..experiments.selection.results import Result
    from ..experiments.selection.search import Search

SAY = partial(click.echo, err=True)


def refuse(select: bool, draws: int | None, halving: bool, fresh: bool) -> None:
    """Raise UsageError for options that go with --select alone, or not with it."""
    given = [name for name, value in (("--random", draws), ("--halving", halving)) if value]
    if given and not select:
        raise click.UsageError(f"{' and '.join(given)}: only with --select, which chooses by validation")
    if fresh and select:
        raise click.UsageError(
            "--fresh: not with --select, which keeps the runs that it has; for another search give another --out, or a "
            "name of its own (-s name=...)"
        )


def choose_here(search: Search) -> list[Run]:
    """Search in this process, print the table of the search, and return the runs of the chosen configuration."""
    from ..experiments.selection.here import train_here
    from ..experiments.selection.session import runs_of_chosen, select

    SAY(f"{search.words}; their tests are withheld")
    results = select(search, partial(train_here, report=SAY))
    _show(search, results)
    return runs_of_chosen(search, results)


def submit_search(search: Search, executor: str, settings: Mapping[str, Any], dry_run: bool) -> None:
    """Submit a search to Slurm, or run it to its end as processes of this machine."""
    from ..experiments.jobs import search as jobs
    from ..experiments.jobs.submit import submit as submit_runs
    from ..experiments.runs.sweep import format_seeds
    from ..experiments.selection.results import failure_of
    from ..experiments.selection.session import runs_of_chosen, select
    from ..experiments.selection.table import failed

    refuse_foreign(executor, settings)
    if dry_run:
        listed(*jobs.preview_search(search, executor, settings))
        stops = ", ".join(map(str, search.stops))
        halving = f"; the better half goes on at step {stops}" if stops else ""
        SAY(f"{search.words}, without tests{halving}; then the best by validation, seeds {format_seeds(search.seeds)}")
        return
    SAY(f"{search.words}; their tests are withheld")
    if executor == "slurm":
        with on_slurm(settings):
            _report(search, jobs.submit_search(search, settings))
        return

    def train(runs: Sequence[Run]) -> None:
        done = submit_runs(runs, search.out, executor, settings, SAY)
        for run in (run for run in runs if run.directory.path in done.failed):
            if reason := failure_of(run.directory):
                SAY(failed(run, reason))

    results = select(search, train)
    _show(search, results)
    submit(runs_of_chosen(search, results), search.out, executor, settings)


def _show(search: Search, results: Sequence[Result]) -> None:
    from ..experiments.selection.table import table

    click.echo(f"{table(results)}\n")
    SAY(f"selection: {search.record}")


def _report(search: Search, done: SubmittedSearch) -> None:
    where = quoted(search.out)
    follow = f"follow with `metarun status {where}`, end with `metarun cancel {where}`"
    if done.is_over:
        click.echo(f"nothing to submit: the choice is in {search.record}, see `metarun table {where}`")
    elif not done.jobs:
        which = counted(done.alive, "configuration") if done.alive else "a part of it is"
        click.echo(f"nothing to submit: {which} queued or running; {follow}")
    else:
        arrays = ", ".join(each.job for each in done.jobs if each.job)
        first = f"{counted(done.missing, 'configuration')} as job {arrays}, then " if done.missing else ""
        if done.stages:
            first += f"those that go on as job {', '.join(done.stages)}, then "
        click.echo(f"submitted {first}the choice, its training and its test as job {done.jobs[-1].table}; {follow}")
