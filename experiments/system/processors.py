"""Count the processor cores that this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os

from .cgroups import processor_quota

SCHEDULER = "--xla_cpu_enable_concurrency_optimized_scheduler=false"  # in XLA_FLAGS, see startup.one_after_another


def cores() -> int:
    """Return the number of processor cores that this process may use; a quota of half a core counts as one."""
    return max(1, min(schedulable_cores(), math.ceil(min(processor_quota(), 1e6))))


def limited_threads() -> dict[str, str]:
    """Return the environment variables that keep TensorFlow's threads within a quota and are not set yet.

    TensorFlow by itself starts a thread for each core of the affinity. More threads than the quota only wait for it.
    """
    count = cores()
    names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS") if count < schedulable_cores() else ()
    return {name: str(count) for name in names if name not in os.environ}


def threads() -> int:
    """Return the number of threads that TensorFlow computes with: what a variable says, or one for each core."""
    text = os.environ.get("TF_NUM_INTRAOP_THREADS", "").strip()
    return int(text) if text.isdecimal() and int(text) else cores()


def schedulable_cores() -> int:
    """Return the number of cores on which the kernel may run this process: TensorFlow's own number of threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
