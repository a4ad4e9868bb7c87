"""Find the workers of a run in the environment, from TF_CONFIG or Slurm's srun, and wait for them. No TensorFlow."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RunError
from .slurm import expand, reach, tasks_of_nodes

FIRST_PORT, PORTS = 10_000, 22_000  # below the ports that Linux gives to clients
PORTS_PER_STEP = 64

PATIENCE = 10.0  # minutes to wait for the other workers
QUIET, BETWEEN_LINES = 5.0, 60.0  # seconds without a word about workers that are missing, and between two lines
BETWEEN_TRIES, LONGEST_TRY = 0.1, 1.0  # seconds


@dataclass(frozen=True)
class Rendezvous:
    """Hold the addresses "host:port" of all workers, and the index of this process among them."""

    addresses: list[str]
    index: int
    named_by: str = "TF_CONFIG"  # the variable that names the workers, with its value if it is short


def find(environment: Mapping[str, str] = os.environ) -> Rendezvous | None:
    """Return the workers that train together, or None for a process that works alone.

    TF_CONFIG comes before Slurm. Raises RunError if the variables contradict each other or cannot be read.
    """
    if environment.get("TF_CONFIG"):
        found = _from_tf_config(environment["TF_CONFIG"])
    elif "SLURM_STEP_NUM_TASKS" in environment:  # of srun alone: a batch script is one process whatever its --ntasks
        found = _from_slurm(environment)
    else:
        return None
    return found if len(found.addresses) > 1 else None


def gather(workers: Rendezvous, patience: float = PATIENCE) -> None:
    """Wait until all other workers have started, and say on standard error which are missing.

    TensorFlow connects the workers afterwards; by itself it would wait for ever, without a word. This worker listens at
    its own address until it has reached all others. From then on TensorFlow does, so those that are late reach it too.

    Args:
        workers: the workers of the run.
        patience: minutes to wait.

    Raises:
        RunError: a worker did not start in time, or this worker's port is in use.
    """
    missing = [number for number in range(len(workers.addresses)) if number != workers.index]
    start = time.monotonic()
    end, next_line = start + 60 * patience, start + QUIET
    with _listening(workers.addresses[workers.index]):
        while True:
            missing = [number for number in missing if not _reached(workers.addresses[number])]
            if not missing:
                return
            named = f"worker{'s' * (len(missing) > 1)} {', '.join(map(str, missing))} of {len(workers.addresses)}"
            if time.monotonic() >= end:
                raise RunError(
                    f"{named} did not start within {patience:g} minutes ({workers.named_by}): start all workers, wait "
                    "longer (`metarun train --wait`), or unset it to train alone"
                )
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + BETWEEN_LINES
                print(
                    f"waiting for {named} ({workers.named_by}); to train alone: unset it", file=sys.stderr, flush=True
                )
            time.sleep(BETWEEN_TRIES)


def _listening(address: str) -> socket.socket:
    """Return a socket that listens on the port of this worker, as TensorFlow will, on all addresses of the host."""
    port, both = int(address.rpartition(":")[2]), socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ("", port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=1024
        )
    except OSError as error:
        raise RunError(f"port {port} of this worker cannot be used: {error.strerror}") from None


def _reached(address: str) -> bool:
    """Return whether a process listens at this "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), LONGEST_TRY).close()
    except OSError:
        return False
    return True


def _from_tf_config(text: str) -> Rendezvous:
    """Read TF_CONFIG. A `chief`, if there is one, is worker 0.

    See https://www.tensorflow.org/api_docs/python/tf/distribute/cluster_resolver.
    """
    try:
        config = json.loads(text)
        workers, task = config["cluster"], config["task"]
        chiefs = _addresses(workers.get("chief", []))
        addresses = [*chiefs, *_addresses(workers.get("worker", []))]
        if not addresses and task["type"] in ("chief", "worker"):
            raise ValueError("there is no worker")
        if unknown := [kind for kind in (*workers, task["type"]) if kind not in ("chief", "worker")]:
            raise ValueError(f"{unknown[0]!r} is neither chief nor worker")
        first, end = (0, len(chiefs)) if task["type"] == "chief" else (len(chiefs), len(addresses))
        index = first + int(task["index"])
        if not first <= index < end:
            raise ValueError(f"there is no {task['type']} {task['index']}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"TF_CONFIG names no worker of a cluster ({what}). Expected, for example, "
            '{"cluster": {"worker": ["host1:5000", "host2:5000"]}, "task": {"type": "worker", "index": 0}}; '
            "unset it to train with one worker"
        ) from None
    return Rendezvous(addresses, index)


def _addresses(given: Any) -> list[str]:
    """Return `given` if it is a list of different addresses, else raise ValueError."""
    if not isinstance(given, list) or not all(isinstance(one, str) and re.fullmatch(r"\S+:\d+", one) for one in given):
        raise ValueError(f"{given!r} is not a list of host:port")
    if len(set(given)) < len(given):
        raise ValueError(f"{given!r} has an address twice")
    return given


def _from_slurm(environment: Mapping[str, str]) -> Rendezvous:
    """Read the environment of `srun`. Its tasks are placed in blocks: the first ones on the first node, and so on.

    Ports follow from the numbers of job and step.
    """
    try:
        job, step, rank = (int(environment[name]) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID"))
        nodes = expand(environment["SLURM_STEP_NODELIST"])
        counts = tasks_of_nodes(environment["SLURM_STEP_TASKS_PER_NODE"])
        hosts = [node for node, count in zip(nodes, counts, strict=True) for _ in range(count)]
        own = environment.get("SLURMD_NODENAME", hosts[rank])
    except (KeyError, ValueError, IndexError) as error:
        alone = "or unset SLURM_STEP_NUM_TASKS to train alone"
        raise RunError(f"srun's environment cannot be read ({error!r}): set TF_CONFIG for each task, {alone}") from None
    if own != hosts[rank]:
        raise RunError(
            f"task {rank} runs on {own}, not on {hosts[rank]}: start it with srun --distribution=block, or unset "
            "SLURM_STEP_NUM_TASKS to train alone"
        )
    first = PORTS_PER_STEP * (job + 7 * step)
    reached = {host: reach(host) for host in dict.fromkeys(hosts)} if len(hosts) > 1 else {}
    ports = [FIRST_PORT + (first + number) % PORTS for number in range(len(hosts))]
    addresses = [f"{reached.get(host, host)}:{port}" for host, port in zip(hosts, ports, strict=True)]
    return Rendezvous(addresses, rank, f"SLURM_STEP_NUM_TASKS={environment['SLURM_STEP_NUM_TASKS']}")
