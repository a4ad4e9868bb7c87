"""One run over many workers: what those do that are not the chief."""

from __future__ import annotations

import zlib
from importlib.metadata import version

from ...algorithms.learner import Learner
from ...algorithms.workers import Workers
from ..config.experiment import Experiment
from ..errors import Interrupted, RunError
from ..evaluation.measure import test_of, validation_of
from ..model import Source, build
from ..runs.run import Run
from ..system.signals import StopSignal
from .steps import TrainingSteps, validates_at


def follow(run: Run, workers: Workers) -> None:
    """Take part in the chief's `train` as another worker: the same steps and evaluations, from its checkpoint.

    Writes nothing and reads no run. Raises as `train` does.
    """
    if not workers.agree(0):
        return
    experiment, seed = run.experiment, run.seed
    with StopSignal() as stop:
        source, learner = build(experiment, seed)
        validation = validation_of(experiment, learner, source, workers)
        first = start_together(experiment, seed, source, learner, workers)
        steps = TrainingSteps(experiment, seed, source, learner, first, workers)
        with stop.held():
            while steps.number < experiment.train.steps:
                count = workers.agree(0, stop.requested)
                if not count:
                    raise Interrupted(f"stopped after step {steps.number}")
                steps.take(count)
                if validation and validates_at(steps.number, experiment):
                    validation.measure("validation")
        if not workers.agree(0, stop.requested):
            raise Interrupted("stopped before the test")
        workers.spread(learner.variables)
        test_of(experiment, learner, source, workers).measure("test")


def start_together(
    experiment: Experiment, seed: int, source: Source, learner: Learner, workers: Workers, step: int = 0
) -> int:
    """Take over the chief's variables and its `step`, which is returned; RunError unless all do the same work."""
    work = zlib.crc32(f"{experiment.digest} {seed} {source.content_digest} {version('metarun')}".encode())
    if workers.agree(work) != work:
        raise RunError(f"worker {workers.index} has another spec, seed, version or other data than worker 0")
    workers.spread(learner.variables)
    return workers.agree(step)
