"""Fixtures of the tests of trainings."""

import pytest

from metarun.experiments.errors import Interrupted, RunError
from metarun.experiments.training import loop
from metarun.experiments.training.train import train


@pytest.fixture
def stop_in_the_test(monkeypatch):
    """Return a function that trains a run to its last step and raises an error in the test."""

    def stop(run, error=None):
        def raises(*_, **__):
            raise error or Interrupted("stopped")

        with monkeypatch.context() as patch, pytest.raises((Interrupted, RunError)) as told:
            patch.setattr(loop, "record", raises)
            train(run)
        assert run.directory.step == run.experiment.train.steps and not run.directory.finished
        return str(told.value)

    return stop
