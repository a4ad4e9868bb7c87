"""Find the state of every run below a folder, from its files and from Slurm. No TensorFlow."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ...datasets.errors import counted
from ..errors import RunError
from ..reports.formats import digits_of, interval, number, scale_of, unit_of
from ..reports.sweep import deciding, validations
from ..runs.directory import RunDirectory, unreadable
from ..runs.rows import read_row
from ..runs.run import is_searched, readable_spec
from ..stats import FEW
from ..system import lock
from .slurm import squeue
from .submission import JOBS, WRITTEN, Live, Submission, find_runs, find_submissions, live

STATES = ("running", "waiting", "finished", "validated", "interrupted", "failed", "unreadable", "missing")


class Status(NamedTuple):
    """Hold the state of one run."""

    path: Path
    state: str  # one of STATES
    words: str  # progress, result or reason


def statuses(folder: Path) -> list[Status]:
    """Return the state of every run below the folder, sorted by path."""
    submissions = find_submissions(folder)
    alive = live(submissions)
    submitted = {run for one in submissions for run in one.runs}
    found = [(run, run.path.resolve()) for run in find_runs(folder)]
    return [_status(run, alive.get(path), path in submitted) for run, path in found]


def lines(found: Sequence[Status], folder: Path) -> Iterator[str]:
    """Yield one line per run, then one with the number of runs in each state. Paths are relative to `folder`."""
    names = [str(one.path.relative_to(folder.resolve())) for one in found]
    width = max(map(len, names), default=0)
    for name, one in zip(names, found, strict=True):
        yield f"{name:<{width}}  {one.state:<11}  {one.words}".rstrip()
    counts = Counter(one.state for one in found)
    yield f"{counted(len(found), 'run')}: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def tables(folder: Path) -> Iterator[str]:
    """Yield one line for each folder of runs, `folder` or below it, whose table is written by a job of Slurm.

    Such a job may also finish a search by validation first.

    It has the state of the job that was submitted last, and why the table was not written.
    """
    whole = folder.resolve()
    newest = {one.folder.parents[1]: one for one in find_submissions(folder)}
    here = {out: one for out, one in newest.items() if not one.local and out.is_relative_to(whole)}
    queued = squeue([one.of_table for one in here.values()])
    queued.sort(key=lambda each: (each[2] == "PENDING") + (each[3] == "Dependency"), reverse=True)
    jobs = {name: (job, state, reason) for job, name, state, reason in queued}  # of a search the stage that comes first
    for out, one in here.items():
        job, state, reason = jobs.get(one.of_table, (one.table, "", ""))
        if state and not (state == "COMPLETING" and one.outcome.is_file()):  # so it is for a while after its end
            doing = "choosing, training and testing" if one.search else "being written"
            words = f"waiting for {reason}" if state == "PENDING" else doing
        elif lock.holder(out / JOBS / ".lock"):
            words = "being submitted"
        else:
            words = _outcome(one)
        if words:
            what = f"choice of {one.search}" if one.search else "table"
            name = what if out == whole else f"{what} of {out.relative_to(whole)}"
            yield f"{name}: {words}{f' (job {job})' if job else ''}"


def _outcome(one: Submission) -> str:
    """Return what became of the table of a submission whose job is over; "" for a job that does not say it."""
    try:
        words = one.outcome.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        if one.table and (one.folder / f"{one.table}_0_result.pkl").exists():  # of an earlier version
            return ""
        log = one.folder / f"{one.table}_0_log.out"
        said = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
        said = [line.strip() for line in said if line.strip()]
        words = "no job for it was submitted" if not one.table else "its job ended before it started"
        words = f"its job ended early; its log ends with: {said[-1][:200]}" if said else words
    if words == WRITTEN:
        return words
    if one.search:
        return f"not finished: {words}; the same command goes on"
    return f"not written: {words}; print it with `metarun table`, or `metarun reproduce` for a paper's"


def _status(run: RunDirectory, job: Live | None, submitted: bool) -> Status:
    if reason := unreadable(run.path):
        return Status(run.path, "unreadable", reason)
    try:
        return _status_of_files(run, job, submitted)
    except OSError as error:
        return Status(run.path, "unreadable", f"{error.filename}: {error.strerror}")


def _status_of_files(run: RunDirectory, job: Live | None, submitted: bool) -> Status:
    process = lock.holder(run.lock) if job is None or job.submission.local else None
    busy = process or (f"job {job.job}" if job and not job.waiting else None)
    if busy:
        doing = "a further test" if run.finished else _progress(run) or "starting"
        return Status(run.path, "running", f"{doing} ({busy})")
    if job:
        by = job.job if job.submission.local else f"job {job.job}"
        return Status(run.path, "waiting", f"for {job.reason} ({by})")
    failure = run.failure.read_text(encoding="utf-8", errors="replace").strip() if run.failure.is_file() else ""
    if run.finished:
        state, words = _finished(run)
        return Status(run.path, state, words + (failure and f"; a further test failed: {failure}"))
    if (until := run.until) is not None and (spec := readable_spec(run)) and is_searched(run, spec, until):
        return Status(run.path, "validated", _validated(run))
    if failure:
        return Status(run.path, "failed", failure)
    if submitted and (words := end_without_result(run)):
        return Status(run.path, "failed", words)
    if run.step:
        return Status(run.path, "interrupted", f"after step {run.step}")
    if run.environment.is_file():
        return Status(run.path, "interrupted", "before its first checkpoint")
    return Status(run.path, "missing", "its job ended before it started" if submitted else "")


def end_without_result(run: RunDirectory) -> str:
    """Return how the log of a run's last job ends; "" where the job was stopped, has no log, or has begun nothing."""
    log = _last_lines(run)
    if not log or any(": stopped" in line or "CANCELLED AT" in line and "DUE TO" not in line for line in log):
        return ""
    last = [line for line in log if line.startswith("slurmstepd")] or log
    return f"its job ended without a result; its log ends with: {last[-1][:200]}"


def _finished(run: RunDirectory) -> tuple[str, str]:
    try:
        row = read_row(run.result)
    except RunError as error:
        return "failed", str(error)
    known = row.ci95 if row.ci95 or row.episodes >= FEW else None  # old rows of few equal episodes have 0
    mean, ci95 = (
        number(value if value is None else scale_of(row.metric) * value, digits_of(row.metric))
        for value in (row.mean, known)
    )
    return "finished", f"{unit_of(row.metric)} {interval(mean or 'not finite', ci95)}"


def _validated(run: RunDirectory) -> str:
    """Return the best validation so far of a run whose test a search withholds."""
    best = deciding(validations(run), "best")
    if best is None:
        return f"not finite, up to step {run.step}"
    value, ci95 = (
        number(None if math.isnan(each) else scale_of(best.metric) * each, digits_of(best.metric))
        for each in (best.value, best.ci95)
    )
    return f"{unit_of(best.metric)} {interval(value, ci95)} at step {best.step} of {run.step}, not tested"


def _progress(run: RunDirectory) -> str:
    try:
        progress = json.loads(run.progress.read_text(encoding="utf-8"))
        done, total, rate = progress["done"], progress["total"], progress["per_second"]
        if done == total and run.until is None:
            return f"step {done} of {total}, testing"
        left = f", {tqdm.format_interval((total - done) / rate)} left" if rate else ""
        return f"step {done} of {total}, {rate:.3g}/s{left}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _last_lines(run: RunDirectory) -> list[str]:
    """Return the last lines of its log since its last start, where Slurm also says why a job ended.

    Returns an empty list if it was started by hand since.
    """
    try:
        if run.environment.is_file() and run.log.stat().st_mtime < run.environment.stat().st_mtime:
            return []
        with open(run.log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 4096))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    lines = [line.strip() for line in lines if line.strip()]
    starts = [number for number, line in enumerate(lines) if ": started as process " in line]
    return lines[starts[-1] + 1 :] if starts else lines
