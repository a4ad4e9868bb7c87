"""Runs to the batch system Slurm, by submitit: a job array, and a last job that merges the results. No TensorFlow."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config.checks import unshareable
from ..config.experiment import Cluster, Experiment
from ..errors import RunError, SpecError
from ..runs.run import Run
from ..system import lock
from .submission import JOBS, find_submissions, live


def todo(runs: Sequence[Run], out: Path, fresh: bool = False) -> tuple[list[Run], list[Run]]:
    """The runs that are neither finished (or are to be trained afresh) nor alive, and those that are alive; RunError
    where a folder holds a run of another spec, which --fresh sets aside unless it is alive."""
    for run in () if fresh else runs:
        run.refuse_another_spec()
    queued = live(find_submissions(out))
    missing, alive = [], []
    for run in runs:
        if run.finished and not fresh:
            continue
        busy = run.directory.path.resolve() in queued or lock.holder(run.directory.lock)
        if busy and fresh and (found := run.stored()) and found[0] != run.experiment.digest:
            raise RunError(f"{run.directory.path} is queued or running with another spec: `metarun cancel` it first")
        (alive if busy else missing).append(run)
    return missing, alive


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One process at a time decides what is submitted to a folder."""
    try:
        with lock.locked(out / JOBS / ".lock"):
            yield
    except lock.Held as holder:
        raise RunError(f"{holder} is submitting to {out}: wait for it") from None


def prepare(runs: Sequence[Run], fresh: bool = False) -> None:
    """Write what a job reads; forget why earlier ones failed."""
    for run in runs:
        if fresh and run.directory.path.exists():
            with run.directory.locked():
                run.directory.set_aside()
        run.write_spec()
        if fresh:
            run.directory.afresh.touch()
        for path in (run.directory.failure, run.directory.restarts):
            path.unlink(missing_ok=True)


def refuse_unshareable(runs: Mapping[str, tuple[Experiment, Cluster]]) -> None:
    """SpecError for runs, by name, that have more workers than there is to do for them, or than GPUs."""
    problems = []
    for name, (experiment, cluster) in runs.items():
        if cluster.gpus and cluster.count != cluster.gpus:
            problems.append(f"{name}: each worker has one GPU, not {cluster.gpus} for {cluster.count} workers")
        elif cluster.count > 1 and (reason := unshareable(experiment, cluster.count)):
            problems.append(f"{name}: {reason}")
    if problems:
        raise SpecError(problems)


def refuse_without_slurm() -> None:
    """RunError where there is no sbatch."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise RunError("there is no sbatch here: log in to the cluster, or use --executor local on this machine")


def places_for(runs: int, clusters: Collection[Cluster], told: Mapping[str, Any]) -> list[str | None]:
    from .local import devices

    most = told.get("max_parallel") or min((c.max_parallel for c in clusters if c.max_parallel), default=None)
    return devices(runs, most, told.get("gpus", 0))


def refuse_missing_data(runs: Sequence[Run]) -> None:
    from ...datasets.availability import absent, needs
    from ...datasets.errors import DataError

    for experiment in {run.experiment.dataset.model_dump_json(): run.experiment for run in runs}.values():
        if absent(experiment.dataset):
            raise DataError(f"before submitting: {needs(experiment.dataset)}")
