"""States of runs that were trained and are at work again, or were started in another way since."""

import json
import os
from pathlib import Path

import pytest
import slurm_jobs
from rows import ROW

from metarun.datasets.errors import counted
from metarun.experiments.errors import RunError
from metarun.experiments.jobs.prepare import prepared
from metarun.experiments.jobs.status import lines, statuses
from metarun.experiments.jobs.submission import cancel, new_submission
from metarun.experiments.jobs.submit import todo
from metarun.experiments.runs.rows import Row
from metarun.experiments.runs.sweep import grid
from metarun.experiments.system import lock


@pytest.fixture(autouse=True)
def no_scheduler(tmp_path, monkeypatch):
    """Hide the scheduler, and end no process either."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("metarun.experiments.jobs.submission._end", lambda holder: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(slurm_jobs.SPEC)


def state(folder="runs"):
    """Return the state of the only run."""
    ((_, found, words),) = statuses(Path(folder))
    return found, words


def finish(run):
    run.directory.path.mkdir(parents=True, exist_ok=True)
    told = {"spec_digest": run.experiment.digest, "seed": run.seed}
    run.directory.result.write_text(json.dumps(Row(**ROW | told).as_json()))


def test_further_tests_of_a_finished_run_are_shown_and_cancelled():
    """Reject: "finished", and "no run is queued or running", while its job waits, tests or has failed."""
    (run,) = runs = grid(["tiny.yaml"], [], [0], Path("runs"))
    with prepared(runs):
        pass
    submission = new_submission(runs, Path("runs"))
    finish(run)
    assert state() == ("finished", "accuracy % 50.00 ± 1.00")
    with lock.locked(submission.lock):
        assert state()[0] == "waiting"
        with run.directory.locked():
            assert state()[0] == "running" and state()[1].startswith("a further test (process ")
        assert cancel(Path("runs")) == 1
    run.directory.failure.write_text("the images are gone\n")
    assert state() == ("finished", "accuracy % 50.00 ± 1.00; a further test failed: the images are gone")


def test_fault_31_one_run_is_no_plural():
    """Reject: "1 runs"."""
    runs = grid(["tiny.yaml"], [], [0, 1], Path("runs"))
    with prepared(runs[:1]):
        pass
    assert [*lines(statuses(Path("runs")), Path("runs"))][-1] == "1 run: 1 missing"
    with prepared(runs[1:]):
        pass
    assert [*lines(statuses(Path("runs")), Path("runs"))][-1] == "2 runs: 2 missing"
    assert counted(1, "class", "classes") == "1 class" and counted(0, "class", "classes") == "0 classes"


def test_the_log_of_an_earlier_job_says_nothing_of_a_later_start():
    """Reject: "failed", by the log of a job that was killed before the run was started by hand."""
    (run,) = runs = grid(["tiny.yaml"], [], [0], Path("runs"))
    with prepared(runs):
        pass
    new_submission(runs, Path("runs"))
    run.directory.log.write_text("slurmstepd: error: Detected 1 oom_kill event\n")
    run.directory.environment.write_text("{}")
    written = run.directory.environment.stat().st_mtime
    os.utime(run.directory.log, (written + 1, written + 1))
    assert state()[0] == "failed"
    os.utime(run.directory.log, (written - 1, written - 1))
    assert state() == ("interrupted", "before its first checkpoint")


def test_jobs_of_a_folder_behind_a_link_are_found_from_there(tmp_path):
    """Reject only the folders above the one that the link leads to."""
    (tmp_path / "scratch").mkdir()
    Path("runs").mkdir()
    Path("runs/tiny").symlink_to(tmp_path / "scratch")
    runs = grid(["tiny.yaml"], [], [0], Path("runs"))
    with prepared(runs):
        pass
    with lock.locked(new_submission(runs, Path("runs")).lock):
        assert [state(folder)[0] for folder in ("runs", "runs/tiny", "runs/tiny/seed-0")] == ["waiting"] * 3
        assert cancel(Path("runs/tiny")) == 1


def test_another_spec_is_not_taken_for_the_one_in_the_queue():
    """Reject: "nothing to submit: 1 queued or running" of a changed spec that is to be trained afresh."""
    old, new = (grid(["tiny.yaml"], [f"train.steps={steps}"], [0], Path("runs")) for steps in (40, 41))
    with prepared(old):
        pass
    with lock.locked(new_submission(old, Path("runs")).lock):
        assert [len(some) for some in todo(old, Path("runs"), fresh=True)] == [0, 1]
        with pytest.raises(RunError, match="another spec, train.steps: 40 -> 41: `metarun cancel` it first"):
            todo(new, Path("runs"), fresh=True)
    assert [len(some) for some in todo(new, Path("runs"), fresh=True)] == [1, 0]
    assert not old[0].directory.afresh.exists()
    with prepared(new, fresh=True):
        pass
    assert new[0].directory.afresh.exists()
