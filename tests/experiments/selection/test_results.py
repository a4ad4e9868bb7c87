"""Tests of what a search reads of a run that failed."""

import math

import pytest

from metarun.experiments.errors import Diverged, RunError
from metarun.experiments.selection.results import diverged
from metarun.experiments.system.failures import in_one_line


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_known_by_what_a_run_keeps_of_its_failure(loss):
    """Reject another failure that speaks of a loss, and one of the machine."""
    error = Diverged("runs/a/seed-0", loss, 7, "no checkpoint was written yet")
    assert isinstance(error, RunError) and diverged(in_one_line(error))
    assert not diverged(in_one_line(RunError("runs/a/seed-0: the loss is written to a full disk")))
    assert not diverged(in_one_line(MemoryError()))
