"""Run one side of one work in this process, which `compare.py` starts; print what was measured as JSON.

    python side.py give | check | time WORK SIDE VARIANT FILE

"give" (metarun's side alone) writes what the peers start from. "check" runs the work small and in float64: metarun
writes its results too, and a peer exits with an error unless those of all its variants, divided by semicolons, agree;
variants that end with an error of their own, as those that torch.compile cannot take, are printed. "time" measures.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from works import WORKS, ImageWork, TrialsWork

from metarun.algorithms.options import ReptileOptions

SECONDS = 2.0  # measured, in at least two calls
SECONDS_A_CALL = 0.5  # at most, where a step is shorter: as `metarun train` does
MOST = 1024  # steps in a call
LONGEST = 600  # seconds in which a variant is checked, or measured with its compiling
SHARE = 0.75  # of the memory that is free, which a side may take
AGREE = 1e-6  # relative difference of results in float64
AGREE_ADAM = 1e-3  # PyTorch adds Adam's epsilon after the bias correction, the papers' code before it


def bound_memory() -> None:
    """Let this process fail, and not the machine, where it wants more memory than SHARE of what is free."""
    if (file := Path("/proc/meminfo")).exists():
        free = int(re.search(r"MemAvailable: +(\d+)", file.read_text())[1]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (int(SHARE * free),) * 2)


def bound_time() -> None:
    """Raise TimeoutError in LONGEST seconds."""

    def end(*_: object) -> None:
        raise TimeoutError(f"took longer than {LONGEST // 60} minutes")

    signal.signal(signal.SIGALRM, end)
    signal.alarm(LONGEST)


def start_as_metarun_does() -> None:
    """Import TensorFlow as `metarun train` does."""
    from metarun.experiments.system.signals import begin
    from metarun.experiments.system.startup import import_tensorflow

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    begin()
    import_tensorflow()


def page_faults() -> int:
    """Return the number of minor page faults of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def timed(advance: Callable[[int], Any], count: int) -> float:
    """Return the seconds that so many steps take."""
    started = time.perf_counter()
    advance(count)
    return time.perf_counter() - started


def measure(advance: Callable[[int], Any]) -> dict[str, float]:
    """Return the median seconds, the page faults of a step and the peak of memory in MiB; `advance` takes n steps."""
    count = 1
    advance(count)  # compiles
    while timed(advance, count) < SECONDS_A_CALL / 2 and count < MOST:
        count *= 4
        advance(count)
    times, before = [], page_faults()
    while len(times) < 2 or sum(times) < SECONDS:
        times.append(timed(advance, count))
    faults = (page_faults() - before) / (count * len(times))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"seconds": statistics.median(times) / count, "faults": faults, "memory": memory}


def time_metarun(work: Any, variant: str) -> dict[str, float]:
    """Measure metarun's side, and the machine's rate afterwards: its large matrices tune the C library's allocator."""
    start_as_metarun_does()
    import tensorflow as tf
    from metarun_works import side

    from metarun.experiments.training.benchmark import matrix_rate

    ours = side(work, "bfloat16" if variant == "bfloat16" else "float32")
    return measure(ours.advance) | {"operations": ours.operations, "rate": matrix_rate(tf.float32)}


def time_peer(work: Any, side: str, variant: list[str], given: dict[str, np.ndarray]) -> dict[str, float]:
    """Measure a peer's side."""
    if side == "jax":
        import jax_works

        return measure(jax_works.side(work, given))
    step = pytorch_step(work, variant, given)
    return measure(lambda count: [step() for _ in range(count)])


def pytorch_step(work: Any, variant: list[str], given: dict[str, np.ndarray], draw: bool = True) -> Callable[[], float]:
    """Return a step of PyTorch's side, with as many threads as there are cores or with one."""
    import torch

    from metarun.experiments.system.processors import cores

    torch.set_num_threads(1 if "one thread" in variant else cores())
    torch.compiler.reset()  # the programs of other variants count towards a limit
    if isinstance(work, TrialsWork):
        import pytorch_rl2

        return pytorch_rl2.PyTorch(work, variant).step
    import pytorch_works

    return pytorch_works.side(work, given, variant, draw)


def results(work: Any, side: str, variant: list[str], given: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what a peer computes of what metarun computed too, see `Metarun.expected`."""
    if side == "jax":
        import jax_works

        return jax_works.results(work, given)
    if isinstance(work, TrialsWork):
        import pytorch_rl2

        return pytorch_rl2.results(given, variant)
    step = pytorch_step(work, variant, given, draw=False)
    return {"losses": np.array([step(), step()])}


def refuse_difference(name: str, ours: dict[str, np.ndarray], theirs: dict[str, Any], agree: float) -> None:
    """Raise SystemExit unless a peer's results are those of metarun."""
    for what, expected in theirs.items():
        difference = np.abs(expected - ours[what]).max() / np.abs(ours[what]).max()
        if not difference < agree:
            raise SystemExit(f"{name}: not the same work: its {what} differ by {difference:.1e}")


def check(name: str, side: str, variants: str, given: dict[str, np.ndarray]) -> dict[str, str]:
    """Return the errors of variants that cannot run. Raises SystemExit if the results of another one differ."""
    work, failed = WORKS[name], {}
    adam = isinstance(work, ImageWork) and isinstance(work.algorithm, ReptileOptions)
    for variant in variants.split("; "):
        bound_time()
        try:
            theirs = results(work.small(), side, variant.split(", "), given)
        except Exception as error:  # of PyTorch's compiler, or too little memory or time
            failed[variant] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        refuse_difference(f"{name}, {side} ({variant})", given, theirs, AGREE_ADAM if adam else AGREE)
    return failed


def main(what: str, name: str, side: str, variant: str, file: str) -> dict[str, Any]:
    """Run what the command line says and return what to print."""
    bound_memory()
    bound_time()
    work = WORKS[name]
    if side == "metarun" and what == "time":
        return time_metarun(work, variant)
    if side == "metarun":
        start_as_metarun_does()
        import metarun_works

        ours = metarun_works.side(work) if what == "give" else metarun_works.side(work.small(), "float64")
        np.savez(file, **ours.given(), **(ours.expected() if what == "check" else {}))
        return {}
    given = dict(np.load(file))
    return check(name, side, variant, given) if what == "check" else time_peer(work, side, variant.split(", "), given)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
