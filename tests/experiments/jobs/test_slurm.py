"""Submitted runs on a real Slurm: a sweep, a paper's table, and what is refused or given up."""

import csv
import json

import pytest
from slurm_jobs import metarun, queue, release, wait_for

pytestmark = pytest.mark.usefixtures("slurm")


def test_a_sweep_becomes_arrays_and_a_table(folder):
    sweep = ("submit", "tiny.yaml", "-s", "algorithm.inner_lr=0.01,0.02,1e30")
    allocation = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "9", "SLURM_MEM_PER_CPU": "100", "SBATCH_PARTITION": "nowhere"}
    told = metarun(folder, *sweep, "--slurm", "hold", **allocation)  # so that they wait until they are released
    assert (
        told.startswith("submitted 3 runs as job ")
        and "SBATCH_PARTITION of this shell: not used" in told
        and "metarun status runs" in told
    )
    assert len(list((folder / "runs/.jobs").glob("*/runs.json"))) == 2  # of two and one: MaxArraySize
    assert metarun(folder, *sweep) == "nothing to submit: 3 queued or running\n"
    release()
    wait_for(lambda: not queue())
    lines = metarun(folder, "status", "runs").splitlines()
    assert lines[0].startswith("tiny-inner_lr-0.01/seed-0  finished     mse ")
    assert lines[2].startswith("tiny-inner_lr-1e30/seed-0  failed       ") and "the loss is" in lines[2]
    assert lines[3] == "3 runs: 2 finished, 1 failed" and lines[4].startswith("table: written (job ")
    log = metarun(folder, "logs", "runs/tiny-inner_lr-1e30/seed-0")
    assert ": the loss is " in log and "Traceback" not in log
    with open(folder / "runs/results.csv", newline="") as file:
        assert [row["experiment"] for row in csv.DictReader(file)] == ["tiny-inner_lr-0.01", "tiny-inner_lr-0.02"]
    lines, notes = (folder / "runs/table.txt").read_text().split("\n\n")
    assert len(lines.splitlines()) == 4 and "tiny-inner_lr-1e30: 0 of 1 seed, seed 0 failed: " in notes
    again = metarun(folder, *sweep, "--slurm", "hold")  # only what failed
    assert again.startswith("submitted 1 run as job ") and "(2 finished)" in again
    assert not (folder / "runs/tiny-inner_lr-1e30/seed-0/failure.txt").exists()
    assert metarun(folder, "cancel", "runs") == "cancelled 1 run\n"
    wait_for(lambda: not queue())


@pytest.mark.slow
def test_a_papers_table_is_filled_by_jobs(folder):
    """Check that a model fills two cells: its job tests it for both, the last one writes the table."""
    cells = (
        "cells:\n- {name: a, column: c, method: m, spec: SPEC}\n- {name: b, column: c, method: n, spec: SPEC, TEST}\n"
    )
    cells = cells.replace("SPEC", str(folder / "tiny.yaml")).replace("TEST", "test: {inner_steps: 2}")
    (folder / "paper.yaml").write_text("title: Sines\n" + cells)
    reproduce = ("reproduce", "paper.yaml", "--executor", "slurm")
    listed = metarun(folder, *reproduce, "--dry-run", "--time", "9:00")
    assert "1 of 1 run to submit\nsbatch: " in listed and " time=9 " in listed and not (folder / "runs").exists()
    assert metarun(folder, *reproduce).startswith("submitted 1 run as job ")
    wait_for(lambda: not queue())
    with open(folder / "runs/paper.csv", newline="") as file:
        assert [(row["cell"], row["inner_steps"]) for row in csv.DictReader(file)] == [("a", "1"), ("b", "2")]
    again = metarun(folder, "reproduce", "paper.yaml", "--executor", "local")
    assert "nothing to submit: 1 finished" in again and "table: runs/paper.csv" in again
    assert "--gpus: only with --executor" in metarun(folder, "reproduce", "paper.yaml", "--gpus", 1, code=2)


def test_a_run_that_makes_no_progress_is_given_up(folder):
    """Check that the job fails with its reason and is not requeued; a new submission starts to count anew."""
    from metarun.experiments.jobs.job import MOST_RESTARTS

    run = folder / "runs/tiny/seed-0"
    metarun(folder, "submit", "tiny.yaml", "--slurm", "hold")
    (run / "restarts.json").write_text(json.dumps({"step": 0, "restarts": MOST_RESTARTS}))
    assert "waiting      for JobHeldUser" in metarun(folder, "status", "runs")
    release()
    wait_for(lambda: not queue())
    told = metarun(folder, "status", "runs")
    assert f" failed       started {MOST_RESTARTS + 1} times at step 0 without progress" in told


def test_what_sbatch_refuses_is_told(folder):
    told = metarun(folder, "submit", "tiny.yaml", "--partition", "nowhere", code=1)
    assert told.startswith("error: sbatch refuses: invalid partition") and told.count("\n") == 1
    assert not list((folder / "runs/.jobs").glob("*/runs.json"))
    told = metarun(folder, "submit", "tiny.yaml", code=1, PATH="/nonexistent")
    assert told.startswith("error: there is no sbatch here: log in to the cluster, or train on this machine: ")
    assert told.endswith("submit tiny.yaml --executor local\n") and told.count("\n") == 1
