"""The outer optimizer: its learning rate, its updates of the meta-parameters, and its state."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .optimizer_options import OptimizerOptions


class Stepwise(keras.optimizers.schedules.LearningRateSchedule):
    """Change the rate between training steps of several updates each, not within one."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, updates: int):
        self.schedule, self.updates = schedule, updates

    def __call__(self, step: tf.Tensor | tf.Variable) -> tf.Tensor:
        return self.schedule(step // self.updates)


def outer_optimizer(options: OptimizerOptions, steps: int, updates: int = 1) -> keras.optimizers.Optimizer:
    """Return the optimizer of the meta-parameters, with its schedule.

    Args:
        options: The section `optimizer` of the spec.
        steps: The length of the training.
        updates: Updates in each step. The learning rate changes between steps, not between updates.
    """
    rate: Any = options.learning_rate
    schedules = keras.optimizers.schedules
    if options.schedule == "linear":
        rate = schedules.PolynomialDecay(rate, steps, options.final_learning_rate or 0.0)
    elif options.schedule == "cosine":
        rate = schedules.CosineDecay(rate, steps, (options.final_learning_rate or 0.0) / rate)
    elif options.schedule == "step":
        every, factor = options.decay_every or steps, options.decay_factor or 0.5
        rate = schedules.ExponentialDecay(rate, every, factor, staircase=True)
    if updates > 1 and options.schedule != "constant":
        rate = Stepwise(rate, updates)
    clip: dict[str, Any] = {"clipvalue": options.clip_value, "global_clipnorm": options.clip_norm}
    if options.name == "adam":
        return keras.optimizers.Adam(rate, epsilon=1e-8, **clip)
    return keras.optimizers.SGD(rate, **clip)


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
