"""Measure how fast a spec trains, its share of the machine's rate, and how long the experiment will take."""

from __future__ import annotations

import csv
import io
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from pydantic import BaseModel, ConfigDict

from ...algorithms.classical.policy import ClassicalPolicy
from ...datasets.errors import counted
from ..config.experiment import Experiment
from ..errors import RunError
from ..evaluation.measure import test_of
from ..evaluation.tuning import trials_of
from ..model import Model, build, training_shape
from ..system.processors import cores
from ..system.provenance import device_name
from .memory import fitted
from .steps import CALL_SECONDS, TrainingSteps

CALLS = 16  # measured, of training steps
TRIALS = 100  # at most, that `estimate_hours` plays at once
MATRIX = 2048  # rows and columns of the products that measure the machine


class Benchmark(BaseModel):
    """Hold the results of a benchmark. Times are in seconds, rates in 10^9 floating-point operations per second."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    algorithm: str
    spec_digest: str
    device: str
    cores: int
    precision: str
    imports: float  # from the command to a ready TensorFlow
    data: float  # reading the dataset
    tracing: float
    compiling: float  # time of the first step minus that of a later one
    first_step: float  # all of these: from the command to the end of the first step
    steps: int  # steps measured, after the first two
    step: float  # median
    step_low: float  # first quartile
    step_high: float  # third quartile
    tasks_per_second: float
    examples_per_second: float  # images, points or steps of trials that enter the learner, each counted once
    operations: int  # per step, by formula
    rate: float  # operations / step
    float32_rate: float  # of a 2048 x 2048 matrix product, the larger of two measured before and after the steps
    bfloat16_rate: float
    fraction: float  # rate / float32_rate
    memory: int  # peak resident memory, in bytes
    evaluation: float  # seconds per test task, with features once they are stored
    evaluation_features: float  # seconds of a test before its first task: of the features that it stores, or 0
    experiment_hours: float  # estimate: all steps, validations and tests of one seed


def benchmark(experiment: Experiment, steps: int | None, imports: float) -> Benchmark:
    """Measure training steps after the first two, and a test task.

    Args:
        experiment: the experiment. Its first seed is trained.
        steps: number of steps to measure. Default: as many as `CALLS` calls take.
        imports: seconds that the command took before this call.

    Raises:
        RunError: the algorithm is not trained.
    """
    if not experiment.kind.is_trained:
        raise RunError(f"{experiment.name}: {experiment.algorithm.name} is not trained, so there is nothing to measure")
    rates_before = matrix_rate(tf.float32), matrix_rate(tf.bfloat16)
    started = time.perf_counter()
    model = build(experiment, experiment.seeds[0])
    data = time.perf_counter() - started
    training = TrainingSteps(model := fitted(model))
    started = time.perf_counter()
    training.trace()
    tracing = time.perf_counter() - started
    first, second = _timed(training.take, 1), _timed(training.take, 1)
    at_once = max(1, int(CALL_SECONDS / second))
    if steps is not None:
        at_once = max(1, min(at_once, steps // CALLS))
    times = [_timed(training.take, at_once) / at_once for _ in range(steps // at_once if steps else CALLS)]
    low, step, high = statistics.quantiles(times, n=4)
    rates_after = matrix_rate(tf.float32), matrix_rate(tf.bfloat16)
    float32_rate, bfloat16_rate = map(max, rates_before, rates_after)  # other work on the machine lowers either
    meta_batch = experiment.train.meta_batch
    operations = meta_batch * model.learner.operations(training_shape(experiment))
    each, features, evaluation = _seconds_of_test(model)
    return Benchmark(
        experiment=experiment.name,
        algorithm=experiment.algorithm.name,
        spec_digest=experiment.digest,
        device=device_name(),
        cores=cores(),
        precision=experiment.precision,
        imports=imports,
        data=data,
        tracing=tracing,
        compiling=first - step,
        first_step=imports + data + tracing + first,
        steps=at_once * len(times),
        step=step,
        step_low=low,
        step_high=high,
        tasks_per_second=meta_batch / step,
        examples_per_second=meta_batch * model.training_stream().examples / step,
        operations=operations,
        rate=operations / step / 1e9,
        float32_rate=float32_rate,
        bfloat16_rate=bfloat16_rate,
        fraction=operations / step / 1e9 / float32_rate,
        memory=peak_memory(),
        evaluation=evaluation,
        evaluation_features=features,
        experiment_hours=_training_hours(model, step, each) + _test_hours(experiment, features, evaluation),
    )


def estimate_hours(experiment: Experiment, trained: bool = False) -> tuple[float, float]:
    """Return the estimated hours of training, with its validations, and of the test, for one seed.

    Times three training steps and a few test tasks. Steps of trials are timed with at most TRIALS trials and scaled up.
    The tuning of a classical method counts as its test.

    Args:
        experiment: the experiment.
        trained: estimate the test alone, of a model that is trained already.
    """
    seed, trials = experiment.seeds[0], experiment.kind.plays_trials
    test = experiment.test.model_copy(update={"episodes": min(experiment.test.episodes, TRIALS if trials else 100)})
    size = min(experiment.train.meta_batch, TRIALS) if trials else experiment.train.meta_batch
    train = experiment.train.model_copy(update={"meta_batch": size})
    small = experiment.model_copy(update={"train": train, "test": test})
    model = build(small, seed, "test" if trained else None)
    learner = model.learner
    if isinstance(learner, ClassicalPolicy) and learner.grid:
        learner.chosen = learner.grid[0]
    each, features, evaluation = _seconds_of_test(model)
    test = _test_hours(experiment, features, evaluation)
    if isinstance(learner, ClassicalPolicy):
        tuning = trials_of(experiment)[1] * len(learner.grid or ())
        return 0.0, test + tuning * evaluation / 3600
    if trained or not experiment.kind.is_trained:
        return 0.0, test
    training = TrainingSteps(model)
    training.take(1)
    step = min(_timed(training.take, 1) for _ in range(2)) * experiment.train.meta_batch / size
    return _training_hours(model._replace(experiment=experiment), step, each), test


def _seconds_of_test(model: Model) -> tuple[float, float, float]:
    """Return the seconds of a test task from its images, those of features stored first, and of a task after these."""
    test = test_of(model)
    each = test.seconds_per_episode()
    return each, *(test.seconds_when_ready(model.training_source) or (0.0, each))


def _test_hours(experiment: Experiment, features: float, each: float) -> float:
    return (features + experiment.test.episodes * each) / 3600


def _training_hours(model: Model, step: float, evaluation: float) -> float:
    """Return the hours of training with validations, from the seconds per step and per task of images."""
    experiment = model.experiment
    total = experiment.train.steps * step
    if section := experiment.validation:
        shape_ratio = model.validation_stream().examples / model.test_stream().examples
        validations = -(-experiment.train.steps // section.every)
        total += validations * section.episodes * evaluation * shape_ratio
    return total / 3600


def matrix_rate(dtype: tf.DType) -> float:
    """Return the rate of products of two 2048 x 2048 matrices, in 10^9 operations per second: the best of eight."""
    a = tf.cast(tf.random.stateless_uniform((MATRIX, MATRIX), (0, 0)), dtype)
    product = tf.function(lambda a: tf.reduce_sum(tf.cast(tf.matmul(a, a), tf.float32)))
    product(a)
    return 2 * MATRIX**3 / min(_timed(lambda: product(a).numpy()) for _ in range(8)) / 1e9


def peak_memory() -> int:
    """Return the peak resident memory of the process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return peak if sys.platform == "darwin" else peak * 1024


def render(result: Benchmark, form: str) -> str:
    """Return the results as text, or in the form "json" or "csv" (with a header)."""
    values = result.model_dump()
    if form == "json":
        return json.dumps(values, indent=2)
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, values, lineterminator="\n")
        writer.writeheader()
        writer.writerow(values)
        return text.getvalue().rstrip("\n")
    features = result.evaluation_features
    after = f", after {features:.1f} s for the features of all test images" if features else ""
    lines = {
        "experiment": f"{result.experiment} ({result.precision}, {result.device}, {counted(result.cores, 'core')})",
        "first step after": f"{result.first_step:.1f} s: imports {result.imports:.1f}, data {result.data:.1f}, "
        f"tracing {result.tracing:.1f}, compiling {result.compiling:.1f}, the step {result.step:.3f}",
        "one step": f"{result.step:.4f} s (quartiles {result.step_low:.4f} to {result.step_high:.4f}, "
        f"{counted(result.steps, 'step')})",
        "throughput": f"{result.tasks_per_second:.1f} tasks/s, {result.examples_per_second:.0f} examples/s",
        "operations": f"{result.operations / 1e9:.2f} x 10^9 per step, {result.rate:.0f} GFLOP/s",
        "of the machine": f"{result.fraction:.0%} of the {result.float32_rate:.0f} GFLOP/s of a float32 matrix product "
        f"(bfloat16: {result.bfloat16_rate:.0f})",
        "memory": f"{result.memory / 2**20:.0f} MiB at the peak",
        "test": f"{result.evaluation * 1000:.2f} ms per task" + after,
        "whole experiment": f"about {_duration(result.experiment_hours * 3600)} per seed",
    }
    return "\n".join(f"{name:<18}{text}" for name, text in lines.items())


def _timed(function: Callable[..., Any], *arguments: int) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.1f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
