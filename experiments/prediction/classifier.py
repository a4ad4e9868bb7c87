"""Classify images by a support set, one image after the other, so that none depends on the others of the call.

With the inductive protocol every image passes the network in a program of its own shape: a batch of one. Kernels for
many images block and sum in other orders, so the last bits of one image would depend on how many there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...algorithms.embedding import EmbeddingLearner
from ...algorithms.learner import Support, classify_with_scores
from ...algorithms.programs import program
from ..errors import RunError
from .files import SupportImages
from .model import TrainedModel

DRAWN = np.zeros(1, np.int32)  # `Support.drawn` of images that no stream has drawn


class Answers(NamedTuple):
    """Hold the answers for N images."""

    logits: np.ndarray  # [N, way]
    probabilities: np.ndarray  # [N, way]
    scores: np.ndarray  # [N], the larger, the better an image fits its class, see `classify_with_scores`
    nearest: np.ndarray | None  # [N] rows of the nearest support images, of a learner that compares embeddings

    @property
    def labels(self) -> np.ndarray:
        """Return the number of the most probable class `[N]`, or -1 where an output is not finite."""
        return labels_of(self.logits)


def labels_of(logits: np.ndarray) -> np.ndarray:
    """Return the number of the largest logit `[N]` of each `[N, way]`, or -1 where one is not finite."""
    return np.where(np.isfinite(logits).all(axis=1), logits.argmax(axis=1), -1)


class Task:
    """Hold a support set as tensors, of which parts can be left out."""

    def __init__(self, model: TrainedModel, support: SupportImages, drawn: np.ndarray | None = None):
        """Make the tensors.

        Args:
            model: the trained learner.
            support: the support set.
            drawn: int32 `[n]`, which decides the mini-batches of reptile; by default those of `DRAWN`, whatever the
                images are, as an exported learner has them.

        Raises:
            RunError: a learner of another package takes equally many images of each class alone.
        """
        self.model, self.counts = model, support.files.counts
        self.way = len(self.counts)
        self.balanced = len(set(self.counts)) == 1
        self.x = model.as_input(support.images)[None]
        self.y = tf.constant(support.labels[None])
        self.drawn = tf.constant((DRAWN if drawn is None else np.asarray(drawn, np.int32))[None])
        if not self.balanced and not takes_any_counts(model):
            raise RunError(
                f"{model.experiment.algorithm.name} takes equally many images of each class: {support.files.name}"
            )

    @property
    def each_its_own(self) -> Support:
        """Return the support set in which every image is the only one of a class of its own."""
        number = self.x.shape[1]
        return Support(self.x, tf.range(number)[None], number, self.drawn, True)

    def whole(self) -> Support:
        """Return the support set. Classes of equally many images take the path of the test."""
        return Support(self.x, self.y, self.way, self.drawn, self.balanced)

    def without(self, row: tf.Tensor) -> Support:
        """Return the support set without one image; `row` is an int32 scalar."""
        rows = self.rest(row)
        x, y = tf.gather(self.x, rows, axis=1), tf.gather(self.y, rows, axis=1)
        return Support(x, y, self.way, self.drawn, False)

    def rest(self, row: tf.Tensor) -> tf.Tensor:
        """Return the rows of all other images, `[S - 1]`."""
        number = self.x.shape[1]
        others = tf.range(number - 1)
        return others + tf.cast(others >= row, tf.int32)


def takes_any_counts(model: TrainedModel) -> bool:
    """Return whether the learner takes classes of different numbers of images."""
    learner = model.learner
    return not isinstance(learner, EmbeddingLearner) or type(learner).summary is not EmbeddingLearner.summary


class Classifier:
    """Classify images by a learner that is adapted to a support set."""

    def __init__(self, model: TrainedModel, support: SupportImages, drawn: np.ndarray | None = None):
        """Adapt the learner; arguments and errors are those of `Task`."""
        self.model, self.task = model, Task(model, support, drawn)
        learner: Any = model.learner
        self.fitted = program(lambda: learner.fit(self.task.whole()))()
        self.by_image = None
        if isinstance(learner, EmbeddingLearner):  # the nearest image is that whose own class would win
            self.by_image = program(lambda: learner.fit(self.task.each_its_own))()
        image = tf.TensorSpec((None, *model.inputs.preprocessing.shape), tf.uint8)
        self._one_by_one = program(self._each, input_signature=[image])
        self._together = program(self._all)

    def classify(self, images: np.ndarray) -> Answers:
        """Return the answers for uint8 images `[N, height, width, channels]` under the protocol.

        Transductive: batch norm sees all N images together. Inductive: the answer for an image has the same bits
        whatever the others are.
        """
        transductive = self.model.learner.problem.protocol == "transductive"
        found = (self._together if transductive else self._one_by_one)(tf.constant(images))
        logits, probabilities, scores, nearest = (each.numpy() for each in found)
        return Answers(logits, probabilities, scores, None if self.by_image is None else nearest)

    def _each(self, images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def one(image: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(each[0] for each in self._all(image[None]))

        dtype = self.task.x.dtype
        way = tf.TensorSpec((self.task.way,), dtype)
        signature = (way, way, tf.TensorSpec((), dtype), tf.TensorSpec((), tf.int32))
        return tf.map_fn(one, images, fn_output_signature=signature, parallel_iterations=1)

    def _all(self, images: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return logits, probabilities, scores and nearest images, `[N, ...]` each, computed together."""
        learner, x = self.model.learner, self.model.as_input(images)[None]
        logits, scores = classify_with_scores(learner, self.fitted, x, self.task.way)
        nearest = tf.zeros(tf.shape(images)[:1], tf.int32)
        if self.by_image is not None:
            each = learner.classify(self.by_image, x, self.task.x.shape[1])
            nearest = tf.argmax(each[0], axis=-1, output_type=tf.int32)
        logits = tf.cast(logits[0], self.task.x.dtype)
        return logits, tf.nn.softmax(logits / self.model.temperature), tf.cast(scores[0], logits.dtype), nearest
