"""Call Slurm, and read its queue, its limits, its short forms and the addresses of its nodes.

Slurm's commands, and the jobs that sbatch starts, read variables of the environment. Those that a job, a step or an
allocation around this process has set describe that one, and those that change the defaults of a command (SBATCH_*,
SQUEUE_*, ...) override what metarun asks for. Neither reaches Slurm from here.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

from ..errors import RunError

OF_A_JOB = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SINFO_")  # Slurm's own
OF_LAUNCHERS = ("PMI", "OMPI_", "PRTE_", "PALS_", "SUBMITIT_")  # PMI*: those of PMI, PMI2 and PMIx
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")  # where Slurm is, and who asks
OF_GPUS = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

MINUTES = (1 / 60, 1, 60, 1440)  # in a second, a minute, an hour, a day


def of_outer_job(environment: Mapping[str, str]) -> set[str]:
    """Return the names of the variables that belong to a job, a step or an allocation around this process.

    TF_CONFIG, which names the workers of a run, is among them. GPUs are not.
    """
    begins = (*OF_A_JOB, *OF_LAUNCHERS)
    return {
        name for name in environment if name == "TF_CONFIG" or (name.startswith(begins) and name not in OF_THE_CLUSTER)
    }


@contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hide the variables of an outer job from the block and from the processes that it starts.

    In an allocation the numbers of its GPUs are hidden too: those of another job are others.
    """
    hidden = of_outer_job(os.environ)
    if "SLURM_JOB_ID" in hidden:
        hidden |= set(OF_GPUS) & os.environ.keys()
    saved = {name: os.environ.pop(name) for name in hidden}
    try:
        yield
    finally:
        os.environ.update(saved)


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
    """Run a command of Slurm, without the variables of an outer job, and return what it prints.

    Args:
        command: the command and its arguments.
        timeout: the most seconds to wait.

    Raises:
        RunError: the command fails or does not answer. The message has the command's own error.
    """
    outer = of_outer_job(os.environ)
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
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
    raise RunError(
        f"node {node} has no address in this network: set TF_CONFIG for each task, or unset SLURM_STEP_NUM_TASKS to "
        "train alone"
    )


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
