"""Train runs as parallel processes of this machine, which share its cores and, if asked for, its GPUs.

No TensorFlow in this process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from pathlib import Path

from ...datasets.sharing import share
from ..errors import Interrupted, RunError
from ..runs import environments
from ..runs.directory import RunDirectory
from ..runs.run import Run
from ..system import lock
from ..system.atomic import write_text_atomic
from ..system.gpus import SHARED, visible
from ..system.processors import cores
from ..system.signals import StopSignal, begin, postponed
from ..system.streams import drop_what_cannot_be_written
from .job import plainly, work
from .slurm import of_outer_job
from .submission import Submission, new_submission


def devices(runs: int, most: int | None, gpus: int, sharing: int = 1) -> list[str | None]:
    """Return the GPU of each process that runs at the same time, or None for each if `gpus` is 0.

    Args:
        runs: number of runs.
        most: the most processes at the same time; default: `sharing` per GPU, or one per core without GPUs.
        gpus: GPUs per run, 0 or 1.
        sharing: runs per GPU.

    Raises:
        RunError: more than one GPU per run, runs that share no GPU, or a machine without a GPU.
    """
    if sharing > 1 and not gpus:
        raise RunError(f"--runs-per-gpu {sharing} has no effect without a GPU: add --gpus 1")
    if not gpus:
        return [None] * min(runs, most or cores())
    if gpus > 1:
        raise RunError(
            f"--gpus {gpus}: on this machine a run has one GPU: use --gpus 1, --executor slurm, or workers by TF_CONFIG"
        )
    here = visible()
    if not here:
        raise RunError("--gpus 1: this machine has no GPU: leave the option out")
    places = sharing * here  # the first run of each GPU, then the second ones
    return list(places[: min(runs, most or len(places))])


@contextmanager
def submitted_here(runs: Sequence[Run], out: Path) -> Iterator[Submission]:
    """Record a submission that other commands see as alive until the block ends."""
    submission = new_submission(runs, out)
    with lock.locked(submission.lock):
        yield submission


def run_here(
    runs: Sequence[Run],
    submission: Submission,
    free: Sequence[str | None],
    tell: Callable[[str], object],
    at_once: int | None = None,
    sharing: int = 1,
) -> list[Path]:
    """Train all runs, one process per free device, and return the folders of runs that failed or were cancelled.

    Args:
        runs: the runs.
        submission: their submission, which notes the runs that ended.
        free: the device of each process, as `devices` returns them.
        tell: prints a line about a run that ended.
        at_once: processes that share the cores; default: one for each of `free`. It is the number for the whole sweep
            where some of its runs are finished, since threads decide the last bits of a run.
        sharing: runs per GPU, of the whole sweep too.

    Raises:
        Interrupted: this process was stopped. It has stopped its runs and waited for their checkpoints.
    """
    free, threads = list(free), max(1, cores() // (at_once or len(free)))
    waiting, running, failed = list(runs), {}, []
    spawn = multiprocessing.get_context("spawn")
    with StopSignal() as stop, stop.held():
        while waiting and not stop.requested or running:
            while waiting and free and not stop.requested:
                run, gpu = waiting.pop(0), free.pop(0)
                own = threads_of(run.directory, threads)
                process = spawn.Process(target=_work, args=(str(run.directory.path), run.tests, own, gpu, sharing))
                with postponed():  # until the new process notes signals itself
                    process.start()
                running[process.sentinel] = run, process, gpu
            for sentinel in wait(list(running), timeout=0.2):
                run, process, gpu = running.pop(sentinel)  # pyright: ignore[reportArgumentType]
                process.join()
                free.append(gpu)
                state = "finished" if not process.exitcode else "failed"
                if stop.requested or process.exitcode == Interrupted.code:  # by `metarun cancel`
                    state = "stopped"
                if process.exitcode and not stop.requested:
                    failed.append(run.directory.path)
                    if process.exitcode < 0 and run.until is not None:
                        _note_killed(run.directory, -process.exitcode)
                submission.ended.append(run.directory.path.resolve())
                submission.write()
                tell(f"{run.directory.path}: {state}; {len(waiting) + len(running)} left")
            if stop.requested:
                for _, process, _ in running.values():
                    process.terminate()
        if stop.requested:
            raise Interrupted("stopped; the same command resumes from the newest checkpoints")
    return failed


def _note_killed(directory: RunDirectory, number: int) -> None:
    """Write that the process of a search's run was killed by a signal, so that the search can say it."""
    memory = ", as where the memory does not suffice" if number == signal.SIGKILL else ""
    with suppress(OSError):
        words = f"its process was ended by a signal ({signal.strsignal(number)}){memory}"
        write_text_atomic(directory.failure, f"{words}\n")


def threads_of(directory: RunDirectory, share: int) -> int:
    """Return the threads of a run: those with which it began, so that it ends with the same bits, or its share.

    Args:
        directory: the folder of the run.
        share: threads of a run that begins now.
    """
    begun = environments.read(directory.environment) if directory.step else []
    return min(begun[-1].get("intra_op_threads", share), cores()) if begun else share


def _work(path: str, tests: Sequence[dict], threads: int, gpu: str | None, sharing: int = 1) -> None:
    """Train a run in this new process, with its output in the log of the run."""
    for name in of_outer_job(os.environ):
        del os.environ[name]
    log = RunDirectory(Path(path)).log
    if log.is_symlink():  # to the log of a Slurm job, which stays where it is, or is gone
        log.unlink()
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    except PermissionError:  # of another member of the group
        log.replace(log.with_name(f"{log.name}~"))
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    share(log)
    for stream in (1, 2):
        os.dup2(file, stream)
    begin()
    drop_what_cannot_be_written()
    if gpu is not None:
        os.environ |= {"CUDA_VISIBLE_DEVICES": gpu, SHARED: str(sharing)}
    plainly(work, path, tests, threads, needs_gpu=gpu is not None)
    sys.stdout.flush()
