"""Submitted runs on a real Slurm: a sweep and its table, and a run that is preempted, cancelled and killed and ends as
one that was never disturbed."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sharing
import slurm_cluster

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


@pytest.fixture(scope="module", autouse=True)
def slurm():
    """Its environment; arrays have at most two elements."""
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    with slurm_cluster.cluster(longest=2) as configuration, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(configuration))
        yield


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.yaml").write_text(SPEC)
    return tmp_path


def metarun(folder, *arguments, code=0, **environment):
    command = [sys.executable, "-m", "metarun.cli.main", *map(str, arguments)]
    told = {**os.environ, "XDG_CONFIG_HOME": str(folder), **environment}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=told)
    assert done.returncode == code, (arguments, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def queue() -> list[str]:
    """States of all jobs."""
    return subprocess.run(["squeue", "-h", "-r", "-o", "%T"], capture_output=True, text=True, check=True).stdout.split()


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return found


def test_a_sweep_becomes_arrays_and_a_table(folder):
    sweep = ("submit", "tiny.yaml", "-s", "algorithm.inner_lr=0.01,0.02,1e30")
    told = metarun(folder, *sweep)
    assert told.startswith("submitted 3 runs as job ") and "metarun status runs" in told
    assert len(list((folder / "runs/.jobs").glob("*/runs.json"))) == 2  # of two and one: MaxArraySize
    assert metarun(folder, *sweep) == "nothing to submit: 3 queued or running\n"
    wait_for(lambda: not queue())
    lines = metarun(folder, "status", "runs").splitlines()
    assert lines[0].startswith("tiny-inner_lr-0.01/seed-0  finished     mse ")
    assert lines[2].startswith("tiny-inner_lr-1e30/seed-0  failed       ") and "the loss is" in lines[2]
    assert lines[3] == "3 runs: 2 finished, 1 failed"
    assert "RunError" in metarun(folder, "logs", "runs/tiny-inner_lr-1e30/seed-0")
    with open(folder / "runs/results.csv", newline="") as file:
        assert [row["experiment"] for row in csv.DictReader(file)] == ["tiny-inner_lr-0.01", "tiny-inner_lr-0.02"]
    assert len((folder / "runs/table.txt").read_text().splitlines()) == 4
    again = metarun(folder, *sweep)  # only what failed
    assert again.startswith("submitted 1 runs as job ") and "(2 finished)" in again
    assert not (folder / "runs/tiny-inner_lr-1e30/seed-0/failure.txt").exists() or queue()
    assert metarun(folder, "cancel", "runs") == "cancelled 1 runs\n"
    wait_for(lambda: not queue(), 30)


def test_a_papers_table_is_filled_by_jobs(folder):
    """One model, two cells: its job tests it for both, the last one writes the table."""
    cells = (
        "cells:\n- {name: a, column: c, method: m, spec: SPEC}\n- {name: b, column: c, method: n, spec: SPEC, TEST}\n"
    )
    cells = cells.replace("SPEC", str(folder / "tiny.yaml")).replace("TEST", "test: {inner_steps: 2}")
    (folder / "paper.yaml").write_text("title: Sines\n" + cells)
    reproduce = ("reproduce", "paper.yaml", "--executor", "slurm")
    listed = metarun(folder, *reproduce, "--dry-run", "--time", "9:00")
    assert "1 of 1 runs to submit\nsbatch: " in listed and " time=9 " in listed and not (folder / "runs").exists()
    assert metarun(folder, *reproduce).startswith("submitted 1 runs as job ")
    wait_for(lambda: not queue())
    with open(folder / "runs/paper.csv", newline="") as file:
        assert [(row["cell"], row["inner_steps"]) for row in csv.DictReader(file)] == [("a", "1"), ("b", "2")]
    again = metarun(folder, "reproduce", "paper.yaml", "--executor", "local")
    assert "nothing to submit: 1 finished" in again and "table: runs/paper.csv" in again
    assert "--gpus: only with --executor" in metarun(folder, "reproduce", "paper.yaml", "--gpus", 1, code=2)


def test_a_disturbed_run_ends_as_an_undisturbed_one(folder):
    """Preempted by a job of a better partition, cancelled, killed outright."""
    long, run = ("-s", "train.steps=40000", "-s", "validation.every=15000"), folder / "runs/tiny/seed-0"
    submit = ("submit", "tiny.yaml", *long, "--partition", "low")

    def step():
        try:
            return json.loads((run / "progress.json").read_text())["done"]
        except FileNotFoundError:
            return 0

    def trains_beyond(before):
        return wait_for(lambda: step() > before)

    metarun(folder, *submit)
    trains_beyond(0)
    assert " running      step " in metarun(folder, "status", run)
    better = ["sbatch", "--parsable", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 600"]
    job = subprocess.run(better, check=True, capture_output=True, text=True).stdout.strip()
    wait_for(lambda: " waiting " in metarun(folder, "status", run))
    assert "requeued" in (run / "job.log").read_text() and list((run / "checkpoints").glob("step-*.npz"))
    subprocess.run(["scancel", job], check=True)
    trains_beyond(step())

    assert metarun(folder, "cancel", "runs") == "cancelled 1 runs\n"
    wait_for(lambda: not queue(), 30)
    assert " interrupted  after step " in metarun(folder, "status", "runs")
    assert not (run / "result.json").exists(), "too quick to be cancelled"

    metarun(folder, *submit)
    trains_beyond(step())
    pid = int((run / ".lock").read_text().split()[1])
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not queue(), 30)
    assert " failed       its job ended without a result; its log ends with: " in metarun(folder, "status", "runs")
    assert not (run / "result.json").exists(), "too quick to be killed"

    metarun(folder, *submit)
    wait_for(lambda: not queue())
    assert (run / "result.json").exists(), (run / "job.log").read_text()
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    metarun(folder, "train", "tiny.yaml", *long, "--out", "plain", **threads)
    assert results(run) == results(folder / "plain/tiny/seed-0")


def test_workers_of_one_run_on_two_nodes(folder):
    """Three processes, of two, one and one tasks, are asked to stop, are requeued, and end as the run of one does."""
    long = ("-s", "train.steps=2000", "-s", "validation.every=500", "-s", "train.log_every=500")
    submit, run = ("submit", "tiny.yaml", *long), folder / "runs/tiny/seed-0"
    assert "5 workers cannot share out a meta_batch of 4" in metarun(folder, *submit, "--workers", 5, code=2)
    assert "each worker has one GPU" in metarun(folder, *submit, "--workers", 3, "--gpus", 1, code=2)
    told = metarun(folder, *submit, "--workers", 3, "--cpus", 2)  # a node has four
    wait_for(lambda: list((run / "checkpoints").glob("step-*.npz")))
    subprocess.run(["scancel", "--signal=USR2", told.split("as job ")[1].split(",")[0]], check=True)
    wait_for(lambda: "requeued" in (run / "job.log").read_text())
    wait_for(lambda: not queue())
    assert (run / "result.json").exists(), (run / "job.log").read_text()
    metarun(folder, "train", *submit[1:], "--out", "plain")
    many, one = results(run), results(folder / "plain/tiny/seed-0")
    assert many["row"]["device"].startswith("3 x ") and many["row"]["spec_digest"] == one["row"]["spec_digest"]
    for mine, wanted in zip(many["metrics"], one["metrics"], strict=True):
        assert {key for key in mine if mine[key]} == {key for key in wanted if wanted[key]}
        numbers = [key for key in mine if mine[key] and key != "split"]
        assert [float(mine[key]) for key in numbers] == pytest.approx([float(wanted[key]) for key in numbers], rel=1e-3)


@pytest.mark.slow
def test_every_learner_trains_over_two_nodes_as_with_one_worker(folder):
    """All variables after 20 steps; what is wrong there is in test_workers."""
    found = []
    for name, launcher in (("one", ()), ("two", ("srun", "--nodes=2", "--ntasks-per-node=1"))):
        file = folder / f"{name}.npz"
        command = [*launcher, sys.executable, sharing.__file__, file, "float64"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        with np.load(file) as arrays:
            found.append({key: arrays[key] for key in arrays if key.split("/")[0] in sharing.CASES})
    one, two = found
    far = {key: np.abs(one[key].astype(float) - two[key]).max() for key in one}
    assert one.keys() == two.keys() and max(far.values()) < 1e-10, far


def results(run: Path) -> dict[str, object]:
    """What must not differ."""
    with open(run / "metrics.csv", newline="") as file:
        rows = [
            {k: v for k, v in row.items() if k not in ("seconds", "tasks_per_second")} for row in csv.DictReader(file)
        ]
    row = json.loads((run / "result.json").read_text())
    del row["seconds"], row["tasks_per_second"]
    return {"metrics": rows, "episodes": (run / "episodes.csv").read_text(), "row": row}


def test_a_run_that_makes_no_progress_is_given_up(folder):
    """The job fails with its reason and is not requeued; a new submission starts to count anew."""
    from metarun.experiments.job import MOST_RESTARTS

    run = folder / "runs/tiny/seed-0"
    metarun(folder, "submit", "tiny.yaml", "--slurm", "hold")
    (run / "restarts.json").write_text(json.dumps({"step": 0, "restarts": MOST_RESTARTS}))
    assert "waiting      for JobHeldUser" in metarun(folder, "status", "runs")
    job = metarun(folder, "status", "runs").split("job ")[1].split(")")[0]
    subprocess.run(["scontrol", "release", job], check=True)
    subprocess.run(["scontrol", "release", str(int(job) + 1)], check=True)
    wait_for(lambda: not queue())
    told = metarun(folder, "status", "runs")
    assert f" failed       started {MOST_RESTARTS + 1} times at step 0 without progress" in told


def test_what_sbatch_refuses_is_told(folder):
    told = metarun(folder, "submit", "tiny.yaml", "--partition", "nowhere", code=1)
    assert "\nerror: sbatch refuses: invalid partition" in told
    assert not list((folder / "runs/.jobs").glob("*/runs.json"))
    told = metarun(folder, "submit", "tiny.yaml", code=1, PATH="/nonexistent")
    assert told == "error: there is no sbatch here: log in to the cluster, or use --executor local on this machine\n"
