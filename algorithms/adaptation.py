"""Adapting a network to tasks by gradient descent and predicting their queries, as MAML and Reptile do."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from ..datasets.tasks import PIXELS_AT_ONCE, Episode
from .learner import SUPPORT
from .networks.feedforward import Network, Parameters, Values
from .programs import program, sizes

State = TypeVar("State")  # the state of an adaptation, a structure of tensors


def per_task(parameters: Mapping[str, tf.Tensor | tf.Variable], tasks: int) -> Values:
    """Return a copy of the shared parameters for each task: `[*shape]` -> `[T, *shape]`."""
    return {
        name: tf.tile(tf.convert_to_tensor(value)[None], [tasks] + [1] * value.shape.rank)
        for name, value in parameters.items()
    }


def task_gradients(
    loss: Callable[[Values], tf.Tensor], parameters: Values, wanted: Collection[str]
) -> tuple[tf.Tensor, Values]:
    """Return per-task losses `[T]` and each task's own gradient `[T, *shape]`.

    Once parameters carry the task axis, the tasks share nothing. So the gradient of the sum over tasks holds every
    task's own gradient.

    Args:
        loss: Maps parameters to per-task losses `[T]`.
        parameters: All parameters, each `[T, *shape]`.
        wanted: The names of the parameters to differentiate.
    """
    moving = {name: parameters[name] for name in wanted}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(moving)
        losses = loss(parameters | moving)  # [T]
        total = tf.reduce_sum(losses)
    return losses, tape.gradient(total, moving, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def gradient_descent(parameters: Values, gradients: Values, learning_rate: float) -> Values:
    """Return theta' = theta - alpha * gradient; parameters without a gradient stay as they are."""
    return parameters | {name: parameters[name] - learning_rate * g for name, g in gradients.items()}


def recomputed(step: Callable[[Values], Any]) -> Callable[[Values], Any]:
    """Return `step` with a derivative that stores only the parameters and recomputes the rest."""

    def remembered(parameters: Values) -> Any:
        structure: list[Any] = []

        def flat(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            structure[:] = [step(dict(zip(parameters, values, strict=True)))]
            return tf.nest.flatten(structure[0])

        @tf.custom_gradient
        def call(*values: tf.Tensor):
            def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
                with tf.control_dependencies(upstream):  # otherwise both computations would be merged into one
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
    """Return the mean of `function(chunk)` over chunks of tasks, computed one after the other.

    Args:
        function: Maps an `Episode` of `size` tasks to a structure of tensors.
        batch: T tasks.
        size: The number of tasks in a chunk.

    Raises:
        ValueError: `size` does not divide T.
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


def predict_queries(
    network: Network, parameters: Parameters, support_x: tf.Tensor, query_x: tf.Tensor, protocol: str
) -> tf.Tensor:
    """Return outputs `[T, Q, outputs]` for the queries of a gradient-based learner.

    Under "transductive" all queries of a task are one batch. Under "inductive" each query is in a batch with the whole
    support set and no other query (Nichol et al. 2018, section 5), so it cannot profit from the others. Without batch
    norm both give the same outputs, and all queries are computed at once.

    Args:
        network: The network.
        parameters: Its parameters, shared `[*shape]` or per task `[T, *shape]`.
        support_x: The support images `[T, S, *x]`.
        query_x: The queries `[T, Q, *x]`.
        protocol: "transductive" or "inductive".
    """
    if protocol == "transductive" or not network.batch_norm:
        return network(parameters, query_x)
    tasks, supports = sizes(support_x)[:2]
    queries, example = sizes(query_x)[1], query_x.shape[2:]
    beside = tf.repeat(support_x[:, None], queries, axis=1)  # [T, Q, S, *x]
    groups = tf.concat([beside, query_x[:, :, None]], axis=2)  # [T, Q, S + 1, *x]
    flat = tf.reshape(groups, (tasks, queries * (supports + 1), *example))
    outputs = network(parameters, flat, groups=queries)
    return tf.reshape(outputs, (tasks, queries, supports + 1, outputs.shape[-1]))[:, :, -1]


def predict_in_parts(
    network: Network, parameters: Parameters, support_x: tf.Tensor, query_x: tf.Tensor, protocol: str
) -> tf.Tensor:
    """Return the outputs of `predict_queries`, for a part of the queries at a time where all would need much memory.

    Under "inductive" Q queries are Q x (S + 1) images. A part has as many queries as keep its images within
    `PIXELS_AT_ONCE`, and all parts have equally many. A query sees the same images in a part as in the whole, so the
    size of the parts, which depends on the spec alone, changes outputs by rounding only (kernels differ with the
    number of images). Where a call decides how many images there are, a part is one query. No gradient is taken
    through it: a tape would keep all parts.
    """
    tasks, supports = sizes(support_x)[:2]
    queries, example = sizes(query_x)[1], query_x.shape[2:]
    known = None not in (support_x.shape[1], query_x.shape[1])
    fitting = PIXELS_AT_ONCE // (tasks * (supports + 1) * math.prod(example[:2])) if known else 1
    size = max(part for part in range(1, max(1, min(queries, fitting)) + 1) if queries % part == 0) if known else 1
    if protocol == "transductive" or not network.batch_norm or known and size == queries:
        return predict_queries(network, parameters, support_x, query_x, protocol)

    def predict(part: tf.Tensor) -> tf.Tensor:
        return predict_queries(network, parameters, support_x, part, protocol)

    parts = _swapped(tf.reshape(query_x, (tasks, queries // size, size, *example)))
    one = program(predict).get_concrete_function(tf.TensorSpec(parts.shape[1:], parts.dtype)).structured_outputs
    signature = tf.TensorSpec(one.shape, one.dtype)
    outputs = _swapped(tf.map_fn(predict, parts, fn_output_signature=signature, parallel_iterations=1))
    return tf.reshape(outputs, (tasks, queries, outputs.shape[-1]))


def body_of(network: Network) -> Parameters:
    """Return the parameters of a built-in network below its last layer, with which its outputs are what that reads."""
    return {name: value for name, value in network.parameters.items() if name not in network.head}


def kept(adapted: Values, support_x: tf.Tensor, network: Network, protocol: str) -> Values:
    """Return what `outputs_of` needs: adapted parameters `[T, *shape]`, and the support images beside which queries
    pass batch norm under the inductive protocol.
    """
    beside = protocol == "inductive" and network.batch_norm
    return adapted | ({SUPPORT: support_x} if beside else {})


def outputs_of(network: Network, fitted: Parameters, query_x: tf.Tensor, protocol: str) -> tf.Tensor:
    """Return outputs `[T, Q, outputs]` for queries `[T, Q, *x]`, given what `kept` returned."""
    parameters = {name: tf.convert_to_tensor(value) for name, value in fitted.items() if name != SUPPORT}
    support_x = fitted.get(SUPPORT)
    if support_x is None:
        return network(parameters, query_x)
    return predict_in_parts(network, parameters, tf.convert_to_tensor(support_x), query_x, protocol)


def after_steps(steps: int, state: State, inner_step: Callable[[tf.Tensor, State], State]) -> State:
    """Return the state after a number of inner steps, see `outputs_along`."""
    _, state = tf.while_loop(
        lambda number, _: number < steps, lambda number, state: (number + 1, inner_step(number, state)), (0, state)
    )
    return state


def _swapped(x: tf.Tensor) -> tf.Tensor:
    """Return `[A, B, ...]` as `[B, A, ...]`."""
    return tf.transpose(x, (1, 0, *range(2, x.shape.rank)))


def recorded_steps(steps: int) -> list[int]:
    """Return the numbers of inner steps after which a test evaluates the queries.

    They are 0, 1, 2, 3, ... up to ten steps; for more steps 0, 1, 2, 5, 10, 20, 50, ... and `steps`. An evaluation is
    not part of the adaptation, and it can cost more than a step.
    """
    if steps <= 10:
        return list(range(steps + 1))
    series = (digit * 10**power for power in range(len(str(steps))) for digit in (1, 2, 5))
    return [0, *(number for number in series if number < steps), steps]


def outputs_along(
    recorded: Sequence[int],
    state: State,
    inner_step: Callable[[tf.Tensor, State], State],
    predict: Callable[[State], tf.Tensor],
) -> tf.Tensor:
    """Return the outputs `[R, T, Q, outputs]` of `predict` after each of R numbers of inner steps.

    Args:
        recorded: The R numbers of inner steps, ascending from 0.
        state: The state before the first step, a structure of tensors.
        inner_step: Maps the number of a step (int32 scalar, from 0) and the state to the next state.
        predict: Maps a state to outputs `[T, Q, outputs]`.
    """
    first, ends = predict(state), tf.constant(recorded)
    outputs = tf.TensorArray(first.dtype, len(recorded), element_shape=first.shape).write(0, first)

    def stretch(place: tf.Tensor, number: tf.Tensor, state: State, outputs: tf.TensorArray):
        number, state = tf.while_loop(
            lambda number, _: number < ends[place],
            lambda number, state: (number + 1, inner_step(number, state)),
            (number, state),
        )
        return place + 1, number, state, outputs.write(place, predict(state))

    *_, outputs = tf.while_loop(lambda place, *_: place < len(recorded), stretch, (1, 0, state, outputs))
    return outputs.stack()
