"""Read what the control groups of a process grant it: processor time and memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

SELF = Path("/proc/self")  # where Linux describes this process


def processor_quota(process: Path = SELF) -> float:
    """Return the cores' worth of time that the control groups of a process grant it: the least one, or inf.

    See https://docs.kernel.org/admin-guide/cgroup-v2.html (cpu.max) and
    https://docs.kernel.org/scheduler/sched-bwc.html (cgroup v1).

    Args:
        process: the folder in which Linux describes the process.
    """
    return min(filter(None, map(_granted_cores, _groups("cpu", process))), default=math.inf)


def memory_limits(process: Path = SELF) -> Iterator[int]:
    """Yield the limits of memory, in bytes, of the control groups of a process and of those that contain them.

    Args:
        process: the folder in which Linux describes the process.
    """
    for folder in _groups("memory", process):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):  # of the other version, or "max"
                yield int((folder / name).read_text())


def available_bytes() -> int | None:
    """Return the bytes that this process may still allocate; None if unknown.

    They are limited by the kernel's estimate of free memory, and by the control groups of the process.
    """
    try:
        memory = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
        status = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE))
        return min(
            [int(memory["MemAvailable"]) * 1024, *(each - int(status["VmRSS"]) * 1024 for each in memory_limits())]
        )
    except (OSError, KeyError):
        return None


def _granted_cores(folder: Path) -> float | None:
    """Return the cores' worth of time that one control group grants, or None without a limit."""
    with suppress(OSError, ValueError):
        if (limit := folder / "cpu.max").is_file():
            granted, period = limit.read_text().split()
        else:
            granted = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return float(granted) / float(period) if float(granted) > 0 else None


def _groups(controller: Literal["cpu", "memory"], process: Path) -> Iterator[Path]:
    """Yield the folders of the control groups of a process that may limit it, parents included.

    A container may see a part of the hierarchy alone: `root` of its mount, and no path of it outside its namespace.
    """
    paths = {}  # by controller, "" for version 2
    with suppress(OSError, ValueError):  # no Linux, or none that can be understood
        for line in (process / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            paths |= dict.fromkeys(controllers.split(","), path)
        for line in (process / "mountinfo").read_text().splitlines():
            mount, _, system = line.partition(" - ")
            kind, _, options = system.split(" ", 2)
            mounted = {"cgroup2": "", "cgroup": controller}.get(kind)
            if mounted not in paths or (mounted and mounted not in options.split(",")):
                continue
            root, point = (
                re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), part) for part in mount.split(" ")[3:5]
            )
            path = paths[mounted].removeprefix(root.rstrip("/"))
            own = Path(point, path.strip("/")) if ".." not in path.split("/") else Path(point)
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(point))
