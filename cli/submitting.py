"""Submit runs and report what became of them, for `metarun submit` and `metarun reproduce --executor`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..datasets.errors import counted
from .errors import resuming
from .options import quoted, typed

if TYPE_CHECKING:
    from ..experiments.jobs.job import Paper
    from ..experiments.jobs.submit import Submitted
    from ..experiments.runs.run import Run


def submit(
    runs: Sequence[Run],
    out: Path,
    executor: str,
    settings: Mapping[str, Any],
    *,
    paper: Paper | None = None,
    fresh: bool = False,
    dry_run: bool = False,
) -> None:
    """Submit the runs that are neither finished, queued nor running, and report it.

    Exits with code 1 if a run of --executor local failed.
    """
    from ..experiments.jobs import submit as jobs

    refuse_foreign(executor, settings)
    if dry_run:
        listed(*jobs.preview(runs, out, executor, settings, fresh))
        return
    with on_slurm(settings):
        done = jobs.submit(
            runs, out, executor, settings, lambda line: click.echo(line, err=True), paper=paper, fresh=fresh
        )
    _report(done, out)
    if done.has_table:
        _show_table(out, paper)
    _report_failures(done.failed)
    if done.failed:
        sys.exit(1)


def refuse_foreign(executor: str, settings: Mapping[str, Any]) -> None:
    """Raise UsageError for settings of a cluster with --executor local."""
    if executor == "local" and (foreign := _foreign(settings)):
        raise click.UsageError(
            f"{', '.join(foreign)}: not with --executor local, which divides the cores among the runs"
        )


def _foreign(settings: Mapping[str, Any]) -> list[str]:
    """Return the options of the command line that --executor local does not take."""
    from ..experiments.jobs.submit import OF_THIS_MACHINE

    return [f"--{name.replace('_', '-')}" for name in sorted(settings.keys() - set(OF_THIS_MACHINE))]


@contextmanager
def on_slurm(settings: Mapping[str, Any]) -> Iterator[None]:
    """Raise RunError with the command for this machine if the block finds no Slurm."""
    from ..experiments.errors import RunError
    from ..experiments.jobs.submit import NoSlurm

    try:
        yield
    except NoSlurm as error:
        here = typed("--executor", "local", without=["--executor", *_foreign(settings)])
        raise RunError(f"{error}: {here}") from None


def _report(done: Submitted, out: Path) -> None:
    counts = {"finished": done.finished, "queued or running": len(done.alive)}
    beside = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    if not done.missing:
        click.echo(f"nothing to submit: {beside}")
    elif done.jobs:
        click.echo(
            f"submitted {counted(len(done.missing), 'run')} as job {', '.join(f'{each.job}' for each in done.jobs)}"
            f"{beside and f' ({beside})'}, then the table as job {done.jobs[-1].table}; follow with "
            f"`metarun status {quoted(out)}`, end with `metarun cancel {quoted(out)}`"
        )


def _show_table(out: Path, paper: Paper | None) -> None:
    """Print the table that was written. A paper's table is printed by `reproduce`."""
    table = out / "table.txt"
    if paper is None and table.is_file():
        click.echo(table.read_text(encoding="utf-8"), nl=False)
        click.echo(f"table: {table.with_suffix('')}.txt, .csv, .md, .tex", err=True)
    click.echo(f"rows: {out / 'results.csv'}", err=True)


def _report_failures(failed: Sequence[Path]) -> None:
    from ..experiments.runs.directory import RunDirectory

    for path in failed:
        reason = RunDirectory(path).failure
        if reason.exists():
            click.echo(f"{path} failed: see {reason} and `metarun logs {quoted(path)}`", err=True)
        else:
            click.echo(resuming(f"{path} was stopped or killed: the same command resumes it"), err=True)


def listed(states: Sequence[tuple[Run, str]], sbatch: Sequence[str]) -> None:
    """Print the runs of a `Preview` with their states, and what sbatch would be asked for."""
    for run, state in states:
        click.echo(f"{run.directory.path}  {state}")
    click.echo(f"{sum(state == 'to do' for _, state in states)} of {counted(len(states), 'run')} to submit")
    for line in sbatch:
        click.echo(f"sbatch: {line}")
