"""Mini-batches of whole trials, one after the other in a loop of the compiled program, so that the graph stays small.

`[N, T, ...]` is cut into `[M, N, B, ...]`: M mini-batches of B trials in fixed order. The last one is filled up with
trials of zeros whose weight is 0, so that no trial is dropped and none counts twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def cut(x: tf.Tensor, size: int) -> tf.Tensor:
    """`[N, T, ...]` -> `[M, N, B, ...]` with B = the lesser of `size` and T."""
    steps, tasks, *rest = x.shape
    size = min(size, tasks)
    missing = -tasks % size
    padded = tf.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * len(rest))
    parts = tf.reshape(padded, (steps, (tasks + missing) // size, size, *rest))
    return tf.transpose(parts, (1, 0, *range(2, 3 + len(rest))))


def weights(tasks: int, size: int, dtype: tf.DType) -> tf.Tensor:
    """`[M, B]`: 1 for a trial, 0 for what fills up the last mini-batch."""
    return cut(tf.ones((1, tasks), dtype), size)[:, 0]


def weighted_mean(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Mean of x `[..., N, B]` over steps and trials with weight `[..., B]`."""
    steps = tf.cast(x.shape[-2], x.dtype)
    return tf.reduce_sum(x * weight[..., None, :]) / (steps * tf.reduce_sum(weight))


def mean_of_each(function: Callable[[Any], tf.Tensor], minibatches: Any, weight: tf.Tensor, results: int) -> tf.Tensor:
    """Mean over trials of `function(minibatch)` `[results]`, which may change variables: strictly in order.

    `minibatches` is a structure of tensors `[M, ...]`.
    """
    count = weight.shape[0]

    def body(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        result = function(tf.nest.map_structure(lambda part: part[number], minibatches))
        return number + 1, total + result * tf.reduce_sum(weight[number])

    _, total = tf.while_loop(
        lambda number, _: number < count,
        body,
        (0, tf.zeros(results, weight.dtype)),
        parallel_iterations=1,
        maximum_iterations=count,
    )
    return total / tf.reduce_sum(weight)
