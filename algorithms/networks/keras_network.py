"""Any Keras model as a `Network`: what makes MAML and Reptile model-agnostic.

The model is applied to one task after another with that task's own weights (`stateless_call`, in training
mode), so that layers such as batch normalisation see one task at a time; their moving averages stay as they are. The
built-in networks compute the same for all tasks at once, several times faster.

The variance of `tf.nn.moments`, which Keras' normalisations read, stops the gradient of the mean inside it: right to
first order, wrong to second. While a model is applied here, it is the same variance without that stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from .feedforward import Parameters


class KerasNetwork:
    """A `Network` around a built Keras model. ValueError for a model that has not been built, or that draws random
    numbers (Dropout): an adaptation is a function of weights and images, and its derivative is that of one draw."""

    def __init__(self, model: keras.Model):
        if not model.built:
            raise ValueError("KerasNetwork: build the model first, or call it once on a batch")
        for layer in _leaves(model):
            if any(variable.name == "seed_generator_state" for variable in layer.non_trainable_variables):
                raise ValueError(f"KerasNetwork: leave {layer.name} out, it draws random numbers")
        self.model = model
        self.fuse, self.batch_norm = False, True  # it may hold anything
        self.layers = ()  # not counted: a model may do anything
        self.parameters = {variable.path: variable.value for variable in model.trainable_variables}
        with_weights = [layer for layer in _leaves(model) if layer.weights]
        every = model._flatten_layers(include_self=False)
        norms = [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]
        self.norm = frozenset(variable.path for layer in norms for variable in layer.trainable_variables)
        self.head = frozenset(variable.path for variable in with_weights[-1].trainable_variables)

    def __call__(self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False) -> tf.Tensor:
        """`[T, N, *input_shape]` -> `[T, N, outputs]`; each task, and each group in it, is a batch of its own."""
        tasks, examples, *shape = x.shape
        per_task = all(
            parameters[name].shape.rank == variable.shape.rank + 1 for name, variable in self.parameters.items()
        )
        state = [variable.value for variable in self.model.non_trainable_variables]

        def apply(weights: list[tf.Tensor], batch: tf.Tensor) -> tf.Tensor:
            with exact_moments():
                return self.model.stateless_call(weights, state, batch, training=not running)[0]

        outputs = []
        for task in range(tasks):
            weights = [
                parameters[name][task] if per_task else tf.convert_to_tensor(parameters[name])
                for name in self.parameters
            ]
            batches = tf.reshape(x[task], (groups, examples // groups, *shape))
            outputs.append(tf.concat([apply(weights, batches[group]) for group in range(groups)], axis=0))
        return tf.stack(outputs)


@contextmanager
def exact_moments() -> Iterator[None]:
    """Inside, `tf.nn.moments` has its true derivatives of every order, for layers at any depth."""
    original = tf.nn.moments

    def moments(x: tf.Tensor, axes: Sequence[int], shift: None = None, keepdims: bool = False, name: str | None = None):
        if x.dtype.size < 4:
            mean, variance = moments(tf.cast(x, tf.float32), axes, keepdims=keepdims)
            return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=keepdims)
        return (mean if keepdims else tf.squeeze(mean, axes)), variance

    tf.nn.moments = moments
    try:
        yield
    finally:
        tf.nn.moments = original


def _leaves(layer: keras.Layer) -> list[keras.Layer]:
    """The layers of a model in order, nested models opened."""
    inner = getattr(layer, "layers", None)
    return [layer] if inner is None else [leaf for each in inner for leaf in _leaves(each)]


def plain_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The step size of plain SGD; ValueError for an optimizer whose step is anything but -alpha * gradient."""
    extras = (
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
        "weight_decay",
        "use_ema",
        "loss_scale_factor",
        "gradient_accumulation_steps",
    )
    plain = isinstance(optimizer, keras.optimizers.SGD) and not optimizer.momentum
    rate = optimizer.get_config()["learning_rate"] if plain else None
    if not isinstance(rate, float) or any(getattr(optimizer, extra, None) for extra in extras):
        raise ValueError(
            "maml: the inner optimizer must be plain keras.optimizers.SGD (no momentum, clipping, schedule, decay or "
            "accumulation): its step is differentiated"
        )
    return rate
