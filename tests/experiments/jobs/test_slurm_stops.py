"""Runs on a real Slurm that are preempted, requeued, cancelled and killed, or trained by many workers, end as one that
was never disturbed."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import sharing
from finished import results
from slurm_jobs import metarun, queue, wait_for

pytestmark = pytest.mark.usefixtures("slurm")


@pytest.mark.slow
def test_a_disturbed_run_ends_as_an_undisturbed_one(folder):
    """Stop it in three ways: preempted by a job of a better partition, cancelled, killed outright."""
    long, run = ("-s", "train.steps=16000", "-s", "validation.every=6000"), folder / "runs/tiny/seed-0"
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

    assert metarun(folder, "cancel", "runs") == "cancelled 1 run\n"
    wait_for(lambda: not queue())
    assert " interrupted  after step " in metarun(folder, "status", "runs")
    assert not (run / "result.json").exists(), "too quick to be cancelled"

    metarun(folder, *submit)
    trains_beyond(step())
    pid = int((run / ".lock").read_text().split()[1])
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not queue())
    assert " failed       its job ended without a result; its log ends with: " in metarun(folder, "status", "runs")
    assert not (run / "result.json").exists(), "too quick to be killed"

    metarun(folder, *submit)
    wait_for(lambda: not queue())
    assert (run / "result.json").exists(), (run / "job.log").read_text()
    threads = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    metarun(folder, "train", "tiny.yaml", *long, "--out", "plain", **threads)
    assert results(run) == results(folder / "plain/tiny/seed-0")


@pytest.mark.slow
def test_workers_of_one_run_on_two_nodes(folder):
    """Check that three processes, of two, one and one tasks, are asked to stop, are requeued, and end as the run of one
    does."""
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
    """Check that the variables after 20 steps are equal; wrong variants are rejected in test_followers."""
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
