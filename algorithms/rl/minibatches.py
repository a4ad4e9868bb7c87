"""Mini-batches of whole trials, processed one after the other in a loop of the compiled program to keep the graph
small.

`[N, T, ...]` is cut into `[M, N, B, ...]`: M mini-batches of B trials in their order, or `shuffled`. The last one is
padded with trials of zeros whose weight is 0, so that no trial is dropped and none counts twice. Several workers divide
each mini-batch: each has M mini-batches too, and B counts its own trials only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ...datasets.random import TaskKeys
from ..workers import ALONE, Workers


class Minibatches(NamedTuple):
    """Hold the division of the `tasks` trials of all workers into mini-batches of `size` trials."""

    tasks: int
    size: int
    workers: Workers = ALONE

    @property
    def rows(self) -> list[int]:
        """Return the trials of this worker: every `count`th one of each mini-batch."""
        index, count = self.workers.index, self.workers.count
        return [number for number in range(self.tasks) if number % self.size % count == index]

    def trials(self, dtype: tf.DType) -> tf.Tensor:
        """Return the number of trials of all workers in each mini-batch, `[M]`."""
        starts = range(0, self.tasks, self.size)
        return tf.constant([min(self.size, self.tasks - first) for first in starts], dtype)

    def cut(self, x: tf.Tensor) -> tf.Tensor:
        """Cut `[N, T, ...]`, where T counts `rows`, into `[M, N, B, ...]`."""
        steps, tasks, *rest = x.shape
        size = len(range(self.workers.index, min(self.size, self.tasks), self.workers.count))
        count = -(-self.tasks // self.size)
        padded = tf.pad(x, [(0, 0), (0, count * size - tasks)] + [(0, 0)] * len(rest))
        parts = tf.reshape(padded, (steps, count, size, *rest))
        return tf.transpose(parts, (1, 0, *range(2, 3 + len(rest))))

    def weights(self, dtype: tf.DType) -> tf.Tensor:
        """Return `[M, B]`: 1 for a trial, 0 for padding."""
        return self.cut(tf.ones((1, len(self.rows)), dtype))[:, 0]


def order_of(keys: tf.Tensor, weight: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    """Return order `number` of the trials of one worker, padding last, int32 `[M x B]`.

    Args:
        keys: The keys of the trials, uint32 `[M, 1, B, 2]`. They and `number` decide the order, and nothing else.
        weight: `[M, B]`, 1 for a trial and 0 for padding.
        number: The number of the order.
    """
    words = tf.reshape(keys, (-1, 2))
    drawn = tf.cast(TaskKeys((words[:, 0], words[:, 1])).numbered(number).bits("trial-order"), tf.int64)
    return tf.argsort(tf.where(tf.reshape(weight, [-1]) > 0, drawn, 2**32), stable=True)


def shuffled(x: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """Return mini-batches `[M, N, B, ...]` of the same trials in an `order`, see `order_of`."""
    count, steps, size, *rest = x.shape
    trials = tf.reshape(tf.transpose(x, (0, 2, 1, *range(3, x.shape.rank))), (count * size, steps, *rest))
    parts = tf.reshape(tf.gather(trials, order), (count, size, steps, *rest))
    return tf.transpose(parts, (0, 2, 1, *range(3, x.shape.rank)))


def weighted_mean(x: tf.Tensor, weight: tf.Tensor, trials: tf.Tensor) -> tf.Tensor:
    """Return this worker's part of the mean over steps and trials; with one worker, the mean.

    Args:
        x: `[..., N, B]`.
        weight: `[..., B]`, 1 for a trial and 0 for padding.
        trials: The numbers of trials of all workers; their sum divides.
    """
    steps = tf.cast(x.shape[-2], x.dtype)
    return tf.reduce_sum(x * weight[..., None, :]) / (steps * tf.reduce_sum(trials))


def mean_of_each(function: Callable[[Any], tf.Tensor], minibatches: Any, trials: tf.Tensor, results: int) -> tf.Tensor:
    """Return the mean over trials of `function(minibatch)`, called strictly in order.

    Args:
        function: Maps a mini-batch to a tensor `[results]`; it may change variables.
        minibatches: A structure of tensors `[M, ...]`.
        trials: The number of trials of each mini-batch, `[M]`.
        results: The length of the function's result.
    """
    count = trials.shape[0]

    def body(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        result = function(tf.nest.map_structure(lambda part: part[number], minibatches))
        return number + 1, total + result * trials[number]

    _, total = tf.while_loop(
        lambda number, _: number < count,
        body,
        (0, tf.zeros(results, trials.dtype)),
        parallel_iterations=1,
        maximum_iterations=count,
    )
    return total / tf.reduce_sum(trials)
