"""The protocols of learners, and what they learn: the kind of task and its support sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import keras
import tensorflow as tf

from ..datasets.tasks import Episode, Shape
from .metrics import Loss, classification_metrics, cross_entropy, mean_squared_error, regression_metrics
from .workers import WHOLE, Share

Metrics = dict[str, tf.Tensor]
SUPPORT = "support/x"  # name of support images in what `fit` returns


class Problem(NamedTuple):
    """Tell the kind of task to learn, and how batch norm may see the queries."""

    regression: bool
    protocol: Literal["transductive", "inductive"]

    @property
    def loss(self) -> Loss:
        """Return the loss function, which maps outputs and targets to the mean loss of each task, `[T]`."""
        return mean_squared_error if self.regression else cross_entropy

    def metrics(self, outputs: tf.Tensor, targets: tf.Tensor, steps: Sequence[int] = (0,)) -> Metrics:
        """Return the metrics of each task, `[T]` by name.

        Args:
            outputs: Outputs `[R, T, Q, outputs]`, after each of R numbers of inner steps.
            targets: Labels `[T, Q]`, or values `[T, Q, outputs]` in regression.
            steps: The R numbers of inner steps.
        """
        return (regression_metrics if self.regression else classification_metrics)(outputs, targets, steps)


class Support(NamedTuple):
    """Hold the labelled images of T tasks, of which a learner makes a classifier for each.

    Where classes have different numbers of images every class counts alike: its images share the weight of one class.
    """

    x: tf.Tensor  # [T, S, *x]
    y: tf.Tensor  # [T, S] int32, from 0 to way - 1
    way: int | tf.Tensor
    drawn: tf.Tensor  # [T, n] int32, of which alone depends what is random in an adaptation
    balanced: bool  # class after class, with equally many images, as tasks are drawn

    @classmethod
    def of_task(cls, batch: Episode) -> Support:
        """Return the support sets of drawn tasks."""
        return cls(batch.support_x, batch.support_y, batch.classes.shape[1], batch.drawn, True)

    def members(self, dtype: tf.DType) -> tf.Tensor:
        """Return for each image and class 1 / (images of the class) if the image is of it, else 0, `[T, S, way]`."""
        members = tf.one_hot(self.y, self.way, dtype=dtype)
        return tf.math.divide_no_nan(members, tf.reduce_sum(members, axis=1, keepdims=True))

    @property
    def weights(self) -> tf.Tensor | None:
        """Return the weight of each image in a mean over classes, `[T, S]`; None if all are equal."""
        return None if self.balanced else tf.reduce_sum(self.members(self.x.dtype), axis=2)


def support_loss(problem: Problem, outputs: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """Return the loss of each task on images of its support set, `[T]`; `weights` are those of `Support`."""
    return problem.loss(outputs, targets) if weights is None else cross_entropy(outputs, targets, weights)


class Learner(Protocol):
    """Define a method that can be tested on a batch of tasks: an `Episode`, or `Trials`.

    Its steps are traced by `program`, without AutoGraph. They hold no Python state.
    """

    variables: list[tf.Variable]  # all that a checkpoint must keep, the optimizer's state included
    parameters: dict[str, tf.Variable]  # what is meta-learned; none for a classical method

    def evaluate(self, batch: Any) -> Metrics:
        """Return one value per task: tensors whose first axis is T."""
        ...


class TrainedLearner(Learner, Protocol):
    """Define a meta-learner."""

    optimizer: keras.optimizers.Optimizer  # of the meta-parameters

    def train_step(self, batch: Any, share: Share = WHOLE) -> Metrics:
        """Make one meta-update and return scalars, `loss` among them.

        `share` is the part of the meta-batch that `batch` holds. A learner without this argument trains with one worker
        only.
        """
        ...

    def operations(self, shape: Shape) -> int:
        """Return the floating-point operations of one task in a training step, as `operations.py` counts them."""
        ...


class FewShotLearner(TrainedLearner, Protocol):
    """Define a meta-learner whose tasks are episodes."""

    problem: Problem

    def predict(self, batch: Episode) -> tf.Tensor:
        """Return outputs `[R, T, Q, outputs]` for the queries, after each of R recorded numbers of inner steps."""
        ...

    def fit(self, support: Support) -> dict[str, tf.Tensor]:
        """Return all that `classify` needs of support sets, by name, each with a task axis `[T, ...]`."""
        ...

    def classify(self, fitted: Mapping[str, tf.Tensor], query_x: tf.Tensor, way: int | tf.Tensor) -> tf.Tensor:
        """Return the last outputs of `predict`, `[T, Q, outputs]`, for queries `[T, Q, *x]`.

        Args:
            fitted: What `fit` returned.
            query_x: The queries.
            way: The number of classes of each task.
        """
        ...


def classify_with_scores(
    learner: FewShotLearner, fitted: Mapping[str, tf.Tensor], query_x: tf.Tensor, way: int | tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what `classify` returns, and how well each query fits its class, `[T, Q]`: the larger, the better.

    By default the score is the largest logit: a distance or an output of the last layer. The largest probability would
    not tell an image of another class: it stays the same where all distances grow alike. A learner whose logits are
    normalised has a method `classify_with_scores` of its own.
    """
    own = getattr(learner, "classify_with_scores", None)
    if own is not None:
        return own(fitted, query_x, way)
    logits = learner.classify(fitted, query_x, way)
    return logits, tf.reduce_max(logits, axis=-1)
