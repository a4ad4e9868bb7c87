"""Submit runs to Slurm as job arrays."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...datasets.errors import counted
from ...datasets.images.cache import folder
from ..config.cluster import Cluster
from ..errors import RunError, warn
from ..runs.run import Run
from .job import Paper, plainly, work, write_table
from .prepare import prepared
from .slurm import largest_array, minutes, outside_of_jobs, slurm
from .submission import Submission, find_submissions, live, new_submission

if TYPE_CHECKING:
    import submitit


TABLE_MINUTES = 30

# beginnings of options of sbatch: conditions that runs wait for, and resources that the table does not need
WAITING = ("dependency", "begin")
OF_RUNS = ("signal", "gres", "gpu", "tres", "mem", "exclusive", "node", "ntasks", "cpu", "core", "thread", "sockets")


def arrays(runs: Sequence[tuple[Run, Cluster]]) -> list[tuple[Cluster, list[Run], int]]:
    """Divide runs into job arrays: one for all runs of the same settings, several if Slurm's limit is shorter.

    Args:
        runs: the runs, each with its settings.

    Returns:
        For each array its settings, its runs, and how many of them may run at once. All arrays together keep to
        `max_parallel`.
    """
    longest = largest_array()
    chunks: list[tuple[Cluster, list[Run]]] = []
    for cluster, group in groupby(sorted(runs, key=_settings), key=lambda each: each[1]):
        same = [run for run, _ in group]
        chunks += [(cluster, same[start : start + longest]) for start in range(0, len(same), longest)]
    return [
        (cluster, some, min(len(some), max(1, (cluster.max_parallel or len(runs) * len(chunks)) // len(chunks))))
        for cluster, some in chunks
    ]


def to_slurm(
    runs: Sequence[tuple[Run, Cluster]], out: Path, paper: Paper | None = None, fresh: bool = False
) -> list[Submission]:
    """Prepare the folders of the runs and submit the job arrays, then the job that writes the table at the end.

    Args:
        runs: the runs, each with its settings.
        out: the folder of the runs.
        paper: the paper's table to write; default: the table of all runs.
        fresh: set aside what the folders of the runs hold.

    Returns:
        One submission for each array.

    Raises:
        RunError: sbatch refuses. Arrays that were submitted before stay; the folders of other runs are as before.
    """
    planned = arrays(runs)
    submissions = runs_to_slurm(planned, out, fresh)
    last = submissions[-1]
    try:
        alive = live([each for each in find_submissions(out) if each.job]).values()
    except RunError:  # the scheduler is busy: the table waits for what was submitted now
        alive = ()
    numbers = sorted({*(f"{one.job}" for one in submissions), *(each.job.partition("_")[0] for each in alive)})
    written = (write_table, str(out.resolve()), paper, str(last.outcome))
    last_to_slurm(last, submissions, for_table(planned[-1][0]), numbers, *written)
    return submissions


def runs_to_slurm(
    planned: Sequence[tuple[Cluster, list[Run], int]], out: Path, fresh: bool = False
) -> list[Submission]:
    """Prepare the folders of runs, submit them as job arrays, and return the submissions.

    Args:
        planned: the result of `arrays`.
        out: the folder of the runs.
        fresh: set aside what the folders of the runs hold.

    Raises:
        RunError: sbatch refuses. Arrays that were submitted before stay.
    """
    if ignored := sorted(name for name in os.environ if name.startswith("SBATCH_")):
        warn(f"{', '.join(ignored)} of this shell: not used; give options of metarun, or write them into cluster.yaml")
    submissions = []
    for cluster, some, at_once in planned:
        one = new_submission(some, out)
        executor = _executor(one, cluster)
        executor.update_parameters(array_parallelism=at_once)
        with _sbatch(one, submissions), prepared(some, fresh), executor.batch():
            jobs = [
                executor.submit(
                    plainly, work, str(path), run.tests, cluster.cpus, environment(), needs_gpu=cluster.gpus > 0
                )
                for run, path in zip(some, one.runs, strict=True)
            ]
        one.job = jobs[0].job_id.partition("_")[0]
        one.write()
        for run, job in zip(some, jobs, strict=True):
            link_log(run.directory.log, job.paths.stdout)
        submissions.append(one)
    return submissions


def stage_to_slurm(
    last: Submission,
    before: Sequence[Submission],
    cluster: Cluster,
    numbers: Sequence[str],
    function: Callable[..., None],
    calls: Sequence[tuple[Any, ...]],
) -> list[str]:
    """Submit job arrays that wait for other jobs, under the name of the job that ends a submission.

    Args:
        last: the submission that they belong to.
        before: the submissions that sbatch has accepted.
        cluster: the settings of the jobs.
        numbers: the jobs whose end they wait for.
        function: what the jobs call.
        calls: its arguments, for each job.

    Returns:
        The numbers of the arrays: one, or several if Slurm's limit is shorter.

    Raises:
        RunError: sbatch refuses, and what was submitted before stays; or its answer is not understood, and all jobs of
            this name are cancelled.
    """
    longest = largest_array()
    made, parts = [], [calls[start : start + longest] for start in range(0, len(calls), longest)]
    for some in parts:
        executor = _executor(last, cluster)
        at_once = max(1, (cluster.max_parallel or len(calls)) // len(parts))
        executor.update_parameters(job_name=last.of_table, array_parallelism=at_once)
        if numbers:
            executor.update_parameters(dependency="afterany:" + ":".join(numbers))
        with _sbatch(last, before or ([last] if made else [])), executor.batch():
            jobs = [executor.submit(plainly, function, *each) for each in some]
        made.append(jobs[0].job_id.partition("_")[0])
    return made


def last_to_slurm(
    last: Submission,
    before: Sequence[Submission],
    clusters: Sequence[Cluster],
    numbers: Sequence[str],
    function: Callable[..., None],
    *arguments: Any,
) -> None:
    """Submit the job that ends a submission, and write its number down.

    Args:
        last: the submission that it belongs to.
        before: the submissions that sbatch has accepted.
        clusters: the settings of the job, and others to try if sbatch refuses them.
        numbers: the jobs whose end it waits for.
        function: what the job calls.
        arguments: its arguments.

    Raises:
        RunError: sbatch refuses. What was submitted before stays.
    """
    for cluster in clusters:
        executor = _executor(last, cluster)
        executor.update_parameters(job_name=last.of_table)
        if numbers:
            executor.update_parameters(dependency="afterany:" + ":".join(numbers))
        try:
            with _sbatch(last, before):
                last.table = executor.submit(plainly, function, *arguments).job_id
            break
        except RunError:
            if cluster is clusters[-1]:
                raise
    last.write()


def environment() -> dict[str, str]:
    """Return the variables of a job. They are stated, because some sites export none to jobs."""
    return {"METARUN_OFFLINE": "1", "METARUN_CACHE": str(folder().absolute())}


def for_table(cluster: Cluster) -> tuple[Cluster, Cluster]:
    """Return the settings of the job that writes the table: a small one, and one for sites that refuse the small one.

    The small job has the partition and account of the runs, but not their resources. The other asks for the same
    resources as the runs. Both wait for nothing but the runs.
    """

    def without(some: tuple[str, ...], **changes: Any) -> Cluster:
        slurm = {name: value for name, value in cluster.slurm.items() if not name.startswith(some)}
        return cluster.model_copy(update={"time": str(TABLE_MINUTES), "slurm": slurm} | changes)

    return without(WAITING + OF_RUNS, gpus=0, workers=1, cpus=1, memory=None), without(WAITING)


def for_search(cluster: Cluster) -> Cluster:
    """Return the settings of the job that finishes a search: those of the runs, but it waits for nothing but them."""
    slurm = {name: value for name, value in cluster.slurm.items() if not name.startswith(WAITING)}
    return cluster.model_copy(update={"slurm": slurm})


def options(cluster: Cluster) -> dict[str, Any]:
    """Return the settings under the names that submitit uses."""
    given = {"partition": cluster.partition, "mem": cluster.memory, "account": cluster.account}
    extra: dict[str, Any] = {"signal": cluster.signal, "requeue": True}
    srun = [f"--cpus-per-task={cluster.cpus}"]  # srun does not take it from sbatch
    gpus = {"gpus_per_node": cluster.gpus}
    if cluster.count > 1:
        extra |= {"nodes": f"1-{cluster.count}", "ntasks": cluster.count}
        srun += ["--distribution=block", "--kill-on-bad-exit=1"]
        gpus = {"gpus_per_task": 1}
    extra |= cluster.slurm
    return {name: value for name, value in given.items() if value is not None} | {
        "time": minutes(cluster.time),
        "cpus_per_task": cluster.cpus,
        "setup": list(cluster.setup),
        "stderr_to_stdout": True,
        "srun_args": srun,
        **(gpus if cluster.gpus else {}),
        "additional_parameters": {name: value for name, value in extra.items() if value is not False},
    }


def _settings(each: tuple[Run, Cluster]) -> str:
    return each[1].model_dump_json()


def _executor(submission: Submission, cluster: Cluster) -> submitit.SlurmExecutor:
    import submitit

    executor = submitit.SlurmExecutor(submission.folder)
    executor.update_parameters(job_name=submission.name, **options(cluster))
    return executor


@contextmanager
def _sbatch(submission: Submission, before: Sequence[Submission]) -> Iterator[None]:
    """Raise RunError if sbatch refuses in the block, and delete the record of the submission.

    Variables of a job around this process are hidden in the block.

    Args:
        submission: the submission of this block; it is kept if it is one of those before.
        before: the submissions that sbatch has accepted.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with outside_of_jobs(), redirect_stderr(io.StringIO()):  # submitit prints what sbatch says
            yield
    except (FailedJobError, FailedSubmissionError) as error:
        if isinstance(error, FailedSubmissionError):  # it accepts, in words that are not understood
            _forget(submission, before)
        elif submission not in before:
            shutil.rmtree(submission.folder)
        reason = " ".join(str(error).replace("sbatch: error: ", "").split())
        submitted = sum(len(one.runs) for one in before)
        verbs = "is submitted already and stays" if submitted == 1 else "are submitted already and stay"
        stays = f"; {counted(submitted, 'run')} {verbs}" if before else ""
        raise RunError(f"sbatch refuses: {reason}{stays}") from None
    except BaseException:  # Ctrl-C, or a full disk, perhaps after sbatch has accepted
        _forget(submission, before)
        raise


def _forget(submission: Submission, before: Sequence[Submission]) -> None:
    """Cancel jobs of a submission whose numbers are not known, and delete its record if it is not one of `before`."""
    known = submission in before
    with suppress(RunError):
        slurm("scancel", f"--name={submission.of_table if known or submission.search else submission.name}")
    if not known:
        shutil.rmtree(submission.folder)


def link_log(log: Path, target: Path) -> None:
    """Make `log`, beside the run, a link to the log `target` of its job. A log that is a file is renamed to NAME~."""
    if log.exists() and not log.is_symlink():
        log.replace(log.with_name(f"{log.name}~"))
    new = log.with_name(f".{log.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, log.parent.resolve()))
    new.replace(log)
