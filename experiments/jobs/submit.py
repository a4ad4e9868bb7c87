"""Submit runs: to the batch system Slurm as job arrays, or as parallel processes of this machine. No TensorFlow."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.availability import absent, needs, unusable
from ...datasets.errors import DataError, counted
from ..config.checks import unshareable
from ..config.cluster import Cluster
from ..config.experiment import Experiment
from ..errors import RunError, SpecError
from ..runs.run import Run
from ..system import lock
from ..system.signals import StopSignal
from .arrays import arrays, options, to_slurm
from .job import Paper, write_table
from .local import devices, run_here, submitted_here
from .prepare import prepared
from .settings import settled
from .submission import JOBS, Submission, find_submissions, live

NOT_OF_SBATCH = ("setup", "srun_args", "stderr_to_stdout")  # options of submitit alone
SHARING = "runs_per_gpu"  # a setting of --executor local alone
OF_THIS_MACHINE = ("gpus", SHARING, "max_parallel")  # settings that it accepts


class NoSlurm(RunError):
    """Report that this machine has no Slurm."""


class Submitted(NamedTuple):
    """Hold the outcome of a submission."""

    missing: list[Run]  # submitted now
    alive: list[Run]  # queued or running before
    finished: int
    jobs: list[Submission]  # those of Slurm
    failed: list[Path]  # folders of runs that ended on this machine without a result
    has_table: bool  # the table was written here; otherwise a job writes it


class Preview(NamedTuple):
    """Hold the plan of a submission: the state of each run, and the requests to Slurm."""

    states: list[tuple[Run, str]]  # finished, to do, or queued or running
    sbatch: list[str]  # what each job array would ask for; none on this machine


def submit(
    runs: Sequence[Run],
    out: Path,
    executor: str,
    settings: Mapping[str, Any],
    report: Callable[[str], object],
    *,
    paper: Paper | None = None,
    fresh: bool = False,
) -> Submitted:
    """Submit the runs that are neither finished nor queued or running. On this machine, train them to their end.

    Args:
        runs: all runs of the command.
        out: their folder, which also gets results.csv and the table.
        executor: slurm or local.
        settings: cluster settings of the command line, which override those of the specs.
        report: is called with one line for each run that ends on this machine.
        paper: the table that the runs fill, if it is a paper's.
        fresh: train again what is finished.

    Raises:
        SpecError, RunError, DataError: nothing was submitted, or sbatch refused the rest.
        Interrupted: the runs of this machine were stopped, after their checkpoints.
    """
    clusters = clusters_of(runs, executor, settings)
    if executor == "slurm":
        refuse_path(out)
        refuse_without_slurm()
    made, failed, submission = [], [], None
    with ExitStack() as held:
        with alone(out):
            missing, alive = todo(runs, out, fresh)
            refuse_missing_data(missing)
            free = devices_for(len(missing), clusters.values(), settings) if missing and executor == "local" else []
            os.environ["METARUN_OFFLINE"] = "1"  # otherwise hundreds of jobs download at once
            if missing and executor == "slurm":
                with StopSignal("") as stop, stop.held():  # what sbatch has taken is written down
                    made = to_slurm([(run, clusters[run.experiment.name]) for run in missing], out, paper, fresh)
            elif missing:  # before another command may look
                with prepared(missing, fresh):
                    submission = held.enter_context(submitted_here(missing, out))
        if submission:
            at_once = len(devices_for(len(runs), clusters.values(), settings))
            failed = run_here(missing, submission, free, report, at_once, settings.get(SHARING, 1))
    tested = any(run.until is None for run in runs)  # not in a search
    has_table = tested and (executor == "local" or not missing and not alive)
    if has_table:
        write_table(str(out), paper)
    return Submitted(missing, alive, len(runs) - len(missing) - len(alive), made, failed, has_table)


def preview(runs: Sequence[Run], out: Path, executor: str, settings: Mapping[str, Any], fresh: bool = False) -> Preview:
    """Return what `submit` would do.

    Raises:
        SpecError, DataError: as `submit` would, for settings that contradict the specs and folders without images.
    """
    clusters = clusters_of(runs, executor, settings)
    if executor == "slurm":
        refuse_path(out)
    missing, alive = todo(runs, out, fresh)
    refuse_missing_data(missing, folders_alone=True)
    words = {run.directory.path: "to do" for run in missing} | {
        run.directory.path: "queued or running" for run in alive
    }
    asked = [(run, clusters[run.experiment.name]) for run in missing] if executor == "slurm" else []
    planned = arrays(asked) if asked else ()
    lines = [f"array=0-{len(some) - 1}%{at_once} {of_sbatch(cluster)}" for cluster, some, at_once in planned]
    return Preview([(run, words.get(run.directory.path, "finished")) for run in runs], lines)


def of_sbatch(cluster: Cluster) -> str:
    """Return what sbatch is asked for, in the words of its options."""
    flat = options(cluster)
    flat |= flat.pop("additional_parameters")
    return " ".join(f"{name}={value}" for name, value in flat.items() if name not in NOT_OF_SBATCH)


def clusters_of(runs: Sequence[Run], executor: str, settings: Mapping[str, Any]) -> dict[str, Cluster]:
    """Return the cluster settings of each experiment by its name.

    Raises SpecError for mistakes, and for more workers than can share a training; RunError for jobs of Slurm that are
    to share a GPU.
    """
    if executor == "slurm" and SHARING in settings:
        raise RunError(
            "--runs-per-gpu: only with --executor local, which works inside of a job too; a cluster that divides GPUs "
            "by itself gives a part of one with --slurm gres=shard:1 in place of --gpus"
        )
    experiments = {run.experiment.name: run.experiment for run in runs}
    given = {name: value for name, value in settings.items() if name != SHARING}
    clusters = {name: settled(experiment.cluster, given) for name, experiment in experiments.items()}
    if executor == "slurm":
        refuse_unshareable(experiments, clusters)
    return clusters


def todo(runs: Sequence[Run], out: Path, fresh: bool = False) -> tuple[list[Run], list[Run]]:
    """Return the runs that are to be submitted, and those that are queued or running. Finished ones are in neither.

    Raises RunError where a folder holds a run of another spec, or where one is queued or running with another test.
    With `fresh` such a run is set aside, unless it is queued or running.
    """
    for run in () if fresh else runs:
        run.refuse_another_spec()
    queued = live(find_submissions(out))
    missing, alive = [], []
    for run in runs:
        if run.finished and not fresh:
            continue
        busy = run.directory.path.resolve() in queued or lock.holder(run.directory.lock)
        if busy and (found := run.stored()) and found.digest != run.as_trained().experiment.digest:
            changes = run.changes_from(found).strip()
            raise RunError(
                f"{run.directory.path} is queued or running with another spec, {changes}: `metarun cancel` it first, "
                "or give this one a name of its own (-s name=...)"
            )
        (alive if busy else missing).append(run)
    return missing, alive


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Let one process at a time decide what is submitted to a folder; raises RunError in any other."""
    try:
        with lock.locked(out / JOBS / ".lock"):
            yield
    except lock.Held as holder:
        raise RunError(f"{holder} is submitting to {out}: wait for it") from None


def refuse_unshareable(experiments: Mapping[str, Experiment], clusters: Mapping[str, Cluster]) -> None:
    """Raise SpecError for every experiment that asks for more workers than it has tasks, or than it has GPUs.

    Args:
        experiments: the experiments, by name.
        clusters: the settings of each, by the same names.
    """
    problems = []
    for name, experiment in experiments.items():
        cluster = clusters[name]
        if cluster.gpus and cluster.count != cluster.gpus:
            problems.append(
                f"{name}: each worker has one GPU, not {cluster.gpus} for {counted(cluster.count, 'worker')}"
            )
        elif cluster.count > 1 and (reason := unshareable(experiment, cluster.count)):
            problems.append(f"{name}: {reason}")
    if problems:
        raise SpecError(problems)


def refuse_path(out: Path) -> None:
    """Raise RunError for a folder with a character that sbatch and submitit do not take as it is in the path of a log.

    They replace % and drop backslashes; a line break ends the header of the script.
    """
    path = str(out.resolve())
    if wrong := re.findall(r"[%\\\x00-\x1f\x7f\ud800-\udfff]", path):
        named = ", ".join(dict.fromkeys(map(ascii, wrong)))
        raise RunError(
            f"{ascii(path)}: Slurm cannot write logs below a folder with {named} in its path: choose another --out"
        )


def refuse_without_slurm() -> None:
    """Raise NoSlurm if this machine has no sbatch or no srun."""
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise NoSlurm("there is no sbatch here: log in to the cluster, or train on this machine")


def devices_for(runs: int, clusters: Collection[Cluster], settings: Mapping[str, Any]) -> list[str | None]:
    """Return the GPU, or None, of each process that may train at the same time on this machine."""
    most = settings.get("max_parallel") or min((c.max_parallel for c in clusters if c.max_parallel), default=None)
    return devices(runs, most, settings.get("gpus", 0), settings.get(SHARING, 1))


def refuse_missing_data(runs: Sequence[Run], folders_alone: bool = False) -> None:
    """Raise DataError if the data of a run are not on this machine, or only if its image folder cannot be used."""
    found = [dataset for run in runs for dataset in run.datasets]
    for dataset in {each.model_dump_json(): each for each in found}.values():
        unread = unusable(dataset)
        if absent(dataset) and (unread or not folders_alone):
            raise DataError(f"before submitting: {needs(dataset)}")
        if unread:
            raise DataError(f"before submitting: {unread}")
