"""Learners that classify tasks by a head on features, and features of all images of a split, computed once."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import tensorflow as tf

from ...datasets.images.features import FeatureSource
from ...datasets.images.source import ImageSource
from ...datasets.tasks import PIXELS_AT_ONCE, Episode, Split
from ..adaptation import body_of, kept, predict_in_parts
from ..embedding import FeatureLearner
from ..learner import SUPPORT, Metrics, Problem, Support
from ..programs import program
from . import Head, build, needs_mean

MOST_BYTES = 2**30  # of the features of a split that are kept
LABELS, DRAWN = "support/y", "support/drawn"  # names, in what `fit` returns, of a support set that is learned later


class HeadLearner(abc.ABC):
    """Classify tasks by a head on features. A subclass defines the features."""

    head: Head
    mean: tf.Variable | None  # the mean feature of the training images, `[D]`, for a head that needs it
    problem: Problem
    variables: list[tf.Variable]
    parameters: dict[str, tf.Variable]

    @abc.abstractmethod
    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Return the features of images, each by itself, `[T, N, *x]` -> `[T, N, D]`."""

    def embed(self, batch: Episode) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the features of supports `[T, S, D]` and queries `[T, Q, D]`."""
        return self.features(batch.support_x), self.features(batch.query_x)

    def evaluate(self, batch: Episode) -> Metrics:
        """Return the metrics of each task."""
        return self.problem.metrics(self.predict(batch), batch.query_y)

    def predict(self, batch: Episode) -> tf.Tensor:
        """Return the head's logits of the queries, `[1, T, Q, way]`."""
        supports, queries = self.embed(batch)
        return self.head.logits(self.head.fit(supports, Support.of_task(batch), self.mean), queries)[None]

    def fit(self, support: Support) -> dict[str, tf.Tensor]:
        """Return what the head learns of support sets."""
        return self.head.fit(self.features(support.x), support, self.mean)

    def classify(self, fitted: Mapping[str, tf.Tensor], query_x: tf.Tensor, way: int | tf.Tensor) -> tf.Tensor:
        """Return the head's logits `[T, Q, way]` of queries `[T, Q, *x]`, given what `fit` returned."""
        return self.head.logits(fitted, self.features(query_x))


class HeadOnFeatures(HeadLearner):
    """Classify tasks by another head on the features of a trained learner.

    Of learners with an embedding the features are that. Of MAML and Reptile they are what the last layer reads, without
    an inner loop (NIL, Raghu et al. 2020, section 5.1); batch norm follows the protocol as in a test without inner
    steps.
    """

    def __init__(self, learner: Any, options: Any):
        """Put the head with these options on the features of `learner`."""
        self.learner, self.head, self.problem = learner, build(options), learner.problem
        self.variables, self.parameters = learner.variables, learner.parameters
        network, self.mean = learner.network, None
        if needs_mean(options):
            own = getattr(learner, "mean", None)
            self.mean = tf.Variable(tf.zeros(network.features, network.dtype)) if own is None else own

    @property
    def lacks_mean(self) -> bool:
        """Return whether the mean of the training images is needed, and the learner has not kept it."""
        return self.mean is not None and self.mean is not getattr(self.learner, "mean", None)

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Return features under batch norm's running averages; of what the last layer reads, with x as one batch."""
        if isinstance(self.learner, FeatureLearner):
            return embedding(self.learner, x)
        return self.learner.network(body_of(self.learner.network), x)

    def embed(self, batch: Episode) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the features of supports and queries under the protocol, see `HeadLearner`."""
        if isinstance(self.learner, FeatureLearner):
            return self.learner.embed(batch)
        return self.features(batch.support_x), self._beside(batch.support_x, batch.query_x)

    def fit(self, support: Support) -> dict[str, tf.Tensor]:
        """Return what the head learns of support sets, and what the protocol needs of them for the features of queries.

        Transductive embeddings of supports depend on the queries, so there `classify` learns.
        """
        if not isinstance(self.learner, FeatureLearner):
            return kept(super().fit(support), support.x, self.learner.network, self.problem.protocol)
        if self.problem.protocol == "transductive":
            return {SUPPORT: support.x, LABELS: support.y, DRAWN: support.drawn}
        return super().fit(support)

    def classify(self, fitted: Mapping[str, tf.Tensor], query_x: tf.Tensor, way: int | tf.Tensor) -> tf.Tensor:
        """Return the head's logits of queries under the protocol, see `HeadLearner`."""
        if SUPPORT not in fitted:
            return super().classify(fitted, query_x, way)
        if not isinstance(self.learner, FeatureLearner):
            return self.head.logits(fitted, self._beside(fitted[SUPPORT], query_x))
        supports, queries = self.learner.embed_images(fitted[SUPPORT], query_x)
        support = Support(fitted[SUPPORT], fitted[LABELS], way, fitted[DRAWN], balanced=False)
        return self.head.logits(self.head.fit(supports, support, self.mean), queries)

    def _beside(self, support_x: tf.Tensor, query_x: tf.Tensor) -> tf.Tensor:
        """Return what the last layer reads of queries, `[T, Q, D]`, under the protocol, as `predict_queries` does."""
        network = self.learner.network
        return predict_in_parts(network, body_of(network), support_x, query_x, self.problem.protocol)

    def centre(self, training: ImageSource) -> None:
        """Compute the mean of the training images from their source, if it is needed and the learner lacks it."""
        if self.lacks_mean:
            assert self.mean is not None
            mean_of(features_of(self.learner, training, "train"), self.mean)


def with_head(learner: Any, options: Any) -> Any:
    """Return a learner with the head that has these options in place of its own; itself if they are None."""
    return learner if options is None else HeadOnFeatures(learner, options)


class OnStoredFeatures(HeadLearner):
    """Classify tasks whose images are stored features, as the learner does that made them."""

    def __init__(self, learner: HeadLearner):
        """Take the head of `learner`."""
        self.head, self.mean, self.problem = learner.head, learner.mean, learner.problem
        self.variables, self.parameters = learner.variables, learner.parameters

    def features(self, x: tf.Tensor) -> tf.Tensor:
        """Return the features themselves, `[T, N, 1, 1, D]` -> `[T, N, D]`."""
        return tf.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))


def embedding(learner: FeatureLearner, x: tf.Tensor) -> tf.Tensor:
    """Return the embeddings of images under batch norm's running averages, `[T, N, *x]` -> `[T, N, D]`."""
    return learner.network(learner.network.parameters, x, running=True)


def features_of(learner: FeatureLearner, source: ImageSource, split: Split) -> Iterator[tf.Tensor]:
    """Yield the embeddings of all images of a split, `[N, D]` each, in the order of `ImageSource.labelled`.

    Args:
        learner: A learner with an embedding.
        source: The source of the images.
        split: The split; turns that are classes are images of their own.
    """
    size, (height, width) = source.size(split), source.input_shape[:2]
    at_once = max(1, min(size, PIXELS_AT_ONCE // (height * width)))

    @program
    def features(first: tf.Tensor) -> tf.Tensor:
        places = tf.minimum(first + tf.range(at_once), size - 1)  # the last batch repeats the last image
        return embedding(learner, source.labelled(split, places)[0][None])[0]

    for first in range(0, size, at_once):
        yield features(tf.constant(first))[: size - first]


def mean_of(batches: Iterable[tf.Tensor], mean: tf.Variable) -> None:
    """Assign to `mean`, `[D]`, the mean of features `[N, D]`."""
    total, count = tf.zeros(mean.shape, tf.float64), 0
    for features in batches:
        total += tf.reduce_sum(tf.cast(features, tf.float64), axis=0)
        count += features.shape[0]
    mean.assign(tf.cast(total / count, mean.dtype))


class Kept(Protocol):
    """Keep the features of a split between two tests."""

    def read(self, first: tf.Tensor, count: int) -> tf.Tensor | None:
        """Return the features of all `count` images `[N, D]`, of which `first` are the first ones, or None."""
        ...

    def take(self, features: tf.Tensor) -> None:
        """Take features `[N, D]` that were computed, to be kept."""
        ...


def stored(
    learner: Any, source: Any, split: Split, kept: Kept | None = None
) -> tuple[HeadLearner, FeatureSource] | None:
    """Return a learner of stored features and a source of these, which give the same tasks and answers up to rounding.

    None where features cannot be stored, see `storing`.

    Args:
        learner: A learner, with the weights to test.
        source: The source of the tasks.
        split: Their split.
        kept: Where features of an earlier test are taken from, or these are kept.
    """
    inner = storing(learner, source, split)
    if inner is None:
        return None
    batches = features_of(inner, source, split)
    first = next(batches)
    features = kept.read(first, source.size(split)) if kept else None
    if features is None:
        features = tf.concat([first, *batches], axis=0)
        if kept:
            kept.take(features)
    return OnStoredFeatures(learner), FeatureSource(source, split, features)


def storing(learner: Any, source: Any, split: Split) -> FeatureLearner | None:
    """Return the learner whose features a test can store, or None.

    None without a head, or where an image's features depend on other images, or are too many. Nor can they be stored
    where they would not be those of the task's image: turns are drawn for each task, or a class derived from
    `ImageSource` may draw tasks in its own way.
    """
    inner = learner.learner if isinstance(learner, HeadOnFeatures) else learner
    if not isinstance(learner, HeadLearner) or type(source) is not ImageSource:
        return None
    if source.rotations[split] == "per-task":
        return None
    if not isinstance(inner, FeatureLearner) or inner.problem.protocol != "inductive":
        return None
    if source.size(split) * inner.network.features * inner.network.dtype.size > MOST_BYTES:
        return None
    return inner
