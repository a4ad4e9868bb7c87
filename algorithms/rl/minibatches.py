"""Mini-batches of whole trials, one after the other in a loop of the compiled program, so that the graph stays small.

`[N, T, ...]` is cut into `[M, N, B, ...]`: M mini-batches of B trials in fixed order. The last one is filled up with
trials of zeros whose weight is 0, so that no trial is dropped and none counts twice. Many workers share out each
mini-batch: what they cut has M too, and in B their own trials alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from ..workers import ALONE, Workers


class Minibatches(NamedTuple):
    """How the `tasks` trials of all workers are cut into mini-batches of `size`."""

    tasks: int
    size: int
    workers: Workers = ALONE

    @property
    def rows(self) -> list[int]:
        """The trials of this worker: of each mini-batch every `count`th one."""
        index, count = self.workers.index, self.workers.count
        return [number for number in range(self.tasks) if number % self.size % count == index]

    def trials(self, dtype: tf.DType) -> tf.Tensor:
        """`[M]`: in each mini-batch, those of all workers together."""
        starts = range(0, self.tasks, self.size)
        return tf.constant([min(self.size, self.tasks - first) for first in starts], dtype)

    def cut(self, x: tf.Tensor) -> tf.Tensor:
        """`[N, T, ...]`, T the rows -> `[M, N, B, ...]`."""
        steps, tasks, *rest = x.shape
        size = len(range(self.workers.index, min(self.size, self.tasks), self.workers.count))
        count = -(-self.tasks // self.size)
        padded = tf.pad(x, [(0, 0), (0, count * size - tasks)] + [(0, 0)] * len(rest))
        parts = tf.reshape(padded, (steps, count, size, *rest))
        return tf.transpose(parts, (1, 0, *range(2, 3 + len(rest))))

    def weights(self, dtype: tf.DType) -> tf.Tensor:
        """`[M, B]`: 1 for a trial, 0 for what fills up the last mini-batch."""
        return self.cut(tf.ones((1, len(self.rows)), dtype))[:, 0]


def weighted_mean(x: tf.Tensor, weight: tf.Tensor, trials: tf.Tensor) -> tf.Tensor:
    """What x `[..., N, B]` with weight `[..., B]` adds to the mean over steps and trials, of which there are `trials`,
    a sum over all workers: the mean itself where there is one."""
    steps = tf.cast(x.shape[-2], x.dtype)
    return tf.reduce_sum(x * weight[..., None, :]) / (steps * tf.reduce_sum(trials))


def mean_of_each(function: Callable[[Any], tf.Tensor], minibatches: Any, trials: tf.Tensor, results: int) -> tf.Tensor:
    """Mean over trials of `function(minibatch)` `[results]`, which may change variables: strictly in order.

    `minibatches` is a structure of tensors `[M, ...]` of which each has so many `trials`, `[M]`.
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
