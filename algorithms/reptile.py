"""Reptile (Nichol, Achiam and Schulman 2018, https://arxiv.org/abs/1803.02999).

    theta_i' = k steps of SGD or Adam on task i, starting from theta
    theta <- theta + epsilon * (1/T) sum_i (theta_i' - theta)               (Algorithm 2; Algorithm 1 with `serial`)

epsilon is the learning rate of the outer SGD, whose gradient is theta - mean_i theta_i' (section 2); the paper
anneals it linearly to 0.

Inner Adam has beta1 = 0, so its only state is the second moment v and the step count t. As in the paper's code,
v and t carry over from task to task in training, and every validation or test task starts from the training's values.
Deviation: the code runs the T tasks of a meta-batch one after another, all from the same theta, each from the v of
the task before. Here they run at once, each from the same v, and v then becomes the result of the chain of their T * k
updates. `serial` carries v over exactly, but moves theta after each task: that is Algorithm 1, not the code.

The mini-batches of a task run through the support set in random order, reshuffled after each pass. The order is a
pure function of what the task has drawn, so the same task is always learnt in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from ..datasets.random import TaskKeys
from ..datasets.tasks import Episode, Shape
from .adaptation import (
    after_steps,
    kept,
    outputs_along,
    outputs_of,
    per_task,
    predict_in_parts,
    recorded_steps,
    task_gradients,
)
from .learner import Metrics, Problem, Support, support_loss
from .networks.feedforward import Network, Parameters, Values
from .networks.operations import gradient
from .optimizers import apply_meta_gradients, state_of
from .options import ReptileOptions
from .programs import program, sizes
from .workers import WHOLE, Share

BETA2, EPSILON = 0.999, 1e-8
State = tuple[Values, Values]  # parameters and second moments of each task


class Reptile:
    """Move the weights towards those that are adapted to each task."""

    def __init__(
        self,
        network: Network,
        optimizer: keras.optimizers.Optimizer,
        options: ReptileOptions,
        problem: Problem,
        jit_compile: bool = True,
    ):
        self.network, self.optimizer, self.options, self.problem = network, optimizer, options, problem
        self.parameters = network.parameters
        self.moments = {name: tf.Variable(tf.zeros_like(value)) for name, value in self.parameters.items()}
        self.steps_taken = tf.Variable(0, dtype=tf.int64)
        self.variables = state_of(optimizer, self.parameters, *self.moments.values(), self.steps_taken)
        test_steps = options.inner_steps if options.test_inner_steps is None else options.test_inner_steps
        self.recorded = recorded_steps(test_steps)
        whole = jit_compile and not network.fuse
        self.compiled_learn = program(self.learn, jit_compile=whole)
        self.compiled_predict = program(self._predict, jit_compile=whole)

    def train_step(self, batch: Episode, share: Share = WHOLE) -> Metrics:
        """Update the meta-parameters once.

        Returns:
            Scalars: loss (of the first mini-batches) and loss_after (of the last).

        Raises:
            ValueError: `serial` with several workers, where each task depends on the one before it.
        """
        if not self.options.serial:
            return self._meta_update(batch, share)
        if share.workers.count > 1:
            raise ValueError("serial Reptile cannot be divided among workers")
        tasks = batch.support_x.shape[0]
        each = [self._meta_update(Episode(*(part[task : task + 1] for part in batch)), WHOLE) for task in range(tasks)]
        return {name: tf.add_n([metrics[name] for metrics in each]) / tasks for name in each[0]}

    def _meta_update(self, batch: Episode, share: Share) -> Metrics:
        adapted, moments, losses = self.compiled_learn(batch)
        whole = share.whole(batch.support_x.shape[0])
        weight = 1.0 / whole if self.options.task_reduction == "mean" else 1.0
        gradients = {
            name: weight * tf.reduce_sum(theta - adapted[name], axis=0) for name, theta in self.parameters.items()
        }
        steps = self.options.inner_steps
        added = {name: added_moment(v, moments[name], steps, share.after) for name, v in self.moments.items()}
        metrics = {"loss": tf.reduce_sum(losses[0]) / whole, "loss_after": tf.reduce_sum(losses[-1]) / whole}
        metrics, gradients, added = share.workers.total((metrics, gradients, added))
        for name, variable in self.moments.items():
            variable.assign(BETA2 ** (steps * whole) * variable + added[name])
        self.steps_taken.assign_add(whole * steps)
        apply_meta_gradients(self.optimizer, self.parameters, gradients)
        return metrics

    def learn(self, batch: Episode) -> tuple[Values, Values, tf.Tensor]:
        """Run training's k inner steps on each task.

        Returns:
            theta_i' and the second moments v_i, each `[T, *shape]`, and the mini-batch losses `[k, T]`.
        """
        support = Support.of_task(batch)
        order = self._order(support, self.options.inner_steps, self.options.inner_batch)
        parameters, moments = self._start(support)
        losses = tf.TensorArray(batch.support_x.dtype, self.options.inner_steps, element_shape=(order.shape[0],))

        def step(number: tf.Tensor, parameters: Values, moments: Values, losses: tf.TensorArray):
            parameters, moments, loss = self._inner_step(parameters, moments, support, order, number)
            return number + 1, parameters, moments, losses.write(number, loss)

        steps = self.options.inner_steps
        _, parameters, moments, losses = tf.while_loop(
            lambda number, *_: number < steps, step, (0, parameters, moments, losses), maximum_iterations=steps
        )
        return parameters, moments, losses.stack()

    def evaluate(self, batch: Episode) -> Metrics:
        """Return the metrics of each task after the recorded numbers of inner steps."""
        return self.problem.metrics(self.predict(batch), batch.query_y, self.recorded)

    def predict(self, batch: Episode) -> tf.Tensor:
        """Return outputs for the queries after each of the R recorded numbers of inner steps, `[R, T, Q, outputs]`."""
        return self.compiled_predict(batch)

    def _predict(self, batch: Episode) -> tf.Tensor:
        """Compute the outputs `[R, T, Q, outputs]` of `predict`."""

        def predict(state: State) -> tf.Tensor:
            return predict_in_parts(self.network, state[0], batch.support_x, batch.query_x, self.problem.protocol)

        support = Support.of_task(batch)
        return outputs_along(self.recorded, self._start(support), self._test_step(support), predict)

    def fit(self, support: Support) -> Values:
        """Return theta_i' of each task after the test's inner steps, `[T, *shape]`, and what batch norm sees."""
        adapted, _ = after_steps(self.recorded[-1], self._start(support), self._test_step(support))
        return kept(adapted, support.x, self.network, self.problem.protocol)

    def classify(self, fitted: Parameters, query_x: tf.Tensor, way: int | tf.Tensor) -> tf.Tensor:
        """Return outputs `[T, Q, outputs]` of the adapted networks; `way` is that of the last layer."""
        return outputs_of(self.network, fitted, query_x, self.problem.protocol)

    def _test_step(self, support: Support) -> Callable[[tf.Tensor, State], State]:
        """Return an inner step of the test, which maps its number and state to the next state."""
        order = self._order(support, self.recorded[-1], self.options.test_inner_batch or self.options.inner_batch)

        def inner_step(number: tf.Tensor, state: State) -> State:
            parameters, moments, _ = self._inner_step(*state, support, order, number)
            return parameters, moments

        return inner_step

    def operations(self, shape: Shape) -> int:
        """Return the floating-point operations of one task in a training step."""
        return self.options.inner_steps * self.options.inner_batch * gradient(self.network.layers)

    def _start(self, support: Support) -> State:
        tasks = support.x.shape[0]
        return per_task(self.parameters, tasks), per_task(self.moments, tasks)

    def _order(self, support: Support, steps: int, size: int) -> tf.Tensor:
        """Return the support rows of each mini-batch, int32 `[T, steps, size]`, reshuffled for each pass."""
        tasks, supports = sizes(support.x)[:2]
        passes = -(-steps * size // supports)
        shuffled = TaskKeys.of_drawn(support.drawn).distinct("mini-batches", supports, supports, passes)
        rows = tf.reshape(shuffled, (tasks, passes * supports))[:, : steps * size]
        return tf.reshape(rows, (tasks, steps, size))

    def _inner_step(
        self, parameters: Values, moments: Values, support: Support, order: tf.Tensor, number: tf.Tensor
    ) -> tuple[Values, Values, tf.Tensor]:
        """Return new parameters and second moments after step `number` (from 0), and the losses `[T]` before it."""
        rows = tf.gather(order, number, axis=1)  # [T, size]
        x = tf.gather(support.x, rows, batch_dims=1)
        y = tf.gather(support.y, rows, batch_dims=1)
        weights = None if support.weights is None else tf.gather(support.weights, rows, batch_dims=1)

        def loss(parameters: Values) -> tf.Tensor:
            return support_loss(self.problem, self.network(parameters, x), y, weights)

        losses, gradients = task_gradients(loss, parameters, list(parameters))
        rate = tf.constant(self.options.inner_lr, x.dtype)
        if self.options.inner_optimizer == "sgd":
            return {name: parameters[name] - rate * gradients[name] for name in parameters}, moments, losses
        time = tf.cast(self.steps_taken + tf.cast(number, tf.int64) + 1, x.dtype)
        rate *= tf.sqrt(-tf.math.expm1(time * tf.constant(math.log(BETA2), x.dtype)))  # sqrt(1 - BETA2^t)
        moments = {name: BETA2 * v + (1 - BETA2) * tf.square(gradients[name]) for name, v in moments.items()}
        moved = {
            name: parameters[name] - rate * gradients[name] / (tf.sqrt(moments[name]) + EPSILON) for name in parameters
        }
        return moved, moments, losses


def added_moment(before: tf.Tensor | tf.Variable, after: tf.Tensor, steps: int, behind: int = 0) -> tf.Tensor:
    """Return what T consecutive tasks add to the second moment of the chain.

    A task with `steps` updates maps v to BETA2^steps * v + a_i, where a_i = after_i - BETA2^steps * before. The chain
    over T tasks is sum_i BETA2^(steps * (T - 1 - i)) * a_i + BETA2^(steps * T) * before.

    Args:
        before: The second moment `[...]` from which every task starts.
        after: The second moments `[T, ...]` after each task.
        steps: The number of updates per task.
        behind: The number of tasks of the chain that follow these T.
    """
    decay = BETA2**steps
    tasks = after.shape[0]
    powers = tf.constant([decay ** (behind + tasks - 1 - i) for i in range(tasks)], after.dtype)
    return tf.tensordot(powers, after - decay * before, axes=1)
