"""One run over many workers: what those do that are not the chief."""

from __future__ import annotations

import zlib
from importlib.metadata import version

from ...algorithms.workers import Workers
from ..errors import Interrupted, RunError
from ..evaluation.measure import test_of, validation_of
from ..model import Model, build
from ..runs.run import Run
from ..system.signals import StopSignal
from .steps import TrainingSteps, validates_at


def follow(run: Run, workers: Workers) -> None:
    """Take part in the chief's `train` as another worker: the same steps and evaluations, from its checkpoint.

    Writes nothing and reads no run. Raises as `train` does.
    """
    if not workers.agree(0):
        return
    with StopSignal() as stop:
        model = build(run.experiment, run.seed, workers=workers)
        validation, experiment = validation_of(model), run.experiment
        steps = TrainingSteps(model, start_together(model))
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
        workers.spread(model.learner.variables)
        test_of(model).measure("test")


def start_together(model: Model, step: int = 0) -> int:
    """Take over the chief's variables and its `step`, and return that step.

    Raises RunError unless all workers have the same spec, seed, version and data.
    """
    workers = model.workers
    work = f"{model.experiment.digest} {model.seed} {model.source.content_digest} {version('metarun')}"
    number = zlib.crc32(work.encode())
    if workers.agree(number) != number:
        raise RunError(f"worker {workers.index} has another spec, seed, version or other data than worker 0")
    workers.spread(model.learner.variables)
    return workers.agree(step)
