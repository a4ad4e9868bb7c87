"""The compiled training steps of an experiment, and what they are fed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ...algorithms.learner import Learner, Metrics
from ...algorithms.programs import program, untouched
from ...algorithms.workers import ALONE, Share, Workers
from ...datasets.trials import TrialSource
from ..config.experiment import Experiment
from ..errors import RunError
from ..model import Source, Tasks, draw, training_shape

CALL_SECONDS = 0.5  # of training steps in one call, after which progress and a request to stop are seen


class TrainingSteps:
    """Meta-updates from number `first` on. One is sampling, gradient and update in one program, traced once; where the
    data sit on the device, so is a loop over many, which spares Python's part of each. Of many workers each samples its
    own tasks; of trials, which are nothing before they are played, all.

    RunError for a learner of another package that knows nothing of workers.
    """

    def __init__(
        self,
        experiment: Experiment,
        seed: int,
        source: Source,
        learner: Learner,
        first: int = 0,
        workers: Workers = ALONE,
    ):
        self.seed, self.source, self.learner = seed, source, learner
        self.batch, self.shape = experiment.train.meta_batch, training_shape(experiment)
        self.number = first
        self.share, self.tasks = Share.of(self.batch, workers)
        if isinstance(source, TrialSource):
            self.share, self.tasks = Share(workers), self.batch
        if workers.count > 1 and "share" not in inspect.signature(learner.train_step).parameters:
            raise RunError(f"{experiment.algorithm.name} can be trained with one worker only: start it alone")
        self.update = program(self._update)
        self._loop = program(self._many)
        self._stream: Iterator[Tasks] | None = None

    def take(self, count: int) -> dict[str, np.ndarray]:
        """The next `count` meta-updates; the value of each metric in each of them, `[count]`."""
        if self.source.in_memory:
            metrics = self._loop(_int64(self.number), _int64(self.number + count))
        else:
            each = [self.update(self._next_task()) for _ in range(count)]
            metrics = {name: tf.stack([one[name] for one in each]) for name in self.names()}
        self.number += count
        return {name: values.numpy() for name, values in metrics.items()}

    def names(self) -> list[str]:
        """Names of the metrics, without a step."""
        return list(self.traced_update().structured_outputs)

    def trace(self) -> None:
        """Trace what `take` runs, without a step."""
        if self.source.in_memory:
            self._loop.get_concrete_function(_int64(0), _int64(0))
        else:
            self.traced_update()

    def traced_update(self) -> Any:
        """One meta-update as a concrete function."""
        return self.update.get_concrete_function(_int64(0) if self.source.in_memory else self._episodes().element_spec)

    def _many(self, first: tf.Tensor, last: tf.Tensor) -> Metrics:
        metrics = self.traced_update().structured_outputs
        count = tf.cast(last - first, tf.int32)
        arrays = {name: tf.TensorArray(one.dtype, count, element_shape=one.shape) for name, one in metrics.items()}

        def step(number: tf.Tensor, arrays: dict[str, tf.TensorArray]):
            told, place = self.update(number), tf.cast(number - first, tf.int32)
            return number + 1, {name: array.write(place, told[name]) for name, array in arrays.items()}

        _, arrays = tf.while_loop(lambda number, _: number < last, step, (first, arrays), parallel_iterations=1)
        return {name: array.stack() for name, array in arrays.items()}

    def _update(self, task: Any) -> Metrics:
        tasks = self._sample(task) if self.source.in_memory else task
        if self.share.workers.count == 1:
            return self.learner.train_step(tasks)
        return self.learner.train_step(tasks, share=self.share)

    def _next_task(self) -> Tasks:
        if self._stream is None:
            self._stream = iter(self._episodes().prefetch(2))
        return next(self._stream)

    def _episodes(self) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(self.number, tf.int64.max)
        return numbers.map(untouched(self._sample), num_parallel_calls=2, deterministic=True)

    def _sample(self, number: tf.Tensor) -> Tasks:
        first = number * self.batch + self.share.before
        return draw(self.source, "train", first, self.tasks, self.shape, self.seed)


def _int64(number: int) -> tf.Tensor:
    return tf.constant(number, tf.int64)


def validates_at(step: int, experiment: Experiment) -> bool:
    """Whether a validation follows this step."""
    every = experiment.validation.every if experiment.validation else 0
    return step % every == 0 or step == experiment.train.steps
