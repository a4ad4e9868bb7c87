"""Train one run with several workers: the part of those that are not the chief."""

from __future__ import annotations

import zlib
from importlib.metadata import version

from ...algorithms.workers import Workers
from ..errors import Interrupted, RunError
from ..evaluation.measure import test_of, validation_of
from ..evaluation.repeatable import refuse_unrepeatable
from ..model import Model, build
from ..runs.run import Run
from ..system.signals import StopSignal
from .memory import fitted
from .steps import TrainingSteps, validates_at


def follow(run: Run, workers: Workers) -> None:
    """Take part in the chief's `train` as another worker: the same steps and evaluations, from its checkpoint.

    Writes no file and reads no file of the run. Raises the same errors as `train`.

    Args:
        run: the run that the chief trains.
        workers: the processes that share the training, of which this one is not the first.
    """
    if not workers.agree(0):
        return
    with StopSignal() as stop:
        model = build(run.experiment, run.seed, workers=workers)
        refuse_unrepeatable(model)
        model = fitted(model)
        validation, experiment = validation_of(model), run.experiment
        steps = TrainingSteps(model, start_together(model))
        end = workers.agree(0)
        with stop.held():
            while steps.number < end:
                count = workers.agree(0, stop.requested)
                if not count:
                    raise Interrupted(f"stopped after step {steps.number}")
                steps.take(count)
                if validation and validates_at(steps.number, experiment):
                    spread_mean(model)
                    validation.measure("validation")
                    end = workers.agree(0)
        if not workers.agree(0, stop.requested):
            raise Interrupted("stopped before the test")
        workers.spread(model.learner.variables)
        test_of(model).ready(model.training_source).measure("test")


def start_together(model: Model, step: int = 0) -> int:
    """Copy the chief's variables and step to every worker, and return that step.

    Args:
        model: the model that is trained.
        step: the chief's step. The values of other workers are ignored.

    Raises:
        RunError: the workers do not all have the same spec, seed, version and data.
    """
    workers = model.workers
    work = f"{model.experiment.digest} {model.seed} {model.content_digest} {version('metarun')}"
    work += model.experiment.plugins
    number = zlib.crc32(work.encode())
    if workers.agree(number) != number:
        raise RunError(f"worker {workers.index} has another spec, seed, version or other data than worker 0")
    workers.spread(model.learner.variables)
    return workers.agree(step)


def spread_mean(model: Model) -> None:
    """Copy to every worker the chief's mean feature of the training images, which a learner may have for its tests."""
    if (mean := getattr(model.learner, "mean", None)) is not None:
        model.workers.spread([mean])
