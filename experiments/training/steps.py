"""Compile the training steps of an experiment, and feed them with tasks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ...algorithms.learner import Metrics, TrainedLearner
from ...algorithms.networks.options import MLPOptions
from ...algorithms.programs import program, untouched
from ...algorithms.workers import Share
from ...datasets.tasks import task_number
from ..config.experiment import Experiment
from ..errors import RunError
from ..model import Model, Tasks
from ..system import signals

MOST_STEPS = 1024  # of one call of the program of many updates
CALL_SECONDS = 0.5  # of training steps in one call; progress and requests to stop are checked between calls


class TrainingSteps:
    """Make compiled meta-updates of a model, starting at step `first`.

    One update (sample, gradient, apply) is one traced program. If the data fit in memory, a loop over many updates is
    traced too, which avoids Python overhead. For a fully connected network XLA compiles the loop as a whole, so that no
    operation is started by itself. Each worker samples its own tasks; trials are sampled by every worker and divided
    later.
    """

    def __init__(self, model: Model, first: int = 0):
        """Prepare the steps; nothing is traced yet.

        Args:
            model: the model to train.
            first: number of the first step.

        Raises:
            RunError: several workers train a learner that cannot share its work.
        """
        self.source, workers = model.source, model.workers
        self.learner: TrainedLearner = model.learner
        self.stream, self.batch, self.number = model.training_stream(), model.experiment.train.meta_batch, first
        self.share, self.tasks = Share.of(self.batch, workers)
        if not self.stream.drawn_in_parts:
            self.share, self.tasks = Share(workers), self.batch
        if workers.count > 1 and "share" not in inspect.signature(self.learner.train_step).parameters:
            raise RunError(f"{model.experiment.algorithm.name} can be trained by one worker only: start it alone")
        self.update = program(self._update)
        self.in_one_program = _is_short(model)
        self._loop = program(self._updates, jit_compile=self.in_one_program)
        self._drawn: Iterator[Tasks] | None = None

    def take(self, count: int) -> dict[str, np.ndarray]:
        """Run the next `count` meta-updates, and return the values of each metric, `[count]`.

        The metrics are those of the learner, and the learning rate that each update was made with.

        Raises Interrupted if a signal came before, unless signals are held.
        """
        signals.check()
        if self.source.in_memory:
            metrics = self._many(count)
        else:
            each = [self.update(self._next_task()) for _ in range(count)]
            metrics = {name: tf.stack([one[name] for one in each]) for name in self.names()}
        self.number += count
        return {name: values.numpy() for name, values in metrics.items()}

    def names(self) -> list[str]:
        """Return the names of the metrics, without running a step."""
        return list(self.traced_update().structured_outputs)

    def trace(self) -> None:
        """Trace the program that `take` runs, without running a step."""
        if self.source.in_memory:
            self._loop.get_concrete_function(task_number(0), tf.constant(0))
        else:
            self.traced_update()

    def traced_update(self) -> Any:
        """Return one meta-update as a concrete function."""
        example = task_number(0) if self.source.in_memory else self._episodes().element_spec
        return self.update.get_concrete_function(example)

    def _many(self, count: int) -> Metrics:
        """Run `count` updates, and return the values of each metric, `[count]`."""
        parts = []
        for done in range(0, count, MOST_STEPS):
            now = min(MOST_STEPS, count - done)
            metrics = self._loop(task_number(self.number + done), tf.constant(now))
            parts.append({name: values[:now] for name, values in metrics.items()})
        return {name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]}

    def _updates(self, first: tf.Tensor, count: tf.Tensor) -> Metrics:
        """Run `count` updates from number `first` on, and return each metric, `[MOST_STEPS]`, of which `count` count.

        The count is an input of one program, so that the bits of an update do not depend on how many are made at once.
        """
        metrics = self.traced_update().structured_outputs
        arrays = {name: tf.TensorArray(one.dtype, MOST_STEPS, element_shape=one.shape) for name, one in metrics.items()}

        def step(done: tf.Tensor, arrays: dict[str, tf.TensorArray]):
            values = self.update(first + tf.cast(done, first.dtype))
            return done + 1, {name: array.write(done, values[name]) for name, array in arrays.items()}

        _, arrays = tf.while_loop(lambda done, _: done < count, step, (0, arrays), parallel_iterations=1)
        return {name: array.stack() for name, array in arrays.items()}

    def _update(self, task: Any) -> Metrics:
        tasks = self._sample(task) if self.source.in_memory else task
        rate = tf.convert_to_tensor(self.learner.optimizer.learning_rate)  # of this step: the update moves it on
        alone = self.share.workers.count == 1
        metrics = self.learner.train_step(tasks) if alone else self.learner.train_step(tasks, share=self.share)
        return metrics | {"learning_rate": rate}

    def _next_task(self) -> Tasks:
        if self._drawn is None:
            self._drawn = iter(self._episodes().prefetch(2))
        return next(self._drawn)

    def _episodes(self) -> tf.data.Dataset:
        numbers = tf.data.Dataset.range(self.number, tf.int64.max)
        return numbers.map(untouched(self._sample), num_parallel_calls=2, deterministic=True)

    def _sample(self, number: tf.Tensor) -> Tasks:
        return self._sample_once(number) if self.in_one_program else self._plain_sample(number)

    def _plain_sample(self, number: tf.Tensor) -> Tasks:
        return self.stream.sample(number * self.batch + self.share.before, self.tasks)

    def _sample_once(self, number: tf.Tensor) -> Tasks:
        """Draw the tasks of an update in a loop of one step.

        XLA merges what it can with the operations that follow, and would draw all numbers of a task again in each of
        these. It does not look into a loop whose length it cannot know.
        """
        sample = program(self._plain_sample)
        like = sample.get_concrete_function(tf.TensorSpec((), number.dtype)).structured_outputs
        nothing = tf.nest.map_structure(lambda one: tf.zeros(one.shape, one.dtype), like)
        one = tf.cast(number >= 0, tf.int32)  # 1, which the compiler does not know
        return tf.while_loop(lambda done, _: done < one, lambda done, _: (done + 1, sample(number)), (0, nothing))[1]


def _is_short(model: Model) -> bool:
    """Return whether updates are so short that starting their operations one by one takes longer than they do.

    The answer depends on the spec alone, so that a resumed run computes the same bits.
    """
    experiment, source = model.experiment, model.source
    fully_connected = isinstance(experiment.network, MLPOptions) and not experiment.kind.plays_trials
    return experiment.compiles and fully_connected and source.in_memory and model.workers.count == 1


def validates_at(step: int, experiment: Experiment) -> bool:
    """Return whether a validation follows this step."""
    every = experiment.validation.every if experiment.validation else 0
    return step % every == 0 or step == experiment.train.steps
