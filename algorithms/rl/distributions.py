"""Distributions of a policy's actions, as functions of numbers `[..., n]` that a network outputs.

discrete: n = actions, the logits. box: n = 2 x size, the means and the logarithms of the standard deviations.
"""

from __future__ import annotations

import math
from typing import Protocol

import tensorflow as tf

from ...datasets.random import TaskKeys
from ...datasets.trials import Space


class Distribution(Protocol):
    """Define a distribution of actions. All methods but `sample` work along the last axis."""

    def sample(self, numbers: tf.Tensor, keys: TaskKeys) -> tf.Tensor:
        """Sample an action for each trial from `[T, n]`: `[T]` int32 or `[T, size]` float32."""
        ...

    def log_probability(self, numbers: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Return the logarithm of the probability of actions, or of their density."""
        ...

    def kl(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        """Return KL(old || new)."""
        ...

    def entropy(self, numbers: tf.Tensor) -> tf.Tensor:
        """Return the entropy in nats."""
        ...


class Categorical(Distribution):
    """Define a distribution over a finite number of actions."""

    def sample(self, numbers: tf.Tensor, keys: TaskKeys) -> tf.Tensor:
        """Sample by the inverse of the cumulative distribution at a uniform random number."""
        probabilities = tf.nn.softmax(numbers)
        actions = probabilities.shape[-1]
        upto = tf.linalg.band_part(tf.ones((actions, actions), probabilities.dtype), 0, -1)  # i <= j
        cumulative = probabilities @ upto
        at = tf.cast(keys.uniform("action"), cumulative.dtype)[:, None] * cumulative[:, -1:]
        return tf.reduce_sum(tf.cast(cumulative[:, :-1] <= at, tf.int32), axis=1)

    def log_probability(self, numbers: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Return log p(action)."""
        chosen = tf.one_hot(action, numbers.shape[-1], dtype=numbers.dtype)
        return tf.reduce_sum(chosen * tf.nn.log_softmax(numbers), axis=-1)

    def kl(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        """Return sum_a p_old (log p_old - log p_new)."""
        difference = tf.nn.log_softmax(old) - tf.nn.log_softmax(new)
        return tf.reduce_sum(tf.nn.softmax(old) * difference, axis=-1)

    def entropy(self, numbers: tf.Tensor) -> tf.Tensor:
        """Return - sum_a p log p."""
        return -tf.reduce_sum(tf.nn.softmax(numbers) * tf.nn.log_softmax(numbers), axis=-1)


class DiagonalGaussian(Distribution):
    """Define a distribution over vectors of independent normal numbers."""

    def sample(self, numbers: tf.Tensor, keys: TaskKeys) -> tf.Tensor:
        """Sample mean + standard deviation x a standard normal number."""
        mean, log_std = tf.split(numbers, 2, axis=-1)
        noise = tf.cast(keys.normal("action", mean.shape[-1]), mean.dtype)
        return tf.cast(mean + tf.exp(log_std) * noise, tf.float32)

    def log_probability(self, numbers: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
        """Return the log-density of actions."""
        mean, log_std = tf.split(numbers, 2, axis=-1)
        deviation = (tf.cast(action, mean.dtype) - mean) * tf.exp(-log_std)
        return tf.reduce_sum(-0.5 * tf.square(deviation) - log_std - 0.5 * math.log(2 * math.pi), axis=-1)

    def kl(self, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        """Return KL(old || new), summed over the dimensions."""
        mean, log_std = tf.split(old, 2, axis=-1)
        new_mean, new_log_std = tf.split(new, 2, axis=-1)
        spread = tf.exp(2 * (log_std - new_log_std)) + tf.square((mean - new_mean) * tf.exp(-new_log_std))
        return tf.reduce_sum(new_log_std - log_std + 0.5 * (spread - 1), axis=-1)

    def entropy(self, numbers: tf.Tensor) -> tf.Tensor:
        """Return the entropy, summed over the dimensions."""
        _, log_std = tf.split(numbers, 2, axis=-1)
        return tf.reduce_sum(log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


def of(actions: Space) -> Distribution:
    """Return the distribution over a space of actions."""
    return Categorical() if actions.discrete else DiagonalGaussian()
