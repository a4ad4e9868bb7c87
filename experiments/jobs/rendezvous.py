"""Who the workers of a run are, read from what started them: Slurm's srun, or TF_CONFIG. No TensorFlow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RunError
from .slurm import expand, reach, tasks_of_nodes

FIRST_PORT, PORTS = 10_000, 22_000  # below those that Linux gives to clients
PORTS_A_STEP = 64


@dataclass(frozen=True)
class Cluster:
    """The addresses "host:port" of all workers, and which of them this process is."""

    addresses: list[str]
    index: int


def find(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """None for a process that works alone; RunError for what is said wrongly. TF_CONFIG comes before Slurm."""
    if environment.get("TF_CONFIG"):
        cluster = _from_tf_config(environment["TF_CONFIG"])
    elif "SLURM_STEP_NUM_TASKS" in environment:  # of srun alone: a batch script is one process whatever its --ntasks
        cluster = _from_slurm(environment)
    else:
        return None
    return cluster if len(cluster.addresses) > 1 else None


def _from_tf_config(text: str) -> Cluster:
    """`chief`, if there is one, is worker 0; https://www.tensorflow.org/api_docs/python/tf/distribute/cluster_resolver."""
    try:
        told = json.loads(text)
        workers, task = told["cluster"], told["task"]
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
            f"TF_CONFIG names no worker of a cluster ({what}); it should read like "
            '{"cluster": {"worker": ["host1:5000", "host2:5000"]}, "task": {"type": "worker", "index": 0}}; '
            "unset it to train with one worker"
        ) from None
    return Cluster(addresses, index)


def _addresses(told: Any) -> list[str]:
    if not isinstance(told, list) or not all(isinstance(one, str) and re.fullmatch(r"\S+:\d+", one) for one in told):
        raise ValueError(f"{told!r} is no list of host:port")
    if len(set(told)) < len(told):
        raise ValueError(f"{told!r} has an address twice")
    return told


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    """The tasks of one `srun`, in blocks: the first on the first node, and so on. Ports follow from job and step."""
    try:
        job, step, rank = (int(environment[name]) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID"))
        nodes = expand(environment["SLURM_STEP_NODELIST"])
        counts = tasks_of_nodes(environment["SLURM_STEP_TASKS_PER_NODE"])
        hosts = [node for node, count in zip(nodes, counts, strict=True) for _ in range(count)]
        own = environment.get("SLURMD_NODENAME", hosts[rank])
    except (KeyError, ValueError, IndexError) as error:
        raise RunError(f"srun's environment is not understood ({error!r}): set TF_CONFIG for each task") from None
    if own != hosts[rank]:
        raise RunError(f"task {rank} runs on {own}, not on {hosts[rank]}: start it with srun --distribution=block")
    first = PORTS_A_STEP * (job + 7 * step)
    reached = {host: reach(host) for host in dict.fromkeys(hosts)} if len(hosts) > 1 else {}
    ports = [FIRST_PORT + (first + number) % PORTS for number in range(len(hosts))]
    return Cluster([f"{reached.get(host, host)}:{port}" for host, port in zip(hosts, ports, strict=True)], rank)
