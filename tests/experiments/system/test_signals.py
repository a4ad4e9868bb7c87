"""Signals stop a run between two steps, or at once where nothing is lost."""

import os
import signal
import time

import pytest

from metarun.experiments.errors import Interrupted
from metarun.experiments.system.signals import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_waits_for_the_step_and_for_nothing_else(number):
    with StopSignal() as stop, stop.held():
        os.kill(os.getpid(), number)
        assert stop.requested  # and nothing was raised
        with pytest.raises(Interrupted), stop.held(False):
            raise AssertionError("a validation begins that will be thrown away")
    with StopSignal(), pytest.raises(Interrupted, match=signal.Signals(number).name):
        os.kill(os.getpid(), number)
        time.sleep(1)
