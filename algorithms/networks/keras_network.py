"""Any Keras model as a `Network`, which makes MAML and Reptile model-agnostic.

The model is applied to one task after another with that task's own weights (`stateless_call`, in training mode). So
layers such as batch normalisation see one task at a time. Their moving averages do not change. The built-in
networks compute the same for all tasks at once, several times faster.

The variance of `tf.nn.moments`, which Keras' normalisations read, stops the gradient of the mean inside it. That is
right to first order and wrong to second. While a model is applied here, the variance is computed without that stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from .feedforward import Moments, Parameters


class KerasNetwork:
    """A `Network`, and an `EmbeddingNetwork`, around a built Keras model.

    model     any Keras model; its `BatchNormalization` layers follow the protocol
    seed      seed of a learner's own initial values
    features  width of the model's outputs if they are embeddings

    Raises ValueError for a model that has not been built, and for one that draws random numbers, such as Dropout.
    An adaptation must be a function of weights and images alone.
    """

    def __init__(self, model: keras.Model, seed: int = 0, features: int = 0):
        if not model.built:
            raise ValueError("KerasNetwork: build the model first, or call it once on a batch")
        for layer in _leaves(model):
            if any(variable.name == "seed_generator_state" for variable in layer.non_trainable_variables):
                raise ValueError(f"KerasNetwork: remove {layer.name}: it draws random numbers")
        self.model, self.seed, self.features = model, seed, features
        weights = [variable.dtype for variable in model.trainable_variables]  # a model may differ from its layers
        self.dtype = tf.as_dtype(weights[0] if weights else model.variable_dtype)
        self.fuse, self.batch_norm = False, not _each_alone(model)
        self.layers = ()  # not counted: a model may do anything
        self.parameters = {variable.path: variable.value for variable in model.trainable_variables}
        with_weights = [layer for layer in _leaves(model) if layer.weights]
        norms = _norms(model)
        self.norm = frozenset(variable.path for layer in norms for variable in layer.trainable_variables)
        self.head = frozenset(variable.path for layer in with_weights[-1:] for variable in layer.trainable_variables)
        moving = [variable for layer in norms if layer.trainable for variable in layer.non_trainable_variables]
        self.running = {variable.path: variable.value for variable in moving}

    def __call__(self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False) -> tf.Tensor:
        """Map `[T, N, *input_shape]` to `[T, N, outputs]`.

        Each task, and each group in it, is a batch of its own.
        """
        return self.apply(parameters, x, groups=groups, running=running)[0]

    def apply(
        self, parameters: Parameters, x: tf.Tensor, *, groups: int = 1, running: bool = False
    ) -> tuple[tf.Tensor, Moments]:
        """Return the outputs, see `__call__`, and the moving averages after each batch, `[T, G, *shape]` each.

        With `running` the moving averages are applied, and none are returned.
        """
        tasks, examples, *shape = x.shape
        weights = [parameters[name] for name in self.parameters]
        shared = [
            given.shape.rank == own.shape.rank for given, own in zip(weights, self.parameters.values(), strict=True)
        ]
        if all(shared) and (running or not self.batch_norm):
            outputs, _ = self._once(weights, tf.reshape(x, (tasks * examples, *shape)), running)
            return tf.reshape(outputs, (tasks, examples, *outputs.shape[1:])), {}
        batches = tf.reshape(x, (tasks, groups, examples // groups, *shape))
        each = []
        for task in range(tasks):
            own = [tf.convert_to_tensor(w) if all(shared) else w[task] for w in weights]
            each.append(self._groups(own, batches[task], running))
        outputs, averages = tf.nest.map_structure(lambda *values: tf.stack(values), *each)
        moments = {} if running else dict(zip(self.running, averages, strict=True))
        return tf.reshape(outputs, (tasks, examples, *outputs.shape[3:])), moments

    def update_running(self, moments: Moments) -> None:
        """Set the moving averages to the mean, over tasks and groups, of those after each batch."""
        for name, values in moments.items():
            self.running[name].assign(tf.reduce_mean(values, axis=[0, 1]))

    def _groups(self, weights: list[tf.Tensor], batches: tf.Tensor, running: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return outputs `[G, N, outputs]` and moving averages `[G, *shape]` of batches `[G, N, *input_shape]`."""
        first = self._once(weights, batches[0], running)
        if batches.shape[0] == 1:
            return tf.nest.map_structure(lambda value: value[None], first)
        signature = tf.nest.map_structure(lambda value: tf.TensorSpec(value.shape, value.dtype), first)
        others = tf.map_fn(lambda x: self._once(weights, x, running), batches[1:], fn_output_signature=signature)
        return tf.nest.map_structure(lambda value, more: tf.concat([value[None], more], axis=0), first, others)

    def _once(self, weights: list[tf.Tensor], batch: tf.Tensor, running: bool) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the outputs of one batch, and the moving averages after it."""
        variables = self.model.non_trainable_variables
        with exact_moments():
            state = [variable.value for variable in variables]
            results = self.model.stateless_call(weights, state, batch, training=not running)
        after = {variable.path: value for variable, value in zip(variables, results[1], strict=True)}
        return tf.cast(results[0], self.dtype), [tf.convert_to_tensor(after[name]) for name in self.running]


@contextmanager
def exact_moments() -> Iterator[None]:
    """Give `tf.nn.moments` its true derivatives of every order inside the block, for layers at any depth."""
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
    """Return the layers of a model in order, with nested models opened."""
    inner = getattr(layer, "layers", None)
    return [layer] if inner is None else [leaf for each in inner for leaf in _leaves(each)]


def _norms(model: keras.Model) -> list[keras.Layer]:
    every = model._flatten_layers(include_self=False)
    return [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]


def stateful_layers(model: keras.Model) -> list[str]:
    """Return the names of layers, batch norm aside, that have variables which are neither trained nor frozen."""
    constant = (keras.layers.BatchNormalization, keras.layers.Normalization)
    return [
        layer.name
        for layer in _leaves(model)
        if layer.trainable and layer.non_trainable_variables and not isinstance(layer, constant)
    ]


def _each_alone(model: keras.Model) -> bool:
    """Return whether each output certainly depends on its own example alone.

    That is known only of models that consist of Keras' own layers, without batch norm.
    """
    for part in model._flatten_layers():
        if isinstance(part, keras.Model):
            operations = part.layers if isinstance(part, keras.Sequential) else getattr(part, "operations", [None])
            own = all(isinstance(operation, keras.Layer) for operation in operations)  # its `call` may do anything
        else:
            own = getattr(keras.layers, type(part).__name__, None) is type(part)
        if not own or isinstance(part, keras.layers.BatchNormalization | keras.layers.Lambda):
            return False
    return True


def plain_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the step size of plain SGD.

    Raises:
        ValueError: The optimizer's step is not -alpha * gradient with a constant alpha.
    """
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
