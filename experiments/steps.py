"""The compiled training step of an experiment, and what it is fed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .. import algorithms
from ..algorithms.learner import Learner, Metrics
from ..datasets.tasks import Episode, Shape, TaskSource
from .spec import Experiment, Test, Train, Validation


class TrainingSteps:
    """`step(task)` is one meta-update: sampling, gradient and update in one program, traced once."""

    def __init__(self, experiment: Experiment, seed: int, source: TaskSource, learner: Learner):
        self.seed, self.source, self.learner = seed, source, learner
        self.batch, self.shape = experiment.train.meta_batch, training_shape(experiment)
        self.step = tf.function(self._step)

    def tasks(self, first: int, last: int) -> Iterator[Any]:
        """What each of the steps `first` .. `last - 1` takes: its number where data sit on the device, else tasks."""
        if self.source.in_memory:
            return (tf.constant(number, tf.int64) for number in range(first, last))
        stream = tf.data.Dataset.range(first, last)
        return iter(stream.map(self._sample, num_parallel_calls=2, deterministic=True).prefetch(2))

    def _step(self, task: Any) -> Metrics:
        return self.learner.train_step(self._sample(task) if self.source.in_memory else task)

    def _sample(self, number: tf.Tensor) -> Episode:
        return self.source.sample("train", number * self.batch, self.batch, self.shape, self.seed)


def shape_of(section: Train | Test) -> Shape:
    """Way, shot and query of a section."""
    return Shape(section.way, section.shot, section.query)


def training_shape(experiment: Experiment) -> Shape:
    """As the train section says; no queries for a learner that has no use for them."""
    shape = shape_of(experiment.train)
    return shape if algorithms.ALGORITHMS[experiment.algorithm.name].trains_on_queries else shape._replace(query=0)


def validation_shape(experiment: Experiment) -> Shape:
    """As the test's where the validation section says nothing else."""
    section, test = experiment.validation or Validation(), experiment.test
    return Shape(section.way or test.way, section.shot or test.shot, section.query or test.query)
