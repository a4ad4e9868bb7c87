"""Who the workers of a run are, read from what started them: Slurm's srun, or TF_CONFIG. No TensorFlow."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..algorithms.options import ReptileOptions, RL2Options
from .errors import RunError
from .spec import Experiment

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


def unshareable(experiment: Experiment, workers: int) -> str | None:
    """Why so many workers cannot share out the training of an experiment; None if they can."""
    algorithm, train = experiment.algorithm, experiment.train
    if experiment.kind == "classical":
        return f"{algorithm.name} is not trained, {workers} workers have nothing to share out: start it alone"
    if isinstance(algorithm, ReptileOptions) and algorithm.serial:
        return f"algorithm.serial learns one task after another, which {workers} workers cannot: start it alone"
    if train.meta_batch < workers:
        return f"{workers} workers cannot share out a meta_batch of {train.meta_batch}: start fewer, or raise it"
    if isinstance(algorithm, RL2Options) and algorithm.minibatch < workers:
        return f"{workers} workers cannot share out a minibatch of {algorithm.minibatch}: start fewer, or raise it"
    return None
