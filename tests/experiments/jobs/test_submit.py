"""Submitting: the settings of a cluster, and what is known of runs without a scheduler."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_jobs
from click.testing import CliRunner

from metarun.cli.main import metarun as group
from metarun.experiments.config.cluster import Cluster
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.jobs import job
from metarun.experiments.jobs.arrays import arrays
from metarun.experiments.jobs.job import MOST_RESTARTS, count_restarts
from metarun.experiments.jobs.local import devices, threads_of
from metarun.experiments.jobs.prepare import prepared
from metarun.experiments.jobs.settings import settled
from metarun.experiments.jobs.slurm import minutes
from metarun.experiments.jobs.status import statuses
from metarun.experiments.jobs.submission import Submission, cancel, find_runs, find_submissions, live, new_submission
from metarun.experiments.jobs.submit import todo
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.sweep import grid
from metarun.experiments.system import lock


@pytest.fixture(autouse=True)
def settings(tmp_path, monkeypatch):
    """Hide the settings of the user who runs the tests; the spec is in the current folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("METARUN_CLUSTER", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(slurm_jobs.SPEC)


def metarun(*arguments, code=0):
    return slurm_jobs.metarun(Path.cwd(), *arguments, code=code)


def test_the_command_line_comes_before_the_spec_and_the_spec_before_the_file(tmp_path):
    file = tmp_path / "metarun" / "cluster.yaml"
    file.parent.mkdir()
    file.write_text("partition: a\ntime: 90\nmemory: 1G\nslurm: {qos: x, nice: 5}\n")
    spec = Cluster(partition="b", slurm={"qos": "y"})
    found = settled(spec, {"gpus": 1, "memory": "2G"})
    told = (found.partition, found.time, found.memory, found.gpus, found.slurm)
    assert told == ("b", "90", "2G", 1, {"qos": "y", "nice": 5})
    file.write_text("partitoin: a\ntime: soon\ngpus: -1\n")
    with pytest.raises(SpecError) as error:
        settled(None, {})
    assert sorted(error.value.problems) == [
        "cluster.yaml:1: partitoin: unknown key; did you mean partition?",
        "cluster.yaml:2: time: expected minutes, MM:SS, H:MM:SS, D-HH or D-HH:MM, got 'soon'",
        "cluster.yaml:3: gpus: expected a number at least 0, got -1",
    ]
    file.write_text("# partition: a\n")
    assert settled(spec, {}).partition == "b"
    file.unlink()
    for wrong in ("1h", "0", "0-00:00"):  # 0 is no limit to Slurm
        with pytest.raises(SpecError, match="--time: expected minutes"):
            settled(None, {"time": wrong})


def test_a_cluster_decides_no_result():
    with_one = load("tiny.yaml", ["cluster={partition: gpu, time: 60}"]).experiment
    assert with_one.cluster and with_one.digest == load("tiny.yaml").experiment.digest
    assert load("tiny.yaml", ["train.steps=41"]).experiment.digest != with_one.digest
    with pytest.raises(SpecError, match="cluster.partiton: unknown key; did you mean partition?"):
        load("tiny.yaml", ["cluster={partiton: gpu}"])


def test_time_limits_are_those_of_slurm():
    assert settled(None, {"time": "14400"}).time == "14400"
    told = ["90", "90:30", "2:30:00", "1-12", "1-12:30", "2-00:00:00", "0:10"]
    assert [minutes(time) for time in told] == [90, 90, 150, 2160, 2190, 2880, 1]


def test_restarts_without_progress_are_bounded(tmp_path):
    run = RunDirectory(tmp_path)
    for _ in range(MOST_RESTARTS + 1):
        count_restarts(run)
    with pytest.raises(RunError, match="at step 0 without progress"):
        count_restarts(run)
    run.checkpoints.mkdir()
    run.checkpoint(7).write_text("")
    count_restarts(run)  # progress: it counts anew
    count_restarts(run)
    assert json.loads(run.restarts.read_text())["restarts"] == 1
    run.partial_test.write_text("")
    count_restarts(run)  # so is a part of the test
    assert json.loads(run.restarts.read_text())["restarts"] == 0


def test_states_are_read_from_the_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # no scheduler

    def make(name):
        run = RunDirectory(tmp_path / "runs" / name / "seed-0")
        run.path.mkdir(parents=True)
        run.spec.write_text("")
        return run

    missing, failed, stopped, killed, busy, unstarted = map(make, ("a", "b", "c", "d", "e", "f"))
    failed.failure.write_text("the loss is nan\n")
    stopped.checkpoints.mkdir()
    stopped.checkpoint(20).write_text("")
    killed.log.write_text(f"{killed.path}: started as process 1 on x\nslurmstepd: error: Detected 1 oom_kill event\n")
    busy.progress.write_text('{"done": 50, "total": 150, "per_second": 2.0}')
    make("e/x").path.rename(tmp_path / "runs" / "e" / "seed-0~1")
    Submission(tmp_path / "runs/.jobs/metarun-x", [killed.path, unstarted.path]).write()
    with lock.locked(busy.lock):
        found = {one.path.parent.name: (one.state, one.words) for one in statuses(tmp_path / "runs")}
    assert found == {
        "a": ("missing", ""),
        "f": ("missing", "its job ended before it started"),
        "b": ("failed", "the loss is nan"),
        "c": ("interrupted", "after step 20"),
        "d": (
            "failed",
            "its job ended without a result; its log ends with: slurmstepd: error: Detected 1 oom_kill event",
        ),
        "e": ("running", f"step 50 of 150, 2/s, 00:50 left ({found['e'][1].split('(')[1]}"),
    }
    assert f"process {os.getpid()} on " in found["e"][1]
    assert [run.path.name for run in find_runs(busy.path)] == ["seed-0"]
    (tmp_path / "spec.yaml").write_text("")  # the user's own
    unbuilt = RunDirectory(tmp_path / "elsewhere" / "g" / "seed-1")
    unbuilt.path.mkdir(parents=True)
    unbuilt.failure.write_text("there are no images\n")
    (tmp_path / "runs" / "g").symlink_to(tmp_path / "elsewhere" / "g")
    (tmp_path / "elsewhere" / "g" / "round").symlink_to(tmp_path / "elsewhere")
    found = {one.path: one.state for one in statuses(tmp_path)}
    assert len(found) == 7 and list(found.values()).count("failed") == 3
    (submission,) = find_submissions(killed.path)
    with lock.locked(submission.lock):
        assert live([submission])[killed.path].waiting  # its turn will come
        submission.ended.append(killed.path)
        submission.write()
        (again,) = find_submissions(killed.path)
        assert again.ended == [killed.path] and list(live([again])) == [unstarted.path]
    assert live([submission]) == {}


def test_runs_behind_a_link_are_those_that_were_submitted(tmp_path, monkeypatch):
    """Reject the name by way of the link, which is no other run."""
    monkeypatch.setenv("PATH", "")  # no scheduler
    (tmp_path / "scratch").mkdir()
    Path("runs").mkdir()
    Path("runs/tiny").symlink_to(tmp_path / "scratch")
    runs = grid(["tiny.yaml"], [], [0], Path("runs"))
    with prepared(runs):
        pass
    submission = new_submission(runs, Path("runs"))
    ((path, state, _),) = statuses(Path("runs"))
    assert state == "missing"
    with lock.locked(submission.lock):
        assert [len(some) for some in todo(runs, Path("runs"))] == [0, 1]
        ((path, state, _),) = statuses(Path("runs"))
        assert state == "waiting" and path == (tmp_path / "runs/tiny/seed-0")
        monkeypatch.setattr("metarun.experiments.jobs.submission._end", lambda holder: None)
        assert cancel(Path("runs")) == 1


def test_a_local_run_does_not_take_itself_for_the_job_around_it(tmp_path):
    """Reject a run that is requeued with all others, or waits for workers; its log is no link to that of a former
    job."""
    (tmp_path / "job.log").symlink_to(tmp_path / "gone" / "1.log")
    code = (
        "import os, sys\nfrom metarun.experiments.jobs import local\n"
        "local.work = lambda *_, **__: print({name: os.environ.get(name) for name in sys.argv[2:]})\n"
        "local._work(sys.argv[1], [], 1, None)"
    )
    outer = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_STEP_NUM_TASKS": "2", "TF_CONFIG": "{}"}
    subprocess.run([sys.executable, "-c", code, tmp_path, *outer], env={**os.environ, **outer}, check=True)
    assert (tmp_path / "job.log").read_text() == f"{dict.fromkeys(outer)}\n"


def test_a_scheduler_that_is_busy_is_asked_again(monkeypatch, capsys):
    told = iter([RunError("slurm_load_jobs error: Socket timed out"), "RUNNING\n", ""])
    asked = []

    def slurm(*command, timeout):
        asked.append(command[0])
        if isinstance(answer := next(told), RunError):
            raise answer
        return answer

    monkeypatch.setattr(job, "slurm", slurm)
    monkeypatch.setattr(job, "PATIENCE", (0, 0, 0))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert job.requeued() and asked == ["squeue", "squeue", "scontrol"]
    assert "not requeued yet: slurm_load_jobs error" in capsys.readouterr().err


def test_gpus_are_shared_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    assert devices(9, None, 1) == ["4", "5", "7"] and devices(9, 2, 1) == ["4", "5"] and devices(1, None, 1) == ["4"]
    assert devices(9, 3, 0) == [None] * 3
    assert devices(5, None, 1, 2) == ["4", "5", "7", "4", "5"] and devices(9, 2, 1, 4) == ["4", "5"]  # spread out
    with pytest.raises(RunError, match="--runs-per-gpu 2 has no effect without a GPU: add --gpus 1"):
        devices(5, None, 0, 2)
    with pytest.raises(RunError, match="a run has one GPU"):
        devices(1, None, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,-1,4")  # what comes after -1 is not seen
    assert devices(9, None, 1) == ["3"]
    monkeypatch.setattr("shutil.which", str)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: subprocess.CompletedProcess([], code, told))
    code, told = 0, "GPU 0: NVIDIA A100 (UUID: GPU-1)\n  MIG 1g.5gb Device 0: (UUID: MIG-1)\nGPU 1: NVIDIA A100\n"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert devices(9, None, 1) == ["0", "1"]
    code, told = 9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    for seen in (None, "", "-1", "NoDevFiles"):
        if seen is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        with pytest.raises(RunError, match="this machine has no GPU"):
            devices(1, None, 1)


def test_what_sbatch_would_be_asked_for():
    """Reject an array for each spec, four of each array at once, half of each where there is no limit. Runs of equal
    settings are one array, all together within the limit."""
    wide = slurm_jobs.SPEC.replace("name: tiny", "name: wide").replace("max_parallel: 4", "cpus: 2")
    Path("wide.yaml").write_text(wide)
    runs = ("tiny.yaml", "wide.yaml", "-s", "algorithm.inner_lr=0.01,0.02", "--seeds", "0-2", "--max-parallel", 4)
    *_, count, one, other = metarun("submit", *runs, "--dry-run").splitlines()
    assert count == "12 of 12 runs to submit"
    assert one == "sbatch: array=0-5%2 time=60 cpus_per_task=1 signal=USR2@90 requeue=True"
    assert other == "sbatch: array=0-5%2 time=60 cpus_per_task=2 signal=USR2@90 requeue=True"
    both = grid(["wide.yaml", "tiny.yaml"], [], [0, 1, 2], Path("o"))
    unlimited = [(run, run.experiment.cluster.model_copy(update={"max_parallel": None})) for run in both]
    assert [(len(some), at_once) for _, some, at_once in arrays(unlimited)] == [(3, 3), (3, 3)]


def test_runs_of_this_machine_and_their_table(tmp_path):
    """Check that a run that fails stops no other; the same command runs only what failed."""
    sweep = ("submit", "tiny.yaml", "-s", "algorithm.inner_lr=0.01,1e30", "--executor", "local", "--max-parallel", 2)
    dry = metarun(*sweep, "--dry-run")
    runs = [f"runs/tiny-inner_lr-{rate}/seed-0" for rate in ("0.01", "1e30")]
    assert dry == "".join(f"{run}  to do\n" for run in runs) + "2 of 2 runs to submit\n"
    assert not (tmp_path / "runs").exists()
    told = metarun(*sweep, code=1)
    assert "tiny-inner_lr-1e30/seed-0 failed: see runs/tiny-inner_lr-1e30/seed-0/failure.txt" in told
    status = metarun("status", "runs")
    assert (
        "seed-0  finished     mse " in status and "failed       runs/tiny-inner_lr-1e30/seed-0: the loss is" in status
    )
    assert "2 runs: 1 finished, 1 failed" in status
    table = (tmp_path / "runs/table.txt").read_text()
    assert told.startswith(table)  # on the standard output, the rest is on the error stream
    assert "table: runs/table.txt, .csv, .md, .tex\nrows: runs/results.csv\n" in told
    assert "started as process" in metarun("logs", "runs/tiny-inner_lr-1e30/seed-0")
    assert "1 of 2 runs to submit" in metarun(*sweep, "--dry-run")
    done = metarun("submit", "tiny.yaml", "-s", "algorithm.inner_lr=0.01", "-s", "name=tiny-inner_lr-0.01", *sweep[4:])
    assert "nothing to submit: 1 finished" in done
    lines, notes = (tmp_path / "runs/table.txt").read_text().split("\n\n")
    assert len(lines.splitlines()) == 3 and "tiny-inner_lr-1e30: 0 of 1 seed, seed 0 failed: " in notes


def test_without_slurm_the_whole_command_for_this_machine_is_told(monkeypatch):
    """Reject a command that keeps the settings of a cluster, which --executor local refuses."""
    monkeypatch.setattr("shutil.which", lambda name: None)
    arguments = ["submit", "tiny.yaml", "-s", "train.steps=5,6", "--time=4:00", "--gpus", "1", "--partition", "a"]
    monkeypatch.setattr("sys.argv", ["metarun", *arguments])
    done = CliRunner().invoke(group, arguments)
    assert str(done.exception) == (
        "there is no sbatch here: log in to the cluster, or train on this machine: "
        "metarun submit tiny.yaml -s train.steps=5,6 --gpus 1 --executor local"
    )


@pytest.mark.slow
def test_cancel_ends_runs_of_this_machine_after_a_checkpoint(tmp_path):
    sweep = "submit tiny.yaml -s train.steps=1000000 -s validation.every=1000000 --seeds 0-1 --executor local"
    process = subprocess.Popen([sys.executable, "-m", "metarun.cli.main", *sweep.split(), "--max-parallel", "1"])
    try:
        for _ in range(3000):
            if (tmp_path / "runs/tiny/seed-0/progress.json").exists():
                break
            time.sleep(0.1)
        status = metarun("status", "runs")
        assert "running      step " in status and "waiting      for its turn" in status
        assert "seed-1 waits for process" in metarun("cancel", "runs/tiny/seed-1", code=1)
        assert "cancelled 2 runs" in metarun("cancel", "runs")
        assert process.wait(300) == 130
    finally:
        process.kill()
    assert list((tmp_path / "runs/tiny/seed-0/checkpoints").glob("step-*.npz"))
    assert "no run below runs is queued or running" in metarun("cancel", "runs")
    status = metarun("status", "runs").splitlines()
    assert "interrupted  after step " in status[0]


def test_offline_runs_download_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    told = metarun("submit", "omniglot/protonet", "--executor", "local", code=1)
    assert told == "error: before submitting: omniglot, not here: `metarun data fetch` or `import` omniglot\n"
    told = metarun("train", "omniglot/protonet", "--offline", code=1)
    assert "and this run is offline: `metarun data fetch` on a machine with internet" in told


def test_runs_that_share_a_gpu_know_it_and_are_of_this_machine(tmp_path):
    """Reject a run that takes the whole card for its own, and Slurm, which gives each job a whole one."""
    code = (
        "import os, sys\nfrom metarun.experiments.jobs import local\n"
        "names = 'CUDA_VISIBLE_DEVICES', 'METARUN_RUNS_PER_GPU'\n"
        "local.work = lambda *_, **__: print(*map(os.environ.get, names))\nlocal._work(sys.argv[1], [], 1, '5', 3)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
    assert (tmp_path / "job.log").read_text() == "5 3\n"
    told = metarun("submit", "tiny.yaml", "--gpus", 1, "--runs-per-gpu", 2, "--dry-run", code=1)
    assert told.startswith("error: --runs-per-gpu: only with --executor local") and "gres=shard:1" in told
    assert "1 of 1 run to submit" in metarun(
        "submit", "tiny.yaml", "--executor=local", "--gpus", 1, "--runs-per-gpu", 2, "--dry-run"
    )


@pytest.mark.slow  # test_gpus.py has the same in this process
def test_fault_15_a_local_job_that_asked_for_a_gpu_fails_without_one(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    metarun("submit", "tiny.yaml", "--executor", "local", "--gpus", 1, code=1)
    said = Path("runs/tiny/seed-0/failure.txt").read_text()
    assert said.startswith("a GPU is asked for, and there is a GPU (nvidia-smi lists NVIDIA H200")
    assert "but TensorFlow does not see it" in said


def test_fault_11_a_local_run_goes_on_with_the_threads_that_it_began_with(tmp_path):
    """Reject all cores for the last run of a sweep that is submitted again, which changes its last bits."""
    run = RunDirectory(tmp_path)
    run.environment.write_text('[{"step": 0, "intra_op_threads": 1}]')
    assert threads_of(run, 2) == 2  # nothing that is kept was trained
    run.checkpoints.mkdir()
    run.checkpoint(7).touch()
    assert threads_of(run, 2) == 1 and threads_of(run, 1) == 1
