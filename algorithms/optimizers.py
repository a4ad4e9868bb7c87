"""The outer optimizer: its learning rate, its updates of the meta-parameters, and its state.

Plain SGD, and Adam without weight decay, are those of Keras. Momentum and weight decay are written out here as PyTorch
has them, because the published recipes are PyTorch's. Keras differs from it in four points: its velocity holds the
learning rate, so that after a cut of the rate the old gradients keep the old rate; SGD has no dampening; every weight
decay is decoupled; and Adam's epsilon is added to the root before the correction of its bias.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any

import keras
import tensorflow as tf

from .optimizer_options import DECAY_FACTOR, OptimizerOptions

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam


class Decaying(keras.optimizers.Optimizer):
    """Hold what SGD and Adam share: weight decay of all variables but some."""

    def __init__(self, learning_rate: Any, decay: float, undecayed: Collection[tf.Variable], **clip: Any):
        """Set the weight decay.

        Args:
            learning_rate: The learning rate, or its schedule.
            decay: The factor of the weights.
            undecayed: Variables that are not decayed.
            clip: Limits of the gradients, as Keras takes them. They are clipped before the decay is added.
        """
        super().__init__(learning_rate, **clip)
        self.decay, self.undecayed = decay, frozenset(map(id, undecayed))

    def decay_of(self, variable: tf.Variable) -> float:
        """Return the factor of a variable, 0 if it is not decayed."""
        return 0.0 if id(variable) in self.undecayed else self.decay

    def decayed(self, gradient: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
        """Return the gradient with that of the coupled decay: g + decay * w."""
        gradient = tf.convert_to_tensor(gradient)
        return gradient + decay * variable if (decay := self.decay_of(variable)) else gradient


class SGD(Decaying):
    """Update with momentum and coupled weight decay, as PyTorch's SGD does.

        g_t = gradient + decay * w
        v_1 = g_1,   v_t = momentum * v_{t-1} + (1 - dampening) * g_t
        w <- w - lr_t * v_t,   with nesterov: w <- w - lr_t * (g_t + momentum * v_t)

    The first velocity is not dampened. No velocity holds a learning rate.
    """

    def __init__(self, learning_rate: Any, options: OptimizerOptions, undecayed: Collection[tf.Variable], **clip: Any):
        super().__init__(learning_rate, options.weight_decay or 0.0, undecayed, **clip)
        self.momentum, self.dampening = options.momentum or 0.0, options.dampening or 0.0
        self.nesterov = bool(options.nesterov)

    def build(self, variables: Sequence[tf.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity") if self.momentum else []

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable and its velocity."""
        rate, step = tf.cast(learning_rate, variable.dtype), self.decayed(gradient, variable)
        if self.momentum:
            velocity = self.velocities[self._get_variable_index(variable)].value
            moved = self.momentum * velocity + self._weight(step.dtype) * step
            velocity.assign(moved)
            step = step + self.momentum * moved if self.nesterov else moved
        variable.assign_sub(rate * step)

    def _weight(self, dtype: tf.DType) -> tf.Tensor:
        """Return the weight of the gradient in the velocity: 1 at the first update, then 1 - dampening."""
        first = tf.equal(tf.convert_to_tensor(self.iterations), 0)
        return tf.where(first, tf.ones((), dtype), tf.constant(1 - self.dampening, dtype))


class Adam(Decaying):
    """Update by Adam with weight decay: coupled as in PyTorch's Adam, or decoupled as in its AdamW.

        adam   g = gradient + decay * w
        adamw  g = gradient,   w <- w - lr_t * decay * w
        m <- beta_1 m + (1 - beta_1) g,   s <- beta_2 s + (1 - beta_2) g^2
        w <- w - lr_t * m / (1 - beta_1^t) / (sqrt(s / (1 - beta_2^t)) + epsilon)

    Adam: Kingma and Ba 2015, arXiv:1412.6980; AdamW: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    def __init__(self, learning_rate: Any, options: OptimizerOptions, undecayed: Collection[tf.Variable], **clip: Any):
        super().__init__(learning_rate, options.weight_decay or 0.0, undecayed, **clip)
        self.decoupled, self.epsilon = options.name == "adamw", options.epsilon or EPSILON

    def build(self, variables: Sequence[tf.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.means, self.squares = self.add_optimizer_variables(variables, ["mean", "square"])

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable and its two moments."""
        rate, time = tf.cast(learning_rate, variable.dtype), tf.cast(self.iterations, variable.dtype) + 1
        if not self.decoupled:
            gradient = self.decayed(gradient, variable)
        elif decay := self.decay_of(variable):
            variable.assign_sub(rate * decay * variable)
        number = self._get_variable_index(variable)
        mean, square = self.means[number].value, self.squares[number].value
        mean.assign(m := BETA1 * mean + (1 - BETA1) * gradient)
        square.assign(s := BETA2 * square + (1 - BETA2) * tf.square(gradient))
        root = tf.sqrt(s / _share_seen(BETA2, time))
        variable.assign_sub(rate * m / _share_seen(BETA1, time) / (root + self.epsilon))


def _share_seen(beta: float, time: tf.Tensor) -> tf.Tensor:
    """Return 1 - beta^time, the sum of the weights of the gradients in a running mean that started at 0."""
    return -tf.math.expm1(time * tf.constant(math.log(beta), time.dtype))


class Stepwise(keras.optimizers.schedules.LearningRateSchedule):
    """Change the rate between training steps of several updates each, not within one."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, updates: int):
        self.schedule, self.updates = schedule, updates

    def __call__(self, step: tf.Tensor | tf.Variable) -> tf.Tensor:
        return self.schedule(step // self.updates)


def outer_optimizer(
    options: OptimizerOptions, steps: int, updates: int = 1, undecayed: Collection[tf.Variable] = ()
) -> keras.optimizers.Optimizer:
    """Return the optimizer of the meta-parameters, with its schedule.

    Args:
        options: The section `optimizer` of the spec.
        steps: The length of the training.
        updates: Updates in each step. The learning rate changes between steps, not between updates.
        undecayed: Parameters that weight decay leaves out.
    """
    rate: Any = options.learning_rate
    schedules = keras.optimizers.schedules
    if options.schedule == "linear":
        rate = schedules.PolynomialDecay(rate, steps, options.final_learning_rate or 0.0)
    elif options.schedule == "cosine":
        rate = schedules.CosineDecay(rate, steps, (options.final_learning_rate or 0.0) / rate)
    elif options.schedule == "step" and options.decay_steps:
        rates = accumulate([rate, *options.decays.values()], operator.mul)
        rate = schedules.PiecewiseConstantDecay([step - 1 for step in options.decays], list(rates))
    elif options.schedule == "step":
        every, factor = options.decay_every or steps, options.decay_factor or DECAY_FACTOR
        rate = schedules.ExponentialDecay(rate, every, factor, staircase=True)
    if updates > 1 and options.schedule != "constant":
        rate = Stepwise(rate, updates)
    clip: dict[str, Any] = {"clipvalue": options.clip_value, "global_clipnorm": options.clip_norm}
    if options.name == "sgd" and not (options.momentum or options.weight_decay):
        return keras.optimizers.SGD(rate, **clip)
    if options.name == "adam" and not options.weight_decay:
        return keras.optimizers.Adam(rate, epsilon=options.epsilon or EPSILON, **clip)
    return (SGD if options.name == "sgd" else Adam)(rate, options, undecayed, **clip)


def apply_meta_gradients(
    optimizer: keras.optimizers.Optimizer, parameters: dict[str, tf.Variable], gradients: dict[str, tf.Tensor]
) -> None:
    """Apply the gradients of the parameters, by name, in one step of the outer optimizer."""
    optimizer.apply([gradients[name] for name in parameters], list(parameters.values()))


def state_of(
    optimizer: keras.optimizers.Optimizer, parameters: dict[str, tf.Variable], *more: tf.Variable
) -> list[tf.Variable]:
    """Return the variables that a checkpoint keeps, in a fixed order: parameters, `more`, the optimizer's state.

    Builds the optimizer.
    """
    optimizer.build(list(parameters.values()))
    return [*parameters.values(), *more, *(variable.value for variable in optimizer.variables)]
