"""Many workers of one core each against one: tasks a second of W1 (see compare.py), in turn.

python benchmarks/workers.py [--counts 1 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time

STEPS = 40  # measured, after 3


def work(name: str) -> None:
    """Train as a worker that has one core for everything; the chief prints the seconds of a step."""
    cluster = json.loads(os.environ["TF_CONFIG"])
    index, addresses = cluster["task"]["index"], cluster["cluster"]["worker"]
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})  # before TensorFlow counts them

    from metarun_works import Metarun
    from works import WORKS

    from metarun.algorithms.workers import ALONE, join
    from metarun.experiments.training.steps import TrainingSteps

    workers = join(addresses, index) if len(addresses) > 1 else ALONE
    ours = Metarun(WORKS[name])
    steps = TrainingSteps(ours.model._replace(workers=workers))
    steps.take(1)
    steps.take(2)
    started = time.perf_counter()
    steps.take(STEPS)
    if index == 0:
        print(json.dumps({"seconds": (time.perf_counter() - started) / STEPS, "tasks": steps.batch}))


def measure(name: str, count: int) -> float:
    """Measure the tasks per second of `count` workers."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    started = []
    for index in range(count):
        told = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(told)}
        command = [sys.executable, __file__, "--work", name]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    told = [one.communicate()[0] for one in started]
    if any(one.returncode for one in started):
        raise SystemExit("a worker failed")
    result = json.loads(told[0])
    return result["tasks"] / result["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="W1")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        return work(arguments.work)
    rates: dict[int, list[float]] = {count: [] for count in arguments.counts}
    for _ in range(arguments.rounds):
        for count in arguments.counts:
            rates[count].append(measure(arguments.name, count))
            print(f"{count} workers: {rates[count][-1]:.1f} tasks/s", flush=True)
    medians = {count: statistics.median(each) for count, each in rates.items()}
    first = arguments.counts[0]
    for count, rate in medians.items():
        print(f"{count} workers: {rate:.1f} tasks/s, {rate / medians[first]:.2f} times {first}")


if __name__ == "__main__":
    main()
