"""A job's work beside its run."""

import multiprocessing

import pytest
from sines import SPEC

from metarun.datasets.errors import DataError
from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.jobs import job, local
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run


def test_a_test_that_fails_keeps_no_other_one(tmp_path, monkeypatch):
    """Reject cells after the failing one that stay empty at each submission. A model fills several cells."""
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.setenv(name, "1")
    (tmp_path / "sines.yaml").write_text(SPEC)
    directory, tested = RunDirectory(tmp_path / "sines" / "seed-0"), []
    Run(load(tmp_path / "sines.yaml").experiment, 0, directory).write_spec()

    def evaluate(run, split, changes):
        tested.append(changes)
        if changes == {"shot": 10}:
            raise RunError("it is broken")

    monkeypatch.setattr("metarun.experiments.training.train.train", lambda *_, **__: None)
    monkeypatch.setattr("metarun.experiments.evaluation.retest.evaluate", evaluate)
    changes = [{"shot": 5}, {"shot": 10}, {"shot": 15}]
    with pytest.raises(RunError, match="it is broken"):
        job.work(str(directory.path), changes, 1)
    assert tested == changes and directory.failure.read_text() == "it is broken\n"


def test_fault_31_the_log_of_a_failed_run_is_its_plain_error(tmp_path):
    """Reject a page of multiprocessing's traceback below it."""
    directory = RunDirectory(tmp_path / "sines" / "seed-0")
    directory.path.mkdir(parents=True)
    directory.spec.write_text(SPEC.replace("name: sinusoid", "name: sinussoid"))
    process = multiprocessing.get_context("spawn").Process(target=local._work, args=(str(directory.path), [], 1, None))
    process.start()
    process.join(300)
    started, *said = directory.log.read_text().splitlines()
    assert ": started as process " in started and process.exitcode == 2
    assert len(said) == 1 and "unknown dataset 'sinussoid'" in said[0]
    assert directory.failure.read_text() == f"{said[0]}\n"


def test_fault_31_only_errors_that_a_user_can_mend_are_plain(capsys):
    """Reject a log without the place of an error of this package."""

    def refused():
        raise DataError("there are no images")

    def broken():
        raise ZeroDivisionError("by zero")

    with pytest.raises(SystemExit) as ended:
        job.plainly(refused)
    assert ended.value.code == 1 and capsys.readouterr().err == "error: there are no images\n"
    with pytest.raises(ZeroDivisionError):
        job.plainly(broken)
