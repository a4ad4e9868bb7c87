"""A job's work beside its run."""

import pytest
from sines import SPEC

from metarun.experiments.config.load import load
from metarun.experiments.errors import RunError
from metarun.experiments.jobs import job
from metarun.experiments.runs.directory import RunDirectory
from metarun.experiments.runs.run import Run


def test_a_test_that_fails_keeps_no_other_one(tmp_path, monkeypatch):
    """A model fills several cells. Rejected: cells after the failing one stay empty at each submission."""
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
