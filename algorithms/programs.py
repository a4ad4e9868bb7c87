"""Tracing and fusing TensorFlow programs.

`program` traces without AutoGraph. AutoGraph would read and rewrite the source of every function below it, which takes
seconds at the start of a run. So control flow that depends on a tensor's value is written with tf.cond, tf.where and
tf.while_loop.

`compiled(function)` is a small program inside a training step, fused by XLA, with derivatives up to second order. On a
CPU the products of a step are fastest in the library's own kernels (oneDNN). Everything between two products
(normalisation, activation, pooling) is fastest as one fused program. Its derivative is a separate program, which
recomputes what it needs, so that only inputs are stored. The derivative of that derivative, which second-order
meta-gradients need, is a third program. Third derivatives are not supported.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

program = functools.partial(tf.function, autograph=False)
untouched = tf.autograph.experimental.do_not_convert  # for functions that tf.data traces
Function = Callable[..., Any]
Size = Any  # of an axis: an int, or where only a call decides it a scalar tensor
ZERO = tf.UnconnectedGradients.ZERO


def sizes(x: tf.Tensor) -> tuple[Size, ...]:
    """Return the length of each axis of x, for tf.reshape and arithmetic: an int where it is known.

    Training and tests know all of them. An exported program takes any number of images.
    """
    known = tuple(x.shape)
    if None not in known:
        return known
    found = tf.shape(x)
    return tuple(found[axis] if size is None else size for axis, size in enumerate(known))


class GradientRegistry(type(gradient_registry)):
    """Register gradients as TensorFlow does, and let a graph be freed that has custom gradients.

    Each use of tf.custom_gradient in a graph is entered under a name of its own, with a function that holds the graph,
    and TensorFlow never removes it. Here the graph holds the function, and the registry refers to it weakly.
    """

    __slots__ = ()

    def register(self, candidate: Any, name: str | None = None) -> None:
        """Store the gradient `candidate` under `name`; a custom one until the graph that is being built is freed."""
        if not (name and name.startswith("CustomGradient-") and callable(candidate)):
            return super().register(candidate, name)
        entries, graph = self._registry, tf.compat.v1.get_default_graph()
        if not hasattr(graph, "_custom_gradients"):
            graph._custom_gradients = []
        graph._custom_gradients.append(candidate)
        reference = weakref.ref(candidate, lambda _: entries.pop(name, None))
        return super().register(lambda *arguments: reference()(*arguments), name)  # pyright: ignore[reportOptionalCall]


def free_graphs() -> None:
    """Let graphs with custom gradients be freed from now on, in the whole process; see GradientRegistry."""
    gradient_registry.__class__ = GradientRegistry


def compiled(function: Function, by_library: Function | None = None) -> Function:
    """Return `function` of tensors, compiled as programs of its value, its gradient, and the gradient of its gradient.

    Args:
        function: Maps tensors to a tensor or a tuple of tensors.
        by_library: Computes the same with the library's kernels. If given, it computes value and gradient, and only the
            second derivative is a compiled program.
    """

    def gradient(inputs: Sequence[tf.Tensor], output_gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs = _listed(function(*inputs))
        return tape.gradient(outputs, inputs, output_gradients=output_gradients, unconnected_gradients=ZERO)

    @program(jit_compile=True)
    def second(inputs: Sequence[tf.Tensor], upstream: Sequence[tf.Tensor], ahead: Sequence[tf.Tensor]):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch((inputs, upstream))
            gradients = gradient(inputs, upstream)
        sources = [*inputs, *upstream]
        return tape.gradient(gradients, sources, output_gradients=ahead, unconnected_gradients=ZERO)

    value, first = program(function, jit_compile=True), program(gradient, jit_compile=True)

    def fused(inputs: list[tf.Tensor]) -> tuple[Any, Function]:
        return value(*inputs), functools.partial(first, inputs)

    def library(inputs: list[tf.Tensor]) -> tuple[Any, Function]:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs = (by_library or function)(*inputs)
        return outputs, functools.partial(tape.gradient, outputs, inputs, unconnected_gradients=ZERO)

    @tf.custom_gradient
    def call(*inputs: tf.Tensor):
        given = _constant(inputs)
        outputs, gradient_of = (library if by_library else fused)(given)

        @tf.custom_gradient
        def back(*both: tf.Tensor):
            upstream = _constant(both[len(inputs) :])
            return gradient_of(output_gradients=upstream), lambda *ahead: second(given, upstream, _constant(ahead))

        return outputs, lambda *upstream: back(*inputs, *upstream)

    return call


def _constant(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Hide the tensors from a tape; otherwise a program would return every tensor inside it."""
    return [tf.stop_gradient(tensor) for tensor in tensors]


def _listed(outputs: Any) -> list[tf.Tensor]:
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]
