"""Record which runs were submitted together, find those that are still alive, and cancel them. No TensorFlow.

A submission is a folder OUT/.jobs/NAME. Its `runs.json`, written before anything starts, lists the runs in the order of
the job array. Beside it are the files of submitit and `table.txt`, the outcome of the job that writes the table, or the
lock of the process that starts the runs on this machine.
NAME is also the name of the jobs, so they can be found in the queue even if their numbers were not written.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..errors import RunError, warn_once
from ..runs.directory import RunDirectory, folders_below, is_run, runs_below
from ..runs.run import Run
from ..system import lock
from ..system.atomic import write_json_atomic
from .slurm import slurm, squeue

JOBS = ".jobs"
WRITTEN = "written"  # the outcome of a job that has written its table


@dataclass
class Submission:
    """Hold runs that were submitted together."""

    folder: Path  # OUT/.jobs/NAME
    runs: list[Path] = field(default_factory=list)  # by their number in the array
    ended: list[Path] = field(default_factory=list)  # runs that ended, of a process that starts runs here
    job: str | None = None  # number of the job array
    table: str | None = None  # number of the job that merges the results
    search: str | None = None  # the name of a search, which that job finishes

    @property
    def name(self) -> str:
        """Return the name of its jobs."""
        return self.folder.name

    @property
    def of_table(self) -> str:
        """Return the name of the job that merges the results, or finishes a search."""
        return f"{self.name}-{'select' if self.search else 'table'}"

    @property
    def local(self) -> bool:
        """Return whether its runs are started by a process of this machine, not by Slurm."""
        return self.lock.exists()

    @property
    def lock(self) -> Path:
        """Return the path of the lock that a process holds while it starts the runs on this machine."""
        return self.folder / ".lock"

    @property
    def outcome(self) -> Path:
        """Return the path of the file in which the job that writes the table says that it did, or why not."""
        return self.folder / "table.txt"

    def write(self) -> None:
        """Write runs.json."""
        out = self.folder.parents[1]
        runs, ended = ([os.path.relpath(run, out) for run in some] for some in (self.runs, self.ended))
        further = {"ended": ended, "search": self.search}
        record = {"runs": runs, "job": self.job, "table": self.table}
        write_json_atomic(self.folder / "runs.json", record | {key: value for key, value in further.items() if value})


class Live(NamedTuple):
    """Hold a job of one run that is queued or running."""

    job: str  # its number, or `process N on HOST`
    waiting: bool
    reason: str  # why it waits, as the scheduler says
    submission: Submission


def find_runs(folder: Path) -> list[RunDirectory]:
    """Return all runs below the folder, itself included, sorted. Runs that --fresh has set aside are left out."""
    return runs_below([folder.resolve()])


def find_submissions(folder: Path) -> list[Submission]:
    """Return the submissions of the folder, of the folders in it and of the two above it, the oldest first."""
    names = (folder.resolve(), Path(os.path.abspath(folder)))  # they differ by symbolic links
    above = [each / JOBS for name in names for each in list(name.parents)[:2]]
    below = [path / JOBS for path in _walk(folder)]
    records = {record for each in {*above, *below} for record in _records(each)}
    return [_read(record) for record in sorted(records, key=lambda path: path.parent.name)]


def _records(folder: Path) -> list[Path]:
    """Return the records of the submissions in a folder .jobs; none, with a warning, if it cannot be read."""
    try:
        return list(folder.glob("*/runs.json"))
    except PermissionError as error:
        warn_once(f"{folder} cannot be read ({error.strerror}): jobs that were submitted there are not known")
        return []


def _walk(folder: Path) -> Iterator[Path]:
    """Yield each folder, without those inside runs and submissions."""
    for path, below, files in folders_below(folder.resolve()):
        yield path
        if is_run(path, files):
            below.clear()
        elif JOBS in below:
            below.remove(JOBS)


def _read(record: Path) -> Submission:
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        out = record.parents[2]
        runs, ended = ([(out / run).resolve() for run in some] for some in (values["runs"], values.get("ended", [])))
        return Submission(record.parent, runs, ended, values["job"], values["table"], values.get("search"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{record} is not the record of a submission ({error}): delete its folder") from None


def live(submissions: Sequence[Submission]) -> dict[Path, Live]:
    """Return the jobs of the submissions that are not over, by the folder of their run.

    A run counts that is queued or running in Slurm, or that a process of this machine is still to start.
    """
    found: dict[Path, Live] = {}
    for one in submissions:
        if one.local and (holder := lock.holder(one.lock)):
            to_come = [run for run in one.runs if run not in one.ended]
            found |= dict.fromkeys(to_come, Live(holder, True, "its turn", one))
    known = {one.name: one for one in submissions if not one.local}
    for job, name, state, reason in squeue(known):
        one, (_, _, number) = known[name], job.partition("_")
        if (index := int(number or 0)) < len(one.runs):
            run = RunDirectory(one.runs[index])
            if state == "COMPLETING" and (run.finished or run.failure.exists()):
                continue  # over; a job that Slurm requeues has the same state for a while
            found[run.path] = Live(job, state == "PENDING", reason, one)
    return found


def cancel(folder: Path) -> int:
    """Stop all jobs and processes of the runs below the folder, and return how many runs were alive.

    The runs resume when they are submitted again. Raises RunError for a run that has not started yet, if the process
    that will start it also starts runs outside the folder.
    """
    here, submissions = folder.resolve(), find_submissions(folder)
    below = {run.path.resolve() for run in find_runs(folder)}  # some are reached by symbolic links

    def inside(run: Path) -> bool:
        return run in below or run.is_relative_to(here)

    alive = {path: job for path, job in live(submissions).items() if inside(path)}
    whole = [one for one in submissions if all(map(inside, one.runs))]
    names = {name for one in whole if not one.local for name in (one.name, one.of_table)}
    arrays = {job.partition("_")[0] for job, *_ in squeue(names)}
    single = {each.job for each in alive.values() if not each.submission.local and each.submission not in whole}
    if arrays or single:
        slurm("scancel", *sorted(arrays | single))
    searches = bool(arrays) and any(one.search for one in whole)  # their last jobs train runs too, on other hosts
    for holder in filter(None, (lock.holder(one.lock) for one in whole)):
        _end(holder)  # which stops its runs
    ended = {path for path, job in alive.items() if not job.submission.local or job.submission in whole}
    for path in below - ended:
        if holder := lock.holder(RunDirectory(path).lock):
            ended.add(path)
            if not searches or holder.endswith(f" on {socket.gethostname()}"):
                _end(holder)
    for path, job in alive.items():
        run = RunDirectory(path)
        if path not in ended and not run.failure.exists():
            raise RunError(f"{path} waits for {job.job}, which starts other runs too: cancel the folder of them all")
    return len(ended)


def _end(holder: str) -> None:
    """Ask the process that holds a lock to stop."""
    match = re.fullmatch(r"process (\d+) on (.+)", holder)
    if not match or match[2] != socket.gethostname():
        raise RunError(f"{holder} is not on this machine: run `metarun cancel` there")
    try:
        os.kill(int(match[1]), signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise RunError(f"{holder} belongs to another user, who alone can stop it") from None


def new_submission(runs: Sequence[Run], out: Path) -> Submission:
    """Write the record of a submission of `runs` below `out`, and return it. Call this before anything starts."""
    name = f"metarun-{datetime.now():%Y%m%d-%H%M%S-%f}-{secrets.token_hex(2)}"
    submission = Submission((out / JOBS / name).resolve(), [run.directory.path.resolve() for run in runs])
    submission.write()
    return submission
