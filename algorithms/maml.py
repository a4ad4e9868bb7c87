"""Model-Agnostic Meta-Learning (Finn, Abbeel and Levine 2017, https://arxiv.org/abs/1703.03400).

    theta_i' = theta - alpha * grad_theta L_i(f_theta; support_i)            (one inner step; section 2.2)
    theta <- theta - beta * grad_theta sum_i L_i(f_theta_i'; query_i)        (equation 1, Algorithm 2)

The meta-gradient is exact, through the inner gradients (second order), unless `first_order`, which treats
grad theta_i' as the identity.

Deviations from the paper's code, and why. The inner loss is the mean cross-entropy, so that alpha does not depend on
the number of ways. The code sums over ways: its alpha of 0.4 at 5-way is 2.0 here. The meta-loss is the mean over
queries and, by default, over tasks (Adam is invariant to the factor; `task_reduction: sum` is equation 1). The paper's
protocol is transductive; `inductive` is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import keras
import tensorflow as tf

from ..datasets.tasks import Episode, Shape
from .adaptation import (
    after_steps,
    gradient_descent,
    kept,
    mean_over_chunks,
    outputs_along,
    outputs_of,
    per_task,
    predict_in_parts,
    predict_queries,
    recomputed,
    recorded_steps,
    task_gradients,
)
from .keras_update import checked, kept_update, plain_learning_rate
from .learner import Metrics, Problem, Support, support_loss
from .networks.feedforward import Network, Parameters, Values
from .networks.operations import gradient, gradient_through_gradient, gradient_through_last_gradient
from .optimizers import apply_meta_gradients, state_of
from .options import MAMLOptions
from .programs import program, untouched
from .workers import WHOLE, Share


class MAML:
    """Learn initial weights that adapt in a few gradient steps. The network is a built-in one or any Keras model
    (`KerasNetwork(model)`).
    """

    def __init__(
        self,
        network: Network,
        optimizer: keras.optimizers.Optimizer,
        options: MAMLOptions,
        problem: Problem,
        jit_compile: bool = True,
    ):
        self.network, self.optimizer, self.options, self.problem = network, optimizer, options, problem
        self.parameters = network.parameters
        self.variables = state_of(optimizer, self.parameters)
        self.adapted = adapted_parameters(network, options.adapt)
        test_steps = options.inner_steps if options.test_inner_steps is None else options.test_inner_steps
        self.recorded = recorded_steps(test_steps)
        self.test_lr = options.test_inner_lr or options.inner_lr
        whole = jit_compile and not network.fuse
        self.compiled_gradient = program(self.meta_gradient, jit_compile=whole)
        self.compiled_predict = program(self._predict, jit_compile=whole)

    def train_step(self, batch: Episode, share: Share = WHOLE) -> Metrics:
        """Update the meta-parameters once.

        Returns:
            Scalars: loss and accuracy (or mse) of the queries after adaptation, and support_loss before it (0 without
            inner steps).
        """
        tasks = batch.support_x.shape[0]
        metrics, gradients = share.mean(self.compiled_gradient(batch, share.whole(tasks)), tasks)
        apply_meta_gradients(self.optimizer, self.parameters, gradients)
        return metrics

    def meta_gradient(self, batch: Episode, whole: int | None = None) -> tuple[Metrics, Values]:
        """Return the metrics of a meta-batch and its gradient, `[*shape]` per parameter.

        Args:
            batch: The T tasks that are computed here.
            whole: The number of tasks of the whole meta-batch, whose mean is taken to be that of `batch`; default T.
        """
        tasks = batch.support_x.shape[0]
        limit = self.options.tasks_per_chunk or tasks
        chunk = max(size for size in range(1, min(limit, tasks) + 1) if tasks % size == 0)
        metrics, gradients = mean_over_chunks(self._mean_gradient, batch, chunk)
        if self.options.task_reduction == "sum":
            factor = whole or tasks
            metrics["loss"] *= factor
            gradients = {name: factor * gradient for name, gradient in gradients.items()}
        return metrics, gradients

    def _mean_gradient(self, batch: Episode) -> tuple[Metrics, Values]:
        theta = {name: tf.convert_to_tensor(value) for name, value in self.parameters.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            adapted, support_loss = self.adapt(theta, batch)
            outputs = predict_queries(self.network, adapted, batch.support_x, batch.query_x, self.problem.protocol)
            losses = self.problem.loss(outputs, batch.query_y)  # [T]
            meta_loss = tf.reduce_mean(losses)
        gradients = tape.gradient(meta_loss, theta, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        per_task = {"mse": losses} if self.problem.regression else self.problem.metrics(outputs[None], batch.query_y)
        return self._scalars(meta_loss, support_loss, per_task), gradients

    def adapt(self, theta: Values, batch: Episode) -> tuple[Values, tf.Tensor]:
        """Return theta_i' for each task `[T, *shape]` after `inner_steps`, and the support loss before them `[T]`."""
        parameters = per_task(theta, batch.support_x.shape[0])
        first_loss = tf.zeros(batch.support_x.shape[0], batch.support_x.dtype)

        def inner_step(parameters: Values) -> tuple[Values, tf.Tensor]:
            loss, gradients = self._inner_gradient(parameters, Support.of_task(batch))
            if self.options.first_order:
                gradients = {name: tf.stop_gradient(gradient) for name, gradient in gradients.items()}
            return gradient_descent(parameters, gradients, self.options.inner_lr), loss

        take = recomputed(inner_step) if self.options.recompute_inner else inner_step
        for step in range(self.options.inner_steps):
            parameters, loss = take(parameters)
            first_loss = loss if step == 0 else first_loss
        return parameters, first_loss

    def evaluate(self, batch: Episode) -> Metrics:
        """Return the metrics of each task after the recorded numbers of inner steps."""
        return self.problem.metrics(self.predict(batch), batch.query_y, self.recorded)

    def predict(self, batch: Episode) -> tf.Tensor:
        """Return outputs for the queries after each of the R recorded numbers of inner steps, `[R, T, Q, outputs]`."""
        return self.compiled_predict(batch)

    def _predict(self, batch: Episode) -> tf.Tensor:
        """Compute the outputs `[R, T, Q, outputs]` of `predict`."""

        def predict(parameters: Values) -> tf.Tensor:
            return predict_in_parts(self.network, parameters, batch.support_x, batch.query_x, self.problem.protocol)

        start = per_task(self.parameters, batch.support_x.shape[0])
        return outputs_along(self.recorded, start, self._test_step(Support.of_task(batch)), predict)

    def fit(self, support: Support) -> Values:
        """Return theta_i' of each task after the test's inner steps, `[T, *shape]`, and what batch norm sees."""
        start = per_task(self.parameters, support.x.shape[0])
        adapted = after_steps(self.recorded[-1], start, self._test_step(support))
        return kept(adapted, support.x, self.network, self.problem.protocol)

    def classify(self, fitted: Parameters, query_x: tf.Tensor, way: int | tf.Tensor) -> tf.Tensor:
        """Return outputs `[T, Q, outputs]` of the adapted networks; `way` is that of the last layer."""
        return outputs_of(self.network, fitted, query_x, self.problem.protocol)

    def _test_step(self, support: Support) -> Callable[[tf.Tensor, Values], Values]:
        """Return an inner step of the test, which maps its number and theta_i to the next theta_i."""

        def inner_step(_: tf.Tensor, parameters: Values) -> Values:
            _, gradients = self._inner_gradient(parameters, support)
            return gradient_descent(parameters, gradients, self.test_lr)

        return inner_step

    def operations(self, shape: Shape) -> int:
        """Return the floating-point operations of one task in a training step."""
        supports, queries = shape.way * shape.shot, shape.way * shape.query
        beside = self.problem.protocol == "inductive" and self.network.batch_norm
        seen = queries * (supports + 1) if beside else queries
        if self.options.first_order:
            inner = gradient(self.network.layers)
        elif self.options.adapt == "head":
            inner = gradient_through_last_gradient(self.network.layers)
        else:
            inner = gradient_through_gradient(self.network.layers)
        return self.options.inner_steps * supports * inner + seen * gradient(self.network.layers)

    def _inner_gradient(self, parameters: Values, support: Support) -> tuple[tf.Tensor, Values]:
        def loss(parameters: Values) -> tf.Tensor:
            return support_loss(self.problem, self.network(parameters, support.x), support.y, support.weights)

        return task_gradients(loss, parameters, self.adapted)

    def _scalars(self, loss: tf.Tensor, support_loss: tf.Tensor, per_task: Metrics) -> Metrics:
        name = "mse" if self.problem.regression else "accuracy"
        return {"loss": loss, "support_loss": tf.reduce_mean(support_loss), name: tf.reduce_mean(per_task[name])}


def adapted_parameters(network: Network, adapt: str) -> list[str]:
    """Return the names of the parameters that the inner loop changes, in the network's order.

    Args:
        network: The network.
        adapt: "all", "weights" (all but the scales and offsets of batch norm) or "head" (the last layer).
    """
    chosen = {
        "all": set(network.parameters),
        "weights": set(network.parameters) - network.norm,
        "head": set(network.head),
    }[adapt]
    return [name for name in network.parameters if name in chosen]


@untouched
def maml(
    model: keras.Model,
    inner_optimizer: keras.optimizers.SGD,
    outer_optimizer: keras.optimizers.Optimizer,
    tasks: Episode,
    *,
    inner_steps: int = 1,
    first_order: bool = False,
    loss: str = "cross_entropy",
) -> tf.Tensor:
    """Update the caller's Keras model by one MAML step (Finn et al. 2017, Algorithm 2).

    The gradient is of the mean loss over tasks, through the inner steps. All trainable weights adapt. The model is
    called in training mode, one task at a time. The loss is that of the task plus `model.losses` (regularisers,
    `add_loss`), in the inner steps and after them. Constraints of weights hold after each inner and each outer step.

    The first call traces the update, and what is traced is kept with the model. Later calls run it, also if the sizes
    of the tasks differ. It can be called inside `tf.function`. As with `fit`, a later change of a layer's attributes,
    other than `trainable`, has no effect.

    After the update, each moving average of batch norm is the mean over tasks of what it became in the call on the
    queries, with the adapted weights. `predict` uses them.

        import keras
        from metarun.algorithms.maml import maml
        from metarun.datasets import build
        from metarun.datasets.options import SinusoidOptions
        from metarun.datasets.tasks import Shape

        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(40, "relu"), keras.layers.Dense(1)])
        inner, outer = keras.optimizers.SGD(0.01), keras.optimizers.Adam(1e-3)
        source = build(SinusoidOptions())
        for step in range(10):
            tasks = source.sample("train", 4 * step, 4, Shape(way=1, shot=10, query=10), seed=0)
            loss = maml(model, inner, outer, tasks, loss="mean_squared_error")

    Args:
        model: A built Keras model with one output, without layers that draw random numbers. Of what changes in a call,
            it may have the moving averages of BatchNormalization only.
        inner_optimizer: Plain SGD (no momentum, clipping, schedule); its learning rate is the step size alpha. The rate
            may change from call to call.
        outer_optimizer: Any Keras optimizer, made once before the loop, since its state stays between calls. Its
            clipping, schedule, weight decay and loss scale act as in `fit`.
        tasks: An `Episode` of T tasks, or a tuple of arrays (support_x, support_y, query_x, query_y). Inputs are
            `[T, N, ...]`, or a tuple, list or dict of these if the model has several. Labels are whole numbers `[T, N]`
            or one-hot `[T, N, classes]`; targets have the shape of the outputs.
        inner_steps: The number of inner gradient steps.
        first_order: Whether to drop second derivatives (section 5.2).
        loss: "cross_entropy" or "mean_squared_error". For cross_entropy the model returns logits; of a softmax at its
            end the logits are taken.

    Returns:
        The meta-loss before the update, a scalar, `model.losses` included.

    Raises:
        ValueError: An argument is of another kind, the model is not built, draws random numbers, has several outputs,
            or ends in a sigmoid with cross_entropy; or a label is outside of the classes. The last raises
            tf.errors.InvalidArgumentError inside `tf.function`.
    """
    if loss not in ("cross_entropy", "mean_squared_error"):
        raise ValueError(f"maml: loss is {loss!r}; expected 'cross_entropy' or 'mean_squared_error'")
    alpha, tensors = plain_learning_rate(inner_optimizer), checked(tasks)
    update = kept_update(model, outer_optimizer, inner_steps, first_order, loss == "mean_squared_error")
    try:
        return update.step(alpha, tensors)
    except tf.errors.InvalidArgumentError as error:
        if told := re.search(r"maml: [^.]*", error.message):  # of a label, which only its value shows
            raise ValueError(told[0]) from None
        raise
    except LookupError as error:
        raise ValueError(
            f"maml: an operation of the model has no second derivative ({error}); set first_order=True, or replace it: "
            "LSTM and GRU on a GPU need use_cudnn=False"
        ) from error
