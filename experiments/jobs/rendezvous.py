"""Find the workers of a run in the environment: from TF_CONFIG, or from Slurm's srun. No TensorFlow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RunError
from .slurm import expand, reach, tasks_of_nodes

FIRST_PORT, PORTS = 10_000, 22_000  # below the ports that Linux gives to clients
PORTS_PER_STEP = 64


@dataclass(frozen=True)
class Rendezvous:
    """The addresses "host:port" of all workers, and the index of this process among them."""

    addresses: list[str]
    index: int


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
        raise RunError(f"srun's environment cannot be read ({error!r}): set TF_CONFIG for each task") from None
    if own != hosts[rank]:
        raise RunError(f"task {rank} runs on {own}, not on {hosts[rank]}: start it with srun --distribution=block")
    first = PORTS_PER_STEP * (job + 7 * step)
    reached = {host: reach(host) for host in dict.fromkeys(hosts)} if len(hosts) > 1 else {}
    ports = [FIRST_PORT + (first + number) % PORTS for number in range(len(hosts))]
    return Rendezvous([f"{reached.get(host, host)}:{port}" for host, port in zip(hosts, ports, strict=True)], rank)
