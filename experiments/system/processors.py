"""Count the processor cores that this process may use: its affinity, and the quota of its container."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

SELF = Path("/proc/self")  # where Linux describes this process


def cores() -> int:
    """Return the number of processor cores that this process may use; a quota of half a core counts as one."""
    return max(1, min(schedulable_cores(), math.ceil(min(quota(), 1e6))))


def limited_threads() -> dict[str, str]:
    """Return the environment variables that keep TensorFlow's threads within a quota and are not set yet.

    TensorFlow by itself starts a thread for each core of the affinity. More threads than the quota only wait for it.
    """
    count = cores()
    names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS") if count < schedulable_cores() else ()
    return {name: str(count) for name in names if name not in os.environ}


def quota(process: Path = SELF) -> float:
    """Return the cores' worth of time that the control groups of a process grant it: the least one, or inf.

    See https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and
    https://docs.kernel.org/scheduler/sched-bwc.html (cgroup v1).

    Args:
        process: the folder in which Linux describes the process.
    """
    try:
        return min((limit for folder in _groups(process) if (limit := _limit(folder))), default=math.inf)
    except (OSError, ValueError):  # no Linux, or none that can be understood
        return math.inf


def schedulable_cores() -> int:
    """Return the number of cores on which the kernel may run this process: TensorFlow's own number of threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(process: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of a process that may limit its processor time, parents included.

    A container may see a part of the hierarchy alone: `root` of its mount, and no path of it outside its namespace.
    """
    paths = {}  # by controller, "" for version 2
    for line in (process / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in (process / "mountinfo").read_text().splitlines():
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        controller = {"cgroup2": "", "cgroup": "cpu"}.get(kind)
        if controller not in paths or (controller and controller not in options.split(",")):
            continue
        root, point = (re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), part) for part in mount.split(" ")[3:5])
        path = paths[controller].removeprefix(root.rstrip("/"))
        own = Path(point, path.strip("/")) if ".." not in path.split("/") else Path(point)
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(point))


def _limit(folder: Path) -> float | None:
    """Return the cores' worth of time that one control group grants, or None without a limit."""
    if (limit := folder / "cpu.max").is_file():
        granted, period = limit.read_text().split()
    elif (limit := folder / "cpu.cfs_quota_us").is_file():
        granted, period = limit.read_text(), (folder / "cpu.cfs_period_us").read_text()
    else:
        return None
    return float(granted) / float(period) if granted != "max" and float(granted) > 0 else None
