"""Losses and metrics that learners share: pure functions of outputs and targets, one value per task.

An output that is not finite is a wrong answer in every metric: accuracy 0, an infinite negative log-likelihood and
confidence 1 in that query, and an infinite mean squared error in that task. Such a task has diverged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from .programs import sizes

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

CALIBRATION_BINS = 15  # Guo et al. 2017


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Return the mean cross-entropy over the examples of each task `[T]`.

    Args:
        logits: `[T, N, way]`.
        labels: `[T, N]`.
        weights: Of the examples in the mean, `[T, N]`; None if all are equal.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if weights is None:
        return tf.reduce_mean(losses, axis=1)
    return tf.reduce_sum(weights * losses, axis=1) / tf.reduce_sum(weights, axis=1)


def mean_squared_error(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Return the mean squared error over the points of each task `[T]`.

    Args:
        predictions: `[T, N, D]`.
        targets: `[T, N, D]`, or `[T, N]` where D is 1.
    """
    targets = tf.reshape(targets, sizes(predictions))  # or they would be compared each with each
    return tf.reduce_mean(tf.math.squared_difference(predictions, targets), axis=[1, 2])


def classification_metrics(logits: tf.Tensor, labels: tf.Tensor, steps: Sequence[int] = (0,)) -> dict[str, tf.Tensor]:
    """Return the test metrics of classification, one value per task.

    Args:
        logits: `[R, T, Q, way]`, after each of R numbers of inner steps.
        labels: `[T, Q]`, from 0 to way - 1.
        steps: The R numbers of inner steps.

    Returns:
        accuracy and negative_log_likelihood `[T]` after the last step; accuracy_0, accuracy_1, ... `[T]` where R > 1;
        and calibration `[T, 3, 15]`. For 15 equal bins of confidence, calibration holds the number of queries, the sum
        of their confidences and the number of correct answers. The expected calibration error over all tasks follows
        from these.
    """
    right = tf.cast(right_answers(logits, labels[None]), logits.dtype)
    accuracy = tf.reduce_mean(right, axis=2)  # [R, T]
    answered = are_finite(logits[-1])  # [T, Q]
    confidence = tf.where(answered, tf.reduce_max(tf.nn.softmax(logits[-1]), axis=-1), 1)  # [T, Q]
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits[-1])
    losses = tf.where(answered, losses, tf.constant(math.inf, losses.dtype))
    bins = tf.minimum(tf.cast(confidence * CALIBRATION_BINS, tf.int32), CALIBRATION_BINS - 1)
    member = tf.one_hot(bins, CALIBRATION_BINS, dtype=logits.dtype)  # [T, Q, bins]
    sums = tf.stack([tf.ones_like(confidence), confidence, right[-1]], axis=1)  # [T, 3, Q]
    return _by_step("accuracy", accuracy, steps) | {
        "negative_log_likelihood": tf.reduce_mean(losses, axis=1),
        "calibration": tf.matmul(sums, member),
    }


def regression_metrics(predictions: tf.Tensor, targets: tf.Tensor, steps: Sequence[int] = (0,)) -> dict[str, tf.Tensor]:
    """Return the mse `[T]` after the last of the `steps`, and mse_0, mse_1, ... where there are several.

    Args:
        predictions: `[R, T, Q, D]`, after each of R numbers of inner steps.
        targets: `[T, Q, D]`, or `[T, Q]` where D is 1.
        steps: The R numbers of inner steps.
    """
    targets = tf.reshape(targets, predictions.shape[1:])
    errors = tf.reduce_mean(tf.math.squared_difference(predictions, targets[None]), axis=[2, 3])  # [R, T]
    return _by_step("mse", tf.where(tf.math.is_finite(errors), errors, tf.constant(math.inf, errors.dtype)), steps)


def right_answers(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return which queries are classified correctly, bool `[..., Q]`.

    A query with an output that is not finite is not: its largest output would be that of class 0.

    Args:
        logits: `[..., Q, way]`.
        labels: `[..., Q]`.
    """
    return tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels) & are_finite(logits)


def are_finite(outputs: tf.Tensor) -> tf.Tensor:
    """Return whether all numbers of the last axis are finite, bool `[...]` from `[..., outputs]`."""
    return tf.reduce_all(tf.math.is_finite(outputs), axis=-1)


def auroc(inside: tf.Tensor, outside: tf.Tensor) -> tf.Tensor:
    """Return the area under the ROC curve of each task, float64 `[T]`, as the statistic of Mann and Whitney.

    It is the share of pairs, one of each group, in which the score inside is higher; equal scores count half. A score
    that is not a number loses each of its pairs.

    Args:
        inside: scores that should be high, `[T, N]`.
        outside: scores that should be low, `[T, M]`.
    """
    higher = tf.cast(inside[:, :, None] > outside[:, None], tf.float64)
    equal = tf.cast(tf.equal(inside[:, :, None], outside[:, None]), tf.float64)
    return tf.reduce_mean(higher + equal / 2, axis=[1, 2])


def _by_step(name: str, values: tf.Tensor, steps: Sequence[int]) -> dict[str, tf.Tensor]:
    curve = {f"{name}_{step}": values[place] for place, step in enumerate(steps)} if len(steps) > 1 else {}
    return {name: values[-1]} | curve
