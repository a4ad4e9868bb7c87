"""The mathematics that learners share: pure functions of explicit parameters.

A parameter may carry a leading task axis, `[T, *shape]`, or be shared by all tasks, `[*shape]`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..datasets.tasks import Episode
from .program import program

Params = dict[str, tf.Tensor]
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

CALIBRATION_BINS = 15  # Guo et al. 2017


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean over the examples of each task: logits `[T, N, way]`, labels `[T, N]` -> `[T]`."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits), axis=1)


def mean_squared_error(predictions: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Mean over the points of each task: `[T, N, D]` and as many targets, also `[T, N]` where D is 1 -> `[T]`."""
    targets = tf.reshape(targets, predictions.shape)  # or they would be compared each with each
    return tf.reduce_mean(tf.math.squared_difference(predictions, targets), axis=[1, 2])


def per_task(parameters: Mapping[str, tf.Tensor | tf.Variable], tasks: int) -> Params:
    """A copy of the shared parameters for each task: `[*shape]` -> `[T, *shape]`."""
    return {
        name: tf.tile(tf.convert_to_tensor(value)[None], [tasks] + [1] * value.shape.rank)
        for name, value in parameters.items()
    }


def task_gradients(
    loss: Callable[[Params], tf.Tensor], parameters: Params, wanted: Collection[str]
) -> tuple[tf.Tensor, Params]:
    """Per-task losses `[T]`, and each task's own gradient `[T, *shape]` for the `wanted` parameters.

    The tasks share nothing once parameters carry the task axis, so the gradient of the sum over tasks holds
    every task's own gradient.
    """
    moving = {name: parameters[name] for name in wanted}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(moving)
        losses = loss(parameters | moving)  # [T]
        total = tf.reduce_sum(losses)
    return losses, tape.gradient(total, moving, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def gradient_descent(parameters: Params, gradients: Params, learning_rate: float) -> Params:
    """theta' = theta - alpha * gradient, for the parameters that have a gradient."""
    return parameters | {name: parameters[name] - learning_rate * g for name, g in gradients.items()}


def recomputed(step: Callable[[Params], Any]) -> Callable[[Params], Any]:
    """`step` of parameters that keeps nothing for its derivative but the parameters, and computes the rest again."""

    def remembered(parameters: Params) -> Any:
        structure: list[Any] = []

        def flat(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            structure[:] = [step(dict(zip(parameters, values, strict=True)))]
            return tf.nest.flatten(structure[0])

        @tf.custom_gradient
        def call(*values: tf.Tensor):
            def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
                with tf.control_dependencies(upstream):  # not before: else both computations would be one
                    again = [tf.identity(value) for value in values]
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(again)
                    outputs = flat(again)
                return tape.gradient(outputs, again, output_gradients=upstream)

            return flat([tf.stop_gradient(value) for value in values]), gradient

        outputs = call(*parameters.values())
        return tf.nest.pack_sequence_as(structure[0], outputs)

    return remembered


def mean_over_chunks(function: Callable[[Episode], Any], batch: Episode, size: int) -> Any:
    """Mean of `function(chunk)`, a structure of tensors, over chunks of `size` tasks, one chunk after the other.

    ValueError unless `size` divides the number of tasks.
    """
    tasks = batch.support_x.shape[0]
    if tasks % size:
        raise ValueError(f"chunks of {size} tasks do not divide a batch of {tasks}")
    if size == tasks:
        return function(batch)
    chunks = Episode(*(tf.reshape(part, (tasks // size, size, *part.shape[1:])) for part in batch))
    each = program(function).get_concrete_function(Episode(*(tf.TensorSpec(c.shape[1:], c.dtype) for c in chunks)))
    signature = tf.nest.map_structure(lambda out: tf.TensorSpec(out.shape, out.dtype), each.structured_outputs)
    results = tf.map_fn(function, chunks, fn_output_signature=signature, parallel_iterations=1)
    return tf.nest.map_structure(lambda result: tf.reduce_mean(result, axis=0), results)


def squared_distances(queries: tf.Tensor, prototypes: tf.Tensor) -> tf.Tensor:
    """`[T, Q, D]` and `[T, P, D]` -> `[T, Q, P]`, summed over the dimensions."""
    return tf.reduce_sum(tf.math.squared_difference(queries[:, :, None], prototypes[:, None]), axis=-1)


def cosine_similarities(queries: tf.Tensor, supports: tf.Tensor) -> tf.Tensor:
    """`[T, Q, D]` and `[T, P, D]` -> `[T, Q, P]` in [-1, 1]; 0 for a vector of zeros."""
    unit_queries = tf.math.l2_normalize(queries, axis=-1)
    return tf.matmul(unit_queries, tf.math.l2_normalize(supports, axis=-1), transpose_b=True)


def classification_metrics(logits: tf.Tensor, labels: tf.Tensor, steps: Sequence[int] = (0,)) -> dict[str, tf.Tensor]:
    """What a test measures, one value a task, from logits `[R, T, Q, way]` after each of R numbers of inner `steps`.

    accuracy and negative_log_likelihood `[T]` after the last; accuracy_0, accuracy_1, ... where there are inner steps;
    and `calibration` `[T, 3, 15]`: for 15 equal bins of confidence the number of queries, the sum of their
    confidences and the number of right answers, from which the expected calibration error over all tasks
    follows.
    """
    right = tf.cast(tf.equal(tf.argmax(logits, axis=-1, output_type=tf.int32), labels[None]), logits.dtype)
    accuracy = tf.reduce_mean(right, axis=2)  # [R, T]
    confidence = tf.reduce_max(tf.nn.softmax(logits[-1]), axis=-1)  # [T, Q]
    bins = tf.minimum(tf.cast(confidence * CALIBRATION_BINS, tf.int32), CALIBRATION_BINS - 1)
    member = tf.one_hot(bins, CALIBRATION_BINS, dtype=logits.dtype)  # [T, Q, bins]
    sums = tf.stack([tf.ones_like(confidence), confidence, right[-1]], axis=1)  # [T, 3, Q]
    return _by_step("accuracy", accuracy, steps) | {
        "negative_log_likelihood": cross_entropy(logits[-1], labels),
        "calibration": tf.matmul(sums, member),
    }


def regression_metrics(predictions: tf.Tensor, targets: tf.Tensor, steps: Sequence[int] = (0,)) -> dict[str, tf.Tensor]:
    """mse `[T]` after the last of the `steps`, and mse_0, mse_1, ..., from predictions `[R, T, Q, D]`."""
    targets = tf.reshape(targets, predictions.shape[1:])
    return _by_step("mse", tf.reduce_mean(tf.math.squared_difference(predictions, targets[None]), axis=[2, 3]), steps)


def _by_step(name: str, values: tf.Tensor, steps: Sequence[int]) -> dict[str, tf.Tensor]:
    curve = {f"{name}_{step}": values[place] for place, step in enumerate(steps)} if len(steps) > 1 else {}
    return {name: values[-1]} | curve
