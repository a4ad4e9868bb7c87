"""Training and test of methods that train one classifier of all training classes, without episodes.

A training step takes a mini-batch of `train.meta_batch` images from shuffled epochs. The test leaves the network as it
is: a head (`heads/`) makes a classifier of each task from features of its support set, which batch norm's running
averages normalise (inductive).
"""

from __future__ import annotations

import abc
from typing import Any

import keras
import tensorflow as tf

from ..datasets.random import TaskKeys
from ..datasets.tasks import LabelledImages, Shape
from . import heads
from .embedding import FeatureLearner
from .heads.learner import HeadLearner, embedding
from .learner import Metrics, Problem
from .metrics import right_answers
from .networks.feedforward import EmbeddingNetwork, Moments, Parameters
from .networks.operations import forward, gradient
from .options import ClassifierOptions
from .workers import WHOLE, Share


class Classifier(HeadLearner, FeatureLearner):
    """Train features by classifying all training classes; `options.head` tests them. A subclass defines the classes'
    layer.
    """

    options: Any  # ClassifierOptions, or those of a subclass

    def __init__(
        self,
        network: EmbeddingNetwork,
        optimizer: keras.optimizers.Optimizer,
        options: ClassifierOptions,
        problem: Problem,
        jit_compile: bool = True,
        *,
        classes: int,
    ):
        """Build the learner, see `FeatureLearner`.

        Raises:
            ValueError: There are more training classes, `classes`, than `options.outputs`.
        """
        self.outputs = options.outputs or classes
        if self.outputs < classes:
            raise ValueError(f"algorithm.outputs is {self.outputs}, fewer than the {classes} training classes")
        own = options.head  # pyright: ignore[reportAttributeAccessIssue]
        self.head = heads.build(own)
        self.mean = tf.Variable(tf.zeros(network.features, network.dtype)) if own.name == "centroid" else None
        super().__init__(network, optimizer, options, problem)

    @abc.abstractmethod
    def class_logits(self, own: Parameters, features: tf.Tensor) -> tf.Tensor:
        """Return the logits of all training classes, `[G, N, outputs]`, from features `[G, N, D]`."""

    def kept(self) -> list[tf.Variable]:
        """Return the mean feature of the training images for a centroid head, also one that does not subtract it.

        So a checkpoint does not depend on `head.features`, which is no part of the training.
        """
        return [] if self.mean is None else [self.mean]

    def train_step(self, batch: LabelledImages, share: Share = WHOLE) -> Metrics:
        """Update the parameters once on the mean over images of -log p(y | x).

        Returns:
            Scalars before the update: loss and accuracy, over all training classes.
        """
        groups = (self.options.norm_groups or 1) // share.workers.count or 1  # each as a task of its own
        x, labels, drawn = (tf.reshape(each, (groups, -1, *each.shape[1:])) for each in batch)
        drops = getattr(self.network, "drops", False)
        dropping: dict[str, Any] = {"noise": TaskKeys.of_drawn(tf.reshape(drawn, (groups, -1)))} if drops else {}

        def loss() -> tuple[tf.Tensor, tf.Tensor, Moments]:
            features, moments = self.network.apply(self.network.parameters, x, **dropping)
            logits = self.class_logits(self.own, features)
            return tf.reduce_mean(self._losses(labels, logits)), right_answers(logits, labels), moments

        return self._update(loss, share, batch.y.shape[0])

    def _losses(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Return the cross-entropy of each image; with smoothing s labels are (1 - s) one-hot + s / outputs."""
        smoothing = self.options.label_smoothing
        if smoothing is None:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        smooth = (1 - smoothing) * tf.one_hot(labels, self.outputs, dtype=logits.dtype) + smoothing / self.outputs
        return tf.nn.softmax_cross_entropy_with_logits(smooth, logits)

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Return features under batch norm's running averages, `[T, N, *x]` -> `[T, N, D]`."""
        return embedding(self, x)

    def operations(self, shape: Shape) -> int:
        """Return the floating-point operations of one image in a training step."""
        return gradient(self.network.layers) + 3 * forward([self.network.features * self.outputs])
