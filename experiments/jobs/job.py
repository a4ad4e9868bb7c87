"""Do the work of a job: train and test one run, or finish a search; ask to be requeued when stopped, give up without
progress.

No TensorFlow before a run starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..config.load import load
from ..config.variants import suffix
from ..errors import Interrupted, InUse, RunError, warn
from ..papers import render as papers_render
from ..papers.definition import load_table
from ..papers.plan import plan
from ..reports.notes import notes_to_warn_of
from ..reports.table import lines_of, render, results_and_notes
from ..runs.directory import RunDirectory
from ..runs.rows import find_rows, merge
from ..runs.run import Run
from ..system.atomic import write_json_atomic, write_text_atomic
from ..system.failures import explain, noted
from ..system.signals import StopSignal
from .rendezvous import find, gather
from .slurm import slurm
from .submission import WRITTEN

Paper = tuple[str, Sequence[int], float, str | None]  # table, seeds (none: of the specs), budget, precision

MOST_RESTARTS = 5  # at the same step
PATIENCE = (0, 3, 10)  # seconds before each attempt to be requeued: jobs that are stopped together all ask at once


def work(
    path: str,
    tests: Sequence[Mapping[str, Any]],
    threads: int,
    environment: Mapping[str, str] = MappingProxyType({}),
    needs_gpu: bool = False,
) -> None:
    """Train the run of a folder, alone or as one of its workers, then do its further tests.

    A run of a search is trained up to the step that its folder says, and not tested.

    Args:
        path: the folder of the run, with its spec.
        tests: the changes of each further test.
        threads: processor threads to use.
        environment: variables to set, unless they are set already.
        needs_gpu: fail at once where TensorFlow sees no GPU.

    Raises:
        SystemExit: the run was stopped. It has asked to be requeued.
        Exception: every error of `train` and `evaluate`. A test that fails does not prevent the others.
    """
    directory = RunDirectory(Path(path))
    with as_job(path, threads, environment) as stop:
        rendezvous = find()
        follows = rendezvous is not None and rendezvous.index > 0
        with nullcontext() if follows else noted(directory.failure):
            if not follows:
                count_restarts(directory)
            experiment = load(directory.spec).experiment
            run = Run(experiment, experiment.seeds[0], directory, (), directory.until, directory.selected_of)
            from ..system.startup import import_tensorflow

            import_tensorflow(needs_gpu)
            from ...algorithms.workers import ALONE, join
            from ..evaluation.retest import evaluate
            from ..training.followers import follow
            from ..training.train import train, train_until

            stop.check()
            if run.until is not None:
                train_until(run)
                return
            if rendezvous:
                gather(rendezvous)
            workers = join(rendezvous.addresses, rendezvous.index) if rendezvous else ALONE
            if follows:
                follow(run, workers)
                return
            train(run, workers=workers)
            failures = []
            for test in tests:
                try:
                    evaluate(directory.path, test.get("split", "test"), test)
                except (Interrupted, InUse):
                    raise
                except Exception as error:  # does not prevent the other tests
                    print(f"{path}, tested with {dict(test)}: {explain(error)[0]}", file=sys.stderr, flush=True)
                    failures.append(error.with_traceback(None))  # the traceback holds the model in memory
            if failures:
                raise failures[0]


@contextmanager
def as_job(name: str, threads: int, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[StopSignal]:
    """Set the variables of a job, and ask for it to be requeued if the block is stopped.

    Args:
        name: what the job works on, for its log.
        threads: processor threads to use.
        environment: variables to set, unless they are set already.

    Raises:
        SystemExit: the block was stopped.
    """
    for variable, value in environment.items():
        os.environ.setdefault(variable, value)  # the site's own setup overrides it
    print(f"{name}: started as process {os.getpid()} on {socket.gethostname()}", file=sys.stderr, flush=True)
    for variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with StopSignal() as stop:
        try:
            yield stop
        except Interrupted as stopped:
            with stop.held():  # batch systems send more than one signal
                print(f"{name}: {stopped}", file=sys.stderr)
                if requeued():
                    print("requeued", file=sys.stderr)
            raise SystemExit(stopped.code) from None


def plainly(function: Callable[..., None], *arguments: Any, **options: Any) -> None:
    """Call the function of a job. An error that the user can mend is printed as one line, without a traceback.

    Args:
        function: the function.
        arguments: its arguments.
        options: its arguments by name.

    Raises:
        SystemExit: with the exit code of such an error.
        Exception: any other error.
    """
    try:
        function(*arguments, **options)
    except Exception as error:
        message, code = explain(error)
        if message.startswith(("internal error", "error: in the code of")):
            raise
        print(message, file=sys.stderr, flush=True)
        raise SystemExit(code) from None


def count_restarts(directory: RunDirectory) -> None:
    """Count a start of the run by the scheduler in restarts.json.

    Raises RunError after MOST_RESTARTS starts without progress in training or test.
    """
    done = {"step": directory.step, "tested": directory.tested}
    before, count = _last_start(directory), 0
    with suppress(KeyError, TypeError):
        same = done == {"step": before["step"], "tested": before.get("tested", 0)}
        count = before["restarts"] + 1 if same else 0
    if count > MOST_RESTARTS:
        raise RunError(
            f"started {count} times at step {directory.step} without progress: see {directory.log}, then submit it "
            "again with a longer --time or more memory"
        )
    write_json_atomic(directory.restarts, done | {"restarts": count})


def started_at(directory: RunDirectory) -> int:
    """Return the step from which the scheduler started the run last; -1 if it is not known."""
    step = _last_start(directory).get("step")
    return step if isinstance(step, int) else -1


def _last_start(directory: RunDirectory) -> dict[str, Any]:
    """Return what restarts.json says; nothing if it is missing or damaged."""
    try:
        found = json.loads(directory.restarts.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def requeued() -> bool:
    """Ask Slurm to run this job again, and return whether it will.

    A job that is being cancelled or that Slurm requeues by itself does not ask.
    """
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    job = os.environ.get("SLURM_JOB_ID") if task is None else f"{os.environ['SLURM_ARRAY_JOB_ID']}_{task}"
    if job is None or os.environ.get("SLURM_PROCID", "0") != "0":
        return False
    for wait in PATIENCE:
        time.sleep(wait)
        try:
            if slurm("squeue", "--noheader", f"--jobs={job}", "--format=%T", timeout=10).strip() != "RUNNING":
                return False
            slurm("scontrol", "requeue", job, timeout=10)
            return True
        except RunError as error:
            print(f"not requeued yet: {error}", file=sys.stderr, flush=True)
    return False


def write_table(out: str, paper: Paper | None, outcome: str | None = None) -> None:
    """Write OUT/results.csv anew, and the table of all runs or of a paper as .csv, .md and .tex.

    Args:
        out: the folder of the runs.
        paper: table, seeds, budget and precision of a paper's table; None for the table of all runs.
        outcome: a file for `metarun status` that gets WRITTEN, or the reason of a failure; default: none.
    """
    folder = Path(out)
    with noted(Path(outcome)) if outcome else nullcontext():
        merge(folder)
        if paper:
            table, seeds, budget, precision = (*paper, None)[:4]  # of three in jobs of an earlier version
            definition = load_table(table)
            planned = plan(definition, folder, seeds, budget, precision)
            stem = f"{Path(table).stem}{suffix(budget, precision)}"
            papers_render.write(planned, folder / stem, below=definition.notes)
        elif find_rows([folder]):
            rows, notes = results_and_notes(folder)
            lines = lines_of(rows)
            for note in [*notes_to_warn_of(lines), *notes]:
                warn(note)
            for ending, form in (("csv", "csv"), ("md", "markdown"), ("tex", "latex"), ("txt", "text")):
                write_text_atomic(folder / f"table.{ending}", render(lines, form, notes=notes) + "\n")
    if outcome:
        write_text_atomic(Path(outcome), f"{WRITTEN}\n")
