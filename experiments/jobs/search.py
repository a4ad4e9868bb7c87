"""Submit a search to Slurm: an array that trains the configurations, and a job that does the rest. No TensorFlow.

The array trains without tests. With halving it trains up to the first stop, and each further stage is an array that
waits for the one before: how many configurations go on is known, and which ones each of its tasks finds by itself. The
last job waits for all; it trains what is left, chooses, and trains and tests the chosen configuration, so it asks for
as much as a run.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..config.cluster import Cluster
from ..errors import RunError, SpecError
from ..runs.directory import RunDirectory
from ..runs.run import Run
from ..selection.results import failure_of
from ..selection.search import Search
from ..selection.session import begin, decided, left_at, runs_of_chosen, select
from ..selection.table import table
from ..system import lock
from ..system.atomic import write_text_atomic
from ..system.failures import noted
from ..system.signals import StopSignal
from .arrays import arrays, environment, for_search, last_to_slurm, link_log, runs_to_slurm, stage_to_slurm
from .job import as_job, count_restarts, started_at, write_table
from .prepare import forgotten
from .slurm import squeue
from .status import end_without_result
from .submission import WRITTEN, Submission, find_submissions, new_submission
from .submit import (
    Preview,
    alone,
    clusters_of,
    of_sbatch,
    preview,
    refuse_missing_data,
    refuse_path,
    refuse_without_slurm,
    todo,
)


class SubmittedSearch(NamedTuple):
    """Hold the outcome of the submission of a search."""

    missing: int  # configurations that are trained by the arrays
    stages: list[str]  # the numbers of the arrays of further stages
    alive: int  # configurations that are queued or running
    jobs: list[Submission]  # the last one has the job that does the rest; none if there is nothing to do, or it waits
    is_over: bool  # the chosen configuration is tested


def submit_search(search: Search, settings: Mapping[str, Any]) -> SubmittedSearch:
    """Submit what is left of a search, unless a part of it is queued or running.

    Args:
        search: the search.
        settings: cluster settings of the command line, which override those of the spec.

    Raises:
        SpecError, RunError, DataError: nothing was submitted, or sbatch refused the rest.
    """
    runs, cluster = _first(search), _cluster(search, settings)
    refuse_path(search.out)
    refuse_without_slurm()
    with alone(search.out):
        known = decided(search)
        chosen = runs_of_chosen(search, known) if known else []
        missing, alive = todo(chosen or runs, search.out)
        queued = squeue([one.of_table for one in find_submissions(search.out) if one.search == search.name])
        if alive or queued or known and not missing:
            return SubmittedSearch(0, [], len(alive), [], bool(known) and not (missing or alive or queued))
        refuse_missing_data(runs)
        os.environ["METARUN_OFFLINE"] = "1"  # otherwise hundreds of jobs download at once
        with StopSignal("") as stop, stop.held():  # what sbatch has taken is written down
            asked = [] if known else missing
            made = runs_to_slurm(arrays([(run, cluster) for run in asked]), search.out) if asked else []
            if not known:
                begin(search)
            last = made[-1] if made else new_submission(runs, search.out)
            last.search = search.name
            last.write()
            whole, settled = search.at(search.out.resolve()), for_search(cluster)
            stored, resources = last.folder / "search.pkl", (cluster.cpus, environment(), cluster.gpus > 0)
            stored.write_bytes(pickle.dumps(whole))  # once, and not for each job: it has all configurations
            numbers = before = [f"{one.job}" for one in made]
            with forgotten(_left_to_last(search, asked)):
                for stage, count in [] if known else _stages(search):
                    calls = [(str(stored), stage, place, *resources) for place in range(count)]
                    accepted = (made or [last]) if numbers else []
                    before = stage_to_slurm(last, accepted, settled, before, go_on, calls)
                    numbers = numbers + before
                accepted = (made or [last]) if numbers else []
                last_to_slurm(last, accepted, [settled], numbers, finish, whole, str(last.outcome), *resources)
    return SubmittedSearch(len(asked), numbers[len(made) :], 0, made or [last], False)


def _stages(search: Search) -> list[tuple[int, int]]:
    """Return the stages of a search after its first that are not trained yet, and how many configurations each has."""

    def is_trained(stage: int) -> bool:
        with suppress(RunError):
            return all(run.finished for run in _runs_at(search, stage))
        return False

    counts = list(enumerate(search.counts()))[1:]
    return [(stage, count) for stage, count in counts if not is_trained(stage)]


def _runs_at(search: Search, stage: int) -> list[Run]:
    """Return the runs that go on after so many stops, up to the next one or to their ends; see `left_at`."""
    return search.runs_until((*search.stops, None)[stage], left_at(search, stage))


def _left_to_last(search: Search, asked: Sequence[Run]) -> list[RunDirectory]:
    """Return the folders of the unfinished runs that no array of this submission has, so that the last job may train.

    Args:
        search: the search.
        asked: the runs of the arrays.
    """
    seeds = {*search.seeds, *(each.run.seed for each in search.configurations)}
    runs = [Run.at(search.out, each.run.experiment, seed) for each in search.configurations for seed in seeds]
    arrays = {run.directory.path for run in asked}
    return [run.directory for run in runs if not (run.directory.finished or run.directory.path in arrays)]


def preview_search(search: Search, executor: str, settings: Mapping[str, Any]) -> Preview:
    """Return what would be submitted of a search: its configurations and, on Slurm, also the job that does the rest."""
    runs = _first(search)
    found = preview(runs, search.out, executor, settings)
    if executor == "slurm":
        cluster = _cluster(search, settings)
        for _, count in [] if decided(search) else _stages(search):
            array = f"array=0-{count - 1}%{min(count, cluster.max_parallel or count)}"
            found.sbatch.append(f"{array} dependency=afterany {of_sbatch(for_search(cluster))}")
        found.sbatch.append(f"dependency=afterany {of_sbatch(for_search(cluster))}")
    return found


def _first(search: Search) -> list[Run]:
    """Return the runs with which a search begins."""
    return search.runs_until(search.stops[0] if search.stops else None, search.configurations)


def _cluster(search: Search, settings: Mapping[str, Any]) -> Cluster:
    """Return the settings of all jobs of a search. Raises SpecError for those of runs that several processes train."""
    clusters = clusters_of(_first(search), "slurm", settings)
    cluster = clusters[search.configurations[0].name]
    if cluster.count > 1:
        words = f"one process trains a configuration, not {cluster.count}: ask for one worker, and one GPU at most"
        raise SpecError([f"--select: {words}"])
    return cluster


def note_killed(runs: Sequence[Run], stop: int = 0) -> None:
    """Write in the folder of each run whose job was killed how its log ends: such a run would kill the last job too.

    Args:
        runs: the runs. One that a process has is left alone.
        stop: the step from which that job went on. The log of a run that no job took further is of an earlier one.
    """
    for run in (run for run in runs if not (run.finished or failure_of(run.directory))):
        if lock.holder(run.directory.lock) or stop and started_at(run.directory) < stop:
            continue
        if words := end_without_result(run.directory):
            write_text_atomic(run.directory.failure, f"{words}\n")


def go_on(stored: str, stage: int, place: int, threads: int, variables: Mapping[str, str], needs_gpu: bool) -> None:
    """Train one of the configurations that go on after a stop, up to the next stop or to the end, without a test.

    Args:
        stored: the file of the search, which is in a folder whose path is absolute.
        stage: how many stops lie behind these configurations.
        place: which of them. Nothing is done where fewer went on, since others failed.
        threads: processor threads to use.
        variables: environment variables to set, unless they are set already.
        needs_gpu: fail at once where TensorFlow sees no GPU.

    Raises:
        SystemExit: the job was stopped. It has asked to be requeued.
        RunError: a configuration has not come to the stop before, or this one failed.
    """
    search: Search = pickle.loads(Path(stored).read_bytes())
    with as_job(str(search.record.parent), threads, variables):
        runs = _runs_at(search, stage)
        if place >= len(runs) or runs[place].finished:
            return
        from submitit import JobEnvironment

        directory = runs[place].directory
        link_log(directory.log, JobEnvironment().paths.stdout)
        with noted(directory.failure):
            count_restarts(directory)
            from ..system.startup import import_tensorflow

            import_tensorflow(needs_gpu)
            from ..training.train import train_until

            train_until(runs[place])


def finish(search: Search, outcome: str, threads: int, variables: Mapping[str, str], needs_gpu: bool) -> None:
    """Finish a search: train what is missing, choose, train and test the chosen runs, write the table.

    Args:
        search: the search, in a folder whose path is absolute.
        outcome: a file for `metarun status` that gets WRITTEN, or the reason of a failure.
        threads: processor threads to use.
        variables: environment variables to set, unless they are set already.
        needs_gpu: fail at once where TensorFlow sees no GPU.

    Raises:
        SystemExit: the job was stopped. It has asked to be requeued.
        RunError: nothing could be chosen, or a run of the chosen configuration failed.
    """
    say = partial(print, file=sys.stderr, flush=True)
    with as_job(str(search.record.parent), threads, variables), noted(Path(outcome)):
        from ..system.startup import import_tensorflow

        import_tensorflow(needs_gpu)
        from ..selection.here import train_here
        from ..training.session import train_all

        def train(runs: Sequence[Run]) -> None:
            note_killed(runs, max((stop for stop in search.stops if stop < (runs[0].until or 0)), default=0))
            for run in runs:
                if not (run.finished or failure_of(run.directory)):  # those that failed have been tried by the array
                    count_restarts(run.directory)
                    train_here([run], say)

        results = select(search, train)
        print(table(results), flush=True)
        chosen, errors = runs_of_chosen(search, results), []
        for run in (run for run in chosen if not run.finished):
            count_restarts(run.directory)
            errors += [one.error for one in train_all([run], search.out) if one.error]
        write_table(str(search.out), None)
        if errors:
            raise errors[0]
    write_text_atomic(Path(outcome), f"{WRITTEN}\n")
