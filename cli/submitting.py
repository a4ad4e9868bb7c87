"""Submit runs and report it, for `metarun submit` and `metarun reproduce --executor`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..experiments.jobs.submit import places_for, refuse_missing_data
from .errors import resuming

if TYPE_CHECKING:
    from ..experiments.config.experiment import Cluster
    from ..experiments.jobs.job import Paper
    from ..experiments.runs.run import Run


NOT_OF_SBATCH = ("setup", "srun_args", "stderr_to_stdout")  # options of submitit alone


def submit(
    runs: Sequence[Run],
    out: Path,
    executor: str,
    told: Mapping[str, Any],
    *,
    paper: Paper | None = None,
    fresh: bool = False,
    dry_run: bool = False,
) -> None:
    """Submit what is neither finished nor alive, and say so; exit code 1 where a run of --executor local failed."""
    from ..experiments.jobs.arrays import to_slurm
    from ..experiments.jobs.local import run_here, submitted_here
    from ..experiments.jobs.settings import settled
    from ..experiments.jobs.submit import alone, prepare, refuse_unshareable, refuse_without_slurm, todo

    if executor == "local" and (foreign := told.keys() - {"gpus", "max_parallel"}):
        raise click.UsageError(
            f"--{', --'.join(sorted(foreign))}: not with --executor local, which shares out the cores"
        )
    clusters = {run.experiment.name: settled(run.experiment.cluster, told) for run in runs}
    if executor == "slurm":
        refuse_unshareable({run.experiment.name: (run.experiment, clusters[run.experiment.name]) for run in runs})
    if dry_run:
        _list(runs, out, clusters if executor == "slurm" else {}, fresh)
        return
    if executor == "slurm":
        refuse_without_slurm()
    failed, submission = [], None
    with ExitStack() as held:
        with alone(out):
            missing, alive = todo(runs, out, fresh)
            refuse_missing_data(missing)
            free = places_for(len(missing), clusters.values(), told) if missing and executor == "local" else []
            prepare(missing, fresh)
            others = {"finished": len(runs) - len(missing) - len(alive), "queued or running": len(alive)}
            beside = ", ".join(f"{count} {state}" for state, count in others.items() if count)
            os.environ["METARUN_OFFLINE"] = "1"  # two hundred jobs that download are one too many
            if missing and executor == "slurm":
                made = to_slurm([(run, clusters[run.experiment.name]) for run in missing], out, paper)
                jobs = ", ".join(f"{one.job}" for one in made)
                click.echo(
                    f"submitted {len(missing)} runs as job {jobs}{beside and f' ({beside})'}, then the table as job "
                    f"{made[-1].table}; follow with `metarun status {out}`, end with `metarun cancel {out}`"
                )
            elif missing:  # before another command may look
                submission = held.enter_context(submitted_here(missing, out))
        if not missing:
            click.echo(f"nothing to submit: {beside}")
        elif submission:
            failed = run_here(missing, submission, free, lambda line: click.echo(line, err=True))
    if executor == "local" or not missing and not alive:
        from ..experiments.jobs.job import write_table

        write_table(str(out), paper)
        click.echo(f"rows: {out / 'results.csv'}", err=True)
    for path in failed:
        if (path / "failure.txt").exists():
            click.echo(f"{path} failed: see {path / 'failure.txt'} and `metarun logs {path}`", err=True)
        else:
            click.echo(resuming(f"{path} was stopped or killed: the same command goes on with it"), err=True)
    if failed:
        sys.exit(1)


def _list(runs: Sequence[Run], out: Path, clusters: Mapping[str, Cluster], fresh: bool) -> None:
    from ..experiments.jobs.arrays import arrays, options
    from ..experiments.jobs.submit import todo

    missing, alive = todo(runs, out, fresh)
    states = {run.directory.path: "to do" for run in missing} | {
        run.directory.path: "queued or running" for run in alive
    }
    for run in runs:
        click.echo(f"{run.directory.path}  {states.get(run.directory.path, 'finished')}")
    click.echo(f"{len(missing)} of {len(runs)} runs to submit")
    asked = [(run, clusters[run.experiment.name]) for run in missing] if clusters else []
    for cluster, some, at_once in arrays(asked) if asked else ():
        flat = options(cluster)
        flat |= flat.pop("additional_parameters")
        told = (f"{name}={value}" for name, value in flat.items() if name not in NOT_OF_SBATCH)
        click.echo(" ".join([f"sbatch: array=0-{len(some) - 1}%{at_once}", *told]))
