"""metarun train"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .errors import report
from .options import examples, offline, out_folder, overrides, seeds, selection, typed
from .selecting import choose_here, refuse

if TYPE_CHECKING:
    from ..experiments.runs.run import Run
    from ..experiments.training.session import Outcome


@click.command(
    name="train",
    epilog=examples(
        "train my.yaml omniglot/maml -s train.steps=100 --seeds 0-2 --out tried",
        "train quickstart/maml -s algorithm.inner_lr=0.1,0.2,0.4 --select",
    ),
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@overrides
@seeds
@selection
@out_folder("Folder of the runs: OUT/<experiment>/seed-<n>.")
@offline
@click.option(
    "--fresh",
    is_flag=True,
    help="Start again; what is there is renamed to seed-<n>~1, never lost. Without it a stopped run is resumed.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="How long to wait for the other workers of a run that several processes train.",
)
def command(
    specs: tuple[str, ...],
    overrides: tuple[str, ...],
    seeds: list[int],
    select: bool,
    draws: int | None,
    halving: bool,
    out: Path,
    fresh: bool,
    wait: float,
) -> None:
    """Train and test each SPEC once per seed. A SPEC is a YAML file, or the name of a spec that ships.

    To begin a spec of your own, copy one that ships: `metarun show quickstart/maml > my.yaml`.

    The same command again resumes what was interrupted and skips what is finished. A longer training under another
    name continues a shorter one of the same spec in OUT. A run that fails does not stop those after it.

    With --select, the settings of one SPEC are chosen by validation, and only the chosen ones are tested.

    Several processes train one run together if TF_CONFIG names them, or if one `srun` starts them. Each takes a part
    of every meta-batch. A run that fails then ends the command.
    """
    from ..experiments.errors import Interrupted, RunError
    from ..experiments.jobs.rendezvous import find, gather
    from ..experiments.runs.sweep import grid, refuse_unshareable
    from ..experiments.selection.search import search_of

    refuse(select, draws, halving, fresh)
    cluster, search, runs = find(), None, []
    if select:
        if cluster:
            raise RunError(
                "--select: this is one of several workers, and one process trains a configuration: start one"
            )
        search = search_of(specs, overrides, seeds, out, draws or 0, halving)
    else:
        _refuse_sweep(overrides)
        runs = grid(specs, overrides, seeds, out)
    if cluster:
        refuse_unshareable(runs, len(cluster.addresses))
    from ..experiments.system.startup import import_tensorflow, silence_libraries

    import_tensorflow()
    if cluster:
        silence_libraries()  # otherwise each worker prints a page when another is lost
    from ..algorithms.workers import ALONE, join
    from ..experiments.training.session import follow_all, train_all

    if cluster:
        gather(cluster, wait)
    workers = join(cluster.addresses, cluster.index) if cluster else ALONE
    if workers.index > 0:
        try:
            follow_all(runs, workers, fresh)
        except Interrupted:
            sys.exit(130)  # the chief reports it
        return
    if search:
        runs = choose_here(search)
    outcomes = []
    try:
        for outcome in train_all(runs, out, fresh, workers):
            outcomes.append(outcome)
            left = len(runs) - len(outcomes) if workers.count == 1 else 0
            _report(outcome, left)
    except Interrupted:
        if fresh and (later := [str(run.directory.path) for run in runs[len(outcomes) + 1 :]]):
            click.echo(f"not started yet, so give these --fresh again: {', '.join(later)}", err=True)
        raise
    finally:
        if outcomes:
            _show(runs, outcomes, out)
    if any(outcome.error for outcome in outcomes):
        sys.exit(1)


def _refuse_sweep(overrides: Sequence[str]) -> None:
    """Raise SpecError for an override with several values, which only `submit` takes."""
    from ..experiments.errors import SpecError
    from ..experiments.runs.sweep import values_of

    for override in overrides:
        if len(values_of(override)) > 1:
            sweep = typed("--executor", "local", verb="submit", without=("--offline",))
            raise SpecError(
                [f"-s {override}: train takes one value (in quotes or brackets if it holds a comma); to sweep: {sweep}"]
            )


def _report(outcome: Outcome, left: int) -> None:
    """Print at once what the table at the end does not show: a skipped run, or a failed one."""
    path = outcome.run.directory.path
    if outcome.skipped:
        again = "" if outcome.run.selected_of else "; --fresh trains it again"
        click.echo(f"{path} is finished{again}", err=True)
    if outcome.error and left:
        click.echo(f"{path} failed; continuing with the other runs", err=True)


def _left_out(runs: Sequence[Run], outcomes: Sequence[Outcome]) -> list[str]:
    """Return for each outcome with a row the other seeds of its experiment that have none, and why."""
    from ..experiments.runs.unfinished import as_text
    from ..experiments.system.failures import in_one_line

    reasons = {}  # experiment, seed -> why it has no row
    for outcome in outcomes:
        error = outcome.error and f"failed: {in_one_line(outcome.error)}"
        reasons[outcome.run.experiment.name, outcome.run.seed] = error
    for run in runs:
        reasons.setdefault((run.experiment.name, run.seed), "not finished")
    return [
        as_text({seed: why for (name, seed), why in reasons.items() if why and name == outcome.run.experiment.name})
        for outcome in outcomes
        if outcome.row
    ]


def _show(runs: Sequence[Run], outcomes: Sequence[Outcome], out: Path) -> None:
    """Print the table of the rows, with the seeds that have none, then every error."""
    from ..experiments.reports.table import lines_of, render
    from ..experiments.runs.rows import as_frame

    if rows := [outcome.row for outcome in outcomes if outcome.row]:
        click.echo(render(lines_of(as_frame(rows, _left_out(runs, outcomes))), "text"))
        click.echo(f"rows: {out / 'results.csv'}", err=True)
    for outcome in outcomes:
        if outcome.error:
            path = str(outcome.run.directory.path)
            report(outcome.error, "" if path in str(outcome.error) else f"{path}: ")
