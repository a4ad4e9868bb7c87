"""The MAML update of a Keras model, traced once and then kept with the model. `maml.maml` is its public form.

    L_i(w; x, y) = loss(model_w(x), y) + sum of model.losses             (of task i; regularisers, add_loss)
    w_i <- w_i - alpha * grad L_i(w_i; support_i)                        (`inner_steps` times, from w_i = w)
    w   <- outer optimizer applied to grad_w (1/T) sum_i L_i(w_i; query_i)

The model is called in training mode, on one batch of one task. After the update each moving average of batch norm is
the mean over tasks of what it became in the call on the queries, with the adapted weights.

What is traced for a model and an outer optimizer is an attribute of the model, in a dictionary with the optimizer as a
weak key. So it ends with the first of the two that ends.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from .metrics import cross_entropy, mean_squared_error
from .networks.keras_network import averages_of, drawing, exact_moments
from .programs import program

KEPT = "_metarun_updates"  # the attribute of a model
MOST_KEPT = 8  # updates of one optimizer, which differ in settings
LOCK = threading.RLock()  # while an update is looked up or made
ZERO = tf.UnconnectedGradients.ZERO
PASSING = {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims"}  # operations that keep the meaning of the numbers
RANDOM = ("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial", "Rng", "StatefulUniform")
RANDOM += ("StatefulStandardNormal", "StatefulTruncatedNormal", "StatefulRandom")


def kept_update(
    model: keras.Model, outer: keras.optimizers.Optimizer, inner_steps: int, first_order: bool, regression: bool
) -> Update:
    """Return the update of the model by the outer optimizer: the one that is kept, if nothing in it has changed.

    Raises:
        ValueError: The model is not built, has no trainable weights, or a layer that keeps a state; or `outer` is not a
            Keras optimizer, or one of other weights; or `inner_steps` is negative.
    """
    if not isinstance(outer, keras.optimizers.Optimizer):
        raise ValueError(f"maml: outer_optimizer is {outer!r}; expected a Keras optimizer, made once before the loop")
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError("maml: build the model first, or call it once on a batch; it has to be a keras.Model")
    if isinstance(inner_steps, bool) or int(inner_steps) != inner_steps or inner_steps < 0:
        raise ValueError(f"maml: inner_steps is {inner_steps!r}; expected a whole number from 0")
    trainable = model.trainable_variables
    if not trainable:
        raise ValueError("maml: the model has no trainable weights")
    every = model._flatten_layers()
    if kept := [layer.name for layer in every if getattr(layer, "stateful", False)]:
        raise ValueError(f"maml: {kept[0]} keeps its state from call to call: leave out stateful=True")
    flags = tuple(layer.trainable for layer in every)
    key = (int(inner_steps), bool(first_order), regression, *map(id, trainable), flags, *_settings(outer))
    with LOCK:
        updates = model.__dict__.setdefault(KEPT, weakref.WeakKeyDictionary()).setdefault(outer, {})
        if key not in updates:
            if not outer.built:
                with tf.init_scope():
                    outer.build(trainable)
            if any(outer._var_key(variable) not in outer._trainable_variables_indices for variable in trainable):
                raise ValueError(
                    "maml: outer_optimizer was built for other weights, of another model or before a layer became "
                    "trainable: make a new one for this model"
                )
            while len(updates) >= MOST_KEPT:
                del updates[next(iter(updates))]
            updates[key] = Update(model, outer, int(inner_steps), bool(first_order), regression)
        return updates[key]


def _outer(reference: weakref.ref[keras.optimizers.Optimizer]) -> keras.optimizers.Optimizer:
    optimizer = reference()
    assert optimizer is not None
    return optimizer


def _settings(optimizer: keras.optimizers.Optimizer) -> tuple[Any, ...]:
    """Return what is fixed in a traced update of an optimizer, such as the norm at which it clips."""
    plain = (int, float, str, type(None), keras.optimizers.schedules.LearningRateSchedule)
    own = [(name, value) for name, value in vars(optimizer).items() if isinstance(value, plain) and name != "built"]
    inner = getattr(optimizer, "inner_optimizer", None)
    return (*own, *(_settings(inner) if inner is not None else ()))


class Update:
    """Update one model by one outer optimizer. A size that differs from call to call is traced as any size."""

    def __init__(
        self,
        model: keras.Model,
        outer: keras.optimizers.Optimizer,
        inner_steps: int,
        first_order: bool,
        regression: bool,
    ):
        self.model, self.inner_steps, self.first_order, self.regression = model, inner_steps, first_order, regression
        self.outer = weakref.ref(outer)  # the caller has it, in every call
        self.trainable, self.averages = model.trainable_variables, averages_of(model)
        self.norms = {id(variable) for variable in self.averages}
        weights = tf.as_dtype(self.trainable[0].dtype)
        self.dtype = tf.float32 if weights.size < 4 else weights
        self.step = program(self._step, reduce_retracing=True)

    def _step(self, alpha: tf.Tensor, tasks: tuple) -> tf.Tensor:
        """Update the model and return the meta-loss before it.

        The tasks are in a loop, whose body is traced once for any number of them.
        """
        like = [tf.TensorSpec((), self.dtype), *self.trainable, *self.averages]
        zeros = [tf.zeros(each.shape, each.dtype) for each in like]
        sums = tf.foldl(lambda sums, task: [*map(tf.add, sums, self._gradient(alpha, task))], tasks, zeros)
        count = tf.shape(tf.nest.flatten(tasks)[0])[0]
        loss, *means = [total / tf.cast(count, total.dtype) for total in sums]
        _outer(self.outer).apply(means[: len(self.trainable)], self.trainable)
        for variable, value in zip(self.averages, means[len(self.trainable) :], strict=True):
            old = tf.convert_to_tensor(variable.value)
            variable.assign(tf.where(tf.math.is_finite(value), value, old))  # else one diverged task spoils it for good
        return loss

    def _gradient(self, alpha: tf.Tensor, task: tuple) -> list[tf.Tensor]:
        """Return the meta-loss of one task, its gradient as the outer optimizer scales it, and the moving averages."""
        support_x, support_y, query_x, query_y = task
        scale = tf.cast(_outer(self.outer).scale_loss(tf.ones(())), self.dtype)
        start = [tf.convert_to_tensor(variable.value) for variable in self.trainable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(start)
            weights = start
            for _ in range(self.inner_steps):
                weights = self._inner_step(alpha, scale, weights, support_x, support_y)
            loss, averages = self._loss(weights, query_x, query_y, "query_y")
            scaled = scale * loss
        gradients = tape.gradient(scaled, start, unconnected_gradients=ZERO)
        _refuse_random_operations()
        return [loss, *map(tf.convert_to_tensor, gradients), *averages]

    def _inner_step(
        self, alpha: tf.Tensor, scale: tf.Tensor, weights: list[tf.Tensor], x: Any, y: tf.Tensor
    ) -> list[tf.Tensor]:
        """Return the weights after a step of SGD, with the constraints that Keras would put on them."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            scaled = scale * self._loss(weights, x, y, "support_y")[0]
        gradients = tape.gradient(scaled, weights, unconnected_gradients=ZERO)
        adapted = []
        for variable, weight, slope in zip(self.trainable, weights, gradients, strict=True):
            slope = tf.convert_to_tensor(slope) / tf.cast(scale, weight.dtype)
            slope = tf.stop_gradient(slope) if self.first_order else slope
            moved = weight - tf.cast(alpha, weight.dtype) * slope
            adapted.append(moved if variable.constraint is None else variable.constraint(moved))
        return adapted

    def _loss(self, weights: list[tf.Tensor], x: Any, y: tf.Tensor, name: str) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the loss of one batch, with the losses of the model, and the moving averages after it."""
        outputs, averages, further = self._call(weights, x)
        if self.regression:
            loss = mean_squared_error_of(outputs, y, name, self.dtype)
        else:
            loss = cross_entropy_of(outputs, y, name, self.dtype)
        for one in further:
            loss += tf.reduce_sum(tf.cast(one, self.dtype))
        return loss, averages

    def _call(self, weights: Sequence[tf.Tensor], x: Any) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Call the model with these weights; return outputs, moving averages after the call, and `model.losses`.

        Raises:
            ValueError: The model draws random numbers, changes another state, or has several outputs.
        """
        variables = [*self.trainable, *self.model.non_trainable_variables]
        others = [tf.convert_to_tensor(variable.value) for variable in variables[len(weights) :]]
        before = [*weights, *others]
        mapping = list(zip(variables, before, strict=True))
        with exact_moments(), keras.StatelessScope(mapping, collect_losses=True) as scope:
            outputs = self.model(x, training=True)
            losses = self.model.losses
        after = {id(variable): scope.get_current_value(variable) for variable in variables}
        changed = [variable for variable, old in mapping if after[id(variable)] is not old]
        if random := drawing(self.model, changed):
            raise ValueError(
                f"maml: remove {random}: it draws random numbers, and an adaptation has to be a function of weights "
                "and examples; or set its rates to 0"
            )
        unknown = [value for key, value in scope.state_mapping.items() if key not in after]
        if any(value.shape == (2,) and value.dtype.is_integer for value in unknown):
            raise ValueError("maml: the model draws random numbers without a seed generator of its own: remove that")
        if kept := [variable.path for variable in changed if id(variable) not in self.norms]:
            raise ValueError(
                f"maml: a call of the model changes {kept[0]}: of what changes in a call, only the moving averages of "
                "BatchNormalization are known here"
            )
        if not tf.is_tensor(outputs):
            raise ValueError(f"maml: the model returns a {type(outputs).__name__}; expected one tensor")
        return outputs, [tf.convert_to_tensor(after[id(average)]) for average in self.averages], losses


def cross_entropy_of(outputs: tf.Tensor, labels: tf.Tensor, name: str, dtype: tf.DType) -> tf.Tensor:
    """Return the mean cross-entropy of one batch, a scalar.

    Args:
        outputs: Logits `[N, classes]`, or what softmax has made of them, whose logits are then taken.
        labels: `[N]` or `[N, 1]` whole numbers, or one-hot `[N, classes]`.
        name: The name of the labels, for messages.
        dtype: The dtype of the result.

    Raises:
        ValueError: Outputs or labels are of another kind.
    """
    logits = tf.cast(logits_of(outputs), dtype)
    classes = logits.shape[-1]
    if logits.shape.rank != 2 or classes == 1:
        raise ValueError(
            f"maml: the model's outputs have shape {_text(logits)}; cross_entropy needs one number for each class, "
            "[N, classes] with 2 classes or more"
        )
    whole, shape = labels.dtype.is_integer, labels.shape
    if whole and shape.rank == 2 and shape[1] == 1:
        labels = tf.squeeze(labels, 1)
    if whole and labels.shape.rank == 1:
        labels = tf.cast(labels, tf.int64)
        told = f"maml: {name} holds a label outside of 0 to {classes - 1}, and the model has {classes} outputs."
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all((labels >= 0) & (labels < classes)), [told])]):
            labels = tf.identity(labels)
        return cross_entropy(logits[None], labels[None])[0]
    if shape.rank == 2 and shape[1] == classes:
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, dtype), logits))
    raise ValueError(
        f"maml: {name} of a task is {labels.dtype.name} of shape {_text(labels)}; expected whole numbers [N], or "
        f"one-hot rows [N, {classes}]"
    )


def mean_squared_error_of(outputs: tf.Tensor, targets: tf.Tensor, name: str, dtype: tf.DType) -> tf.Tensor:
    """Return the mean squared error of one batch, a scalar.

    Args:
        outputs: `[N, ...]`.
        targets: The same shape; an axis of one may be left out or added at the end.
        name: The name of the targets, for messages.
        dtype: The dtype of the result.

    Raises:
        ValueError: The shapes do not fit.
    """
    outputs, targets = tf.cast(outputs, dtype), tf.cast(targets, dtype)
    found, expected = targets.shape.as_list(), outputs.shape.as_list()
    if found + [1] == expected or found == expected + [1]:
        found = expected
    fits = len(found) == len(expected) and all(a == b or None in (a, b) for a, b in zip(found, expected, strict=True))
    if not fits:
        raise ValueError(f"maml: {name} of a task has shape {_text(targets)}, the model's outputs {_text(outputs)}")
    flat = (1, -1, 1)
    return mean_squared_error(tf.reshape(outputs, flat), tf.reshape(targets, flat))[0]


def logits_of(outputs: tf.Tensor) -> tf.Tensor:
    """Return the logits that the outputs are, or that a softmax has made the outputs of.

    Raises:
        ValueError: They are the outputs of a sigmoid, or a softmax is behind something else.
    """
    out = "let the model return logits: leave out its last activation"
    if tf.executing_eagerly():  # Keras keeps what softmax and sigmoid were given
        logits = getattr(outputs, "_keras_logits", None)
        if logits is None:
            return outputs
        if bool(tf.reduce_all(tf.nn.softmax(logits) == outputs)):
            return logits
        raise ValueError(f"maml: the model ends in a sigmoid or softmax; {out}")
    operation, kinds = outputs.op, []
    while operation.type in PASSING:
        kinds.append(operation.type)
        operation = operation.inputs[0].op
    if operation.type == "Sigmoid":
        raise ValueError(f"maml: the model ends in a sigmoid, and cross_entropy is of logits; {out}")
    if operation.type != "Softmax":
        return outputs
    if set(kinds) - {"Identity", "Cast"}:
        raise ValueError(f"maml: the model changes the shape of what softmax returns; {out}")
    return operation.inputs[0]


def checked(tasks: Any) -> tuple[Any, tf.Tensor, Any, tf.Tensor]:
    """Return (support_x, support_y, query_x, query_y) as tensors, each `[T, N, ...]`.

    Args:
        tasks: An `Episode`, or a tuple that begins with these four. Inputs are an array, or a tuple, list or dict of
            arrays where the model has several.

    Raises:
        ValueError: The parts are missing or do not have the same number of tasks and examples, or there are none.
    """
    if not isinstance(tasks, tuple | list) or len(tasks) < 4:
        raise ValueError("maml: tasks has to be an Episode, or a tuple (support_x, support_y, query_x, query_y)")
    parts = []
    for name, x, y in (("support", *tasks[:2]), ("query", *tasks[2:4])):
        several = isinstance(x, dict) or isinstance(x, tuple | list) and all(hasattr(one, "shape") for one in x)
        x = tf.nest.map_structure(tf.convert_to_tensor, x) if several else tf.convert_to_tensor(x)
        parts += [x, tf.convert_to_tensor(y)]
        shapes = [part.shape for part in tf.nest.flatten(parts[-2:])]
        examples = {shape[1] if (shape.rank or 0) > 1 else 0 for shape in shapes} - {None}
        if len(examples) > 1 or 0 in examples:
            told = ", ".join(map(str, shapes))
            raise ValueError(f"maml: {name}_x and {name}_y have shapes {told}; expected [tasks, examples, ...] of both")
    counts = {part.shape[0] for part in tf.nest.flatten(parts)} - {None}
    if len(counts) > 1 or counts == {0}:
        raise ValueError(f"maml: the parts of tasks hold {sorted(counts)} tasks; expected one number, from 1")
    return tuple(parts)


def plain_learning_rate(optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
    """Return the step size of plain SGD as it is now, a scalar.

    Raises:
        ValueError: The optimizer's step is not -alpha * gradient, with an alpha that its steps do not change.
    """
    plain = type(optimizer) is keras.optimizers.SGD
    if not plain:
        found = f"it is {optimizer!r}" if isinstance(optimizer, str) else f"it is a {type(optimizer).__name__}"
    else:
        names = ("momentum", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema")
        names += ("gradient_accumulation_steps",)
        own = [f"{name}={value}" for name in names if (value := getattr(optimizer, name, None))]
        own += (
            []
            if isinstance(optimizer._learning_rate, keras.Variable)
            else ["a schedule (assign to its learning_rate between calls instead)"]
        )
        found = f"it has {', '.join(own)}" if own else ""
    if found:
        raise ValueError(
            f"maml: the inner optimizer must be plain keras.optimizers.SGD (no momentum, clipping, schedule, decay or "
            f"accumulation), since its step is differentiated: {found}"
        )
    return tf.convert_to_tensor(optimizer.learning_rate)


def _refuse_random_operations() -> None:
    """Raise ValueError if the program that is being traced draws random numbers by TensorFlow."""
    if tf.executing_eagerly():
        return
    for operation in tf.compat.v1.get_default_graph().get_operations():
        if operation.type.startswith(RANDOM):
            raise ValueError(
                f"maml: {operation.name} ({operation.type}) draws random numbers, and an adaptation has to be a "
                "function of weights and examples: remove it"
            )


def _text(tensor: tf.Tensor) -> str:
    return str(["N" if size is None else size for size in tensor.shape])
