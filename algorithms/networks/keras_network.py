"""Any Keras model as a `Network`, which makes MAML and Reptile model-agnostic.

The model is applied to one task after another with that task's own weights (`stateless_call`, in training mode). So
layers such as batch normalisation see one task at a time. Their moving averages do not change. The built-in
networks compute the same for all tasks at once, several times faster.

The variance of `tf.nn.moments`, which Keras' normalisations read, stops the gradient of the mean inside it. That is
right to first order and wrong to second. While a model is applied here, the variance is computed without that stop, in
this thread alone.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.ops import nn_impl

from ..programs import program, sizes
from .feedforward import Moments, Parameters

SEED = "seed_generator_state"  # the name that Keras gives the variable of each generator


class KerasNetwork:
    """Make a `Network`, and an `EmbeddingNetwork`, of a built Keras model.

    model     any Keras model; its `BatchNormalization` layers follow the protocol
    seed      seed of a learner's own initial values
    features  width of the model's outputs if they are embeddings

    Raises ValueError for a model that has not been built, that has several inputs, or that draws random numbers, such
    as Dropout. An adaptation must be a function of weights and images alone. Where the inputs of the model are not
    known, random numbers are found at the first call.
    """

    def __init__(self, model: keras.Model, seed: int = 0, features: int = 0):
        if not model.built:
            raise ValueError("KerasNetwork: build the model first, or call it once on a batch")
        self.model, self.seed, self.features = model, seed, features
        weights = [variable.dtype for variable in model.trainable_variables]  # a model may differ from its layers
        self.dtype = tf.as_dtype(weights[0] if weights else model.variable_dtype)
        self.fuse, self.batch_norm = False, not _each_alone(model)
        self.layers = ()  # not counted: a model may do anything
        names = _names([*model.trainable_variables, *model.non_trainable_variables])

        def named(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
            return {names[id(variable)]: variable.value for variable in variables}

        self.parameters = named(model.trainable_variables)
        norms, with_weights = norms_of(model), [layer for layer in _leaves(model) if layer.weights]
        self.norm = frozenset(named(variable for layer in norms for variable in layer.trainable_variables))
        self.head = frozenset(named(variable for layer in with_weights[-1:] for variable in layer.trainable_variables))
        self.averages = averages_of(model)
        self.running = named(self.averages)
        self._try()

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
        tasks, examples, *shape = sizes(x)
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
            state = [tf.convert_to_tensor(variable.value) for variable in variables]
            outputs, results, *_ = self.model.stateless_call(weights, state, batch, training=not running)
        changed = [variable for variable, old, new in zip(variables, state, results, strict=True) if new is not old]
        if random := drawing(self.model, changed):
            raise ValueError(f"KerasNetwork: remove {random}: it draws random numbers; or set its rates to 0")
        after = {id(variable): value for variable, value in zip(variables, results, strict=True)}
        return tf.cast(outputs, self.dtype), [tf.convert_to_tensor(after[id(average)]) for average in self.averages]

    def _try(self) -> None:
        """Trace the model once, if its inputs are known, so that one which draws random numbers is refused now."""
        inputs = getattr(self.model, "inputs", None) or []
        if len(inputs) > 1:
            raise ValueError(f"KerasNetwork: the model has {len(inputs)} inputs; expected one")
        weights = list(self.parameters.values())
        traced = program(lambda x: self._once([tf.convert_to_tensor(weight) for weight in weights], x, False)[0])
        for one in inputs:
            traced.get_concrete_function(tf.TensorSpec((one.shape[0] or 2, *one.shape[1:]), one.dtype))


@contextmanager
def exact_moments() -> Iterator[None]:
    """Give `tf.nn.moments` its true derivatives of every order inside the block, in this thread and nowhere else."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


_exact: ContextVar[bool] = ContextVar("exact", default=False)  # each thread has a value of its own
_tensorflows_moments = nn_impl.moments


@functools.wraps(_tensorflows_moments)
def _moments(x: tf.Tensor, axes: Sequence[int], *arguments: Any, **options: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Return mean and variance: TensorFlow's, or inside `exact_moments` those without a stopped gradient."""
    if not _exact.get():
        return _tensorflows_moments(x, axes, *arguments, **options)
    if x.dtype.size < 4:
        mean, variance = _moments(tf.cast(x, tf.float32), axes, *arguments, **options)
        return tf.cast(mean, x.dtype), tf.cast(variance, x.dtype)
    keepdims = options.get("keep_dims") or options.get("keepdims")
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=keepdims)
    return (mean if keepdims else tf.squeeze(mean, axes)), variance


nn_impl.moments = _moments  # which tf.nn.moments calls; outside of `exact_moments` it is TensorFlow's own


def _leaves(layer: keras.Layer) -> list[keras.Layer]:
    """Return the layers of a model in order, with nested models opened."""
    inner = getattr(layer, "layers", None)
    return [layer] if inner is None else [leaf for each in inner for leaf in _leaves(each)]


def norms_of(model: keras.Model) -> list[keras.Layer]:
    """Return the batch norms of a model, those inside other layers included."""
    every = model._flatten_layers(include_self=False)
    return [layer for layer in every if isinstance(layer, keras.layers.BatchNormalization)]


def averages_of(model: keras.Model) -> list[keras.Variable]:
    """Return the moving averages that a call in training mode changes."""
    return [variable for layer in norms_of(model) if layer.trainable for variable in layer.non_trainable_variables]


def drawing(model: keras.Model, changed: Iterable[keras.Variable]) -> str | None:
    """Return the name of a layer that has drawn random numbers, None if there is none.

    A layer that can draw, such as LSTM with its rates of dropout, has a seed. It has drawn if a call changed the seed.

    Args:
        model: The model.
        changed: The variables that the call has changed.
    """
    seeds = {id(variable) for variable in changed if variable.name == SEED}
    of = ((layer, {id(variable) for variable in layer.non_trainable_variables}) for layer in _leaves(model))
    return next((layer.name for layer, own in of if own & seeds), model.name if seeds else None)


def _names(variables: Iterable[keras.Variable]) -> dict[int, str]:
    """Return a name for each variable, by its id: its path, with a number if layers of equal names share that."""
    names, taken = {}, Counter[str]()
    for variable in variables:
        taken[variable.path] += 1
        number = taken[variable.path]
        names[id(variable)] = variable.path if number == 1 else f"{variable.path}#{number}"
    return names


def stateful_layers(model: keras.Model) -> list[str]:
    """Return the names of layers, batch norm aside, that have variables which are neither trained nor frozen.

    Seeds of random numbers are not among them: a network that draws is refused as such.
    """
    constant = (keras.layers.BatchNormalization, keras.layers.Normalization)
    return [
        layer.name
        for layer in _leaves(model)
        if layer.trainable
        and not isinstance(layer, constant)
        and {variable.name for variable in layer.non_trainable_variables} - {SEED}
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
