"""Call Slurm, and read its queue, its limits, its short forms and the addresses of its nodes."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Collection
from contextlib import suppress

from ..errors import RunError

MINUTES = (1 / 60, 1, 60, 1440)  # in a second, a minute, an hour, a day


def largest_array() -> int:
    """Return Slurm's limit on the length of a job array, or Slurm's default of 1,000 if it cannot be read.

    sbatch refuses longer arrays.
    """
    try:
        settings = slurm("scontrol", "show", "config")
    except RunError:
        settings = ""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", settings, re.MULTILINE)
    return max(1, int(match[1])) if match else 1000


def squeue(names: Collection[str]) -> list[tuple[str, str, str, str]]:
    """Return (number, name, state, reason) of each job in the queue that has one of the names.

    Returns an empty list on a machine without Slurm.
    """
    if not names or shutil.which("squeue") is None:
        return []
    wanted = ",".join(names)
    lines = slurm("squeue", "--noheader", "--array", f"--name={wanted}", "--format=%i|%j|%T|%r").splitlines()
    return [(job, name, state, reason) for job, name, state, reason in (line.split("|", 3) for line in lines)]


def slurm(*command: str, timeout: float = 120) -> str:
    """Run a command of Slurm and return what it prints.

    Args:
        command: the command and its arguments.
        timeout: the most seconds to wait.

    Raises:
        RunError: the command fails or does not answer. The message has the command's own error.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{command[0]} did not answer: {error}") from None
    if done.returncode:
        raise RunError(f"{' '.join(command[:3])}: {' '.join(done.stderr.split()) or f'exit code {done.returncode}'}")
    return done.stdout


def minutes(time: str) -> int:
    """Return the minutes, at least one, of a time limit: MM, MM:SS, H:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        parts += [0] * (3 - len(parts))
    elif len(parts) == 1:
        parts.append(0)
    total = int(days or 0) * 1440.0 + sum(part * unit for part, unit in zip(reversed(parts), MINUTES, strict=False))
    return max(1, round(total))


def reach(node: str) -> str:
    """Return a host name or address under which a node can be reached.

    That is its name if the network knows it, else its address from Slurm. Raises RunError if there is neither.
    """
    with suppress(OSError):
        socket.getaddrinfo(node, None)
        return node
    with suppress(RunError):
        record = slurm("scontrol", "show", "node", node, timeout=60)
        if (found := re.search(r"\bNodeAddr=(\S+)", record)) and found[1] != node:
            return found[1]
    raise RunError(f"node {node} has no address in this network: set TF_CONFIG for each task")


def expand(names: str) -> list[str]:
    """Return the host names of Slurm's short form: "gpu[08-10,12],login" -> gpu08, gpu09, gpu10, gpu12, login."""
    found = []
    for prefix, ranges, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\]([^,\[\]]*))?", names):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = range(int(first), int(last or first) + 1) if first else [""]
            found += [f"{prefix}{str(number).zfill(len(first)) if first else ''}{suffix}" for number in numbers]
    return found


def tasks_of_nodes(text: str) -> list[int]:
    """Return the numbers of Slurm's short form: "2(x3),1" -> 2, 2, 2, 1."""
    found: list[int] = []
    for part in text.split(","):
        number, _, times = part.partition("(x")
        found += [int(number)] * int(times.rstrip(")") or 1)
    return found
