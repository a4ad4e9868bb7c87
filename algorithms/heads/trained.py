"""Heads trained by stochastic gradient descent on the support set (Chen et al. 2019, section 3.2 and their code).

Every gradient of a last layer is a sum of support features, and weight decay shrinks what is there. So the weights of a
task stay in the span of their start and of its S features:

    W = c W_0 + F' A                    F are the features `[S, D]`, A is `[S, way]`

The descent moves c and A, and the velocity has the same form. A step then costs S products in place of D: the D x way
weights are made once, at the end. The mathematics is that of the descent on W; a test compares the two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ...datasets.random import TaskKeys
from ..learner import Support
from ..programs import sizes
from .options import CosineHeadOptions, LinearHeadOptions, TrainedHeadOptions

EPOCHS_AT_ONCE = 100  # whose orders are drawn together
NORM_EPSILON = 1e-5  # added to the length of features in the authors' code
State = tuple[tf.Tensor, ...]


class LinearHead:
    """Train logits = W' f + b. W and b start as PyTorch's linear layer does, within 1 / sqrt(D) of 0."""

    def __init__(self, options: LinearHeadOptions):
        self.options = options

    def fit(self, features: tf.Tensor, support: Support, mean: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Return weights `[T, D, way]` and biases `[T, way]`, see `Head`."""
        start, bias = _initial(support, features)
        seen, kernel = tf.matmul(features, start), tf.matmul(features, features, transpose_b=True)
        decay = self.options.weight_decay
        labels = tf.one_hot(support.y, support.way, dtype=features.dtype)

        def gradient(state: State, weights: tf.Tensor) -> State:
            c, coefficients, bias = state
            logits = c * seen + tf.matmul(kernel, coefficients) + bias[:, None]
            errors = weights[..., None] * (tf.nn.softmax(logits) - labels)  # [T, S, way]
            return decay * c, errors + decay * coefficients, tf.reduce_sum(errors, axis=1) + decay * bias

        one = tf.ones((), features.dtype)
        c, coefficients, bias = _descend(self.options, gradient, (one, tf.zeros_like(seen), bias), support, features)
        return {"weights": c * start + tf.matmul(features, coefficients, transpose_a=True), "bias": bias}

    def logits(self, fitted: Mapping[str, tf.Tensor], queries: tf.Tensor) -> tf.Tensor:
        """Return W' f + b, see `Head`."""
        return tf.matmul(queries, fitted["weights"]) + fitted["bias"][:, None]


class CosineHead:
    """Train logits_k = s g_k cos(w_k, f), with weight normalisation: the directions w_k and lengths g_k are learned.

    Features are divided by their length + 1e-5. There is no bias. w_k start as the rows of PyTorch's linear layer do,
    and g_k from their lengths.
    """

    def __init__(self, options: CosineHeadOptions):
        self.options = options

    def fit(self, features: tf.Tensor, support: Support, mean: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Return the weights s g_k w_k / |w_k|, `[T, D, way]`, see `Head`."""
        units = unit(features)
        start, _ = _initial(support, features)
        square, seen = tf.reduce_sum(tf.square(start), axis=1), tf.matmul(units, start)  # [T, way], [T, S, way]
        kernel = tf.matmul(units, units, transpose_b=True)
        decay, scale = self.options.weight_decay, self.options.scale
        labels = tf.one_hot(support.y, support.way, dtype=features.dtype)

        def length(c: tf.Tensor, a: tf.Tensor) -> tf.Tensor:
            across = 2 * c * tf.reduce_sum(seen * a, axis=1) + tf.reduce_sum(a * tf.matmul(kernel, a), axis=1)
            return tf.sqrt(c * c * square + across)  # |w_k|, [T, way]

        def gradient(state: State, weights: tf.Tensor) -> State:
            c, a, g = state
            norm = length(c, a)[:, None]
            cosines = (c[:, None] * seen + tf.matmul(kernel, a)) / norm
            errors = weights[..., None] * (tf.nn.softmax(scale * g[:, None] * cosines) - labels)
            pull = scale * tf.reduce_sum(errors * cosines, axis=1)  # the derivative by g
            along = decay - g * pull / tf.square(norm[:, 0])  # the gradient of w_k has this part of w_k itself
            return along * c, scale * g[:, None] * errors / norm + along[:, None] * a, pull + decay * g

        first = (tf.ones_like(square), tf.zeros_like(seen), tf.sqrt(square))
        c, a, g = _descend(self.options, gradient, first, support, features)
        directions = c[:, None] * start + tf.matmul(units, a, transpose_a=True)
        return {"weights": scale * (g / length(c, a))[:, None] * directions}

    def logits(self, fitted: Mapping[str, tf.Tensor], queries: tf.Tensor) -> tf.Tensor:
        """Return s g_k cos(w_k, f), see `Head`."""
        return tf.matmul(unit(queries), fitted["weights"])


def unit(features: tf.Tensor) -> tf.Tensor:
    """Return features divided by their length + 1e-5."""
    return features / (tf.norm(features, axis=-1, keepdims=True) + NORM_EPSILON)


def _initial(support: Support, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return weights `[T, D, way]` and biases `[T, way]`, uniform within 1 / sqrt(D) of 0; the task decides them."""
    width = features.shape[-1]
    bound = 1 / math.sqrt(width)
    drawn = TaskKeys.of_drawn(support.drawn).uniform("head", support.way, width + 1, low=-bound, high=bound)
    drawn = tf.cast(drawn, features.dtype)
    return tf.transpose(drawn[..., :-1], (0, 2, 1)), drawn[..., -1]


def _descend(options: TrainedHeadOptions, gradient: Any, first: State, support: Support, features: tf.Tensor) -> State:
    """Return the state after all steps of stochastic gradient descent with momentum.

        v_1 = g_1,  v_t = momentum v_(t-1) + (1 - dampening) g_t,  w_t = w_(t-1) - learning rate v_t

    Args:
        options: The options of the head.
        gradient: Maps a state, and the weights of the support images in the mini-batch, `[T, S]`, to the gradient.
        first: The state before the first step.
        support: The support sets, whose draws decide the order of the images in each epoch.
        features: Of which the dtype and the number of images are taken.
    """
    images = sizes(features)[1]
    batches = -(-images // options.batch)
    steps, at_once = options.epochs * batches, min(options.epochs, EPOCHS_AT_ONCE)
    keys = TaskKeys.of_drawn(support.drawn)
    shares = tf.ones((), features.dtype)
    if not support.balanced:  # every class counts alike
        shares = tf.reduce_sum(support.members(features.dtype), axis=2)
        shares *= tf.cast(images, features.dtype) / tf.cast(support.way, features.dtype)

    def step(order: tf.Tensor, number: tf.Tensor, state: State, velocity: State) -> tuple[tf.Tensor, State, State]:
        batch, epoch = number % batches, number // batches % at_once
        chosen = tf.equal(tf.gather(order, epoch, axis=1) // options.batch, batch)
        size = tf.minimum(options.batch, images - batch * options.batch)
        slopes = gradient(state, shares * tf.cast(chosen, features.dtype) / tf.cast(size, features.dtype))
        is_first = tf.cast(tf.equal(number, 0), features.dtype)
        new = (1 - options.dampening) * (1 - is_first) + is_first
        velocity = tuple(options.momentum * v + new * g for v, g in zip(velocity, slopes, strict=True))
        state = tuple(w - options.learning_rate * v for w, v in zip(state, velocity, strict=True))
        return number + 1, state, velocity

    def epochs(number: tf.Tensor, state: State, velocity: State) -> tuple[tf.Tensor, State, State]:
        order = keys.orders("mini-batches", images, options.epochs, number // batches, at_once)  # places of the images
        end = tf.minimum(number + at_once * batches, steps)
        one = functools.partial(step, order)
        return tf.while_loop(lambda number, *_: number < end, one, (number, state, velocity), parallel_iterations=1)

    still = tuple(tf.zeros_like(each) for each in first)
    return tf.while_loop(lambda number, *_: number < steps, epochs, (0, first, still), parallel_iterations=1)[1]
