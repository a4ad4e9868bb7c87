"""Runs as parallel processes of this machine, which share out its cores, and its GPUs where they are asked for. No
TensorFlow in this process."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from multiprocessing.connection import wait
from pathlib import Path

from ..errors import Interrupted, RunError
from ..runs.run import Run
from ..system import lock
from ..system.provenance import cores
from ..system.signals import StopSignal
from .job import work
from .submission import Submission, new_submission

OUTER = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_STEP_NUM_TASKS", "TF_CONFIG")  # of a job around these processes


def places(runs: int, most: int | None, gpus: int) -> list[str | None]:
    """The GPU of each of the processes that run at the same time; none where `gpus` is 0. RunError for more than 1."""
    if not gpus:
        return [None] * min(runs, most or cores())
    if gpus > 1:
        raise RunError(
            f"--gpus {gpus}: here each run has one; more are for `--executor slurm`, or workers by TF_CONFIG"
        )
    here = _gpus()
    if not here:
        raise RunError("--gpus 1: this machine has none")
    return list(here[: min(runs, most or len(here))])


@contextmanager
def submitted_here(runs: Sequence[Run], out: Path) -> Iterator[Submission]:
    """What every other command takes for a submission that is alive, until the block ends."""
    submission = new_submission(runs, out)
    with lock.locked(submission.lock):
        yield submission


def run_here(
    runs: Sequence[Run], submission: Submission, free: Sequence[str | None], tell: Callable[[str], object]
) -> list[Path]:
    """Train every run in the `places` that are free; the folders of those that failed or were stopped one by one. A
    stop of all is passed on to the runs, which write their checkpoints; then Interrupted."""
    free, threads = list(free), max(1, cores() // len(free))
    waiting, running, failed = list(runs), {}, []
    spawn = multiprocessing.get_context("spawn")
    with StopSignal() as stop, stop.held():
        while waiting and not stop.requested or running:
            while waiting and free and not stop.requested:
                run, gpu = waiting.pop(0), free.pop(0)
                process = spawn.Process(target=_work, args=(str(run.directory.path), run.tests, threads, gpu))
                process.start()
                running[process.sentinel] = run, process, gpu
            for sentinel in wait(list(running), timeout=0.2):
                run, process, gpu = running.pop(sentinel)  # pyright: ignore[reportArgumentType]
                process.join()
                free.append(gpu)
                state = "finished" if not process.exitcode else "failed"
                if stop.requested or process.exitcode == Interrupted.code:  # by another's `metarun cancel`
                    state = "stopped"
                if process.exitcode and not stop.requested:
                    failed.append(run.directory.path)
                submission.ended.append(run.directory.path.resolve())
                submission.write()
                tell(f"{run.directory.path}: {state}; {len(waiting) + len(running)} left")
            if stop.requested:
                for _, process, _ in running.values():
                    process.terminate()
        if stop.requested:
            raise Interrupted("stopped; the same command goes on from the newest checkpoints")
    return failed


def _work(path: str, tests: Sequence[dict], threads: int, gpu: str | None) -> None:
    """In a process of its own; prints into the log of the run."""
    for name in OUTER:
        os.environ.pop(name, None)
    log = Path(path) / "job.log"
    if log.is_symlink():  # to that of a job of Slurm, which stays where it is, or is gone
        log.unlink()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(file, stream)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    work(path, tests, threads)
    sys.stdout.flush()


def _gpus() -> list[str]:
    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return list(takewhile(lambda each: each not in ("", "-1", "NoDevFiles"), told.split(",")))
    if shutil.which("nvidia-smi") is None:
        return []
    done = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    names = re.findall(r"^GPU \d+:", done.stdout, re.MULTILINE) if done.returncode == 0 else []
    return [str(number) for number in range(len(names))]
