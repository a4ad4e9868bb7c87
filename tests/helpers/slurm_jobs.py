"""Helpers of the tests of submitted runs: a small experiment, the command, the queue."""

import subprocess
import time

import command

SPEC = """
name: tiny
algorithm: {name: maml, inner_lr: 0.01}
network: {name: mlp, hidden: [16]}
dataset: {name: sinusoid}
protocol: inductive
train: {way: 1, shot: 5, query: 5, meta_batch: 4, steps: 40, log_every: 500}
validation: {episodes: 20, every: 500}
test: {way: 1, shot: 5, query: 5, episodes: 30}
jit: off
cluster: {max_parallel: 4}
"""


def metarun(folder, *arguments, code=0, **environment):
    done = command.metarun(*arguments, code=code, cwd=folder, **{"XDG_CONFIG_HOME": str(folder), **environment})
    return done.stdout + done.stderr


def queue() -> list[str]:
    """Return the states of all jobs."""
    return subprocess.run(["squeue", "-h", "-r", "-o", "%T"], capture_output=True, text=True, check=True).stdout.split()


def release() -> None:
    """Release all jobs, which were submitted with `--slurm hold`."""
    jobs = subprocess.run(["squeue", "-h", "-o", "%F"], capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["scontrol", "release", *sorted(set(jobs))], check=True)


def wait_for(condition, seconds=600.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found
