"""A search that is submitted: its array and the job after it, what is listed, and what `status` says."""

import csv
import json
import pickle
from pathlib import Path

import pytest
import slurm_jobs
from click.testing import CliRunner
from feigned_slurm import FeignedSlurm
from rows import ROW
from searches import die, fail, files_of_tests, leave
from slurm_jobs import queue, wait_for
from submitit.core.utils import DelayedSubmission

from metarun.cli.main import metarun as group
from metarun.experiments.errors import RunError, SpecError
from metarun.experiments.jobs import local
from metarun.experiments.jobs.search import finish, go_on, note_killed
from metarun.experiments.jobs.submission import find_submissions
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.rows import Row
from metarun.experiments.selection.search import search_of
from metarun.experiments.selection.session import left_at, runs_of_chosen, select

RATES = "algorithm.inner_lr=0.01,0.02,0.03"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Hide the settings of the user who runs the tests; the spec is in the current folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("METARUN_OFFLINE", "1")
    monkeypatch.delenv("METARUN_CLUSTER", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(slurm_jobs.SPEC)
    return tmp_path


def metarun(*arguments, raises=None):
    """Run the command in this process; return its output, or the message of the error that it raises."""
    done = CliRunner().invoke(group, list(map(str, arguments)))
    if raises:
        assert isinstance(done.exception, raises), (done.output, done.exception)
        return str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_what_would_be_submitted_is_listed(here):
    told = metarun("submit", "tiny.yaml", "-s", RATES, "--select", "--seeds", "0-2", "--dry-run").splitlines()
    assert told[:4] == [*(f"runs/tiny-inner_lr-{rate}/seed-0  to do" for rate in ("0.01", "0.02", "0.03")),
                        "3 of 3 runs to submit"]  # fmt: skip
    assert told[4:] == [
        "sbatch: array=0-2%3 time=60 cpus_per_task=1 signal=USR2@90 requeue=True",
        "sbatch: dependency=afterany time=60 cpus_per_task=1 signal=USR2@90 requeue=True",
        "3 configurations, without tests; then the best by validation, seeds 0-2",
    ]
    halving = ["--halving", "-s", "validation.every=5", "--executor", "local", "--dry-run"]
    told = metarun("submit", "tiny.yaml", "-s", RATES, "--select", *halving).splitlines()
    assert told[-1] == (
        "3 configurations, without tests; the better half goes on at step 20; then the best by validation, seeds 0"
    )
    assert not Path("runs").exists()


def test_a_search_is_an_array_and_a_job_after_it(here, monkeypatch):
    """Reject a second job for the same search while one is queued, and a job that cannot be unpickled."""
    feigned = FeignedSlurm(here / "bin", monkeypatch)
    command = (
        "submit",
        "tiny.yaml",
        "-s",
        RATES,
        "--select",
        "--seeds",
        "0-1",
        "--time",
        "9:00",
        "--slurm",
        "begin=18:00",
    )
    told = metarun(*command)
    assert (
        "submitted 3 configurations as job 100, then the choice, its training and its test as job 101; follow" in told
    )
    array, last = feigned.scripts()
    assert "#SBATCH --array=0-2%3" in array and "--begin=18:00" in array and "--begin" not in last
    assert "#SBATCH --dependency=afterany:100" in last and "#SBATCH --time=9\n" in last
    (submission,) = find_submissions(Path("runs"))
    assert (submission.job, submission.table, submission.search) == ("100", "101", "tiny")
    assert f"--job-name={submission.name}-select" in last
    function, search, *_ = DelayedSubmission.load(submission.folder / "101_submitted.pkl").args
    assert function is finish and search.out == here / "runs" and search.seeds == (0, 1)
    assert [each.text for each in search.configurations] == [
        f"algorithm.inner_lr={rate}" for rate in ("0.01", "0.02", "0.03")
    ]
    assert search.configurations[0].run.directory.path == here / "runs/tiny-inner_lr-0.01/seed-0"
    with open("runs/tiny/selection.csv", newline="") as file:  # so that a search that is cancelled is not made smaller
        assert [line["why"] for line in csv.DictReader(file)] == ["not trained yet"] * 3
    feigned.queue(f"101|{submission.of_table}|PENDING|Dependency")
    assert metarun("status", "runs").splitlines()[-1] == "choice of tiny: waiting for Dependency (job 101)"
    assert "nothing to submit: a part of it is queued or running; follow" in metarun(*command)
    feigned.queue(*(f"100_{number}|{submission.name}|RUNNING|None" for number in range(3)))
    assert "nothing to submit: 3 configurations queued or running; follow" in metarun(*command)
    feigned.queue()
    told = metarun("status", "runs").splitlines()[-1]
    assert told.startswith("choice of tiny: not finished: its job ended before it started; the same command goes on")
    for run in search.runs_until(None, search.configurations):
        leave(run, (40, 0.5, 0.1), metric="mse")
    assert "submitted the choice, its training and its test as job 102; follow" in metarun(*command)
    assert "dependency" not in feigned.scripts()[-1]
    last = find_submissions(Path("runs"))[-1]
    feigned.queue(f"102|{last.of_table}|RUNNING|None")
    assert metarun("status", "runs").splitlines()[-1] == "choice of tiny: choosing, training and testing (job 102)"
    metarun("cancel", "runs")
    assert "102" in (feigned.folder / "cancelled").read_text()


def test_each_stage_of_halving_is_an_array_after_the_one_before(here, monkeypatch):
    """Reject stages in the last job, one configuration after the other; a stage that starts with the search; and a last
    job that starts beside the first array, since the stages were cancelled."""
    feigned = FeignedSlurm(here / "bin", monkeypatch)
    rates = "algorithm.inner_lr=0.01,0.02,0.03,0.04,0.05"
    command = ("submit", "tiny.yaml", "-s", rates, "-s", "validation.every=5", "--select", "--halving")
    listed = metarun(*command, "--dry-run").splitlines()
    assert [line.split()[1] for line in listed if line.startswith("sbatch: array")] == [
        f"array=0-{last}%{min(last + 1, 4)}" for last in (4, 2, 1)
    ]
    told = metarun(*command)
    assert "submitted 5 configurations as job 100, then those that go on as job 101, 102, then the choice" in told
    arrays = feigned.scripts()
    waits = [[line for line in script.splitlines() if "dependency" in line] for script in arrays]
    assert waits == [[], *([f"#SBATCH --dependency=afterany:{jobs}"] for jobs in ("100", "101", "100:101:102"))]
    assert "--array=0-2%3" in arrays[1] and "--array=0-1%2" in arrays[2] and "--array" not in arrays[3]
    (submission,) = find_submissions(Path("runs"))
    assert (submission.job, submission.table) == ("100", "103")
    for job, stage, place in (("101_0", 1, 0), ("101_2", 1, 2), ("102_1", 2, 1)):
        asked = DelayedSubmission.load(submission.folder / f"{job}_submitted.pkl")
        assert asked.args[:4] == (go_on, str(submission.folder / "search.pkl"), stage, place)
    feigned.queue(*(f"10{one}|{submission.of_table}|{state}|Dependency" for one, state in
                    (("1_0", "RUNNING"), ("1_1", "PENDING"), ("3", "PENDING"))))  # fmt: skip
    assert metarun("status", "runs").splitlines()[-1].endswith("choosing, training and testing (job 101_0)")
    assert "nothing to submit: a part of it is queued or running" in metarun(*command)
    metarun("cancel", "runs")
    assert {"101", "103"} <= set((feigned.folder / "cancelled").read_text().split())


def test_every_job_of_a_stage_finds_the_same_configurations(here):
    """Reject a later validation that counts, by which others would go on once the first of a stage has trained."""
    search = search_of(["tiny.yaml"], [RATES, "validation.every=5"], [], Path("runs"), halve=True)
    first, second, third = search.runs_until(search.stops[0], search.configurations)
    leave(first, (20, 0.3, 0.1), metric="mse")
    leave(second, (20, 0.5, 0.1), metric="mse")
    with pytest.raises(RunError, match="0.03/seed-0: its process was stopped or killed before step 20"):
        left_at(search, 1)
    leave(third, (20, 0.2, 0.1), metric="mse")
    names = ["tiny-inner_lr-0.01", "tiny-inner_lr-0.03"]
    assert [each.name for each in left_at(search, 1)] == names and len(left_at(search, 0)) == 3
    leave(search.runs_until(None, search.configurations)[2], (20, 0.2, 0.1), (40, 0.9, 0.1), metric="mse")
    assert [each.name for each in left_at(search, 1)] == names
    fail(first, "the loss is nan at step 30")
    assert [each.name for each in left_at(search, 1)] == names
    assert search.counts() == [3, 2]
    with first.directory.metrics.open("a") as file:  # another job is writing
        file.write("25,val,,")
    assert [each.name for each in left_at(search, 1)] == names


def test_a_job_of_a_stage_trains_the_run_of_its_place(here, monkeypatch):
    """Reject the stage or the place of another, a step too far, and the log of the first array."""
    search = search_of(["tiny.yaml"], [f"{RATES},0.04,0.05", "validation.every=5"], [], Path("runs"), halve=True)
    for number, run in enumerate(search.runs_until(search.stops[0], search.configurations)):
        leave(run, (10, 0.5 - number / 10, 0.01), metric="mse")
    Path("search.pkl").write_bytes(pickle.dumps(search.at(here / "runs")))
    trained = []
    monkeypatch.setattr("metarun.experiments.training.train.train_until", trained.append)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(here))
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # so that what the job sets ends with the test
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "101")
    for place in range(4):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(place))
        monkeypatch.setenv("SLURM_JOB_ID", str(110 + place))
        go_on("search.pkl", 1, place, 1, {}, False)
    assert [run.experiment.algorithm.inner_lr for run in trained] == [0.03, 0.04, 0.05] and search.stops == (10, 20)
    assert {run.until for run in trained} == {20}
    assert [run.directory.log.resolve().name for run in trained] == [f"101_{place}_0_log.out" for place in range(3)]
    with pytest.raises(RunError, match="0.03/seed-0: its process was stopped or killed before step 20"):
        go_on("search.pkl", 2, 0, 1, {}, False)


def test_a_stage_that_sbatch_refuses_leaves_what_was_taken(here, monkeypatch):
    feigned = FeignedSlurm(here / "bin", monkeypatch)
    command = ("submit", "tiny.yaml", "-s", RATES, "-s", "validation.every=5", "--select", "--halving")
    feigned.refuse("sbatch: error: QOSMaxSubmitJobPerUserLimit", after=1)
    told = metarun(*command, raises=RunError)
    assert told == "sbatch refuses: QOSMaxSubmitJobPerUserLimit; 3 runs are submitted already and stay"
    (submission,) = find_submissions(Path("runs"))
    feigned.queue(*(f"100_{number}|{submission.name}|RUNNING|None" for number in range(3)))
    assert "nothing to submit: 3 configurations queued or running; follow" in metarun(*command)
    feigned.queue()
    feigned.accept()
    assert "submitted 3 configurations as job 101, then those that go on as job 102, then" in metarun(*command)


def test_a_search_that_sbatch_refuses_leaves_nothing(here, monkeypatch):
    feigned = FeignedSlurm(here / "bin", monkeypatch)
    feigned.refuse("sbatch: error: no such partition")
    assert metarun("submit", "tiny.yaml", "-s", RATES, "--select", raises=RunError).startswith(
        "sbatch refuses: no such"
    )
    assert not list(Path("runs").glob("*/seed-*")) and not find_submissions(Path("runs"))
    told = metarun("submit", "tiny.yaml", "-s", RATES, "--select", "--workers", 2, raises=SpecError)
    assert told == "--select: one process trains a configuration, not 2: ask for one worker, and one GPU at most"


def test_a_search_that_is_over_is_submitted_no_more(here, monkeypatch):
    """Reject a second choice, and a last job whose work is done."""
    FeignedSlurm(here / "bin", monkeypatch)
    search = search_of(["tiny.yaml"], [RATES], [], Path("runs"))
    results = select(search, lambda runs: [leave(run, (40, 0.5, 0.1), metric="mse") for run in runs])
    (run,) = runs_of_chosen(search, results)
    row = Row(**ROW | {"spec_digest": run.experiment.digest, "selected_of": 3})
    run.directory.result.write_text(json.dumps(row.as_json()))
    told = metarun("submit", "tiny.yaml", "-s", RATES, "--select")
    assert (
        told.splitlines()[-1] == "nothing to submit: the choice is in runs/tiny/selection.csv, see `metarun table runs`"
    )


def test_what_failed_in_the_last_job_is_tried_again(here, monkeypatch):
    """Reject a last job that gives up at once: by the restarts of an earlier one, or since all that went on failed."""
    feigned = FeignedSlurm(here / "bin", monkeypatch)
    search = search_of(["tiny.yaml"], [RATES, "validation.every=5"], [], Path("runs"), halve=True)
    for run in search.runs_until(search.stops[0], search.configurations):
        leave(run, (5, 0.5, 0.1), metric="mse")
    runs = search.runs_until(None, search.configurations)
    for run in runs[:2]:
        fail(run, "the loss is nan")
        run.directory.restarts.write_text(json.dumps({"step": 20, "tested": 0, "restarts": 6}))
    with pytest.raises(RunError, match="all 2 configurations that went on failed"):
        select(search, lambda runs: None)
    command = ("submit", "tiny.yaml", "-s", RATES, "-s", "validation.every=5", "--select", "--halving")
    feigned.refuse("sbatch: error: no such partition")
    metarun(*command, raises=RunError)
    assert [run.directory.failure.read_text() for run in runs[:2]] == ["the loss is nan\n"] * 2  # as it was
    feigned.accept()
    assert "submitted those that go on as job 100, then the choice, its training and its test as job" in metarun(
        *command
    )
    assert not any(run.directory.failure.exists() or run.directory.restarts.exists() for run in runs)


def test_an_array_task_that_was_killed_is_told(here):
    """Reject a last job that trains it again and is killed with it; one that was stopped or never began goes on."""
    search = search_of(["tiny.yaml"], [RATES], [], Path("runs"))
    runs = search.runs_until(None, search.configurations)
    ends = ["slurmstepd: error: Detected 1 oom_kill event in StepId=100_0.0.", "runs/x: stopped by SIGUSR2"]
    for run, end in zip(runs, ends, strict=False):
        run.write_spec()
        run.directory.log.write_text(f"runs/x: started as process 5 on here\n{end}\n")
    note_killed(runs)
    assert [run.directory.failure.exists() for run in runs] == [True, False, False]
    for run, step in zip(runs[1:], (20, 5), strict=True):  # a stage began with the one, an earlier job ended the other
        run.directory.path.mkdir(parents=True, exist_ok=True)
        run.directory.restarts.write_text(json.dumps({"step": step, "tested": 0, "restarts": 0}))
        run.directory.log.write_text("runs/x: started as process 5 on here\nstep 20\n")
    with runs[1].directory.locked():
        note_killed(runs, 20)
    assert not runs[1].directory.failure.exists()  # rejected: a failure of a run that trains
    note_killed(runs, 20)
    assert [run.directory.failure.exists() for run in runs] == [True, True, False]
    runs[1].directory.failure.unlink()
    with pytest.raises(
        RunError, match="0.01/seed-0: its job ended without .* oom_kill .*; nothing is chosen meanwhile"
    ):
        select(search, lambda runs: [leave(run, (40, 0.5, 0.1), metric="mse") for run in runs[1:]])


def test_a_process_that_was_killed_is_told(here, monkeypatch):
    """Reject `the same command goes on`, where it would be killed each time; --executor local trains the others."""
    monkeypatch.setattr(local, "_work", die)
    command = ("submit", "tiny.yaml", "-s", RATES, "--select", "--executor", "local", "--max-parallel", "1")
    told = metarun(*command, raises=RunError)
    killed = "runs/tiny-inner_lr-0.01/seed-0: its process was ended by a signal (Aborted); nothing is chosen meanwhile"
    assert told.startswith(killed)
    memory = RunDirectory(Path("runs/tiny-inner_lr-0.02/seed-0")).failure.read_text()
    assert memory == "its process was ended by a signal (Killed), as where the memory does not suffice\n"
    monkeypatch.setattr(local, "_work", int)  # which does not train either
    assert "0.01/seed-0: its process was stopped or killed before step 40; nothing" in metarun(
        *command, raises=RunError
    )


@pytest.mark.slow
def test_a_search_of_this_machine(here):
    """Train two configurations and one that fails as processes; the chosen one is continued in its folder."""
    search = ("tiny.yaml", "-s", "algorithm.inner_lr=0.01,0.02,1e30", "--select", "--seeds", "0-1")
    told = slurm_jobs.metarun(here, "submit", *search, "--executor", "local", "--max-parallel", 2)
    assert "1e30/seed-0: the loss is" in told and "it counts as the worst" in told and "chosen of 3: algorithm" in told
    with open("runs/tiny/selection.csv", newline="") as file:
        (chosen,) = [line["configuration"] for line in csv.DictReader(file) if line["chosen"]]
    assert {Path(path).parts[-3:-1] for path in files_of_tests(Path("runs"))} == {
        (chosen, "seed-0"),
        (chosen, "seed-1"),
    }
    with open("runs/results.csv", newline="") as file:
        assert [(row["experiment"], row["selected_of"]) for row in csv.DictReader(file)] == [(chosen, "3")] * 2
    states = slurm_jobs.metarun(here, "status", "runs")
    assert "4 runs: 2 finished, 1 validated, 1 failed" in states and "not tested" in states
    again = slurm_jobs.metarun(here, "submit", *search, "--executor", "local")
    assert "nothing to submit: 2 finished" in again


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_a_search_on_slurm(folder):
    """Let the last job choose, train the further seed and test, after arrays of two and one."""
    command = ("submit", "tiny.yaml", "-s", "algorithm.inner_lr=0.01,0.02,1e30", "--select", "--seeds", "0-1")
    assert "submitted 3 configurations as job " in slurm_jobs.metarun(folder, *command)
    wait_for(lambda: not queue())
    lines = slurm_jobs.metarun(folder, "status", "runs").splitlines()
    assert lines[-2] == "4 runs: 2 finished, 1 validated, 1 failed" and lines[-1].startswith("choice of tiny: written")
    with open(folder / "runs/results.csv", newline="") as file:
        assert [row["selected_of"] for row in csv.DictReader(file)] == ["3", "3"]
    assert "nothing to submit: the choice is in runs/tiny/selection.csv" in slurm_jobs.metarun(folder, *command)


@pytest.mark.slow
@pytest.mark.usefixtures("slurm")
def test_halving_on_slurm_ends_as_on_one_machine(folder):
    """Compare the choice and every validation with those of `train`; the second stage is two jobs of its own."""
    rates = "algorithm.inner_lr=0.01,0.02,0.03"
    command = ("tiny.yaml", "-s", rates, "-s", "validation.every=5", "--select", "--halving")
    assert "then those that go on as job " in slurm_jobs.metarun(folder, "submit", *command)
    wait_for(lambda: not queue())
    slurm_jobs.metarun(folder, "train", *command, "--out", "alone")
    places = [
        Path("tiny/selection.csv"),
        *(f"{name.parent.name}/seed-0/metrics.csv" for name in (folder / "runs").glob("tiny-*/seed-0")),
    ]
    for path in places:
        found = [(folder / out / path).read_text() for out in ("runs", "alone")]
        one, other = ([line.split(",")[:5] for line in text.splitlines() if ",train," not in line] for text in found)
        assert one == other and len(one) > 3
    logs = sorted(log.resolve().name for log in (folder / "runs").glob("*/seed-0/*.log"))
    assert [name.split("_")[1] for name in logs[-2:]] == ["0", "1"] and logs[-1].split("_")[0] > logs[0].split("_")[0]
