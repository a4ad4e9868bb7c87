"""Ask Slurm: its commands, its queue, its limits and the addresses of its nodes."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Collection
from contextlib import suppress

from ..errors import RunError

MINUTES = (1 / 60, 1, 60, 1440)


def largest_array() -> int:
    """Of Slurm's settings, or its default where Slurm does not tell: sbatch refuses what is too long."""
    try:
        told = slurm("scontrol", "show", "config")
    except RunError:
        told = ""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", told, re.MULTILINE)
    return max(1, int(match[1])) if match else 1000


def squeue(names: Collection[str]) -> list[tuple[str, str, str, str]]:
    """(number, name, state, reason) of the jobs of these names that are not over; none where there is no Slurm."""
    if not names or shutil.which("squeue") is None:
        return []
    wanted = ",".join(names)
    lines = slurm("squeue", "--noheader", "--array", f"--name={wanted}", "--format=%i|%j|%T|%r").splitlines()
    return [(job, name, state, reason) for job, name, state, reason in (line.split("|", 3) for line in lines)]


def slurm(*command: str, timeout: float = 120) -> str:
    """What a command of Slurm prints; RunError with its own words where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]} did not answer: {error}") from None
    if done.returncode:
        raise RunError(f"{' '.join(command[:3])}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


def minutes(time: str) -> int:
    """Of a limit in Slurm's words, MM, MM:SS, H:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS; at least one."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        parts += [0] * (3 - len(parts))
    elif len(parts) == 1:
        parts.append(0)
    total = int(days or 0) * 1440.0 + sum(part * unit for part, unit in zip(reversed(parts), MINUTES, strict=False))
    return max(1, round(total))


def reach(node: str) -> str:
    """The name of a node where it is one of the network too, else its address as Slurm knows it; RunError for none."""
    with suppress(OSError):
        socket.getaddrinfo(node, None)
        return node
    with suppress(OSError, subprocess.TimeoutExpired):
        told = subprocess.run(["scontrol", "show", "node", node], capture_output=True, text=True, timeout=60).stdout
        if (found := re.search(r"\bNodeAddr=(\S+)", told)) and found[1] != node:
            return found[1]
    raise RunError(f"node {node} has no address in this network: set TF_CONFIG for each task")


def expand(names: str) -> list[str]:
    """Slurm's short form of host names: "gpu[08-10,12],login" -> gpu08, gpu09, gpu10, gpu12, login."""
    found = []
    for prefix, ranges, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\]([^,\[\]]*))?", names):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1) if first else [""]
            found += [f"{prefix}{str(number).zfill(len(first)) if first else ''}{suffix}" for number in numbers]
    return found


def tasks_of_nodes(text: str) -> list[int]:
    """Slurm's short form of a list of numbers: "2(x3),1" -> 2, 2, 2, 1."""
    found: list[int] = []
    for part in text.split(","):
        number, _, times = part.partition("(x")
        found += [int(number)] * int(times.rstrip(")") or 1)
    return found
