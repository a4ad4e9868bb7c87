"""Training and evaluation of learners whose network ends in an embedding, and of those that compare embeddings."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from ..datasets.random import TaskKeys
from ..datasets.tasks import Episode, Shape
from .learner import SUPPORT, Metrics, Problem, Support
from .metrics import cross_entropy, right_answers
from .networks.feedforward import EmbeddingNetwork, Moments, Parameters
from .networks.operations import forward, gradient
from .optimizers import apply_meta_gradients, state_of
from .options import Options
from .programs import compiled, sizes
from .workers import WHOLE, Share

MEMBERS = "support/members"  # which image is of which class, see `Support.members`


class FeatureLearner(abc.ABC):
    """Hold what learners share whose network ends in an embedding: the network, the optimizer, and a training step."""

    def __init__(
        self,
        network: EmbeddingNetwork,
        optimizer: keras.optimizers.Optimizer,
        options: Options,
        problem: Problem,
    ):
        """Build the learner.

        Args:
            network: The embedding network, without a last layer.
            optimizer: The outer optimizer.
            options: The algorithm's section of the spec.
            problem: The kind of task and the protocol of batch norm.

        Raises:
            ValueError: The problem is a regression.
        """
        if problem.regression:
            raise ValueError("learners that compare embeddings cannot do regression")
        self.network, self.optimizer, self.options, self.problem = network, optimizer, options, problem
        self.own = self.own_parameters()
        self.parameters = dict(network.parameters) | self.own
        self.variables = state_of(optimizer, self.parameters, *network.running.values(), *self.kept())

    def own_parameters(self) -> dict[str, tf.Variable]:
        """Return the parameters besides the embedding's; by default none."""
        return {}

    def kept(self) -> list[tf.Variable]:
        """Return further variables that a checkpoint keeps and no gradient changes; by default none."""
        return []

    def evaluate(self, batch: Episode) -> Metrics:
        """Return the metrics of each task under the protocol."""
        return self.problem.metrics(self.predict(batch), batch.query_y)

    @abc.abstractmethod
    def predict(self, batch: Episode) -> tf.Tensor:
        """Return class scores of the queries under the protocol, `[1, T, Q, way]`; there are no inner steps."""

    def embed(self, batch: Episode) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the embeddings of supports `[T, S, D]` and queries `[T, Q, D]` under the protocol."""
        return self.embed_images(batch.support_x, batch.query_x)

    def embed_images(self, support_x: tf.Tensor, query_x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return what `embed` returns for a task with these images."""
        running = self.problem.protocol == "inductive"
        supports, queries, _ = self._embedded(support_x, query_x, running)
        return supports, queries

    def _update(self, forward: Callable[[], tuple[tf.Tensor, tf.Tensor, Moments]], share: Share, items: int) -> Metrics:
        """Update the parameters and the running averages once.

        Args:
            forward: Returns the loss, which answers are right, and the moments of batch norm.
            share: The part of the meta-batch that this worker has.
            items: Its number of tasks, or of images.

        Returns:
            Scalars before the update: loss and accuracy.
        """
        with tf.GradientTape() as tape:
            loss, right, moments = forward()
        gradients = tape.gradient(loss, self.parameters)
        metrics = {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(right, loss.dtype))}
        moments = {name: tf.reduce_mean(value, axis=[0, 1], keepdims=True) for name, value in moments.items()}
        metrics, gradients, moments = share.mean((metrics, gradients, moments), items)
        apply_meta_gradients(self.optimizer, self.parameters, gradients)
        self.network.update_running(moments)
        return metrics

    def _embedded(
        self, support_x: tf.Tensor, query_x: tf.Tensor, running: bool, noise: TaskKeys | None = None
    ) -> tuple[tf.Tensor, tf.Tensor, Moments]:
        """Pass support and queries through the network as one batch; `noise` decides what a training step drops."""
        supports = sizes(support_x)[1]
        images = tf.concat([support_x, query_x], axis=1)  # [T, S + Q, *x]
        dropping: dict[str, Any] = {} if noise is None else {"noise": noise}
        embedded, moments = self.network.apply(self.network.parameters, images, running=running, **dropping)
        return embedded[:, :supports], embedded[:, supports:], moments


class EmbeddingLearner(FeatureLearner):
    """Learn an embedding: class scores are a function of the embeddings of support and queries.

    A subclass defines `summary` and `compare`, or `logits`, which joins them, and registers itself with
    `Algorithm(options, learner, has_head=False)`. Training, test, checkpoints, many workers and compiling are done
    here. What a subclass must know:

    dtypes     Embeddings, `own` parameters and `logits` have `self.network.dtype`: float64 with `precision: float64`,
               float32 otherwise. Make constants of that dtype, for example `tf.cast(1, supports.dtype)`.
    protocol   Is applied before `logits`, to batch norm: training uses the batch of support and queries of each task.
               The test uses running averages (inductive) or that batch (transductive). With inductive, the logits of a
               query must not depend on other queries.
    tracing    They are traced without AutoGraph and compiled with XLA (`jit`). They must be pure functions of their
               arguments and `self.options`, with derivatives, and write conditions on values with tf.cond or tf.where.
    parameters Those that `own_parameters` returns are trained and kept in checkpoints. Take their first values from
               `self.network.seed + 1`, `+ 2`, ..., so that the seed of the run decides them.
    """

    def __init__(
        self,
        network: EmbeddingNetwork,
        optimizer: keras.optimizers.Optimizer,
        options: Options,
        problem: Problem,
        jit_compile: bool = True,
    ):
        """Build the learner, see `FeatureLearner`; with `jit_compile` XLA compiles the comparison."""
        super().__init__(network, optimizer, options, problem)
        self._compare = functools.cache(self._program) if jit_compile else self._plain

    def logits(self, own: Parameters, supports: tf.Tensor, queries: tf.Tensor, way: int) -> tf.Tensor:
        """Return unnormalised log-probabilities `[T, Q, way]`.

        Args:
            own: The values of the parameters besides the embedding's.
            supports: Support embeddings `[T, S, D]`, class-major.
            queries: Query embeddings `[T, Q, D]`.
            way: The number of classes per task.
        """
        return self.compare(own, self.summary(own, supports, None, way), queries, way)

    def summary(
        self, own: Parameters, supports: tf.Tensor, members: tf.Tensor | None, way: int | tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Return what `compare` needs of the support sets, by name, each with a task axis.

        Args:
            own: The values of the parameters besides the embedding's.
            supports: Support embeddings `[T, S, D]`.
            members: Of images in any order, in classes of any size: 1 / (images of the class) for an image of the
                class, otherwise 0, `[T, S, way]`. None: the embeddings are class-major, equally many of each class.
            way: The number of classes per task.
        """
        if members is not None:
            raise ValueError(f"{type(self).__name__} takes equally many images of each class")
        return {"supports": supports}

    def compare(
        self, own: Parameters, known: Mapping[str, tf.Tensor], queries: tf.Tensor, way: int | tf.Tensor
    ) -> tf.Tensor:
        """Return the logits `[T, Q, way]` of query embeddings `[T, Q, D]`, given the `summary` of the support sets."""
        return self.logits(own, known["supports"], queries, way)  # pyright: ignore[reportArgumentType]

    def train_step(self, batch: Episode, share: Share = WHOLE) -> Metrics:
        """Update the parameters once on the mean over tasks and queries of -log p(y | x).

        Returns:
            Scalars before the update: loss and accuracy.
        """
        noise = TaskKeys.of_drawn(batch.drawn) if getattr(self.network, "drops", False) else None

        def forward() -> tuple[tf.Tensor, tf.Tensor, Moments]:
            logits, moments = self._forward(batch, running=False, noise=noise)
            loss = tf.reduce_mean(cross_entropy(logits, batch.query_y))
            return loss, right_answers(logits, batch.query_y), moments

        return self._update(forward, share, batch.support_x.shape[0])

    def predict(self, batch: Episode) -> tf.Tensor:
        """Return class scores of the queries under the protocol, `[1, T, Q, way]`; there are no inner steps."""
        logits, _ = self._forward(batch, running=self.problem.protocol == "inductive")
        return logits[None]

    def fit(self, support: Support) -> dict[str, tf.Tensor]:
        """Return the `summary` of support sets; transductive, where batch norm needs them whole: their images."""
        members = None if support.balanced else support.members(self.network.dtype)
        if self.problem.protocol == "transductive":
            return {SUPPORT: support.x} | ({} if members is None else {MEMBERS: members})
        embedded = self.network(self.network.parameters, support.x, running=True)
        return self.summary(self.own, embedded, members, support.way)

    def classify(self, fitted: Mapping[str, tf.Tensor], query_x: tf.Tensor, way: int | tf.Tensor) -> tf.Tensor:
        """Return the logits `[T, Q, way]` of queries `[T, Q, *x]`, given what `fit` returned."""
        known, queries = self._compared(fitted, query_x, way)
        return self.compare(self.own, known, queries, way)

    def classify_with_scores(
        self, fitted: Mapping[str, tf.Tensor], query_x: tf.Tensor, way: int | tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return logits as `classify` does, and the `score` of each query, `[T, Q]`."""
        known, queries = self._compared(fitted, query_x, way)
        logits = self.compare(self.own, known, queries, way)
        return logits, self.score(self.own, known, queries, logits)

    def score(
        self, own: Parameters, known: Mapping[str, tf.Tensor], queries: tf.Tensor, logits: tf.Tensor
    ) -> tf.Tensor:
        """Return how well queries `[T, Q, D]` fit their class, `[T, Q]`: by default their largest logit."""
        return tf.reduce_max(logits, axis=-1)

    def _compared(
        self, fitted: Mapping[str, tf.Tensor], query_x: tf.Tensor, way: int | tf.Tensor
    ) -> tuple[Mapping[str, tf.Tensor], tf.Tensor]:
        """Return the `summary` of the support sets and the embeddings of queries `[T, Q, D]`."""
        if SUPPORT not in fitted:
            return fitted, self.network(self.network.parameters, query_x, running=True)
        supports, queries, _ = self._embedded(fitted[SUPPORT], query_x, running=False)
        return self.summary(self.own, supports, fitted.get(MEMBERS), way), queries

    def operations(self, shape: Shape) -> int:
        """Return the floating-point operations of one task in a training step."""
        supports, queries = shape.way * shape.shot, shape.way * shape.query
        own = 3 * forward([self.comparison(shape.way, supports, queries)])
        return (supports + queries) * gradient(self.network.layers) + own

    def comparison(self, way: int, supports: int, queries: int) -> int:
        """Return the multiply-adds of `logits` for one task, for `metarun benchmark`; 0, not counted, by default."""
        return 0

    def _forward(self, batch: Episode, running: bool, noise: TaskKeys | None = None) -> tuple[tf.Tensor, Moments]:
        supports, queries, moments = self._embedded(batch.support_x, batch.query_x, running, noise)
        values = [tf.convert_to_tensor(value) for value in self.own.values()]
        return self._compare(batch.classes.shape[1])(supports, queries, *values), moments

    def _plain(self, way: int) -> Callable[..., tf.Tensor]:
        def compare(supports: tf.Tensor, queries: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
            return self.logits(dict(zip(self.own, values, strict=True)), supports, queries, way)

        return compare

    def _program(self, way: int) -> Callable[..., tf.Tensor]:
        return compiled(self._plain(way))


def squared_distances(queries: tf.Tensor, prototypes: tf.Tensor) -> tf.Tensor:
    """Return squared Euclidean distances `[T, Q, P]` of queries `[T, Q, D]` from prototypes `[T, P, D]`."""
    return tf.reduce_sum(tf.math.squared_difference(queries[:, :, None], prototypes[:, None]), axis=-1)


def cosine_similarities(queries: tf.Tensor, supports: tf.Tensor) -> tf.Tensor:
    """Return cosines `[T, Q, P]` of queries `[T, Q, D]` and supports `[T, P, D]`, in [-1, 1]; 0 for a zero vector."""
    unit_queries = tf.math.l2_normalize(queries, axis=-1)
    return tf.matmul(unit_queries, tf.math.l2_normalize(supports, axis=-1), transpose_b=True)
